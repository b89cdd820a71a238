//! What the timer wheel costs with a million connections: arming, re-arming, firing, and finding out that nothing is due.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macro makes a public item")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use wingbeat::engine::timer::{Link, Links, Timers, Wheel};

const SLOTS: u32 = 1_000_000;
/// As the engine has them: 65 s ahead.
const TICK: Duration = Duration::from_millis(16);
const BUCKETS: usize = 4096;

struct Table(Vec<Link>);

impl Links for Table {
    fn link(&mut self, slot: u32) -> &mut Link {
        &mut self.0[slot as usize]
    }
}

/// Deadlines as a million connections have them: all over the wheel, neighbours apart.
fn due(slot: u32) -> u32 {
    1 + slot.wrapping_mul(2_654_435_761) % (BUCKETS as u32 - 1)
}

fn armed() -> (Wheel, Table) {
    let (mut wheel, mut table) =
        (Wheel::new(TICK, BUCKETS, Instant::now()), Table(vec![Link::default(); SLOTS as usize]));
    (0..SLOTS).for_each(|slot| wheel.arm(slot, due(slot), &mut table));
    (wheel, table)
}

fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel_1M");
    group.sample_size(10).throughput(Throughput::Elements(SLOTS.into()));
    group.bench_function("arm", |bench| {
        let table = || Table(vec![Link::default(); SLOTS as usize]);
        let empty = || (Wheel::new(TICK, BUCKETS, Instant::now()), table());
        let arm_all = |(mut wheel, mut table): (Wheel, Table)| {
            (0..SLOTS).for_each(|slot| wheel.arm(slot, due(slot), &mut table));
            (wheel, table)
        };
        bench.iter_batched(empty, arm_all, BatchSize::PerIteration);
    });
    group.bench_function("re-arm", |bench| {
        let (mut wheel, mut table) = armed();
        let mut shift = 0;
        bench.iter(|| {
            shift += 1;
            (0..SLOTS).for_each(|slot| wheel.arm(slot, due(slot.wrapping_add(shift)), &mut table));
        });
    });
    group.bench_function("fire", |bench| {
        let mut fired = Vec::with_capacity(1024);
        let fire_all = |(mut wheel, mut table): (Wheel, Table)| {
            let mut tick = 0;
            while !wheel.is_empty() {
                tick += 1;
                // In slices, as turns do it.
                loop {
                    let mut budget = 1024;
                    wheel.advance(tick, &mut budget, &mut table, &mut fired);
                    fired.clear();
                    if budget > 0 {
                        break;
                    }
                }
            }
            (wheel, table)
        };
        bench.iter_batched(armed, fire_all, BatchSize::PerIteration);
    });
    group.finish();
}

fn idle(criterion: &mut Criterion) {
    let (mut wheel, mut table) = armed();
    let now = Instant::now();
    criterion.bench_function("wheel_1M/turn_without_anything_due", |bench| {
        let mut fired = Vec::new();
        bench.iter(|| {
            wheel.advance(black_box(0), &mut 1024, &mut table, &mut fired);
            wheel.next_due(black_box(now))
        });
    });
}

fn user_timers(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut timers = Timers::new();
    (0..10_000_u64).for_each(|id| _ = timers.after(now, Duration::from_millis(id), id));
    let mut clock = now;
    criterion.bench_function("timers_10k/fire_and_set_again", |bench| {
        bench.iter(|| {
            clock += Duration::from_millis(1);
            while let Some(id) = timers.pop_due(clock) {
                timers.after(clock, Duration::from_secs(10), id);
            }
        });
    });
}

criterion_group!(benches, wheel, idle, user_timers);
criterion_main!(benches);
