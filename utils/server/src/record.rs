//! The hello record at the start of a client's connection. It is received without blocking, and no byte after it is
//! consumed.

// `read_hello`, for servers that block, is not used here.
#[path = "../../hello/hello.rs"]
#[allow(dead_code)]
mod parser;

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockaddrStorage, getpeername, recv};

use parser::{HEAD_SIZE, record_size};
pub use parser::{Hello, HelloError, parse_hello};

/// Bytes of the longest record.
const RECORD_SIZE_MAX: usize = HEAD_SIZE + u16::MAX as usize;

/// A partly received record.
#[derive(Debug, Default)]
pub struct Record {
    bytes: Vec<u8>,
}

impl Record {
    /// Receives the missing bytes of the record, or with `is_packet` one packet that must be a whole record. None: more
    /// bytes have to arrive. The end of the connection is `HelloError::Io`.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, is_packet: bool) -> Result<Option<Hello>, HelloError> {
        let received_size = self.bytes.len();
        let size = if is_packet { RECORD_SIZE_MAX } else { self.size()? };
        self.bytes.resize(size, 0);
        let received = recv(socket.as_raw_fd(), &mut self.bytes[received_size..], MsgFlags::MSG_DONTWAIT);
        self.bytes.truncate(received_size + *received.as_ref().unwrap_or(&0));
        match received {
            Ok(0) => Err(HelloError::Io(ErrorKind::UnexpectedEof.into())),
            Ok(_) if !is_packet && self.bytes.len() < self.size()? => Ok(None),
            Ok(_) => parse_hello(&self.bytes).map(Some),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(HelloError::Io(errno.into())),
        }
    }

    /// Size of the whole record, or of its head until that was received.
    fn size(&self) -> Result<usize, HelloError> {
        if self.bytes.len() < HEAD_SIZE { Ok(HEAD_SIZE) } else { record_size(&self.bytes) }
    }
}

/// A record as one line. Any local program may write a record, so that control characters are escaped.
pub fn describe(hello: &Hello) -> String {
    let client = hello.client.map_or("unix".to_owned(), |client| client.to_string());
    let mut line = format!("{} client={client}", hello.id.escape_debug());
    for (name, value) in [
        ("path", &hello.path),
        ("query", &hello.query),
        ("host", &hello.host),
        ("origin", &hello.origin),
        ("subprotocol", &hello.subprotocol),
        ("user", &hello.user),
        ("groups", &hello.groups),
        ("tls_version", &hello.tls_version),
        ("tls_cipher", &hello.tls_cipher),
        ("sni", &hello.sni),
        ("alpn", &hello.alpn),
        ("common_name", &hello.common_name),
        ("subject", &hello.subject),
        ("serial", &hello.serial),
        ("fingerprint", &hello.fingerprint),
    ] {
        if !value.is_empty() {
            let _ = write!(line, " {name}={value:?}");
        }
    }
    if hello.is_verified {
        line += " is_verified";
    }
    line
}

/// The IP address of a socket's peer. For a client that libwebsocket.so received from the gateway, it is the client's.
pub fn peer_address(socket: BorrowedFd<'_>) -> Option<IpAddr> {
    let peer: SockaddrStorage = getpeername(socket.as_raw_fd()).ok()?;
    let v4 = peer.as_sockaddr_in().map(|peer| peer.ip().into());
    v4.or_else(|| peer.as_sockaddr_in6().map(|peer| peer.ip().into()))
}

/// Tells the end of a SOCK_SEQPACKET connection from an empty packet, after recv(2) returned 0.
pub fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    // Another packet after the empty one: it was not the end, whatever the peer has done since.
    if !matches!(recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT), Ok(0)) {
        return false;
    }
    let peer_ended = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
    let mut fds = [PollFd::new(socket, peer_ended)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, send, socketpair};

    use super::*;

    const FIRST: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x05\x05\0\x02c3";

    /// The result for bytes that arrive `step` at a time.
    fn received(kind: SockType, bytes: &[u8], step: usize) -> Result<Option<Hello>, HelloError> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::empty()).unwrap();
        let mut record = Record::default();
        for part in bytes.chunks(step) {
            send(theirs.as_raw_fd(), part, MsgFlags::empty()).unwrap();
            let mut rest = part.len();
            while rest > 0 {
                let before = record.bytes.len();
                if let Some(hello) = record.receive(ours.as_fd(), kind == SockType::SeqPacket)? {
                    return Ok(Some(hello));
                }
                rest -= record.bytes.len() - before;
            }
        }
        assert!(record.receive(ours.as_fd(), false)?.is_none(), "nothing more has arrived");
        drop(theirs);
        record.receive(ours.as_fd(), false)
    }

    #[test]
    fn a_record_in_parts() {
        let bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x20\x7f\0\0\x01\x7f\0\0\x01\0\x07\0\x50\
              \x05\0\x02c3\xe0\0\x03/a\n\xe1\0\x03q=1\xe4\0\0and what follows it";
        for step in 1..=bytes.len() {
            let hello = received(SockType::Stream, bytes, step).unwrap().unwrap();
            assert_eq!(describe(&hello), "c3 client=127.0.0.1:7 path=\"/a\\n\" query=\"q=1\"", "{step}");
        }
        let forged = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x08\x05\0\x05c3\n\x1b[";
        assert_eq!(describe(&parse_hello(forged).unwrap()), "c3\\n\\u{1b}[ client=unix");
        let of_tls = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x26\x05\0\x02c3\
              \x20\0\x14\x05\0\0\0\0\x21\0\x03TLS\x22\0\x06a\x1b[\"\n.\xe6\0\x07CN=a\x1b[.";
        let names = r#"common_name="a\u{1b}[\"\n." subject="CN=a\u{1b}[.""#;
        let expected = format!("c3 client=unix tls_version=\"TLS\" {names} is_verified");
        assert_eq!(describe(&parse_hello(of_tls).unwrap()), expected);
        assert!(matches!(received(SockType::Stream, b"GET / HTTP/1.1\r\n\r\n", 99), Err(HelloError::NoRecord)));
        assert!(matches!(received(SockType::Stream, &FIRST[..20], 99), Err(HelloError::Io(_))));
    }

    #[test]
    fn a_record_is_one_packet() {
        let hello = received(SockType::SeqPacket, FIRST, 99).unwrap().unwrap();
        assert_eq!(describe(&hello), "c3 client=unix");
        assert!(matches!(received(SockType::SeqPacket, FIRST, 20), Err(HelloError::Cut)));
        assert!(matches!(received(SockType::SeqPacket, FIRST, 7), Err(HelloError::Cut)));
    }
}
