//! Validation of the opening handshake (RFC 6455 section 4.2): from a request's headers to an accept key or a refusal.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest as _, Sha1};

use super::authority;
use super::fields::{Fields, elements, has_token, is_token_byte, single_text, values};
use crate::limits::SUBPROTOCOLS_MAX;

/// Accepts keys with non-zero trailing bits: the example of RFC 6455 section 4.1 is such a key.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Which origins may connect (RFC 6455 section 10.2). A request without Origin does not come from a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origins {
    /// The host and port of the request only, with its scheme if that is known.
    Same,
    /// Any origin.
    Any,
    /// These origins, each in normal form (`authority::origin`).
    List(Vec<String>),
}

/// A valid handshake request.
#[derive(PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// The value of Sec-WebSocket-Accept.
    pub accept: String,
    /// The offered subprotocols, in the client's order of preference. Bearer tokens among them are left out.
    pub subprotocols: Vec<String>,
    /// The bearer tokens among the offered subprotocols.
    pub(crate) tokens: Vec<String>,
    /// Upgrade or Connection is missing, so that a 101 is not possible.
    pub(crate) is_lost: bool,
}

impl Upgrade {
    /// The subprotocol chosen where the path names the backend: the first one offered. `base64` is skipped, since it
    /// requires encoded payload.
    pub(crate) fn preferred(&self) -> Option<&str> {
        self.subprotocols.iter().map(String::as_str).find(|name| *name != "base64")
    }
}

impl Upgrade {
    /// Whether a 101 with these fields completes the handshake (RFC 6455 section 4.1). `may_extend`: extensions were offered.
    pub(crate) fn is_accepted_by(&self, headers: &Fields, may_extend: bool) -> bool {
        let chosen: Vec<&[u8]> = elements(headers, "sec-websocket-protocol").collect();
        let mut all = self.subprotocols.iter().chain(&self.tokens);
        let mut is_offered = |name: &[u8]| all.any(|offered| offered.as_bytes() == name);
        let extends = values(headers, "sec-websocket-extensions").any(|value| !value.is_empty());
        is_asked(headers)
            && single_text(headers, "sec-websocket-accept") == Some(&*self.accept)
            && chosen.len() <= 1
            && chosen.into_iter().all(&mut is_offered)
            && (may_extend || !extends)
    }
}

/// Why a request is refused. Display is the operator's sentence and the reply's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum UpgradeError {
    Method,
    Body,
    HttpVersion,
    Lost,
    Version,
    Key,
    Subprotocols,
    Extensions,
    Origin,
}

impl UpgradeError {
    /// The HTTP status of the refusal.
    pub(crate) fn status(self) -> u16 {
        match self {
            UpgradeError::Method => 405,
            UpgradeError::Version | UpgradeError::Lost => 426,
            UpgradeError::Origin => 403,
            UpgradeError::Body
            | UpgradeError::HttpVersion
            | UpgradeError::Key
            | UpgradeError::Subprotocols
            | UpgradeError::Extensions => 400,
        }
    }
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UpgradeError::Method => "a WebSocket handshake is a GET",
            UpgradeError::Body => "a WebSocket handshake has no body",
            UpgradeError::HttpVersion => "a WebSocket handshake needs HTTP/1.1: a proxy in front must speak it too",
            UpgradeError::Lost => {
                "this WebSocket handshake lost its Upgrade or Connection header: a proxy in front must speak HTTP/1.1 and \
                 pass both on"
            }
            UpgradeError::Version => "only Sec-WebSocket-Version 13 is spoken here",
            UpgradeError::Key => "Sec-WebSocket-Key must be one base64 value of 16 bytes",
            UpgradeError::Subprotocols => "Sec-WebSocket-Protocol must be a list of different tokens",
            UpgradeError::Extensions => "Sec-WebSocket-Extensions must be a list of extensions with parameters",
            UpgradeError::Origin => "the page's origin is not allowed",
        })
    }
}

/// Whether Upgrade has `websocket` and Connection has `upgrade`.
pub fn is_asked(headers: &Fields) -> bool {
    has_token(headers, "upgrade", "websocket") && has_token(headers, "connection", "upgrade")
}

/// Whether a proxy removed Upgrade or Connection from a handshake, as it does unless configured to pass them on (RFC 9110
/// section 7.6.1). Sec-WebSocket-Key identifies a handshake: scripts cannot set it.
pub(crate) fn is_lost(method: &str, headers: &Fields) -> bool {
    method == "GET" && !is_asked(headers) && values(headers, "sec-websocket-key").next().is_some()
}

/// Validates a handshake, including one whose Upgrade was lost. `host` is the request's authority, `is_tls` whether its
/// client uses https (None: not known).
pub fn check(
    method: &str,
    http_1_1: bool,
    host: &str,
    is_tls: Option<bool>,
    headers: &Fields,
    origins: &Origins,
) -> Result<Upgrade, UpgradeError> {
    if method != "GET" {
        return Err(UpgradeError::Method);
    }
    let is_lost = is_lost(method, headers);
    // A proxy that removes Upgrade often speaks HTTP/1.0: the lost header is the more useful error.
    if !http_1_1 && !is_lost {
        return Err(UpgradeError::HttpVersion);
    }
    if single_text(headers, "sec-websocket-version") != Some("13") {
        return Err(UpgradeError::Version);
    }
    let accept = single_text(headers, "sec-websocket-key").and_then(accept_key).ok_or(UpgradeError::Key)?;
    let (subprotocols, tokens) = subprotocols(headers).ok_or(UpgradeError::Subprotocols)?;
    // No extension is implemented, but a malformed offer fails the handshake (RFC 6455 section 9.1).
    if !values(headers, "sec-websocket-extensions").all(are_extensions) {
        return Err(UpgradeError::Extensions);
    }
    check_origin(headers, host, is_tls, origins)?;
    Ok(Upgrade { accept, subprotocols, tokens, is_lost })
}

/// Sec-WebSocket-Accept for a key. None: the key is not base64 of 16 bytes.
fn accept_key(key: &str) -> Option<String> {
    if LENIENT.decode(key).ok()?.len() != 16 {
        return None;
    }
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    Some(STANDARD.encode(sha1.finalize()))
}

/// The offered subprotocols, and the bearer tokens among them. None: an element is not a token, is repeated, or there are too many.
fn subprotocols(headers: &Fields) -> Option<(Vec<String>, Vec<String>)> {
    let mut offered: Vec<&str> = Vec::new();
    for element in elements(headers, "sec-websocket-protocol") {
        let token = std::str::from_utf8(element).ok().filter(|token| token.bytes().all(is_token_byte))?;
        if offered.len() == SUBPROTOCOLS_MAX || offered.contains(&token) {
            return None;
        }
        offered.push(token);
    }
    let before = std::iter::once("").chain(offered.iter().copied());
    let (tokens, names): (Vec<_>, Vec<_>) =
        offered.iter().zip(before).partition(|(element, before)| is_bearer_token(element, before));
    let owned = |all: Vec<(&&str, &str)>| all.into_iter().map(|(element, _)| (*element).to_owned()).collect();
    Some((owned(names), owned(tokens)))
}

/// Scripts cannot set Authorization, so some offer a bearer token (RFC 6750) as a subprotocol: with a prefix, or after an
/// element that announces it. It is a secret: never selected, sent back or logged.
fn is_bearer_token(element: &str, before: &str) -> bool {
    let has_prefix =
        |prefix: &str| element.get(..prefix.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(prefix));
    has_prefix("bearer.")
        || has_prefix("base64url.bearer.")
        || ["bearer", "access_token"].iter().any(|name| before.eq_ignore_ascii_case(name))
}

/// Whether this is a list of extensions, each a token with parameters (RFC 6455 section 9.1).
fn are_extensions(value: &[u8]) -> bool {
    let mut rest = value;
    loop {
        rest = skip(rest, |byte| matches!(byte, b' ' | b'\t' | b','));
        if rest.is_empty() {
            return true;
        }
        let Some(after) = take_extension(rest) else { return false };
        if !after.is_empty() && !after.starts_with(b",") {
            return false;
        }
        rest = after;
    }
}

/// Consumes an extension and trailing blanks; returns the rest.
fn take_extension(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = skip_blanks(take_token(bytes)?);
    while let Some(parameter) = rest.strip_prefix(b";") {
        rest = skip_blanks(take_token(skip_blanks(parameter))?);
        if let Some(value) = rest.strip_prefix(b"=") {
            let value = skip_blanks(value);
            rest = skip_blanks(take_token(value).or_else(|| take_quoted_token(value))?);
        }
    }
    Some(rest)
}

/// Consumes a token; returns the rest.
fn take_token(bytes: &[u8]) -> Option<&[u8]> {
    let rest = skip(bytes, is_token_byte);
    (rest.len() < bytes.len()).then_some(rest)
}

/// Consumes a quoted-string that is a token when unquoted; returns the rest.
fn take_quoted_token(bytes: &[u8]) -> Option<&[u8]> {
    let inner = bytes.strip_prefix(b"\"")?;
    let mut rest = inner;
    while let Some((&byte, after)) = rest.strip_prefix(b"\\").unwrap_or(rest).split_first()
        && is_token_byte(byte)
    {
        rest = after;
    }
    rest.strip_prefix(b"\"").filter(|_| rest.len() < inner.len())
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    skip(bytes, |byte| matches!(byte, b' ' | b'\t'))
}

fn skip(bytes: &[u8], is_skipped: impl Fn(u8) -> bool) -> &[u8] {
    &bytes[bytes.iter().position(|byte| !is_skipped(*byte)).unwrap_or(bytes.len())..]
}

/// The values of Origin, for the log.
pub(crate) fn shown_origin(headers: &Fields) -> String {
    let all: Vec<_> = values(headers, "origin").map(String::from_utf8_lossy).collect();
    all.join(", ")
}

fn check_origin(headers: &Fields, host: &str, is_tls: Option<bool>, origins: &Origins) -> Result<(), UpgradeError> {
    if *origins == Origins::Any || values(headers, "origin").next().is_none() {
        return Ok(());
    }
    let origin = single_text(headers, "origin").and_then(authority::origin).ok_or(UpgradeError::Origin)?;
    let good = match origins {
        Origins::Any => true,
        Origins::Same => authority::is_origin_of(&origin, host, is_tls),
        Origins::List(list) => list.contains(&origin),
    };
    if good { Ok(()) } else { Err(UpgradeError::Origin) }
}

#[cfg(test)]
mod tests;
