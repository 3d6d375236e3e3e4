//! Page requests of simulated browsers and the expected responses.

use std::collections::VecDeque;
use std::ops::Range;

use crate::driver::sim::{Node, Rng, Sim, Tree};
use crate::limits::BODY_DRAIN_SIZE_MAX;

/// Files and their sizes; byte `i` of a file is `i`. One has a precompressed variant, by name only.
const FILES: [(&str, usize); 6] = [
    ("empty", 0),
    ("small.html", 1_000),
    ("small.html.gz", 400),
    ("large.bin", 300_000),
    ("release", 2_000),
    ("sub/index.html", 10),
];

/// Adds the files to the served folder.
pub(super) fn add_files(sim: &mut Sim) {
    let www = &mut sim.trees[0];
    for (name, size) in FILES {
        www.insert(name.into(), Node::File((0..size).map(|i| i as u8).collect()));
    }
    www.insert("sub".into(), Node::Folder);
    // A precompressed variant that is a folder and cannot be served.
    www.insert("large.bin.br".into(), Node::Folder);
}

/// Replaces the files by another release, in which each byte of `release` differs.
pub(super) fn add_second_release(www: &mut Tree) {
    let bytes = (0..size_of("release")).map(|i| !(i as u8)).collect();
    www.insert("release".into(), Node::File(bytes));
}

/// The responses of a connection.
pub(super) struct Answers {
    /// Those to come, in order.
    awaited: VecDeque<Answer>,
    /// The last one closes the connection.
    was_closed: bool,
}

struct Answer {
    path: &'static str,
    status: u16,
    /// Range of the file expected in the body.
    body: Range<usize>,
    is_head: bool,
    /// A header line that must be present.
    field: &'static str,
}

impl Answers {
    /// Writes random pipelined requests with bodies, conditions and ranges to `out`. The last one closes the
    /// connection.
    pub(super) fn draw(rng: &mut Rng, out: &mut Vec<u8>) -> Answers {
        let mut answers = VecDeque::new();
        for _ in 0..1 + rng.below(6) {
            answers.push_back(ask(rng, "", out));
        }
        if rng.one_in(2) {
            answers.push_back(ask(rng, "Connection: close\r\n", out));
        } else {
            answers.push_back(ask_with_large_body(rng, out));
        }
        Answers { awaited: answers, was_closed: false }
    }

    /// Removes the next response from `received` and checks it. False: it is incomplete.
    pub(super) fn take(&mut self, received: &mut Vec<u8>) -> bool {
        let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
        let answer = self.awaited.front().expect("an answer that nobody asked for");
        let head = String::from_utf8(received[..at + 2].to_vec()).expect("an ASCII head");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("a status");
        let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let has_body = !answer.is_head && !["204", "304"].contains(&status);
        let size = if has_body { length.expect("a length").parse().expect("a number") } else { 0 };
        if received.len() < at + 4 + size {
            return false;
        }
        let body: Vec<u8> = received.drain(..at + 4 + size).skip(at + 4).collect();
        assert!(head.contains("\r\nDate: "), "no date: {head}");
        // Any request may fail with 503 for lack of file descriptors.
        if status != "503" {
            answer.check(status, length, &head, &body);
        }
        self.awaited.pop_front();
        self.was_closed |= head.contains("\r\nConnection: close\r\n");
        true
    }

    /// Whether all responses have been received: after a reload those until the one that closes the connection.
    pub(super) fn are_complete(&self, was_reloaded: bool) -> bool {
        self.awaited.is_empty() || was_reloaded && self.was_closed
    }
}

impl Answer {
    fn check(&self, status: &str, length: Option<&str>, head: &str, body: &[u8]) {
        assert_eq!(status, self.status.to_string(), "{head}");
        assert!(head.contains(self.field), "{} is missing: {head}", self.field);
        if [200, 206].contains(&self.status) {
            assert_eq!(length, Some(self.body.len().to_string().as_str()), "{head}");
            let is_all = |mask: u8| body.iter().enumerate().all(|(i, byte)| byte ^ mask == (self.body.start + i) as u8);
            assert!(is_all(0) || self.path == "release" && is_all(0xff), "other bytes: {head}");
        }
    }
}

/// Writes a request that keeps the connection open, unless `lines` say otherwise.
fn ask(rng: &mut Rng, lines: &str, out: &mut Vec<u8>) -> Answer {
    let future = "Fri, 31 Dec 9999 23:59:59 GMT";
    let past = "Thu, 01 Jan 1970 00:00:00 GMT";
    let (path, conditions, status, body, field) = match rng.below(18) {
        0 => ("empty", String::new(), 200, 0..0, "\r\nETag: \""),
        1 => ("large.bin", "Accept-Encoding: br\r\n".into(), 200, 0..300_000, "\r\nVary: Accept-Encoding\r\n"),
        2 => ("small.html", "Accept-Encoding: br;q=0, gzip\r\n".into(), 200, 0..400, "Content-Encoding: gzip\r\n"),
        3 => ("small.html", "Accept-Encoding: identity;q=0\r\n".into(), 406, 0..0, ""),
        4 => ("small.html", "If-None-Match: *\r\n".into(), 304, 0..0, "\r\nETag: \""),
        5 => ("small.html", format!("If-Modified-Since: {future}\r\n"), 304, 0..0, ""),
        6 => ("small.html", format!("If-Modified-Since: {past}\r\n"), 200, 0..1_000, "\r\nLast-Modified: "),
        7 => ("small.html", "If-Match: \"other\"\r\n".into(), 412, 0..0, ""),
        8 => ("large.bin", "Range: bytes=70000-200000\r\n".into(), 206, 70_000..200_001, "70000-200000/300000\r\n"),
        9 => ("large.bin", "Range: bytes=-1\r\n".into(), 206, 299_999..300_000, "bytes 299999-299999/300000\r\n"),
        10 => ("small.html", "Range: bytes=1000-\r\n".into(), 416, 0..0, "Content-Range: bytes */1000\r\n"),
        11 => ("small.html", "Range: bytes=1-2,3-4\r\n".into(), 200, 0..1_000, ""),
        12 => ("sub?q=1", String::new(), 301, 0..0, "Location: /sub/?q=1\r\n"),
        13 => ("sub/", String::new(), 200, 0..10, "Content-Type: text/html"),
        14 => (".git", String::new(), 404, 0..0, ""),
        15 => ("release", String::new(), 200, 0..2_000, ""),
        16 => ("dead", String::new(), 426, 0..0, "Upgrade: websocket\r\n"),
        _ => ("none", String::new(), 404, 0..0, ""),
    };
    let methods = [("GET", false), ("GET", false), ("HEAD", true), ("POST", false), ("OPTIONS", false)];
    let (method, is_head) = methods[rng.below(methods.len())];
    let (framing, content) = small_body(rng);
    // A client may send an extra CRLF after a body (RFC 9112 section 2.2).
    let before = if rng.one_in(8) { "\r\n" } else { "" };
    out.extend(format!("{before}{method} /{path} HTTP/1.1\r\nHost: h\r\n{conditions}{lines}{framing}\r\n").bytes());
    out.extend(content);
    match (method, status) {
        ("POST", _) => Answer { path, status: 405, body: 0..0, is_head, field: "Allow: GET, HEAD, OPTIONS\r\n" },
        ("OPTIONS", _) => Answer { path, status: 204, body: 0..0, is_head, field: "Allow: GET, HEAD, OPTIONS\r\n" },
        ("HEAD", 206 | 416) => Answer { path, status: 200, body: 0..size_of(path), is_head, field: "" },
        _ => Answer { path, status, body, is_head, field },
    }
}

fn size_of(path: &str) -> usize {
    FILES.iter().find(|(name, _)| *name == path).expect("a file").1
}

/// A body that must be read and discarded. Its content looks like requests, to detect request smuggling.
fn small_body(rng: &mut Rng) -> (String, Vec<u8>) {
    let trap = b"GET /trap HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1 + rng.below(30));
    match rng.below(6) {
        0 => (format!("Content-Length: {}\r\n", trap.len()), trap),
        1 => {
            let mut content = Vec::new();
            for (i, chunk) in trap.chunks(1 + rng.below(trap.len())).enumerate() {
                let extension = if i < 10 { ";name=value" } else { "" };
                content.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
                content.extend(chunk);
                content.extend(b"\r\n");
            }
            content.extend(b"0\r\nX-Trailer: GET / HTTP/1.1\r\n\r\n");
            ("Transfer-Encoding: chunked\r\n".to_owned(), content)
        }
        _ => (String::new(), Vec::new()),
    }
}

/// Writes a request whose body is too large to drain, withheld (Expect) or malformed: the connection closes after the
/// response.
fn ask_with_large_body(rng: &mut Rng, out: &mut Vec<u8>) -> Answer {
    let size = BODY_DRAIN_SIZE_MAX + 1 + rng.below(200_000);
    let (framing, content, status) = match rng.below(4) {
        0 => (format!("Content-Length: {size}"), vec![b'x'; size], 200),
        1 => (format!("Content-Length: {size}\r\nExpect: 100-continue"), vec![], 200),
        2 => ("Transfer-Encoding: chunked".to_owned(), b"1\r\n.\r\n".repeat(size / 6 + 1), 200),
        _ => ("Transfer-Encoding: chunked".to_owned(), b"3\r\nabc\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), 400),
    };
    out.extend(format!("GET /large.bin HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n").bytes());
    out.extend(content);
    Answer { path: "large.bin", status, body: 0..300_000, is_head: false, field: "Connection: close\r\n" }
}
