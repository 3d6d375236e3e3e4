//! A server in a thread, on a real socket.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, MsgFlags, SockFlag, SockType, bind, listen, recv, send, socket};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// Far more than any step takes, even if a process is suspended.
const DEADLINE: Duration = Duration::from_secs(60);
/// A time for an answer that is never over.
const PATIENT_MS: u64 = 600_000;

/// The server's side: a listening socket in a folder.
struct Peer {
    folder: TempDir,
    /// Of any type.
    listener: UnixListener,
    has_packets: bool,
}

impl Peer {
    fn new(kind: SockType) -> Peer {
        let folder = tempfile::tempdir().unwrap();
        let listener = Peer::listener(&folder.path().join("decide"), kind);
        Peer { folder, listener, has_packets: kind == SockType::SeqPacket }
    }

    fn listener(path: &Path, kind: SockType) -> UnixListener {
        let listener = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        listen(&listener, Backlog::new(8).unwrap()).unwrap();
        listener.into()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("decide")
    }

    fn revoked(&self, user: &str) -> Report {
        Report::Revoked { server: self.path().into(), user: user.to_owned() }
    }

    fn start(&self, answer_ms: u64) -> (Server, Receiver<Report>) {
        let (sender, reports) = channel();
        (Server::start_with(&self.path(), answer_ms, move |report| drop(sender.send(report))).unwrap(), reports)
    }

    fn accept(&self) -> Connection {
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::try_from(DEADLINE).unwrap()), Ok(1), "a connection");
        let socket = OwnedFd::from(self.listener.accept().unwrap().0);
        Connection { socket, has_packets: self.has_packets, input: Vec::new() }
    }
}

struct Connection {
    socket: OwnedFd,
    has_packets: bool,
    input: Vec<u8>,
}

impl Connection {
    /// Waits for a question.
    fn wait(&self) {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::try_from(DEADLINE).unwrap()), Ok(1), "a question");
    }

    /// A question.
    fn receive(&mut self) -> Value {
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            self.wait();
            let count = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            assert!(count > 0, "the connection was closed");
            if self.has_packets {
                return serde_json::from_slice(&buffer[..count]).unwrap();
            }
            self.input.extend(&buffer[..count]);
        }
    }

    fn send(&self, bytes: &[u8]) {
        assert_eq!(send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL), Ok(bytes.len()));
    }

    fn send_message(&self, message: &Value) {
        let end = if self.has_packets { "" } else { "\n" };
        self.send(format!("{message}{end}").as_bytes());
    }

    /// Receives a question and answers it.
    fn answer_next(&mut self, result: Value) {
        let question = self.receive();
        self.answer(&question, result);
    }

    fn answer(&self, question: &Value, result: Value) {
        self.send_message(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }));
    }
}

fn question(id: u64) -> Question {
    Question { id, method: "GET".to_owned(), path: format!("/{id}"), ..Question::default() }
}

fn next(reports: &Receiver<Report>) -> Report {
    reports.recv_timeout(DEADLINE).unwrap()
}

/// The sentence of the next answer, which is that there is no decision.
fn unavailable(reports: &Receiver<Report>, expected: u64) -> String {
    match next(reports) {
        Report::Answer { id, verdict: Verdict::Unavailable { sentence } } if id == expected => sentence,
        other => panic!("{other:?}"),
    }
}

fn allowed(id: u64, user: &str) -> Report {
    let verdict = Verdict::Allow { user: user.to_owned(), groups: Vec::new(), until_ms: None, headers: Vec::new() };
    Report::Answer { id, verdict }
}

const KINDS: [SockType; 2] = [SockType::SeqPacket, SockType::Stream];

#[test]
fn questions_are_answered() {
    for kind in KINDS {
        let peer = Peer::new(kind);
        let (server, reports) = peer.start(PATIENT_MS);
        [1, 2, 3].iter().for_each(|id| server.ask(question(*id)));
        let mut connection = peer.accept();
        let questions = [connection.receive(), connection.receive(), connection.receive()];
        assert_eq!(questions[0]["params"]["path"], "/1");
        server.cancel(2);
        // The cancellation takes effect before this question is sent.
        server.ask(question(4));
        let last = connection.receive();
        for (question, user) in [(&last, "d"), (&questions[2], "c"), (&questions[1], "b"), (&questions[0], "a")] {
            connection.answer(question, json!({ "allow": true, "user": user }));
        }
        connection.send_message(&json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": "c" } }));
        for report in [allowed(4, "d"), allowed(3, "c"), allowed(1, "a"), peer.revoked("c")] {
            assert_eq!(next(&reports), report, "{kind:?}");
        }
        drop(server);
        assert!(reports.recv().is_err(), "the thread has ended");
    }
}

#[test]
fn lines_that_are_cut_and_joined() {
    let peer = Peer::new(SockType::Stream);
    let (server, reports) = peer.start(PATIENT_MS);
    server.ask(question(1));
    server.ask(question(2));
    let mut connection = peer.accept();
    let (one, two) = (connection.receive(), connection.receive());
    let text =
        |question: &Value| json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "allow": true } }).to_string();
    let text = format!("{}\r\n{}", text(&one), text(&two));
    for byte in text.bytes() {
        connection.send(&[byte]);
    }
    assert_eq!(next(&reports), allowed(1, ""));
    connection.send(b"\n");
    assert_eq!(next(&reports), allowed(2, ""));
}

#[test]
fn a_server_that_is_slow() {
    for kind in KINDS {
        let peer = Peer::new(kind);
        let (server, reports) = peer.start(50);
        server.ask(question(1));
        assert!(unavailable(&reports, 1).ends_with("/decide: the server did not answer in time"));
        // Its late answer is no answer to another question.
        let mut connection = peer.accept();
        connection.answer_next(json!({ "allow": true }));
        connection.send_message(&json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": "x" } }));
        assert_eq!(next(&reports), peer.revoked("x"));
    }
}

#[test]
fn a_server_that_lies() {
    let long = "x".repeat(SERVER_ANSWER_SIZE_MAX + 1);
    for kind in KINDS {
        for (text, part) in [
            (r#"{"jsonrpc":"2.0","id":77,"result":{"allow":true}}"#, "its id is that of no question"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"allow":true},"error":{"code":1}}"#, "either a result or an error"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"allow":"yes"}}"#, "allow is not true or false"),
            ("HTTP/1.1 200 OK", "no JSON object"),
            (&long, "has more than 4096 bytes"),
        ] {
            let peer = Peer::new(kind);
            let (server, reports) = peer.start(PATIENT_MS);
            server.ask(question(1));
            server.ask(question(2));
            let mut connection = peer.accept();
            let _ = (connection.receive(), connection.receive());
            connection.send(format!("{text}{}", if kind == SockType::Stream { "\n" } else { "" }).as_bytes());
            for id in [1, 2] {
                let sentence = unavailable(&reports, id);
                assert!(sentence.contains(part), "{kind:?}: {sentence}");
            }
            // The connection was closed, and there is another one by itself.
            let mut again = peer.accept();
            server.ask(question(3));
            again.answer_next(json!({ "allow": true }));
            assert_eq!(next(&reports), allowed(3, ""));
        }
    }
}

#[test]
fn a_server_that_ends() {
    for kind in KINDS {
        let peer = Peer::new(kind);
        let (server, reports) = peer.start(PATIENT_MS);
        server.ask(question(1));
        server.ask(question(2));
        let mut connection = peer.accept();
        let one = connection.receive();
        let _ = connection.receive();
        connection.answer(&one, json!({ "allow": true }));
        drop(connection);
        assert_eq!(next(&reports), allowed(1, ""), "what it said before is valid");
        assert!(unavailable(&reports, 2).ends_with(": the server closed the connection"));
        let mut connection = peer.accept();
        server.ask(question(3));
        connection.answer_next(json!({ "allow": false }));
        assert_eq!(next(&reports), Report::Answer { id: 3, verdict: Verdict::Forbidden });
    }
}

#[test]
fn a_server_that_starts_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decide");
    let (sender, reports) = channel();
    let server = Server::start_with(&path, PATIENT_MS, move |report| drop(sender.send(report))).unwrap();
    server.ask(question(1));
    let sentence = unavailable(&reports, 1);
    assert!(sentence.ends_with("/decide: the server cannot be reached: No such file or directory"), "{sentence}");
    let listener = Peer::listener(&path, SockType::SeqPacket);
    let peer = Peer { folder, listener, has_packets: true };
    // It connects by itself.
    let mut connection = peer.accept();
    server.ask(question(2));
    connection.answer_next(json!({ "allow": true, "user": "al" }));
    assert_eq!(next(&reports), allowed(2, "al"));
}

#[test]
fn a_server_is_connected_at_once() {
    for kind in KINDS {
        let peer = Peer::new(kind);
        let (sender, reports) = channel();
        let _server = Server::start(&peer.path(), move |report| drop(sender.send(report))).unwrap();
        let connection = peer.accept();
        connection.send_message(&json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": "x" } }));
        assert_eq!(next(&reports), peer.revoked("x"));
    }
}

/// One that has said so on another connection.
#[test]
fn a_revocation_on_another_connection() {
    let peer = Peer::new(SockType::SeqPacket);
    let (server, reports) = peer.start(PATIENT_MS);
    let mut connection = peer.accept();
    let ask = |id| server.ask(Question { id, ..question(1) });
    ask(1);
    connection.answer_next(json!({ "allow": true, "user": "ann", "cache": 300 }));
    assert_eq!(next(&reports), allowed(1, "ann"));
    server.revoke(Path::new("/other"));
    ask(2);
    assert_eq!(next(&reports), allowed(2, "ann"), "another server has revoked it");
    server.revoke(&peer.path());
    ask(3);
    connection.answer_next(json!({ "allow": false }));
    assert_eq!(next(&reports), Report::Answer { id: 3, verdict: Verdict::Forbidden });
}

/// The thread waits for room, and takes nothing more from the server.
#[test]
fn a_server_that_revokes_without_end() {
    for kind in KINDS {
        let peer = Peer::new(kind);
        let (sender, reports) = std::sync::mpsc::sync_channel(1);
        let server = Server::start(&peer.path(), move |report| drop(sender.send(report))).unwrap();
        let connection = peer.accept();
        nix::sys::socket::setsockopt(&connection.socket, nix::sys::socket::sockopt::SndBuf, &4_096).unwrap();
        let end = if peer.has_packets { "" } else { "\n" };
        let message = json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": "x" } });
        let text = format!("{message}{end}");
        let send = |flags| send(connection.socket.as_raw_fd(), text.as_bytes(), flags | MsgFlags::MSG_NOSIGNAL);
        let mut sent = 0;
        // The socket is full before the memory is.
        while let Ok(size) = send(MsgFlags::MSG_DONTWAIT) {
            sent += usize::from(size == text.len());
            assert!(sent < 1_000_000, "{kind:?}: all is taken");
        }
        assert_eq!(next(&reports), peer.revoked("x"), "{kind:?}");
        // The drop does not wait for the thread, which waits for room.
        drop(server);
        assert!(reports.iter().all(|report| report == peer.revoked("x")), "the thread has ended");
    }
}

/// The thread waits with the first revocation, and the others are in the socket, more than are read at once.
fn revoked_a_hundred_times(peer: &Peer, asked: Option<Question>) -> (Server, Connection, Receiver<Report>) {
    let (begun, begins) = channel();
    let (sender, reports) = std::sync::mpsc::sync_channel(0);
    let report = move |report| {
        let _ = begun.send(());
        let _ = sender.send(report);
    };
    let server = Server::start_with(&peer.path(), PATIENT_MS, report).unwrap();
    let connection = peer.accept();
    if let Some(question) = asked {
        server.ask(question);
        connection.wait();
    }
    for count in 0..100 {
        connection.send_message(&json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": "x" } }));
        if count == 0 {
            begins.recv_timeout(DEADLINE).unwrap();
        }
    }
    (server, connection, reports)
}

fn assert_revoked_a_hundred_times(peer: &Peer, reports: &Receiver<Report>) {
    for count in 0..100 {
        assert_eq!(next(reports), peer.revoked("x"), "{count}, {}", peer.has_packets);
    }
}

#[test]
fn revocations_before_a_server_is_dropped() {
    for kind in KINDS {
        let peer = Peer::new(kind);
        let (server, _connection, reports) = revoked_a_hundred_times(&peer, None);
        drop(server);
        assert_revoked_a_hundred_times(&peer, &reports);
        assert!(reports.recv().is_err(), "the thread has ended");
    }
}

#[test]
fn revocations_before_a_connection_is_lost() {
    for kind in KINDS {
        // The kernel resets the connection if the server has not read a question. The other one cannot be written.
        for (first, last) in [(false, true), (true, false), (true, true)] {
            let peer = Peer::new(kind);
            let (server, connection, reports) = revoked_a_hundred_times(&peer, first.then(|| question(1)));
            if last {
                server.ask(question(2));
            }
            drop(connection);
            assert_revoked_a_hundred_times(&peer, &reports);
            for id in [first.then_some(1), last.then_some(2)].into_iter().flatten() {
                unavailable(&reports, id);
            }
        }
    }
}

#[test]
fn revocations_on_other_connections_take_no_room() {
    let (sender, commands) = channel();
    let wake = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap());
    let path: Arc<Path> = Path::new("/decide").into();
    let server = Server { path: Arc::clone(&path), commands: Some(sender), wake, is_revoked: Arc::default() };
    (0..1_000).for_each(|_| server.revoke(&path));
    assert!(commands.try_recv().is_err() && server.is_revoked());
}

/// Here the test is the thread.
#[test]
fn connections_without_a_question_delay_none() {
    let peer = Peer::new(SockType::SeqPacket);
    let (sender, reports) = channel();
    let report = move |report| drop(sender.send(report));
    let mut conversation = Conversation::new(&peer.path(), PATIENT_MS, report).unwrap();
    for _ in 0..5 {
        conversation.link = Some(Link::connect(&conversation.address).unwrap());
        drop(peer.accept());
        conversation.exchange();
        assert!(conversation.link.is_none() && conversation.unasked.not_before_ms > 0);
    }
    conversation.ask(&question(1));
    conversation.exchange();
    let mut connection = peer.accept();
    assert_eq!(connection.receive()["params"]["path"], "/1");
    drop(connection);
    conversation.exchange();
    assert!(unavailable(&reports, 1).ends_with(": the server closed the connection"));
    assert!(conversation.retry.not_before_ms > 0, "a question has failed");
}

#[test]
fn a_server_is_heard_between_many_commands() {
    let (sender, commands) = channel();
    let mut conversation = Conversation::new(Path::new("/nonexistent/server"), PATIENT_MS, |_| ()).unwrap();
    let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap();
    (0..SERVER_COMMANDS_MAX as u64 + 1).for_each(|id| sender.send(Command::Cancel(id)).unwrap());
    assert!(conversation.obey(&commands, &wake));
    assert_eq!(wake.read(), Ok(1), "there are more");
    assert!(conversation.obey(&commands, &wake) && wake.read().is_err());
    drop(sender);
    assert!(!conversation.obey(&commands, &wake));
}

#[test]
fn a_server_that_does_not_read() {
    for kind in KINDS {
        let peer = Peer::new(kind);
        let (server, reports) = peer.start(PATIENT_MS);
        // Cancelled ones do not count, but what is not sent does.
        let long = |id| Question { query: "x".repeat(SERVER_QUESTION_SIZE_MAX / 2), ..question(id) };
        for id in 0..1_000 {
            server.ask(long(id));
            server.cancel(id);
        }
        let Report::Answer { verdict: Verdict::Unavailable { sentence }, .. } = next(&reports) else { panic!() };
        assert!(sentence.ends_with("64 questions wait for the server"), "{sentence}");
    }
}

#[test]
fn paths_that_are_refused() {
    let long = PathBuf::from("/").join("x".repeat(200));
    assert!(Server::start(&long, |_| ()).is_err() && Server::check(&long).is_err());
    // A folder, and a socket of another kind.
    let folder = tempfile::tempdir().unwrap();
    let datagram = folder.path().join("datagram");
    let _socket = std::os::unix::net::UnixDatagram::bind(&datagram).unwrap();
    for path in [folder.path(), &datagram] {
        let (sender, reports) = channel();
        let server = Server::start(path, move |report| drop(sender.send(report))).unwrap();
        server.ask(question(1));
        assert!(unavailable(&reports, 1).contains(": the server cannot be reached: "));
    }
}

#[test]
fn the_wait_before_a_connection_doubles() {
    let mut retry = Retry::default();
    let mut waits = Vec::new();
    for _ in 0..8 {
        retry.fail(1_000);
        waits.push(retry.not_before_ms - 1_000);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    (0..100).for_each(|_| retry.fail(0));
    retry.succeed();
    assert_eq!((retry.not_before_ms, retry.failures), (0, 0));
}

#[test]
fn sentences_show_nothing_of_a_question() {
    for kind in KINDS {
        let peer = Peer::new(kind);
        let (server, reports) = peer.start(PATIENT_MS);
        let credential = auth_wire::Credential::Token("s3cr3t".into());
        server.ask(Question { credential, query: "s3cr3t".to_owned(), ..question(1) });
        let mut connection = peer.accept();
        let asked = connection.receive();
        assert_eq!(asked["params"]["credential"]["token"], "s3cr3t");
        let error = json!({ "code": -32603, "message": "s3cr3t", "data": "s3cr3t" });
        connection.send_message(&json!({ "jsonrpc": "2.0", "id": asked["id"], "error": error }));
        let sentence = unavailable(&reports, 1);
        assert!(sentence.ends_with(": the server answered with the error -32603"), "{sentence}");
        assert!(!format!("{server:?}").contains("s3cr3t"));
    }
}
