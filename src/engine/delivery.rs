//! Publications that reach subscribers by a callback: noted while they are walked, made when no callback runs.
#![forbid(unsafe_code)]

use super::encoding::{LISTENING, Neutral};
use super::handler::Handler;
use super::listener::TopicListenerId;
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
    to: To,
    neutral: Neutral,
}

#[derive(Debug)]
enum To {
    Conn(SocketId),
    Listener(TopicListenerId),
}

impl Table {
    /// Notes a callback for a subscriber.
    pub(super) fn plan_delivery(&mut self, subscriber: u32, class: u8, neutral: &Neutral) {
        let neutral = neutral.share(&mut self.slab);
        self.counters.messages_accepted += 1;
        let to = match class {
            LISTENING => To::Listener(self.listeners.id(subscriber)),
            _ => To::Conn(self.id(subscriber)),
        };
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
        let table = &mut self.core.table;
        let there = match to {
            To::Conn(id) => table.is_open(id),
            To::Listener(id) => table.listeners.is_open(id),
        };
        if there {
            table.counters.messages_sent += 1;
            let body = table.slab.body(&neutral.frame);
            let (topic, message) = neutral.open(body.bytes());
            match to {
                To::Conn(id) => {
                    self.call(id.slot, |handler, conn, state| handler.delivery(conn, state, topic, message))
                }
                To::Listener(id) => {
                    self.ask(|handler, scope| handler.heard(scope, id, topic, message));
                }
            }
        } else {
            table.counters.messages_undelivered += 1;
        }
        self.core.table.slab.release(neutral.frame);
    }
}
