//! Listeners: subscribers that are no connection.
#![forbid(unsafe_code)]

use super::core::Core;
use super::encoding::LISTENING;
use super::error::{Published, SubscribeError, TooManyListeners};
use super::handler::{Message, Scope};
use crate::pubsub::NIL;

/// Tells a listener from a connection among the subscribers of a topic.
const MARK: u32 = 1 << 31;

/// A subscriber that is no connection, on one worker, until it is closed: never given to another listener.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TopicListenerId {
    worker: u16,
    slot: u32,
    generation: u32,
}

/// The listeners of a worker: 8 bytes each.
#[derive(Debug)]
pub(crate) struct Listeners {
    worker: u16,
    records: Vec<Record>,
    /// Slots without a listener.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Record {
    /// Odd while the slot has a listener.
    generation: u32,
    subscriptions: u32,
}

impl Listeners {
    pub(crate) fn new(worker: u16) -> Self {
        Listeners { worker, records: Vec::new(), free: Vec::new() }
    }

    /// Where a subscriber of a topic keeps its subscriptions, if it is a listener.
    #[inline]
    pub(crate) fn head(&mut self, subscriber: u32) -> Option<&mut u32> {
        if subscriber & MARK == 0 {
            return None;
        }
        Some(&mut self.records[(subscriber & !MARK) as usize].subscriptions)
    }

    /// The listener that a subscriber of a topic is.
    pub(crate) fn id(&self, subscriber: u32) -> TopicListenerId {
        let slot = subscriber & !MARK;
        TopicListenerId { worker: self.worker, slot, generation: self.records[slot as usize].generation }
    }

    pub(crate) fn is_open(&self, id: TopicListenerId) -> bool {
        let record = self.records.get(id.slot as usize);
        id.worker == self.worker && record.is_some_and(|record| record.generation == id.generation)
    }

    fn open(&mut self, most: u32) -> Result<TopicListenerId, TooManyListeners> {
        if self.records.len() - self.free.len() >= most.min(MARK - 1) as usize {
            return Err(TooManyListeners);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.records.push(Record { generation: 0, subscriptions: NIL });
            self.records.len() as u32 - 1
        });
        let record = &mut self.records[slot as usize];
        record.generation = record.generation.wrapping_add(1);
        Ok(TopicListenerId { worker: self.worker, slot, generation: record.generation })
    }

    /// Its subscriptions have ended.
    fn close(&mut self, id: TopicListenerId) {
        let record = &mut self.records[id.slot as usize];
        record.generation = record.generation.wrapping_add(1);
        self.free.push(id.slot);
    }
}

impl Core {
    /// The listener as a subscriber of topics, while it is open.
    fn listener(&self, id: TopicListenerId) -> Option<u32> {
        self.table.listeners.is_open(id).then_some(id.slot | MARK)
    }
}

impl Scope<'_> {
    /// A new listener: a subscriber without a connection, whose publications reach
    /// [`Handler::heard`](super::Handler::heard). It stays until [`Scope::listener_close`].
    ///
    /// # Errors
    /// The worker has [`Limits::listeners`](super::Limits::listeners) already.
    pub fn listen(&mut self) -> Result<TopicListenerId, TooManyListeners> {
        let table = &mut self.core.table;
        table.listeners.open(table.config.limits.listeners)
    }

    /// As [`Conn::subscribe`](super::Conn::subscribe), for a listener of this worker: it hears what is published from now
    /// on. The limit of subscriptions is that of a connection.
    pub fn listener_subscribe(&mut self, id: TopicListenerId, topic: &str) -> Result<(), SubscribeError> {
        let subscriber = self.core.listener(id).ok_or(SubscribeError::NoSubscriber)?;
        self.core.subscribe_any(subscriber, topic, LISTENING)
    }

    /// Ends a subscription of a listener; what was published before is still heard. False if there was none.
    pub fn listener_unsubscribe(&mut self, id: TopicListenerId, topic: &str) -> bool {
        let Some(subscriber) = self.core.listener(id) else { return false };
        let core = &mut *self.core;
        core.topics.unsubscribe(subscriber, topic, &mut core.table).is_some()
    }

    /// Ends a listener and its subscriptions. What was published and not heard counts as undelivered. A second time
    /// changes nothing.
    pub fn listener_close(&mut self, id: TopicListenerId) {
        let Some(subscriber) = self.core.listener(id) else { return };
        let core = &mut *self.core;
        core.topics.unsubscribe_all(subscriber, &mut core.table);
        core.table.listeners.close(id);
    }

    /// As [`Scope::publish`], to all subscribers but this listener.
    pub fn publish_from_listener(&mut self, id: TopicListenerId, topic: &str, message: Message<'_>) -> Published {
        let except = self.core.listener(id);
        self.core.publish(topic, except, 0, message)
    }
}
