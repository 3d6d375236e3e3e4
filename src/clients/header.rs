//! The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): the header before the bytes of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::decimal;
use crate::limits::PROXY_HEADER_SIZE_MAX;

/// The first bytes of version 2 (section 2.2).
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of version 1 (section 2.1).
const SIGNATURE_V1: &[u8; 6] = b"PROXY ";
/// Bytes of a header of version 1 at most, with its CRLF (section 2.1).
const LINE_SIZE_MAX: usize = 107;

/// Bytes of version 2 before the addresses: signature, version and command, family and transport, length.
pub(crate) const FIXED_SIZE: usize = 16;
/// The version in the high nibble.
const VERSION: u8 = 0x20;
/// The commands in the low nibble.
const COMMAND_LOCAL: u8 = 0x00;
const COMMAND_PROXY: u8 = 0x01;
/// Version 2, command PROXY.
pub(crate) const VERSION_AND_PROXY: u8 = VERSION | COMMAND_PROXY;

/// Families and transports (section 2.2).
pub(crate) const UNSPECIFIED: u8 = 0x00;
pub(crate) const TCP_OVER_IPV4: u8 = 0x11;
pub(crate) const TCP_OVER_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
/// The transport in the low nibble.
const DATAGRAM: u8 = 0x02;

/// Bytes of a TLV before its value.
pub(crate) const TLV_HEAD_SIZE: usize = 3;
/// CRC-32C of the whole header, with zeros in its place (PP2_TYPE_CRC32C).
const TYPE_CHECKSUM: u8 = 0x03;
/// The TLS connection (PP2_TYPE_SSL): a byte of flags, 4 bytes for `verify`, TLVs of the subtypes.
pub(crate) const TYPE_TLS: u8 = 0x20;
/// Bytes of `TYPE_TLS` before its TLVs.
pub(crate) const TLS_FIXED_SIZE: usize = 5;
/// The client uses TLS (PP2_CLIENT_SSL).
pub(crate) const FLAG_TLS: u8 = 0x01;

/// What a header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Header {
    /// The connection is the proxy's own, or its client has no address: the real addresses count (LOCAL, UNKNOWN,
    /// UNSPEC, UNIX).
    Own,
    /// The connection is that of a client.
    Client(Announced),
}

/// The client of a connection, as a header gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announced {
    /// Its address; an IPv4 address mapped to IPv6 is given as that IPv4 address.
    pub client: SocketAddr,
    /// The address that it has connected to.
    pub local: SocketAddr,
    /// Whether it uses TLS to the proxy (PP2_TYPE_SSL). None: not known.
    pub is_tls: Option<bool>,
}

/// Why a header is refused. Display is the operator's sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum HeaderError {
    Absent,
    /// The stream has ended.
    Incomplete,
    Line,
    LineTooLong,
    Version,
    Command,
    Datagram,
    Family,
    /// The limit in bytes.
    TooLarge(usize),
    Addresses,
    Values,
    Checksum,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Absent => f.write_str(
                "the connection does not begin with a PROXY header: switch it on in the proxy (send-proxy-v2, \
                 proxy_protocol)",
            ),
            HeaderError::Incomplete => f.write_str("the connection ended within its PROXY header"),
            HeaderError::Line => {
                f.write_str("the PROXY header is malformed: version 1 is \"PROXY TCP4 CLIENT SERVER PORT PORT\"")
            }
            HeaderError::LineTooLong => write!(f, "the PROXY header of version 1 is over {LINE_SIZE_MAX} bytes"),
            HeaderError::Version => f.write_str("the PROXY header is neither of version 1 nor 2"),
            HeaderError::Command => f.write_str("the command of the PROXY header is neither LOCAL nor PROXY"),
            HeaderError::Datagram => f.write_str("the PROXY header is that of datagrams"),
            HeaderError::Family => f.write_str("the address family or transport of the PROXY header is unknown"),
            HeaderError::TooLarge(size_max) => write!(f, "the PROXY header is over {size_max} bytes"),
            HeaderError::Addresses => f.write_str("the PROXY header is too short for its addresses"),
            HeaderError::Values => f.write_str("the values after the addresses of the PROXY header are malformed"),
            HeaderError::Checksum => f.write_str("the checksum of the PROXY header is wrong (PP2_TYPE_CRC32C)"),
        }
    }
}

/// The progress of reading a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeaderProgress {
    /// More bytes are needed.
    Incomplete,
    /// The bytes do not begin with a signature. Decided as early as the bytes permit.
    Absent,
    /// The header, and its size in bytes.
    Complete(Header, usize),
}

/// Parses the bytes at the beginning of a connection. At most `PROXY_HEADER_SIZE_MAX` bytes belong to a header. The
/// result does not change with further bytes, except for `Incomplete`.
pub fn parse(bytes: &[u8]) -> Result<HeaderProgress, HeaderError> {
    if begins(bytes, SIGNATURE) {
        parse_binary(bytes)
    } else if begins(bytes, SIGNATURE_V1) {
        parse_line(bytes)
    } else {
        Ok(HeaderProgress::Absent)
    }
}

/// Whether the bytes begin with the signature, as far as they go.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

/// Version 1 (section 2.1).
fn parse_line(bytes: &[u8]) -> Result<HeaderProgress, HeaderError> {
    for (at, &byte) in bytes.iter().enumerate().take(LINE_SIZE_MAX - 1) {
        match (byte, bytes.get(at + 1)) {
            (b'\r', None) => return Ok(HeaderProgress::Incomplete),
            (b'\r', Some(b'\n')) => return Ok(HeaderProgress::Complete(header_of_line(&bytes[..at])?, at + 2)),
            (b' '..=b'~', _) => {}
            _ => return Err(HeaderError::Line),
        }
    }
    if bytes.len() < LINE_SIZE_MAX { Ok(HeaderProgress::Incomplete) } else { Err(HeaderError::LineTooLong) }
}

fn header_of_line(line: &[u8]) -> Result<Header, HeaderError> {
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Line)?;
    let words: Vec<&str> = line.split(' ').collect();
    let announced = match words[..] {
        // What follows is ignored.
        [_, "UNKNOWN", ..] => return Ok(Header::Own),
        [_, "TCP4", client, local, client_port, local_port] => {
            let ip = |text: &str| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
            announced((ip(client), client_port), (ip(local), local_port))
        }
        [_, "TCP6", client, local, client_port, local_port] => {
            let ip = |text: &str| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
            announced((ip(client), client_port), (ip(local), local_port))
        }
        _ => None,
    };
    announced.map(Header::Client).ok_or(HeaderError::Line)
}

fn announced(client: (Option<IpAddr>, &str), local: (Option<IpAddr>, &str)) -> Option<Announced> {
    let address = |(ip, port): (Option<IpAddr>, &str)| Some(SocketAddr::new(ip?.to_canonical(), decimal(port)?));
    Some(Announced { client: address(client)?, local: address(local)?, is_tls: None })
}

/// Version 2 (section 2.2).
fn parse_binary(bytes: &[u8]) -> Result<HeaderProgress, HeaderError> {
    let Some(&version_and_command) = bytes.get(SIGNATURE.len()) else { return Ok(HeaderProgress::Incomplete) };
    if version_and_command & 0xf0 != VERSION {
        return Err(HeaderError::Version);
    }
    let is_own = match version_and_command & 0x0f {
        COMMAND_LOCAL => true,
        COMMAND_PROXY => false,
        _ => return Err(HeaderError::Command),
    };
    let Some(&family) = bytes.get(SIGNATURE.len() + 1) else { return Ok(HeaderProgress::Incomplete) };
    // The bytes of the addresses.
    let addresses_size = match family {
        UNSPECIFIED => 0,
        TCP_OVER_IPV4 => 12,
        TCP_OVER_IPV6 => 36,
        UNIX_STREAM => 216,
        // LOCAL ignores the family and what belongs to it.
        _ if is_own => 0,
        _ if family & 0x0f == DATAGRAM && matches!(family >> 4, 1..=3) => return Err(HeaderError::Datagram),
        _ => return Err(HeaderError::Family),
    };
    let Some(&[high, low]) = bytes.get(FIXED_SIZE - 2..FIXED_SIZE) else { return Ok(HeaderProgress::Incomplete) };
    let size = FIXED_SIZE + usize::from(u16::from_be_bytes([high, low]));
    if size > PROXY_HEADER_SIZE_MAX {
        return Err(HeaderError::TooLarge(PROXY_HEADER_SIZE_MAX));
    }
    if !is_own && size < FIXED_SIZE + addresses_size {
        return Err(HeaderError::Addresses);
    }
    let Some(header) = bytes.get(..size) else { return Ok(HeaderProgress::Incomplete) };
    let values = match header.get(FIXED_SIZE + addresses_size..) {
        None => Err(HeaderError::Values),
        Some(values) => Values::parse(values, header),
    };
    let values = match values {
        // The block of LOCAL may be anything, unless its checksum shows an error.
        Err(HeaderError::Values) if is_own => Values::default(),
        values => values?,
    };
    let announced = if is_own { None } else { addresses(family, &header[FIXED_SIZE..FIXED_SIZE + addresses_size]) };
    let header = match announced {
        None => Header::Own,
        Some((client, local)) => Header::Client(Announced { client, local, is_tls: values.is_tls }),
    };
    Ok(HeaderProgress::Complete(header, size))
}

/// The addresses of the client and of the server. None: the family has none that identify a client.
fn addresses(family: u8, block: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (ips, ports) = block.split_at(block.len().checked_sub(4)?);
    let (client, local) = ips.split_at(ips.len() / 2);
    let ip = |octets: &[u8]| match family {
        TCP_OVER_IPV4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        TCP_OVER_IPV6 => <[u8; 16]>::try_from(octets).ok().map(|octets| IpAddr::from(octets).to_canonical()),
        _ => None,
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some(((ip(client)?, port(0)).into(), (ip(local)?, port(2)).into()))
}

/// The values (TLVs) after the addresses.
#[derive(Default)]
struct Values {
    /// Whether the client uses TLS. None: not said.
    is_tls: Option<bool>,
}

impl Values {
    /// Parses the values at the end of a header, and checks its checksum if it has one.
    fn parse(mut rest: &[u8], header: &[u8]) -> Result<Values, HeaderError> {
        let mut values = Values::default();
        let mut checksum = None;
        while !rest.is_empty() {
            let Some((&[kind, high, low], after)) = rest.split_first_chunk::<TLV_HEAD_SIZE>() else {
                return Err(HeaderError::Values);
            };
            let size = usize::from(u16::from_be_bytes([high, low]));
            let (value, after) = after.split_at_checked(size).ok_or(HeaderError::Values)?;
            match (kind, value) {
                (TYPE_CHECKSUM, &[a, b, c, d]) if checksum.is_none() => {
                    let at = header.len() - after.len() - size;
                    checksum = Some((u32::from_be_bytes([a, b, c, d]), at));
                }
                (TYPE_TLS, &[flags, _, _, _, _, ..]) if values.is_tls.is_none() => {
                    values.is_tls = Some(flags & FLAG_TLS != 0);
                }
                // One too many, or of a wrong size.
                (TYPE_CHECKSUM | TYPE_TLS, _) => return Err(HeaderError::Values),
                _ => {}
            }
            rest = after;
        }
        match checksum {
            Some((checksum, at)) if checksum != crc32c(header, at..at + 4) => Err(HeaderError::Checksum),
            _ => Ok(values),
        }
    }
}

/// CRC-32C (RFC 3720 section B.4) of the bytes, those in `zeros` counted as zeros.
fn crc32c(bytes: &[u8], zeros: std::ops::Range<usize>) -> u32 {
    /// The polynomial, its bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        crc ^= if zeros.contains(&at) { 0 } else { u32::from(*byte) };
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(client: &str, local: &str, is_tls: Option<bool>) -> Header {
        Header::Client(Announced { client: client.parse().unwrap(), local: local.parse().unwrap(), is_tls })
    }

    /// A header of version 2.
    fn binary(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let size = (block.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[version_and_command, family], &size, block].concat()
    }

    /// A value of a header of version 2.
    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    const IPV4: &[u8] = b"\xcb\0\x71\x07\xc0\0\x02\x01\x12\x67\x01\xbb";
    const SHOWN: (&str, &str) = ("203.0.113.7:4711", "192.0.2.1:443");

    fn of_client(values: &[Vec<u8>]) -> Vec<u8> {
        binary(0x21, 0x11, &[IPV4, &values.concat()].concat())
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// Headers that are complete.
    fn complete() -> Vec<(Vec<u8>, Header)> {
        let line = |text: &str| format!("{text}\r\n").into_bytes();
        let ipv6 = |client: &str, local: &str| {
            let octets = |ip: &str| ip.parse::<Ipv6Addr>().unwrap().octets();
            [&octets(client)[..], &octets(local), b"\x12\x67\x01\xbb"].concat()
        };
        let v4 = |is_tls| client(SHOWN.0, SHOWN.1, is_tls);
        let v6 = client("[2001:db8::7]:4711", "[2001:db8::1]:443", None);
        let with = |values: &[Vec<u8>]| of_client(values);
        // Those of haproxy 2.6: a check, and a client.
        let check = bytes("0d0a0d0a000d0a515549540a 20 00 0007 03 0004 a9b87e8f");
        let of_haproxy = bytes("0d0a0d0a000d0a515549540a 21 11 0013 cb007107 c0000201 1267 01bb 03 0004 e64b5e87");
        vec![
            (line("PROXY TCP4 203.0.113.7 192.0.2.1 4711 443"), v4(None)),
            (line("PROXY TCP6 2001:db8::7 2001:db8::1 4711 443"), v6.clone()),
            (line("PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 4711 443"), v4(None)),
            (line("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535"), client("0.0.0.0:0", "255.255.255.255:65535", None)),
            (line("PROXY UNKNOWN"), Header::Own),
            (line("PROXY UNKNOWN 203.0.113.7 192.0.2.1 4711 443"), Header::Own),
            (line(&format!("PROXY UNKNOWN {}", "f".repeat(91))), Header::Own),
            (check, Header::Own),
            (of_haproxy, v4(None)),
            (binary(0x21, 0x11, IPV4), v4(None)),
            (binary(0x21, 0x21, &ipv6("2001:db8::7", "2001:db8::1")), v6),
            (binary(0x21, 0x21, &ipv6("::ffff:203.0.113.7", "::ffff:192.0.2.1")), v4(None)),
            (binary(0x21, 0x31, &[b'x'; 216]), Header::Own),
            (binary(0x21, 0x00, b""), Header::Own),
            (binary(0x21, 0x00, &tlv(0x05, b"c12")), Header::Own),
            (binary(0x20, 0x00, b""), Header::Own),
            // LOCAL with a family, an unknown one, addresses that are too short, and values that are none.
            (binary(0x20, 0x11, IPV4), Header::Own),
            (binary(0x20, 0x11, b"\x01"), Header::Own),
            (binary(0x20, 0xff, b"\x01\x02"), Header::Own),
            (binary(0x20, 0x12, &tlv(0xe0, b"x")), Header::Own),
            (with(&[tlv(0x20, b"\x01\0\0\0\0")]), v4(Some(true))),
            (with(&[tlv(0x20, b"\x07\0\0\0\x01\x21\0\x07TLSv1.3")]), v4(Some(true))),
            (with(&[tlv(0x04, b"\0\0"), tlv(0x20, b"\x06\0\0\0\0"), tlv(0xea, b"")]), v4(Some(false))),
            (with(&[tlv(0x04, &[0; PROXY_HEADER_SIZE_MAX - 28 - 3])]), v4(None)),
        ]
    }

    #[test]
    fn headers_and_what_follows_them() {
        for (bytes, header) in complete() {
            let expected = Ok(HeaderProgress::Complete(header, bytes.len()));
            for more in ["", "G", "\r\n", "PROXY UNKNOWN\r\n"] {
                let all = [&bytes[..], more.as_bytes()].concat();
                assert_eq!(parse(&all), expected, "{}", all.escape_ascii());
            }
            for size in 0..bytes.len() {
                assert_eq!(parse(&bytes[..size]), Ok(HeaderProgress::Incomplete), "{}", bytes[..size].escape_ascii());
            }
        }
        let largest = complete().iter().map(|(bytes, _)| bytes.len()).max();
        assert_eq!(largest, Some(PROXY_HEADER_SIZE_MAX));
    }

    #[test]
    fn refused_headers() {
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let checksum = tlv(0x03, b"\0\0\0\0");
        let cases = [
            (line("TCP4 203.0.113.7 192.0.2.1 4711"), HeaderError::Line),
            (line("TCP4 203.0.113.7 192.0.2.1 4711 443 x"), HeaderError::Line),
            (line("TCP4 203.0.113.7 192.0.2.1 4711 443 "), HeaderError::Line),
            (line("TCP4  203.0.113.7 192.0.2.1 4711 443"), HeaderError::Line),
            (line("TCP4\t203.0.113.7 192.0.2.1 4711 443"), HeaderError::Line),
            (line("TCP4 203.0.113.7 192.0.2.1 4711 65536"), HeaderError::Line),
            (line("TCP4 203.0.113.7 192.0.2.1 04711 443"), HeaderError::Line),
            (line("TCP4 203.0.113.7 192.0.2.1 +4711 443"), HeaderError::Line),
            (line("TCP4 203.0.113.7 192.0.2.1 -1 443"), HeaderError::Line),
            (line("TCP4 203.0.113.7 192.0.2.1 00 443"), HeaderError::Line),
            (line("TCP4 203.0.113.7 192.0.2.1  443"), HeaderError::Line),
            (line("TCP4 203.0.113.07 192.0.2.1 4711 443"), HeaderError::Line),
            (line("TCP4 203.0.113 192.0.2.1 4711 443"), HeaderError::Line),
            (line("TCP4 2001:db8::7 2001:db8::1 4711 443"), HeaderError::Line),
            (line("TCP6 203.0.113.7 192.0.2.1 4711 443"), HeaderError::Line),
            (line("TCP6 [2001:db8::7] [2001:db8::1] 4711 443"), HeaderError::Line),
            (line("TCP6 fe80::1%1 2001:db8::1 4711 443"), HeaderError::Line),
            (line("tcp4 203.0.113.7 192.0.2.1 4711 443"), HeaderError::Line),
            (line("UDP4 203.0.113.7 192.0.2.1 4711 443"), HeaderError::Line),
            (line("UNKNOWN\n"), HeaderError::Line),
            (line("UNKNOWN \r"), HeaderError::Line),
            (line("UNKNOWN \u{e4}"), HeaderError::Line),
            (line("UNKNOWNS"), HeaderError::Line),
            (line(""), HeaderError::Line),
            (line(&format!("UNKNOWN {}", "f".repeat(92))), HeaderError::LineTooLong),
            (line(&format!("UNKNOWN {}", "f".repeat(900))), HeaderError::LineTooLong),
            (binary(0x11, 0x11, IPV4), HeaderError::Version),
            (binary(0x31, 0x11, IPV4), HeaderError::Version),
            (binary(0x22, 0x11, IPV4), HeaderError::Command),
            (binary(0x2f, 0x11, IPV4), HeaderError::Command),
            (binary(0x21, 0x12, IPV4), HeaderError::Datagram),
            (binary(0x21, 0x22, &[0; 36]), HeaderError::Datagram),
            (binary(0x21, 0x32, &[0; 216]), HeaderError::Datagram),
            (binary(0x21, 0x01, b""), HeaderError::Family),
            (binary(0x21, 0x02, b""), HeaderError::Family),
            (binary(0x21, 0x10, IPV4), HeaderError::Family),
            (binary(0x21, 0x13, IPV4), HeaderError::Family),
            (binary(0x21, 0x41, IPV4), HeaderError::Family),
            (binary(0x21, 0x11, &IPV4[1..]), HeaderError::Addresses),
            (binary(0x21, 0x21, &[0; 35]), HeaderError::Addresses),
            (binary(0x21, 0x31, &[0; 215]), HeaderError::Addresses),
            (binary(0x21, 0x00, &[0; PROXY_HEADER_SIZE_MAX - 15]), HeaderError::TooLarge(PROXY_HEADER_SIZE_MAX)),
            (binary(0x20, 0x00, &[0; 0xffff]), HeaderError::TooLarge(PROXY_HEADER_SIZE_MAX)),
            (of_client(&[vec![0x04]]), HeaderError::Values),
            (of_client(&[vec![0x04, 0, 1]]), HeaderError::Values),
            (of_client(&[tlv(0x04, b"x"), vec![0, 0]]), HeaderError::Values),
            (of_client(&[tlv(0x20, b"\x01\0\0\0")]), HeaderError::Values),
            (of_client(&[tlv(0x20, b"\x01\0\0\0\0"), tlv(0x20, b"\0\0\0\0\0")]), HeaderError::Values),
            (of_client(&[tlv(0x03, b"\0\0\0")]), HeaderError::Values),
            (of_client(&[checksum.clone(), checksum.clone()]), HeaderError::Values),
            (of_client(std::slice::from_ref(&checksum)), HeaderError::Checksum),
            (binary(0x20, 0x00, &checksum), HeaderError::Checksum),
        ];
        for (bytes, error) in cases {
            assert_eq!(parse(&bytes), Err(error), "{}", bytes.escape_ascii());
            // Nothing but the same error may be decided earlier.
            for size in 0..bytes.len() {
                let early = parse(&bytes[..size]);
                assert!(
                    early == Ok(HeaderProgress::Incomplete) || early == Err(error),
                    "{early:?}: {}",
                    bytes.escape_ascii()
                );
            }
        }
    }

    /// Each bit of a header with a checksum that is inverted is noticed.
    #[test]
    fn a_checksum_covers_the_whole_header() {
        for (whole, header) in complete().into_iter().filter(|(bytes, _)| bytes.windows(3).any(|w| w == [3, 0, 4])) {
            for bit in 0..whole.len() * 8 {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let parsed = parse(&damaged);
                // Without its type, LOCAL is the same, and a client has a value that is skipped.
                let is_without = damaged[whole.len() - 7] != 3;
                let is_same = parsed == Ok(HeaderProgress::Complete(header.clone(), whole.len()));
                assert!(!is_same || is_without || damaged[12] == 0x20, "bit {bit}: {parsed:?}");
            }
        }
        assert_eq!(crc32c(b"123456789", 0..0), 0xe306_9283, "the check value of CRC-32C");
        assert_eq!(crc32c(&[0; 32], 0..0), 0x8a91_36aa, "RFC 3720 section B.4");
        assert_eq!(crc32c(b"\0\0\x01\x02\0", 2..4), crc32c(&[0; 5], 0..0));
    }

    /// Ordinary requests go on at once, and garbage does not wait for a deadline.
    #[test]
    fn other_bytes_are_recognised_early() {
        for (bytes, is_absent) in [
            ("", false),
            ("P", false),
            ("PROXY", false),
            ("PO", true),
            ("PR0", true),
            ("PROPFIND / HTTP/1.1\r\n", true),
            ("G", true),
            ("GET / HTTP/1.1\r\n", true),
            ("proxy TCP4", true),
            ("\r", false),
            ("\r\n", false),
            ("\r\nG", true),
            ("\r\n\r\n", false),
            ("\r\n\r\nG", true),
            ("\r\n\r\n\0\r\nQUIT\r", true),
            ("\x16\x03\x01", true),
            (" PROXY", true),
        ] {
            let expected = if is_absent { HeaderProgress::Absent } else { HeaderProgress::Incomplete };
            assert_eq!(parse(bytes.as_bytes()), Ok(expected), "{bytes:?}");
        }
        for (beginning, size) in [("PROXY ", LINE_SIZE_MAX), ("PROXY TCP4 ", LINE_SIZE_MAX)] {
            let long = format!("{beginning}{}", "x".repeat(200));
            assert_eq!(parse(&long.as_bytes()[..size - 1]), Ok(HeaderProgress::Incomplete));
            assert_eq!(parse(&long.as_bytes()[..size]), Err(HeaderError::LineTooLong));
        }
        assert_eq!(parse(b"PROXY /x HTTP/1.1\r\n"), Err(HeaderError::Line));
        assert_eq!(parse(b"PROXY \xff"), Err(HeaderError::Line));
        assert_eq!(parse(b"\r\n\r\n\0\r\nQUIT\n\x47"), Err(HeaderError::Version));
    }
}
