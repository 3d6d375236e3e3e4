//! Requests and replies of HTTP/1.1 whose bodies are streams: what is sent and received is hashed and not kept.

use std::fmt::Write;

use ring::digest::{Context, SHA256};

use super::nodes::Body;
use crate::wire::{Response, Wire};

/// Bytes of a reply's body that are kept as text.
const KEPT_SIZE_MAX: usize = 64 * 1024;

/// A running SHA-256.
pub struct Sum {
    context: Context,
    size: u64,
}

impl Sum {
    pub fn new() -> Sum {
        Sum { context: Context::new(&SHA256), size: 0 }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The size and the hash, as nodes write them.
    pub fn end(self) -> (u64, String) {
        let mut text = String::new();
        self.context.finish().as_ref().iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        (self.size, text)
    }
}

/// The size and the hash of a body of the nodes.
pub fn sum_of(size: u64) -> (u64, String) {
    let (mut body, mut sum) = (Body::new(size), Sum::new());
    while let Some(part) = body.part() {
        sum.add(part);
    }
    sum.end()
}

/// How the body of a request is sent. The bytes are those of `Body`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upload {
    None,
    /// With Content-Length.
    Sized(u64),
    /// In chunks, with the hash in the trailer X-Sum.
    Chunked(u64),
}

/// The head of a request to the host of the cluster.
pub fn head(method: &str, target: &str, fields: &[&str], upload: Upload) -> String {
    let framing = match upload {
        Upload::None => String::new(),
        Upload::Sized(size) => format!("Content-Length: {size}\r\n"),
        Upload::Chunked(_) => "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n".to_owned(),
    };
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\nHost: www.example.org\r\n{fields}{framing}\r\n")
}

/// Sends the body alone. Returns its size and hash.
pub fn send_body(wire: &mut Wire, upload: Upload) -> (u64, String) {
    let (size, is_chunked) = match upload {
        Upload::None => (0, false),
        Upload::Sized(size) => (size, false),
        Upload::Chunked(size) => (size, true),
    };
    let (mut body, mut sum) = (Body::new(size), Sum::new());
    while let Some(part) = body.part() {
        sum.add(part);
        if is_chunked {
            wire.send([format!("{:X}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
        } else {
            wire.send(part);
        }
    }
    let (size, hash) = sum.end();
    if is_chunked {
        wire.send(format!("0\r\nX-Sum: {hash}\r\n\r\n"));
    }
    (size, hash)
}

/// A reply whose body was received to its end.
#[derive(Debug)]
pub struct Reply {
    /// The head, and the beginning of the body.
    pub response: Response,
    /// Responses 1xx before it, without 101.
    pub interim: Vec<u16>,
    pub size: u64,
    /// SHA-256 of the body.
    pub hash: String,
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.response.status
    }

    /// The value that the echo of a node has for this word, such as "target".
    pub fn told(&self, word: &str) -> String {
        let text = self.response.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{word}: ")).map(str::to_owned));
        lines.collect::<Vec<_>>().join(", ")
    }

    /// The values of a field that a node has received.
    pub fn field_told(&self, name: &str) -> Vec<String> {
        let text = self.response.text();
        let fields = text.lines().filter_map(|line| line.strip_prefix("field: ")?.split_once(": "));
        fields.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
    }
}

/// Receives the reply to a request with this method. Fails if the body is not whole.
pub fn reply(wire: &mut Wire, method: &str) -> Reply {
    let mut interim = Vec::new();
    let mut response = wire.response_head();
    while (100..200).contains(&response.status) && response.status != 101 {
        interim.push(response.status);
        response = wire.response_head();
    }
    let (mut sum, mut kept) = (Sum::new(), Vec::new());
    let mut add = |part: &[u8]| {
        sum.add(part);
        kept.extend_from_slice(&part[..part.len().min(KEPT_SIZE_MAX.saturating_sub(kept.len()))]);
    };
    // RFC 9112 section 6.3.
    if method == "HEAD" || [101, 204, 304].contains(&response.status) {
    } else if response.field("Transfer-Encoding") == "chunked" {
        loop {
            let line = wire.line();
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
            if size == 0 {
                break;
            }
            wire.stream_through(size, &mut add);
            assert_eq!(wire.line(), "", "the end of a chunk");
        }
        // The trailers.
        while !wire.line().is_empty() {}
    } else if let Ok(size) = response.field("Content-Length").parse() {
        wire.stream_through(size, &mut add);
    } else {
        add(&wire.take_rest());
        assert_eq!(wire.end().replace("an end without close_notify", ""), "the end of the stream", "{response:?}");
    }
    response.body = kept;
    let (size, hash) = sum.end();
    Reply { response, interim, size, hash }
}

/// A whole exchange.
pub fn exchange(wire: &mut Wire, method: &str, target: &str, fields: &[&str], upload: Upload) -> Reply {
    wire.send(head(method, target, fields, upload));
    send_body(wire, upload);
    reply(wire, method)
}
