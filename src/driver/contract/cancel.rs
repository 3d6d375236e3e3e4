//! Cancellations in every state of an operation: each completes once, and nothing is lost.

use super::bench::{Bench, Got, Line, Route, batch, pattern};
use super::devices::{fill, sink, source, tty};
use super::handover::handover;
use super::{Errno, Family, File, Heard, Host, Scene};
use crate::driver::{Driver, Op, OpenFor, Receive, Received, Sending, SocketType, Token};

/// When an operation is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// In the turn in which it was submitted.
    AtOnce,
    /// In the turn in which it was submitted, when it can complete.
    AtOnceAndReady,
    /// While it waits.
    Waiting,
    /// After it has become able to complete, and before the next wait.
    Ready,
}

impl When {
    const ALL: [When; 4] = [When::AtOnce, When::AtOnceAndReady, When::Waiting, When::Ready];

    fn is_ready(self) -> bool {
        matches!(self, When::AtOnceAndReady | When::Ready)
    }

    /// Whether the operation has waited before.
    fn has_waited(self) -> bool {
        matches!(self, When::Waiting | When::Ready)
    }
}

/// Takes the completions of a receive until its last one; returns the bytes.
fn end_receive<S: Scene>(bench: &mut Bench<S>, token: Token, when: When) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        match bench.got(token) {
            (Got::Bytes(more), true) => bytes.extend(more),
            (Got::Bytes(more), false) => {
                bytes.extend(more);
                break;
            }
            (Got::Failed(Errno::ECANCELED), false) => break,
            other => panic!("{when:?}: {other:?}"),
        }
    }
    assert!(when.is_ready() || bytes.is_empty(), "{when:?}: there was nothing to receive");
    bench.expect_quiet();
    bytes
}

fn cancel_receive<S: Scene>(bench: &mut Bench<S>, line: &Line<S>, how: Receive, when: When) {
    let op = if how == Receive::Device { Op::Readable } else { Op::Receive };
    if when == When::AtOnceAndReady {
        bench.tell(&line.far, b"bytes");
    }
    bench.receive(line.token, &line.handle, how);
    if when.has_waited() {
        bench.expect_quiet();
    }
    if when == When::Ready {
        bench.tell(&line.far, b"bytes");
    }
    bench.cancel(line.token, op);
    let mut bytes = end_receive(bench, line.token, when);
    if when.is_ready() {
        if bytes.is_empty() {
            bytes = bench.gather(line, how, 5);
        }
        assert_eq!(bytes, b"bytes", "{how:?} {when:?}");
        // The receive has completed, or is a multishot one that has not.
        bench.cancel(line.token, op);
        bench.pump(Some(0));
        bench.end_operations(line.token);
    }
    // Twice, and then again.
    bench.receive(line.token, &line.handle, how);
    bench.cancel(line.token, op);
    bench.cancel(line.token, op);
    assert!(end_receive(bench, line.token, When::Waiting).is_empty());
    bench.tell(&line.far, b"again");
    assert_eq!(bench.gather(line, how, 5), b"again", "{how:?} {when:?}");
    bench.end_operations(line.token);
}

pub(super) fn receive<S: Scene>(bench: &mut Bench<S>) {
    for when in When::ALL {
        for how in [Receive::Once, Receive::Request, Receive::Multishot] {
            for route in Route::ALL {
                let line = bench.line(route);
                cancel_receive(bench, &line, how, when);
                bench.close_line(line);
            }
        }
        let line = bench.packet_line();
        cancel_receive(bench, &line, Receive::Packets, when);
        bench.close_line(line);
    }
}

pub(super) fn device_receive<S: Scene>(bench: &mut Bench<S>) {
    for when in When::ALL {
        for line in [source(bench), tty(bench)] {
            cancel_receive(bench, &line, Receive::Device, when);
            bench.close_line(line);
        }
    }
}

pub(super) fn accept<S: Scene>(bench: &mut Bench<S>) {
    for family in [Family::Tcp, Family::Unix] {
        for when in When::ALL {
            let listening = bench.token();
            let (listener, port) = bench.scene.listener(family);
            let mut fars = Vec::new();
            if when == When::AtOnceAndReady {
                fars.push(bench.scene.client(port));
            }
            bench.accept(listening, &listener);
            if when.has_waited() {
                bench.expect_quiet();
            }
            if when == When::Ready {
                fars.push(bench.scene.client(port));
            }
            bench.cancel(listening, Op::Accept);
            let mut handles = Vec::new();
            loop {
                match bench.accepted(listening) {
                    (Ok((handle, _)), true) => handles.push(handle),
                    (Err(Errno::ECANCELED), false) => break,
                    (result, more) => panic!("{when:?}: {:?}, more: {more}", result.map(|_| ())),
                }
            }
            bench.expect_quiet();
            // A client that arrives meanwhile is accepted later.
            fars.push(bench.scene.client(port));
            bench.expect_quiet();
            bench.accept(listening, &listener);
            while handles.len() < fars.len() {
                handles.push(bench.accepted(listening).0.expect("a client").0);
            }
            bench.expect_quiet();
            for (handle, far) in handles.into_iter().zip(fars) {
                let line = Line { token: bench.token(), handle, far };
                bench.tell(&line.far, b"here");
                assert_eq!(bench.gather(&line, Receive::Once, 4), b"here");
                bench.close_line(line);
            }
            bench.close(listening, listener);
        }
    }
}

/// Cancels the send in flight, and asserts that the peer receives exactly what the completion tells.
fn end_send<S: Scene>(bench: &mut Bench<S>, line: &Line<S>, (op, how): (Op, Sending), before: &[u8], when: When) {
    bench.cancel(line.token, op);
    let (back, result) = bench.sent(line.token);
    let size = match result {
        // The kernel may have found some space by itself.
        Ok(size) if when != When::Waiting => size,
        Err(Errno::ECANCELED) => 0,
        other => panic!("{when:?}: {other:?}"),
    };
    assert_eq!(back.len(), 4_096);
    bench.expect_quiet();
    let expected = [before, &pattern(4_096)[..size]].concat();
    assert!(bench.hear(&line.far, expected.len()) == expected, "{when:?}: other bytes");
    bench.send_all(line, b"end", how);
    assert_eq!(bench.hear(&line.far, 3), b"end", "{when:?}");
    bench.cancel(line.token, op);
    bench.expect_quiet();
}

pub(super) fn send<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for when in When::ALL {
            let line = bench.line(route);
            let mut before = match when {
                When::AtOnceAndReady => Vec::new(),
                When::AtOnce => bench.fill(&line),
                When::Waiting | When::Ready => bench.block(&line, &pattern(4_096)),
            };
            if !when.has_waited() {
                bench.send(line.token, &line.handle, batch(&pattern(4_096)), Sending::Wait);
            }
            if when == When::Ready {
                bench.hear_all_now(&line.far, &mut before);
            }
            end_send(bench, &line, (Op::Send, Sending::Wait), &before, when);
            bench.close_line(line);
        }
        let line = bench.line(route);
        bench.send(line.token, &line.handle, batch(&pattern(4_096)), Sending::Now);
        end_send(bench, &line, (Op::Send, Sending::Now), b"", When::AtOnceAndReady);
        bench.close_line(line);
    }
}

pub(super) fn device_send<S: Scene>(bench: &mut Bench<S>) {
    for when in When::ALL {
        let line = sink(bench);
        let mut before = Vec::new();
        if when == When::AtOnceAndReady {
            bench.send(line.token, &line.handle, batch(&pattern(4_096)), Sending::Device);
        } else {
            // The last send waits.
            before = fill(bench, &line);
            if when == When::AtOnce {
                bench.cancel(line.token, Op::Writable);
                assert_eq!(bench.sent(line.token).1, Err(Errno::ECANCELED));
                bench.send(line.token, &line.handle, batch(&pattern(4_096)), Sending::Device);
            }
        }
        if when == When::Ready {
            bench.hear_all_now(&line.far, &mut before);
        }
        end_send(bench, &line, (Op::Writable, Sending::Device), &before, when);
        bench.close_line(line);
    }
}

/// Cancels a connect before it is submitted, or when it may have completed: it may have succeeded.
fn cancel_early_or_late<S: Scene>(bench: &mut Bench<S>, token: Token, is_late: bool) {
    if is_late {
        bench.pump(Some(0));
    }
    bench.cancel(token, Op::Connect);
    match bench.connected(token) {
        Ok(handle) => bench.driver().close(handle),
        Err(errno) => assert_eq!(errno, Errno::ECANCELED),
    }
    bench.expect_quiet();
}

pub(super) fn connect<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    let token = bench.token();
    let file = bench.socket_file(token, "backend");
    for is_late in [false, true] {
        bench.connect(token, &file, SocketType::Stream);
        cancel_early_or_late(bench, token, is_late);
    }
    while bench.scene.arrived("backend").is_some() {}
    bench.connect(token, &file, SocketType::Stream);
    let handle = bench.connected(token).expect("a connection");
    let far = bench.until("the connection", |scene| scene.arrived("backend"));
    bench.close(token, file);
    let line = Line { token, handle, far };
    bench.tell(&line.far, b"hello");
    assert_eq!(bench.gather(&line, Receive::Once, 5), b"hello");
    bench.close_line(line);
}

pub(super) fn connect_tcp<S: Scene>(bench: &mut Bench<S>) {
    let (silent, answering) = (bench.scene.host(Host::Silent), bench.scene.host(Host::Answering));
    let token = bench.token();
    for is_late in [false, true, false] {
        bench.connect_tcp(token, silent);
        if is_late {
            bench.expect_quiet();
        }
        bench.cancel(token, Op::Connect);
        assert_eq!(bench.connected(token).map(|_| ()), Err(Errno::ECANCELED));
        bench.cancel(token, Op::Connect);
        bench.expect_quiet();
        bench.connect_tcp(token, answering);
        cancel_early_or_late(bench, token, is_late);
    }
}

pub(super) fn hand_over<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for (is_relayed, is_watched) in [(false, false), (true, false), (false, true)] {
        let (token, line) = (bench.token(), bench.line(Route::TcpClient));
        let file = bench.socket_file(token, "backend");
        bench.hand_over(token, &file, &line.handle, handover(is_relayed, is_watched));
        bench.cancel(token, Op::Connect);
        match bench.handed_over(token) {
            Ok(kept) => {
                assert_eq!(kept.is_some(), is_relayed || is_watched);
                kept.into_iter().for_each(|kept| bench.driver().close(kept));
                let (_, passed) = super::handover::parcel(bench, "backend");
                assert_eq!(bench.hear(&line.far, 5), b"reply");
                bench.scene.leave(passed);
            }
            Err((_, errno)) => {
                assert_eq!(errno, Errno::ECANCELED);
                if let Some(carrier) = bench.scene.arrived("backend") {
                    assert!(matches!(bench.hear_next(&carrier), Heard::End | Heard::Reset));
                }
            }
        }
        bench.expect_quiet();
        bench.close(token, file);
        bench.close_line(line);
    }
}

pub(super) fn files<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("file", File::Bytes(b"content"));
    let token = bench.token();
    for is_late in [false, true] {
        bench.open(token, "file", OpenFor::Reading);
        if is_late {
            bench.pump(Some(0));
        }
        bench.cancel(token, Op::Open);
        match bench.opened(token) {
            Ok((handle, _)) => bench.driver().close(handle),
            Err(errno) => assert_eq!(errno, Errno::ECANCELED),
        }
        bench.expect_quiet();
    }
    bench.open(token, "file", OpenFor::Reading);
    let (file, _) = bench.opened(token).expect("a file");
    for is_late in [false, true] {
        bench.read(token, &file, 0);
        if is_late {
            bench.pump(Some(0));
        }
        bench.cancel(token, Op::Read);
        let got = bench.was_read(token);
        assert!(got == Got::Bytes(b"content".to_vec()) || got == Got::Failed(Errno::ECANCELED), "{got:?}");
        bench.expect_quiet();
    }
    bench.read(token, &file, 3);
    assert_eq!(bench.was_read(token), Got::Bytes(b"tent".to_vec()));
    bench.close(token, file);
}

const OPS: [Op; 8] = [Op::Accept, Op::Receive, Op::Send, Op::Open, Op::Connect, Op::Read, Op::Readable, Op::Writable];

/// Nothing was ever in flight, has already returned, or belongs to an earlier owner of the slot.
pub(super) fn nothing<S: Scene>(bench: &mut Bench<S>) {
    let token = bench.token();
    OPS.into_iter().for_each(|op| bench.cancel(token, op));
    bench.expect_quiet();
    for mut line in [bench.line(Route::TcpClient), bench.line(Route::UnixBackend)] {
        bench.tell(&line.far, b"bytes");
        assert_eq!(bench.gather(&line, Receive::Once, 5), b"bytes");
        bench.send_all(&line, b"bytes", Sending::Now);
        assert_eq!(bench.hear(&line.far, 5), b"bytes");
        OPS.into_iter().for_each(|op| bench.cancel(line.token, op));
        bench.expect_quiet();
        let earlier = line.token;
        line.token.generation += 1;
        bench.receive(line.token, &line.handle, Receive::Multishot);
        bench.pump(Some(0));
        OPS.into_iter().for_each(|op| bench.cancel(earlier, op));
        bench.expect_quiet();
        bench.tell(&line.far, b"later");
        assert_eq!(bench.got(line.token), (Got::Bytes(b"later".to_vec()), true));
        bench.end_operations(line.token);
        let sent = bench.block(&line, b"end");
        OPS.into_iter().for_each(|op| bench.cancel(earlier, op));
        bench.expect_quiet();
        assert!(bench.hear(&line.far, sent.len()) == sent, "other bytes");
        assert_eq!(bench.sent(line.token).1, Ok(3));
        bench.close_line(line);
    }
}

/// A cancellation ends no other operation of the same slot.
pub(super) fn neighbours<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        bench.receive(line.token, &line.handle, Receive::Multishot);
        let sent = bench.block(&line, b"end");
        bench.cancel(line.token, Op::Receive);
        let (received, more) = bench.leased(line.token);
        assert!(matches!(received, Received::Failed(Errno::ECANCELED)) && !more, "{received:?}");
        bench.expect_quiet();
        assert!(bench.hear(&line.far, sent.len()) == sent, "other bytes");
        assert_eq!(bench.sent(line.token).1, Ok(3), "{route:?}");
        assert_eq!(bench.hear(&line.far, 3), b"end");
        bench.receive(line.token, &line.handle, Receive::Multishot);
        bench.block(&line, b"end");
        bench.cancel(line.token, Op::Send);
        assert_eq!(bench.sent(line.token).1, Err(Errno::ECANCELED), "{route:?}");
        bench.expect_quiet();
        bench.tell(&line.far, b"bytes");
        assert_eq!(bench.gather(&line, Receive::Multishot, 5), b"bytes", "{route:?}");
        bench.close_line(line);
    }
}
