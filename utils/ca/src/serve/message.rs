//! The messages: one JSON object each way. docs/authority.md lists them.

use std::fmt;

use serde_json::{Map, Value, json};

use super::http::PATH;
use super::limits::{BUSY_MS, MESSAGE_SIZE_MAX};

/// What a client asks for. It has no Debug, since it contains secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// A first certificate, for a one-time token.
    Enrol {
        /// The token.
        token: String,
        /// The certificate signing request, PEM.
        csr: String,
    },
    /// The renewal of a certificate.
    Extend {
        /// The certificate, PEM.
        certificate: String,
        /// The certificate signing request with the same key, PEM.
        csr: String,
    },
    /// The authority's certificate.
    Authority,
    /// What the authority's certificate tells.
    Status,
    /// What only the group root may do.
    Manage {
        /// What to do.
        action: Action,
        /// The user's name.
        user: String,
        /// The user's password.
        password: String,
    },
}

/// What only the group root may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Show the whole state.
    Status,
    /// Renew the authority's certificate.
    Renew,
}

/// Why a request is not fulfilled. Display is the message for the client; it contains no secret and no path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Not a JSON object. The connection ends.
    Malformed,
    /// Longer than `MESSAGE_SIZE_MAX`. The connection ends.
    TooLong,
    /// A JSON object that is no request.
    Invalid,
    /// Over HTTP, another path. The connection ends.
    Path,
    /// Over HTTP, another method than POST. The connection ends.
    Method,
    /// Over HTTP, a body without Content-Length. The connection ends.
    Length,
    /// The token is unknown, used or expired.
    Token,
    /// The authority refuses the certificate or the signing request, with this reason.
    Refused(String),
    /// No such user, or another password.
    Login,
    /// Only the group root may do this.
    Forbidden,
    /// The server was started without `--users`.
    NoUsers,
    /// A rate limit.
    Wait {
        /// Milliseconds until the next attempt.
        wait_ms: u64,
    },
    /// Too many other requests. An address with too many connections loses this one.
    Busy,
    /// The authority or the database of users has failed; the log has the reason.
    Failed,
}

impl Refusal {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::TooLong => "too-long",
            Refusal::Invalid => "invalid",
            Refusal::Path => "path",
            Refusal::Method => "method",
            Refusal::Length => "length",
            Refusal::Token => "token",
            Refusal::Refused(_) => "refused",
            Refusal::Login => "login",
            Refusal::Forbidden | Refusal::NoUsers => "forbidden",
            Refusal::Wait { .. } => "wait",
            Refusal::Busy => "busy",
            Refusal::Failed => "failed",
        }
    }

    /// Whether the connection ends after the answer: the start of the next message is unknown.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Refusal::Malformed | Refusal::TooLong | Refusal::Path | Refusal::Method | Refusal::Length)
    }

    pub(crate) fn wait_ms(&self) -> Option<u64> {
        match self {
            Refusal::Wait { wait_ms } => Some(*wait_ms),
            Refusal::Busy => Some(BUSY_MS),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed => f.write_str("a message is one JSON object"),
            Refusal::TooLong => write!(f, "a message has at most {MESSAGE_SIZE_MAX} bytes"),
            Refusal::Invalid => f.write_str("the object is no request: docs/authority.md lists the requests"),
            Refusal::Path | Refusal::Method => write!(f, "requests are POST {PATH}"),
            Refusal::Length => f.write_str("a request has Content-Length, and no Transfer-Encoding"),
            Refusal::Token => f.write_str("the token is not valid: it is unknown, used or expired"),
            Refusal::Refused(reason) => f.write_str(reason),
            Refusal::Login => f.write_str("user or password not found"),
            Refusal::Forbidden => f.write_str("only the root group may do that"),
            Refusal::NoUsers => f.write_str("nobody may do that here: the server runs without --users"),
            Refusal::Wait { wait_ms } => write!(f, "too many attempts: wait {} s", wait_ms.div_ceil(1_000)),
            Refusal::Busy => f.write_str("the server is busy: try again"),
            Refusal::Failed => f.write_str("the authority has failed; the server's log says why"),
        }
    }
}

/// A fulfilled request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Reply {
    /// A new certificate, and the authority's: both PEM.
    Certificate {
        certificate: String,
        authority: String,
    },
    /// The authority's certificate, PEM.
    Authority(String),
    Status(Value),
}

/// The text of an answer, without a line end.
pub(crate) fn answer(result: &Result<Reply, Refusal>) -> String {
    let value = match result {
        Ok(Reply::Certificate { certificate, authority }) => {
            json!({ "certificate": certificate, "authority": authority })
        }
        Ok(Reply::Authority(authority)) => json!({ "authority": authority }),
        Ok(Reply::Status(status)) => json!({ "status": status }),
        Err(refusal) => {
            let mut error = Map::new();
            error.insert("code".to_owned(), refusal.code().into());
            error.insert("message".to_owned(), refusal.to_string().into());
            error.extend(refusal.wait_ms().map(|wait_ms| ("wait_ms".to_owned(), wait_ms.into())));
            json!({ "error": error })
        }
    };
    value.to_string()
}

/// Parses a message. Keys that are not known are refused, so that a misspelt one is not ignored.
pub fn parse(text: &[u8]) -> Result<Request, Refusal> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(text) else { return Err(Refusal::Malformed) };
    let mut strings = Vec::new();
    for (key, value) in fields {
        let Value::String(value) = value else { return Err(Refusal::Invalid) };
        strings.push((key, value));
    }
    strings.sort();
    let mut values = strings.iter_mut().map(|(_, value)| std::mem::take(value));
    let mut next = || values.next().unwrap_or_default();
    let first = next();
    let (second, third) = (next(), next());
    let keys: Vec<&str> = strings.iter().map(|(key, _)| key.as_str()).collect();
    match (&keys[..], first.as_str()) {
        (["csr", "token"], _) => Ok(Request::Enrol { csr: first, token: second }),
        (["certificate", "csr"], _) => Ok(Request::Extend { certificate: first, csr: second }),
        (["get"], "authority") => Ok(Request::Authority),
        (["get"], "status") => Ok(Request::Status),
        (["do", "passwd", "user"], "status") => Ok(manage(Action::Status, third, second)),
        (["do", "passwd", "user"], "renew") => Ok(manage(Action::Renew, third, second)),
        _ => Err(Refusal::Invalid),
    }
}

fn manage(action: Action, user: String, password: String) -> Request {
    Request::Manage { action, user, password }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_parsed() {
        let own = str::to_owned;
        for (text, request) in [
            (r#"{"token":"T","csr":"C"}"#, Request::Enrol { token: own("T"), csr: own("C") }),
            (r#" { "csr" : "C" , "token" : "\u0054" } "#, Request::Enrol { token: own("T"), csr: own("C") }),
            (r#"{"csr":"C","certificate":"D"}"#, Request::Extend { certificate: own("D"), csr: own("C") }),
            (r#"{"get":"authority"}"#, Request::Authority),
            (r#"{"get":"status"}"#, Request::Status),
            (r#"{"do":"renew","user":"u","passwd":"p"}"#, manage(Action::Renew, own("u"), own("p"))),
            (r#"{"passwd":"","user":"","do":"status"}"#, manage(Action::Status, own(""), own(""))),
        ] {
            assert!(parse(text.as_bytes()) == Ok(request), "{text}");
        }
    }

    #[test]
    fn other_objects_are_refused() {
        let deep = format!("{{\"get\":{}{}}}", "[".repeat(500), "]".repeat(500));
        for (text, refusal) in [
            ("", Refusal::Malformed),
            ("{", Refusal::Malformed),
            ("[]", Refusal::Malformed),
            ("\"get\"", Refusal::Malformed),
            ("{} {}", Refusal::Malformed),
            ("{\"get\":\"\\ud800\"}", Refusal::Malformed),
            (&deep, Refusal::Malformed),
            ("{}", Refusal::Invalid),
            (r#"{"get":"key"}"#, Refusal::Invalid),
            (r#"{"get":7}"#, Refusal::Invalid),
            (r#"{"get":["status"]}"#, Refusal::Invalid),
            (r#"{"Get":"status"}"#, Refusal::Invalid),
            (r#"{"get":"status","more":""}"#, Refusal::Invalid),
            (r#"{"token":"T"}"#, Refusal::Invalid),
            (r#"{"token":"T","csr":null}"#, Refusal::Invalid),
            (r#"{"token":"T","csr":"C","certificate":"D"}"#, Refusal::Invalid),
            (r#"{"do":"init","user":"u","passwd":"p"}"#, Refusal::Invalid),
            (r#"{"do":"renew"}"#, Refusal::Invalid),
        ] {
            assert!(parse(text.as_bytes()) == Err(refusal), "{text}");
        }
        assert!(parse(b"{\"get\":\"\xff\"}") == Err(Refusal::Malformed));
    }

    #[test]
    fn answers_are_one_line() {
        for (result, text) in [
            (
                Ok(Reply::Certificate { certificate: "a\nb".to_owned(), authority: "c".to_owned() }),
                r#"{"authority":"c","certificate":"a\nb"}"#,
            ),
            (Ok(Reply::Authority("c".to_owned())), r#"{"authority":"c"}"#),
            (Ok(Reply::Status(json!({ "state": "valid" }))), r#"{"status":{"state":"valid"}}"#),
            (Err(Refusal::Login), r#"{"error":{"code":"login","message":"user or password not found"}}"#),
            (
                Err(Refusal::Wait { wait_ms: 1_001 }),
                r#"{"error":{"code":"wait","message":"too many attempts: wait 2 s","wait_ms":1001}}"#,
            ),
        ] {
            assert_eq!(answer(&result), text);
        }
    }
}
