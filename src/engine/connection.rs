//! The record of one connection: what every message touches in one place, the rest behind a pointer.
#![forbid(unsafe_code)]

use super::{error::CloseCause, http::Http, outbox::Outbox, target::Target, timer::Link};
use crate::proto::{Assembler, CloseCode, Reader, Role};
use std::{net::IpAddr, sync::Arc, time::Instant};

/// Where a connection stands. It only moves down this list, but for a request after an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The slot has no connection.
    #[default]
    Vacant,
    /// Outgoing, TCP not yet there.
    Connecting,
    /// The opening handshake or a plain request is being read or awaited.
    Opening,
    /// The handler has a plain request, or said [`Answer::Later`](super::Answer::Later).
    Answering,
    /// The handler said [`Upgrade::Later`](super::Upgrade::Later).
    Deferred,
    /// Messages flow.
    Open,
    /// Our Close is out or queued; waiting for the peer's.
    Closing,
    /// What is queued leaves, then the sending side shuts; input is discarded.
    Finishing,
    /// The sending side is shut; input is discarded until the peer closes, so that no RST overtakes our Close.
    Lingering,
    /// Given to the driver to close.
    Dead,
}

/// Bits of [`Hot::flags`].
pub(crate) mod flag {
    /// Listed for the flush.
    pub(crate) const DIRTY: u16 = 1;
    /// A send is in flight.
    pub(crate) const IN_FLIGHT: u16 = 1 << 1;
    /// The kernel refused a part of what was sent.
    pub(crate) const BLOCKED: u16 = 1 << 2;
    /// Nothing but control frames came since the last keepalive ping; its socket may rest.
    pub(crate) const QUIET: u16 = 1 << 3;
    /// The handler is owed a `writable`.
    pub(crate) const WAS_HIGH: u16 = 1 << 4;
    /// The keepalive ping is out.
    pub(crate) const PINGED: u16 = 1 << 5;
    /// The handler paused receiving.
    pub(crate) const PAUSED: u16 = 1 << 6;
    /// Receiving is paused because the connection's own replies wait.
    pub(crate) const CHOKED: u16 = 1 << 7;
    /// A close is noted; it is done after the callback or walk.
    pub(crate) const DOOMED: u16 = 1 << 8;
    /// The peer will send no more.
    pub(crate) const EOF: u16 = 1 << 9;
    /// We are the client.
    pub(crate) const CLIENT: u16 = 1 << 10;
    /// Listed for resuming.
    pub(crate) const RESUMING: u16 = 1 << 11;
    /// What is in flight is publications, for the most part: it counts for the slow-consumer policy.
    pub(crate) const PUBLICATIONS_IN_FLIGHT: u16 = 1 << 12;
    /// Counts in the limit of connections.
    pub(crate) const ADMITTED: u16 = 1 << 13;
    /// Counts as an open connection.
    pub(crate) const COUNTED_OPEN: u16 = 1 << 14;
    /// Receiving is paused because it publishes faster than subscribers are served.
    pub(crate) const THROTTLED: u16 = 1 << 15;
    /// Receiving is paused, for whatever reason.
    pub(crate) const HELD: u16 = PAUSED | CHOKED | THROTTLED;
}

/// The hot record.
#[derive(Debug)]
pub(crate) struct Hot {
    pub(crate) reader: Reader,
    pub(crate) cold: Option<Box<Cold>>,
    pub(crate) outbox: Outbox,
    pub(crate) in_flight: u32,
    pub(crate) generation: u32,
    /// Head of the list of subscriptions.
    pub(crate) subscriptions: u32,
    pub(crate) timer: Link,
    /// Tick of the last activity while open, else of the start of the phase or of what the peer took last in it.
    pub(crate) tick: u32,
    /// Index of the peer's address where connections per address are limited.
    pub(crate) address: u32,
    pub(crate) flags: u16,
    pub(crate) phase: Phase,
    /// Index of its profile among the worker's.
    pub(crate) profile: u8,
}

const _: () = assert!(size_of::<Hot>() <= 80, "the hot record outgrew its budget");

impl Default for Hot {
    fn default() -> Self {
        Hot {
            reader: Reader::new(Role::Server),
            cold: None,
            outbox: Outbox::default(),
            in_flight: 0,
            generation: 0,
            subscriptions: crate::pubsub::NIL,
            timer: Link::default(),
            tick: 0,
            address: u32::MAX,
            flags: 0,
            phase: Phase::Vacant,
            profile: 0,
        }
    }
}

impl Hot {
    #[inline]
    pub(crate) fn has(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    /// Something came from the peer.
    #[inline]
    pub(crate) fn heard(&mut self, tick: u32) {
        if self.phase == Phase::Open {
            self.tick = tick;
            self.flags &= !flag::PINGED;
        }
    }

    /// Whether messages flow, and no close is noted.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open && !self.has(flag::DOOMED)
    }

    /// Bytes that wait or are in flight.
    #[inline]
    pub(crate) fn queued(&self) -> u32 {
        self.outbox.bytes() + self.in_flight
    }
}

/// Cold records for reuse: each message that arrives cut needs one for a moment.
#[derive(Debug, Default)]
pub(crate) struct ColdPool(#[expect(clippy::vec_box, reason = "the boxes are what is kept")] Vec<Box<Cold>>);

impl ColdPool {
    /// Records kept.
    const KEEP: usize = 64;

    pub(crate) fn take(&mut self) -> Box<Cold> {
        self.0.pop().unwrap_or_default()
    }

    pub(crate) fn give(&mut self, mut cold: Box<Cold>) {
        if self.0.len() < Self::KEEP {
            *cold = Cold::default();
            self.0.push(cold);
        }
    }
}

/// What few connections need, and those for a short time.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    /// A message or control frame that has not arrived whole.
    pub(crate) assembler: Option<Assembler>,
    /// Bytes received and not yet read: a cut request head, or what came while paused.
    pub(crate) input: Vec<u8>,
    /// The newest ping to answer, while the outbox is above its high mark.
    pub(crate) pong: Option<Box<[u8]>>,
    /// Tick at which the stall timer first saw the send that is in flight.
    pub(crate) watched: Option<u32>,
    /// A close that was noted.
    pub(crate) closing: Option<Closing>,
    /// The plain request that is being read or answered.
    pub(crate) http: Http,
    /// The peer's address, until the handshake is over.
    pub(crate) peer: Option<IpAddr>,
    /// An opening handshake that waits for the handler's late answer.
    pub(crate) deferred: Option<Deferred>,
    /// What an outgoing connection belongs to.
    pub(crate) outgoing: Option<Outgoing>,
}

impl Cold {
    /// Whether bytes wait that were received and not read.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.assembler.is_none()
            && self.input.is_empty()
            && self.pong.is_none()
            && self.watched.is_none()
            && self.closing.is_none()
            && self.deferred.is_none()
            && matches!(self.http, Http::Head)
            && self.outgoing.is_none()
    }
}

#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) code: CloseCode,
    pub(crate) reason: Box<str>,
    pub(crate) cause: CloseCause,
}

/// The request head, kept to write the 101 later.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) head: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) target: Arc<Target>,
    pub(crate) token: u64,
    pub(crate) nonce: [u8; 16],
    pub(crate) attempt: u32,
    /// When it opened.
    pub(crate) opened: Option<Instant>,
}
