//! What a client may send that rustls' own client never does.

use std::io::Write as _;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::tls::{CurrentIdentity, Material, Tickets};

/// ContentType application_data.
const APPLICATION: u8 = 23;

fn hosts() -> (CertificateDer<'static>, Arc<Hosts>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap().self_signed(&key).unwrap();
    let material =
        Material { certificate: certificate.pem().into(), key: key.serialize_pem().into(), ..Material::default() };
    let (identity, _) = Identity::new(&material, None, &Tickets::new(&material).unwrap()).unwrap();
    let hosts = Hosts::new(vec![(None, Arc::new(CurrentIdentity::new(identity)))]);
    (certificate.der().clone(), Arc::new(hosts.unwrap()))
}

fn client(version: &'static SupportedProtocolVersion, certificate: CertificateDer<'static>) -> ClientConnection {
    let mut provider = default_provider();
    provider.cipher_suites.retain(|suite| format!("{suite:?}").contains("AES_256_GCM"));
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    ClientConnection::new(Arc::new(config), "h".try_into().unwrap()).unwrap()
}

/// What the client wants to send.
fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Makes a step with these bytes and gives its answer to the client.
fn step(session: &mut Session, client: &mut ClientConnection, bytes: &[u8]) -> Taken {
    session.partial.extend_from_slice(bytes);
    let taken = session.step();
    let output = session.take_output().unwrap_or_default();
    let mut output = &output[..];
    while !output.is_empty() {
        client.read_tls(&mut output).unwrap();
        // An alert is an error.
        let _ = client.process_new_packets();
    }
    taken
}

/// Encrypts records as the client of a secured session.
struct Sealer {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    is_tls13: bool,
}

impl Sealer {
    fn new(client: ClientConnection) -> Sealer {
        let is_tls13 = client.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let (sequence, secrets) = client.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("another cipher") };
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
        Sealer { key, iv: iv.as_ref().try_into().unwrap(), sequence, is_tls13 }
    }

    fn record(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        for (at, byte) in self.sequence.to_be_bytes().iter().enumerate() {
            nonce[4 + at] ^= byte;
        }
        let mut bytes = payload.to_vec();
        let (header, explicit) = if self.is_tls13 {
            bytes.push(kind);
            let size = (bytes.len() + 16) as u16;
            (vec![APPLICATION, 3, 3, (size >> 8) as u8, size as u8], Vec::new())
        } else {
            let size = (bytes.len() + 24) as u16;
            (vec![kind, 3, 3, (size >> 8) as u8, size as u8], nonce[4..].to_vec())
        };
        let plain_size = payload.len() as u16;
        let additional = match self.is_tls13 {
            true => header.clone(),
            false => [&self.sequence.to_be_bytes()[..], &[kind, 3, 3], &plain_size.to_be_bytes()].concat(),
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(additional), &mut bytes).unwrap();
        self.sequence += 1;
        [header, explicit, bytes].concat()
    }
}

/// A session after its handshake.
fn secured(version: &'static SupportedProtocolVersion) -> (Session, Sealer) {
    let (certificate, hosts) = hosts();
    let (mut session, mut client) = (Session::new(hosts), client(version, certificate));
    while client.is_handshaking() || client.wants_write() {
        let bytes = sent(&mut client);
        assert!(step(&mut session, &mut client, &bytes).end.is_none());
    }
    assert!(session.may_seal());
    (session, Sealer::new(client))
}

/// As `Session::receive`, without a pool.
fn receive(session: &mut Session, bytes: &[u8]) -> (Vec<u8>, Option<Arrival>) {
    let State::Secured(connection, _) = &mut session.state else { panic!("it is not secured") };
    let (mut bytes, mut plain) = (bytes.to_vec(), Vec::new());
    let (partial, held, output) = (&mut session.partial, &mut session.held, &mut session.output);
    let (place, end) = Traffic { connection, partial, held, output }.decrypt(&mut bytes, &mut plain);
    plain.extend_from_slice(&bytes[place]);
    (plain, end.map(|end| session.end(end)))
}

/// rustls keeps the positions of an incomplete handshake message in the bytes that it was given.
#[test]
fn an_incomplete_handshake_message_before_the_next_send() {
    for version in [&TLS13, &TLS12] {
        let (mut session, mut sealer) = secured(version);
        // The beginning of a KeyUpdate, or of a ClientHello.
        let kind = if sealer.is_tls13 { 24 } else { 1 };
        assert!(receive(&mut session, &sealer.record(HANDSHAKE, &[kind, 0])).1.is_none());
        assert!(session.seal(b"to the client").is_some(), "{version:?}");
        session.close();
        assert!(session.take_output().is_some(), "a close_notify");
    }
}

/// The end of the stream may follow instead.
#[test]
fn an_incomplete_handshake_message_before_the_end() {
    for version in [&TLS13, &TLS12] {
        let (mut session, mut sealer) = secured(version);
        let kind = if sealer.is_tls13 { 24 } else { 1 };
        let bytes = [sealer.record(HANDSHAKE, &[kind, 0]), vec![APPLICATION, 3]].concat();
        assert!(receive(&mut session, &bytes).1.is_none());
        assert!(matches!(session.receive_end(), Some(Arrival::End)));
        assert!(session.seal(b"to the client").is_some(), "{version:?}");
        session.close();
        assert!(session.take_output().is_some(), "a close_notify");
    }
}

/// The rest of the message may arrive after sends, with data after it.
#[test]
fn a_key_update_in_pieces() {
    for cut in 1..5 {
        let (mut session, mut sealer) = secured(&TLS13);
        let message = [24, 0, 0, 1, 0];
        let first = sealer.record(HANDSHAKE, &message[..cut]);
        let second = sealer.record(HANDSHAKE, &message[cut..]);
        let next = [&second[..], &[APPLICATION, 3]].concat();
        assert!(receive(&mut session, &first).1.is_none());
        assert!(session.seal(b"to the client").is_some());
        for byte in &next {
            let (plain, end) = receive(&mut session, &[*byte]);
            assert!(plain.is_empty() && end.is_none(), "{end:?}");
            assert!(session.seal(b"to the client").is_some());
        }
        assert_eq!(session.partial, [APPLICATION, 3]);
    }
}

/// The alert is made without the bytes before the failure.
#[test]
fn a_failure_after_an_incomplete_handshake_message() {
    for version in [&TLS13, &TLS12] {
        let (mut session, mut sealer) = secured(version);
        let kind = if sealer.is_tls13 { 24 } else { 1 };
        let first = sealer.record(HANDSHAKE, &[kind, 0]);
        let mut second = sealer.record(HANDSHAKE, &[0]);
        *second.last_mut().unwrap() ^= 1;
        for together in [true, false] {
            if !together {
                (session, sealer) = secured(version);
                let first = sealer.record(HANDSHAKE, &[kind, 0]);
                assert!(receive(&mut session, &first).1.is_none());
                let (_, end) = receive(&mut session, &second);
                assert!(matches!(end, Some(Arrival::Broken(TlsFailure::Decrypt))), "{version:?} {end:?}");
            } else {
                let (_, end) = receive(&mut session, &[&first[..], &second].concat());
                assert!(matches!(end, Some(Arrival::Broken(TlsFailure::Decrypt))), "{version:?} {end:?}");
            }
            assert!(session.take_output().is_some(), "an alert");
        }
    }
}

/// No key is needed for this: it is sent in clear.
#[test]
fn a_failure_after_an_incomplete_message_of_the_handshake() {
    let (certificate, hosts) = hosts();
    let (mut session, mut client) = (Session::new(hosts), client(&TLS12, certificate));
    let hello = sent(&mut client);
    assert!(step(&mut session, &mut client, &hello).end.is_none());
    session.partial.extend_from_slice(&[HANDSHAKE, 3, 3, 0, 2, 16, 0]);
    let end = session.step().end;
    assert!(end.is_none(), "{end:?}");
    session.partial.extend_from_slice(&[99, 3, 3, 0, 2, 16, 0]);
    assert!(matches!(session.step().end, Some(Arrival::Broken(_))));
    assert!(session.take_output().is_some(), "an alert");
}

/// rustls keeps such records until a handshake message follows, and skips their size at the front of all later bytes.
#[test]
fn empty_handshake_records() {
    for version in [&TLS13, &TLS12] {
        for together in [true, false] {
            let (mut session, mut sealer) = secured(version);
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for size in [0, 1, 5, 22, 100, 1_000] {
                bytes.extend(sealer.record(HANDSHAKE, &[]));
                expected.extend(vec![0x77; size]);
                bytes.extend(sealer.record(APPLICATION, &vec![0x77; size]));
            }
            let parts: Vec<&[u8]> = if together { vec![&bytes] } else { bytes.chunks(1).collect() };
            let mut plain = Vec::new();
            for part in parts {
                let (more, end) = receive(&mut session, part);
                assert!(end.is_none(), "{end:?}");
                plain.extend(more);
                assert!(session.seal(b"to the client").is_some());
            }
            assert!(plain == expected, "{version:?}: {} of {} bytes", plain.len(), expected.len());
        }
    }
}

/// A client may still send after the close_notify, and not only what is valid.
#[test]
fn records_after_the_close_notify() {
    for version in [&TLS13, &TLS12] {
        let (mut session, mut sealer) = secured(version);
        session.close();
        let (plain, end) = receive(&mut session, &sealer.record(APPLICATION, b"late"));
        assert!(plain == b"late" && end.is_none(), "{end:?}");
        let mut damaged = sealer.record(APPLICATION, b"later");
        *damaged.last_mut().unwrap() ^= 1;
        let (plain, end) = receive(&mut session, &damaged);
        assert!(plain.is_empty() && matches!(end, Some(Arrival::Broken(TlsFailure::Decrypt))), "{end:?}");
    }
}

/// What precedes a failure is judged as what it is: received over TLS, for the server that the client has named.
#[test]
fn a_failure_leaves_the_facts_of_the_connection() {
    for version in [&TLS13, &TLS12] {
        let (mut session, mut sealer) = secured(version);
        let mut damaged = sealer.record(APPLICATION, b"GET / HTTP/1.1\r\n");
        damaged.extend([99, 3, 3, 0, 1, 0]);
        let (plain, end) = receive(&mut session, &damaged);
        assert!(!plain.is_empty() && matches!(end, Some(Arrival::Broken(_))), "{end:?}");
        assert!(matches!(session.security(), Security::Tls(_)), "{:?}", session.security());
        // As above, with the end of the handshake.
        let (certificate, hosts) = hosts();
        let (mut session, mut client) = (Session::new(hosts), client(version, certificate));
        while client.is_handshaking() {
            let bytes = sent(&mut client);
            assert!(step(&mut session, &mut client, &bytes).end.is_none());
        }
        if version.version == ProtocolVersion::TLSv1_3 {
            client.writer().write_all(b"GET / HTTP/1.1\r\n").unwrap();
            let last = [&sent(&mut client)[..], &[99, 3, 3, 0, 1, 0]].concat();
            let taken = step(&mut session, &mut client, &last);
            assert!(taken.bytes.is_some() && matches!(taken.end, Some(Arrival::Broken(_))), "{taken:?}");
            assert!(matches!(session.security(), Security::Tls(_)), "{:?}", session.security());
        }
    }
}

/// A ClientHello in records of one byte each, received byte by byte.
#[test]
fn a_hello_in_pieces() {
    for version in [&TLS13, &TLS12] {
        let (certificate, hosts) = hosts();
        let (mut session, mut client) = (Session::new(hosts), client(version, certificate));
        let hello = sent(&mut client);
        let records: Vec<u8> = hello[HEADER_SIZE..].iter().flat_map(|byte| [HANDSHAKE, 3, 1, 0, 1, *byte]).collect();
        let (last, others) = records.split_last().unwrap();
        for byte in others {
            let taken = step(&mut session, &mut client, &[*byte]);
            assert!(taken.end.is_none() && matches!(session.state, State::Hello(_)), "{taken:?}");
        }
        assert!(step(&mut session, &mut client, &[*last]).end.is_none());
        assert!(matches!(session.state, State::Handshaking(_)), "{session:?}");
    }
}

/// What is no ClientHello is refused as soon as that is known.
#[test]
fn other_records_before_a_hello() {
    for bytes in [&[HANDSHAKE, 3, 1, 0, 1, 1, 99][..], &[HANDSHAKE, 3, 1, 0x50, 0], &[HANDSHAKE, 3, 1, 0, 0]] {
        let mut session = Session::new(hosts().1);
        session.partial.extend_from_slice(bytes);
        // The acceptor needs the whole header of the second record.
        if session.step().end.is_none() {
            session.partial.extend_from_slice(&[3, 1, 0, 1]);
            assert!(matches!(session.step().end, Some(Arrival::Broken(_))), "{bytes:?}");
        }
    }
}

/// A record that is too large is refused by its header, however its bytes are received: its payload is neither waited for
/// nor kept.
#[test]
fn a_record_that_is_too_large() {
    for size in [RECORD_SIZE_LIMIT as u16, 0x5000, 0xffff] {
        let [high, low] = size.to_be_bytes();
        for payload in [&[1, 1, 1, 1][..], &[1, 0, 0xff, 0xff], &[0, 0, 0, 0]] {
            let mut record = vec![HANDSHAKE, 3, 1, high, low];
            record.extend(payload.iter().cycle().take(size.into()));
            for cut in (1..HEADER_SIZE + 3).chain((1_000..record.len()).step_by(1_000)).chain([record.len()]) {
                let mut session = Session::new(hosts().1);
                let mut end = None;
                for part in [&record[..cut], &record[cut..]] {
                    session.partial.extend_from_slice(part);
                    end = session.step().end;
                    if end.is_some() {
                        break;
                    }
                    assert!(cut < HEADER_SIZE, "{size}: {cut} bytes were kept");
                }
                assert!(end.is_some(), "{size}, cut at {cut}");
                let output = session.take_output();
                assert!(output.as_deref() == Some(&DECODE_ERROR[..]), "{size}, cut at {cut}: {output:?}");
            }
        }
    }
}

/// As `a_record_that_is_too_large`, after the handshake: the last byte of the header is enough.
#[test]
fn a_record_that_is_too_large_after_the_handshake() {
    for version in [&TLS13, &TLS12] {
        for cut in 0..HEADER_SIZE {
            let header = [APPLICATION, 3, 3, 0xff, 0xff];
            let (mut session, _) = secured(version);
            let (_, end) = receive(&mut session, &header[..cut]);
            assert!(end.is_none(), "cut at {cut}: {end:?}");
            let (_, end) = receive(&mut session, &header[cut..]);
            assert!(matches!(end, Some(Arrival::Broken(_))), "cut at {cut}: {end:?}");
        }
    }
}
