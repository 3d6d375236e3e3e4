//! Sends to sockets.

use super::bench::{Bench, Got, Line, Route, batch, pattern};
use super::{Errno, Heard, Scene};
use crate::driver::{Batch, Driver, Op, Receive, Received, Segment, Sending};
use crate::limits::SEND_SEGMENTS_MAX;

/// What a send to a peer that has left fails with. TCP reports the reset first.
fn is_broken(result: Result<usize, Errno>) -> bool {
    matches!(result, Err(Errno::EPIPE | Errno::ECONNRESET))
}

pub(super) fn now<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        for how in [Sending::Now, Sending::Wait, Sending::Now] {
            let bytes = pattern(10_000);
            bench.send(line.token, &line.handle, batch(&bytes), how);
            let (back, result) = bench.sent(line.token);
            assert_eq!((result, back.len(), back.rest.len()), (Ok(10_000), 10_000, 0));
            assert_eq!(bench.hear(&line.far, 10_000), bytes);
        }
        bench.close_line(line);
    }
}

/// A segment that was sent in part before, and an empty one.
pub(super) fn segments<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for how in [Sending::Now, Sending::Wait] {
            let line = bench.line(route);
            let mut first = Segment::heap((*b"sent one ").into());
            first.advance(5);
            let rest =
                vec![Segment::heap([].into()), Segment::heap((*b"two ").into()), Segment::heap((*b"six").into())];
            bench.send(line.token, &line.handle, Batch { first, rest }, how);
            let (back, result) = bench.sent(line.token);
            assert_eq!(result, Ok(11));
            let sizes: Vec<usize> = back.into_segments().map(|segment| segment.len()).collect();
            assert_eq!(sizes, [4, 0, 4, 3], "the batch is as it was");
            assert_eq!(bench.hear(&line.far, 11), b"one two six");
            bench.close_line(line);
        }
    }
}

pub(super) fn many_segments<S: Scene>(bench: &mut Bench<S>) {
    for count in [SEND_SEGMENTS_MAX, SEND_SEGMENTS_MAX + 10] {
        let line = bench.line(Route::UnixClient);
        let rest = (1..count).map(|number| Segment::heap([number as u8; 3].into())).collect();
        bench.send(line.token, &line.handle, Batch { first: Segment::heap([0; 3].into()), rest }, Sending::Now);
        let (back, result) = bench.sent(line.token);
        let size = result.expect("a send");
        assert!(size >= 3 * SEND_SEGMENTS_MAX && size <= back.len(), "{size} of {}", back.len());
        let expected: Vec<u8> = (0..count).flat_map(|number| [number as u8; 3]).take(size).collect();
        assert_eq!(bench.hear(&line.far, size), expected);
        bench.close_line(line);
    }
}

/// A message is forwarded in its buffer, with a header in front.
pub(super) fn from_pool<S: Scene>(bench: &mut Bench<S>) {
    let (from, to) = (bench.line(Route::TcpClient), bench.line(Route::UnixBackend));
    for is_alone in [true, false] {
        bench.tell(&from.far, b"..payload");
        bench.receive(from.token, &from.handle, Receive::Once);
        let (Received::Data(mut lease), false) = bench.leased(from.token) else { panic!("no data") };
        lease.start -= 4;
        let range = lease.range();
        bench.driver().buffer(&lease)[range][..6].copy_from_slice(b"header");
        let rest = if is_alone { Vec::new() } else { vec![Segment::heap((*b"tail").into())] };
        bench.send(to.token, &to.handle, Batch { first: Segment::Pool(lease), rest }, Sending::Now);
        let (back, result) = bench.sent(to.token);
        let expected: &[u8] = if is_alone { b"headerpayload" } else { b"headerpayloadtail" };
        assert_eq!(result, Ok(expected.len()));
        bench.release_batch(back);
        assert_eq!(bench.hear(&to.far, expected.len()), expected);
    }
    bench.close_line(from);
    bench.close_line(to);
}

pub(super) fn part<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        let bytes = pattern(32 << 20);
        bench.send(line.token, &line.handle, batch(&bytes), Sending::Now);
        let (back, result) = bench.sent(line.token);
        let size = result.expect("a part");
        assert!((1..bytes.len()).contains(&size), "{route:?}: {size} bytes");
        assert_eq!(back.len(), bytes.len());
        assert!(bench.hear(&line.far, size) == bytes[..size], "{route:?}: other bytes");
        bench.close_line(line);
    }
}

pub(super) fn full<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        let mut sent = bench.fill(&line);
        loop {
            bench.send(line.token, &line.handle, batch(b"more"), Sending::Now);
            match bench.sent(line.token).1 {
                // A busy machine's kernel acknowledges bytes later than `fill` waits.
                Ok(size) if route.is_tcp() => sent.extend(&b"more"[..size]),
                result => break assert_eq!(result, Err(Errno::EAGAIN), "{route:?}"),
            }
        }
        assert!(bench.hear(&line.far, sent.len()) == sent, "{route:?}: other bytes");
        bench.send_all(&line, b"more", Sending::Wait);
        assert_eq!(bench.hear(&line.far, 4), b"more");
        bench.close_line(line);
    }
}

pub(super) fn wait<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for count in [1, 3] {
            let line = bench.line(route);
            let segments = || {
                let rest = (1..count).map(|_| Segment::heap(pattern(1_000).into())).collect();
                Batch { first: Segment::heap(pattern(1_000).into()), rest }
            };
            // A second wait on the same socket.
            for _ in 0..2 {
                let sent = bench.block_by(&line, segments);
                assert!(bench.hear(&line.far, sent.len()) == sent, "{route:?}: other bytes");
                let (_, result) = bench.sent(line.token);
                let size = result.expect("a send");
                assert!((1..=1_000 * count).contains(&size), "{size} bytes");
                assert_eq!(bench.hear(&line.far, size), pattern(1_000).repeat(count)[..size]);
            }
            bench.close_line(line);
        }
    }
}

pub(super) fn both_ways<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        bench.receive(line.token, &line.handle, Receive::Multishot);
        let sent = bench.block(&line, b"end");
        for number in 0..20 {
            bench.tell(&line.far, &[number]);
            assert_eq!(bench.gather(&line, Receive::Multishot, 1), [number], "{route:?}");
        }
        assert!(bench.is_in_flight(line.token, Op::Send), "nobody has read");
        assert!(bench.hear(&line.far, sent.len()) == sent, "{route:?}: other bytes");
        assert_eq!(bench.sent(line.token).1, Ok(3));
        assert_eq!(bench.hear(&line.far, 3), b"end");
        bench.tell(&line.far, b"still");
        assert_eq!(bench.gather(&line, Receive::Multishot, 5), b"still");
        bench.close_line(line);
    }
}

pub(super) fn wait_and_left<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        bench.block(&line, b"end");
        let Line { token, handle, far } = line;
        bench.scene.reset(far);
        let (_, result) = bench.sent(token);
        assert!(is_broken(result), "{route:?}: {result:?}");
        bench.close(token, handle);
    }
}

/// A transport that is abandoned ends its send by a shutdown.
pub(super) fn wait_and_shut<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        bench.receive(line.token, &line.handle, Receive::Multishot);
        bench.block(&line, b"end");
        bench.driver().shutdown(&line.handle, true);
        assert_eq!(bench.sent(line.token).1, Err(Errno::EPIPE), "{route:?}");
        assert_eq!(bench.got(line.token), (Got::End, false));
        bench.close_line(line);
    }
}

/// The memory bound relies on it: all others have bytes that no receive asks for.
pub(super) fn shut_among_others<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        bench.receive(line.token, &line.handle, Receive::Multishot);
        bench.block(&line, b"end");
        let others: Vec<Line<S>> = (0..60).map(|number| bench.line(Route::ALL[number % 4])).collect();
        for other in &others {
            bench.tell(&other.far, b"first");
            assert_eq!(bench.receive_next(other, Receive::Once), Got::Bytes(b"first".to_vec()));
        }
        for other in &others {
            bench.tell(&other.far, b"second");
        }
        bench.driver().shutdown(&line.handle, true);
        bench.pump(Some(0));
        assert!(bench.has_arrived(line.token, Op::Send), "{route:?}: the send is still in flight");
        assert_eq!(bench.sent(line.token).1, Err(Errno::EPIPE), "{route:?}");
        others.into_iter().for_each(|other| bench.close_line(other));
        bench.close_line(line);
    }
}

pub(super) fn left<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for how in [Sending::Now, Sending::Wait] {
            let Line { token, handle, far } = bench.line(route);
            bench.scene.leave(far);
            let mut results = Vec::new();
            // TCP learns that nobody is there by the answer to the first bytes.
            while !results.last().is_some_and(|result| is_broken(*result)) {
                assert!(results.len() < if route.is_tcp() { 60_000 } else { 1 }, "{route:?}: {:?}", results.last());
                bench.send(token, &handle, batch(b"bytes"), how);
                results.push(bench.sent(token).1);
                bench.pump(Some(1));
            }
            bench.close(token, handle);
        }
    }
}

pub(super) fn half_closed<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        bench.send_all(&line, b"last", Sending::Now);
        bench.driver().shutdown(&line.handle, false);
        bench.send(line.token, &line.handle, batch(b"more"), Sending::Now);
        assert_eq!(bench.sent(line.token).1, Err(Errno::EPIPE), "{route:?}");
        assert_eq!(bench.hear(&line.far, 4), b"last");
        assert_eq!(bench.hear_next(&line.far), Heard::End);
        bench.close_line(line);
    }
}

/// A batch is one packet.
pub(super) fn packets<S: Scene>(bench: &mut Bench<S>) {
    let line = bench.packet_line();
    for how in [Sending::Now, Sending::Wait] {
        let rest = vec![Segment::heap((*b"packet").into())];
        bench.send(line.token, &line.handle, Batch { first: Segment::heap((*b"a ").into()), rest }, how);
        assert_eq!(bench.sent(line.token).1, Ok(8));
        bench.send(line.token, &line.handle, batch(b""), how);
        assert_eq!(bench.sent(line.token).1, Ok(0));
        bench.send(line.token, &line.handle, batch(b"next"), how);
        assert_eq!(bench.sent(line.token).1, Ok(4));
        for packet in [&b"a packet"[..], b"", b"next"] {
            assert_eq!(bench.hear_next(&line.far), Heard::Bytes(packet.to_vec()));
        }
    }
    // A packet is sent whole or not at all.
    let packet = pattern(10_000);
    let mut count = 0;
    let refused = loop {
        bench.send(line.token, &line.handle, batch(&packet), Sending::Now);
        match bench.sent(line.token).1 {
            Ok(size) => assert_eq!(size, packet.len()),
            Err(errno) => break errno,
        }
        count += 1;
    };
    assert_eq!(refused, Errno::EAGAIN);
    bench.send(line.token, &line.handle, batch(&packet), Sending::Wait);
    bench.expect_quiet();
    for _ in 0..count {
        assert_eq!(bench.hear_next(&line.far), Heard::Bytes(packet.clone()));
    }
    assert_eq!(bench.sent(line.token).1, Ok(packet.len()));
    assert_eq!(bench.hear_next(&line.far), Heard::Bytes(packet.clone()));
    bench.close_line(line);
}

pub(super) fn packet_too_large<S: Scene>(bench: &mut Bench<S>) {
    let line = bench.packet_line();
    for how in [Sending::Now, Sending::Wait] {
        bench.send(line.token, &line.handle, batch(&pattern(8 << 20)), how);
        assert_eq!(bench.sent(line.token).1, Err(Errno::EMSGSIZE));
        bench.send_all(&line, b"small", how);
        assert_eq!(bench.hear_next(&line.far), Heard::Bytes(b"small".to_vec()));
    }
    bench.close_line(line);
}
