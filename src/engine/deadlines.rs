//! What happens when time passes: keepalive, deadlines, drain, timers of the handler.
#![forbid(unsafe_code)]

use super::connection::{Phase, flag};
use super::core::Alarm;
use super::drain::{Drain, Draining};
use super::error::{CloseCause, CloseReason, ConnectError};
use super::handler::Handler;
use super::profile::Keepalive;
use super::request::Response;
use super::session::Engine;
use super::table::Table;
use crate::proto::{CloseCode, Opcode};
use std::time::{Duration, Instant};

/// Resolution of connection timers.
pub(crate) const TICK: Duration = Duration::from_millis(16);
/// Buckets of the wheel: 65 s until a deadline has to be looked at twice.
pub(crate) const BUCKETS: usize = 4096;
/// The longest time that is told from a longer one: 198 days. Half the range of a tick, so that differences have a sign.
const MAX_TICKS: u32 = 1 << 30;

/// Ticks that cover a duration: one more than it holds, because the current one has begun. A time beyond 198 days is cut
/// to that.
pub(crate) fn ticks(duration: Duration) -> u32 {
    (duration.as_nanos() / TICK.as_nanos()).min(u128::from(MAX_TICKS)) as u32 + 1
}

impl<H: Handler> Engine<H> {
    pub(crate) fn set_time(&mut self, now: Instant) {
        let table = &mut self.core.table;
        table.now = now.max(table.now);
        table.tick = table.wheel.tick_at(table.now);
    }

    pub(crate) fn ticks(&self, duration: Duration) -> u32 {
        ticks(duration)
    }

    /// Fires what is due, within the budget of a turn.
    pub(crate) fn advance_timers(&mut self) {
        let mut budget = self.core.table.config.budgets.timers;
        let mut fired = std::mem::take(&mut self.fired);
        self.core.table.fire(&mut budget, &mut fired);
        for slot in fired.drain(..) {
            self.deadline(slot);
            self.after_callbacks();
        }
        self.fired = fired;
        while budget > 0 {
            let Some(alarm) = self.core.timers.pop_due(self.core.table.now) else { break };
            self.alarm(alarm);
            self.after_callbacks();
            budget -= 1;
        }
    }

    fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::User(token) => {
                self.ask(|handler, scope| handler.timer(scope, token));
            }
            Alarm::Conn(id, token) if self.core.table.is_open(id) => {
                self.call(id.slot, |handler, conn, state| handler.conn_timer(conn, state, token));
            }
            Alarm::Conn(..) => {}
            Alarm::Connect(dial) => self.core.dials.push(dial),
            Alarm::Drain => self.drain_batch(),
        }
    }

    /// A connection's timer fired: what it means depends on the phase, and it may have become moot since it was set.
    fn deadline(&mut self, slot: u32) {
        let limits = self.core.table.config.limits;
        let elapsed = self.core.table.tick.wrapping_sub(self.core.table.hot[slot].tick);
        let phase = self.core.table.hot[slot].phase;
        let timeout = match phase {
            Phase::Open => return self.keepalive(slot, elapsed),
            Phase::Opening if self.core.table.is_idle(slot) => limits.keep_alive_timeout,
            Phase::Opening if self.core.table.is_reading_body(slot) => limits.body_timeout,
            Phase::Answering => limits.answer_timeout,
            Phase::Connecting | Phase::Opening | Phase::Deferred => limits.handshake_timeout,
            _ => limits.close_timeout,
        };
        if !self.is_over(slot, elapsed, timeout) {
            return;
        }
        match phase {
            Phase::Opening if self.core.table.is_idle(slot) => self.finish(slot),
            Phase::Answering => self.answer_timed_out(slot),
            Phase::Connecting | Phase::Opening => self.opening_timed_out(slot),
            Phase::Deferred => self.respond(slot, &Response::text(503, "not admitted in time\n"), false),
            _ => self.core.table.force(slot),
        }
    }

    /// Whether a deadline has passed; if not, the timer is armed for it again.
    fn is_over(&mut self, slot: u32, elapsed: u32, timeout: Duration) -> bool {
        let due = self.ticks(timeout);
        if elapsed < due {
            let tick = self.core.table.hot[slot].tick;
            self.core.table.arm(slot, tick.wrapping_add(due));
        }
        elapsed >= due
    }

    /// RFC 6455 §5.5.2: a ping at two thirds of the idle timeout, the end at the whole; or the end alone.
    fn keepalive(&mut self, slot: u32, elapsed: u32) {
        if self.core.table.hot[slot].has(flag::BLOCKED) {
            return self.stall(slot);
        }
        let profile = *self.core.table.profile(slot);
        if profile.idle_timeout.is_zero() {
            let pause = self.core.table.config.limits.stall_timeout;
            if elapsed >= self.ticks(pause) {
                self.core.table.rest(slot);
            }
            return self.arm_in(slot, pause);
        }
        let (first, end) = (self.ticks(profile.first_deadline()), self.ticks(profile.idle_timeout));
        let table = &mut self.core.table;
        let tick = table.tick;
        let hot = &mut table.hot[slot];
        if hot.has(flag::HELD) {
            hot.tick = tick; // we do not listen: its silence says nothing
            return self.watch(slot, tick.wrapping_add(end));
        }
        let due = match (profile.keepalive, hot.has(flag::PINGED)) {
            (Keepalive::Ping, true) if elapsed >= end => {
                return table.doom(slot, CloseCode::GOING_AWAY, "idle", CloseCause::Idle);
            }
            (Keepalive::Silent(code), _) if elapsed >= end => {
                return self.core.close(slot, code, "idle", CloseCause::Idle);
            }
            (Keepalive::Ping, false) if elapsed >= first => {
                // A process that was stopped comes here late: the peer still gets its ping, and the time to answer it.
                hot.tick = tick.wrapping_sub(first);
                hot.flags |= flag::PINGED;
                if hot.has(flag::QUIET) {
                    table.rest(slot);
                }
                table.hot[slot].flags |= flag::QUIET;
                table.control(slot, Opcode::Ping, b"");
                end
            }
            (Keepalive::Ping, false) => first,
            (Keepalive::Silent(_), _) => {
                if elapsed >= end / 2 {
                    table.rest(slot);
                }
                end
            }
            (Keepalive::Ping, true) => end,
        };
        self.watch(slot, self.core.table.hot[slot].tick.wrapping_add(due));
    }

    /// Arms the timer of an open connection: for `due`, or earlier to see whether it has stalled.
    pub(crate) fn watch(&mut self, slot: u32, due: u32) {
        let stall = self.ticks(self.core.table.config.limits.stall_timeout);
        let table = &mut self.core.table;
        let ahead = due.wrapping_sub(table.tick).min(stall);
        table.arm(slot, table.tick.wrapping_add(ahead));
    }

    /// A peer to which a send has been in flight since the timer looked last has taken nothing meanwhile.
    fn stall(&mut self, slot: u32) {
        let due = self.ticks(self.core.table.config.limits.stall_timeout);
        let table = &mut self.core.table;
        let tick = table.tick;
        let since = *table.cold(slot).watched.get_or_insert(tick);
        if tick.wrapping_sub(since) >= due {
            return table.doom(slot, CloseCode::TRY_AGAIN_LATER, "stalled", CloseCause::Stalled);
        }
        // The wheel may bring it back earlier than it was told.
        table.arm(slot, since.wrapping_add(due));
    }

    fn arm_in(&mut self, slot: u32, delay: Duration) {
        let due = self.ticks(delay);
        let table = &mut self.core.table;
        table.arm(slot, table.tick.wrapping_add(due));
    }

    /// Time until something is due; none if nothing is.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<Duration> {
        let connections = self.core.table.wheel.next_due(now);
        let timers = self.core.timers.next_due().map(|due| due.saturating_duration_since(now));
        match (connections, timers) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    // ---- drain ----------------------------------------------------------------------------------------------

    pub(crate) fn start_drain(&mut self, plan: Drain) {
        let deadline = self.core.table.tick.wrapping_add(self.ticks(plan.deadline));
        self.drain = Some(Draining { plan, cursor: 0, deadline, told: false });
        self.core.table.draining = true;
        self.ask(|handler, scope| handler.draining(scope));
        self.drain_batch();
    }

    /// Closes the next batch; at the deadline all that are open; after the close timeout, what is left.
    fn drain_batch(&mut self) {
        let Some(Draining { plan, mut cursor, mut deadline, told }) = self.drain else { return };
        let over = deadline.wrapping_sub(self.core.table.tick) as i32 <= 0;
        let capacity = self.core.table.hot.capacity() as u32;
        if over {
            cursor = 0;
            if !told {
                deadline = self.core.table.tick.wrapping_add(self.ticks(self.core.table.config.limits.close_timeout));
            }
        }
        let left = deadline.wrapping_sub(self.core.table.tick) as i32;
        let left = TICK * left.clamp(1, MAX_TICKS as i32) as u32;
        let interval = plan.interval.max(TICK);
        let mut batch = if over { u32::MAX } else { plan.batch.max(share(self.core.table.open, left, interval)) };
        while cursor < capacity && batch > 0 {
            batch -= u32::from(self.drain_one(cursor, plan.code, over && told));
            cursor += 1;
        }
        // What was not open the first time may be by now: the table is gone over until nothing lives.
        cursor = if cursor >= capacity { 0 } else { cursor };
        let told = told || over;
        self.drain = Some(Draining { plan, cursor, deadline, told });
        // Until the deadline even if nothing lives: some may wait to be accepted yet.
        if self.core.table.live > 0 || !told {
            self.core.alarm(interval.min(left), Alarm::Drain);
        }
    }

    /// Closes one slot's connection, without a word if the time for words is `over`; true if it counts in the batch.
    fn drain_one(&mut self, slot: u32, code: CloseCode, over: bool) -> bool {
        match self.core.table.hot[slot].phase {
            Phase::Vacant | Phase::Dead => false,
            Phase::Connecting | Phase::Opening if self.core.table.hot[slot].has(flag::CLIENT) => {
                self.connect_failed(slot, ConnectError::Closed);
                self.core.table.force(slot);
                true
            }
            _ if over => {
                self.core.table.force(slot);
                self.end(slot, CloseReason::new(code, CloseCause::Drain));
                true
            }
            Phase::Open => {
                self.core.table.doom(slot, code, "", CloseCause::Drain);
                true
            }
            Phase::Opening if self.core.table.is_idle(slot) => {
                self.finish(slot);
                true
            }
            Phase::Connecting | Phase::Opening | Phase::Deferred => {
                self.respond(slot, &Response::text(503, "the server is going away\n"), false);
                true
            }
            // A request in work is answered, within its timeout and the drain's, with the end behind it.
            Phase::Answering | Phase::Closing | Phase::Finishing | Phase::Lingering => false,
        }
    }
}

impl Table {
    /// Has the socket of a connection that says nothing by itself watched as cheaply as can be.
    fn rest(&mut self, slot: u32) {
        self.hot[slot].flags |= flag::QUIET;
        let id = self.id(slot);
        self.rests.push(id);
    }

    /// A connection said something: more than a ping or a pong, which a socket takes while it rests.
    #[inline]
    pub(super) fn stir(&mut self, slot: u32) {
        if self.hot[slot].has(flag::QUIET) {
            self.hot[slot].flags &= !flag::QUIET;
            let id = self.id(slot);
            self.rouses.push(id);
        }
    }
}

/// How many of `open` connections each batch must close so that all have their Close when the time `left` is over.
fn share(open: u32, left: Duration, interval: Duration) -> u32 {
    let batches = (left.as_nanos() / interval.as_nanos()).max(1);
    u128::from(open).div_ceil(batches) as u32
}
