//! Who uses which terminal line or pipe: counted for the whole process, since links of several servers, and of a
//! configuration before this one, may lead to the same.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::driver::device::DeviceId;

/// A place at a device, which is free when this is dropped.
#[derive(Debug)]
pub struct Place {
    _count: Arc<()>,
}

/// The devices that are in use.
#[derive(Default, Debug)]
pub struct Devices {
    counts: HashMap<DeviceId, Weak<()>>,
}

impl Devices {
    /// A place at a device that may have so many users; None: all of them are taken.
    pub fn enter(&mut self, device: DeviceId, users_max: u64) -> Option<Place> {
        self.counts.retain(|_, count| count.strong_count() > 0);
        let count = self.counts.get(&device).and_then(Weak::upgrade).unwrap_or_default();
        // This one is counted by now.
        if Arc::strong_count(&count) as u64 > users_max {
            return None;
        }
        self.counts.insert(device, Arc::downgrade(&count));
        Some(Place { _count: count })
    }
}
