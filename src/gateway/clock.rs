//! The gateway's time, and what a standstill does to it.
//!
//! A stopped process, a paused container or a machine that is short of CPU reads nothing, while its clients go on
//! sending. Nobody may be judged by such time. So what has arrived is taken first, and deadlines are looked at after it:
//! a deadline counts as met only when it had passed before a `wait` of the driver began, since what came before that is
//! among the completions. A standstill that shows as a turn much longer than it should be is left out of the time
//! altogether, so that whoever was in the midst of something has the rest of its time.

use crate::limits::{CATCH_UP_MS, STANDSTILL_MS};

/// The time, which goes on only while the process can read.
#[derive(Debug)]
pub struct Clock {
    driver_ms: u64,
    now_ms: u64,
    /// The last standstill: from when on what is read now may have waited, and how long that holds.
    stood: Option<Stood>,
}

#[derive(Debug)]
struct Stood {
    since_ms: u64,
    until_ms: u64,
}

impl Clock {
    /// Begins at the driver's time.
    pub fn new(driver_ms: u64) -> Clock {
        Clock { driver_ms, now_ms: driver_ms, stood: None }
    }

    /// The time now, after something that takes `expected_ms` at most; None: it may take any time.
    pub fn advance(&mut self, driver_ms: u64, expected_ms: Option<u64>) -> u64 {
        let elapsed_ms = driver_ms.saturating_sub(self.driver_ms);
        self.driver_ms = driver_ms;
        let late_ms = expected_ms.map_or(0, |expected_ms| elapsed_ms.saturating_sub(expected_ms));
        let lost_ms = if late_ms >= STANDSTILL_MS { late_ms } else { 0 };
        if lost_ms > 0 {
            let since_ms = self.now_ms.saturating_sub(lost_ms);
            self.stood = Some(Stood { since_ms, until_ms: self.now_ms + elapsed_ms - lost_ms + CATCH_UP_MS });
        }
        self.now_ms += elapsed_ms - lost_ms;
        self.now_ms
    }

    /// Since when what is received now may have waited: after a standstill, for as long as it had lasted.
    pub fn since_ms(&self) -> u64 {
        match &self.stood {
            Some(stood) if self.now_ms < stood.until_ms => stood.since_ms,
            _ => self.now_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_no_time() {
        let mut clock = Clock::new(100);
        assert_eq!(clock.advance(150, Some(0)), 150);
        assert_eq!(clock.advance(30_150, None), 30_150, "nothing was due");
        assert_eq!(clock.advance(40_150, Some(10_000)), 40_150);
        assert_eq!(clock.advance(40_150 + STANDSTILL_MS - 1, Some(0)), 40_150 + STANDSTILL_MS - 1, "merely late");
        let mut clock = Clock::new(0);
        assert_eq!(clock.advance(70_000, Some(10_000)), 10_000, "as if the wait had ended in its time");
        assert_eq!(clock.since_ms(), 0, "the standstill lasted longer than the clock has gone");
        assert_eq!(clock.advance(70_500, Some(500)), 10_500);
        assert_eq!(clock.since_ms(), 0);
        assert_eq!(clock.advance(70_000 + CATCH_UP_MS, Some(500)), 10_000 + CATCH_UP_MS);
        assert_eq!(clock.since_ms(), 10_000 + CATCH_UP_MS, "whoever sends now is measured as ever");
        let mut clock = Clock::new(50_000);
        clock.advance(52_000, Some(0));
        assert_eq!(clock.since_ms(), 48_000);
    }
}
