//! Parser of the hello record, which uakari sends first to a backend with `hello`: the client and its request.
//!
//! Copy this file into your server; it needs only the standard library. A blocking server:
//!
//! ```text
//! mod hello;
//! let (mut connection, _) = listener.accept()?;
//! connection.set_read_timeout(Some(Duration::from_secs(10)))?;
//! let who = hello::read_hello(&mut connection)?; // before anything else is read
//! println!("{:?} asks for {} {}", who.client, who.path, who.query);
//! ```
//!
//! A server that does not block collects `HEAD_SIZE` bytes, asks `record_size` how long the record is, collects the
//! rest and gives all of it to `parse_hello`. A SOCK_SEQPACKET server gives it the first packet.
//!
//! The record is PROXY protocol version 2 (proxy-protocol.txt of haproxy, section 2.2) with fields for what the
//! handshake said. Its bytes are in docs/backends.md of uakari.
//!
//! SPDX-License-Identifier: MIT, Copyright (c) 2026 The uakari maintainers
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

/// Size of the head, which contains the size of the rest.
pub const HEAD_SIZE: usize = 16;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FAMILY_IPV4: u8 = 1;
const FAMILY_IPV6: u8 = 2;
/// The field of TLS (PP2_TYPE_SSL): a byte of flags, 4 bytes that are 0 for a verified certificate, fields of its own.
const TLS: u8 = 0x20;
/// The flags of a client that has presented a certificate, in this connection or in this session.
const HAS_CERTIFICATE: u8 = 0x06;
/// Bytes of the addresses of each family: none, IPv4, IPv6, UNIX.
const ADDRESSES_SIZE: [usize; 4] = [0, 12, 36, 216];

/// The client and its request. Missing fields are None or empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// The client's address; None if it connected through a UNIX socket.
    pub client: Option<SocketAddr>,
    /// The address that it connected to.
    pub local: Option<SocketAddr>,
    /// The Host header, with its port.
    pub host: String,
    /// The connection in the gateway's log, such as "c12".
    pub id: String,
    /// "/" and the name, decoded: any characters but NUL.
    pub path: String,
    /// The query string, as it was sent.
    pub query: String,
    /// The page's origin; empty for a client that is not a web page.
    pub origin: String,
    /// The selected subprotocol.
    pub subprotocol: String,
    /// The user that the gateway has admitted; empty without auth.
    pub user: String,
    /// The user's groups, separated by commas.
    pub groups: String,
    /// The version of TLS, such as "TLSv1.3"; empty for a client without TLS.
    pub tls_version: String,
    /// The cipher suite.
    pub tls_cipher: String,
    /// The host that the client named in the TLS handshake.
    pub sni: String,
    /// The application protocol that ALPN selected.
    pub alpn: String,
    /// Whether the client has presented a certificate that the gateway verified. If not, do not rely on the next four.
    pub is_verified: bool,
    /// The certificate's common name: any characters but NUL. Over 1,024 bytes it is left out.
    pub common_name: String,
    /// Its subject (RFC 4514), with the same limit.
    pub subject: String,
    /// Its serial number: hexadecimal digits.
    pub serial: String,
    /// SHA-256 of all of it: hexadecimal digits.
    pub fingerprint: String,
    /// Fields of other types, in order: type and value.
    pub others: Vec<(u8, Vec<u8>)>,
}

/// Close the connection after an error: the peer is not the gateway.
#[derive(Debug)]
pub enum HelloError {
    /// Receiving failed, or the connection ended within the record.
    Io(io::Error),
    /// Not a PROXY protocol version 2 header.
    NoRecord,
    /// Unknown version, command, family or transport.
    Version,
    /// A length does not match.
    Cut,
    /// Two fields of this type.
    Twice(u8),
    /// The field of this type contains a NUL or is not UTF-8.
    BadText(u8),
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HelloError::Io(error) => write!(f, "the record cannot be received: {error}"),
            HelloError::NoRecord => {
                f.write_str("this is no PROXY protocol 2: does the gateway have hello switched on?")
            }
            HelloError::Version => f.write_str("the record's version, command, family or transport is not known"),
            HelloError::Cut => f.write_str("the record is cut off"),
            HelloError::Twice(kind) => write!(f, "the record's field {kind:#04x} is there twice"),
            HelloError::BadText(kind) => write!(f, "the record's field {kind:#04x} has a NUL in it or is not UTF-8"),
        }
    }
}

impl Error for HelloError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let HelloError::Io(error) = self { Some(error) } else { None }
    }
}

/// Reads the record from a stream that blocks or has a time-out, and not a byte more.
pub fn read_hello(stream: &mut impl Read) -> Result<Hello, HelloError> {
    let mut record = vec![0; HEAD_SIZE];
    stream.read_exact(&mut record).map_err(HelloError::Io)?;
    record.resize(record_size(&record)?, 0);
    stream.read_exact(&mut record[HEAD_SIZE..]).map_err(HelloError::Io)?;
    parse_hello(&record)
}

/// Size of the whole record, 65,551 bytes at most, from its first `HEAD_SIZE` bytes.
pub fn record_size(record: &[u8]) -> Result<usize, HelloError> {
    let head = record.first_chunk::<HEAD_SIZE>().ok_or(HelloError::Cut)?;
    if !head.starts_with(SIGNATURE) {
        return Err(HelloError::NoRecord);
    }
    if head[12] >> 4 != 2 {
        return Err(HelloError::Version);
    }
    Ok(HEAD_SIZE + usize::from(u16::from_be_bytes([head[14], head[15]])))
}

/// Parses a whole record, such as a packet.
pub fn parse_hello(record: &[u8]) -> Result<Hello, HelloError> {
    if record.len() != record_size(record)? {
        return Err(HelloError::Cut);
    }
    let (head, body) = record.split_at(HEAD_SIZE);
    let (command, family, transport) = (head[12] & 15, head[13] >> 4, head[13] & 15);
    let mut hello = Hello::default();
    // LOCAL: the connection is the sender's own, and the rest is ignored.
    if command == 0 {
        return Ok(hello);
    }
    let addresses_size = ADDRESSES_SIZE.get(usize::from(family)).filter(|_| command == 1 && transport <= 2);
    let (addresses, mut rest) =
        body.split_at_checked(*addresses_size.ok_or(HelloError::Version)?).ok_or(HelloError::Cut)?;
    match family {
        FAMILY_IPV4 => (hello.client, hello.local) = address_pair::<4>(addresses),
        FAMILY_IPV6 => (hello.client, hello.local) = address_pair::<16>(addresses),
        _ => {}
    }
    let mut seen = Vec::new();
    while let Some((kind, value)) = next_field(&mut rest)? {
        if kind == TLS {
            hello.read_tls(value, &mut seen)?;
        } else if let Some(text) = hello.text_mut(kind) {
            *text = read_text(kind, value, &mut seen)?;
        } else {
            hello.others.push((kind, value.to_vec()));
        }
    }
    Ok(hello)
}

/// Takes type and value of the next field. None: there is none.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, HelloError> {
    let [kind, high, low, tail @ ..] = *rest else {
        return if rest.is_empty() { Ok(None) } else { Err(HelloError::Cut) };
    };
    let size = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, next) = tail.split_at_checked(size).ok_or(HelloError::Cut)?;
    *rest = next;
    Ok(Some((*kind, value)))
}

fn read_text(kind: u8, value: &[u8], seen: &mut Vec<u8>) -> Result<String, HelloError> {
    note(kind, seen)?;
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or(HelloError::BadText(kind))
}

/// Refuses a second field of a type. The fields of TLS that have a name have types that no other named field has.
fn note(kind: u8, seen: &mut Vec<u8>) -> Result<(), HelloError> {
    if seen.contains(&kind) {
        return Err(HelloError::Twice(kind));
    }
    seen.push(kind);
    Ok(())
}

impl Hello {
    /// The member for a field of a known type.
    fn text_mut(&mut self, kind: u8) -> Option<&mut String> {
        Some(match kind {
            0x02 => &mut self.host,
            0x05 => &mut self.id,
            0xe0 => &mut self.path,
            0xe1 => &mut self.query,
            0xe2 => &mut self.origin,
            0xe3 => &mut self.subprotocol,
            0xe4 => &mut self.user,
            0x01 => &mut self.alpn,
            0xe5 => &mut self.sni,
            0xe6 => &mut self.subject,
            0xe7 => &mut self.serial,
            0xe8 => &mut self.fingerprint,
            0xe9 => &mut self.groups,
            _ => return None,
        })
    }

    fn read_tls(&mut self, value: &[u8], seen: &mut Vec<u8>) -> Result<(), HelloError> {
        note(TLS, seen)?;
        let ([flags, verify @ ..], mut rest) = value.split_first_chunk::<5>().ok_or(HelloError::Cut)?;
        self.is_verified = flags & HAS_CERTIFICATE != 0 && *verify == [0; 4];
        while let Some((kind, value)) = next_field(&mut rest)? {
            let text = match kind {
                0x21 => &mut self.tls_version,
                0x22 => &mut self.common_name,
                0x23 => &mut self.tls_cipher,
                _ => continue,
            };
            *text = read_text(kind, value, seen)?;
        }
        Ok(())
    }
}

/// Two addresses of N bytes, then their ports.
fn address_pair<const N: usize>(addresses: &[u8]) -> (Option<SocketAddr>, Option<SocketAddr>)
where
    IpAddr: From<[u8; N]>,
{
    let one = |ip: usize, port: usize| {
        let (_, ip) = addresses.split_at_checked(ip)?;
        let (_, port) = addresses.split_at_checked(port)?;
        Some(SocketAddr::new(IpAddr::from(*ip.first_chunk()?), u16::from_be_bytes(*port.first_chunk()?)))
    };
    (one(0, 2 * N), one(N, 2 * N + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&[u8]; 7] = [
        b"\x02\0\x04h:80",
        b"\x05\0\x03c12",
        b"\xe0\0\x05/Gr\xc3\xbc",
        b"\xe1\0\x03q=1",
        b"\xee\0\x04anna",
        // An unknown field of TLS is skipped.
        b"\x20\0\x1a\x07\0\0\0\0\x21\0\x03TLS\x22\0\x03ann\x24\0\0\x23\0\x03AES",
        b"\xe6\0\x06CN=ann",
    ];

    fn body() -> Vec<u8> {
        [&b"\x01\x02\x03\x04\x7f\0\0\x01\x30\x39\0\x50"[..], &FIELDS.concat()].concat()
    }

    fn with_head(body: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &[0x21, 0x11], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    #[test]
    fn a_record_is_read_and_no_byte_after_it() {
        let expected = Hello {
            client: Some(([1, 2, 3, 4], 12345).into()),
            local: Some(([127, 0, 0, 1], 80).into()),
            host: "h:80".into(),
            id: "c12".into(),
            path: "/Gr\u{fc}".into(),
            query: "q=1".into(),
            tls_version: "TLS".into(),
            tls_cipher: "AES".into(),
            is_verified: true,
            common_name: "ann".into(),
            subject: "CN=ann".into(),
            others: vec![(0xee, b"anna".to_vec())],
            ..Hello::default()
        };
        let bytes = [&with_head(&body())[..], b"rest"].concat();
        let mut stream = &bytes[..];
        assert_eq!(read_hello(&mut stream).unwrap(), expected);
        assert_eq!(stream, b"rest");
        assert!(matches!(read_hello(&mut &bytes[..40]), Err(HelloError::Io(_))));
    }

    #[test]
    fn truncated_and_corrupt_records_are_handled() {
        let (body, mut end, mut ends) = (body(), 12, vec![12]);
        ends.extend(FIELDS.map(|field| {
            end += field.len();
            end
        }));
        let record = with_head(&body);
        for size in 0..=body.len() {
            assert_eq!(parse_hello(&with_head(&body[..size])).is_ok(), ends.contains(&size), "{size}");
            assert!(parse_hello(&record[..size]).is_err(), "{size}");
        }
        for bit in 0..8 * record.len() {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_hello(&flipped).is_err() || bit >= 96, "{bit}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let twice = [&b"\0".repeat(12)[..], FIELDS[0], FIELDS[0]].concat();
        let no_text = [&b"\0".repeat(12)[..], b"\xe0\0\x01\xff"].concat();
        let mut newer = with_head(&body());
        newer[12] = 0x31;
        for (record, sentence) in [
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "no PROXY protocol 2"),
            (newer, "version"),
            (with_head(&body()[..20]), "cut off"),
            (with_head(&twice), "0x02 is there twice"),
            (with_head(&no_text), "0xe0 has a NUL in it or is not UTF-8"),
        ] {
            let error = parse_hello(&record).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
