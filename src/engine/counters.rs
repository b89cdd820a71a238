//! What a worker counts, and how other threads read it.
#![forbid(unsafe_code)]

use super::error::CloseReason;
use crate::driver::DriverCounters;
use std::{collections::BTreeMap, sync::Mutex, sync::atomic::AtomicU64, sync::atomic::Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of a worker since its start. Sums over workers by [`Counters::add`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Adds the counts of another worker.
            pub fn add(&mut self, other: &Counters) { $(self.$name += other.$name;)* }

            /// Names and values, in order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> { [$((stringify!($name), self.$name)),*].into_iter() }
        }

        #[derive(Debug, Default)]
        struct Shared { $($name: AtomicU64,)* }

        impl Shared {
            fn store(&self, from: &Counters) { $(self.$name.store(from.$name, Relaxed);)* }
            fn load(&self) -> Counters { Counters { $($name: self.$name.load(Relaxed),)* } }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections refused at a limit (503).
    refused,
    /// Requests and handshakes answered with an error status.
    bad_requests,
    /// Opening handshakes, both roles, and plain requests that were not complete in time (408, or a failed connect).
    handshake_timeouts,
    /// Plain HTTP requests answered.
    requests,
    /// Connections opened, both roles.
    opened,
    /// Connections open now.
    open,
    /// Messages received whole.
    received_messages,
    /// Bytes received from sockets.
    received_bytes,
    /// Pings received.
    pings,
    /// Payload bytes copied because a message or request did not arrive whole.
    copied_bytes,
    /// Messages taken for connections: replies and deliveries. Each ends as exactly one of the next three.
    messages_accepted,
    /// Messages that the kernel took, or a callback.
    messages_sent,
    /// Messages dropped by the slow-consumer policy, or because they could not be encoded.
    messages_dropped,
    /// Messages that a close left behind.
    messages_undelivered,
    /// Publications by handlers and mail on this worker.
    published,
    /// Publications that the frame memory of this worker or another worker's full mailbox refused.
    publish_refused,
    /// Subscriptions refused at a limit.
    subscribe_refused,
    /// Times that receiving from a connection paused because its own replies waited.
    choked,
    /// Times that receiving from a connection paused because it published faster than subscribers were served.
    throttled,
    /// Panics of the handler.
    panics,
    /// Mail for connections that were gone.
    mail_stale,
    /// Mail taken.
    mail,
    /// Mail that this worker's lane refused because it was full or the worker gone; publications of others included.
    mail_refused,
    /// Times that a sender of mail found this worker asleep and woke it: a system call each.
    woken,
    /// Connections dropped because the frames of the worker reached their limit.
    evicted,
    /// Turns of the loop.
    turns,
    /// Frames alive now.
    frames_live,
    /// Bytes of frames alive now.
    frame_bytes,
    /// Topics with subscribers here now.
    topics,
    /// Times that accepting stopped for want of descriptors.
    accept_exhausted,
    /// Sockets that could not be set up after accept, and were closed.
    accept_failed,
    /// Completions for sockets that were gone.
    driver_stale,
}

/// A worker's counters as other threads see them: stored once per turn, plain moves on the hot path.
#[derive(Debug, Default)]
pub(crate) struct Board {
    shared: Shared,
    closes: Mutex<BTreeMap<(u16, &'static str), u64>>,
}

impl Board {
    pub(crate) fn publish(&self, counters: &mut Counters, driver: DriverCounters) {
        counters.accept_exhausted = driver.accept_exhausted;
        counters.accept_failed = driver.accept_failed;
        counters.driver_stale = driver.stale;
        self.shared.store(counters);
    }

    pub(crate) fn count_close(&self, reason: CloseReason) {
        let mut closes = self.closes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *closes.entry((reason.code, reason.cause.name())).or_default() += 1;
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let closes = self.closes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Snapshot { counters: self.shared.load(), closes: closes.clone() }
    }
}

/// Counters of one or several workers at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The plain counters.
    pub counters: Counters,
    /// Closes by code and by the name of the cause ([`CloseCause::name`](super::CloseCause::name)).
    pub closes: BTreeMap<(u16, &'static str), u64>,
}

impl Snapshot {
    /// Adds another worker's.
    pub fn add(&mut self, other: &Snapshot) {
        self.counters.add(&other.counters);
        for (key, count) in &other.closes {
            *self.closes.entry(*key).or_default() += count;
        }
    }
}
