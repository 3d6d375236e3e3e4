//! The first record of a client, which tells who it is: collected as it comes, and not a byte more.

// Its reader for servers that block is not needed here.
#[path = "../../hello/hello.rs"]
#[allow(dead_code)]
mod parser;

use std::fmt;

use parser::HEAD_SIZE;
pub use parser::{Hello, HelloError};

/// What has come of a record.
#[derive(Debug)]
pub struct Record {
    bytes: Vec<u8>,
    /// How long it is, as far as that is known.
    size: usize,
}

/// A record that is whole. Display is the line that tells about it.
#[derive(Debug)]
pub struct Whole(Hello);

impl Whole {
    /// What it says.
    pub fn hello(&self) -> &Hello {
        &self.0
    }
}

impl Default for Record {
    fn default() -> Record {
        Record::new()
    }
}

impl Record {
    /// Nothing has come yet.
    pub fn new() -> Record {
        Record { bytes: Vec::new(), size: HEAD_SIZE }
    }

    /// How many bytes to receive next, all of them the record's.
    pub fn missing_size(&self) -> usize {
        self.size - self.bytes.len()
    }

    /// Takes what was received: of a stream no more than is missing, or a whole packet.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Whole>, HelloError> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= HEAD_SIZE {
            self.size = parser::record_size(&self.bytes)?;
        }
        if self.bytes.len() < self.size {
            Ok(None)
        } else {
            parser::parse_hello(&self.bytes).map(|who| Some(Whole(who)))
        }
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hello { client, id, path, query, host, origin, subprotocol, .. } = &self.0;
        // Whoever may connect to the server's socket may write a record.
        let id = id.escape_debug();
        match client {
            Some(client) => write!(f, "{id} client={client}")?,
            None => write!(f, "{id} client=unix")?,
        }
        // As Rust quotes them, since a path may have any character in it.
        for (name, value) in
            [("path", path), ("query", query), ("host", host), ("origin", origin), ("subprotocol", subprotocol)]
        {
            if !value.is_empty() {
                write!(f, " {name}={value:?}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_in_pieces() {
        let bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x20\x7f\0\0\x01\x7f\0\0\x01\0\x07\0\x50\
              \x05\0\x02c3\xe0\0\x03/a\n\xe1\0\x03q=1\xe4\0\0";
        for step in 1..=bytes.len() {
            let (mut record, mut at) = (Record::new(), 0);
            let whole = loop {
                let size = record.missing_size().min(step);
                at += size;
                if let Some(whole) = record.take(&bytes[at - size..at]).unwrap() {
                    break whole;
                }
            };
            assert_eq!(at, bytes.len());
            assert_eq!(whole.to_string(), "c3 client=127.0.0.1:7 path=\"/a\\n\" query=\"q=1\"");
        }
        let forged = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x08\x05\0\x05c3\n\x1b[";
        assert_eq!(Record::new().take(forged).unwrap().unwrap().to_string(), "c3\\n\\u{1b}[ client=unix");
        assert!(Record::new().take(b"GET / HTTP/1.1\r\n\r\n").is_err());
        let (mut packet, whole) = (Record::new(), b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x05\x05\0\x02c3");
        assert_eq!(packet.take(whole).unwrap().unwrap().to_string(), "c3 client=unix");
        assert!(Record::new().take(&whole[..20]).unwrap().is_none());
    }
}
