//! The connections of a worker and everything they queue: records, frames, outboxes, and the lists of what is to be
//! done. It runs no user code; sockets it touches in the flush alone.
#![forbid(unsafe_code)]

use super::config::Config;
use super::connection::{Closing, Cold, ColdPool, Hot, Phase, flag};
use super::counters::Counters;
use super::delivery::Deliveries;
use super::encoding::Coded;
use super::error::{CloseCause, SendStatus};
use super::http::HttpDate;
use super::hub::WorkerInterest;
use super::listener::Listeners;
use super::outbox::{NodePool, Origin};
use super::profile::Profiles;
use super::random::Random;
use super::timer::{Link, Links, Wheel};
use crate::buffer::{FrameSlab, Paged, SendBatch, SpillPool};
use crate::driver::SocketId;
use crate::proto::{CloseCode, MaskingKey, Opcode, encoder};
use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

/// Frames are joined up to this: what fits one cheap send.
pub(crate) const JOIN_BYTES: usize = 16 << 10;
/// Bytes of idle buffers kept for messages that come in pieces.
const SPILL_BYTES: usize = 4 << 20;
/// Bytes that may be queued before they are sent, unless one callback queues more: they are still in the processor's
/// cache then, and buffers for so many are few.
const UNSENT_BYTES: usize = 256 << 10;
/// Connections that one turn evicts at most.
const EVICTIONS: usize = 256;
/// Input is parsed on beyond the high mark until this many bytes of replies wait, because a flush may empty it.
const HARD_BYTES: u32 = 512 << 10;

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) hot: Paged<Hot>,
    pub(crate) slab: FrameSlab,
    pub(crate) nodes: NodePool,
    pub(crate) spill: SpillPool,
    pub(crate) wheel: Wheel,
    pub(crate) random: Random,
    pub(crate) counters: Counters,
    pub(crate) config: Config,
    pub(crate) interest: WorkerInterest,
    /// Time of this turn.
    pub(crate) now: Instant,
    /// The same in ticks of the wheel.
    pub(crate) tick: u32,
    /// Slots with a connection, and those of them that are open.
    pub(crate) live: u32,
    pub(crate) open: u32,
    /// Bytes of publications that a walk still has to hand out.
    pub(crate) owed_bytes: usize,
    /// Whether the worker is about to end.
    pub(crate) draining: bool,
    pub(crate) date: HttpDate,
    /// Received bytes behind the message in hand: how much a reply's frame is likely to grow.
    pub(crate) lookahead: usize,
    /// Bytes queued since the last flush, publications not counted: they share theirs.
    pub(super) unsent: usize,
    pub(crate) dirty: Vec<SocketId>,
    pub(crate) doomed: Vec<SocketId>,
    throttled: Vec<SocketId>,
    pub(crate) pauses: Vec<SocketId>,
    pub(crate) resumes: Vec<SocketId>,
    pub(crate) rests: Vec<SocketId>,
    pub(crate) rouses: Vec<SocketId>,
    pub(crate) writable: Vec<SocketId>,
    pub(crate) shutdowns: Vec<SocketId>,
    pub(crate) closes: Vec<SocketId>,
    pub(super) spare: Vec<SocketId>,
    colds: ColdPool,
    /// Callbacks that publications owe.
    pub(super) deliveries: Deliveries,
    pub(super) listeners: Listeners,
    pub(super) profiles: Profiles,
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    pub(super) spare_coded: Vec<Box<Coded>>,
    pub(super) batch: Option<SendBatch>,
    pub(super) batches: Vec<SendBatch>,
}

impl Table {
    pub(crate) fn new(config: Config, wheel: Wheel, random: Random, interest: WorkerInterest, now: Instant) -> Self {
        let list = || Vec::with_capacity(config.driver.events);
        let listeners = Listeners::new(interest.index());
        Table {
            hot: Paged::new(),
            slab: FrameSlab::new(config.frames),
            nodes: NodePool::new(config.frames.small_frames),
            spill: SpillPool::new(64, SPILL_BYTES),
            wheel,
            random,
            counters: Counters::default(),
            config,
            interest,
            now,
            tick: 0,
            live: 0,
            open: 0,
            owed_bytes: 0,
            draining: false,
            date: HttpDate::default(),
            lookahead: 0,
            unsent: 0,
            dirty: list(),
            doomed: list(),
            throttled: Vec::new(),
            pauses: list(),
            resumes: list(),
            rests: list(),
            rouses: list(),
            writable: list(),
            shutdowns: list(),
            closes: list(),
            spare: list(),
            colds: ColdPool::default(),
            deliveries: Deliveries::default(),
            listeners,
            profiles: Profiles::new(&config.limits),
            spare_coded: Vec::new(),
            batch: Some(SendBatch::new()),
            batches: Vec::new(),
        }
    }

    pub(crate) fn id(&self, slot: u32) -> SocketId {
        SocketId { slot, generation: self.hot[slot].generation }
    }

    /// The record of a connection that still exists.
    pub(crate) fn live(&mut self, id: SocketId) -> Option<&mut Hot> {
        self.hot.get_mut(id.slot).filter(|hot| hot.generation == id.generation && hot.phase != Phase::Vacant)
    }

    pub(crate) fn is_open(&self, id: SocketId) -> bool {
        self.hot.get(id.slot).is_some_and(|hot| hot.generation == id.generation && hot.is_open())
    }

    /// The cold record, made if there is none.
    pub(crate) fn cold(&mut self, slot: u32) -> &mut Cold {
        self.hot[slot].cold.get_or_insert_with(|| self.colds.take())
    }

    /// Gives the cold record back once nothing is in it.
    pub(crate) fn shed_cold(&mut self, slot: u32) {
        if let Some(cold) = self.hot[slot].cold.take_if(|cold| cold.is_empty()) {
            self.colds.give(cold);
        }
    }

    pub(crate) fn queued(&self, slot: u32) -> u32 {
        self.hot[slot].queued()
    }

    /// Whether a turn is needed at once, without waiting for the kernel.
    pub(crate) fn has_work(&self) -> bool {
        !(self.dirty.is_empty() && self.resumes.is_empty() && self.writable.is_empty() && self.doomed.is_empty())
            || !(self.closes.is_empty() && self.shutdowns.is_empty() && self.pauses.is_empty())
            || !self.deliveries.is_empty()
            || self.can_unthrottle()
    }

    // ---- sending --------------------------------------------------------------------------------------------

    /// The key that a frame to this connection is masked with: one for the client role, none for the server's.
    fn key(&mut self, slot: u32) -> Option<MaskingKey> {
        if self.hot[slot].has(flag::CLIENT) { Some(self.random.key()) } else { None }
    }

    /// Queues a data frame of `len` payload bytes.
    #[inline]
    pub(crate) fn message(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) -> SendStatus {
        let key = self.key(slot);
        let need = encoder::header_len(payload.len(), key.is_some()) + payload.len();
        self.counters.messages_accepted += 1;
        self.own(slot, need, 1, |out| encoder::frame(out, opcode, true, payload, key));
        self.status(slot)
    }

    pub(crate) fn message_with(&mut self, slot: u32, opcode: Opcode, write: impl FnOnce(&mut Vec<u8>)) -> SendStatus {
        let key = self.key(slot);
        // How much comes is not known: where this much room is left the message joins what is queued, and may grow it.
        self.own(slot, 128, 1, |out| encoder::frame_with(out, opcode, key, write));
        self.counters.messages_accepted += 1;
        self.status(slot)
    }

    fn status(&mut self, slot: u32) -> SendStatus {
        let hot = &mut self.hot[slot];
        if hot.queued() <= self.config.limits.outbox_high {
            return SendStatus::Queued;
        }
        hot.flags |= flag::WAS_HIGH;
        SendStatus::High
    }

    pub(crate) fn control(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        let key = self.key(slot);
        let need = encoder::header_len(payload.len(), key.is_some()) + payload.len();
        self.own(slot, need, 0, |out| encoder::frame(out, opcode, true, payload, key));
    }

    /// Queues about `need` bytes that are no frame: the parts of opening handshakes, HTTP answers.
    pub(crate) fn raw(&mut self, slot: u32, need: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.own(slot, need, 0, write);
    }

    /// Queues what is this connection's own, joined to what is queued already where it fits.
    #[inline]
    fn own(&mut self, slot: u32, need: usize, messages: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let hot = &mut self.hot[slot];
        if hot.outbox.is_empty() {
            let expected = need.max((need + self.lookahead).min(JOIN_BYTES));
            let frame = self.slab.build(expected, messages, write);
            let len = self.slab.len(&frame);
            self.unsent += len;
            self.hot[slot].outbox.push(&mut self.nodes, frame, len, Origin::Own);
        } else {
            let mut write = Some(write);
            let joined = hot
                .outbox
                .append(&self.nodes, &mut self.slab, need, messages, |out| write.take().expect("called once")(out));
            match (joined, write) {
                (Ok(added), _) => self.unsent += added as usize,
                (Err(()), Some(write)) => {
                    let frame = self.slab.build(need.max((2 * need + self.lookahead).min(JOIN_BYTES)), messages, write);
                    let len = self.slab.len(&frame);
                    self.unsent += len;
                    self.hot[slot].outbox.push(&mut self.nodes, frame, len, Origin::Own);
                }
                _ => {}
            }
        }
        self.mark_dirty(slot);
    }

    /// Whether so much was queued that it is to be sent before more is received.
    #[inline]
    pub(crate) fn is_sated(&self) -> bool {
        self.unsent >= UNSENT_BYTES
    }

    #[inline]
    pub(crate) fn mark_dirty(&mut self, slot: u32) {
        let hot = &mut self.hot[slot];
        if !hot.has(flag::DIRTY) {
            hot.flags |= flag::DIRTY;
            self.dirty.push(SocketId { slot, generation: hot.generation });
        }
    }

    /// Answers a ping; above the high mark only the newest is remembered.
    pub(crate) fn pong(&mut self, slot: u32, payload: &[u8]) {
        self.counters.pings += 1;
        if self.queued(slot) > self.config.limits.outbox_high {
            self.cold(slot).pong = Some(payload.into());
        } else {
            if let Some(cold) = self.hot[slot].cold.as_deref_mut() {
                cold.pong = None; // the newest answers for those before it
            }
            self.control(slot, Opcode::Pong, payload);
        }
    }

    // ---- ending early ---------------------------------------------------------------------------------------

    /// Notes a close, to be done after the callback or walk that is under way. The first one counts.
    pub(crate) fn doom(&mut self, slot: u32, code: CloseCode, reason: &str, cause: CloseCause) {
        let hot = &mut self.hot[slot];
        if hot.has(flag::DOOMED) || hot.phase >= Phase::Closing || hot.phase == Phase::Vacant {
            return;
        }
        hot.flags |= flag::DOOMED;
        self.cold(slot).closing = Some(Closing { code, reason: reason.into(), cause });
        let id = self.id(slot);
        self.doomed.push(id);
    }

    /// At the limit of frame memory: the connections that hold most go, as many as it takes.
    ///
    /// Cost: a look at every connection, in a turn that ends above the limit.
    pub(crate) fn evict(&mut self) {
        let excess = self.slab.live_bytes().saturating_sub(self.config.limits.frame_bytes);
        if excess == 0 {
            return;
        }
        let mut coming = 0;
        let mut holders = BinaryHeap::with_capacity(EVICTIONS + 1);
        for slot in 0..self.hot.capacity() as u32 {
            let hot = &self.hot[slot];
            match hot.phase {
                Phase::Dead => coming += hot.queued() as usize, // comes back with the next poll
                _ if hot.has(flag::DOOMED) => coming += hot.outbox.bytes() as usize,
                _ if hot.queued() > 0 => {
                    holders.push(Reverse((hot.queued(), slot)));
                    if holders.len() > EVICTIONS {
                        holders.pop();
                    }
                }
                _ => {}
            }
        }
        for Reverse((bytes, slot)) in holders.into_sorted_vec() {
            if coming >= excess {
                break;
            }
            coming += bytes as usize;
            self.evict_one(slot);
        }
    }

    fn evict_one(&mut self, slot: u32) {
        if self.hot[slot].phase == Phase::Open {
            self.counters.evicted += 1;
            self.doom(slot, CloseCode::TRY_AGAIN_LATER, "out of memory", CloseCause::Memory);
        } else {
            self.force(slot);
        }
    }

    // ---- pausing --------------------------------------------------------------------------------------------

    pub(crate) fn pause(&mut self, slot: u32) {
        let id = self.id(slot);
        self.hot[slot].flags |= flag::PAUSED;
        self.pauses.push(id);
    }

    pub(crate) fn resume(&mut self, slot: u32) {
        if self.hot[slot].has(flag::PAUSED) {
            self.hot[slot].flags &= !flag::PAUSED;
            self.plan_resume(slot);
        }
    }

    pub(crate) fn plan_resume(&mut self, slot: u32) {
        let id = self.id(slot);
        let hot = &mut self.hot[slot];
        if !hot.has(flag::RESUMING) {
            hot.flags |= flag::RESUMING;
            self.resumes.push(id);
        }
    }

    /// Whether input of this connection has to wait, because too much of its own replies does.
    #[inline]
    pub(crate) fn must_wait(&mut self, slot: u32) -> bool {
        let hot = &mut self.hot[slot];
        if hot.has(flag::HELD) {
            return true;
        }
        let high = self.config.limits.outbox_high;
        // While a send is in flight no flush can help.
        let (waiting, most) = match hot.has(flag::BLOCKED) {
            true => (hot.queued(), high),
            false => (hot.outbox.bytes(), HARD_BYTES.max(high)),
        };
        if waiting <= most {
            return false;
        }
        self.choke(slot);
        true
    }

    pub(super) fn choke(&mut self, slot: u32) {
        let id = self.id(slot);
        self.hot[slot].flags |= flag::CHOKED;
        self.counters.choked += 1;
        self.pauses.push(id);
    }

    /// Stops reading from a connection that publishes faster than subscribers are served.
    #[cold]
    pub(crate) fn throttle(&mut self, slot: u32) {
        let id = self.id(slot);
        self.hot[slot].flags |= flag::THROTTLED;
        self.counters.throttled += 1;
        self.pauses.push(id);
        self.throttled.push(id);
    }

    /// Whether so little is owed that publishers are read again. Not only walks bring that about: what is owed also ends
    /// with its topic, and when a subscriber catches up.
    fn can_unthrottle(&self) -> bool {
        !self.throttled.is_empty() && self.owed_bytes <= self.config.limits.owed_bytes / 2
    }

    /// Reads from them again once half of what was owed is handed out.
    #[inline]
    pub(crate) fn unthrottle(&mut self) {
        if !self.can_unthrottle() {
            return;
        }
        while let Some(id) = self.throttled.pop() {
            if let Some(hot) = self.live(id) {
                hot.flags &= !flag::THROTTLED;
                self.plan_resume(id.slot);
            }
        }
    }

    /// Keeps bytes that cannot be read now.
    pub(crate) fn stash(&mut self, slot: u32, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.counters.copied_bytes += data.len() as u64;
        let fresh = self.hot[slot].cold.as_deref().is_none_or(|cold| cold.input.capacity() == 0);
        let buffer = if fresh { self.spill.take() } else { Vec::new() };
        let cold = self.cold(slot);
        if fresh {
            cold.input = buffer;
        }
        cold.input.extend_from_slice(data);
    }

    /// Takes what was kept.
    pub(crate) fn unstash(&mut self, slot: u32) -> Option<Vec<u8>> {
        let cold = self.hot[slot].cold.as_deref_mut()?;
        if cold.input.is_empty() { None } else { Some(std::mem::take(&mut cold.input)) }
    }

    // ---- ending ---------------------------------------------------------------------------------------------

    /// Closes the socket without further words.
    pub(crate) fn force(&mut self, slot: u32) {
        let id = self.id(slot);
        let hot = &mut self.hot[slot];
        if hot.phase != Phase::Dead && hot.phase != Phase::Vacant {
            hot.phase = Phase::Dead;
            self.closes.push(id);
        }
    }

    /// Drops everything that waits; counted.
    pub(crate) fn discard_outbox(&mut self, slot: u32) {
        while let Some((frame, _)) = self.hot[slot].outbox.pop(&mut self.nodes, &self.slab) {
            self.counters.messages_undelivered += u64::from(self.slab.messages(&frame));
            self.slab.release(frame);
        }
    }

    /// Drops the publications that wait, so that a Close comes next; counted.
    pub(crate) fn discard_publications(&mut self, slot: u32) {
        let hot = &mut self.hot[slot];
        let gone = hot.outbox.drop_newest(&mut self.nodes, &mut self.slab, 0);
        self.counters.messages_undelivered += gone;
    }

    /// The slot's connection is gone.
    pub(crate) fn vacate(&mut self, slot: u32) {
        self.discard_outbox(slot);
        self.disarm(slot);
        let generation = self.hot[slot].generation;
        if let Some(mut cold) = self.hot[slot].cold.take() {
            let Cold { assembler, input, .. } = std::mem::take(&mut *cold);
            self.colds.give(cold);
            self.spill.give(input);
            if let Some(assembler) = assembler {
                self.spill.give(assembler.into_buffer());
            }
        }
        self.hot[slot] = Hot { generation, ..Hot::default() };
        self.live -= 1;
    }

    // ---- timers ---------------------------------------------------------------------------------------------

    pub(crate) fn arm(&mut self, slot: u32, due: u32) {
        self.wheel.arm(slot, due, &mut HotLinks(&mut self.hot));
    }

    fn disarm(&mut self, slot: u32) {
        self.wheel.disarm(slot, &mut HotLinks(&mut self.hot));
    }

    pub(crate) fn fire(&mut self, budget: &mut u32, fired: &mut Vec<u32>) {
        self.wheel.advance(self.tick, budget, &mut HotLinks(&mut self.hot), fired);
    }
}

struct HotLinks<'a>(&'a mut Paged<Hot>);

impl Links for HotLinks<'_> {
    fn link(&mut self, slot: u32) -> &mut Link {
        &mut self.0[slot].timer
    }
}
