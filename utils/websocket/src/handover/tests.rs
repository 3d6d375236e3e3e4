//! Messages on an accepted connection: which are hand-overs, and which bytes must stay unread.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{send, setsockopt};

use super::*;
use crate::doubles::{give, sockaddr_un};

const IPV4: &[u8] = &[0xc0, 0, 2, 7];

fn sockaddr_in() -> Vec<u8> {
    [&(libc::AF_INET as u16).to_ne_bytes()[..], &12345u16.to_be_bytes(), IPV4, &[0; 8]].concat()
}

fn sockaddr_in6() -> Vec<u8> {
    let ip: Ipv6Addr = "fe80::7".parse().unwrap();
    [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &80u16.to_be_bytes(), &[0; 4], &ip.octets(), &3u32.to_ne_bytes()]
        .concat()
}

fn hello(rest_size: u16) -> Vec<u8> {
    [&HELLO_SIGNATURE[..], &[0x21, 0], &rest_size.to_be_bytes(), &vec![7; rest_size.into()]].concat()
}

fn expect_client(server: &UnixStream) -> HandedOver {
    match receive(server.as_fd(), 0) {
        Ok(Received::Client(client)) => client,
        other => panic!("no client but {other:?}"),
    }
}

#[test]
fn clients_of_each_family_with_and_without_hello() {
    for (address, shown) in
        [(sockaddr_in(), "Some(192.0.2.7:12345)"), (sockaddr_in6(), "Some([fe80::7%3]:80)"), (sockaddr_un(), "None")]
    {
        for record in [vec![], hello(0), hello(300), hello(u16::MAX)] {
            let (gateway, server) = UnixStream::pair().unwrap();
            let (mut client, theirs) = UnixStream::pair().unwrap();
            give(&gateway, &[&address[..], &record].concat(), &[theirs.as_raw_fd()]);
            drop((gateway, theirs));
            let handed = expect_client(&server);
            assert_eq!(format!("{:?}", handed.address.ip()), shown);
            assert_eq!(handed.address.as_bytes(), address);
            assert_eq!(*handed.hello, record);
            let flags = fcntl(&handed.socket, FcntlArg::F_GETFD).unwrap();
            assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
            UnixStream::from(handed.socket).write_all(b"it is it").unwrap();
            let mut came = String::new();
            client.read_to_string(&mut came).unwrap();
            assert_eq!(came, "it is it", "and no copy is left open");
        }
    }
}

#[test]
fn a_record_in_two_pieces() {
    let (gateway, server) = UnixStream::pair().unwrap();
    let (_client, theirs) = UnixStream::pair().unwrap();
    let message = [sockaddr_un(), hello(40)].concat();
    give(&gateway, &message[..30], &[theirs.as_raw_fd()]);
    (&gateway).write_all(&message[30..]).unwrap();
    assert_eq!(*expect_client(&server).hello, hello(40));
}

#[test]
fn the_first_of_several_sockets_is_used_and_the_others_are_closed() {
    for count in [2, 5, 200] {
        let (gateway, server) = UnixStream::pair().unwrap();
        let (client, theirs) = UnixStream::pair().unwrap();
        let (mut other, surplus) = UnixStream::pair().unwrap();
        let mut sockets = vec![surplus.as_raw_fd(); count];
        sockets[0] = theirs.as_raw_fd();
        give(&gateway, &sockaddr_in(), &sockets);
        drop((theirs, surplus));
        let handed = expect_client(&server);
        assert_eq!(other.read(&mut [0]).unwrap(), 0, "{count}: a surplus socket is open");
        drop(handed);
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn credentials_with_the_socket_are_ignored() {
    let (gateway, server) = UnixStream::pair().unwrap();
    setsockopt(&server, sockopt::PassCred, &true).unwrap();
    let (_client, theirs) = UnixStream::pair().unwrap();
    give(&gateway, &sockaddr_in(), &[theirs.as_raw_fd()]);
    expect_client(&server);
    (&gateway).write_all(b"plain").unwrap();
    assert!(matches!(receive(server.as_fd(), 0), Ok(Received::Plain)));
}

#[test]
fn a_plain_client_keeps_its_bytes() {
    let (gateway, mut server) = UnixStream::pair().unwrap();
    assert!(matches!(receive(server.as_fd(), 0), Ok(Received::Nothing)));
    assert!(matches!(receive(server.as_fd(), 20), Ok(Received::Nothing)));
    let bytes = [&sockaddr_in()[..], &hello(20)].concat();
    (&gateway).write_all(&bytes).unwrap();
    for _ in 0..2 {
        assert!(matches!(receive(server.as_fd(), 0), Ok(Received::Plain)));
    }
    drop(gateway);
    let mut came = Vec::new();
    server.read_to_end(&mut came).unwrap();
    assert_eq!(came, bytes);
    assert!(matches!(receive(server.as_fd(), 1000), Ok(Received::Plain)), "its end is told by the next read");
}

#[test]
fn an_out_of_band_byte_does_not_block() {
    for wait_ms in [0, 10_000] {
        let (mut plain, server) = UnixStream::pair().unwrap();
        if send(plain.as_raw_fd(), b"!", MsgFlags::MSG_OOB) == Err(Errno::EOPNOTSUPP) {
            eprintln!("this kernel has no out-of-band bytes on UNIX sockets; none was sent");
            return;
        }
        let (told, hears) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            told.send((matches!(receive(server.as_fd(), wait_ms), Ok(Received::Plain)), server))
        });
        let (is_plain, mut server) = hears.recv_timeout(Duration::from_secs(60)).expect("it waits for ever");
        assert!(is_plain, "within {wait_ms} ms");
        plain.write_all(b"hello").unwrap();
        let mut came = [0; 5];
        server.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"hello");
    }
}

#[test]
fn a_late_hand_over_is_waited_for() {
    let (gateway, server) = UnixStream::pair().unwrap();
    let (_client, theirs) = UnixStream::pair().unwrap();
    let waiting = std::thread::spawn(move || receive(server.as_fd(), 60_000));
    give(&gateway, &sockaddr_in(), &[theirs.as_raw_fd()]);
    assert!(matches!(waiting.join().unwrap(), Ok(Received::Client(_))));
}

#[test]
fn only_stream_sockets_are_accepted() {
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let (pipe, _writer) = std::io::pipe().unwrap();
    let datagrams = OwnedFd::from(UnixDatagram::unbound().unwrap());
    for other in [file, pipe.into(), datagrams] {
        let (gateway, server) = UnixStream::pair().unwrap();
        give(&gateway, &sockaddr_un(), &[other.as_raw_fd()]);
        assert_eq!(receive(server.as_fd(), 0).unwrap_err(), HandoverError::NoStream, "{other:?}");
    }
}

#[test]
fn invalid_data_with_a_socket() {
    let mut wrong_family = sockaddr_in();
    wrong_family[..2].copy_from_slice(&(libc::AF_NETLINK as u16).to_ne_bytes());
    let mut no_hello = hello(10);
    no_hello[3] = b'!';
    for (bytes, expected) in [
        (vec![1], HandoverError::Address),
        (wrong_family, HandoverError::Address),
        (sockaddr_in()[..15].to_vec(), HandoverError::Address),
        (sockaddr_in6()[..27].to_vec(), HandoverError::Address),
        ([&sockaddr_in()[..], &[0]].concat(), HandoverError::Hello),
        ([&sockaddr_in()[..], &no_hello].concat(), HandoverError::Hello),
        ([&sockaddr_un()[..], &hello(9)[..15]].concat(), HandoverError::Hello),
        ([&sockaddr_un()[..], &hello(9)[..20]].concat(), HandoverError::Cut),
    ] {
        let (gateway, server) = UnixStream::pair().unwrap();
        let (mut client, theirs) = UnixStream::pair().unwrap();
        give(&gateway, &bytes, &[theirs.as_raw_fd()]);
        drop((gateway, theirs));
        assert_eq!(receive(server.as_fd(), 0).unwrap_err(), expected, "{bytes:x?}");
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "{bytes:x?}: the socket is still open");
    }
}
