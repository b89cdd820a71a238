//! `topic_ops`: a sequence of operations on [`Topics`] against a model that delivers at once.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use wingbeat::pubsub::{Limits, NIL, Run, SubscribeError, Subscribed, Subscribers, Topics, Unsubscribed};

const CONNECTIONS: u8 = 6;
/// Two that there are beside 0, and one beyond.
const CLASSES: [u8; 4] = [0, 1, 16, 17];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const LIMITS: Limits = Limits { max_subscriptions: 3, max_topics: 4, pass_bytes: 16 << 10 };

/// A publication, or several joined; deliberately not `Clone`: what is retired is what was published.
#[derive(Debug)]
struct Publication(Vec<u32>);

/// Connections that note what they are given.
#[derive(Default)]
struct Owner {
    heads: BTreeMap<u32, u32>,
    got: BTreeMap<u32, Vec<u32>>,
    retired: Vec<Vec<u32>>,
    joined: Vec<Vec<u32>>,
    gone: Vec<String>,
    /// In which class each came.
    classes: BTreeMap<u32, Vec<u8>>,
    delivered: u32,
    /// What the budget of a walk counts: a joined run is one.
    cost: u32,
    joins: bool,
}

impl Subscribers<Publication> for Owner {
    fn head(&mut self, conn: u32) -> &mut u32 {
        self.heads.entry(conn).or_insert(NIL)
    }

    fn deliver(&mut self, conn: u32, run: Run<'_, Publication>) {
        let numbers = run.iter().flat_map(|publication| publication.0.iter().copied()).collect::<Vec<_>>();
        assert_eq!(numbers.len(), run.len() as usize);
        assert!(!numbers.is_empty(), "an empty run was delivered");
        if let Some(joined) = run.joined() {
            assert_eq!(joined.0, numbers, "what was joined is not this run");
        }
        self.delivered += run.len();
        self.cost += if run.joined().is_some() { 1 } else { run.len() };
        self.classes.entry(conn).or_default().extend(numbers.iter().map(|_| run.class()));
        self.got.entry(conn).or_default().extend(numbers);
    }

    fn retire(&mut self, publication: Publication) {
        self.retired.push(publication.0);
    }

    fn join(&mut self, run: &Run<'_, Publication>) -> Option<Publication> {
        let numbers = run.iter().flat_map(|publication| publication.0.iter().copied()).collect::<Vec<_>>();
        self.joins.then(|| {
            self.joined.push(numbers.clone());
            Publication(numbers)
        })
    }

    fn topic_gone(&mut self, name: &str) {
        self.gone.push(name.to_owned());
    }
}

/// Who is subscribed to what, and what each connection has to get in the end.
#[derive(Default)]
struct Model {
    /// With the class of each.
    subscribers: BTreeMap<&'static str, BTreeMap<u32, u8>>,
    owed: BTreeMap<u32, Vec<u32>>,
    classes: BTreeMap<u32, Vec<u8>>,
    published: Vec<u32>,
    gone: Vec<String>,
}

struct Machine {
    topics: Topics<Publication>,
    owner: Owner,
    model: Model,
    /// Number of the next publication.
    next: u32,
}

/// Operations of three bytes each: which, and two operands. The first byte of all says whether runs are joined.
pub fn topic_ops(data: &[u8]) {
    let Some((&choices, operations)) = data.split_first() else { return };
    let owner = Owner { joins: choices & 1 == 1, ..Owner::default() };
    let mut run = Machine { topics: Topics::new(LIMITS), owner, model: Model::default(), next: 0 };
    for operation in operations.chunks_exact(3) {
        run.step(operation[0], operation[1], operation[2]);
        run.check();
    }
    while !run.topics.is_idle() {
        run.walk(1_000);
    }
    run.check_end();
}

impl Machine {
    fn step(&mut self, which: u8, a: u8, b: u8) {
        let conn = u32::from(a % CONNECTIONS);
        let name = NAMES[usize::from(b) % NAMES.len()];
        match which % 8 {
            0 => self.subscribe(conn, name, CLASSES[usize::from(b >> 4) % CLASSES.len()]),
            1 => self.unsubscribe(conn, name),
            2..=4 => self.publish(name, if a & 0x80 != 0 { conn } else { NIL }),
            5 => self.walk(u32::from(b) % 16),
            6 => self.catch_up(conn),
            _ => self.close(conn),
        }
    }

    fn subscribe(&mut self, conn: u32, name: &'static str, class: u8) {
        let mine = self.model.subscribers.values().filter(|subscribers| subscribers.contains_key(&conn)).count();
        let first_here = !self.model.subscribers.contains_key(name);
        let known = self.model.subscribers.get_mut(name).and_then(|subscribers| subscribers.get_mut(&conn));
        let expected = if class > 16 {
            Err(SubscribeError::NoSuchClass)
        } else if let Some(known) = known {
            *known = class;
            Ok(Subscribed::Already)
        } else if mine >= LIMITS.max_subscriptions as usize {
            Err(SubscribeError::TooManySubscriptions)
        } else if first_here && self.model.subscribers.len() >= LIMITS.max_topics as usize {
            Err(SubscribeError::TooManyTopics)
        } else {
            self.model.subscribers.entry(name).or_default().insert(conn, class);
            Ok(Subscribed::New { first_here })
        };
        assert_eq!(self.topics.subscribe_as(conn, name, class, &mut self.owner), expected);
    }

    fn unsubscribe(&mut self, conn: u32, name: &'static str) {
        let expected = self.model.leave(conn, name);
        let found = self.topics.unsubscribe(conn, name, &mut self.owner);
        assert_eq!(found, expected.map(|last_here| Unsubscribed { last_here }));
        if found.is_some() {
            self.is_caught_up(conn);
        }
    }

    fn publish(&mut self, name: &'static str, except: u32) {
        let number = self.next;
        self.next += 1;
        let found = self.topics.publish(name, except, Publication(vec![number]));
        let Some(subscribers) = self.model.subscribers.get(name) else {
            assert_eq!(found.expect_err("nobody has subscribed").0, [number]);
            return;
        };
        assert_eq!(found.expect("somebody has subscribed"), subscribers.len() as u32);
        self.model.published.push(number);
        for (&conn, &class) in subscribers.iter().filter(|(conn, _)| **conn != except) {
            self.model.owed.entry(conn).or_default().push(number);
            self.model.classes.entry(conn).or_default().push(class);
        }
    }

    fn walk(&mut self, budget: u32) {
        let most = self.most_owed();
        let before = self.owner.cost;
        let mut left = budget;
        self.topics.walk(&mut left, &mut self.owner);
        assert!(left <= budget);
        let cost = self.owner.cost - before;
        assert!(cost <= budget + most, "{cost} of a budget of {budget}");
        assert!(left == 0 || self.topics.is_idle(), "stopped with a budget left");
    }

    fn catch_up(&mut self, conn: u32) {
        let before = self.owner.delivered;
        let count = self.topics.catch_up(conn, &mut self.owner);
        assert_eq!(count, self.owner.delivered - before);
        self.is_caught_up(conn);
    }

    fn close(&mut self, conn: u32) {
        self.topics.unsubscribe_all(conn, &mut self.owner);
        for name in NAMES {
            self.model.leave(conn, name);
        }
        self.is_caught_up(conn);
        assert_eq!(*self.owner.head(conn), NIL);
    }

    /// The most that one connection waits for.
    fn most_owed(&self) -> u32 {
        let got = |conn| self.owner.got.get(conn).map_or(0, Vec::len);
        self.model.owed.iter().map(|(conn, owed)| (owed.len() - got(conn)) as u32).max().unwrap_or(0)
    }

    fn is_caught_up(&self, conn: u32) {
        let nothing = Vec::new();
        let owed = self.model.owed.get(&conn).unwrap_or(&nothing);
        assert_eq!(self.owner.got.get(&conn).unwrap_or(&nothing), owed, "connection {conn} is owed something");
    }

    fn check(&self) {
        for (conn, got) in &self.owner.got {
            let owed = self.model.owed.get(conn).map_or(&[][..], |owed| owed);
            assert!(owed.starts_with(got), "connection {conn} got {got:?} instead of {owed:?}");
            assert!(self.model.classes[conn].starts_with(&self.owner.classes[conn]), "each in its class");
        }
        for name in NAMES {
            let subscribers = self.model.subscribers.get(name).map_or(0, BTreeMap::len);
            assert_eq!(self.topics.subscribers(name) as usize, subscribers);
            assert_eq!(self.topics.has(name), subscribers > 0);
            let classes =
                self.model.subscribers.get(name).into_iter().flatten().fold(0, |mask, (_, class)| mask | 1 << class);
            assert_eq!(self.topics.find(name).map_or(0, |topic| self.topics.classes(topic)), classes);
        }
        assert_eq!(self.topics.len(), self.model.subscribers.len());
        let mut gone = self.owner.gone.clone();
        let mut expected = self.model.gone.clone();
        gone.sort_unstable();
        expected.sort_unstable();
        assert_eq!(gone, expected, "topics that went");
        self.check_retired();
    }

    /// Nothing is retired that somebody is still owed.
    fn check_retired(&self) {
        let retired = self.owner.retired.iter().flatten().collect::<BTreeSet<_>>();
        for (conn, owed) in &self.model.owed {
            let got = self.owner.got.get(conn).map_or(0, Vec::len);
            assert!(!owed[got..].iter().any(|number| retired.contains(number)), "retired too early");
        }
    }

    fn check_end(&mut self) {
        self.check();
        for conn in 0..u32::from(CONNECTIONS) {
            self.is_caught_up(conn);
        }
        let sorted = |mut lists: Vec<Vec<u32>>| {
            lists.sort_unstable();
            lists
        };
        let published = self.model.published.iter().map(|&number| vec![number]);
        let expected = sorted(published.chain(std::mem::take(&mut self.owner.joined)).collect());
        assert_eq!(sorted(std::mem::take(&mut self.owner.retired)), expected, "each is retired exactly once");
    }
}

impl Model {
    /// Ends a subscription: whether the topic went with it, or `None` if there was none.
    fn leave(&mut self, conn: u32, name: &'static str) -> Option<bool> {
        let subscribers = self.subscribers.get_mut(name)?;
        if subscribers.remove(&conn).is_none() {
            return None;
        }
        if !subscribers.is_empty() {
            return Some(false);
        }
        self.subscribers.remove(name);
        self.gone.push(name.to_owned());
        Some(true)
    }
}
