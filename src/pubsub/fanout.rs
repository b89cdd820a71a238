//! Walks: how pending publications reach their subscribers.
#![forbid(unsafe_code)]

use super::topic::{Place, Sub, Topic, Topics};
use super::{NIL, Subscribers};

/// The catch-up's scratch space gives memory back beyond this many entries.
const SCRATCH_LEN: usize = 4096;

/// Publications that one connection is owed, oldest first. Never empty.
///
/// It is a view of the topic's pending publications: making one copies nothing.
#[derive(Debug)]
pub struct Run<'a, P> {
    pending: &'a [Pending<P>],
    /// Whose run this is: it leaves out what names this connection as its exception.
    conn: u32,
    len: u32,
    class: u8,
    whole: bool,
    joined: Option<&'a P>,
}

/// A publication that waits for a walk.
#[derive(Debug)]
pub(super) struct Pending<P> {
    /// Its place among the publications of all topics of this worker.
    pub(super) sequence: u64,
    pub(super) except: u32,
    pub(super) publication: P,
}

/// The pass of a walk over one topic: the oldest `len` pending publications go to every subscriber. What is published
/// meanwhile waits for the next pass.
#[derive(Debug)]
pub(super) struct Pass<P> {
    /// 0 when no pass is running.
    len: u32,
    /// Whether a publication of this pass leaves somebody out.
    excepts: bool,
    pub(super) joined: Option<P>,
}

impl<P> Default for Pass<P> {
    fn default() -> Self {
        Pass { len: 0, excepts: false, joined: None }
    }
}

/// Scratch space of a catch-up.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Topics that owe the connection, and the position of the oldest publication owed.
    topics: Vec<(Place, u32)>,
    /// Sequence, topic, position.
    merged: Vec<(u64, Place, u32)>,
}

impl<'a, P> Run<'a, P> {
    /// What `conn` is owed of the publications from `from` on and before `to`. Its length may be 0: then nobody sees
    /// it.
    #[inline]
    fn new(pending: &'a [Pending<P>], pass: &'a Pass<P>, conn: u32, class: u8, from: u32, to: u32) -> Self {
        let pending = &pending[from as usize..to as usize];
        let for_all = to <= pass.len && !pass.excepts;
        let len = match for_all {
            true => pending.len(),
            false => pending.iter().filter(|pending| pending.except != conn).count(),
        };
        let whole = for_all && len == pass.len as usize;
        Run { pending, conn, len: len as u32, class, whole, joined: pass.joined.as_ref().filter(|_| whole) }
    }

    /// The publications, in publish order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &'a P> + Clone + use<'a, P> {
        let (conn, whole) = (self.conn, self.whole);
        self.pending.iter().filter(move |pending| whole || pending.except != conn).map(|pending| &pending.publication)
    }

    /// How many there are: at least one.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a run is never empty")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The class of the subscription that these are handed over for.
    #[inline]
    pub fn class(&self) -> u8 {
        self.class
    }

    /// Whether these are exactly the publications of the running pass, which go to everybody who has subscribed.
    #[inline]
    pub fn is_whole_pass(&self) -> bool {
        self.whole
    }

    /// What [`Subscribers::join`] made of this very run at the start of the pass.
    #[inline]
    pub fn joined(&self) -> Option<&'a P> {
        self.joined
    }
}

/// Why a pass stopped.
enum Stop {
    /// Every subscriber has been visited.
    End,
    Budget,
    /// The connection that was just passed has other topics that may owe it something older.
    CatchUp(u32),
}

impl<P> Topics<P> {
    /// Hands `conn` everything that was published so far to its topics, in publish order. Returns how many publications
    /// it got.
    ///
    /// Costs nothing when nothing is pending on this worker or the connection has no subscription; else a look at each
    /// of its subscriptions.
    #[inline]
    pub fn catch_up(&mut self, conn: u32, owner: &mut impl Subscribers<P>) -> u32 {
        if self.queue.len == 0 {
            return 0;
        }
        match *owner.head(conn) {
            NIL => 0,
            head => self.catch_up_list(conn, head, owner),
        }
    }

    /// Delivers what is pending, topic by topic, until everybody has everything or the budget is used up; the next call
    /// goes on from there. A topic whose pass the budget has cut goes behind the others.
    ///
    /// The budget counts publications handed over, a joined run as one; a subscriber who is owed nothing costs 1, so that
    /// a slice stays short. It is exceeded by at most what the last subscriber was owed.
    pub fn walk(&mut self, budget: &mut u32, owner: &mut impl Subscribers<P>) {
        while *budget > 0 && self.queue.len > 0 {
            let topic = self.queue.head;
            self.begin_pass(topic, owner);
            match self.advance(topic, budget, owner) {
                Stop::End => self.end_pass(topic, owner),
                Stop::Budget => self.requeue(topic),
                Stop::CatchUp(conn) => *budget = budget.saturating_sub(self.catch_up(conn, owner).max(1)),
            }
        }
    }

    fn begin_pass(&mut self, topic: u32, owner: &mut impl Subscribers<P>) {
        let record = &mut self.topics[topic as usize];
        if record.pass.len > 0 {
            return;
        }
        let (mut bytes, most) = (0, self.limits.pass_bytes);
        let fits = record.pending.iter().take_while(|pending| {
            bytes += owner.size(&pending.publication);
            bytes <= most
        });
        record.pass.len = fits.count().max(1) as u32;
        record.pass.excepts = record.pending[..record.pass.len as usize].iter().any(|pending| pending.except != NIL);
        if record.pass.len > 1 && !record.pass.excepts && record.subs.len() > 1 {
            record.pass.joined = owner.join(&Run::new(&record.pending, &record.pass, NIL, 0, 0, record.pass.len));
        }
    }

    /// Goes on with the pass over one topic. This is the loop that fan-out consists of.
    #[inline]
    fn advance(&mut self, topic: u32, budget: &mut u32, owner: &mut impl Subscribers<P>) -> Stop {
        let others_pending = self.queue.len > 1;
        let Topic { subs, pending, base, cursor, pass, .. } = &mut self.topics[topic as usize];
        let upto = base.wrapping_add(pass.len);
        for &Sub { conn, node: at } in &subs[*cursor as usize..] {
            if *budget == 0 {
                return Stop::Budget;
            }
            *cursor += 1;
            let node = &mut self.nodes[at];
            let from = node.seen.wrapping_sub(*base);
            if from >= pass.len {
                *budget -= 1;
                continue;
            }
            // Planted fault for the fuzz target `topic_ops`: without this step a connection gets its topics one after
            // the other, and so out of publish order.
            #[cfg(not(planted_fault = "order"))]
            if others_pending && (node.next != NIL || *owner.head(conn) != at) {
                return Stop::CatchUp(conn);
            }
            #[cfg(planted_fault = "order")]
            let _ = (others_pending, Stop::CatchUp);
            node.seen = upto;
            let run = Run::new(pending, pass, conn, node.place.class(), from, pass.len);
            *budget = budget.saturating_sub(owner.weight(&run).max(1));
            if run.len > 0 {
                owner.deliver(conn, run);
            }
        }
        Stop::End
    }

    fn end_pass(&mut self, topic: u32, owner: &mut impl Subscribers<P>) {
        let record = &mut self.topics[topic as usize];
        let pass = std::mem::take(&mut record.pass);
        record.cursor = 0;
        record.base = record.base.wrapping_add(pass.len);
        // What stays was published during this pass; it moves to the front once and leaves with the next pass.
        record.pending.drain(..pass.len as usize).for_each(|pending| owner.retire(pending.publication));
        if let Some(joined) = pass.joined {
            owner.retire(joined);
        }
        if record.pending.is_empty() {
            let buffer = std::mem::take(&mut record.pending);
            self.queue.unlink(&mut self.topics, topic);
            self.spare(buffer);
        } else {
            self.requeue(topic);
        }
    }

    fn requeue(&mut self, topic: u32) {
        self.queue.unlink(&mut self.topics, topic);
        self.queue.push_back(&mut self.topics, topic);
    }

    fn catch_up_list(&mut self, conn: u32, head: u32, owner: &mut impl Subscribers<P>) -> u32 {
        self.collect_owing(head);
        if let &[(place, from)] = &self.owed.topics[..] {
            let record = &self.topics[place.topic() as usize];
            let to = record.pending.len() as u32;
            let run = Run::new(&record.pending, &record.pass, conn, place.class(), from, to);
            let delivered = run.len;
            if delivered > 0 {
                owner.deliver(conn, run);
            }
            return delivered;
        }
        self.merge_owed(conn);
        for &(_, place, position) in &self.owed.merged {
            let pending = &self.topics[place.topic() as usize].pending[position as usize..=position as usize];
            owner.deliver(conn, Run { pending, conn, len: 1, class: place.class(), whole: false, joined: None });
        }
        let delivered = self.owed.merged.len() as u32;
        self.owed.merged.clear();
        self.owed.merged.shrink_to(SCRATCH_LEN);
        delivered
    }

    /// Notes the topics that owe something to the connection of this list, and marks it as seen.
    fn collect_owing(&mut self, head: u32) {
        self.owed.topics.clear();
        let mut at = head;
        while at != NIL {
            let node = &mut self.nodes[at];
            at = node.next;
            let record = &self.topics[node.place.topic() as usize];
            let from = node.seen.wrapping_sub(record.base);
            if (from as usize) < record.pending.len() {
                node.seen = record.base.wrapping_add(record.pending.len() as u32);
                self.owed.topics.push((node.place, from));
            }
        }
    }

    fn merge_owed(&mut self, conn: u32) {
        self.owed.merged.clear();
        for &(place, from) in &self.owed.topics {
            for (position, pending) in
                self.topics[place.topic() as usize].pending.iter().enumerate().skip(from as usize)
            {
                if pending.except != conn {
                    self.owed.merged.push((pending.sequence, place, position as u32));
                }
            }
        }
        self.owed.merged.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{CLASSES, Limits, SubscribeError, Subscribed, Unsubscribed};
    use super::*;

    const CONNS: u32 = 6;
    const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

    /// A publication, or several joined. Not `Clone`: what is retired is what was published.
    #[derive(Debug, PartialEq)]
    struct Load(Vec<u32>);

    /// Connections that remember what they were given.
    #[derive(Default)]
    struct Owner {
        heads: BTreeMap<u32, u32>,
        got: BTreeMap<u32, Vec<u32>>,
        /// In which class each came.
        classes: BTreeMap<u32, Vec<u8>>,
        /// Who was given how much, in order; visits to the same connection in a row are one entry.
        visits: Vec<(u32, u32)>,
        retired: Vec<u32>,
        joins: u32,
        joins_retired: u32,
        joined_used: u32,
        gone: Vec<String>,
        join: bool,
    }

    impl Subscribers<Load> for Owner {
        fn head(&mut self, conn: u32) -> &mut u32 {
            self.heads.entry(conn).or_insert(NIL)
        }

        fn deliver(&mut self, conn: u32, run: Run<'_, Load>) {
            let items: Vec<u32> = run.iter().map(|load| load.0[0]).collect();
            assert!(run.len() > 0 && run.len() as usize == items.len());
            if let Some(joined) = run.joined() {
                assert!(run.is_whole_pass());
                assert_eq!(joined.0, items);
                self.joined_used += 1;
            }
            self.classes.entry(conn).or_default().extend(items.iter().map(|_| run.class()));
            let cost = if run.joined().is_some() { 1 } else { run.len() };
            match self.visits.last_mut() {
                Some((last, count)) if *last == conn => *count += cost,
                _ => self.visits.push((conn, cost)),
            }
            self.got.entry(conn).or_default().extend(items);
        }

        fn size(&self, _: &Load) -> usize {
            1
        }

        fn retire(&mut self, publication: Load) {
            match publication.0.len() {
                1 => self.retired.push(publication.0[0]),
                _ => self.joins_retired += 1,
            }
        }

        fn join(&mut self, run: &Run<'_, Load>) -> Option<Load> {
            assert!(run.len() > 1 && run.is_whole_pass());
            self.joins += u32::from(self.join);
            self.join.then(|| Load(run.iter().map(|load| load.0[0]).collect()))
        }

        fn topic_gone(&mut self, name: &str) {
            self.gone.push(name.to_owned());
        }
    }

    impl Owner {
        fn of(&self, conn: u32) -> &[u32] {
            self.got.get(&conn).map_or(&[], Vec::as_slice)
        }
    }

    /// A fixture: topics, their owner, and what connections would have got if publishing delivered at once.
    struct World {
        topics: Topics<Load>,
        owner: Owner,
        members: BTreeMap<&'static str, Vec<(u32, u8)>>,
        expected: BTreeMap<u32, Vec<u32>>,
        expected_classes: BTreeMap<u32, Vec<u8>>,
        published: u32,
        unheard: u32,
    }

    impl World {
        fn new(join: bool) -> Self {
            let limits = Limits { max_subscriptions: 3, max_topics: 3, pass_bytes: 5 };
            World {
                topics: Topics::new(limits),
                owner: Owner { join, ..Owner::default() },
                members: BTreeMap::new(),
                expected: BTreeMap::new(),
                expected_classes: BTreeMap::new(),
                published: 0,
                unheard: 0,
            }
        }

        fn subscribe(&mut self, conn: u32, name: &'static str, class: u8) {
            let is_it = |member: &&mut (u32, u8)| member.0 == conn;
            let count = self.members.values().flatten().filter(|member| member.0 == conn).count();
            let exists = self.members.contains_key(name);
            let members = self.members.get_mut(name);
            let expected = if usize::from(class) >= CLASSES {
                Err(SubscribeError::NoSuchClass)
            } else if let Some(member) = members.and_then(|members| members.iter_mut().find(is_it)) {
                member.1 = class;
                Ok(Subscribed::Already)
            } else if count >= 3 {
                Err(SubscribeError::TooManySubscriptions)
            } else if !exists && self.members.len() >= 3 {
                Err(SubscribeError::TooManyTopics)
            } else {
                self.members.entry(name).or_default().push((conn, class));
                Ok(Subscribed::New { first_here: !exists })
            };
            assert_eq!(self.topics.subscribe_as(conn, name, class, &mut self.owner), expected);
        }

        fn leave(&mut self, conn: u32, name: &'static str) -> Option<Unsubscribed> {
            let members = self.members.get_mut(name)?;
            let at = members.iter().position(|member| member.0 == conn)?;
            members.remove(at);
            let last_here = members.is_empty();
            if last_here {
                self.members.remove(name);
            }
            Some(Unsubscribed { last_here })
        }

        fn unsubscribe(&mut self, conn: u32, name: &'static str) {
            let expected = self.leave(conn, name);
            self.owner.gone.clear();
            assert_eq!(self.topics.unsubscribe(conn, name, &mut self.owner), expected);
            assert_eq!(self.owner.gone.len(), usize::from(expected.is_some_and(|left| left.last_here)));
            if expected.is_some() {
                self.assert_caught_up(conn);
            }
        }

        fn close(&mut self, conn: u32) {
            let gone = TOPICS.iter().filter(|name| self.leave(conn, name).is_some_and(|left| left.last_here)).count();
            self.owner.gone.clear();
            self.topics.unsubscribe_all(conn, &mut self.owner);
            assert_eq!(self.owner.gone.len(), gone);
            assert_eq!(*self.owner.head(conn), NIL);
            self.assert_caught_up(conn);
        }

        fn publish(&mut self, name: &'static str, except: u32) {
            let load = Load(vec![self.published]);
            match self.members.get(name) {
                None => {
                    assert_eq!(self.topics.publish(name, except, load), Err(Load(vec![self.published])));
                    self.unheard += 1;
                }
                Some(members) => {
                    assert_eq!(self.topics.publish(name, except, load), Ok(members.len() as u32));
                    for &(conn, class) in members.iter().filter(|member| member.0 != except) {
                        self.expected.entry(conn).or_default().push(self.published);
                        self.expected_classes.entry(conn).or_default().push(class);
                    }
                }
            }
            self.published += 1;
        }

        fn catch_up(&mut self, conn: u32) {
            let before = self.owner.of(conn).len();
            let delivered = self.topics.catch_up(conn, &mut self.owner) as usize;
            assert_eq!(self.owner.of(conn).len() - before, delivered);
            self.assert_caught_up(conn);
        }

        fn walk(&mut self, budget: u32) {
            self.owner.visits.clear();
            let mut left = budget;
            self.topics.walk(&mut left, &mut self.owner);
            assert!(left == 0 || self.topics.is_idle(), "a walk stops early only when it is done");
            let without_last = self.owner.visits.iter().rev().skip(1).map(|visit| visit.1).sum::<u32>();
            assert!(without_last <= budget.saturating_sub(1), "{without_last} of {budget}");
        }

        fn assert_caught_up(&self, conn: u32) {
            assert_eq!(self.owner.of(conn), self.expected.get(&conn).map_or(&[][..], Vec::as_slice));
        }

        fn check(&self) {
            assert_eq!(self.topics.len(), self.members.len());
            for name in TOPICS {
                let members = self.members.get(name).map_or(0, Vec::len);
                assert_eq!(self.topics.subscribers(name) as usize, members);
                assert_eq!(self.topics.has(name), members > 0);
                let classes = self.members.get(name).into_iter().flatten().fold(0, |mask, member| mask | 1 << member.1);
                assert_eq!(self.topics.find(name).map_or(0, |topic| self.topics.classes(topic)), classes);
            }
            for (conn, got) in &self.owner.got {
                let expected = &self.expected[conn];
                assert!(expected.starts_with(got), "connection {conn} got {got:?} of {expected:?}");
                assert!(self.expected_classes[conn].starts_with(&self.owner.classes[conn]), "each in its class");
            }
            let waiting = self.topics.topics.iter().filter(|(_, topic)| !topic.pending.is_empty()).count();
            assert_eq!(self.topics.queue.len as usize, waiting);
            assert_eq!(self.topics.is_idle(), waiting == 0);
            for (_, topic) in &self.topics.topics {
                for sub in &topic.subs {
                    assert!(self.topics.nodes[sub.node].seen.wrapping_sub(topic.base) as usize <= topic.pending.len());
                }
            }
        }

        fn finish(&mut self) {
            self.walk(u32::MAX);
            self.check();
            assert!(self.topics.is_idle());
            (0..CONNS).for_each(|conn| self.assert_caught_up(conn));
            self.owner.retired.sort_unstable();
            self.owner.retired.dedup();
            assert_eq!(self.owner.retired.len() as u32 + self.unheard, self.published, "each is retired once");
            assert_eq!(self.owner.joins, self.owner.joins_retired);
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Subscribe(u32, usize, u8),
        Unsubscribe(u32, usize),
        Close(u32),
        Publish(usize, u32),
        CatchUp(u32),
        Walk(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..CONNS, 0..TOPICS.len(), prop_oneof![4 => Just(0u8), 2 => Just(1), 1 => Just(16), 1 => Just(17)])
                .prop_map(|(conn, name, class)| Op::Subscribe(conn, name, class)),
            2 => (0..CONNS, 0..TOPICS.len()).prop_map(|(conn, name)| Op::Unsubscribe(conn, name)),
            1 => (0..CONNS).prop_map(Op::Close),
            5 => (0..TOPICS.len(), 0..CONNS * 2)
                .prop_map(|(name, except)| Op::Publish(name, if except < CONNS { except } else { NIL })),
            1 => (0..CONNS).prop_map(Op::CatchUp),
            3 => (0u32..6).prop_map(Op::Walk),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn delivers_what_immediate_delivery_would(
            join in any::<bool>(),
            ops in prop::collection::vec(op(), 1..120),
        ) {
            let mut world = World::new(join);
            for op in ops {
                match op {
                    Op::Subscribe(conn, name, class) => world.subscribe(conn, TOPICS[name], class),
                    Op::Unsubscribe(conn, name) => world.unsubscribe(conn, TOPICS[name]),
                    Op::Close(conn) => world.close(conn),
                    Op::Publish(name, except) => world.publish(TOPICS[name], except),
                    Op::CatchUp(conn) => world.catch_up(conn),
                    Op::Walk(budget) => world.walk(budget),
                }
                world.check();
            }
            world.finish();
        }
    }

    fn topics_of(conns: std::ops::Range<u32>) -> (Topics<Load>, Owner) {
        let (mut topics, mut owner) = (Topics::new(Limits::default()), Owner::default());
        conns.for_each(|conn| {
            topics.subscribe(conn, "room", &mut owner).unwrap();
        });
        (topics, owner)
    }

    fn publish_all(topics: &mut Topics<Load>, ids: std::ops::Range<u32>) {
        ids.for_each(|id| {
            topics.publish("room", NIL, Load(vec![id])).unwrap();
        });
    }

    #[test]
    fn a_burst_is_one_visit_each_and_joined_once() {
        let (mut topics, mut owner) = topics_of(0..100);
        owner.join = true;
        publish_all(&mut topics, 0..16);
        topics.walk(&mut { u32::MAX }, &mut owner);
        assert_eq!(owner.visits, (0..100).map(|conn| (conn, 1)).collect::<Vec<_>>());
        assert_eq!((owner.joins, owner.joins_retired, owner.joined_used), (1, 1, 100));
        assert_eq!(owner.retired, (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_walk_serves_others_before_it_goes_on() {
        let (mut topics, mut owner) = topics_of(0..1000);
        topics.subscribe(5000, "small", &mut owner).unwrap();
        publish_all(&mut topics, 0..1);
        topics.publish("small", NIL, Load(vec![1])).unwrap();
        topics.walk(&mut 10, &mut owner);
        assert!(owner.of(5000).is_empty());
        topics.walk(&mut 10, &mut owner);
        assert_eq!(owner.of(5000), [1]);
        topics.walk(&mut { u32::MAX }, &mut owner);
        assert!((0..1000).all(|conn| owner.of(conn) == [0]));
    }

    #[test]
    fn what_arrives_during_a_pass_waits_for_the_next() {
        let (mut topics, mut owner) = topics_of(0..4);
        publish_all(&mut topics, 0..2);
        topics.walk(&mut 4, &mut owner);
        publish_all(&mut topics, 2..3);
        assert_eq!(topics.catch_up(3, &mut owner), 3);
        topics.walk(&mut 3, &mut owner);
        assert_eq!((owner.of(2), owner.of(3)), (&[0, 1][..], &[0, 1, 2][..]));
        assert_eq!(owner.retired, [0, 1]);
        topics.walk(&mut 9, &mut owner);
        assert!(topics.is_idle() && (0..4).all(|conn| owner.of(conn) == [0, 1, 2]));
    }

    #[test]
    fn the_subscriber_that_a_removal_moves_behind_the_cursor_misses_nothing() {
        let (mut topics, mut owner) = topics_of(0..4);
        publish_all(&mut topics, 0..1);
        topics.walk(&mut 2, &mut owner);
        topics.unsubscribe(0, "room", &mut owner).unwrap();
        assert_eq!(owner.of(3), [0]);
        topics.walk(&mut 9, &mut owner);
        assert!((0..4).all(|conn| owner.of(conn) == [0]));
    }

    #[test]
    fn a_slow_topic_survives_a_full_turn_of_its_counter() {
        let (mut topics, mut owner) = topics_of(0..2);
        let near = u32::MAX - 1;
        topics.topics[0].base = near;
        (0..2).for_each(|node| topics.nodes[node].seen = near);
        for round in 0..3 {
            publish_all(&mut topics, round * 2..round * 2 + 2);
            topics.walk(&mut 9, &mut owner);
        }
        assert_eq!((owner.of(0), owner.of(1)), (&[0, 1, 2, 3, 4, 5][..], &[0, 1, 2, 3, 4, 5][..]));
    }

    #[test]
    fn a_connection_with_the_most_subscriptions_leaves_them_all() {
        let (mut topics, mut owner) = (Topics::new(Limits::default()), Owner::default());
        let names: Vec<String> = (0..1024).map(|at| at.to_string()).collect();
        for name in &names {
            assert_eq!(topics.subscribe(7, name, &mut owner), Ok(Subscribed::New { first_here: true }));
        }
        assert_eq!(topics.subscribe(7, "more", &mut owner), Err(SubscribeError::TooManySubscriptions));
        for (id, name) in names.iter().enumerate() {
            topics.publish(name, NIL, Load(vec![id as u32])).unwrap();
        }
        for name in names.iter().step_by(2) {
            assert_eq!(topics.unsubscribe(7, name, &mut owner), Some(Unsubscribed { last_here: true }));
        }
        topics.unsubscribe_all(7, &mut owner);
        assert!(topics.is_empty() && topics.is_idle() && owner.gone.len() == 1024);
        assert_eq!(owner.of(7), (0..1024).collect::<Vec<_>>());
        assert_eq!(owner.retired.len(), 1024);
    }

    #[test]
    fn a_list_of_subscribers_gives_memory_back() {
        let (mut topics, mut owner) = topics_of(0..5000);
        (0..4999).for_each(|conn| topics.unsubscribe_all(conn, &mut owner));
        assert!(topics.topics[0].subs.capacity() < 1024);
        publish_all(&mut topics, 0..1);
        topics.walk(&mut 9, &mut owner);
        assert_eq!(owner.visits, [(4999, 1)]);
    }

    #[test]
    fn buffers_and_records_are_used_again() {
        let (mut topics, mut owner) = topics_of(0..1);
        let mut buffers = Vec::new();
        for round in 0..3 {
            publish_all(&mut topics, round..round + 1);
            buffers.push(topics.topics[0].pending.as_ptr());
            topics.walk(&mut 9, &mut owner);
            assert_eq!(topics.topics[0].pending.capacity(), 0, "an idle topic holds no buffer");
        }
        assert!(buffers.iter().all(|&buffer| buffer == buffers[0]));
    }
}
