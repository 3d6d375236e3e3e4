//! Messages as packets (SOCK_SEQPACKET): one packet is one message, both ways.

use std::io::IoSlice;
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::client::{CONTINUATION, Frame, TEXT};
use crate::daemon::Daemon;
use crate::process::eventually;

#[test]
fn message_boundaries_are_kept_in_both_directions() {
    for flags in [&["--protocol", "packet"][..], &["--protocol", "stream"], &[]] {
        let daemon = Daemon::start(flags);
        let server = daemon.listen_packets("server");
        let mut client = daemon.connect("/server");
        let mut backend = server.accept();
        client.send(&["one", "two", "three"].map(|text| Frame::new(TEXT, text.as_bytes())));
        for text in ["one", "two", "three"] {
            assert_eq!(backend.read(), text.as_bytes(), "{flags:?}");
        }
        for text in ["un", "deux", "trois"] {
            backend.send(text);
        }
        for text in ["un", "deux", "trois"] {
            client.expect_text(text);
        }
        client.finish(1000);
        backend.expect_end();
    }
}

/// Descriptors that a backend sends (SCM_RIGHTS) are closed, and do not fill the gateway's table.
#[test]
fn descriptors_sent_with_messages_are_closed() {
    for protocol in ["packet", "stream"] {
        let daemon = Daemon::start(&["--protocol", protocol]);
        let server = if protocol == "packet" { daemon.listen_packets("server") } else { daemon.listen("server") };
        let mut client = daemon.connect("/server");
        let mut backend = server.accept();
        // By the turn that receives a message, what the handshake opened is closed.
        client.text("hello");
        backend.expect("hello");
        let files = daemon.open_files();
        let null = std::fs::File::open("/dev/null").unwrap();
        for count in 1..10 {
            let passed = vec![null.as_raw_fd(); count];
            let (text, rights) = ([IoSlice::new(b"text")], [ControlMessage::ScmRights(&passed)]);
            sendmsg::<()>(backend.stream().as_raw_fd(), &text, &rights, MsgFlags::empty(), None).unwrap();
            client.expect_text("text");
            // A folder may be open for a moment, here or above.
            eventually(&format!("{protocol}, {count} descriptors are closed"), || daemon.open_files() <= files);
        }
    }
}

#[test]
fn fragments_become_one_packet() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let server = daemon.listen_packets("server");
    let mut client = daemon.connect("/server");
    let mut backend = server.accept();
    client.send(&[Frame::part(TEXT, b"one "), Frame::part(CONTINUATION, b""), Frame::part(CONTINUATION, b"packet ")]);
    client.send(&[Frame::new(CONTINUATION, b"only"), Frame::new(TEXT, b"next")]);
    assert_eq!(backend.read(), b"one packet only");
    assert_eq!(backend.read(), b"next");
}

#[test]
fn empty_packets_are_messages() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let server = daemon.listen_packets("server");
    let mut client = daemon.connect("/server");
    let mut backend = server.accept();
    client.send(&[Frame::new(TEXT, b""), Frame::new(TEXT, b"x"), Frame::new(TEXT, b"")]);
    for text in ["", "x", ""] {
        assert_eq!(backend.read(), text.as_bytes());
    }
    // write(2) sends no empty packet, send(2) does.
    let fd = backend.stream().as_raw_fd();
    for text in ["", "y", "", ""] {
        nix::sys::socket::send(fd, text.as_bytes(), MsgFlags::empty()).unwrap();
    }
    for text in ["", "y", "", ""] {
        client.expect_text(text);
    }
    drop(backend);
    client.expect_close_handshake(1000);
}

#[test]
fn text_where_a_packet_is_utf8_else_binary() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let server = daemon.listen_packets("server");
    let mut client = daemon.connect("/server");
    let mut backend = server.accept();
    backend.send("\u{e9}");
    client.expect_text("\u{e9}");
    // A packet is a whole message: a character cut at its end is binary.
    backend.send(b"cut \xc3");
    client.expect_binary(b"cut \xc3");
    backend.send(b"\xa9");
    client.expect_binary(b"\xa9");
}

#[test]
fn packets_at_and_beyond_the_size_limit() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let server = daemon.listen_packets("server");
    let mut client = daemon.connect("/server");
    let mut backend = server.accept();
    let largest = vec![0xff; 64 * 1024];
    client.binary(&largest);
    assert!(backend.read() == largest);
    backend.send(&largest);
    client.expect_binary(&largest);
    client.binary(&vec![0xff; 64 * 1024 + 1]);
    backend.expect_end();
    drop(backend);
    client.expect_close(1009);
    client.wire.expect_end();
    daemon.log().wait_for(&["1009"]);
}

#[test]
fn fragments_beyond_the_limit_are_too_big() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let server = daemon.listen_packets("server");
    let mut client = daemon.connect("/server");
    let mut backend = server.accept();
    client.send(&[Frame::part(TEXT, &[b'x'; 60_000]), Frame::new(CONTINUATION, &[b'x'; 6_000])]);
    client.expect_close(1009);
    backend.expect_end();
}

#[test]
fn a_packet_too_large_for_a_message_is_an_error_of_the_backend() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let server = daemon.listen_packets("server");
    let mut client = daemon.connect("/server");
    let mut backend = server.accept();
    backend.send(vec![0xff; 100_000]);
    client.expect_close_handshake(1011);
    drop(backend);
    daemon.log().wait_for(&["warn", "1011"]);
}

#[test]
fn a_stream_backend_is_refused_in_packet_mode() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let _server = daemon.listen("server");
    assert_eq!(daemon.upgrade("/server", &[]).status, 502);
    let daemon = Daemon::start(&["--protocol", "frames"]);
    let _server = daemon.listen_packets("server");
    assert_eq!(daemon.upgrade("/server", &[]).status, 502);
}

/// An empty packet reads like the end, and the end has come too: what lies between is not lost.
#[test]
fn an_empty_packet_before_the_end_of_file_loses_nothing() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let server = daemon.listen_packets("server");
    let mut client = daemon.connect("/server");
    let backend = server.accept();
    let fd = std::os::fd::AsRawFd::as_raw_fd(backend.stream());
    for text in ["", "hello", "", "world"] {
        nix::sys::socket::send(fd, text.as_bytes(), nix::sys::socket::MsgFlags::empty()).unwrap();
    }
    drop(backend);
    for text in ["", "hello", "", "world"] {
        client.expect_text(text);
    }
    client.expect_close_handshake(1000);
}

/// To recv(2) an empty packet and the end are equal, and either may come first.
#[test]
fn empty_packets_are_distinguished_from_the_end_of_file() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let server = daemon.listen_packets("server");
    for round in 0..200 {
        let mut client = daemon.connect("/server");
        let backend = server.accept();
        let fd = std::os::fd::AsRawFd::as_raw_fd(backend.stream());
        // The gateway's sockets are unnamed: SO_PASSCRED would bind them.
        let name = nix::sys::socket::getpeername::<nix::sys::socket::UnixAddr>(fd).unwrap();
        assert_eq!((name.path(), name.as_abstract()), (None, None));
        for text in ["", "", "hello", ""] {
            nix::sys::socket::send(fd, text.as_bytes(), nix::sys::socket::MsgFlags::empty()).unwrap();
        }
        drop(backend);
        for text in ["", "", "hello", ""] {
            assert_eq!(client.message(), (TEXT, text.as_bytes().to_vec()), "round {round}");
        }
        client.expect_close_handshake(1000);
    }
}
