//! The hello record, which the backend of a service with `hello` receives before the first message: the client's address
//! in PROXY protocol version 2 (haproxy's proxy-protocol.txt, section 2.2), with TLVs for values of the handshake and the
//! facts of TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::clients::header::{
    FLAG_TLS, SIGNATURE, TCP_OVER_IPV4, TCP_OVER_IPV6, TLS_FIXED_SIZE, TLV_HEAD_SIZE, TYPE_TLS, UNSPECIFIED,
    VERSION_AND_PROXY,
};
use crate::limits::{HEAD_SIZE_MAX, HELLO_SUBJECT_SIZE_MAX, HELLO_TLS_VALUE_SIZE_MAX, HELLO_USER_SIZE_MAX};
use crate::tls::{ClientFacts, TlsFacts};
use crate::types::Address;

/// The selected application protocol (PP2_TYPE_ALPN).
const TYPE_ALPN: u8 = 0x01;
/// The requested host (PP2_TYPE_AUTHORITY).
const TYPE_HOST: u8 = 0x02;
/// The name of the connection in the log (PP2_TYPE_UNIQUE_ID).
const TYPE_ID: u8 = 0x05;
/// The first of the types for applications (PP2_TYPE_MIN_CUSTOM). The subtypes of PP2_TYPE_SSL have no such range.
const TYPE_PATH: u8 = 0xe0;
const TYPE_QUERY: u8 = 0xe1;
const TYPE_ORIGIN: u8 = 0xe2;
const TYPE_SUBPROTOCOL: u8 = 0xe3;
const TYPE_USER: u8 = 0xe4;
const TYPE_SNI: u8 = 0xe5;
const TYPE_SUBJECT: u8 = 0xe6;
const TYPE_SERIAL: u8 = 0xe7;
const TYPE_FINGERPRINT: u8 = 0xe8;
const TYPE_GROUPS: u8 = 0xe9;

const SUBTYPE_VERSION: u8 = 0x21;
const SUBTYPE_COMMON_NAME: u8 = 0x22;
const SUBTYPE_CIPHER: u8 = 0x23;

/// The client has presented a certificate in the handshake of this connection (PP2_CLIENT_CERT_CONN).
const FLAG_CERTIFICATE_NOW: u8 = 0x02;
/// It has presented a certificate in this session, which may be resumed (PP2_CLIENT_CERT_SESS).
const FLAG_CERTIFICATE: u8 = 0x04;

/// Bytes of a record beside the handshake's values and the facts of TLS: IPv6 addresses, eight TLVs, the longest ID, and the
/// user. The user's groups have the room that is left.
const PLAIN_SIZE_MAX: usize = 36 + 8 * TLV_HEAD_SIZE + "c18446744073709551615".len() + HELLO_USER_SIZE_MAX;
/// Bytes of the facts of TLS: nine TLVs, the flags and `verify`, two texts of the certificate, six other values.
const TLS_SIZE_MAX: usize =
    9 * TLV_HEAD_SIZE + TLS_FIXED_SIZE + 2 * HELLO_SUBJECT_SIZE_MAX + 6 * HELLO_TLS_VALUE_SIZE_MAX;
// The handshake's values together are shorter than the request head.
const _: () = assert!(HEAD_SIZE_MAX.max as usize + PLAIN_SIZE_MAX + TLS_SIZE_MAX <= u16::MAX as usize);

/// Values of the handshake. An empty value is omitted from the record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// "/" and the name: decoded, without empty and dot segments.
    pub path: Box<str>,
    /// The query, percent-encoded.
    pub query: Box<str>,
    /// The Host header, port included.
    pub host: Box<str>,
    /// The page's origin.
    pub origin: Box<str>,
    /// The selected subprotocol.
    pub subprotocol: Box<str>,
    /// The user as whom the client is admitted.
    pub user: Box<str>,
    /// Its groups, separated by commas.
    pub groups: Box<str>,
    /// The facts of the client's TLS connection. None: it is not protected.
    pub tls: Option<Box<TlsFacts>>,
}

impl Hello {
    /// The size of all values in bytes.
    pub(crate) fn size(&self) -> usize {
        let values = [&self.path, &self.query, &self.host, &self.origin, &self.subprotocol, &self.user, &self.groups];
        values.iter().map(|value| value.len()).sum::<usize>() + self.tls.as_ref().map_or(0, |tls| tls.size())
    }

    /// Encodes the record. `client` is the remote and `local` the local address of the client's socket, both unknown on a
    /// UNIX socket, unless a proxy names the client; `id` is the connection's number in the log.
    pub fn encode(&self, client: Address, local: Address, id: u64) -> Box<[u8]> {
        let (family, addresses) = match (client, local) {
            (Address::Tcp(client), Address::Tcp(local)) => addresses(client, local),
            // A proxy on a UNIX socket names its clients.
            (Address::Tcp(client), Address::Unix) => addresses(client, unspecified(client)),
            _ => (UNSPECIFIED, Vec::new()),
        };
        let mut record = [&SIGNATURE[..], &[VERSION_AND_PROXY, family, 0, 0]].concat();
        let start = record.len();
        record.extend(addresses);
        for (kind, value) in [
            (TYPE_HOST, &*self.host),
            (TYPE_ID, &format!("c{id}")),
            (TYPE_PATH, &self.path),
            (TYPE_QUERY, &self.query),
            (TYPE_ORIGIN, &self.origin),
            (TYPE_SUBPROTOCOL, &self.subprotocol),
        ] {
            put(&mut record, kind, value.as_bytes());
        }
        if self.user.len() <= HELLO_USER_SIZE_MAX {
            put(&mut record, TYPE_USER, bounded(&self.user, HELLO_USER_SIZE_MAX));
        }
        if let Some(tls) = &self.tls {
            put_tls(&mut record, tls);
        }
        let room = usize::from(u16::MAX) - (record.len() - start) - TLV_HEAD_SIZE;
        put(&mut record, TYPE_GROUPS, whole_groups(&self.groups, room).as_bytes());
        let size = (record.len() - start) as u16;
        record[start - 2..start].copy_from_slice(&size.to_be_bytes());
        record.into()
    }
}

/// Appends a TLV, unless the value is empty. A length fits into 16 bits, since the whole record does.
fn put(record: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if !value.is_empty() {
        record.push(kind);
        record.extend((value.len() as u16).to_be_bytes());
        record.extend(value);
    }
}

fn put_tls(record: &mut Vec<u8>, tls: &TlsFacts) {
    let none = ClientFacts::default();
    let client = tls.client.as_ref().unwrap_or(&none);
    // `verify` is 0 only for a certificate that was presented and is valid (proxy-protocol.txt, section 2.2.6).
    let (flags, verify) = match tls.client {
        None => (FLAG_TLS, 1_u32),
        Some(_) if tls.is_resumed => (FLAG_TLS | FLAG_CERTIFICATE, 0),
        Some(_) => (FLAG_TLS | FLAG_CERTIFICATE | FLAG_CERTIFICATE_NOW, 0),
    };
    let mut value = [&[flags][..], &verify.to_be_bytes()].concat();
    put(&mut value, SUBTYPE_VERSION, bounded(tls.version, HELLO_TLS_VALUE_SIZE_MAX));
    put(&mut value, SUBTYPE_COMMON_NAME, bounded(&client.common_name, HELLO_SUBJECT_SIZE_MAX));
    put(&mut value, SUBTYPE_CIPHER, bounded(tls.cipher, HELLO_TLS_VALUE_SIZE_MAX));

    put(record, TYPE_ALPN, bounded(&tls.alpn, HELLO_TLS_VALUE_SIZE_MAX));
    put(record, TYPE_TLS, &value);
    put(record, TYPE_SNI, bounded(&tls.sni, HELLO_TLS_VALUE_SIZE_MAX));
    put(record, TYPE_SUBJECT, bounded(&client.subject, HELLO_SUBJECT_SIZE_MAX));
    put(record, TYPE_SERIAL, bounded(&client.serial, HELLO_TLS_VALUE_SIZE_MAX));
    put(record, TYPE_FINGERPRINT, bounded(&client.fingerprint, HELLO_TLS_VALUE_SIZE_MAX));
}

/// The value, cut at a character boundary. Empty if it contains a NUL: a backend in C would take the bytes before the NUL
/// for the whole name.
fn bounded(value: &str, size_max: usize) -> &[u8] {
    if value.contains('\0') { b"" } else { &value.as_bytes()[..value.floor_char_boundary(size_max)] }
}

/// The groups that fit, each of them whole: a part of a name could be another group's. Empty if one contains a NUL.
fn whole_groups(groups: &str, size_max: usize) -> &str {
    if groups.contains('\0') {
        return "";
    }
    if groups.len() <= size_max {
        return groups;
    }
    // The comma may be the byte after those that fit.
    groups.as_bytes()[..=size_max].iter().rposition(|byte| *byte == b',').map_or("", |at| &groups[..at])
}

/// The unspecified address of the same family (RFC 6890).
fn unspecified(client: SocketAddr) -> SocketAddr {
    match client.ip().to_canonical() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// TCP over IPv4 or IPv6; an IPv4 address beside an IPv6 one is written as IPv6 (RFC 4291 section 2.5.5.2).
fn addresses(client: SocketAddr, local: SocketAddr) -> (u8, Vec<u8>) {
    let ports = [client.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    match (client.ip().to_canonical(), local.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(local)) => {
            (TCP_OVER_IPV4, [&client.octets()[..], &local.octets(), &ports].concat())
        }
        (client, local) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            (TCP_OVER_IPV6, [&octets(client)[..], &octets(local), &ports].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Address {
        Address::Tcp(text.parse().unwrap())
    }

    #[test]
    fn the_record_byte_by_byte() {
        let hello = Hello { path: "/gps".into(), query: "q=1".into(), host: "h:80".into(), ..Hello::default() };
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x26".to_vec();
        expected.extend(b"\x01\x02\x03\x04\x7f\0\0\x01\x30\x39\0\x50");
        expected.extend(b"\x02\0\x04h:80\x05\0\x03c12\xe0\0\x04/gps\xe1\0\x03q=1");
        let record = hello.encode(tcp("1.2.3.4:12345"), tcp("127.0.0.1:80"), 12);
        assert_eq!(record.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    /// The fields of a record with TCP over IPv4 addresses: type and value.
    fn fields(record: &[u8]) -> Vec<(u8, &[u8])> {
        assert_eq!(record.len() - 16, usize::from(u16::from_be_bytes([record[14], record[15]])));
        tlvs(&record[28..])
    }

    fn tlvs(mut rest: &[u8]) -> Vec<(u8, &[u8])> {
        let mut fields = Vec::new();
        while let [kind, high, low, tail @ ..] = rest {
            let (value, next) = tail.split_at(u16::from_be_bytes([*high, *low]).into());
            fields.push((*kind, value));
            rest = next;
        }
        assert!(rest.is_empty(), "{rest:?}");
        fields
    }

    /// The record of a client with these facts and no values of the handshake but the path.
    fn of_tls(tls: TlsFacts) -> Box<[u8]> {
        let hello = Hello { path: "/gps".into(), tls: Some(Box::new(tls)), ..Hello::default() };
        hello.encode(tcp("1.2.3.4:12345"), tcp("127.0.0.1:443"), 12)
    }

    fn facts() -> TlsFacts {
        TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            sni: "gate.example".into(),
            alpn: "http/1.1".into(),
            ..TlsFacts::default()
        }
    }

    fn client() -> ClientFacts {
        ClientFacts {
            subject: "CN=ann,O=Ex\\, Inc.".into(),
            common_name: "ann".into(),
            serial: "01ff".into(),
            fingerprint: "ab".repeat(32).into(),
        }
    }

    #[test]
    fn the_record_of_a_tls_client_byte_by_byte() {
        let plain = Hello { path: "/gps".into(), ..Hello::default() }.encode(tcp("1.2.3.4:1"), tcp("[::1]:2"), 12);
        let with_tls = Hello { path: "/gps".into(), tls: Some(Box::new(facts())), ..Hello::default() };
        let with_tls = with_tls.encode(tcp("1.2.3.4:1"), tcp("[::1]:2"), 12);
        assert_eq!(
            with_tls[16..plain.len()],
            plain[16..],
            "what a plain client's record has precedes the facts of TLS"
        );

        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x5e\x01\x02\x03\x04\x7f\0\0\x01\x30\x39\x01\xbb".to_vec();
        expected.extend(b"\x05\0\x03c12\xe0\0\x04/gps\x01\0\x08http/1.1");
        expected.extend(b"\x20\0\x28\x01\0\0\0\x01\x21\0\x07TLSv1.3\x23\0\x16TLS_AES_128_GCM_SHA256");
        expected.extend(b"\xe5\0\x0cgate.example");
        assert_eq!(of_tls(facts()).escape_ascii().to_string(), expected.escape_ascii().to_string());

        let record = of_tls(TlsFacts { client: Some(client()), ..facts() });
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\xc3\x01\x02\x03\x04\x7f\0\0\x01\x30\x39\x01\xbb".to_vec();
        expected.extend(b"\x05\0\x03c12\xe0\0\x04/gps\x01\0\x08http/1.1");
        expected.extend(b"\x20\0\x2e\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x03ann\x23\0\x16TLS_AES_128_GCM_SHA256");
        expected.extend(b"\xe5\0\x0cgate.example\xe6\0\x12CN=ann,O=Ex\\, Inc.\xe7\0\x0401ff\xe8\0\x40");
        expected.extend(b"ab".repeat(32));
        assert_eq!(record.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn a_resumed_session_has_the_certificate_of_its_first_handshake() {
        for (client, is_resumed, start) in [
            (None, false, b"\x01\0\0\0\x01"),
            (None, true, b"\x01\0\0\0\x01"),
            (Some(client()), false, b"\x07\0\0\0\0"),
            (Some(client()), true, b"\x05\0\0\0\0"),
        ] {
            let record = of_tls(TlsFacts { client, is_resumed, ..facts() });
            let (_, value) = fields(&record).into_iter().find(|(kind, _)| *kind == TYPE_TLS).unwrap();
            assert_eq!(&value[..5], start, "{is_resumed}");
        }
    }

    /// A certificate may have 64 KiB, and a request head 60.
    #[test]
    fn long_values_are_cut_at_a_character() {
        let long = |first: &str| format!("{first}{}", "\u{20ac}\n".repeat(16_000)).into_boxed_str();
        let tls = TlsFacts {
            client: Some(ClientFacts {
                subject: long("CN="),
                common_name: long(""),
                serial: long("0"),
                fingerprint: long("f"),
            }),
            sni: long("s"),
            alpn: long("a"),
            ..facts()
        };
        let head = "q".repeat(HEAD_SIZE_MAX.max as usize);
        let hello = Hello { query: head.into(), tls: Some(Box::new(tls.clone())), ..Hello::default() };
        assert_eq!(hello.size(), HEAD_SIZE_MAX.max as usize + 6 * 64_000 + 7, "all that is held");
        let record = hello.encode(tcp("[::1]:1"), tcp("[::1]:2"), u64::MAX);
        assert_eq!(record.len() - 16, usize::from(u16::from_be_bytes([record[14], record[15]])));
        assert!(record.len() - 16 > HEAD_SIZE_MAX.max as usize + 3_000, "{}", record.len());

        let record = of_tls(tls);
        let (mut sizes, mut texts) = (Vec::new(), Vec::new());
        for (kind, value) in fields(&record) {
            let sub = if kind == TYPE_TLS { tlvs(&value[5..]) } else { vec![(kind, value)] };
            for (kind, value) in sub {
                sizes.push((kind, value.len()));
                texts.push(std::str::from_utf8(value).unwrap());
            }
        }
        // Of 4 bytes each, the last character may end before the limit.
        let expected = [
            (TYPE_ID, 3),
            (TYPE_PATH, 4),
            (TYPE_ALPN, 253),
            (SUBTYPE_VERSION, 7),
            (SUBTYPE_COMMON_NAME, 1024),
            (SUBTYPE_CIPHER, 22),
            (TYPE_SNI, 253),
            (TYPE_SUBJECT, 1023),
            (TYPE_SERIAL, 253),
            (TYPE_FINGERPRINT, 253),
        ];
        assert_eq!(sizes, expected);
        assert!(texts[7].starts_with("CN=\u{20ac}\n\u{20ac}"), "control characters are left as they are");
    }

    #[test]
    fn a_value_with_a_nul_is_left_out() {
        let admin = ClientFacts { common_name: "admin\0.example".into(), subject: "\0".into(), ..client() };
        let record = of_tls(TlsFacts { client: Some(admin), ..facts() });
        assert_eq!(
            record,
            of_tls(TlsFacts {
                client: Some(ClientFacts { common_name: "".into(), subject: "".into(), ..client() }),
                ..facts()
            })
        );
        assert!(!record.windows(5).any(|bytes| bytes == b"admin"));
    }

    #[test]
    fn users_and_groups() {
        let of = |user: &str, groups: &str| {
            let hello = Hello { path: "/gps".into(), user: user.into(), groups: groups.into(), ..Hello::default() };
            hello.encode(tcp("1.2.3.4:12345"), tcp("127.0.0.1:80"), 12)
        };
        let record = of("ann", "staff,ops");
        let expected = [(TYPE_ID, &b"c12"[..]), (TYPE_PATH, b"/gps"), (TYPE_USER, b"ann"), (TYPE_GROUPS, b"staff,ops")];
        assert_eq!(fields(&record), expected);
        for (user, groups) in [("ann\0", ""), (&*"x".repeat(256), ""), ("", "a\0,b"), ("", &*"g".repeat(66_000))] {
            assert_eq!(of(user, groups), of("", ""), "{} {}", user.len(), groups.len());
        }
        assert_eq!(of(&"x".repeat(255), "").len(), of("", "").len() + 3 + 255);
        // Groups of 9 bytes and a comma.
        let many = format!("{}last", "staff-\u{20ac},".repeat(7_000));
        let record = of("", &many);
        let (_, sent) = fields(&record).into_iter().find(|(kind, _)| *kind == TYPE_GROUPS).unwrap();
        assert!(sent.len() > 65_000 && sent.len() % 10 == 9 && many.as_bytes().starts_with(sent), "{}", sent.len());
        assert!(sent.ends_with("staff-\u{20ac}".as_bytes()));
    }

    #[test]
    fn address_families() {
        let hello = Hello::default();
        for (client, local, family, size) in [
            (tcp("[::1]:1"), tcp("[::1]:2"), 0x21, 36),
            (tcp("[::ffff:1.2.3.4]:1"), tcp("[::ffff:1.2.3.5]:2"), 0x11, 12),
            (Address::Unix, Address::Unix, 0x00, 0),
            (tcp("1.2.3.4:1"), Address::Unix, 0x11, 12),
            (tcp("[::1]:1"), Address::Unix, 0x21, 36),
            (tcp("1.2.3.4:1"), Address::Unknown, 0x00, 0),
        ] {
            let record = hello.encode(client, local, 7);
            // The ID is always present: type, length, "c7".
            assert_eq!((record[13], record[15]), (family, size + 5), "{client} {local}");
            assert_eq!(record.len(), 16 + usize::from(size) + 5);
        }
    }
}
