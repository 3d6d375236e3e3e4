//! A client and a server on a real socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rfc6455::header::ProtocolError;

use super::*;
use crate::doubles::{expect, frame, give, say, sockaddr_un};
use crate::handover::{self, Received};

/// A client's socket, and the `Client` of a hand-over with its other end.
fn pair() -> (UnixStream, Client) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    let (gateway, connection) = UnixStream::pair().unwrap();
    give(&gateway, &sockaddr_un(), &[ours.as_raw_fd()]);
    match handover::receive(connection.as_fd(), 0) {
        Ok(Received::Client(handed)) => (theirs, Client::new(handed, 1000)),
        other => panic!("{other:?}"),
    }
}

/// Takes all messages of one receive.
fn hear(client: &mut Client) -> Result<Vec<String>, Error> {
    let mut buffer = Buffer::new();
    let mut batch = client.receive(&mut buffer)?;
    let mut heard = Vec::new();
    while let Some(message) = batch.take()? {
        heard.push(format!("{:?} {}", message.opcode, String::from_utf8_lossy(&message.payload)));
    }
    Ok(heard)
}

#[test]
fn all_replies_to_one_receive_are_sent_together() {
    let (mut theirs, mut client) = pair();
    say(&theirs, &[frame(0x81, b"one"), frame(0x89, b"?"), frame(0x82, b"two")]);
    let mut buffer = Buffer::new();
    let mut batch = client.receive(&mut buffer).unwrap();
    while let Some(message) = batch.take().unwrap() {
        theirs.set_nonblocking(true).unwrap();
        assert!(theirs.read(&mut [0]).is_err(), "a reply left by itself");
        batch.send(message.opcode, &message.payload).unwrap();
    }
    theirs.set_nonblocking(false).unwrap();
    let mut came = [0; 100];
    let size = theirs.read(&mut came).unwrap();
    assert_eq!(&came[..size], b"\x81\x03one\x8a\x01?\x82\x03two");
}

#[test]
fn bytes_after_a_close_frame_do_not_delay_the_close() {
    let (mut theirs, mut client) = pair();
    say(&theirs, &[frame(0x88, b"")]);
    client.set_nonblocking(true);
    assert_eq!(hear(&mut client), Err(Error::Closed { code: None, reason: "".into() }));
    let flooding = std::thread::spawn(move || while theirs.write_all(&[0; 65_536]).is_ok() {});
    while hear(&mut client) != Err(Error::WouldBlock) {}
    assert!(!client.finish(20));
    flooding.join().unwrap();
}

#[test]
fn pings_do_not_starve_the_server() {
    let (theirs, mut client) = pair();
    client.set_nonblocking(true);
    for round in 0..2 {
        for _ in 0..IDLE_RECEIVES_MAX {
            say(&theirs, &[frame(0x89, b"?")]);
            assert_eq!(hear(&mut client), Ok(vec![]));
        }
        say(&theirs, &[frame(0x81, b"behind")]);
        assert_eq!(hear(&mut client), Err(Error::WouldBlock), "round {round}");
        assert_eq!(hear(&mut client), Ok(vec!["Text behind".to_owned()]));
    }
    // A receive with a byte of a message does not count as idle.
    for _ in 0..2 * IDLE_RECEIVES_MAX {
        say(&theirs, &[frame(0x89, b"?"), frame(0x01, b"part")]);
        assert_eq!(hear(&mut client), Ok(vec![]));
        say(&theirs, &[frame(0x89, b"?"), frame(0x80, b"end")]);
        assert_eq!(hear(&mut client), Ok(vec!["Text partend".to_owned()]));
    }
}

#[test]
fn messages_of_a_dropped_batch_are_returned_next() {
    let (theirs, mut client) = pair();
    client.set_nonblocking(true);
    say(&theirs, &[frame(0x81, b"one"), frame(0x81, b"two"), frame(0x81, b"three")]);
    let mut buffer = Buffer::new();
    for text in ["one", "two"] {
        let mut batch = client.receive(&mut buffer).unwrap();
        assert_eq!(&*batch.take().unwrap().unwrap().payload, text.as_bytes());
        drop(batch);
        assert!(client.has_buffered());
    }
    assert_eq!(hear(&mut client).unwrap(), ["Text three"]);
    assert!(!client.has_buffered());
    assert_eq!(hear(&mut client), Err(Error::WouldBlock));
}

#[test]
fn a_ping_is_answered_while_the_server_sends_nothing() {
    let (theirs, mut client) = pair();
    for (frames, heard) in [
        (vec![frame(0x89, b"a")], &[][..]),
        (vec![frame(0x89, b"b"), frame(0x81, b"x")], &["Text x"]),
        (vec![frame(0x01, b"y"), frame(0x89, b"c"), frame(0x80, b"z")], &["Text yz"]),
    ] {
        say(&theirs, &frames);
        assert_eq!(hear(&mut client).unwrap(), heard);
    }
    expect(&theirs, b"\x8a\x01a\x8a\x01b\x8a\x01c");
}

#[test]
fn pongs_are_dropped_unless_asked_for() {
    let (theirs, mut client) = pair();
    client.ping(b"?").unwrap();
    expect(&theirs, b"\x89\x01?");
    say(&theirs, &[frame(0x8a, b"?"), frame(0x81, b"x")]);
    assert_eq!(hear(&mut client).unwrap(), ["Text x"]);
    client.set_pongs_reported(true);
    say(&theirs, &[frame(0x8a, b"?")]);
    assert_eq!(hear(&mut client).unwrap(), ["Pong "]);
    assert_eq!(client.ping(&[0; 126]), Err(Error::Argument));
}

#[test]
fn ends_of_conversations() {
    let closed = |code, reason: &str| Error::Closed { code, reason: reason.into() };
    for (frames, error, answer) in [
        (vec![frame(0x88, b"\x03\xe8bye")], closed(Some(CloseCode::NORMAL), "bye"), &b"\x88\x02\x03\xe8"[..]),
        (vec![frame(0x88, b"\x0f\xa0")], closed(Some(CloseCode(4000)), ""), b"\x88\x02\x0f\xa0"),
        (vec![frame(0x88, b"")], closed(None, ""), b"\x88\x00"),
        (
            vec![frame(0x82, &[0; 1001])],
            Error::Protocol(ProtocolError::TooBig { size: 1001, size_max: 1000 }),
            b"\x88\x2a\x03\xf1a message of 1001 bytes, 1000 at most",
        ),
        (
            vec![frame(0x81, b"\xff")],
            Error::Protocol(ProtocolError::InvalidUtf8),
            b"\x88\x1f\x03\xefa text message is not UTF-8",
        ),
        (
            vec![frame(0x83, b"")],
            Error::Protocol(ProtocolError::ReservedOpcode(3)),
            b"\x88\x13\x03\xeareserved opcode 3",
        ),
    ] {
        let (mut theirs, mut client) = pair();
        // Messages after the close frame are dropped.
        say(&theirs, &[frames.concat(), frame(0x81, b"more")]);
        assert_eq!(hear(&mut client), Err(error.clone()), "{frames:x?}");
        assert_eq!(client.send(Opcode::Text, b"never"), Err(Error::Ended));
        let mut came = Vec::new();
        theirs.read_to_end(&mut came).unwrap();
        assert_eq!((came[0], &came[2..]), (answer[0], &answer[2..]), "{error:?}");
        say(&theirs, &[frame(0x81, b"even more")]);
        drop(theirs);
        assert_eq!(hear(&mut client), Err(Error::Ended));
        assert!(client.finish(0));
    }
}

#[test]
fn the_server_closes_first() {
    let (theirs, mut client) = pair();
    assert_eq!(client.close(CloseCode::NO_STATUS, ""), Err(Error::Argument));
    client.close(CloseCode::GOING_AWAY, "bye").unwrap();
    expect(&theirs, b"\x88\x05\x03\xe9bye");
    say(&theirs, &[frame(0x81, b"crossed"), frame(0x88, b"\x03\xe9")]);
    assert_eq!(hear(&mut client), Err(Error::Closed { code: Some(CloseCode::GOING_AWAY), reason: "".into() }));
    assert!(!client.finish(0), "the client has not ended its connection");

    let (theirs, mut client) = pair();
    client.close(CloseCode::NORMAL, "").unwrap();
    let finishing = std::thread::spawn(move || client.finish(60_000));
    expect(&theirs, b"\x88\x02\x03\xe8");
    say(&theirs, &[frame(0x81, b"crossed"), frame(0x88, b"\x03\xe8")]);
    drop(theirs);
    assert!(finishing.join().unwrap());
}

#[test]
fn a_client_that_does_not_read() {
    let (mut theirs, mut client) = pair();
    client.set_nonblocking(true);
    let message = [b'x'; 10_000];
    let mut count = 0;
    while client.send(Opcode::Text, &message) != Err(Error::WouldBlock) {
        count += 1;
        assert!(count < 10_000, "everything is taken");
    }
    assert!(client.wants_to_write());
    assert_eq!(client.flush(), Err(Error::WouldBlock));
    let reading = std::thread::spawn(move || {
        let mut came = Vec::new();
        theirs.read_to_end(&mut came).unwrap();
        came.len()
    });
    client.set_nonblocking(false);
    client.flush().unwrap();
    client.send(Opcode::Text, &vec![b'y'; 3_000_000]).unwrap();
    assert!(!client.wants_to_write());
    drop(client);
    assert_eq!(reading.join().unwrap(), count * 10_004 + 3_000_010);
}

#[test]
fn invalid_messages_are_not_sent() {
    let (_theirs, mut client) = pair();
    assert_eq!(client.send(Opcode::Text, b"\xff"), Err(Error::Text));
    for opcode in [Opcode::Continuation, Opcode::Close, Opcode::Ping, Opcode::Pong] {
        assert_eq!(client.send(opcode, b""), Err(Error::Argument));
    }
}

/// Runs a call that must not block; fails the test if it does.
fn within_deadline<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(act()));
    receiver.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{what} waits"))
}

/// A client that does not read, and its server in blocking mode.
fn stalled() -> (UnixStream, Client) {
    let (theirs, mut client) = pair();
    client.set_nonblocking(true);
    while client.send(Opcode::Binary, &[7; 10_000]) != Err(Error::WouldBlock) {}
    client.set_nonblocking(false);
    (theirs, client)
}

#[test]
fn pings_whose_pongs_are_not_read_do_not_block_the_server() {
    let (theirs, mut client) = pair();
    theirs.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let pinging = std::thread::spawn(move || {
        for _ in 0..20_000 {
            say(&theirs, &[frame(0x89, &[b'?'; 125])]);
        }
        say(&theirs, &[frame(0x81, b"heard")]);
        theirs
    });
    let heard = within_deadline("a receive", move || {
        loop {
            let heard = hear(&mut client).unwrap();
            if !heard.is_empty() {
                return heard;
            }
        }
    });
    assert_eq!(heard, ["Text heard"]);
    drop(pinging.join().unwrap());
}

#[test]
fn a_stalled_client_is_closed_at_once() {
    let (theirs, mut client) = stalled();
    within_deadline("close", move || client.close(CloseCode::NORMAL, "").unwrap());
    drop(theirs);
    // The client's own close frame is still received.
    let (theirs, mut client) = stalled();
    say(&theirs, &[frame(0x88, b"\x03\xe8")]);
    let heard = within_deadline("the answer to a close frame", move || hear(&mut client));
    assert_eq!(heard, Err(Error::Closed { code: Some(CloseCode::NORMAL), reason: "".into() }));
}

#[test]
fn socket_timeouts_limit_send_and_receive() {
    let limit = TimeVal::new(0, 60_000);
    let (theirs, mut client) = stalled();
    nix::sys::socket::setsockopt(&client, sockopt::SendTimeout, &limit).unwrap();
    let results = within_deadline("a send", move || [1, 2].map(|_| client.send(Opcode::Binary, &[7; 10_000])));
    assert_eq!(results, [Err(Error::WouldBlock), Err(Error::WouldBlock)]);
    drop(theirs);
    // Pings do not prolong the wait for a message.
    let (theirs, mut client) = pair();
    nix::sys::socket::setsockopt(&client, sockopt::ReceiveTimeout, &limit).unwrap();
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ends = std::sync::Arc::clone(&is_over);
    // While the receive stands still, the pings may fill the socket.
    theirs.set_nonblocking(true).unwrap();
    let pinging = std::thread::spawn(move || {
        while !ends.load(std::sync::atomic::Ordering::Relaxed) {
            let _ = (&theirs).write(&frame(0x89, b""));
            std::thread::sleep(Duration::from_millis(5));
        }
        theirs
    });
    let (result, client) = within_deadline("a receive", move || {
        loop {
            match hear(&mut client) {
                Ok(_) => {}
                Err(error) => return (error, client),
            }
        }
    });
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    drop((pinging.join().unwrap(), client));
    assert_eq!(result, Error::WouldBlock);
}
