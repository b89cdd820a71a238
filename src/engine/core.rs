//! Everything a callback may touch, whatever the handler's types: not generic, so compiled once.
#![forbid(unsafe_code)]

use super::config::SlowConsumer;
use super::deliver::Publication;
use super::encoding::{ENCODINGS, Encodings, PLAIN};
use super::error::{CloseCause, Published, SendStatus, SubscribeError};
use super::handler::{ConnId, Message};
use super::mail::Exchange;
use super::payload::PayloadWriter;
use super::table::Table;
use super::target::Target;
use super::timer::{TimerId, Timers};
use crate::driver::SocketId;
use crate::proto::{CloseCode, MessageKind, Opcode, encoder};
use crate::pubsub::{NIL, Subscribed, Topics};
use std::{fmt, sync::Arc, time::Duration};

/// Bytes of the memory for payloads in the making that are kept between publications.
const SCRATCH_BYTES: usize = 64 << 10;

/// A topic whose subscribers all get what is published as it is.
const ONLY_PLAIN: u32 = 1 << PLAIN;

/// What a timer is for.
#[derive(Debug)]
pub(crate) enum Alarm {
    /// The handler's.
    User(u64),
    /// The handler's, of one connection.
    Conn(SocketId, u64),
    /// An outgoing connection is to be tried again.
    Connect(Dial),
    /// The next batch of a drain.
    Drain,
}

/// An outgoing connection that is to be made.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) target: Arc<Target>,
    pub(crate) token: u64,
    pub(crate) attempt: u32,
}

pub(crate) struct Core {
    pub(crate) worker: u16,
    pub(crate) topics: Topics<Publication>,
    pub(crate) table: Table,
    pub(crate) timers: Timers<Alarm>,
    pub(crate) dials: Vec<Dial>,
    pub(crate) exchange: Option<Arc<dyn Exchange>>,
    pub(super) encodings: Encodings,
    /// Where a payload is written before it is published.
    scratch: Vec<u8>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("worker", &self.worker).field("live", &self.table.live).finish_non_exhaustive()
    }
}

pub(crate) fn opcode(kind: MessageKind) -> Opcode {
    match kind {
        MessageKind::Text => Opcode::Text,
        MessageKind::Binary => Opcode::Binary,
    }
}

impl Core {
    pub(crate) fn new(
        worker: u16,
        topics: Topics<Publication>,
        table: Table,
        exchange: Option<Arc<dyn Exchange>>,
        encodings: Encodings,
    ) -> Self {
        let (timers, dials, scratch) = (Timers::new(), Vec::new(), Vec::new());
        Core { worker, topics, table, timers, dials, exchange, encodings, scratch }
    }

    /// Counts a panic of user code.
    pub(crate) fn panicked(&mut self) {
        self.table.counters.panics += 1;
        // The first of every 1,024, so that a handler that always panics does not fill the disk.
        if self.table.counters.panics % 1024 == 1 {
            tracing::error!(worker = self.worker, "a handler panicked (1 of 1,024 is logged)");
        }
    }

    pub(crate) fn conn_id(&self, slot: u32) -> ConnId {
        ConnId { worker: self.worker, socket: self.table.id(slot), request: 0 }
    }

    /// True if messages may be queued; what is owed to the connection is then queued before them.
    #[inline]
    fn ready(&mut self, slot: u32) -> bool {
        let hot = &self.table.hot[slot];
        if !hot.is_open() {
            self.table.counters.messages_accepted += 1;
            self.table.counters.messages_undelivered += 1;
            return false;
        }
        if hot.subscriptions != NIL && !self.topics.is_idle() {
            self.topics.catch_up(slot, &mut self.table);
        }
        true
    }

    #[inline]
    pub(crate) fn send(&mut self, slot: u32, message: Message<'_>) -> SendStatus {
        if !self.ready(slot) {
            return SendStatus::Closing;
        }
        self.table.message(slot, opcode(message.kind), message.payload)
    }

    #[inline]
    pub(crate) fn send_with(
        &mut self,
        slot: u32,
        kind: MessageKind,
        write: impl FnOnce(&mut PayloadWriter<'_>),
    ) -> SendStatus {
        if !self.ready(slot) {
            return SendStatus::Closing;
        }
        self.table.message_with(slot, opcode(kind), |out| write(&mut PayloadWriter::new(out)))
    }

    pub(crate) fn ping(&mut self, slot: u32, payload: &[u8]) -> SendStatus {
        if !self.table.hot[slot].is_open() {
            return SendStatus::Closing;
        }
        self.table.control(slot, Opcode::Ping, &payload[..payload.len().min(125)]);
        SendStatus::Queued
    }

    /// A close that somebody asked for, with a code of their choice.
    pub(crate) fn close(&mut self, slot: u32, code: CloseCode, reason: &str, cause: CloseCause) {
        let code = if code.is_sendable() { code } else { CloseCode::NORMAL };
        self.table.doom(slot, code, reason, cause);
    }

    // ---- topics ---------------------------------------------------------------------------------------------

    pub(crate) fn subscribe(&mut self, slot: u32, topic: &str, class: u8) -> Result<(), SubscribeError> {
        if !self.table.hot[slot].is_open() {
            return Ok(()); // it is closing: nothing would be delivered
        }
        let class = if usize::from(class) < ENCODINGS { class } else { u8::MAX }; // those beyond are not for connections
        self.subscribe_any(slot, topic, class)
    }

    /// As [`Core::subscribe`], for whatever kind of subscriber.
    pub(super) fn subscribe_any(&mut self, subscriber: u32, topic: &str, class: u8) -> Result<(), SubscribeError> {
        match self.topics.subscribe_as(subscriber, topic, class, &mut self.table) {
            Ok(Subscribed::New { first_here: true }) => {
                let hash = self.table.interest.shared().hash(topic);
                self.table.interest.add(hash);
            }
            Ok(_) => {}
            Err(error) => {
                self.table.counters.subscribe_refused += 1;
                return Err(error);
            }
        }
        Ok(())
    }

    pub(crate) fn unsubscribe(&mut self, slot: u32, topic: &str) -> bool {
        if !self.table.hot[slot].is_open() {
            return false; // the close that is noted ends it, and delivers what is owed before
        }
        self.topics.unsubscribe(slot, topic, &mut self.table).is_some()
    }

    pub(crate) fn unsubscribe_all(&mut self, slot: u32) {
        if self.table.hot[slot].subscriptions != NIL {
            self.topics.unsubscribe_all(slot, &mut self.table);
        }
    }

    /// To the subscribers here, and to the workers that may have some.
    pub(crate) fn publish(&mut self, topic: &str, except: Option<u32>, key: u64, message: Message<'_>) -> Published {
        let here = self.publish_here(topic, except, key, message);
        let Some(exchange) = &self.exchange else { return here };
        let elsewhere = exchange.spread(Some(self.worker.into()), topic, key, message);
        self.table.counters.publish_refused += u64::from(elsewhere.refused);
        Published { local: here.local, workers: elsewhere.workers, refused: here.refused + elsewhere.refused }
    }

    /// As [`Core::publish`], with a payload that `write` makes.
    pub(crate) fn publish_with(
        &mut self,
        topic: &str,
        kind: MessageKind,
        write: impl FnOnce(&mut PayloadWriter<'_>),
    ) -> Published {
        let mut payload = std::mem::take(&mut self.scratch); // a panic of `write` frees it
        payload.clear();
        write(&mut PayloadWriter::new(&mut payload));
        let published = self.publish(topic, None, 0, Message { kind, payload: &payload });
        payload.truncate(SCRATCH_BYTES);
        payload.shrink_to(SCRATCH_BYTES);
        self.scratch = payload;
        published
    }

    /// To the subscribers on this worker. User code has run: from here on nothing can fail half-way.
    pub(crate) fn publish_here(
        &mut self,
        topic: &str,
        except: Option<u32>,
        key: u64,
        message: Message<'_>,
    ) -> Published {
        self.table.counters.published += 1;
        let Some(place) = self.topics.find(topic) else { return Published::default() };
        let classes = self.topics.classes(place);
        // What other encodings need is known only once they are made: about as much each.
        let need = encoder::header_len(message.payload.len(), false) + message.payload.len();
        let need = need * classes.count_ones() as usize;
        if self.table.slab.live_bytes() + need > self.table.config.limits.frame_bytes {
            self.table.counters.publish_refused += 1;
            return Published { refused: 1, ..Published::default() };
        }
        let key = match self.table.config.slow_consumer {
            SlowConsumer::Conflate => self.table.interest.shared().key(topic, key),
            _ => 0,
        };
        let publication = match classes {
            ONLY_PLAIN => {
                let mut owed = 0;
                let frame = self.table.frame(key, message, &mut owed);
                Publication { plain: Some(frame), coded: None, owed }
            }
            _ => self.encode(classes, topic, key, message),
        };
        self.table.owed_bytes += publication.owed;
        let local = self.topics.publish_to(place, except.unwrap_or(NIL), publication);
        Published { local, ..Published::default() }
    }

    // ---- timers and outgoing connections --------------------------------------------------------------------

    pub(crate) fn alarm(&mut self, delay: Duration, alarm: Alarm) -> TimerId {
        self.timers.after(self.table.now, delay, alarm)
    }

    pub(crate) fn connect(&mut self, target: &Arc<Target>, token: u64) {
        self.dials.push(Dial { target: Arc::clone(target), token, attempt: 0 });
    }

    /// Plans the next try of an outgoing connection, if its target wants one.
    pub(crate) fn reconnect(&mut self, dial: Dial) {
        if let Some(reconnect) = dial.target.reconnect {
            let delay = reconnect.delay(dial.attempt, self.table.random.number());
            self.alarm(delay, Alarm::Connect(Dial { attempt: dial.attempt + 1, ..dial }));
        }
    }
}
