//! What is known of a socket, in 24 bytes, and the list of sockets that are due, threaded through the table.
#![forbid(unsafe_code)]

use super::super::SocketId;
use super::super::table::{Place, Table};
use crate::buffer::SendBatch;
use std::{
    io,
    ops::{Index, IndexMut},
    os::fd::OwnedFd,
};

const NONE: u32 = u32::MAX;

/// One socket, or a free place.
#[derive(Default, Debug)]
pub(super) struct Slot {
    /// What is in flight.
    pub(super) batch: Option<SendBatch>,
    /// None if the place is free, or the socket is closed and [`super::Completion::Closed`] is not delivered yet.
    pub(super) fd: Option<OwnedFd>,
    pub(super) generation: u32,
    /// The slot after this one, in the free list or in the list of what is due: never in both.
    next: u32,
    pub(super) state: State,
    /// Why `batch` failed, until that is delivered.
    pub(super) error: Option<io::ErrorKind>,
}

const _: () = assert!(size_of::<Slot>() <= 24, "a million of these");

/// A set of facts about a socket.
#[derive(Default, Clone, Copy, Debug)]
pub(super) struct State(u16);

impl State {
    /// Receiving is stopped.
    pub(super) const PAUSED: State = State(1 << 0);
    /// Bytes or a FIN may wait in the kernel, and no event will say so again.
    pub(super) const READABLE: State = State(1 << 1);
    /// The peer's FIN arrived, perhaps behind unread bytes: a short receive is not the end.
    pub(super) const HUNG_UP: State = State(1 << 2);
    /// The end was delivered.
    pub(super) const EOF: State = State(1 << 3);
    /// The connect has not ended.
    pub(super) const CONNECTING: State = State(1 << 4);
    /// The sending side is shut down, or will be after what is in flight.
    pub(super) const SHUT: State = State(1 << 5);
    /// The failure was delivered.
    pub(super) const FAILED: State = State(1 << 6);
    /// In the list of what is due.
    const DUE: State = State(1 << 7);
    /// The descriptor is closed; the place is taken until that was delivered.
    pub(super) const CLOSING: State = State(1 << 8);

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

    /// Both facts.
    pub(super) const fn or(self, other: State) -> State {
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
        Slot { generation: self.generation.wrapping_add(1), next, ..Slot::default() }
    }

    fn next_free(&self) -> u32 {
        self.next
    }
}

/// All sockets of a driver.
#[derive(Debug)]
pub(super) struct Slots {
    table: Table<Slot>,
    due_first: u32,
    due_last: u32,
    due: usize,
}

impl Slots {
    pub(super) fn new() -> Self {
        Slots { table: Table::default(), due_first: NONE, due_last: NONE, due: 0 }
    }

    pub(super) fn insert(&mut self, fd: OwnedFd, state: State) -> SocketId {
        self.table.insert(|generation| Slot { fd: Some(fd), generation, state, ..Slot::default() })
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.table.remove(slot);
    }

    /// The socket, if it is open.
    #[inline]
    pub(super) fn open(&mut self, id: SocketId) -> Option<&mut Slot> {
        self.table.get(id).filter(|slot| slot.fd.is_some())
    }

    /// Whether the socket is closed, which is not reported yet.
    pub(super) fn is_closing(&mut self, id: SocketId) -> bool {
        self.table.get(id).is_some_and(|slot| slot.state.any(State::CLOSING))
    }

    pub(super) fn id(&self, slot: u32) -> SocketId {
        SocketId { slot, generation: self.table[slot].generation }
    }

    /// Puts a socket at the end of what is due, once.
    #[inline]
    pub(super) fn push_due(&mut self, slot: u32) {
        let entry = &mut self.table[slot];
        if entry.state.any(State::DUE) {
            return;
        }
        entry.state.set(State::DUE);
        entry.next = NONE;
        match self.due_last {
            NONE => self.due_first = slot,
            last => self.table[last].next = slot,
        }
        self.due_last = slot;
        self.due += 1;
    }

    /// Takes the first of what is due.
    pub(super) fn pop_due(&mut self) -> Option<SocketId> {
        let slot = self.due_first;
        if slot == NONE {
            return None;
        }
        let entry = &mut self.table[slot];
        entry.state.clear(State::DUE);
        self.due_first = entry.next;
        if self.due_first == NONE {
            self.due_last = NONE;
        }
        self.due -= 1;
        Some(self.id(slot))
    }

    #[inline]
    pub(super) fn is_due(&self, slot: u32) -> bool {
        self.table[slot].state.any(State::DUE)
    }

    /// How many sockets are due.
    #[inline]
    pub(super) fn due(&self) -> usize {
        self.due
    }
}

impl Index<u32> for Slots {
    type Output = Slot;
    #[inline]
    fn index(&self, slot: u32) -> &Slot {
        &self.table[slot]
    }
}

impl IndexMut<u32> for Slots {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.table[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_is_due_comes_in_order_and_once() {
        let mut slots = Slots::new();
        for _ in 0..4 {
            slots.insert(descriptor(), State::default());
        }
        for slot in [2, 0, 2, 3] {
            slots.push_due(slot);
        }
        assert_eq!(slots.due(), 3);
        assert_eq!(slots.pop_due().unwrap().slot, 2);
        slots.push_due(2);
        let rest: Vec<_> = std::iter::from_fn(|| slots.pop_due()).map(|id| id.slot).collect();
        assert_eq!((rest, slots.due()), (vec![0, 3, 2], 0));
        slots.push_due(1);
        assert_eq!(slots.pop_due().unwrap().slot, 1);
    }
}
