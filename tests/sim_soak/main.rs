//! The whole engine against a hostile kernel and hostile peers, from a seed, with an oracle that knows what each peer
//! has to get.
//!
//! `WINGBEAT_SOAK_SEEDS` sets the number of seeds (10,000), `WINGBEAT_SOAK_SEED` replays one and prints its trace.
#![cfg(feature = "epoll")]
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "a test program has no other users")]

#[path = "../common/mod.rs"]
mod common;
mod oracle;
mod scene;

use scene::Scene;
use std::panic::catch_unwind;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn seeds() {
    if let Some(seed) = number("WINGBEAT_SOAK_SEED") {
        let mut scene = Scene::new(seed, true);
        scene.play();
        return;
    }
    let mut sum = scene::Tally::default();
    for seed in 0..number("WINGBEAT_SOAK_SEEDS").unwrap_or(10_000) {
        match catch_unwind(|| Scene::new(seed, false).play()) {
            Ok(tally) => sum.add(&tally),
            Err(cause) => {
                let text = cause.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("?");
                panic!("seed {seed} (replay it with WINGBEAT_SOAK_SEED={seed}): {text}");
            }
        }
    }
    println!("{sum:?}");
    sum.assert_that_every_path_ran();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let [one, two] = [(); 2].map(|()| {
            let mut scene = Scene::with_workers(seed, 1);
            scene.play();
            scene.fingerprint()
        });
        assert_eq!(one, two, "seed {seed}");
    }
}
