//! The hub between workers: which of them have subscribers of a topic.
#![forbid(unsafe_code)]

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Buckets that topic names are hashed into.
const BUCKETS: usize = 16_384;

/// A table shared by all workers that says which workers may have subscribers of a topic, so that a publication travels
/// to these only.
///
/// Names are hashed into 16,384 buckets; a bucket has one bit per worker. Two names in one bucket make a false
/// positive, which costs one mail that finds nobody. Reading and writing take no lock. The hash is seeded per table:
/// peers choose names, and must not be able to fill one bucket. 128 KiB for up to 64 workers, the same again for each
/// 64 more.
///
/// # Why there is no false negative
///
/// A worker sets its bit ([`WorkerInterest::add`], a read-modify-write with `SeqCst`) before it acknowledges the
/// subscription. Whoever publishes *after* it learned of the acknowledgement, through whatever chain of messages, reads
/// the bucket after the bit was set. A bit belongs to one worker alone, which counts its topics per bucket: it is
/// cleared only when that worker's last topic of the bucket is gone, and no other worker's step can clear it. (That is
/// why more than 64 workers get more words instead of sharing bits: of two workers that share one, the first to leave
/// could clear it just as the other relies on it.) A publisher that reads the bucket during all this may miss a
/// subscription that is not acknowledged yet; that publication comes before the subscription.
#[derive(Debug)]
pub struct Interest {
    hasher: RandomState,
    workers: usize,
    /// `words` per bucket, a bit per worker.
    table: Box<[AtomicU64]>,
    words: usize,
    /// Workers that hold their [`WorkerInterest`]: a bit has one writer.
    taken: Box<[AtomicBool]>,
}

/// One worker's right to write its bits, and its count of topics per bucket (64 KiB). Dropping it clears the bits.
#[derive(Debug)]
pub struct WorkerInterest {
    shared: Arc<Interest>,
    worker: usize,
    topics: Box<[u32]>,
}

impl Interest {
    /// A table for this many workers, without any interest.
    pub fn new(workers: usize) -> Arc<Self> {
        let words = workers.div_ceil(64).max(1);
        Arc::new(Interest {
            hasher: RandomState::new(),
            workers,
            table: (0..BUCKETS * words).map(|_| AtomicU64::new(0)).collect(),
            words,
            taken: (0..workers).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// The part of the table that `worker` writes.
    ///
    /// # Panics
    /// If there is no such worker, or its part is in use.
    pub fn worker(self: &Arc<Self>, worker: usize) -> WorkerInterest {
        assert!(!self.taken[worker].swap(true, Ordering::AcqRel), "each worker has one part");
        WorkerInterest { shared: self.clone(), worker, topics: vec![0; BUCKETS].into() }
    }

    /// The hash of a topic name, for the other methods. It means nothing in another table.
    pub fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// What a publication of `name` about `key` is known by where a newer one may stand for an older one; never 0.
    pub(crate) fn key(&self, name: &str, key: u64) -> u64 {
        self.hasher.hash_one((name, key)) | 1
    }

    /// The workers, in ascending order, that may have subscribers of the name with this hash: all that have, and rarely
    /// one that has not. Costs one load per 64 workers.
    pub fn workers(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        let first = bucket(hash) * self.words;
        self.table[first..first + self.words].iter().enumerate().flat_map(|(at, word)| {
            let mut bits = word.load(Ordering::SeqCst);
            std::iter::from_fn(move || {
                let worker = (bits != 0).then(|| at * 64 + bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(worker)
            })
        })
    }

    /// For how many workers the table was made.
    pub fn worker_count(&self) -> usize {
        self.workers
    }
}

impl WorkerInterest {
    /// This worker has its first subscriber of a topic. To be called before the subscription is acknowledged.
    pub fn add(&mut self, hash: u64) {
        let bucket = bucket(hash);
        self.topics[bucket] += 1;
        if self.topics[bucket] == 1 {
            let (word, bit) = self.place(bucket);
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// This worker has lost its last subscriber of a topic that was added.
    ///
    /// # Panics
    /// If it was not: the counts would then clear a bit that is needed.
    pub fn remove(&mut self, hash: u64) {
        let bucket = bucket(hash);
        self.topics[bucket] = self.topics[bucket].checked_sub(1).expect("only what was added is removed");
        if self.topics[bucket] == 0 {
            self.clear(bucket);
        }
    }

    /// Which worker it is.
    pub(crate) fn index(&self) -> u16 {
        self.worker as u16
    }

    /// The shared table.
    pub fn shared(&self) -> &Arc<Interest> {
        &self.shared
    }

    fn clear(&self, bucket: usize) {
        let (word, bit) = self.place(bucket);
        word.fetch_and(!bit, Ordering::SeqCst);
    }

    fn place(&self, bucket: usize) -> (&AtomicU64, u64) {
        (&self.shared.table[bucket * self.shared.words + self.worker / 64], 1 << (self.worker % 64))
    }
}

impl Drop for WorkerInterest {
    fn drop(&mut self) {
        (0..BUCKETS).filter(|&bucket| self.topics[bucket] > 0).for_each(|bucket| self.clear(bucket));
        self.shared.taken[self.worker].store(false, Ordering::Release);
    }
}

fn bucket(hash: u64) -> usize {
    hash as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::mpsc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn workers(interest: &Interest, hash: u64) -> Vec<usize> {
        interest.workers(hash).collect()
    }

    #[test]
    fn a_bit_stays_until_the_last_topic_of_its_bucket_is_gone() {
        let interest = Interest::new(3);
        let (mut first, mut third) = (interest.worker(0), interest.worker(2));
        let colliding = 7 + BUCKETS as u64;
        first.add(7);
        first.add(colliding);
        third.add(7);
        assert_eq!(workers(&interest, 7), [0, 2]);
        assert!(workers(&interest, 8).is_empty());
        first.remove(7);
        assert_eq!(workers(&interest, 7), [0, 2], "a false positive, which is allowed");
        first.remove(colliding);
        assert_eq!(workers(&interest, 7), [2]);
        drop(third);
        assert!(workers(&interest, 7).is_empty());
        interest.worker(2).add(7);
        assert!(workers(&interest, 7).is_empty(), "a part may be taken again, and goes with its worker");
    }

    #[test]
    #[should_panic(expected = "one part")]
    fn a_part_has_one_writer() {
        let interest = Interest::new(1);
        let _first = interest.worker(0);
        interest.worker(0);
    }

    #[test]
    #[should_panic(expected = "only what was added")]
    fn removing_what_was_not_added_is_a_bug() {
        Interest::new(1).worker(0).remove(1);
    }

    #[test]
    fn names_are_hashed_by_a_seed_of_the_table() {
        let (one, two) = (Interest::new(1), Interest::new(1));
        assert_eq!(one.hash("room:1"), one.hash("room:1"));
        assert!((0..8).any(|id| one.hash(&id.to_string()) != two.hash(&id.to_string())));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn names_exactly_the_workers_with_topics_in_the_bucket(
            count in prop_oneof![Just(1usize), Just(64), Just(65), Just(200)],
            ops in prop::collection::vec((any::<prop::sample::Index>(), 0u64..6, any::<bool>()), 1..60),
        ) {
            let interest = Interest::new(count);
            prop_assert_eq!(interest.worker_count(), count);
            let (mut parts, mut model) = (BTreeMap::new(), BTreeMap::<(usize, u64), u32>::new());
            for (worker, topic, add) in ops {
                // Three buckets with two names each.
                let (worker, hash) = (worker.index(count), topic % 3 + topic / 3 * BUCKETS as u64);
                let part = parts.entry(worker).or_insert_with(|| interest.worker(worker));
                let topics = model.entry((worker, hash % BUCKETS as u64)).or_default();
                if add {
                    part.add(hash);
                    *topics += 1;
                } else if *topics > 0 {
                    part.remove(hash);
                    *topics -= 1;
                }
                for bucket in 0..3 {
                    let expected = model.iter().filter(|&(&(_, at), &topics)| at == bucket && topics > 0);
                    prop_assert_eq!(workers(&interest, bucket), expected.map(|(key, _)| key.0).collect::<Vec<_>>());
                }
            }
        }
    }

    /// Workers come and go in one bucket while a publisher looks at it each time a subscription is acknowledged: it
    /// must find that worker, whatever the others do to the same word.
    #[test]
    fn an_acknowledged_subscription_is_always_found() {
        const WORKERS: usize = 4;
        const ROUNDS: usize = 3000;
        let interest = Interest::new(WORKERS);
        let hash = interest.hash("room");
        let (acknowledge, acknowledged) = mpsc::channel();
        thread::scope(|scope| {
            let mut looked = Vec::new();
            for worker in 0..WORKERS {
                let (look, done) = mpsc::channel();
                looked.push(look);
                let (mut part, acknowledge) = (interest.worker(worker), acknowledge.clone());
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        part.add(hash);
                        acknowledge.send(worker).unwrap();
                        done.recv().unwrap();
                        part.remove(hash);
                    }
                });
            }
            for _ in 0..WORKERS * ROUNDS {
                let worker: usize = acknowledged.recv().unwrap();
                assert!(interest.workers(hash).any(|found| found == worker));
                looked[worker].send(()).unwrap();
            }
        });
        assert!(workers(&interest, hash).is_empty());
    }
}
