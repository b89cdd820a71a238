//! Topics: who gets what, and in which order, also in the middle of a walk.
#![forbid(unsafe_code)]

use crate::common::script::Event;
use crate::common::world::*;
use std::fmt::Write;
use wingbeat::{Config, Message, MessageKind};

/// Three deliveries per turn.
fn sliced() -> Config {
    let mut config = config();
    config.budgets.deliveries = 3;
    config
}

/// Subscribers 1..=count of topic `t`.
fn audience(config: Config, count: u32) -> (World, Vec<Raw>) {
    let mut world = World::one(config);
    let audience = (1..=count).map(|key| world.open_with(key, "sub t")).collect();
    (world, audience)
}

fn texts(raw: &mut Raw) -> Vec<String> {
    raw.read().texts().iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_publication_reaches_every_subscriber_and_the_publisher() {
    let (mut world, mut raws) = audience(config(), 5);
    let mut stranger = world.open(9);
    raws[0].text("tell t hello");
    world.settle();
    assert!(raws.iter_mut().all(|raw| texts(raw) == ["hello"]));
    assert_eq!(texts(&mut stranger), [""; 0]);
    assert_eq!(world.record.borrow().last_published.unwrap().local, 5);
    raws[0].text("tell nobody hello");
    world.settle();
    assert_eq!(world.record.borrow().last_published.unwrap().local, 0);
}

#[test]
fn what_is_written_in_place_arrives_as_what_is_copied() {
    let (mut world, mut raws) = audience(config(), 2);
    raws[0].text("say 0;with 1;with 2;tellwith t a longer one;tellwith t 3;with;say 4");
    world.settle();
    assert_eq!(texts(&mut raws[0]), ["0", "1", "2", "a longer one", "3", "", "4"]);
    assert_eq!(texts(&mut raws[1]), ["a longer one", "3"]);
    let published = world.workers[0].with(|_, scope| {
        scope.publish_with("t", MessageKind::Text, |out| write!(out, "{}", 5).expect("it never fails"))
    });
    world.record.borrow_mut().published_outside("t", "5", false);
    world.settle();
    assert_eq!((published.local, texts(&mut raws[1])[2..].join(",")), (2, "5".to_owned()));
}

#[test]
fn publish_from_leaves_the_publisher_out() {
    for config in [config(), sliced()] {
        let (mut world, mut raws) = audience(config, 7);
        raws[2].text("tellothers t one;tell t two;tellothers t three");
        world.settle();
        for (at, raw) in raws.iter_mut().enumerate() {
            let expected: &[&str] = if at == 2 { &["two"] } else { &["one", "two", "three"] };
            assert_eq!(texts(raw), expected, "subscriber {at}");
        }
    }
}

#[test]
fn a_subscription_counts_once_and_ends_once() {
    let (mut world, mut raws) = audience(config(), 1);
    raws[0].text("sub t;tell t once;unsub t;tell t no;unsub t;sub t;tell t again");
    world.settle();
    assert_eq!(texts(&mut raws[0]), ["once", "again"]);
    raws[0].text("unsub t");
    world.settle();
    assert_eq!(world.counters().topics, 0);
}

#[test]
fn what_was_published_comes_before_what_is_said_later() {
    for config in [config(), sliced()] {
        let (mut world, mut raws) = audience(config, 8);
        raws[7].text("say 0;tell t 1;say 2;sub u;tell u 3;tell t 4;say 5;unsub t;tell t no;say 6");
        world.settle();
        assert_eq!(texts(&mut raws[7]), ["0", "1", "2", "3", "4", "5", "6"]);
        assert_eq!(texts(&mut raws[0]), ["1", "4", "no"]);
    }
}

/// Subscribe, unsubscribe and close while the walk is under way: each subscriber gets what was published while it had
/// subscribed, once.
#[test]
fn changes_in_the_middle_of_a_walk() {
    for (change, expected) in [
        ("unsub t", vec!["1", "2", "3"]),
        ("close 1000", vec!["1", "2", "3"]),
        ("unsub t;sub t", vec!["1", "2", "3", "4"]),
        ("say x", vec!["1", "2", "3", "x", "4"]),
    ] {
        for who in [0usize, 4, 11] {
            let (mut world, mut raws) = audience(sliced(), 12);
            let mut late = world.open(50);
            let ids: Vec<_> = (1..=12).map(|key| world.record.borrow().ids[&key]).collect();
            for text in ["1", "2", "3"] {
                world.handle.publish("t", Message::text(text));
            }
            world.turn(); // some have been served by now, and some have not
            let served = raws.iter_mut().filter_map(|raw| (!texts(raw).is_empty()).then_some(())).count();
            assert!(served > 0 && served < 12, "{served}");
            world.handle.mail(ids[who], change.into()).unwrap();
            let late_id = world.record.borrow().ids[&50];
            world.handle.mail(late_id, "sub t".into()).unwrap();
            world.handle.publish("t", Message::text("4"));
            (0..60).for_each(|_| world.turn());
            for (at, raw) in raws.iter_mut().enumerate() {
                let all = vec!["1", "2", "3", "4"];
                assert_eq!(texts(raw), if at == who { expected.clone() } else { all }, "{change}, {who}, {at}");
            }
            assert_eq!(texts(&mut late), ["4"]);
            assert_eq!(raws[who].seen.closed, change.starts_with("close"));
            raws.iter().chain([&late]).for_each(|raw| raw.peer.close());
            (0..20).for_each(|_| world.turn());
            world.assert_quiet();
        }
    }
}

#[test]
fn what_is_published_before_a_close_arrives_before_it() {
    for config in [config(), sliced()] {
        let (mut world, mut raws) = audience(config, 8);
        raws[5].text("tell t 1;tell t 2;close 1000;unsub t");
        (0..40).for_each(|_| world.turn());
        assert!(raws.iter_mut().all(|raw| texts(raw) == ["1", "2"]));
        assert_eq!(raws[5].seen.close_code(), Some(1000));
    }
}

#[test]
fn limits_of_subscriptions_and_topics() {
    let mut limited = config();
    limited.limits.subscriptions = 2;
    limited.limits.topics = 3;
    let mut world = World::one(limited);
    let (mut a, mut b) = (world.open(1), world.open(2));
    a.text("sub 1;sub 2;sub 2;sub 3");
    world.settle();
    b.text("sub 3;sub 4;sub 1");
    world.settle();
    let notes: Vec<_> = world.events().into_iter().filter(|event| matches!(event, Event::Note(_))).collect();
    let note = |text: &str| Event::Note(text.into());
    assert_eq!(notes, [note("TooManySubscriptions"), note("TooManyTopics")]);
    assert_eq!(world.counters().subscribe_refused, 2);
    a.text("tell 1 x;tell 3 y;tell 4 z");
    world.settle();
    assert_eq!((texts(&mut a), texts(&mut b)), (vec!["x".to_owned()], vec!["x".to_owned(), "y".to_owned()]));
    a.text("unsub 2;sub 5");
    world.settle();
    assert_eq!(world.counters().topics, 3);
}

/// With `budgets.deliveries` a topic of any size takes a bounded part of each turn: a connection that is ready is read
/// in every turn, and between two reads no more subscribers than the budget says are served.
#[test]
fn a_topic_with_ten_thousand_subscribers_does_not_hold_up_the_others() {
    const SUBSCRIBERS: u32 = 10_000;
    const BUDGET: u32 = 500;
    let mut config = config();
    config.budgets.deliveries = BUDGET;
    config.driver.accepts_per_poll = 20_000;
    config.backlog = 20_000;
    let mut world = World::one(config);
    world.record.borrow_mut().silent = true;
    let request = crate::common::wire::request("/", "X-Open: sub t\r\n");
    let raws: Vec<_> = (0..SUBSCRIBERS).map(|_| world.connect()).collect();
    raws.iter().for_each(|raw| _ = raw.peer.send(&request));
    world.turn();
    world.turn();
    let echo = world.open(7);
    raws.iter().for_each(|raw| drop(raw.peer.take()));
    assert_eq!(world.counters().open, u64::from(SUBSCRIBERS) + 1);
    for _ in 0..3 {
        world.handle.publish("t", Message::text("news"));
    }
    let (mut turns, mut longest_gap, mut most_delivered) = (0, 0, 0);
    let (mut since, mut before) = (0, world.counters().messages_accepted);
    while world.counters().messages_sent < u64::from(SUBSCRIBERS) * 3 {
        let read = world.record.borrow().life(7).received.len();
        echo.text("queued"); // ready in every turn
        world.turn();
        turns += 1;
        since += 1;
        let delivered = world.counters().messages_accepted - before;
        if world.record.borrow().life(7).received.len() > read {
            longest_gap = longest_gap.max(since);
            since = 0;
            most_delivered = most_delivered.max(delivered);
            before = world.counters().messages_accepted;
        }
        assert!(turns < 1000);
    }
    assert_eq!(longest_gap, 1, "turns between two reads");
    // The budget counts sends: the burst of three is one joined frame per subscriber.
    assert!(most_delivered <= u64::from(BUDGET) * 3, "{most_delivered} deliveries between two reads");
    assert!(turns >= SUBSCRIBERS / BUDGET);
    assert!(raws.iter().all(|raw| raw.peer.received().len() == 18));
}

/// The walk has passed the one and not come to the other, whose place in the list changes when the first one leaves.
#[test]
fn two_that_close_at_once_in_the_middle_of_a_walk_get_what_they_are_owed() {
    let (mut world, mut raws) = audience(sliced(), 12);
    let first = world.record.borrow().ids[&1];
    world.handle.publish("t", Message::text("owed"));
    world.turn();
    assert_eq!((texts(&mut raws[0]).len(), texts(&mut raws[11]).len()), (1, 0));
    world.handle.mail(first, "to 12 close 1000;close 1000".into()).unwrap();
    world.settle();
    for raw in &mut raws {
        assert_eq!(texts(raw), ["owed"]);
    }
    assert_eq!((raws[0].seen.close_code(), raws[11].seen.close_code()), (Some(1000), Some(1000)));
}
