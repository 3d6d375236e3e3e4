//! Records behind the handshake that no library sends.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use super::hostile::{
    ALERT, APPLICATION_DATA, FATAL, GOOD_SUITES, GROUPS, HANDSHAKE, HANDSHAKE_FAILURE, TLS_1_2_NUMBER, connect,
    expect_served, hello, record, rest,
};
use super::{
    ALL, Server, TLS_1_3, client_config, configuration, shake, start_configured, start_without_deadlines, wire,
};
use crate::client::{Client, Frame, TEXT};
use crate::daemon::Daemon;
use crate::wire::handshake;

/// The type of a handshake message (RFC 8446 section 4).
const KEY_UPDATE: u8 = 24;

/// A client whose records are made here. It has TLS 1.3 and has opened a WebSocket.
struct Crafting {
    stream: TcpStream,
    key: LessSafeKey,
    iv: Vec<u8>,
    number: u64,
}

impl Crafting {
    fn join(daemon: &Daemon) -> Crafting {
        let mut config = client_config(daemon, TLS_1_3, None);
        config.enable_secret_extraction = true;
        let stream = shake(connect(daemon), &Arc::new(config), "127.0.0.1").unwrap();
        let (connection, stream) = stream.into_parts();
        let (number, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
        // The suite that the client prefers.
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("another cipher suite") };
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
        let mut crafting = Crafting { stream, key, iv: iv.as_ref().to_vec(), number };
        crafting.send(APPLICATION_DATA, handshake("/server", &[], &[]).as_bytes());
        crafting
    }

    /// Sends a record (RFC 8446 section 5.2) with this content type.
    fn send(&mut self, kind: u8, content: &[u8]) {
        let bytes = self.record(&[content, &[kind]].concat());
        // The gateway may have closed.
        let _ = self.stream.write_all(&bytes);
    }

    /// A record of this inner plaintext.
    fn record(&mut self, inner: &[u8]) -> Vec<u8> {
        let mut nonce: [u8; 12] = self.iv[..].try_into().unwrap();
        nonce[4..].iter_mut().zip(self.number.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        self.number += 1;
        let size = (inner.len() + 16) as u16;
        let header = [&[APPLICATION_DATA, 3, 3][..], &size.to_be_bytes()].concat();
        let mut sealed = inner.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut sealed).unwrap();
        [header, sealed].concat()
    }
}

/// Records behind the handshake that no client sends: each ends its own connection.
#[test]
fn hostile_records_behind_the_handshake() {
    let daemon = start_without_deadlines();
    let server = daemon.listen("server");
    let half: &[u8] = &[KEY_UPDATE, 0, 0];
    let whole: &[u8] = &[KEY_UPDATE, 0, 0, 1, 1];
    let text = Frame::new(TEXT, b"hello").masked().bytes();
    type Act<'a> = &'a dyn Fn(&mut Crafting);
    let cases: &[(&str, Act)] = &[
        ("half a message, then application data", &|it| {
            it.send(HANDSHAKE, half);
            it.send(APPLICATION_DATA, &text);
        }),
        ("half a message, then an alert", &|it| {
            it.send(HANDSHAKE, half);
            it.send(ALERT, &[1, 0]);
        }),
        ("half a message, then the end", &|it| {
            it.send(HANDSHAKE, half);
            it.stream.shutdown(Shutdown::Write).unwrap();
        }),
        ("two messages in a record", &|it| it.send(HANDSHAKE, &whole.repeat(2))),
        ("a message and a half", &|it| it.send(HANDSHAKE, &[whole, half].concat())),
        ("a ClientHello", &|it| it.send(HANDSHAKE, &hello(TLS_1_2_NUMBER, &GOOD_SUITES, &GROUPS, &[]))),
        ("an unknown message", &|it| it.send(HANDSHAKE, &[99, 0, 0, 0])),
        ("a message without an end", &|it| {
            it.send(HANDSHAKE, &[KEY_UPDATE, 0xff, 0xff, 0xff]);
            (0..20).for_each(|_| it.send(HANDSHAKE, &[7; 16_000]));
        }),
        ("empty parts of a message", &|it| {
            it.send(HANDSHAKE, half);
            (0..100).for_each(|_| it.send(HANDSHAKE, &[]));
        }),
        ("empty records", &|it| (0..100).for_each(|_| it.send(APPLICATION_DATA, &[]))),
        ("a record of an unknown type", &|it| it.send(99, &[7; 100])),
        ("a record without a type", &|it| {
            let bytes = it.record(&[0; 100]);
            it.stream.write_all(&bytes).unwrap();
        }),
        ("a record that is too large", &|it| it.send(APPLICATION_DATA, &[7; (1 << 14) + 1])),
        ("another key", &|it| {
            it.number += 1;
            it.send(APPLICATION_DATA, &text);
        }),
        ("a record in clear", &|it| it.stream.write_all(&record(HANDSHAKE, half)).unwrap()),
        ("a fatal alert", &|it| it.send(ALERT, &[FATAL, HANDSHAKE_FAILURE])),
        ("warnings", &|it| (0..100).for_each(|_| it.send(ALERT, &[1, 90]))),
    ];
    let mut neighbour = Client::new(wire(daemon.port, client_config(&daemon, ALL, None)));
    assert_eq!(neighbour.wire.upgrade("/server", &[]).status, 101);
    let mut backend = server.accept();
    for (what, act) in cases {
        // The backend speaks in each moment: before, between and after.
        for speaks in [false, true] {
            let mut crafting = Crafting::join(&daemon);
            let mut own = server.accept();
            if speaks {
                own.send("hello");
            }
            act(&mut crafting);
            if speaks {
                let _ = own.stream().write_all(b"hello");
            }
            // No deadline of the gateway ends it in time.
            rest(&crafting.stream);
            neighbour.text(what);
            backend.expect(what);
        }
    }
    neighbour.close(1000);
}

/// A message of TLS of which a part is missing delays nothing that is sent.
#[test]
fn a_part_of_a_message_behind_the_handshake() {
    // This client answers no close frame.
    let daemon = start_configured(&configuration("close-ms = 3000;", &[Server::default()]));
    let server = daemon.listen("server");
    let mut crafting = Crafting::join(&daemon);
    let mut backend = server.accept();
    crafting.send(HANDSHAKE, &[KEY_UPDATE]);
    crafting.send(HANDSHAKE, &[0, 0]);
    backend.send("hello");
    // The tickets and the response precede a frame of 7 bytes, its content type and its tag.
    let mut header = [0; 5];
    while header[3..] != [0, 7 + 1 + 16] {
        crafting.stream.read_exact(&mut header).unwrap();
        assert_eq!(header[..3], [APPLICATION_DATA, 3, 3]);
        crafting.stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))]).unwrap();
    }
    drop(backend);
    // The rest comes: new keys, which this client cannot make.
    crafting.send(HANDSHAKE, &[1, 0]);
    rest(&crafting.stream);
    expect_served(&daemon);
}
