//! Replies the gateway writes itself: a status line, few headers, a short body.

use super::date::Date;

/// The methods that are served, as a header line.
pub const ALLOW: &str = "Allow: GET, HEAD, OPTIONS\r\n";

/// The reason phrase of the statuses that uakari sends (RFC 9110 section 15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// A reply's head; `fields` are whole header lines, each with its CRLF.
pub fn head(status: u16, fields: &str, keep_alive: bool, date: &Date) -> String {
    let connection = match (status, keep_alive) {
        // An Upgrade field is named in Connection (RFC 9110 section 7.8).
        (426, true) => "upgrade, keep-alive",
        (426, false) => "upgrade, close",
        (_, true) => "keep-alive",
        (_, false) => "close",
    };
    let (phrase, date) = (phrase(status), date.text());
    format!("HTTP/1.1 {status} {phrase}\r\nServer: uakari\r\nDate: {date}\r\n{fields}Connection: {connection}\r\n\r\n")
}

/// A refusal with a body of one sentence; to a HEAD request the body is not sent. `fields` are more header lines.
pub fn refusal(status: u16, sentence: &str, fields: &str, keep_alive: bool, is_head: bool, date: &Date) -> Box<[u8]> {
    let body = format!("{status} {}: {sentence}\n", phrase(status));
    let own = match status {
        405 => ALLOW,
        426 => "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n",
        503 => "Retry-After: 5\r\n",
        _ => "",
    };
    let size = body.len();
    let fields = format!("{own}{fields}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {size}\r\n");
    let mut reply = head(status, &fields, keep_alive, date);
    if !is_head {
        reply.push_str(&body);
    }
    reply.into_bytes().into()
}

/// The reply that ends the opening handshake (RFC 6455 section 4.2.2).
pub fn switching_protocols(accept: &str, subprotocol: Option<&str>) -> Box<[u8]> {
    let chosen = subprotocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    format!(
        "HTTP/1.1 101 {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{chosen}\r\n",
        phrase(101)
    )
    .into_bytes()
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_the_rfcs_ask_for() {
        let date = Date::default();
        for (status, field) in [
            (405, "Allow: GET, HEAD, OPTIONS"),
            (426, "Sec-WebSocket-Version: 13"),
            (503, "Retry-After: "),
            (404, "Content-Length: "),
            (404, "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
            (416, "Content-Range: bytes */5\r\n"),
        ] {
            let more = if status == 416 { "Content-Range: bytes */5\r\n" } else { "" };
            let text = String::from_utf8(refusal(status, "why", more, false, false, &date).into()).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && text.contains(field), "{text}");
            assert!(text.ends_with(": why\n") && text.contains("close\r\n"), "{text}");
        }
        assert!(refusal(404, "why", "", true, true, &date).ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn every_status_has_its_phrase() {
        for status in [101, 200, 204, 206, 301, 304, 400, 403, 404, 405, 406, 408, 412, 414, 416, 417, 426, 431] {
            assert_ne!(phrase(status), "Unknown", "{status}");
        }
        for status in [500, 501, 502, 503, 504, 505] {
            assert_ne!(phrase(status), "Unknown", "{status}");
        }
    }
}
