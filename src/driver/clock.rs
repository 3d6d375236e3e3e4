//! The time of day.

use std::time::SystemTime;

use nix::time::{ClockId, clock_gettime};

/// The wall clock, in seconds since 1970.
pub(super) fn unix_s() -> u64 {
    // The coarse clock is a tick late and takes a fifth of the time; before 1970 it was never set.
    match clock_gettime(ClockId::CLOCK_REALTIME_COARSE) {
        Ok(time) => u64::try_from(time.tv_sec()).unwrap_or(0),
        // From 2038 on its seconds do not fit into 32 bits.
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
    }
}
