//! Publications that reach subscribers by a callback: noted while they are walked, made when no callback runs.
#![forbid(unsafe_code)]

use super::encoding::Neutral;
use super::handler::Handler;
use super::session::Engine;
use super::table::Table;
use crate::driver::SocketId;
use std::collections::VecDeque;

/// Entries whose memory the queue keeps while it is empty.
const KEEP: usize = 4096;

/// Callbacks that are due, in publish order for each subscriber.
pub(crate) type Deliveries = VecDeque<Delivery>;

/// A publication and whom it is for. It holds a share of the frame.
#[derive(Debug)]
pub(crate) struct Delivery {
    to: SocketId,
    neutral: Neutral,
}

impl Table {
    /// Notes a callback for a subscriber.
    pub(super) fn plan_delivery(&mut self, conn: u32, neutral: &Neutral) {
        let neutral = neutral.share(&mut self.slab);
        self.counters.messages_accepted += 1;
        let to = self.id(conn);
        self.deliveries.push_back(Delivery { to, neutral });
    }
}

impl<H: Handler> Engine<H> {
    /// Makes the callbacks that are due. What they make due in turn waits for the next time, so that this ends.
    #[cold]
    pub(super) fn make_deliveries(&mut self) {
        for _ in 0..self.core.table.deliveries.len() {
            let Some(delivery) = self.core.table.deliveries.pop_front() else { break };
            self.make_delivery(delivery);
            self.close_noted();
        }
        if self.core.table.deliveries.is_empty() {
            self.core.table.deliveries.shrink_to(KEEP);
        }
    }

    fn make_delivery(&mut self, Delivery { to, neutral }: Delivery) {
        if self.core.table.is_open(to) {
            self.core.table.counters.messages_sent += 1;
            let body = self.core.table.slab.body(&neutral.frame);
            let (topic, message) = neutral.open(body.bytes());
            self.call(to.slot, |handler, conn, state| handler.delivery(conn, state, topic, message));
        } else {
            self.core.table.counters.messages_undelivered += 1;
        }
        self.core.table.slab.release(neutral.frame);
    }
}
