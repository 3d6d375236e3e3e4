//! A simulated kernel with a seed: short reads and writes at any offset, delayed and reordered completions, errors, an
//! empty pool, and time that jumps. Behaviour observed on the real kernel is reproduced: a close with operations in
//! flight, a multishot operation that ends by itself, ENOBUFS, an empty packet, a truncated packet, a full backlog, a
//! spurious wake-up of a device.
//!
//! A plain kernel (`Sim::is_plain`) makes no random choices: each operation that can complete completes at once, whole
//! and in order, and time advances only when nothing completes. The fuzz targets use it, so that their input alone
//! decides.

mod connect;
mod objects;
mod tree;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;

use slab::Slab;

use super::device::{DeviceId, Direction};
use super::*;
use crate::limits::{POOL_BUFFER_SIZE, POOL_HEADROOM, STANDSTILL_MS};
pub use objects::Handle;
use objects::{Ask, NOTHING, Object, Pending};
use tree::{EPOCH_S, Place};
pub use tree::{Host, Node, Tree};
pub use wire::{Pipe, Rng, Wire};

/// Largest receive in bytes.
const CAPACITY: usize = POOL_BUFFER_SIZE - POOL_HEADROOM;
/// Milliseconds that pass when nothing completes and no timeout is due.
const IDLE_MS: u64 = 20;

/// A client that was handed over.
#[derive(Debug)]
pub struct HandedOverClient {
    /// The backend's name.
    pub name: String,
    /// The wire that the backend received: the client's own, or one of a socket pair.
    pub wire: usize,
    /// The client's own wire.
    pub client: usize,
    /// The backend received one end of a socket pair; the gateway has the other end.
    pub is_relayed: bool,
    /// The record that the backend received with the descriptor.
    pub record: Vec<u8>,
}

/// A listening address.
struct Port {
    address: Address,
    /// The wires of clients in the accept queue.
    waiting: VecDeque<usize>,
}

/// The simulated kernel.
pub struct Sim {
    /// Makes all random choices.
    pub rng: Rng,
    /// No random choices are made.
    pub is_plain: bool,
    /// Capacity of a backend's wire in each direction, in bytes; None: random.
    pub capacity: Option<usize>,
    /// A send that a shutdown ends completes in one of this many waits.
    pub lateness: usize,
    /// The simulated time in milliseconds.
    pub now_ms: u64,
    /// The process is suspended at random times.
    pub stands_still: bool,
    /// The kernel has TLS. Its records are not simulated: a client's bytes are those inside of them.
    pub has_kernel_tls: bool,
    /// Whether a record that is no application data can be sent without waiting.
    pub has_room_for_records: bool,
    /// The keys of records are taken.
    pub takes_record_keys: bool,
    /// The folders that the gateway holds open.
    pub trees: Vec<Tree>,
    /// The files at absolute paths.
    pub paths: BTreeMap<String, Node>,
    /// The hosts at TCP addresses.
    pub hosts: BTreeMap<SocketAddr, Host>,
    /// All connections since the start.
    pub wires: Vec<Wire>,
    /// New connections to backends: the name and the wire.
    pub connected: Vec<(String, usize)>,
    /// New hand-overs.
    pub handed_over: Vec<HandedOverClient>,
    /// Number of completions since the start.
    pub completed: u64,
    /// The timeout of the last `wait`, in milliseconds; None: no limit.
    pub timeout_ms: Option<u64>,
    ports: Vec<Port>,
    /// Number of folders that were opened for the gateway and stay open.
    folders: usize,
    objects: Slab<Object>,
    pending: Vec<Pending>,
    /// The pool; a buffer's memory is allocated when it is first lent.
    buffers: Vec<Vec<u8>>,
    /// Receives of each share that were submitted since the last `wait`.
    asked: [usize; 2],
    /// Free buffers of each share; the buffers of `Share::Requests` follow those of `Share::Messages`.
    free: [Vec<u16>; 2],
}

impl Sim {
    /// Creates a kernel with a pool of `buffers` buffers, one empty tree, and a port with a UNIX socket.
    pub fn new(seed: u64, buffers: usize) -> Sim {
        let messages = Share::Messages.size(buffers) as u16;
        Sim {
            rng: Rng(seed),
            is_plain: false,
            capacity: None,
            lateness: 1,
            now_ms: 1,
            stands_still: false,
            has_kernel_tls: false,
            has_room_for_records: true,
            takes_record_keys: true,
            trees: vec![Tree::new()],
            paths: BTreeMap::new(),
            hosts: BTreeMap::new(),
            wires: Vec::new(),
            connected: Vec::new(),
            handed_over: Vec::new(),
            completed: 0,
            timeout_ms: None,
            ports: vec![Port { address: Address::Unix, waiting: VecDeque::new() }],
            folders: 0,
            objects: Slab::new(),
            pending: Vec::new(),
            buffers: vec![Vec::new(); buffers],
            asked: [0; 2],
            free: [(0..messages).collect(), (messages..buffers as u16).collect()],
        }
    }

    /// Adds a port and returns its number.
    pub fn port(&mut self, address: Address) -> usize {
        self.ports.push(Port { address, waiting: VecDeque::new() });
        self.ports.len() - 1
    }

    /// Opens a listening socket of the first port.
    pub fn listener(&mut self) -> Handle {
        self.listener_at(0)
    }

    /// Opens a listening socket of a port. Clients wait at the port, so that any listener of the port may accept them.
    pub fn listener_at(&mut self, port: usize) -> Handle {
        Handle(self.objects.insert(Object::Listener(port)))
    }

    /// Opens the root of a tree.
    pub fn folder(&mut self, tree: usize) -> Handle {
        self.folders += 1;
        Handle(self.objects.insert(Object::Folder(tree)))
    }

    /// Connects a client from this address to a port; returns the number of its wire.
    pub fn client(&mut self, port: usize, capacity: usize, address: Address) -> usize {
        let local = self.ports[port].address;
        self.wires.push(Wire { address, local, ..Wire::new(capacity, false) });
        self.ports[port].waiting.push_back(self.wires.len() - 1);
        self.wires.len() - 1
    }

    /// Creates a wire between two actors of the test.
    pub fn inner_wire(&mut self, capacity: usize, address: Address) -> usize {
        self.wires.push(Wire { address, local: Address::Unknown, ..Wire::new(capacity, false) });
        self.wires.len() - 1
    }

    /// Opens a connection between the gateway and an actor of the test, as socketpair(2) does; returns the gateway's end and
    /// the number of the wire.
    pub fn socket_pair(&mut self, capacity: usize) -> (Handle, usize) {
        self.wires.push(Wire::new(capacity, false));
        let wire = self.wires.len() - 1;
        (Handle(self.objects.insert(Object::Wire(wire))), wire)
    }

    /// Whether a client waits in an accept queue.
    pub fn has_waiting(&self) -> bool {
        self.ports.iter().any(|port| !port.waiting.is_empty())
    }

    /// Counts open handles, lent buffers and operations in flight; empty if there are none. Listeners, their accepts,
    /// and the handles of `folder` are not counted.
    pub fn leaks(&self) -> String {
        let count = |is_one: fn(&Object) -> bool| self.objects.iter().filter(|(_, object)| is_one(object)).count();
        let open = count(|object| !matches!(object, Object::Listener(_) | Object::Folder(_)));
        let folders = count(|object| matches!(object, Object::Folder(_))) - self.folders;
        let lent = self.buffers.len() - self.free.iter().map(Vec::len).sum::<usize>();
        let in_flight = self.pending.iter().filter(|op| !matches!(op.ask, Ask::Accept)).count();
        match (open + folders, lent, in_flight) {
            (0, 0, 0) => String::new(),
            (open, ..) => format!("{open} handles open, {lent} buffers lent, {in_flight} operations in flight"),
        }
    }

    /// True once in `n` times; a random choice.
    fn chance(&mut self, n: usize) -> bool {
        !self.is_plain && self.rng.one_in(n)
    }

    /// The number of these bytes that are transferred at once: usually all.
    fn cut(&mut self, size: usize) -> usize {
        if size < 2 || !self.chance(3) { size } else { 1 + self.rng.below(size) }
    }

    fn start(&mut self, token: Token, object: usize, ask: Ask) {
        let cancelled_by = match &ask {
            Ask::Receive { how: Receive::Device } => Token { op: Op::Readable, ..token },
            Ask::Send { .. } if matches!(self.objects[object], Object::Device { .. }) => {
                Token { op: Op::Writable, ..token }
            }
            _ => token,
        };
        self.pending.push(Pending { token, cancelled_by, object, ask, is_cancelled: false });
    }

    fn node(&self, place: &Place) -> Option<&Node> {
        match place.tree {
            Some(tree) => self.trees[tree].get(&place.path),
            // The entry of the folder itself.
            None => self.paths.get(place.path.strip_suffix("/.").unwrap_or(&place.path)),
        }
    }

    fn wire(&mut self, object: usize) -> &mut Wire {
        match self.objects[object] {
            Object::Wire(wire) | Object::Device { wire, is_prepared: true, .. } => &mut self.wires[wire],
            ref object => panic!("neither a socket nor a device that is ready: {object:?}"),
        }
    }

    /// Completes an operation if it can complete, or returns it.
    fn attempt(&mut self, op: Pending) -> Result<(Event<Handle>, Option<Pending>), Pending> {
        let Pending { token, cancelled_by, object, ask, is_cancelled } = op;
        let again = |ask| Pending { token, cancelled_by, object, ask, is_cancelled };
        match ask {
            Ask::Accept if is_cancelled => Ok((Event::Accepted { result: Err(Errno::ECANCELED), more: false }, None)),
            Ask::Accept => self
                .attempt_accept(object)
                .map(|(event, more)| (event, more.then(|| again(Ask::Accept))))
                .ok_or_else(|| again(Ask::Accept)),
            Ask::Receive { how } => match self.attempt_receive(object, how, is_cancelled) {
                Some(result) => {
                    let is_multishot = matches!(how, Receive::Multishot | Receive::Packets);
                    let has_bytes = matches!(&result, Received::Data(lease) if !lease.is_empty());
                    let goes_on = is_multishot && has_bytes && !self.chance(20);
                    let more = goes_on.then(|| again(Ask::Receive { how }));
                    Ok((Event::Received { result, more: goes_on }, more))
                }
                None => Err(again(Ask::Receive { how })),
            },
            Ask::Send { batch, wait } => match self.attempt_send(object, &batch, wait, is_cancelled) {
                Some(result) => Ok((Event::Sent { batch, result }, None)),
                None => Err(again(Ask::Send { batch, wait })),
            },
            Ask::Open { place, purpose } => Ok((Event::Opened(self.attempt_open(object, place, purpose)), None)),
            Ask::Connect { socket_type } => Ok((Event::Connected(self.attempt_connect(object, socket_type)), None)),
            Ask::ConnectTcp { address } => match self.attempt_connect_tcp(address, is_cancelled) {
                Some(result) => Ok((Event::Connected(result), None)),
                None => Err(again(Ask::ConnectTcp { address })),
            },
            Ask::HandOver { client, handover } => {
                Ok((Event::HandedOver(self.attempt_hand_over(object, client, handover, is_cancelled)), None))
            }
            Ask::Read { offset } => {
                Ok((Event::Received { result: self.attempt_read(object, offset), more: false }, None))
            }
        }
    }

    fn attempt_accept(&mut self, object: usize) -> Option<(Event<Handle>, bool)> {
        let Object::Listener(port) = self.objects[object] else { panic!("not a listener") };
        let &wire = self.ports[port].waiting.front()?;
        if self.chance(30) {
            return Some((Event::Accepted { result: Err(Errno::EMFILE), more: false }, false));
        }
        self.ports[port].waiting.pop_front();
        let handle = Handle(self.objects.insert(Object::Wire(wire)));
        let address = self.wires[wire].address;
        Some((Event::Accepted { result: Ok((handle, address)), more: true }, true))
    }

    fn attempt_receive(&mut self, object: usize, how: Receive, is_cancelled: bool) -> Option<Received> {
        if is_cancelled && (self.is_plain || self.rng.one_in(2)) {
            return Some(Received::Failed(Errno::ECANCELED));
        }
        let is_device = how == Receive::Device;
        let wakes_up_for_nothing = is_device && self.chance(50);
        let is_joined = how != Receive::Packets && self.is_plain;
        let wire = self.wire(object);
        let has_records = !wire.records_to_gateway.is_empty();
        let pipe = &mut wire.to_gateway;
        if is_joined {
            pipe.join(CAPACITY);
        }
        if pipe.broken {
            return Some(Received::Failed(if is_device { Errno::EIO } else { Errno::ECONNRESET }));
        }
        let Some(first) = pipe.chunks.front() else {
            return match () {
                () if has_records => Some(Received::Failed(Errno::EIO)),
                () if pipe.finished => Some(Received::End),
                () if is_cancelled => Some(Received::Failed(Errno::ECANCELED)),
                () if wakes_up_for_nothing => Some(Received::Failed(Errno::EAGAIN)),
                () => None,
            };
        };
        let most = first.len().min(CAPACITY);
        let share = how.share();
        if self.free[share as usize].is_empty() {
            return Some(Received::Failed(Errno::ENOBUFS));
        }
        let size = self.cut(most);
        let pipe = &mut self.wire(object).to_gateway;
        let mut bytes = pipe.chunks.pop_front()?;
        if how != Receive::Packets && size < bytes.len() {
            pipe.chunks.push_front(bytes.split_off(size));
        }
        pipe.size -= bytes.len();
        Some(match bytes.len() {
            size if size > CAPACITY => Received::Failed(Errno::EMSGSIZE),
            _ => self.lend(share, &bytes),
        })
    }

    fn lend(&mut self, share: Share, bytes: &[u8]) -> Received {
        let Some(buffer) = self.free[share as usize].pop() else { return Received::Failed(Errno::ENOBUFS) };
        let end = POOL_HEADROOM + bytes.len();
        self.buffers[buffer as usize].resize(POOL_BUFFER_SIZE, 0);
        self.buffers[buffer as usize][POOL_HEADROOM..end].copy_from_slice(bytes);
        Received::Data(Lease { share, buffer, start: POOL_HEADROOM as u32, end: end as u32 })
    }

    fn attempt_send(
        &mut self,
        object: usize,
        batch: &Batch,
        wait: bool,
        is_cancelled: bool,
    ) -> Option<Result<usize, Errno>> {
        let wire = self.wire(object);
        let (is_broken, packets) = (wire.from_gateway.broken || wire.from_gateway.finished, wire.packets);
        let room = wire.from_gateway.capacity.saturating_sub(wire.from_gateway.size);
        let fits = if packets { room >= batch.len() || wire.from_gateway.size == 0 } else { room > 0 };
        if is_broken {
            return (!wait || self.rng.one_in(self.lateness)).then_some(Err(Errno::EPIPE));
        }
        if !fits {
            return match (is_cancelled, wait) {
                (true, _) => Some(Err(Errno::ECANCELED)),
                (false, true) => None,
                (false, false) => Some(Err(Errno::EAGAIN)),
            };
        }
        let bytes = self.gather(batch);
        let size = if packets { bytes.len() } else { self.cut(bytes.len().min(room)) };
        let pipe = &mut self.wire(object).from_gateway;
        pipe.chunks.push_back(bytes[..size].to_vec());
        pipe.size += size;
        Some(Ok(size))
    }

    fn gather(&mut self, batch: &Batch) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in std::iter::once(&batch.first).chain(&batch.rest) {
            segment.append_to(self, &mut bytes);
        }
        bytes
    }

    fn attempt_open(&mut self, folder: usize, mut place: Place, purpose: OpenFor) -> Result<(Handle, FileKind), Errno> {
        if self.chance(60) {
            return Err(Errno::EMFILE);
        }
        if folder != NOTHING {
            let Object::Folder(tree) = self.objects[folder] else { panic!("not a folder") };
            place.tree = Some(tree);
        }
        let node = self.node(&place).ok_or(Errno::ENOENT)?.clone();
        if let OpenFor::Speaking(device) = purpose {
            return self.attempt_open_device(&place, &node, device);
        }
        let kind = node.kind(&place, purpose)?;
        let object = match node {
            Node::Root(tree) => Object::Folder(tree),
            _ if place.path.ends_with("/.") && kind != FileKind::Folder => return Err(Errno::ENOTDIR),
            _ => Object::File(place),
        };
        Ok((Handle(self.objects.insert(object)), kind))
    }

    fn attempt_read(&mut self, object: usize, offset: u64) -> Received {
        let Object::File(place) = &self.objects[object] else { panic!("not a file") };
        let most = if self.is_plain { CAPACITY } else { 1 + self.rng.below(CAPACITY) };
        let Some(Node::File(bytes)) = self.node(place) else { return Received::Failed(Errno::EIO) };
        let rest = &bytes[(offset as usize).min(bytes.len())..];
        let size = rest.len().min(most);
        let part = rest[..size].to_vec();
        if part.is_empty() { Received::End } else { self.lend(Share::Requests, &part) }
    }

    /// Completes a random subset of the operations that can complete, in random order. Returns whether any completed.
    fn complete_some(&mut self, completions: &mut Vec<Completion<Handle>>) -> bool {
        let before = completions.len();
        let mut pending = std::mem::take(&mut self.pending);
        for i in (1..pending.len()).rev().filter(|_| !self.is_plain) {
            pending.swap(i, self.rng.below(i + 1));
        }
        for op in pending {
            if self.chance(4) {
                self.pending.push(op);
                continue;
            }
            let token = op.token;
            match self.attempt(op) {
                Ok((event, more)) => {
                    completions.push(Completion { token, event });
                    self.pending.extend(more);
                }
                Err(op) => self.pending.push(op),
            }
        }
        self.completed += (completions.len() - before) as u64;
        completions.len() > before
    }
}

impl Driver for Sim {
    type Handle = Handle;

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn unix_s(&self) -> u64 {
        EPOCH_S + self.now_ms / 1000
    }

    fn accept(&mut self, token: Token, listener: &Handle) {
        self.start(token, listener.0, Ask::Accept);
    }

    fn receive(&mut self, token: Token, socket: &Handle, how: Receive) {
        let is_twice = self.pending.iter().any(|op| op.token == token && matches!(op.ask, Ask::Receive { .. }));
        assert!(!is_twice, "two receives at once would mix up the stream");
        let is_right = match self.objects[socket.0] {
            Object::Device { device, .. } => how == Receive::Device && device != Device::Fifo(Direction::Write),
            _ => how != Receive::Device,
        };
        assert!(is_right, "{how:?} of {:?}", self.objects[socket.0]);
        self.asked[how.share() as usize] += 1;
        self.start(token, socket.0, Ask::Receive { how });
    }

    fn send(&mut self, token: Token, socket: &Handle, batch: Batch, how: Sending) {
        let is_twice = self.pending.iter().any(|op| op.token == token && matches!(op.ask, Ask::Send { .. }));
        assert!(!is_twice, "two sends at once would mix up the stream");
        if self.stands_still && self.rng.one_in(300) {
            // The process is suspended for a while in the middle of a turn.
            self.now_ms += STANDSTILL_MS + self.rng.below(200_000) as u64;
        }
        let is_right = match self.objects[socket.0] {
            Object::Device { device, .. } => how == Sending::Device && device != Device::Fifo(Direction::Read),
            _ => how != Sending::Device,
        };
        assert!(is_right, "{how:?} to {:?}", self.objects[socket.0]);
        self.start(token, socket.0, Ask::Send { batch, wait: how != Sending::Now });
    }

    fn open(&mut self, token: Token, reach: Reach<'_, Handle>, path: CString, purpose: OpenFor) {
        let place = Place { tree: None, path: path.into_string().expect("names are UTF-8") };
        match reach {
            Reach::Beneath(folder) | Reach::From(folder) => {
                assert!(!place.path.starts_with('/') && place.path.split('/').all(|part| part != ".."), "{place:?}");
                self.start(token, folder.0, Ask::Open { place, purpose });
            }
            Reach::Anywhere => {
                assert!(place.path.starts_with('/'), "{place:?}");
                self.start(token, NOTHING, Ask::Open { place, purpose });
            }
        }
    }

    fn prepare(&mut self, file: &Handle, device: Device) -> Result<(), Errno> {
        self.prepare_device(file.0, device)
    }

    fn connect(&mut self, token: Token, file: &Handle, socket_type: SocketType) {
        self.start(token, file.0, Ask::Connect { socket_type });
    }

    fn connect_tcp(&mut self, token: Token, address: SocketAddr, _: &limits::Http) {
        self.start(token, NOTHING, Ask::ConnectTcp { address });
    }

    fn hand_over(&mut self, token: Token, file: &Handle, client: &Handle, handover: Handover) {
        let is_busy = self.pending.iter().any(|op| op.is_on(client.0));
        assert!(!is_busy, "what is in flight would take bytes that are the backend's");
        self.start(token, file.0, Ask::HandOver { client: client.0, handover });
    }

    fn begin_records(&mut self, client: &Handle, _: RecordSuite) -> Result<(), Errno> {
        let is_busy = self.pending.iter().any(|op| op.is_on(client.0));
        assert!(!is_busy, "what is in flight would mix records and their contents");
        if self.has_kernel_tls { Ok(()) } else { Err(Errno::ENOENT) }
    }

    fn set_record_keys(&mut self, _: &Handle, _: &RecordKey, _: &RecordKey) -> Result<(), Errno> {
        self.takes_record_keys.then_some(()).ok_or(Errno::EINVAL)
    }

    fn receive_record(&mut self, client: &Handle) -> Result<TlsRecord, Errno> {
        let Object::Wire(wire) = self.objects[client.0] else { panic!("not a socket") };
        self.wires[wire].records_to_gateway.pop_front().ok_or(Errno::EAGAIN)
    }

    fn send_record(&mut self, client: &Handle, kind: u8, bytes: &[u8]) -> Result<(), Errno> {
        let Object::Wire(wire) = self.objects[client.0] else { panic!("not a socket") };
        if !self.has_room_for_records {
            return Err(Errno::EAGAIN);
        }
        self.wires[wire].records_from_gateway.push(TlsRecord { kind, bytes: bytes.to_vec() });
        Ok(())
    }

    fn read(&mut self, token: Token, file: &Handle, offset: u64) {
        self.start(token, file.0, Ask::Read { offset });
    }

    fn cancel(&mut self, token: Token) {
        for op in self.pending.iter_mut().filter(|op| op.cancelled_by == token) {
            op.is_cancelled = true;
        }
    }

    fn shutdown(&mut self, socket: &Handle, both: bool) {
        if matches!(self.objects[socket.0], Object::Device { .. }) {
            // shutdown(2): ENOTSOCK.
            return;
        }
        let wire = self.wire(socket.0);
        wire.from_gateway.finished = true;
        if both {
            wire.to_gateway.chunks.clear();
            wire.to_gateway.size = 0;
            wire.to_gateway.finished = true;
        }
    }

    fn close(&mut self, handle: Handle) {
        let is_busy = self.pending.iter().any(|op| op.is_on(handle.0));
        assert!(!is_busy, "closed with operations in flight: they would go on, on whatever gets its number");
        if let Object::Wire(wire) | Object::Device { wire, .. } = self.objects.remove(handle.0) {
            self.wires[wire].close();
        }
    }

    fn wait(&mut self, timeout_ms: Option<u64>, completions: &mut Vec<Completion<Handle>>) -> Result<Rest, Errno> {
        self.timeout_ms = timeout_ms;
        self.asked = [0; 2];
        if !self.complete_some(completions) {
            let most_ms = if self.is_plain { u64::MAX } else { 1 + self.rng.below(IDLE_MS as usize) as u64 };
            self.now_ms += timeout_ms.unwrap_or(IDLE_MS).min(most_ms);
        }
        Ok(Rest::of_ring(completions.len()))
    }

    fn local_address(&self, client: &Handle) -> Address {
        match self.objects[client.0] {
            Object::Wire(wire) => self.wires[wire].local,
            _ => Address::Unknown,
        }
    }

    fn identity(&self, folder: &Handle) -> Option<FolderId> {
        match self.objects[folder.0] {
            Object::Folder(tree) => Some(FolderId { file_system: 1, inode: tree as u64, mount: 1 }),
            _ => None,
        }
    }

    fn replace(&mut self, old: &Handle, new: Handle) -> Result<(), Errno> {
        let Object::Folder(tree) = self.objects.remove(new.0) else { panic!("not a folder") };
        assert!(matches!(self.objects[old.0], Object::Folder(_)), "not a folder");
        if self.chance(20) {
            return Err(Errno::EBUSY);
        }
        self.objects[old.0] = Object::Folder(tree);
        Ok(())
    }

    fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        &mut self.buffers[lease.buffer as usize]
    }

    fn release(&mut self, lease: Lease) {
        let free = &mut self.free[lease.share as usize];
        assert!(!free.contains(&lease.buffer), "a buffer was given back twice");
        free.push(lease.buffer);
    }

    fn may_receive(&self, share: Share) -> bool {
        self.free[share as usize].len() > self.asked[share as usize]
    }

    fn buffers(&self, share: Share) -> usize {
        share.size(self.buffers.len())
    }

    fn buffers_free(&self, share: Share) -> usize {
        self.free[share as usize].len()
    }
}
