//! The PROXY header before the bytes of a trusted proxy's connection, and before TLS. The stage of the connection begins
//! after it.

use super::stage::StageKind;
use crate::clients::HeaderUse;
use crate::clients::header::{self, Header, HeaderError, HeaderProgress};
use crate::driver::{Driver, Lease};
use crate::limits::{POOL_HEADROOM, PROXY_HEADER_SIZE_MAX};

/// What a connection begins with. None: not with a header.
pub(crate) type Introduction = Result<Option<Box<Header>>, HeaderError>;

/// A header that is incomplete.
#[derive(Debug)]
pub(super) struct Expected {
    /// The stage of the bytes after the header.
    pub(super) next: StageKind,
    pub(super) is_required: bool,
    /// Received bytes, at most `PROXY_HEADER_SIZE_MAX`.
    bytes: Vec<u8>,
}

impl Expected {
    /// The header of a connection that has sent nothing yet.
    pub(super) fn new(next: StageKind, header_use: HeaderUse) -> Expected {
        Expected { next, is_required: header_use == HeaderUse::Required, bytes: Vec::new() }
    }

    /// Whether a part of a header, or what may become one, has been received.
    pub(super) fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Bytes held outside the pool.
    pub(super) fn heap_size(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes the bytes of the header from a buffer. What is left in it belongs to the next stage; without a header these
    /// are all bytes received so far. None: the header is incomplete, and nothing is left.
    pub(super) fn receive<D: Driver>(&mut self, lease: &mut Lease, driver: &mut D) -> Option<Introduction> {
        let before = self.bytes.len();
        let received = &driver.buffer(lease)[lease.range()];
        let part = &received[..received.len().min(PROXY_HEADER_SIZE_MAX - before)];
        let progress = if before == 0 {
            header::parse(part)
        } else {
            self.bytes.extend_from_slice(part);
            header::parse(&self.bytes)
        };
        match progress {
            Ok(HeaderProgress::Incomplete) => {
                if before == 0 {
                    self.bytes.extend_from_slice(part);
                }
                lease.start = lease.end;
                None
            }
            Ok(HeaderProgress::Absent) if self.is_required => Some(Err(HeaderError::Absent)),
            Ok(HeaderProgress::Absent) => {
                self.put_back(before, lease, driver);
                Some(Ok(None))
            }
            Ok(HeaderProgress::Complete(header, size)) => {
                lease.start += size.saturating_sub(before) as u32;
                Some(Ok(Some(Box::new(header))))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Puts the `size` bytes that were received before those of the buffer in front of these. They are the beginning of a
    /// signature, and shorter than the headroom.
    fn put_back<D: Driver>(&self, size: usize, lease: &mut Lease, driver: &mut D) {
        const { assert!(header::SIGNATURE.len() < POOL_HEADROOM) };
        let end = lease.start as usize;
        let start = end.saturating_sub(size);
        driver.buffer(lease)[start..end].copy_from_slice(&self.bytes[..end - start]);
        lease.start = start as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::header::Announced;
    use crate::driver::sim::Sim;
    use crate::driver::{Completion, Event, Op, Token};
    use crate::transport::{Arrival, Opposite, Transport};
    use crate::types::{Address, Demand};

    const TOKEN: Token = Token { slot: 0, generation: 1, op: Op::Accept };

    /// A client, and the transport of its connection.
    struct Link {
        sim: Sim,
        wire: usize,
        transport: Transport<crate::driver::sim::Handle>,
        completions: Vec<Completion<crate::driver::sim::Handle>>,
    }

    impl Link {
        fn new(header_use: HeaderUse) -> Link {
            let mut sim = Sim::new(1, 16);
            sim.is_plain = true;
            let (listener, wire) = (sim.listener(), sim.client(0, 1 << 20, Address::Unix));
            let mut completions = Vec::new();
            sim.accept(TOKEN, &listener);
            sim.wait(Some(0), &mut completions).unwrap();
            let Some(Event::Accepted { result: Ok((handle, _)), .. }) = completions.pop().map(|one| one.event) else {
                panic!("not accepted")
            };
            let transport = Transport::with_stage(handle, &StageKind::Plain, header_use);
            Link { sim, wire, transport, completions }
        }

        /// Ends the stream, or resets the connection, and returns what the exchange is told.
        fn end(&mut self, is_reset: bool) -> Option<Arrival> {
            let wire = &mut self.sim.wires[self.wire];
            if is_reset {
                wire.reset()
            } else {
                wire.finish()
            }
            // The simulated kernel may tell it later.
            for _ in 0..1_000 {
                self.transport.set_demand(Demand::Once);
                self.transport.settle(TOKEN, Opposite { queued_size: 0, queue_size_max: 1 }, &mut self.sim);
                self.sim.wait(Some(0), &mut self.completions).unwrap();
                for Completion { event, .. } in std::mem::take(&mut self.completions) {
                    if let Event::Received { result, more } = event
                        && let Some(arrival) = self.transport.on_received(result, more, &mut self.sim)
                    {
                        return Some(arrival);
                    }
                }
            }
            None
        }

        /// Sends bytes, and returns what the exchange is told.
        fn send(&mut self, bytes: &[u8]) -> Vec<Arrival> {
            assert_eq!(self.sim.wires[self.wire].write(bytes), Some(bytes.len()));
            let mut arrivals = Vec::new();
            // As many receives as the exchange would ask for.
            while self.sim.wires[self.wire].unread_size() > 0 {
                self.transport.set_demand(Demand::Once);
                self.transport.settle(TOKEN, Opposite { queued_size: 0, queue_size_max: 1 }, &mut self.sim);
                self.sim.wait(Some(0), &mut self.completions).unwrap();
                for Completion { event, .. } in std::mem::take(&mut self.completions) {
                    if let Event::Received { result, more } = event {
                        arrivals.extend(self.transport.on_received(result, more, &mut self.sim));
                    }
                }
            }
            arrivals.extend(std::iter::from_fn(|| self.transport.take_arrival()));
            arrivals
        }
    }

    /// What the bytes begin with, and the bytes after it.
    fn received(link: &mut Link, parts: [&[u8]; 2]) -> (Option<Introduction>, Vec<u8>) {
        let (mut introduction, mut bytes) = (None, Vec::new());
        let arrivals: Vec<Arrival> =
            parts.into_iter().filter(|part| !part.is_empty()).flat_map(|part| link.send(part)).collect();
        for arrival in arrivals {
            match arrival {
                Arrival::Header(one) => {
                    assert!(introduction.is_none() && bytes.is_empty(), "a header after the beginning");
                    introduction = Some(one);
                }
                Arrival::Lease(lease) => {
                    bytes.extend_from_slice(&link.sim.buffer(&lease)[lease.range()]);
                    link.sim.release(lease);
                }
                other => panic!("{other:?}"),
            }
        }
        (introduction, bytes)
    }

    #[test]
    fn a_header_cut_anywhere() {
        let client = |text: &str| {
            let (client, local) = (text.parse().unwrap(), "192.0.2.1:443".parse().unwrap());
            Ok(Some(Box::new(Header::Client(Announced { client, local, is_tls: None }))))
        };
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x12\x67\x01\xbb";
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        let v1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";
        let long = [&v2[..14], &[0x0f, 0xf0], &v2[16..], &[4, 0x0f, 0xe1], &[0; 0xfe1]].concat();
        assert_eq!(long.len(), PROXY_HEADER_SIZE_MAX);
        let (both, optional) = (&[HeaderUse::Optional, HeaderUse::Required][..], &[HeaderUse::Optional][..]);
        for (header, rest, uses, expected) in [
            (&v1[..], "GET / HTTP/1.1\r\n", both, client("203.0.113.7:4711")),
            (v2, "GET / HTTP/1.1\r\n", both, client("203.0.113.7:4711")),
            (&long, "GET / HTTP/1.1\r\n", both, client("203.0.113.7:4711")),
            (v2, "", both, client("203.0.113.7:4711")),
            // A second header belongs to the connection.
            (local, "PROXY UNKNOWN\r\n", both, Ok(Some(Box::new(Header::Own)))),
            (b"", "GET / HTTP/1.1\r\n", optional, Ok(None)),
            (b"", "PROPFIND / HTTP/1.1\r\n", optional, Ok(None)),
            (b"", "\r\nGET / HTTP/1.1\r\n", optional, Ok(None)),
            (b"", "\r\n\r\n\0\r\nQUIT", optional, Ok(None)),
        ] {
            let bytes = [header, rest.as_bytes()].concat();
            // Of the last case the last byte is not that of a signature.
            let bytes = if rest.ends_with("QUIT") { [&bytes[..], b"S"].concat() } else { bytes };
            let after = &bytes[header.len()..];
            for header_use in uses {
                for cut in (0..bytes.len()).filter(|cut| *cut < 200 || bytes.len() - cut < 100) {
                    let mut link = Link::new(*header_use);
                    let (introduction, received) = received(&mut link, [&bytes[..cut], &bytes[cut..]]);
                    assert_eq!(introduction.as_ref(), Some(&expected), "{} cut at {cut}", bytes.escape_ascii());
                    assert_eq!(received, after, "{} cut at {cut}", bytes.escape_ascii());
                    assert!(!link.transport.awaits_header() && link.transport.heap_size() == 0);
                }
            }
        }
    }

    #[test]
    fn what_is_refused() {
        let garbage = b"PROXY TCP4 203.0.113.7\r\nGET /";
        for (bytes, header_use, expected) in [
            (&garbage[..], HeaderUse::Optional, header::parse(garbage).unwrap_err()),
            (garbage, HeaderUse::Required, header::parse(garbage).unwrap_err()),
            (b"GET / HTTP/1.1\r\n", HeaderUse::Required, HeaderError::Absent),
            (b"\r\nGET", HeaderUse::Required, HeaderError::Absent),
        ] {
            for cut in 1..bytes.len() {
                let mut link = Link::new(header_use);
                let mut arrivals = link.send(&bytes[..cut]);
                if arrivals.is_empty() {
                    arrivals = link.send(&bytes[cut..]);
                }
                let is_refused = matches!(&arrivals[..], [Arrival::Header(Err(error))] if *error == expected);
                assert!(is_refused, "{} cut at {cut}: {arrivals:?}", bytes.escape_ascii());
                assert_eq!(link.sim.leaks(), "1 handles open, 0 buffers lent, 0 operations in flight");
            }
        }
    }

    /// Nothing is the end of a connection like any other, such as a health check. A part of a header is not.
    #[test]
    fn an_end_within_a_header() {
        for (bytes, is_cut) in [(&b""[..], false), (b"P", true), (b"PROXY TCP4 1.2.3", true), (b"\r\n\r\n\0", true)] {
            for header_use in [HeaderUse::Optional, HeaderUse::Required] {
                for is_reset in [false, true] {
                    let mut link = Link::new(header_use);
                    assert!(link.send(bytes).is_empty());
                    let told = link.end(is_reset);
                    let is_told = match &told {
                        Some(Arrival::Header(Err(HeaderError::Incomplete))) => is_cut,
                        Some(Arrival::End) => !is_cut && !is_reset,
                        Some(Arrival::Failed(_)) => !is_cut && is_reset,
                        _ => false,
                    };
                    assert!(is_told, "{}, reset: {is_reset}: {told:?}", bytes.escape_ascii());
                }
            }
        }
    }

    /// Who may begin without a header is not waited for as if one had begun.
    #[test]
    fn a_header_that_is_given_up() {
        for (bytes, header_use, is_given_up) in [
            (&b""[..], HeaderUse::Optional, true),
            (b"", HeaderUse::Required, false),
            (b"P", HeaderUse::Optional, false),
            (b"", HeaderUse::Off, false),
        ] {
            let mut link = Link::new(header_use);
            assert!(link.send(bytes).is_empty());
            assert_eq!(link.transport.give_up_header(), is_given_up, "{header_use:?}");
            assert_eq!(link.transport.awaits_header(), !is_given_up && header_use != HeaderUse::Off);
            assert!(!link.transport.give_up_header(), "not twice");
        }
    }

    /// A client may send a long header slowly.
    #[test]
    fn an_incomplete_header_is_counted_and_bounded() {
        let mut link = Link::new(HeaderUse::Required);
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf0";
        for byte in head.iter().chain(&[0; PROXY_HEADER_SIZE_MAX - 17]) {
            assert!(link.send(&[*byte]).is_empty());
            assert!(link.transport.awaits_header());
        }
        let size = link.transport.heap_size();
        assert!((PROXY_HEADER_SIZE_MAX - 1..=2 * PROXY_HEADER_SIZE_MAX).contains(&size), "{size}");
        assert!(!link.send(&[0]).is_empty());
        assert!(!link.transport.awaits_header());
    }
}
