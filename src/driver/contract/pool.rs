//! The pool of receive buffers.

use super::bench::{Bench, Got, Line, Route, batch, pattern};
use super::{Errno, Scene};
use crate::driver::{Driver, Lease, Op, Receive, Received, Sending, Share};

/// Receives one byte after another, and holds the buffers.
fn hold<S: Scene>(bench: &mut Bench<S>, line: &Line<S>, how: Receive, count: usize) -> Vec<Lease> {
    let mut held = Vec::new();
    for number in 0..count {
        bench.tell(&line.far, &[number as u8]);
        bench.receive(line.token, &line.handle, how);
        let (Received::Data(lease), false) = bench.leased(line.token) else { panic!("no data") };
        held.push(lease);
    }
    held
}

fn release<S: Scene>(bench: &mut Bench<S>, held: Vec<Lease>) {
    held.into_iter().for_each(|lease| bench.driver().release(lease));
}

/// Each receive fails while no buffer is free, and works again when one is.
pub(super) fn empty<S: Scene>(bench: &mut Bench<S>) {
    let packets = bench.packet_line();
    for (how, share) in [
        (Receive::Once, Share::Messages),
        (Receive::Request, Share::Requests),
        (Receive::Multishot, Share::Messages),
        (Receive::Packets, Share::Messages),
    ] {
        let (holding, other) = (bench.line(Route::UnixClient), bench.line(Route::TcpClient));
        let line = if how == Receive::Packets { &packets } else { &other };
        let all = bench.driver().buffers(share);
        let filling = if share == Share::Requests { Receive::Request } else { Receive::Once };
        let mut held = Vec::new();
        for number in 0..all {
            assert_eq!(bench.driver().buffers_free(share), all - number);
            held.extend(hold(bench, &holding, filling, 1));
        }
        assert_eq!(bench.driver().buffers_free(share), 0);
        bench.pump(Some(0));
        assert!(!bench.driver().may_receive(share));
        bench.tell(&line.far, b"bytes");
        for _ in 0..2 {
            bench.receive(line.token, &line.handle, how);
            assert_eq!(bench.got(line.token), (Got::Failed(Errno::ENOBUFS), false), "{how:?}");
            bench.expect_quiet();
        }
        bench.driver().release(held.pop().expect("a buffer"));
        bench.pump(Some(0));
        assert!(bench.driver().may_receive(share));
        assert_eq!(bench.gather(line, how, 5), b"bytes", "{how:?}");
        bench.end_operations(line.token);
        // A multishot receive that finds no buffer ends, and continues when it is submitted again.
        held.extend(hold(bench, &holding, filling, 1));
        bench.tell(&line.far, b"later");
        bench.receive(line.token, &line.handle, how);
        assert_eq!(bench.got(line.token), (Got::Failed(Errno::ENOBUFS), false), "{how:?}");
        release(bench, held);
        assert_eq!(bench.gather(line, how, 5), b"later", "{how:?}");
        bench.end_operations(line.token);
        bench.close_line(holding);
        bench.close_line(other);
    }
    bench.close_line(packets);
}

pub(super) fn shares<S: Scene>(bench: &mut Bench<S>) {
    let (holding, line) = (bench.line(Route::UnixClient), bench.line(Route::UnixClient));
    for (filling, other) in [(Receive::Once, Receive::Request), (Receive::Request, Receive::Once)] {
        let share = if filling == Receive::Once { Share::Messages } else { Share::Requests };
        let all = bench.driver().buffers(share);
        let held = hold(bench, &holding, filling, all);
        for number in 0..20 {
            bench.tell(&line.far, &[number]);
            assert_eq!(bench.gather(&line, other, 1), [number]);
        }
        release(bench, held);
    }
    bench.close_line(holding);
    bench.close_line(line);
}

pub(super) fn may_receive<S: Scene>(bench: &mut Bench<S>) {
    for (how, share) in [(Receive::Once, Share::Messages), (Receive::Request, Share::Requests)] {
        let other = if share == Share::Messages { Share::Requests } else { Share::Messages };
        let all = bench.driver().buffers(share);
        let lines: Vec<Line<S>> = (0..all).map(|_| bench.line(Route::UnixClient)).collect();
        bench.pump(Some(0));
        for line in &lines {
            assert!(bench.driver().may_receive(share));
            bench.receive(line.token, &line.handle, how);
        }
        assert!(!bench.driver().may_receive(share), "{share:?}: each buffer has its receive");
        assert!(bench.driver().may_receive(other));
        // Waiting receives take no buffer.
        bench.expect_quiet();
        assert!(bench.driver().may_receive(share));
        assert_eq!(bench.driver().buffers_free(share), all);
        lines.into_iter().for_each(|line| bench.close_line(line));
    }
}

/// Many more receivers than buffers: each receives everything, if a receive is submitted only as `may_receive` permits.
pub(super) fn flood<S: Scene>(bench: &mut Bench<S>) {
    for how in [Receive::Once, Receive::Request, Receive::Multishot] {
        let share = if how == Receive::Request { Share::Requests } else { Share::Messages };
        let lines: Vec<Line<S>> = (0..60).map(|number| bench.line(Route::CLIENTS[number % 2])).collect();
        let expected = pattern(1_000);
        let mut received = vec![Vec::new(); lines.len()];
        for line in &lines {
            bench.tell(&line.far, &expected[..500]);
        }
        for turn in 0.. {
            assert!(turn < 2_000, "{how:?}: {:?}", received.iter().map(Vec::len).collect::<Vec<usize>>());
            if turn == 3 {
                for line in &lines {
                    bench.tell(&line.far, &expected[500..]);
                }
            }
            bench.pump(Some(0));
            for (line, received) in lines.iter().zip(&mut received) {
                while bench.has_arrived(line.token, Op::Receive) {
                    match bench.got(line.token).0 {
                        Got::Bytes(more) => received.extend(more),
                        Got::Failed(Errno::ENOBUFS) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            if received.iter().all(|received| received.len() == expected.len()) {
                break;
            }
            for (line, received) in lines.iter().zip(&received) {
                let is_wanted = received.len() < expected.len() && !bench.is_in_flight(line.token, Op::Receive);
                if is_wanted && bench.driver().may_receive(share) {
                    bench.receive(line.token, &line.handle, how);
                }
            }
        }
        assert!(received.iter().all(|received| *received == expected), "other bytes");
        lines.into_iter().for_each(|line| bench.close_line(line));
    }
}

pub(super) fn reuse<S: Scene>(bench: &mut Bench<S>) {
    let (holding, line) = (bench.line(Route::UnixClient), bench.line(Route::UnixClient));
    let all = bench.driver().buffers(Share::Messages);
    let held = hold(bench, &holding, Receive::Once, all - 1);
    for number in 0..1_000u32 {
        let message = number.to_ne_bytes().repeat(1 + number as usize % 50);
        bench.tell(&line.far, &message);
        assert_eq!(bench.gather(&line, Receive::Once, message.len()), message);
    }
    release(bench, held);
    bench.close_line(holding);
    bench.close_line(line);
}

/// Also while a send uses it, and while all others come round.
pub(super) fn lent<S: Scene>(bench: &mut Bench<S>) {
    let (line, to) = (bench.line(Route::UnixClient), bench.line(Route::UnixBackend));
    let sent = bench.fill(&to);
    bench.tell(&line.far, b"kept");
    bench.receive(line.token, &line.handle, Receive::Once);
    let (Received::Data(kept), false) = bench.leased(line.token) else { panic!("no data") };
    bench.tell(&line.far, b"sent");
    bench.receive(line.token, &line.handle, Receive::Once);
    let (Received::Data(lease), false) = bench.leased(line.token) else { panic!("no data") };
    let batch = crate::driver::Batch { first: crate::driver::Segment::Pool(lease), ..batch(b"") };
    bench.send(to.token, &to.handle, batch, Sending::Wait);
    for number in 0..100 {
        bench.tell(&line.far, &[number; 4]);
        assert_eq!(bench.gather(&line, Receive::Once, 4), [number; 4]);
    }
    assert!(bench.hear(&to.far, sent.len()) == sent, "other bytes");
    let (back, result) = bench.sent(to.token);
    assert_eq!(result, Ok(4));
    assert_eq!(bench.hear(&to.far, 4), b"sent");
    bench.release_batch(back);
    assert_eq!(bench.take(kept), b"kept");
    bench.close_line(line);
    bench.close_line(to);
}
