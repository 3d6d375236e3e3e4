//! Both sides of the HTTP upgrade (RFC 6455 section 4), limited to what a benchmark needs.

use base64::prelude::{BASE64_STANDARD, Engine};
use sha1::{Digest, Sha1};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The client's upgrade request; `nonce` becomes its key.
pub fn request(path: &str, host: &str, nonce: [u8; 16]) -> String {
    let key = BASE64_STANDARD.encode(nonce);
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// The server's 101 answer to a request with this `Sec-WebSocket-Key`.
pub fn answer(key: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_of_key(key)
    )
}

/// The `Sec-WebSocket-Accept` that a server must answer to this nonce.
pub fn accept_of_nonce(nonce: [u8; 16]) -> String {
    accept_of_key(&BASE64_STANDARD.encode(nonce))
}

fn accept_of_key(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    BASE64_STANDARD.encode(digest)
}

/// The length of the HTTP head at the start of `bytes`, blank line included; None if the head is
/// incomplete.
pub fn head_size(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

/// The value of the first header line called `name`, in any case.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (left, right) = line.split_once(':')?;
        left.eq_ignore_ascii_case(name).then(|| right.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_of_the_rfc() {
        let answer = answer("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(header(&answer, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(accept_of_nonce(*b"the sample nonce"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_head_ends_at_the_blank_line() {
        let head = request("/echo", "localhost", *b"the sample nonce");
        assert_eq!(head_size(head.as_bytes()), Some(head.len()));
        assert_eq!(head_size(&head.as_bytes()[..head.len() - 1]), None);
    }
}
