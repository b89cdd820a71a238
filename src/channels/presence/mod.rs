//! [`Presence`]: who is on a topic, told as differences.
//!
//! One store serves all workers of a process. It does no I/O: an operation returns the [`Diff`] that it makes, and the
//! caller broadcasts it as `presence_diff`; [`Presence::list`] is what it pushes as `presence_state`.
//!
//! ```
//! use wingbeat::channels::presence::{Owner, Presence, TrackError};
//!
//! let (presence, phone, laptop) = (Presence::new(), Owner::next(), Owner::next());
//! let (phx_ref, diff) = presence.track("room:1", phone, "ada", &serde_json::json!({"device": "phone"}))?;
//! let joins = format!(r#"{{"ada":{{"metas":[{{"device":"phone","phx_ref":"{phx_ref}"}}]}}}}"#);
//! assert_eq!(diff.json().as_str(), format!(r#"{{"joins":{joins},"leaves":{{}}}}"#));
//! assert_eq!(presence.list("room:1").json().as_str(), joins);
//!
//! presence.track("room:1", laptop, "ada", &serde_json::json!({"device": "laptop"}))?;
//! assert_eq!((presence.count("room:1"), presence.metas_count("room:1")), (1, 2));
//! let diff = presence.untrack_owner("room:1", phone).expect("it was tracked");
//! assert_eq!(diff.json().as_str(), format!(r#"{{"joins":{{}},"leaves":{joins}}}"#));
//! # Ok::<(), TrackError>(())
//! ```
//!
//! # Why one store behind locks
//!
//! Everything else of a worker is its own. Here a lock is taken once or twice per operation, never per message, and it
//! buys that a list is the same on all workers at once, and that a worker whose first subscriber arrives needs no
//! transfer of what is there. Topics are spread over 64 locks by hash; nothing of the user's runs inside one. What is
//! held longest is a list of a large topic.
//!
//! # Order
//!
//! An owner acts from one thread at a time, which broadcasts its diffs in the order in which they were made, as a
//! channel does. Diffs of different owners may overtake one another and a `presence_state`. They speak of different
//! `phx_ref`s, and clients neither add a ref twice nor miss one that they never had, so that all of them end with the
//! same metas. Subscribe before you list, or what happens in between is lost.
//!
//! # Cost
//!
//! Track, update and untrack cost one diff of one entry, whether ten or a hundred thousand are there (growing hash
//! tables aside), counts are fields, a list costs its bytes. An entry takes about 140 bytes of memory beside its key and the
//! text of its meta (`cargo bench --bench presence`). An empty topic leaves nothing behind.
#![forbid(unsafe_code)]

mod entries;
mod phx_ref;
mod table;

pub use entries::{Entries, Entry};
pub use phx_ref::PhxRef;

use super::payload::Json;
use super::{Payload, PayloadError, ToPayload};
use phx_ref::{Refs, stamp};
use serde::Serialize;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use std::{error, fmt, iter, slice};
use table::Table;

const SHARDS: usize = 64;

/// How many metas one topic takes unless [`Presence::limit`] says otherwise.
pub const METAS_PER_TOPIC: usize = 1_000_000;

/// Who is on which topic, under which key, with which metas. A clone is the same store.
#[derive(Clone)]
pub struct Presence(Arc<Store>);

/// Who tracked a presence: what owns it leaves with it. One per channel instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(u64);

/// What changed, to be broadcast as `presence_diff`: `{"joins":{…},"leaves":{…}}`, in each half keys with their metas.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "clients learn of the change only if it is broadcast"]
pub struct Diff {
    topic: Box<str>,
    json: String,
}

/// Who is there, to be pushed as `presence_state`: `{key: {"metas": […]}}`. From [`Presence::get`], `{"metas": […]}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    json: String,
}

/// Why nothing was tracked or updated. The fault is the caller's but for `TooMany`; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackError {
    /// This owner has this key on this topic already: update it.
    AlreadyTracked,
    /// This owner has not this key on this topic.
    NotTracked,
    /// A meta is a JSON object.
    NotAnObject,
    /// The meta's `Serialize` failed.
    Unserializable,
    /// The topic has as many metas as [`Presence::limit`] allows; one may leave.
    TooMany,
}

struct Store {
    shards: [Mutex<HashMap<Box<str>, Table>>; SHARDS],
    hasher: RandomState,
    refs: Refs,
    limit: usize,
    fetch: Option<Fetch>,
    changed: Option<Changed>,
}

type Fetch = Box<dyn Fn(&str, &mut Entries) + Send + Sync>;
type Changed = Box<dyn Fn(&Diff) + Send + Sync>;
/// A key and one meta of it.
type Member<'a> = (&'a str, &'a str);

impl Owner {
    /// One that nobody else in this process is.
    pub fn next() -> Owner {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Owner(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Presence {
    /// An empty store.
    pub fn new() -> Presence {
        let hasher = RandomState::new();
        let refs = Refs::new(hasher.hash_one("node") as u16);
        let shards = std::array::from_fn(|_| Mutex::default());
        Presence(Arc::new(Store { shards, hasher, refs, limit: METAS_PER_TOPIC, fetch: None, changed: None }))
    }

    /// With a hook that adds fields to entries beside their metas: a name from a database, say. It runs on the caller's
    /// thread, outside of any lock, once per list and once per half of a diff that is not empty.
    pub fn with_fetch(fetch: impl Fn(&str, &mut Entries) + Send + Sync + 'static) -> Presence {
        let mut presence = Presence::new();
        presence.unshared().fetch = Some(Box::new(fetch));
        presence
    }

    /// Calls `hook` with every diff, on the thread that made it and before that returns. Diffs of one owner come in
    /// order.
    ///
    /// # Panics
    /// If the store was cloned before.
    pub fn on_change(mut self, hook: impl Fn(&Diff) + Send + Sync + 'static) -> Presence {
        self.unshared().changed = Some(Box::new(hook));
        self
    }

    /// Takes at most so many metas per topic, [`METAS_PER_TOPIC`] if never called.
    ///
    /// # Panics
    /// If the store was cloned before, or for more than `u32::MAX`.
    pub fn limit(mut self, metas_per_topic: usize) -> Presence {
        assert!(u32::try_from(metas_per_topic).is_ok(), "slots are numbered in 32 bits");
        self.unshared().limit = metas_per_topic;
        self
    }

    /// Whether the other is a clone of this one.
    pub(super) fn is(&self, other: &Presence) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Adds `key` to a topic, with a meta of this owner's. One owner may have many keys, and many owners one key.
    ///
    /// # Errors
    /// [`TrackError`], all but `NotTracked`.
    pub fn track(
        &self,
        topic: &str,
        owner: Owner,
        key: &str,
        meta: &(impl Serialize + ?Sized),
    ) -> Result<(PhxRef, Diff), TrackError> {
        let (store, reference) = (&*self.0, self.0.refs.next(SystemTime::now()));
        let meta = stamp(meta, reference, None)?;
        let mut shard = store.shard(topic);
        let table = shard.get(topic);
        if table.is_some_and(|table| table.find(&store.hasher, owner, key).is_some()) {
            return Err(TrackError::AlreadyTracked);
        }
        if table.map_or(0, Table::len) >= store.limit {
            return Err(TrackError::TooMany);
        }
        if table.is_none() {
            shard.insert(topic.into(), Table::default());
        }
        shard.get_mut(topic).expect("just looked up").insert(&store.hasher, owner, key, meta.clone());
        drop(shard);
        Ok((reference, store.diff(topic, &[(key, &meta)], &[])))
    }

    /// Replaces a meta. The diff has the new one among its joins, with `phx_ref_prev`, and the old one among its
    /// leaves; the key's metas are then in the order in which they were tracked or last updated.
    ///
    /// # Errors
    /// `NotTracked`, `NotAnObject`, `Unserializable`.
    pub fn update(
        &self,
        topic: &str,
        owner: Owner,
        key: &str,
        meta: &(impl Serialize + ?Sized),
    ) -> Result<(PhxRef, Diff), TrackError> {
        self.update_with(topic, owner, key, |_| meta)
    }

    /// As [`Presence::update`], from the meta that is there (its `phx_ref` may stay in it, it is replaced).
    ///
    /// # Errors
    /// As [`Presence::update`].
    pub fn update_with<M: Serialize>(
        &self,
        topic: &str,
        owner: Owner,
        key: &str,
        change: impl FnOnce(Json<'_>) -> M,
    ) -> Result<(PhxRef, Diff), TrackError> {
        let (store, reference) = (&*self.0, self.0.refs.next(SystemTime::now()));
        let old = store.meta(topic, owner, key).ok_or(TrackError::NotTracked)?;
        let meta = stamp(&change(Json::trusted(&old)), reference, Some(PhxRef::of(&old)))?;
        let mut shard = store.shard(topic);
        let table = shard.get_mut(topic).ok_or(TrackError::NotTracked)?;
        let slot = table.find(&store.hasher, owner, key).ok_or(TrackError::NotTracked)?;
        let old = table.replace(&store.hasher, slot, meta.clone());
        drop(shard);
        Ok((reference, store.diff(topic, &[(key, &meta)], &[(key, &old)])))
    }

    /// Takes this owner's meta of a key away; none if there is none.
    pub fn untrack(&self, topic: &str, owner: Owner, key: &str) -> Option<Diff> {
        let store = &*self.0;
        let mut shard = store.shard(topic);
        let table = shard.get_mut(topic)?;
        let slot = table.find(&store.hasher, owner, key)?;
        let (_, meta) = table.remove(&store.hasher, slot);
        if table.is_empty() {
            shard.remove(topic);
        }
        drop(shard);
        Some(store.diff(topic, &[], &[(key, &meta)]))
    }

    /// Takes all that this owner has on a topic away, in one diff; none if it has nothing. Cost: its keys.
    pub fn untrack_owner(&self, topic: &str, owner: Owner) -> Option<Diff> {
        let store = &*self.0;
        let mut shard = store.shard(topic);
        let table = shard.get_mut(topic)?;
        let remove = || table.any_of(&store.hasher, owner).map(|slot| table.remove(&store.hasher, slot));
        let left = iter::from_fn(remove).collect::<Vec<_>>();
        if table.is_empty() {
            shard.remove(topic);
        }
        drop(shard);
        let members = left.iter().map(|(key, meta)| (&**key, &**meta)).collect::<Vec<_>>();
        (!members.is_empty()).then(|| store.diff(topic, &[], &members))
    }

    /// Everybody on a topic. Cost: its bytes, under the lock.
    pub fn list(&self, topic: &str) -> State {
        let store = &*self.0;
        let mut json = vec![b'{'];
        let shard = store.shard(topic);
        let groups = shard.get(topic).into_iter().flat_map(Table::groups);
        match &store.fetch {
            None => {
                groups.for_each(|(key, metas)| entries::write_plain(&mut json, key, metas));
                drop(shard);
            }
            Some(fetch) => {
                let mut entries = Entries::new(groups.map(|(key, metas)| (Arc::clone(key), metas)));
                drop(shard);
                if !entries.is_empty() {
                    fetch(topic, &mut entries);
                }
                entries.write(&mut json);
            }
        }
        json.push(b'}');
        State { json: text(json) }
    }

    /// The metas of one key; none if nobody tracks it.
    pub fn get(&self, topic: &str, key: &str) -> Option<State> {
        let store = &*self.0;
        let mut json = Vec::new();
        let shard = store.shard(topic);
        let metas = shard.get(topic)?.metas(&store.hasher, key)?;
        match &store.fetch {
            None => {
                entries::write_plain_metas(&mut json, metas);
                drop(shard);
            }
            Some(fetch) => {
                let mut entries = Entries::new(iter::once((Arc::from(key), metas)));
                drop(shard);
                fetch(topic, &mut entries);
                entries.write_only(&mut json);
            }
        }
        Some(State { json: text(json) })
    }

    /// The keys of a topic, in no order.
    pub fn keys(&self, topic: &str) -> Vec<Arc<str>> {
        let shard = self.0.shard(topic);
        shard.get(topic).into_iter().flat_map(Table::groups).map(|(key, _)| Arc::clone(key)).collect()
    }

    /// How many keys a topic has. O(1).
    pub fn count(&self, topic: &str) -> usize {
        self.0.shard(topic).get(topic).map_or(0, Table::keys_len)
    }

    /// How many metas a topic has. O(1).
    pub fn metas_count(&self, topic: &str) -> usize {
        self.0.shard(topic).get(topic).map_or(0, Table::len)
    }

    /// How many topics have anybody on them. Cost: the 64 locks.
    pub fn topics(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn unshared(&mut self) -> &mut Store {
        Arc::get_mut(&mut self.0).expect("a store is set up before it is cloned")
    }
}

impl Store {
    /// The topics that share a lock with this one. Only code of ours runs under it, so a poisoned one is whole.
    fn shard(&self, topic: &str) -> MutexGuard<'_, HashMap<Box<str>, Table>> {
        let at = (self.hasher.hash_one(topic) % SHARDS as u64) as usize;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meta(&self, topic: &str, owner: Owner, key: &str) -> Option<Box<str>> {
        let shard = self.shard(topic);
        let table = shard.get(topic)?;
        table.find(&self.hasher, owner, key).map(|slot| table.meta(slot).into())
    }

    /// Writes a diff, asking the fetch hook, and tells of it.
    fn diff(&self, topic: &str, joins: &[Member<'_>], leaves: &[Member<'_>]) -> Diff {
        let mut json = b"{\"joins\":{".to_vec();
        self.write_half(topic, joins, &mut json);
        json.extend_from_slice(b"},\"leaves\":{");
        self.write_half(topic, leaves, &mut json);
        json.extend_from_slice(b"}}");
        let diff = Diff { topic: topic.into(), json: text(json) };
        if let Some(changed) = &self.changed {
            changed(&diff);
        }
        diff
    }

    fn write_half(&self, topic: &str, members: &[Member<'_>], out: &mut Vec<u8>) {
        match &self.fetch {
            Some(fetch) if !members.is_empty() => {
                let groups = members.iter().map(|(key, meta)| (Arc::from(*key), iter::once(*meta)));
                let mut entries = Entries::new(groups);
                fetch(topic, &mut entries);
                entries.write(out);
            }
            _ => members
                .iter()
                .for_each(|(key, meta)| entries::write_plain(out, key, slice::from_ref(meta).iter().copied())),
        }
    }
}

impl Diff {
    /// The topic it is to be broadcast to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What it says, as JSON.
    pub fn json(&self) -> Json<'_> {
        Json::trusted(&self.json)
    }

    /// What to broadcast.
    pub fn payload(&self) -> Payload<'_> {
        Payload::Json(self.json())
    }
}

impl State {
    /// What it says, as JSON.
    pub fn json(&self) -> Json<'_> {
        Json::trusted(&self.json)
    }

    /// What to push.
    pub fn payload(&self) -> Payload<'_> {
        Payload::Json(self.json())
    }
}

impl Default for Presence {
    fn default() -> Self {
        Presence::new()
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("topics", &self.topics()).finish_non_exhaustive()
    }
}

impl ToPayload for Diff {
    fn to_payload<'s>(&'s self, _: &'s mut Vec<u8>) -> Result<Payload<'s>, PayloadError> {
        Ok(self.payload())
    }
}

impl ToPayload for State {
    fn to_payload<'s>(&'s self, _: &'s mut Vec<u8>) -> Result<Payload<'s>, PayloadError> {
        Ok(self.payload())
    }
}

impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrackError::AlreadyTracked => "this owner tracks the key already",
            TrackError::NotTracked => "this owner does not track the key",
            TrackError::NotAnObject => "a meta is a JSON object",
            TrackError::Unserializable => "the meta cannot be serialized",
            TrackError::TooMany => "the topic has as many metas as it may",
        })
    }
}

impl error::Error for TrackError {}

fn text(json: Vec<u8>) -> String {
    String::from_utf8(json).expect("made of strings")
}
