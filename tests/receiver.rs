//! Servers of direct mode, as somebody would write one who knows nothing but recvmsg(2).

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::server::{Backend, Listener};

/// What came with one message.
pub struct Given {
    /// The client's socket, or one end of a pair in its place.
    pub client: Backend,
    /// The message itself.
    pub record: Vec<u8>,
}

/// Takes the next client, and nothing but one client may come.
pub fn take(listener: &Listener) -> Given {
    let mut connection = listener.accept();
    connection.wait_for_input();
    let given = receive(&connection).expect("a message that has come").expect("a descriptor");
    connection.expect_end();
    given
}

/// What one recvmsg(2) that does not wait brings: None, if there is no descriptor in it.
pub fn receive(connection: &Backend) -> Result<Option<Given>, Errno> {
    let mut record = [0; 64 * 1024];
    let mut control = cmsg_space!([RawFd; 4]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut record)];
    let message = recvmsg::<()>(connection.stream().as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let size = message.bytes;
    let mut fds = Vec::new();
    for one in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(all) = one {
            // SAFETY: the kernel has just made these descriptors for this process alone.
            fds.extend(all.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    assert!(fds.len() < 2, "{} descriptors in place of one", fds.len());
    let given =
        fds.pop().map(|fd| Given { client: Backend::new(UnixStream::from(fd)), record: record[..size].to_vec() });
    Ok(given)
}
