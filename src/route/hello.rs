//! The hello record, which the backend of a service with `hello` receives before the first message: the client's address
//! in PROXY protocol version 2 (haproxy's proxy-protocol.txt, section 2.2), with TLVs for values of the handshake.

use std::net::{IpAddr, SocketAddr};

use crate::types::Address;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;

/// The requested host (PP2_TYPE_AUTHORITY).
const TYPE_HOST: u8 = 0x02;
/// The name of the connection in the log (PP2_TYPE_UNIQUE_ID).
const TYPE_ID: u8 = 0x05;
/// The first of the types for applications (PP2_TYPE_MIN_CUSTOM).
const TYPE_PATH: u8 = 0xe0;
const TYPE_QUERY: u8 = 0xe1;
const TYPE_ORIGIN: u8 = 0xe2;
const TYPE_SUBPROTOCOL: u8 = 0xe3;

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
}

impl Hello {
    /// The size of all values in bytes.
    pub(crate) fn size(&self) -> usize {
        [&self.path, &self.query, &self.host, &self.origin, &self.subprotocol].iter().map(|value| value.len()).sum()
    }

    /// Encodes the record. `client` is the remote and `local` the local address of the client's socket, both unknown on a
    /// UNIX socket; `id` is the connection's number in the log.
    pub fn encode(&self, client: Address, local: Address, id: u64) -> Box<[u8]> {
        let (family, addresses) = match (client, local) {
            (Address::Tcp(client), Address::Tcp(local)) => addresses(client, local),
            _ => (0x00, Vec::new()),
        };
        let mut record = [&SIGNATURE[..], &[VERSION_AND_COMMAND, family, 0, 0]].concat();
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
            // A length fits into 16 bits: all values together are shorter than the request head.
            if !value.is_empty() {
                record.push(kind);
                record.extend((value.len() as u16).to_be_bytes());
                record.extend(value.as_bytes());
            }
        }
        let size = (record.len() - start) as u16;
        record[start - 2..start].copy_from_slice(&size.to_be_bytes());
        record.into()
    }
}

/// TCP over IPv4 or IPv6; an IPv4 address beside an IPv6 one is written as IPv6 (RFC 4291 section 2.5.5.2).
fn addresses(client: SocketAddr, local: SocketAddr) -> (u8, Vec<u8>) {
    let ports = [client.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    match (client.ip().to_canonical(), local.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(local)) => (0x11, [&client.octets()[..], &local.octets(), &ports].concat()),
        (client, local) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            (0x21, [&octets(client)[..], &octets(local), &ports].concat())
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

    #[test]
    fn address_families() {
        let hello = Hello::default();
        for (client, local, family, size) in [
            (tcp("[::1]:1"), tcp("[::1]:2"), 0x21, 36),
            (tcp("[::ffff:1.2.3.4]:1"), tcp("[::ffff:1.2.3.5]:2"), 0x11, 12),
            (Address::Unix, Address::Unix, 0x00, 0),
            (tcp("1.2.3.4:1"), Address::Unknown, 0x00, 0),
        ] {
            let record = hello.encode(client, local, 7);
            // The ID is always present: type, length, "c7".
            assert_eq!((record[13], record[15]), (family, size + 5), "{client} {local}");
            assert_eq!(record.len(), 16 + usize::from(size) + 5);
        }
    }
}
