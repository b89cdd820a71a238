//! The flush: what is queued leaves, one system call per connection in the common case.
#![forbid(unsafe_code)]

use super::connection::{Phase, flag};
use super::outbox::Origin;
use super::table::Table;
use crate::buffer::SendBatch;
use crate::driver::{Driver, SocketId, Submit};
use crate::proto::Opcode;

impl Table {
    /// Sends what is queued for every dirty connection: one system call each, in the common case.
    pub(crate) fn flush(&mut self, driver: &mut impl Driver) {
        self.unsent = 0;
        let mut dirty = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.spare));
        for id in dirty.drain(..) {
            if self.live(id).is_some() {
                self.flush_one(driver, id);
            }
        }
        self.spare = dirty;
    }

    fn flush_one(&mut self, driver: &mut impl Driver, id: SocketId) {
        let slot = id.slot;
        self.hot[slot].flags &= !flag::DIRTY;
        if self.hot[slot].phase == Phase::Dead {
            return;
        }
        let sends = if self.hot[slot].has(flag::IN_FLIGHT) { 0 } else { self.config.budgets.sends };
        for _ in 0..sends {
            let hot = &mut self.hot[slot];
            if hot.outbox.is_empty() {
                break;
            }
            let mut batch = self.batch.take().or_else(|| self.batches.pop()).unwrap_or_default();
            let mut publications = 0;
            while !batch.is_full(self.config.limits.outbox_high as usize) {
                let Some((frame, origin)) = hot.outbox.pop(&mut self.nodes, &self.slab) else { break };
                publications += if origin == Origin::Topic { self.slab.len(&frame) } else { 0 };
                batch.push(frame, &self.slab);
            }
            let bytes = batch.left() as u32;
            match driver.send(id, batch) {
                Submit::Done(batch) => self.account(batch),
                Submit::Pending => {
                    hot.in_flight = bytes;
                    hot.flags |= flag::IN_FLIGHT | flag::BLOCKED;
                    if publications >= bytes as usize / 2 {
                        hot.flags |= flag::PUBLICATIONS_IN_FLIGHT;
                    }
                    break;
                }
            }
        }
        self.after_flush(slot);
    }

    fn account(&mut self, mut batch: SendBatch) {
        let (sent, unsent) = batch.recycle(&mut self.slab);
        self.counters.messages_sent += sent;
        self.counters.messages_undelivered += unsent;
        if self.batch.is_none() {
            self.batch = Some(batch);
        } else {
            self.batches.push(batch);
        }
    }

    fn after_flush(&mut self, slot: u32) {
        let hot = &self.hot[slot];
        let (high, low) = (self.config.limits.outbox_high, self.config.limits.outbox_low);
        if hot.outbox.is_empty() && !hot.has(flag::IN_FLIGHT) {
            if hot.phase != Phase::Open || hot.has(flag::WAS_HIGH | flag::CHOKED) || hot.cold.is_some() {
                self.drained(slot);
            }
        } else if hot.has(flag::BLOCKED) && hot.queued() > high {
            self.judge(slot);
            let hot = &self.hot[slot];
            if hot.phase == Phase::Open && !hot.has(flag::CHOKED) && hot.queued() > high {
                self.choke(slot);
            }
        } else {
            if hot.queued() < low && (hot.has(flag::WAS_HIGH | flag::CHOKED) || hot.cold.is_some()) {
                self.below_low(slot);
            }
            if !self.hot[slot].has(flag::IN_FLIGHT) {
                self.mark_dirty(slot); // the budget ended it, not the kernel
            }
        }
    }

    /// Nothing waits any more.
    fn drained(&mut self, slot: u32) {
        let id = self.id(slot);
        self.below_low(slot);
        let hot = &mut self.hot[slot];
        if hot.phase == Phase::Finishing {
            hot.phase = Phase::Lingering;
            hot.tick = self.tick;
            if hot.has(flag::EOF) {
                self.force(slot);
            } else if !hot.has(flag::CLIENT) {
                // RFC 6455 §7.1.1: the server closes first; a client waits for that, within the close timeout.
                self.shutdowns.push(id);
            }
        } else if hot.phase == Phase::Open {
            self.shed_cold(slot);
        }
    }

    fn below_low(&mut self, slot: u32) {
        let id = self.id(slot);
        let hot = &mut self.hot[slot];
        let pong = hot.cold.as_deref_mut().and_then(|cold| cold.pong.take());
        if let (Some(pong), Phase::Open) = (pong, hot.phase) {
            self.control(slot, Opcode::Pong, &pong); // after our Close it would be one frame too many
        }
        let hot = &mut self.hot[slot];
        if hot.has(flag::WAS_HIGH) {
            hot.flags &= !flag::WAS_HIGH;
            if hot.phase == Phase::Open {
                self.writable.push(id);
            }
        }
        if hot.has(flag::CHOKED) {
            hot.flags &= !flag::CHOKED;
            self.plan_resume(slot);
        }
    }

    /// A send that was in flight ended.
    pub(crate) fn sent(&mut self, id: SocketId, batch: SendBatch) {
        self.account(batch);
        self.taken(id);
        let Some(hot) = self.live(id) else { return };
        hot.in_flight = 0;
        hot.flags &= !(flag::IN_FLIGHT | flag::BLOCKED | flag::PUBLICATIONS_IN_FLIGHT);
        self.mark_dirty(id.slot);
    }

    /// The peer takes what is sent, however slowly: it has not stalled, and its time to close begins when it has all.
    pub(crate) fn taken(&mut self, id: SocketId) {
        let tick = self.tick;
        let Some(hot) = self.live(id) else { return };
        if let Some(cold) = hot.cold.as_deref_mut() {
            cold.watched = None;
        }
        if matches!(hot.phase, Phase::Closing | Phase::Finishing) {
            hot.tick = tick;
        }
    }
}
