//! Messages that each have an answer: what goes out when, and what the answers say. For `load echo` and `load channels`.
#![forbid(unsafe_code)]

use super::client::Base;
use super::flight::Flight;
use super::plan::Plan;
use super::schedule::{Schedule, Senders};
use super::shared::Times;
use super::stats::ErrorKind;
use wingbeat::{Conn, Scope};

/// How a message is written.
pub(crate) trait Ask {
    /// Sends the message `number` of a connection.
    fn send(&self, conn: &mut Conn<'_>, index: u32, number: u64);
}

/// Messages in flight on each connection of a thread: an answer lets the next message go (closed loop), or a schedule
/// does (open loop).
#[derive(Debug)]
pub(crate) struct Exchange<A> {
    pub(crate) ask: A,
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

impl<A: Ask> Exchange<A> {
    pub(crate) fn new(plan: &Plan, connections: u32, ask: A) -> Exchange<A> {
        let flight = || if plan.rate.is_some() { Flight::scheduled() } else { Flight::timed(plan.pipeline) };
        Exchange {
            ask,
            depth: plan.pipeline.into(),
            lines: (0..connections).map(|_| Line { flight: flight(), wanted: 0 }).collect(),
            schedule: None,
            is_running: false,
            end: u64::MAX,
        }
    }

    /// The first messages.
    pub(crate) fn begin(&mut self, base: &mut Base, scope: &mut Scope<'_>, times: &Times) {
        self.is_running = true;
        let here = self.lines.len() as u32;
        let senders = Senders { thread: base.thread, here, in_all: base.plan.connections };
        self.schedule = Schedule::new(&base.plan, senders, times.begin, 1);
        if self.schedule.is_some() {
            return;
        }
        let now = base.now();
        for index in 0..here {
            let Some(mut conn) = base.conn(scope, index) else { continue };
            (0..self.depth).for_each(|_| self.send(&mut conn, index, now));
        }
    }

    /// An answer came that does not say to what: the number of the message whose turn it is; none, and counted as an
    /// error, if nothing is in flight.
    pub(crate) fn answer(&mut self, base: &mut Base, index: u32) -> Option<u64> {
        let number = self.lines[index as usize].flight.receive();
        if number.is_none() {
            base.recorder.error(ErrorKind::OutOfOrder);
        }
        number
    }

    /// An answer to the message `number` came, and those before it are lost if they had none. False, and counted as an
    /// error, if none is awaited.
    pub(crate) fn answer_to(&mut self, base: &mut Base, index: u32, number: u64) -> bool {
        let skipped = self.lines[index as usize].flight.receive_number(number);
        match skipped {
            Some(skipped) => base.recorder.lost(skipped),
            None => base.recorder.error(ErrorKind::OutOfOrder),
        }
        skipped.is_some()
    }

    /// When the message `number` of a connection was sent, or was to be sent.
    pub(crate) fn sent_at(&self, index: u32, number: u64) -> u64 {
        match &self.schedule {
            Some(schedule) => schedule.wanted_at(number * self.lines.len() as u64 + u64::from(index)),
            None => self.lines[index as usize].flight.sent_at(number),
        }
    }

    /// Sends the next message of a connection if it may go.
    pub(crate) fn go_on(&mut self, conn: &mut Conn<'_>, index: u32, now: u64) {
        if self.may_send(index) {
            self.send(conn, index, now);
        }
    }

    /// Sends what the schedule wants by `now`.
    pub(crate) fn turn(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        while let Some(index) = self.take(now) {
            base.activity += 1;
            if self.may_send(index)
                && let Some(mut conn) = base.conn(scope, index)
            {
                self.send(&mut conn, index, now);
            }
        }
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.schedule.as_ref().filter(|_| self.is_running).map(Schedule::next_at)
    }

    /// A connection is over: what it awaits is lost.
    pub(crate) fn closed(&mut self, base: &mut Base, index: u32) {
        let line = &mut self.lines[index as usize];
        base.recorder.lost(line.flight.in_flight());
        line.flight = Flight::scheduled();
        line.wanted = 0;
    }

    pub(crate) fn stop(&mut self, base: &Base) {
        self.end = base.shared.end();
        while self.take(self.end).is_some() {}
        self.is_running = false;
    }

    /// Whether all answers came.
    pub(crate) fn is_settled(&self) -> bool {
        self.lines.iter().all(|line| line.flight.in_flight() == 0)
    }

    /// Counts the answers that did not come, and the messages that were not sent.
    pub(crate) fn conclude(&mut self, base: &mut Base) {
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

    fn send(&mut self, conn: &mut Conn<'_>, index: u32, now: u64) {
        let number = self.lines[index as usize].flight.send(now);
        self.ask.send(conn, index, number);
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
