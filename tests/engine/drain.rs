//! Planned closing.
#![forbid(unsafe_code)]

use crate::common::script::Event;
use crate::common::world::*;
use std::time::Duration;
use wingbeat::engine::{CloseCause, Drain};

fn plan(batch: u32) -> Drain {
    Drain { batch, interval: Duration::from_millis(100), deadline: Duration::from_millis(1000), ..Drain::default() }
}

fn closed(raws: &mut [Raw]) -> usize {
    raws.iter_mut().filter_map(|raw| raw.read().close_code()).inspect(|code| assert_eq!(*code, 1012)).count()
}

/// Well-behaved peers answer the Close and close when the server has.
fn answer(raws: &[Raw]) {
    for raw in raws.iter().filter(|raw| raw.seen.closed) {
        raw.close(1012);
        if raw.peer.is_eof() {
            raw.peer.close();
        }
    }
}

#[test]
fn batches_with_1012_then_the_workers_end() {
    let mut world = World::one(config());
    let mut raws: Vec<_> = (1..=10).map(|key| world.open(key)).collect();
    world.handle.drain(plan(3));
    world.settle();
    assert_eq!(closed(&mut raws), 3);
    assert!(world.net.connect(&world.address).is_err(), "nobody listens any more");
    for expected in [6, 9, 10] {
        answer(&raws);
        world.pass(100);
        assert_eq!(closed(&mut raws), expected);
    }
    assert!(!world.workers[0].is_drained());
    answer(&raws);
    world.settle();
    answer(&raws);
    world.settle();
    assert!(world.workers[0].is_drained());
    assert_eq!(world.closes(1012, "drain"), 10);
    assert!(raws.iter().all(|raw| !raw.peer.is_reset()), "no abnormal close for those that behave");
    world.assert_quiet();
}

#[test]
fn batches_are_shared_among_the_workers() {
    let mut world = World::new(3, config(), 3);
    let mut raws: Vec<_> = (1..=30).map(|key| world.open(key)).collect();
    world.handle.drain(plan(7));
    world.settle();
    assert_eq!(closed(&mut raws), 7);
}

/// A process that was stopped comes late: who has no Close yet gets it at the deadline, and the time to answer it.
#[test]
fn all_have_their_close_at_the_deadline_and_the_rest_is_dropped_after_the_close_timeout() {
    let mut config = config();
    config.limits.close_timeout = Duration::from_millis(300);
    let mut world = World::one(config);
    let mut raws: Vec<_> = (1..=5).map(|key| world.open(key)).collect();
    let mut opening = world.connect();
    opening.peer.send(b"GET /");
    world.settle();
    world.handle.drain(plan(1));
    world.settle();
    assert_eq!(closed(&mut raws), 1);
    world.net.advance(Duration::from_secs(2));
    world.settle();
    assert_eq!((closed(&mut raws), opening.read().status()), (5, Some(503)));
    world.pass(250);
    assert!(!world.workers[0].is_drained(), "the time to answer is not over");
    world.pass(150);
    assert!(world.workers[0].is_drained());
    world.assert_quiet();
    assert_eq!(world.closes(1012, "drain"), 5);
}

/// One that takes what is owed to it ever so slowly is given time, but not beyond that.
#[test]
fn a_slow_peer_does_not_hold_a_drain_up() {
    let mut config = config();
    config.limits.close_timeout = Duration::from_millis(300);
    let mut world = World::one(config);
    world.net.set_buffer(100);
    let raw = world.open(1);
    raw.peer.stall(true);
    raw.text("send 1 20000");
    world.settle();
    world.handle.drain(plan(1));
    let mut slowly = |rounds| {
        for _ in 0..rounds {
            world.pass(48);
            raw.peer.stall(false);
            world.turn();
            raw.peer.stall(true);
        }
        world.workers[0].is_drained()
    };
    assert!(!slowly(26), "1.25 s of 1.3 s");
    assert!(slowly(4));
    world.assert_quiet();
}

/// The plan's batch would leave most of them without a word at the deadline.
#[test]
fn batches_grow_so_that_the_deadline_holds() {
    let mut world = World::one(config());
    let mut raws: Vec<_> = (1..=100).map(|key| world.open(key)).collect();
    world.handle.drain(plan(1));
    world.settle();
    let first = closed(&mut raws);
    assert!((9..=11).contains(&first), "a tenth: {first}");
    world.pass(500);
    assert!((50..=66).contains(&closed(&mut raws)));
    world.pass(470);
    assert_eq!(closed(&mut raws), 100, "before the deadline");
}

#[test]
fn a_deadline_of_zero_still_says_goodbye() {
    let mut world = World::one(config());
    let mut raws: Vec<_> = (1..=10).map(|key| world.open(key)).collect();
    world.handle.drain(Drain { deadline: Duration::ZERO, ..plan(1) });
    world.pass(40);
    assert_eq!(closed(&mut raws), 10);
}

#[test]
fn who_comes_during_a_drain_is_refused() {
    let mut world = World::one(config());
    let _open = world.open(1);
    let mut half = world.connect();
    let request = crate::common::wire::request("/", "");
    half.peer.send(&request[..20]);
    world.settle();
    let mut queued = world.connect();
    world.handle.drain(plan(1));
    world.turn();
    half.peer.send(&request[20..]);
    queued.peer.send(&request);
    world.pass(400);
    assert_eq!((half.read().status(), queued.read().status()), (Some(503), Some(503)));
}

#[test]
fn the_handler_is_told_once_before_the_first_is_closed() {
    let mut world = World::new(3, config(), 2);
    let mut raws = [world.open_with(1, "sub draining"), world.open(2), world.open(3)];
    world.handle.drain(plan(100));
    world.handle.drain(plan(1));
    world.settle();
    let mut drains = world.record.borrow().drains.clone();
    drains.sort_unstable();
    assert_eq!(drains.iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(drains.iter().map(|(_, open)| open).sum::<u32>(), 3);
    assert_eq!(closed(&mut raws), 3);
    assert!(raws[0].read().texts().contains(&"farewell"), "what it says then comes before the Close");
}

#[test]
fn a_second_drain_changes_nothing() {
    let mut world = World::one(config());
    let mut raws: Vec<_> = (1..=4).map(|key| world.open(key)).collect();
    world.handle.drain(plan(1));
    world.handle.drain(plan(100));
    world.settle();
    assert_eq!(closed(&mut raws), 1);
}

#[test]
fn a_full_lane_cannot_refuse_a_drain() {
    let mut config = config();
    (config.limits.mail_messages, config.limits.mail_overflow_bytes) = (1, 0);
    config.budgets.mail = 1;
    let mut world = World::new(2, config, 2);
    let mut raws: Vec<_> = (1..=6).map(|key| world.open(key)).collect();
    for id in world.record.borrow().ids.values() {
        while world.handle.send(*id, wingbeat::Message::text("full")).is_ok() {}
    }
    world.handle.drain(plan(6));
    world.turn();
    world.settle();
    assert_eq!(closed(&mut raws), 6);
}

/// A worker that is about to block learns of a drain as it learns of mail.
#[test]
fn a_drain_keeps_a_worker_awake() {
    let mut world = World::one(config());
    let _open = world.open(1);
    let now = world.net.now();
    assert_ne!(world.workers[0].next_timeout(now), Some(Duration::ZERO));
    world.handle.drain(plan(1));
    assert_eq!(world.workers[0].next_timeout(now), Some(Duration::ZERO));
    world.turn();
    assert_ne!(world.workers[0].next_timeout(now), Some(Duration::ZERO));
}

/// A handler that is told of a drained connection may still publish: those of later batches get it.
#[test]
fn a_handler_publishes_in_the_close_of_a_drained_connection() {
    let mut world = World::one(config());
    let mut raws = [world.open(4), world.open_with(1, "sub t0"), world.open_with(2, "subas 1 t0")];
    world.handle.drain(plan(1));
    world.settle();
    assert_eq!(raws.each_mut().map(|raw| raw.read().close_code()), [Some(1012), None, None]);
    let farewell = raws[1].read().texts()[0].to_owned();
    assert!(farewell.starts_with("p0."), "{farewell}");
    assert_eq!(raws[2].read().texts(), [format!("1:t0:{farewell}")]);
    let told = world.events().into_iter().any(|event| match event {
        Event::Close(4, reason) => reason.cause == CloseCause::Drain,
        _ => false,
    });
    assert!(told);
}
