//! Accepts.

use super::Scene;
use super::bench::{Bench, Got, Line, Route, pattern};
use super::{Errno, Family, Handle};
use crate::driver::{Driver, Op, Receive, Token};
use crate::types::Address;

/// The next client; the accept is submitted again if it has ended.
fn next<S: Scene>(bench: &mut Bench<S>, token: Token, listener: &Handle<S>) -> (Handle<S>, Address) {
    if !bench.is_in_flight(token, Op::Accept) && !bench.has_arrived(token, Op::Accept) {
        bench.accept(token, listener);
    }
    bench.accepted(token).0.expect("a client")
}

pub(super) fn addresses<S: Scene>(bench: &mut Bench<S>) {
    for family in [Family::Tcp, Family::Unix] {
        let (listening, token) = (bench.token(), bench.token());
        let (listener, port) = bench.scene.listener(family);
        bench.accept(listening, &listener);
        let far = bench.scene.client(port);
        let (result, more) = bench.accepted(listening);
        assert!(more, "it accepts until it fails");
        let (handle, address) = result.expect("a client");
        assert_eq!(address, bench.scene.client_address(&far));
        let local = bench.scene.port_address(port);
        assert_eq!(bench.driver().local_address(&handle), local);
        bench.close_line(Line { token, handle, far });
        bench.close(listening, listener);
    }
}

pub(super) fn many<S: Scene>(bench: &mut Bench<S>) {
    let listening = bench.token();
    let (listener, port) = bench.scene.listener(Family::Tcp);
    let mut lines = Vec::new();
    for round in 0..4 {
        let fars: Vec<S::Far> = (0..20).map(|_| bench.scene.client(port)).collect();
        for far in fars {
            let (handle, address) = next(bench, listening, &listener);
            assert_eq!(address, bench.scene.client_address(&far), "round {round}");
            lines.push(Line { token: bench.token(), handle, far });
        }
        bench.expect_quiet();
    }
    for (line, number) in lines.iter().zip(0..) {
        bench.tell(&line.far, &[number]);
    }
    for (line, number) in lines.iter().zip(0..) {
        assert_eq!(bench.gather(line, Receive::Once, 1), [number]);
    }
    lines.into_iter().for_each(|line| bench.close_line(line));
    bench.close(listening, listener);
}

pub(super) fn left<S: Scene>(bench: &mut Bench<S>) {
    let listening = bench.token();
    let (listener, port) = bench.scene.listener(Family::Tcp);
    let gone = bench.scene.client(port);
    bench.scene.leave(gone);
    let far = bench.scene.client(port);
    let wanted = bench.scene.client_address(&far);
    for _ in 0..2 {
        let (handle, address) = next(bench, listening, &listener);
        let token = bench.token();
        if address == wanted {
            let line = Line { token, handle, far };
            bench.tell(&line.far, b"here");
            assert_eq!(bench.gather(&line, Receive::Once, 4), b"here");
            bench.close_line(line);
            return bench.close(listening, listener);
        }
        bench.receive(token, &handle, Receive::Once);
        assert!(matches!(bench.got(token), (Got::End | Got::Failed(Errno::ECONNRESET), false)));
        bench.close(token, handle);
    }
    panic!("the second client was not accepted");
}

pub(super) fn fails<S: Scene>(bench: &mut Bench<S>) {
    let line = bench.line(Route::TcpClient);
    bench.accept(line.token, &line.handle);
    let (result, more) = bench.accepted(line.token);
    assert!(matches!(result, Err(Errno::EINVAL)) && !more, "{:?}", result.map(|_| ()));
    bench.tell(&line.far, &pattern(10));
    assert_eq!(bench.gather(&line, Receive::Once, 10), pattern(10));
    bench.close_line(line);
}
