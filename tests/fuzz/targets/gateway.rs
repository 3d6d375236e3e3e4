//! The whole gateway on the simulated kernel: a configuration, a client, and what client, backend and clock do in which
//! order. The first bytes of an input choose the configuration, each one after them begins an event.
#![no_main]

use std::ffi::CString;
use std::sync::{Arc, Once};

use libfuzzer_sys::fuzz_target;
use uakari::driver::SocketType;
use uakari::driver::device::Direction;
use uakari::driver::sim::{Handle, Host, Node, Sim};
use uakari::gateway::endpoint::{Endpoint, Folders, Held};
use uakari::gateway::listener::ListenerSetup;
use uakari::limits::{self, WebSocket, WhenOver};
use uakari::observe::log::{self, Level};
use uakari::permit::Count;
use uakari::route::names::{Patterns, Rules};
use uakari::route::{Destination, Link, MessageType, Protocol, Service, Site, Sites};
use uakari::types::{Address, ListenAddress};
use uakari_fuzz::choices::Choices;
use uakari_fuzz::conversation::Conversation;
use uakari_fuzz::gateway::{Leave, Run};
use uakari_fuzz::reference;
use uakari_fuzz::replies::Replies;

/// What the client asks for: docroot's names first, then a link to each kind of destination.
const NAMES: [&str; 19] = [
    "x", "other", "", "folder", "file", "outside", "dead", "full", "denied", "absent", "unix", "tcp", "refused", "tty",
    "read", "write", "direct", "dies", "gone",
];
const PROTOCOLS: [Protocol; 5] = [Protocol::Stream, Protocol::Packet, Protocol::Lines, Protocol::Nul, Protocol::Frames];
const TYPES: [MessageType; 3] = [MessageType::Auto, MessageType::Text, MessageType::Binary];
const CAPACITIES: [usize; 4] = [1 << 18, 1 << 12, 256, 64];
/// Buffers of the pool: the fewest that a configuration may have.
const BUFFERS: usize = limits::POOL_BUFFERS.min as usize;
/// Longer than a close may take. On a kernel with a seed time passes in small steps.
const LONG_MS: u64 = 60_000;
const LONG_SEEDED_MS: u64 = 500;

static QUIET: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    QUIET.call_once(|| log::set_level(Level::Error));
    let mut choices = Choices::new(data);
    let service = service(&mut choices);
    let mut script = Script::begin(service, choices);
    while !script.choices.is_empty() {
        script.step();
    }
    script.end();
});

/// The first two bytes.
fn service(choices: &mut Choices<'_>) -> Service {
    let (first, how) = (choices.byte(), choices.byte());
    let protocol = PROTOCOLS[usize::from(first % 5)];
    let message_type = TYPES[usize::from(first / 5 % 3)];
    let defaults = WebSocket::default();
    let small = WebSocket { frame_size_max: 125, message_size_max: 300, ping_ms: 50, pong_ms: 100, ..defaults };
    let limits = match how % 5 {
        0 => WebSocket { ping_ms: 0, ..defaults },
        1 => WebSocket { idle_ms: 1_000, close_ms: 100, stall_ms: 1_000, ..small },
        2 => WebSocket { messages_per_second_max: 5, when_over: WhenOver::Slow, ..small },
        3 => WebSocket { bytes_per_second_max: 1_000, when_over: WhenOver::Close, ..defaults },
        _ => defaults,
    };
    Service { protocol, message_type, hello: how & 0x80 != 0, limits, ..Service::default() }
}

fn links(service: &Service) -> Vec<Link> {
    let fifo = |path: &str, direction| Destination::Fifo { path: path.into(), direction };
    let tcp =
        |addresses: [&str; 2]| Destination::Tcp(addresses.map(|address| address.parse().expect("an address")).into());
    let unix = |path: &str| Destination::Unix(path.into());
    let destinations = [
        ("^/unix$", unix("/run/unix")),
        ("^/tcp$", tcp(["192.0.2.1:1", "[2001:db8::1]:2"])),
        ("^/refused$", tcp(["192.0.2.1:3", "[2001:db8::1]:4"])),
        ("^/tty$", Destination::Tty { path: "/dev/tty".into(), baud: 9_600 }),
        ("^/read$", fifo("/run/fifo", Direction::Read)),
        ("^/write$", fifo("/run/fifo", Direction::Write)),
        ("^/direct$", unix("/run/direct")),
        ("^/dies$", unix("/run/dies")),
        ("^/gone$", unix("/run/gone")),
    ];
    let link = |(origin, destination): (&str, Destination)| {
        // What is only read cannot be told anything, and only a UNIX socket has packets.
        let is_unix = matches!(destination, Destination::Unix(_));
        let can_be_told = !matches!(destination, Destination::Fifo { direction: Direction::Read, .. });
        let mut service = Service { hello: service.hello && can_be_told, ..service.clone() };
        if service.protocol == Protocol::Packet && !is_unix || origin == "^/direct$" || origin == "^/dies$" {
            service.protocol = Protocol::Stream;
        }
        service.is_direct = origin == "^/direct$" || origin == "^/dies$";
        Link { origin: Patterns::parse(origin), destination, service: Arc::new(service), access: None }
    };
    destinations.map(link).into()
}

/// What paths and addresses lead to.
fn add_backends(sim: &mut Sim, protocol: Protocol) {
    let [own, other] = match protocol {
        Protocol::Packet => [SocketType::SeqPacket, SocketType::Stream],
        _ => [SocketType::Stream, SocketType::SeqPacket],
    };
    for (name, node) in [
        ("x", Node::Backend(own)),
        ("other", Node::Backend(other)),
        ("a", Node::Backend(own)),
        ("folder", Node::Folder),
        ("folder/b", Node::Backend(own)),
        ("file", Node::File(vec![b'x'; 10])),
        ("outside", Node::Outside),
        ("dead", Node::Dead),
        ("full", Node::Full(200)),
        ("index.html", Node::File(vec![b'x'; 1_000])),
        ("index.html.gz", Node::File(vec![b'x'; 100])),
        ("large", Node::File(vec![b'x'; 200_000])),
    ] {
        sim.trees[0].insert(name.into(), node);
    }
    for (path, node) in [
        ("/run/unix", Node::Backend(own)),
        ("/run/direct", Node::Backend(SocketType::Stream)),
        ("/run/dies", Node::Backend(SocketType::Stream)),
        ("/run/gone", Node::Dead),
        ("/dev/tty", Node::Tty),
        ("/run/fifo", Node::Fifo),
    ] {
        sim.paths.insert(path.into(), node);
    }
    for (address, host) in [
        ("192.0.2.1:1", Host::Silent),
        ("[2001:db8::1]:2", Host::Backend("tcp".into())),
        ("192.0.2.1:3", Host::Refuses),
    ] {
        sim.hosts.insert(address.parse().expect("an address"), host);
    }
}

/// The one port, served anew.
fn listener_setup(service: &Service, clients_max: u64, sim: &mut Sim, socket: Option<Handle>) -> ListenerSetup<Handle> {
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
    let mut held = || Some(Held { handle: sim.folder(0), path: CString::default() });
    let folders = vec![Folders { docroot: held(), www: held() }, Folders { docroot: None, www: None }];
    let sites = Sites::new(Arc::new(first), vec![Arc::new(second)]);
    let endpoint =
        Arc::new(Endpoint { sites, folders, stage: Default::default(), clients_max, clients: Count::default() });
    ListenerSetup { address: ListenAddress::Unix("simulated".into()), socket, file: None, endpoint }
}

/// A run and what is still to happen in it.
struct Script<'a> {
    run: Run,
    service: Service,
    /// The name that the client asked for, and the bytes of its handshake. None: the input has no handshake of its own.
    asked: Option<(&'static str, usize)>,
    /// The backend ended while messages flowed.
    is_whole: bool,
    /// A file became shorter.
    is_shortened: bool,
    choices: Choices<'a>,
}

impl<'a> Script<'a> {
    /// Two more bytes: the name, and how the client comes.
    fn begin(service: Service, mut choices: Choices<'a>) -> Script<'a> {
        let (name, way) = (choices.byte(), choices.byte());
        let mut sim = Sim::new(u64::from(name >> 5), BUFFERS);
        sim.is_plain = way & 0x80 == 0;
        let capacity = if sim.is_plain { CAPACITIES[usize::from(way & 0x03)] } else { CAPACITIES[0] };
        sim.capacity = Some(capacity);
        add_backends(&mut sim, service.protocol);
        let clients_max = if way & 0x10 == 0 { 9 } else { 0 };
        let listener = Some(sim.listener());
        let setup = listener_setup(&service, clients_max, &mut sim, listener);
        let client = sim.client(0, capacity, Address::Unix);
        let run = Run::new(sim, limits::Process::default(), setup, client);
        let name = NAMES.get(usize::from(name & 0x1f)).copied();
        let mut script = Script { run, service, asked: None, is_whole: false, is_shortened: false, choices };
        let Some(name) = name else { return script };
        let head = format!(
            "GET /{name} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: a, .., b\r\n\r\n"
        );
        script.asked = Some((name, head.len()));
        // Some of the first messages may come with the head.
        let more = if way & 0x20 != 0 { script.choices.counted() } else { &[] };
        script.run.client.say(&[head.as_bytes(), more].concat());
        if way & 0x40 == 0 {
            script.run.settle();
        }
        script
    }

    /// One event. With its highest bit set, the next one comes before anything happens.
    fn step(&mut self) {
        let event = self.choices.byte();
        let choices = &mut self.choices;
        match event & 0x1f {
            0 | 1 => {
                let (first, key) = (choices.first_byte(), [choices.byte(), 2, 3, 4]);
                let frame = reference::frame(first, &choices.payload(), Some(key));
                self.run.client.say(&frame);
            }
            2 | 3 => self.run.client.say(choices.counted()),
            4 | 5 => self.run.backend.say(&choices.payload()),
            6 => {
                let first = choices.first_byte();
                self.run.backend.say(&reference::frame(first, &choices.payload(), None));
            }
            7 => self.run.pass(1 << (choices.byte() & 0x0f)),
            8 => self.run.pass_to_deadline(),
            9 => _ = self.run.turn(1),
            10 => self.run.client.stall(true),
            11 => self.run.client.stall(false),
            12 => self.run.backend.stall(true),
            13 => self.run.backend.stall(false),
            14 => {
                let how = how_to_leave(choices);
                self.run.leave_client(how);
            }
            15 => {
                let how = how_to_leave(choices);
                self.leave_backend(how);
            }
            16 => self.run.stop(),
            17 => {
                let setup = listener_setup(&self.service, 9, self.run.sim(), None);
                self.run.configure(limits::Process::default(), setup);
            }
            18 => {
                self.is_shortened = true;
                let size = choices.byte();
                self.run.sim().trees[0].insert("large".into(), Node::File(vec![b'x'; size.into()]));
            }
            _ => {}
        }
        if event & 0x80 == 0 {
            self.run.settle();
        }
    }

    /// All that was said is heard; then everybody leaves.
    fn end(&mut self) {
        self.run.client.stall(false);
        self.run.backend.stall(false);
        self.run.settle();
        self.check();
        let must_close = self.must_close();
        self.leave_backend(Leave::Finish);
        self.check();
        let long_ms = if self.run.sim().is_plain { LONG_MS } else { LONG_SEEDED_MS };
        self.run.pass(long_ms);
        assert!(!must_close || self.conversation().is_some_and(|one| one.is_closed(&mut self.run)), "no close frame");
        let client = &self.run.client;
        let may_be_cut = self.is_shortened || client.has_left.is_some() || client.was_stalled || self.run.is_stopped;
        assert!(may_be_cut || !Replies::of(client).is_cut, "a part of a reply is held");
        self.run.leave_client(Leave::Finish);
        self.run.settle();
        self.run.stop();
        self.run.end();
        // What is said after the end has no meaning.
        self.run.client.say(b"behind");
        self.run.backend.say(b"behind");
        self.run.settle();
        self.check();
    }

    /// Whether the client has to hear a close frame once its backend has left.
    fn must_close(&mut self) -> bool {
        let Some((conversation, (name, _))) = self.conversation().zip(self.asked) else { return false };
        let client = &self.run.client;
        let is_heard = client.has_left.is_none() && !client.was_stalled && self.run.handed_over.is_none();
        // A client that answers no ping is left without a close frame.
        let is_patient = self.service.limits.ping_ms != 50;
        is_heard && is_patient && conversation.must_close(!matches!(name, "read" | "write"), &mut self.run)
    }

    /// The backend leaves, if it can: the other end of a pipe that is read has no end. All that it has said until then
    /// is to be heard.
    fn leave_backend(&mut self, how: Leave) {
        let Some((name, _)) = self.asked else { return };
        match (name, how) {
            ("read", _) => return,
            ("write", Leave::Finish) => return,
            _ => {}
        }
        self.run.settle();
        let is_relaying = self.conversation().is_some_and(|one| one.is_relaying(&mut self.run));
        self.is_whole |= is_relaying && how == Leave::Finish && self.run.backend.has_left.is_none();
        self.run.leave_backend(how);
        self.run.settle();
    }

    /// Asserts that everybody has heard what is right.
    fn check(&mut self) {
        match self.conversation() {
            Some(conversation) => conversation.check(&mut self.run),
            None => drop(Replies::of(&self.run.client)),
        }
        if let (Some(ended), Some(conversation)) = (&self.run.ended, self.conversation()) {
            conversation.check_access(ended, &self.run);
        }
    }

    /// The conversation that was asked for.
    fn conversation(&self) -> Option<Conversation> {
        let (name, head_size) = self.asked?;
        let link = links(&self.service).into_iter().find(|link| link.origin.matches(&format!("/{name}")));
        let service = link.as_ref().map_or(&self.service, |link| &link.service);
        let is_other = name == "other" && service.protocol == Protocol::Stream;
        Some(Conversation {
            // What a socket is decides, unless the protocol needs a stream.
            protocol: if is_other { Protocol::Packet } else { service.protocol },
            message_type: service.message_type,
            has_hello: service.hello,
            limits: service.limits.clone(),
            destination: link.map(|link| link.destination),
            head_size,
            is_whole: self.is_whole,
        })
    }
}

fn how_to_leave(choices: &mut Choices<'_>) -> Leave {
    choices.one_of(&[Leave::Finish, Leave::Close, Leave::Reset])
}
