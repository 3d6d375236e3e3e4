//! Messages as requests of HTTP/1.1 (RFC 9112), which a link of type `http` of the gateway passes on. A connection has one
//! request: `POST PATH` with Content-Length, and a message as its body.

use std::net::IpAddr;

use super::limits::{HEAD_SIZE_MAX, MESSAGE_SIZE_MAX};
use super::message::{Refusal, Reply, answer};

/// The path of all requests (RFC 8615).
pub const PATH: &str = "/.well-known/uakari/enroll";

/// The interim reply to a client that waits for it (RFC 9110 section 15.2.1).
pub(crate) const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// What the received bytes are.
#[derive(PartialEq, Eq, Debug)]
pub enum Found {
    /// A head whose client waits for `CONTINUE`. It is found once.
    Continue,
    /// A request, or why there is none. The connection has no other one.
    Message {
        /// The last address of X-Forwarded-For, which is the gateway's own word. None: it has sent none.
        address: Option<IpAddr>,
        /// The body.
        text: Result<Vec<u8>, Refusal>,
    },
}

/// The request of a connection, as far as it was received.
#[derive(Debug, Default)]
pub struct Finder {
    bytes: Vec<u8>,
    head: Option<Head>,
}

#[derive(Clone, Debug)]
struct Head {
    /// Its size with the empty line.
    size: usize,
    body_size: usize,
    address: Option<IpAddr>,
}

impl Finder {
    /// Takes these bytes. None: the request is not complete.
    pub fn next(&mut self, bytes: &[u8]) -> Option<Found> {
        self.bytes.extend_from_slice(bytes);
        let mut is_awaited = false;
        if self.head.is_none() {
            let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end.filter(|end| *end < HEAD_SIZE_MAX) else {
                let is_long = self.bytes.len() >= HEAD_SIZE_MAX;
                return is_long.then_some(Found::Message { address: None, text: Err(Refusal::TooLong) });
            };
            let text = String::from_utf8_lossy(self.bytes.get(..end).unwrap_or_default());
            let address = address(&text);
            match body(&text) {
                Ok((body_size, awaits)) => {
                    self.head = Some(Head { size: end + 4, body_size, address });
                    is_awaited = awaits;
                }
                Err(refusal) => return Some(Found::Message { address, text: Err(refusal) }),
            }
        }
        let head = self.head.as_ref()?;
        let body = self.bytes.get(head.size..head.size + head.body_size);
        match body {
            Some(body) => Some(Found::Message { address: head.address, text: Ok(body.to_vec()) }),
            None => is_awaited.then_some(Found::Continue),
        }
    }
}

/// The values of a field.
fn values<'a>(head: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn address(head: &str) -> Option<IpAddr> {
    let last = values(head, "X-Forwarded-For").last()?.rsplit(',').next()?;
    last.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The size of the body, and whether the client waits for `CONTINUE` before it.
fn body(head: &str) -> Result<(usize, bool), Refusal> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1"), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed);
    };
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    let is_field =
        |line: &str| line.split_once(':').is_some_and(|(name, _)| is_name(name)) && !line.contains(['\r', '\n']);
    if !lines.all(is_field) {
        return Err(Refusal::Malformed);
    }
    if target.split('?').next() != Some(PATH) {
        return Err(Refusal::Path);
    }
    if method != "POST" {
        return Err(Refusal::Method);
    }
    let mut lengths = values(head, "Content-Length");
    let (Some(length), None, None) = (lengths.next(), lengths.next(), values(head, "Transfer-Encoding").next()) else {
        return Err(Refusal::Length);
    };
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::Malformed);
    }
    // A number that is too long for the type is too long for a message.
    let size = length.parse().ok().filter(|size| *size <= MESSAGE_SIZE_MAX).ok_or(Refusal::TooLong)?;
    Ok((size, values(head, "Expect").any(|value| value.eq_ignore_ascii_case("100-continue"))))
}

/// The reply, after which the connection ends.
pub(crate) fn reply(result: &Result<Reply, Refusal>) -> String {
    let (status, reason) = match result {
        Ok(_) => (200, "OK"),
        Err(Refusal::Malformed | Refusal::Invalid) => (400, "Bad Request"),
        Err(Refusal::Token | Refusal::Refused(_) | Refusal::Login | Refusal::Forbidden | Refusal::NoUsers) => {
            (403, "Forbidden")
        }
        Err(Refusal::Path) => (404, "Not Found"),
        Err(Refusal::Method) => (405, "Method Not Allowed"),
        Err(Refusal::Length) => (411, "Length Required"),
        Err(Refusal::TooLong) => (413, "Content Too Large"),
        Err(Refusal::Wait { .. }) => (429, "Too Many Requests"),
        Err(Refusal::Failed) => (500, "Internal Server Error"),
        Err(Refusal::Busy) => (503, "Service Unavailable"),
    };
    let text = answer(result) + "\n";
    let wait_ms = result.as_ref().err().and_then(Refusal::wait_ms);
    let wait = wait_ms.map_or(String::new(), |wait_ms| format!("Retry-After: {}\r\n", wait_ms.div_ceil(1_000)));
    let allow = if status == 405 { "Allow: POST\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{wait}{allow}Connection: close\r\n\r\n{text}",
        text.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a stream that arrives `step` bytes at a time.
    fn found(stream: &str, step: usize) -> Vec<Found> {
        let mut finder = Finder::default();
        let mut all = Vec::new();
        for piece in stream.as_bytes().chunks(step) {
            all.extend(finder.next(piece));
            if matches!(all.last(), Some(Found::Message { .. })) {
                break;
            }
        }
        all
    }

    fn post(fields: &str, body: &str) -> String {
        format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
    }

    #[test]
    fn requests_however_they_are_divided() {
        let message = |address: Option<&str>, text| {
            vec![Found::Message { address: address.map(|address| address.parse().unwrap()), text }]
        };
        let refused = |refusal| message(None, Err(refusal));
        let with_line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
        for (stream, all) in [
            (post("", "{}"), message(None, Ok(b"{}".to_vec()))),
            (post("", ""), message(None, Ok(Vec::new()))),
            (post("x-forwarded-for: 192.0.2.1\r\n", "{}"), message(Some("192.0.2.1"), Ok(b"{}".to_vec()))),
            (
                post("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.0.0.1, ::ffff:192.0.2.2\r\n", "{}"),
                message(Some("192.0.2.2"), Ok(b"{}".to_vec())),
            ),
            (post("X-Forwarded-For: unknown\r\n", "{}"), message(None, Ok(b"{}".to_vec()))),
            (post("Transfer-Encoding: chunked\r\n", ""), refused(Refusal::Length)),
            (post("Content-Length: 2\r\n", "{}"), refused(Refusal::Length)),
            (post("no field\r\n", "{}"), refused(Refusal::Malformed)),
            (post("a b: c\r\n", "{}"), refused(Refusal::Malformed)),
            (post("a: b\nc: d\r\n", "{}"), refused(Refusal::Malformed)),
            (with_line(&format!("POST {PATH} HTTP/1.1")), refused(Refusal::Length)),
            (with_line(&format!("GET {PATH} HTTP/1.1")), refused(Refusal::Method)),
            (with_line("POST / HTTP/1.1"), refused(Refusal::Path)),
            (with_line(&format!("POST {PATH}")), refused(Refusal::Malformed)),
            (with_line(&format!("POST {PATH} HTTP/1.1\r\nContent-Length: +2")), refused(Refusal::Malformed)),
            (
                with_line(&format!("POST {PATH} HTTP/1.1\r\nContent-Length: {}", MESSAGE_SIZE_MAX + 1)),
                refused(Refusal::TooLong),
            ),
            (
                with_line(&format!("POST {PATH} HTTP/1.1\r\nContent-Length: 99999999999999999999999")),
                refused(Refusal::TooLong),
            ),
            ("{}".to_owned(), Vec::new()),
        ] {
            for step in 1..=stream.len() {
                assert_eq!(found(&stream, step), all, "{stream} {step}");
            }
        }
    }

    #[test]
    fn continue_is_found_once_before_the_body() {
        let stream = post("Expect: 100-Continue\r\n", "{}");
        assert!(!found(&stream, stream.len()).contains(&Found::Continue));
        for step in [1, stream.len() - 1] {
            assert_eq!(found(&stream, step).iter().filter(|found| **found == Found::Continue).count(), 1, "{step}");
        }
    }

    #[test]
    fn a_head_has_a_size_limit() {
        let endless = "x".repeat(HEAD_SIZE_MAX);
        assert_eq!(found(&endless, 1_000), [Found::Message { address: None, text: Err(Refusal::TooLong) }]);
    }

    #[test]
    fn replies_have_the_answer_as_their_body() {
        for (refusal, first, field) in [
            (Refusal::Token, "HTTP/1.1 403 ", ""),
            (Refusal::Method, "HTTP/1.1 405 ", "\r\nAllow: POST\r\n"),
            (Refusal::Wait { wait_ms: 1_001 }, "HTTP/1.1 429 ", "\r\nRetry-After: 2\r\n"),
            (Refusal::Busy, "HTTP/1.1 503 ", "\r\nRetry-After: 1\r\n"),
        ] {
            let result = Err(refusal);
            let text = reply(&result);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(first) && text.contains(field), "{text}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
            assert_eq!(body.trim_end(), answer(&result));
        }
    }
}
