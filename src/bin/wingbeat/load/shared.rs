//! What the threads of one run share: its clock, its phases, and how far it is.
#![forbid(unsafe_code)]

use super::credit::Credits;
use super::plan::Plan;
use super::stats::{SharedLive, Window};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use wingbeat::ConnId;

/// Nanoseconds since a run began. All latencies of a run are differences of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    /// The instant that a reading stands for.
    pub(crate) fn instant(&self, now: u64) -> Instant {
        self.0 + Duration::from_nanos(now)
    }
}

/// When things happen, in nanoseconds of the run's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Messages begin to be sent: the begin of the warm-up.
    pub(crate) begin: u64,
    /// What is measured, if nothing ends it early.
    pub(crate) window: Window,
    /// Length of a slice of the window.
    pub(crate) slice: u64,
}

/// Shared by all threads of a run.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    times: OnceLock<Times>,
    end: AtomicU64,
    /// Connections that stand, or stood.
    pub(crate) connected: AtomicU32,
    /// Connections that could not be made.
    pub(crate) failed: AtomicU32,
    /// Connections that ended before the run did.
    pub(crate) dropped: AtomicU32,
    last_connected: AtomicU64,
    /// Threads that send no more.
    pub(crate) stopped: AtomicU32,
    pub(crate) credits: Credits,
    /// The connection of each publisher, in fanout and channels.
    pub(crate) publishers: Vec<OnceLock<ConnId>>,
    pub(crate) live: Vec<Arc<SharedLive>>,
}

impl Shared {
    pub(crate) fn new(plan: &Plan) -> Shared {
        let publishers = plan.publishers();
        Shared {
            clock: Clock::start(),
            times: OnceLock::new(),
            end: AtomicU64::new(u64::MAX),
            connected: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            last_connected: AtomicU64::new(0),
            stopped: AtomicU32::new(0),
            credits: Credits::new(publishers),
            publishers: (0..publishers).map(|_| OnceLock::new()).collect(),
            live: (0..plan.threads).map(|_| Arc::default()).collect(),
        }
    }

    /// Lets the threads begin. Only the first call counts.
    pub(crate) fn begin(&self, times: Times) {
        self.end.fetch_min(times.window.end, Ordering::Relaxed);
        let _ = self.times.set(times);
    }

    /// When it begins; none while connections are still being made.
    pub(crate) fn times(&self) -> Option<Times> {
        self.times.get().copied()
    }

    /// Ends the run at `now`, if it would go on for longer.
    pub(crate) fn cut(&self, now: u64) {
        self.end.fetch_min(now, Ordering::Relaxed);
    }

    /// First instant at which nothing is sent any more.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// A connection stands.
    pub(crate) fn count_connected(&self, now: u64) {
        self.last_connected.fetch_max(now, Ordering::Relaxed);
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    /// When the last connection came to stand.
    pub(crate) fn last_connected(&self) -> u64 {
        self.last_connected.load(Ordering::Relaxed)
    }
}
