//! Links: which link serves a name, UNIX and TCP backends, and the limits of a link.

mod addresses;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn};

use crate::client::{BINARY, Client, Frame, PING, PONG, TEXT};
use crate::daemon::{Daemon, patient};
use crate::process::{DEADLINE, Folder, close, uninterrupted};
use crate::server::{Backend, Kind, Listener};
use crate::wire::Wire;

/// A daemon with these keys of `websocket`; "@" stands for its folder.
pub fn configured(websocket: &str) -> Daemon {
    configured_in(Folder::new(), websocket)
}

/// As `configured`, in a folder that has files already.
pub fn configured_in(folder: Folder, websocket: &str) -> Daemon {
    let path = write_configuration(&folder, websocket);
    Daemon::start_in(folder, &["-f", &path])
}

/// Writes a configuration with these keys of `websocket`, and returns its path.
pub fn write_configuration(folder: &Folder, websocket: &str) -> String {
    let (limits, websocket) = (patient("drain-ms = 60000;"), websocket.replace('@', &folder.join("")));
    let text = format!("limits = {{ {limits} }}; servers = ({{ websocket = {{ {websocket} }}; }});");
    let path = folder.join("uakari.conf");
    std::fs::write(&path, text).unwrap();
    path
}

/// A link to a UNIX backend in the daemon's folder, with further keys.
fn unix_link(origin: &str, path: &str, more: &str) -> String {
    format!("{{ origin = \"{origin}\"; type = \"unix\"; destination = \"@/{path}\"; {more} }}")
}

/// The backend of a `unix_link`.
fn listen(daemon: &Daemon, path: &str) -> Listener {
    Listener::bind(&daemon.folder().path().join(path), Kind::Stream)
}

/// A daemon with one link to a UNIX backend, a client, and the backend's end of its connection.
fn connect(more: &str) -> (Daemon, Listener, Client, Backend) {
    let daemon = configured(&format!("links = ({});", unix_link("^/name$", "server", more)));
    let server = listen(&daemon, "server");
    let client = daemon.connect("/name");
    let backend = server.accept();
    (daemon, server, client, backend)
}

#[test]
pub fn a_socket_outside_docroot() {
    // Longer than the address of a socket may be.
    let long = format!("{}/server", "long".repeat(40));
    let links = [
        unix_link("^/near$", "server", ""),
        unix_link("^/far$", &long, "protocol = \"lines\";"),
        unix_link("^/packets$", "packets", "protocol = \"packet\";"),
        unix_link("^/linked$", "symbolic", ""),
    ];
    let daemon = configured(&format!("links = ({});", links.join(", ")));
    for (asked, path, kind, arrived) in [
        ("/near", "server", Kind::Stream, &b"text"[..]),
        ("/far", &long, Kind::Stream, b"text\n"),
        ("/packets", "packets", Kind::Packets, b"text"),
    ] {
        let server = Listener::bind(&daemon.folder().path().join(path), kind);
        let mut client = daemon.connect(asked);
        let mut backend = server.accept();
        client.text("text");
        backend.expect(arrived);
        backend.send(arrived);
        client.expect_text("text");
        client.finish(1000);
    }
    // A link's destination may be a symbolic link: the operator wrote it.
    let path = daemon.folder().path().join("symbolic");
    symlink("server2", &path).unwrap();
    let server = listen(&daemon, "server2");
    let _client = daemon.connect("/linked");
    server.accept();
}

#[test]
pub fn a_link_to_a_missing_socket() {
    let links = ["missing", "stale", "file", "folder/x"].map(|name| unix_link(&format!("^/{name}$"), name, ""));
    let daemon = configured(&format!("links = ({});", links.join(", ")));
    let path = |name: &str| daemon.folder().path().join(name);
    close(listen(&daemon, "stale"));
    std::fs::write(path("file"), "").unwrap();
    for (name, status, said) in [
        ("missing", 502, "No such file or directory"),
        ("stale", 502, "Connection refused"),
        ("file", 404, "not a socket"),
        ("folder/x", 502, "No such file or directory"),
    ] {
        assert_eq!(daemon.upgrade(&format!("/{name}"), &[]).status, status, "{name}");
        daemon.log().wait_for(&["warn", &format!("name=\"{name}\""), said]);
    }
}

#[test]
fn the_first_link_that_matches_serves_a_name() {
    let links =
        [unix_link("^/a$,^/b*z$", "first", ""), unix_link("^/b,c$", "second", ""), unix_link("docroot*x", "third", "")];
    let daemon = configured(&format!("deny = \"secret\"; links = ({});", links.join(", ")));
    let servers = ["first", "second", "third", "run/docroot"].map(|path| (path, listen(&daemon, path)));
    for (asked, path) in [
        ("/a", "first"),
        ("/b/c/z", "first"),
        ("/buzz?query", "first"),
        ("/b", "second"),
        ("/%62at", "second"),
        ("/abc", "second"),
        ("/docroot.x", "third"),
        ("/docroot", "run/docroot"),
    ] {
        let mut client = daemon.connect(asked);
        let (_, server) = servers.iter().find(|(name, _)| *name == path).unwrap();
        client.text(asked);
        server.accept().expect(asked);
        assert!(servers.iter().all(|(_, server)| server.is_idle()), "{asked}");
    }
    for (asked, status) in [("/A", 404), ("/", 404), ("/secret/a", 403), ("/b/secret", 403), ("/ab", 404)] {
        assert_eq!(daemon.upgrade(asked, &[]).status, status, "{asked}");
    }
}

#[test]
fn allow_and_deny_apply_to_links() {
    let links = format!("links = ({});", unix_link("*", "server", ""));
    for (rules, cases) in [
        ("allow = \"^/good\";", [("/good", 101), ("/goods", 101), ("/bad", 403), ("/good/bad", 101)]),
        ("deny = \"bad\";", [("/good", 101), ("/goods", 101), ("/bad", 403), ("/good/bad", 403)]),
        (
            "deny = \"*\"; allow = \"d$\"; denylast = true;",
            [("/good", 101), ("/goods", 403), ("/bad", 101), ("/b", 403)],
        ),
    ] {
        let daemon = configured(&format!("{rules} {links}"));
        let _server = listen(&daemon, "server");
        for (asked, status) in cases {
            assert_eq!(daemon.upgrade(asked, &[]).status, status, "{rules} {asked}");
        }
    }
}

#[test]
pub fn symbolic_links_out_of_docroot_where_they_are_followed() {
    for (options, status) in [("", 403), ("options = \"follow\";", 101)] {
        let daemon = configured(options);
        let _outside = listen(&daemon, "outside/server");
        symlink("../outside/server", daemon.socket("relative")).unwrap();
        symlink(daemon.folder().join("outside/server"), daemon.socket("absolute")).unwrap();
        symlink(daemon.folder().join("outside"), daemon.socket("folder")).unwrap();
        let _inside = daemon.listen("inside");
        symlink("inside", daemon.socket("within")).unwrap();
        for asked in ["/relative", "/absolute", "/folder/server"] {
            assert_eq!(daemon.upgrade(asked, &[]).status, status, "{options} {asked}");
        }
        assert_eq!(daemon.upgrade("/within", &[]).status, 101);
        // Names are still folded before they are looked up.
        assert_eq!(daemon.upgrade("/../outside/server", &[]).status, 404);
        // Magic links lead nowhere either.
        symlink("/proc/self/cwd", daemon.socket("magic")).unwrap();
        assert_eq!(daemon.upgrade("/magic/server", &[]).status, 403, "{options}");
    }
}

fn tcp_link(name: &str, destination: impl std::fmt::Display, more: &str) -> String {
    format!("{{ origin = \"^/{name}$\"; type = \"tcp\"; destination = \"{destination}\"; {more} }}")
}

#[test]
fn a_tcp_backend() {
    let (v4, v6) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0"));
    // Nobody listens there, and no other program can.
    let (_bound, gone) = bound_socket(Ipv4Addr::LOCALHOST);
    let mut links = vec![
        tcp_link("v4", v4.local_addr().unwrap(), ""),
        tcp_link("port", "127.0.0.1", &format!("port = {};", v4.local_addr().unwrap().port())),
        tcp_link("gone", gone, ""),
    ];
    let mut servers = vec![("/v4", &v4), ("/port", &v4)];
    match &v6 {
        Ok(v6) => {
            links.push(tcp_link("v6", v6.local_addr().unwrap(), ""));
            servers.push(("/v6", v6));
        }
        Err(_) => eprintln!("there is no IPv6 here; a server on it was not tried"),
    }
    let daemon = configured(&format!("links = ({});", links.join(", ")));
    for (asked, server) in servers {
        let mut client = daemon.connect(asked);
        let mut backend = Wire::new(server.accept().unwrap().0);
        let message = vec![7; 1_000_000];
        std::thread::scope(|scope| {
            scope.spawn(|| client.binary(&message));
            assert!(backend.take(message.len()) == message, "{asked}");
        });
        backend.send("welcome");
        client.expect_text("welcome");
        client.close(1000);
        backend.expect_end();
        client.expect_close(1000);
        client.wire.expect_end();
    }
    assert_eq!(daemon.upgrade("/gone", &[]).status, 502);
    daemon.log().wait_for(&["warn", "name=\"gone\"", "502", "Connection refused"]);
    // The backend closes, and the backend dies.
    for (dies, code) in [(false, 1000), (true, 1011)] {
        let mut client = daemon.connect("/v4");
        let (backend, _) = v4.accept().unwrap();
        if dies {
            // Unread bytes make the end a reset.
            client.text("unread");
            assert_eq!(uninterrupted(|| backend.peek(&mut [0; 6])).unwrap(), 6);
        }
        drop(backend);
        client.expect_close_handshake(code);
    }
}

/// A socket that has an address and does not listen.
fn bound_socket(ip: Ipv4Addr) -> (OwnedFd, SocketAddr) {
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(ip, 0))).unwrap();
    let address: SockaddrIn = socket::getsockname(fd.as_raw_fd()).unwrap();
    (fd, SocketAddr::V4(address.into()))
}

/// A listener with a full backlog, and what fills it.
fn full_listener(ip: Ipv4Addr) -> (TcpListener, SocketAddr, Vec<TcpStream>) {
    let (fd, address) = bound_socket(ip);
    socket::listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let listener = TcpListener::from(fd);
    let mut all = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        all.push(stream);
        assert!(all.len() < 100, "the backlog of {address} has no end");
    }
    (listener, address, all)
}

#[test]
fn a_backend_that_does_not_answer_is_504() {
    let (_listener, address, _streams) = full_listener(Ipv4Addr::LOCALHOST);
    let links = [
        tcp_link("tcp", address, "limits = { connect-ms = 300; };"),
        unix_link("^/unix$", "server", "limits = { connect-ms = 300; };"),
        tcp_link("slow", address, ""),
    ];
    let mut daemon = configured(&format!("links = ({});", links.join(", ")));
    let path = daemon.folder().path().join("server");
    let _server = Listener::bind_with_backlog(&path, Kind::Stream, 0);
    let _only = crate::server::connect(&path, Kind::Stream).unwrap();
    for name in ["tcp", "unix"] {
        let since = Instant::now();
        assert_eq!(daemon.upgrade(&format!("/{name}"), &[]).status, 504, "{name}");
        let waited = since.elapsed();
        // The gateway's own limit is longer.
        assert!(waited >= Duration::from_millis(280) && waited < DEADLINE / 2, "{name}: {waited:?}");
        daemon.log().wait_for(&["warn", &format!("name=\"{name}\""), "504", "the backend does not accept"]);
    }
    // It does not delay the daemon's end.
    let mut waiting = daemon.wire();
    waiting.send(crate::wire::handshake("/slow", &[], &[]));
    daemon.get("/nosuch");
    daemon.stop();
    assert_eq!(waiting.response().status, 503);
}

#[test]
fn client_limits_of_a_link() {
    let links = [unix_link("^/two$", "server", "limits = { clients = 2; };"), unix_link("^/any$", "server", "")];
    let daemon = configured(&format!("links = ({});", links.join(", ")));
    let server = listen(&daemon, "server");
    let mut first = daemon.connect("/two");
    let _second = daemon.connect("/two");
    for _ in 0..3 {
        let refused = daemon.upgrade("/two", &[]);
        assert_eq!(refused.status, 503, "{refused:?}");
    }
    daemon.log().wait_for(&["warn", "503", "too many clients of this name"]);
    let _other = daemon.connect("/any");
    let backend = server.accept();
    drop(backend);
    first.expect_close_handshake(1000);
    let _third = daemon.connect("/two");
    assert_eq!(daemon.upgrade("/two", &[]).status, 503);
}

#[test]
fn size_limits_of_a_link() {
    let (_daemon, _server, mut client, mut backend) = connect("limits = { message-size = 1000; frame-size = 900; };");
    client.binary(&[7; 900]);
    backend.expect([7; 900]);
    client.send(&[Frame::part(BINARY, &[7; 600]), Frame::new(0, &[7; 400])]);
    backend.expect([7; 1000]);
    client.send(&[Frame::part(BINARY, &[7; 600]), Frame::new(0, &[7; 401])]);
    client.expect_close(1009);
    let (_daemon, _server, mut client, _backend) = connect("limits = { frame-size = 900; };");
    client.binary(&[7; 901]);
    client.expect_close(1009);
}

#[test]
fn timeouts_of_a_link() {
    let since = Instant::now();
    let (daemon, _server, mut client, mut backend) =
        connect("limits = { idle-ms = 400; ping-ms = 100; close-ms = 60000; };");
    // Pings and pongs do not count as activity.
    let closed = loop {
        let frame = client.frame();
        match frame.opcode {
            PING => client.send(&[Frame::new(PONG, &frame.payload)]),
            _ => break frame,
        }
    };
    assert_eq!(closed.close_code(), (1001, "idle for too long".to_owned()));
    assert!(since.elapsed() >= Duration::from_millis(380), "{:?}", since.elapsed());
    backend.expect_end();
    drop((client, backend));
    daemon.log().wait_for(&["idle for too long", "1001"]);

    let (_daemon, _server, mut client, _backend) = connect("limits = { ping-ms = 100; pong-ms = 60000; };");
    for _ in 0..3 {
        assert_eq!(client.frame(), Frame::new(PING, b""));
        client.send(&[Frame::new(PONG, b"")]);
    }

    let (daemon, _server, mut client, mut backend) = connect("limits = { ping-ms = 100; pong-ms = 1000; };");
    assert_eq!(client.frame(), Frame::new(PING, b""));
    // It does not answer the close, and the connection ends.
    client.wire.expect_end();
    backend.expect_end();
    drop(backend);
    daemon.log().wait_for(&["the client answered no ping", "1006"]);
}

#[test]
fn rate_limits_of_a_link() {
    let (_daemon, _server, mut client, mut backend) =
        connect("limits = { messages-per-second = 100; when-over = \"close\"; };");
    client.send(&vec![Frame::new(TEXT, b"x"); 100]);
    backend.expect("x".repeat(100));
    client.send(&vec![Frame::new(TEXT, b"x"); 150]);
    let reason = client.expect_close(1008);
    assert!(reason.contains("more a second"), "{reason}");

    let (_daemon, _server, mut client, mut backend) = connect("limits = { messages-per-second = 500; };");
    let since = Instant::now();
    // One receive is passed on at once; then the rate limits the client.
    client.send(&vec![Frame::new(TEXT, b"x"); 1000]);
    backend.expect("x".repeat(1000));
    for number in 0..10 {
        client.text(&number.to_string());
    }
    backend.expect("0123456789");
    assert!(since.elapsed() >= Duration::from_millis(950), "{:?}", since.elapsed());
    backend.send("still there");
    client.expect_text("still there");
    client.finish(1000);
}
