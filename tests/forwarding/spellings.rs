//! Rules about paths, and other spellings of them.

use super::node::{Recorder, gateway, reply, start_in};
use crate::process::{Folder, expect_eq};
use crate::wire::{handshake, request};

/// A password for names below /admin and a denied folder, whose node answers every path.
const KEYS: &str =
    "paths = ({ path = \"^/admin\"; auth = { type = \"basic\"; user = \"bob\"; passwd = \"secret\"; }; },
    { path = \"^/ws/admin\"; auth = { type = \"basic\"; user = \"bob\"; passwd = \"secret\"; }; });";

/// A node may compare paths without their case, drop parameters, decode twice or resolve dots: it gets nothing that it
/// could take for a protected path.
#[test]
fn no_spelling_of_a_path_leads_to_a_node() {
    let node = Recorder::start();
    let daemon = start_in(Folder::new(), &gateway(node.port, "", KEYS, ""));
    for path in [
        "/admin",
        "/admin/",
        "/admin/page",
        "/ADMIN",
        "/Admin/page",
        "/%41DMIN/page",
        "/%61dmin",
        "/admin;x",
        "/admin;x/page",
        "/adm;x/../admin/page",
        "/;x/admin",
        "//admin",
        "///admin/page",
        "/./admin",
        "/%2e/admin",
        "/%2E%2e/admin",
        "/open/../admin",
        "/open/..;/admin",
        "/open/%2e%2e;x/admin",
        "/open/..%2fadmin",
        "/open/..%5cadmin",
        "/open\\..\\admin",
        "/admin%2f..",
        "/admin%2fpage",
        "/admin%00",
        "/open/%2e%2e%2fadmin",
        "/admin/../open/../admin",
        "/admin?x=/open",
        "/admin/..;/open",
        "/%c0%ae%c0%ae/admin",
        "http://gate.example/admin",
        "http://gate.example//admin",
    ] {
        for method in ["GET", "POST", "HEAD", "get"] {
            let mut wire = daemon.wire();
            wire.send(request(method, path, &["Connection: close"]));
            let response = wire.response_head();
            assert!([400, 401, 403, 404, 405].contains(&response.status), "{method} {path}: {response:?}");
        }
        if path.starts_with('/') {
            let mut wire = daemon.wire();
            wire.send(handshake(&format!("/ws{path}"), &[], &[]));
            let response = wire.response_head();
            assert!([400, 401, 403, 404].contains(&response.status), "/ws{path}: {response:?}");
        }
    }
    // The user and those paths that are another one for every node.
    let known = "Authorization: Basic Ym9iOnNlY3JldA==";
    for (path, field) in [("/admin/page", known), ("/public/admin", "X: y"), ("/adm", "X: y"), ("/x;admin", "X: y")] {
        let mut wire = daemon.wire();
        wire.send(request("GET", path, &[field, "Connection: close"]));
        expect_eq(wire.response().status, 200, path);
    }
    let seen = node.finish(daemon);
    let pages: Vec<&str> = seen.iter().map(|seen| seen.line().split(' ').nth(1).unwrap()).collect();
    expect_eq(pages, vec!["/admin/page", "/public/admin", "/adm", "/x;admin"], "what the node has seen");
    let admin = &seen.iter().find(|seen| seen.line().contains("/admin/page")).unwrap();
    expect_eq((admin.all("x-forwarded-user"), admin.all("authorization")), (vec!["bob"], vec![]), "the user");
}

/// A Location never leads to another host than the node's own.
#[test]
fn redirections_of_a_node() {
    for (location, expected) in [
        ("/b/x", "/app/x"),
        ("/b", "/app"),
        ("/other", "/other"),
        ("//evil.example/b/", "//evil.example/b/"),
        ("https://evil.example/b/x", "https://evil.example/b/x"),
        ("http://NODE/b/x?y#z", "/app/x?y#z"),
        ("http://gate.example/b/x", "/app/x"),
        ("/b//evil.example", "/app//evil.example"),
        ("/b/\\evil.example", "/app/\\evil.example"),
        ("http://NODE//evil.example/", "http://NODE//evil.example/"),
        ("http://NODE@evil.example/b/", "http://NODE@evil.example/b/"),
    ] {
        let text = location.to_owned();
        let node = Recorder::answering(move |seen| {
            let own = seen.all("x-node").concat();
            reply(&format!("302 Found\r\nLocation: {}", text.replace("NODE", &own)), "").into_bytes()
        });
        let own = format!("127.0.0.1:{}", node.port);
        let text = gateway(node.port, "", "", "path = \"/b\";").replacen("\"^/\"", "\"^/app/\"", 1);
        let daemon = start_in(Folder::new(), &text);
        let mut wire = daemon.wire();
        wire.send(request("GET", "/app/page", &[&format!("X-Node: {own}")]));
        let response = wire.response();
        let expected = expected.replace("NODE", &own);
        assert_eq!((response.status, response.field("Location")), (302, &*expected), "{location}");
        let seen = node.finish(daemon);
        assert_eq!(seen[0].line(), "GET /b/page HTTP/1.1");
    }
    // With the whole name space at a path, "//" would lead to another host.
    let node = Recorder::answering(|_| reply("302 Found\r\nLocation: /app//evil.example", "").into_bytes());
    let text = gateway(node.port, "", "", "path = \"/app\";");
    let daemon = start_in(Folder::new(), &text);
    let mut wire = daemon.wire();
    wire.send(request("GET", "/page", &[]));
    assert_eq!(wire.response().field("Location"), "/evil.example");
}
