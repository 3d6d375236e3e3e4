//! Tests of identities: which files make one, and what its handshakes do. Both ends are rustls, in memory.

mod keys;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection, crypto,
};

use super::*;
use crate::limits;

const DAY_S: u64 = 24 * 3600;

fn now_s() -> u64 {
    UnixTime::now().as_secs()
}

/// The time this number of days from now.
fn day(days: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(now_s().saturating_add_signed(days * DAY_S as i64))
}

/// A certificate with its key, which may sign others.
struct Signed {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The parameters of a certificate that is valid from yesterday on for 100 days.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (day(-1).into(), day(100).into());
    params
}

/// The parameters of an authority.
fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.subject_alt_names.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Signs a certificate; without an issuer it signs itself.
fn sign(params: CertificateParams, issuer: Option<&Signed>) -> Signed {
    sign_key(params, issuer, KeyPair::generate().unwrap())
}

fn sign_key(params: CertificateParams, issuer: Option<&Signed>, key: KeyPair) -> Signed {
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, &issuer.issuer),
        None => params.self_signed(&key),
    };
    Signed { certificate: certificate.unwrap().pem(), key: key.serialize_pem(), issuer: Issuer::new(params, key) }
}

/// A revocation list in PEM: the serials that it revokes, and its expiry in days.
fn revocation_list(issuer: &Signed, serials: &[u64], expires: i64) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: day(-30).into(),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: day(expires - 60).into(),
        next_update: day(expires).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer.issuer).unwrap().pem().unwrap()
}

/// The identity that these files make for `localhost`, and its warnings.
fn identity_of(material: &Material) -> Result<(Identity, Vec<MaterialWarning>), Vec<MaterialError>> {
    let tickets = Tickets::new(material).map_err(|error| vec![error])?;
    Identity::new(material, Some("localhost"), &tickets)
}

/// A line for each error and warning: the file and the sentence.
fn lines(result: &Result<(Identity, Vec<MaterialWarning>), Vec<MaterialError>>) -> Vec<String> {
    match result {
        Ok((identity, warnings)) => {
            let timely = identity.warnings_at(now_s());
            let all = warnings.iter().chain(&timely);
            all.map(|warning| format!("{:?}: {}", warning.file, warning.notice)).collect()
        }
        Err(errors) => errors.iter().map(|error| format!("{:?}: {}", error.file, error.cause)).collect(),
    }
}

fn expect_lines(case: &str, result: &Result<(Identity, Vec<MaterialWarning>), Vec<MaterialError>>, parts: &[&str]) {
    let lines = lines(result);
    let is_good = lines.len() == parts.len() && lines.iter().zip(parts).all(|(line, part)| line.contains(part));
    assert!(is_good, "{case}: {lines:#?}");
}

#[test]
fn keys_of_all_formats() {
    for (case, key, same_in_pkcs8, part) in [
        ("P-256", keys::P256, keys::P256, None),
        ("P-256 in SEC1", keys::P256_SEC1, keys::P256, None),
        ("P-384", keys::P384, keys::P384, None),
        ("P-384 in SEC1", keys::P384_SEC1, keys::P384, None),
        ("Ed25519", keys::ED25519, keys::ED25519, None),
        ("RSA", keys::RSA_2048, keys::RSA_2048, None),
        ("RSA in PKCS#1", keys::RSA_2048_PKCS1, keys::RSA_2048, None),
        ("P-521", keys::P521, keys::P256, Some("Key: the private key is P-521, which is not supported")),
        ("P-521 in SEC1", keys::P521_SEC1, keys::P256, Some("the private key is P-521")),
        ("Ed448", keys::ED448, keys::P256, Some("the private key is Ed448")),
        ("short RSA", keys::RSA_1024, keys::P256, Some("the private key is RSA of 1024 bits")),
        ("short RSA in PKCS#1", keys::RSA_1024_PKCS1, keys::P256, Some("the private key is RSA of 1024 bits")),
        ("encrypted", keys::P256_ENCRYPTED, keys::P256, Some("Key: the private key is encrypted")),
        ("encrypted SEC1", keys::P256_ENCRYPTED_SEC1, keys::P256, Some("the private key is encrypted")),
        ("another key", keys::P384, keys::P256, Some("Key: the private key does not belong to the certificate")),
        ("no key", "hello", keys::P256, Some("Key: has no private key")),
        ("half of a key", &keys::P256[..100], keys::P256, Some("Key: is not PEM: a section has no END line")),
        (
            "a damaged key",
            "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
            keys::P256,
            Some("malformed"),
        ),
    ] {
        let certificate = sign_key(params("localhost"), None, KeyPair::from_pem(same_in_pkcs8).unwrap()).certificate;
        let mut material = Material { certificate: certificate.into(), key: key.into(), ..Material::default() };
        expect_lines(case, &identity_of(&material), part.as_slice());
        if part.is_none() {
            handshake(&identity_of(&material).unwrap().0, &client(&material, None)).unwrap();
            // As an editor or another program may write it.
            let both = format!("\u{feff}Bag Attributes\r\n{}{key}", String::from_utf8_lossy(&material.certificate));
            (material.certificate, material.key) = (both.clone().into(), both.into());
            expect_lines(case, &identity_of(&material), &[]);
            let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            material.key = der.secret_der().to_vec();
            material.certificate = CertificateDer::from_pem_slice(&material.certificate).unwrap().to_vec();
            expect_lines(&format!("{case} in DER"), &identity_of(&material), &[]);
        }
    }
}

#[test]
fn chains_in_any_order() {
    let root = sign(authority("root"), None);
    let middle = sign(authority("middle"), Some(&root));
    let low = sign(authority("low"), Some(&middle));
    let own = sign(params("localhost"), Some(&low));
    let stranger = sign(authority("stranger"), None);
    let order = "the certificates are not in the order of the chain";
    let [own_pem, low_pem, middle_pem, root_pem, stranger_pem] =
        [&own, &low, &middle, &root, &stranger].map(|signed| &*signed.certificate);
    for (case, certificate, chain, sent, parts) in [
        ("in order", vec![own_pem, low_pem, middle_pem], None, 3, vec![]),
        ("with the root", vec![own_pem, low_pem, middle_pem, root_pem], None, 4, vec![]),
        ("alone", vec![own_pem], None, 1, vec![]),
        ("in two files", vec![own_pem], Some(vec![low_pem, middle_pem]), 3, vec![]),
        ("twice", vec![own_pem, low_pem, middle_pem], Some(vec![own_pem, middle_pem, low_pem]), 3, vec![]),
        ("issuers swapped", vec![own_pem, middle_pem, low_pem], None, 3, vec![format!("Certificate: {order}")]),
        ("own one last", vec![middle_pem, low_pem, own_pem], None, 3, vec![format!("Certificate: {order}")]),
        (
            "a gap",
            vec![own_pem, middle_pem],
            None,
            2,
            vec!["outside the chain of the server's own: 1, sent".to_owned()],
        ),
        (
            "a stranger",
            vec![own_pem, low_pem],
            Some(vec![stranger_pem, middle_pem]),
            4,
            vec!["Chain: certificates outside the chain of the server's own: 1, sent".to_owned()],
        ),
    ] {
        let material = Material {
            certificate: certificate.concat().into(),
            key: own.key.clone().into(),
            chain: chain.map(|chain| chain.concat().into()),
            ..Material::default()
        };
        let result = identity_of(&material);
        expect_lines(case, &result, &parts.iter().map(String::as_str).collect::<Vec<_>>());
        let trusting = Material { certificate: root_pem.into(), ..Material::default() };
        let mut connection = client(&trusting, None);
        connection = if case == "alone" || case == "a gap" { client(&material_of(&low), None) } else { connection };
        let (client, _) = handshake(&result.unwrap().0, &connection).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(client.peer_certificates().map(<[_]>::len), Some(sent), "{case}");
    }
}

/// A bundle of authorities in `cachain` is not sent to each client.
#[test]
fn a_bundle_of_authorities_is_not_sent() {
    let own = sign(params("localhost"), None);
    let bundle: String = (0..limits::CHAIN_MAX).map(|_| sign(authority("one of many"), None).certificate).collect();
    let material = Material { chain: Some(bundle.into()), ..material_of(&own) };
    let result = identity_of(&material);
    expect_lines("a bundle", &result, &["Chain: certificates outside the chain of the server's own: 16, not sent"]);
    let (client, _) = handshake(&result.unwrap().0, &client(&material, None)).unwrap();
    assert_eq!(client.peer_certificates().map(<[_]>::len), Some(1));
}

#[test]
fn certificates_that_are_refused() {
    let own = sign(params("localhost"), None);
    let damaged = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let many = own.certificate.repeat(limits::CERTIFICATES_MAX + 1);
    for (case, certificate, chain, parts) in [
        ("empty", "", None, vec!["Certificate: has no certificate"]),
        ("a key", &*own.key, None, vec!["Certificate: has no certificate"]),
        ("damaged", damaged, None, vec!["Certificate: certificate 1 is malformed"]),
        ("both", "", Some(damaged), vec!["Certificate: has no certificate", "Chain: certificate 1 is malformed"]),
        ("chain", &own.certificate, Some(damaged), vec!["Chain: certificate 1 is malformed"]),
        ("half", &own.certificate[..300], None, vec!["Certificate: is not PEM: a section has no END line"]),
        ("too many", &many, None, vec!["Certificate: has more than 512 certificates"]),
    ] {
        let chain = chain.map(|chain| chain.as_bytes().to_vec());
        let material = Material { certificate: certificate.into(), chain, ..material_of(&own) };
        expect_lines(case, &identity_of(&material), &parts);
    }
    let material = Material { key: Vec::new(), certificate: Vec::new(), ..Material::default() };
    expect_lines("all errors are reported", &identity_of(&material), &["Key: has no", "Certificate: has no"]);
}

#[test]
fn dates_and_names_are_warned_about() {
    for (case, (from, to), name, part) in [
        ("valid", (-1, 40), "localhost", None),
        ("on its last days", (-1, 29), "localhost", Some("in 29 days: renew it")),
        ("on its last day", (-100, 0), "localhost", Some("certificate 1 expires on ")),
        ("expired", (-100, -1), "localhost", Some("Certificate: certificate 1 expired on ")),
        ("not yet valid", (1, 100), "localhost", Some("is not valid before ")),
        (
            "a wildcard",
            (-1, 40),
            "*.localhost",
            Some("the certificate is not for the hostname localhost, but for *.localhost"),
        ),
        ("another name", (-1, 40), "example.org", Some("not for the hostname localhost, but for example.org: ")),
        ("an address", (-1, 40), "127.0.0.1", Some("but for 127.0.0.1: ")),
    ] {
        let mut params = params(name);
        // The last day lasts longer than this case.
        let end = day(to) + Duration::from_secs(300);
        (params.not_before, params.not_after) = (day(from).into(), end.into());
        let result = identity_of(&material_of(&sign(params, None)));
        expect_lines(case, &result, part.as_slice());
        assert_eq!(SystemTime::UNIX_EPOCH + Duration::from_secs(result.unwrap().0.expires_s()), end, "{case}");
    }
}

/// The files of a server, whose clients trust the same certificate.
fn material_of(signed: &Signed) -> Material {
    Material { certificate: signed.certificate.clone().into(), key: signed.key.clone().into(), ..Material::default() }
}

/// A client that trusts the certificates of the server, with a certificate of its own and others of its chain.
fn client(server: &Material, own: Option<(&Signed, &[&Signed])>) -> Arc<ClientConfig> {
    client_of_version(server, own, rustls::ALL_VERSIONS)
}

fn client_of_version(
    server: &Material,
    own: Option<(&Signed, &[&Signed])>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&server.certificate) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(crypto::ring::default_provider().into());
    let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
    let mut config = match own {
        Some((own, others)) => {
            let all = std::iter::once(own).chain(others.iter().copied());
            let chain = all.map(|one| CertificateDer::from_pem_slice(one.certificate.as_bytes()).unwrap()).collect();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A handshake, and a byte in each direction. The error of either end.
fn handshake(
    identity: &Identity,
    client: &Arc<ClientConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    use std::io::{Read as _, Write as _};
    let mut client = ClientConnection::new(client.clone(), "localhost".try_into().unwrap())?;
    let mut server = ServerConnection::new(identity.config.clone())?;
    server.writer().write_all(b"s").unwrap();
    client.writer().write_all(b"c").unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    let mut byte = [0];
    client.reader().read_exact(&mut byte).unwrap();
    server.reader().read_exact(&mut byte).unwrap();
    Ok((client, server))
}

/// TLS 1.2 and 1.3, HTTP/1.1, and no other protocol.
#[test]
fn versions_and_protocols() {
    let material = material_of(&sign(params("localhost"), None));
    let (identity, _) = identity_of(&material).unwrap();
    for version in rustls::ALL_VERSIONS {
        let (client, server) = handshake(&identity, &client_of_version(&material, None, &[version])).unwrap();
        assert_eq!(server.protocol_version(), Some(version.version));
        assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    let mut other = (*client(&material, None)).clone();
    other.alpn_protocols = vec![b"h2".to_vec()];
    let error = handshake(&identity, &Arc::new(other)).unwrap_err();
    assert_eq!(error, rustls::Error::NoApplicationProtocol);
    assert_eq!(identity.config.max_early_data_size, 0);
}

/// Tickets resume sessions of another identity with the same keys, as long as the rules for clients stay.
#[test]
fn tickets_survive_a_new_certificate() {
    let root = sign(authority("root"), None);
    let (first, second) = (sign(params("localhost"), Some(&root)), sign(params("localhost"), Some(&root)));
    let (first, second) = (material_of(&first), material_of(&second));
    let trusting = material_of(&root);
    for version in rustls::ALL_VERSIONS {
        let client = client_of_version(&trusting, None, &[version]);
        let tickets = Tickets::new(&first).unwrap();
        let one = Identity::new(&first, None, &tickets).unwrap().0;
        let (_, server) = handshake(&one, &client).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert!(tickets.fit(&second), "another certificate keeps the tickets");
        let two = Identity::new(&second, None, &tickets).unwrap().0;
        let (_, server) = handshake(&two, &client).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
        let three = Identity::new(&second, None, &Tickets::new(&second).unwrap()).unwrap().0;
        let (_, server) = handshake(&three, &client).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full), "new keys");
    }
    let (ca, crl) = (Some(b"ca".to_vec()), Some(b"crl".to_vec()));
    let with = |verify, client_ca: &Option<Vec<u8>>, crl: &Option<Vec<u8>>| Material {
        verify,
        client_ca: client_ca.clone(),
        crl: crl.clone(),
        ..first.clone()
    };
    let tickets = Tickets::new(&with(Verify::Optional, &ca, &crl)).unwrap();
    for (verify, client_ca, list, fits) in [
        (Verify::Optional, &ca, &crl, true),
        (Verify::Required, &ca, &crl, false),
        (Verify::None, &ca, &crl, false),
        (Verify::Optional, &crl, &crl, false),
        (Verify::Optional, &ca, &ca, false),
        (Verify::Optional, &ca, &None, false),
    ] {
        assert_eq!(tickets.fit(&with(verify, client_ca, list)), fits, "{verify:?} {client_ca:?} {list:?}");
    }
    let tickets = Tickets::new(&with(Verify::None, &ca, &crl)).unwrap();
    assert!(tickets.fit(&with(Verify::None, &None, &None)), "without verification the files do not matter");
}

/// Whether a client is accepted, and what its certificate says.
fn is_accepted(material: &Material, own: Option<(&Signed, &[&Signed])>) -> Result<Option<ClientFacts>, rustls::Error> {
    let (identity, _) = identity_of(material).unwrap_or_else(|errors| panic!("{errors:?}"));
    let (_, server) = handshake(&identity, &client(material, own))?;
    let certificates = server.peer_certificates().unwrap_or_default();
    identity.still_valid(certificates, UnixTime::now())?;
    Ok(certificates.first().map(ClientFacts::of))
}

/// The parameters of a client's certificate.
fn numbered(name: &str, serial: u64) -> CertificateParams {
    let mut params = params(name);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

#[test]
fn clients_are_verified() {
    let root = sign(authority("clients' root"), None);
    let mut middle = authority("clients' middle");
    middle.serial_number = Some(SerialNumber::from(5));
    let middle = sign(middle, Some(&root));
    let (good, bad) = (sign(numbered("good", 1), Some(&root)), sign(numbered("bad", 2), Some(&root)));
    let below = sign(numbered("below", 3), Some(&middle));
    let stranger = sign(numbered("good", 1), None);
    let mut expired = numbered("old", 4);
    (expired.not_before, expired.not_after) = (day(-2).into(), day(-1).into());
    let expired = sign(expired, Some(&root));
    let with = |verify, crl: Option<String>| Material {
        client_ca: Some(root.certificate.clone().into()),
        verify,
        crl: crl.map(String::into_bytes),
        ..material_of(&sign(params("localhost"), None))
    };
    let list = |serials: &[u64]| Some(revocation_list(&root, serials, 10));
    let of_middle = |serials: &[u64]| revocation_list(&middle, serials, 10);
    let both = |root_serials: &[u64], serials: &[u64]| list(root_serials).map(|list| list + &of_middle(serials));
    let old = Some(revocation_list(&root, &[2], -10));
    let old_and_new = Some(revocation_list(&root, &[], -10) + &revocation_list(&root, &[2], 10));
    use Verify::{None as Unasked, Optional, Required};
    let (good, bad, below, alone) =
        (Some((&good, &[][..])), Some((&bad, &[][..])), Some((&below, &[&middle][..])), Some((&below, &[][..])));
    let (stranger, expired) = (Some((&stranger, &[][..])), Some((&expired, &[][..])));
    for (case, verify, crl, own, name) in [
        ("not asked", Unasked, None, good, Ok(None)),
        ("optional, none", Optional, None, None, Ok(None)),
        ("optional, good", Optional, None, good, Ok(Some("good"))),
        ("optional, stranger", Optional, None, stranger, Err(())),
        ("required, none", Required, None, None, Err(())),
        ("required, good", Required, None, good, Ok(Some("good"))),
        ("required, stranger", Required, None, stranger, Err(())),
        ("required, expired", Required, None, expired, Err(())),
        ("required, intermediate", Required, None, below, Ok(Some("below"))),
        ("required, intermediate missing", Required, None, alone, Err(())),
        ("good, and a list", Required, list(&[2]), good, Ok(Some("good"))),
        ("revoked", Required, list(&[2]), bad, Err(())),
        ("revoked, optional", Optional, list(&[2]), bad, Err(())),
        ("revoked, the list has expired", Required, old.clone(), bad, Err(())),
        ("good, the list has expired", Required, old, good, Ok(Some("good"))),
        ("revoked by the newer list", Required, old_and_new, bad, Err(())),
        ("the issuer has no list", Required, list(&[2]), below, Err(())),
        ("a list of the issuer alone", Required, Some(of_middle(&[9])), below, Ok(Some("below"))),
        ("revoked by the intermediate", Required, Some(of_middle(&[3])), below, Err(())),
        ("lists of both", Required, both(&[2], &[9]), below, Ok(Some("below"))),
        ("the intermediate is revoked", Required, both(&[5], &[9]), below, Err(())),
    ] {
        let result = is_accepted(&with(verify, crl), own);
        let got = result.as_ref().map(|facts| facts.as_ref().map(|facts| &*facts.common_name));
        assert_eq!(got.map_err(|_| ()), name, "{case}: {result:?}");
    }
}

/// `cachain` has certificates for clients to trust, and none that is trusted here.
#[test]
fn issuers_of_the_server_sign_no_clients() {
    let (root, members) = (sign(authority("root"), None), sign(authority("members"), None));
    let material = Material {
        chain: Some(root.certificate.clone().into()),
        client_ca: Some(members.certificate.clone().into()),
        verify: Verify::Required,
        ..material_of(&sign(params("localhost"), Some(&root)))
    };
    let (stranger, member) = (sign(params("client"), Some(&root)), sign(params("client"), Some(&members)));
    let (identity, _) = identity_of(&material).unwrap();
    let client = |own| client(&material_of(&root), Some((own, &[])));
    assert!(handshake(&identity, &client(&member)).is_ok());
    assert!(handshake(&identity, &client(&stranger)).is_err());
}

/// A session is resumed without a verification, which `still_valid` makes up for.
#[test]
fn a_resumed_client_is_verified_again() {
    let root = sign(authority("root"), None);
    let own = sign(numbered("client", 2), Some(&root));
    let server = material_of(&sign(params("localhost"), None));
    let with = |serials: &[u64]| Material {
        verify: Verify::Required,
        client_ca: Some(root.certificate.clone().into()),
        crl: Some(revocation_list(&root, serials, 10).into()),
        ..server.clone()
    };
    let (before, after) = (identity_of(&with(&[])).unwrap().0, identity_of(&with(&[2])).unwrap().0);
    let client = client(&server, Some((&own, &[])));
    handshake(&before, &client).unwrap();
    let (_, resumed) = handshake(&before, &client).unwrap();
    assert_eq!(resumed.handshake_kind(), Some(HandshakeKind::Resumed));
    let certificates = resumed.peer_certificates().unwrap();
    assert_eq!(before.still_valid(certificates, UnixTime::now()), Ok(()));
    let revoked = rustls::Error::InvalidCertificate(CertificateError::Revoked);
    assert_eq!(after.still_valid(certificates, UnixTime::now()), Err(revoked));
    let later = UnixTime::since_unix_epoch(Duration::from_secs(now_s() + 200 * DAY_S));
    assert!(before.still_valid(certificates, later).is_err(), "expired");
    assert!(before.still_valid(&[], UnixTime::now()).is_err(), "none, though required");
    let (unasked, _) = identity_of(&server).unwrap();
    assert_eq!(unasked.still_valid(certificates, UnixTime::now()), Ok(()));
}

#[test]
fn files_for_clients_that_are_refused() {
    let root = sign(authority("root"), None);
    let list = revocation_list(&root, &[], 10);
    let damaged = "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n";
    let der = rustls::pki_types::CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap();
    let in_der = der.to_vec();
    let expired = revocation_list(&root, &[], -10);
    for (case, client_ca, crl, parts) in [
        ("good", &*root.certificate, list.as_bytes(), vec![]),
        ("several", &root.certificate.repeat(2), list.repeat(2).as_bytes(), vec![]),
        ("in DER", &root.certificate, &in_der, vec![]),
        ("no authority", "", list.as_bytes(), vec!["ClientCa: has no certificate"]),
        ("no list", &root.certificate, b"", vec!["Crl: has no revocation list"]),
        ("a certificate", &root.certificate, root.certificate.as_bytes(), vec!["Crl: has no revocation list"]),
        ("damaged", &root.certificate, damaged.as_bytes(), vec!["Crl: revocation list 1 cannot be used: it is malf"]),
        ("the second", &root.certificate, (list.clone() + damaged).as_bytes(), vec!["Crl: revocation list 2 cannot"]),
        ("expired", &root.certificate, expired.as_bytes(), vec!["Crl: revocation list 1 expired on "]),
    ] {
        let material = Material {
            verify: Verify::Optional,
            client_ca: Some(client_ca.into()),
            crl: Some(crl.into()),
            ..material_of(&sign(params("localhost"), None))
        };
        expect_lines(case, &identity_of(&material), &parts);
        let unasked = Material { verify: Verify::None, ..material };
        expect_lines(case, &identity_of(&unasked), &[]);
    }
}
