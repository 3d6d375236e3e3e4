//! The mechanism: the only code that asks the kernel for anything, and it knows no protocol.
//!
//! Operations go in, completions come out. An operation owns its buffers until its completion returns them, so
//! no caller can free what the kernel still reads or writes. Two implementations: io_uring, and a simulated
//! kernel with a seed for the tests.

use std::ffi::CString;
use std::net::SocketAddr;

pub use nix::errno::Errno;

pub mod buffers;
mod clock;
mod connect;
pub mod device;
mod error;
pub mod inherit;
mod status;
pub mod tcp;
pub mod uring;

#[cfg(any(test, feature = "sim"))]
pub mod sim;

use crate::limits;
pub use buffers::{Batch, Lease, Segment, Share};
use device::{Device, DeviceId};
pub use error::{ConnectCause, ConnectError, OpenCause, OpenError, SystemError};
pub use uring::StartError;

/// What was asked for; it comes back with the completion.
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
    /// A signal.
    Signal = 7,
    /// For `Driver::cancel` alone: a receive from a device.
    Readable = 8,
    /// For `Driver::cancel` alone: a send to a device.
    Writable = 9,
    /// Within the driver: a receive of packets.
    Packet = 10,
}

impl Op {
    fn from_bits(bits: u8) -> Option<Op> {
        use Op::*;
        let all = [Accept, Receive, Send, Open, Connect, Read, Signal, Readable, Writable, Packet];
        all.into_iter().find(|op| *op as u8 == bits)
    }
}

/// Which operation of which descriptor. What the descriptor is for, the gateway's table says. The generation tells a
/// slot's owner from the one before it, so that a completion that comes late never reaches the wrong one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// The place in the gateway's table.
    pub slot: u32,
    /// Counts the owners of that place; 24 bits are kept.
    pub generation: u32,
    /// What was asked for.
    pub op: Op,
}

impl Token {
    /// Generations are counted in 24 bits.
    pub const GENERATION_MASK: u32 = 0xff_ffff;

    fn to_bits(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.generation & Token::GENERATION_MASK) << 8 | self.op as u64
    }

    fn from_bits(bits: u64) -> Option<Token> {
        let op = Op::from_bits(bits as u8)?;
        Some(Token { slot: (bits >> 32) as u32, generation: (bits >> 8) as u32 & Token::GENERATION_MASK, op })
    }
}

/// Where a client connects from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Through a UNIX socket; the peer has no address.
    Unix,
    /// The peer was gone before it could be asked.
    Unknown,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix => f.write_str("unix"),
            Address::Unknown => f.write_str("unknown"),
        }
    }
}

/// How to receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receive {
    /// One completion, at most one buffer.
    Once,
    /// As Once, into a buffer of `Share::Requests`; all others receive into `Share::Messages`.
    Request,
    /// A completion for whatever comes, until it is cancelled or ends.
    Multishot,
    /// As Multishot from a SOCK_SEQPACKET socket: each completion is one packet, which may be empty; a cut one is
    /// `EMSGSIZE`.
    Packets,
    /// As Once from a device; it ends by cancelling `Op::Readable`.
    Device,
}

/// How to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sending {
    /// What there is room for; where there is none, it fails with EAGAIN.
    Now,
    /// It waits for room.
    Wait,
    /// To a device, as Wait. It ends by cancelling `Op::Writable`.
    Device,
}

/// Where a path begins and how far it may lead.
#[derive(Debug)]
pub enum Reach<'a, H> {
    /// In this folder, and no step of it leads out.
    Beneath(&'a H),
    /// In this folder; symbolic links may lead out.
    From(&'a H),
    /// It is absolute, and the operator's own.
    Anywhere,
}

/// What is opened beneath a folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenFor {
    /// To read it.
    Reading,
    /// To know what it is, and to connect to it if it is a socket.
    Connecting,
    /// To speak to it as it is.
    Speaking(Device),
}

/// What was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular(FileStatus),
    /// A folder.
    Folder,
    /// A UNIX socket.
    Socket(FileId),
    /// What was opened for speaking to it.
    Device(DeviceId, Device),
    /// Something that is not served.
    Other,
}

/// Which file it is, by whatever name it was opened. Where a file is removed and another one made, that may get the
/// number of the first, and differs in the time of change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct FileId {
    /// Its file system.
    pub file_system: u64,
    /// Its number there.
    pub inode: u64,
    /// When its inode was last changed, in whole seconds since 1970.
    pub changed_s: i64,
    /// The nanoseconds beyond those seconds.
    pub changed_ns: u32,
}

/// A regular file as it was when it was opened (stat(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStatus {
    /// Its bytes.
    pub size: u64,
    /// When it was last modified, in whole seconds since 1970; negative before.
    pub modified_s: i64,
    /// The nanoseconds beyond those seconds.
    pub modified_ns: u32,
    /// When its content or its inode was last changed, in whole seconds since 1970.
    pub changed_s: i64,
    /// The nanoseconds beyond those seconds.
    pub changed_ns: u32,
    /// Its number in its file system.
    pub inode: u64,
    /// Its file system.
    pub file_system: u64,
    /// The mount that it was reached through; 0: the kernel does not tell.
    pub mount: u64,
}

/// A folder: its file system, its number there, and the mount that it was reached through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FolderId {
    /// The file system.
    pub file_system: u64,
    /// The number in it.
    pub inode: u64,
    /// The mount; 0: the kernel does not tell.
    pub mount: u64,
}

/// The type of a UNIX socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum SocketType {
    Stream,
    SeqPacket,
}

/// What a receive brought.
#[derive(Debug)]
pub enum Received {
    /// Bytes, in a buffer lent from the pool. Only a packet may have none.
    Data(Lease),
    /// The peer sends no more.
    End,
    /// The receive failed; `ENOBUFS`: the pool was empty, ask again when it is not.
    Failed(Errno),
}

/// What a client's socket is handed over with.
#[derive(Debug)]
pub struct Handover {
    /// What the client is told first.
    pub reply: Box<[u8]>,
    /// What the server is told with the descriptor.
    pub record: Box<[u8]>,
    /// The server gets one end of a socketpair(2) in the client's place; the other one comes back.
    pub is_relayed: bool,
    /// The connection to the server is not closed, but comes back. Not for one that is relayed.
    pub is_watched: bool,
}

/// How far a hand-over came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandoverStep {
    /// The client has not taken all that was sent before, so that the reply might have to wait, and the server with it.
    /// Nothing was begun.
    Room,
    /// The server was not connected; neither end has heard anything.
    Connect,
    /// The client did not take the reply, or not all of it; the server has been given nothing.
    Reply,
    /// The client has its reply, and the server did not take the descriptor.
    Pass,
}

/// What became of an operation.
#[derive(Debug)]
pub enum Event<H> {
    /// A new connection.
    Accepted {
        /// The connection, or why there is none.
        result: Result<(H, Address), Errno>,
        /// Whether more will follow without being asked for.
        more: bool,
    },
    /// A receive.
    Received {
        /// What came.
        result: Received,
        /// Whether more will follow without being asked for.
        more: bool,
    },
    /// A send; the batch comes back, with how many of its bytes the kernel took.
    Sent {
        /// What was to be sent.
        batch: Batch,
        /// Bytes taken: maybe fewer than there were.
        result: Result<usize, Errno>,
    },
    /// A path was opened.
    Opened(Result<(H, FileKind), Errno>),
    /// A UNIX socket was connected.
    Connected(Result<H, Errno>),
    /// A client was handed over; with the gateway's end where it is relayed, or with the connection to the server where
    /// it is watched.
    HandedOver(Result<Option<H>, (HandoverStep, Errno)>),
    /// A signal came.
    Signal(i32),
}

/// An event and whose it is.
#[derive(Debug)]
pub struct Completion<H> {
    /// The operation's token.
    pub token: Token,
    /// What became of it.
    pub event: Event<H>,
}

/// What the event loop asks of a kernel. Nothing here blocks but `wait`, and every operation except `close`,
/// `cancel` and `shutdown` completes exactly once (receives and accepts: once with `more` false).
pub trait Driver {
    /// A socket, folder or file.
    type Handle;

    /// Milliseconds since some fixed point; never goes back.
    fn now_ms(&self) -> u64;
    /// The wall clock in whole seconds since 1970; goes wherever somebody sets it.
    fn unix_s(&self) -> u64;
    /// Accepts connections until it fails.
    fn accept(&mut self, token: Token, listener: &Self::Handle);
    /// Receives into pool buffers.
    fn receive(&mut self, token: Token, socket: &Self::Handle, how: Receive);
    /// Sends a batch in order.
    fn send(&mut self, token: Token, socket: &Self::Handle, batch: Batch, how: Sending);
    /// Opens a path.
    fn open(&mut self, token: Token, reach: Reach<'_, Self::Handle>, path: CString, purpose: OpenFor);
    /// Makes an opened device ready, which those who use it already would notice.
    fn prepare(&mut self, file: &Self::Handle, device: Device) -> Result<(), Errno>;
    /// Connects to an opened UNIX socket; EAGAIN: its backlog is full.
    fn connect(&mut self, token: Token, file: &Self::Handle, socket_type: SocketType);
    /// Connects to a TCP server, of which the kernel finds out if it vanishes.
    fn connect_tcp(&mut self, token: Token, address: SocketAddr, limits: &limits::Http);
    /// Connects to an opened UNIX stream socket, sends the reply to the client, passes the client's socket to the
    /// server, closes the connection unless it is watched: in one chain, each step only if the one before it was done
    /// whole. EAGAIN: the backlog is full. No step waits for the client: a reply for which there is no room fails.
    /// Neither handle may be closed before it completes; the client's is still the caller's then.
    fn hand_over(&mut self, token: Token, file: &Self::Handle, client: &Self::Handle, handover: Handover);
    /// Reads a buffer full from a file, one of `Share::Requests`.
    fn read(&mut self, token: Token, file: &Self::Handle, offset: u64);
    /// Ends the operations with this token, which then complete with an error.
    fn cancel(&mut self, token: Token);
    /// Ends a connection's sending half, or both halves.
    fn shutdown(&mut self, socket: &Self::Handle, both: bool);
    /// Closes; nothing may be in flight on it.
    fn close(&mut self, handle: Self::Handle);
    /// Submits all that was asked for and waits for completions, `timeout_ms` at most.
    fn wait(&mut self, timeout_ms: Option<u64>, completions: &mut Vec<Completion<Self::Handle>>) -> Result<(), Errno>;
    /// The address that a client came to.
    fn local_address(&self, client: &Self::Handle) -> Address;
    /// What tells one open folder from another; waits for no file system. None: the kernel does not tell.
    fn identity(&self, folder: &Self::Handle) -> Option<FolderId>;
    /// Puts an opened folder in the place of another one, for all operations that begin after this; those that are in
    /// flight go on in either.
    fn replace(&mut self, old: &Self::Handle, new: Self::Handle) -> Result<(), Errno>;
    /// The whole buffer of a lease, headroom included.
    fn buffer(&mut self, lease: &Lease) -> &mut [u8];
    /// Gives a buffer back to the pool.
    fn release(&mut self, lease: Lease);
    /// Whether a share has a buffer for one more receive than were asked for in this turn. Without that, many who find
    /// the pool empty keep each other from it.
    fn may_receive(&self, share: Share) -> bool;
    /// Buffers of a share.
    fn buffers(&self, share: Share) -> usize;
    /// Those that are not lent.
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
