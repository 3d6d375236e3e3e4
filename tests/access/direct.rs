//! Direct mode: no client is handed over without a credential, and its backend learns who it is.

use super::*;
use crate::client::{Frame, TEXT};
use crate::daemon::configuration;
use crate::direct::{converse, sockaddr};
use crate::handover::take;
use crate::hello::parser::parse_hello;
use crate::process::{DEADLINE, run};

const TOKEN: &str = "0123456789abcdef";

const KEYS: &str = "paths = ({ path = \"^/query\"; auth = { type = \"query\"; tokens = \"@/tokens\"; }; });
    auth = { type = \"basic\"; file = \"@/users\"; };";

/// A configuration with these keys of its server and of `websocket`.
fn direct(keys: &str, websocket: &str) -> String {
    configuration("", websocket).replacen("document", &format!("{keys} document"), 1)
}

#[test]
fn a_hand_over_needs_a_credential() {
    let folder = new_folder();
    put(&folder, "tokens", &format!("{TOKEN}:tina:guests,night shift\n"));
    let text = direct(KEYS, "hello = true; options = \"direct\";");
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    let servers = ["basic", "query"].map(|name| daemon.listen(name));
    let visitor = Visitor::new(&daemon, 1);
    let wrong = basic("ann", "wrong");
    // Sent with the handshake, as by a client that is relayed.
    let early = Frame::new(TEXT, b"early").masked().bytes();
    for (path, field) in [
        ("/basic", ""),
        ("/basic", &*wrong),
        ("/basic?token=0123456789abcdef", ""),
        ("/query", ""),
        ("/query?token=0123456789abcdeF", ""),
        ("/query", &*basic("ann", "secret")),
    ] {
        let fields = if field.is_empty() { vec![] } else { vec![field] };
        let response = visitor.upgrade(path, &fields);
        assert_eq!(response.status, 401, "{path} {field}: {response:?}");
        let mut wire = visitor.wire();
        wire.send([handshake(path, &[], &fields).into_bytes(), early.clone()].concat());
        // A 503 if the helper has stood still.
        assert!([401, 503].contains(&wire.response().status), "{path} {field}");
        assert!(servers.iter().all(Listener::is_idle), "{path} {field}: a backend has got the client");
    }
    let right = basic("ann", "secret");
    for (number, path, field, user, groups) in [
        (0, "/basic?a=b", &*right, "ann", "staff,ops"),
        (1, "/query?token=0123456789abcdef&a=b", "", "tina", "guests,night shift"),
        (1, "/query?a=b&token=0123456789abcdef", "", "tina", "guests,night shift"),
    ] {
        let fields = if field.is_empty() { vec![] } else { vec![field] };
        let (wire, response) = visitor.ask(&handshake(path, &[], &fields));
        assert_eq!(response.status, 101, "{path}: {response:?}");
        let mut given = take(&servers[number]);
        let address = sockaddr(wire.stream().local_addr().unwrap());
        let record = given.record.strip_prefix(&*address).expect("the client's address");
        let hello = parse_hello(record).unwrap();
        assert_eq!((&*hello.user, &*hello.groups, &*hello.query), (user, groups, "a=b"), "{path}");
        for secret in [TOKEN, "secret"] {
            assert!(!record.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "{path}: {hello:?}");
        }
        converse(&mut Client::new(wire), &mut given);
        daemon.log().wait_for(&["end client=127.1.0.1:", &format!("user=\"{user}\""), "handed over to the backend"]);
    }
    assert!(!daemon.log().text().contains(TOKEN), "{}", daemon.log().text());
}

/// Nothing could end the connection of a client whose socket the backend has.
#[test]
fn recheck_ms_is_an_error() {
    let folder = new_folder();
    let auth = |more: &str| format!("auth = {{ type = \"basic\"; file = \"@/users\"; {more} }};");
    let link = "links = ({ origin = \"^/a$\"; type = \"unix\"; destination = \"@/run/a\"; options = \"direct\"; });";
    for websocket in ["options = \"direct\";", link] {
        for (keys, is_good) in [(auth("recheck-ms = 1000;"), false), (auth(""), true)] {
            let file = folder.join("uakari.conf");
            let text = direct(&keys, websocket).replace('@', folder.path().to_str().unwrap());
            fs::create_dir_all(folder.join("run")).unwrap();
            fs::write(&file, text).unwrap();
            let finished = run(uakari().args(["--check", "-f", &file]), DEADLINE);
            assert_eq!(finished.status.success(), is_good, "{websocket} {keys}: {finished:?}");
            let told = finished.out.contains("recheck-ms cannot be used with options = \"direct\"");
            assert_eq!(told, !is_good, "{websocket} {keys}: {finished:?}");
        }
    }
}
