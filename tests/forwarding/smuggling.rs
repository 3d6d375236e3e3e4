//! Requests that two readers could understand differently.

use std::net::Ipv4Addr;

use super::node::{Recorder, Seen, replies_in, start};
use crate::limits::stream_from;
use crate::process::expect_eq;
use crate::wire::Wire;

/// A request that must not be seen by a node.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: gate.example\r\n\r\n";
/// The last request of a connection.
const LAST: &str = "GET /last HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n\r\n";

/// A request of this method with these lines.
fn of(method: &str, lines: &str) -> String {
    format!("{method} /a HTTP/1.1\r\nHost: gate.example\r\n{lines}\r\n")
}

/// What is sent on one connection, the statuses of its replies, and the requests that the node sees: the method, the
/// target and the body of each. Those that end with dots are incomplete, and may be missing.
type Case = (String, &'static [u16], &'static [&'static str]);

#[test]
fn a_node_sees_each_valid_request_once() {
    let hidden_size = HIDDEN.len();
    let good: Vec<Case> = vec![
        (of("GET", "") + LAST, &[200, 200], &["GET /a", "GET /last"]),
        (of("POST", "Content-Length: 5\r\n") + "hello" + LAST, &[200, 200], &["POST /a hello", "GET /last"]),
        (of("GET", "Content-Length: 5\r\n") + "hello" + LAST, &[200, 200], &["GET /a hello", "GET /last"]),
        (of("DELETE", "Content-Length: 0\r\n") + LAST, &[200, 200], &["DELETE /a", "GET /last"]),
        (
            of("POST", "Transfer-Encoding: \tChunked \r\n") + "3;a=\"b;c\"\r\nabc\r\n2;x\r\nde\r\n000\r\n\r\n" + LAST,
            &[200, 200],
            &["POST /a abcde", "GET /last"],
        ),
        // The request in the body is a body.
        (
            of("POST", &format!("Content-Length: {hidden_size}\r\n")) + HIDDEN + LAST,
            &[200, 200],
            &["POST /a GET /hidden HTTP/1.1\\r\\nHost: gate.example\\r\\n\\r\\n", "GET /last"],
        ),
        (
            of("POST", "Transfer-Encoding: chunked\r\n") + &format!("{hidden_size:x}\r\n{HIDDEN}\r\n0\r\n\r\n") + LAST,
            &[200, 200],
            &["POST /a GET /hidden HTTP/1.1\\r\\nHost: gate.example\\r\\n\\r\\n", "GET /last"],
        ),
        // Connection cannot remove the framing (CVE-2022-31813 and its kind).
        (
            of("POST", "Content-Length: 5\r\nConnection: Content-Length, Host, keep-alive\r\n") + "hello" + LAST,
            &[200, 200],
            &["POST /a hello", "GET /last"],
        ),
        (
            of("POST", "Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n")
                + "1\r\nx\r\n0\r\n\r\n"
                + LAST,
            &[200, 200],
            &["POST /a x", "GET /last"],
        ),
        // Other spellings of framing are no framing, and not passed on.
        (
            of("POST", "Content_Length: 500\r\nTransfer_Encoding: chunked\r\nContent-Length: 2\r\n") + "hi" + LAST,
            &[200, 200],
            &["POST /a hi", "GET /last"],
        ),
        (
            of("POST", "Transfer-Encoding: chunked\r\n") + "0\r\nContent-Length: 50\r\nX-T: 1\r\n\r\n" + LAST,
            &[200, 200],
            &["POST /a", "GET /last"],
        ),
        // HTTP/2 over cleartext is not begun (the kind of CVE-2020-11984 and "h2c smuggling").
        (
            of("GET", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")
                + LAST,
            &[200, 200],
            &["GET /a", "GET /last"],
        ),
    ];
    let refused = |lines: &str, rest: &str| of("POST", lines) + rest + HIDDEN;
    let mut bad: Vec<Case> = Vec::new();
    for lines in [
        // CL.TE and TE.CL.
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: identity\r\n",
        // Two lengths.
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length : 5\r\n",
        // TE.TE.
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: x, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding: chunk\x00ed\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        // Folded lines.
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length: 1\r\n\t5\r\n",
        // Two hosts, and names that are none.
        "Host: other.example\r\n",
        "X\x00: y\r\n",
        ": y\r\n",
        "X(y): z\r\n",
    ] {
        bad.push((refused(lines, ""), &[400], &[]));
    }
    for body in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3 x\r\nabc\r\n0\r\n\r\n",
        "3;\n\r\nabc\r\n0\r\n\r\n",
        "3;x\ry\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n folded\r\n\r\n",
    ] {
        bad.push((refused("Transfer-Encoding: chunked\r\n", body), &[400], &["POST /a ...", "POST /a abc ..."]));
    }
    for size in ["ffffffffffffffff", "8000000000000000", "00000000000000000000000000000000000000003"] {
        let body = format!("{size}\r\nabc\r\n0\r\n\r\n");
        bad.push((refused("Transfer-Encoding: chunked\r\n", &body), &[413], &["POST /a ..."]));
    }
    for start in [
        "GET /a HTTP/1.1\nHost: gate.example\n\n",
        "GET /a HTTP/1.1\r\nHost: gate.example\n\r\n",
        "GET /a\r\n\r\n",
        "GET  /a HTTP/1.1\r\nHost: gate.example\r\n\r\n",
        "GET /a HTTP/1.1 \r\nHost: gate.example\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: gate.example\r\n\r\n",
        "GET /a HTTP/1.1\r\n\r\n",
        "GET http://other.example/a HTTP/1.1\r\nHost: gate.example\r\n\r\n",
        "GET /a HTTP/1.1\r\n Host: gate.example\r\n\r\n",
        "POST /a HTTP/1.0\r\nHost: gate.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: gate.example\r\n\r\n",
        "\r\n\r\nGET /a HTTP/1.1\r\nHost: gate.example\r\n\r\n",
    ] {
        bad.push((start.to_owned() + HIDDEN, &[400], &[]));
    }
    bad.push(("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned() + HIDDEN, &[505], &[]));
    let node = Recorder::start();
    let daemon = start(node.port);
    let cases: Vec<Case> = good.into_iter().chain(bad).collect();
    // Each case has an address, by which the node knows it.
    let address = |number: usize| Ipv4Addr::new(127, 0, 1, number as u8);
    for (number, (bytes, statuses, _)) in cases.iter().enumerate() {
        let mut wire = Wire::new(stream_from(address(number), daemon.port, None));
        wire.send(bytes);
        let replies = replies_in(&wire.take_rest());
        // 501 is that of a coding that is not known.
        let status = |(status, _): &(u16, String)| if *status == 501 { 400 } else { *status };
        let got: Vec<u16> = replies.iter().map(status).collect();
        expect_eq(&got[..], statuses, format!("case {number}: {}", bytes.as_bytes().escape_ascii()));
    }
    let all = node.finish(daemon);
    for (number, (bytes, statuses, expected)) in cases.iter().enumerate() {
        let shown = format!("case {number}: {}", bytes.as_bytes().escape_ascii());
        let client = address(number).to_string();
        let seen: Vec<&Seen> = all.iter().filter(|seen| seen.all("x-forwarded-for") == [&*client]).collect();
        for one in &seen {
            let head = one.head.to_lowercase();
            assert!(!["h2c", "http2", "_", "\nconnection"].iter().any(|word| head.contains(word)), "{shown}: {one:?}");
            assert!(!one.trailers.contains("Length"), "{shown}: {one:?}");
            expect_eq(one.all("host"), vec!["gate.example"], &shown);
        }
        let seen: Vec<String> = seen.into_iter().map(Seen::shown).collect();
        if statuses[0] == 200 {
            expect_eq(seen, expected.iter().map(|line| (*line).to_owned()).collect(), &shown);
        } else {
            let is_known = |one: &String| expected.contains(&&**one);
            assert!(seen.len() < 2 && seen.iter().all(is_known), "{shown}: {seen:?}");
        }
    }
    let is_of_case = |seen: &Seen| seen.all("x-forwarded-for").concat().starts_with("127.0.1.");
    assert!(all.iter().all(is_of_case), "a request of nobody: {all:?}");
}

/// Names of the client, of its user and of its request are the gateway's alone to tell.
#[test]
fn fields_that_lie_do_not_reach_a_node() {
    let node = Recorder::start();
    let daemon = start(node.port);
    let lies = "X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded-User: 6.6.6.6\r\n\
        X_Forwarded_User: 6.6.6.6\r\nx-forwarded_user: 6.6.6.6\r\nX-Forwarded-Groups: 6.6.6.6\r\n\
        X-Forwarded-Host: 6.6.6.6\r\nX-Forwarded-Prefix: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n\
        Forwarded: for=6.6.6.6\r\nTrue-Client-IP: 6.6.6.6\r\nProxy: 6.6.6.6\r\nProxy-Authorization: 6.6.6.6\r\n\
        X-Original-URL: /6.6.6.6\r\nX-Rewrite-URL: /6.6.6.6\r\nKeep-Alive: 6.6.6.6\r\nTE: 6.6.6.6\r\n\
        X-Named: 6.6.6.6\r\nX-Kept: 7.7.7.7\r\n";
    for connection in [
        "close, X-Named",
        "close, X-Named, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Host, Via",
        "X-NAMED,close,,x-forwarded-for",
    ] {
        let mut wire = daemon.wire();
        wire.send(of("GET", &format!("{lies}Connection: {connection}\r\n")));
        expect_eq(wire.response().status, 200, connection);
        wire.expect_end();
    }
    let seen = node.finish(daemon);
    assert_eq!(seen.len(), 3);
    for one in seen {
        assert!(!one.head.contains("6.6.6.6"), "{one:?}");
        for (name, value) in [
            ("Host", "gate.example"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "gate.example"),
            ("X-Kept", "7.7.7.7"),
            ("Via", "1.1 uakari"),
        ] {
            expect_eq(one.all(name), vec![value], &one);
        }
    }
}

/// A request in a loop ends.
#[test]
fn a_loop_is_noticed() {
    let node = Recorder::start();
    let daemon = start(node.port);
    let mut wire = daemon.wire();
    wire.send(of("GET", &"Via: 1.1 uakari\r\n".repeat(11)));
    expect_eq(wire.response().status, 508, "the status of a loop");
    assert_eq!(node.finish(daemon), []);
}
