//! What a proxy says about its clients: the header before the bytes of a connection, compared with a parser that others
//! wrote (the crate proxy-header), and the fields of a request.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use proxy_header::{ParseConfig, ProxyHeader};
use uakari::clients::forwarded::{self, Forwarded};
use uakari::clients::header::{self, Header, HeaderProgress, SIGNATURE};
use uakari::clients::{ForwardedFields, Networks};
use uakari::http::authority::Authority;
use uakari::http::head::HeadError;
use uakari::limits::PROXY_HEADER_SIZE_MAX;
use uakari::types::Address;
use uakari_fuzz::choices::Choices;

const X_FORWARDED: ForwardedFields = ForwardedFields::XForwarded { for_: true, proto: true, host: true };
const NAMES: [&str; 5] = ["X-Forwarded-For", "forwarded", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP"];

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    match choices.byte() & 3 {
        0 => check_header(choices.rest()),
        1 => check_header(&[&SIGNATURE[..], choices.rest()].concat()),
        2 => check_header(&[b"PROXY ", choices.rest()].concat()),
        _ => check_fields(&mut choices),
    }
});

/// Wherever the bytes are cut, the result is the same, and it is known once its last byte is there.
fn check_header(bytes: &[u8]) {
    let whole = header::parse(bytes);
    let few = bytes.len().min(PROXY_HEADER_SIZE_MAX + 1);
    let mut is_decided = false;
    for size in 0..=few {
        let parsed = header::parse(&bytes[..size]);
        assert!(!is_decided || parsed == whole, "decided otherwise before byte {size}");
        is_decided = parsed != Ok(HeaderProgress::Incomplete);
        assert!(!is_decided || parsed == whole, "decided otherwise at byte {size}");
        if let Ok(HeaderProgress::Complete(_, used)) = &parsed {
            assert!(*used <= size && *used <= PROXY_HEADER_SIZE_MAX);
        }
    }
    assert!(is_decided || bytes.len() < PROXY_HEADER_SIZE_MAX, "an incomplete header has an end");
    match whole {
        Ok(HeaderProgress::Complete(header, size)) => compare(&header, &bytes[..size]),
        Ok(HeaderProgress::Absent) => {
            assert!(!bytes.starts_with(b"PROXY ") && !bytes.starts_with(SIGNATURE));
        }
        Ok(HeaderProgress::Incomplete) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Another parser reads the same. It is not as strict.
fn compare(header: &Header, bytes: &[u8]) {
    let Ok((other, size)) = ProxyHeader::parse(bytes, ParseConfig::default()) else {
        assert_eq!(*header, Header::Own, "{}", bytes.escape_ascii());
        return;
    };
    assert_eq!(size, bytes.len());
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    match header {
        Header::Client(announced) => {
            let other = other.proxied_address().expect("the addresses of a client");
            assert_eq!(announced.client, canonical(other.source));
            assert_eq!(announced.local, canonical(other.destination));
        }
        Header::Own => {}
    }
}

/// Nobody but a trusted proxy is believed, and what is read is valid.
fn check_fields(choices: &mut Choices<'_>) {
    let peer = choices.one_of(&["10.0.0.1:1", "[2001:db8::1]:1", "192.0.2.1:1"]).parse().map(Address::Tcp);
    let (Ok(peer), fields) = (peer, choices.one_of(&[X_FORWARDED, ForwardedFields::Forwarded, ForwardedFields::None]))
    else {
        return;
    };
    let mut proxies = Networks::default();
    for text in ["10.0.0.0/8", "2001:db8::/32"] {
        assert_eq!(proxies.add(text), Ok(()));
    }
    let mut lines = Vec::new();
    while !choices.is_empty() {
        lines.push((choices.one_of(&NAMES), choices.counted()));
    }
    let read = forwarded::read(fields, &proxies, peer, &lines);
    if !proxies.has(peer) || fields == ForwardedFields::None {
        assert_eq!(read, Ok(Forwarded::default()));
    }
    assert!(read.is_ok() || fields == ForwardedFields::Forwarded && read == Err(HeadError::Forwarded));
    let read = read.unwrap_or_default();
    assert!(read.host.is_none_or(|host| Authority::parse(host).is_some()));
    assert!(read.client.is_none_or(|client| client.ip().to_canonical() == client.ip()));
    // What a proxy adds at the end of an honest list is its client, whatever was there before.
    let (line, name): (&[u8], _) = match fields {
        ForwardedFields::Forwarded => (b"for=\"203.0.113.7:5\";proto=https;host=h", "Forwarded"),
        _ => (b"203.0.113.7:5", "x-forwarded-for"),
    };
    // It adds a line, or to that of the client.
    let of_client = lines.iter().rposition(|(other, _)| other.eq_ignore_ascii_case(name));
    let longer = of_client.map_or_else(Vec::new, |at| [lines[at].1, b", ", line].concat());
    let added = of_client.map(|at| {
        let mut lines = lines.clone();
        lines[at].1 = &longer;
        lines
    });
    let appended = [&lines[..], &[(name, line)]].concat();
    for lines in added.iter().chain([&appended]) {
        let read = forwarded::read(fields, &proxies, peer, lines);
        if proxies.has(peer) && fields != ForwardedFields::None {
            let read = read.unwrap_or_default();
            assert_eq!(read.client, Some(([203, 0, 113, 7], 5).into()));
            assert!(fields != ForwardedFields::Forwarded || (read.is_tls, read.host) == (Some(true), Some("h")));
        } else {
            assert_eq!(read, Ok(Forwarded::default()));
        }
    }
    if let Some(Ok(text)) = lines.first().map(|(_, value)| std::str::from_utf8(value)) {
        check_network(text);
    }
}

/// A network has its own address.
fn check_network(text: &str) {
    let mut networks = Networks::default();
    match networks.add(text) {
        Ok(()) if text == "unix:" => assert!(networks.has(Address::Unix)),
        Ok(()) => {
            let address = text.split('/').next().unwrap_or_default();
            assert!(address.parse().is_ok_and(|ip| networks.has_ip(ip)) && !networks.has(Address::Unix), "{text:?}");
        }
        Err(sentence) => assert!(networks.is_empty() && !sentence.is_empty()),
    }
}
