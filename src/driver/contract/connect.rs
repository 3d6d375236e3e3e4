//! Connects to UNIX sockets and TCP addresses.

use super::bench::{Bench, Line, Route};
use super::{Errno, File, Handle, Heard, Host, Scene};
use crate::driver::{Driver, OpenFor, Receive, Sending, SocketType};

/// Connects to a file of the scene's folder.
fn connect<S: Scene>(bench: &mut Bench<S>, name: &str, socket_type: SocketType) -> Result<Handle<S>, Errno> {
    let token = bench.token();
    bench.open(token, name, OpenFor::Connecting);
    let (file, _) = bench.opened(token).expect("a file");
    bench.connect(token, &file, socket_type);
    let connected = bench.connected(token);
    bench.driver().close(file);
    connected
}

/// Sends and receives on a connection, and ends it.
fn converse<S: Scene>(bench: &mut Bench<S>, line: Line<S>, how: Receive) {
    bench.expect_quiet();
    bench.send_all(&line, b"hello", Sending::Now);
    assert_eq!(bench.hear(&line.far, 5), b"hello");
    bench.tell(&line.far, b"answer");
    assert_eq!(bench.gather(&line, how, 6), b"answer");
    bench.end_operations(line.token);
    let Line { token, handle, far } = line;
    bench.close(token, handle);
    assert_eq!(bench.hear_next(&far), Heard::End);
}

pub(super) fn stream<S: Scene>(bench: &mut Bench<S>) {
    for how in [Receive::Once, Receive::Request, Receive::Multishot] {
        let line = bench.line(Route::UnixBackend);
        converse(bench, line, how);
    }
}

pub(super) fn packets<S: Scene>(bench: &mut Bench<S>) {
    let line = bench.packet_line();
    converse(bench, line, Receive::Packets);
}

/// A backend may tell its clients apart by their names.
pub(super) fn unnamed<S: Scene>(bench: &mut Bench<S>) {
    for line in [bench.line(Route::UnixBackend), bench.packet_line()] {
        assert!(!bench.scene.has_name(&line.handle));
        bench.close_line(line);
    }
}

pub(super) fn refused<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("refusing", File::Refusing);
    bench.scene.add("file", File::Bytes(b"no socket"));
    for name in ["refusing", "file"] {
        let connected = connect(bench, name, SocketType::Stream).map(|_| ());
        assert_eq!(connected, Err(Errno::ECONNREFUSED), "{name}");
    }
}

pub(super) fn wrong_type<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("stream", File::Listening(SocketType::Stream));
    bench.scene.add("packets", File::Listening(SocketType::SeqPacket));
    for (name, socket_type) in [("stream", SocketType::SeqPacket), ("packets", SocketType::Stream)] {
        assert_eq!(connect(bench, name, socket_type).map(|_| ()), Err(Errno::EPROTOTYPE), "{name}");
        assert!(bench.scene.arrived(name).is_none());
    }
}

pub(super) fn full<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("full", File::Full);
    for _ in 0..2 {
        assert_eq!(connect(bench, "full", SocketType::Stream).map(|_| ()), Err(Errno::EAGAIN));
    }
    bench.scene.make_room("full");
    let handle = connect(bench, "full", SocketType::Stream).expect("a connection");
    let far = bench.until("the connection", |scene| scene.arrived("full"));
    let token = bench.token();
    converse(bench, Line { token, handle, far }, Receive::Once);
}

pub(super) fn tcp<S: Scene>(bench: &mut Bench<S>) {
    for how in [Receive::Once, Receive::Request, Receive::Multishot] {
        let line = bench.line(Route::TcpBackend);
        converse(bench, line, how);
    }
}

pub(super) fn keepalive<S: Scene>(bench: &mut Bench<S>) {
    let line = bench.line(Route::TcpBackend);
    assert!(bench.scene.has_keepalive(&line.handle));
    bench.close_line(line);
}

pub(super) fn tcp_refused<S: Scene>(bench: &mut Bench<S>) {
    let address = bench.scene.host(Host::Refusing);
    let token = bench.token();
    for _ in 0..3 {
        bench.connect_tcp(token, address);
        assert_eq!(bench.connected(token).map(|_| ()), Err(Errno::ECONNREFUSED));
    }
}

pub(super) fn tcp_silent<S: Scene>(bench: &mut Bench<S>) {
    let (silent, answering) = (bench.scene.host(Host::Silent), bench.scene.host(Host::Answering));
    let (waiting, token) = (bench.token(), bench.token());
    bench.connect_tcp(waiting, silent);
    bench.expect_quiet();
    // Others do not wait for it.
    bench.connect_tcp(token, answering);
    let handle = bench.connected(token).expect("a connection");
    let far = bench.until("the connection", |scene| scene.arrived(&answering.to_string()));
    converse(bench, Line { token, handle, far }, Receive::Multishot);
    bench.cancel(waiting, crate::driver::Op::Connect);
    assert_eq!(bench.connected(waiting).map(|_| ()), Err(Errno::ECANCELED));
}
