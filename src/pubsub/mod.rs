//! The topics of one worker: who has subscribed, what was published, and who is still owed what.
//!
//! Connections are plain integers here; nothing knows of sockets or frames. What a publication is (`P`) is up to the
//! owner of the connections, who implements [`Subscribers`].
//!
//! # Why publishing does not deliver
//!
//! [`Topics::publish`] only appends to the topic's pending publications. [`Topics::walk`] delivers later in the same
//! turn, *subscriber-major*: it visits each subscriber once and hands over everything that subscriber is owed as one
//! [`Run`]. A burst of sixteen publications to ten thousand subscribers costs ten thousand visits instead of a hundred
//! and sixty thousand, and a pass over the same publications for everybody lets the owner join them once
//! ([`Subscribers::join`]).
//!
//! # What is promised
//!
//! * Each connection gets its deliveries in publish order over *all* its topics.
//! * [`Topics::catch_up`] hands a connection everything that was published so far. The owner calls it before it sends
//!   that connection anything else, so that what is owed is never seen out of order.
//! * Subscribing, unsubscribing, closing and publishing are defined in the middle of a walk.
//! * Each publication is retired exactly once, when nobody is owed it any more.
//! * Publishing to a name without subscribers creates nothing; a topic goes with its last subscriber.
//!
//! A subscription costs 24 bytes, its class included, and 4 in the connection's record. After warm-up nothing here allocates, except for a
//! topic that is new.
#![forbid(unsafe_code)]

mod fanout;
mod topic;

pub use fanout::Run;
pub use topic::{TopicId, Topics};

use std::fmt;

/// No connection, no subscription, nobody.
pub const NIL: u32 = u32::MAX;

/// Classes of subscriptions: 0 to 16. What is published is handed over with the class of the subscription
/// ([`Run::class`]), and whoever publishes can learn which classes there are ([`Topics::classes`]).
pub const CLASSES: usize = 17;

/// What one worker's topics may grow to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Subscriptions of one connection (default 1,024). Beyond it: [`SubscribeError::TooManySubscriptions`].
    pub max_subscriptions: u32,
    /// Topics of one worker (default 1,048,576, at most 134,217,728). Beyond it: [`SubscribeError::TooManyTopics`].
    pub max_topics: u32,
    /// Bytes of publications that one pass hands to each subscriber (default 16 KiB; one publication at least), so that
    /// a visit stays short however much is pending.
    pub pass_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_subscriptions: 1024, max_topics: 1 << 20, pass_bytes: 16 << 10 }
    }
}

/// What the owner of the connections provides. No method can reach the [`Topics`] that called it.
pub trait Subscribers<P> {
    /// Where the owner keeps the head of the connection's subscription list: 4 bytes, [`NIL`] in a new connection,
    /// written by [`Topics`] alone.
    fn head(&mut self, conn: u32) -> &mut u32;

    /// Hands over publications that the connection is owed, in publish order, at least one.
    ///
    /// The owner must not close connections from here: it notes the wish and calls [`Topics::unsubscribe_all`] later.
    fn deliver(&mut self, conn: u32, run: Run<'_, P>);

    /// Bytes of a publication, for [`Limits::pass_bytes`].
    fn size(&self, publication: &P) -> usize {
        let _ = publication;
        0
    }

    /// What a run costs of the budget of [`Topics::walk`]: by default its length, or 1 if it is joined.
    #[inline]
    fn weight(&self, run: &Run<'_, P>) -> u32 {
        if run.joined().is_some() { 1 } else { run.len() }
    }

    /// Takes back a publication that nobody is owed any more.
    fn retire(&mut self, publication: P);

    /// Asked once at the start of a pass over several publications that everybody gets: one payload that carries them
    /// all, for [`Run::joined`], whatever the class. It is retired at the end of the pass, or with the topic.
    fn join(&mut self, run: &Run<'_, P>) -> Option<P> {
        let _ = run;
        None
    }

    /// The topic has lost its last subscriber and is gone from this worker.
    fn topic_gone(&mut self, name: &str) {
        let _ = name;
    }
}

/// What [`Topics::subscribe`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// The subscription exists now.
    New {
        /// It is the topic's first on this worker.
        first_here: bool,
    },
    /// The connection had subscribed before; nothing changed but its class, if it asked for another one.
    Already,
}

/// What [`Topics::unsubscribe`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribed {
    /// The topic had no other subscriber on this worker and is gone.
    pub last_here: bool,
}

/// Why a subscription was refused. Nothing was changed. The fault is the subscriber's or the configuration's; the
/// connection stays open, and a retry makes sense only after something was unsubscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The connection holds [`Limits::max_subscriptions`] already.
    TooManySubscriptions,
    /// The worker holds [`Limits::max_topics`] already, and this one would be new.
    TooManyTopics,
    /// The class is beyond those that there are.
    NoSuchClass,
    /// Whoever should subscribe is gone. (For the owner's use: nothing here returns it.)
    NoSubscriber,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubscribeError::TooManySubscriptions => "the connection has too many subscriptions",
            SubscribeError::TooManyTopics => "the worker has too many topics",
            SubscribeError::NoSuchClass => "there is no such class of subscriptions",
            SubscribeError::NoSubscriber => "the subscriber is gone",
        })
    }
}

impl std::error::Error for SubscribeError {}
