//! How many long-poll sessions one address may have, over all workers.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sessions by mount and address. Looked at when a session begins and when it ends.
#[derive(Debug, Default)]
pub(super) struct Quota(Mutex<HashMap<(u16, IpAddr), u32>>);

/// A session that is counted, until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    quota: Arc<Quota>,
    key: (u16, IpAddr),
}

impl Quota {
    /// Counts one more, if there are fewer than `max`.
    pub(super) fn enter(self: &Arc<Self>, mount: u16, peer: IpAddr, max: u32) -> Option<Seat> {
        let (mut counts, key) = (self.counts(), (mount, peer));
        let count = counts.get(&key).copied().unwrap_or(0);
        (count < max).then(|| {
            counts.insert(key, count + 1);
            Seat { quota: Arc::clone(self), key }
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<(u16, IpAddr), u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.quota.counts();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room_and_nothing_is_kept_of_who_is_gone() {
        let (quota, [a, b]) = (Arc::new(Quota::default()), [1, 2].map(|last| IpAddr::from([127, 0, 0, last])));
        let seats = [0; 2].map(|mount| quota.enter(mount, a, 2).expect("there is room"));
        assert!(quota.enter(0, a, 2).is_none());
        let others = [quota.enter(0, b, 2), quota.enter(1, a, 2)];
        assert!(others.iter().all(Option::is_some), "another address, and another mount");
        drop(seats);
        let again = quota.enter(0, a, 1);
        assert!(again.is_some());
        drop((others, again));
        assert!(quota.counts().is_empty());
    }
}
