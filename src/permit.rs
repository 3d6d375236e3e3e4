//! Counting by permits: a permit is taken on admission and given back when it is dropped, however its holder ends.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many permits are held. Not a part of what is configured: a clone counts from zero, and all are equal.
#[derive(Default, Debug)]
pub struct Count(AtomicU64);

impl Count {
    /// Permits that are held now.
    pub fn held(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Clone for Count {
    fn clone(&self) -> Count {
        Count::default()
    }
}

impl PartialEq for Count {
    fn eq(&self, _: &Count) -> bool {
        true
    }
}

impl Eq for Count {}

impl AsRef<Count> for Count {
    fn as_ref(&self) -> &Count {
        self
    }
}

/// Shares `T` and counts as one of its users until it is dropped. An `Arc` of the same `T` does not count.
#[derive(Debug)]
pub struct Permit<T: AsRef<Count>>(Arc<T>);

impl<T: AsRef<Count>> Permit<T> {
    /// One of at most `max` permits; None: all of them are held.
    pub fn take(of: &Arc<T>, max: u64) -> Option<Permit<T>> {
        let count: &Count = (**of).as_ref();
        if count.held() >= max {
            return None;
        }
        count.0.fetch_add(1, Relaxed);
        Some(Permit(of.clone()))
    }

    /// What it shares, without counting.
    pub fn shared(&self) -> Arc<T> {
        self.0.clone()
    }
}

impl<T: AsRef<Count>> Deref for Permit<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: AsRef<Count>> Drop for Permit<T> {
    fn drop(&mut self) {
        let count: &Count = (*self.0).as_ref();
        count.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_return_when_they_are_dropped() {
        let count = Arc::new(Count::default());
        let (one, other) = (Permit::take(&count, 2), Permit::take(&count, 2));
        assert!(one.is_some() && other.is_some() && Permit::take(&count, 2).is_none());
        drop(one);
        // A reader changes no limit.
        let _snapshot = count.clone();
        assert_eq!(count.held(), 1);
        assert!(Permit::take(&count, 2).is_some());
        assert_eq!(Count::clone(&count).held(), 0);
    }
}
