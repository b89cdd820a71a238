//! Timers of channels: the engine knows a number, this table knows whose it is.
#![forbid(unsafe_code)]

use crate::channels::TimerKey;
use crate::engine::{Scope, TimerId};
use slab::Slab;
use std::time::Duration;

/// Timers that one socket may have set. Beyond: another is not set, and the log says so.
const TIMERS: usize = 1024;

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

/// The timers of one socket's channels, by serial: they end with their channel, and with the connection at the latest.
#[derive(Debug, Default)]
pub(super) struct OwnTimers(Vec<(u32, TimerKey)>);

impl OwnTimers {
    /// Notes what `set` sets, if there is room.
    pub(super) fn add(&mut self, serial: u32, set: impl FnOnce() -> TimerKey) -> TimerKey {
        if self.0.len() >= TIMERS {
            tracing::warn!(serial, "a socket has too many timers: another is not set");
            return NO_TIMER;
        }
        let key = set();
        self.0.push((serial, key));
        key
    }

    /// It has fired, or is cancelled. False if it is none of these.
    pub(super) fn remove(&mut self, key: TimerKey) -> bool {
        let found = self.0.iter().position(|(_, own)| *own == key);
        found.is_some_and(|at| {
            self.0.swap_remove(at);
            true
        })
    }

    /// Takes those of a channel that ends.
    pub(super) fn of_channel(&mut self, serial: u32) -> impl Iterator<Item = TimerKey> {
        self.0.extract_if(.., move |(of, _)| *of == serial).map(|(_, key)| key)
    }

    /// Takes all: the connection has ended.
    pub(super) fn all(&mut self) -> impl Iterator<Item = TimerKey> {
        self.0.drain(..).map(|(_, key)| key)
    }
}

/// Of a timer that was not set.
pub(super) const NO_TIMER: TimerKey = TimerKey(u64::MAX);
