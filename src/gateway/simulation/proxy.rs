//! Clients behind proxies: connections that begin with a PROXY header, and requests with forwarded fields, from peers that
//! are trusted or not. The model knows what each of them says and to whom the gateway may believe it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::codec::{self, Codec};
use super::world::{endpoint, listening, tcp};
use super::*;
use crate::clients::header::SIGNATURE;
use crate::clients::{AddressUnit, ForwardedFields, HeaderUse, Networks, Trust};
use crate::driver::SocketType;
use crate::driver::sim::{HandedOverClient, Node, Rng};
use crate::gateway::listener::ListenerSetup;
use crate::route::{Service, Site};
use crate::transport::StageKind;
use crate::types::Address;

/// Clients of a run, each with a name of its own.
const CLIENTS_MAX: usize = 10;
/// Each of these fates must occur in one of the first `SEEDS` runs.
const FATES: usize = 7;

/// What the bytes before the first request say.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Says {
    Nothing,
    Client {
        client: SocketAddr,
        local: SocketAddr,
    },
    Own,
    /// A malformed header.
    Garbage,
    /// The beginning of a header; then the client leaves, or it waits.
    Cut {
        leaves: bool,
    },
}

/// What the gateway does with a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Fate {
    /// It is closed at once: only trusted proxies may connect.
    Unwanted,
    /// It is closed for its header.
    BadHeader,
    /// It has left before its header was complete.
    Left,
    /// Its header is too slow.
    Slow,
    /// Its header is no HTTP.
    BadRequest,
    /// All requests are answered.
    Served,
    /// It garbles its TLS.
    Any,
}

/// The configuration of a run.
struct Setting {
    trust: Trust,
    has_tls: bool,
    is_direct: bool,
    process: limits::Process,
}

/// A client, or its proxy.
struct Visitor {
    wire: usize,
    name: String,
    peer: Address,
    fate: Fate,
    header: Vec<u8>,
    header_written: usize,
    codec: Codec,
    requests: Vec<u8>,
    written: usize,
    leaves: bool,
    /// It is silent where a header may be absent.
    says_nothing: bool,
    received: Vec<u8>,
    is_websocket: bool,
    has_closed: bool,
    /// It ends its stream once its last answer has begun.
    ends_itself: bool,
    /// The client of each request, and whether its port is known.
    clients: Vec<(Address, bool)>,
    /// The address that the client has connected to.
    local: Address,
    is_over: bool,
}

impl Setting {
    fn draw(rng: &mut Rng) -> Setting {
        let mut proxies = Networks::default();
        for network in ["10.0.0.0/8", "fd00::/8", "unix:"] {
            proxies.add(network).expect("a network");
        }
        let (proto, host) = (rng.one_in(2), rng.one_in(2));
        let fields = match rng.below(4) {
            0 => ForwardedFields::None,
            1 => ForwardedFields::Forwarded,
            _ => ForwardedFields::XForwarded { for_: true, proto, host },
        };
        let header = [HeaderUse::Off, HeaderUse::Optional, HeaderUse::Required][rng.below(3)];
        let mut process = limits::Process::default();
        match rng.below(8) {
            0..4 => process.clients_per_address_max = 1 + rng.below(3) as u64,
            4 => process.clients_max = 3,
            5 => (process.handshakes_max, process.tls_handshakes_max) = (3, 3),
            _ => {}
        }
        let trust = Trust { header, proxies, fields };
        Setting { trust, has_tls: rng.one_in(3), is_direct: rng.one_in(2), process }
    }

    /// Whether clients may be refused for a limit that is not that of their address.
    fn is_tight(&self) -> bool {
        let default = limits::Process::default();
        self.process.clients_max < default.clients_max || self.process.handshakes_max < default.handshakes_max
    }

    fn fate(&self, is_trusted: bool, says: &Says) -> Fate {
        match (self.trust.header, is_trusted, says) {
            (HeaderUse::Required, false, _) => Fate::Unwanted,
            // Whatever it sends is no HTTP, or is not complete.
            (HeaderUse::Off, _, Says::Cut { .. }) | (_, false, Says::Cut { .. }) => Fate::Any,
            (HeaderUse::Off, _, Says::Nothing) | (_, false, Says::Nothing) => Fate::Served,
            (HeaderUse::Off, ..) | (_, false, _) => Fate::BadRequest,
            (_, true, Says::Cut { leaves: true }) => Fate::Left,
            (_, true, Says::Cut { leaves: false }) => Fate::Slow,
            (_, true, Says::Garbage) | (HeaderUse::Required, true, Says::Nothing) => Fate::BadHeader,
            (_, true, _) => Fate::Served,
        }
    }

    /// The client of a request with these elements, the last one nearest, and whether its port is known.
    fn client(&self, peer: Address, says: &Says, elements: &[&str]) -> (Address, bool) {
        let (base, reads_fields) = match says {
            Says::Client { client, .. } => (Address::Tcp(*client), true),
            says => (peer, *says != Says::Own),
        };
        let mut found = (base, true);
        if !reads_fields || self.trust.fields == ForwardedFields::None || !self.trust.proxies.has(base) {
            return found;
        }
        for element in elements.iter().rev() {
            let Ok(ip) = element.parse::<IpAddr>() else { break };
            found = (Address::Tcp((ip, 0).into()), false);
            if !self.trust.proxies.has_ip(ip) {
                break;
            }
        }
        found
    }

    /// The field with these elements.
    fn field(&self, elements: &[&str], rng: &mut Rng) -> String {
        let (name, elements): (_, Vec<String>) = match self.trust.fields {
            ForwardedFields::Forwarded => {
                let write = |element: &&str| match element.contains(':') {
                    true => format!("for=\"[{element}]:4711\""),
                    false => format!("for={element};proto=http"),
                };
                ("Forwarded", elements.iter().map(write).collect())
            }
            _ => ("X-Forwarded-For", elements.iter().map(|element| (*element).to_owned()).collect()),
        };
        // Several lines are one list.
        let cut = rng.below(elements.len() + 1);
        let parts = [&elements[..cut], &elements[cut..]];
        let lines = parts.iter().filter(|part| !part.is_empty()).map(|part| format!("{name}: {}\r\n", part.join(", ")));
        lines.collect()
    }
}

/// A client's address. Few of them, so that limits are reached.
fn stranger(rng: &mut Rng) -> IpAddr {
    let last = 1 + rng.below(3);
    let text = if rng.one_in(3) { format!("2001:db8:0:{last}::7") } else { format!("203.0.113.{last}") };
    text.parse().expect("an address")
}

/// An address of the client's side, and one of the proxy's side with the same family.
fn pair(rng: &mut Rng) -> (SocketAddr, SocketAddr) {
    let port = 1 + rng.below(60_000) as u16;
    // Sometimes a proxy before the proxy.
    let ip = if rng.one_in(5) { "10.9.9.9".parse().expect("an address") } else { stranger(rng) };
    let local = if ip.is_ipv4() { "192.0.2.80" } else { "2001:db8::80" };
    ((ip, port).into(), (local.parse::<IpAddr>().expect("an address"), 443).into())
}

fn line(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (client, local, ports) = (client.ip(), local.ip(), format!("{} {}", client.port(), local.port()));
    format!("PROXY {family} {client} {local} {ports}\r\n").into_bytes()
}

/// A header of version 2.
fn binary(command: u8, family: u8, addresses: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut rest = addresses.to_vec();
    let mut add = |kind: u8, value: &[u8]| {
        rest.push(kind);
        rest.extend((value.len() as u16).to_be_bytes());
        rest.extend(value);
    };
    if rng.one_in(3) {
        add(0x04, &vec![0; rng.below(300)]);
    }
    if rng.one_in(3) {
        add(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 7, b'T', b'L', b'S', b'v', b'1', b'.', b'3']);
    }
    if rng.one_in(20) {
        add(0xea, &vec![b'x'; limits::PROXY_HEADER_SIZE_MAX - 700]);
    }
    let mut checksum = None;
    if rng.one_in(3) {
        add(0x03, &[0; 4]);
        checksum = Some(16 + rest.len() - 4);
    }
    let mut header = [&SIGNATURE[..], &[0x20 | command, family], &(rest.len() as u16).to_be_bytes(), &rest].concat();
    if let Some(at) = checksum {
        let sum = crc32c(&header);
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
    header
}

/// CRC-32C (RFC 3720 appendix B.4), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The bytes before the first request, and what they say.
fn header(rng: &mut Rng) -> (Vec<u8>, Says) {
    let (client, local) = pair(rng);
    let ports = [client.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    let addresses = [octets(client.ip()), octets(local.ip()), ports].concat();
    let family = if client.is_ipv4() { 0x11 } else { 0x21 };
    let (mut bytes, says) = match rng.below(12) {
        0..2 => return (Vec::new(), Says::Nothing),
        2..5 => (line(client, local), Says::Client { client, local }),
        5..9 => (binary(1, family, &addresses, rng), Says::Client { client, local }),
        9 => match rng.below(4) {
            0 => (b"PROXY UNKNOWN\r\n".to_vec(), Says::Own),
            1 => (binary(0, 0, &[], rng), Says::Own),
            2 => (binary(1, 0, &[], rng), Says::Own),
            _ => (binary(1, 0x31, &[b'/'; 216], rng), Says::Own),
        },
        10 => {
            let mut bytes = binary(1, family, &addresses, rng);
            match rng.below(6) {
                0 => bytes[12] = 0x31,
                1 => bytes[12] = 0x22,
                2 => bytes[13] = 0x12,
                3 => bytes[14] = 0xff,
                4 => bytes = b"PROXY TCP4 203.0.113.300 192.0.2.80 1 2\r\n".to_vec(),
                _ => bytes = [b"PROXY ", &[b'x'; 200][..]].concat(),
            }
            (bytes, Says::Garbage)
        }
        _ => {
            let mut bytes = if rng.one_in(2) { line(client, local) } else { binary(1, family, &addresses, rng) };
            bytes.truncate(rng.below(bytes.len()));
            (bytes, Says::Cut { leaves: rng.one_in(2) })
        }
    };
    bytes.shrink_to_fit();
    (bytes, says)
}

impl Visitor {
    fn new(number: usize, port: usize, setting: &Setting, sim: &mut Sim) -> Visitor {
        let own = 2_000 + number;
        let peer = match (port, sim.rng.below(3)) {
            (0, _) => Address::Unix,
            (_, 0) => tcp(&format!("203.0.113.{}:{own}", 1 + sim.rng.below(3))),
            (_, 1) => tcp(&format!("[fd00::1]:{own}")),
            _ => tcp(&format!("10.0.0.1:{own}")),
        };
        let is_trusted = setting.trust.proxies.has(peer);
        let capacity = 1 << (8 + sim.rng.below(10));
        let wire = sim.client(port, capacity, peer);
        let (header, says) = header(&mut sim.rng);
        let rng = &mut sim.rng;
        let (fate, codec) = match setting.fate(is_trusted, &says) {
            Fate::Served if setting.has_tls => match Codec::tls(rng, setting.is_tight()) {
                codec if codec.garbles() => (Fate::Any, codec),
                codec => (Fate::Served, codec),
            },
            // What is refused is answered without TLS.
            fate => (fate, Codec::Plain),
        };
        let name = format!("c{number}");
        let is_read = is_trusted && setting.trust.header != HeaderUse::Off;
        let believed = if is_read { says.clone() } else { Says::Nothing };
        let (mut requests, mut clients) = (Vec::new(), Vec::new());
        let (is_websocket, ends_itself) = (rng.one_in(2), rng.one_in(2));
        for left in (0..1 + rng.below(4)).rev() {
            let strangers: Vec<String> = (0..rng.below(3)).map(|_| stranger(rng).to_string()).collect();
            let mut elements: Vec<&str> = strangers.iter().map(String::as_str).collect();
            for _ in 0..rng.below(3) {
                elements.push(["10.0.0.2", "fd00::3", "unknown", "_hidden", "10.0.0.300"][rng.below(5)]);
            }
            if elements.first().is_some_and(|first| first.starts_with("10.") || first.starts_with("fd")) {
                elements.insert(0, "203.0.113.9");
            }
            clients.push(setting.client(peer, &believed, &elements));
            let field = setting.field(&elements, rng);
            let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            let lines = match (left, is_websocket) {
                (0, true) => upgrade,
                (0, false) if !ends_itself => "Connection: close\r\n",
                _ => "",
            };
            requests.extend(format!("GET /{name} HTTP/1.1\r\nHost: h\r\n{lines}{field}\r\n").bytes());
        }
        let local = match believed {
            Says::Client { local, .. } => Address::Tcp(local),
            _ => sim.wires[wire].local,
        };
        let says_nothing = header.is_empty() && setting.trust.header == HeaderUse::Optional;
        Visitor {
            wire,
            name,
            peer,
            fate,
            header,
            header_written: 0,
            codec,
            requests: if matches!(says, Says::Cut { .. }) { Vec::new() } else { requests },
            written: 0,
            leaves: says == Says::Cut { leaves: true },
            says_nothing,
            received: Vec::new(),
            is_websocket,
            has_closed: false,
            ends_itself,
            clients,
            local,
            is_over: false,
        }
    }

    fn last_client(&self) -> (Address, bool) {
        *self.clients.last().expect("a request")
    }

    fn act(&mut self, sim: &mut Sim) {
        if self.is_over || sim.rng.one_in(3) {
            return;
        }
        let most = 1 + if sim.rng.one_in(2) { sim.rng.below(8) } else { sim.rng.below(2_000) };
        let left = &self.header[self.header_written..];
        if !left.is_empty() {
            self.header_written += sim.wires[self.wire].write(&left[..most.min(left.len())]).unwrap_or(0);
        } else if self.leaves {
            sim.wires[self.wire].finish();
        } else if !self.requests.is_empty() {
            let left = &self.requests[self.written..];
            self.written += self.codec.write(&left[..most.min(left.len())], self.wire, sim);
        }
        self.codec.read(self.wire, sim, &mut self.received);
        if self.is_websocket && !self.has_closed && self.received.windows(13).any(|part| part == b"HTTP/1.1 101 ") {
            self.has_closed = true;
            self.requests.extend([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
        }
        if self.ends_itself && self.fate == Fate::Served && !self.is_websocket && self.answers() == self.clients.len() {
            sim.wires[self.wire].finish();
        }
        if sim.wires[self.wire].is_at_end() {
            sim.wires[self.wire].finish();
            self.is_over = true;
        }
    }

    /// The number of replies that have begun.
    fn answers(&self) -> usize {
        self.received.windows(9).filter(|part| part == b"HTTP/1.1 ").count()
    }

    /// Whether a record for the backend has the addresses of this client.
    fn check_hello(&self, record: &[u8]) {
        let (client, has_port) = self.last_client();
        let size = if record[13] == 0x11 { 4 } else { 16 };
        let shown = match record[13] {
            0x11 | 0x21 => {
                let port = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
                let ip = |at: usize| match <[u8; 4]>::try_from(&record[at..at + size]) {
                    Ok(v4) => IpAddr::from(v4),
                    Err(_) => IpAddr::from(<[u8; 16]>::try_from(&record[at..at + size]).expect("16 bytes")),
                };
                let both = (ip(16).to_canonical(), ip(16 + size).to_canonical());
                Some((both, port(16 + 2 * size), port(18 + 2 * size)))
            }
            _ => None,
        };
        let expected = match (client, self.local) {
            (Address::Tcp(client), Address::Tcp(local)) => {
                let client_port = if has_port { client.port() } else { shown.map_or(0, |(_, port, _)| port) };
                Some(((client.ip(), local.ip()), client_port, local.port()))
            }
            // A proxy on a UNIX socket names its clients.
            (Address::Tcp(client), _) => {
                let local: IpAddr = if client.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
                Some(((client.ip(), local), shown.map_or(0, |(_, port, _)| port), 0))
            }
            _ => None,
        };
        assert_eq!(shown, expected, "{}", self.name);
    }

    /// Asserts that a hand-over has the client's address in the format of accept(2).
    fn check_handed_over(&self, record: &[u8]) {
        let start = match self.last_client() {
            (Address::Tcp(SocketAddr::V4(v4)), _) => {
                assert_eq!(record[..2], 2_u16.to_ne_bytes());
                assert_eq!(record[4..8], v4.ip().octets(), "{}", self.name);
                16
            }
            (Address::Tcp(SocketAddr::V6(v6)), _) => {
                assert_eq!(record[..2], 10_u16.to_ne_bytes());
                assert_eq!(record[8..24], v6.ip().octets(), "{}", self.name);
                28
            }
            (_, _) => 2,
        };
        self.check_hello(&record[start..]);
    }

    fn check_end(&self, line: Option<&Line>, may_be_full: bool) {
        let received = self.received.escape_ascii();
        let context = format!("{} from {} {:?}: {line:?}, received {received}", self.name, self.peer, self.fate);
        let ending = line.map_or("", |line| line.ending.as_str());
        let is_full = ending.starts_with("refused with 503") || self.received.starts_with(b"HTTP/1.1 503 ");
        let expected = match self.fate {
            Fate::Any => return,
            Fate::Unwanted => "",
            _ if is_full && may_be_full => return,
            Fate::BadHeader => "closed: ",
            Fate::Left if self.header.is_empty() => "the client left without a byte",
            Fate::Left => "closed: the connection ended within its PROXY header",
            Fate::Slow if self.says_nothing => "timed out: ",
            Fate::Slow => "timed out: the PROXY header",
            Fate::BadRequest => "refused with 400: ",
            Fate::Served => "",
        };
        assert!(ending.starts_with(expected), "{context}");
        assert!(!self.says_nothing || !ending.contains("PROXY"), "{context}");
        match self.fate {
            Fate::BadHeader | Fate::Left | Fate::Slow | Fate::Unwanted => {
                assert!(self.received.is_empty(), "{context}")
            }
            Fate::BadRequest => assert!(received.to_string().starts_with("HTTP/1.1 400 "), "{context}"),
            _ => assert_eq!(self.answers(), self.clients.len(), "{context}"),
        }
        let shown = line.map_or("", |line| line.client.as_str());
        match (self.fate, self.last_client()) {
            (Fate::Served, (client, true)) => assert_eq!(shown, client.to_string(), "{context}"),
            (Fate::Served, (Address::Tcp(client), false)) => {
                let shown = shown.parse::<SocketAddr>().map(|shown| shown.ip());
                assert_eq!(shown, Ok(client.ip()), "{context}");
            }
            _ => {}
        }
    }
}

/// A line of the log about the end of a connection.
#[derive(Debug)]
struct Line {
    client: String,
    name: String,
    ending: String,
}

impl Line {
    fn parse(line: &str) -> Line {
        let value = |key: &str| {
            let rest = line.split(&format!("\"{key}\":\"")).nth(1).unwrap_or_default();
            rest.split('"').next().unwrap_or_default().to_owned()
        };
        Line { client: value("client"), name: value("name"), ending: value("message") }
    }
}

/// A backend that reads the record, and closes when its client does.
struct Reader {
    name: String,
    wire: usize,
    record: Vec<u8>,
    is_over: bool,
}

impl Reader {
    fn act(&mut self, visitors: &[Visitor], sim: &mut Sim) {
        while let Some(chunk) = sim.wires[self.wire].read() {
            self.record.extend(chunk);
        }
        if !self.is_over && sim.wires[self.wire].is_at_end() {
            let visitor = visitor(visitors, &self.name);
            // Its connection may fail before anything is sent to its backend.
            if visitor.fate == Fate::Served || !self.record.is_empty() {
                visitor.check_hello(&self.record);
            }
            sim.wires[self.wire].leave();
            self.is_over = true;
        }
    }
}

fn visitor<'v>(visitors: &'v [Visitor], name: &str) -> &'v Visitor {
    visitors.iter().find(|visitor| visitor.name == name).expect("its name")
}

#[test]
fn proxies() {
    log::set_level(if number("UAKARI_SEED").is_some() { Level::Debug } else { Level::Error });
    if let Some(seed) = number("UAKARI_SEED") {
        run_proxies(seed);
        return;
    }
    let seeds = number("UAKARI_SEEDS").unwrap_or(SEEDS);
    let mut seen: HashMap<Fate, usize> = HashMap::new();
    let mut full = 0;
    for seed in 0..seeds {
        let (fates, refused) = run_proxies(seed);
        fates.into_iter().for_each(|fate| *seen.entry(fate).or_default() += 1);
        full += refused;
    }
    assert!(seeds < SEEDS || seen.len() == FATES && full > 0, "{seen:?}, {full} refused for their address");
}

/// Returns the fates of the clients, and how many were refused because of their address.
fn run_proxies(seed: u64) -> (Vec<Fate>, usize) {
    let seed = Seed(seed);
    let mut sim = Sim::new(seed.0 ^ 0x70_72_6f_78_79, 0);
    let buffers = [3, 16, limits::POOL_BUFFERS.default as usize][sim.rng.below(3)];
    let mut sim = Sim::new(sim.rng.draw(), buffers);
    sim.stands_still = true;
    let setting = Setting::draw(&mut sim.rng);
    let port = sim.port(tcp("192.0.2.1:80"));
    let service = Service { hello: true, is_direct: setting.is_direct, ..Service::default() };
    let site = Site { has_docroot: true, service: Arc::new(service), ..Site::default() };
    for number in 0..CLIENTS_MAX {
        sim.trees[0].insert(format!("c{number}"), Node::Backend(SocketType::Stream));
    }
    let stage = if setting.has_tls { StageKind::Tls(codec::hosts()) } else { StageKind::Plain };
    let mut endpoint = endpoint(site, stage, &mut sim);
    Arc::get_mut(&mut endpoint).expect("the only owner").sites.trust = setting.trust.clone();
    let count = 1 + sim.rng.below(CLIENTS_MAX);
    let mut visitors = Vec::new();
    for number in 0..count {
        let port = if sim.rng.one_in(6) { 0 } else { port };
        visitors.push(Visitor::new(number, port, &setting, &mut sim));
    }
    let setups = [0, port].map(|port| {
        let (address, socket) = listening(&mut sim, port);
        ListenerSetup { address, socket, file: None, endpoint: endpoint.clone() }
    });
    let mut gateway = Gateway::new(sim, setting.process.clone());
    gateway.configure(setting.process.clone(), setups.into());
    let (mut readers, mut completions, mut turns): (Vec<Reader>, _, _) = (Vec::new(), Vec::new(), 0);
    let mut was_stopped = false;
    while !gateway.is_over() {
        let sim = gateway.driver_mut();
        visitors.iter_mut().for_each(|visitor| visitor.act(sim));
        for (name, wire) in std::mem::take(&mut sim.connected) {
            readers.push(Reader { name, wire, record: Vec::new(), is_over: false });
        }
        readers.iter_mut().for_each(|reader| reader.act(&visitors, sim));
        for HandedOverClient { name, wire, is_relayed, record, .. } in std::mem::take(&mut sim.handed_over) {
            visitor(&visitors, &name).check_handed_over(&record);
            match is_relayed {
                true => sim.wires[wire].leave(),
                false => sim.wires[wire].close_passed(),
            }
        }
        gateway.turn(None, &mut completions).expect("the simulated kernel does not fail");
        turns += 1;
        assert!(turns < TURNS_MAX, "the run does not end");
        check_places(&gateway, &setting);
        let sim = gateway.driver_mut();
        let is_done = !sim.has_waiting() && visitors.iter().all(|visitor| visitor.is_over);
        if is_done && !std::mem::replace(&mut was_stopped, true) {
            gateway.stop();
        }
    }
    assert!(gateway.has_empty_counts(), "connections outlive the deadline, or something is counted that is not there");
    assert_eq!(endpoint.permits_held(), 0, "permits outlive their connections");
    assert_eq!(leaks(&mut gateway), "", "leaks");
    let lines: Vec<Line> = log::take_access_lines().iter().map(|line| Line::parse(line)).collect();
    for visitor in &visitors {
        // Without a request, it is known by the address of its proxy, or the one that this has announced.
        let addresses = [visitor.peer, visitor.clients[0].0].map(|address| address.to_string());
        let is_its =
            |line: &&Line| line.name == visitor.name || line.name.is_empty() && addresses.contains(&line.client);
        let line = lines.iter().find(is_its);
        if visitor.peer == Address::Unix && line.is_none_or(|line| line.name.is_empty()) {
            continue;
        }
        visitor.check_end(line, setting.is_tight() || may_be_full(visitor, &visitors, &setting));
    }
    let full = lines.iter().filter(|line| line.ending.contains("clients-per-address")).count();
    (visitors.iter().map(|visitor| visitor.fate).collect(), full)
}

/// Asserts that no address has more places than it may.
fn check_places(gateway: &Gateway<Sim>, setting: &Setting) {
    let mut places: HashMap<AddressUnit, u64> = HashMap::new();
    for (_, connection) in &gateway.connections {
        if let Some(address) = connection.place() {
            *places.entry(AddressUnit::of(address)).or_default() += 1;
        }
    }
    let most = setting.process.clients_per_address_max;
    for (unit, count) in places {
        assert!(unit == AddressUnit::Unknown || count <= most, "{count} places of {unit:?}");
    }
}

/// Whether other clients may take all places of an address of this one. Trusted proxies do not take any.
fn may_be_full(visitor: &Visitor, visitors: &[Visitor], setting: &Setting) -> bool {
    let has = |one: &Visitor, unit| one.clients.iter().any(|(client, _)| AddressUnit::of(*client) == unit);
    let takes = |(client, is_of_socket): &&(Address, bool)| !(*is_of_socket && setting.trust.proxies.has(*client));
    visitor.clients.iter().filter(takes).any(|(client, _)| {
        let unit = AddressUnit::of(*client);
        visitors.iter().filter(|one| has(one, unit)).count() as u64 > setting.process.clients_per_address_max
    })
}
