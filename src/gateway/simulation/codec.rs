//! What a client's bytes pass on their way to its wire: nothing, the records of the tests, or TLS by rustls' own client.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, SupportedProtocolVersion};

use crate::driver::sim::{Rng, Sim};
use crate::tls::{CurrentIdentity, Hosts, Identity, Material, Tickets};
use crate::transport::Records;

/// A codec, and the bytes that did not fit into the wire yet.
pub(super) enum Codec {
    Plain,
    Records(Records, Vec<u8>),
    Tls(Box<Tls>),
}

pub(super) struct Tls {
    connection: ClientConnection,
    out: Vec<u8>,
    /// Bytes until some are damaged, and how. None: none are.
    garble: Option<(usize, Garble)>,
    /// The gateway may refuse the handshake with an alert, because of its limits.
    may_be_refused: bool,
    /// The connection has failed.
    has_failed: bool,
}

/// How a client damages what it sends.
#[derive(Clone, Copy)]
enum Garble {
    /// A bit is inverted.
    Inverts,
    /// A byte is lost.
    Loses,
    /// Bytes are sent twice.
    Repeats,
    /// What follows is sent before what precedes.
    Reorders,
    /// Bytes of nobody are inserted.
    Inserts,
}

const GARBLES: [Garble; 5] = [Garble::Inverts, Garble::Loses, Garble::Repeats, Garble::Reorders, Garble::Inserts];

impl Garble {
    fn damage(self, bytes: &mut Vec<u8>, at: usize) {
        match self {
            Garble::Inverts => bytes[at] ^= 0x10,
            Garble::Loses => drop(bytes.remove(at)),
            Garble::Repeats => bytes.extend_from_within(at..),
            Garble::Reorders => bytes.rotate_left(at),
            Garble::Inserts => drop(bytes.splice(at..at, [22, 3, 3, 0, 1, 0])),
        }
    }
}

impl Codec {
    /// A TLS client.
    pub(super) fn tls(rng: &mut Rng, may_be_refused: bool) -> Codec {
        let config = CLIENTS[rng.below(CLIENTS.len())].clone();
        let name = "gate.example".try_into().expect("a name");
        let connection = ClientConnection::new(config, name).expect("a client");
        let garble = rng.one_in(5).then(|| (rng.below(3_000), GARBLES[rng.below(GARBLES.len())]));
        Codec::Tls(Box::new(Tls { connection, out: Vec::new(), garble, may_be_refused, has_failed: false }))
    }

    /// Whether the client damages what it sends, so that the gateway refuses it.
    pub(super) fn garbles(&self) -> bool {
        matches!(self, Codec::Tls(tls) if tls.garble.is_some())
    }

    /// Writes some of these bytes; returns how many were taken. Also writes what is left of earlier ones.
    pub(super) fn write(&mut self, bytes: &[u8], wire: usize, sim: &mut Sim) -> usize {
        let (taken, out) = match self {
            Codec::Plain if bytes.is_empty() => return 0,
            Codec::Plain => return sim.wires[wire].write(bytes).unwrap_or(0),
            Codec::Records(_, out) => {
                if !bytes.is_empty() {
                    out.extend(Records::encode(bytes));
                }
                (bytes.len(), out)
            }
            Codec::Tls(tls) => (tls.write(bytes), &mut tls.out),
        };
        if !out.is_empty() {
            let written = sim.wires[wire].write(out).unwrap_or(0);
            out.drain(..written);
        }
        taken
    }

    /// Reads what has come.
    pub(super) fn read(&mut self, wire: usize, sim: &mut Sim, received: &mut Vec<u8>) {
        while let Some(chunk) = sim.wires[wire].read() {
            match self {
                Codec::Plain => received.extend(chunk),
                Codec::Records(records, _) => records.decode(&chunk, received),
                Codec::Tls(tls) => tls.read(&chunk, received),
            }
        }
    }
}

impl Tls {
    fn write(&mut self, bytes: &[u8]) -> usize {
        if self.has_failed {
            return bytes.len();
        }
        let taken = self.connection.writer().write(bytes).expect("memory does not fail");
        let start = self.out.len();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.out).expect("memory does not fail");
        }
        if let Some((left, how)) = self.garble {
            let size = self.out.len() - start;
            if left < size {
                how.damage(&mut self.out, start + left);
            }
            // It stays Some, so that the client is known to damage bytes.
            self.garble = Some((if left < size { usize::MAX } else { left - size }, how));
        }
        taken
    }

    fn read(&mut self, mut chunk: &[u8], received: &mut Vec<u8>) {
        while !chunk.is_empty() && !self.has_failed {
            let size = self.connection.read_tls(&mut chunk).expect("memory does not fail");
            assert!(size > 0, "bytes follow the close_notify");
            let processed = self.connection.process_new_packets().map(|_| ());
            self.has_failed = processed.is_err();
            let is_refused =
                self.may_be_refused && processed == Err(Error::AlertReceived(AlertDescription::InternalError));
            assert!(!self.has_failed || self.garble.is_some() || is_refused, "the gateway broke TLS: {processed:?}");
            // An error means that nothing is there yet, or that the gateway has sent its close_notify.
            let _ = self.connection.reader().read_to_end(received);
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificate and the identity of the gateway. All signatures of the key have the same size, so that equal seeds
/// give equal runs.
static IDENTITY: LazyLock<(CertificateDer<'static>, Arc<CurrentIdentity>)> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let params = rcgen::CertificateParams::new(vec!["gate.example".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate");
    let material =
        Material { certificate: certificate.pem().into(), key: key.serialize_pem().into(), ..Material::default() };
    let tickets = Tickets::new(&material).expect("tickets");
    let (identity, _) = Identity::new(&material, None, &tickets).expect("an identity");
    (certificate.der().clone(), Arc::new(CurrentIdentity::new(identity)))
});

/// The servers of the gateway.
pub(super) fn hosts() -> Arc<Hosts> {
    Arc::new(Hosts::new(vec![(None, IDENTITY.1.clone())]).expect("a server"))
}

/// Clients of TLS 1.3 and of TLS 1.2. They keep no sessions, since a session of another run would make runs differ.
static CLIENTS: LazyLock<[Arc<ClientConfig>; 2]> = LazyLock::new(|| [&TLS13, &TLS12].map(client));

fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(IDENTITY.0.clone()).expect("a root");
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
