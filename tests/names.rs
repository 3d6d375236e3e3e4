//! From a path to a socket in docroot, and never to one outside.

use std::os::unix::fs::symlink;

use crate::daemon::{Daemon, configuration};
use crate::process::Folder;
use crate::server::{Kind, Listener};

/// Further spellings are in `route::names::tests::names_from_paths`.
#[test]
pub fn every_spelling_of_a_name() {
    let daemon = Daemon::start(&[]);
    let servers = ["echo", "sub/echo2", "a b", "caf\u{e9}"].map(|name| (name, daemon.listen(name)));
    for (path, name) in [
        ("/echo?/../sub/echo2", "echo"),
        ("/%65cho", "echo"),
        ("/nosuch/../echo", "echo"),
        ("/../../echo", "echo"),
        ("/sub%2f..%2fecho", "echo"),
        ("http://gate.example/echo", "echo"),
        ("//sub//./echo2", "sub/echo2"),
        ("/a%20b", "a b"),
        ("/caf%C3%A9", "caf\u{e9}"),
    ] {
        let _client = daemon.connect(path);
        servers.iter().find(|(other, _)| *other == name).unwrap().1.accept();
        assert!(servers.iter().all(|(_, server)| server.is_idle()), "{path}");
    }
    for (path, status) in [("/ECHO", 404), ("/sub/echo", 404), ("/echo/x", 404), ("/echo%00", 400), ("/%ff", 400)] {
        assert_eq!(daemon.upgrade(path, &[]).status, status, "{path}");
    }
    let long = format!("/{}", "x".repeat(300));
    assert_eq!(daemon.upgrade(&long, &[]).status, 404, "a name longer than a file's may be");
}

/// The flags reach the rules, whose cases are in `route::names::tests`, and the rules see the folded name.
#[test]
pub fn allow_and_deny() {
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        (&[], &["/echo", "/internal"], &[]),
        (&["--allow", "^/ws_ , ^/echo$"], &["/ws_gps", "/sub/../%65cho"], &["/echo2", "/sub/echo", "/internal"]),
        (&["--deny", "^/internal"], &["/echo"], &["/internal", "/%69nternal", "//internal", "/sub/../internal"]),
        (&["--allow", "echo", "--deny", "^/sub"], &["/echo"], &["/sub/echo", "/internal"]),
    ];
    for (flags, accepted, refused) in cases {
        let daemon = Daemon::start(flags);
        let _servers =
            ["echo", "echo2", "internal", "ws_gps", "sub/echo", "sub/ws_gps"].map(|name| daemon.listen(name));
        for path in *accepted {
            assert_eq!(daemon.upgrade(path, &[]).status, 101, "{flags:?}: {path}");
        }
        for path in *refused {
            assert_eq!(daemon.upgrade(path, &[]).status, 403, "{flags:?}: {path}");
        }
    }
}

/// Every way from a request to a backend applies the rules, that of the empty name too.
#[test]
fn the_rules_apply_to_every_route_to_a_backend() {
    let link =
        |origin: &str| format!("{{ origin = \"{origin}\"; type = \"unix\"; destination = \"@/run/sub/echo\"; }}");
    let all = [link("^/$"), link("^/link$")].join(", ");
    // A path, the offered subprotocol, and the status.
    type Requests = &'static [(&'static str, &'static str, u16)];
    let cases: &[(&str, &str, Requests)] = &[
        (
            "deny = \"*\";",
            &all,
            &[("/", "", 403), ("/", "echo", 403), ("/link", "", 403), ("/sub", "echo", 403), ("/nosuch", "echo", 403)],
        ),
        ("deny = \"^/$\";", &all, &[("/", "", 403), ("/", "echo", 403), ("/link", "", 101), ("/x/..", "", 403)]),
        ("allow = \"^/link\";", &all, &[("/", "", 403), ("/", "link", 403), ("/link", "", 101), ("/echo", "", 403)]),
        ("allow = \"\";", &all, &[("/", "", 403), ("/link", "", 403), ("/", "echo", 403)]),
        ("deny = \"*\"; allow = \"^/$\"; denylast = true;", &all, &[("/", "", 101), ("/link", "", 403)]),
        // Without a link the root is where subprotocols name backends; the rules hold for each.
        ("deny = \"*\";", "", &[("/", "", 403), ("/", "echo", 403), ("/", "nosuch", 403)]),
        ("deny = \"^/$\";", "", &[("/", "", 403), ("/", "echo", 101), ("/sub", "echo", 101)]),
        ("allow = \"^/echo$\";", "", &[("/", "", 403), ("/", "echo", 101), ("/", "other", 403), ("/sub", "echo", 403)]),
        ("deny = \"^/sub/echo$\";", "", &[("/sub", "echo", 403), ("/sub", "nosuch", 404), ("/", "", 404)]),
    ];
    for (rules, links, requests) in cases {
        let daemon = Daemon::start_configured(&configuration("", &format!("{rules} links = ({links});")));
        let _servers = ["echo", "sub/echo"].map(|name| daemon.listen(name));
        for (path, offer, status) in *requests {
            let field = format!("Sec-WebSocket-Protocol: {offer}");
            let fields = if offer.is_empty() { vec![] } else { vec![field.as_str()] };
            let response = daemon.upgrade(path, &fields);
            assert_eq!(response.status, *status, "{rules} {links}: {path} offering {offer:?}");
        }
    }
}

#[test]
fn a_denied_name_reveals_nothing() {
    let daemon = Daemon::start(&["--deny", "^/internal"]);
    let _server = daemon.listen("internal");
    let [there, not_there] = ["/internal", "/internal2"].map(|path| {
        let response = daemon.upgrade(path, &[]);
        let head = response.head.replace(response.field("Date"), "");
        (head, response.body)
    });
    assert_eq!(there, not_there);
}

#[test]
pub fn symbolic_links_out_of_docroot_are_refused() {
    let daemon = Daemon::start(&[]);
    let outside = daemon.folder().path().join("outside");
    let secret = Listener::bind(&outside.join("secret"), Kind::Stream);
    let echo = daemon.listen("echo");
    let sub = daemon.listen("sub/echo2");
    for (link, target) in [
        ("absolute", outside.join("secret").to_str().unwrap()),
        ("relative", "../outside/secret"),
        ("parent", ".."),
        ("sub/relative", "../../outside/secret"),
        ("root", "/"),
        ("process", "/proc/self/root"),
    ] {
        symlink(target, daemon.socket(link)).unwrap();
    }
    for path in
        ["/absolute", "/relative", "/parent/outside/secret", "/sub/relative", "/root", "/process", "/parent/run/echo"]
    {
        assert_eq!(daemon.upgrade(path, &[]).status, 403, "{path}");
    }
    let response = daemon.upgrade("/parent", &["Sec-WebSocket-Protocol: secret"]);
    assert_eq!(response.status, 403);
    assert!(secret.is_idle() && echo.is_idle());
    for (link, target, server) in [
        ("inside", "echo", &echo),
        ("deeper", "sub/echo2", &sub),
        ("sub/up", "../echo", &echo),
        ("chain", "inside", &echo),
    ] {
        symlink(target, daemon.socket(link)).unwrap();
        let _client = daemon.connect(&format!("/{link}"));
        server.accept();
    }
}

#[test]
pub fn circular_symbolic_links_are_refused() {
    let daemon = Daemon::start(&[]);
    symlink("b", daemon.socket("a")).unwrap();
    symlink("a", daemon.socket("b")).unwrap();
    assert_eq!(daemon.upgrade("/a", &[]).status, 403);
}

#[test]
pub fn a_long_docroot_path_is_supported() {
    let folder = Folder::new();
    let docroot = folder.path().join("d".repeat(120)).join("e".repeat(200));
    let server = Listener::bind(&docroot.join("f".repeat(100)).join("echo"), Kind::Stream);
    let daemon = Daemon::start_in(folder, &["--docroot", docroot.to_str().unwrap()]);
    let mut client = daemon.connect(&format!("/{}/echo", "f".repeat(100)));
    client.text("hello");
    server.accept().expect(b"hello");
}

#[test]
pub fn a_socket_created_later_is_found() {
    let daemon = Daemon::start(&[]);
    assert_eq!(daemon.upgrade("/late", &[]).status, 404);
    let server = daemon.listen("late");
    let _client = daemon.connect("/late");
    server.accept();
}

#[test]
fn without_docroot_there_are_no_backends() {
    let folder = Folder::new();
    let www = folder.join("");
    let mut command = crate::daemon::uakari();
    command.args(["--listen", "127.0.0.1:0", "--www", &www]);
    let process = crate::process::Process::start(&mut command);
    let line = process.out.wait_for(&["listening on "]);
    let port = line.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(crate::wire::Wire::connect(port).upgrade("/echo", &[]).status, 404);
}
