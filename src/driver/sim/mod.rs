//! A simulated kernel with a seed: short reads and writes, any cut, delayed and reordered completions, errors,
//! an empty pool, and time that jumps. What the real kernel was seen to do has its counterpart here:
//! a close with operations in flight, a multishot that ends by itself, ENOBUFS, an empty packet, a cut packet, a full
//! backlog.

mod connect;
mod objects;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;

use slab::Slab;

use super::*;
use crate::limits::{POOL_BUFFER_SIZE, POOL_HEADROOM, STANDSTILL_MS};
pub use objects::Handle;
use objects::{Ask, Object, Op};
use wire::{EPOCH_S, Wire};
pub use wire::{Node, Rng};

/// Bytes of a receive at most.
const CAPACITY: usize = POOL_BUFFER_SIZE - POOL_HEADROOM;

/// The kernel.
pub struct Sim {
    /// Decides everything that is left open.
    pub rng: Rng,
    /// The time.
    pub now_ms: u64,
    /// The process is stopped now and then.
    pub stands_still: bool,
    /// What paths lead to.
    pub nodes: BTreeMap<String, Node>,
    /// All connections that ever were.
    pub wires: Vec<Wire>,
    /// Clients that wait to be accepted.
    pub waiting: VecDeque<usize>,
    /// Servers' connections that were just made: the name and the wire.
    pub connected: Vec<(String, usize)>,
    /// Clients' wires that were just handed over: to which server, and whether it is the far end that it got.
    pub handed_over: Vec<(String, usize, bool)>,
    objects: Slab<Object>,
    ops: Vec<Op>,
    buffers: Vec<Vec<u8>>,
    /// Of each share; the buffers of `Share::Requests` come behind those of `Share::Messages`.
    free: [Vec<u16>; 2],
}

impl Sim {
    /// A kernel with a pool of so many buffers.
    pub fn new(seed: u64, buffers: usize) -> Sim {
        Sim {
            rng: Rng(seed),
            now_ms: 1,
            stands_still: false,
            nodes: BTreeMap::new(),
            wires: Vec::new(),
            waiting: VecDeque::new(),
            connected: Vec::new(),
            handed_over: Vec::new(),
            objects: Slab::new(),
            ops: Vec::new(),
            buffers: (0..buffers).map(|_| vec![0; POOL_BUFFER_SIZE]).collect(),
            free: {
                let messages = Share::Messages.size(buffers) as u16;
                [(0..messages).collect(), (messages..buffers as u16).collect()]
            },
        }
    }

    /// A listening socket.
    pub fn listener(&mut self) -> Handle {
        Handle(self.objects.insert(Object::Listener))
    }

    /// A folder; all paths are in one tree.
    pub fn folder(&mut self) -> Handle {
        Handle(self.objects.insert(Object::Folder))
    }

    /// A client comes from this address; its wire speaks for it.
    pub fn client(&mut self, capacity: usize, address: Address) -> usize {
        self.wires.push(Wire { address, ..Wire::new(capacity, false) });
        self.waiting.push_back(self.wires.len() - 1);
        self.wires.len() - 1
    }

    /// What is still open or lent: nothing but listeners and folders, once all is over.
    pub fn leaks(&self) -> String {
        let open =
            self.objects.iter().filter(|(_, object)| matches!(object, Object::File(_) | Object::Wire(_))).count();
        let lent = self.buffers.len() - self.free.iter().map(Vec::len).sum::<usize>();
        let in_flight = self.ops.iter().filter(|op| !matches!(op.ask, Ask::Accept)).count();
        match (open, lent, in_flight) {
            (0, 0, 0) => String::new(),
            _ => format!("{open} handles open, {lent} buffers lent, {in_flight} operations in flight"),
        }
    }

    fn start(&mut self, token: Token, handle: &Handle, ask: Ask) {
        self.ops.push(Op { token, object: handle.0, ask, is_cancelled: false });
    }

    fn wire(&mut self, object: usize) -> &mut Wire {
        match self.objects[object] {
            Object::Wire(wire) => &mut self.wires[wire],
            _ => panic!("not a socket"),
        }
    }

    /// Completes an operation if it can be, or gives it back.
    fn attempt(&mut self, op: Op) -> Result<(Event<Handle>, Option<Op>), Op> {
        let Op { token, object, ask, is_cancelled } = op;
        let again = |ask| Op { token, object, ask, is_cancelled };
        match ask {
            Ask::Accept if is_cancelled => Ok((Event::Accepted { result: Err(Errno::ECANCELED), more: false }, None)),
            Ask::Accept => self
                .attempt_accept()
                .map(|(event, more)| (event, more.then(|| again(Ask::Accept))))
                .ok_or_else(|| again(Ask::Accept)),
            Ask::Receive { how } => match self.attempt_receive(object, how, is_cancelled) {
                Some(result) => {
                    let is_multishot = matches!(how, Receive::Multishot | Receive::Packets);
                    let has_bytes = matches!(&result, Received::Data(lease) if !lease.is_empty());
                    let goes_on = is_multishot && has_bytes && !self.rng.one_in(20);
                    let more = goes_on.then(|| again(Ask::Receive { how }));
                    Ok((Event::Received { result, more: goes_on }, more))
                }
                None => Err(again(Ask::Receive { how })),
            },
            Ask::Send { batch, wait } => match self.attempt_send(object, &batch, wait) {
                Some(result) => Ok((Event::Sent { batch, result }, None)),
                None => Err(again(Ask::Send { batch, wait })),
            },
            Ask::Open { path } => Ok((Event::Opened(self.attempt_open(&path)), None)),
            Ask::Connect { socket_type } => Ok((Event::Connected(self.attempt_connect(object, socket_type)), None)),
            Ask::HandOver { client, handover } => {
                Ok((Event::HandedOver(self.attempt_hand_over(object, client, &handover, is_cancelled)), None))
            }
            Ask::Read { offset } => {
                Ok((Event::Received { result: self.attempt_read(object, offset), more: false }, None))
            }
        }
    }

    fn attempt_accept(&mut self) -> Option<(Event<Handle>, bool)> {
        let &wire = self.waiting.front()?;
        if self.rng.one_in(30) {
            return Some((Event::Accepted { result: Err(Errno::EMFILE), more: false }, false));
        }
        self.waiting.pop_front();
        let handle = Handle(self.objects.insert(Object::Wire(wire)));
        let address = self.wires[wire].address;
        Some((Event::Accepted { result: Ok((handle, address)), more: true }, true))
    }

    fn attempt_receive(&mut self, object: usize, how: Receive, is_cancelled: bool) -> Option<Received> {
        if is_cancelled && self.rng.one_in(2) {
            return Some(Received::Failed(Errno::ECANCELED));
        }
        let pipe = &self.wire(object).to_gateway;
        if pipe.broken {
            return Some(Received::Failed(Errno::ECONNRESET));
        }
        let Some(first) = pipe.chunks.front() else {
            return if pipe.finished {
                Some(Received::End)
            } else {
                is_cancelled.then_some(Received::Failed(Errno::ECANCELED))
            };
        };
        let most = first.len().min(CAPACITY);
        let share = if how == Receive::Request { Share::Requests } else { Share::Messages };
        if self.free[share as usize].is_empty() {
            return Some(Received::Failed(Errno::ENOBUFS));
        }
        let size = if most < 2 || !self.rng.one_in(3) { most } else { 1 + self.rng.below(most) };
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
        self.buffers[buffer as usize][POOL_HEADROOM..end].copy_from_slice(bytes);
        Received::Data(Lease { share, buffer, start: POOL_HEADROOM as u32, end: end as u32 })
    }

    fn attempt_send(&mut self, object: usize, batch: &Batch, wait: bool) -> Option<Result<usize, Errno>> {
        let wire = self.wire(object);
        let (is_broken, packets) = (wire.from_gateway.broken || wire.from_gateway.finished, wire.packets);
        let room = wire.from_gateway.capacity.saturating_sub(wire.from_gateway.size);
        if is_broken {
            return Some(Err(Errno::EPIPE));
        }
        let fits = if packets { room >= batch.len() || self.wire(object).from_gateway.size == 0 } else { room > 0 };
        if !fits {
            return if wait { None } else { Some(Err(Errno::EAGAIN)) };
        }
        let bytes = self.gather(batch);
        let most = if packets { bytes.len() } else { bytes.len().min(room) };
        let size = if packets || most < 2 || !self.rng.one_in(3) { most } else { 1 + self.rng.below(most) };
        let pipe = &mut self.wire(object).from_gateway;
        pipe.chunks.push_back(bytes[..size].to_vec());
        pipe.size += size;
        Some(Ok(size))
    }

    fn gather(&mut self, batch: &Batch) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in std::iter::once(&batch.first).chain(&batch.rest) {
            match segment {
                Segment::Pool(lease) => {
                    bytes.extend_from_slice(
                        &self.buffers[lease.buffer as usize][lease.start as usize..lease.end as usize],
                    );
                }
                Segment::Heap { bytes: all, start } => bytes.extend_from_slice(&all[*start..]),
            }
        }
        bytes
    }

    fn attempt_open(&mut self, path: &str) -> Result<(Handle, FileKind), Errno> {
        if self.rng.one_in(60) {
            return Err(Errno::EMFILE);
        }
        let kind = self.nodes.get(path).ok_or(Errno::ENOENT)?.kind(path)?;
        Ok((Handle(self.objects.insert(Object::File(path.to_owned()))), kind))
    }

    fn attempt_read(&mut self, object: usize, offset: u64) -> Received {
        let Object::File(name) = &self.objects[object] else { panic!("not a file") };
        let Some(Node::File(bytes)) = self.nodes.get(name) else { return Received::Failed(Errno::EIO) };
        let rest = &bytes[(offset as usize).min(bytes.len())..];
        let size = rest.len().min(1 + self.rng.below(CAPACITY));
        let part = rest[..size].to_vec();
        if part.is_empty() { Received::End } else { self.lend(Share::Requests, &part) }
    }

    /// Lets a random part of what can happen happen, in a random order. Whether anything did.
    fn complete_some(&mut self, completions: &mut Vec<Completion<Handle>>) -> bool {
        let before = completions.len();
        let mut ops = std::mem::take(&mut self.ops);
        for i in (1..ops.len()).rev() {
            ops.swap(i, self.rng.below(i + 1));
        }
        for op in ops {
            if self.rng.one_in(4) {
                self.ops.push(op);
                continue;
            }
            let token = op.token;
            match self.attempt(op) {
                Ok((event, more)) => {
                    completions.push(Completion { token, event });
                    self.ops.extend(more);
                }
                Err(op) => self.ops.push(op),
            }
        }
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
        self.start(token, listener, Ask::Accept);
    }

    fn receive(&mut self, token: Token, socket: &Handle, how: Receive) {
        let is_twice = self.ops.iter().any(|op| op.token == token && matches!(op.ask, Ask::Receive { .. }));
        assert!(!is_twice, "two receives at once would mix up the stream");
        self.start(token, socket, Ask::Receive { how });
    }

    fn send(&mut self, token: Token, socket: &Handle, batch: Batch, how: Sending) {
        let is_twice = self.ops.iter().any(|op| op.token == token && matches!(op.ask, Ask::Send { .. }));
        assert!(!is_twice, "two sends at once would mix up the stream");
        if self.stands_still && self.rng.one_in(300) {
            // The process is stopped for a while, in the midst of a turn.
            self.now_ms += STANDSTILL_MS + self.rng.below(200_000) as u64;
        }
        self.start(token, socket, Ask::Send { batch, wait: how != Sending::Now });
    }

    fn open(&mut self, token: Token, reach: Reach<'_, Handle>, path: CString, _: OpenFor) {
        let path = path.into_string().expect("names are UTF-8");
        match reach {
            Reach::Beneath(folder) | Reach::From(folder) => self.start(token, folder, Ask::Open { path }),
            Reach::Anywhere => panic!("the simulated configuration has no links"),
        }
    }

    fn prepare(&mut self, _: &Handle, _: Device) -> Result<(), Errno> {
        panic!("the simulated configuration has no links");
    }

    fn connect(&mut self, token: Token, file: &Handle, socket_type: SocketType) {
        self.start(token, file, Ask::Connect { socket_type });
    }

    fn connect_tcp(&mut self, _: Token, _: SocketAddr, _: &limits::Http) {
        panic!("the simulated configuration has no links");
    }

    fn hand_over(&mut self, token: Token, file: &Handle, client: &Handle, handover: Handover) {
        let is_busy = self.ops.iter().any(|op| op.is_on(client.0));
        assert!(!is_busy, "what is in flight would take bytes that are the server's");
        self.start(token, file, Ask::HandOver { client: client.0, handover });
    }

    fn read(&mut self, token: Token, file: &Handle, offset: u64) {
        self.start(token, file, Ask::Read { offset });
    }

    fn cancel(&mut self, token: Token) {
        for op in self.ops.iter_mut().filter(|op| op.token == token) {
            op.is_cancelled = true;
        }
    }

    fn shutdown(&mut self, socket: &Handle, both: bool) {
        let wire = self.wire(socket.0);
        wire.from_gateway.finished = true;
        if both {
            wire.to_gateway.chunks.clear();
            wire.to_gateway.size = 0;
            wire.to_gateway.finished = true;
        }
    }

    fn close(&mut self, handle: Handle) {
        let is_busy = self.ops.iter().any(|op| op.is_on(handle.0));
        assert!(!is_busy, "closed with operations in flight: they would go on, on whatever gets its number");
        if let Object::Wire(wire) = self.objects.remove(handle.0) {
            self.wires[wire].close();
        }
    }

    fn wait(&mut self, timeout_ms: Option<u64>, completions: &mut Vec<Completion<Handle>>) -> Result<(), Errno> {
        if !self.complete_some(completions) {
            self.now_ms += timeout_ms.unwrap_or(20).min(1 + self.rng.below(20) as u64);
        }
        Ok(())
    }

    fn local_address(&self, _: &Handle) -> Address {
        Address::Unix
    }

    fn identity(&self, _: &Handle) -> Option<FolderId> {
        None
    }

    fn replace(&mut self, _: &Handle, _: Handle) -> Result<(), Errno> {
        panic!("the simulated folders have no paths");
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
        !self.free[share as usize].is_empty()
    }

    fn buffers(&self, share: Share) -> usize {
        share.size(self.buffers.len())
    }

    fn buffers_free(&self, share: Share) -> usize {
        self.free[share as usize].len()
    }
}
