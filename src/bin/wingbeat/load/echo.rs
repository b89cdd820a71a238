//! `load echo`: messages whose answers are timed. Also `load idle`, which sends none.
#![forbid(unsafe_code)]

use super::client::{Base, Workload};
use super::flight::{Contents, Flight};
use super::plan::Plan;
use super::schedule::Schedule;
use super::shared::Times;
use super::stats::ErrorKind;
use wingbeat::{Conn, Message, MessageKind, Scope};

/// Sends messages and awaits their echoes: each answer lets the next message go (closed loop), or a schedule does (open
/// loop).
#[derive(Debug)]
pub(crate) struct Echo {
    contents: Contents,
    kind: MessageKind,
    depth: u64,
    lines: Vec<Line>,
    schedule: Option<Schedule>,
    is_running: bool,
    end: u64,
}

/// What one connection is to send, and has sent.
#[derive(Debug)]
struct Line {
    flight: Flight,
    /// Messages that the schedule wanted so far.
    wanted: u64,
}

impl Echo {
    pub(crate) fn new(plan: &Plan, connections: u32) -> Echo {
        let flight = || if plan.rate.is_some() { Flight::scheduled() } else { Flight::timed(plan.pipeline) };
        Echo {
            contents: Contents::new(plan.payload),
            kind: kind(plan),
            depth: plan.pipeline.into(),
            lines: (0..connections).map(|_| Line { flight: flight(), wanted: 0 }).collect(),
            schedule: None,
            is_running: false,
            end: u64::MAX,
        }
    }

    fn send(&mut self, conn: &mut Conn<'_>, index: u32, now: u64) {
        let number = self.lines[index as usize].flight.send(now);
        conn.send(Message { kind: self.kind, payload: self.contents.of(number).as_bytes() });
    }

    /// When the message `number` of a connection was sent, or was to be sent.
    fn sent_at(&self, index: u32, number: u64) -> u64 {
        match &self.schedule {
            Some(schedule) => schedule.wanted_at(number * self.lines.len() as u64 + u64::from(index)),
            None => self.lines[index as usize].flight.sent_at(number),
        }
    }

    /// Whether a connection has something to send that it may send.
    fn may_send(&self, index: u32) -> bool {
        let line = &self.lines[index as usize];
        let wanted = self.schedule.is_none() || line.wanted > line.flight.sent();
        self.is_running && wanted && line.flight.in_flight() < self.depth
    }

    /// Takes what the schedule wants by `now`: the connection that has to send it.
    fn take(&mut self, now: u64) -> Option<u32> {
        let number = self.schedule.as_mut()?.take(now)?;
        let index = number % self.lines.len() as u64;
        self.lines[index as usize].wanted += 1;
        Some(index as u32)
    }
}

impl Workload for Echo {
    fn begin(&mut self, base: &mut Base, scope: &mut Scope<'_>, times: &Times) {
        self.is_running = true;
        let count = self.lines.len() as u32;
        self.schedule = Schedule::new(&base.plan, base.thread, count, times.begin, 1);
        if self.schedule.is_some() {
            return;
        }
        let now = base.now();
        for index in 0..count {
            let Some(mut conn) = base.conn(scope, index) else { continue };
            (0..self.depth).for_each(|_| self.send(&mut conn, index, now));
        }
    }

    fn message(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, message: Message<'_>) {
        let now = base.message_time();
        let Some(number) = self.lines[index as usize].flight.receive() else {
            return base.recorder.error(ErrorKind::OutOfOrder);
        };
        if message.payload != self.contents.of(number).as_bytes() || message.kind != self.kind {
            base.recorder.error(ErrorKind::WrongContents);
        }
        base.recorder.message(self.sent_at(index, number), now, message.payload.len());
        if self.may_send(index) {
            self.send(conn, index, now);
        }
    }

    fn turn(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        while let Some(index) = self.take(now) {
            base.activity += 1;
            if self.may_send(index)
                && let Some(mut conn) = base.conn(scope, index)
            {
                self.send(&mut conn, index, now);
            }
        }
    }

    fn next_at(&self) -> Option<u64> {
        self.schedule.as_ref().filter(|_| self.is_running).map(Schedule::next_at)
    }

    fn closed(&mut self, base: &mut Base, _: &mut Scope<'_>, index: u32) {
        let line = &mut self.lines[index as usize];
        base.recorder.lost(line.flight.in_flight());
        line.flight = Flight::scheduled();
        line.wanted = 0;
    }

    fn stop(&mut self, base: &mut Base) {
        self.end = base.shared.end();
        while self.take(self.end).is_some() {}
        self.is_running = false;
    }

    fn is_settled(&self, _: &Base) -> bool {
        self.lines.iter().all(|line| line.flight.in_flight() == 0)
    }

    fn conclude(&mut self, base: &mut Base) {
        for index in 0..self.lines.len() as u32 {
            let line = &self.lines[index as usize];
            base.recorder.lost(line.flight.in_flight());
            let open = base.links[index as usize].is_some();
            for number in (line.flight.sent()..line.wanted).filter(|_| open) {
                base.recorder.unsent(self.sent_at(index, number), self.end);
            }
        }
        // What is closed from now on has been counted.
        self.lines.iter_mut().for_each(|line| line.flight = Flight::scheduled());
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
