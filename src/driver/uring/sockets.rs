//! What happens to a socket: what the kernel said about it, and what is asked of the kernel next.
//!
//! Nothing is asked the moment it is wanted. A socket whose wishes and operations may differ is put in a list, and
//! before the next wait each of the list is brought in line ([`Uring::reconcile`]): so pausing and resuming within a
//! turn costs nothing, and an operation that the kernel ended by itself is asked for again the same way.

#![allow(unsafe_code)]

use super::super::{Completion, CompletionSink, SocketId};
use super::Uring;
use super::queue::{Event, GENERATION_BITS, Op};
use super::slots::State;
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown, sockopt::socket_error};
use std::{
    io::{self, ErrorKind},
    os::fd::RawFd,
};

const ERR: u32 = libc::POLLERR as u32;
const HUP: u32 = libc::POLLHUP as u32;
const RDHUP: u32 = libc::POLLRDHUP as u32;

impl Uring {
    /// Has a socket looked at before the next wait.
    pub(super) fn enqueue(&mut self, id: SocketId) {
        if self.slots[id.slot].state.begin(State::QUEUED) {
            self.wishes.push(id);
        }
    }

    fn enqueue_first(&mut self, id: SocketId) {
        if self.slots[id.slot].state.begin(State::QUEUED) {
            self.hungry.push(id);
        }
    }

    fn push_due(&mut self, id: SocketId) {
        if self.slots[id.slot].state.begin(State::DUE) {
            self.due.push(id);
        }
    }

    /// Asks the kernel for what the listed sockets want and it does not have, and the other way round. Those that got
    /// nothing because others had taken all buffers come first.
    pub(super) fn reconcile_all(&mut self) {
        let mut ids = std::mem::take(&mut self.hungry);
        ids.append(&mut self.wishes);
        for id in ids.drain(..) {
            if self.slots.live(id).is_some() {
                self.reconcile(id);
            }
        }
        self.hungry = ids; // for its memory: reconciling lists nothing
    }

    fn reconcile(&mut self, id: SocketId) {
        let slot = &mut self.slots[id.slot];
        let fd = slot.raw_fd();
        slot.state.clear(State::QUEUED);
        if slot.state.any(State::CLOSING) {
            if !slot.is_busy() {
                return self.push_due(id);
            }
            self.cancel(id, Op::Receive);
            self.cancel(id, Op::Watch);
            return self.cancel(id, Op::Send);
        }
        if slot.wants_receive() {
            return if slot.state.any(State::RESTING) { self.watch_bytes(id, fd) } else { self.receive(id, fd) };
        }
        self.stop_watching_bytes(id);
        let slot = &mut self.slots[id.slot];
        let connecting = slot.state.any(State::CONNECTING);
        let events = match slot.state.any(State::EOF | State::HUNG_UP | State::BROKEN | State::FAILED) {
            _ if connecting => libc::POLLOUT,
            true => 0,
            false => libc::POLLRDHUP,
        };
        if !slot.state.any(State::OVER | State::BROKEN | State::FAILED) && slot.state.begin(State::WATCH) {
            slot.state.clear(State::WATCHES_BYTES);
            self.queue.watch(id, fd, events);
        }
        self.cancel(id, Op::Receive);
        self.report_if_broken(id);
    }

    fn receive(&mut self, id: SocketId, fd: RawFd) {
        let state = &mut self.slots[id.slot].state;
        if state.begin(State::RECEIVE) {
            state.clear(State::FED);
            self.queue.receive(id, fd);
        }
        self.stop_watching_bytes(id);
    }

    /// Watches a resting socket, once the receive that it had has ended: what that brings comes first.
    fn watch_bytes(&mut self, id: SocketId, fd: RawFd) {
        let state = &mut self.slots[id.slot].state;
        if state.any(State::RECEIVE) {
            self.cancel(id, Op::Receive);
        } else if state.begin(State::WATCH) {
            state.set(State::WATCHES_BYTES);
            self.queue.watch_bytes(id, fd);
        } else if !state.any(State::WATCHES_BYTES) {
            self.cancel(id, Op::Watch); // it waits for less
        }
    }

    /// Else each receive would be told of twice.
    fn stop_watching_bytes(&mut self, id: SocketId) {
        if self.slots[id.slot].state.any(State::WATCHES_BYTES) {
            self.cancel(id, Op::Watch);
        }
    }

    /// Tells an operation to end, if the kernel has it and was not told yet.
    fn cancel(&mut self, id: SocketId, op: Op) {
        let state = &mut self.slots[id.slot].state;
        let (running, cancelled) = bits(op);
        if state.any(running) && state.begin(cancelled) {
            self.queue.cancel(op, id);
        }
    }

    /// Takes what the kernel said about a socket. False if the socket is gone.
    #[inline]
    pub(super) fn socket_event(&mut self, event: &Event, sink: &mut impl CompletionSink) -> bool {
        let generation = self.slots.generation(event.slot).unwrap_or_default();
        let id = SocketId { slot: event.slot, generation };
        let same = generation & ((1 << GENERATION_BITS) - 1) == event.generation;
        if event.of_cancel {
            if same && self.slots.live(id).is_some() {
                self.cancel_failed(id, event);
            }
            return true;
        }
        if !same || self.slots.live(id).is_none() {
            return false;
        }
        let (running, cancelled) = bits(event.op);
        if !event.more {
            self.slots[id.slot].state.clear(running | cancelled);
        }
        match event.op {
            Op::Receive => self.received(id, event, sink),
            Op::Send => self.sent(id, event.result, sink),
            _ => self.watched(id, event.result, sink),
        }
        // It may be closed by now only as far as `CLOSING` says: places are freed elsewhere.
        if self.slots[id.slot].state.any(State::CLOSING) && !self.slots[id.slot].is_busy() {
            self.push_due(id);
        }
        true
    }

    /// There was no such operation for the kernel to end. It may have ended; or it was between two stages, and is told
    /// again.
    fn cancel_failed(&mut self, id: SocketId, event: &Event) {
        let (running, cancelled) = bits(event.op);
        if event.result == Err(Errno::NOENT) && self.slots[id.slot].state.any(running) {
            self.slots[id.slot].state.clear(cancelled);
            self.enqueue(id);
        }
    }

    // ---- receiving --------------------------------------------------------------------------------------------

    #[inline]
    fn received(&mut self, id: SocketId, event: &Event, sink: &mut impl CompletionSink) {
        let bytes = event.result.unwrap_or(0);
        if let Some(buffer) = event.buffer {
            if bytes > 0 {
                let data = self.buffers.piece(buffer, bytes as usize);
                let slot = &mut self.slots[id.slot];
                slot.state.set(State::FED);
                if slot.wants_receive() && !slot.state.any(State::CLOSING) {
                    sink.complete(Completion::Received { id, data });
                } else if !slot.state.any(State::EOF | State::FAILED | State::CLOSING) {
                    slot.state.set(State::HELD);
                    self.held.entry(id.slot).or_default().extend_from_slice(data);
                }
            }
            self.buffers.settle(buffer, bytes > 0, event.buffer_more);
        }
        if event.more || self.slots[id.slot].state.any(State::CLOSING | State::FAILED) {
            return;
        }
        match event.result {
            Ok(0) => self.receive_ended(id, sink),
            // Ended by the kernel, or by us: asked for again if it is still wanted.
            Ok(_) | Err(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => self.enqueue(id),
            Err(error @ (Errno::NOBUFS | Errno::NOMEM)) => {
                self.mind_memory(error);
                if self.slots[id.slot].state.any(State::FED) { self.enqueue(id) } else { self.enqueue_first(id) }
            }
            Err(error) => self.receive_failed(id, kind(error), sink),
        }
    }

    /// An operation that is asked for again at once would fail again at once, if the kernel lacks memory for it.
    fn mind_memory(&mut self, error: Errno) {
        if error == Errno::NOMEM {
            self.queue.pause_for_memory();
        }
    }

    /// Takes the bytes of a resting socket that wait in the kernel, until none wait: its poll tells of further ones only.
    /// What is left, the next poll takes.
    fn receive_here(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let mut budget = self.config.receive_budget;
        while budget > 0 && sink.takes_more() {
            let Some(fd) = &self.slots[id.slot].fd else { return };
            let room = self.scratch.len().min(budget);
            match recv(fd, &mut self.scratch[..room], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return self.receive_ended(id, sink),
                Ok((received, _)) => {
                    sink.complete(Completion::Received { id, data: &mut self.scratch[..received] });
                    budget -= received;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => return self.receive_failed(id, kind(error), sink),
            }
        }
        self.push_due(id);
    }

    fn receive_ended(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let slot = &mut self.slots[id.slot];
        if slot.state.any(State::HELD) {
            slot.state.set(State::HELD_EOF | State::HUNG_UP);
        } else if let Some(error) = slot.error {
            return self.receive_failed(id, error, sink); // what came before the broken send was received
        } else {
            self.end(id, sink);
        }
        self.enqueue(id);
    }

    fn receive_failed(&mut self, id: SocketId, error: ErrorKind, sink: &mut impl CompletionSink) {
        let slot = &mut self.slots[id.slot];
        slot.state.set(State::BROKEN);
        slot.error.get_or_insert(error);
        if slot.state.any(State::SEND) {
            self.cancel(id, Op::Send); // it comes back first
        } else {
            self.fail(id, sink);
        }
    }

    fn end(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        if self.slots[id.slot].state.begin(State::EOF) {
            sink.complete(Completion::Eof { id });
        }
    }

    /// Delivers bytes that came while the socket was paused, as many as one poll may.
    fn deliver_held(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let slot = &mut self.slots[id.slot];
        let Some(held) = self.held.get_mut(&id.slot) else { return };
        if slot.state.any(State::PAUSED | State::FAILED) {
            return;
        }
        let count = held.len().min(self.config.receive_budget);
        sink.complete(Completion::Received { id, data: &mut held[..count] });
        held.drain(..count);
        if !held.is_empty() {
            return self.push_due(id);
        }
        self.held.remove(&id.slot);
        slot.state.clear(State::HELD);
        if slot.state.any(State::HELD_EOF) {
            slot.state.clear(State::HELD_EOF);
            self.end(id, sink);
        }
        self.enqueue(id);
    }

    // ---- sending ----------------------------------------------------------------------------------------------

    /// Asks the kernel to send what is left of the socket's batch.
    #[inline]
    pub(super) fn start_send(&mut self, id: SocketId) {
        let slot = &mut self.slots[id.slot];
        let fd = slot.raw_fd();
        if let Some(batch) = &slot.batch {
            slot.state.set(State::SEND);
            // SAFETY: with `SEND` set, the batch stays in its slot untouched: `sent` and `finish_close` take it when
            // `SEND` is cleared, which only the operation's last completion does, `Driver::send` puts none beside it,
            // and `Uring::drop` forgets the slots if operations are left. Drivers do not leave their thread.
            unsafe { self.queue.send(id, fd, batch) }
        }
    }

    #[inline]
    fn sent(&mut self, id: SocketId, result: Result<u32, Errno>, sink: &mut impl CompletionSink) {
        let slot = &mut self.slots[id.slot];
        let Some(batch) = &mut slot.batch else { return };
        let all = matches!(result, Ok(sent) if batch.advance(sent as usize));
        if slot.state.any(State::CLOSING) {
            return; // the close gives it back
        }
        match result {
            Ok(_) if all => {
                if let (true, Some(fd)) = (slot.state.any(State::SHUT), &slot.fd) {
                    // It fails only if the connection is gone, which the kernel tells.
                    let _ = shutdown(fd, Shutdown::Write);
                }
                if let Some(batch) = slot.batch.take() {
                    sink.complete(Completion::Sent { id, batch, result: Ok(()) });
                }
                self.report_broken(id, sink);
            }
            Ok(0) => self.send_failed(id, ErrorKind::WriteZero, sink),
            Ok(_) | Err(Errno::CANCELED | Errno::INTR | Errno::AGAIN) if slot.error.is_none() => {
                self.start_send(id);
                if result.is_ok() {
                    sink.complete(Completion::Progress { id });
                }
            }
            Err(Errno::NOMEM | Errno::NOBUFS) if slot.error.is_none() => {
                self.mind_memory(Errno::NOMEM);
                self.start_send(id);
            }
            Ok(_) => self.send_failed(id, ErrorKind::ConnectionAborted, sink),
            Err(error) => self.send_failed(id, kind(error), sink),
        }
    }

    /// Gives the batch back. What the peer said before it broke the connection is not lost to a failed send: the failure
    /// is reported when receiving has ended too, which a shutdown of both directions brings about.
    fn send_failed(&mut self, id: SocketId, error: ErrorKind, sink: &mut impl CompletionSink) {
        let slot = &mut self.slots[id.slot];
        let error = *slot.error.get_or_insert(error);
        if let Some(fd) = &slot.fd {
            let _ = shutdown(fd, Shutdown::Both);
        }
        if let Some(batch) = slot.batch.take() {
            sink.complete(Completion::Sent { id, batch, result: Err(error.into()) });
        }
        self.report_broken(id, sink);
    }

    /// Reports what broke the socket, if nothing in flight and no bytes come before it.
    fn report_broken(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let slot = &self.slots[id.slot];
        if slot.error.is_some() && !slot.state.any(State::SEND) && !slot.wants_receive() {
            self.fail(id, sink);
        }
    }

    /// The same, where nothing can be reported now.
    fn report_if_broken(&mut self, id: SocketId) {
        let slot = &self.slots[id.slot];
        if slot.error.is_some() && !slot.state.any(State::SEND | State::FAILED) {
            self.push_due(id);
        }
    }

    /// Reports the failure, once.
    fn fail(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let slot = &mut self.slots[id.slot];
        let error = slot.error.take().unwrap_or(ErrorKind::ConnectionReset);
        if slot.state.begin(State::FAILED) {
            sink.complete(Completion::Failed { id, error });
        }
        self.enqueue(id); // a receive may have to end
    }

    // ---- watching ---------------------------------------------------------------------------------------------

    /// A socket that connects, is paused, or has ended, has something to report.
    fn watched(&mut self, id: SocketId, result: Result<u32, Errno>, sink: &mut impl CompletionSink) {
        let slot = &mut self.slots[id.slot];
        if slot.state.any(State::CLOSING | State::FAILED) {
            return;
        }
        self.enqueue(id);
        let events = match result {
            Ok(events) => events,
            Err(error) => return self.mind_memory(error),
        };
        if self.slots[id.slot].state.any(State::CONNECTING) {
            return self.connected(id, sink);
        }
        if self.slots[id.slot].receives_here() {
            return self.push_due(id); // with what else it has to do: once per poll
        }
        if self.slots[id.slot].wants_receive() {
            return; // receiving finds it out
        }
        let slot = &mut self.slots[id.slot];
        let Some(fd) = &slot.fd else { return };
        if events & (HUP | ERR) != 0 {
            slot.state.set(State::OVER);
        }
        if events & ERR != 0
            && let Ok(Err(error)) = socket_error(fd)
        {
            return self.receive_failed(id, kind(error), sink);
        }
        if events & (RDHUP | HUP) != 0 && !slot.state.any(State::EOF) {
            slot.state.set(State::HUNG_UP);
            if slot.state.any(State::HELD) {
                return; // bytes are before it
            }
            match recv(fd, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.end(id, sink),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => self.receive_failed(id, kind(error), sink),
            }
        }
    }

    fn connected(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let slot = &mut self.slots[id.slot];
        let Some(fd) = &slot.fd else { return };
        let outcome = socket_error(fd);
        slot.state.clear(State::CONNECTING);
        match outcome {
            Ok(Ok(())) => sink.complete(Completion::Connected { id }),
            Ok(Err(error)) | Err(error) => self.receive_failed(id, kind(error), sink),
        }
    }

    // ---- without the kernel -----------------------------------------------------------------------------------

    /// Does what waited for its turn. Those whose bytes the sink does not take now come first the next time.
    pub(super) fn work_off(&mut self, sink: &mut impl CompletionSink) {
        let mut due = std::mem::take(&mut self.due);
        let mut kept = 0;
        for at in 0..due.len() {
            let id = due[at];
            let Some(slot) = self.slots.live(id) else { continue };
            if !slot.state.any(State::CLOSING) && !sink.takes_more() {
                due[kept] = id;
                kept += 1;
                continue;
            }
            slot.state.clear(State::DUE);
            if slot.state.any(State::CLOSING) {
                self.finish_close(id, sink);
                continue;
            }
            if slot.state.any(State::HELD) {
                self.deliver_held(id, sink);
            } else if slot.receives_here() {
                self.receive_here(id, sink);
            }
            self.report_broken(id, sink);
        }
        due.truncate(kept);
        due.append(&mut self.due);
        self.due = due;
    }

    /// Every operation of a closed socket has ended.
    fn finish_close(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let slot = &mut self.slots[id.slot];
        if slot.is_busy() {
            return; // its last completion brings it here again
        }
        if let Some(batch) = slot.batch.take() {
            let error = slot.error.take().unwrap_or(ErrorKind::ConnectionAborted);
            let result = if batch.left() == 0 { Ok(()) } else { Err(io::Error::from(error)) };
            sink.complete(Completion::Sent { id, batch, result });
        }
        self.held.remove(&id.slot);
        self.slots.remove(id.slot);
        self.acceptor.descriptor_freed();
        sink.complete(Completion::Closed { id });
    }
}

/// What says that the kernel has such an operation, and that it was told to end it.
fn bits(op: Op) -> (State, State) {
    match op {
        Op::Receive => (State::RECEIVE, State::RECEIVE_CANCELLED),
        Op::Send => (State::SEND, State::SEND_CANCELLED),
        _ => (State::WATCH, State::WATCH_CANCELLED),
    }
}

fn kind(error: Errno) -> ErrorKind {
    io::Error::from(error).kind()
}
