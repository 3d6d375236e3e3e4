//! TLS clients. The gateway does the handshake and hands over a socket whose record layer is in the kernel
//! (Documentation/networking/tls.rst). Payload is received and sent as on any socket. A record of another type, such as
//! an alert, is an EIO of recv(2): it is received by recvmsg(2) with room for ancillary data.
//!
//! The caller passes recvmsg(2) and sendmsg(2), since libwebsocket.so replaces those of libc; by dynamic dispatch, so
//! that the code is compiled once.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc::{self, msghdr, ssize_t};
use rfc6455::close::CloseCode;

/// ContentType (RFC 8446 section 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// HandshakeType (RFC 8446 section 4).
const KEY_UPDATE: u8 = 24;
/// AlertLevel and AlertDescription (RFC 8446 section 6).
const WARNING: u8 = 1;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
/// The value of TCP_ULP, with its NUL.
const TLS: &[u8; 4] = b"tls\0";

/// A record that is no payload. Each ends the conversation, since TLS itself is not in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// close_notify: the client sends nothing more.
    Closed,
    /// Another alert: the client has given up the connection.
    Broken,
    /// KeyUpdate (RFC 8446 section 4.6.3): what follows cannot be decrypted here. Messages can still be sent.
    KeyUpdate,
    /// A record that a client must not send.
    Unexpected,
}

impl Notice {
    /// The code of the close frame to be sent; None: the client has ended the conversation. After a KeyUpdate, which is
    /// no mistake, it is that of a gateway that stops: the client may connect again.
    pub fn close_code(self) -> Option<CloseCode> {
        match self {
            Notice::Closed | Notice::Broken => None,
            Notice::KeyUpdate => Some(CloseCode::GOING_AWAY),
            Notice::Unexpected => Some(CloseCode::PROTOCOL_ERROR),
        }
    }

    fn of(kind: u8, start: [u8; 2]) -> Notice {
        match (kind, start) {
            (ALERT, [_, CLOSE_NOTIFY | USER_CANCELED]) => Notice::Closed,
            (ALERT, _) => Notice::Broken,
            (HANDSHAKE, [KEY_UPDATE, ..]) => Notice::KeyUpdate,
            _ => Notice::Unexpected,
        }
    }
}

/// Whether the kernel does TLS on this socket (TCP_ULP, tcp(7)).
pub fn is_tls(socket: BorrowedFd<'_>) -> bool {
    let mut name = [0; TLS.len()];
    let mut size = name.len() as libc::socklen_t;
    let place = name.as_mut_ptr().cast();
    // SAFETY: at most `size` bytes are written to `name`, and a number to `size`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_ULP, place, &raw mut size) };
    // A socket without one leaves the name empty.
    result == 0 && name == *TLS
}

/// Receives the record that was an EIO. Its bytes beyond the second are dropped with the connection. `receive` is
/// recvmsg(2) without waiting. EIO: there is no such record.
#[inline(never)]
pub fn receive_notice(receive: &mut dyn FnMut(&mut msghdr) -> ssize_t) -> Result<Notice, Errno> {
    // No type of an alert or a handshake, if the record is shorter.
    let (mut start, mut record_type) = ([u8::MAX; 2], RecordType::unknown());
    let mut part = libc::iovec { iov_base: start.as_mut_ptr().cast(), iov_len: start.len() };
    if receive(&mut message(&mut part, &mut record_type)) < 0 {
        return Err(Errno::last());
    }
    let kind = record_type.received().ok_or(Errno::EIO)?;
    Ok(Notice::of(kind, start))
}

/// Sends close_notify (RFC 8446 section 6.1). `send` is sendmsg(2) without waiting. An error is ignored: then the client
/// finds the end of the stream without it.
#[inline(never)]
pub fn send_close_notify(send: &mut dyn FnMut(&msghdr) -> ssize_t) {
    let mut alert = [WARNING, CLOSE_NOTIFY];
    let mut part = libc::iovec { iov_base: alert.as_mut_ptr().cast(), iov_len: alert.len() };
    send(&message(&mut part, &mut RecordType::to_set(ALERT)));
}

/// The type of a record as ancillary data: a header, and a byte with its padding (cmsg(3)).
#[repr(C)]
struct RecordType {
    head: libc::cmsghdr,
    kind: [u8; size_of::<usize>()],
}

impl RecordType {
    /// For the type of a record that is received.
    fn unknown() -> RecordType {
        // SAFETY: a cmsghdr may be all zeros.
        RecordType { head: unsafe { std::mem::zeroed() }, kind: [0; _] }
    }

    /// For a record of this type that is sent.
    fn to_set(kind: u8) -> RecordType {
        let mut record_type = RecordType::unknown();
        let head = &mut record_type.head;
        head.cmsg_len = (size_of::<libc::cmsghdr>() + 1) as _;
        (head.cmsg_level, head.cmsg_type) = (libc::SOL_TLS, libc::TLS_SET_RECORD_TYPE);
        record_type.kind[0] = kind;
        record_type
    }

    /// The type that was received; None: the socket has none.
    fn received(&self) -> Option<u8> {
        let is_there = (self.head.cmsg_level, self.head.cmsg_type) == (libc::SOL_TLS, libc::TLS_GET_RECORD_TYPE);
        is_there.then_some(self.kind[0])
    }
}

/// A message of one part. Both must outlive it.
fn message(part: &mut libc::iovec, record_type: &mut RecordType) -> msghdr {
    // SAFETY: a msghdr may be all zeros.
    let mut message: msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (part, 1);
    message.msg_control = (&raw mut *record_type).cast();
    message.msg_controllen = size_of::<RecordType>() as _;
    message
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What recvmsg(2) does with a record of this type.
    fn received(kind: u8, bytes: &[u8]) -> impl FnMut(&mut msghdr) -> ssize_t {
        move |message| {
            let mut record_type = RecordType::to_set(kind);
            record_type.head.cmsg_type = libc::TLS_GET_RECORD_TYPE;
            let room: usize = message.msg_controllen as _;
            assert_eq!(room, size_of::<RecordType>());
            // SAFETY: there is room for it.
            unsafe { message.msg_control.cast::<RecordType>().write_unaligned(record_type) };
            // SAFETY: the message has one part.
            let part = unsafe { *message.msg_iov };
            let size = bytes.len().min(part.iov_len);
            // SAFETY: the part has room for them.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), part.iov_base.cast(), size) };
            size as ssize_t
        }
    }

    #[test]
    fn records_and_what_they_mean() {
        for (kind, bytes, notice, code) in [
            (21, &[1, 0][..], Notice::Closed, None),
            (21, &[2, 0], Notice::Closed, None),
            (21, &[1, 90], Notice::Closed, None),
            (21, &[2, 40], Notice::Broken, None),
            (21, &[1, 100], Notice::Broken, None),
            (21, &[1], Notice::Broken, None),
            (21, &[], Notice::Broken, None),
            (22, &[24, 0, 0, 1, 1], Notice::KeyUpdate, Some(1001)),
            (22, &[1, 0, 2, 0], Notice::Unexpected, Some(1002)),
            (22, &[], Notice::Unexpected, Some(1002)),
            (20, &[1], Notice::Unexpected, Some(1002)),
            (24, &[24, 0], Notice::Unexpected, Some(1002)),
            (99, &[1, 0], Notice::Unexpected, Some(1002)),
        ] {
            let found = receive_notice(&mut received(kind, bytes)).unwrap();
            assert_eq!((found, found.close_code().map(|code| code.0)), (notice, code), "{kind} {bytes:?}");
        }
        assert_eq!(receive_notice(&mut |_| 2), Err(Errno::EIO), "bytes without a type");
        Errno::EAGAIN.set();
        assert_eq!(receive_notice(&mut |_| -1), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_close_notify_has_a_type_that_the_kernel_reads() {
        send_close_notify(&mut |message| {
            // SAFETY: the message has ancillary data.
            let head = unsafe { libc::CMSG_FIRSTHDR(message) };
            // SAFETY: there is a header.
            let head = unsafe { head.as_ref() }.unwrap();
            assert_eq!((head.cmsg_level, head.cmsg_type), (libc::SOL_TLS, libc::TLS_SET_RECORD_TYPE));
            // SAFETY: it only computes a size.
            assert_eq!(head.cmsg_len as usize, unsafe { libc::CMSG_LEN(1) } as usize);
            // SAFETY: it only computes a size.
            let space = unsafe { libc::CMSG_SPACE(1) } as usize;
            let size: usize = message.msg_controllen as _;
            assert_eq!(size, space);
            // SAFETY: it only computes an address.
            let data = unsafe { libc::CMSG_DATA(head) };
            // SAFETY: there is a byte of data.
            assert_eq!(unsafe { *data }, 21);
            2
        });
    }

    #[test]
    fn plain_sockets_have_no_tls() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!is_tls(client.as_fd()));
        let (relayed, _gateway) = UnixStream::pair().unwrap();
        assert!(!is_tls(relayed.as_fd()));
    }
}
