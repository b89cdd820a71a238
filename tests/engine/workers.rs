//! Several workers, and the handle from outside.
#![forbid(unsafe_code)]

use crate::common::script::Event;
use crate::common::world::*;
use std::time::Duration;
use wingbeat::buffer::FrameSlabConfig;
use wingbeat::driver::DriverConfig;
use wingbeat::engine::{Budgets, Full, SlowConsumer};
use wingbeat::{Bytes, Message, MessageKind};

/// Two workers, subscribers on both, and their indices among `raws`.
fn two(config: wingbeat::Config) -> (World, Vec<Raw>, Vec<u16>) {
    let mut world = World::new(5, config, 2);
    let raws: Vec<_> = (1..=12).map(|key| world.open_with(key, "sub t")).collect();
    let workers: Vec<u16> = (1..=12).map(|key| world.record.borrow().ids[&key].worker).collect();
    assert!(workers.contains(&0) && workers.contains(&1));
    (world, raws, workers)
}

#[test]
fn publications_cross_workers_in_the_publishers_order() {
    for (mail_messages, mail_budget) in [(64, 1024), (4, 1024), (1, 1), (2, 3)] {
        let mut config = config();
        config.limits.mail_messages = mail_messages;
        config.budgets.mail = mail_budget;
        let (mut world, mut raws, workers) = two(config);
        let from = |worker| workers.iter().position(|&at| at == worker).unwrap();
        for round in 0..10 {
            for worker in [0u16, 1] {
                let script: Vec<_> = (0..5).map(|i| format!("tell t w{worker}.{:03}", round * 5 + i)).collect();
                raws[from(worker)].text(&script.join(";"));
            }
            for i in 0..3 {
                world.handle.publish("t", Message::text(&format!("h.{:03}", round * 3 + i)));
            }
            world.turn();
        }
        (0..200).for_each(|_| world.turn());
        for raw in &mut raws {
            let texts = raw.read().texts();
            for (source, count) in [("w0.", 50), ("w1.", 50), ("h.", 30)] {
                let got: Vec<_> = texts.iter().filter(|text| text.starts_with(source)).collect();
                assert!(got.len() == count && got.is_sorted(), "{source}: {got:?}");
            }
        }
        assert_eq!(world.record.borrow().last_published.unwrap().workers, 1);
        assert_eq!(world.counters().publish_refused, 0);
    }
}

/// A wake is a system call, and costs most where a CPU was asleep.
#[test]
fn a_batch_of_publications_wakes_a_sleeping_worker_once_and_an_awake_one_never() {
    let (mut world, mut raws, workers) = two(config());
    let publisher = workers.iter().position(|&worker| worker == 0).unwrap();
    let listener = workers.iter().position(|&worker| worker == 1).unwrap();
    raws[listener].read();
    let (woken, mut came) = (world.counters().woken, 0);
    for (batch, sleeps) in [(16, true), (1, true), (16, false), (1, false), (16, true)] {
        let before = world.counters().woken;
        let now = world.net.now();
        if sleeps {
            assert_ne!(world.workers[1].next_timeout(now), Some(Duration::ZERO), "it has nothing to do");
        }
        raws[publisher].text(&(0..batch).map(|i| format!("tell t {i}")).collect::<Vec<_>>().join(";"));
        world.workers[0].turn(now).unwrap();
        assert_eq!(world.record.borrow().last_published.unwrap().workers, 1);
        world.workers[1].turn(now).unwrap();
        assert_eq!(world.counters().woken - before, u64::from(sleeps), "for a batch of {batch}");
        world.settle();
        came += batch;
    }
    assert_eq!(raws[listener].read().texts().len(), came);
    assert_eq!(world.counters().woken - woken, 3);
}

#[test]
fn a_worker_whose_lane_is_full_is_reported() {
    let mut config = config();
    config.limits.mail_messages = 4;
    config.limits.mail_overflow_bytes = 0;
    let (mut world, mut raws, workers) = two(config);
    let publisher = workers.iter().position(|&worker| worker == 0).unwrap();
    let listener = workers.iter().position(|&worker| worker == 1).unwrap();
    raws[publisher].text(&(0..6).map(|i| format!("tell t {i}")).collect::<Vec<_>>().join(";"));
    world.turn();
    let published = world.record.borrow().last_published.unwrap();
    assert_eq!((published.workers, published.refused), (0, 1));
    world.settle();
    assert_eq!((world.counters().publish_refused, world.counters().mail_refused), (2, 2));
    assert_eq!(raws[listener].read().texts(), ["0", "1", "2", "3"]);
    assert_eq!(raws[publisher].read().texts(), ["0", "1", "2", "3", "4", "5"]);
    let outcomes: Vec<_> = (0..6).map(|_| world.handle.publish("t", Message::text("x"))).collect();
    assert!(outcomes[..4].iter().all(|published| (published.workers, published.refused) == (2, 0)));
    assert!(outcomes[4..].iter().all(|published| (published.workers, published.refused) == (0, 2)));
}

#[test]
fn mail_is_refused_when_full_and_taken_later() {
    let mut config = config();
    config.limits.mail_messages = 3;
    config.limits.mail_overflow_bytes = 0;
    let mut world = World::one(config);
    let mut raw = world.open(1);
    let id = world.record.borrow().ids[&1];
    let outcomes: Vec<_> = (0..5).map(|i| world.handle.mail(id, format!("say {i}"))).collect();
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(()), Err(Full), Err(Full)]);
    assert_eq!(world.handle.send(id, Message::text("no")), Err(Full));
    assert_eq!(world.counters().mail_refused, 3);
    world.settle();
    world.handle.send(id, Message::text("yes")).unwrap();
    world.settle();
    assert_eq!(raw.read().texts(), ["0", "1", "2", "yes"]);
}

/// The queue has room for 4,096, but what mail owns counts from the first on.
#[test]
fn mail_that_states_its_bytes_is_refused_at_their_limit() {
    let mut config = config();
    config.limits.mail_overflow_bytes = 100_000;
    let mut world = World::one(config);
    let mut raw = world.open(1);
    let id = world.record.borrow().ids[&1];
    for _ in 0..2 {
        let outcomes: Vec<_> = (0..4).map(|i| world.handle.mail_sized(id, format!("say {i}"), 40_000)).collect();
        assert_eq!(outcomes, [Ok(()), Ok(()), Err(Full), Err(Full)]);
        assert_eq!(world.handle.mail_worker_sized(0, "x".into(), 40_000), Err(Full));
        assert_eq!(world.handle.answer_upgrade_sized(id, "x".into(), 40_000), Err(Full));
        assert_eq!(world.handle.send(id, Message::binary(&[0; 40_000])), Err(Full));
        assert_eq!(world.handle.mail(id, "say small".into()), Ok(()), "small mail has its place in the queue");
        world.settle();
        assert_eq!(world.handle.mail_worker_sized(0, "larger than all that".into(), 1 << 20), Ok(()));
        assert_eq!(world.handle.mail_worker_sized(0, "x".into(), 40_000), Err(Full), "it is alone there");
        world.settle();
    }
    assert_eq!(world.counters().mail_refused, 12);
    assert_eq!(raw.read().texts(), ["0", "1", "small"].repeat(2));
}

#[test]
fn mail_for_a_worker_finds_it_and_may_be_refused() {
    let mut config = config();
    config.limits.mail_messages = 2;
    config.limits.mail_overflow_bytes = 0;
    let mut world = World::new(5, config, 2);
    let mut raw = world.open_with(1, "sub t");
    world.take_events();
    assert_eq!(world.handle.workers(), 2);
    let mail = |worker, text: &str| world.handle.mail_worker(worker, text.into());
    let outcomes = [mail(1, "tell t hello"), mail(1, "panic"), mail(1, "no"), mail(0, "x"), mail(2, "no")];
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(Full), Ok(()), Err(Full)]);
    world.settle();
    let mut events = world.take_events();
    events.sort_by_key(|event| !matches!(event, Event::WorkerMail(0, _)));
    let expected = [(0, "x"), (1, "tell t hello"), (1, "panic")];
    assert_eq!(events, expected.map(|(worker, text)| Event::WorkerMail(worker, text.into())));
    assert_eq!(raw.read().texts(), ["hello"]);
    raw.peer.close();
    world.settle();
    world.assert_quiet();
}

#[test]
fn bytes_are_shared_on_their_way_to_several_connections() {
    let mut world = World::one(config());
    let mut raws: Vec<_> = (1..=3).map(|key| world.open(key)).collect();
    let payload = Bytes::from("shared ".repeat(100));
    for raw in 1..=3 {
        let id = world.record.borrow().ids[&raw];
        world.handle.send_bytes(id, MessageKind::Text, payload.clone()).unwrap();
    }
    assert!(!payload.is_unique(), "the mail holds it too");
    world.settle();
    assert!(payload.is_unique(), "the mail gave it back");
    assert!(raws.iter_mut().all(|raw| raw.read().texts() == [&payload[..]].map(|text| str::from_utf8(text).unwrap())));
}

#[test]
fn an_unknown_worker_takes_nothing() {
    let mut world = World::one(config());
    let _raw = world.open(1);
    let id = wingbeat::ConnId { worker: 7, ..world.record.borrow().ids[&1] };
    assert_eq!(world.handle.send(id, Message::text("no")), Err(Full));
}

#[test]
fn interest_ends_with_the_last_subscriber() {
    let (mut world, raws, workers) = two(config());
    let only = workers.iter().position(|&worker| worker == 0).unwrap();
    for (at, raw) in raws.iter().enumerate() {
        if workers[at] == 1 {
            raw.text("unsub t");
        }
    }
    world.settle();
    raws[only].text("tell t x");
    world.settle();
    let published = world.record.borrow().last_published.unwrap();
    assert_eq!(published.workers, 0, "worker 1 has nobody left");
}

#[test]
fn timers_come_at_their_time_and_in_order() {
    let mut world = World::one(config());
    let mut raw = world.open(1);
    raw.text("after 100 say late;after 20 say soon;after 20 say sooner?;after 0 say now");
    world.settle();
    assert_eq!(raw.read().texts(), ["now"]);
    world.pass(16);
    assert_eq!(raw.read().texts(), ["now"]);
    world.pass(8);
    assert_eq!(raw.read().texts(), ["now", "soon", "sooner?"]);
    world.pass(80);
    assert_eq!(raw.read().texts(), ["now", "soon", "sooner?", "late"]);
}

#[test]
fn a_timer_that_is_cancelled_does_not_come() {
    let mut world = World::one(config());
    let mut raw = world.open(1);
    let id = world.record.borrow().ids[&1];
    let set = |world: &mut World, token, script: &str| {
        world.record.borrow_mut().later.insert(token, (id, script.to_owned()));
        world.workers[0].with(|_, scope| scope.set_timer(Duration::from_millis(50), token))
    };
    let (kept, cancelled) = (set(&mut world, 1001, "say kept"), set(&mut world, 1002, "say cancelled"));
    assert_ne!(kept, cancelled);
    let cancel = |world: &mut World, id| world.workers[0].with(|_, scope| scope.cancel_timer(id));
    assert_eq!((cancel(&mut world, cancelled), cancel(&mut world, cancelled)), (true, false));
    world.pass(100);
    assert_eq!(raw.read().texts(), ["kept"]);
    assert!(!cancel(&mut world, kept), "it has come");
}

#[test]
fn one_connection_may_act_for_another() {
    let mut world = World::one(config());
    let (mut a, mut b) = (world.open(1), world.open(2));
    a.text("to 2 say hello,sub t;tell t x;to 2 close 1000;say done");
    world.settle();
    assert_eq!(a.read().texts(), ["done"]);
    b.read();
    assert_eq!((b.seen.texts(), b.seen.close_code()), (vec!["hello", "x"], Some(1000)));
    a.text("to 2 say gone");
    world.settle();
    assert_eq!(world.counters().open, 1);
}

/// Zeros, and marks the wrong way round: it is slow, and serves.
#[test]
fn zeros_in_the_configuration_do_not_stop_a_worker() {
    let mut config = config();
    config.budgets = Budgets { mail: 0, deliveries: 0, timers: 0, sends: 0 };
    config.driver =
        DriverConfig { receive_buffer: 0, receive_pool: 0, events: 0, accepts_per_poll: 0, receive_budget: 0 };
    config.frames = FrameSlabConfig { small_frames: 0, medium_frames: 0, keep_large_bytes: 0 };
    config.limits.mail_messages = 0;
    for (low, high) in [(0, 0), (0, 1000), (1000, 10)] {
        (config.limits.outbox_low, config.limits.outbox_high) = (low, high);
        config.slow_consumer = SlowConsumer::DropOldest;
        let mut world = World::new(1, config, 2);
        world.net.set_buffer(50);
        let mut raw = world.connect();
        raw.peer.send(&crate::common::wire::request("/", "X-Key: 1\r\nX-Open: \r\n"));
        world.pass(2000);
        raw.text("sub t");
        raw.text("send 3 20");
        world.pass(1000);
        let before = raw.read().texts().len();
        assert!(before >= 3);
        assert_eq!(world.handle.publish("t", Message::text("news")).workers, 1);
        world.pass(100);
        assert_eq!(raw.read().texts().last(), Some(&"news"));
        raw.peer.close();
        world.pass(1000);
        assert_eq!(world.counters().open, 0);
    }
}
