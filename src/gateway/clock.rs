//! The gateway's clock and its handling of process stalls.
//!
//! A stopped process, a paused container or an overloaded machine reads nothing while its clients continue to send. No
//! timeout may be caused by such a stall. Therefore completions are handled before deadlines: a deadline has expired
//! only if it had passed before the driver's last `wait` began, because data received earlier is among the
//! completions. A stall, detected as a turn much longer than expected, is excluded from the clock, so that pending
//! timeouts keep their remaining time.

use crate::limits::{CATCH_UP_MS, STANDSTILL_MS};

/// Monotonic time in ms that excludes stalls.
#[derive(Debug)]
pub(crate) struct Clock {
    driver_ms: u64,
    now_ms: u64,
    /// The last stall: when the data read now may have arrived, and how long that applies.
    stood: Option<Stood>,
}

#[derive(Debug)]
struct Stood {
    since_ms: u64,
    until_ms: u64,
}

impl Clock {
    /// Starts at the driver's time.
    pub(crate) fn new(driver_ms: u64) -> Clock {
        Clock { driver_ms, now_ms: driver_ms, stood: None }
    }

    /// Advances the clock and returns the time now. `expected_ms` is the maximum duration of the preceding operation.
    /// None: unbounded.
    pub(crate) fn advance(&mut self, driver_ms: u64, expected_ms: Option<u64>) -> u64 {
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

    /// Earliest time in ms at which data received now may have arrived. Until `CATCH_UP_MS` after a stall it precedes
    /// the stall's end by the stall's length; otherwise it is the present.
    pub(crate) fn since_ms(&self) -> u64 {
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
