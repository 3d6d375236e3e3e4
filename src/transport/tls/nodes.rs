//! The stage that is the client of a node, with a server of rustls.

use std::io::{Read as _, Write as _};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::*;
use crate::driver::sim::Sim;
use crate::driver::{Op, Segment, Token};
use crate::limits::TLS_CLIENT_SIZE;
use crate::tls::{CertificateFault, CurrentNodeRules, Material, NodeFailure};
use crate::transport::{Opposite, Transport};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
const NAME: &str = "node.example";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A certificate in PEM and its key, which may sign others.
struct Signed {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

/// An authority.
fn authority(name: &str) -> Signed {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    Signed { certificate, key: key.serialize_pem(), issuer: Issuer::new(params, key) }
}

/// A certificate for these names that expired yesterday, or is valid for a day.
fn signed(by: &Signed, names: &[&str], is_expired: bool) -> Signed {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    let end = if is_expired { SystemTime::now() - DAY } else { SystemTime::now() + DAY };
    (params.not_before, params.not_after) = ((end - 2 * DAY).into(), end.into());
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &by.issuer).unwrap().pem();
    Signed { certificate, key: key.serialize_pem(), issuer: Issuer::new(params, key) }
}

/// Settings whose files have these contents.
fn settings(server_name: Option<&str>, authority: &Signed, own: Option<&Signed>) -> UpstreamTls {
    let material = Material {
        client_ca: Some(authority.certificate.clone().into()),
        certificate: own.map(|own| own.certificate.clone().into()).unwrap_or_default(),
        key: own.map(|own| own.key.clone().into()).unwrap_or_default(),
        ..Material::default()
    };
    let (rules, warnings) = NodeRules::new(&material, false).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let tls = UpstreamTls::new(server_name, None, None);
    tls.use_rules(&Arc::new(CurrentNodeRules::new(rules)));
    tls
}

/// A node with this certificate. `clients`: the authority of clients' certificates, if these are demanded.
fn server(version: &'static SupportedProtocolVersion, own: &Signed, clients: Option<&Signed>) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let builder = match clients {
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(clients.certificate.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A gateway that is connected to a node.
struct Pair {
    session: Session,
    node: ServerConnection,
    /// What the exchange has received.
    plain: Vec<u8>,
    /// The end that the exchange was told.
    end: Option<Arrival>,
}

impl Pair {
    fn new(tls: &UpstreamTls, host: &str, node: &Arc<ServerConfig>) -> Pair {
        let node = ServerConnection::new(node.clone()).unwrap();
        Pair { session: Session::to_node(tls, host), node, plain: Vec::new(), end: None }
    }

    /// A gateway that trusts its node.
    fn good(version: &'static SupportedProtocolVersion) -> Pair {
        let authority = authority("CA");
        let node = server(version, &signed(&authority, &[NAME], false), None);
        Pair::new(&settings(None, &authority, None), NAME, &node)
    }

    /// What the node has to send.
    fn said(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.node.wants_write() {
            self.node.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Passes bytes of the node to the gateway, as `receive` and `step` do.
    fn feed(&mut self, bytes: &[u8]) {
        let session = &mut self.session;
        let taken = match &mut session.state {
            State::Connected(connection) if !session.has_ended => {
                let (partial, held, output) = (&mut session.partial, &mut session.held, &mut session.output);
                let mut bytes = bytes.to_vec();
                let (place, end) = Traffic { connection, partial, held, output }.decrypt(&mut bytes, &mut self.plain);
                self.plain.extend_from_slice(&bytes[place]);
                Taken { end: end.map(|end| self.session.end(end)), ..Taken::default() }
            }
            State::Connecting(_) => {
                session.partial.extend_from_slice(bytes);
                session.step()
            }
            _ => Taken::default(),
        };
        if let Some(Arrival::Copy(bytes)) = taken.bytes {
            self.plain.extend_from_slice(&bytes[POOL_HEADROOM..]);
        }
        self.end = self.end.take().or(taken.end);
    }

    /// Passes what the gateway has to send to the node. Returns what the node receives.
    fn hear(&mut self, more: &[u8]) -> Vec<u8> {
        let bytes = [self.session.take_output().unwrap_or_default(), more.into()].concat();
        let (mut rest, mut plain) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            self.node.read_tls(&mut rest).unwrap();
            // An alert is an error.
            if self.node.process_new_packets().is_err() {
                break;
            }
            let _ = self.node.reader().read_to_end(&mut plain);
        }
        plain
    }

    /// Continues the handshake as far as it goes, with each flight of the node cut into pieces of this size.
    fn shake_hands(&mut self, size: usize) {
        for _ in 0..4 {
            self.hear(&[]);
            let said = self.said();
            said.chunks(size).for_each(|piece| self.feed(piece));
        }
    }

    fn failure(&self) -> Option<TlsFailure> {
        match self.end {
            Some(Arrival::Broken(failure)) => Some(failure),
            _ => None,
        }
    }
}

/// Wherever the node's bytes are cut, the exchange receives the same, both ways.
#[test]
fn cuts_change_nothing() {
    let message: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    for version in VERSIONS {
        for size in [1, 2, 5, 6, 100, 1_000, usize::MAX] {
            let mut pair = Pair::good(version);
            assert!(!pair.session.may_seal() && pair.session.take_failure().is_none());
            pair.shake_hands(size);
            assert!(pair.session.may_seal() && !pair.node.is_handshaking(), "{version:?} in pieces of {size}");
            assert_eq!(pair.node.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(pair.node.server_name(), Some(NAME));
            let total = if size < 100 { 20_000 } else { message.len() };
            for part in message[..total].chunks(7_000) {
                pair.node.writer().write_all(part).unwrap();
                let said = pair.said();
                said.chunks(size).for_each(|piece| pair.feed(piece));
            }
            assert!(pair.plain == message[..total] && pair.end.is_none(), "{version:?} in pieces of {size}");
            let sealed = pair.session.seal(&message).unwrap();
            assert!(pair.hear(&sealed) == message, "{version:?}");
            assert_eq!((pair.session.partial.len(), pair.session.heap_size()), (0, pair.session.idle_size()));
        }
    }
}

/// A flight of the node that is cut in two at each place.
#[test]
fn handshakes_cut_in_two() {
    let authority = authority("CA");
    for version in VERSIONS {
        let node = server(version, &signed(&authority, &[NAME], false), None);
        let tls = settings(None, &authority, None);
        for cut in (1..).step_by(3) {
            let mut pair = Pair::new(&tls, NAME, &node);
            // No ticket of an earlier round.
            pair.session = Session::to_node(&settings(None, &authority, None), NAME);
            pair.hear(&[]);
            let said = pair.said();
            if cut >= said.len() {
                break;
            }
            pair.feed(&said[..cut]);
            pair.feed(&said[cut..]);
            pair.shake_hands(usize::MAX);
            assert!(pair.session.may_seal() && pair.end.is_none(), "{version:?} cut at {cut}: {:?}", pair.end);
        }
    }
}

#[test]
fn nodes_that_are_not_trusted() {
    let (ours, other) = (authority("CA"), authority("Other CA"));
    let fault = TlsFailure::Certificate;
    for version in VERSIONS {
        for (names, name, host, by, is_expired, failure, sentence) in [
            (&[NAME][..], None, NAME, &ours, false, None, ""),
            (&[NAME], None, "NODE.example", &ours, false, None, ""),
            (&[NAME], Some(NAME), "other.example", &ours, false, None, ""),
            (&["*.node.example"], None, "a.node.example", &ours, false, None, ""),
            (&["192.0.2.1"], None, "192.0.2.1", &ours, false, None, ""),
            (&["2001:db8::1"], None, "2001:db8::1", &ours, false, None, ""),
            (&["2001:db8::1"], None, "[2001:db8::1]", &ours, false, None, ""),
            (
                &[NAME],
                None,
                "other.example",
                &ours,
                false,
                Some(fault(CertificateFault::OtherName)),
                "is not valid for other.example",
            ),
            (
                &[NAME],
                Some("other.example"),
                NAME,
                &ours,
                false,
                Some(fault(CertificateFault::OtherName)),
                "is not valid for other.example",
            ),
            (
                &["192.0.2.1"],
                None,
                "192.0.2.2",
                &ours,
                false,
                Some(fault(CertificateFault::OtherName)),
                "is not valid for 192.0.2.2",
            ),
            (&[NAME], None, NAME, &ours, true, Some(fault(CertificateFault::Expired)), "has expired"),
            (
                &[NAME],
                None,
                NAME,
                &other,
                false,
                Some(fault(CertificateFault::UnknownIssuer)),
                "is signed by an unknown authority",
            ),
        ] {
            let tls = settings(name, &ours, None);
            let mut pair = Pair::new(&tls, host, &server(version, &signed(by, names, is_expired), None));
            pair.shake_hands(usize::MAX);
            assert_eq!(pair.failure(), failure, "{version:?} {names:?} {host}");
            assert_eq!(pair.session.may_seal(), failure.is_none());
            if let Some(failure) = failure {
                let shown = NodeFailure { failure, name: Some(tls.name_of(host)) }.to_string();
                assert_eq!(
                    shown,
                    format!("the node's certificate {sentence}{}", if by.key == other.key { " (cafile)" } else { "" })
                );
                assert!(pair.session.seal(b"GET / HTTP/1.1\r\n").is_none(), "a request to a stranger");
                assert!(pair.node.is_handshaking(), "it has got an alert");
            }
        }
    }
}

#[test]
fn a_client_certificate_is_demanded() {
    let (ours, clients) = (authority("CA"), authority("Clients' CA"));
    let (own, stranger) = (signed(&clients, &["gateway"], false), signed(&ours, &["gateway"], false));
    for version in VERSIONS {
        let node = server(version, &signed(&ours, &[NAME], false), Some(&clients));
        for (own, is_good) in [(Some(&own), true), (None, false), (Some(&stranger), false)] {
            let mut pair = Pair::new(&settings(None, &ours, own), NAME, &node);
            pair.shake_hands(usize::MAX);
            let is_alert = matches!(pair.failure(), Some(TlsFailure::Alert(_)));
            assert_eq!((pair.failure().is_none(), is_alert), (is_good, !is_good), "{version:?} {:?}", pair.end);
            assert_eq!(pair.session.may_seal(), is_good);
        }
    }
}

/// The end of TCP's stream is no end of the node's stream.
#[test]
fn truncation() {
    for version in VERSIONS {
        let mut pair = Pair::good(version);
        pair.hear(&[]);
        assert!(matches!(pair.session.receive_end(), Some(Arrival::Broken(TlsFailure::Left))));
        for has_notify in [false, true] {
            let mut pair = Pair::good(version);
            pair.shake_hands(usize::MAX);
            pair.node.writer().write_all(b"half of a reply").unwrap();
            if has_notify {
                pair.node.send_close_notify();
            }
            let said = pair.said();
            pair.feed(&said);
            assert_eq!(pair.plain, b"half of a reply");
            match has_notify {
                true => {
                    assert!(matches!(pair.end, Some(Arrival::End)), "{:?}", pair.end);
                    assert!(pair.session.receive_end().is_none(), "the end was told twice");
                    assert!(pair.session.may_seal(), "the node may still be sent to");
                }
                false => {
                    assert!(pair.end.is_none());
                    let end = pair.session.receive_end();
                    assert!(matches!(end, Some(Arrival::Broken(TlsFailure::Truncated))), "{end:?}");
                    assert!(!pair.session.may_seal());
                }
            }
        }
    }
}

#[test]
fn the_gateway_closes_with_a_close_notify() {
    for version in VERSIONS {
        let mut pair = Pair::good(version);
        pair.shake_hands(usize::MAX);
        pair.session.close();
        pair.hear(&[]);
        assert!(pair.node.process_new_packets().unwrap().peer_has_closed());
        assert!(pair.session.seal(b"late").is_none() && pair.session.take_failure().is_none());
    }
}

/// Tickets and changes of keys reach a connection that lies idle: they deliver nothing, and it stays usable.
#[test]
fn tickets_and_keys_while_idle() {
    let mut pair = Pair::good(&TLS13);
    pair.hear(&[]);
    let said = pair.said();
    pair.feed(&said);
    pair.hear(&[]);
    let tickets = pair.said();
    assert!(tickets.len() > 100 && pair.session.may_seal(), "the node sends tickets");
    for piece in tickets.chunks(7) {
        pair.feed(piece);
    }
    for round in 0..20 {
        pair.node.refresh_traffic_keys().unwrap();
        let said = pair.said();
        said.chunks(1 + round).for_each(|piece| pair.feed(piece));
        assert!(pair.plain.is_empty() && pair.end.is_none(), "{:?}", pair.end);
        let sealed = pair.session.seal(b"GET").unwrap();
        assert_eq!(pair.hear(&sealed), b"GET");
        pair.node.writer().write_all(b"reply").unwrap();
        let said = pair.said();
        pair.feed(&said);
        assert_eq!(mem::take(&mut pair.plain), b"reply");
    }
    assert_eq!(pair.session.heap_size(), pair.session.idle_size());
}

/// Sessions are resumed, without a certificate that is no longer valid, and not across upstreams.
#[test]
fn sessions_are_resumed() {
    let authority = authority("CA");
    for version in VERSIONS {
        let node = server(version, &signed(&authority, &[NAME], false), None);
        let (tls, other) = (settings(None, &authority, None), settings(None, &authority, None));
        for (tls, kind) in [(&tls, HandshakeKind::Full), (&tls, HandshakeKind::Resumed), (&other, HandshakeKind::Full)]
        {
            let mut pair = Pair::new(tls, NAME, &node);
            pair.shake_hands(usize::MAX);
            assert!(pair.session.may_seal());
            let sealed = pair.session.seal(b"GET").unwrap();
            assert_eq!(pair.hear(&sealed), b"GET");
            assert_eq!(pair.node.handshake_kind(), Some(kind), "{version:?}");
        }
    }
    let expired = signed(&authority, &[NAME], true);
    let chain = [CertificateDer::from_pem_slice(expired.certificate.as_bytes()).unwrap()];
    assert!(settings(None, &authority, None).rules().unwrap().still_valid(&chain, NAME).is_err());
}

#[test]
fn what_is_no_tls() {
    for (bytes, failure) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], TlsFailure::NotTls),
        (b"SSH-2.0-OpenSSH\r\n", TlsFailure::NotTls),
        (&[22, 3, 3, 0, 4, 14, 0, 0, 0], TlsFailure::Misbehaved),
        (&[21, 3, 3, 0, 2, 2, 112], TlsFailure::Alert(112)),
    ] {
        let mut pair = Pair::good(&TLS13);
        pair.hear(&[]);
        pair.feed(bytes);
        assert_eq!(pair.failure(), Some(failure), "{bytes:?}");
        pair.feed(bytes);
        assert!(matches!(pair.session.receive_end(), Some(Arrival::End)));
    }
}

/// Without rules, or without a name, nothing is sent and the exchange is told.
#[test]
fn a_session_without_rules() {
    let good = settings(None, &authority("CA"), None);
    for (tls, host) in [(&UpstreamTls::default(), NAME), (&good, ""), (&good, "no name")] {
        let mut session = Session::to_node(tls, host);
        assert!(session.take_output().is_none() && !session.may_seal() && session.is_closed());
        assert!(matches!(session.take_failure(), Some(Arrival::Broken(TlsFailure::Internal))));
        assert!(session.take_failure().is_none(), "it was told twice");
    }
}

/// The ClientHello is sent at once; a request waits for the handshake.
#[test]
fn a_request_waits_for_the_handshake() {
    let mut sim = Sim::new(1, 2);
    let tls = settings(None, &authority("CA"), None);
    let mut transport = Transport::with_client_tls(sim.listener(), &tls, NAME);
    let hello_size = transport.queued_size();
    assert!(hello_size > 100, "a ClientHello is queued");
    transport.enqueue(Segment::heap(b"GET / HTTP/1.1\r\n\r\n".to_vec().into()), &mut sim);
    let token = Token { slot: 0, generation: 1, op: Op::Receive };
    transport.settle(token, Opposite { queued_size: 0, queue_size_max: 1 << 20 }, &mut sim);
    assert!(transport.queued_size() > hello_size && !transport.may_lend(), "it is sent");
    assert!(transport.is_staged() && !transport.awaits_step());
}

/// As that of a client (`TLS_CLIENT_SIZE`).
#[test]
fn an_idle_session_is_small() {
    let size = size_of::<UnbufferedClientConnection>() + size_of::<Session>();
    assert!(size as u64 <= TLS_CLIENT_SIZE, "{size}");
}
