//! Fan-out: what each subscriber has got of each publisher, and when a publisher may go on.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What one subscriber has got: the number of the next message of each publisher that it hears.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The first publisher that it hears; the others follow.
    first: u32,
    next: Box<[u32]>,
    /// Messages that later ones overtook: lost, as publishers are FIFO.
    skipped: u64,
}

/// What a message means to a [`Ledger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The next of its publisher, after so many that were skipped.
    New {
        /// Messages that it says are lost.
        skipped: u32,
    },
    /// It came before, or was overtaken.
    Stale,
    /// Nobody that this subscriber should hear published it.
    Foreign,
}

impl Ledger {
    /// Of a subscriber that hears these publishers.
    pub(crate) fn new(publishers: Range<u32>) -> Ledger {
        Ledger { first: publishers.start, next: vec![0; publishers.len()].into_boxed_slice(), skipped: 0 }
    }

    /// Takes a message. Numbers wrap: what is less than half their range ahead is new.
    pub(crate) fn arrive(&mut self, publisher: u32, sequence: u32) -> Arrival {
        let at = publisher.wrapping_sub(self.first);
        let Some(next) = self.next.get_mut(at as usize) else { return Arrival::Foreign };
        let skipped = sequence.wrapping_sub(*next);
        if skipped > u32::MAX / 2 {
            return Arrival::Stale;
        }
        *next = sequence.wrapping_add(1);
        self.skipped += u64::from(skipped);
        Arrival::New { skipped }
    }

    /// Messages lost, given how many each publisher of the run sent.
    pub(crate) fn lost(&self, sent: &[u64]) -> u64 {
        self.skipped + self.owed(sent).sum::<u64>()
    }

    /// Messages of each publisher that it hears that neither came nor were overtaken.
    fn owed<'a>(&'a self, sent: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
        self.next.iter().zip(&sent[self.heard()]).map(|(next, sent)| u64::from((*sent as u32).wrapping_sub(*next)))
    }

    /// The publishers that it hears.
    fn heard(&self) -> Range<usize> {
        let first = self.first as usize;
        first..first + self.next.len()
    }
}

/// How many deliveries each publisher awaits, shared by the threads of a run.
///
/// What happens per delivery is an addition to a local count, and one atomic operation per turn and publisher; the
/// lock is taken once per burst.
#[derive(Debug)]
pub(crate) struct Credits {
    awaited: Box<[AtomicI64]>,
    roll: Mutex<Roll>,
}

#[derive(Debug)]
struct Roll {
    /// Subscribers that are there, by the publisher that they hear.
    subscribers: Vec<u32>,
    /// Subscribers that ever were.
    joined: u32,
    /// Messages that each publisher sent.
    sent: Vec<u64>,
}

impl Credits {
    pub(crate) fn new(publishers: u32) -> Credits {
        let awaited = (0..publishers).map(|_| AtomicI64::new(0)).collect();
        let publishers = publishers as usize;
        let roll = Roll { subscribers: vec![0; publishers], joined: 0, sent: vec![0; publishers] };
        Credits { awaited, roll: Mutex::new(roll) }
    }

    /// A subscriber is there, before anything is published.
    pub(crate) fn join(&self, ledger: &Ledger) {
        let mut roll = self.roll();
        roll.subscribers[ledger.heard()].iter_mut().for_each(|subscribers| *subscribers += 1);
        roll.joined += 1;
    }

    /// A subscriber is gone: nobody awaits anything for it any more.
    pub(crate) fn leave(&self, ledger: &Ledger) {
        let mut roll = self.roll();
        roll.subscribers[ledger.heard()].iter_mut().for_each(|subscribers| *subscribers -= 1);
        for (awaited, owed) in self.awaited[ledger.heard()].iter().zip(ledger.owed(&roll.sent)) {
            awaited.fetch_sub(owed as i64, Ordering::Relaxed);
        }
    }

    /// A publisher is about to send `count` messages: the number of the first.
    pub(crate) fn publish(&self, publisher: u32, count: u32) -> u32 {
        let mut roll = self.roll();
        let first = roll.sent[publisher as usize] as u32;
        roll.sent[publisher as usize] += u64::from(count);
        let deliveries = i64::from(count) * i64::from(roll.subscribers[publisher as usize]);
        self.awaited[publisher as usize].fetch_add(deliveries, Ordering::Relaxed);
        first
    }

    /// So many messages of a publisher were delivered, or are known to be lost: whether nothing is awaited any more.
    pub(crate) fn settle(&self, publisher: u32, count: u32) -> bool {
        let count = i64::from(count);
        self.awaited[publisher as usize].fetch_sub(count, Ordering::Relaxed) <= count
    }

    /// Whether all that a publisher sent is settled.
    pub(crate) fn is_settled(&self, publisher: u32) -> bool {
        self.awaited[publisher as usize].load(Ordering::Relaxed) <= 0
    }

    /// Whether all that was published is settled.
    pub(crate) fn all_settled(&self) -> bool {
        (0..self.awaited.len() as u32).all(|publisher| self.is_settled(publisher))
    }

    /// Subscribers that were ever there.
    pub(crate) fn joined(&self) -> u32 {
        self.roll().joined
    }

    /// Messages that each publisher sent.
    pub(crate) fn sent(&self) -> Vec<u64> {
        self.roll().sent.clone()
    }

    fn roll(&self) -> MutexGuard<'_, Roll> {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_finds_what_is_missing() {
        let mut ledger = Ledger::new(0..2);
        assert_eq!(ledger.arrive(0, 0), Arrival::New { skipped: 0 });
        assert_eq!(ledger.arrive(0, 3), Arrival::New { skipped: 2 });
        assert_eq!(ledger.arrive(0, 2), Arrival::Stale);
        assert_eq!(ledger.arrive(0, 3), Arrival::Stale);
        assert_eq!(ledger.arrive(2, 0), Arrival::Foreign);
        assert_eq!(ledger.arrive(1, 0), Arrival::New { skipped: 0 });
        assert_eq!(ledger.lost(&[4, 1]), 2);
        assert_eq!(ledger.lost(&[6, 1]), 4);
    }

    #[test]
    fn numbers_wrap() {
        let mut ledger = Ledger::new(0..1);
        ledger.next[0] = u32::MAX;
        assert_eq!(ledger.arrive(0, u32::MAX), Arrival::New { skipped: 0 });
        assert_eq!(ledger.arrive(0, 0), Arrival::New { skipped: 0 });
        assert_eq!(ledger.arrive(0, u32::MAX), Arrival::Stale);
        assert_eq!(ledger.lost(&[(1 << 32) + 1]), 0);
    }

    #[test]
    fn a_publisher_goes_on_when_all_got_its_burst() {
        let credits = Credits::new(1);
        (0..3).for_each(|_| credits.join(&Ledger::new(0..1)));
        assert_eq!(credits.publish(0, 2), 0);
        assert!(!credits.is_settled(0));
        assert!(!credits.settle(0, 5));
        assert!(credits.settle(0, 1));
        assert!(credits.is_settled(0) && credits.all_settled());
        assert_eq!(credits.publish(0, 2), 2);
        assert_eq!(credits.sent(), [4]);
    }

    #[test]
    fn nobody_waits_for_one_that_left() {
        let credits = Credits::new(2);
        (0..2).for_each(|_| credits.join(&Ledger::new(0..2)));
        credits.publish(0, 4);
        credits.publish(1, 1);
        let mut leaving = Ledger::new(0..2);
        leaving.arrive(0, 1);
        credits.settle(0, 2);
        credits.leave(&leaving);
        assert!(!credits.is_settled(0));
        assert!(credits.settle(0, 4));
        assert!(credits.settle(1, 1) && credits.all_settled());
        credits.publish(0, 1);
        assert!(credits.settle(0, 1));
    }

    #[test]
    fn a_subscriber_may_hear_one_publisher() {
        let credits = Credits::new(3);
        let mut ledgers: Vec<_> = (0..3).map(|publisher| Ledger::new(publisher..publisher + 1)).collect();
        ledgers.iter().for_each(|ledger| credits.join(ledger));
        assert_eq!((credits.publish(2, 1), credits.publish(1, 2)), (0, 0));
        assert_eq!(ledgers[2].arrive(2, 0), Arrival::New { skipped: 0 });
        assert_eq!((ledgers[2].arrive(1, 0), ledgers[2].arrive(3, 0)), (Arrival::Foreign, Arrival::Foreign));
        assert!(credits.settle(2, 1) && credits.is_settled(0) && !credits.is_settled(1));
        assert_eq!((ledgers[1].lost(&credits.sent()), ledgers[2].lost(&credits.sent())), (2, 0));
        credits.leave(&ledgers[1]);
        assert!(credits.all_settled());
        assert_eq!((credits.publish(1, 1), credits.is_settled(1), credits.joined()), (2, true, 3));
    }
}
