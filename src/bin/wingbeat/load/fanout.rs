//! `load fanout`: publishers, and subscribers that time what they get.
#![forbid(unsafe_code)]

use super::client::{Base, GoOn, Workload};
use super::credit::{Arrival, Ledger};
use super::echo::kind;
use super::flight::Contents;
use super::schedule::Schedule;
use super::shared::Times;
use super::stamp::{STAMP_BYTES, Stamp};
use super::stats::ErrorKind;
use std::sync::atomic::Ordering;
use wingbeat::{Conn, Message, MessageKind, Scope};

/// A publisher that waits for so long takes what it waits for as lost, and goes on.
const PATIENCE_NS: u64 = 2_000_000_000;

/// Publishers send bursts: when all subscribers of the run got the last (closed loop), or when a schedule says so.
#[derive(Debug)]
pub(crate) struct Fanout {
    /// What follows the stamp.
    filler: Contents,
    kind: MessageKind,
    burst: u32,
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
    /// When publishers are next looked at for one that waits in vain.
    patience_ends: u64,
}

impl Fanout {
    pub(crate) fn new(base: &Base) -> Fanout {
        let plan = &base.plan;
        let publishers = base.senders();
        let subscribers = base.links.len() as u32 - publishers;
        Fanout {
            filler: Contents::new(plan.payload - STAMP_BYTES),
            kind: kind(plan),
            burst: plan.pipeline,
            publishers,
            sent_at: vec![0; publishers as usize],
            ledgers: (0..subscribers).map(|_| None).collect(),
            delivered: vec![0; plan.connections as usize],
            touched: Vec::with_capacity(plan.connections as usize),
            schedule: None,
            is_open_loop: plan.rate.is_some(),
            is_running: false,
            patience_ends: 0,
        }
    }

    /// Publishes a burst that is, or was to be, sent at `time`.
    fn publish(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, time: u64) {
        let publisher = base.number(index);
        let first = base.shared.credits.publish(publisher, self.burst);
        for sequence in (0..self.burst).map(|at| first.wrapping_add(at)) {
            let stamp = Stamp { publisher, sequence, time_ns: time }.encode();
            let filler = self.filler.of(sequence.into());
            conn.send_with(self.kind, |out| {
                out.extend_from_slice(&stamp);
                out.push_str(filler);
            });
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
            self.publish(base, &mut conn, index, now);
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
        self.patience_ends = now + PATIENCE_NS / 4;
        for index in 0..self.publishers {
            if now.saturating_sub(self.sent_at[index as usize]) >= PATIENCE_NS {
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
                self.publish(base, &mut conn, index, time);
            }
        }
    }
}

impl Workload for Fanout {
    fn open(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        match index.checked_sub(self.publishers) {
            None => {
                let _ = base.shared.publishers[base.number(index) as usize].set(conn.id());
            }
            Some(subscriber) => {
                self.ledgers[subscriber as usize] = Some(Ledger::new(base.plan.connections));
                base.shared.credits.join();
            }
        }
    }

    fn begin(&mut self, base: &mut Base, scope: &mut Scope<'_>, times: &Times) {
        self.is_running = true;
        self.schedule = Schedule::new(&base.plan, base.thread, self.publishers, times.begin, self.burst);
        if !self.is_open_loop {
            let now = base.now();
            self.patience_ends = now + PATIENCE_NS;
            (0..self.publishers).for_each(|index| {
                let number = base.number(index);
                self.release(base, scope, number, now);
            });
        }
    }

    fn message(&mut self, base: &mut Base, _: &mut Conn<'_>, index: u32, message: Message<'_>) {
        // A publisher that is subscribed to what it publishes is not one of the subscribers that were asked for.
        let Some(subscriber) = index.checked_sub(self.publishers) else { return };
        let now = base.message_time();
        let stamp = Stamp::decode(message.payload).filter(|_| message.payload.len() == base.plan.payload);
        let (Some(stamp), Some(ledger)) = (stamp, &mut self.ledgers[subscriber as usize]) else {
            return base.recorder.error(ErrorKind::WrongContents);
        };
        match ledger.arrive(stamp.publisher, stamp.sequence) {
            Arrival::Foreign => base.recorder.error(ErrorKind::WrongContents),
            Arrival::Stale => base.recorder.error(ErrorKind::OutOfOrder),
            Arrival::New { skipped } => {
                base.recorder.message(stamp.time_ns, now, message.payload.len());
                let delivered = &mut self.delivered[stamp.publisher as usize];
                if *delivered == 0 {
                    self.touched.push(stamp.publisher);
                }
                *delivered += 1 + skipped;
            }
        }
    }

    fn go_on(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        let is_settled = base.shared.credits.is_settled(base.number(index));
        if self.is_running && index < self.publishers && is_settled {
            let now = base.now();
            self.publish(base, conn, index, now);
        }
    }

    fn turn(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        self.settle(base, scope, now);
        if self.is_running {
            match self.is_open_loop {
                true => self.follow_schedule(base, scope, now),
                false => self.lose_patience(base, scope, now),
            }
        }
    }

    fn next_at(&self) -> Option<u64> {
        self.schedule.as_ref().filter(|_| self.is_running).map(Schedule::next_at)
    }

    fn closed(&mut self, base: &mut Base, _: &mut Scope<'_>, index: u32) {
        let Some(subscriber) = index.checked_sub(self.publishers) else { return };
        if let Some(ledger) = self.ledgers[subscriber as usize].take() {
            base.shared.credits.leave(&ledger);
            base.recorder.lost(ledger.lost(&base.shared.credits.sent()));
        }
    }

    fn stop(&mut self, _: &mut Base) {
        self.is_running = false;
    }

    fn is_settled(&self, base: &Base) -> bool {
        base.shared.stopped.load(Ordering::Acquire) == base.plan.threads && base.shared.credits.all_settled()
    }

    fn conclude(&mut self, base: &mut Base) {
        let sent = base.shared.credits.sent();
        for ledger in self.ledgers.iter_mut().filter_map(Option::take) {
            base.recorder.lost(ledger.lost(&sent));
        }
    }
}
