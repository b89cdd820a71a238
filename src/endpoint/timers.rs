//! Timers of channels: the engine knows a number, this table knows whose it is.
#![forbid(unsafe_code)]

use crate::channels::TimerKey;
use crate::engine::{Scope, TimerId};
use slab::Slab;
use std::time::Duration;

/// The timers of one worker's sockets and sessions. A key carries a generation, so that one that has fired cannot cancel
/// another.
#[derive(Debug, Default)]
pub(super) struct TimerTable<W> {
    entries: Slab<Entry<W>>,
    generation: u32,
}

#[derive(Debug)]
struct Entry<W> {
    id: TimerId,
    generation: u32,
    whose: W,
}

impl<W> TimerTable<W> {
    pub(super) fn new() -> Self {
        TimerTable { entries: Slab::new(), generation: 0 }
    }

    /// Timers that are set.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn set(&mut self, scope: &mut Scope<'_>, delay: Duration, whose: W) -> TimerKey {
        self.set_with(whose, |token| scope.set_timer(delay, token))
    }

    /// As [`TimerTable::set`], with whatever timer `set` makes for the token it is given.
    pub(super) fn set_with(&mut self, whose: W, set: impl FnOnce(u64) -> TimerId) -> TimerKey {
        let slot = self.entries.vacant_entry();
        self.generation = self.generation.wrapping_add(1);
        let token = u64::from(self.generation) << 32 | slot.key() as u64;
        let id = set(token);
        slot.insert(Entry { id, generation: self.generation, whose });
        TimerKey(token)
    }

    pub(super) fn cancel(&mut self, scope: &mut Scope<'_>, key: TimerKey) {
        if let Some(entry) = self.take(key.0) {
            scope.cancel_timer(entry.id);
        }
    }

    /// Whose timer the engine says is due.
    pub(super) fn fired(&mut self, token: u64) -> Option<W> {
        self.take(token).map(|entry| entry.whose)
    }

    fn take(&mut self, token: u64) -> Option<Entry<W>> {
        let (generation, at) = ((token >> 32) as u32, (token & u64::from(u32::MAX)) as usize);
        let found = self.entries.get(at).is_some_and(|entry| entry.generation == generation);
        found.then(|| self.entries.remove(at))
    }
}
