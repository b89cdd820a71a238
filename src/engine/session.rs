//! From completions to callbacks: the life of a connection once bytes move.
#![forbid(unsafe_code)]

use super::admission::Admission;
use super::connection::{Cold, Hot, Phase, flag};
use super::core::Core;
use super::counters::Board;
use super::drain::Draining;
use super::error::{CloseCause, CloseReason, ConnectError};
use super::handler::{Conn, Handler, Message, Scope};
use super::lane::Receiver;
use super::mail::Mail;
use crate::buffer::Paged;
use crate::driver::{Completion, CompletionSink, SocketId};
use crate::proto::{Assembler, CloseCode, ControlKind, Event, MessageKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{sync::Arc, time::Instant};

/// Where the time comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    /// Read once per turn.
    System,
    /// Told by the caller of the turn.
    Told(Instant),
}

/// A worker without its driver: core, handler and states, each borrowed apart.
pub(crate) struct Engine<H: Handler> {
    pub(crate) core: Core,
    pub(crate) handler: H,
    pub(crate) states: Paged<Option<H::State>>,
    pub(crate) board: Arc<Board>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) drain: Option<Draining>,
    /// Connections that were refused at a limit and are still there.
    pub(crate) refused: u32,
    pub(crate) clock: Clock,
    pub(crate) scratch: Vec<u8>,
    pub(crate) fired: Vec<u32>,
    /// Completions taken since the start: tells a turn that found something from one that did not.
    pub(crate) completions: u64,
    /// Those of them that brought bytes.
    pub(crate) receives: u64,
}

/// What a connection's input may do now.
enum Gate {
    Read,
    Keep,
    Discard,
}

impl<H: Handler> Engine<H> {
    /// The one place that runs user code with a connection.
    #[inline]
    pub(crate) fn call(&mut self, slot: u32, run: impl FnOnce(&mut H, &mut Conn<'_>, &mut H::State)) {
        let Some(state) = self.states[slot].as_mut() else { return };
        let (handler, mut conn) = (&mut self.handler, Conn { core: &mut self.core, slot });
        if catch_unwind(AssertUnwindSafe(|| run(handler, &mut conn, state))).is_err() {
            self.core.panicked();
            self.core.table.doom(slot, CloseCode::INTERNAL, "", CloseCause::Panic);
        }
    }

    /// The one place that runs user code without a connection. None if it panicked.
    pub(crate) fn ask<T>(&mut self, run: impl FnOnce(&mut H, &mut Scope<'_>) -> T) -> Option<T> {
        let (handler, mut scope) = (&mut self.handler, Scope { core: &mut self.core });
        let answer = catch_unwind(AssertUnwindSafe(|| run(handler, &mut scope))).ok();
        if answer.is_none() {
            self.core.panicked();
        }
        answer
    }

    // ---- receiving ------------------------------------------------------------------------------------------

    fn received(&mut self, slot: u32, data: &mut [u8]) {
        let table = &mut self.core.table;
        table.counters.received_bytes += data.len() as u64;
        let (tick, hot) = (table.tick, &mut table.hot[slot]);
        match hot.phase {
            Phase::Open | Phase::Closing if hot.cold.as_deref().is_some_and(Cold::has_input) => {
                hot.heard(tick);
                table.stash(slot, data);
            }
            Phase::Open | Phase::Closing => {
                hot.heard(tick);
                self.frames(slot, data);
            }
            Phase::Opening => self.opening(slot, data),
            Phase::Answering | Phase::Deferred => table.stash(slot, data),
            Phase::Vacant | Phase::Connecting | Phase::Finishing | Phase::Lingering | Phase::Dead => {}
        }
    }

    /// Reads frames until the bytes are used up or may not be read further.
    pub(crate) fn frames(&mut self, slot: u32, data: &mut [u8]) {
        self.read(slot, data);
        self.core.table.lookahead = 0;
    }

    fn read(&mut self, slot: u32, mut data: &mut [u8]) {
        const LOOK: u16 = flag::HELD | flag::DOOMED;
        let limits = self.core.table.read_limits(slot);
        loop {
            let hot = &mut self.core.table.hot[slot];
            if hot.has(LOOK)
                || hot.phase != Phase::Open
                || hot.outbox.bytes() > self.core.table.config.limits.outbox_high
            {
                match self.gate(slot) {
                    Gate::Read => {}
                    Gate::Keep => return self.core.table.stash(slot, data),
                    Gate::Discard => return,
                }
            }
            match self.core.table.hot[slot].reader.next(&mut data, &limits) {
                Ok(Event::Message { kind, payload }) => {
                    self.core.table.lookahead = data.len();
                    self.message(slot, kind, payload);
                }
                Ok(Event::NeedMore) => break,
                Ok(Event::MessagePart { kind, payload, last }) => self.message_part(slot, kind, payload, last),
                Ok(Event::Control { kind, payload }) => self.control(slot, kind, payload),
                Ok(Event::ControlPart { kind, payload, last }) => self.control_part(slot, kind, payload, last),
                Err(error) => return self.violation(slot, error),
            }
        }
    }

    fn gate(&mut self, slot: u32) -> Gate {
        if self.core.table.hot[slot].has(flag::DOOMED) {
            self.after_callbacks();
        }
        let phase = self.core.table.hot[slot].phase;
        match phase {
            Phase::Open if self.core.table.must_wait(slot) => Gate::Keep,
            Phase::Open | Phase::Closing => Gate::Read,
            _ => Gate::Discard,
        }
    }

    #[inline]
    fn message(&mut self, slot: u32, kind: MessageKind, payload: &[u8]) {
        if self.core.table.hot[slot].phase == Phase::Open {
            let table = &mut self.core.table;
            table.stir(slot);
            table.counters.received_messages += 1;
            let published = table.counters.published;
            self.call(slot, |handler, conn, state| handler.message(conn, state, Message { kind, payload }));
            let table = &mut self.core.table;
            if table.owed_bytes > table.config.limits.owed_bytes && table.counters.published != published {
                table.throttle(slot);
            }
            if !self.core.table.deliveries.is_empty() {
                self.after_callbacks();
            }
        }
    }

    fn message_part(&mut self, slot: u32, kind: MessageKind, payload: &[u8], last: bool) {
        if self.core.table.hot[slot].phase != Phase::Open {
            return;
        }
        self.core.table.stir(slot);
        self.core.table.counters.copied_bytes += payload.len() as u64;
        let mut assembler = self.take_assembler(slot);
        if let Some(whole) = assembler.message_part(payload, last) {
            self.message(slot, kind, whole);
        }
        self.keep_assembler(slot, assembler);
    }

    fn control_part(&mut self, slot: u32, kind: ControlKind, payload: &[u8], last: bool) {
        self.core.table.counters.copied_bytes += payload.len() as u64;
        let mut assembler = self.take_assembler(slot);
        let mut whole = [0; 125];
        let len = assembler.control_part(payload, last).map(|payload| {
            whole[..payload.len()].copy_from_slice(payload);
            payload.len()
        });
        self.keep_assembler(slot, assembler);
        if let Some(len) = len {
            self.control(slot, kind, &whole[..len]);
        }
    }

    fn take_assembler(&mut self, slot: u32) -> Assembler {
        let table = &mut self.core.table;
        let kept = table.hot[slot].cold.as_deref_mut().and_then(|cold| cold.assembler.take());
        kept.unwrap_or_else(|| Assembler::new(table.spill.take()))
    }

    fn keep_assembler(&mut self, slot: u32, assembler: Assembler) {
        let table = &mut self.core.table;
        if assembler.is_empty() {
            table.spill.give(assembler.into_buffer());
            table.shed_cold(slot);
        } else {
            table.cold(slot).assembler = Some(assembler);
        }
    }

    fn control(&mut self, slot: u32, kind: ControlKind, payload: &[u8]) {
        match (kind, self.core.table.hot[slot].phase) {
            (ControlKind::Close, _) => self.peer_close(slot, payload),
            (ControlKind::Ping, Phase::Open) => self.core.table.pong(slot, payload),
            (ControlKind::Pong, Phase::Open) => {
                self.call(slot, |handler, conn, state| handler.pong(conn, state, payload))
            }
            _ => {}
        }
    }

    /// Does the closes that were noted while user code or a walk was running, and the callbacks that became due.
    pub(crate) fn after_callbacks(&mut self) {
        self.close_noted();
        if !self.core.table.deliveries.is_empty() {
            self.make_deliveries();
        }
    }

    fn eof(&mut self, slot: u32) {
        let hot = &mut self.core.table.hot[slot];
        hot.flags |= flag::EOF;
        let waits = hot.cold.as_deref().is_some_and(Cold::has_input);
        match hot.phase {
            Phase::Open | Phase::Closing if waits => {} // what came before the end is read first
            Phase::Open => {
                self.leave(slot);
                self.finish(slot);
                self.end(slot, CloseReason::LOST);
            }
            Phase::Closing => self.finish(slot),
            Phase::Finishing => self.core.table.mark_dirty(slot),
            Phase::Opening if waits && hot.has(flag::HELD | flag::RESUMING) => {} // these requests are answered first
            Phase::Opening | Phase::Answering if !hot.has(flag::CLIENT) => self.requests_end(slot),
            Phase::Opening | Phase::Connecting => {
                self.connect_failed(slot, ConnectError::Closed);
                self.core.table.force(slot);
            }
            Phase::Answering | Phase::Deferred | Phase::Lingering => self.core.table.force(slot),
            Phase::Vacant | Phase::Dead => {}
        }
    }

    fn failed(&mut self, slot: u32, kind: std::io::ErrorKind) {
        self.connect_failed(slot, ConnectError::Io(kind));
        self.abandon(slot);
        self.core.table.force(slot);
        self.core.unsubscribe_all(slot);
        self.end(slot, CloseReason { code: 1006, cause: CloseCause::Failed(kind) });
    }

    fn closed(&mut self, id: SocketId) {
        let slot = id.slot;
        self.abandon(slot);
        self.core.unsubscribe_all(slot);
        self.end(slot, CloseReason::LOST);
        let hot = &mut self.core.table.hot[slot];
        let (flags, address) = (hot.flags, hot.address);
        self.refused -= u32::from(flags & (flag::ADMITTED | flag::CLIENT) == 0);
        self.admission.leave(flags & flag::ADMITTED != 0, (address != u32::MAX).then_some(address));
        self.core.table.vacate(slot);
    }

    /// Puts a fresh record into a slot.
    pub(crate) fn occupy(&mut self, id: SocketId, phase: Phase, flags: u16) {
        self.core.table.hot.ensure(id.slot);
        self.states.ensure(id.slot);
        let tick = self.core.table.tick;
        self.core.table.hot[id.slot] = Hot { generation: id.generation, phase, flags, tick, ..Hot::default() };
        self.core.table.live += 1;
        let due = self.ticks(self.core.table.config.limits.handshake_timeout);
        self.core.table.arm(id.slot, tick.wrapping_add(due));
    }

    // ---- resuming -------------------------------------------------------------------------------------------

    /// Whether nothing may be received from a connection now.
    pub(crate) fn holds(&mut self, id: SocketId) -> bool {
        self.core.table.live(id).is_some_and(|hot| match hot.phase {
            Phase::Answering | Phase::Deferred => true,
            Phase::Opening | Phase::Open => hot.has(flag::HELD),
            _ => false,
        })
    }

    /// Reads what waited; true if the socket may deliver again.
    pub(crate) fn resume(&mut self, id: SocketId) -> bool {
        let Some(hot) = self.core.table.live(id) else { return false };
        hot.flags &= !flag::RESUMING;
        if self.holds(id) {
            return false;
        }
        if let Some(mut input) = self.core.table.unstash(id.slot) {
            match self.core.table.hot[id.slot].phase {
                Phase::Open | Phase::Closing => self.frames(id.slot, &mut input),
                Phase::Opening => self.requests(id.slot, &mut input),
                _ => {}
            }
            self.core.table.spill.give(input);
            self.after_callbacks();
        }
        let hot = &self.core.table.hot[id.slot];
        let waits = hot.cold.as_deref().is_some_and(Cold::has_input);
        if hot.has(flag::EOF) && !waits && matches!(hot.phase, Phase::Open | Phase::Closing) {
            self.eof(id.slot);
        }
        let hot = &self.core.table.hot[id.slot];
        if hot.has(flag::EOF) && matches!(hot.phase, Phase::Opening | Phase::Answering) {
            self.eof(id.slot);
        }
        !self.holds(id)
    }

    // ---- mail -----------------------------------------------------------------------------------------------

    pub(crate) fn mail(&mut self, mail: Mail<H::Mail>) {
        self.core.table.counters.mail += 1;
        match mail {
            Mail::Publish(parcel) => {
                let (topic, key, message) = parcel.open();
                self.core.publish_here(topic, None, key, message);
            }
            Mail::Send { id, kind, payload } if self.core.table.is_open(id) => {
                self.core.send(id.slot, Message { kind, payload: &payload });
            }
            Mail::Disconnect { id, code, reason } if self.core.table.is_open(id) => {
                self.core.close(id.slot, code, &reason, CloseCause::Remote);
            }
            Mail::User { id, mail } if self.core.table.is_open(id) => {
                self.call(id.slot, |handler, conn, state| handler.mail(conn, state, mail));
            }
            Mail::Upgrade { id, mail } => self.answer_deferred(id, mail),
            Mail::Respond { id, response } => {
                let stale = !self.core.respond(id, &response);
                self.core.table.counters.mail_stale += u64::from(stale);
            }
            Mail::Worker { mail } => _ = self.ask(|handler, scope| handler.worker_mail(scope, mail)),
            Mail::Send { .. } | Mail::Disconnect { .. } | Mail::User { .. } => self.core.table.counters.mail_stale += 1,
        }
        self.after_callbacks();
    }
}

impl<H: Handler> CompletionSink for Engine<H> {
    fn polled(&mut self) {
        let now = match self.clock {
            Clock::System => Instant::now(),
            Clock::Told(now) => now,
        };
        self.set_time(now);
    }

    #[inline]
    fn takes_more(&self) -> bool {
        !self.core.table.is_sated()
    }

    fn complete(&mut self, completion: Completion<'_>) {
        self.completions += 1;
        match completion {
            Completion::Received { id, data } => {
                self.receives += 1;
                if self.core.table.live(id).is_some() {
                    self.received(id.slot, data);
                }
            }
            Completion::Accepted { id, peer, .. } => self.accepted(id, peer),
            Completion::Connected { id } => self.connected(id),
            Completion::Eof { id } => {
                if self.core.table.live(id).is_some() {
                    self.eof(id.slot);
                }
            }
            Completion::Sent { id, batch, .. } => self.core.table.sent(id, batch),
            Completion::Progress { id } => self.core.table.taken(id),
            Completion::Failed { id, error } => {
                if self.core.table.live(id).is_some() {
                    self.failed(id.slot, error);
                }
            }
            Completion::Closed { id } => {
                if self.core.table.live(id).is_some() {
                    self.closed(id);
                }
            }
            Completion::Woken => {}
        }
        self.after_callbacks();
    }
}

/// The engine, and the lane, whose senders learn that the worker is up before the first callback runs: a wake while the
/// callbacks of a long poll run would be a system call for nothing.
pub(super) struct Awakened<'a, H: Handler> {
    pub(super) engine: &'a mut Engine<H>,
    pub(super) lane: &'a mut Receiver<Mail<H::Mail>>,
}

impl<H: Handler> CompletionSink for Awakened<'_, H> {
    fn polled(&mut self) {
        self.lane.awake();
        self.engine.polled();
    }

    #[inline]
    fn complete(&mut self, completion: Completion<'_>) {
        self.engine.complete(completion);
    }

    #[inline]
    fn takes_more(&self) -> bool {
        self.engine.takes_more()
    }
}
