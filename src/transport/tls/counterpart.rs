//! The stage with a client of rustls.

use std::io::{Read as _, Write as _};

use rustls::pki_types::CertificateDer;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, SupportedProtocolVersion, version,
};

use super::*;
use crate::tls::{CurrentIdentity, Material, Tickets};

pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// A gateway with two servers, and a client that trusts them.
pub(super) struct Pair {
    pub(super) session: Session,
    pub(super) client: ClientConnection,
    /// What the exchange has received.
    plain: Vec<u8>,
    /// The end that the exchange was told.
    end: Option<Arrival>,
}

fn identity(name: &str) -> (CertificateDer<'static>, Arc<CurrentIdentity>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let (certificate_pem, key) = (certificate.pem().into(), key.serialize_pem().into());
    let material = Material { certificate: certificate_pem, key, ..Material::default() };
    let (identity, _) = Identity::new(&material, None, &Tickets::new(&material).unwrap()).unwrap();
    (certificate.der().clone(), Arc::new(CurrentIdentity::new(identity)))
}

pub(super) fn pair(version: &'static SupportedProtocolVersion, name: &'static str) -> Pair {
    let mut roots = RootCertStore::empty();
    let servers = ["one.example", "two.example"].map(|name| {
        let (certificate, identity) = identity(name);
        roots.add(certificate).unwrap();
        (Some(name.into()), identity)
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let client = ClientConnection::new(config, name.try_into().unwrap()).unwrap();
    let session = Session::new(Arc::new(Hosts::new(servers.into()).unwrap()));
    Pair { session, client, plain: Vec::new(), end: None }
}

impl Pair {
    /// What the client has to send.
    pub(super) fn said(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Passes bytes to the gateway, as `receive` and `step` do.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let session = &mut self.session;
        let taken = match &mut session.state {
            State::Secured(connection, _) if !session.has_ended => {
                let (partial, held, output) = (&mut session.partial, &mut session.held, &mut session.output);
                let mut bytes = bytes.to_vec();
                let (place, end) = Traffic { connection, partial, held, output }.decrypt(&mut bytes, &mut self.plain);
                self.plain.extend_from_slice(&bytes[place]);
                Taken { end: end.map(|end| self.session.end(end)), ..Taken::default() }
            }
            State::Hello(_) | State::Handshaking(_) => {
                self.session.partial.extend_from_slice(bytes);
                self.session.step()
            }
            _ => Taken::default(),
        };
        if let Some(Arrival::Copy(bytes)) = taken.bytes {
            self.plain.extend_from_slice(&bytes[POOL_HEADROOM..]);
        }
        self.end = self.end.take().or(taken.end);
    }

    /// Passes what the gateway has to send to the client.
    pub(super) fn hear(&mut self, more: &[u8]) -> Result<Vec<u8>, Error> {
        let bytes = [self.session.take_output().unwrap_or_default(), more.into()].concat();
        let (mut rest, mut plain) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            self.client.process_new_packets()?;
            let _ = self.client.reader().read_to_end(&mut plain);
        }
        Ok(plain)
    }

    /// Completes the handshake, with each flight of the client cut into pieces of this size.
    pub(super) fn shake_hands(&mut self, size: usize) {
        for _ in 0..4 {
            let said = self.said();
            said.chunks(size).for_each(|piece| self.feed(piece));
            self.hear(&[]).unwrap();
        }
        assert!(matches!(self.session.security(), Security::Tls(_)) && !self.client.is_handshaking());
    }

    fn facts(&self) -> &TlsFacts {
        let Security::Tls(facts) = self.session.security() else { panic!("no facts") };
        facts
    }
}

#[test]
fn the_facts_of_a_connection() {
    for (version, name, site, shown) in
        [(VERSIONS[0], "one.example", 0, "TLSv1.3"), (VERSIONS[1], "two.example", 1, "TLSv1.2")]
    {
        let mut pair = pair(version, name);
        pair.shake_hands(usize::MAX);
        let facts = pair.facts();
        assert_eq!((facts.site, facts.version, &*facts.sni, &*facts.alpn), (site, shown, name, ""));
        assert!(facts.cipher.starts_with("TLS_") && facts.client.is_none() && !facts.is_resumed, "{facts:?}");
    }
}

/// Wherever the client's bytes are cut, the exchange receives the same.
#[test]
fn cuts_change_nothing() {
    let message: Vec<u8> = (0..=255).cycle().take(40_000).collect();
    for version in VERSIONS {
        for size in [1, 2, 5, 6, 100, 1_000, usize::MAX] {
            let mut pair = pair(version, "one.example");
            pair.shake_hands(size);
            let mut expected = Vec::new();
            for part in message.chunks(7_000) {
                pair.client.writer().write_all(part).unwrap();
                expected.extend_from_slice(part);
                let said = pair.said();
                said.chunks(size).for_each(|piece| pair.feed(piece));
            }
            assert!(pair.plain == expected && pair.end.is_none(), "{version:?} in pieces of {size}");
            assert_eq!(pair.session.partial.len(), 0);
        }
        // Each place of a small record and of the border between two.
        let mut pair = pair(version, "one.example");
        pair.shake_hands(usize::MAX);
        let mut expected = Vec::new();
        for cut in 0.. {
            let mut said = Vec::new();
            for _ in 0..2 {
                pair.client.writer().write_all(b"0123456789").unwrap();
                said.extend(pair.said());
                expected.extend(b"0123456789");
            }
            if cut > said.len() {
                break;
            }
            pair.feed(&said[..cut]);
            pair.feed(&said[cut..]);
            let is_same = pair.plain == expected[..pair.plain.len()] && pair.session.partial.is_empty();
            assert!(is_same, "{version:?} cut at {cut}");
        }
    }
}

/// What is sealed is decrypted in order, with what the stage sends by itself in between.
#[test]
fn sealed_bytes_come_in_order() {
    for version in VERSIONS {
        let mut pair = pair(version, "one.example");
        pair.shake_hands(usize::MAX);
        for size in [0, 1, 64, 16_384, 16_385, 70_000] {
            let bytes: Vec<u8> = (0..251).cycle().take(size).collect();
            let sealed = pair.session.seal(&bytes).unwrap();
            assert!(sealed.len() - size <= (size / TLS_PAYLOAD_SIZE_MAX + 1) * OVERHEAD_SIZE, "{size}");
            assert!(pair.hear(&sealed).unwrap() == bytes, "{version:?} {size}");
        }
    }
}

/// The records of bytes in a pool buffer replace them, and begin in its headroom.
#[test]
fn bytes_are_sealed_in_place() {
    for version in VERSIONS {
        let mut pair = pair(version, "one.example");
        pair.shake_hands(usize::MAX);
        for size in [4_096, 16_384, 16_385, 65_550, POOL_BUFFER_SIZE - POOL_HEADROOM + 10] {
            let start = POOL_HEADROOM - 10;
            let mut buffer = vec![0; POOL_BUFFER_SIZE];
            let bytes: Vec<u8> = (0..251).cycle().take(size).collect();
            buffer[start..start + size].copy_from_slice(&bytes);
            // Keys are updated meanwhile.
            if version.version == ProtocolVersion::TLSv1_3 {
                pair.client.refresh_traffic_keys().unwrap();
                let said = pair.said();
                pair.feed(&said);
            }
            let range = start..start + size;
            assert!(pair.session.seals_in_place(&range), "{version:?} {size}");
            let sealed = pair.session.seal_in_place(&mut buffer, range).unwrap();
            assert!(pair.hear(&buffer[sealed]).unwrap() == bytes, "{version:?} {size}");
        }
        assert!(!pair.session.seals_in_place(&(POOL_HEADROOM..POOL_HEADROOM + 64)), "too few bytes");
        assert!(!pair.session.seals_in_place(&(10..70_000)), "no room before them");
    }
}

/// A key update of the client (RFC 8446 section 4.6.3) is answered before the next bytes.
#[test]
fn keys_are_updated() {
    let mut pair = pair(VERSIONS[0], "one.example");
    pair.shake_hands(usize::MAX);
    for round in 0..3 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(b"question").unwrap();
        let said = pair.said();
        said.chunks(1 + 30 * round).for_each(|piece| pair.feed(piece));
        assert_eq!(std::mem::take(&mut pair.plain), b"question");
        let sealed = pair.session.seal(b"answer").unwrap();
        assert_eq!(pair.hear(&sealed).unwrap(), b"answer");
    }
}

#[test]
fn close_notify_in_both_directions() {
    for version in VERSIONS {
        let mut pair = pair(version, "one.example");
        pair.shake_hands(usize::MAX);
        pair.client.writer().write_all(b"last words").unwrap();
        let mut said = pair.said();
        pair.client.send_close_notify();
        said.extend(pair.said());
        // Nothing counts after it.
        said.extend(b"garbage");
        pair.feed(&said);
        assert_eq!(pair.plain, b"last words");
        assert!(matches!(pair.end, Some(Arrival::End)), "{:?}", pair.end);
        pair.feed(b"more garbage");
        assert!(pair.session.receive_end().is_none(), "the end was told twice");
        let sealed = pair.session.seal(b"answer").unwrap();
        assert_eq!(pair.hear(&sealed).unwrap(), b"answer");
        pair.session.close();
        assert_eq!(pair.session.seal(b"too late"), None);
        pair.hear(&[]).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        pair.session.close();
        assert_eq!(pair.session.take_output(), None, "a second close_notify");
    }
}

#[test]
fn failures_have_their_alert() {
    use AlertDescription as Alert;
    let record = |size: usize| [&[22, 3, 1][..], &(size as u16).to_be_bytes(), &vec![1; size]].concat();
    for (first, failure, alert) in [
        (vec![0x80, 0x2e, 1, 0, 2], TlsFailure::NotTls, Alert::UnexpectedMessage),
        (vec![23, 3, 3, 0, 1, 0], TlsFailure::NotTls, Alert::UnexpectedMessage),
        (vec![0; 100], TlsFailure::NotTls, Alert::UnexpectedMessage),
        (record(40), TlsFailure::TooLarge, Alert::DecodeError),
        ([&[22, 3, 1, 0, 40, 1, 0, 0, 36][..], &[3; 36]].concat(), TlsFailure::Misbehaved, Alert::DecodeError),
        (vec![22, 3, 1, 0xff, 0xff, 1], TlsFailure::Misbehaved, Alert::DecodeError),
        // Another handshake message in place of the ClientHello.
        (vec![22, 3, 1, 0, 4, 14, 0, 0, 0], TlsFailure::Misbehaved, Alert::DecodeError),
    ] {
        let mut pair = pair(VERSIONS[0], "one.example");
        pair.feed(&first);
        assert!(matches!(pair.end, Some(Arrival::Broken(other)) if other == failure), "{first:?}: {:?}", pair.end);
        let output = pair.session.take_output().unwrap();
        assert_eq!(output[..], [21, 3, output[2], 0, 2, 2, alert.into()], "{first:?}");
        assert!(!pair.session.may_seal() && pair.session.seal(b"x").is_none());
        pair.feed(&first);
        assert!(pair.session.take_output().is_none(), "a second alert");
        assert!(matches!(pair.session.receive_end(), Some(Arrival::End)));
    }
}

/// A damaged record ends the connection with an alert, and the bytes before it count.
#[test]
fn damaged_records() {
    for version in VERSIONS {
        // The record's version is ignored (RFC 8446 section 5.1).
        for at in (0..60).filter(|at| *at != 2) {
            let mut pair = pair(version, "one.example");
            pair.shake_hands(usize::MAX);
            pair.client.writer().write_all(b"good").unwrap();
            let mut said = pair.said();
            let start = said.len();
            pair.client.writer().write_all(&[b'x'; 40]).unwrap();
            said.extend(pair.said());
            said[start + at] ^= 0x40;
            pair.feed(&said);
            pair.feed(&vec![0; 70_000]);
            assert_eq!(pair.plain, b"good", "{version:?} at {at}");
            assert!(matches!(pair.end, Some(Arrival::Broken(_))), "{version:?} at {at}: {:?}", pair.end);
            assert!(matches!(pair.hear(&[]), Err(Error::AlertReceived(_))), "{version:?} at {at}");
        }
    }
}

#[test]
fn a_client_that_leaves() {
    let mut silent = pair(VERSIONS[0], "one.example");
    assert!(matches!(silent.session.receive_end(), Some(Arrival::End)), "a health check is no failure");
    for version in VERSIONS {
        let mut hello = pair(version, "one.example");
        let said = hello.said();
        for (size, failure) in
            [(1, TlsFailure::Left), (said.len() - 1, TlsFailure::Left), (said.len(), TlsFailure::Left)]
        {
            let mut pair = pair(version, "one.example");
            pair.feed(&said[..size]);
            let end = pair.session.receive_end();
            assert!(matches!(end, Some(Arrival::Broken(other)) if other == failure), "{size}: {end:?}");
        }
        let mut whole = pair(version, "one.example");
        whole.shake_hands(usize::MAX);
        assert!(matches!(whole.session.receive_end(), Some(Arrival::End)));
    }
}

#[test]
fn plain_http_passes_unchanged() {
    let mut pair = pair(VERSIONS[0], "one.example");
    pair.feed(b"GET / HT");
    assert!(matches!(pair.session.security(), Security::HttpOnTlsPort));
    assert_eq!((&pair.plain[..], pair.session.take_output()), (&b"GET / HT"[..], None));
    assert_eq!(pair.session.seal(b"HTTP/1.1 400 ").as_deref(), Some(&b"HTTP/1.1 400 "[..]));
}

/// A handshake message without an end does not take memory without an end.
#[test]
fn large_messages() {
    let mut hello = pair(VERSIONS[0], "one.example");
    // A ClientHello of 16 MiB, which comes in whole records.
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.resize(5 + 0x4000, 0);
    record[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    hello.feed(&record);
    record[5..].fill(0);
    for _ in 0..8 {
        hello.feed(&record);
    }
    assert!(matches!(hello.end, Some(Arrival::Broken(_))), "{:?}", hello.end);
    assert_eq!(hello.session.heap_size(), hello.session.output.capacity());
}
