//! Plain words that several modules use.

use std::num::NonZeroU64;

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

/// What is to be received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Demand {
    /// Nothing for now.
    Nothing,
    /// One receive, then Nothing again.
    Once,
    /// All that comes.
    Flow,
    /// All that comes, packet by packet.
    Packets,
}

/// A time of the event loop, in milliseconds. An `Option` of it takes no more room than the time alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Moment(NonZeroU64);

impl Moment {
    /// This time.
    pub(crate) fn at(ms: u64) -> Moment {
        Moment(NonZeroU64::MIN.saturating_add(ms))
    }

    /// In milliseconds.
    pub(crate) fn ms(self) -> u64 {
        self.0.get() - 1
    }
}
