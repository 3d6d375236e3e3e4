//! How much a member may say at a time. What is more stays in its connection, and is back-pressure for its sender.

use websocket::deadline::Deadline;

use crate::limits::{PACE_MESSAGES_MAX, PACE_MS, PACE_SIZE_MAX};

/// What a member has said since it was allowed to.
#[derive(Debug)]
pub struct Pace {
    ends: Deadline,
    messages: usize,
    size: usize,
}

impl Pace {
    /// It has said nothing yet.
    pub fn new() -> Pace {
        Pace { ends: Deadline::after_ms(PACE_MS), messages: 0, size: 0 }
    }

    /// Begins to count anew where it is time.
    pub fn renew(&mut self) {
        if self.ends.is_over() {
            *self = Pace::new();
        }
    }

    /// A message of so many bytes was taken.
    pub fn spend(&mut self, size: usize) {
        self.messages += 1;
        self.size += size;
    }

    /// Whether it may say more now.
    pub fn has_room(&self) -> bool {
        self.messages < PACE_MESSAGES_MAX && self.size < PACE_SIZE_MAX
    }

    /// When it may where it may not now.
    pub fn ends(&self) -> Deadline {
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
