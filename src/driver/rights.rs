//! Passing descriptors over UNIX sockets (unix(7), SCM_RIGHTS).

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType};

use super::{HandoverStep, tcp};

/// Whether a hand-over of this client may begin. `is_probing`: the last one failed with ETOOMANYREFS.
pub(super) fn may_hand_over(client: &OwnedFd, is_probing: bool) -> Result<(), (HandoverStep, Errno)> {
    // A connected backend waits for the descriptor: its client must not be able to block it.
    if !tcp::has_taken_all(client) {
        return Err((HandoverStep::Room, Errno::EAGAIN));
    }
    let probed = if is_probing { try_passing(client) } else { Ok(()) };
    probed.map_err(|errno| (HandoverStep::Connect, errno))
}

/// The socketpair of a relayed hand-over: the end to pass and the end to keep. None: the client's own socket is passed,
/// without the gateway's limit of unsent bytes.
pub(super) fn pair_for(client: &OwnedFd, is_relayed: bool) -> Result<Option<(OwnedFd, OwnedFd)>, Errno> {
    if is_relayed {
        return new_pair().map(Some);
    }
    tcp::forget_unsent(client);
    Ok(None)
}

/// A pair of connected stream sockets (socketpair(2)).
pub(super) fn new_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
}

/// Probes SCM_RIGHTS with a socketpair(2) that is closed at once: an error here would otherwise occur after the reply
/// was sent.
fn try_passing(client: &OwnedFd) -> Result<(), Errno> {
    let (near, _far) = new_pair()?;
    let rights = [ControlMessage::ScmRights(&[client.as_raw_fd()])];
    socket::sendmsg::<()>(near.as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// The kernel's limit counts all processes of a user; tests/direct/untaken.rs reaches it.
    #[test]
    fn trying_leaves_nothing_behind() {
        let (client, mut far) = new_pair().map(|(client, far)| (client, UnixStream::from(far))).unwrap();
        try_passing(&client).unwrap();
        drop(client);
        assert_eq!(far.read(&mut [0; 1]).unwrap(), 0, "nobody else has it");
    }
}
