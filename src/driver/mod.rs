//! The only code that performs system calls for I/O. It knows no protocol.
//!
//! Operations are submitted, completions are returned. An operation owns its buffers until its completion returns them,
//! so a caller cannot free memory that the kernel still reads or writes. Three implementations: io_uring, epoll where
//! io_uring is refused, and for tests a simulated kernel with a seed.

use std::ffi::CString;
use std::net::SocketAddr;

pub use nix::errno::Errno;

pub mod buffers;
pub(crate) mod child;
mod clock;
mod connect;
#[cfg(test)]
mod contract;
mod descriptors;
pub mod device;
pub mod epoll;
mod error;
pub mod inherit;
mod kernel_tls;
mod mapping;
pub mod native;
mod opening;
mod rights;
mod status;
pub mod tcp;
pub mod uring;
mod walk;

#[cfg(any(test, feature = "sim"))]
pub mod sim;

use crate::limits;
use crate::types::Address;
pub use buffers::{Batch, Lease, Segment, Share};
pub(crate) use clock::unix_s;
use device::{Device, DeviceId};
pub use error::{ConnectCause, ConnectError, OpenCause, OpenError, SystemError};
pub use kernel_tls::{RecordCipher, RecordKey, RecordSuite, RecordSuites, RecordVersion, TlsRecord};
pub use uring::StartError;

/// Which driver the daemon uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// io_uring where it can be set up, else epoll.
    #[default]
    Auto,
    /// io_uring, or the daemon does not start.
    Uring,
    /// epoll.
    Epoll,
}

/// The kind of an operation; the completion carries the same value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Op {
    /// `Driver::accept`.
    Accept = 1,
    /// `Driver::receive`.
    Receive = 2,
    /// `Driver::send`.
    Send = 3,
    /// `Driver::open`.
    Open = 4,
    /// `Driver::connect`, `connect_tcp` or `hand_over`.
    Connect = 5,
    /// `Driver::read`.
    Read = 6,
    /// A signal (signalfd(2)).
    Signal = 7,
    /// Only for `Driver::cancel`: a receive from a device.
    Readable = 8,
    /// Only for `Driver::cancel`: a send to a device.
    Writable = 9,
    /// Internal to the driver: a receive of packets.
    Packet = 10,
    /// Changes of files (inotify(7)).
    Files = 11,
}

impl Op {
    fn from_bits(bits: u8) -> Option<Op> {
        use Op::*;
        let all = [Accept, Receive, Send, Open, Connect, Read, Signal, Readable, Writable, Packet, Files];
        all.into_iter().find(|op| *op as u8 == bits)
    }
}

/// Identifies an operation of a descriptor. The gateway's table maps the slot to the descriptor's role. The generation
/// distinguishes successive owners of a slot, so that a stale completion is never attributed to a later owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// Index in the gateway's table.
    pub slot: u32,
    /// Number of owners that the slot has had; the low 24 bits are kept.
    pub generation: u32,
    /// The kind of the operation.
    pub op: Op,
}

impl Token {
    /// A generation has 24 bits.
    pub const GENERATION_MASK: u32 = 0xff_ffff;

    fn to_bits(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.generation & Token::GENERATION_MASK) << 8 | self.op as u64
    }

    fn from_bits(bits: u64) -> Option<Token> {
        let op = Op::from_bits(bits as u8)?;
        Some(Token { slot: (bits >> 32) as u32, generation: (bits >> 8) as u32 & Token::GENERATION_MASK, op })
    }
}

/// The mode of a receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receive {
    /// One completion, at most one buffer.
    Once,
    /// As Once, into a buffer of `Share::Requests`; all other modes receive into `Share::Messages`.
    Request,
    /// One completion for each receive, until it is cancelled or the stream ends.
    Multishot,
    /// As Multishot from a SOCK_SEQPACKET socket: each completion is one packet, which may be empty; a truncated packet
    /// is `EMSGSIZE`.
    Packets,
    /// As Once from a device. It is cancelled by `Op::Readable`.
    Device,
}

impl Receive {
    /// The share that the buffers come from.
    fn share(self) -> Share {
        if self == Receive::Request { Share::Requests } else { Share::Messages }
    }
}

/// The mode of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sending {
    /// Send as much as fits into the send buffer; EAGAIN if it is full.
    Now,
    /// Wait for space in the send buffer.
    Wait,
    /// As Wait, to a device. It is cancelled by `Op::Writable`.
    Device,
}

/// The base of a path and the limits of its resolution (openat2(2)).
#[derive(Debug)]
pub enum Reach<'a, H> {
    /// Relative to this folder; no component may lead out of it (RESOLVE_BENEATH).
    Beneath(&'a H),
    /// Relative to this folder; symbolic links may lead out of it.
    From(&'a H),
    /// An absolute path from the operator's configuration.
    Anywhere,
}

/// The purpose of an open, which decides its flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenFor {
    /// Read a file.
    Reading,
    /// Learn the file type, and connect if it is a socket.
    Connecting,
    /// Use it as a device.
    Speaking(Device),
}

/// The type of an opened file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular(FileStatus),
    /// A folder.
    Folder,
    /// A UNIX socket.
    Socket(FileId),
    /// A device, opened with `OpenFor::Speaking`.
    Device(DeviceId, Device),
    /// Any other type; not served.
    Other,
}

/// The identity of a file, whatever its path. A new file may reuse the inode number of a removed one, but differs in
/// the change time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct FileId {
    /// Device number of the file system (st_dev).
    pub file_system: u64,
    /// Inode number.
    pub inode: u64,
    /// Change time (ctime), in whole seconds since 1970.
    pub changed_s: i64,
    /// Nanoseconds within that second.
    pub changed_ns: u32,
}

/// The status of a regular file when it was opened (stat(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStatus {
    /// Size in bytes.
    pub size: u64,
    /// Modification time (mtime), in whole seconds since 1970; negative before 1970.
    pub modified_s: i64,
    /// Nanoseconds within that second.
    pub modified_ns: u32,
    /// Change time (ctime), in whole seconds since 1970.
    pub changed_s: i64,
    /// Nanoseconds within that second.
    pub changed_ns: u32,
    /// Inode number.
    pub inode: u64,
    /// Device number of the file system (st_dev).
    pub file_system: u64,
    /// Mount ID of the path used (statx(2)); 0: the kernel does not report it.
    pub mount: u64,
}

/// The identity of a folder: file system, inode number and mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FolderId {
    /// Device number of the file system (st_dev).
    pub file_system: u64,
    /// Inode number.
    pub inode: u64,
    /// Mount ID (statx(2)); 0: the kernel does not report it.
    pub mount: u64,
}

/// The type of a UNIX socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum SocketType {
    Stream,
    SeqPacket,
}

/// The result of a receive.
#[derive(Debug)]
pub enum Received {
    /// Bytes, in a buffer lent from the pool. Only a packet may be empty.
    Data(Lease),
    /// End of stream: the peer sends no more.
    End,
    /// The receive failed. `ENOBUFS`: the pool is empty; retry when a buffer is free.
    Failed(Errno),
}

/// The data of a hand-over, and its variants.
#[derive(Debug)]
pub struct Handover {
    /// The reply, sent to the client before its socket is passed. Empty: nothing is sent.
    pub reply: Box<[u8]>,
    /// The record that is sent to the backend with the descriptor.
    pub record: Box<[u8]>,
    /// The backend gets one end of a socketpair(2) instead of the client's socket; the gateway's end is returned.
    pub is_relayed: bool,
    /// The connection to the backend is returned instead of closed. Not allowed together with `is_relayed`.
    pub is_watched: bool,
    /// The kernel makes the client's records: its send knows no MSG_WAITALL, and takes what fits into a record whole.
    pub has_kernel_tls: bool,
}

/// The step at which a hand-over failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandoverStep {
    /// The client has not accepted all earlier bytes, so the reply might block while the backend waits. No step was
    /// started.
    Room,
    /// The connect failed; nothing was sent to either end.
    Connect,
    /// The reply was not sent, or only in part; the backend has received nothing.
    Reply,
    /// The client has received its reply, but the backend did not receive the descriptor.
    Pass,
}

/// The result of an operation.
#[derive(Debug)]
pub enum Event<H> {
    /// A new connection.
    Accepted {
        /// The connection and the client's address, or the error.
        result: Result<(H, Address), Errno>,
        /// Whether the operation stays armed and more completions follow.
        more: bool,
    },
    /// A receive.
    Received {
        /// The received data, end of stream or error.
        result: Received,
        /// Whether the operation stays armed and more completions follow.
        more: bool,
    },
    /// A send completed. The batch is returned with the number of bytes sent.
    Sent {
        /// The batch that was submitted.
        batch: Batch,
        /// Number of bytes sent, which may be less than the batch.
        result: Result<usize, Errno>,
    },
    /// A path was opened.
    Opened(Result<(H, FileKind), Errno>),
    /// A UNIX or TCP socket was connected.
    Connected(Result<H, Errno>),
    /// A client was handed over. Some: the gateway's end of the socketpair if it is relayed, or the connection to the
    /// backend if it is watched.
    HandedOver(Result<Option<H>, (HandoverStep, Errno)>),
    /// A signal was received; its number.
    Signal(i32),
    /// Watched files have changed: the inotify instance is readable.
    FilesChanged,
}

/// An event with the token of its operation.
#[derive(Debug)]
pub struct Completion<H> {
    /// The operation's token.
    pub token: Token,
    /// The result.
    pub event: Event<H>,
}

/// What a `wait` has left in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// All data that had arrived before the `wait` began was received, as far as receives were in flight.
    Nothing,
    /// There may be more; the next `wait` does not block if there is.
    Possible,
}

impl Rest {
    /// What a ring has left in the kernel after this many completions.
    fn of_ring(completions: usize) -> Rest {
        if completions >= limits::TURN_FULL_MIN { Rest::Possible } else { Rest::Nothing }
    }
}

/// The kernel interface of the event loop. Only `wait` blocks. Every operation except `close`, `cancel` and `shutdown`
/// completes exactly once (receives and accepts: exactly once with `more` false).
pub trait Driver {
    /// A socket, folder or file.
    type Handle;

    /// Monotonic time in milliseconds since an arbitrary fixed point.
    fn now_ms(&self) -> u64;
    /// The wall clock in whole seconds since 1970; it may jump when it is set.
    fn unix_s(&self) -> u64;
    /// Accepts connections until it fails.
    fn accept(&mut self, token: Token, listener: &Self::Handle);
    /// Receives into pool buffers.
    fn receive(&mut self, token: Token, socket: &Self::Handle, how: Receive);
    /// Sends a batch in order.
    fn send(&mut self, token: Token, socket: &Self::Handle, batch: Batch, how: Sending);
    /// Opens a path.
    fn open(&mut self, token: Token, reach: Reach<'_, Self::Handle>, path: CString, purpose: OpenFor);
    /// Configures an opened device. Other users of the device notice this, so it is a separate step after the open.
    fn prepare(&mut self, file: &Self::Handle, device: Device) -> Result<(), Errno>;
    /// Connects to an opened UNIX socket. EAGAIN: its backlog is full.
    fn connect(&mut self, token: Token, file: &Self::Handle, socket_type: SocketType);
    /// Connects to a TCP backend, with keepalive set so that the kernel detects a peer that vanishes.
    fn connect_tcp(&mut self, token: Token, address: SocketAddr, limits: &limits::Http);
    /// Connects to an opened UNIX stream socket, sends the reply to the client, passes the client's socket to the
    /// backend, and closes the connection unless it is watched. The steps are one chain: each runs only if the previous
    /// one succeeded completely. EAGAIN: the backlog is full. No step waits for the client: a reply that does not fit
    /// into the send buffer fails. Neither handle may be closed before the completion; the client's handle still
    /// belongs to the caller then.
    fn hand_over(&mut self, token: Token, file: &Self::Handle, client: &Self::Handle, handover: Handover);
    /// Prepares a client's connection for `set_record_keys`; until then its bytes pass in clear. No operation may be in
    /// flight on it. EOPNOTSUPP: the kernel has no records of this suite. After an error nothing has changed.
    fn begin_records(&mut self, client: &Self::Handle, suite: RecordSuite) -> Result<(), Errno>;
    /// From here on the kernel makes and opens the connection's records. A receive of a record that is no application
    /// data is an EIO: see `receive_record`. After an error the connection is of no use.
    fn set_record_keys(
        &mut self,
        client: &Self::Handle,
        sending: &RecordKey,
        receiving: &RecordKey,
    ) -> Result<(), Errno>;
    /// Receives one record, without waiting.
    fn receive_record(&mut self, client: &Self::Handle) -> Result<TlsRecord, Errno>;
    /// Sends one record of this content type after what was sent before, without waiting.
    fn send_record(&mut self, client: &Self::Handle, kind: u8, bytes: &[u8]) -> Result<(), Errno>;
    /// Reads at most one buffer of `Share::Requests` from a file.
    fn read(&mut self, token: Token, file: &Self::Handle, offset: u64);
    /// Cancels the operations with this token, which then complete with an error.
    fn cancel(&mut self, token: Token);
    /// Shuts down a connection's sending half, or both halves (shutdown(2)). Then a send in flight completes in the next
    /// wait, unless many other operations complete, so that its memory is free.
    fn shutdown(&mut self, socket: &Self::Handle, both: bool);
    /// Closes a handle. No operation may be in flight on it.
    fn close(&mut self, handle: Self::Handle);
    /// Submits all queued operations and waits for completions. `timeout_ms`: the longest wait; None: no limit.
    fn wait(&mut self, timeout_ms: Option<u64>, completions: &mut Vec<Completion<Self::Handle>>)
    -> Result<Rest, Errno>;
    /// The local address of a client's connection.
    fn local_address(&self, client: &Self::Handle) -> Address;
    /// The identity of an open folder, without waiting for a file system. None: the kernel does not report it.
    fn identity(&self, folder: &Self::Handle) -> Option<FolderId>;
    /// Replaces an opened folder by another one for all operations that start later; operations in flight use either of
    /// the two.
    fn replace(&mut self, old: &Self::Handle, new: Self::Handle) -> Result<(), Errno>;
    /// The whole buffer of a lease, headroom included.
    fn buffer(&mut self, lease: &Lease) -> &mut [u8];
    /// Returns a buffer to the pool.
    fn release(&mut self, lease: Lease);
    /// Whether a share has a free buffer for one more receive than were submitted in this turn. This prevents ENOBUFS
    /// livelock on an empty pool.
    fn may_receive(&self, share: Share) -> bool;
    /// Number of buffers in a share.
    fn buffers(&self, share: Share) -> usize;
    /// Number of buffers in a share that are not lent.
    fn buffers_free(&self, share: Share) -> usize;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for op in [Op::Accept, Op::Send, Op::Signal] {
            let token = Token { slot: u32::MAX, generation: Token::GENERATION_MASK, op };
            assert_eq!(Token::from_bits(token.to_bits()), Some(token));
        }
        assert_eq!(Token::from_bits(0), None);
    }
}
