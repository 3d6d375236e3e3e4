//! Receives from sockets.

use super::bench::{Bench, Got, Line, Route, batch, pattern};
use super::{Errno, Scene};
use crate::driver::{Driver, Op, Receive, Received, Sending, Share};
use crate::limits::{PACKET_SIZE_MAX, POOL_BUFFER_SIZE, POOL_HEADROOM};

/// A receive that waits, and one whose data is there already.
pub(super) fn once<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        for is_early in [false, true, false] {
            if is_early {
                bench.tell(&line.far, b"message");
            }
            bench.receive(line.token, &line.handle, Receive::Once);
            if !is_early {
                bench.expect_quiet();
                bench.tell(&line.far, b"message");
            }
            let (Received::Data(lease), false) = bench.leased(line.token) else { panic!("no last data") };
            assert_eq!((lease.share, lease.len(), lease.is_empty()), (Share::Messages, 7, false));
            assert_eq!(bench.driver().buffer(&lease).len(), POOL_BUFFER_SIZE);
            assert_eq!(bench.take(lease), b"message");
        }
        bench.tell(&line.far, b"not received");
        bench.expect_quiet();
        bench.close_line(line);
    }
}

pub(super) fn request<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::CLIENTS {
        let line = bench.line(route);
        bench.receive(line.token, &line.handle, Receive::Request);
        bench.expect_quiet();
        bench.tell(&line.far, b"request");
        let (Received::Data(lease), false) = bench.leased(line.token) else { panic!("no last data") };
        assert_eq!(lease.share, Share::Requests);
        assert_eq!(bench.take(lease), b"request");
        bench.close_line(line);
    }
}

pub(super) fn multishot<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        for number in 0..500u32 {
            let message = number.to_ne_bytes();
            bench.tell(&line.far, &message);
            assert_eq!(bench.gather(&line, Receive::Multishot, 4), message, "{route:?}: message {number}");
        }
        assert!(bench.is_in_flight(line.token, Op::Receive), "it goes on");
        bench.expect_quiet();
        bench.close_line(line);
    }
}

pub(super) fn one_buffer<S: Scene>(bench: &mut Bench<S>) {
    let room = POOL_BUFFER_SIZE - POOL_HEADROOM;
    for how in [Receive::Once, Receive::Request, Receive::Multishot] {
        let line = bench.line(Route::UnixBackend);
        let bytes = pattern(3 * room);
        let mut told = 0;
        let mut received = Vec::new();
        while received.len() < bytes.len() {
            told += bench.scene.write(&line.far, &bytes[told..]).unwrap_or(0);
            match bench.receive_next(&line, how) {
                Got::Bytes(more) => {
                    assert!((1..=room).contains(&more.len()), "{} bytes", more.len());
                    received.extend(more);
                }
                Got::Failed(Errno::ENOBUFS) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(received == bytes, "other bytes");
        bench.close_line(line);
    }
}

/// Edges of readiness that nobody waited for.
pub(super) fn while_unarmed<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for how in [Receive::Once, Receive::Request, Receive::Multishot] {
            let line = bench.line(route);
            bench.receive(line.token, &line.handle, Receive::Multishot);
            bench.expect_quiet();
            bench.end_operations(line.token);
            for part in [b"one", b"two", b"six"] {
                bench.tell(&line.far, part);
                bench.expect_quiet();
            }
            assert_eq!(bench.gather(&line, how, 9), b"onetwosix", "{route:?} {how:?}");
            bench.end_operations(line.token);
            bench.tell(&line.far, b"end");
            bench.scene.finish(&line.far);
            bench.expect_quiet();
            assert_eq!(bench.gather(&line, how, 3), b"end", "{route:?} {how:?}");
            assert_eq!(bench.receive_next(&line, how), Got::End, "{route:?} {how:?}");
            bench.close_line(line);
        }
    }
}

/// Data that arrives after a receive has completed and before the next one.
pub(super) fn between<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let line = bench.line(route);
        bench.tell(&line.far, b"a");
        for letter in (0..25).map(|number| b'a' + number) {
            assert_eq!(bench.receive_next(&line, Receive::Once), Got::Bytes(vec![letter]));
            bench.tell(&line.far, &[letter + 1]);
            if letter % 2 == 0 {
                bench.expect_quiet();
            }
        }
        assert_eq!(bench.receive_next(&line, Receive::Request), Got::Bytes(vec![b'z']));
        bench.close_line(line);
    }
}

pub(super) fn large<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for how in [Receive::Once, Receive::Multishot] {
            let line = bench.line(route);
            let bytes = pattern(2_000_000);
            let (mut told, mut received) = (0, Vec::new());
            while received.len() < bytes.len() {
                if told < bytes.len() {
                    told += bench.scene.write(&line.far, &bytes[told..]).unwrap_or(0);
                }
                match bench.receive_next(&line, how) {
                    Got::Bytes(more) => received.extend(more),
                    // It has taken all buffers at once.
                    Got::Failed(Errno::ENOBUFS) => {}
                    other => panic!("{route:?} {how:?}: {other:?} after {} bytes", received.len()),
                }
            }
            assert!(received == bytes, "{route:?} {how:?}: other bytes");
            bench.scene.finish(&line.far);
            assert_eq!(bench.receive_next(&line, how), Got::End);
            bench.close_line(line);
        }
    }
}

pub(super) fn end<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for how in [Receive::Once, Receive::Request, Receive::Multishot] {
            for is_early in [true, false] {
                let line = bench.line(route);
                if is_early {
                    bench.scene.finish(&line.far);
                }
                bench.receive(line.token, &line.handle, how);
                if !is_early {
                    bench.expect_quiet();
                    bench.scene.finish(&line.far);
                }
                assert_eq!(bench.got(line.token), (Got::End, false), "{route:?} {how:?}");
                bench.expect_quiet();
                // The other direction is open.
                bench.send_all(&line, b"answer", Sending::Now);
                assert_eq!(bench.hear(&line.far, 6), b"answer");
                bench.close_line(line);
            }
        }
    }
}

pub(super) fn bytes_and_end<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for how in [Receive::Once, Receive::Request, Receive::Multishot] {
            let line = bench.line(route);
            bench.receive(line.token, &line.handle, how);
            bench.pump(Some(0));
            bench.tell(&line.far, b"last");
            bench.scene.finish(&line.far);
            assert_eq!(bench.gather(&line, how, 4), b"last");
            assert_eq!(bench.receive_next(&line, how), Got::End, "{route:?} {how:?}");
            bench.close_line(line);
        }
    }
}

pub(super) fn reset<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for how in [Receive::Once, Receive::Request, Receive::Multishot] {
            for is_early in [true, false] {
                let Line { token, handle, far } = bench.line(route);
                bench.send(token, &handle, batch(b"unread"), Sending::Now);
                assert_eq!(bench.sent(token).1, Ok(6));
                if !is_early {
                    bench.receive(token, &handle, how);
                    bench.expect_quiet();
                }
                bench.scene.reset(far);
                if is_early {
                    bench.receive(token, &handle, how);
                }
                let expected = (Got::Failed(Errno::ECONNRESET), false);
                assert_eq!(bench.got(token), expected, "{route:?} {how:?}, early: {is_early}");
                bench.expect_quiet();
                bench.close(token, handle);
            }
        }
    }
}

/// A transport that is abandoned ends its receive by a shutdown.
pub(super) fn shut<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for how in [Receive::Once, Receive::Request, Receive::Multishot] {
            let line = bench.line(route);
            bench.receive(line.token, &line.handle, how);
            bench.expect_quiet();
            bench.driver().shutdown(&line.handle, true);
            assert_eq!(bench.got(line.token), (Got::End, false), "{route:?} {how:?}");
            bench.close_line(line);
        }
    }
}

pub(super) fn in_turn<S: Scene>(bench: &mut Bench<S>) {
    let lines: Vec<Line<S>> = (0..8).map(|number| bench.line(Route::ALL[number % 4])).collect();
    for line in &lines {
        bench.receive(line.token, &line.handle, Receive::Multishot);
    }
    let mut received = vec![Vec::new(); lines.len()];
    for number in 0..100u8 {
        for line in &lines {
            bench.tell(&line.far, &[number]);
        }
        if number % 3 == 0 {
            bench.pump(Some(0));
        }
        // A buffer for each byte would be more than there are.
        for (line, received) in lines.iter().zip(&mut received) {
            while bench.has_arrived(line.token, Op::Receive) {
                let Got::Bytes(more) = bench.got(line.token).0 else { panic!("no bytes") };
                received.extend(more);
            }
        }
    }
    for (line, received) in lines.iter().zip(&mut received) {
        while received.len() < 100 {
            let Got::Bytes(more) = bench.receive_next(line, Receive::Multishot) else { panic!("no bytes") };
            received.extend(more);
        }
        assert_eq!(*received, (0..100).collect::<Vec<u8>>());
    }
    lines.into_iter().for_each(|line| bench.close_line(line));
}

pub(super) fn packets<S: Scene>(bench: &mut Bench<S>) {
    let largest = pattern(PACKET_SIZE_MAX as usize);
    let line = bench.packet_line();
    for is_early in [true, false] {
        let packets: [&[u8]; 5] = [b"first", b"", b"", b"third", &largest];
        for packet in packets {
            if is_early {
                assert_eq!(bench.until("room", |scene| scene.write(&line.far, packet)), packet.len());
            }
            if !bench.is_in_flight(line.token, Op::Receive) {
                bench.receive(line.token, &line.handle, Receive::Packets);
            }
            if !is_early {
                bench.expect_quiet();
                assert_eq!(bench.until("room", |scene| scene.write(&line.far, packet)), packet.len());
            }
            assert_eq!(bench.receive_next(&line, Receive::Packets), Got::Bytes(packet.to_vec()));
        }
    }
    bench.scene.finish(&line.far);
    assert_eq!(bench.receive_next(&line, Receive::Packets), Got::End);
    assert!(!bench.is_in_flight(line.token, Op::Receive));
    bench.close_line(line);
}

/// recv(2) returns 0 for both.
pub(super) fn last_packet_empty<S: Scene>(bench: &mut Bench<S>) {
    for is_early in [true, false] {
        let line = bench.packet_line();
        if !is_early {
            bench.receive(line.token, &line.handle, Receive::Packets);
            bench.pump(Some(0));
        }
        for packet in [&b"one"[..], b"", b""] {
            assert_eq!(bench.scene.write(&line.far, packet), Some(packet.len()));
        }
        bench.scene.finish(&line.far);
        for packet in [&b"one"[..], b"", b""] {
            assert_eq!(bench.receive_next(&line, Receive::Packets), Got::Bytes(packet.to_vec()));
        }
        assert_eq!(bench.receive_next(&line, Receive::Packets), Got::End);
        bench.close_line(line);
    }
}

pub(super) fn packet_too_large<S: Scene>(bench: &mut Bench<S>) {
    let large = pattern(POOL_BUFFER_SIZE + 10);
    for is_early in [true, false] {
        let line = bench.packet_line();
        if !is_early {
            bench.receive(line.token, &line.handle, Receive::Packets);
            bench.pump(Some(0));
        }
        assert_eq!(bench.scene.write(&line.far, &large), Some(large.len()));
        assert_eq!(bench.receive_next(&line, Receive::Packets), Got::Failed(Errno::EMSGSIZE));
        bench.until("room", |scene| scene.write(&line.far, b"next"));
        assert_eq!(bench.receive_next(&line, Receive::Packets), Got::Bytes(b"next".to_vec()));
        bench.close_line(line);
    }
}

pub(super) fn many_packets<S: Scene>(bench: &mut Bench<S>) {
    let line = bench.packet_line();
    let packet_of = |number: usize| pattern(number % 40).repeat(1 + number % 3);
    let (mut told, mut received) = (0, 0);
    while received < 1_000 {
        while told < 1_000 && told < received + 8 && bench.scene.write(&line.far, &packet_of(told)).is_some() {
            told += 1;
        }
        assert_eq!(bench.receive_next(&line, Receive::Packets), Got::Bytes(packet_of(received)), "packet {received}");
        received += 1;
    }
    bench.close_line(line);
}

/// Urgent data ends a receive early, and is no part of the stream.
pub(super) fn urgent<S: Scene>(bench: &mut Bench<S>) {
    for how in [Receive::Once, Receive::Multishot] {
        for is_early in [true, false] {
            let line = bench.line(Route::TcpClient);
            if !is_early {
                bench.receive(line.token, &line.handle, how);
                bench.pump(Some(0));
            }
            for _ in 0..5 {
                bench.tell(&line.far, b"before");
                bench.scene.urge(&line.far);
                bench.tell(&line.far, b"after");
                assert_eq!(bench.gather(&line, how, 11), b"beforeafter", "{how:?}, early: {is_early}");
            }
            bench.scene.urge(&line.far);
            bench.scene.finish(&line.far);
            assert_eq!(bench.receive_next(&line, how), Got::End);
            bench.close_line(line);
        }
    }
}

/// Descriptors end a receive early, and are not installed in this process.
pub(super) fn descriptors<S: Scene>(bench: &mut Bench<S>) {
    for how in [Receive::Once, Receive::Request, Receive::Multishot, Receive::Packets] {
        for is_early in [true, false] {
            let line = if how == Receive::Packets { bench.packet_line() } else { bench.line(Route::UnixBackend) };
            if !is_early {
                bench.receive(line.token, &line.handle, how);
                bench.pump(Some(0));
            }
            bench.tell(&line.far, b"one");
            let passed = [bench.scene.write_with_descriptor(&line.far, b"two"), {
                bench.scene.write_with_descriptor(&line.far, b"six")
            }];
            bench.tell(&line.far, b"ten");
            assert_eq!(bench.gather(&line, how, 12), b"onetwosixten", "{how:?}, early: {is_early}");
            for far in passed {
                assert_eq!(bench.hear_next(&far), super::Heard::End, "{how:?}: nobody has the other end");
            }
            bench.close_line(line);
        }
    }
}
