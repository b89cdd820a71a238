//! [`Table`]: who is present on one topic.
//!
//! An entry belongs to two rings, that of its key and that of its owner; three hash tables of slot numbers find a ring's
//! first entry and the entry of an owner and a key. So every operation costs as much as what it returns, however many
//! members a topic, metas a key or keys an owner has.
#![forbid(unsafe_code)]

use super::Owner;
use hashbrown::HashTable;
use slab::Slab;
use std::hash::{BuildHasher, RandomState};
use std::iter;
use std::sync::Arc;

const OF_KEY: usize = 0;
const OF_OWNER: usize = 1;

/// The entries of one topic, in track order within a key. The hasher passed in is the same on every call.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Slab<Entry>,
    /// The first entry of each ring.
    heads: [HashTable<u32>; 2],
    /// Every entry, by owner and key.
    pairs: HashTable<u32>,
    #[cfg(test)]
    visited: std::cell::Cell<usize>,
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    key: Arc<str>,
    meta: Box<str>,
    links: [Link; 2],
}

/// Neighbours in a ring; alone, an entry is its own.
#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

impl Table {
    /// Keys. O(1).
    pub(super) fn keys_len(&self) -> usize {
        self.heads[OF_KEY].len()
    }

    /// Entries. O(1).
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The slot of an entry.
    pub(super) fn find(&self, hasher: &RandomState, owner: Owner, key: &str) -> Option<u32> {
        let same = |slot: &u32| {
            let entry = self.entry(*slot);
            entry.owner == owner && *entry.key == *key
        };
        self.pairs.find(hasher.hash_one((owner, key)), same).copied()
    }

    /// The text of an entry's meta.
    pub(super) fn meta(&self, slot: u32) -> &str {
        &self.entry(slot).meta
    }

    /// Adds an entry that is not there, as the last of its key.
    pub(super) fn insert(&mut self, hasher: &RandomState, owner: Owner, key: &str, meta: Box<str>) {
        let key = self.head(hasher, key).map_or_else(|| Arc::from(key), |head| Arc::clone(&self.entry(head).key));
        let slot = self.entries.vacant_key() as u32;
        let alone = Link { before: slot, after: slot };
        self.entries.insert(Entry { owner, key, meta, links: [alone; 2] });
        self.hook(hasher, OF_KEY, slot);
        self.hook(hasher, OF_OWNER, slot);
        let Table { entries, pairs, .. } = self;
        let hash = |slot: &u32| hash_pair(hasher, &entries[*slot as usize]);
        pairs.insert_unique(hash(&slot), slot, hash);
    }

    /// Gives an entry another meta and returns the old one. The entry becomes the last of its key, where clients put
    /// what joins.
    pub(super) fn replace(&mut self, hasher: &RandomState, slot: u32, meta: Box<str>) -> Box<str> {
        self.unhook(hasher, OF_KEY, slot);
        self.hook(hasher, OF_KEY, slot);
        std::mem::replace(&mut self.entry_mut(slot).meta, meta)
    }

    /// Takes an entry out: its key and meta.
    pub(super) fn remove(&mut self, hasher: &RandomState, slot: u32) -> (Arc<str>, Box<str>) {
        self.unhook(hasher, OF_KEY, slot);
        self.unhook(hasher, OF_OWNER, slot);
        let hash = hash_pair(hasher, self.entry(slot));
        self.pairs.find_entry(hash, |other| *other == slot).expect("every entry is found by its pair").remove();
        let entry = self.entries.remove(slot as usize);
        (entry.key, entry.meta)
    }

    /// An entry of an owner, if it has any.
    pub(super) fn any_of(&self, hasher: &RandomState, owner: Owner) -> Option<u32> {
        self.heads[OF_OWNER].find(hasher.hash_one(owner), |slot| self.entry(*slot).owner == owner).copied()
    }

    /// The metas of a key, in track order; none if there are none.
    pub(super) fn metas(&self, hasher: &RandomState, key: &str) -> Option<impl Iterator<Item = &str>> {
        self.head(hasher, key).map(|head| self.ring(head))
    }

    /// Every key with its metas.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&Arc<str>, impl Iterator<Item = &str>)> {
        self.heads[OF_KEY].iter().map(|head| (&self.entry(*head).key, self.ring(*head)))
    }

    fn head(&self, hasher: &RandomState, key: &str) -> Option<u32> {
        self.heads[OF_KEY].find(hasher.hash_one(key), |slot| *self.entry(*slot).key == *key).copied()
    }

    fn ring(&self, head: u32) -> impl Iterator<Item = &str> {
        let next = move |slot: &u32| Some(self.entry(*slot).links[OF_KEY].after).filter(|after| *after != head);
        iter::successors(Some(head), next).map(|slot| self.meta(slot))
    }

    /// Puts an entry at the end of its ring, which it may be the first of.
    fn hook(&mut self, hasher: &RandomState, ring: usize, slot: u32) {
        let entry = self.entry(slot);
        let head = if ring == OF_KEY { self.head(hasher, &entry.key) } else { self.any_of(hasher, entry.owner) };
        let Some(head) = head else {
            self.entry_mut(slot).links[ring] = Link { before: slot, after: slot };
            let Table { entries, heads, .. } = self;
            let hash = |slot: &u32| hash_of(hasher, ring, &entries[*slot as usize]);
            heads[ring].insert_unique(hash(&slot), slot, hash);
            return;
        };
        let last = self.entry(head).links[ring].before;
        self.entry_mut(slot).links[ring] = Link { before: last, after: head };
        self.entry_mut(last).links[ring].after = slot;
        self.entry_mut(head).links[ring].before = slot;
    }

    /// Takes an entry out of its ring. If it was the first, the next one is.
    fn unhook(&mut self, hasher: &RandomState, ring: usize, slot: u32) {
        let Link { before, after } = self.entry(slot).links[ring];
        let hash = hash_of(hasher, ring, self.entry(slot));
        if let Ok(mut head) = self.heads[ring].find_entry(hash, |head| *head == slot) {
            if after == slot {
                head.remove();
                return;
            }
            *head.get_mut() = after;
        }
        self.entry_mut(before).links[ring].after = after;
        self.entry_mut(after).links[ring].before = before;
    }

    fn entry(&self, slot: u32) -> &Entry {
        #[cfg(test)]
        self.visited.set(self.visited.get() + 1);
        &self.entries[slot as usize]
    }

    fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        #[cfg(test)]
        self.visited.set(self.visited.get() + 1);
        &mut self.entries[slot as usize]
    }
}

fn hash_of(hasher: &RandomState, ring: usize, entry: &Entry) -> u64 {
    if ring == OF_KEY { hasher.hash_one(&*entry.key) } else { hasher.hash_one(entry.owner) }
}

fn hash_pair(hasher: &RandomState, entry: &Entry) -> u64 {
    hasher.hash_one((entry.owner, &*entry.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metas<'a>(table: &'a Table, hasher: &RandomState, key: &str) -> Vec<&'a str> {
        table.metas(hasher, key).into_iter().flatten().collect()
    }

    #[test]
    fn metas_stand_in_track_order_whichever_goes_or_changes() {
        let (mut table, hasher) = (Table::default(), RandomState::new());
        let owners = [Owner::next(), Owner::next(), Owner::next()];
        for (owner, meta) in owners.iter().zip(["a", "b", "c"]) {
            table.insert(&hasher, *owner, "k", meta.into());
            table.insert(&hasher, *owner, meta, "own".into());
        }
        assert_eq!((table.keys_len(), table.len(), metas(&table, &hasher, "k")), (4, 6, vec!["a", "b", "c"]));
        let first = table.find(&hasher, owners[0], "k").unwrap();
        assert_eq!(&*table.replace(&hasher, first, "a2".into()), "a");
        assert_eq!(metas(&table, &hasher, "k"), ["b", "c", "a2"]);
        let middle = table.find(&hasher, owners[2], "k").unwrap();
        assert_eq!(&*table.remove(&hasher, middle).1, "c");
        assert_eq!(metas(&table, &hasher, "k"), ["b", "a2"]);
        for owner in owners {
            while let Some(slot) = table.any_of(&hasher, owner) {
                table.remove(&hasher, slot);
            }
        }
        assert!(
            table.is_empty() && table.keys_len() == 0 && table.pairs.is_empty() && table.heads[OF_OWNER].is_empty()
        );
    }

    /// Entries looked at by one join, one update and one leave of `key` in a topic of `members` others.
    fn visited(members: usize, key: &str, others: impl Fn(usize) -> String) -> usize {
        let (mut table, hasher, owner) = (Table::default(), RandomState::new(), Owner::next());
        (0..members).for_each(|i| table.insert(&hasher, Owner::next(), &others(i), "m".into()));
        // Room for one more, so that no hash table grows in between.
        table.insert(&hasher, owner, key, "m".into());
        let slot = table.find(&hasher, owner, key).unwrap();
        table.remove(&hasher, slot);
        table.visited.set(0);
        table.insert(&hasher, owner, key, "m".into());
        let slot = table.find(&hasher, owner, key).unwrap();
        table.replace(&hasher, slot, "n".into());
        table.remove(&hasher, slot);
        table.visited.get()
    }

    #[test]
    fn a_hundred_thousand_members_cost_as_much_as_ten() {
        let apart = |i: usize| format!("user {i}");
        // A few more for tags of hashes that agree by chance: one in 128.
        assert!(visited(100_000, "me", apart) <= visited(10, "me", apart) + 8);
        let together = |_| "anonymous".to_owned();
        assert!(visited(100_000, "anonymous", together) <= visited(10, "anonymous", together) + 8);
    }
}
