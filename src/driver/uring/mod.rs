//! The driver on io_uring. The oldest supported kernel is 6.1; features that the running kernel lacks are detected by
//! use.

mod handover;
mod in_flight;
mod packets;
mod pool;
mod results;
mod start;
mod waits;

use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::time::Instant;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use slab::Slab;

use super::clock::unix_s;
use super::device::{self, Device};
use super::status::identity_of;
use super::{
    Batch, Completion, Driver, Event, FolderId, Handover, Lease, Op, OpenFor, Reach, Receive, Received, RecordKey,
    RecordSuite, RecordSuites, Rest, Segment, Sending, Share, SocketType, TlsRecord, Token, connect, descriptors,
    kernel_tls, opening,
};
use crate::limits::{ABORT_MS, Http, POOL_BUFFER_SIZE, POOL_HEADROOM, SEND_SEGMENTS_MAX};
use crate::types::Address;
use in_flight::{BackendAddress, InFlight, Lookup, Message};
use packets::{PacketRequest, packet_token};
use pool::{Pool, Supply, buffer_of, raw};
use results::{accepted, result_of};
pub use start::StartError;
use start::{errno_of, start_error};

/// User data of completions that are ignored: cancels, closes and provided buffers.
const UNWATCHED: u64 = 0;
/// Marker in the byte of the operation kind: the other bits are an index into `in_flight`.
const INDEXED: u64 = 0xff;
/// Bit position, above the index, of the operation's number in a chain.
const STEP_SHIFT: u32 = 56;

/// The driver on io_uring.
pub struct Uring {
    ring: IoUring,
    /// The shares of the pool, in the order of `Share`.
    pools: [Pool; 2],
    in_flight: Slab<InFlight>,
    signals: Option<(Token, SignalFd)>,
    /// The inotify instance.
    files: Option<(Token, OwnedFd)>,
    /// The request of packet receives.
    packets: Box<PacketRequest>,
    /// Receives of each share that were submitted since the last `wait`.
    asked: [usize; 2],
    /// Completions to be returned by the next `wait`.
    ready: Vec<Completion<OwnedFd>>,
    /// The last SCM_RIGHTS send failed with ETOOMANYREFS; probe before the next one.
    has_too_many_untaken: bool,
    /// The suites of which the kernel is to make records.
    pub(super) record_suites: RecordSuites,
    epoch: Instant,
}

impl Uring {
    /// Creates the ring, as large as RLIMIT_MEMLOCK allows, and a pool of `buffers` buffers.
    pub fn new(buffers: u16) -> Result<Uring, StartError> {
        let ring = start::new_ring()?;
        let new_pool = |share: Share| {
            let pool = Pool::new(&ring.submitter(), Supply::HERE, share, share.size(buffers as usize) as u16);
            pool.map_err(|error| start_error(errno_of(&error)))
        };
        let pools = [new_pool(Share::Messages)?, new_pool(Share::Requests)?];
        let mut uring = Uring {
            ring,
            pools,
            in_flight: Slab::new(),
            signals: None,
            files: None,
            packets: PacketRequest::new(),
            asked: [0; 2],
            ready: Vec::new(),
            has_too_many_untaken: false,
            record_suites: RecordSuites::default(),
            epoch: Instant::now(),
        };
        for share in Share::ALL {
            for buffer in 0..uring.pools[share as usize].size() {
                let entry = uring.pools[share as usize].provide(buffer as u16);
                uring.push_unwatched(entry);
            }
        }
        // A seccomp profile may permit the set-up alone.
        match uring.ring.submit().map_err(|error| errno_of(&error)) {
            // The next `wait` submits what was not.
            Ok(_) | Err(Errno::EINTR | Errno::EBUSY | Errno::EAGAIN) => Ok(uring),
            Err(errno) => Err(start_error(errno)),
        }
    }

    /// Reports these signals, which must be blocked, as events with `token`.
    pub fn watch_signals(&mut self, token: Token, signals: &[Signal]) -> Result<(), Errno> {
        let fd = descriptors::signals(signals)?;
        self.signals = Some((token, fd));
        self.poll_signals();
        Ok(())
    }

    fn poll_signals(&mut self) {
        if let Some((token, fd)) = &self.signals {
            let entry = opcode::PollAdd::new(raw(fd), libc::POLLIN as u32).build().user_data(token.to_bits());
            self.push(entry);
        }
    }

    /// Reports as events with `token` that an inotify instance is readable.
    pub(super) fn watch_files(&mut self, token: Token, inotify: Option<OwnedFd>) -> Result<(), Errno> {
        if let Some((old, _)) = std::mem::replace(&mut self.files, inotify.map(|inotify| (token, inotify))) {
            self.push(opcode::AsyncCancel::new(old.to_bits()).build().user_data(UNWATCHED));
        }
        self.poll_files();
        Ok(())
    }

    fn poll_files(&mut self) {
        if let Some((token, fd)) = &self.files {
            let entry = opcode::PollAdd::new(raw(fd), libc::POLLIN as u32).build().user_data(token.to_bits());
            self.push(entry);
        }
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: memory that the entry points to is kept in `in_flight` or the pool until its completion.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            match pushed {
                Ok(()) => return,
                // A full submission queue is emptied by submitting, which needs space for completions.
                Err(_) => {
                    if self.ring.submit().is_err() {
                        self.reap();
                    }
                }
            }
        }
    }

    fn push_unwatched(&mut self, entries: impl IntoIterator<Item = squeue::Entry>) {
        entries.into_iter().for_each(|entry| self.push(entry.user_data(UNWATCHED)));
    }

    fn push_indexed(&mut self, entry: squeue::Entry, index: usize) {
        self.push(entry.user_data(index_bits(index)));
    }

    /// Takes all completions from the ring.
    fn reap(&mut self) {
        loop {
            let entry = self.ring.completion().next();
            let Some(entry) = entry else { return };
            if let Some(completion) = self.on_entry(&entry) {
                self.ready.push(completion);
            }
        }
    }

    fn on_entry(&mut self, entry: &cqueue::Entry) -> Option<Completion<OwnedFd>> {
        let bits = entry.user_data();
        if bits & 0xff == INDEXED {
            let index = (bits >> 8) as u32 as usize;
            if let Some(again) = self.in_flight.get_mut(index).and_then(|one| one.again(result_of(entry))) {
                self.push_indexed(again, index);
                return None;
            }
            let done = self.in_flight.remove(index);
            let completion = in_flight::complete(done, (bits >> STEP_SHIFT) as u8, result_of(entry));
            self.has_too_many_untaken |= handover::is_one_too_many(&completion.event);
            return Some(completion);
        }
        let token = Token::from_bits(bits)?;
        let event = match token.op {
            Op::Accept => accepted(entry),
            Op::Signal => {
                let number = self.signals.as_ref().and_then(|(_, fd)| fd.read_signal().ok().flatten());
                self.poll_signals();
                Event::Signal(number?.ssi_signo as i32)
            }
            Op::Files => {
                // A poll of an earlier instance is not repeated.
                result_of(entry).ok().filter(|_| self.files.as_ref().is_some_and(|(own, _)| *own == token))?;
                self.poll_files();
                Event::FilesChanged
            }
            Op::Readable | Op::Writable => return self.on_wait_failed(token, entry),
            Op::Read => {
                self.pools[Share::Requests as usize].reads -= 1;
                self.received(entry)
            }
            Op::Packet => {
                let token = Token { op: Op::Receive, ..token };
                return Some(Completion { token, event: self.received_packet(entry) });
            }
            _ => self.received(entry),
        };
        Some(Completion { token, event })
    }

    fn received(&mut self, entry: &cqueue::Entry) -> Event<OwnedFd> {
        let capacity = POOL_BUFFER_SIZE - POOL_HEADROOM;
        let buffer = cqueue::buffer_select(entry.flags()).map(buffer_of);
        let result = match (result_of(entry), buffer) {
            (Err(errno), None) => Received::Failed(errno),
            (Ok(0), None) => Received::End,
            (Ok(_), None) => Received::Failed(Errno::EIO),
            (Ok(size @ 1..), Some((share, buffer))) if size <= capacity => {
                Received::Data(self.pools[share as usize].lend(buffer, size))
            }
            (result, Some((share, buffer))) => {
                let unused = self.pools[share as usize].lend(buffer, 0);
                self.release(unused);
                match result {
                    Err(errno) => Received::Failed(errno),
                    Ok(0) => Received::End,
                    Ok(_) => Received::Failed(Errno::EIO),
                }
            }
        };
        Event::Received { result, more: cqueue::more(entry.flags()) }
    }

    fn received_packet(&mut self, entry: &cqueue::Entry) -> Event<OwnedFd> {
        let (Ok(_), Some(number)) = (result_of(entry), cqueue::buffer_select(entry.flags())) else {
            return self.received(entry);
        };
        let (share, buffer) = buffer_of(number);
        let (result, given_back) = self.packets.received(&mut self.pools[share as usize], buffer);
        self.push_unwatched(given_back);
        Event::Received { result, more: cqueue::more(entry.flags()) }
    }

    fn iovec(&self, segment: &Segment) -> libc::iovec {
        let start = match segment {
            Segment::Pool(lease) => self.pools[lease.share as usize].bytes(lease),
            Segment::Heap { bytes, start } => bytes[*start..].as_ptr(),
        };
        libc::iovec { iov_base: start.cast_mut().cast(), iov_len: segment.len() }
    }

    fn message(&self, batch: &Batch) -> Box<Message> {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a msghdr of zeros names no address, no segments and no control data.
        let header = unsafe { std::mem::zeroed() };
        let mut message = Box::new(Message { header, segments: [empty; SEND_SEGMENTS_MAX] });
        let segments = std::iter::once(&batch.first).chain(&batch.rest);
        for (place, segment) in message.segments.iter_mut().zip(segments) {
            *place = self.iovec(segment);
        }
        message.header.msg_iov = message.segments.as_mut_ptr();
        message.header.msg_iovlen = (1 + batch.rest.len()).min(SEND_SEGMENTS_MAX) as _;
        message
    }
}

impl Drop for Uring {
    /// The kernel tears a ring down asynchronously: memory that it may still read must outlive the ring.
    fn drop(&mut self) {
        let time = waits::timespec(ABORT_MS);
        // If this fails, operations are still in flight, which is checked below.
        let _ = self.ring.submitter().register_sync_cancel(Some(time), types::CancelBuilder::any());
        self.reap();
        if !self.in_flight.is_empty() {
            // Leaked on purpose: a leak at process exit is better than freed memory under a send.
            let _ = std::mem::ManuallyDrop::new(std::mem::take(&mut self.in_flight));
        }
    }
}

fn index_bits(index: usize) -> u64 {
    (index as u64) << 8 | INDEXED
}

impl Driver for Uring {
    type Handle = OwnedFd;

    fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    fn unix_s(&self) -> u64 {
        unix_s()
    }

    fn accept(&mut self, token: Token, listener: &OwnedFd) {
        // The ring waits on a blocking socket only. If this fails, so does the accept.
        let _ = connect::set_blocking(listener, true);
        let entry = opcode::AcceptMulti::new(raw(listener)).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry.user_data(token.to_bits()));
    }

    fn receive(&mut self, token: Token, socket: &OwnedFd, how: Receive) {
        let share = how.share();
        self.asked[share as usize] += 1;
        let entry = match how {
            Receive::Once | Receive::Request => opcode::Recv::new(raw(socket), std::ptr::null_mut(), 0)
                .buf_group(share as u16)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
            Receive::Multishot => opcode::RecvMulti::new(raw(socket), share as u16).build(),
            Receive::Device => {
                self.push_poll(Token { op: Op::Readable, ..token }, socket, libc::POLLIN);
                let size = (POOL_BUFFER_SIZE - POOL_HEADROOM) as u32;
                let read = opcode::Read::new(raw(socket), std::ptr::null_mut(), size).offset(u64::MAX);
                read.buf_group(share as u16).build().flags(squeue::Flags::BUFFER_SELECT)
            }
            Receive::Packets => {
                let entry = self.packets.entry(socket, share as u16);
                return self.push(entry.user_data(packet_token(token).to_bits()));
            }
        };
        self.push(entry.user_data(token.to_bits()));
    }

    fn send(&mut self, token: Token, socket: &OwnedFd, batch: Batch, how: Sending) {
        let flags = libc::MSG_NOSIGNAL | if how == Sending::Now { libc::MSG_DONTWAIT } else { 0 };
        let (entry, message) = if how == Sending::Device {
            self.push_poll(Token { op: Op::Writable, ..token }, socket, libc::POLLOUT);
            let message = self.message(&batch);
            let count = 1 + batch.rest.len() as u32;
            let write = opcode::Writev::new(raw(socket), message.segments.as_ptr(), count).offset(u64::MAX);
            (write.build(), Some(message))
        } else if batch.rest.is_empty() {
            let bytes = self.iovec(&batch.first);
            let send = opcode::Send::new(raw(socket), bytes.iov_base.cast(), bytes.iov_len as u32);
            (send.flags(flags).build(), None)
        } else {
            let message = self.message(&batch);
            (opcode::SendMsg::new(raw(socket), &raw const message.header).flags(flags as u32).build(), Some(message))
        };
        let index = self.in_flight.insert(InFlight::Send { token, batch, _message: message });
        self.push_indexed(entry, index);
    }

    fn open(&mut self, token: Token, reach: Reach<'_, OwnedFd>, path: CString, purpose: OpenFor) {
        let lookup = Lookup::new(path, opening::OpenRequest::new(&reach, purpose));
        let entry = lookup.entry();
        let index = self.in_flight.insert(InFlight::Open { token, purpose, lookup });
        self.push_indexed(entry, index);
    }

    fn prepare(&mut self, file: &OwnedFd, device: Device) -> Result<(), Errno> {
        device::prepare(file, device)
    }

    fn connect(&mut self, token: Token, file: &OwnedFd, socket_type: SocketType) {
        let made = connect::to_unix(file, socket_type).map(|(socket, at)| (socket, BackendAddress::Unix(at)));
        self.push_connect(token, made);
    }

    fn connect_tcp(&mut self, token: Token, address: SocketAddr, limits: &Http) {
        let made = connect::to_tcp(address, limits).map(|socket| (socket, BackendAddress::Tcp(address.into())));
        self.push_connect(token, made);
    }

    fn hand_over(&mut self, token: Token, file: &OwnedFd, client: &OwnedFd, handover: Handover) {
        self.begin_handover(token, file, client, handover);
    }

    fn begin_records(&mut self, client: &OwnedFd, suite: RecordSuite) -> Result<(), Errno> {
        if !self.record_suites.contains(suite) {
            return Err(Errno::EOPNOTSUPP);
        }
        kernel_tls::begin(client)
    }

    fn set_record_keys(&mut self, client: &OwnedFd, sending: &RecordKey, receiving: &RecordKey) -> Result<(), Errno> {
        kernel_tls::set_keys(client, sending, receiving)
    }

    fn receive_record(&mut self, client: &OwnedFd) -> Result<TlsRecord, Errno> {
        kernel_tls::receive_record(client)
    }

    fn send_record(&mut self, client: &OwnedFd, kind: u8, bytes: &[u8]) -> Result<(), Errno> {
        kernel_tls::send_record(client, kind, bytes)
    }

    fn read(&mut self, token: Token, file: &OwnedFd, offset: u64) {
        let size = (POOL_BUFFER_SIZE - POOL_HEADROOM) as u32;
        let group = Share::Requests as u16;
        let read = opcode::Read::new(raw(file), std::ptr::null_mut(), size).buf_group(group).offset(offset);
        self.pools[Share::Requests as usize].reads += 1;
        self.push(read.build().flags(squeue::Flags::BUFFER_SELECT).user_data(token.to_bits()));
    }

    fn cancel(&mut self, token: Token) {
        for bits in self.operations_of(token) {
            self.push(opcode::AsyncCancel::new(bits).build().user_data(UNWATCHED));
        }
    }

    fn shutdown(&mut self, socket: &OwnedFd, both: bool) {
        // Not through the ring: the kernel runs IORING_OP_SHUTDOWN on a worker, which looks the descriptor up late,
        // when its number may belong to another connection.
        connect::shutdown(socket, both);
    }

    fn close(&mut self, handle: OwnedFd) {
        // The ring closes the descriptor; from here on the kernel owns the number.
        let fd = types::Fd(handle.into_raw_fd());
        self.push(opcode::Close::new(fd).build().user_data(UNWATCHED));
    }

    fn wait(&mut self, timeout_ms: Option<u64>, completions: &mut Vec<Completion<OwnedFd>>) -> Result<Rest, Errno> {
        self.asked = [0; 2];
        // If completions are ready already, do not wait.
        let timeout_ms = if self.ready.is_empty() { timeout_ms } else { Some(0) };
        let waited = match timeout_ms {
            None => self.ring.submit_and_wait(1),
            Some(ms) => {
                let time = waits::timespec(ms);
                self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&time))
            }
        };
        match waited.map_err(|error| errno_of(&error)) {
            // A full completion queue is emptied below; entries that were not submitted are submitted by the next call.
            Ok(_) | Err(Errno::ETIME | Errno::EINTR | Errno::EBUSY | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno),
        }
        self.reap();
        let rest = Rest::of_ring(self.ready.len());
        completions.append(&mut self.ready);
        Ok(rest)
    }

    fn local_address(&self, client: &OwnedFd) -> Address {
        connect::local_address(client)
    }

    fn identity(&self, folder: &OwnedFd) -> Option<FolderId> {
        identity_of(folder)
    }

    fn replace(&mut self, old: &OwnedFd, new: OwnedFd) -> Result<(), Errno> {
        descriptors::replace(old, &new)
    }

    fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        self.pools[lease.share as usize].buffer(lease)
    }

    fn release(&mut self, lease: Lease) {
        let entry = self.pools[lease.share as usize].release(lease);
        self.push_unwatched(entry);
    }

    fn may_receive(&self, share: Share) -> bool {
        self.pools[share as usize].free() > self.asked[share as usize]
    }

    fn buffers(&self, share: Share) -> usize {
        self.pools[share as usize].size()
    }

    fn buffers_free(&self, share: Share) -> usize {
        self.pools[share as usize].free()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    /// An inherited listener may be non-blocking (systemd.socket(5)).
    #[test]
    fn a_listener_becomes_blocking() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = OwnedFd::from(listener);
        let mut ring = Uring::new(2).unwrap();
        ring.accept(Token { slot: 1, generation: 1, op: Op::Accept }, &listener);
        let flags = OFlag::from_bits_retain(fcntl(&listener, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
    }
}
