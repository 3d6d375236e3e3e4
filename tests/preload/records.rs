//! Clients with TLS in the kernel: records that are no payload, and the end of the stream.

use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use super::Server;
use crate::client::{BINARY, Client, Frame, PING, PONG, TEXT};
use crate::devices::is_readable;
use crate::direct_api;
use crate::handover::{give_secure, hand_over, sockaddr_in};
use crate::process::{DEADLINE, eventually, skipped};
use crate::records::{self, ALERT, CLOSE_NOTIFY, HANDSHAKE, NO_TLS, Route, secure_pair};
use crate::server::{Kind, connect};
use crate::wire::Wire;

impl Server {
    fn secure_client(&self, route: Route) -> Option<Client> {
        give_secure(&self.path, route)
    }
}

/// A client that sends payload, then these records and the end of its stream. None: the kernel has no TLS.
fn give_ending(path: &Path, route: Route, ends: &[(u8, &[u8])], speak: impl FnOnce(&mut Client)) -> Option<Client> {
    let (near, far) = secure_pair(route)?;
    let address = sockaddr_in(near.local_addr().unwrap());
    let mut client = Client::new(Wire::over_records(near));
    let give = || hand_over(&connect(path, Kind::Stream).unwrap(), &address, far.as_raw_fd());
    // A record that comes after the server's close resets the connection: several are sent before the server has it.
    let is_early = ends.len() > 1;
    if !is_early {
        give();
    }
    speak(&mut client);
    for (kind, bytes) in ends {
        records::send(client.wire.stream(), *kind, bytes).unwrap();
    }
    // The server may have closed the connection already.
    let _ = client.wire.stream().shutdown(Shutdown::Write);
    if is_early {
        give();
    }
    Some(client)
}

/// After payload: records of these types, then how the server's next two reads end, and the code that the client gets.
type Case = (&'static str, &'static [(u8, &'static [u8])], &'static str, u16);

const CASES: &[Case] = &[
    ("close_notify", &[(ALERT, CLOSE_NOTIFY)], "end, end", 1000),
    ("a fatal alert", &[(ALERT, &[2, 40])], "ECONNRESET, end", 1000),
    ("KeyUpdate", &[(HANDSHAKE, &[24, 0, 0, 1, 1])], "end, end", 1001),
    ("a handshake", &[(HANDSHAKE, &[1, 0, 0, 2, 3, 3])], "end, end", 1002),
    ("an unknown type", &[(99, &[7; 1000])], "end, end", 1002),
    ("two records", &[(ALERT, CLOSE_NOTIFY), (ALERT, &[2, 40])], "end, end", 1000),
];

/// Nothing but payload reaches the server, then the end, whatever it reads with.
#[test]
fn records_that_are_no_payload_end_the_stream() {
    const ROUTES: &[Route] = &[Route::Straight, Route::ByteByByte, Route::AtOnce, Route::BeforeUnreadable];
    for (way, routes) in [
        ("read", ROUTES),
        ("byte", &ROUTES[2..3]),
        ("nonblock", ROUTES),
        ("edge", ROUTES),
        ("peek", ROUTES),
        ("all", &ROUTES[..1]),
        ("truncate", &ROUTES[..1]),
        ("readv", &ROUTES[..1]),
        ("recvmsg", &ROUTES[..1]),
        ("recvmmsg", &ROUTES[..1]),
        ("poll", &ROUTES[..2]),
        ("select", &ROUTES[..1]),
    ] {
        let server = Server::patient("records", &[way]);
        for (name, ends, fate, code) in CASES {
            for route in routes {
                for messages in [&[][..], &["da", "", "ta"]] {
                    let what = format!("{way}, {name}, {route:?}, {messages:?}");
                    let before = server.process.out.text().lines().count();
                    let client = give_ending(&server.path, *route, ends, |client| {
                        for message in messages {
                            client.send(&[Frame::new(TEXT, message.as_bytes()), Frame::new(PING, b"")]);
                        }
                    });
                    let Some(mut client) = client else { return skipped(NO_TLS) };
                    let said = server.process.out.wait(|said| said.get(before).cloned()).expect("a line");
                    let payload = messages.concat();
                    let shown = if way == "truncate" { "" } else { &payload };
                    assert_eq!(said, format!("{} {shown}, {fate}", payload.len()), "{what}");
                    let mut frame = client.frame();
                    while frame.opcode == PONG {
                        frame = client.frame();
                    }
                    assert_eq!(frame.close_code().0, *code, "{what}");
                    assert!(!client.wire.fill(), "{what}");
                    assert_eq!(client.wire.end(), "the end of the stream", "{what}");
                }
            }
        }
    }
}

/// All that an echo server must do, with TLS.
fn expect_echo(mut client: Client, route: Route) {
    let size = if route == Route::Straight { 300 * 1024 } else { 1000u32 };
    let long: Vec<u8> = (0..size).map(|number| (number % 251) as u8).collect();
    for bytes in [&b"Hello"[..], &long] {
        client.binary(bytes);
        super::expect_data(&mut client, bytes);
    }
    super::split_frame(&mut client);
    for number in 0..20 {
        client.text(&number.to_string());
        super::expect_data(&mut client, number.to_string().as_bytes());
    }
    client.finish(1000);
}

#[test]
fn servers_of_all_kinds() {
    for name in ["select", "epoll", "threads", "forks"] {
        let server = Server::compiled(name, &[]);
        for route in [Route::Straight, Route::ByteByByte] {
            let Some(client) = server.secure_client(route) else { return skipped(NO_TLS) };
            expect_echo(client, route);
            let mut client = server.secure_client(route).unwrap();
            client.send(&[Frame::new(TEXT, b"\xff")]);
            client.expect_close(1007);
            client.wire.expect_end();
        }
        server.expect_plain_echo();
    }
}

/// A server that ends a conversation announces it before the end of the stream, unless it was killed.
#[test]
fn the_end_is_announced() {
    for (call, code) in [("shutdown", Some(1000)), ("exit", Some(1000)), ("both", Some(1000)), ("crash", None)] {
        let server = Server::patient("calls", &[call]);
        let Some(mut client) = server.secure_client(Route::Straight) else { return skipped(NO_TLS) };
        if call == "shutdown" {
            super::expect_data(&mut client, b"bye");
        }
        match code {
            Some(code) => {
                client.expect_close(code);
                client.wire.expect_end();
            }
            None => {
                assert!(!client.wire.fill());
                assert_eq!(client.wire.end(), "an end without close_notify");
            }
        }
    }
    // The server closes last, after another process of its own.
    for call in ["child", "parent"] {
        let server = Server::patient("calls", &[call]);
        let mut client = server.secure_client(Route::Straight).unwrap();
        client.text("to be read");
        client.finish(4000);
    }
}

/// A server that closes with a full buffer: the kernel drops no record that a blocking call has written.
#[test]
fn messages_before_the_end_are_not_lost() {
    let preloaded = Server::patient("records", &["speak"]);
    let own = direct_api::Server::start_program("speak", &[], &[]);
    for (path, process) in [(preloaded.path.clone(), &preloaded.process), (own.path(), &own.process)] {
        for count in 1..=20 {
            let Some(mut client) = give_secure(&path, Route::Straight) else { return skipped(NO_TLS) };
            let spoken = |lines: &[String]| lines.iter().filter(|line| line.contains("spoken")).nth(count - 1).cloned();
            // A blocking call may wait until the client reads.
            eventually("the buffer is full", || {
                is_readable(client.wire.stream()) && process.state() == 'S'
                    || process.out.wait_within(Duration::ZERO, spoken).is_some()
            });
            let size = client.rest_size();
            let line = process.out.wait(spoken).unwrap();
            assert_eq!(line, format!("spoken {size}"), "{}, client {count}", path.display());
        }
    }
}

/// The same without the library: Rust and C programs that speak WebSocket themselves.
#[test]
fn programs_that_speak_websocket() {
    let rust = Server::start_alone(|folder, _| {
        let mut command = std::process::Command::new(crate::daemon::program("websocket_echo"));
        command.arg("-R").arg(folder.join("run")).args(["-n", "server", "--direct"]);
        command
    });
    let c = direct_api::Server::start(&[]);
    for path in [&rust.path, &c.path()] {
        for route in [Route::Straight, Route::ByteByByte] {
            let Some(client) = give_secure(path, route) else { return skipped(NO_TLS) };
            expect_echo(client, route);
            let mut client = give_secure(path, route).unwrap();
            client.send(&[Frame::new(BINARY, b""), Frame { rsv: 4, ..Frame::new(TEXT, b"") }]);
            client.expect_binary(b"");
            client.expect_close(1002);
            client.wire.expect_end();
        }
        for (name, ends, _, code) in CASES {
            for route in [Route::Straight, Route::ByteByByte, Route::AtOnce, Route::BeforeUnreadable] {
                let what = format!("{}, {name}, {route:?}", path.display());
                let mut client = give_ending(path, route, ends, |client| client.text("data")).unwrap();
                client.expect_text("data");
                if *code > 1000 {
                    client.expect_close(*code);
                }
                assert_eq!(client.wire.take_rest(), b"", "{what}");
                assert_eq!(client.wire.end(), "the end of the stream", "{what}");
            }
        }
    }
    c.says(&["end: -5003"]);
    c.says(&["end: -104"]);
    let mut c = c;
    let mut client = give_secure(&c.path(), Route::Straight).unwrap();
    client.text("still there");
    client.expect_text("still there");
    c.process.signal(nix::sys::signal::Signal::SIGTERM);
    client.expect_close_handshake(1001);
    assert!(c.process.wait(DEADLINE).status.success());
}
