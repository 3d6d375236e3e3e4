//! Passing descriptors over UNIX sockets (unix(7), SCM_RIGHTS).

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType};

/// A pair of connected stream sockets (socketpair(2)).
pub(super) fn new_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
}

/// Probes SCM_RIGHTS with a socketpair(2) that is closed at once: an error here would otherwise occur after the reply
/// was sent.
pub(super) fn try_passing(client: &OwnedFd) -> Result<(), Errno> {
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
