//! A table of fixed pages.
#![forbid(unsafe_code)]

use std::ops::{Index, IndexMut};

const PAGE_BITS: u32 = 9;
const PAGE: usize = 1 << PAGE_BITS;

/// A growable table whose growth neither copies nor over-commits: each step adds one page of 512 entries.
///
/// `Vec` doubles: at a million connections that is a copy of the whole table in the middle of a turn and up to
/// half of the memory unused. Here the cost per entry is the entry, and an index is two loads.
#[derive(Debug)]
pub struct Paged<T> {
    pages: Vec<Box<[T]>>,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Paged { pages: Vec::new() }
    }
}

impl<T: Default> Paged<T> {
    /// An empty table; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries that exist (always a multiple of the page size).
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// Makes `index` valid, adding pages of default entries as needed.
    pub fn ensure(&mut self, index: u32) {
        while self.capacity() <= index as usize {
            self.pages.push((0..PAGE).map(|_| T::default()).collect());
        }
    }
}

impl<T> Paged<T> {
    /// The entry at `index`, if its page exists.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.pages.get((index >> PAGE_BITS) as usize).map(|page| &page[index as usize % PAGE])
    }

    /// The entry at `index`, if its page exists.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.pages.get_mut((index >> PAGE_BITS) as usize).map(|page| &mut page[index as usize % PAGE])
    }
}

impl<T> Index<u32> for Paged<T> {
    type Output = T;
    #[inline]
    fn index(&self, index: u32) -> &T {
        &self.pages[(index >> PAGE_BITS) as usize][index as usize % PAGE]
    }
}

impl<T> IndexMut<u32> for Paged<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.pages[(index >> PAGE_BITS) as usize][index as usize % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_pages_and_keeps_what_is_there() {
        let mut table: Paged<u64> = Paged::new();
        assert_eq!(table.capacity(), 0);
        assert!(table.get(0).is_none());
        table.ensure(0);
        table[0] = 7;
        table.ensure(PAGE as u32 * 3);
        table[PAGE as u32 * 3] = 9;
        assert_eq!((table[0], table[PAGE as u32 * 3], table.capacity()), (7, 9, PAGE * 4));
        assert!(table.get_mut(PAGE as u32 * 4).is_none());
    }
}
