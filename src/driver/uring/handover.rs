//! A hand-over as a chain of linked ring operations: its memory and its result.
//!
//! All operations but the last are silent on success, and a failed operation cancels the rest of the chain without
//! completions (io_uring_enter(2), IOSQE_CQE_SKIP_SUCCESS): one completion reports the whole chain.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::{opcode, squeue, types};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{SockaddrLike, UnixAddr};

use super::pool::raw;
use crate::driver::{Event, Handover, HandoverStep, SocketType, connect, rights};

/// Largest number of operations in a chain. The constants below number them in order; the completion carries the
/// number.
pub(super) const STEPS: usize = 4;
const CONNECT: u8 = 0;
const REPLY: u8 = 1;
const PASS: u8 = 2;

/// The memory and descriptors of a hand-over that the kernel may still use.
pub(super) struct Chain {
    socket: OwnedFd,
    address: UnixAddr,
    handover: Handover,
    /// The socketpair of a relayed hand-over: the end that is passed and the end that is kept. None: not relayed.
    pair: Option<(OwnedFd, OwnedFd)>,
    message: libc::msghdr,
    segment: libc::iovec,
    control: Control,
}

/// A control message with one descriptor (unix(7), SCM_RIGHTS; cmsg(3)).
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    fd: RawFd,
}

impl Chain {
    /// Allocates the memory of a chain. Boxed, since the kernel holds pointers into it.
    pub(super) fn new(file: &OwnedFd, client: &OwnedFd, handover: Handover) -> Result<Box<Chain>, Errno> {
        let (socket, address) = connect::to_unix(file, SocketType::Stream)?;
        let pair = rights::pair_for(client, handover.is_relayed)?;
        let fd = pair.as_ref().map_or(client.as_raw_fd(), |(passed, _)| passed.as_raw_fd());
        // SAFETY: a cmsghdr consists of integers, for which zeros are valid.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<RawFd>()) as _;
        header.cmsg_level = libc::SOL_SOCKET;
        header.cmsg_type = libc::SCM_RIGHTS;
        // SAFETY: a msghdr of zeros names no address, no segments and no control data.
        let message = unsafe { std::mem::zeroed() };
        let segment = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let control = Control { header, fd };
        let mut chain = Box::new(Chain { socket, address, handover, pair, message, segment, control });
        chain.segment.iov_base = chain.handover.record.as_mut_ptr().cast();
        chain.segment.iov_len = chain.handover.record.len();
        chain.message.msg_iov = &raw mut chain.segment;
        chain.message.msg_iovlen = 1;
        chain.message.msg_control = (&raw mut chain.control).cast();
        chain.message.msg_controllen = size_of::<Control>() as _;
        Ok(chain)
    }

    /// The operations, each linked to the next. No close if the connection is watched.
    pub(super) fn entries(&self, client: &OwnedFd) -> impl Iterator<Item = squeue::Entry> + use<> {
        let linked = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        let connect = opcode::Connect::new(raw(&self.socket), self.address.as_ptr().cast(), self.address.len());
        let reply = &self.handover.reply;
        // A partial reply is worse than none: with MSG_WAITALL a short send breaks the chain. MSG_DONTWAIT makes the
        // send fail if the buffer is full, since the connected backend is waiting.
        let whole = if self.handover.has_kernel_tls { 0 } else { libc::MSG_WAITALL };
        let send = opcode::Send::new(raw(client), reply.as_ptr(), reply.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | whole);
        let pass = opcode::SendMsg::new(raw(&self.socket), &raw const self.message).flags(libc::MSG_NOSIGNAL as u32);
        let close = opcode::Close::new(types::Fd(self.socket.as_raw_fd()));
        let (pass, close) = match self.handover.is_watched {
            true => (pass.build(), None),
            false => (pass.build().flags(linked), Some(close.build())),
        };
        [connect.build().flags(linked), send.build().flags(linked), pass].into_iter().chain(close)
    }
}

/// Whether the hand-over failed with ETOOMANYREFS. The kernel counts descriptors in transit per user, up to
/// RLIMIT_NOFILE, for all receivers together (unix(7)).
pub(super) fn is_one_too_many<H>(event: &Event<H>) -> bool {
    matches!(event, Event::HandedOver(Err((HandoverStep::Pass, Errno::ETOOMANYREFS))))
}

/// The result of a chain; `step` is the number of the operation that completed.
pub(super) fn end(
    chain: Chain,
    step: u8,
    result: Result<usize, Errno>,
) -> Result<Option<OwnedFd>, (HandoverStep, Errno)> {
    let Chain { socket, pair, .. } = chain;
    match (step, result) {
        (CONNECT, Err(errno)) => Err((HandoverStep::Connect, errno)),
        (REPLY, Err(errno)) => Err((HandoverStep::Reply, errno)),
        // A short send: the kernel reports the number of bytes and no error. A complete send is silent.
        (REPLY, Ok(_)) => Err((HandoverStep::Reply, Errno::ECANCELED)),
        (PASS, Err(errno)) => Err((HandoverStep::Pass, errno)),
        // The last operation of a watched hand-over. The ring waits for data only on a blocking socket.
        (PASS, Ok(_)) => Ok(connect::set_blocking(&socket, true).ok().map(|()| socket)),
        // The client was passed; after a cancelled close the descriptor is still owned here.
        (_, Err(_)) => Ok(pair.map(|(_, kept)| kept)),
        (_, Ok(_)) => {
            // The ring has closed the descriptor, and its number may be in use again.
            let _ = socket.into_raw_fd();
            Ok(pair.map(|(_, kept)| kept))
        }
    }
}
