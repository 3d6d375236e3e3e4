//! Hand-overs of clients to backends.

use super::bench::{Bench, Got, Line, Route, batch, pattern};
use super::{Errno, File, Handle, Heard, READ_SIZE_MAX, Scene};
use crate::driver::{Driver, Handover, HandoverStep, Receive, RecordSuite, Sending, SocketType};
use crate::limits::TCP_UNSENT_SIZE;

type HandedOver<S> = Result<Option<Handle<S>>, (HandoverStep, Errno)>;

/// Hands a client over to a file of the scene's folder.
fn hand_over<S: Scene>(bench: &mut Bench<S>, name: &str, client: &Handle<S>, handover: Handover) -> HandedOver<S> {
    let token = bench.token();
    let file = bench.socket_file(token, name);
    bench.hand_over(token, &file, client, handover);
    let result = bench.handed_over(token);
    bench.driver().close(file);
    result
}

pub(super) fn handover(is_relayed: bool, is_watched: bool) -> Handover {
    Handover { reply: (*b"reply").into(), record: [1, 0].into(), is_relayed, is_watched, has_kernel_tls: false }
}

/// The connection that a backend received, and what was passed through it.
pub(super) fn parcel<S: Scene>(bench: &mut Bench<S>, name: &str) -> (S::Far, S::Far) {
    let carrier = bench.until("a connection", |scene| scene.arrived(name));
    let (record, mut passed) = bench.until("a record", |scene| scene.parcel(&carrier));
    assert_eq!((record, passed.len()), (vec![1, 0], 1));
    (carrier, passed.remove(0))
}

/// Asserts that a backend received nothing but a connection at most.
fn expect_no_parcel<S: Scene>(bench: &mut Bench<S>, name: &str) {
    if let Some(carrier) = bench.scene.arrived(name) {
        let heard = bench.hear_next(&carrier);
        assert!(matches!(heard, Heard::End | Heard::Reset), "{heard:?}");
    }
}

pub(super) fn plain<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for route in Route::CLIENTS {
        let Line { token, handle, far } = bench.line(route);
        assert!(matches!(hand_over(bench, "backend", &handle, handover(false, false)), Ok(None)));
        let (carrier, passed) = parcel(bench, "backend");
        assert_eq!(bench.hear_next(&carrier), Heard::End, "the connection ends after the record");
        assert_eq!(bench.hear(&far, 5), b"reply");
        bench.tell(&passed, b"hello");
        assert_eq!(bench.hear(&far, 5), b"hello");
        bench.close(token, handle);
        bench.expect_quiet();
        bench.tell(&passed, b"still");
        bench.tell(&far, b"there");
        assert_eq!((bench.hear(&far, 5), bench.hear(&passed, 5)), (b"still".to_vec(), b"there".to_vec()));
        bench.scene.leave(passed);
        assert_eq!(bench.hear_next(&far), Heard::End);
    }
}

/// The gateway has received from the client before. An epoll instance holds a registration until all holders have
/// closed, unless it ends it (epoll(7)).
pub(super) fn later_bytes<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for route in Route::CLIENTS {
        for is_waiting in [false, true] {
            let mut line = bench.line(route);
            bench.tell(&line.far, b"request");
            assert_eq!(bench.gather(&line, Receive::Request, 7), b"request");
            if is_waiting {
                bench.receive(line.token, &line.handle, Receive::Multishot);
                bench.expect_quiet();
                bench.end_operations(line.token);
            }
            assert!(matches!(hand_over(bench, "backend", &line.handle, handover(false, false)), Ok(None)));
            let (_, passed) = parcel(bench, "backend");
            assert_eq!(bench.hear(&line.far, 5), b"reply");
            bench.expect_quiet();
            bench.tell(&line.far, b"one");
            bench.expect_idle();
            let Line { token, handle, far } = line;
            bench.close(token, handle);
            bench.expect_quiet();
            // The next socket may have its number.
            line = bench.line(route);
            bench.receive(line.token, &line.handle, Receive::Multishot);
            bench.expect_quiet();
            bench.tell(&far, b"two");
            bench.expect_idle();
            assert_eq!(bench.hear(&passed, 6), b"onetwo");
            bench.tell(&line.far, b"own");
            assert_eq!(bench.gather(&line, Receive::Multishot, 3), b"own");
            bench.scene.finish(&far);
            assert_eq!(bench.hear_next(&passed), Heard::End);
            bench.expect_quiet();
            bench.scene.leave(passed);
            bench.expect_quiet();
            bench.tell(&line.far, b"own");
            assert_eq!(bench.gather(&line, Receive::Multishot, 3), b"own");
            bench.close_line(line);
        }
    }
}

/// A suite that the driver was not told to leave to the kernel: the bytes pass as before.
pub(super) fn without_records<S: Scene>(bench: &mut Bench<S>) {
    for route in Route::CLIENTS {
        let line = bench.line(route);
        for suite in RecordSuite::all() {
            let result = bench.driver().begin_records(&line.handle, suite);
            assert!(matches!(result, Err(Errno::EOPNOTSUPP | Errno::ENOENT)), "{result:?}");
        }
        bench.tell(&line.far, b"request");
        assert_eq!(bench.gather(&line, Receive::Request, 7), b"request");
        bench.send_all(&line, b"reply", Sending::Now);
        assert_eq!(bench.hear(&line.far, 5), b"reply");
        bench.close_line(line);
    }
}

/// The client stays with the gateway, which has one end of a pair.
pub(super) fn relayed<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for route in Route::CLIENTS {
        let client = bench.line(route);
        bench.tell(&client.far, b"early");
        let result = hand_over(bench, "backend", &client.handle, handover(true, false));
        let kept = result.expect("a hand-over").expect("an end of the pair");
        let (carrier, passed) = parcel(bench, "backend");
        assert_eq!(bench.hear_next(&carrier), Heard::End);
        assert_eq!(bench.hear(&client.far, 5), b"reply");
        assert_eq!(bench.gather(&client, Receive::Multishot, 5), b"early");
        let relay = Line { token: bench.token(), handle: kept, far: passed };
        bench.receive(relay.token, &relay.handle, Receive::Multishot);
        bench.expect_quiet();
        bench.send_all(&relay, b"question", Sending::Now);
        assert_eq!(bench.hear(&relay.far, 8), b"question");
        bench.tell(&relay.far, b"answer");
        assert_eq!(bench.gather(&relay, Receive::Multishot, 6), b"answer");
        let sent = bench.fill(&relay);
        bench.send(relay.token, &relay.handle, batch(b"end"), Sending::Wait);
        bench.expect_quiet();
        assert!(bench.hear(&relay.far, sent.len()) == sent, "other bytes");
        assert_eq!(bench.sent(relay.token).1, Ok(3));
        bench.scene.finish(&relay.far);
        assert_eq!(bench.receive_next(&relay, Receive::Multishot), Got::End);
        bench.close_line(relay);
        bench.tell(&client.far, b"later");
        assert_eq!(bench.gather(&client, Receive::Multishot, 5), b"later");
        bench.close_line(client);
    }
}

/// The gateway sends the reply itself, for instance because its bytes pass TLS.
pub(super) fn without_reply<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for route in Route::CLIENTS {
        let client = bench.line(route);
        let handover = Handover { reply: Box::default(), ..handover(true, false) };
        let kept = hand_over(bench, "backend", &client.handle, handover).expect("a hand-over").expect("an end");
        let (_, passed) = parcel(bench, "backend");
        bench.send_all(&client, b"reply", Sending::Now);
        assert_eq!(bench.hear(&client.far, 5), b"reply");
        let relay = Line { token: bench.token(), handle: kept, far: passed };
        bench.send_all(&relay, b"question", Sending::Now);
        assert_eq!(bench.hear(&relay.far, 8), b"question");
        bench.close_line(relay);
        bench.close_line(client);
    }
}

/// The backend takes its client and closes the connection that carried it.
pub(super) fn watched<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for route in Route::CLIENTS {
        let Line { token, handle, far } = bench.line(route);
        let result = hand_over(bench, "backend", &handle, handover(false, true));
        let kept = result.expect("a hand-over").expect("the connection");
        let (carrier, passed) = parcel(bench, "backend");
        let watch = bench.token();
        bench.driver().shutdown(&kept, false);
        bench.receive(watch, &kept, Receive::Once);
        if !S::IS_SIMULATED {
            bench.expect_quiet();
        }
        bench.scene.leave(carrier);
        assert_eq!(bench.got(watch), (Got::End, false));
        bench.close(watch, kept);
        bench.close(token, handle);
        bench.tell(&passed, b"hello");
        assert_eq!(bench.hear(&far, 10), b"replyhello");
        bench.scene.leave(passed);
    }
}

/// A backend that answers the record, and one that has not read it.
pub(super) fn outcomes<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for is_answering in [true, false] {
        let Line { token, handle, far } = bench.line(Route::TcpClient);
        let result = hand_over(bench, "backend", &handle, handover(false, true));
        let kept = result.expect("a hand-over").expect("the connection");
        let carrier = bench.until("a connection", |scene| scene.arrived("backend"));
        let watch = bench.token();
        bench.driver().shutdown(&kept, false);
        bench.receive(watch, &kept, Receive::Once);
        if is_answering {
            bench.tell(&carrier, b"what?");
            assert_eq!(bench.got(watch), (Got::Bytes(b"what?".to_vec()), false));
        } else {
            bench.scene.reset(carrier);
            assert_eq!(bench.got(watch), (Got::Failed(Errno::ECONNRESET), false));
        }
        bench.close(watch, kept);
        bench.close(token, handle);
        assert_eq!(bench.hear(&far, 5), b"reply");
    }
}

/// No step is started, so the backend is not even connected.
pub(super) fn room<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for route in Route::CLIENTS {
        for is_relayed in [false, true] {
            let line = bench.line(route);
            let sent = bench.fill(&line);
            let result = hand_over(bench, "backend", &line.handle, handover(is_relayed, false));
            assert!(matches!(result, Err((HandoverStep::Room, Errno::EAGAIN))), "{:?}", result.map(|_| ()));
            assert!(bench.scene.arrived("backend").is_none());
            assert!(bench.hear(&line.far, sent.len()) == sent, "other bytes");
            // The client's kernel tells that it has everything.
            let mut result = Err((HandoverStep::Room, Errno::EAGAIN));
            for _ in 0..60_000 {
                if !matches!(result, Err((HandoverStep::Room, _))) {
                    break;
                }
                bench.pump(Some(1));
                result = hand_over(bench, "backend", &line.handle, handover(is_relayed, false));
            }
            let kept = result.expect("a hand-over");
            assert_eq!(kept.is_some(), is_relayed);
            let (_, passed) = parcel(bench, "backend");
            assert_eq!(bench.hear(&line.far, 5), b"reply");
            bench.scene.leave(passed);
            kept.into_iter().for_each(|kept| bench.driver().close(kept));
            bench.close_line(line);
        }
    }
}

/// Nothing is sent to either end, and the client stays.
pub(super) fn unconnected<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("refusing", File::Refusing);
    bench.scene.add("full", File::Full);
    bench.scene.add("packets", File::Listening(SocketType::SeqPacket));
    for route in Route::CLIENTS {
        let line = bench.line(route);
        for (name, expected) in
            [("refusing", Errno::ECONNREFUSED), ("full", Errno::EAGAIN), ("packets", Errno::EPROTOTYPE)]
        {
            for is_relayed in [false, true] {
                bench.tell(&line.far, b"before");
                bench.pump(Some(0));
                let result = hand_over(bench, name, &line.handle, handover(is_relayed, !is_relayed));
                let failed = result.map(|_| ());
                assert_eq!(failed, Err((HandoverStep::Connect, expected)), "{name}");
                bench.tell(&line.far, b"after");
                assert_eq!(bench.gather(&line, Receive::Multishot, 11), b"beforeafter", "{name}");
                bench.tell(&line.far, b"next");
                assert_eq!(bench.gather(&line, Receive::Multishot, 4), b"next", "{name}");
                bench.end_operations(line.token);
                assert_eq!(bench.scene.read(&line.far, READ_SIZE_MAX), Heard::Nothing);
                bench.send_all(&line, b"sorry", Sending::Now);
                assert_eq!(bench.hear(&line.far, 5), b"sorry");
            }
        }
        bench.close_line(line);
    }
}

/// The backend receives nothing.
pub(super) fn reset<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for route in Route::CLIENTS {
        for is_relayed in [false, true] {
            let Line { token, handle, far } = bench.line(route);
            bench.send(token, &handle, batch(b"unread"), Sending::Now);
            assert_eq!(bench.sent(token).1, Ok(6));
            bench.scene.reset(far);
            let result = hand_over(bench, "backend", &handle, handover(is_relayed, false)).map(|_| ());
            let is_right = matches!(result, Err((HandoverStep::Reply, Errno::EPIPE | Errno::ECONNRESET)));
            assert!(is_right, "{route:?}: {result:?}");
            expect_no_parcel(bench, "backend");
            bench.close(token, handle);
        }
    }
}

/// The connected backend does not wait for the client.
pub(super) fn large_reply<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for route in Route::CLIENTS {
        let line = bench.line(route);
        let handover = Handover { reply: pattern(64 << 20).into(), ..handover(false, false) };
        let result = hand_over(bench, "backend", &line.handle, handover).map(|_| ());
        let is_right = matches!(result, Err((HandoverStep::Reply, Errno::ECANCELED | Errno::EAGAIN)));
        assert!(is_right, "{route:?}: {result:?}");
        expect_no_parcel(bench, "backend");
        bench.close_line(line);
    }
}

/// A client that leaves is as the kernel made it; one that stays keeps its limit.
pub(super) fn unsent<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("backend", File::Listening(SocketType::Stream));
    for is_relayed in [true, false] {
        let line = bench.line(Route::TcpClient);
        bench.scene.limit_unsent(&line.handle);
        let kept = hand_over(bench, "backend", &line.handle, handover(is_relayed, false)).expect("a hand-over");
        let expected = if is_relayed { TCP_UNSENT_SIZE } else { 0 };
        assert_eq!(bench.scene.unsent_size_max(&line.handle), expected, "relayed: {is_relayed}");
        kept.into_iter().for_each(|kept| bench.driver().close(kept));
        bench.close_line(line);
    }
}
