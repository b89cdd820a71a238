//! What a message of the Phoenix wire costs: reading its slots, writing it, and reading a publication.
//! `serde_json` is there as the measure: the same slots by `RawValue`, and the whole text as a `Value`.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macro makes a public item")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::value::RawValue;
use std::hint::black_box;
use wingbeat::{
    MessageKind,
    channels::{Broadcast, Json, Outgoing, Payload, Serializer, Slot, V1, V2},
};

const V2_TEXT: &str = r#"["3","17","room:lobby","new_msg",{"body":"hello, world"}]"#;
const V1_TEXT: &str =
    r#"{"topic":"room:lobby","event":"new_msg","payload":{"body":"hello"},"ref":"17","join_ref":"3"}"#;
const BINARY: &[u8] = b"\x00\x01\x02\x0a\x073";

fn nested() -> String {
    let object =
        r#"{"user":{"id":4711,"name":"Zoë","tags":["a","b"]},"at":1700000000.5,"text":"said \"so\"","seen":true}"#;
    format!(r#"["3","17","room:lobby","new_msg",{{"list":[{}]}}]"#, [object; 10].join(","))
}

fn decode(c: &mut Criterion) {
    let binary = [BINARY, b"17room:lobbynew_msg", &[7; 24]].concat();
    let (nested, long) = (nested(), format!(r#"["3","17","t","e",{{"body":"{}"}}]"#, "x".repeat(64 << 10)));
    let mut group = c.benchmark_group("decode");
    for (name, kind, bytes) in [
        ("v2", MessageKind::Text, V2_TEXT.as_bytes()),
        ("v2/nested", MessageKind::Text, nested.as_bytes()),
        ("v2/64k", MessageKind::Text, long.as_bytes()),
        ("v2/binary", MessageKind::Binary, &binary),
    ] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| V2.decode(kind, black_box(bytes)).is_ok()));
    }
    group.throughput(Throughput::Bytes(V1_TEXT.len() as u64));
    group.bench_function("v1", |b| b.iter(|| V1.decode(MessageKind::Text, black_box(V1_TEXT.as_bytes())).is_ok()));
    for (name, text) in [("v2", V2_TEXT), ("v2/nested", &nested), ("v2/64k", &long)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("{name}/raw_value"), |b| {
            b.iter(|| serde_json::from_slice::<[&RawValue; 5]>(black_box(text.as_bytes())).is_ok());
        });
        group.bench_function(format!("{name}/value"), |b| {
            b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(text.as_bytes())).is_ok());
        });
    }
}

fn encode(c: &mut Criterion) {
    let (join_ref, reference, topic) = (Slot::from("3"), Slot::from("17"), Slot::from("room:lobby"));
    let payload = Payload::Json(Json::new(r#"{"body":"hello, world"}"#).expect("JSON"));
    let reply = |response| Outgoing::Reply {
        join_ref: &join_ref,
        reference: &reference,
        topic: &topic,
        status: "ok",
        response,
    };
    let broadcast = Outgoing::Broadcast { topic: "room:lobby", event: "new_msg", payload };
    let mut group = c.benchmark_group("encode");
    let mut bench = |name: &str, serializer: &dyn Serializer, message: &Outgoing<'_>| {
        let mut out = Vec::new();
        serializer.encode(message, &mut out).expect("it can be written");
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                serializer.encode(black_box(message), &mut out).is_ok()
            });
        });
    };
    bench("v2/reply", &V2, &reply(payload));
    bench("v2/broadcast", &V2, &broadcast);
    bench("v2/reply/binary", &V2, &reply(Payload::Binary(&[7; 24])));
    bench("v1/reply", &V1, &reply(payload));
    bench("v1/broadcast", &V1, &broadcast);
}

/// Once per publication, worker and serializer.
fn publication(c: &mut Criterion) {
    let mut group = c.benchmark_group("broadcast/read");
    let long = format!(r#"{{"body":"{}"}}"#, "x".repeat(64 << 10));
    for (name, text) in [("60", r#"{"body":"hello, world, said somebody to nobody else at all"}"#), ("64k", &long)] {
        let (mut bytes, payload) = (Vec::new(), Payload::Json(Json::new(text).expect("JSON")));
        let kind = Broadcast { event: "new_msg", payload }.write(&mut bytes);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| Broadcast::read(kind, black_box(&bytes)).is_some()));
    }
    let nested = nested();
    group.throughput(Throughput::Bytes(nested.len() as u64));
    group.bench_function("nested/json_alone", |b| b.iter(|| Json::new(black_box(&nested)).is_ok()));
}

criterion_group!(benches, decode, encode, publication);
criterion_main!(benches);
