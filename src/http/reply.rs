//! Replies the gateway writes itself: a status line, few headers, a short body.

/// The reason phrase of the statuses that uakari sends (RFC 9110 section 15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        301 => "Moved Permanently",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// A reply's head; `fields` are whole header lines, each with its CRLF.
pub fn head(status: u16, fields: &str, keep_alive: bool) -> String {
    let connection = match (status, keep_alive) {
        // An Upgrade field is named in Connection (RFC 9110 section 7.8).
        (426, _) => "upgrade, close",
        (_, true) => "keep-alive",
        (_, false) => "close",
    };
    format!("HTTP/1.1 {status} {}\r\nServer: uakari\r\n{fields}Connection: {connection}\r\n\r\n", phrase(status))
}

/// A refusal with a body of one sentence; to a HEAD request the body is not sent.
pub fn refusal(status: u16, sentence: &str, keep_alive: bool, is_head: bool) -> Box<[u8]> {
    let body = format!("{status} {}: {sentence}\n", phrase(status));
    let own = match status {
        405 => "Allow: GET, HEAD\r\n",
        426 => "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n",
        503 => "Retry-After: 5\r\n",
        _ => "",
    };
    let fields = format!("{own}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n", body.len());
    let mut reply = head(status, &fields, keep_alive);
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
        for (status, field) in [
            (405, "Allow: GET, HEAD"),
            (426, "Sec-WebSocket-Version: 13"),
            (503, "Retry-After: "),
            (404, "Content-Length: "),
        ] {
            let text = String::from_utf8(refusal(status, "why", false, false).into()).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && text.contains(field), "{text}");
            assert!(text.ends_with(": why\n") && text.contains("close\r\n"), "{text}");
        }
        assert!(refusal(404, "why", true, true).ends_with(b"\r\n\r\n"));
    }
}
