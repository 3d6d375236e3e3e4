//! TLS whose record layer is in the kernel (Documentation/networking/tls.rst). Both ends of a connection have the same
//! fixed keys, so that a test can send any record.

use std::io::{BufReader, Error, ErrorKind, IoSliceMut, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::sockopt::{TcpTlsRx, TcpTlsTx, TcpUlp, TlsCryptoInfo};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, TlsGetRecordType, recvmsg, setsockopt};

use crate::handover::tcp_pair;

/// Why a test is skipped.
pub const NO_TLS: &str = "the kernel has no TLS";

/// Types of records (RFC 8446 section 5.1).
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
/// The alert at the end of a stream (RFC 8446 section 6.1).
pub const CLOSE_NOTIFY: &[u8] = &[1, 0];
/// A record that no key decrypts.
const UNREADABLE: &[u8] = &[0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

/// How a client's records reach the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    Straight,
    /// Each byte in a segment of its own.
    ByteByByte,
    /// All at once, after the client's end of the stream.
    AtOnce,
    /// The same, with a record after them that cannot be decrypted.
    BeforeUnreadable,
}

/// The ends of a new connection: the client's and the server's. None: the kernel has no TLS.
pub fn secure_pair(route: Route) -> Option<(TcpStream, TcpStream)> {
    let (client, server) = if route == Route::Straight {
        tcp_pair()
    } else {
        let ((client, from_client), (to_server, server)) = (tcp_pair(), tcp_pair());
        let ends = (from_client.try_clone().unwrap(), to_server.try_clone().unwrap());
        thread::spawn(move || relay(from_client, to_server, route));
        thread::spawn(move || relay(ends.1, ends.0, Route::Straight));
        (client, server)
    };
    (secure(&client, 3, 4) && secure(&server, 4, 3)).then_some((client, server))
}

/// Carries the bytes of one direction. Either end may be gone.
fn relay(mut from: TcpStream, mut to: TcpStream, route: Route) {
    let mut all = Vec::new();
    let _ = match route {
        Route::Straight => std::io::copy(&mut from, &mut to).map(drop),
        Route::ByteByByte => {
            to.set_nodelay(true).unwrap();
            BufReader::new(from).bytes().try_for_each(|byte| to.write_all(&[byte?]))
        }
        Route::AtOnce | Route::BeforeUnreadable => from.read_to_end(&mut all).and_then(|_| {
            all.extend(if route == Route::AtOnce { &[] } else { UNREADABLE });
            to.write_all(&all)
        }),
    };
    let _ = to.shutdown(Shutdown::Write);
}

/// Gives TLS to one end of a connection. False: the kernel has none.
fn secure(stream: &TcpStream, sending: u8, receiving: u8) -> bool {
    // TLS 1.3 with AES-128-GCM.
    let info = libc::tls_crypto_info { version: libc::TLS_1_3_VERSION, cipher_type: libc::TLS_CIPHER_AES_GCM_128 };
    let keys = |direction| {
        let (iv, key, salt, rec_seq) = ([1; 8], [direction; 16], [2; 4], [0; 8]);
        TlsCryptoInfo::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 { info, iv, key, salt, rec_seq })
    };
    if setsockopt(stream, TcpUlp::default(), b"tls").is_err() {
        return false;
    }
    setsockopt(stream, TcpTlsTx, &keys(sending)).unwrap();
    setsockopt(stream, TcpTlsRx, &keys(receiving)).unwrap();
    true
}

/// Sends a record of this type, with at least one byte.
pub fn send(stream: &TcpStream, kind: u8, bytes: &[u8]) -> Result<()> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // Aligned as ancillary data is.
    let mut ancillary = [0_usize; 4];
    // SAFETY: a msghdr may be all zeros.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    // SAFETY: it only computes a size.
    let room = unsafe { libc::CMSG_SPACE(1) };
    (message.msg_control, message.msg_controllen) = (ancillary.as_mut_ptr().cast(), room as _);
    // SAFETY: the message has ancillary data.
    let head = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: it only computes an address.
    let data = unsafe { libc::CMSG_DATA(head) };
    // SAFETY: the ancillary data has room for a header.
    let head = unsafe { &mut *head };
    (head.cmsg_level, head.cmsg_type) = (libc::SOL_TLS, libc::TLS_SET_RECORD_TYPE);
    // SAFETY: it only computes a size.
    head.cmsg_len = unsafe { libc::CMSG_LEN(1) } as _;
    // SAFETY: the ancillary data has room for a byte.
    unsafe { *data = kind };
    // SAFETY: the message names memory that lives through the call and is only read.
    let size = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    if size == bytes.len() as isize { Ok(()) } else { Err(Error::last_os_error()) }
}

/// Receives payload. 0: close_notify; UnexpectedEof: the stream ended without one.
pub fn receive(stream: &TcpStream, bytes: &mut [u8]) -> Result<usize> {
    let mut ancillary = cmsg_space!(u8);
    let mut parts = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut ancillary), MsgFlags::empty())?;
    let (kind, size) = (message.cmsgs()?.next(), message.bytes);
    match kind {
        _ if size == 0 => Err(ErrorKind::UnexpectedEof.into()),
        Some(ControlMessageOwned::TlsGetRecordType(TlsGetRecordType::ApplicationData)) => Ok(size),
        Some(ControlMessageOwned::TlsGetRecordType(TlsGetRecordType::Alert)) if bytes[..size] == *CLOSE_NOTIFY => Ok(0),
        other => Err(Error::other(format!("{other:?} of {size} bytes"))),
    }
}
