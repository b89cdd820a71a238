//! `load fanout`: publishers, and subscribers that time what they get.
#![forbid(unsafe_code)]

use super::bursts::{Bursts, Publish};
use super::client::{Base, Workload};
use super::echo::kind;
use super::flight::Contents;
use super::shared::Times;
use super::stamp::{STAMP_BYTES, Stamp};
use super::stats::ErrorKind;
use wingbeat::{Conn, Message, MessageKind, Scope};

/// Publishers, and after them the subscribers, each of which hears all of them.
#[derive(Debug)]
pub(crate) struct Fanout(Bursts<Plain>);

/// Messages that are a stamp and what fills them up.
#[derive(Debug)]
struct Plain {
    filler: Contents,
    kind: MessageKind,
}

impl Fanout {
    pub(crate) fn new(base: &Base) -> Fanout {
        let plain = Plain { filler: Contents::new(base.plan.payload - STAMP_BYTES), kind: kind(&base.plan) };
        let publishers = base.plan.share(base.plan.publishers(), base.thread);
        Fanout(Bursts::new(base, base.links.len() as u32 - publishers, plain))
    }

    /// Which subscriber a connection is; none for a publisher. One that is subscribed to what it publishes is not one
    /// of the subscribers that were asked for.
    fn subscriber(&self, index: u32) -> Option<u32> {
        index.checked_sub(self.0.publishers())
    }
}

impl Publish for Plain {
    fn send(&self, conn: &mut Conn<'_>, stamp: Stamp) {
        let filler = self.filler.of(stamp.sequence.into());
        conn.send_with(self.kind, |out| {
            out.extend_from_slice(&stamp.encode());
            out.push_str(filler);
        });
    }
}

impl Workload for Fanout {
    fn open(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        match self.subscriber(index) {
            None => self.0.enter(base, conn, index),
            Some(subscriber) => self.0.join(base, subscriber, 0..base.plan.publishers()),
        }
    }

    fn begin(&mut self, base: &mut Base, scope: &mut Scope<'_>, times: &Times) {
        self.0.begin(base, scope, times);
    }

    fn message(&mut self, base: &mut Base, _: &mut Conn<'_>, index: u32, message: Message<'_>) {
        let Some(subscriber) = self.subscriber(index) else { return };
        let now = base.message_time();
        let stamp = Stamp::decode(message.payload).filter(|_| message.payload.len() == base.plan.payload);
        let Some(stamp) = stamp else { return base.recorder.error(ErrorKind::WrongContents) };
        if self.0.arrive(base, subscriber, stamp) {
            base.recorder.message(stamp.time_ns, now, message.payload.len());
        }
    }

    fn go_on(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        self.0.go_on(base, conn, index);
    }

    fn turn(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        self.0.turn(base, scope, now);
    }

    fn next_at(&self) -> Option<u64> {
        self.0.next_at()
    }

    fn closed(&mut self, base: &mut Base, _: &mut Scope<'_>, index: u32) {
        if let Some(subscriber) = self.subscriber(index) {
            self.0.leave(base, subscriber);
        }
    }

    fn stop(&mut self, _: &mut Base) {
        self.0.stop();
    }

    fn is_settled(&self, base: &Base) -> bool {
        self.0.is_settled(base)
    }

    fn conclude(&mut self, base: &mut Base) {
        self.0.conclude(base);
    }
}
