//! A hand-over as three system calls in a row.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, ControlMessage, MsgFlags};

use super::Epoll;
use super::sockets::SocketKind;
use crate::driver::{Handover, HandoverStep, SocketType, connect, rights};

type Step<T> = Result<T, (HandoverStep, Errno)>;

impl Epoll {
    /// Hands a client over. All that can be prepared is prepared first, so that a connected backend waits for two system
    /// calls only.
    pub(super) fn pass(&mut self, file: &OwnedFd, client: &OwnedFd, handover: &Handover) -> Step<Option<OwnedFd>> {
        let failed = |step| move |errno| (step, errno);
        rights::may_hand_over(client, self.has_too_many_untaken)?;
        self.has_too_many_untaken = false;
        let (socket, address) = connect::to_unix(file, SocketType::Stream).map_err(failed(HandoverStep::Connect))?;
        let pair = rights::pair_for(client, handover.is_relayed).map_err(failed(HandoverStep::Connect))?;
        let passed = pair.as_ref().map_or(client, |(passed, _)| passed);
        if pair.is_none() {
            self.deregister(client.as_raw_fd());
        }
        socket::connect(socket.as_raw_fd(), &address).map_err(failed(HandoverStep::Connect))?;
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        match socket::send(client.as_raw_fd(), &handover.reply, flags) {
            Ok(size) if size == handover.reply.len() => {}
            Ok(_) => return Err((HandoverStep::Reply, Errno::ECANCELED)),
            Err(errno) => return Err((HandoverStep::Reply, errno)),
        }
        let rights = [ControlMessage::ScmRights(&[passed.as_raw_fd()])];
        let sent = socket::sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&handover.record)], &rights, flags, None);
        if let Err(errno) = sent {
            self.has_too_many_untaken = errno == Errno::ETOOMANYREFS;
            return Err((HandoverStep::Pass, errno));
        }
        let kept = match pair {
            Some((_, kept)) => Some(kept),
            None => handover.is_watched.then_some(socket),
        };
        if let Some(kept) = &kept {
            self.sockets.begin(kept.as_raw_fd(), SocketKind::Unix);
        }
        Ok(kept)
    }
}
