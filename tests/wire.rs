//! A TCP connection, with TLS or without, and HTTP on it, byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use rustls::{ClientConnection, StreamOwned};

use crate::process::{DEADLINE, uninterrupted};
use crate::records;

/// The key of the handshakes here, and the accept value that answers it (RFC 6455 section 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Bytes of either direction that a failure shows.
const SHOWN_SIZE_MAX: usize = 600;

/// A connection with TLS.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
    /// TLS in the kernel.
    Records(TcpStream),
}

impl Stream {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(bytes),
            Stream::Tls(stream) => stream.read(bytes),
            Stream::Records(stream) => records::receive(stream, bytes),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Plain(stream) | Stream::Records(stream) => stream.write_all(bytes),
            // The session may hold bytes back until it is flushed.
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Sends close_notify (RFC 8446 section 6.1), if there is TLS.
    fn close_tls(&mut self) -> std::io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
            Stream::Records(stream) => records::send(stream, records::ALERT, records::CLOSE_NOTIFY),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) | Stream::Records(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
        }
    }
}

/// A connection. A failing test prints its bytes, which are those inside of TLS.
pub struct Wire {
    stream: Stream,
    /// Bytes received; those from `taken` on are not consumed.
    buffer: Vec<u8>,
    taken: usize,
    /// How the stream ended.
    ended: Option<&'static str>,
    first_sent: Vec<u8>,
    first_received: Vec<u8>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// The values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The one value of a header, or "".
    pub fn field(&self, name: &str) -> &str {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} stands twice: {self:?}");
        all.first().copied().unwrap_or("")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request's head with these headers and Host.
pub fn request(method: &str, path: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: gate.example\r\n{fields}\r\n")
}

/// A handshake's head without the headers of `without`.
pub fn handshake(path: &str, without: &[&str], more: &[&str]) -> String {
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", &key];
    let kept = fields.into_iter().filter(|field| !without.iter().any(|name| field.starts_with(name)));
    request("GET", path, &kept.chain(more.iter().copied()).collect::<Vec<_>>())
}

impl Wire {
    /// Connects to the daemon's port.
    pub fn connect(port: u16) -> Wire {
        Wire::new(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    /// A connection that exists.
    pub fn new(stream: TcpStream) -> Wire {
        Wire::over(Stream::Plain(stream))
    }

    /// A connection with TLS.
    pub fn over_tls(stream: TlsStream) -> Wire {
        Wire::over(Stream::Tls(Box::new(stream)))
    }

    /// A connection with TLS in the kernel.
    pub fn over_records(stream: TcpStream) -> Wire {
        Wire::over(Stream::Records(stream))
    }

    fn over(stream: Stream) -> Wire {
        stream.tcp().set_read_timeout(Some(DEADLINE)).unwrap();
        stream.tcp().set_write_timeout(Some(DEADLINE)).unwrap();
        stream.tcp().set_nodelay(true).unwrap();
        let (first_sent, first_received) = (Vec::new(), Vec::new());
        Wire { stream, buffer: Vec::new(), taken: 0, ended: None, first_sent, first_received }
    }

    /// The TCP connection itself, to send from another thread or to break it.
    pub fn stream(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// The TLS connection.
    pub fn tls(&self) -> &ClientConnection {
        match &self.stream {
            Stream::Tls(stream) => &stream.conn,
            Stream::Plain(_) | Stream::Records(_) => panic!("this connection has no TLS"),
        }
    }

    /// Sends all these bytes, in one go.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        remember(&mut self.first_sent, bytes);
        self.stream.send(bytes).unwrap_or_else(|error| panic!("cannot send {} bytes: {error}", bytes.len()));
    }

    /// Receives once; false at the end of the stream.
    pub fn fill(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
        let old = self.buffer.len();
        self.buffer.resize(old + 256 * 1024, 0);
        let (size, ended) = match uninterrupted(|| self.stream.read(&mut self.buffer[old..])) {
            Ok(0) => (0, Some("the end of the stream")),
            Ok(size) => (size, None),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (0, Some("a reset")),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => (0, Some("an end without close_notify")),
            Err(error) => panic!("nothing came for {DEADLINE:?}: {error}"),
        };
        self.ended = ended;
        self.buffer.truncate(old + size);
        remember(&mut self.first_received, &self.buffer[old..]);
        size > 0
    }

    /// The next bytes.
    pub fn take(&mut self, size: usize) -> Vec<u8> {
        while self.buffer.len() - self.taken < size {
            assert!(self.fill(), "{} where {size} bytes were due", self.ended.unwrap_or_default());
        }
        self.taken += size;
        self.buffer[self.taken - size..self.taken].to_vec()
    }

    /// The next line, without its CRLF.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.take(1));
        }
        String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()
    }

    /// Passes the next bytes on as they arrive.
    pub fn stream_through(&mut self, mut left: u64, mut each: impl FnMut(&[u8])) {
        while left > 0 {
            if self.taken == self.buffer.len() {
                assert!(self.fill(), "{} where {left} bytes were due", self.ended.unwrap_or_default());
            }
            let rest = &self.buffer[self.taken..];
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            each(&rest[..size]);
            self.taken += size;
            left -= size as u64;
        }
    }

    /// All bytes up to the end of the stream.
    pub fn take_rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        self.take(self.buffer.len() - self.taken)
    }

    /// Expects the end of the stream without another byte, then closes this side.
    pub fn expect_end(&mut self) {
        let rest = self.take_rest();
        assert!(rest.is_empty(), "{} bytes where the end was due: {}", rest.len(), show(&rest));
        assert_eq!(self.ended, Some("the end of the stream"));
        let _ = self.stream.close_tls();
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    /// How the stream ended.
    pub fn end(&self) -> &'static str {
        self.ended.unwrap_or("no end")
    }

    /// Sends close_notify and leaves TCP open.
    pub fn close_tls(&mut self) {
        self.stream.close_tls().unwrap();
    }

    /// The next response to a request other than HEAD.
    pub fn response(&mut self) -> Response {
        let mut response = self.response_head();
        // Neither a 204 nor a 304 has a body (RFC 9112 section 6.3).
        if response.status >= 200 && ![204, 304].contains(&response.status) {
            let size = response.field("Content-Length").parse().unwrap_or_else(|_| panic!("no length: {response:?}"));
            response.body = self.take(size);
        }
        response
    }

    /// The next response without its body.
    pub fn response_head(&mut self) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.take(1));
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        Response { status: status.unwrap_or_else(|| panic!("no status: {head:?}")), head, body: Vec::new() }
    }

    /// Asks for a page.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(request("GET", path, &[]));
        self.response()
    }

    /// Sends a handshake. A 101 is checked.
    pub fn upgrade(&mut self, path: &str, fields: &[&str]) -> Response {
        self.send(handshake(path, &[], fields));
        let response = self.response();
        if response.status == 101 {
            assert_eq!(response.field("Sec-WebSocket-Accept"), ACCEPT, "{response:?}");
            assert!(response.field("Upgrade").eq_ignore_ascii_case("websocket"), "{response:?}");
            assert!(response.field("Connection").eq_ignore_ascii_case("upgrade"), "{response:?}");
        }
        response
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- sent: {}\n--- received: {}", show(&self.first_sent), show(&self.first_received));
        }
    }
}

fn remember(first: &mut Vec<u8>, bytes: &[u8]) {
    let room = (SHOWN_SIZE_MAX + 1).saturating_sub(first.len());
    first.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn show(bytes: &[u8]) -> String {
    let more = if bytes.len() > SHOWN_SIZE_MAX { "..." } else { "" };
    format!("{}{more}", bytes[..bytes.len().min(SHOWN_SIZE_MAX)].escape_ascii())
}
