//! A real server on real sockets under everything that clients do, good and bad, from a seed, and a model that knows
//! what each of them has to get.
//!
//! On epoll, or on io_uring with `WINGBEAT_DRIVER=uring`. `WINGBEAT_SOAK_ROUNDS` sets the number of rounds (24), each a
//! server of its own; `WINGBEAT_SOAK_SEED` the seed of the first one: the same seed gives the same clients that want the
//! same things, while the kernel and the threads cut it differently each time.
#![cfg(feature = "epoll")]
#![forbid(unsafe_code)]

mod client;
mod model;
mod scene;
mod service;
#[path = "../common/wire.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other test programs")]
mod wire;

use scene::{Scene, Tally};
use std::panic::{AssertUnwindSafe, catch_unwind};
use wingbeat::driver::DriverChoice;

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

fn number(name: &str, default: u64) -> u64 {
    let parse = |text: String| text.parse().unwrap_or_else(|_| panic!("{name} is a number"));
    std::env::var(name).map_or(default, parse)
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

#[test]
fn everything_that_clients_do() {
    let uring = std::env::var_os("WINGBEAT_DRIVER").is_some_and(|driver| driver == "uring");
    let driver = if uring { DriverChoice::Uring } else { DriverChoice::Epoll };
    let (first, rounds) = (number("WINGBEAT_SOAK_SEED", 1), number("WINGBEAT_SOAK_ROUNDS", 24));
    let before = open_descriptors();
    let mut tally = Tally::default();
    for seed in first..first + rounds {
        let outcome = catch_unwind(AssertUnwindSafe(|| Scene::new(seed, driver).play(&mut tally)));
        if outcome.is_err() {
            panic!("seed {seed} on {driver:?}: replay it with WINGBEAT_SOAK_SEED={seed} WINGBEAT_SOAK_ROUNDS=1");
        }
        assert_eq!(open_descriptors(), before, "descriptors are left, seed {seed}");
    }
    println!("seeds {first} to {} on {driver:?}: {tally:?}", first + rounds - 1);
    if rounds >= 20 {
        tally.assert_that_every_path_ran();
    }
}
