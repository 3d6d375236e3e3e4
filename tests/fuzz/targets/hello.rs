//! The record that tells a server who its client is, read by a parser that others wrote (the crate proxy-header).
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader, Tlv};
use uakari::limits::{HEAD_SIZE_MAX, HELLO_SUBJECT_SIZE_MAX, HELLO_TLS_VALUE_SIZE_MAX, HELLO_USER_SIZE_MAX};
use uakari::route::hello::Hello;
use uakari::tls::{ClientFacts, TlsFacts};
use uakari::types::Address;
use uakari_fuzz::choices::Choices;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let (client, local) = (address(&mut choices), address(&mut choices));
    let id = u64::from(choices.byte()) << choices.below(57);
    let parts: [String; 5] = std::array::from_fn(|_| text(&mut choices));
    // They are parts of one head.
    if parts.iter().map(String::len).sum::<usize>() as u64 > HEAD_SIZE_MAX.max {
        return;
    }
    let [path, query, host, origin, subprotocol] = parts.each_ref().map(|part| part.as_str().into());
    let tls = tls(&mut choices);
    let user = text(&mut choices);
    let own = Hello { path, query, host, origin, subprotocol, ..Hello::default() };
    let record = Hello { user: user.as_str().into(), tls: tls.clone(), ..own }.encode(client, local, id);
    let (header, size) = ProxyHeader::parse(&record, ParseConfig::default()).expect("a record");
    assert_eq!(size, record.len());
    check_addresses(header.proxied_address(), client, local);
    let mut read: Vec<(u8, Vec<u8>)> = Vec::new();
    for tlv in header.tlvs() {
        match tlv.expect("a type, a length and a value") {
            Tlv::Authority(host) => read.push((0x02, host.as_bytes().into())),
            Tlv::UniqueId(id) => read.push((0x05, id.into())),
            Tlv::Custom(kind, value) => read.push((kind, value.into())),
            Tlv::Alpn(protocol) => read.push((0x01, protocol.into())),
            Tlv::Ssl(info) => {
                let facts = tls.as_ref().expect("only records of clients with TLS have the field");
                let (is_in_connection, is_in_session) = (info.client_cert_conn(), info.client_cert_sess());
                let has_certificate = facts.client.is_some();
                assert!(info.client_ssl() && is_in_session == has_certificate);
                assert_eq!(is_in_connection, has_certificate && !facts.is_resumed);
                assert_eq!(info.verify(), u32::from(!has_certificate));
                for (kind, value) in [(0x21, info.version()), (0x22, info.cn()), (0x23, info.cipher())] {
                    read.push((kind, value.unwrap_or_default().into()));
                }
                assert!(info.tlvs().all(|tlv| matches!(tlv.expect("a TLV").kind(), 0x21..=0x23)));
            }
            other => panic!("nobody writes {other:?}"),
        }
    }
    let [path, query, host, origin, subprotocol] = parts.map(String::into_bytes);
    let id = format!("c{id}").into_bytes();
    assert!(id.len() <= 128, "longer than the specification allows");
    let mut written = vec![(0x02, host), (0x05, id), (0xe0, path), (0xe1, query), (0xe2, origin), (0xe3, subprotocol)];
    // A part of its name could be another user.
    let is_whole = user.len() <= HELLO_USER_SIZE_MAX;
    written.push((0xe4, if is_whole { bounded(&user, HELLO_USER_SIZE_MAX) } else { Vec::new() }));
    if let Some(tls) = tls {
        let short = |value: &str| bounded(value, HELLO_TLS_VALUE_SIZE_MAX);
        let client = tls.client.unwrap_or_default();
        written.push((0x01, short(&tls.alpn)));
        written.push((0x21, short(tls.version)));
        written.push((0x22, bounded(&client.common_name, HELLO_SUBJECT_SIZE_MAX)));
        written.push((0x23, short(tls.cipher)));
        written.push((0xe5, short(&tls.sni)));
        written.push((0xe6, bounded(&client.subject, HELLO_SUBJECT_SIZE_MAX)));
        written.push((0xe7, short(&client.serial)));
        written.push((0xe8, short(&client.fingerprint)));
    }
    read.retain(|(_, value)| !value.is_empty());
    written.retain(|(_, value)| !value.is_empty());
    assert_eq!(read, written);
});

/// The two addresses, or none where one of them is unknown. A UNIX listener, whose proxies name their clients, has the
/// unspecified one. An IPv4 address is the same in either form.
fn check_addresses(read: Option<&ProxiedAddress>, client: Address, local: Address) {
    let expected = match (client, local) {
        (Address::Tcp(client), Address::Tcp(local)) => Some((client, local)),
        (Address::Tcp(client), Address::Unix) => {
            let is_ipv4 = client.ip().to_canonical().is_ipv4();
            let ip: IpAddr = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            Some((client, SocketAddr::new(ip, 0)))
        }
        _ => None,
    };
    let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
    let both = |(client, local)| (canonical(client), canonical(local));
    let read = read.map(|read| both((read.source, read.destination)));
    assert_eq!(read, expected.map(both));
}

fn address(choices: &mut Choices<'_>) -> Address {
    let kind = choices.below(5);
    let octets = |choices: &mut Choices<'_>, count| {
        let mut octets = [0; 16];
        let bytes = choices.bytes(count);
        octets[..bytes.len()].copy_from_slice(bytes);
        octets
    };
    let ip: IpAddr = match kind {
        0 => Ipv4Addr::from(*octets(choices, 4).first_chunk().unwrap_or(&[0; 4])).into(),
        1 => Ipv6Addr::from(octets(choices, 16)).into(),
        2 => Ipv4Addr::from(*octets(choices, 4).first_chunk().unwrap_or(&[0; 4])).to_ipv6_mapped().into(),
        3 => return Address::Unix,
        _ => return Address::Unknown,
    };
    let port = u16::from_be_bytes([choices.byte(), choices.byte()]);
    Address::Tcp(SocketAddr::new(ip, port))
}

/// What a record has of a value: the characters that fit, nothing of a value with a NUL.
fn bounded(value: &str, size_max: usize) -> Vec<u8> {
    let ends = value.char_indices().map(|(at, letter)| at + letter.len_utf8());
    let end = ends.take_while(|end| *end <= size_max).last().unwrap_or_default();
    if value.contains('\0') { Vec::new() } else { value.as_bytes()[..end].to_vec() }
}

/// Facts of TLS, or none.
fn tls(choices: &mut Choices<'_>) -> Option<Box<TlsFacts>> {
    let kind = choices.below(5);
    if kind == 0 {
        return None;
    }
    let (version, cipher) = choices.one_of(&[
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        ("TLSv1.2", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        ("", ""),
    ]);
    let mut text = || text(choices).into_boxed_str();
    let (sni, alpn) = (text(), text());
    let client =
        (kind > 2).then(|| ClientFacts { subject: text(), common_name: text(), serial: text(), fingerprint: text() });
    Some(Box::new(TlsFacts { site: 0, version, cipher, sni, alpn, is_resumed: kind % 2 == 0, client }))
}

/// A text, or a long one.
fn text(choices: &mut Choices<'_>) -> String {
    match choices.byte() {
        size @ 0..252 => String::from_utf8_lossy(choices.bytes(size.into())).into_owned(),
        size => "x".repeat([256, 16_384, 60_000, 61_440][usize::from(size) - 252]),
    }
}
