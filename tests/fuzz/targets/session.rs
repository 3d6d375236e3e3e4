//! One connection's whole life, in any order in which a gateway could tell it (the crate's `gateway`): a script of what
//! the client, the server, the kernel and the clock do.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use uakari::driver::device::{Device, DeviceId, Direction};
use uakari::driver::{Errno, FileId, FileKind, FileStatus};
use uakari::exchange::{Full, Input};
use uakari::limits::{self, WebSocket, WhenOver};
use uakari::route::names::{Patterns, Rules};
use uakari::route::{Destination, Link, MessageType, Protocol, Service, Site, Sites};
use uakari::types::End;
use uakari_fuzz::choices::Choices;
use uakari_fuzz::conversation::Conversation;
use uakari_fuzz::gateway::Gateway;
use uakari_fuzz::reference;

/// Where requests may lead: to the docroot, along a link to each kind of destination, or nowhere.
const NAMES: [&str; 9] = ["x", "", "unix", "tcp", "tty", "read", "write", "denied", "direct"];
const PROTOCOLS: [Protocol; 5] = [Protocol::Stream, Protocol::Packet, Protocol::Lines, Protocol::Nul, Protocol::Frames];
const TYPES: [MessageType; 3] = [MessageType::Auto, MessageType::Text, MessageType::Binary];
/// Bytes that one peer says, which keeps a run short.
const SAID_SIZE_MAX: usize = 300_000;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let service = service(&mut choices);
    let mut script =
        Script { gateway: Gateway::new(sites(&service)), client: Vec::new(), backend: Vec::new(), choices };
    let way = script.choices.byte();
    let name = NAMES.get(usize::from(way & 0x0f)).copied();
    let head_size = script.begin(name, way);
    while !script.choices.is_empty() {
        script.step();
    }
    let gateway = &mut script.gateway;
    check(&service, name, gateway, head_size);
    gateway.run_out();
    check(&service, name, gateway, head_size);
    // What is said behind the end has no meaning.
    gateway.receive(End::Client, b"behind");
    gateway.receive(End::Backend, b"behind");
    gateway.input(Input::Deadline);
    gateway.input(Input::Stop);
});

/// Checks a conversation, if there was one.
fn check(service: &Service, name: Option<&str>, gateway: &Gateway, head_size: Option<usize>) {
    let (Some(head_size), Some(protocol)) = (head_size, gateway.protocol) else { return };
    let links = links(service);
    let link = links.iter().find(|link| name.is_some_and(|name| link.origin.matches(&format!("/{name}"))));
    let conversation = Conversation {
        protocol,
        message_type: service.message_type,
        has_hello: link.map_or(service.hello, |link| link.service.hello),
        limits: &service.limits,
        destination: link.map(|link| &link.destination),
        is_relaying: gateway.is_relaying(),
    };
    conversation.check(gateway, head_size);
}

fn service(choices: &mut Choices<'_>) -> Service {
    let (protocol, message_type) = (choices.one_of(&PROTOCOLS), choices.one_of(&TYPES));
    let defaults = WebSocket::default();
    let small = WebSocket { frame_size_max: 125, message_size_max: 300, ping_ms: 50, pong_ms: 100, ..defaults };
    let how = choices.byte();
    let limits = match how % 5 {
        0 => WebSocket { ping_ms: 0, ..defaults },
        1 => WebSocket { idle_ms: 1_000, close_ms: 100, stall_ms: 1_000, ..small },
        2 => WebSocket { messages_per_second_max: 5, when_over: WhenOver::Slow, ..small },
        3 => WebSocket { bytes_per_second_max: 1_000, when_over: WhenOver::Close, ..defaults },
        _ => defaults,
    };
    Service {
        protocol,
        message_type,
        hello: how & 0x80 != 0,
        is_direct: false,
        limits,
        conversations: Default::default(),
    }
}

fn sites(service: &Service) -> Sites {
    let first = Site {
        has_www: true,
        has_docroot: true,
        rules: Rules { deny: Patterns::parse("^/denied$, ^/b$"), ..Rules::default() },
        service: Arc::new(service.clone()),
        links: links(service),
        ..Site::default()
    };
    let limits = limits::Http { head_size_max: 1_024, headers_max: 8, keepalive_ms: 0, ..limits::Http::default() };
    let second = Site { hostname: Some("second".into()), limits, ..Site::default() };
    Sites::new(Arc::new(first), vec![Arc::new(second)])
}

fn links(service: &Service) -> Vec<Link> {
    let addresses = ["127.0.0.1:1", "[::1]:1"].map(|address| address.parse().expect("an address"));
    let fifo = |direction| Destination::Fifo { path: "/fifo".into(), direction };
    let destinations = [
        ("^/unix$", Destination::Unix("/socket".into())),
        ("^/tcp$", Destination::Tcp(addresses.into())),
        ("^/tty$", Destination::Tty { path: "/tty".into(), baud: 9_600 }),
        ("^/read$", fifo(Direction::Read)),
        ("^/write$", fifo(Direction::Write)),
        ("^/direct$", Destination::Unix("/direct".into())),
    ];
    let link = |(origin, destination)| {
        // What is only read cannot be told anything.
        let can_be_told = destination != fifo(Direction::Read);
        let mut service = Service { hello: service.hello && can_be_told, ..service.clone() };
        if destination == Destination::Unix("/direct".into()) {
            (service.protocol, service.is_direct) = (Protocol::Stream, true);
        }
        Link { origin: Patterns::parse(origin), destination, service: Arc::new(service) }
    };
    destinations.map(link).into()
}

/// What the peers have said and the exchange has not heard yet, and what is still to happen.
struct Script<'a> {
    gateway: Gateway,
    client: Vec<u8>,
    backend: Vec<u8>,
    choices: Choices<'a>,
}

impl Script<'_> {
    /// The client comes, and where a name is given asks for that server; how many bytes its handshake has.
    fn begin(&mut self, name: Option<&str>, way: u8) -> Option<usize> {
        let overload = Input::Overload(Full::Clients);
        self.gateway.input(if name.is_none() && way & 0x10 != 0 { overload } else { Input::Accepted });
        let name = name?;
        let head = format!(
            "GET /{name} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: a, .., b\r\n\r\n"
        );
        if way & 0x20 != 0 {
            // Some of the first messages come with the head.
            let more = self.choices.counted();
            self.gateway.receive(End::Client, &[head.as_bytes(), more].concat());
        } else {
            self.gateway.receive(End::Client, head.as_bytes());
        }
        if way & 0x40 == 0 {
            let is_device = matches!(name, "tty" | "read" | "write");
            self.gateway.answer_open(Ok(if is_device { device() } else { FileKind::Socket(FileId::default()) }));
            self.gateway.answer_connect(Ok(()));
        }
        Some(head.len())
    }

    fn step(&mut self) {
        let choices = &mut self.choices;
        match choices.below(22) {
            0 | 1 => {
                let (first, key) = (first_byte(choices), [choices.byte(), 2, 3, 4]);
                let frame = reference::frame(first, &payload(choices), Some(key));
                self.client.extend(frame);
            }
            2 => self.client.extend(choices.counted()),
            3 | 4 => self.deliver(End::Client, usize::MAX),
            5 => {
                let size = choices.byte();
                self.deliver(End::Client, size.into());
            }
            6 | 7 => self.backend.extend(payload(choices)),
            8 => {
                let first = first_byte(choices);
                self.backend.extend(reference::frame(first, &payload(choices), None));
            }
            9 | 10 => self.deliver(End::Backend, usize::MAX),
            11 => {
                let size = choices.byte();
                self.deliver(End::Backend, size.into());
            }
            12 => self.gateway.take(End::Client, false),
            13 => self.gateway.take(End::Backend, false),
            14 => {
                let end = if choices.byte() & 1 == 0 { End::Client } else { End::Backend };
                self.gateway.take(end, true);
            }
            15 => self.gateway.pass(1 << (choices.byte() & 0x0f)),
            16 => self.gateway.pass_to_deadline(),
            17 => {
                let opened = opened(choices);
                self.gateway.answer_open(opened);
            }
            18 => {
                let errors = [Errno::EAGAIN, Errno::EPROTOTYPE, Errno::ECONNREFUSED, Errno::EMFILE, Errno::EIO];
                let error = errors.get(usize::from(choices.byte())).copied();
                self.gateway.answer_connect(error.map_or(Ok(()), Err));
            }
            19 => {
                let bytes = payload(choices);
                self.gateway.answer_read(&bytes[..bytes.len().min(1_000)]);
            }
            20 => {
                let how = choices.byte();
                let end = if how & 1 == 0 { End::Client } else { End::Backend };
                self.gateway.end(end, (how & 2 != 0).then_some(Errno::ECONNRESET));
            }
            _ => match choices.byte() {
                0 => self.gateway.input(Input::Stop),
                1 => self.gateway.input(Input::LastCall),
                _ => self.gateway.excuse_client(),
            },
        }
    }

    /// The exchange hears so many bytes, all at once; of a server that may be an empty packet.
    fn deliver(&mut self, end: End, size: usize) {
        let said = if end == End::Client { &mut self.client } else { &mut self.backend };
        let size = size.min(said.len()).min(limits::POOL_BUFFER_SIZE - limits::POOL_HEADROOM);
        let peer = if end == End::Client { &self.gateway.client } else { &self.gateway.backend };
        if peer.is_read() && peer.heard.len() < SAID_SIZE_MAX {
            let bytes: Vec<u8> = said.drain(..size).collect();
            self.gateway.receive(end, &bytes);
        }
    }
}

fn first_byte(choices: &mut Choices<'_>) -> u8 {
    let usual = [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a];
    usual.get(usize::from(choices.byte())).copied().unwrap_or_else(|| choices.byte())
}

/// Some bytes, or very many.
fn payload(choices: &mut Choices<'_>) -> Vec<u8> {
    match choices.byte() {
        size @ 0..252 => choices.bytes(size.into()).to_vec(),
        size => vec![b'x'; [126, 65_535, 65_536, 66_000][usize::from(size) - 252]],
    }
}

fn opened(choices: &mut Choices<'_>) -> Result<FileKind, Errno> {
    let file = |size| {
        let changed = FileStatus {
            size,
            modified_s: 1,
            modified_ns: 0,
            changed_s: 1,
            changed_ns: 1,
            inode: 1,
            file_system: 1,
            mount: 1,
        };
        FileKind::Regular(changed)
    };
    Ok(match choices.byte() {
        0 => FileKind::Socket(FileId::default()),
        1 => FileKind::Folder,
        2 => file(choices.byte().into()),
        3 => file(1 << 40),
        4 => device(),
        5 => return Err(Errno::ENOENT),
        6 => return Err(Errno::EXDEV),
        7 => return Err(Errno::EMFILE),
        8 => return Err(Errno::EIO),
        _ => FileKind::Other,
    })
}

fn device() -> FileKind {
    FileKind::Device(DeviceId::default(), Device::Fifo(Direction::Read))
}
