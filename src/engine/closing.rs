//! How connections end: the closing handshake from either side, and what the handler hears of it.
#![forbid(unsafe_code)]

use super::connection::{Phase, flag};
use super::error::{CloseCause, CloseReason};
use super::handler::Handler;
use super::session::Engine;
use crate::driver::SocketId;
use crate::proto::{CloseCode, MAX_CLOSE_REASON, Opcode, ProtoError, parse_close};

impl<H: Handler> Engine<H> {
    /// The peer's Close: echoed, or the answer to ours.
    pub(super) fn peer_close(&mut self, slot: u32, payload: &[u8]) {
        let code = match parse_close(payload) {
            Err(error) => return self.violation(slot, error),
            Ok(None) => None,
            Ok(Some((code, _))) => Some(code),
        };
        let was_open = self.core.table.hot[slot].phase == Phase::Open;
        if was_open {
            self.leave(slot);
            self.send_close(slot, code, "");
        }
        self.finish(slot);
        if was_open {
            let code = code.map_or(1005, CloseCode::get);
            self.end(slot, CloseReason { code, cause: CloseCause::Peer });
        }
    }

    /// The peer broke the protocol: a Close that says how, then what it sends is no longer read.
    pub(super) fn violation(&mut self, slot: u32, error: ProtoError) {
        if self.core.table.hot[slot].phase == Phase::Open {
            let code = error.close_code();
            self.leave(slot);
            self.send_close(slot, Some(code), "");
            self.finish(slot);
            self.end(slot, CloseReason::new(code, CloseCause::Protocol(error)));
        } else {
            self.finish(slot);
        }
    }

    /// From here `send` refuses and no policy is applied; what was published before is still owed, and queued now.
    pub(super) fn leave(&mut self, slot: u32) {
        let hot = &mut self.core.table.hot[slot];
        hot.flags &= !flag::DOOMED;
        hot.phase = Phase::Closing;
        self.core.unsubscribe_all(slot);
    }

    pub(super) fn send_close(&mut self, slot: u32, code: Option<CloseCode>, reason: &str) {
        let mut payload = [0; 125];
        let mut len = 0;
        if let Some(code) = code {
            payload[..2].copy_from_slice(&code.get().to_be_bytes());
            let cut = (0..=reason.len().min(MAX_CLOSE_REASON)).rev().find(|&at| reason.is_char_boundary(at));
            let reason = &reason[..cut.unwrap_or(0)];
            payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
            len = 2 + reason.len();
        }
        self.core.table.control(slot, Opcode::Close, &payload[..len]);
    }

    /// Lets leave what is queued, then shuts the sending side.
    pub(crate) fn finish(&mut self, slot: u32) {
        self.core.table.finish(slot);
    }

    pub(crate) fn start_deadline(&mut self, slot: u32) {
        self.core.table.start_deadline(slot);
    }

    /// Tells the handler that a connection is over.
    pub(crate) fn end(&mut self, slot: u32, reason: CloseReason) {
        let table = &mut self.core.table;
        if table.hot[slot].has(flag::COUNTED_OPEN) {
            table.hot[slot].flags &= !flag::COUNTED_OPEN;
            table.open -= 1;
            self.board.count_close(reason);
        }
        if let Some(state) = self.states[slot].take() {
            self.ask(|handler, scope| handler.close(scope, state, reason));
        }
        self.plan_reconnect(slot, reason);
    }

    fn plan_reconnect(&mut self, slot: u32, reason: CloseReason) {
        let Some(dial) = self.take_dial(slot) else { return };
        // What this side wanted is not undone.
        if !matches!(reason.cause, CloseCause::Local | CloseCause::Remote | CloseCause::Drain) {
            self.redial(dial);
        }
    }

    pub(super) fn close_noted(&mut self) {
        while let Some(id) = self.core.table.doomed.pop() {
            self.close_one(id);
        }
    }

    fn close_one(&mut self, id: SocketId) {
        let Some(hot) = self.core.table.live(id) else { return };
        let Some(closing) = hot.cold.as_deref_mut().and_then(|cold| cold.closing.take()) else { return };
        if hot.phase != Phase::Open {
            return self.core.table.force(id.slot);
        }
        self.leave(id.slot);
        match closing.cause {
            CloseCause::SlowConsumer | CloseCause::Stalled => self.core.table.discard_publications(id.slot),
            CloseCause::Memory => self.core.table.discard_outbox(id.slot),
            _ => {}
        }
        self.send_close(id.slot, Some(closing.code), &closing.reason);
        self.start_deadline(id.slot);
        self.core.table.plan_resume(id.slot);
        self.end(id.slot, CloseReason::new(closing.code, closing.cause));
    }
}
