//! What a join and a leave cost when many are there, under keys of their own or all under one; what an entry weighs.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macro makes a public item")]

use std::fs;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use wingbeat::channels::presence::{Owner, Presence};

const TOPIC: &str = "room:lobby";
const MEMBERS: [usize; 3] = [10, 1_000, 100_000];

fn crowd(members: usize, key: impl Fn(usize) -> String) -> Presence {
    let presence = Presence::new();
    for i in 0..members {
        let _ = presence.track(TOPIC, Owner::next(), &key(i), &json!({"at": 1_790_000_000})).expect("it is new");
    }
    presence
}

/// The key of a member.
type Key = fn(usize) -> String;

fn join_and_leave(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("presence_join_update_leave");
    let keys: [(&str, Key); 2] = [("own_keys", |i| format!("user {i}")), ("one_key", |_| "me".into())];
    for ((name, key), members) in keys.iter().flat_map(|keys| MEMBERS.map(|members| (keys, members))) {
        let presence = crowd(members, key);
        group.bench_function(BenchmarkId::new(*name, members), |bench| {
            let (owner, meta) = (Owner::next(), json!({"at": 1_790_000_000}));
            bench.iter(|| {
                let _ = black_box(presence.track(TOPIC, owner, "me", &meta)).expect("it is new");
                let _ = black_box(presence.update(TOPIC, owner, "me", &meta)).expect("it is there");
                let _ = black_box(presence.untrack_owner(TOPIC, owner)).expect("it is there");
            });
        });
    }
}

fn list(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("presence_list");
    group.sample_size(10);
    for members in MEMBERS {
        let presence = crowd(members, |i| format!("user {i}"));
        group.throughput(Throughput::Elements(members as u64));
        group.bench_function(BenchmarkId::from_parameter(members), |bench| bench.iter(|| presence.list(TOPIC)));
    }
}

/// Resident memory of a million entries, and what is left of it without their keys and the text of their metas.
fn memory(_: &mut Criterion) {
    const ENTRIES: usize = 1_000_000;
    let before = resident();
    let presence = crowd(ENTRIES, |i| format!("user {i:07}"));
    let bytes = resident().saturating_sub(before) / ENTRIES;
    assert_eq!(presence.count(TOPIC), ENTRIES);
    let entry = presence.get(TOPIC, "user 0000000").expect("it is there");
    let texts = "user 0000000".len() + entry.json().as_str().len() - r#"{"metas":[]}"#.len();
    println!("presence_memory         {bytes} bytes per entry, {} beside key and meta", bytes.saturating_sub(texts));
}

/// Bytes of this process in memory; 0 where the system does not tell.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).unwrap_or_default() * 1024
}

criterion_group!(benches, memory, join_and_leave, list);
criterion_main!(benches);
