//! The chat: its commands for clients of each kind, and what one member can do to the others.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::{Client, Frame, TEXT};
use crate::daemon::{Daemon, program, project, start_sample};
use crate::foreign::{self, SCRIPT_TIME, tool, tools};
use crate::handover::{hand_over, sockaddr_in, tcp_pair};
use crate::preload::PATIENT;
use crate::process::{DEADLINE, Finished, Folder, Process, eventually, run};
use crate::server::{Backend, Kind, connect, listens};
use crate::wire::Wire;

/// Many members.
mod crowd;

/// How members reach the chat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Through the gateway, with this protocol.
    Proxied(&'static str),
    /// Handed over, to a chat that speaks WebSocket.
    Direct,
    /// Handed over, to a chat under libwebsocket.so.
    Preloaded,
}

/// The ways that keep the borders of messages.
pub const BORDERS: [Way; 5] =
    [Way::Proxied("packet"), Way::Proxied("lines"), Way::Proxied("nul"), Way::Proxied("frames"), Way::Direct];
/// The ways on which each receive is a message.
pub const RECEIVES: [Way; 2] = [Way::Proxied("stream"), Way::Preloaded];

/// The gateway and the chat. The chat is dropped first.
pub struct Room {
    pub chat: Process,
    pub daemon: Daemon,
    way: Way,
    options: Vec<String>,
}

impl Room {
    /// Starts both; `options` are the chat's.
    pub fn open(way: Way, options: &[&str]) -> Room {
        Room::open_with(way, options, &[])
    }

    /// As `open`, with more flags for the gateway.
    pub fn open_with(way: Way, options: &[&str], flags: &[&str]) -> Room {
        let mine = match way {
            Way::Proxied(protocol) => vec!["--protocol", protocol, "--hello"],
            Way::Direct | Way::Preloaded => vec!["--options", "direct"],
        };
        let daemon = Daemon::start(&[&mine, flags].concat());
        let theirs = match way {
            Way::Proxied(_) => mine,
            Way::Direct => vec!["--direct"],
            Way::Preloaded => vec![],
        };
        let options: Vec<String> = theirs.iter().chain(options).map(|option| (*option).to_owned()).collect();
        let chat = start_chat(&daemon, "chat", way, &options);
        Room { chat, daemon, way, options }
    }

    /// A second chat with the same options, except that it takes no commands.
    pub fn without_commands(&self, name: &str) -> Process {
        let options: Vec<String> = self.options.iter().filter(|option| *option != "-w").cloned().collect();
        start_chat(&self.daemon, name, self.way, &options)
    }

    /// Ends the chat, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.chat = start_chat(&self.daemon, "chat", self.way, &self.options);
    }

    /// Ends the chat, which must succeed.
    pub fn stop(&mut self) {
        self.chat.signal(Signal::SIGTERM);
        let Finished { status, err, .. } = self.chat.wait(DEADLINE);
        assert!(status.success(), "{status}: {err}");
    }

    /// No member was dropped.
    pub fn expect_none_dropped(&self) {
        let said = self.chat.err.text();
        assert!(!said.contains("dropped"), "{said}");
    }

    /// A member without a name.
    pub fn enter(&self) -> Client {
        self.daemon.connect("/chat")
    }

    /// A member with this name, which is free.
    pub fn member(&self, name: &str) -> Client {
        let mut member = self.enter();
        member.text(&format!("WSHello {name}"));
        hear(&mut member, &format!("WSWelcome {name}"));
        member
    }
}

fn start_chat(daemon: &Daemon, name: &str, way: Way, options: &[String]) -> Process {
    let mut command = Command::new(program("websocket_chat"));
    if way == Way::Preloaded {
        // It learns the addresses of its members from accept(2), which waits for a slow gateway.
        command.env("LD_PRELOAD", program("libwebsocket.so")).envs([PATIENT]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    start_sample(command, &daemon.socket(name), &options)
}

/// The next message, text or binary.
fn heard(member: &mut Client) -> String {
    String::from_utf8(member.message().1).unwrap()
}

fn hear(member: &mut Client, text: &str) {
    assert_eq!(heard(member), text);
}

/// Sends a text for which the member is dropped, maybe before it has sent all.
fn say_too_much(member: &Client, text: &str) {
    let _ = member.wire.stream().write_all(&Frame::new(TEXT, text.as_bytes()).masked().bytes());
}

fn goodbye(name: &str) -> String {
    format!("{{\"type\":\"goodbye\",\"id\":\"{name}\",\"data\":\"goodbye\"}}")
}

#[test]
fn every_command_in_every_protocol() {
    for way in BORDERS.into_iter().chain(RECEIVES) {
        let room = Room::open(way, &["-w"]);
        let (mut alice, mut bob, mut carol) = (room.member("alice"), room.member("bob"), room.member("carol"));
        alice.text("hello, all");
        hear(&mut bob, "hello, all");
        hear(&mut carol, "hello, all");
        bob.text("WSPrivate alice only for you, Gr\u{fc}\u{df}e");
        // Alice does not receive her own message, and Carol not the private one.
        hear(&mut alice, "only for you, Gr\u{fc}\u{df}e");
        bob.text("WSWhois alice");
        hear(&mut bob, "WSIs alice 127.0.0.1");
        bob.text("WSWhois nobody");
        hear(&mut bob, "WSIs nobody undefined");
        if BORDERS.contains(&way) {
            bob.text("WSPrivate nobody is there");
        }
        bob.text("WSWhois bob");
        hear(&mut bob, "WSIs bob 127.0.0.1");
        carol.finish(1000);
        hear(&mut alice, &goodbye("carol"));
        hear(&mut bob, &goodbye("carol"));
        alice.text("WSWhois carol");
        hear(&mut alice, "WSIs carol undefined");
    }
}

/// The gateway may be delayed between connect(2) and the hand-over. The chat serves others meanwhile.
#[test]
fn a_late_hand_over() {
    let room = Room::open(Way::Direct, &["-w"]);
    let late = (0..10).find_map(|_| {
        let (near, far) = tcp_pair();
        let start = Instant::now();
        let connection = connect(&room.daemon.socket("chat"), Kind::Stream).unwrap();
        // A later member is served: so the connection was accepted.
        room.member("alice").finish(1000);
        if start.elapsed() >= Duration::from_secs(3) {
            eprintln!("the chat gives up a connection that is silent for 5 s: once more");
            return None;
        }
        hand_over(&connection, &sockaddr_in(near.local_addr().unwrap()), far.as_raw_fd());
        Some(Client::new(Wire::new(near)))
    });
    let mut late = late.expect("another member is served within 3 s of a silent connection");
    late.text("WSHello bob");
    hear(&mut late, "WSWelcome bob");
}

#[test]
fn without_w_commands_are_broadcast() {
    for way in BORDERS {
        let room = Room::open(way, &[]);
        let (mut one, mut other, mut third) = (room.enter(), room.enter(), room.enter());
        // Once the last one is heard, all three are members.
        third.text("WSHello alice");
        hear(&mut one, "WSHello alice");
        hear(&mut other, "WSHello alice");
        // Members without a name leave without a goodbye.
        third.finish(1000);
        one.text("WSIs bob 192.0.2.1");
        hear(&mut other, "WSIs bob 192.0.2.1");
    }
}

#[test]
fn an_unknown_address() {
    let daemon = Daemon::start(&["--protocol", "lines"]);
    let options = ["-w", "--protocol", "lines"].map(str::to_owned);
    let _chat = start_chat(&daemon, "chat", Way::Proxied("lines"), &options);
    let mut alice = daemon.connect("/chat");
    alice.text("WSHello alice");
    hear(&mut alice, "WSWelcome alice");
    alice.text("WSWhois alice");
    hear(&mut alice, "WSIs alice network error");
}

#[test]
fn names_are_unique() {
    let room = Room::open(Way::Proxied("packet"), &["-w"]);
    let mut first = room.member("alice");
    let mut second = room.enter();
    for (wanted, given) in [("alice", "alice001"), ("alice001", "alice001"), ("alice", "alice001"), ("bob", "bob")] {
        second.text(&format!("WSHello {wanted}"));
        hear(&mut second, &format!("WSWelcome {given}"));
    }
    // A new name frees the old one.
    hear(&mut first, &goodbye("alice001"));
    let mut third = room.enter();
    third.text("WSHello alice");
    hear(&mut third, "WSWelcome alice001");
    third.text("WSPrivate bob for you alone");
    hear(&mut second, "for you alone");
    // Empty names are not answered, and long names are cut.
    for nothing in ["WSHello ", "WSHello  alice", "WSHello \t"] {
        third.text(nothing);
    }
    third.text(&format!("WSHello {}", "n".repeat(1000)));
    hear(&mut third, &format!("WSWelcome {}", "n".repeat(64)));
}

#[test]
fn members_cannot_impersonate_the_server() {
    let room = Room::open(Way::Direct, &["-w"]);
    let (mut eve, mut bob) = (room.member("eve"), room.member("bob"));
    for forged in
        ["WSWelcome mallory", "WSIs eve 192.0.2.1", "hello\nWSWelcome mallory", "WSPrivate bob WSWelcome mallory"]
    {
        eve.text(forged);
    }
    eve.text("an honest word");
    hear(&mut bob, "an honest word");
}

#[test]
fn markup_is_escaped() {
    let room = Room::open(Way::Proxied("frames"), &["-w"]);
    let mut bob = room.member("bob");
    let name = r#""><img/src=x/onerror=alert(1)>\"#;
    let mut eve = room.member(name);
    eve.text("<script>alert(1)</script>");
    hear(&mut bob, "<script>alert(1)</script>");
    eve.finish(1000);
    hear(&mut bob, r#"{"type":"goodbye","id":"\"><img/src=x/onerror=alert(1)>\\","data":"goodbye"}"#);
}

#[test]
fn types_and_empty_messages() {
    for way in [Way::Proxied("frames"), Way::Direct] {
        let room = Room::open(way, &["-w"]);
        let (mut alice, mut bob) = (room.member("alice"), room.member("bob"));
        alice.binary(b"\xff\x01");
        alice.text("");
        alice.send(&[Frame::part(TEXT, b"in "), Frame::new(0, b"parts")]);
        bob.expect_binary(b"\xff\x01");
        bob.expect_text("in parts");
    }
    // An empty packet is not the end of the connection.
    let room = Room::open(Way::Proxied("packet"), &["-w"]);
    let (mut alice, mut bob) = (room.member("alice"), room.member("bob"));
    alice.text("");
    alice.text("still here");
    bob.expect_text("still here");
}

#[test]
fn messages_up_to_the_limit() {
    let (kib, mib) = (1024, 1024 * 1024);
    for (way, size_max) in [
        (Way::Proxied("packet"), 64 * kib),
        (Way::Proxied("lines"), 64 * kib),
        (Way::Proxied("nul"), 64 * kib),
        (Way::Proxied("frames"), mib),
        (Way::Direct, mib),
    ] {
        let room = Room::open(way, &["-w"]);
        let (mut alice, mut bob) = (room.member("alice"), room.member("bob"));
        let text = "x".repeat(size_max);
        alice.text(&text);
        assert!(heard(&mut bob) == text, "{way:?}");
        say_too_much(&alice, &format!("{text}y"));
        hear(&mut bob, &goodbye("alice"));
        bob.text("WSWhois alice");
        hear(&mut bob, "WSIs alice undefined");
        if matches!(way, Way::Direct | Way::Proxied("packet" | "frames")) {
            alice.expect_close(1009);
        }
    }
}

#[test]
fn a_member_that_does_not_read_is_disconnected_without_delaying_others() {
    for way in [Way::Proxied("packet"), Way::Proxied("frames"), Way::Direct, Way::Preloaded] {
        let room = Room::open(way, &["-w"]);
        let (mut alice, mut bob) = (room.member("alice"), room.member("bob"));
        let mute = room.member("mute");
        let text = "x".repeat(60_000);
        let mut count = 0;
        let last = loop {
            alice.text(&text);
            count += 1;
            let mut got = heard(&mut bob);
            // Where each receive is a message, a long one comes in parts.
            while got.len() < text.len() && got != goodbye("mute") {
                got.push_str(&heard(&mut bob));
            }
            if got != text {
                break got;
            }
            assert!(count < 1_000, "{way:?}: the mute one is never dropped");
        };
        assert!(last.contains(&goodbye("mute")), "{way:?}: {}", &last[..200.min(last.len())]);
        hear(&mut alice, &goodbye("mute"));
        room.chat.err.wait_for(&["mute is dropped", "does not read"]);
        let peak_kib = room.chat.peak_kib();
        println!("{way:?}: dropped after {count} messages; the chat has had {peak_kib} KiB at most");
        assert!(peak_kib < 32 * 1024, "{way:?}: {peak_kib} KiB");
        drop(mute);
    }
}

#[test]
fn a_flood_delays_only_its_sender() {
    // A minute of it, of which a few seconds at most are heard.
    const FLOOD: usize = 60_000;
    for way in [Way::Proxied("lines"), Way::Direct] {
        let room = Room::open(way, &["-w"]);
        let (mut eve, mut alice, mut bob) = (room.member("eve"), room.member("alice"), room.member("bob"));
        let mut sender = eve.wire.stream().try_clone().unwrap();
        let sending = thread::spawn(move || {
            let frame = |number| Frame::new(TEXT, format!("flood {number}").as_bytes()).masked().bytes();
            sender.write_all(&(0..FLOOD).flat_map(frame).collect::<Vec<u8>>())
        });
        let mut flood = 0;
        loop {
            let text = heard(&mut bob);
            if text != format!("flood {flood}") {
                assert_eq!(text, "in between");
                break;
            }
            flood += 1;
            if flood == 100 {
                alice.text("in between");
            }
        }
        // Most of the flood is still to come.
        assert!(flood < FLOOD / 4, "{way:?}: after {flood} messages");
        hear(&mut eve, "in between");
        room.expect_none_dropped();
        // The rest is not sent.
        eve.wire.stream().shutdown(Shutdown::Both).unwrap();
        let _ = sending.join().unwrap();
    }
}

#[test]
fn members_beyond_the_limit_wait() {
    for way in [Way::Proxied("packet"), Way::Direct] {
        let room = Room::open(way, &["-w", "-m", "2"]);
        let (mut alice, mut bob) = (room.member("alice"), room.member("bob"));
        let mut carol = room.enter();
        carol.text("WSHello carol");
        for (speaker, listener) in [(0, 1), (1, 0)] {
            let both = &mut [&mut alice, &mut bob];
            both[speaker].text("two turns");
            hear(both[listener], "two turns");
        }
        carol.wire.stream().set_nonblocking(true).unwrap();
        let early = std::io::Read::read(&mut carol.wire.stream(), &mut [0]);
        assert!(early.is_err(), "{way:?}: the third member is served too early");
        carol.wire.stream().set_nonblocking(false).unwrap();
        alice.finish(1000);
        hear(&mut carol, "WSWelcome carol");
    }
}

#[test]
fn the_chat_restarts() {
    for (way, code) in [(Way::Proxied("packet"), 1000), (Way::Proxied("frames"), 1000), (Way::Direct, 1001)] {
        let mut room = Room::open(way, &["-w"]);
        let mut alice = room.member("alice");
        let ends = thread::spawn(move || {
            alice.expect_close_handshake(code);
        });
        room.restart();
        ends.join().unwrap();
        // The name is free again.
        room.member("alice");
    }
}

/// A member over its rate is not read for a moment. That it has closed is then found by a send that fails.
#[test]
fn a_member_that_disconnects_while_reading_is_paused() {
    const SAID: usize = 1_100;
    for way in [Way::Proxied("packet"), Way::Direct] {
        let room = Room::open(way, &["-w"]);
        let (mut eve, mut alice, mut bob) = (room.member("eve"), room.member("alice"), room.member("bob"));
        // She leaves it unread, so that the kernel resets her connection.
        alice.text("hello, all");
        hear(&mut bob, "hello, all");
        let frames: Vec<Frame> = (0..SAID).map(|n| Frame::new(TEXT, format!("{n}").as_bytes())).collect();
        eve.send(&frames);
        while heard(&mut bob) != "990" {}
        drop(eve);
        alice.text("are you still there?");
        // No further message is needed: both are notified.
        for member in [&mut alice, &mut bob] {
            while heard(member) != goodbye("eve") {}
        }
    }
}

/// A name may contain a terminal's control sequence, or a character that reverses the direction of writing.
#[test]
fn control_characters_are_escaped_in_the_log() {
    const LINE_SIZE_MAX: usize = 64 * 1024;
    let room = Room::open(Way::Proxied("lines"), &["-w"]);
    let eve = room.member("\u{9b}2J\u{202e}eve");
    say_too_much(&eve, &"x".repeat(LINE_SIZE_MAX + 1));
    room.chat.err.wait_for(&["\\u{9b}2J\\u{202e}eve is dropped"]);
}

/// Drives `www/webchat.html` in browsers, with a chat that is restarted on request of the script.
fn drive_page(way: Way, more: &[&str]) {
    tool("node_modules/playwright-core");
    let folder = Folder::new();
    // The page ends its messages with newlines: the only borders that libwebsocket.so leaves.
    let options = if way == Way::Preloaded { &["-w", "--protocol", "lines"][..] } else { &["-w"] };
    let mut room = Room::open_with(way, options, &["--www", project().join("www").to_str().unwrap()]);
    let _plain = room.without_commands("plain");
    let mut command = foreign::command("node");
    command.arg(project().join("tests/clients/chat.mjs")).arg(format!("http://127.0.0.1:{}", room.daemon.port));
    let shots = std::env::var("UAKARI_SCREENSHOTS").unwrap_or_else(|_| folder.join("screenshots"));
    let mut script = Process::start(command.arg(shots).args(more).env("UAKARI_TOOLS", tools()));
    let is_asked = |lines: &[String]| lines.iter().any(|line| line == "restart the chat").then_some(());
    // Otherwise the script has ended, and its output has the reason.
    if script.out.wait_within(SCRIPT_TIME, is_asked).is_some() {
        room.restart();
    }
    let finished = script.wait(SCRIPT_TIME);
    let (out, err) = (&finished.out, &finished.err);
    assert!(finished.status.success(), "{way:?}: {}:\n{out}\n{err}", finished.status);
    assert!(out.contains("ok - ") && !out.contains("not ok"), "{way:?}:\n{out}\n{err}");
    room.expect_none_dropped();
}

#[test]
#[ignore = "needs chromium"]
fn page_of_a_proxied_chat() {
    drive_page(Way::Proxied("packet"), &[]);
}

#[test]
#[ignore = "needs chromium"]
fn page_of_a_preloaded_chat() {
    drive_page(Way::Preloaded, &["talk"]);
}

/// How a sample server takes its place is tested with the echo server: both start by `server::start`.
#[test]
fn options() {
    let Finished { status, out, err } = chat(&["--help"]);
    assert!(status.success() && err.is_empty(), "{err}");
    for part in ["-R,", "-n,", "-u,", "-m,", "-D,", "-w,", "--mode", "--protocol", "--direct", "--hello"] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
    for (options, part) in
        [(&["--nonsense"][..], "--nonsense"), (&["-m", "0"], "-m 0"), (&["-n", "a/b"], "without a slash")]
    {
        let Finished { status, err, .. } = chat(options);
        assert_eq!((status.code(), err.lines().count()), (Some(1), 1), "{options:?}: {err}");
        assert!(err.starts_with("websocket_chat: ") && err.contains(part), "{options:?}: {err}");
    }
}

/// A member may connect without the gateway.
#[test]
fn members_of_one_socket() {
    let folder = Folder::new();
    let path = folder.path().join("websocket_chat");
    let _chat = Process::start(Command::new(program("websocket_chat")).arg("-R").arg(folder.path()));
    eventually("it listens under its own name", || listens(&path));
    let mut members = [(); 2].map(|()| Backend::new(connect(&path, Kind::Stream).unwrap()));
    // Once the later one is heard, both are members.
    members[1].send("hello");
    members[0].expect("hello");
    members[0].send("hello to you");
    members[1].expect("hello to you");
}

fn chat(options: &[&str]) -> Finished {
    run(Command::new(program("websocket_chat")).args(options), DEADLINE)
}
