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
use crate::driver::{Event, Handover, HandoverStep, SocketType, connect, rights, tcp};

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
        let pair = if handover.is_relayed {
            Some(rights::new_pair()?)
        } else {
            tcp::forget_unsent(client);
            None
        };
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
        let send = opcode::Send::new(raw(client), reply.as_ptr(), reply.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT);
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

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Read};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use nix::fcntl::{OFlag, open};
    use nix::sys::socket::{self, ControlMessageOwned, MsgFlags};
    use nix::sys::stat::Mode;

    use super::*;
    use crate::driver::uring::Uring;
    use crate::driver::{Driver, Event, Op, Token};
    use crate::limits::TCP_UNSENT_SIZE;

    const TOKEN: Token = Token { slot: 1, generation: 1, op: Op::Connect };

    /// A ring, a backend, and both ends of a client's connection.
    struct Scene {
        ring: Uring,
        backend: UnixListener,
        file: OwnedFd,
        client: OwnedFd,
        far: TcpStream,
    }

    impl Scene {
        fn new(name: &str) -> Scene {
            let path = std::env::temp_dir().join(format!("uakari-{}-{name}", std::process::id()));
            let backend = UnixListener::bind(&path).unwrap();
            backend.set_nonblocking(true).unwrap();
            let file = open(&path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
            std::fs::remove_file(&path).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let client = listener.accept().unwrap().0.into();
            Scene { ring: Uring::new(2).unwrap(), backend, file, client, far }
        }

        fn hand_over(&mut self, reply: Vec<u8>) {
            let handover =
                Handover { reply: reply.into(), record: [1, 0].into(), is_relayed: false, is_watched: false };
            self.ring.hand_over(TOKEN, &self.file, &self.client, handover);
        }

        /// The result of the hand-over; None: it has not completed.
        fn poll(&mut self, wait_ms: u64) -> Option<Result<(), (HandoverStep, Errno)>> {
            let mut completions = Vec::new();
            self.ring.wait(Some(wait_ms), &mut completions).unwrap();
            completions.pop().map(|one| match one.event {
                Event::HandedOver(result) => result.map(|_| ()),
                _ => panic!("something else has come"),
            })
        }

        fn end(&mut self) -> Result<(), (HandoverStep, Errno)> {
            (0..20).find_map(|_| self.poll(1_000)).expect("an end within 20 s")
        }
    }

    /// The sizes of the backend's next receive: bytes, and control data with descriptors.
    fn next(connection: &UnixStream) -> (usize, usize) {
        let mut record = [0; 16];
        let mut parts = [IoSliceMut::new(&mut record)];
        let mut control = nix::cmsg_space!([RawFd; 2]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = socket::recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut control), flags).unwrap();
        let descriptors = message.cmsgs().unwrap().map(|one| match one {
            ControlMessageOwned::ScmRights(all) => all.into_iter().filter(|fd| nix::unistd::close(*fd).is_ok()).count(),
            other => panic!("{other:?}"),
        });
        (message.bytes, descriptors.sum())
    }

    #[test]
    fn all_of_it_or_nothing_behind_what_failed() {
        let mut scene = Scene::new("all");
        scene.hand_over(b"reply".to_vec());
        assert_eq!(scene.end(), Ok(()));
        let connection = scene.backend.accept().unwrap().0;
        assert_eq!([next(&connection), next(&connection)], [(2, 1), (0, 0)]);
        let mut reply = [0; 5];
        scene.far.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"reply");
        // No listener: the client receives nothing.
        scene.backend = Scene::new("another").backend;
        scene.hand_over(b"reply".to_vec());
        assert_eq!(scene.end(), Err((HandoverStep::Connect, Errno::ECONNREFUSED)));
        scene.far.set_nonblocking(true).unwrap();
        assert_eq!(scene.far.read(&mut reply).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        // The client has reset its connection: the backend receives nothing.
        let mut scene = Scene::new("reset");
        nix::unistd::write(&scene.client, b"unread").unwrap();
        scene.far = Scene::new("other").far;
        scene.hand_over(b"reply".to_vec());
        assert!(matches!(scene.end(), Err((HandoverStep::Reply, Errno::EPIPE | Errno::ECONNRESET))));
        assert_eq!(next(&scene.backend.accept().unwrap().0), (0, 0));
    }

    /// Bytes that the client has not read may block the reply: the backend is not even connected.
    #[test]
    fn nothing_begins_before_the_client_has_taken_all() {
        let mut scene = Scene::new("unread");
        let mut filled = 0;
        while let Ok(size) = socket::send(scene.client.as_raw_fd(), &[b'x'; 65536], MsgFlags::MSG_DONTWAIT) {
            filled += size;
        }
        scene.hand_over(b"reply".to_vec());
        assert_eq!(scene.end(), Err((HandoverStep::Room, Errno::EAGAIN)));
        assert_eq!(scene.backend.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        std::io::copy(&mut (&scene.far).take(filled as u64), &mut std::io::sink()).unwrap();
        while !tcp::has_taken_all(&scene.client) {
            std::thread::yield_now();
        }
        scene.hand_over(b"reply".to_vec());
        assert_eq!(scene.end(), Ok(()));
    }

    /// The kernel's limit counts all processes of a user; tests/direct/untaken.rs reaches it.
    #[test]
    fn trying_leaves_nothing_behind() {
        let mut scene = Scene::new("try");
        rights::try_passing(&scene.client).unwrap();
        drop(scene.client);
        assert_eq!(scene.far.read(&mut [0; 1]).unwrap(), 0, "nobody else has it");
    }

    /// A relayed client stays with the gateway and keeps its limit of unsent bytes.
    #[test]
    fn only_who_leaves_is_as_the_kernel_made_him() {
        for (is_relayed, unsent) in [(true, TCP_UNSENT_SIZE), (false, 0)] {
            let Scene { file, client, .. } = Scene::new("unsent");
            tcp::keep_unsent_small(&client).unwrap();
            let handover = Handover { reply: [].into(), record: [1, 0].into(), is_relayed, is_watched: false };
            let chain = Chain::new(&file, &client, handover).unwrap();
            assert_eq!(chain.pair.is_some(), is_relayed);
            assert_eq!(socket::getsockopt(&client, tcp::NotSentLowat).unwrap(), unsent, "relayed: {is_relayed}");
        }
    }

    /// The backend is already connected and must not wait for space in the client's send buffer.
    #[test]
    fn a_reply_that_does_not_fit_is_none() {
        let mut scene = Scene::new("part");
        scene.hand_over(vec![b'x'; 64 << 20]);
        assert_eq!(scene.end(), Err((HandoverStep::Reply, Errno::ECANCELED)));
        let mut connection = scene.backend.accept().unwrap().0;
        assert_eq!(connection.read(&mut [0; 2]).unwrap(), 0, "nothing is left of it");
    }
}
