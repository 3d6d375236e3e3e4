//! A hand-over as three system calls in a row.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, ControlMessage, MsgFlags};

use super::Epoll;
use super::sockets::SocketKind;
use crate::driver::{Handover, HandoverStep, SocketType, connect, rights, tcp};

type Step<T> = Result<T, (HandoverStep, Errno)>;

impl Epoll {
    /// Hands a client over. Everything that may be done before is, so that a connected backend waits for two calls only.
    pub(super) fn pass(&mut self, file: &OwnedFd, client: &OwnedFd, handover: &Handover) -> Step<Option<OwnedFd>> {
        let failed = |step| move |errno| (step, errno);
        // A connected backend waits for the descriptor: its client must not be able to block it.
        if !tcp::has_taken_all(client) {
            return Err((HandoverStep::Room, Errno::EAGAIN));
        }
        if self.has_too_many_untaken {
            rights::try_passing(client).map_err(failed(HandoverStep::Connect))?;
            self.has_too_many_untaken = false;
        }
        let (socket, address) = connect::to_unix(file, SocketType::Stream).map_err(failed(HandoverStep::Connect))?;
        let pair = match handover.is_relayed {
            true => Some(rights::new_pair().map_err(failed(HandoverStep::Connect))?),
            false => None,
        };
        let passed = match &pair {
            Some((passed, _)) => passed,
            None => {
                tcp::forget_unsent(client);
                self.deregister(client.as_raw_fd());
                client
            }
        };
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
