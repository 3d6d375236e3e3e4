//! A session whose records the kernel makes and opens: its bytes pass unchanged. Before, the connection of rustls gives up
//! its keys.
//!
//! A record that is no application data is received by itself. It ends the session: a client sends close_notify, other
//! alerts, and KeyUpdate, for which kernels before 6.14 take no new keys.

use std::mem;

use rustls::{CipherSuite, ConnectionTrafficSecrets, ProtocolVersion};

use super::{Content, End, HANDSHAKE, Session, State, WriteError, drain_output, write_to};
use crate::driver::{Driver, Errno, RecordCipher, RecordKey, RecordSuite, RecordVersion, TlsRecord};
use crate::tls::{Offload, TlsFailure};
use crate::transport::Arrival;

/// ContentType alert and application_data (RFC 8446 section 5.1).
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
/// HandshakeType key_update (RFC 8446 section 4).
const KEY_UPDATE: u8 = 24;
/// Alerts (RFC 8446 section 6): level and description.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const USER_CANCELED: u8 = 90;
const UNEXPECTED_MESSAGE: [u8; 2] = [2, 10];
const BAD_RECORD_MAC: [u8; 2] = [2, 20];
const INTERNAL_ERROR: [u8; 2] = [2, 80];

impl Session {
    /// Whether the kernel makes and opens the records.
    pub(in crate::transport) fn is_offloaded(&self) -> bool {
        matches!(self.state, State::Kernel(_))
    }

    /// Whether the kernel is to make the records of this client although no backend gets its socket.
    pub(in crate::transport) fn wants_offload(&self) -> bool {
        self.offload == Offload::All && matches!(self.state, State::Secured(..))
    }

    /// Gives the records to the kernel, if it takes them and nothing of a record is held here. No operation may be in
    /// flight on the socket, and what was sealed must have been sent. Some: the connection has failed.
    pub(in crate::transport) fn offload<D: Driver>(&mut self, socket: &D::Handle, driver: &mut D) -> Option<Arrival> {
        let State::Secured(connection, _) = &mut self.state else { return None };
        let is_open = !self.is_closed && !self.has_ended && self.partial.is_empty() && self.output.is_empty();
        if !is_open || self.offload == Offload::Off {
            return None;
        }
        let suite = suite_of(connection.protocol_version(), connection.negotiated_cipher_suite()?.suite())?;
        // The answer to a KeyUpdate waits until something is sent, and would be lost: an attempt without room queues it.
        let attempted = write_to(&mut [], connection, &mut [], Content::Data(&[0]), &mut self.output);
        drain_output(connection, &mut self.output);
        if !self.output.is_empty() || !matches!(attempted, Err(WriteError::TooSmall(_))) {
            return None;
        }
        if driver.begin_records(socket, suite).is_err() {
            self.offload = Offload::Off;
            return None;
        }
        let State::Secured(connection, facts) = mem::replace(&mut self.state, State::Failed(None)) else { return None };
        let taken = connection.dangerous_into_kernel_connection().ok().and_then(|(secrets, _)| {
            let sending = record_key(suite, secrets.tx, true)?;
            let receiving = record_key(suite, secrets.rx, false)?;
            driver.set_record_keys(socket, &sending, &receiving).ok()
        });
        if taken.is_none() {
            self.state = State::Failed(Some(facts));
            return Some(self.end(End::Failed(TlsFailure::Kernel)));
        }
        self.certificates_size = 0;
        self.state = State::Kernel(facts);
        None
    }

    /// Handles a failed receive: the kernel fails with EIO before a record that is no application data.
    pub(in crate::transport) fn receive_record<D: Driver>(
        &mut self,
        errno: Errno,
        socket: &D::Handle,
        driver: &mut D,
    ) -> Option<Arrival> {
        let (failure, alert) = match errno {
            Errno::EIO => match driver.receive_record(socket) {
                Err(Errno::EAGAIN | Errno::EINTR) => return None,
                Err(errno) => return Some(Arrival::Failed(errno)),
                Ok(TlsRecord { kind: APPLICATION_DATA, bytes }) if bytes.is_empty() => return self.receive_end(),
                Ok(TlsRecord { kind: APPLICATION_DATA, bytes }) => return Some(Arrival::copy(&bytes)),
                Ok(TlsRecord { kind: ALERT, bytes }) => match bytes[..] {
                    // The client sends nothing more: a close_notify follows a user_canceled (RFC 8446 section 6.1).
                    [_, 0 | USER_CANCELED] => return Some(self.end(End::Closed)),
                    [_, alert] => (TlsFailure::Alert(alert), None),
                    _ => (TlsFailure::Misbehaved, Some(UNEXPECTED_MESSAGE)),
                },
                Ok(TlsRecord { kind: HANDSHAKE, bytes }) if bytes.first() == Some(&KEY_UPDATE) => {
                    (TlsFailure::KeyUpdate, Some(INTERNAL_ERROR))
                }
                Ok(_) => (TlsFailure::Misbehaved, Some(UNEXPECTED_MESSAGE)),
            },
            Errno::EBADMSG => (TlsFailure::Decrypt, Some(BAD_RECORD_MAC)),
            Errno::EMSGSIZE => (TlsFailure::TooLarge, Some(UNEXPECTED_MESSAGE)),
            Errno::EINVAL => (TlsFailure::Misbehaved, Some(UNEXPECTED_MESSAGE)),
            errno => return Some(Arrival::Failed(errno)),
        };
        if let Some(alert) = alert {
            // Best effort: without room, or after a failure in decrypting of some kernels, the client sees an end without it.
            let _ = driver.send_record(socket, ALERT, &alert);
        }
        Some(self.end(End::Failed(failure)))
    }

    /// Sends the close_notify, if the kernel makes the records. The session stays open if that needs waiting.
    pub(in crate::transport) fn close_by_kernel<D: Driver>(&mut self, socket: &D::Handle, driver: &mut D) {
        if self.is_offloaded() && !self.is_closed {
            self.is_closed = driver.send_record(socket, ALERT, &CLOSE_NOTIFY) != Err(Errno::EAGAIN);
        }
    }
}

/// Version and cipher of the records. None: the kernel has none for this suite.
fn suite_of(version: Option<ProtocolVersion>, suite: CipherSuite) -> Option<RecordSuite> {
    use CipherSuite as Suite;
    let version = match version? {
        ProtocolVersion::TLSv1_2 => RecordVersion::Tls12,
        ProtocolVersion::TLSv1_3 => RecordVersion::Tls13,
        _ => return None,
    };
    let cipher = match suite {
        Suite::TLS13_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => RecordCipher::Aes128Gcm,
        Suite::TLS13_AES_256_GCM_SHA384
        | Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => RecordCipher::Aes256Gcm,
        Suite::TLS13_CHACHA20_POLY1305_SHA256
        | Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => RecordCipher::ChaCha20Poly1305,
        _ => return None,
    };
    Some(RecordSuite { version, cipher })
}

/// The key of a direction, from the number of its next record on. None: it is not of this suite.
///
/// The nonces of AES-GCM in TLS 1.2 are the sender's choice (RFC 5288 section 3), and may not repeat. rustls has used its
/// explicit part XOR the record's number, and the kernel counts from the part that it is given: that part differs from all
/// that rustls has used in its first bit.
fn record_key(
    suite: RecordSuite,
    (sequence, secrets): (u64, ConnectionTrafficSecrets),
    is_sending: bool,
) -> Option<RecordKey> {
    let (secret, iv, cipher) = match &secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (key, iv, RecordCipher::Aes128Gcm),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (key, iv, RecordCipher::Aes256Gcm),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv, RecordCipher::ChaCha20Poly1305),
        _ => return None,
    };
    let mut key = [0; 32];
    key.get_mut(..secret.as_ref().len())?.copy_from_slice(secret.as_ref());
    let mut nonce: [u8; 12] = iv.as_ref().try_into().ok()?;
    if is_sending && suite.version == RecordVersion::Tls12 && suite.cipher != RecordCipher::ChaCha20Poly1305 {
        // It counts up to 2^63 records without a carry into the first bit.
        nonce[4] = !nonce[4] & 0x80;
        nonce[5..].fill(0);
    }
    (cipher == suite.cipher).then_some(RecordKey { suite, key, nonce, sequence })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::counterpart::{Pair, VERSIONS, pair};
    use super::*;
    use crate::driver::sim::{Handle, Sim};
    use crate::driver::{Event, Op, Token};
    use crate::limits::{POOL_HEADROOM, SEAL_IN_PLACE_SIZE_MIN};
    use crate::tls::Security;
    use crate::transport::{Extra, Opposite, Stage, Transport};
    use crate::types::Address;

    /// A kernel with TLS, and a client's connection.
    fn kernel() -> (Sim, Handle) {
        let mut sim = Sim::new(1, 4);
        (sim.is_plain, sim.has_kernel_tls) = (true, true);
        let listener = sim.listener();
        sim.client(0, 100_000, Address::Unix);
        sim.accept(Token { slot: 0, generation: 1, op: Op::Accept }, &listener);
        let mut completions = Vec::new();
        sim.wait(None, &mut completions).unwrap();
        let Some(Event::Accepted { result: Ok((handle, _)), .. }) = completions.pop().map(|one| one.event) else {
            panic!("no client")
        };
        (sim, handle)
    }

    /// A session after its handshake.
    fn secured(version: usize) -> Pair {
        let mut pair = pair(VERSIONS[version], "one.example");
        pair.shake_hands(usize::MAX);
        pair
    }

    /// What a session makes of a record.
    fn of_record(record: TlsRecord) -> (Option<Arrival>, Session, Vec<TlsRecord>) {
        let ((mut sim, handle), mut pair) = (kernel(), secured(0));
        assert!(pair.session.offload(&handle, &mut sim).is_none() && pair.session.is_offloaded());
        sim.wires[0].records_to_gateway.push_back(record);
        let arrival = pair.session.receive_record(Errno::EIO, &handle, &mut sim);
        (arrival, pair.session, std::mem::take(&mut sim.wires[0].records_from_gateway))
    }

    #[test]
    fn records_of_the_kernel() {
        let alert = |bytes: [u8; 2]| vec![TlsRecord { kind: ALERT, bytes: bytes.to_vec() }];
        for (kind, bytes, failure, answer) in [
            (ALERT, &[1, 0][..], None, vec![]),
            (ALERT, &[1, USER_CANCELED], None, vec![]),
            (ALERT, &[2, 40], Some(TlsFailure::Alert(40)), vec![]),
            (ALERT, &[2], Some(TlsFailure::Misbehaved), alert(UNEXPECTED_MESSAGE)),
            (HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 1], Some(TlsFailure::KeyUpdate), alert(INTERNAL_ERROR)),
            (HANDSHAKE, &[1, 0, 0, 0], Some(TlsFailure::Misbehaved), alert(UNEXPECTED_MESSAGE)),
            (20, &[1], Some(TlsFailure::Misbehaved), alert(UNEXPECTED_MESSAGE)),
            (99, b"hello", Some(TlsFailure::Misbehaved), alert(UNEXPECTED_MESSAGE)),
        ] {
            let (arrival, session, sent) = of_record(TlsRecord { kind, bytes: bytes.to_vec() });
            let is_right = match failure {
                None => matches!(arrival, Some(Arrival::End)),
                Some(failure) => matches!(arrival, Some(Arrival::Broken(error)) if error == failure),
            };
            assert!(is_right && sent == answer, "{kind} {bytes:?}: {arrival:?}, {sent:?}");
            assert!(matches!(session.security(), Security::Tls(_)));
            assert_eq!(session.may_seal(), failure.is_none());
        }
        let (arrival, ..) = of_record(TlsRecord { kind: APPLICATION_DATA, bytes: b"hello".to_vec() });
        assert!(matches!(arrival, Some(Arrival::Copy(bytes)) if bytes.ends_with(b"hello")));
    }

    #[test]
    fn errors_of_the_kernel() {
        let ((mut sim, handle), mut pair) = (kernel(), secured(1));
        assert!(pair.session.offload(&handle, &mut sim).is_none());
        assert!(pair.session.receive_record(Errno::EIO, &handle, &mut sim).is_none(), "no record is there");
        let arrival = pair.session.receive_record(Errno::ECONNRESET, &handle, &mut sim);
        assert!(matches!(arrival, Some(Arrival::Failed(Errno::ECONNRESET))));
        let arrival = pair.session.receive_record(Errno::EBADMSG, &handle, &mut sim);
        assert!(matches!(arrival, Some(Arrival::Broken(TlsFailure::Decrypt))));
        assert_eq!(sim.wires[0].records_from_gateway, [TlsRecord { kind: ALERT, bytes: BAD_RECORD_MAC.to_vec() }]);
    }

    /// What forbids that the kernel gets the keys: rustls goes on.
    #[test]
    fn sessions_that_stay() {
        for version in 0..2 {
            let stays = |pair: &mut Pair, sim: &mut Sim, handle: &Handle| {
                assert!(pair.session.offload(handle, sim).is_none() && !pair.session.is_offloaded());
                let sealed = pair.session.seal(b"hello").unwrap();
                assert_eq!(pair.hear(&sealed).unwrap(), b"hello");
            };
            let ((mut sim, handle), mut pair) = (kernel(), secured(version));
            sim.has_kernel_tls = false;
            stays(&mut pair, &mut sim, &handle);
            sim.has_kernel_tls = true;
            // It is not tried again.
            stays(&mut pair, &mut sim, &handle);
            // A part of a record has arrived.
            let mut pair = secured(version);
            pair.client.writer().write_all(b"hello").unwrap();
            let said = pair.said();
            pair.feed(&said[..7]);
            stays(&mut pair, &mut sim, &handle);
            pair.feed(&said[7..]);
            assert!(pair.session.offload(&handle, &mut sim).is_none() && pair.session.is_offloaded());
        }
        // The answer to a KeyUpdate is to be sent first.
        let ((mut sim, handle), mut pair) = (kernel(), secured(0));
        pair.client.refresh_traffic_keys().unwrap();
        let said = pair.said();
        pair.feed(&said);
        assert!(pair.session.offload(&handle, &mut sim).is_none() && !pair.session.is_offloaded());
        let large = POOL_HEADROOM..POOL_HEADROOM + SEAL_IN_PLACE_SIZE_MIN;
        assert!(!pair.session.seals_in_place(&large), "records in place would precede the answer");
        let sealed = pair.session.seal(b"hello").unwrap();
        assert_eq!(pair.hear(&sealed).unwrap(), b"hello");
        assert!(pair.session.seals_in_place(&large));
        assert!(pair.session.offload(&handle, &mut sim).is_none() && pair.session.is_offloaded());
    }

    #[test]
    fn keys_that_are_not_taken() {
        let ((mut sim, handle), mut pair) = (kernel(), secured(0));
        sim.takes_record_keys = false;
        let failure = pair.session.offload(&handle, &mut sim);
        assert!(matches!(failure, Some(Arrival::Broken(TlsFailure::Kernel))));
        assert!(pair.session.is_closed() && !pair.session.may_seal(), "nothing is sent in clear");
        assert!(matches!(pair.session.security(), Security::Tls(_)));
    }

    /// It is tried again, and owed until then.
    #[test]
    fn a_close_notify_without_room() {
        let ((mut sim, handle), mut pair) = (kernel(), secured(0));
        assert!(pair.session.offload(&handle, &mut sim).is_none());
        let mut transport = Transport::new(handle);
        let stage = Stage::Tls(pair.session);
        transport.extra = Some(Box::new(Extra { stage, ..Extra::default() }));
        transport.finish();
        let token = Token { slot: 0, generation: 1, op: Op::Receive };
        for has_room in [false, true] {
            sim.has_room_for_records = has_room;
            transport.settle(token, Opposite { queued_size: 0, queue_size_max: 1 }, &mut sim);
            assert_eq!(transport.queued_size() == 0, has_room);
        }
        assert_eq!(sim.wires[0].records_from_gateway, [TlsRecord { kind: ALERT, bytes: CLOSE_NOTIFY.to_vec() }]);
    }

    /// No nonce of the kernel is one that rustls has used, and its salt stays.
    #[test]
    fn nonces() {
        let secrets = |iv: [u8; 12]| (3, ConnectionTrafficSecrets::Aes256Gcm { key: [5; 32].into(), iv: iv.into() });
        for first in [0, 1, 0x7f, 0x80, 0xff] {
            let iv = [9, 8, 7, 6, first, 1, 2, 3, 4, 5, 6, 7];
            for version in [RecordVersion::Tls12, RecordVersion::Tls13] {
                let suite = RecordSuite { version, cipher: RecordCipher::Aes256Gcm };
                let sending = record_key(suite, secrets(iv), true).unwrap();
                let receiving = record_key(suite, secrets(iv), false).unwrap();
                assert_eq!((sending.key, sending.sequence, receiving.nonce), ([5; 32], 3, iv));
                match version {
                    RecordVersion::Tls12 => {
                        let differing = (first ^ 0x80) & 0x80;
                        assert_eq!(sending.nonce, [9, 8, 7, 6, differing, 0, 0, 0, 0, 0, 0, 0]);
                    }
                    RecordVersion::Tls13 => assert_eq!(sending.nonce, iv),
                }
            }
            let other = RecordSuite { version: RecordVersion::Tls13, cipher: RecordCipher::Aes128Gcm };
            assert!(record_key(other, secrets(iv), true).is_none());
        }
    }
}
