//! Pages and other plain requests.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, configuration};
use crate::process::{DEADLINE, eventually, uninterrupted};
use crate::wire::request;

/// The index page.
pub const INDEX: &str = "<!doctype html><title>index</title>";

/// A daemon with an index, a style sheet and a folder with an index.
pub fn daemon() -> Daemon {
    let daemon = Daemon::start(&[]);
    let www = daemon.folder().path().join("www");
    std::fs::create_dir_all(www.join("sub/empty")).unwrap();
    for (name, text) in [
        ("index.html", INDEX),
        ("style.css", "body {}"),
        ("empty.txt", ""),
        ("a b.txt", "blank"),
        ("sub/index.html", "inner"),
        ("sub/.well-known", "hidden"),
    ] {
        std::fs::write(www.join(name), text).unwrap();
    }
    std::fs::write(daemon.folder().join("secret.txt"), "secret").unwrap();
    daemon
}

/// Writes a page, and makes its folders.
pub fn put(daemon: &Daemon, name: &str, bytes: impl AsRef<[u8]>) {
    let path = daemon.folder().path().join("www").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Pseudorandom bytes.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

#[test]
pub fn files_and_their_media_types() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    for (path, status, content_type, body) in [
        ("/", 200, "text/html; charset=utf-8", INDEX),
        ("/index.html", 200, "text/html; charset=utf-8", INDEX),
        ("/?query=1", 200, "text/html; charset=utf-8", INDEX),
        ("/style.css", 200, "text/css; charset=utf-8", "body {}"),
        ("/%73tyle.css", 200, "text/css; charset=utf-8", "body {}"),
        ("/sub/../style.css", 200, "text/css; charset=utf-8", "body {}"),
        ("http://gate.example/style.css", 200, "text/css; charset=utf-8", "body {}"),
        ("/a%20b.txt", 200, "text/plain; charset=utf-8", "blank"),
        ("/empty.txt", 200, "text/plain; charset=utf-8", ""),
        ("/sub/", 200, "text/html; charset=utf-8", "inner"),
        ("/sub/.well-known", 200, "application/octet-stream", "hidden"),
    ] {
        let response = wire.get(path);
        let got = (response.status, response.field("Content-Type"), response.text());
        assert_eq!(got, (status, content_type, body.to_owned()), "{path}");
    }
    for path in ["/nosuch", "/sub/empty/", "/style.css/x", "/../secret.txt", "/%2e%2e/secret.txt", "/index.html/"] {
        let response = wire.get(path);
        assert_eq!(response.status, 404, "{path}: {response:?}");
        assert!(response.text().contains("404"), "{path}: {response:?}");
    }
}

#[test]
fn head_has_headers_and_no_body() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    for (path, status, size) in [("/", 200, INDEX.len().to_string()), ("/nosuch", 404, String::new())] {
        wire.send(request("HEAD", path, &[]));
        let response = wire.response_head();
        assert_eq!(response.status, status, "{response:?}");
        assert!(size.is_empty() || response.field("Content-Length") == size, "{response:?}");
    }
    // The next response follows, since no body was sent.
    assert_eq!(wire.get("/style.css").text(), "body {}");
}

#[test]
pub fn a_folder_without_slash_is_redirected() {
    let daemon = Daemon::start(&[]);
    for name in ["sub/empty/x", "a b/x", "caf\u{e9}/x", "50%/x", "evil.example/x", "index.html/x", "xindex.html/x"] {
        put(&daemon, name, "");
    }
    let mut wire = daemon.wire();
    for (path, location) in [
        ("/sub", "/sub/"),
        ("/sub?", "/sub/?"),
        ("/sub?a=1&b=%20?x/", "/sub/?a=1&b=%20?x/"),
        ("/sub?<\">", "/sub/?%3C%22%3E"),
        ("/x/../sub?y", "/sub/?y"),
        ("/sub/empty", "/sub/empty/"),
        ("/a%20b", "/a%20b/"),
        ("/caf%c3%a9?caf%c3%a9", "/caf%C3%A9/?caf%c3%a9"),
        ("/50%25", "/50%25/"),
        ("//evil.example?x", "/evil.example/?x"),
        ("/xindex.html", "/xindex.html/"),
        ("/index.html", "/index.html/"),
    ] {
        let response = wire.get(path);
        assert_eq!((response.status, response.field("Location")), (301, location), "{path}");
    }
    // The index is a folder, which is not redirected.
    assert_eq!((wire.get("/").status, wire.get("/x/..").status), (404, 404));
}

#[test]
pub fn hidden_names_are_not_served() {
    let daemon = Daemon::start(&[]);
    for name in [".htpasswd", ".git/config", "sub/.secret", "sub/.d/x", ".well-known/x", ".well-known/.x", "sub/x"] {
        put(&daemon, name, "found");
    }
    let mut wire = daemon.wire();
    for (path, status) in [
        ("/.htpasswd", 404),
        ("/%2ehtpasswd", 404),
        ("/./.htpasswd", 404),
        ("/.git", 404),
        ("/.git/", 404),
        ("/.git/config", 404),
        ("/sub/.secret", 404),
        ("/sub%2f.secret", 404),
        ("/sub/.d/x", 404),
        ("/.well-known/.x", 404),
        ("/.well-known/x", 200),
        ("/.git/../sub/x", 200),
        ("/sub/../.well-known/x", 200),
    ] {
        let response = wire.get(path);
        assert_eq!(response.status, status, "{path}: {response:?}");
    }
    // Folders are not listed.
    assert_eq!(wire.get("/sub/").status, 404);
}

#[test]
pub fn a_symbolic_link_out_of_the_folder_is_refused() {
    let daemon = daemon();
    let www = daemon.folder().path().join("www");
    symlink("../secret.txt", www.join("relative.txt")).unwrap();
    symlink(daemon.folder().join("secret.txt"), www.join("absolute.txt")).unwrap();
    symlink("..", www.join("parent")).unwrap();
    symlink("sub/index.html", www.join("inside.html")).unwrap();
    for path in ["/relative.txt", "/absolute.txt", "/parent/secret.txt"] {
        let response = daemon.get(path);
        assert_eq!(response.status, 403, "{path}: {response:?}");
        assert!(!response.text().contains("secret"), "{path}: {response:?}");
    }
    let response = daemon.get("/inside.html");
    assert_eq!((response.status, response.text().as_str()), (200, "inner"));
}

#[test]
pub fn only_regular_files_are_served() {
    let daemon = daemon();
    let path = daemon.folder().path().join("www/pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A FIFO without a writer does not block the daemon.
    assert_eq!(daemon.get("/pipe").status, 404);
}

#[test]
fn a_large_file_arrives_byte_for_byte() {
    let daemon = daemon();
    let bytes = noise(5 * 1024 * 1024 + 1);
    std::fs::write(daemon.folder().join("www/large.bin"), &bytes).unwrap();
    let mut wire = daemon.wire();
    for _ in 0..2 {
        let response = wire.get("/large.bin");
        assert_eq!((response.status, response.body.len()), (200, bytes.len()));
        assert!(response.body == bytes, "the bytes differ");
    }
}

#[test]
fn a_file_that_shrinks_ends_the_connection() {
    let daemon = daemon();
    let path = daemon.folder().join("www/shrinking.bin");
    // More than the sockets' buffers hold, so that the end is read after the cut.
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(64 * 1024 * 1024).unwrap();
    let mut wire = daemon.wire();
    wire.send(request("GET", "/shrinking.bin", &[]));
    let head = wire.response_head();
    assert_eq!(head.field("Content-Length"), (64 * 1024 * 1024).to_string());
    file.set_len(0).unwrap();
    assert!(wire.take_rest().len() < 64 * 1024 * 1024);
    daemon.log().wait_for(&["the file became shorter while it was sent"]);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    let paths = ["/style.css", "/nosuch", "/", "/sub", "/sub/"];
    wire.send(paths.map(|path| request("GET", path, &[])).concat());
    for (path, (status, body)) in
        paths.iter().zip([(200, "body {}"), (404, "404"), (200, INDEX), (301, ""), (200, "inner")])
    {
        let response = wire.response();
        assert_eq!(response.status, status, "{path}");
        assert!(response.text().starts_with(body), "{path}: {response:?}");
    }
}

#[test]
fn a_handshake_may_follow_a_request() {
    let daemon = daemon();
    let server = daemon.listen("echo");
    let mut wire = daemon.wire();
    assert_eq!(wire.get("/style.css").status, 200);
    assert_eq!(wire.upgrade("/echo", &[]).status, 101);
    server.accept();
}

#[test]
fn a_client_that_closes_after_its_requests_is_answered() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    wire.send(request("GET", "/style.css", &[]) + &request("GET", "/", &[]));
    wire.stream().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(wire.response().text(), "body {}");
    assert_eq!(wire.response().text(), INDEX);
    wire.expect_end();
}

#[test]
fn keep_alive_is_announced_and_honoured() {
    let daemon = daemon();
    for (version, fields, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
    ] {
        let mut wire = daemon.wire();
        wire.send(format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n"));
        let response = wire.response();
        assert_eq!(response.field("Connection"), if kept { "keep-alive" } else { "close" }, "{version} {fields:?}");
        match kept {
            true => assert_eq!(wire.get("/style.css").status, 200, "{version} {fields:?}"),
            false => wire.expect_end(),
        }
    }
}

#[test]
fn other_methods_are_refused() {
    let daemon = daemon();
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "options"] {
        let mut wire = daemon.wire();
        wire.send(request(method, "/", &[]));
        let response = wire.response();
        assert_eq!((response.status, response.field("Allow")), (405, "GET, HEAD, OPTIONS"), "{method}");
    }
}

#[test]
fn a_slow_head_times_out() {
    let daemon = Daemon::start_configured(&configuration("head-ms = 2000;", ""));
    expect_too_slow(&daemon, "GET / HTTP/1.1\r\nX: ");
}

/// A client of a daemon with `head-ms = 2000` begins with this and sends ten bytes a second, which do not extend its
/// time: it gets a 408.
pub fn expect_too_slow(daemon: &Daemon, begin: &str) {
    let least = Duration::from_millis(1_900);
    eventually("the client begins in time", || {
        let start = Instant::now();
        let mut wire = daemon.wire();
        wire.send(begin);
        let begun = start.elapsed();
        wire.stream().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let size = loop {
            match uninterrupted(|| wire.stream().peek(&mut [0])) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => break other.unwrap(),
            }
            assert!(start.elapsed() < DEADLINE / 2, "no answer after {:?}", start.elapsed());
            wire.send("x");
        };
        let waited = start.elapsed();
        if size == 0 && begun >= least {
            eprintln!("the client was silent for {begun:?}, which has no answer: once more");
            return false;
        }
        assert!(waited >= least, "{waited:?}");
        wire.stream().set_read_timeout(Some(DEADLINE)).unwrap();
        assert_eq!(wire.response().status, 408);
        wire.expect_end();
        true
    });
}

/// A refusal has a body, a reply to a HEAD has none (RFC 9110 section 9.3.2).
#[test]
fn a_refused_head_request_has_no_body() {
    let daemon = Daemon::start(&[]);
    for text in [
        "HEAD /%zz HTTP/1.1\r\nHost: h\r\n\r\n",
        "HEAD / HTTP/1.1\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "\r\nHEAD / HTTP/1.1\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx",
    ] {
        let mut wire = daemon.wire();
        wire.send(text);
        assert_eq!(wire.response_head().status, 400, "{text:?}");
        wire.expect_end();
    }
}
