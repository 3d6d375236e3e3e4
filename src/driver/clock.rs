//! The wall clock.

use std::time::SystemTime;

use nix::time::{ClockId, clock_gettime};

/// The wall clock, in whole seconds since 1970; 0 if it is set to a time before 1970.
pub(crate) fn unix_s() -> u64 {
    // The coarse clock lags by up to one tick and costs a fifth of the time.
    match clock_gettime(ClockId::CLOCK_REALTIME_COARSE) {
        Ok(time) => u64::try_from(time.tv_sec()).unwrap_or(0),
        // On 32-bit targets its seconds do not fit into 32 bits from 2038 on.
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
    }
}
