//! Who uses which terminal line or pipe: counted for the whole process, since links of several servers, and of a
//! configuration before this one, may lead to the same.

use std::collections::HashMap;
use std::sync::Arc;

use crate::driver::device::DeviceId;
use crate::permit::{Count, Permit};

/// A place at a device, which is free when this is dropped.
pub type Place = Permit<Count>;

/// The devices that are in use.
#[derive(Default, Debug)]
pub struct Devices {
    counts: HashMap<DeviceId, Arc<Count>>,
}

impl Devices {
    /// A place at a device that may have so many users; None: all of them are taken.
    pub fn enter(&mut self, device: DeviceId, users_max: u64) -> Option<Place> {
        self.counts.retain(|_, count| count.held() > 0);
        Permit::take(self.counts.entry(device).or_default(), users_max)
    }
}
