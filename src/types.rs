//! Plain words that several modules use.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

/// The two ends that a gateway connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The HTTP client: browser, app or device.
    Client,
    /// The UNIX server, TCP server or device that a name leads to.
    Backend,
}

impl End {
    /// Both, the client first.
    pub(crate) const BOTH: [End; 2] = [End::Client, End::Backend];

    /// The other one.
    pub(crate) fn opposite(self) -> End {
        match self {
            End::Client => End::Backend,
            End::Backend => End::Client,
        }
    }
}

/// The address of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A UNIX socket; clients have no address of their own.
    Unix,
    /// The address could not be read, for example because the peer had disconnected.
    Unknown,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix => f.write_str("unix"),
            Address::Unknown => f.write_str("unknown"),
        }
    }
}

/// Why an I/O operation failed, without the error's number.
pub(crate) fn reason_of(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// IPv4 or IPv6. Port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// Path of a UNIX socket.
    Unix(String),
}

impl ListenAddress {
    /// As Display, with the scheme of a server that has TLS or not.
    pub(crate) fn url(&self, has_tls: bool) -> String {
        match self {
            ListenAddress::Tcp(address) if has_tls => format!("https://{address}"),
            other => other.to_string(),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("the path is missing: write unix:/run/uakari.sock".to_owned()),
            Some(path) => Ok(ListenAddress::Unix(path.to_owned())),
            None => text.parse().map(ListenAddress::Tcp).map_err(|_| {
                format!(
                    "{text:?} is not an address: write 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80 or unix:/run/uakari.sock"
                )
            }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "http://{address}"),
            ListenAddress::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// What is to be received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Demand {
    /// Nothing for now.
    Nothing = 0,
    /// One receive, then Nothing again.
    Once,
    /// All that comes.
    Flow,
    /// All that comes, packet by packet.
    Packets,
}

/// A number below 2^48, in 6 bytes: times and totals of which each connection keeps many.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct U48([u16; 3]);

impl U48 {
    /// The largest value.
    const MAX: u64 = (1 << 48) - 1;

    /// This number, or the largest value if it is larger.
    pub(crate) fn new(number: u64) -> U48 {
        let number = number.min(U48::MAX);
        U48([number as u16, (number >> 16) as u16, (number >> 32) as u16])
    }

    pub(crate) fn get(self) -> u64 {
        let [low, middle, high] = self.0;
        u64::from(low) | u64::from(middle) << 16 | u64::from(high) << 32
    }
}

impl fmt::Debug for U48 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl std::ops::AddAssign<u64> for U48 {
    fn add_assign(&mut self, more: u64) {
        *self = U48::new(self.get().saturating_add(more));
    }
}

/// A time of the event loop, in milliseconds. An `Option` of it has the same size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Upper 16 bits, plus one.
    high: NonZeroU16,
    middle: u16,
    low: u16,
}

impl Moment {
    /// The latest time that can be stored: after 8,900 years.
    const MS_MAX: u64 = U48::MAX - (1 << 32);

    /// This time, or the latest that can be stored.
    pub(crate) fn at(ms: u64) -> Moment {
        let ms = ms.min(Moment::MS_MAX);
        let high = NonZeroU16::MIN.saturating_add((ms >> 32) as u16);
        Moment { high, middle: (ms >> 16) as u16, low: ms as u16 }
    }

    /// In milliseconds.
    pub(crate) fn ms(self) -> u64 {
        u64::from(self.low) | u64::from(self.middle) << 16 | u64::from(self.high.get() - 1) << 32
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ms().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_bytes_hold_times_and_totals() {
        assert_eq!((size_of::<U48>(), size_of::<Option<Moment>>()), (6, 6));
        for number in [0, 1, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, 0x1234_5678_9abc, Moment::MS_MAX] {
            assert_eq!((U48::new(number).get(), Moment::at(number).ms()), (number, number));
        }
        assert_eq!((U48::new(u64::MAX).get(), Moment::at(u64::MAX).ms()), (U48::MAX, Moment::MS_MAX));
        let mut total = U48::new(U48::MAX - 1);
        total += 1;
        assert_eq!(total.get(), U48::MAX);
        total += 1;
        assert_eq!(total.get(), U48::MAX, "no overflow");
    }

    #[test]
    fn listening_addresses_are_read_as_they_are_shown() {
        for (text, shown) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("[::1]:80", "http://[::1]:80"),
            ("unix:/run/u.sock", "unix:/run/u.sock"),
        ] {
            let address = text.parse::<ListenAddress>().unwrap();
            assert_eq!((address.to_string(), address.url(false)), (shown.to_owned(), shown.to_owned()));
            assert_eq!(address.url(true), shown.replace("http:", "https:"));
        }
        for wrong in ["8080", "localhost:80", "127.0.0.1", "unix:", "1.2.3.4:99999"] {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong}");
        }
    }
}
