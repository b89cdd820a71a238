//! Deliveries: what topics bring to a connection, and the policy of one that does not take it.
#![forbid(unsafe_code)]

use super::config::SlowConsumer;
use super::connection::{Phase, flag};
use super::encoding::{Coded, PLAIN};
use super::error::CloseCause;
use super::outbox::Origin;
use super::table::Table;
use crate::buffer::FrameRef;
use crate::driver::SocketId;
use crate::proto::{CloseCode, Opcode, encoder};
use crate::pubsub::{Run, Subscribers};

/// One frame per encoding class that has subscribers here.
#[derive(Debug)]
pub(crate) struct Publication {
    /// The message as it was published, if anybody gets it so.
    pub(crate) plain: Option<FrameRef>,
    /// The other classes, if there are any.
    pub(crate) coded: Option<Box<Coded>>,
    /// Its part of [`Table::owed_bytes`].
    pub(crate) owed: usize,
}

impl Subscribers<Publication> for Table {
    #[inline]
    fn head(&mut self, conn: u32) -> &mut u32 {
        match self.listeners.head(conn) {
            Some(head) => head,
            None => &mut self.hot[conn].subscriptions,
        }
    }

    #[inline]
    fn deliver(&mut self, conn: u32, run: Run<'_, Publication>) {
        if run.class() != PLAIN {
            return self.deliver_coded(conn, &run);
        }
        match run.joined() {
            Some(joined) => self.deliver_plain(conn, joined),
            None => run.iter().for_each(|publication| self.deliver_plain(conn, publication)),
        }
    }

    /// What is not sent is not joined either.
    #[inline]
    fn weight(&self, run: &Run<'_, Publication>) -> u32 {
        match run.joined() {
            Some(joined) if !joined.is_single(run.class()) => 1,
            _ => run.len(),
        }
    }

    fn size(&self, publication: &Publication) -> usize {
        let plain = publication.plain.as_ref().map_or(0, |frame| self.slab.len(frame));
        publication.coded.as_deref().map_or(plain, |coded| coded.longest(&self.slab).max(plain))
    }

    fn retire(&mut self, publication: Publication) {
        self.owed_bytes -= publication.owed;
        if let Some(frame) = publication.plain {
            self.slab.release(frame);
        }
        if let Some(coded) = publication.coded {
            self.release_coded(coded);
        }
    }

    /// A burst becomes one frame per class: each subscriber costs one reference and one contiguous send.
    fn join(&mut self, run: &Run<'_, Publication>) -> Option<Publication> {
        // Joined publications could not be told apart by this policy.
        if self.config.slow_consumer == SlowConsumer::Conflate {
            return None;
        }
        let frames = run.iter().filter_map(|publication| publication.plain.as_ref());
        let plain = frames.clone().next().is_some().then(|| self.slab.concat(frames));
        let coded = run.iter().any(|publication| publication.coded.is_some()).then(|| self.join_coded(run.iter()));
        Some(Publication { plain, coded, owed: 0 })
    }

    fn topic_gone(&mut self, name: &str) {
        let hash = self.interest.shared().hash(name);
        self.interest.remove(hash);
    }
}

impl Publication {
    #[inline]
    fn is_single(&self, class: u8) -> bool {
        self.coded.as_deref().is_some_and(|coded| coded.is_single(class))
    }
}

impl Table {
    #[inline]
    fn deliver_plain(&mut self, slot: u32, publication: &Publication) {
        if let Some(frame) = &publication.plain {
            self.deliver_frame(slot, frame);
        }
    }

    /// To a subscriber of another class than [`PLAIN`].
    fn deliver_coded(&mut self, conn: u32, run: &Run<'_, Publication>) {
        let class = run.class();
        if let Some(joined) = run.joined()
            && !joined.is_single(class)
        {
            if let Some(frame) = joined.coded.as_deref().and_then(|coded| coded.frame(class)) {
                self.deliver_frame(conn, frame);
            }
            return;
        }
        for coded in run.iter().filter_map(|publication| publication.coded.as_deref()) {
            if let Some(frame) = coded.frame(class) {
                self.deliver_frame(conn, frame);
            }
            if let Some(neutral) = coded.neutral(class) {
                self.plan_delivery(conn, class, neutral);
            }
            if coded.is_lost(class) {
                self.counters.messages_accepted += 1;
                self.counters.messages_dropped += 1;
            }
        }
    }

    #[inline]
    fn deliver_frame(&mut self, slot: u32, frame: &FrameRef) {
        let messages = u64::from(self.slab.messages(frame));
        let len = self.slab.len(frame);
        self.counters.messages_accepted += messages;
        let hot = &mut self.hot[slot];
        if hot.has(flag::BLOCKED | flag::CLIENT) {
            return self.deliver_slowly(slot, frame, messages, len);
        }
        hot.outbox.push(&mut self.nodes, self.slab.share(frame), len, Origin::Topic);
        if !hot.has(flag::DIRTY) {
            hot.flags |= flag::DIRTY;
            self.dirty.push(SocketId { slot, generation: hot.generation });
        }
    }

    #[cold]
    fn deliver_slowly(&mut self, slot: u32, frame: &FrameRef, messages: u64, len: usize) {
        let high = self.config.limits.outbox_high;
        let hot = &self.hot[slot];
        let blocked = hot.has(flag::BLOCKED);
        let waiting = if blocked { self.publications_waiting(slot) } else { 0 };
        let over = waiting > 0 && waiting as usize + len > high as usize;
        let hot = &mut self.hot[slot];
        if over && self.config.slow_consumer == SlowConsumer::DropNewest {
            self.counters.messages_dropped += messages;
            return;
        }
        if hot.has(flag::CLIENT) {
            self.deliver_masked(slot, frame);
        } else {
            hot.outbox.push(&mut self.nodes, self.slab.share(frame), len, Origin::Topic);
        }
        self.mark_dirty(slot);
        if over {
            self.judge(slot);
        }
    }

    /// A client masks each frame afresh (RFC 6455 §5.3), so it cannot share the publication's bytes.
    fn deliver_masked(&mut self, slot: u32, frame: &FrameRef) {
        let messages = self.slab.messages(frame);
        let (unmasked, random) = (self.slab.body(frame), &mut self.random);
        let masked = self.slab.build(unmasked.bytes().len() + 8, messages, |out| {
            each_frame(unmasked.bytes(), |opcode, payload| {
                encoder::frame(out, opcode, true, payload, Some(random.key()))
            });
        });
        drop(unmasked);
        let (len, key) = (self.slab.len(&masked), self.slab.key(frame));
        self.slab.set_key(&masked, key);
        self.hot[slot].outbox.push(&mut self.nodes, masked, len, Origin::Topic);
    }

    /// Bytes of publications that wait for a connection, or are in flight to it.
    fn publications_waiting(&self, slot: u32) -> u32 {
        let hot = &self.hot[slot];
        let in_flight = if hot.has(flag::PUBLICATIONS_IN_FLIGHT) { hot.in_flight } else { 0 };
        in_flight + hot.outbox.publication_bytes(&self.nodes, &self.slab)
    }

    /// Applies the policy to a connection that the kernel took no more from. Its own replies are none of the policy's
    /// business: what counts is the publications that wait.
    pub(crate) fn judge(&mut self, slot: u32) {
        let high = self.config.limits.outbox_high;
        let hot = &self.hot[slot];
        if hot.queued() <= high || !hot.has(flag::BLOCKED) || hot.phase != Phase::Open {
            return;
        }
        let excess = self.publications_waiting(slot).saturating_sub(high);
        let hot = &mut self.hot[slot];
        if excess == 0 || hot.outbox.is_empty() {
            return;
        }
        let room = hot.outbox.bytes().saturating_sub(excess);
        let (outbox, nodes, slab) = (&mut hot.outbox, &mut self.nodes, &mut self.slab);
        self.counters.messages_dropped += match self.config.slow_consumer {
            SlowConsumer::Disconnect => 0,
            SlowConsumer::DropNewest => outbox.drop_newest(nodes, slab, room),
            SlowConsumer::DropOldest => outbox.drop_oldest(nodes, slab, room),
            SlowConsumer::Conflate => outbox.conflate(nodes, slab),
        };
        let gives_up = matches!(self.config.slow_consumer, SlowConsumer::Disconnect | SlowConsumer::Conflate);
        if gives_up && outbox.bytes() > room && outbox.publication_bytes(nodes, slab) > 0 {
            self.doom(slot, CloseCode::TRY_AGAIN_LATER, "too slow", CloseCause::SlowConsumer);
        }
    }
}

/// Walks over whole, unmasked frames of our own making.
fn each_frame(mut bytes: &[u8], mut visit: impl FnMut(Opcode, &[u8])) {
    while let [first, second, rest @ ..] = bytes {
        let (len, rest) = match (second & 0x7F, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize, rest)
            }
            (len, rest) => (usize::from(len), rest),
        };
        visit(if first & 0x0F == Opcode::Text as u8 { Opcode::Text } else { Opcode::Binary }, &rest[..len]);
        bytes = &rest[len..];
    }
}
