//! Waits: their time, what they leave, the clocks, and signals.

use super::Scene;
use super::bench::{Bench, Got, Line, Route};
use crate::driver::{Driver, Event, Op, Receive, Rest, Share, Token};

/// Much longer than any wait that returns at once.
const LONG_MS: u64 = 60_000;
/// The time of a wait, and how much earlier it may return.
const TIME_MS: u64 = 100;
const EARLY_MS: u64 = 10;

pub(super) fn at_once<S: Scene>(bench: &mut Bench<S>) {
    let line = bench.line(Route::TcpClient);
    bench.receive(line.token, &line.handle, Receive::Multishot);
    // The machine may be busy: the shortest wait counts.
    let shortest_ms = (0..20).map(|_| {
        let before_ms = bench.driver().now_ms();
        assert_eq!(bench.pump(Some(0)), Rest::Nothing);
        bench.driver().now_ms() - before_ms
    });
    assert!(shortest_ms.min().expect("a wait") < 20);
    // What can be received ends a wait, and so does what has completed before it.
    let before_ms = bench.driver().now_ms();
    bench.tell(&line.far, b"bytes");
    bench.pump(Some(LONG_MS));
    assert_eq!(bench.got(line.token).0, Got::Bytes(b"bytes".to_vec()));
    let token = bench.token();
    bench.open(token, "missing", crate::driver::OpenFor::Reading);
    bench.pump(Some(LONG_MS));
    assert!(bench.opened(token).is_err());
    assert!(bench.driver().now_ms() - before_ms < LONG_MS);
    bench.close_line(line);
}

pub(super) fn timeout<S: Scene>(bench: &mut Bench<S>) {
    let line = bench.line(Route::UnixClient);
    for is_receiving in [false, true] {
        if is_receiving {
            bench.receive(line.token, &line.handle, Receive::Multishot);
        }
        bench.expect_quiet();
        for _ in 0..3 {
            let before_ms = bench.driver().now_ms();
            assert_eq!(bench.pump(Some(TIME_MS)), Rest::Nothing);
            let passed_ms = bench.driver().now_ms() - before_ms;
            assert!(passed_ms + EARLY_MS >= TIME_MS, "{passed_ms} ms");
            assert_eq!(bench.arrivals(), 0);
        }
    }
    bench.close_line(line);
}

pub(super) fn without_limit<S: Scene>(bench: &mut Bench<S>) {
    let line = bench.line(Route::UnixClient);
    for is_early in [true, false] {
        if !is_early {
            bench.receive(line.token, &line.handle, Receive::Once);
            bench.expect_quiet();
        }
        bench.tell(&line.far, b"bytes");
        if is_early {
            bench.receive(line.token, &line.handle, Receive::Once);
        }
        // A wait may return with nothing, but not for ever.
        for _ in 0..10 {
            if bench.arrivals() == 0 {
                bench.pump(None);
            }
        }
        assert_eq!(bench.got(line.token), (Got::Bytes(b"bytes".to_vec()), false));
    }
    bench.close_line(line);
}

/// After `Rest::Nothing` everything was received that had arrived before the wait.
pub(super) fn rest<S: Scene>(bench: &mut Bench<S>) {
    let lines: Vec<Line<S>> = (0..100).map(|_| bench.line(Route::UnixClient)).collect();
    for how in [Receive::Once, Receive::Multishot] {
        let mut due: Vec<&Line<S>> = lines.iter().collect();
        for line in &lines {
            bench.tell(&line.far, b"bytes");
        }
        while !due.is_empty() {
            // As many receives as there are buffers.
            let count = bench.driver().buffers(Share::Messages).min(due.len());
            let armed: Vec<&Line<S>> = due.drain(..count).collect();
            for line in &armed {
                assert!(bench.driver().may_receive(Share::Messages));
                bench.receive(line.token, &line.handle, how);
            }
            let mut waits = 1;
            while bench.pump(Some(1_000)) == Rest::Possible {
                waits += 1;
                assert!(waits < 1_000, "there is always more");
            }
            assert_eq!(bench.arrivals(), count, "{how:?}: not all was received");
            bench.pump(Some(0));
            assert_eq!(bench.arrivals(), count, "{how:?}: more than there was");
            for line in armed {
                assert_eq!(bench.got(line.token).0, Got::Bytes(b"bytes".to_vec()));
                bench.end_operations(line.token);
            }
        }
    }
    lines.into_iter().for_each(|line| bench.close_line(line));
}

pub(super) fn times<S: Scene>(bench: &mut Bench<S>) {
    let mut last_ms = bench.driver().now_ms();
    for _ in 0..100 {
        bench.pump(Some(1));
        let now_ms = bench.driver().now_ms();
        assert!(now_ms >= last_ms, "{now_ms} after {last_ms}");
        last_ms = now_ms;
    }
    // After the year 2020.
    assert!(bench.driver().unix_s() > 1_577_836_800);
}

pub(super) fn signal<S: Scene>(bench: &mut Bench<S>) {
    let token = Token { op: Op::Signal, ..bench.token() };
    let number = bench.scene.watch_signal(token).expect("a signal");
    bench.expect_quiet();
    for _ in 0..3 {
        bench.scene.raise_signal();
        assert!(matches!(bench.next(token, Op::Signal), Event::Signal(other) if other == number));
        bench.expect_quiet();
    }
    bench.scene.raise_signal();
    bench.pump(Some(LONG_MS));
    assert!(matches!(bench.next(token, Op::Signal), Event::Signal(other) if other == number));
}
