//! A table of sockets. Generations tell apart those that had the same place one after the other, and the free places are
//! a list that is threaded through them: it takes no memory beside the sockets.
#![forbid(unsafe_code)]

use super::SocketId;
use crate::buffer::Paged;
use std::ops::{Index, IndexMut};

const NONE: u32 = u32::MAX;

/// A place for a socket.
pub(super) trait Place: Default {
    /// Counts the sockets that had it.
    fn generation(&self) -> u32;
    /// The same place without its socket: of the next generation, in the list of free ones before `next`.
    fn freed(&self, next: u32) -> Self;
    /// What [`Place::freed`] was told.
    fn next_free(&self) -> u32;
}

/// All sockets of a driver.
#[derive(Debug)]
pub(super) struct Table<P> {
    places: Paged<P>,
    /// Places that were ever used.
    used: u32,
    free: u32,
}

impl<P: Place> Table<P> {
    /// Takes the place that was freed last (its memory is warm), or a new one, for what is made of its generation.
    pub(super) fn insert(&mut self, make: impl FnOnce(u32) -> P) -> SocketId {
        let slot = match self.free {
            NONE => {
                self.places.ensure(self.used);
                self.used += 1;
                self.used - 1
            }
            slot => {
                self.free = self.places[slot].next_free();
                slot
            }
        };
        let place = &mut self.places[slot];
        let generation = place.generation();
        *place = make(generation);
        SocketId { slot, generation }
    }

    /// Frees a place; its next socket has the next generation.
    pub(super) fn remove(&mut self, slot: u32) {
        let place = &mut self.places[slot];
        *place = place.freed(self.free);
        self.free = slot;
    }

    /// The place of a socket, if it has had no other one since.
    #[inline]
    pub(super) fn get(&mut self, id: SocketId) -> Option<&mut P> {
        self.places.get_mut(id.slot).filter(|place| place.generation() == id.generation)
    }

    /// Generation of the socket at this place, or of the one that will be there next.
    #[inline]
    #[cfg_attr(not(all(feature = "uring", target_os = "linux")), allow(dead_code, reason = "only io_uring asks"))]
    pub(super) fn generation(&self, slot: u32) -> Option<u32> {
        self.places.get(slot).map(P::generation)
    }
}

impl<P: Place> Default for Table<P> {
    fn default() -> Self {
        Table { places: Paged::new(), used: 0, free: NONE }
    }
}

impl<P: Place> Index<u32> for Table<P> {
    type Output = P;
    #[inline]
    fn index(&self, slot: u32) -> &P {
        &self.places[slot]
    }
}

impl<P: Place> IndexMut<u32> for Table<P> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut P {
        &mut self.places[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Plain(u32, u32);

    impl Place for Plain {
        fn generation(&self) -> u32 {
            self.0
        }

        fn freed(&self, next: u32) -> Self {
            Plain(self.0.wrapping_add(1), next)
        }

        fn next_free(&self) -> u32 {
            self.1
        }
    }

    #[test]
    fn places_are_reused_last_freed_first_with_a_new_generation() {
        let mut table = Table::default();
        let insert = |table: &mut Table<Plain>| table.insert(|generation| Plain(generation, 0));
        let ids: Vec<_> = (0..3).map(|_| insert(&mut table)).collect();
        assert_eq!(ids.iter().map(|id| id.slot).collect::<Vec<_>>(), [0, 1, 2]);
        table.remove(0);
        table.remove(2);
        assert!(table.get(ids[0]).is_none() && table.get(ids[1]).is_some());
        let again = insert(&mut table);
        assert_eq!(again, SocketId { slot: 2, generation: 1 });
        assert!(table.get(ids[2]).is_none(), "an id of the older generation finds nothing");
        assert_eq!((table.generation(0), table.generation(1)), (Some(1), Some(0)));
        assert_eq!(insert(&mut table).slot, 0);
        assert_eq!(insert(&mut table).slot, 3);
    }
}
