//! The byte stage between a socket and its exchange. Received bytes pass the stage before they are queued or delivered.
//! Bytes to send pass it when a batch is taken, after small segments were joined.
//!
//! The plain stage changes nothing and takes no memory. TLS is in `tls`, the PROXY header before either in `header`. The
//! stage of the tests uses records: its output is longer than its input, and it holds received bytes back until a record is
//! complete.

use std::sync::Arc;

use super::Arrival;
use super::header::Expected;
use super::tls::{Session, Taken};
use crate::clients::HeaderUse;
use crate::clients::header::HeaderError;
use crate::driver::{Driver, Lease};
#[cfg(any(test, feature = "sim"))]
use crate::limits::POOL_HEADROOM;
use crate::tls::{Hosts, Security, UpstreamTls};

/// How the bytes of a client's socket become those of exchanges.
#[derive(Clone, Default, Debug)]
pub enum StageKind {
    /// The socket carries one exchange at a time, and its bytes pass unchanged.
    #[default]
    Plain,
    /// As Plain, but the bytes pass TLS.
    Tls(Arc<Hosts>),
    /// As Plain, but the bytes pass the records of the tests.
    #[cfg(any(test, feature = "sim"))]
    Records,
    /// The socket carries the streams of the tests, each of them one exchange (`gateway::carrier`).
    #[cfg(any(test, feature = "sim"))]
    Streams,
}

/// The stage of one transport.
#[derive(Default, Debug)]
pub(super) enum Stage {
    /// Bytes pass unchanged.
    #[default]
    Plain,
    /// A PROXY header is awaited. Nothing is sent before it.
    Header(Expected),
    Tls(Session),
    #[cfg(any(test, feature = "sim"))]
    Records(Records),
}

impl Stage {
    /// The stage of a new connection.
    pub(super) fn new(kind: &StageKind) -> Stage {
        match kind {
            StageKind::Plain => Stage::Plain,
            StageKind::Tls(hosts) => Stage::Tls(Session::new(hosts.clone())),
            #[cfg(any(test, feature = "sim"))]
            StageKind::Streams => Stage::Plain,
            #[cfg(any(test, feature = "sim"))]
            StageKind::Records => Stage::Records(Records::default()),
        }
    }

    /// The stage of a trusted proxy's new connection.
    pub(super) fn after_header(kind: &StageKind, header_use: HeaderUse) -> Stage {
        match header_use {
            HeaderUse::Off => Stage::new(kind),
            HeaderUse::Optional | HeaderUse::Required => Stage::Header(Expected::new(kind.clone(), header_use)),
        }
    }

    /// The stage of a client that is refused before its handshake.
    pub(super) fn refused() -> Stage {
        Stage::Tls(Session::refused())
    }

    /// The stage of a new connection to a node. `host`: of its address.
    pub(super) fn to_node(tls: &UpstreamTls, host: &str) -> Stage {
        Stage::Tls(Session::to_node(tls, host))
    }

    /// Whether bytes pass unchanged.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Stage::Plain)
    }

    /// Whether the socket carries the bytes of its exchange: they pass unchanged, or the kernel makes TLS of them.
    pub(super) fn is_clear(&self) -> bool {
        match self {
            Stage::Tls(session) => session.is_offloaded(),
            stage => stage.is_plain(),
        }
    }

    /// The TLS session. None: the stage is not TLS.
    pub(super) fn tls(&self) -> Option<&Session> {
        match self {
            Stage::Tls(session) => Some(session),
            _ => None,
        }
    }

    /// As `tls`.
    pub(super) fn tls_mut(&mut self) -> Option<&mut Session> {
        match self {
            Stage::Tls(session) => Some(session),
            _ => None,
        }
    }

    /// Whether the connection begins, or will begin, with a TLS handshake that is not refused yet.
    pub(super) fn is_tls(&self) -> bool {
        match self {
            Stage::Header(expected) => matches!(expected.next, StageKind::Tls(_)),
            stage => stage.tls().is_some(),
        }
    }

    /// How the connection is protected.
    pub(super) fn security(&self) -> Security<'_> {
        match self {
            Stage::Tls(session) => session.security(),
            stage if stage.is_tls() => Security::Handshaking,
            _ => Security::Plain,
        }
    }

    /// Bytes held outside the pool.
    pub(super) fn heap_size(&self) -> usize {
        match self {
            Stage::Header(expected) => expected.heap_size(),
            stage => stage.tls().map_or(0, Session::heap_size),
        }
    }

    /// Whether `seal` may be called.
    pub(super) fn may_seal(&self) -> bool {
        match self {
            Stage::Header(_) => false,
            stage => stage.tls().is_none_or(Session::may_seal),
        }
    }

    /// Decodes received bytes.
    pub(super) fn receive<D: Driver>(&mut self, lease: Lease, driver: &mut D) -> Taken {
        match self {
            Stage::Plain => Taken { bytes: Some(Arrival::Lease(lease)), ..Taken::default() },
            Stage::Header(expected) => {
                let mut lease = lease;
                let Some(introduction) = expected.receive(&mut lease, driver) else {
                    driver.release(lease);
                    return Taken::default();
                };
                *self = Stage::new(&expected.next);
                let taken = if introduction.is_ok() && !lease.is_empty() {
                    self.receive(lease, driver)
                } else {
                    driver.release(lease);
                    Taken::default()
                };
                Taken { introduction: Some(introduction), ..taken }
            }
            Stage::Tls(session) => session.receive(lease, driver),
            #[cfg(any(test, feature = "sim"))]
            Stage::Records(records) => {
                let mut bytes = vec![0; POOL_HEADROOM];
                records.decode(&driver.buffer(&lease)[lease.range()], &mut bytes);
                driver.release(lease);
                let bytes = (bytes.len() > POOL_HEADROOM).then(|| Arrival::Copy(bytes.into()));
                Taken { bytes, ..Taken::default() }
            }
        }
    }

    /// Handles the end of the stream. None: it was known before.
    pub(super) fn receive_end(&mut self) -> Option<Arrival> {
        self.cut_header().or_else(|| self.tls_mut().map_or(Some(Arrival::End), Session::receive_end))
    }

    /// What the end of the stream, or its failure, within a PROXY header means. None: it is not within one.
    pub(super) fn cut_header(&self) -> Option<Arrival> {
        match self {
            Stage::Header(expected) if expected.has_begun() => Some(Arrival::Header(Err(HeaderError::Incomplete))),
            _ => None,
        }
    }

    /// No longer awaits a PROXY header that may be absent, and of which nothing was received. False: it is not so.
    pub(super) fn give_up_header(&mut self) -> bool {
        match self {
            Stage::Header(expected) if !expected.is_required && !expected.has_begun() => {
                *self = Stage::new(&expected.next);
                true
            }
            _ => false,
        }
    }

    /// Encodes the bytes of a pool buffer in place. The lease is returned if that is not worth it, or not possible.
    pub(super) fn seal_in_place<D: Driver>(
        &mut self,
        mut lease: Lease,
        driver: &mut D,
    ) -> Result<Option<Lease>, Lease> {
        let range = lease.range();
        let Some(session) = self.tls_mut().filter(|session| session.seals_in_place(&range)) else { return Err(lease) };
        match session.seal_in_place(driver.buffer(&lease), range) {
            Some(range) => {
                (lease.start, lease.end) = (range.start as u32, range.end as u32);
                Ok(Some(lease))
            }
            None => {
                driver.release(lease);
                Ok(None)
            }
        }
    }

    /// Encodes bytes to send. None: nothing can be sent any more.
    pub(super) fn seal(&mut self, bytes: &[u8]) -> Option<Box<[u8]>> {
        match self {
            Stage::Plain | Stage::Header(_) => Some(bytes.into()),
            Stage::Tls(session) => session.seal(bytes),
            #[cfg(any(test, feature = "sim"))]
            Stage::Records(_) => Some(Records::encode(bytes).into()),
        }
    }
}

/// Records of the tests' stage: a length byte, then that number of bytes, each XORed with `KEY`.
#[cfg(any(test, feature = "sim"))]
#[derive(Default, Debug)]
pub(crate) struct Records {
    /// An incomplete record.
    partial: Vec<u8>,
}

#[cfg(any(test, feature = "sim"))]
impl Records {
    /// Maximum payload of a record, in bytes.
    const SIZE_MAX: usize = 100;
    /// XORed with each payload byte.
    const KEY: u8 = 0x5a;

    /// Encodes bytes as records.
    pub(crate) fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut records = Vec::with_capacity(bytes.len() + bytes.len() / Records::SIZE_MAX + 1);
        for part in bytes.chunks(Records::SIZE_MAX) {
            records.push(part.len() as u8);
            records.extend(part.iter().map(|byte| byte ^ Records::KEY));
        }
        records
    }

    /// Appends the payload of complete records to `plain` and keeps the rest.
    pub(crate) fn decode(&mut self, bytes: &[u8], plain: &mut Vec<u8>) {
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(&size) = self.partial.get(at) {
            let Some(record) = self.partial.get(at + 1..at + 1 + size as usize) else { break };
            plain.extend(record.iter().map(|byte| byte ^ Records::KEY));
            at += 1 + size as usize;
        }
        self.partial.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_any_cut() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        let sent = Records::encode(&bytes);
        for cut in 0..=sent.len() {
            let (mut records, mut plain) = (Records::default(), Vec::new());
            records.decode(&sent[..cut], &mut plain);
            records.decode(&sent[cut..], &mut plain);
            assert_eq!((plain == bytes, records.partial.len()), (true, 0), "cut at {cut}");
        }
    }
}
