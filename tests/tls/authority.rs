//! A test authority: certificates, keys and revocation lists as PEM files, made once in a process.
//!
//! `root.crt` is the authority that clients trust; `inter.crt` is its intermediate, which issues the servers'
//! certificates. `members.crt` is the authority of the clients' certificates, `foreign.crt` another one.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};

use crate::certificates::write_private;
use crate::foreign::{SCRIPT_TIME, command};
use crate::process::{Folder, run};

/// The names of the gateway: each address at which tests reach it, and the Host of `wire::request`.
const GATEWAY_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "gate.example"];
/// The serial number of `client.crt`.
pub const CLIENT_SERIAL: u64 = 0x0123_4567_89ab;
/// The serial number of `revoked-client.crt`, which is in `revoked.crl` and `expired.crl`.
const REVOKED_SERIAL: u64 = 0x00c0_ffee;

static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

/// The path of a file below this folder.
pub fn path(folder: &Folder, name: &str) -> String {
    folder.join(&format!("tls/{name}"))
}

/// Writes all files into the folder `tls` of this one. A test may change its copies.
pub fn issue(folder: &Folder) {
    fs::create_dir(folder.join("tls")).unwrap();
    for (name, text) in &AUTHORITY.files {
        write(folder, name, text);
    }
}

/// Writes `rsa.crt` and `rsa.key` there: a pair for the gateway with a key of RSA, which `openssl` makes.
pub fn issue_rsa(folder: &Folder) {
    let made = run(command("openssl").args(["genpkey", "-quiet", "-algorithm", "RSA"]), SCRIPT_TIME);
    assert!(made.status.success(), "{made:?}");
    let key = KeyPair::from_pem(&made.out).unwrap();
    let certificate = params("rsa", Kind::Server, &GATEWAY_NAMES).signed_by(&key, &AUTHORITY.issuer).unwrap();
    write(folder, "rsa.crt", &certificate.pem());
    write(folder, "rsa.key", &key.serialize_pem());
}

fn write(folder: &Folder, name: &str, text: &str) {
    write_private(path(folder, name).as_ref(), text);
}

struct Authority {
    /// Names and contents.
    files: Vec<(String, String)>,
    /// Issues the servers' certificates.
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Authority,
    Server,
    Client,
}

impl Authority {
    fn new() -> Authority {
        let mut files = Files(Vec::new());
        let authority = |name| params(name, Kind::Authority, &[]);
        let root = files.add_issuer("root", authority("root"), None);
        let issuer = files.add_issuer("inter", authority("inter"), Some(&root));
        let server = |name| params(name, Kind::Server, &GATEWAY_NAMES);
        files.add("server", server("server"), Some(&issuer));
        files.add_chain("server-chain", ["server", "inter"]);
        files.add("renewed", server("renewed"), Some(&issuer));
        files.add("expired", during(server("expired"), 2020), Some(&issuer));
        files.add("early", during(server("early"), 2090), Some(&issuer));
        files.add("other", params("other", Kind::Server, &["other.example"]), Some(&issuer));
        files.add("selfsigned", server("selfsigned"), None);

        let members = files.add_issuer("members", authority("members"), None);
        let foreign = files.add_issuer("foreign", authority("foreign"), None);
        let client = |name| params(name, Kind::Client, &[]);
        files.add("client", numbered(client("client"), CLIENT_SERIAL), Some(&members));
        files.add("expired-client", during(client("expired-client"), 2020), Some(&members));
        files.add("foreign-client", client("foreign-client"), Some(&foreign));
        files.add("revoked-client", numbered(client("revoked-client"), REVOKED_SERIAL), Some(&members));
        files.add_list("none-revoked", 2090, &[], &members);
        files.add_list("revoked", 2090, &[REVOKED_SERIAL], &members);
        files.add_list("expired", 2021, &[REVOKED_SERIAL], &members);
        Authority { files: files.0, issuer }
    }
}

/// The parameters of a certificate that is valid from yesterday on for 100 days.
fn params(name: &str, kind: Kind, names: &[&str]) -> CertificateParams {
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) =
        ((SystemTime::now() - days(1)).into(), (SystemTime::now() + days(100)).into());
    params.use_authority_key_identifier_extension = true;
    match kind {
        Kind::Authority => {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        }
        Kind::Server => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        Kind::Client => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.subject_alt_names = vec![SanType::Rfc822Name(format!("{name}@example.org").try_into().unwrap())];
        }
    }
    params
}

/// Valid in this year alone.
fn during(mut params: CertificateParams, year: i32) -> CertificateParams {
    (params.not_before, params.not_after) = (date_time_ymd(year, 1, 1), date_time_ymd(year + 1, 1, 1));
    params
}

/// With this serial number.
fn numbered(mut params: CertificateParams, serial: u64) -> CertificateParams {
    params.serial_number = Some(serial.into());
    params
}

/// Files of PEM.
struct Files(Vec<(String, String)>);

impl Files {
    /// Adds NAME.crt and NAME.key. Without an issuer the certificate signs itself.
    fn add(&mut self, name: &str, params: CertificateParams, issuer: Option<&Issuer<'static, KeyPair>>) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        };
        self.0.push((format!("{name}.crt"), certificate.unwrap().pem()));
        self.0.push((format!("{name}.key"), key.serialize_pem()));
        key
    }

    fn add_issuer(
        &mut self,
        name: &str,
        params: CertificateParams,
        issuer: Option<&Issuer<'static, KeyPair>>,
    ) -> Issuer<'static, KeyPair> {
        let key = self.add(name, params.clone(), issuer);
        Issuer::new(params, key)
    }

    /// Adds NAME.crt, which has the certificates of others.
    fn add_chain(&mut self, name: &str, parts: [&str; 2]) {
        let text = |name: &str| &self.0.iter().find(|file| file.0 == format!("{name}.crt")).unwrap().1;
        let chain = parts.map(text).map(String::as_str).concat();
        self.0.push((format!("{name}.crt"), chain));
    }

    /// Adds NAME.crl, a revocation list that is valid until this year.
    fn add_list(&mut self, name: &str, year: i32, serials: &[u64], issuer: &Issuer<'static, KeyPair>) {
        let revoke = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoke).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.0.push((format!("{name}.crl"), list.signed_by(issuer).unwrap().pem().unwrap()));
    }
}
