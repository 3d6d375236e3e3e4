//! The library: lives of certificates, crashes at each step of each change, wrong requests.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, IsCa, KeyPair, PKCS_ED25519, PublicKeyData};
use time::{Duration, OffsetDateTime};

use crate::certificate::Certificate;
use crate::crl;
use crate::folder::{CRL, Folder, INDEX, JKS, PKCS12, fault};
use crate::limits::INDEX_SIZE_MAX;
use crate::open::{read_certificate, read_index, read_key};
use crate::profile::common_name;
use crate::{Action, Authority, CaError, Founding, Invitation, Kind, Name, Renewal, Signing, State, Wish};

/// 2026-11-30 12:00 UTC.
const NOW: OffsetDateTime = match OffsetDateTime::from_unix_timestamp(1_796_040_000) {
    Ok(now) => now,
    Err(_) => OffsetDateTime::UNIX_EPOCH,
};
/// When the changes are made: five days later.
const LATER: OffsetDateTime = NOW.saturating_add(Duration::days(5));

/// A folder that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        // In memory, if there is such a folder: the tests synchronise thousands of files.
        let memory = Some(PathBuf::from("/dev/shm")).filter(|path| path.is_dir());
        let path = memory.unwrap_or_else(std::env::temp_dir).join(format!("uakari-ca-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    /// A new authority in it.
    fn authority(&self, name: &str) -> Authority {
        let authority = Authority::at(self.0.join(name));
        authority.init(&Founding::default(), NOW).unwrap();
        authority
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn wish(text: &str) -> Wish {
    Wish { name: name(text), kind: Kind::Client, hosts: Vec::new(), days: None }
}

fn invitation(text: &str) -> Invitation {
    Invitation { name: name(text), kind: Kind::Client, hosts: Vec::new(), hours: None }
}

fn csr(key: &KeyPair, subject: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(subject);
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn days(count: i64) -> OffsetDateTime {
    NOW + Duration::days(count)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (source, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(source, target).unwrap();
        }
    }
}

/// All files that are left, relative to the folder.
fn files(dir: &Path) -> Vec<String> {
    let listed = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let all = listed(dir).into_iter().chain(listed(&dir.join("issued"))).filter(|path| path.is_file());
    all.map(|path| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned()).collect()
}

/// The authority works, and its files agree with each other.
fn expect_whole(authority: &Authority, now: OffsetDateTime, what: &str) {
    let probe = authority.issue(&wish("probe"), now).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(authority.status(now).state, State::Valid, "{what}");
    let folder = Folder::new(authority.dir());
    let (certificate, _) = read_certificate(&folder).unwrap();
    read_key(&folder, &certificate).unwrap();
    let left: Vec<_> = files(authority.dir()).into_iter().filter(|file| file.contains(".new")).collect();
    assert!(left.is_empty(), "{what}: {left:?} are left");
    let index = read_index(&folder).unwrap();
    let facts = crl::facts(&folder.read(CRL).unwrap().unwrap(), &certificate).unwrap();
    assert_eq!((facts.number, facts.next_update), (index.crl_number, certificate.not_after), "{what}");
    assert_eq!(facts.revoked, index.all_revoked().collect::<Vec<_>>(), "{what}");
    assert_eq!(index.exported, Some(certificate.fingerprint()), "{what}");
    let jks = folder.read(JKS).unwrap().unwrap();
    assert!(
        jks.windows(certificate.der().len()).any(|part| part == certificate.der()),
        "{what}: another certificate in {JKS}"
    );
    assert!(folder.has(PKCS12), "{what}");
    let issued = Certificate::parse(probe.issued.certificate_pem.as_bytes()).unwrap();
    assert!(issued.is_issued_by(&certificate), "{what}");
    for file in files(authority.dir()).iter().filter(|file| file.starts_with("issued/") && file.ends_with(".pem")) {
        let certificate = Certificate::parse(&folder.read(file).unwrap().unwrap()).unwrap();
        assert!(index.find(certificate.serial.unwrap()).is_some(), "{what}: {file} is not in the index");
    }
}

/// A change of an authority.
type Change = fn(&Authority) -> Result<(), CaError>;

const CHANGES: &[(&str, Change)] = &[
    ("issue", |it| it.issue(&wish("new"), LATER).map(drop)),
    ("sign", |it| {
        let signing = Signing { name: None, kind: Kind::Client, days: None };
        it.sign(csr(&KeyPair::generate().unwrap(), "new").as_bytes(), &signing, LATER).map(drop)
    }),
    ("revoke", |it| it.revoke("phone", LATER).map(drop)),
    ("renew", |it| it.renew(&Renewal::default(), LATER).map(drop)),
    ("renew --new-key", |it| it.renew(&Renewal { days: None, new_key: true }, LATER).map(drop)),
    ("renew NAME", |it| it.renew_issued(&name("phone"), None, LATER).map(drop)),
    ("token", |it| it.token(&invitation("new"), LATER).map(drop)),
    ("withdraw", |it| it.withdraw(&name("device"), LATER).map(drop)),
    ("enrol", |it| {
        let token = fs::read_to_string(it.dir().join("token")).unwrap();
        it.enrol(&token, &csr(&KeyPair::generate().unwrap(), "x"), LATER).map(drop)
    }),
    ("export", |it| it.export(Some("another"), LATER).map(drop)),
    ("self-signed", |it| it.self_signed(None, LATER).map(drop)),
];

/// Lets each step of each change fail once: as a crash, and as an error after which the program cleans up.
#[test]
fn every_step_may_fail() {
    let scratch = Scratch::new("steps");
    let model = scratch.authority("model");
    model.issue(&wish("phone"), NOW).unwrap();
    fs::write(
        model.dir().join("token"),
        model.token(&Invitation { hours: Some(720), ..invitation("device") }, NOW).unwrap().text,
    )
    .unwrap();
    for (change, run) in CHANGES {
        let mut steps = 0;
        for is_crash in [true, false] {
            steps = 0;
            loop {
                let what = format!("{change}, step {steps}, crash: {is_crash}");
                let authority = Authority::at(scratch.0.join("copy"));
                copy(model.dir(), authority.dir());
                let before = fs::read(authority.dir().join(INDEX)).unwrap();
                fault::set(Some(steps), is_crash);
                let result = run(&authority);
                fault::set(None, false);
                if !is_crash {
                    let left: Vec<_> =
                        files(authority.dir()).into_iter().filter(|file| file.contains(".new.")).collect();
                    assert!(left.is_empty(), "{what}: {left:?}");
                }
                // Before anything is renamed, nothing is changed.
                if steps < 3 && result.is_err() {
                    assert_eq!(fs::read(authority.dir().join(INDEX)).unwrap(), before, "{what}");
                }
                expect_whole(&authority, LATER, &what);
                if result.is_err() {
                    run_again(*run, &authority, &what);
                }
                fs::remove_dir_all(authority.dir()).unwrap();
                if result.is_ok() {
                    break;
                }
                steps += 1;
            }
        }
        assert!(steps > 4, "{change} has {steps} steps only");
    }
}

/// A change that failed succeeds the second time, or had been made.
fn run_again(run: Change, authority: &Authority, what: &str) {
    match run(authority) {
        Ok(()) | Err(CaError::Taken { .. } | CaError::Revoked(_) | CaError::Token) => {}
        Err(error) => panic!("{what}, again: {error}"),
    }
    expect_same_files(authority, what);
}

fn expect_same_files(authority: &Authority, what: &str) {
    let folder = Folder::new(authority.dir());
    let (certificate, _) = read_certificate(&folder).unwrap();
    assert!(read_key(&folder, &certificate).is_ok() && read_index(&folder).is_ok(), "{what}");
}

/// `init` may fail at each step, too, and be repeated.
#[test]
fn every_step_of_init_may_fail() {
    let scratch = Scratch::new("init");
    for is_crash in [true, false] {
        for steps in 0.. {
            let what = format!("init, step {steps}, crash: {is_crash}");
            let authority = Authority::at(scratch.0.join(format!("{steps}{is_crash}")));
            fault::set(Some(steps), is_crash);
            let result = authority.init(&Founding::default(), NOW);
            fault::set(None, false);
            match authority.init(&Founding::default(), NOW) {
                Ok(_) | Err(CaError::Exists(_)) => expect_whole(&authority, NOW, &what),
                Err(error) => panic!("{what}: {error}"),
            }
            if result.is_ok() {
                assert!(steps > 10, "init has {steps} steps only");
                break;
            }
        }
    }
}

/// A serial number that was signed is in the index, even if its certificate was not written.
#[test]
fn the_index_precedes_the_certificate() {
    let scratch = Scratch::new("order");
    let authority = scratch.authority("ca");
    let folder = Folder::new(authority.dir());
    for steps in 0.. {
        let new = wish(&format!("n{steps}"));
        fault::set(Some(steps), true);
        let result = authority.issue(&new, NOW);
        fault::set(None, false);
        let has_certificate = folder.has(&format!("issued/{}.pem", new.name));
        let index = read_index(&folder).unwrap();
        assert!(!has_certificate || index.valid_with_name(&new.name, NOW).is_some(), "step {steps}");
        if result.is_ok() {
            break;
        }
    }
}

#[test]
fn a_renewal_keeps_key_and_subject() {
    let scratch = Scratch::new("renewal");
    let authority = scratch.authority("ca");
    let phone =
        Certificate::parse(authority.issue(&wish("phone"), NOW).unwrap().issued.certificate_pem.as_bytes()).unwrap();
    let before = Certificate::parse(authority.certificate_pem().unwrap().as_bytes()).unwrap();
    // After its end, too.
    assert!(matches!(authority.issue(&wish("late"), days(366)), Err(CaError::Expired)));
    assert!(matches!(authority.issue(&wish("early"), days(-1)), Err(CaError::NotYetValid)));
    assert!(matches!(authority.renew(&Renewal::default(), days(-1)), Err(CaError::NotYetValid)));
    assert_eq!(authority.renew(&Renewal::default(), days(366)).unwrap().state, State::Valid);
    let after = Certificate::parse(authority.certificate_pem().unwrap().as_bytes()).unwrap();
    assert_eq!((&after.key_der, &after.common_name), (&before.key_der, &before.common_name));
    assert!(after.serial != before.serial && phone.is_issued_by(&after) && after.is_issued_by(&before));

    authority.renew(&Renewal { days: Some(200), new_key: true }, days(366)).unwrap();
    let other = Certificate::parse(authority.certificate_pem().unwrap().as_bytes()).unwrap();
    assert!(other.key_der != before.key_der && other.common_name != before.common_name && !phone.is_issued_by(&other));
    expect_whole(&authority, days(366), "new key");
    // As long as before.
    assert_eq!(authority.renew(&Renewal::default(), days(367)).unwrap().days_left, Some(200));
    let short = authority.issue(&Wish { days: Some(7), ..wish("short") }, days(367)).unwrap().issued.not_after;
    let renewed = authority.renew_issued(&name("short"), None, days(369)).unwrap().issued.not_after;
    assert_eq!(renewed, short + Duration::days(2));
}

#[test]
fn states_of_an_authority() {
    let scratch = Scratch::new("states");
    let authority = scratch.authority("ca");
    for (now, code, text) in [
        (NOW, 0, "valid, 365 days left\n"),
        (days(334), 0, "valid, 31 days left\n"),
        (days(335), 1, "30 days left: run uakari-ca renew\n"),
        (days(364), 1, "1 day left"),
        (days(366), 2, "invalid: expired on 2027-11-30\n"),
        (days(-1), 2, "invalid: not valid before 2026-11-30\n"),
    ] {
        let status = authority.status(now);
        assert_eq!(status.exit_code(), code, "{status}");
        assert!(status.to_string().starts_with(text), "{status}");
    }
    let path = |file: &str| authority.dir().join(file);
    for (file, content, reason) in [
        ("index", Some("x"), "index: ends within a line"),
        ("index", None, "index: is missing"),
        ("ca.pem", Some("x"), "ca.pem: has no PEM block BEGIN CERTIFICATE"),
        ("ca.pem", None, "there is no authority here"),
        ("ca.key", Some("x"), "ca.key: is no private key"),
        ("ca.key", Some(&*KeyPair::generate().unwrap().serialize_pem()), "ca.key: does not fit ca.pem"),
        ("ca.key", None, "ca.key: is missing"),
    ] {
        let kept = fs::read(path(file)).unwrap();
        match content {
            Some(content) => fs::write(path(file), content).unwrap(),
            None => fs::remove_file(path(file)).unwrap(),
        }
        let status = authority.status(NOW);
        assert!(status.exit_code() == 2 && status.to_string().contains(reason), "{file}: {status}");
        assert_eq!(status.json()["state"], "invalid");
        assert!(authority.issue(&wish("x"), NOW).is_err_and(|error| !error.is_refusal()), "{file} {content:?}");
        let restored = path("restored");
        fs::write(&restored, kept).unwrap();
        fs::set_permissions(&restored, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(restored, path(file)).unwrap();
    }
    expect_whole(&authority, NOW, "restored");
    let missing = Authority::at(scratch.0.join("none")).status(NOW);
    assert!(missing.to_string().contains("run uakari-ca init first"), "{missing}");
}

#[test]
fn tokens_are_used_once() {
    let scratch = Scratch::new("tokens");
    let authority = scratch.authority("ca");
    let key = KeyPair::generate().unwrap();
    let token = authority.token(&invitation("device"), NOW).unwrap();
    assert!(!fs::read_to_string(authority.dir().join(INDEX)).unwrap().contains(&token.text));
    let is_refused =
        |token: &str, csr: &str, now| authority.enrol(token, csr, now).is_err_and(|error| error.is_refusal());
    assert!(is_refused("", &csr(&key, "x"), NOW) && is_refused("other", &csr(&key, "x"), NOW));
    // A bad request does not use the token up.
    assert!(is_refused(&token.text, "no CSR", NOW));
    assert!(is_refused(&token.text, &csr(&key, "x"), token.expires + Duration::seconds(1)));
    let issued = authority.enrol(&token.text, &csr(&key, "x"), token.expires).unwrap();
    assert_eq!(issued.name, "device");
    assert!(matches!(authority.enrol(&token.text, &csr(&key, "x"), NOW), Err(CaError::Token)));
    assert!(matches!(authority.token(&invitation("device"), NOW), Err(CaError::Taken { .. })));
    // Two tokens for one name give one certificate.
    let tokens = [0, 1].map(|_| authority.token(&invitation("twice"), NOW).unwrap().text);
    authority.enrol(&tokens[0], &csr(&key, "x"), NOW).unwrap();
    assert!(matches!(authority.enrol(&tokens[1], &csr(&key, "x"), NOW), Err(CaError::Taken { .. })));
    assert_eq!(authority.withdraw(&name("twice"), NOW).unwrap(), 1);
}

#[test]
fn a_device_extends_its_own_certificate() {
    let scratch = Scratch::new("extension");
    let authority = scratch.authority("ca");
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let kind = Kind::Peer;
    let hosts = vec![crate::Host::new("10.0.0.1").unwrap()];
    let token = authority.token(&Invitation { kind, hosts, ..invitation("device") }, NOW).unwrap().text;
    let first = authority.enrol(&token, &csr(&key, "x"), NOW).unwrap();
    // Who repeats a request gets the same certificate, until half of its time has passed.
    for (now, count) in [(NOW, 1), (days(182), 1), (days(300), 2), (days(301), 2)] {
        for _ in 0..20 {
            authority.extend(&first.certificate_pem, &csr(&key, "other"), now).unwrap();
        }
        assert_eq!(authority.status(now).valid, count, "{now}");
    }
    let second = authority.extend(&first.certificate_pem, &csr(&key, "other"), days(300)).unwrap();
    assert_eq!(second.not_after, days(300 + 365));
    let parsed = Certificate::parse(second.certificate_pem.as_bytes()).unwrap();
    assert_eq!(parsed.key_der, key.subject_public_key_info());
    let shown: Vec<String> = parsed.hosts().iter().map(crate::Host::to_string).collect();
    assert_eq!((&*second.name, &shown[..]), ("device", &["device".to_owned(), "10.0.0.1".to_owned()][..]));

    let refused = |certificate: &str, csr: &str, now, part: &str| {
        let error = authority.extend(certificate, csr, now).unwrap_err();
        assert!(error.is_refusal() && error.to_string().contains(part), "{error}");
    };
    let good = csr(&key, "x");
    refused("", &good, NOW, "has no PEM block");
    refused(&first.certificate_pem, "", NOW, "has no PEM block BEGIN CERTIFICATE REQUEST");
    refused(&first.certificate_pem, &csr(&KeyPair::generate().unwrap(), "x"), NOW, "has another key");
    refused(&first.certificate_pem, &good, days(-1), "not yet valid");
    refused(&authority.certificate_pem().unwrap(), &good, NOW, "no certificate of this authority");
    let foreign = scratch.authority("foreign").issue(&wish("device"), NOW).unwrap().issued;
    refused(&foreign.certificate_pem, &good, NOW, "is not signed by this authority's key");
    authority.revoke(&second.serial, NOW).unwrap();
    refused(&second.certificate_pem, &good, days(300), "is revoked");
    refused(&first.certificate_pem, &good, days(300), "is revoked");
    let signing = |name: &str, days| Signing { name: Some(self::name(name)), kind: Kind::Client, days: Some(days) };
    let short = authority.sign(good.as_bytes(), &signing("short", 1), days(300)).unwrap();
    let again = authority.extend(&short.certificate_pem, &good, days(300) + Duration::hours(20)).unwrap();
    assert_eq!(again.not_after - short.not_after, Duration::hours(20));
    refused(&short.certificate_pem, &good, days(302), "is expired or");
    // Certificates of one name are bounded.
    let third = authority.sign(good.as_bytes(), &signing("third", 300), days(1)).unwrap();
    for _ in 0..20 {
        authority.renew_issued(&name("third"), None, days(1)).unwrap();
    }
    refused(&third.certificate_pem, &good, days(200), "too often");
}

/// Of a request, the authority takes key, name and, for servers, hosts.
#[test]
fn requests_cannot_ask_for_more() {
    let scratch = Scratch::new("requests");
    let authority = scratch.authority("ca");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["gate.example".to_owned()]).unwrap();
    params.distinguished_name = common_name("gate");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::Any];
    let request = params.serialize_request(&key).unwrap();
    let signing =
        |name: Option<&str>, kind| Signing { name: name.map(|text| Name::new(text).unwrap()), kind, days: None };
    let signed = |bytes: &[u8], signing| {
        Certificate::parse(authority.sign(bytes, &signing, NOW).unwrap().certificate_pem.as_bytes()).unwrap()
    };
    let client = signed(request.pem().unwrap().as_bytes(), signing(Some("client"), Kind::Client));
    assert!(!client.is_authority && client.hosts().is_empty() && client.common_name.as_deref() == Some("client"));
    let server = signed(request.der(), signing(None, Kind::Server));
    let shown: Vec<String> = server.hosts().iter().map(crate::Host::to_string).collect();
    assert_eq!(
        (server.common_name.as_deref(), &shown[..]),
        (Some("gate"), &["gate".to_owned(), "gate.example".to_owned()][..])
    );

    // A changed byte is refused, or is not in the signed part, of which alone something is taken.
    let der = request.der().to_vec();
    let mut refused = 0;
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        match authority.sign(&changed, &signing(Some("changed"), Kind::Client), NOW) {
            Ok(issued) => {
                let certificate = Certificate::parse(issued.certificate_pem.as_bytes()).unwrap();
                assert!(certificate.key_der == client.key_der && certificate.hosts().is_empty(), "byte {at}");
                authority.revoke("changed", NOW).unwrap();
            }
            Err(error) => {
                assert!(error.is_refusal(), "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > der.len() - 20, "{refused} of {}", der.len());
    for cut in 0..der.len() {
        assert!(authority.sign(&der[..cut], &signing(Some("cut"), Kind::Client), NOW).is_err(), "{cut} bytes");
    }
    for hostile in ["../evil", "a/b", ".", "", "a\0b", "a\nb"] {
        let result = authority.sign(csr(&key, hostile).as_bytes(), &signing(None, Kind::Client), NOW);
        assert!(result.is_err_and(|error| error.is_refusal()), "{hostile:?}");
    }
    assert!(files(authority.dir()).iter().all(|file| !file.contains("evil")));
}

/// Of a backup that is older than the revocation list.
#[test]
fn an_older_index_unrevokes_nothing() {
    let scratch = Scratch::new("older");
    let authority = scratch.authority("ca");
    authority.issue(&wish("known"), NOW).unwrap();
    let index = authority.dir().join(INDEX);
    let backup = fs::read(&index).unwrap();
    authority.issue(&wish("unknown"), NOW).unwrap();
    let revoked = ["unknown", "known"].map(|name| authority.revoke(name, LATER).unwrap().remove(0));
    fs::remove_file(authority.dir().join("issued/unknown.pem")).unwrap();
    for _ in 0..2 {
        fs::write(&index, &backup).unwrap();
        expect_whole(&authority, days(6), "restored");
        authority.revoke("probe", days(6)).unwrap();
        let listed: Vec<_> = read_index(&Folder::new(authority.dir())).unwrap().all_revoked().collect();
        for serial in &revoked {
            let found = listed.iter().find(|(listed, _)| listed.to_string() == *serial);
            assert_eq!(found.unwrap().1, LATER);
            assert!(matches!(authority.revoke(serial, days(6)), Err(CaError::Revoked(_))));
        }
    }
}

/// A new certificate would have another name, and what was given out would not be trusted.
#[test]
fn a_lost_certificate_is_not_replaced() {
    let scratch = Scratch::new("lost");
    let authority = scratch.authority("ca");
    let path = authority.certificate_path();
    fs::remove_file(&path).unwrap();
    authority.init(&Founding::default(), NOW).unwrap();
    authority.issue(&wish("phone"), NOW).unwrap();
    fs::remove_file(&path).unwrap();
    let errors =
        [authority.init(&Founding::default(), NOW).unwrap_err(), authority.self_signed(None, NOW).unwrap_err()];
    for error in errors {
        let sentence = error.to_string();
        assert!(sentence.contains("ca.pem: is missing") && sentence.ends_with("restore it from a backup"), "{error}");
    }
}

/// What is written can be read again.
#[test]
fn sizes_are_limited() {
    let scratch = Scratch::new("sizes");
    let authority = scratch.authority("ca");
    let label = "x".repeat(60);
    let hosts = (0..250).map(|n| crate::Host::new(&[&*label; 4].join(".").replacen('x', &format!("x{n}"), 1)).unwrap());
    let hosts: Vec<_> = hosts.collect();
    let wish = Wish { kind: Kind::Server, hosts: hosts.clone(), ..wish("long") };
    let error = authority.issue(&wish, NOW).unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("give it fewer or shorter names"), "{error}");
    let long = |name: &str| Invitation { kind: Kind::Server, hosts: hosts.clone(), ..invitation(name) };
    authority.token(&long("first"), NOW).unwrap();
    let mut index = read_index(&Folder::new(authority.dir())).unwrap();
    let (token, size) = (index.tokens[0].clone(), index.to_text().len());
    index.tokens.resize(INDEX_SIZE_MAX / size, token);
    fs::write(authority.dir().join(INDEX), index.to_text()).unwrap();
    let full = (0..4).find_map(|n| authority.token(&long(&format!("n{n}")), NOW).err());
    assert!(matches!(full, Some(CaError::Full(_))), "{full:?}");
    assert_eq!(authority.status(NOW).state, State::Valid);
}

/// A key that fits the request stays; another one is not lost.
#[test]
fn keys_of_earlier_certificates_stay() {
    let scratch = Scratch::new("keys");
    let authority = scratch.authority("ca");
    let pair = authority.issue(&wish("gate"), NOW).unwrap();
    let path = pair.key.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let (own, other) = (KeyPair::from_pem(&text).unwrap(), KeyPair::generate().unwrap());
    authority.revoke("gate", NOW).unwrap();
    let signing = Signing { name: Some(name("gate")), kind: Kind::Client, days: None };
    let token = authority.token(&invitation("gate"), NOW).unwrap().text;
    for result in
        [authority.sign(csr(&other, "x").as_bytes(), &signing, NOW), authority.enrol(&token, &csr(&other, "x"), NOW)]
    {
        let error = result.unwrap_err();
        assert!(error.is_refusal() && error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    }
    authority.sign(csr(&own, "x").as_bytes(), &signing, NOW).unwrap();
    authority.revoke("gate", NOW).unwrap();
    authority.enrol(&token, &csr(&own, "x"), NOW).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    // Nor one that is no key of ours.
    authority.revoke("gate", NOW).unwrap();
    fs::write(&path, "x").unwrap();
    assert!(matches!(authority.sign(csr(&own, "x").as_bytes(), &signing, NOW), Err(CaError::KeyThere(_))));
}

#[test]
fn this_machine_keeps_its_certificate() {
    let scratch = Scratch::new("machine");
    let authority = Authority::at(scratch.0.join("parent/ca"));
    let made = authority.self_signed(None, NOW).unwrap();
    assert_eq!(made.action, Action::Created);
    let read = |path: &Path| fs::read(path).unwrap();
    let (certificate, key) = (read(&made.certificate), read(&made.key));
    assert_eq!(authority.status(NOW).days_left, Some(3650));
    let kept = authority.self_signed(None, days(1)).unwrap();
    assert_eq!((kept.action, &kept.notices[..]), (Action::Kept, &[][..]));
    // Before the clock is set.
    let early = authority.self_signed(None, OffsetDateTime::UNIX_EPOCH).unwrap();
    assert!(early.action == Action::Kept && early.notices.len() == 1, "{early:?}");
    assert!(early.notices[0].ends_with("later than now: set the clock"), "{early:?}");
    assert_eq!((read(&made.certificate), read(&made.key)), (certificate.clone(), key.clone()));
    for days in [59, 398] {
        assert!(matches!(authority.self_signed(Some(days), NOW), Err(CaError::Value(_))));
    }
    // Near its end: the same key.
    let issued = authority.self_signed(None, days(340)).unwrap();
    assert!(issued.action == Action::Issued && issued.notices.is_empty(), "{issued:?}");
    assert!(read(&made.key) == key && read(&made.certificate) != certificate);
    // A key that is not understood is no reason to lose it.
    fs::write(&made.key, "x").unwrap();
    assert!(authority.self_signed(None, days(340)).is_err() && read(&made.key) == b"x");
    fs::write(&made.key, &key).unwrap();
    // Whatever is wrong with the certificate, there is a new one.
    for break_it in [
        (|made, _| fs::remove_file(made).unwrap()) as fn(&Path, &Authority),
        |made, _| fs::write(made, "x").unwrap(),
        |_, authority| drop(authority.revoke("server", days(340)).unwrap()),
        |_, authority| drop(authority.renew(&Renewal { days: None, new_key: true }, days(340)).unwrap()),
    ] {
        break_it(&made.certificate, &authority);
        assert_eq!(authority.self_signed(None, days(340)).unwrap().action, Action::Issued);
        assert_eq!(authority.self_signed(None, days(340)).unwrap().action, Action::Kept);
    }
    // The authority near its end, years later: the same key. Entries that have expired are dropped.
    let authority_key = read(&authority.dir().join("ca.key"));
    let renewed = authority.self_signed(Some(60), days(4000)).unwrap();
    assert!(renewed.notices.len() == 1 && renewed.notices[0].contains(" was renewed: give /"), "{renewed:?}");
    assert_eq!(authority.status(days(4000)).days_left, Some(3650));
    assert_eq!((read(&made.key), read(&authority.dir().join("ca.key"))), (key, authority_key));
    let status = authority.status(days(4000));
    assert_eq!((status.valid, status.expired), (1, 0));
    let ends = |now| authority.self_signed(None, now).unwrap().notices.concat();
    assert!(renewed.notices[0].ends_with("to clients now: the earlier one ended on 2037-11-02"), "{renewed:?}");
    assert!(ends(days(7640)).ends_with("to clients before 2047-11-10, when the earlier one ends"));
}

/// A process that is stopped while it holds the lock must not hold up others without end.
#[test]
fn a_lock_that_is_not_released() {
    let scratch = Scratch::new("lock");
    let authority = scratch.authority("ca");
    let lock = fs::File::open(scratch.0.join("ca/lock")).unwrap();
    lock.lock().unwrap();
    let error = authority.renew(&Renewal::default(), NOW).unwrap_err();
    assert!(matches!(error, CaError::Locked(_)) && !error.is_refusal(), "{error}");
    let state = authority.status(NOW).state;
    assert!(matches!(&state, State::Invalid(reason) if reason.contains("lslocks")), "{state:?}");
    lock.unlock().unwrap();
    assert_eq!(authority.status(NOW).state, State::Valid);
    authority.renew(&Renewal::default(), NOW).unwrap();
}
