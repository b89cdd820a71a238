//! Messages that many get: what is published when, and who got it. For `load fanout` and `load channels`.
#![forbid(unsafe_code)]

use super::client::{Base, GoOn};
use super::credit::{Arrival, Ledger};
use super::schedule::{Schedule, Senders};
use super::shared::Times;
use super::stamp::Stamp;
use super::stats::ErrorKind;
use std::ops::Range;
use std::sync::atomic::Ordering;
use wingbeat::{Conn, Scope};

/// A publisher that waits for so long takes what it waits for as lost, and goes on; for longer the more subscribers.
const PATIENCE_NS: u64 = 2_000_000_000;

/// How a message is written.
pub(crate) trait Publish {
    /// Sends a message that carries `stamp`.
    fn send(&self, conn: &mut Conn<'_>, stamp: Stamp);
}

/// Publishers send bursts: when all that hear them got the last (closed loop), or when a schedule says so.
#[derive(Debug)]
pub(crate) struct Bursts<P> {
    pub(crate) publish: P,
    burst: u32,
    /// Publishers of this thread: its first connections.
    publishers: u32,
    /// When each publisher of this thread sent last.
    sent_at: Vec<u64>,
    /// By subscriber of this thread; none once it is gone.
    ledgers: Vec<Option<Ledger>>,
    /// Deliveries of this turn, by publisher of the run, and which publishers have some.
    delivered: Vec<u32>,
    touched: Vec<u32>,
    schedule: Option<Schedule>,
    is_open_loop: bool,
    is_running: bool,
    patience_ns: u64,
    /// When publishers are next looked at for one that waits in vain.
    patience_ends: u64,
}

impl<P: Publish> Bursts<P> {
    /// For a thread with so many subscribers.
    pub(crate) fn new(base: &Base, subscribers: u32, publish: P) -> Bursts<P> {
        let plan = &base.plan;
        let publishers = plan.share(plan.publishers(), base.thread);
        Bursts {
            publish,
            burst: plan.burst,
            publishers,
            sent_at: vec![0; publishers as usize],
            ledgers: (0..subscribers).map(|_| None).collect(),
            delivered: vec![0; plan.publishers() as usize],
            touched: Vec::with_capacity(plan.publishers() as usize),
            schedule: None,
            is_open_loop: plan.rate.is_some(),
            is_running: false,
            patience_ns: plan.patience_ns(PATIENCE_NS),
            patience_ends: 0,
        }
    }

    /// Publishers of this thread.
    pub(crate) fn publishers(&self) -> u32 {
        self.publishers
    }

    /// A publisher is ready.
    pub(crate) fn enter(&mut self, base: &Base, conn: &Conn<'_>, index: u32) {
        let _ = base.shared.publishers[base.number(index) as usize].set(conn.id());
    }

    /// A subscriber is there that hears these publishers.
    pub(crate) fn join(&mut self, base: &Base, subscriber: u32, publishers: Range<u32>) {
        let ledger = self.ledgers[subscriber as usize].insert(Ledger::new(publishers));
        base.shared.credits.join(ledger);
    }

    /// The first bursts.
    pub(crate) fn begin(&mut self, base: &mut Base, scope: &mut Scope<'_>, times: &Times) {
        self.is_running = true;
        let senders = Senders { thread: base.thread, here: self.publishers, in_all: base.plan.publishers() };
        self.schedule = Schedule::new(&base.plan, senders, times.begin, self.burst);
        if !self.is_open_loop {
            let now = base.now();
            self.patience_ends = now + self.patience_ns;
            (0..self.publishers).for_each(|index| {
                let number = base.number(index);
                self.release(base, scope, number, now);
            });
        }
    }

    /// A message came to a subscriber: whether it was a new one. If not, that is counted as an error.
    pub(crate) fn arrive(&mut self, base: &mut Base, subscriber: u32, stamp: Stamp) -> bool {
        let arrival = self.ledgers[subscriber as usize].as_mut().map(|l| l.arrive(stamp.publisher, stamp.sequence));
        match arrival {
            // It was counted as lost when it was awaited no longer.
            None if base.is_over() => {}
            None | Some(Arrival::Foreign) => base.recorder.error(ErrorKind::WrongContents),
            Some(Arrival::Stale) => base.recorder.error(ErrorKind::OutOfOrder),
            Some(Arrival::New { skipped }) => {
                let delivered = &mut self.delivered[stamp.publisher as usize];
                if *delivered == 0 {
                    self.touched.push(stamp.publisher);
                }
                *delivered += 1 + skipped;
                return true;
            }
        }
        false
    }

    /// Another thread says that a publisher of this one may go on.
    pub(crate) fn go_on(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        let is_settled = base.shared.credits.is_settled(base.number(index));
        if self.is_running && index < self.publishers && is_settled {
            let now = base.now();
            self.send(base, conn, index, now);
        }
    }

    /// Lets publishers go on whose bursts arrived in this turn, and those whose time has come.
    pub(crate) fn turn(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        self.settle(base, scope, now);
        if self.is_running {
            match self.is_open_loop {
                true => self.follow_schedule(base, scope, now),
                false => self.lose_patience(base, scope, now),
            }
        }
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.schedule.as_ref().filter(|_| self.is_running).map(Schedule::next_at)
    }

    /// A subscriber is gone: what it did not get is lost.
    pub(crate) fn leave(&mut self, base: &mut Base, subscriber: u32) {
        if let Some(ledger) = self.ledgers[subscriber as usize].take() {
            base.shared.credits.leave(&ledger);
            base.recorder.lost(ledger.lost(&base.shared.credits.sent()));
        }
    }

    pub(crate) fn stop(&mut self) {
        self.is_running = false;
    }

    /// Whether all that was published, on any thread, has arrived.
    pub(crate) fn is_settled(&self, base: &Base) -> bool {
        base.shared.stopped.load(Ordering::Acquire) == base.plan.threads && base.shared.credits.all_settled()
    }

    /// Counts what did not arrive.
    pub(crate) fn conclude(&mut self, base: &mut Base) {
        let sent = base.shared.credits.sent();
        for ledger in self.ledgers.iter_mut().filter_map(Option::take) {
            base.recorder.lost(ledger.lost(&sent));
        }
    }

    /// Sends a burst that is, or was to be, sent at `time`.
    fn send(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, time: u64) {
        let publisher = base.number(index);
        let first = base.shared.credits.publish(publisher, self.burst);
        for sequence in (0..self.burst).map(|at| first.wrapping_add(at)) {
            self.publish.send(conn, Stamp { publisher, sequence, time_ns: time });
        }
        base.activity += 1;
        base.recorder.published(self.burst.into());
        self.sent_at[index as usize] = time;
    }

    /// Lets a publisher go on, wherever it is.
    fn release(&mut self, base: &mut Base, scope: &mut Scope<'_>, publisher: u32, now: u64) {
        if publisher % base.plan.threads != base.thread {
            let id = base.shared.publishers[publisher as usize].get();
            // If its mailbox is full the publisher finds out by itself, when its patience ends.
            let _ = id.map(|id| base.handle.mail(*id, GoOn));
            return;
        }
        let index = publisher / base.plan.threads;
        if let Some(mut conn) = base.conn(scope, index) {
            self.send(base, &mut conn, index, now);
        }
    }

    /// Hands the deliveries of this turn to the publishers, who may go on by that.
    fn settle(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        while let Some(publisher) = self.touched.pop() {
            let count = std::mem::take(&mut self.delivered[publisher as usize]);
            if base.shared.credits.settle(publisher, count) && self.is_running && !self.is_open_loop {
                self.release(base, scope, publisher, now);
            }
        }
    }

    /// Sends for publishers that wait in vain: what their subscribers did not get shows as lost.
    fn lose_patience(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        if now < self.patience_ends {
            return;
        }
        self.patience_ends = now + self.patience_ns / 4;
        for index in 0..self.publishers {
            if now.saturating_sub(self.sent_at[index as usize]) >= self.patience_ns {
                let number = base.number(index);
                self.release(base, scope, number, now);
            }
        }
    }

    fn follow_schedule(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        while let Some(number) = self.schedule.as_mut().and_then(|schedule| schedule.take(now)) {
            let index = (number % u64::from(self.publishers)) as u32;
            let time = self.schedule.as_ref().map_or(now, |schedule| schedule.wanted_at(number));
            if let Some(mut conn) = base.conn(scope, index) {
                self.send(base, &mut conn, index, time);
            }
        }
    }
}
