//! The byte stage between a socket and its exchange, where TLS belongs. Received bytes pass the stage before they are
//! queued or delivered. Bytes to send pass it when a batch is taken, after small segments were joined.
//!
//! The plain stage changes nothing and takes no memory. The stage of the tests uses records: its output is longer than
//! its input, and it holds received bytes back until a record is complete.

use crate::driver::{Driver, Lease};
#[cfg(any(test, feature = "sim"))]
use crate::limits::POOL_HEADROOM;

use super::Arrival;

/// How the bytes of a client's socket become those of exchanges.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum StageKind {
    /// The socket carries one exchange at a time, and its bytes pass unchanged.
    #[default]
    Plain,
    /// As Plain, but the bytes pass the records of the tests.
    #[cfg(any(test, feature = "sim"))]
    Records,
    /// The socket carries the streams of the tests, each of them one exchange (`gateway::carrier`).
    #[cfg(any(test, feature = "sim"))]
    Streams,
}

/// The stage of one transport.
#[derive(Default, Debug)]
pub(super) struct Stage {
    #[cfg(any(test, feature = "sim"))]
    records: Option<Box<Records>>,
}

impl Stage {
    /// The stage of a new connection.
    pub(super) fn new(kind: StageKind) -> Stage {
        match kind {
            StageKind::Plain => Stage::default(),
            #[cfg(any(test, feature = "sim"))]
            StageKind::Streams => Stage::default(),
            #[cfg(any(test, feature = "sim"))]
            StageKind::Records => Stage { records: Some(Box::default()) },
        }
    }

    /// Whether bytes pass unchanged.
    pub(super) fn is_plain(&self) -> bool {
        #[cfg(any(test, feature = "sim"))]
        return self.records.is_none();
        #[cfg(not(any(test, feature = "sim")))]
        true
    }

    /// Decodes received bytes. None: no record is complete.
    pub(super) fn open<D: Driver>(&mut self, lease: Lease, driver: &mut D) -> Option<Arrival> {
        #[cfg(any(test, feature = "sim"))]
        if let Some(records) = &mut self.records {
            let mut bytes = vec![0; POOL_HEADROOM];
            records.decode(&driver.buffer(&lease)[lease.range()], &mut bytes);
            driver.release(lease);
            return (bytes.len() > POOL_HEADROOM).then(|| Arrival::Copy(bytes.into()));
        }
        let _ = driver;
        Some(Arrival::Lease(lease))
    }

    /// Encodes bytes to send.
    pub(super) fn seal(&mut self, bytes: Box<[u8]>) -> Box<[u8]> {
        #[cfg(any(test, feature = "sim"))]
        if self.records.is_some() {
            return Records::encode(&bytes).into();
        }
        bytes
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
