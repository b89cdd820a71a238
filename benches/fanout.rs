//! What fan-out inside one worker costs: publish, walk and retire, with connections that only count.
//! Times are per publication (single) or per burst; divide by the deliveries, which criterion shows as elements.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macro makes a public item")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wingbeat::pubsub::{Limits, NIL, Run, Subscribers, Topics};

/// Connections as an engine has them: a head of subscriptions and an outbox, which here only adds up.
struct Owner {
    conns: Vec<(u32, u64)>,
    retired: u64,
    join: bool,
}

impl Subscribers<u64> for Owner {
    fn head(&mut self, conn: u32) -> &mut u32 {
        &mut self.conns[conn as usize].0
    }

    fn deliver(&mut self, conn: u32, run: Run<'_, u64>) {
        let outbox = &mut self.conns[conn as usize].1;
        match run.joined() {
            Some(joined) => *outbox += joined,
            None => *outbox += run.iter().sum::<u64>(),
        }
    }

    fn retire(&mut self, publication: u64) {
        self.retired += publication;
    }

    fn join(&mut self, run: &Run<'_, u64>) -> Option<u64> {
        self.join.then(|| run.iter().sum())
    }
}

fn world(conns: u32, topics_each: u32, join: bool) -> (Topics<u64>, Owner) {
    let mut owner = Owner { conns: vec![(NIL, 0); conns as usize], retired: 0, join };
    let mut topics = Topics::new(Limits::default());
    for topic in 0..topics_each {
        for conn in 0..conns {
            topics.subscribe(conn, &topic.to_string(), &mut owner).expect("within the limits");
        }
    }
    (topics, owner)
}

fn publish_and_walk(topics: &mut Topics<u64>, owner: &mut Owner, topics_each: u32, burst: u64, slice: u32) {
    for id in 0..burst {
        let name = if id % u64::from(topics_each) == 0 { "0" } else { "1" };
        topics.publish(name, NIL, black_box(id)).expect("it has subscribers");
    }
    while !topics.is_idle() {
        topics.walk(&mut { slice }, owner);
    }
}

fn fanout(c: &mut Criterion) {
    // name, connections, topics of each, burst, slice of the walk, join
    let cases = [
        ("single/1000", 1_000, 1, 1, u32::MAX, false),
        ("single/10000", 10_000, 1, 1, u32::MAX, false),
        ("single_sliced_512/10000", 10_000, 1, 1, 512, false),
        ("burst_16/1000", 1_000, 1, 16, u32::MAX, false),
        ("burst_16/10000", 10_000, 1, 16, u32::MAX, false),
        ("burst_16_joined/10000", 10_000, 1, 16, u32::MAX, true),
        ("burst_16_of_two_topics/1000", 1_000, 2, 16, u32::MAX, false),
    ];
    let mut group = c.benchmark_group("fanout");
    for (name, conns, topics_each, burst, slice, join) in cases {
        let (mut topics, mut owner) = world(conns, topics_each, join);
        group.throughput(Throughput::Elements(u64::from(conns) * burst));
        group.bench_function(name, |b| {
            b.iter(|| publish_and_walk(&mut topics, &mut owner, topics_each, burst, slice));
        });
        black_box((owner.retired, &owner.conns));
    }
    group.finish();
}

criterion_group!(benches, fanout);
criterion_main!(benches);
