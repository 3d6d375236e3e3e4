//! Nodes in threads of the tests: one that records, and one that is played byte by byte.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::daemon::{Daemon, patient};
use crate::process::{DEADLINE, Folder, eventually, uninterrupted};
use crate::wire::Wire;

/// Headers that close the client's connection after the reply.
pub const CLOSE: &str = "Connection: close";

/// A configuration of one server: pages of every name and WebSockets below `/ws` go to a node of this port. It has these
/// limits, these keys of its server, and these of its links.
pub fn gateway(port: u16, limits: &str, keys: &str, link: &str) -> String {
    format!(
        "log-level = \"debug\";
         limits = {{ {} }};
         upstreams = ({{ name = \"nodes\"; servers = ({{ address = \"127.0.0.1:{port}\"; max-fails = 0; }});
                         keepalive-ms = 600000; }});
         servers = ({{
             listen = \"127.0.0.1:0\"; {keys}
             document = {{ links = ({{ origin = \"^/\"; type = \"http\"; destination = \"nodes\"; {link} }}); }};
             websocket = {{ links = ({{ origin = \"^/ws\"; type = \"ws\"; destination = \"nodes\"; }}); }};
         }});",
        patient(limits)
    )
}

/// A daemon with such a configuration.
pub fn start(port: u16) -> Daemon {
    Daemon::start_configured(&gateway(port, "", "", ""))
}

/// As `start`, in a folder that has files.
pub fn start_in(folder: Folder, text: &str) -> Daemon {
    Daemon::start_configured_by(folder, text, crate::daemon::uakari())
}

/// A node that the test plays.
pub struct Node {
    listener: TcpListener,
    pub port: u16,
}

impl Node {
    pub fn bind() -> Node {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        Node { listener, port }
    }

    /// The next connection of the gateway.
    pub fn accept(&self) -> Wire {
        let mut found = None;
        eventually("the gateway connects", || {
            found = self.poll();
            found.is_some()
        });
        found.unwrap()
    }

    /// The connection that waits. None: there is none.
    pub fn poll(&self) -> Option<Wire> {
        match uninterrupted(|| self.listener.accept()) {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                Some(Wire::new(stream))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("accept: {error}"),
        }
    }
}

/// The next request head at a node.
pub fn head_of(wire: &mut Wire) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(wire.take(1));
    }
    String::from_utf8(head).unwrap()
}

/// A reply with this body.
pub fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A request that a node has received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The number of the connection.
    pub link: usize,
    pub head: String,
    pub body: Vec<u8>,
    /// The lines of trailers.
    pub trailers: String,
    /// The connection ended in the middle of it.
    pub is_cut: bool,
}

impl Seen {
    /// Method, target and version.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Method and target, then the body.
    pub fn shown(&self) -> String {
        let line = self.line().trim_end_matches(" HTTP/1.1");
        let cut = if self.is_cut { " ..." } else { "" };
        format!("{line} {}", self.body.escape_ascii()).trim_end().to_owned() + cut
    }

    /// The values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// What a recorder answers.
type Answer = Box<dyn Fn(&Seen) -> Vec<u8> + Send + Sync>;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    is_over: AtomicBool,
    answer: Answer,
}

/// A node that answers all requests and records them. It is as strict as the protocol: what it cannot read is recorded as
/// it is, and ends the connection.
pub struct Recorder {
    pub port: u16,
    shared: Arc<Shared>,
    acceptor: JoinHandle<Vec<JoinHandle<()>>>,
}

impl Recorder {
    /// Answers each request with 200 and its target.
    pub fn start() -> Recorder {
        Recorder::answering(|seen| reply("200 OK", seen.line().split(' ').nth(1).unwrap_or_default()).into_bytes())
    }

    pub fn answering(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Recorder {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared =
            Arc::new(Shared { seen: Mutex::default(), is_over: AtomicBool::new(false), answer: Box::new(answer) });
        let acceptor = thread::spawn({
            let shared = shared.clone();
            move || {
                let mut links = Vec::new();
                while let Ok((stream, _)) = uninterrupted(|| listener.accept()) {
                    if shared.is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let (shared, link) = (shared.clone(), links.len());
                    links.push(thread::spawn(move || record(&stream, link, &shared)));
                }
                links
            }
        });
        Recorder { port, shared, acceptor }
    }

    /// All requests, once the gateway has ended and so all of its connections.
    pub fn finish(self, daemon: Daemon) -> Vec<Seen> {
        drop(daemon);
        self.shared.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap());
        for link in self.acceptor.join().unwrap() {
            link.join().unwrap();
        }
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }
}

/// Bytes of a connection that are read as requests.
struct Reader<'s> {
    stream: &'s TcpStream,
    bytes: Vec<u8>,
}

impl Reader<'_> {
    /// The bytes up to and with this end. None: the stream ends before.
    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.bytes.windows(end.len()).position(|part| part == end) {
                return Some(self.bytes.drain(..at + end.len()).collect());
            }
            self.fill()?;
        }
    }

    /// This many bytes.
    fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        while self.bytes.len() < size {
            self.fill()?;
        }
        Some(self.bytes.drain(..size).collect())
    }

    fn fill(&mut self) -> Option<()> {
        let mut buffer = [0; 64 * 1024];
        let size = uninterrupted(|| self.stream.read(&mut buffer)).ok().filter(|size| *size > 0)?;
        self.bytes.extend_from_slice(&buffer[..size]);
        Some(())
    }

    /// A body of chunks without extensions, and its trailers.
    fn chunks(&mut self, seen: &mut Seen) -> Option<()> {
        loop {
            let line = self.until(b"\r\n")?;
            let digits = std::str::from_utf8(&line[..line.len() - 2]).unwrap();
            let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("a chunk line {digits:?}"));
            if size == 0 {
                break;
            }
            seen.body.extend(self.take(size)?);
            assert_eq!(self.take(2)?, b"\r\n", "the end of a chunk");
        }
        loop {
            let line = self.until(b"\r\n")?;
            if line == b"\r\n" {
                return Some(());
            }
            _ = write!(seen.trailers, "{}", String::from_utf8_lossy(&line));
        }
    }
}

fn record(stream: &TcpStream, link: usize, shared: &Shared) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut reader = Reader { stream, bytes: Vec::new() };
    loop {
        let mut seen = Seen { link, head: String::new(), body: Vec::new(), trailers: String::new(), is_cut: false };
        let Some(head) = reader.until(b"\r\n\r\n") else {
            if !reader.bytes.is_empty() {
                seen.head = String::from_utf8_lossy(&reader.bytes).into_owned();
                seen.is_cut = true;
                shared.seen.lock().unwrap().push(seen);
            }
            return;
        };
        seen.head = String::from_utf8_lossy(&head).into_owned();
        let whole = match (&seen.all("content-length")[..], &seen.all("transfer-encoding")[..]) {
            ([], []) => Some(()),
            ([size], []) => {
                let size: usize = size.parse().unwrap();
                reader.take(size).map(|body| seen.body = body)
            }
            ([], ["chunked"]) => reader.chunks(&mut seen),
            other => panic!("the framing {other:?} of {}", seen.head),
        };
        seen.is_cut = whole.is_none();
        shared.seen.lock().unwrap().push(seen.clone());
        if seen.is_cut || (&mut &*stream).write_all(&(shared.answer)(&seen)).is_err() {
            return;
        }
    }
}

/// The status and the body of each reply of these bytes, whose bodies have a length or chunks.
pub fn replies_in(mut bytes: &[u8]) -> Vec<(u16, String)> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let text = bytes.escape_ascii().to_string();
        let at = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
        let head = std::str::from_utf8(&bytes[..at]).unwrap();
        let status: u16 = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).expect(&text);
        bytes = &bytes[at + 4..];
        let size = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        let size: usize = if status < 200 || status == 204 { 0 } else { size.expect(&text) };
        replies.push((status, String::from_utf8_lossy(&bytes[..size]).into_owned()));
        bytes = &bytes[size..];
    }
    replies
}
