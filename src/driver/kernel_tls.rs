//! TLS of the kernel (Documentation/networking/tls.rst of Linux): after a handshake in user space, the kernel makes and
//! opens the records of a TCP connection. Its module loads by itself only for a process with CAP_NET_ADMIN.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{self, TlsCryptoInfo};
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, TlsGetRecordType, setsockopt};

use crate::limits::{TLS_RECORD_SIZE_MAX, TLS_TRIAL_MS};

/// The version of a connection's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum RecordVersion {
    Tls12,
    Tls13,
}

/// The cipher of a connection's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum RecordCipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

/// Version and cipher of a connection's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordSuite {
    /// The version.
    pub version: RecordVersion,
    /// The cipher.
    pub cipher: RecordCipher,
}

impl RecordSuite {
    /// All of them.
    pub fn all() -> impl Iterator<Item = RecordSuite> {
        let ciphers = [RecordCipher::Aes128Gcm, RecordCipher::Aes256Gcm, RecordCipher::ChaCha20Poly1305];
        let versions = [RecordVersion::Tls12, RecordVersion::Tls13];
        versions.into_iter().flat_map(move |version| ciphers.map(|cipher| RecordSuite { version, cipher }))
    }

    fn bit(self) -> u8 {
        1 << (self.version as u8 * 3 + self.cipher as u8)
    }
}

/// A set of suites.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecordSuites(u8);

impl RecordSuites {
    /// The suites that this kernel takes for both directions. ENOENT: it has no TLS, or its module is not loaded.
    pub fn of_kernel() -> Result<RecordSuites, Errno> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(errno_of)?;
        let address = listener.local_addr().map_err(errno_of)?;
        let mut suites = RecordSuites::default();
        for suite in RecordSuite::all() {
            let socket = OwnedFd::from(
                TcpStream::connect_timeout(&address, Duration::from_millis(TLS_TRIAL_MS)).map_err(errno_of)?,
            );
            begin(&socket)?;
            let key = || RecordKey { suite, key: [0; 32], nonce: [0; 12], sequence: 0 };
            if set_keys(&socket, &key(), &key()).is_ok() {
                suites.insert(suite);
            }
        }
        if suites == RecordSuites::default() { Err(Errno::EOPNOTSUPP) } else { Ok(suites) }
    }

    fn insert(&mut self, suite: RecordSuite) {
        self.0 |= suite.bit();
    }

    pub(super) fn contains(self, suite: RecordSuite) -> bool {
        self.0 & suite.bit() != 0
    }
}

fn errno_of(error: io::Error) -> Errno {
    // Only a timeout has no number.
    error.raw_os_error().map_or(Errno::ETIMEDOUT, Errno::from_raw)
}

/// The key of one direction.
pub struct RecordKey {
    /// Version and cipher.
    pub suite: RecordSuite,
    /// The key; AES-128 uses the first half.
    pub key: [u8; 32],
    /// The nonce of the record with the number 0. AES-GCM of TLS 1.2: the salt, then the explicit part of the next record.
    pub nonce: [u8; 12],
    /// The number of the next record.
    pub sequence: u64,
}

/// A record that is no application data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsRecord {
    /// Its content type (RFC 8446 section 5.1).
    pub kind: u8,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// Prepares a connected TCP socket for the keys. Until they are set, bytes pass in clear.
pub(super) fn begin(socket: &impl AsFd) -> Result<(), Errno> {
    setsockopt(socket, sockopt::TcpUlp::default(), b"tls")
}

/// Sets the keys: the next byte sent begins a record, and so does the next byte received.
pub(super) fn set_keys(socket: &impl AsFd, sending: &RecordKey, receiving: &RecordKey) -> Result<(), Errno> {
    setsockopt(socket, sockopt::TcpTlsTx, &crypto_info(sending))?;
    setsockopt(socket, sockopt::TcpTlsRx, &crypto_info(receiving))
}

/// The key as the kernel takes it (linux/tls.h): a nonce is a salt of 4 bytes, and 8 bytes.
fn crypto_info(key: &RecordKey) -> TlsCryptoInfo {
    let [s0, s1, s2, s3, iv @ ..] = key.nonce;
    let (salt, rec_seq) = ([s0, s1, s2, s3], key.sequence.to_be_bytes());
    let version = match key.suite.version {
        RecordVersion::Tls12 => libc::TLS_1_2_VERSION,
        RecordVersion::Tls13 => libc::TLS_1_3_VERSION,
    };
    let info = |cipher_type| libc::tls_crypto_info { version, cipher_type };
    match key.suite.cipher {
        RecordCipher::Aes128Gcm => {
            let mut half = [0; 16];
            half.copy_from_slice(&key.key[..16]);
            let info = info(libc::TLS_CIPHER_AES_GCM_128);
            TlsCryptoInfo::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 { info, iv, key: half, salt, rec_seq })
        }
        RecordCipher::Aes256Gcm => {
            let info = info(libc::TLS_CIPHER_AES_GCM_256);
            TlsCryptoInfo::Aes256Gcm(libc::tls12_crypto_info_aes_gcm_256 { info, iv, key: key.key, salt, rec_seq })
        }
        RecordCipher::ChaCha20Poly1305 => {
            let info = info(libc::TLS_CIPHER_CHACHA20_POLY1305);
            let (iv, salt) = (key.nonce, []);
            TlsCryptoInfo::Chacha20Poly1305(libc::tls12_crypto_info_chacha20_poly1305 {
                info,
                iv,
                key: key.key,
                salt,
                rec_seq,
            })
        }
    }
}

/// Receives the record that another receive cannot (EIO). Does not wait.
pub(super) fn receive_record(socket: &impl AsRawFd) -> Result<TlsRecord, Errno> {
    let mut bytes = vec![0; TLS_RECORD_SIZE_MAX];
    let mut parts = [io::IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!(u8);
    let fd = socket.as_raw_fd();
    let message = socket::recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let kind = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::TlsGetRecordType(kind) => Some(kind),
        _ => None,
    });
    let size = message.bytes;
    let kind = match kind {
        Some(TlsGetRecordType::ChangeCipherSpec) => 20,
        Some(TlsGetRecordType::Alert) => 21,
        Some(TlsGetRecordType::Handshake) => 22,
        Some(TlsGetRecordType::ApplicationData) | None => 23,
        Some(TlsGetRecordType::Unknown(kind)) => kind,
        Some(_) => 0,
    };
    bytes.truncate(size);
    Ok(TlsRecord { kind, bytes })
}

/// A control message with a record's type (cmsg(3)).
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    kind: u8,
}

/// Sends a record of this type. Does not wait.
pub(super) fn send_record(socket: &impl AsRawFd, kind: u8, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: a cmsghdr consists of integers, for which zeros are valid.
    let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
    header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u8>()) as _;
    header.cmsg_level = libc::SOL_TLS;
    header.cmsg_type = libc::TLS_SET_RECORD_TYPE;
    let mut control = Control { header, kind };
    let mut segment = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: a msghdr of zeros names no address, no segments and no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut segment;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the message, its segment and its control data live through the call.
    let result = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the kernel's structures (linux/tls.h).
    fn bytes_of(info: &TlsCryptoInfo) -> Vec<u8> {
        fn raw(version: u16, cipher: u16, parts: &[&[u8]]) -> Vec<u8> {
            [&version.to_ne_bytes()[..], &cipher.to_ne_bytes(), &parts.concat()].concat()
        }
        match info {
            TlsCryptoInfo::Aes128Gcm(it) => {
                assert_eq!(size_of_val(it), 40);
                raw(it.info.version, it.info.cipher_type, &[&it.iv, &it.key, &it.salt, &it.rec_seq])
            }
            TlsCryptoInfo::Aes256Gcm(it) => {
                assert_eq!(size_of_val(it), 56);
                raw(it.info.version, it.info.cipher_type, &[&it.iv, &it.key, &it.salt, &it.rec_seq])
            }
            TlsCryptoInfo::Chacha20Poly1305(it) => {
                assert_eq!(size_of_val(it), 56);
                raw(it.info.version, it.info.cipher_type, &[&it.iv, &it.key, &it.salt, &it.rec_seq])
            }
        }
    }

    #[test]
    fn keys_byte_by_byte() {
        let key: [u8; 32] = std::array::from_fn(|index| index as u8);
        let nonce = [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111];
        let sequence = [0, 0, 0, 0, 0, 0, 1, 2];
        let mut bits = RecordSuites::default();
        for suite in RecordSuite::all() {
            let version: u16 = if suite.version == RecordVersion::Tls12 { 0x303 } else { 0x304 };
            let (cipher, parts): (u16, [&[u8]; 3]) = match suite.cipher {
                RecordCipher::Aes128Gcm => (51, [&nonce[4..], &key[..16], &nonce[..4]]),
                RecordCipher::Aes256Gcm => (52, [&nonce[4..], &key, &nonce[..4]]),
                RecordCipher::ChaCha20Poly1305 => (54, [&nonce, &key, &[]]),
            };
            let head = [version.to_ne_bytes(), cipher.to_ne_bytes()].concat();
            let expected = [&head[..], &parts.concat(), &sequence].concat();
            let info = crypto_info(&RecordKey { suite, key, nonce, sequence: 0x102 });
            assert_eq!(bytes_of(&info), expected, "{suite:?}");
            assert!(!bits.contains(suite));
            bits.insert(suite);
            assert!(bits.contains(suite));
        }
        assert_eq!(bits, RecordSuites(0b11_1111));
    }

    /// Two ends of a connection with the same keys, where this kernel has TLS; elsewhere the error is the one that the log
    /// explains.
    #[test]
    fn records_between_two_ends() {
        let suites = match RecordSuites::of_kernel() {
            Ok(suites) => suites,
            Err(errno) => {
                assert!(matches!(errno, Errno::ENOENT | Errno::EOPNOTSUPP), "{errno}");
                return println!("skipped: the kernel has no TLS ({errno})");
            }
        };
        for suite in RecordSuite::all().filter(|suite| suites.contains(*suite)) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, _) = listener.accept().unwrap();
            let key = |nonce| RecordKey { suite, key: [7; 32], nonce: [nonce; 12], sequence: 3 };
            for (end, sending, receiving) in [(&near, 1, 2), (&far, 2, 1)] {
                begin(end).unwrap();
                set_keys(end, &key(sending), &key(receiving)).unwrap();
            }
            assert_eq!(receive_record(&far), Err(Errno::EAGAIN));
            io::Write::write_all(&mut &near, b"hello").unwrap();
            let mut bytes = [0; 5];
            io::Read::read_exact(&mut &far, &mut bytes).unwrap();
            assert_eq!(&bytes, b"hello", "{suite:?}");
            send_record(&near, 21, &[1, 0]).unwrap();
            let error = io::Read::read(&mut &far, &mut bytes).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            assert_eq!(receive_record(&far), Ok(TlsRecord { kind: 21, bytes: vec![1, 0] }), "{suite:?}");
        }
    }
}
