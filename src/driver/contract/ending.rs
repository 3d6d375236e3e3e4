//! How connections end: half closes, closes, numbers that are used again, and a driver that is dropped.

use super::bench::{Bench, Got, Line, Route};
use super::devices::{fill, sink, source, tty};
use super::{Family, File, Heard, Host, READ_SIZE_MAX, Scene};
use crate::driver::{Driver, OpenFor, Receive};

pub(super) fn half_close<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for how in [Receive::Once, Receive::Multishot] {
            // The driver's end first.
            let line = bench.line(route);
            bench.receive(line.token, &line.handle, how);
            bench.pump(Some(0));
            bench.driver().shutdown(&line.handle, false);
            assert_eq!(bench.hear_next(&line.far), Heard::End);
            bench.expect_quiet();
            bench.tell(&line.far, b"late");
            assert_eq!(bench.gather(&line, how, 4), b"late", "{route:?} {how:?}");
            bench.scene.finish(&line.far);
            assert_eq!(bench.receive_next(&line, how), Got::End);
            bench.close_line(line);
            // The far end first.
            let line = bench.line(route);
            bench.scene.finish(&line.far);
            assert_eq!(bench.receive_next(&line, how), Got::End, "{route:?} {how:?}");
            let sent = bench.block(&line, b"end");
            assert!(bench.hear(&line.far, sent.len()) == sent, "other bytes");
            assert_eq!(bench.sent(line.token).1, Ok(3), "{route:?} {how:?}");
            assert_eq!(bench.hear(&line.far, 3), b"end");
            bench.driver().shutdown(&line.handle, false);
            assert_eq!(bench.hear_next(&line.far), Heard::End);
            bench.close_line(line);
        }
    }
}

pub(super) fn close_unread<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        let Line { token, handle, far } = bench.line(route);
        bench.tell(&far, b"unread");
        bench.expect_quiet();
        bench.driver().close(handle);
        assert!(matches!(bench.hear_next(&far), Heard::End | Heard::Reset), "{route:?}");
        assert!(!bench.is_in_flight(token, crate::driver::Op::Receive));
    }
}

/// A socket's number goes to the next one at once, while the kernel may still report events of the first.
pub(super) fn reused_number<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for number in 0..30u8 {
            let old = bench.line(route);
            bench.receive(old.token, &old.handle, Receive::Multishot);
            if number % 3 == 0 {
                let sent = bench.block(&old, b"end");
                bench.hear(&old.far, sent.len() / 2);
            }
            bench.pump(Some(0));
            bench.end_operations(old.token);
            // Events for the old socket that no wait has returned.
            bench.tell(&old.far, b"old");
            let Line { handle, far, .. } = old;
            bench.driver().close(handle);
            let new = bench.line(route);
            bench.receive(new.token, &new.handle, Receive::Multishot);
            if number % 2 == 0 {
                bench.scene.leave(far);
            }
            bench.expect_quiet();
            bench.tell(&new.far, &[number]);
            assert_eq!(bench.gather(&new, Receive::Multishot, 1), [number], "{route:?}");
            bench.close_line(new);
        }
    }
}

/// What is known of the old socket says nothing about the new one.
pub(super) fn reused_after_end<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::ALL {
        for _ in 0..10 {
            let old = bench.line(route);
            assert!(bench.scene.write(&old.far, b"unread").is_some());
            bench.scene.finish(&old.far);
            bench.receive(old.token, &old.handle, Receive::Once);
            assert_eq!(bench.got(old.token), (Got::Bytes(b"unread".to_vec()), false));
            bench.close_line(old);
            let new = bench.line(route);
            for how in [Receive::Once, Receive::Multishot] {
                bench.receive(new.token, &new.handle, how);
                bench.expect_quiet();
                bench.tell(&new.far, b"own");
                assert_eq!(bench.gather(&new, how, 3), b"own", "{route:?}");
            }
            bench.close_line(new);
        }
    }
}

/// Also for clients that the accept in flight would have taken.
pub(super) fn closed_listener<S: Scene>(bench: &mut Bench<S>) {
    let listening = bench.token();
    let (listener, port) = bench.scene.listener(Family::Tcp);
    bench.accept(listening, &listener);
    bench.pump(Some(0));
    bench.end_operations(listening);
    let waiting = bench.scene.client(port);
    bench.driver().close(listener);
    assert!(matches!(bench.hear_next(&waiting), Heard::End | Heard::Reset));
    let crate::types::Address::Tcp(address) = bench.scene.port_address(port) else { panic!("no address") };
    let token = bench.token();
    bench.connect_tcp(token, address);
    assert_eq!(bench.connected(token).map(|_| ()), Err(super::Errno::ECONNREFUSED));
}

/// A driver that is dropped with operations in flight leaves no connection open behind the handles.
pub(super) fn teardown<S: Scene>(bench: &mut Bench<S>) {
    let mut lines = Vec::new();
    for route in Route::ALL {
        for how in [Receive::Once, Receive::Request, Receive::Multishot] {
            let line = bench.line(route);
            bench.receive(line.token, &line.handle, how);
            lines.push(line);
            let line = bench.line(route);
            bench.receive(line.token, &line.handle, how);
            bench.block(&line, b"end");
            lines.push(line);
        }
    }
    let line = bench.packet_line();
    bench.receive(line.token, &line.handle, Receive::Packets);
    lines.push(line);
    let (pipe, devices) = (source(bench), [tty(bench), sink(bench)]);
    for line in [&pipe, &devices[0]] {
        bench.receive(line.token, &line.handle, Receive::Device);
    }
    fill(bench, &devices[1]);
    let (listening, connecting, opening) = (bench.token(), bench.token(), bench.token());
    let (listener, port) = bench.scene.listener(Family::Tcp);
    bench.accept(listening, &listener);
    let silent = bench.scene.host(Host::Silent);
    bench.connect_tcp(connecting, silent);
    let late = bench.line(Route::UnixClient);
    bench.expect_quiet();
    bench.receive(late.token, &late.handle, Receive::Multishot);
    lines.push(late);
    // And what no wait has submitted.
    bench.scene.add("file", File::Bytes(b"content"));
    bench.open(opening, "file", OpenFor::Reading);
    let waiting = bench.scene.client(port);
    bench.drop_driver();
    let mut fars = vec![waiting];
    for Line { handle, far, .. } in lines.into_iter().chain(devices) {
        drop(handle);
        fars.push(far);
    }
    // The writer of a pipe is told nothing.
    drop((listener, pipe));
    for (far, number) in fars.iter().zip(0..) {
        let mut is_over = false;
        // The kernel ends a ring in a thread of its own.
        for _ in 0..12_000 {
            match bench.scene.read(far, READ_SIZE_MAX) {
                Heard::End | Heard::Reset => is_over = true,
                Heard::Bytes(_) => continue,
                Heard::Nothing => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
            if is_over {
                break;
            }
        }
        assert!(is_over, "somebody still holds connection {number}");
    }
}
