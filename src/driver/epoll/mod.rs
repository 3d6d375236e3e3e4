//! The driver on epoll(7), for kernels and containers that refuse io_uring.
//!
//! Sends and connects are attempted at once, receives when their descriptor is readable; the next `wait` returns their
//! completions. Interest is edge-triggered: a descriptor is registered once, and its readiness is kept here until a
//! system call answers EAGAIN or a short receive shows that nothing is left. So a message costs one receive and one
//! send, and a paused connection costs nothing. Opens and reads that a file system may delay are left to threads.

mod files;
mod handover;
mod pool;
mod receive;
mod send;
mod sockets;
mod workers;

use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket;
use slab::Slab;

use super::clock::unix_s;
use super::device::{self, Device};
use super::opening::LookupSupport;
use super::status::identity_of;
use super::{
    Batch, Completion, Driver, Event, FolderId, Handover, Lease, Op, OpenFor, Reach, Receive, RecordKey, RecordSuite,
    RecordSuites, Rest, Sending, Share, SocketType, TlsRecord, Token, connect, descriptors, kernel_tls,
};
use crate::limits::{EPOLL_EVENTS_MAX, Http};
use crate::types::Address;
use files::FileJob;
use pool::BufferPool;
use send::Waiting;
use sockets::{Reading, Registration, SocketKind, Sockets};
use workers::Workers;

/// Always of interest: data, the peer's end, and urgent data, which ends a receive early (tcp(7)).
const INPUT: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLPRI).union(EpollFlags::EPOLLET);
/// After these a short receive does not show that nothing is left.
const ENDS: EpollFlags =
    EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR).union(EpollFlags::EPOLLPRI);
const READABLE: EpollFlags = EpollFlags::EPOLLIN.union(ENDS);
const WRITABLE: EpollFlags = EpollFlags::EPOLLOUT.union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR);

/// The driver on epoll.
pub struct Epoll {
    epoll: epoll::Epoll,
    /// Descriptors with operations, or with readiness to remember.
    sockets: Sockets,
    /// Sends and connects that wait until their descriptor is writable.
    waiting: Slab<Waiting>,
    /// The shares of the pool, in the order of `Share`.
    pools: [BufferPool; 2],
    /// Receives of each share that were armed since the last `wait`.
    asked: [usize; 2],
    /// Descriptors that were readable when their operation began or had its turn.
    due: Vec<RawFd>,
    /// Completions to be returned by the next `wait`.
    ready: Vec<Completion<OwnedFd>>,
    events: Box<[EpollEvent]>,
    /// Whether the last `wait` polled.
    has_polled: bool,
    signals: Option<(Token, SignalFd)>,
    /// The inotify instance.
    files: Option<(Token, OwnedFd)>,
    /// Threads for files, and others for devices, which may take long.
    workers: Workers,
    device_workers: Workers,
    /// Opens and reads that threads perform.
    jobs: Slab<FileJob>,
    /// What the kernel offers to resolve paths.
    lookup_support: LookupSupport,
    /// The last SCM_RIGHTS send failed with ETOOMANYREFS; probe before the next one.
    has_too_many_untaken: bool,
    /// The suites of which the kernel is to make records.
    pub(super) record_suites: RecordSuites,
    epoch: Instant,
}

impl Epoll {
    /// Creates the epoll instance and a pool of `buffers` buffers.
    pub fn new(buffers: u16) -> Result<Epoll, Errno> {
        let epoll = epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let (workers, device_workers) = (Workers::new()?, Workers::new()?);
        let new_pool = |share: Share| BufferPool::new(share, share.size(buffers as usize));
        for bell in [workers.bell(), device_workers.bell()] {
            control(&epoll, libc::EPOLL_CTL_ADD, bell.as_raw_fd(), EpollFlags::EPOLLIN)?;
        }
        Ok(Epoll {
            epoll,
            sockets: Sockets::default(),
            waiting: Slab::new(),
            pools: [new_pool(Share::Messages)?, new_pool(Share::Requests)?],
            asked: [0; 2],
            due: Vec::new(),
            ready: Vec::new(),
            events: vec![EpollEvent::empty(); EPOLL_EVENTS_MAX].into(),
            has_polled: false,
            signals: None,
            files: None,
            workers,
            device_workers,
            jobs: Slab::new(),
            lookup_support: LookupSupport::find(),
            has_too_many_untaken: false,
            record_suites: RecordSuites::default(),
            epoch: Instant::now(),
        })
    }

    /// Reports these signals, which must be blocked, as events with `token`.
    pub fn watch_signals(&mut self, token: Token, signals: &[Signal]) -> Result<(), Errno> {
        let fd = descriptors::signals(signals)?;
        control(&self.epoll, libc::EPOLL_CTL_ADD, fd.as_raw_fd(), EpollFlags::EPOLLIN)?;
        self.signals = Some((token, fd));
        Ok(())
    }

    /// Reports as events with `token` that an inotify instance is readable.
    pub(super) fn watch_files(&mut self, token: Token, inotify: Option<OwnedFd>) -> Result<(), Errno> {
        if let Some((_, old)) = self.files.take() {
            // The caller has the same instance open under another number, so closing this one does not deregister it.
            control(&self.epoll, libc::EPOLL_CTL_DEL, old.as_raw_fd(), EpollFlags::empty())?;
        }
        if let Some(inotify) = inotify {
            control(&self.epoll, libc::EPOLL_CTL_ADD, inotify.as_raw_fd(), EpollFlags::EPOLLIN)?;
            self.files = Some((token, inotify));
        }
        Ok(())
    }

    fn push(&mut self, token: Token, event: Event<OwnedFd>) {
        self.ready.push(Completion { token, event });
    }

    /// Registers a descriptor for input, and for output if `is_writing`. A file that cannot be polled is always ready,
    /// as for poll(2).
    fn register(&mut self, fd: RawFd, is_writing: bool) -> Result<(), Errno> {
        let socket = self.sockets.at(fd);
        let (operation, interest) = match (socket.registration, is_writing) {
            (Registration::None, false) => (libc::EPOLL_CTL_ADD, INPUT),
            (Registration::None, true) => (libc::EPOLL_CTL_ADD, INPUT | EpollFlags::EPOLLOUT),
            (Registration::Input, true) => (libc::EPOLL_CTL_MOD, INPUT | EpollFlags::EPOLLOUT),
            (Registration::Input, false) | (Registration::Both | Registration::Unpollable, _) => return Ok(()),
        };
        match control(&self.epoll, operation, fd, interest) {
            Ok(()) => socket.registration = if is_writing { Registration::Both } else { Registration::Input },
            Err(Errno::EPERM) => {
                socket.registration = Registration::Unpollable;
                socket.is_readable = true;
            }
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Ends the interest in output: each read of a UNIX peer would be an event.
    fn forget_output(&mut self, fd: RawFd) {
        let socket = self.sockets.at(fd);
        if socket.registration == Registration::Both
            && socket.kind == SocketKind::Unix
            && control(&self.epoll, libc::EPOLL_CTL_MOD, fd, INPUT).is_ok()
        {
            socket.registration = Registration::Input;
        }
    }

    /// Ends the registration of a descriptor that another process will hold too: it would outlive the close here
    /// (epoll(7)).
    fn deregister(&mut self, fd: RawFd) {
        let socket = self.sockets.at(fd);
        if let Registration::Input | Registration::Both = std::mem::take(&mut socket.registration) {
            // It is registered, so this cannot fail.
            let _ = control(&self.epoll, libc::EPOLL_CTL_DEL, fd, EpollFlags::empty());
        }
        socket.is_readable = false;
    }

    /// Handles the readiness of a descriptor.
    fn on_event(&mut self, event: EpollEvent) {
        let (fd, events) = (event.data() as RawFd, event.events());
        if [&self.workers, &self.device_workers].iter().any(|workers| workers.bell().as_raw_fd() == fd) {
            return self.take_finished();
        }
        if self.signals.as_ref().is_some_and(|(_, signals)| signals.as_raw_fd() == fd) {
            return self.take_signals();
        }
        if let Some((token, _)) = self.files.as_ref().filter(|(_, files)| files.as_raw_fd() == fd) {
            return self.push(*token, Event::FilesChanged);
        }
        let socket = self.sockets.at(fd);
        socket.is_readable |= events.intersects(READABLE);
        socket.is_greedy |= events.intersects(ENDS);
        if events.intersects(WRITABLE) {
            self.try_waiting(fd);
        }
        self.try_reading(fd);
    }

    fn take_signals(&mut self) {
        while let Some((token, fd)) = &self.signals
            && let Ok(Some(signal)) = fd.read_signal()
        {
            let token = *token;
            self.push(token, Event::Signal(signal.ssi_signo as i32));
        }
    }

    /// Polls for events, and handles them. Returns whether there may be more.
    fn poll(&mut self, timeout_ms: Option<u64>) -> Result<Rest, Errno> {
        let timeout = match timeout_ms {
            None => EpollTimeout::NONE,
            Some(ms) => EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::MAX),
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        for index in 0..count {
            self.on_event(self.events[index]);
        }
        Ok(if count == self.events.len() { Rest::Possible } else { Rest::Nothing })
    }
}

/// Changes the interest list (epoll_ctl(2)). The data of an event is the descriptor's number.
fn control(epoll: &epoll::Epoll, operation: libc::c_int, fd: RawFd, interest: EpollFlags) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events: interest.bits() as u32, u64: fd as u64 };
    // SAFETY: the kernel reads one epoll_event, which lives through the call.
    Errno::result(unsafe { libc::epoll_ctl(epoll.0.as_raw_fd(), operation, fd, &raw mut event) }).map(drop)
}

impl Driver for Epoll {
    type Handle = OwnedFd;

    fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    fn unix_s(&self) -> u64 {
        unix_s()
    }

    fn accept(&mut self, token: Token, listener: &OwnedFd) {
        self.arm(token, listener, Reading::Accept);
    }

    fn receive(&mut self, token: Token, socket: &OwnedFd, how: Receive) {
        let share = how.share();
        self.asked[share as usize] += 1;
        self.arm(token, socket, Reading::Receive(how));
    }

    fn send(&mut self, token: Token, socket: &OwnedFd, batch: Batch, how: Sending) {
        self.begin_send(token, socket, batch, how);
    }

    fn open(&mut self, token: Token, reach: Reach<'_, OwnedFd>, path: CString, purpose: OpenFor) {
        self.begin_open(token, reach, path, purpose);
    }

    fn prepare(&mut self, file: &OwnedFd, device: Device) -> Result<(), Errno> {
        device::prepare(file, device)
    }

    fn connect(&mut self, token: Token, file: &OwnedFd, socket_type: SocketType) {
        let connected = connect::to_unix(file, socket_type).and_then(|(socket, address)| {
            socket::connect(socket.as_raw_fd(), &address)?;
            self.sockets.begin(socket.as_raw_fd(), SocketKind::Unix);
            Ok(socket)
        });
        self.push(token, Event::Connected(connected));
    }

    fn connect_tcp(&mut self, token: Token, address: SocketAddr, limits: &Http) {
        self.begin_connect_tcp(token, address, limits);
    }

    fn hand_over(&mut self, token: Token, file: &OwnedFd, client: &OwnedFd, handover: Handover) {
        let result = self.pass(file, client, &handover);
        self.push(token, Event::HandedOver(result));
    }

    fn begin_records(&mut self, client: &OwnedFd, suite: RecordSuite) -> Result<(), Errno> {
        if !self.record_suites.contains(suite) {
            return Err(Errno::EOPNOTSUPP);
        }
        kernel_tls::begin(client)?;
        // A receive ends before a record of another type, which is no event of its own.
        self.sockets.at(client.as_raw_fd()).is_greedy = true;
        Ok(())
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
        self.begin_read(token, file, offset);
    }

    fn cancel(&mut self, token: Token) {
        match token.op {
            Op::Accept | Op::Receive | Op::Readable => self.cancel_reading(token),
            Op::Send | Op::Writable | Op::Connect => self.cancel_waiting(token),
            Op::Open | Op::Read => self.cancel_job(token),
            Op::Signal | Op::Packet | Op::Files => {}
        }
    }

    fn shutdown(&mut self, socket: &OwnedFd, both: bool) {
        connect::shutdown(socket, both);
        // The event may come after those of many other descriptors. A device is not shut down: its send is cancelled.
        if both && self.sockets.at(socket.as_raw_fd()).kind != SocketKind::Device {
            self.try_waiting(socket.as_raw_fd());
        }
    }

    fn close(&mut self, handle: OwnedFd) {
        let socket = self.sockets.at(handle.as_raw_fd());
        debug_assert!(socket.reading == Reading::Nothing && socket.waiting.is_none(), "an operation is in flight");
        let kind = socket.kind;
        if let SocketKind::Listener | SocketKind::Device = kind {
            // Another process may hold the listener too, and a thread closes the device later.
            self.deregister(handle.as_raw_fd());
        }
        self.sockets.end(handle.as_raw_fd());
        match kind {
            // The close of a terminal line waits until its output was sent.
            SocketKind::Device => self.device_workers.close(handle),
            // The close may write to a file server (close(2)).
            SocketKind::SlowFile => self.workers.close(handle),
            SocketKind::Unix | SocketKind::Tcp | SocketKind::Listener => {}
        }
    }

    fn wait(&mut self, timeout_ms: Option<u64>, completions: &mut Vec<Completion<OwnedFd>>) -> Result<Rest, Errno> {
        self.asked = [0; 2];
        let has_work = !self.ready.is_empty() || !self.due.is_empty();
        // What is at hand already goes first, without a system call, but every other wait polls.
        let is_polling = !has_work || !self.has_polled;
        self.has_polled = is_polling;
        for fd in std::mem::take(&mut self.due) {
            self.sockets.at(fd).is_due = false;
            self.try_reading(fd);
        }
        let mut rest = Rest::Possible;
        if is_polling {
            rest = self.poll(if has_work { Some(0) } else { timeout_ms })?;
        }
        if completions.is_empty() {
            std::mem::swap(completions, &mut self.ready);
        } else {
            completions.append(&mut self.ready);
        }
        Ok(if self.due.is_empty() { rest } else { Rest::Possible })
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
        self.pools[lease.share as usize].release(lease);
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
