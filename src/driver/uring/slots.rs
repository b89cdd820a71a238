//! What is known of a socket, in 24 bytes.
#![forbid(unsafe_code)]

use super::super::SocketId;
use super::super::table::{Place, Table};
use crate::buffer::SendBatch;
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

/// One socket, or a free place.
#[derive(Default, Debug)]
pub(super) struct Slot {
    /// What is in flight. While [`State::SEND`] is set the kernel reads its bytes: it stays here, unchanged.
    pub(super) batch: Option<SendBatch>,
    /// None if the place is free.
    pub(super) fd: Option<OwnedFd>,
    pub(super) generation: u32,
    /// The slot after this one in the free list, for a free place; else the set of facts.
    pub(super) state: State,
    /// Why the socket is broken, until that can be reported.
    pub(super) error: Option<io::ErrorKind>,
}

const _: () = assert!(size_of::<Slot>() <= 24, "a million of these");

impl Slot {
    /// Whether its bytes are to be received.
    pub(super) fn wants_receive(&self) -> bool {
        !self.state.any(State::PAUSED | State::EOF | State::BROKEN | State::FAILED | State::HELD | State::CONNECTING)
    }

    /// Whether bytes that wait in the kernel are to be taken here: no receive stands there to take them.
    pub(super) fn receives_here(&self) -> bool {
        self.wants_receive() && self.state.any(State::RESTING) && !self.state.any(State::RECEIVE | State::CLOSING)
    }

    /// Whether the kernel has an operation of it.
    pub(super) fn is_busy(&self) -> bool {
        self.state.any(State::RECEIVE | State::WATCH | State::SEND)
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

/// A set of facts about a socket.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(u32);

impl State {
    /// The kernel has a receive of it.
    pub(super) const RECEIVE: State = State(1 << 0);
    /// The kernel has a poll of it.
    pub(super) const WATCH: State = State(1 << 1);
    /// The kernel has a send of it, and reads the bytes of the batch.
    pub(super) const SEND: State = State(1 << 2);
    /// The receive is told to end.
    pub(super) const RECEIVE_CANCELLED: State = State(1 << 3);
    /// The poll is told to end.
    pub(super) const WATCH_CANCELLED: State = State(1 << 4);
    /// The send is told to end.
    pub(super) const SEND_CANCELLED: State = State(1 << 5);
    /// In one of the lists of sockets that are looked at before the next wait.
    pub(super) const QUEUED: State = State(1 << 6);
    /// In the list of sockets that have something to report without the kernel.
    pub(super) const DUE: State = State(1 << 7);
    /// Receiving is stopped.
    pub(super) const PAUSED: State = State(1 << 8);
    /// The end was delivered.
    pub(super) const EOF: State = State(1 << 9);
    /// The connect has not ended.
    pub(super) const CONNECTING: State = State(1 << 10);
    /// The sending side is shut down, or will be after what is in flight.
    pub(super) const SHUT: State = State(1 << 11);
    /// The failure was delivered.
    pub(super) const FAILED: State = State(1 << 12);
    /// Receiving has ended with an error.
    pub(super) const BROKEN: State = State(1 << 13);
    /// Closed by the engine; the place is taken until every operation has ended.
    pub(super) const CLOSING: State = State(1 << 14);
    /// The peer's FIN arrived behind unread bytes of a paused socket: nothing is learnt from being told again.
    pub(super) const HUNG_UP: State = State(1 << 15);
    /// Both directions have ended: a poll would return at once, always.
    pub(super) const OVER: State = State(1 << 16);
    /// Bytes that came while it was paused wait in user space.
    pub(super) const HELD: State = State(1 << 17);
    /// The peer's FIN came behind the bytes that are held.
    pub(super) const HELD_EOF: State = State(1 << 18);
    /// It has had bytes since its receive was last asked for.
    pub(super) const FED: State = State(1 << 19);
    /// Bytes are rare: a poll tells of them, instead of a receive.
    pub(super) const RESTING: State = State(1 << 20);
    /// The poll that the kernel has tells of bytes, again and again.
    pub(super) const WATCHES_BYTES: State = State(1 << 21);

    #[inline]
    pub(super) fn any(self, of: State) -> bool {
        self.0 & of.0 != 0
    }

    #[inline]
    pub(super) fn set(&mut self, what: State) {
        self.0 |= what.0;
    }

    #[inline]
    pub(super) fn clear(&mut self, what: State) {
        self.0 &= !what.0;
    }

    /// Sets it; false if it was set before.
    #[inline]
    pub(super) fn begin(&mut self, what: State) -> bool {
        let before = self.any(what);
        self.set(what);
        !before
    }
}

impl std::ops::BitOr for State {
    type Output = State;
    #[inline]
    fn bitor(self, other: State) -> State {
        State(self.0 | other.0)
    }
}

impl Place for Slot {
    #[inline]
    fn generation(&self) -> u32 {
        self.generation
    }

    fn freed(&self, next: u32) -> Self {
        debug_assert!(self.batch.is_none(), "a batch would be lost");
        debug_assert!(!self.is_busy(), "the kernel still has an operation of it");
        Slot { generation: self.generation.wrapping_add(1), state: State(next), ..Slot::default() }
    }

    fn next_free(&self) -> u32 {
        self.state.0
    }
}

/// All sockets of a driver.
pub(super) type Slots = Table<Slot>;

impl Slots {
    pub(super) fn add(&mut self, fd: OwnedFd, state: State) -> SocketId {
        self.insert(|generation| Slot { fd: Some(fd), generation, state, ..Slot::default() })
    }

    /// The socket, if it is open.
    #[inline]
    pub(super) fn open(&mut self, id: SocketId) -> Option<&mut Slot> {
        self.live(id).filter(|slot| !slot.state.any(State::CLOSING))
    }

    /// The socket, if it is open or not yet done with closing.
    #[inline]
    pub(super) fn live(&mut self, id: SocketId) -> Option<&mut Slot> {
        self.get(id).filter(|slot| slot.fd.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_closing_socket_is_live_and_not_open() {
        let mut slots = Slots::default();
        let id = slots.add(descriptor(), State::default());
        slots[id.slot].state.set(State::CLOSING);
        assert!(slots.open(id).is_none() && slots.live(id).is_some());
    }
}
