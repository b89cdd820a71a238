//! Encoding classes: each publication is written once per class, and reaches its subscribers in order, by frames and by
//! callbacks.
#![forbid(unsafe_code)]

use crate::common::script::Event;
use crate::common::wire;
use crate::common::world::*;
use std::collections::BTreeSet;
use wingbeat::driver::{Driver, sim::Net};
use wingbeat::engine::{SlowConsumer, group};
use wingbeat::{Address, Conn, Handler, Message, Never, Request, Scope, Upgrade};

fn texts(raw: &mut Raw) -> Vec<String> {
    raw.read().frames.iter().filter(|frame| frame.opcode != wire::CLOSE).map(|frame| frame.text().to_owned()).collect()
}

/// Connections 1, 2, ... with a subscription of topic `t` in each of these classes.
fn audience(config: wingbeat::Config, classes: &[u8]) -> (World, Vec<Raw>) {
    let mut world = World::one(config);
    let raws = classes.iter().zip(1..).map(|(class, key)| world.open_with(key, &format!("subas {class} t"))).collect();
    (world, raws)
}

/// Callbacks so far: key and text.
fn deliveries(world: &World) -> Vec<(u32, String)> {
    let deliveries = world.events().into_iter().filter_map(|event| match event {
        Event::Delivery(key, topic, text) => {
            assert_eq!(topic, "t");
            Some((key, text))
        }
        _ => None,
    });
    deliveries.collect()
}

fn encoded(world: &World) -> Vec<(u8, String)> {
    std::mem::take(&mut world.record.borrow_mut().encoded)
}

/// Everybody leaves, and every message is accounted for.
fn finish(mut world: World, raws: &[Raw]) {
    raws.iter().for_each(|raw| raw.peer.close());
    world.settle();
    world.assert_quiet();
}

#[test]
fn each_class_gets_its_encoding_which_is_made_once() {
    let (mut world, mut raws) = audience(config(), &[0, 1, 2, 1, 2, 0, 1]);
    raws[0].text("tell t hello");
    world.settle();
    let all: Vec<_> = raws.iter_mut().map(|raw| texts(raw).join(" ")).collect();
    assert_eq!(all, ["hello", "1:t:hello", "2:t:hello", "1:t:hello", "2:t:hello", "hello", "1:t:hello"]);
    assert_eq!(encoded(&world), [(1, "hello".to_owned()), (2, "hello".to_owned())]);
    let kinds: Vec<_> = raws.iter().map(|raw| raw.seen.frames[0].opcode).collect();
    assert_eq!((kinds[1], kinds[2]), (wire::TEXT, wire::BINARY));
    // A class that nobody is left of is not encoded.
    for raw in [2, 4] {
        raws[raw].text("unsub t");
    }
    world.settle();
    raws[0].text("tell t again");
    world.settle();
    assert_eq!(encoded(&world), [(1, "again".to_owned())]);
    finish(world, &raws);
}

#[test]
fn a_burst_is_joined_per_class() {
    let (mut world, mut raws) = audience(config(), &[0, 1, 2, 0, 1, 2, 4]);
    let frames = world.counters().frames_live;
    raws[0].text("tell t a;tell t b;tell t c");
    world.settle();
    for (at, raw) in raws.iter_mut().enumerate() {
        let prefix = ["", "1:t:", "2:t:", "", "1:t:", "2:t:", "4:t:"][at];
        assert_eq!(texts(raw), ["a", "b", "c"].map(|text| format!("{prefix}{text}")));
    }
    assert_eq!(deliveries(&world), ["a", "b", "c"].map(|text| (7, text.to_owned())));
    assert_eq!(world.counters().frames_live, frames);
    finish(world, &raws);
}

#[test]
fn a_class_changes_behind_what_was_published_before() {
    let mut sliced = config();
    sliced.budgets.deliveries = 1;
    for config in [config(), sliced] {
        let (mut world, mut raws) = audience(config, &[1, 0, 1]);
        raws[2].text("tell t a;tell t b;subas 2 t;tell t c;sub t;tell t d;subas 3 t;tell t e;subas 1 t;tell t f");
        (0..40).for_each(|_| world.turn());
        assert_eq!(texts(&mut raws[2]), ["1:t:a", "1:t:b", "2:t:c", "d", "1:t:f"]);
        assert_eq!(texts(&mut raws[0]), ["a", "b", "c", "d", "e", "f"].map(|text| format!("1:t:{text}")));
        assert_eq!(texts(&mut raws[1]), ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(deliveries(&world), [(3, "e".to_owned())]);
        finish(world, &raws);
    }
}

/// In all slices of the walk: over two topics, frames come in publish order among themselves, and so do callbacks.
#[test]
fn frames_and_callbacks_keep_publish_order_each() {
    for budget in 1..8 {
        let mut config = config();
        config.budgets.deliveries = budget;
        let (mut world, mut raws) = audience(config, &[3, 1, 4, 3, 0]);
        raws.iter().for_each(|raw| raw.text("subas 1 u"));
        world.settle();
        raws[4].text("tell t a;tell u b;tell t c;tell u d;tell t e");
        (0..60).for_each(|_| world.turn());
        let mine =
            |world: &World, key| deliveries(world).into_iter().filter(move |(to, _)| *to == key).map(|(_, text)| text);
        for key in [1, 3, 4] {
            assert_eq!(mine(&world, key).collect::<Vec<_>>(), ["a", "c", "e"]);
        }
        assert_eq!(texts(&mut raws[0]), ["1:u:b", "1:u:d"]);
        assert_eq!(texts(&mut raws[2]), ["4:t:a", "1:u:b", "4:t:c", "1:u:d", "4:t:e"]);
        assert_eq!(deliveries(&world).len(), 9);
        finish(world, &raws);
    }
}

/// What a callback publishes and sends comes after it, and what it makes due is due later: it never runs within itself.
#[test]
fn a_callback_may_publish_to_its_own_topic() {
    let (mut world, mut raws) = audience(config(), &[3, 0]);
    raws[1].text("tell t !say 1,tell t two,say 3;tell t four");
    world.settle();
    let texts_of = |world: &World| deliveries(world).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!(texts_of(&world), ["!say 1,tell t two,say 3", "four", "two"]);
    assert_eq!(texts(&mut raws[0]), ["1", "3"]);
    assert_eq!(texts(&mut raws[1]), ["!say 1,tell t two,say 3", "four", "two"]);
    // One that feeds itself for ever costs a part of each turn, not all of it.
    raws[1].text("tell u !tell u !tell u !tell u x");
    raws[0].text("subas 3 u;tell u !tell u end,say y");
    world.settle();
    assert_eq!(texts(&mut raws[0]).last().map(String::as_str), Some("y"));
    finish(world, &raws);
}

#[test]
fn a_delivery_finds_a_connection_that_closes_meanwhile_gone() {
    let (mut world, mut raws) = audience(config(), &[3, 3, 3, 0]);
    raws[3].text("tell t !to 2 close 1000;tell t x");
    world.settle();
    let got = |key| deliveries(&world).into_iter().filter(|(to, _)| *to == key).count();
    assert_eq!((got(1), got(2), got(3)), (2, 0, 2));
    assert_eq!((raws[1].read().close_code(), world.counters().messages_undelivered), (Some(1000), 2));
    // The one for whom it is called closes itself.
    raws[3].text("tell t !close 1001;tell t y");
    world.settle();
    assert_eq!((raws[0].read().close_code(), raws[2].read().close_code()), (Some(1001), Some(1001)));
    assert_eq!(deliveries(&world).iter().filter(|(_, text)| text == "y").count(), 0);
    finish(world, &raws);
}

#[test]
fn a_panic_in_a_callback_closes_that_connection() {
    let (mut world, mut raws) = audience(config(), &[3, 3, 0]);
    raws[2].text("tell t !panic");
    world.settle();
    assert!(raws[..2].iter_mut().all(|raw| raw.read().close_code() == Some(1011)));
    finish(world, &raws);
}

#[test]
fn an_encoder_that_panics_loses_that_publication_for_its_class() {
    let (mut world, mut raws) = audience(config(), &[6, 0, 6, 1, 5]);
    raws[1].text("tell t bad;tell t good;tell t badly");
    world.settle();
    assert_eq!((texts(&mut raws[0]), texts(&mut raws[2])), (vec!["6:t:good".to_owned()], vec!["6:t:good".to_owned()]));
    assert_eq!(texts(&mut raws[1]), ["bad", "good", "badly"]);
    assert_eq!(texts(&mut raws[3]), ["1:t:bad", "1:t:good", "1:t:badly"]);
    assert_eq!(texts(&mut raws[4]), [""; 0]);
    let counters = world.counters();
    assert_eq!((counters.panics, counters.messages_dropped), (2, 4), "two publications, two subscribers each");
    finish(world, &raws);
}

#[test]
fn there_are_sixteen_classes() {
    let (mut world, mut raws) = audience(config(), &[15, 16, 255]);
    let notes: Vec<_> = world.events().into_iter().filter(|event| matches!(event, Event::Note(_))).collect();
    assert_eq!(notes, [Event::Note("NoSuchClass".into()), Event::Note("NoSuchClass".into())]);
    raws[0].text("tell t x");
    world.settle();
    assert_eq!(texts(&mut raws[0]), ["15:t:x"]);
    assert_eq!((world.counters().subscribe_refused, world.record.borrow().last_published.unwrap().local), (2, 1));
    finish(world, &raws);
}

/// Publications of other workers are encoded here, too, and the one that publishes may be left out.
#[test]
fn classes_across_workers() {
    let mut world = World::new(5, config(), 2);
    let mut raws: Vec<_> = (1..=12).map(|key| world.open_with(key, &format!("subas {} t", key % 4))).collect();
    raws[0].text("tellothers t x");
    world.settle();
    for (raw, key) in raws.iter_mut().zip(1u32..) {
        let expected: &[&str] = match key % 4 {
            _ if key == 1 => &[],
            0 => &["x"],
            1 => &["1:t:x"],
            2 => &["2:t:x"],
            _ => &[],
        };
        assert_eq!(texts(raw), expected, "{key}");
    }
    let called: Vec<_> = deliveries(&world).into_iter().map(|(key, _)| key).collect();
    assert_eq!(called.len(), 3);
    let ids = world.record.borrow().ids.clone();
    let classes: BTreeSet<_> =
        ids.iter().map(|(key, id)| (id.worker, key % 4)).filter(|(_, class)| *class > 0).collect();
    assert!(classes.len() > 3, "both workers have some");
    assert_eq!(encoded(&world).len(), classes.len(), "each class once on each worker that has it");
    finish(world, &raws);
}

#[test]
fn a_slow_consumer_meets_its_policy_in_every_class() {
    for policy in [SlowConsumer::DropNewest, SlowConsumer::DropOldest, SlowConsumer::Conflate] {
        let mut config = config();
        config.slow_consumer = policy;
        config.limits.outbox_high = 200;
        let (mut world, mut raws) = audience(config, &[1, 0]);
        world.net.set_buffer(50);
        raws[0].peer.stall(true);
        for round in 0..20 {
            raws[1].text(&format!("tell t number {round:02} {}", "x".repeat(40)));
            world.settle();
            raws[1].read();
        }
        assert!(world.counters().messages_dropped > 0, "{policy:?}");
        raws[0].peer.stall(false);
        world.settle();
        let got = texts(&mut raws[0]);
        assert!(got.len() < 20 && got.is_sorted() && got.iter().all(|text| text.starts_with("1:t:number")), "{got:?}");
        finish(world, &raws);
    }
}

/// Has no encoder.
struct Mute;

impl Handler for Mute {
    type State = ();
    type Mail = Never;
    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }
    fn open(&mut self, conn: &mut Conn<'_>, _: &mut ()) {
        conn.subscribe_as("t", 1).expect("within the limits");
    }
    fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
        conn.publish("t", message);
    }
}

#[test]
fn without_an_encoder_other_classes_get_nothing_and_it_is_counted() {
    let net = Net::new(1);
    let driver = net.driver(config().driver);
    let (mut seeds, handle) = group(&[driver.waker()], config());
    let mut worker = seeds.pop().unwrap().start_at(driver, Mute, net.now(), Some(1));
    let address: Address = worker.listen(&"127.0.0.1:4000".parse().unwrap()).unwrap();
    let peer = net.connect(&address).unwrap();
    peer.send(&wire::request("/", ""));
    (0..4).for_each(|_| worker.turn(net.now()).unwrap());
    peer.take();
    peer.send(&wire::masked(wire::TEXT, b"lost"));
    (0..4).for_each(|_| worker.turn(net.now()).unwrap());
    assert_eq!(peer.take(), b"");
    let counters = handle.metrics().counters;
    assert_eq!((counters.published, counters.messages_accepted, counters.messages_dropped), (1, 1, 1));
    assert_eq!((counters.panics, counters.frames_live), (0, 0));
}
