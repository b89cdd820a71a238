//! What mail between threads costs: a lane of a worker under one and several senders, awake and asleep.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macro makes a public item")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wingbeat::engine::lane::{LaneConfig, Receiver, lane};

/// The clock runs from the first send to the last receive; `senders` threads share `messages`.
fn exchange(senders: u64, messages: u64, sleep: bool) -> Duration {
    let worker = thread::current();
    let (sender, mut receiver) = lane(LaneConfig::default(), Arc::new(move || worker.unpark()));
    let start = Instant::now();
    thread::scope(|scope| {
        for from in 0..senders {
            let (sender, share) = (sender.clone(), messages / senders + u64::from(from < messages % senders));
            scope.spawn(move || {
                for id in 0..share {
                    while sender.send(id, 64).is_err() {
                        thread::yield_now();
                    }
                }
            });
        }
        receive(&mut receiver, messages, sleep);
    });
    start.elapsed()
}

fn receive(receiver: &mut Receiver<u64>, messages: u64, sleep: bool) {
    let mut received = 0;
    while received < messages {
        match receiver.receive() {
            Some(_) => received += 1,
            None if sleep && receiver.prepare_sleep() => {
                thread::park();
                receiver.awake();
            }
            None => thread::yield_now(),
        }
    }
}

fn mail(c: &mut Criterion) {
    let mut group = c.benchmark_group("mail");
    group.throughput(Throughput::Elements(1));
    group.bench_function("same_thread", |b| {
        let (sender, mut receiver) = lane(LaneConfig::default(), Arc::new(|| {}));
        b.iter(|| {
            sender.send(1u64, 64).expect("there is room");
            receiver.receive()
        });
    });
    for (name, senders, sleep) in
        [("one_sender_awake", 1, false), ("one_sender_asleep", 1, true), ("three_senders_asleep", 3, true)]
    {
        group.bench_function(name, |b| b.iter_custom(|messages| exchange(senders, messages, sleep)));
    }
    group.finish();
}

criterion_group!(benches, mail);
criterion_main!(benches);
