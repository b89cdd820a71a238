//! `load echo`: messages whose answers are timed. Also `load idle`, which sends none.
#![forbid(unsafe_code)]

use super::client::{Base, Workload};
use super::exchange::{Ask, Exchange};
use super::flight::Contents;
use super::plan::Plan;
use super::shared::Times;
use super::stats::ErrorKind;
use wingbeat::{Conn, Message, MessageKind, Scope};

/// Sends messages and awaits their echoes.
#[derive(Debug)]
pub(crate) struct Echo(Exchange<Plain>);

/// Messages that are nothing but their contents.
#[derive(Debug)]
struct Plain {
    contents: Contents,
    kind: MessageKind,
}

impl Echo {
    pub(crate) fn new(plan: &Plan, connections: u32) -> Echo {
        Echo(Exchange::new(plan, connections, Plain { contents: Contents::new(plan.payload), kind: kind(plan) }))
    }
}

impl Ask for Plain {
    fn send(&self, conn: &mut Conn<'_>, _: u32, number: u64) {
        conn.send(Message { kind: self.kind, payload: self.contents.of(number).as_bytes() });
    }
}

impl Workload for Echo {
    fn begin(&mut self, base: &mut Base, scope: &mut Scope<'_>, times: &Times) {
        self.0.begin(base, scope, times);
    }

    fn message(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, message: Message<'_>) {
        let now = base.message_time();
        let Some(number) = self.0.answer(base, index) else { return };
        let sent = &self.0.ask;
        if message.payload != sent.contents.of(number).as_bytes() || message.kind != sent.kind {
            base.recorder.error(ErrorKind::WrongContents);
        }
        base.recorder.message(self.0.sent_at(index, number), now, message.payload.len());
        self.0.go_on(conn, index, now);
    }

    fn turn(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        self.0.turn(base, scope, now);
    }

    fn next_at(&self) -> Option<u64> {
        self.0.next_at()
    }

    fn closed(&mut self, base: &mut Base, _: &mut Scope<'_>, index: u32) {
        self.0.closed(base, index);
    }

    fn stop(&mut self, base: &mut Base) {
        self.0.stop(base);
    }

    fn is_settled(&self, _: &Base) -> bool {
        self.0.is_settled()
    }

    fn conclude(&mut self, base: &mut Base) {
        self.0.conclude(base);
    }
}

/// What messages are sent as.
pub(crate) fn kind(plan: &Plan) -> MessageKind {
    if plan.binary { MessageKind::Binary } else { MessageKind::Text }
}

/// Holds connections. The engine answers pings.
#[derive(Debug)]
pub(crate) struct Idle;

impl Workload for Idle {
    fn begin(&mut self, _: &mut Base, _: &mut Scope<'_>, _: &Times) {}
    fn message(&mut self, _: &mut Base, _: &mut Conn<'_>, _: u32, _: Message<'_>) {}
}
