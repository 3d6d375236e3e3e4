//! A byte stage between a socket and its exchange: where TLS stands, and a header of a proxy. Received bytes pass it
//! before they are kept or handed on, bytes to be sent pass it when a batch is taken, after small pieces were joined.
//!
//! A plain stage changes nothing and takes no memory. The tests have one that makes records: it sends more bytes than
//! it was given, and holds received bytes back until a record is whole.

use crate::driver::{Driver, Lease, Segment};
#[cfg(any(test, feature = "sim"))]
use crate::limits::POOL_HEADROOM;

use super::Arrival;

/// Which stage the transports of an endpoint's clients have.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum StageKind {
    /// Bytes as they are.
    #[default]
    Plain,
    /// Records, for the tests.
    #[cfg(any(test, feature = "sim"))]
    Records,
}

/// The stage of one transport.
#[derive(Default, Debug)]
pub(super) struct Stage {
    #[cfg(any(test, feature = "sim"))]
    records: Option<Box<Records>>,
}

impl Stage {
    /// A stage at a connection's beginning.
    pub(super) fn new(kind: StageKind) -> Stage {
        match kind {
            StageKind::Plain => Stage::default(),
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

    /// What received bytes mean. None: nothing that is whole.
    pub(super) fn open<D: Driver>(&mut self, lease: Lease, driver: &mut D) -> Option<Arrival> {
        #[cfg(any(test, feature = "sim"))]
        if let Some(records) = &mut self.records {
            let mut bytes = vec![0; POOL_HEADROOM];
            records.decode(&driver.buffer(&lease)[lease.start as usize..lease.end as usize], &mut bytes);
            driver.release(lease);
            return (bytes.len() > POOL_HEADROOM).then(|| Arrival::Copy(bytes.into()));
        }
        let _ = driver;
        Some(Arrival::Lease(lease))
    }

    /// Bytes as they are to be sent.
    pub(super) fn seal(&mut self, bytes: Box<[u8]>) -> Box<[u8]> {
        #[cfg(any(test, feature = "sim"))]
        if self.records.is_some() {
            return Records::encode(&bytes).into();
        }
        bytes
    }

    /// The bytes of a segment, to be sealed.
    pub(super) fn gather<D: Driver>(segment: &Segment, driver: &mut D, bytes: &mut Vec<u8>) {
        match segment {
            Segment::Pool(lease) => {
                bytes.extend_from_slice(&driver.buffer(lease)[lease.start as usize..lease.end as usize]);
            }
            Segment::Heap { bytes: all, start } => bytes.extend_from_slice(&all[*start..]),
        }
    }
}

/// Records of the tests' stage: a length byte, then that number of bytes, each XORed with `KEY`.
#[cfg(any(test, feature = "sim"))]
#[derive(Default, Debug)]
pub(crate) struct Records {
    /// The beginning of a record that is not whole.
    partial: Vec<u8>,
}

#[cfg(any(test, feature = "sim"))]
impl Records {
    /// Bytes of a record at most.
    const SIZE_MAX: usize = 100;
    /// What each byte is combined with.
    const KEY: u8 = 0x5a;

    /// The records that carry these bytes.
    pub(crate) fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut records = Vec::with_capacity(bytes.len() + bytes.len() / Records::SIZE_MAX + 1);
        for part in bytes.chunks(Records::SIZE_MAX) {
            records.push(part.len() as u8);
            records.extend(part.iter().map(|byte| byte ^ Records::KEY));
        }
        records
    }

    /// Adds what whole records carry to `plain`; the rest is kept.
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
