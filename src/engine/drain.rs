//! Planned closing, in batches: so that clients of a server that goes away do not come back as a herd.
#![forbid(unsafe_code)]

use crate::proto::CloseCode;
use std::time::Duration;

/// How a server closes its connections before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Connections closed per interval, all workers together; more if else not all would have their Close before the
    /// deadline. Default 10,000.
    pub batch: u32,
    /// Time between batches, 16 ms at least. Default 2 s.
    pub interval: Duration,
    /// After this, what is still open gets its Close at once, and what is left after
    /// [`Limits::close_timeout`](super::Limits::close_timeout) more is dropped. Default 30 s.
    pub deadline: Duration,
    /// Close code. Default 1012 (service restart).
    pub code: CloseCode,
}

impl Default for Drain {
    fn default() -> Self {
        Drain {
            batch: 10_000,
            interval: Duration::from_secs(2),
            deadline: Duration::from_secs(30),
            code: CloseCode::SERVICE_RESTART,
        }
    }
}

impl Drain {
    /// The part of worker `index` of `workers`: the batches add up to the whole.
    pub(crate) fn share(&self, index: u32, workers: u32) -> Drain {
        let extra = u32::from(index < self.batch % workers);
        Drain { batch: (self.batch / workers + extra).max(1), ..*self }
    }
}

/// A drain under way on one worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draining {
    pub(crate) plan: Drain,
    /// The next slot to look at.
    pub(crate) cursor: u32,
    /// Tick at which the rest gets its Close; once it is `told`, at which it is dropped.
    pub(crate) deadline: u32,
    /// Whether all have their Close.
    pub(crate) told: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let drain = Drain { batch: 10, ..Drain::default() };
        assert_eq!((0..3).map(|worker| drain.share(worker, 3).batch).sum::<u32>(), 10);
        assert_eq!(Drain { batch: 1, ..drain }.share(5, 8).batch, 1);
    }
}
