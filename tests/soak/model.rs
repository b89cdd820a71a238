//! What was published, and what a subscriber has to get of it.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

/// Who publishes: the number of a client; 0 is the handle.
pub(crate) type Publisher = u32;
pub(crate) type Topic = usize;

/// Publications of one publisher to one topic are numbered from 0.
#[derive(Default, Debug)]
pub(crate) struct Source {
    /// Worker of the publisher.
    pub(crate) worker: Option<u16>,
    /// Asked for: may come.
    pub(crate) issued: u64,
    /// The server has said that they are on their way: have to come.
    pub(crate) acknowledged: u64,
    /// A worker refused these.
    pub(crate) refused: BTreeSet<u64>,
}

#[derive(Default)]
pub(crate) struct Publications(pub(crate) BTreeMap<(Topic, Publisher), Source>);

impl Publications {
    pub(crate) fn of(&self, topic: Topic) -> impl Iterator<Item = (Publisher, &Source)> {
        self.0.range((topic, 0)..=(topic, Publisher::MAX)).map(|(&(_, publisher), source)| (publisher, source))
    }

    /// The text of the next publication, of at least `length` bytes.
    pub(crate) fn issue(&mut self, topic: Topic, publisher: Publisher, worker: Option<u16>, length: usize) -> String {
        let source = self.0.entry((topic, publisher)).or_default();
        source.worker = worker;
        source.issued += 1;
        format!("{:.<length$}", format!("m{topic} {publisher} {} ", source.issued - 1))
    }

    pub(crate) fn acknowledge(&mut self, topic: Topic, publisher: Publisher, refused: bool) {
        let source = self.0.get_mut(&(topic, publisher)).expect("it was issued");
        if refused {
            source.refused.insert(source.acknowledged);
        }
        source.acknowledged += 1;
    }
}

/// Parts of a publication's text.
pub(crate) fn parse(text: &str) -> Option<(Topic, Publisher, u64)> {
    let mut words = text.strip_prefix('m')?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// A subscription that the server has confirmed.
#[derive(Debug)]
pub(crate) struct Span {
    topic: Topic,
    /// Per publisher: the lowest number that may come, and the lowest that has to come if it is published.
    begin: BTreeMap<Publisher, (u64, u64)>,
    /// Per publisher: the number that comes next.
    next: BTreeMap<Publisher, u64>,
}

impl Span {
    /// `acknowledged_before`: what had been published on the subscriber's worker before it asked.
    pub(crate) fn new(topic: Topic, acknowledged_before: &BTreeMap<Publisher, u64>, all: &Publications) -> Span {
        let begin = all.of(topic).map(|(publisher, source)| {
            let lowest = acknowledged_before.get(&publisher).copied().unwrap_or(0);
            (publisher, (lowest, source.issued))
        });
        Span { topic, begin: begin.collect(), next: BTreeMap::new() }
    }

    /// A publication came. True if some that had to come before it have not.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn take(&mut self, from: Publisher, number: u64, all: &Publications) -> Result<bool, String> {
        let source = all.0.get(&(self.topic, from)).ok_or("nobody published it")?;
        if number >= source.issued {
            return Err("it was not published yet".into());
        }
        let (lowest, due) = self.begin.get(&from).copied().unwrap_or_default();
        let before = match self.next.get(&from) {
            Some(&next) if number < next => return Err(format!("{next} is next, so it is doubled or out of order")),
            Some(&next) => next..number,
            None if number < lowest => return Err(format!("{lowest} was published before it subscribed")),
            None => due..number,
        };
        self.next.insert(from, number + 1);
        Ok(before.into_iter().any(|number| !source.refused.contains(&number)))
    }

    /// The first publication that has to come and has not: of all publishers, or those of one worker.
    pub(crate) fn missing(&self, until: &BTreeMap<Publisher, u64>, all: &Publications) -> Option<(Publisher, u64)> {
        until.iter().find_map(|(&publisher, &until)| {
            let (_, due) = self.begin.get(&publisher).copied().unwrap_or_default();
            let next = self.next.get(&publisher).copied().unwrap_or(due);
            let source = &all.0[&(self.topic, publisher)];
            (next..until).find(|number| !source.refused.contains(number)).map(|number| (publisher, number))
        })
    }
}

/// How many publications to a topic the server has confirmed by now, per publisher (`worker`: of that one alone).
pub(crate) fn acknowledged(all: &Publications, topic: Topic, worker: Option<u16>) -> BTreeMap<Publisher, u64> {
    let of_worker = all.of(topic).filter(|(_, source)| worker.is_none() || source.worker == worker);
    of_worker.map(|(publisher, source)| (publisher, source.acknowledged)).collect()
}
