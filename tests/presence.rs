//! Presence: what clients fold from diffs is what is listed, whatever happens, on however many threads
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use proptest::prelude::*;
use serde_json::{Value, json};
use wingbeat::channels::presence::{Diff, Owner, PhxRef, Presence, State, TrackError};
use wingbeat::channels::{Payload, ToPayload};

const TOPIC: &str = "room:1";
const KEYS: [&str; 6] = ["ada", "", "__proto__", "a\"b\\c\n", "é\u{2028}", "constructor"];

/// What a client holds: for each key its metas.
type Folded = BTreeMap<String, Vec<Value>>;

fn parse(state: &State) -> Folded {
    let state: BTreeMap<String, Value> = state.json().parse().unwrap();
    state.into_iter().map(|(key, entry)| (key, entry["metas"].as_array().unwrap().clone())).collect()
}

/// The rules by which the official client applies a diff: joins first, behind what is there and does not join anew;
/// then leaves, by ref; a key without metas goes.
fn fold(folded: &mut Folded, diff: &Diff) {
    let diff: BTreeMap<String, BTreeMap<String, Value>> = diff.json().parse().unwrap();
    assert_eq!(diff.keys().collect::<Vec<_>>(), ["joins", "leaves"]);
    let refs = |entry: &Value| {
        let metas = entry["metas"].as_array().unwrap();
        metas.iter().map(|meta| meta["phx_ref"].as_str().unwrap().to_owned()).collect::<HashSet<_>>()
    };
    for (key, entry) in &diff["joins"] {
        let (joined, metas) = (refs(entry), folded.entry(key.clone()).or_default());
        metas.retain(|meta| !joined.contains(meta["phx_ref"].as_str().unwrap()));
        metas.extend(entry["metas"].as_array().unwrap().iter().cloned());
    }
    for (key, entry) in &diff["leaves"] {
        let Some(metas) = folded.get_mut(key) else { continue };
        let left = refs(entry);
        metas.retain(|meta| !left.contains(meta["phx_ref"].as_str().unwrap()));
        if metas.is_empty() {
            folded.remove(key);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Track(usize, usize, i32),
    Update(usize, usize, i32),
    Bump(usize, usize),
    Untrack(usize, usize),
    Leave(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (owner, key) = (0..4_usize, 0..KEYS.len());
    prop_oneof![
        4 => (owner.clone(), key.clone(), any::<i32>()).prop_map(|(owner, key, n)| Op::Track(owner, key, n)),
        2 => (owner.clone(), key.clone(), any::<i32>()).prop_map(|(owner, key, n)| Op::Update(owner, key, n)),
        1 => (owner.clone(), key.clone()).prop_map(|(owner, key)| Op::Bump(owner, key)),
        2 => (owner.clone(), key).prop_map(|(owner, key)| Op::Untrack(owner, key)),
        1 => owner.prop_map(Op::Leave),
    ]
}

/// Who is there, the simple way: a list in track order.
#[derive(Default)]
struct Model(Vec<(usize, usize, Value)>);

impl Model {
    fn position(&self, owner: usize, key: usize) -> Option<usize> {
        self.0.iter().position(|(of, under, _)| (*of, *under) == (owner, key))
    }

    fn track(&mut self, owner: usize, key: usize, n: i32, reference: PhxRef) {
        self.0.push((owner, key, json!({"n": n, "phx_ref": reference.as_str()})));
    }

    fn update(&mut self, owner: usize, key: usize, n: i64, reference: PhxRef) {
        let (_, _, old) = self.0.remove(self.position(owner, key).unwrap());
        let meta = json!({"n": n, "phx_ref": reference.as_str(), "phx_ref_prev": old["phx_ref"]});
        self.0.push((owner, key, meta));
    }

    fn list(&self) -> Folded {
        let mut list = Folded::new();
        for (_, key, meta) in &self.0 {
            list.entry(KEYS[*key].to_owned()).or_default().push(meta.clone());
        }
        list
    }
}

/// Does it to both and returns the diff, having compared what both say of it.
fn apply(presence: &Presence, owners: &[Owner], model: &mut Model, op: &Op) -> Option<Diff> {
    let bumped = |meta: &Value| json!({"n": meta["n"].as_i64().unwrap() / 2, "phx_ref": "stale"});
    match *op {
        Op::Track(owner, key, n) => {
            let done = presence.track(TOPIC, owners[owner], KEYS[key], &json!({"n": n}));
            if model.position(owner, key).is_some() {
                assert_eq!(done, Err(TrackError::AlreadyTracked));
                return None;
            }
            let (reference, diff) = done.unwrap();
            model.track(owner, key, n, reference);
            Some(diff)
        }
        Op::Update(owner, key, n) => {
            let done = presence.update(TOPIC, owners[owner], KEYS[key], &json!({"n": n}));
            if model.position(owner, key).is_none() {
                assert_eq!(done, Err(TrackError::NotTracked));
                return None;
            }
            let (reference, diff) = done.unwrap();
            model.update(owner, key, n.into(), reference);
            Some(diff)
        }
        Op::Bump(owner, key) => {
            let change = |old: wingbeat::channels::Json<'_>| bumped(&old.parse().unwrap());
            let done = presence.update_with(TOPIC, owners[owner], KEYS[key], change);
            let Some(at) = model.position(owner, key) else {
                assert_eq!(done, Err(TrackError::NotTracked));
                return None;
            };
            let n = bumped(&model.0[at].2)["n"].as_i64().unwrap();
            let (reference, diff) = done.unwrap();
            model.update(owner, key, n, reference);
            Some(diff)
        }
        Op::Untrack(owner, key) => {
            let diff = presence.untrack(TOPIC, owners[owner], KEYS[key]);
            let at = model.position(owner, key);
            assert_eq!(diff.is_some(), at.is_some());
            at.map(|at| model.0.remove(at));
            diff
        }
        Op::Leave(owner) => {
            let diff = presence.untrack_owner(TOPIC, owners[owner]);
            assert_eq!(diff.is_some(), model.0.iter().any(|(of, ..)| *of == owner));
            model.0.retain(|(of, ..)| *of != owner);
            diff
        }
    }
}

proptest! {
    #[test]
    fn folded_diffs_are_the_list_and_the_list_is_the_models(ops in prop::collection::vec(op(), 1..120), from in 0..60_usize) {
        let (presence, mut model) = (Presence::new(), Model::default());
        let owners = [Owner::next(), Owner::next(), Owner::next(), Owner::next()];
        let mut folded = Folded::new();
        for (at, op) in ops.iter().enumerate() {
            if at == from {
                folded = parse(&presence.list(TOPIC));
            }
            if let Some(diff) = apply(&presence, &owners, &mut model, op) {
                prop_assert_eq!(diff.topic(), TOPIC);
                fold(&mut folded, &diff);
            }
            let list = parse(&presence.list(TOPIC));
            prop_assert_eq!(&list, &model.list());
            prop_assert_eq!(&folded, &list);
            prop_assert_eq!((presence.count(TOPIC), presence.metas_count(TOPIC)), (list.len(), model.0.len()));
            prop_assert_eq!(presence.topics(), usize::from(!list.is_empty()));
            let keys = presence.keys(TOPIC).iter().map(|key| key.to_string()).collect::<HashSet<_>>();
            prop_assert_eq!(keys, list.keys().cloned().collect::<HashSet<_>>());
            for key in KEYS {
                let metas = presence.get(TOPIC, key).map(|state| state.json().parse::<Value>().unwrap());
                prop_assert_eq!(metas, list.get(key).map(|metas| json!({"metas": metas})));
            }
        }
    }
}

/// What one thread does with owners of its own, and the diffs of it in order.
fn churn(presence: &Presence, topics: &[String], seed: usize) -> Vec<Diff> {
    let owners = [Owner::next(), Owner::next(), Owner::next()];
    let (mut diffs, mut random) = (Vec::new(), seed as u64);
    for _ in 0..4000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = |shift: u32, of: usize| (random >> shift) as usize % of;
        let (topic, owner, key) = (&topics[pick(20, topics.len())], owners[pick(30, 3)], KEYS[pick(40, KEYS.len())]);
        let meta = json!({"n": random});
        match pick(50, 8) {
            0..4 => diffs.extend(presence.track(topic, owner, key, &meta).ok().map(|(_, diff)| diff)),
            4 => diffs.extend(presence.update(topic, owner, key, &meta).ok().map(|(_, diff)| diff)),
            5..7 => diffs.extend(presence.untrack(topic, owner, key)),
            _ => diffs.extend(presence.untrack_owner(topic, owner)),
        }
    }
    diffs
}

#[test]
fn threads_agree_in_the_end_and_every_list_on_the_way_is_whole() {
    let (presence, topics) = (Presence::new(), [0, 1, 2].map(|i| format!("room:{i}")));
    let diffs = thread::scope(|scope| {
        let threads = [1, 2, 3, 4].map(|seed| {
            let (presence, topics) = (presence.clone(), &topics);
            scope.spawn(move || churn(&presence, topics, seed))
        });
        for _ in 0..200 {
            for topic in &topics {
                let list = parse(&presence.list(topic));
                let metas = list.values().flatten().collect::<Vec<_>>();
                let refs = metas.iter().map(|meta| meta["phx_ref"].as_str().unwrap()).collect::<HashSet<_>>();
                assert!(refs.len() == metas.len() && list.values().all(|metas| !metas.is_empty()));
            }
        }
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(diffs.iter().all(|diffs| diffs.len() > 1000), "nearly nothing happened");
    for topic in &topics {
        // Clients may see the owners' diffs in any interleaving; this is the worst, one thread after the other.
        let mut folded = Folded::new();
        diffs.iter().flatten().filter(|diff| diff.topic() == topic).for_each(|diff| fold(&mut folded, diff));
        let mut list = parse(&presence.list(topic));
        for metas in folded.values_mut().chain(list.values_mut()) {
            metas.sort_by_key(|meta| meta["phx_ref"].to_string());
        }
        assert_eq!(folded, list);
    }
}

#[test]
fn an_owner_leaves_with_all_its_keys_in_one_diff_and_others_stay() {
    let (presence, leaver, other) = (Presence::new(), Owner::next(), Owner::next());
    for key in KEYS {
        let _ = presence.track(TOPIC, leaver, key, &json!({})).unwrap();
        let _ = presence.track("room:2", leaver, key, &json!({})).unwrap();
    }
    let _ = presence.track(TOPIC, other, "ada", &json!({"stays": true})).unwrap();
    let diff = presence.untrack_owner(TOPIC, leaver).unwrap();
    let said: Value = diff.json().parse().unwrap();
    assert_eq!(said["joins"], json!({}));
    assert_eq!(
        said["leaves"].as_object().unwrap().keys().map(|key| &**key).collect::<HashSet<_>>(),
        HashSet::from(KEYS)
    );
    assert_eq!((presence.metas_count(TOPIC), presence.metas_count("room:2")), (1, KEYS.len()));
    assert_eq!(presence.untrack_owner(TOPIC, leaver), None);
    assert!(presence.untrack_owner("room:2", leaver).is_some() && presence.untrack(TOPIC, other, "ada").is_some());
    assert_eq!((presence.topics(), presence.list(TOPIC).json().as_str()), (0, "{}"));
}

#[test]
fn a_join_of_a_hundred_thousand_is_said_in_as_many_bytes_as_the_first() {
    let presence = Presence::new();
    let (_, first) = presence.track(TOPIC, Owner::next(), "user 0000000", &json!({"at": 1})).unwrap();
    for i in 1..100_000 {
        let _ = presence.track(TOPIC, Owner::next(), &format!("user {i:07}"), &json!({"at": 1})).unwrap();
    }
    let (_, last) = presence.track(TOPIC, Owner::next(), "user 0100000", &json!({"at": 1})).unwrap();
    assert_eq!(last.json().as_str().len(), first.json().as_str().len());
    assert_eq!((presence.count(TOPIC), presence.keys(TOPIC).len()), (100_001, 100_001));
}

#[test]
fn a_refusal_changes_nothing() {
    let (presence, owner) = (Presence::new().limit(2), Owner::next());
    assert_eq!(presence.track(TOPIC, owner, "ada", &[1]), Err(TrackError::NotAnObject));
    assert_eq!(presence.update(TOPIC, owner, "ada", &json!({})), Err(TrackError::NotTracked));
    assert_eq!(presence.topics(), 0);
    let _ = presence.track(TOPIC, owner, "ada", &json!({"n": 1})).unwrap();
    let _ = presence.track(TOPIC, owner, "bob", &json!({})).unwrap();
    let before = parse(&presence.list(TOPIC));
    assert_eq!(presence.track(TOPIC, Owner::next(), "ada", &json!({})), Err(TrackError::TooMany));
    assert_eq!(presence.track(TOPIC, owner, "ada", &json!({})), Err(TrackError::AlreadyTracked));
    assert_eq!(presence.update(TOPIC, owner, "ada", "text"), Err(TrackError::NotAnObject));
    assert_eq!(presence.update(TOPIC, Owner::next(), "ada", &json!({})), Err(TrackError::NotTracked));
    assert_eq!((presence.untrack(TOPIC, owner, "eve"), presence.untrack("room:2", owner, "ada")), (None, None));
    assert_eq!(parse(&presence.list(TOPIC)), before);
    assert_eq!(presence.get(TOPIC, "eve"), None);
    let _ = presence.untrack(TOPIC, owner, "bob").unwrap();
    assert!(presence.track(TOPIC, owner, "eve", &json!({})).is_ok());
}

#[test]
fn the_hook_adds_fields_once_per_half_and_list_and_may_use_the_store() {
    static STORE: OnceLock<Presence> = OnceLock::new();
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let presence = Presence::with_fetch(|topic, entries| {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let there = STORE.get().unwrap().count(topic);
        for entry in entries.iter_mut() {
            let name = entry.key().to_uppercase();
            entry.add("user", "replaced").unwrap();
            entry.add("user", &json!({"name": name, "metas": entry.metas().count(), "there": there})).unwrap();
        }
    });
    STORE.set(presence.clone()).unwrap();
    let calls = |expected| assert_eq!(CALLS.swap(0, Ordering::Relaxed), expected);
    let owner = Owner::next();
    let (one, diff) = presence.track(TOPIC, owner, "ada", &json!({})).unwrap();
    let entry = |metas: Value| json!({"metas": metas, "user": {"name": "ADA", "metas": 1, "there": 1}});
    let first = entry(json!([{"phx_ref": one.as_str()}]));
    assert_eq!(diff.json().parse::<Value>().unwrap(), json!({"joins": {"ada": first}, "leaves": {}}));
    calls(1);
    assert_eq!(presence.list(TOPIC).json().parse::<Value>().unwrap(), json!({"ada": first}));
    assert_eq!(presence.get(TOPIC, "ada").unwrap().json().parse::<Value>().unwrap(), first);
    calls(2);
    let (two, diff) = presence.update(TOPIC, owner, "ada", &json!({})).unwrap();
    let second = entry(json!([{"phx_ref": two.as_str(), "phx_ref_prev": one.as_str()}]));
    assert_eq!(diff.json().parse::<Value>().unwrap(), json!({"joins": {"ada": second}, "leaves": {"ada": first}}));
    calls(2);
    assert!(presence.untrack_owner(TOPIC, owner).is_some());
    assert_eq!(presence.list(TOPIC).json().as_str(), "{}");
    calls(1);
}

#[test]
fn a_consumer_hears_of_every_diff_and_payloads_are_the_json() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let presence = Presence::new().on_change(move |diff| hears.lock().unwrap().push(diff.clone()));
    let owner = Owner::next();
    let (_, joined) = presence.track(TOPIC, owner, "ada", &json!({})).unwrap();
    let state = presence.list(TOPIC);
    let left = presence.untrack(TOPIC, owner, "ada").unwrap();
    assert!(presence.untrack(TOPIC, owner, "ada").is_none());
    let mut scratch = Vec::new();
    assert_eq!(state.to_payload(&mut scratch), Ok(Payload::Json(state.json())));
    assert_eq!(left.to_payload(&mut scratch), Ok(Payload::Json(left.json())));
    assert_eq!(*heard.lock().unwrap(), [joined, left]);
}
