//! TLS: https and wss, for foreign clients and for one of our own.

/// Certificates, keys and revocation lists.
pub mod authority;

/// Clients that are libraries and browsers.
mod clients;

/// What `openssl s_client` negotiates.
mod versions;

/// Certificates of clients.
mod members;

/// Requests for another host, and redirections to https.
mod hosts;

/// Handshakes that no library makes.
mod hostile;

/// Records behind the handshake that no library sends.
mod records;

/// How connections end.
mod endings;

/// Many handshakes at once.
mod crowds;

/// Certificates that change.
mod renewal;

/// Direct mode, and TLS of the kernel.
pub mod offload;

/// CPU time of direct and proxied clients.
mod figures;

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::daemon::{Daemon, uakari, with_limits};
use crate::process::{DEADLINE, Folder};
use crate::wire::{TlsStream, Wire};

/// A server with TLS, with pages and backends. Display is its group in a configuration.
#[derive(Clone, Copy)]
struct Server<'a> {
    listen: &'a str,
    /// Its certificate's name in the test authority.
    certificate: &'a str,
    /// More keys of `tls`, of the server itself, and of `websocket`.
    tls: &'a str,
    keys: &'a str,
    websocket: &'a str,
    /// The folder of its pages.
    www: &'a str,
}

impl Default for Server<'_> {
    fn default() -> Self {
        Server { listen: "127.0.0.1:0", certificate: "server", tls: "", keys: "", websocket: "", www: "@/www" }
    }
}

impl fmt::Display for Server<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { listen, certificate, tls, keys, websocket, www } = self;
        let files = format!("crtfile = \"@/tls/{certificate}.crt\"; keyfile = \"@/tls/{certificate}.key\";");
        write!(
            f,
            "{{ listen = \"{listen}\"; {keys}
                tls = {{ {files} cachain = \"@/tls/inter.crt\"; {tls} }};
                document = {{ docroot = \"{www}\"; }};
                websocket = {{ docroot = \"@/run\"; {websocket} }}; }}"
        )
    }
}

/// Requires certificates of clients.
const MEMBERS: &str = "clientca = \"@/tls/members.crt\"; crlfile = \"@/tls/revoked.crl\"; verify = \"required\";";

/// Limits of all servers here. Deadlines of 600 s are beyond DEADLINE: they cause nothing that a test sees.
const LIMITS: [(&str, u32); 7] = [
    ("tls-ms", 600_000),
    ("head-ms", 600_000),
    ("handshake-ms", 600_000),
    ("keepalive-ms", 600_000),
    ("connect-ms", 600_000),
    ("ping-ms", 0),
    // Below stall-ms: after this time a close_notify of the kernel is tried again.
    ("close-ms", 20_000),
];

/// A configuration with these keys of `limits`, which take precedence over LIMITS.
fn configuration(limits: &str, servers: &[Server]) -> String {
    let servers: Vec<String> = servers.iter().map(Server::to_string).collect();
    format!("limits = {{ {} }}; servers = ({});", with_limits(limits, &LIMITS), servers.join(", "))
}

/// The page of each server.
const PAGE: &str = "<!doctype html><title>TLS</title>\n";

/// A folder with the files of the test authority and a page.
fn new_folder() -> Folder {
    let folder = Folder::new();
    authority::issue(&folder);
    fs::create_dir(folder.join("www")).unwrap();
    fs::write(folder.join("www/index.html"), PAGE).unwrap();
    folder
}

/// Starts a daemon in such a folder.
fn start_configured(text: &str) -> Daemon {
    Daemon::start_configured_by(new_folder(), text, uakari())
}

/// Starts a daemon with a server none of whose deadlines passes before DEADLINE.
fn start_without_deadlines() -> Daemon {
    start_configured(&configuration("close-ms = 600000;", &[Server::default()]))
}

/// Starts a daemon with these servers.
fn start(servers: &[Server]) -> Daemon {
    start_configured(&configuration("", servers))
}

/// The path of a file of the test authority.
fn file(daemon: &Daemon, name: &str) -> PathBuf {
    authority::path(daemon.folder(), name).into()
}

/// The certificate in a file of the test authority.
fn certificate(daemon: &Daemon, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file(daemon, &format!("{name}.crt"))).unwrap()
}

/// Versions that a client supports.
pub const ALL: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;
const TLS_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A client that trusts the test authority, and presents this certificate of it if there is one.
pub fn client_config(
    daemon: &Daemon,
    versions: &[&'static SupportedProtocolVersion],
    presented: Option<&str>,
) -> ClientConfig {
    let config = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(roots(certificate(daemon, "root")));
    match presented {
        None => config.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(file(daemon, &format!("{name}.key"))).unwrap();
            config.with_client_auth_cert(vec![certificate(daemon, name)], key).unwrap()
        }
    }
}

fn roots(certificate: CertificateDer<'static>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    roots
}

/// A client that trusts the authority in this file alone.
pub fn trusting(path: impl AsRef<Path>) -> Arc<ClientConfig> {
    let authority = CertificateDer::from_pem_file(path).unwrap();
    Arc::new(ClientConfig::builder().with_root_certificates(roots(authority)).with_no_client_auth())
}

/// Shakes hands. An error is what TLS says; with TLS 1.3 the gateway may refuse a certificate later.
pub fn shake(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Result<TlsStream, String> {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
    }
    Ok(stream)
}

/// A connection to this port, whose certificate has to be that of the gateway.
pub fn wire(port: u16, config: ClientConfig) -> Wire {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    Wire::over_tls(shake(stream, &Arc::new(config), "127.0.0.1").unwrap())
}

/// A client's first bytes, and the client.
pub fn first_flight(daemon: &Daemon, versions: &[&'static SupportedProtocolVersion]) -> (ClientConnection, Vec<u8>) {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config(daemon, versions, None)), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    (client, bytes)
}
