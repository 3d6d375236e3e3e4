//! Messages that are passed on between clients and the nodes of an upstream: request heads, reply heads, paths (RFC 9110
//! section 7.6). Each head is written anew: fields of one connection are left out, and the framing is that of the new
//! connection.

pub(crate) mod path;
mod redirection;
mod reply;
mod request;

pub(crate) use redirection::Rewrite;
pub(crate) use reply::{BodyOut, ReplyParts, interim_head, reply_head, switching_head};
pub(crate) use request::{RequestParts, request_head, via_count};

use super::fields::{Fields, elements};

/// The name by which Via knows this gateway (RFC 9110 section 7.6.3).
const PSEUDONYM: &str = "uakari";

/// The longest name that `Kind::of` knows in full.
const KNOWN_NAME_SIZE_MAX: usize = 26;

/// What a field is to a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It belongs to one connection (RFC 9110 section 7.6.1), or must not reach a node.
    HopByHop,
    /// It names the client, its request or its user: only the gateway may say that to a node.
    Forwarded,
    /// Content-Length. Written anew.
    Length,
    Host,
    Expect,
    Upgrade,
    Trailer,
    Authorization,
    Cookie,
    /// Sec-WebSocket-Key, -Version, -Protocol, -Accept.
    WebSocket,
    /// Sec-WebSocket-Extensions.
    Extensions,
    Location,
    Refresh,
    SetCookie,
    Date,
    /// Strict-Transport-Security.
    Hsts,
    /// Any other one.
    EndToEnd,
}

impl Kind {
    /// The kind of the field with this name, in any case and with any other character for "-": in the environment of a
    /// CGI program `X_Forwarded_User` is the same variable as X-Forwarded-User. Such another spelling of a field that is
    /// passed on is `HopByHop`, so that it is left out.
    fn of(name: &str) -> Kind {
        let mut folded = [0; KNOWN_NAME_SIZE_MAX];
        let size = name.len().min(KNOWN_NAME_SIZE_MAX);
        let mut is_exact = true;
        for (to, byte) in folded.iter_mut().zip(name.bytes()) {
            *to = if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
            is_exact &= byte.is_ascii_alphanumeric() || byte == b'-';
        }
        let folded = &folded[..size];
        if folded.starts_with(b"x-forwarded") {
            return Kind::Forwarded;
        }
        if name.len() > KNOWN_NAME_SIZE_MAX {
            return Kind::EndToEnd;
        }
        let kind = match folded {
            b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-authentication-info"
            | b"te"
            | b"transfer-encoding"
            | b"http2-settings" => Kind::HopByHop,
            // Proxy is no field of HTTP, but the variable HTTP_PROXY of a CGI program (CVE-2016-5385).
            b"forwarded" | b"x-real-ip" | b"x-client-ip" | b"x-cluster-client-ip" | b"true-client-ip" | b"proxy" => {
                Kind::Forwarded
            }
            // Frameworks take them for the path of the request, which the rules of access have not seen
            // (CVE-2018-14773).
            b"x-original-url" | b"x-rewrite-url" => Kind::Forwarded,
            b"content-length" => Kind::Length,
            b"host" => Kind::Host,
            b"expect" => Kind::Expect,
            b"upgrade" => Kind::Upgrade,
            b"trailer" => Kind::Trailer,
            b"authorization" => Kind::Authorization,
            b"cookie" => Kind::Cookie,
            b"sec-websocket-key" | b"sec-websocket-version" | b"sec-websocket-protocol" | b"sec-websocket-accept" => {
                Kind::WebSocket
            }
            b"sec-websocket-extensions" => Kind::Extensions,
            b"location" | b"content-location" => Kind::Location,
            b"refresh" => Kind::Refresh,
            b"set-cookie" => Kind::SetCookie,
            b"date" => Kind::Date,
            b"strict-transport-security" => Kind::Hsts,
            _ => return Kind::EndToEnd,
        };
        if is_exact || kind == Kind::Forwarded { kind } else { Kind::HopByHop }
    }
}

/// The fields that Connection names (RFC 9110 section 7.6.1).
struct Named<'a> {
    fields: &'a Fields<'a>,
    /// Whether there are any besides those that are never passed on.
    is_any: bool,
}

impl<'a> Named<'a> {
    fn of(fields: &'a Fields<'a>) -> Named<'a> {
        let is_plain = |one: &[u8]| {
            ["keep-alive", "close", "upgrade", "te"].iter().any(|known| one.eq_ignore_ascii_case(known.as_bytes()))
        };
        Named { fields, is_any: elements(fields, "connection").any(|one| !is_plain(one)) }
    }

    fn has(&self, name: &str) -> bool {
        self.is_any && elements(self.fields, "connection").any(|one| one.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Writes a field.
fn put(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    debug_assert!(!value.contains(&b'\r') && !value.contains(&b'\n'));
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// Writes a field with a number.
fn put_number(head: &mut Vec<u8>, name: &str, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    put(head, name, &digits[at..]);
}

/// Bytes of all fields as they are written.
fn size(fields: &Fields) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_fields() {
        for (name, kind) in [
            ("Connection", Kind::HopByHop),
            ("KEEP-ALIVE", Kind::HopByHop),
            ("Transfer_Encoding", Kind::HopByHop),
            ("content-length", Kind::Length),
            ("Content_Length", Kind::HopByHop),
            ("Content.Length", Kind::HopByHop),
            ("X-Forwarded-For", Kind::Forwarded),
            ("x_forwarded_user", Kind::Forwarded),
            ("X-Forwarded_Client-Cert-With-A-Long-Name", Kind::Forwarded),
            ("X-ForwardedFor", Kind::Forwarded),
            ("X-Original_URL", Kind::Forwarded),
            ("PROXY", Kind::Forwarded),
            ("Sec-WebSocket-Extensions", Kind::Extensions),
            ("Sec_WebSocket_Key", Kind::HopByHop),
            ("Upgrade-Insecure-Requests", Kind::EndToEnd),
            ("X-Forward", Kind::EndToEnd),
            ("A-Name-That-Is-Longer-Than-The-Known-Ones", Kind::EndToEnd),
            ("X", Kind::EndToEnd),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 1234567890, u64::MAX] {
            let mut head = Vec::new();
            put_number(&mut head, "N", number);
            assert_eq!(head, format!("N: {number}\r\n").as_bytes());
        }
    }
}
