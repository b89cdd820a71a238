//! The table of topics and subscriptions.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::fanout::{Owed, Pass, Pending};
use super::{CLASSES, Limits, NIL, SubscribeError, Subscribed, Subscribers, Unsubscribed};
use crate::buffer::Paged;

/// Buffers for pending publications that idle topics have given back: how many are kept, and how long each may be.
const SPARES: usize = 1024;
const SPARE_LEN: usize = 1024;

/// A subscriber list of this many entries or more gives memory back when three quarters of it are unused.
const SHRINK_FROM: usize = 1024;

/// The topics of one worker. See the [module](super) for what is promised.
#[derive(Debug)]
pub struct Topics<P> {
    pub(super) limits: Limits,
    // std's hasher is seeded per process: peers choose names, and must not be able to choose collisions.
    names: HashMap<Arc<str>, u32>,
    pub(super) topics: Slab<Topic<P>>,
    pub(super) nodes: NodePool,
    /// The topics that have pending publications, and only they.
    pub(super) queue: Queue,
    pub(super) owed: Owed,
    /// Publications so far: gives every publication its place among those of all topics.
    published: u64,
    spares: Vec<Vec<Pending<P>>>,
}

/// One topic. Positions in `pending` count from `base`, which grows by what was retired and wraps; for every subscriber
/// `base <= seen <= base + pending.len()` holds in that wrapping sense.
///
/// That is why `seen` is a position within the topic and not a worker-wide sequence: a subscriber of a silent topic
/// could fall 2^31 publications behind the worker and would be taken for one that is ahead.
#[derive(Debug)]
pub(super) struct Topic<P> {
    name: Arc<str>,
    pub(super) subs: Vec<Sub>,
    pub(super) pending: Vec<Pending<P>>,
    pub(super) base: u32,
    /// How far the running pass got in `subs`; 0 when none is running.
    pub(super) cursor: u32,
    pub(super) pass: Pass<P>,
    /// Subscribers of each class, where there is one of another class than 0.
    classes: Option<Box<[u32; CLASSES]>>,
    queue_prev: u32,
    queue_next: u32,
}

/// An entry in a topic's list of subscribers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sub {
    pub(super) conn: u32,
    pub(super) node: u32,
}

/// A topic of one worker, found by its name. It names that topic until somebody unsubscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicId(u32);

/// A topic and the class of a subscription to it, in the 4 bytes of the topic alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place(u32);

impl Place {
    const CLASS_SHIFT: u32 = 27;
    /// Topics that there can be beside the class.
    const TOPICS: u32 = 1 << Self::CLASS_SHIFT;

    fn new(topic: u32, class: u8) -> Self {
        Place(u32::from(class) << Self::CLASS_SHIFT | topic)
    }

    #[inline]
    pub(super) fn topic(self) -> u32 {
        self.0 & (Self::TOPICS - 1)
    }

    #[inline]
    pub(super) fn class(self) -> u8 {
        (self.0 >> Self::CLASS_SHIFT) as u8
    }
}

const _: () = assert!(CLASSES <= 1 << (32 - Place::CLASS_SHIFT));

/// A subscription as an entry in its connection's list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Node {
    pub(super) place: Place,
    /// Where the subscription stands in the topic's `subs`.
    pos: u32,
    /// The connection's next subscription, or the next free node.
    pub(super) next: u32,
    /// What this subscriber has been given, as a position in the topic's publications.
    pub(super) seen: u32,
}

const _: () = assert!(size_of::<Sub>() + size_of::<Node>() == 24);

impl<P> Topics<P> {
    /// No topics; allocates nothing yet.
    pub fn new(limits: Limits) -> Self {
        Topics {
            limits,
            names: HashMap::new(),
            topics: Slab::new(),
            nodes: NodePool::default(),
            queue: Queue::default(),
            owed: Owed::default(),
            published: 0,
            spares: Vec::new(),
        }
    }

    /// Subscribes `conn` to `name` in class 0; see [`Topics::subscribe_as`].
    pub fn subscribe(
        &mut self,
        conn: u32,
        name: &str,
        owner: &mut impl Subscribers<P>,
    ) -> Result<Subscribed, SubscribeError> {
        self.subscribe_as(conn, name, 0, owner)
    }

    /// Subscribes `conn` to `name`, creating the topic if need be. The connection is owed only what is published from
    /// now on, and gets it in this class ([`Run::class`](super::Run::class)). If it had subscribed in another one it is
    /// first handed what it is owed in that. Costs one hash and a look at each subscription of the connection.
    ///
    /// # Errors
    /// A limit was reached, or there is no such class; nothing has changed.
    pub fn subscribe_as(
        &mut self,
        conn: u32,
        name: &str,
        class: u8,
        owner: &mut impl Subscribers<P>,
    ) -> Result<Subscribed, SubscribeError> {
        debug_assert_ne!(conn, NIL);
        if usize::from(class) >= CLASSES {
            return Err(SubscribeError::NoSuchClass);
        }
        let existing = self.names.get(name).copied();
        let head = *owner.head(conn);
        let (mut count, mut at) = (0, head);
        while at != NIL {
            let node = self.nodes[at];
            if Some(node.place.topic()) == existing {
                return Ok(self.reclass(conn, at, class, owner));
            }
            (count, at) = (count + 1, node.next);
        }
        if count >= self.limits.max_subscriptions {
            return Err(SubscribeError::TooManySubscriptions);
        }
        let topic = match existing {
            Some(topic) => topic,
            None => self.create(name)?,
        };
        let record = &mut self.topics[topic as usize];
        let seen = record.base.wrapping_add(record.pending.len() as u32);
        let node = Node { place: Place::new(topic, class), pos: record.subs.len() as u32, next: head, seen };
        let node = self.nodes.insert(node);
        record.count_in(class);
        record.subs.push(Sub { conn, node });
        *owner.head(conn) = node;
        Ok(Subscribed::New { first_here: existing.is_none() })
    }

    /// Ends a subscription, after handing the connection what it is owed. `None` if there was none.
    ///
    /// In the middle of a walk another subscriber may be handed what it is owed, too.
    pub fn unsubscribe(&mut self, conn: u32, name: &str, owner: &mut impl Subscribers<P>) -> Option<Unsubscribed> {
        let topic = *self.names.get(name)?;
        let head = *owner.head(conn);
        let mut before = NIL;
        let (at, next) = self.nodes.list(head).find_map(|(at, node)| {
            if node.place.topic() == topic {
                return Some((at, node.next));
            }
            before = at;
            None
        })?;
        self.catch_up(conn, owner);
        match before {
            NIL => *owner.head(conn) = next,
            before => self.nodes[before].next = next,
        }
        Some(Unsubscribed { last_here: self.detach(at, owner) })
    }

    /// Ends all subscriptions of a connection that is closing, after handing it what it is owed. Costs a step per
    /// subscription.
    pub fn unsubscribe_all(&mut self, conn: u32, owner: &mut impl Subscribers<P>) {
        self.catch_up(conn, owner);
        loop {
            let head = owner.head(conn);
            let at = *head;
            if at == NIL {
                return;
            }
            *head = self.nodes[at].next;
            self.detach(at, owner);
        }
    }

    /// Publishes to everybody who has subscribed to `name`, but for the connection `except` ([`NIL`]: nobody is left
    /// out). Delivers nothing: that is what [`Topics::walk`] does. Costs one hash and an append.
    ///
    /// Returns how many have subscribed, `except` included.
    ///
    /// # Errors
    /// Nobody has subscribed here: the publication comes back, and nothing was created.
    pub fn publish(&mut self, name: &str, except: u32, publication: P) -> Result<u32, P> {
        match self.find(name) {
            Some(topic) => Ok(self.publish_to(topic, except, publication)),
            None => Err(publication),
        }
    }

    /// The topic of this name, if anybody has subscribed to it here.
    pub fn find(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).map(|&topic| TopicId(topic))
    }

    /// The classes that have subscribers of a topic: a bit for each, that of class 0 the lowest.
    #[inline]
    pub fn classes(&self, topic: TopicId) -> u32 {
        match &self.topics[topic.0 as usize].classes {
            None => 1,
            Some(counts) => counts.iter().rev().fold(0, |mask, &count| mask << 1 | u32::from(count > 0)),
        }
    }

    /// As [`Topics::publish`], to a topic that was found already.
    ///
    /// # Panics
    /// If the topic is gone.
    pub fn publish_to(&mut self, topic: TopicId, except: u32, publication: P) -> u32 {
        let topic = topic.0;
        let record = &mut self.topics[topic as usize];
        if record.pending.is_empty() {
            record.pending = self.spares.pop().unwrap_or_default();
            self.queue.push_back(&mut self.topics, topic);
        }
        let record = &mut self.topics[topic as usize];
        record.pending.push(Pending { sequence: self.published, except, publication });
        self.published += 1;
        record.subs.len() as u32
    }

    /// Whether anybody has subscribed to `name` here.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// How many have subscribed to `name` here.
    pub fn subscribers(&self, name: &str) -> u32 {
        self.names.get(name).map_or(0, |&topic| self.topics[topic as usize].subs.len() as u32)
    }

    /// Whether there is nothing left to walk: nobody is owed anything, and every publication is retired.
    pub fn is_idle(&self) -> bool {
        self.queue.len == 0
    }

    /// Topics with at least one subscriber here.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is no topic.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Keeps the buffer of a topic that has gone idle for the next topic that is published to, so that an idle topic
    /// costs no buffer and a busy one allocates none.
    pub(super) fn spare(&mut self, buffer: Vec<Pending<P>>) {
        debug_assert!(buffer.is_empty());
        if self.spares.len() < SPARES && buffer.capacity() <= SPARE_LEN {
            self.spares.push(buffer);
        }
    }

    fn create(&mut self, name: &str) -> Result<u32, SubscribeError> {
        if self.topics.len() >= self.limits.max_topics.min(Place::TOPICS) as usize {
            return Err(SubscribeError::TooManyTopics);
        }
        let name: Arc<str> = name.into();
        let topic = self.topics.insert(Topic {
            name: name.clone(),
            subs: Vec::new(),
            pending: Vec::new(),
            base: 0,
            cursor: 0,
            pass: Pass::default(),
            classes: None,
            queue_prev: NIL,
            queue_next: NIL,
        }) as u32;
        self.names.insert(name, topic);
        Ok(topic)
    }

    /// Changes the class of a subscription, if it is of another one.
    fn reclass(&mut self, conn: u32, at: u32, class: u8, owner: &mut impl Subscribers<P>) -> Subscribed {
        let place = self.nodes[at].place;
        if place.class() != class {
            self.catch_up(conn, owner);
            let record = &mut self.topics[place.topic() as usize];
            record.count_in(class);
            record.count_out(place.class());
            self.nodes[at].place = Place::new(place.topic(), class);
        }
        Subscribed::Already
    }

    /// Takes a subscription, which its connection's list no longer holds, out of its topic. True if the topic went with
    /// it.
    fn detach(&mut self, at: u32, owner: &mut impl Subscribers<P>) -> bool {
        let Node { place, pos, .. } = self.nodes.remove(at);
        let topic = place.topic();
        self.topics[topic as usize].count_out(place.class());
        let record = &self.topics[topic as usize];
        let last = record.subs.len() as u32 - 1;
        // The last subscriber takes the free place. If the running pass has passed that place, but has not come to the
        // last one yet, it would now miss it.
        if pos < record.cursor && record.cursor <= last {
            self.catch_up(record.subs[last as usize].conn, owner);
        }
        let record = &mut self.topics[topic as usize];
        record.subs.swap_remove(pos as usize);
        record.cursor = record.cursor.min(last);
        if let Some(moved) = record.subs.get(pos as usize) {
            self.nodes[moved.node].pos = pos;
        }
        if record.subs.capacity() >= SHRINK_FROM && record.subs.len() < record.subs.capacity() / 4 {
            record.subs.shrink_to(record.subs.len() * 2);
        }
        if last == 0 {
            self.remove(topic, owner);
        }
        last == 0
    }

    fn remove(&mut self, topic: u32, owner: &mut impl Subscribers<P>) {
        if !self.topics[topic as usize].pending.is_empty() {
            self.queue.unlink(&mut self.topics, topic);
        }
        let mut record = self.topics.remove(topic as usize);
        self.names.remove(&record.name);
        record.pending.drain(..).for_each(|pending| owner.retire(pending.publication));
        self.spare(record.pending);
        if let Some(joined) = record.pass.joined {
            owner.retire(joined);
        }
        owner.topic_gone(&record.name);
    }
}

impl<P> Topic<P> {
    /// To be called before the subscriber is in the list.
    fn count_in(&mut self, class: u8) {
        if class > 0 && self.classes.is_none() {
            let mut counts = Box::new([0; CLASSES]);
            counts[0] = self.subs.len() as u32;
            self.classes = Some(counts);
        }
        if let Some(counts) = &mut self.classes {
            counts[usize::from(class)] += 1;
        }
    }

    fn count_out(&mut self, class: u8) {
        if let Some(counts) = &mut self.classes {
            counts[usize::from(class)] -= 1;
        }
    }
}

/// The nodes of all subscriptions, recycled.
#[derive(Debug)]
pub(super) struct NodePool {
    nodes: Paged<Node>,
    free: u32,
    /// Nodes that were handed out at least once.
    touched: u32,
}

impl Default for NodePool {
    fn default() -> Self {
        NodePool { nodes: Paged::new(), free: NIL, touched: 0 }
    }
}

impl NodePool {
    /// A connection's subscriptions from `head` on.
    #[inline]
    pub(super) fn list(&self, head: u32) -> impl Iterator<Item = (u32, Node)> + '_ {
        let mut next = head;
        std::iter::from_fn(move || {
            let at = next;
            let node = (at != NIL).then(|| self.nodes[at])?;
            next = node.next;
            Some((at, node))
        })
    }

    fn insert(&mut self, node: Node) -> u32 {
        let mut at = self.free;
        if at == NIL {
            at = self.touched;
            self.nodes.ensure(at);
            self.touched += 1;
        } else {
            self.free = self.nodes[at].next;
        }
        self.nodes[at] = node;
        at
    }

    fn remove(&mut self, at: u32) -> Node {
        let node = self.nodes[at];
        self.nodes[at].next = self.free;
        self.free = at;
        node
    }
}

impl std::ops::Index<u32> for NodePool {
    type Output = Node;
    #[inline]
    fn index(&self, at: u32) -> &Node {
        &self.nodes[at]
    }
}

impl std::ops::IndexMut<u32> for NodePool {
    #[inline]
    fn index_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at]
    }
}

/// A list through the topics themselves: a topic that goes leaves it in one step, however long it is.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) head: u32,
    tail: u32,
    pub(super) len: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { head: NIL, tail: NIL, len: 0 }
    }
}

impl Queue {
    pub(super) fn push_back<P>(&mut self, topics: &mut Slab<Topic<P>>, topic: u32) {
        let record = &mut topics[topic as usize];
        (record.queue_prev, record.queue_next) = (self.tail, NIL);
        match self.tail {
            NIL => self.head = topic,
            tail => topics[tail as usize].queue_next = topic,
        }
        self.tail = topic;
        self.len += 1;
    }

    pub(super) fn unlink<P>(&mut self, topics: &mut Slab<Topic<P>>, topic: u32) {
        let record = &topics[topic as usize];
        let (prev, next) = (record.queue_prev, record.queue_next);
        match prev {
            NIL => self.head = next,
            prev => topics[prev as usize].queue_next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => topics[next as usize].queue_prev = prev,
        }
        self.len -= 1;
    }
}
