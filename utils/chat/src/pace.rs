//! Rate limit of a member. What exceeds it stays in the connection, as back-pressure on the sender alone.

use crate::limits::{PACE_MESSAGES_MAX, PACE_MS, PACE_SIZE_MAX};
use websocket::deadline::Deadline;

/// Messages of a member in the current `PACE_MS`.
#[derive(Debug)]
pub(crate) struct Pace {
    ends: Deadline,
    messages: usize,
    size: usize,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace { ends: Deadline::after_ms(PACE_MS), messages: 0, size: 0 }
    }

    /// Starts the next period once the current one is over.
    pub(crate) fn renew(&mut self) {
        if self.ends.is_over() {
            *self = Pace::new();
        }
    }

    /// Counts a message of `size` bytes.
    pub(crate) fn spend(&mut self, size: usize) {
        self.messages += 1;
        self.size += size;
    }

    /// Whether another message is accepted now.
    pub(crate) fn has_room(&self) -> bool {
        self.messages < PACE_MESSAGES_MAX && self.size < PACE_SIZE_MAX
    }

    /// End of the current period.
    pub(crate) fn ends(&self) -> Deadline {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_bytes_are_counted() {
        let mut pace = Pace::new();
        for _ in 0..PACE_MESSAGES_MAX {
            assert!(pace.has_room());
            pace.spend(1);
        }
        assert!(!pace.has_room());
        let mut pace = Pace::new();
        pace.spend(PACE_SIZE_MAX - 1);
        assert!(pace.has_room());
        pace.spend(1);
        assert!(!pace.has_room());
        pace.ends = Deadline::after_ms(0);
        pace.renew();
        assert!(pace.has_room());
    }
}
