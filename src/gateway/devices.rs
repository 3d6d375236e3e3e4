//! Users of each terminal line or pipe, counted per process: links of several servers, and of an earlier
//! configuration, may lead to the same device.

use std::collections::HashMap;
use std::sync::Arc;

use crate::driver::device::DeviceId;
use crate::permit::{Count, Permit};

/// Permit to use a device, returned on drop.
pub(crate) type Place = Permit<Count>;

/// Use counts of devices.
#[derive(Default, Debug)]
pub(crate) struct Devices {
    counts: HashMap<DeviceId, Arc<Count>>,
}

impl Devices {
    /// Takes a permit for a device with at most `users_max` users. None: the limit is reached.
    pub(crate) fn enter(&mut self, device: DeviceId, users_max: u64) -> Option<Place> {
        self.counts.retain(|_, count| count.held() > 0);
        Permit::take(self.counts.entry(device).or_default(), users_max)
    }

    /// Whether no device has a user.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.values().all(|count| count.held() == 0)
    }
}
