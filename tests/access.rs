//! Who may come in: the daemon with uakari-auth, real credentials and real clients.
//!
//! Failed attempts count for an address, so clients have addresses of their own in the loopback network.

/// Each kind of credential, for pages and WebSockets.
mod methods;

/// Digest, with curl and by hand.
mod digest;

/// Paths, methods, addresses: what no request leads around.
mod paths;

/// Servers that decide.
mod servers;

/// Direct mode.
mod direct;

/// Credentials that end while their WebSockets are open.
mod endings;

/// Wrong passwords, very many.
mod guessing;

/// Chromium and Firefox.
mod browsers;

/// ouistiti's own configurations.
mod ouistiti;

use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::certificates::write_private;
use crate::client::Client;
use crate::daemon::{Daemon, uakari};
use crate::hello::parser::{Hello, read_hello};
use crate::limits::stream_from;
use crate::process::Folder;
use crate::proxies::gateway;
use crate::server::{Backend, Listener};
use crate::wire::{Response, Wire, handshake, request};

/// The users of most tests, with the cheapest hashes. The password of each is "secret".
const USERS: &str = "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=:staff,ops:\nbob:secret:guests:\n";

/// A folder with a page, `users` and more pages.
fn new_folder() -> Folder {
    let folder = Folder::new();
    for page in ["index.html", "page", "admin/page", "admin/index.html", "open/page"] {
        let path = folder.path().join("www").join(page);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, page).unwrap();
    }
    put(&folder, "users", USERS);
    folder
}

/// Writes a file that others cannot read. An older one is replaced at once.
fn put(folder: &Folder, name: &str, text: &str) {
    write_private(folder.join("new").as_ref(), text);
    fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

/// A daemon with these keys of its server, whose backends get the hello record.
fn start(keys: &str) -> Daemon {
    start_in(new_folder(), keys)
}

/// As `start`, in this folder.
fn start_in(folder: Folder, keys: &str) -> Daemon {
    Daemon::start_configured_by(folder, &gateway("", keys), uakari())
}

/// The field of a user and a password.
fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A client in the loopback network; each has failures of its own.
#[derive(Clone, Copy)]
struct Visitor<'a> {
    daemon: &'a Daemon,
    address: Ipv4Addr,
}

impl<'a> Visitor<'a> {
    /// The client 127.1.0.N.
    fn new(daemon: &'a Daemon, number: u8) -> Visitor<'a> {
        Visitor { daemon, address: Ipv4Addr::new(127, 1, 0, number) }
    }

    fn wire(self) -> Wire {
        Wire::new(stream_from(self.address, self.daemon.port, None))
    }

    /// The answer to a request. A 503 is no answer: the helper may have stood still.
    fn ask(self, text: &str) -> (Wire, Response) {
        for _ in 0..200 {
            let mut wire = self.wire();
            wire.send(text);
            let response = if text.starts_with("HEAD ") { wire.response_head() } else { wire.response() };
            if response.status != 503 {
                return (wire, response);
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("there is always a 503 for {text:?}");
    }

    /// The answer to a request for a page.
    fn get(self, path: &str, fields: &[&str]) -> Response {
        self.ask(&request("GET", path, fields)).1
    }

    /// The answer to a handshake.
    fn upgrade(self, path: &str, fields: &[&str]) -> Response {
        self.ask(&handshake(path, &[], fields)).1
    }

    /// A WebSocket, and what its backend learns.
    fn join(self, server: &Listener, path: &str, fields: &[&str]) -> (Client, Hello, Backend) {
        let (wire, response) = self.ask(&handshake(path, &[], fields));
        assert_eq!(response.status, 101, "{path} {fields:?}: {response:?}");
        let backend = server.accept();
        let hello = read_hello(&mut backend.stream()).unwrap();
        (Client::new(wire), hello, backend)
    }
}
