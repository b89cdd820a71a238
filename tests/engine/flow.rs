//! What waits for a slow peer: watermarks, policies, memory.
#![forbid(unsafe_code)]

use crate::common::script::Event;
use crate::common::wire;
use crate::common::world::*;
use wingbeat::engine::SlowConsumer;
use wingbeat::{Config, Message};

/// High mark 1,000 bytes, low mark 300, and a kernel that holds 200 bytes per socket.
fn tight(policy: SlowConsumer) -> Config {
    let mut config = config();
    config.limits.outbox_high = 1000;
    config.limits.outbox_low = 300;
    config.slow_consumer = policy;
    config
}

fn world(policy: SlowConsumer) -> World {
    let world = World::one(tight(policy));
    world.net.set_buffer(200);
    world
}

/// A stalled subscriber to which `count` messages of 100 bytes on the wire were published, one per turn.
fn behind(policy: SlowConsumer, count: usize) -> (World, Raw) {
    let mut world = world(policy);
    let raw = world.open_with(1, "sub t");
    raw.peer.stall(true);
    for i in 0..count {
        world.handle.publish("t", Message::text(&format!("{i:.<98}")));
        world.turn();
    }
    (world, raw)
}

fn numbers(raw: &Raw) -> Vec<usize> {
    raw.seen.texts().iter().map(|text| text.trim_end_matches('.').parse().unwrap()).collect()
}

#[test]
fn a_slow_subscriber_is_disconnected_by_default() {
    assert_eq!(Config::default().slow_consumer, SlowConsumer::Disconnect);
    // 2 are in the kernel, 10 wait: just the high mark.
    let (mut world, mut raw) = behind(SlowConsumer::Disconnect, 12);
    assert_eq!(world.counters().open, 1, "1,000 bytes are not above the high mark");
    world.handle.publish("t", Message::text("one more"));
    world.turn();
    assert_eq!((world.counters().open, world.closes(1013, "slow_consumer")), (0, 1));
    raw.peer.stall(false);
    world.settle();
    raw.read();
    // What was in flight arrives whole; then the Close comes at once.
    assert_eq!(raw.seen.close_code(), Some(1013));
    assert_eq!(numbers(&raw), (0..numbers(&raw).len()).collect::<Vec<_>>());
    raw.close(1013);
    world.settle();
    raw.peer.close();
    world.settle();
    world.assert_quiet();
    assert!(world.counters().messages_undelivered > 0 && world.counters().messages_dropped == 0);
}

#[test]
fn drop_newest_keeps_what_waits() {
    let (mut world, mut raw) = behind(SlowConsumer::DropNewest, 30);
    raw.peer.stall(false);
    world.settle();
    raw.read();
    assert_eq!(numbers(&raw), (0..12).collect::<Vec<_>>());
    assert_eq!((world.counters().messages_dropped, world.counters().open), (18, 1));
    world.handle.publish("t", Message::text("99"));
    world.settle();
    raw.read();
    assert_eq!(numbers(&raw).last(), Some(&99), "it gets what comes now");
    raw.peer.close();
    world.settle();
    world.assert_quiet();
}

#[test]
fn drop_oldest_keeps_what_comes() {
    let (mut world, mut raw) = behind(SlowConsumer::DropOldest, 30);
    raw.peer.stall(false);
    world.settle();
    raw.read();
    // The first 3 were in the kernel or in flight; of the others the newest 9 fit under the mark.
    let seen = numbers(&raw);
    let kept = seen.iter().copied().filter(|&number| number >= 18).count();
    assert_eq!(seen[seen.len() - kept..], (30 - kept..30).collect::<Vec<_>>()[..]);
    assert!(kept >= 8 && seen.len() <= 12, "{seen:?}");
    assert_eq!(world.counters().messages_dropped as usize, 30 - seen.len());
    raw.peer.close();
    world.settle();
    world.assert_quiet();
}

/// What is in flight may alone reach the high mark: what comes is still kept, or the peer would end up with old news.
#[test]
fn drop_oldest_keeps_the_newest_even_when_what_is_in_flight_fills_the_mark() {
    let mut world = world(SlowConsumer::DropOldest);
    let mut raw = world.open_with(1, "sub t");
    raw.peer.stall(true);
    for i in 0..12 {
        world.handle.publish("t", Message::text(&format!("{i:.<98}")));
    }
    world.turn(); // all of them in one batch
    for i in 12..30 {
        world.handle.publish("t", Message::text(&format!("{i:.<98}")));
        world.turn();
    }
    raw.peer.stall(false);
    world.settle();
    raw.read();
    assert_eq!(numbers(&raw).last(), Some(&29));
}

#[test]
fn policies_leave_replies_and_control_frames_alone() {
    for policy in [SlowConsumer::DropNewest, SlowConsumer::DropOldest] {
        let mut world = world(policy);
        let mut raw = world.open_with(1, "sub t");
        let id = world.record.borrow().ids[&1];
        raw.peer.stall(true);
        for i in 0..40 {
            world.handle.publish("t", Message::text(&format!("{i:.<98}")));
            if i % 4 == 0 {
                world.handle.mail(id, format!("say 1{i:02}{:.<50};ping {i}", "")).unwrap();
            }
            world.turn();
        }
        raw.peer.stall(false);
        world.settle();
        raw.read();
        let replies: Vec<_> = numbers(&raw).into_iter().filter(|&number| number >= 100).collect();
        assert_eq!(replies, (0..10).map(|i| 100 + 4 * i).collect::<Vec<_>>());
        assert_eq!(raw.seen.frames.iter().filter(|frame| frame.opcode == wire::PING).count(), 10);
        assert!(world.counters().messages_dropped > 0);
    }
}

#[test]
fn a_burst_to_a_reading_peer_is_not_judged() {
    let mut world = World::one(tight(SlowConsumer::Disconnect));
    let mut raw = world.open_with(1, "sub t");
    raw.text(&"tell t 0....................................................................;".repeat(200));
    world.settle();
    assert_eq!((raw.read().texts().len(), raw.seen.close_code()), (200, None));
}

#[test]
fn a_message_larger_than_the_mark_passes_into_an_empty_outbox() {
    for policy in [SlowConsumer::Disconnect, SlowConsumer::DropNewest, SlowConsumer::DropOldest] {
        let mut world = world(policy);
        let mut raw = world.open_with(1, "sub t");
        raw.peer.stall(true);
        world.handle.publish("t", Message::text(&"x".repeat(5000)));
        world.settle();
        raw.peer.stall(false);
        world.settle();
        world.pass(20);
        assert_eq!(raw.read().texts(), ["x".repeat(5000)]);
        assert_eq!((world.counters().open, world.counters().messages_dropped), (1, 0));
    }
}

#[test]
fn replies_above_the_high_mark_pause_receiving_until_below_the_low_mark() {
    let mut config = tight(SlowConsumer::Disconnect);
    config.driver.receive_buffer = 200;
    config.driver.receive_budget = 200;
    let mut world = World::one(config);
    world.net.set_buffer(200);
    let mut raw = world.open(1);
    raw.peer.stall(true);
    for i in 0..200 {
        raw.text(&format!("say {i:.<98}"));
    }
    (0..50).for_each(|_| world.turn());
    let read = world.record.borrow().life(1).received.len();
    // 200 bytes in the kernel, 1,000 to the mark, and what one more receive can hold.
    assert!((11..=16).contains(&read), "{read} messages were read");
    assert_eq!((world.counters().open, world.counters().messages_dropped), (1, 0), "replies are no reason to drop");
    raw.peer.stall(false);
    world.pass(400);
    raw.read();
    assert_eq!(numbers(&raw), (0..200).collect::<Vec<_>>());
    raw.peer.close();
    world.settle();
    world.assert_quiet();
}

/// Else each turn would hold a buffer for every connection, and find none of them in the cache when it sends.
#[test]
fn large_replies_leave_before_more_is_received() {
    let mut world = World::one(Config::default());
    world.net.set_buffer(1 << 20);
    let mut peers: Vec<_> = (0..20).map(|n| world.open(n)).collect();
    peers.iter_mut().for_each(|raw| raw.text("send 1 60000"));
    let before = world.counters().messages_sent;
    let mut turns = 0;
    while world.counters().messages_sent < before + 20 {
        let sent = world.counters().messages_sent;
        world.turn();
        let now = world.counters().messages_sent - sent;
        assert!(now <= 5, "{now} replies of 60,000 bytes waited for each other");
        turns += 1;
        assert!(turns < 100, "the others are forgotten");
    }
    assert!(turns >= 4);
    for raw in &mut peers {
        assert_eq!(raw.read().texts().len(), 1);
    }
}

/// Input is parsed on while a flush may still help; while a send is in flight none can.
#[test]
fn replies_to_one_large_receive_are_bounded_while_a_send_is_in_flight() {
    let mut world = world(SlowConsumer::Disconnect);
    world.net.set_buffer(1 << 20);
    let mut raw = world.open(1);
    world.net.set_buffer(200);
    raw.peer.stall(true);
    raw.text("send 1 500");
    world.settle();
    world.net.set_buffer(1 << 20);
    for _ in 0..1000 {
        raw.text("send 1 98");
    }
    world.net.set_buffer(200);
    world.settle();
    let read = world.record.borrow().life(1).received.len();
    assert!(read <= 20, "{read} messages were read");
    assert_eq!(world.counters().choked, 1);
    world.net.set_buffer(1 << 20);
    raw.peer.stall(false);
    world.settle();
    assert_eq!(raw.read().texts().len(), 1001);
}

#[test]
fn writable_is_called_once_below_the_low_mark() {
    let mut world = world(SlowConsumer::Disconnect);
    let mut raw = world.open(1);
    raw.peer.stall(true);
    raw.text("send 20 98");
    world.settle();
    assert!(!world.take_events().contains(&Event::Writable(1)));
    raw.peer.stall(false);
    world.settle();
    world.pass(50);
    assert_eq!(raw.read().texts().len(), 20);
    assert_eq!(world.take_events(), [Event::Writable(1)]);
    raw.text("send 3 98");
    world.settle();
    assert!(!world.events().contains(&Event::Writable(1)), "it was not above the high mark");
}

#[test]
fn above_the_mark_the_newest_ping_is_answered_alone() {
    let mut world = world(SlowConsumer::Disconnect);
    let mut raw = world.open(1);
    raw.peer.stall(true);
    let mut bytes = wire::masked(wire::TEXT, b"send 20 98");
    for i in 0..5 {
        bytes.extend(wire::masked(wire::PING, format!("{i}").as_bytes()));
    }
    world.net.set_buffer(4000);
    raw.peer.send(&bytes);
    world.net.set_buffer(200);
    world.settle();
    raw.peer.stall(false);
    world.settle();
    world.pass(50);
    let pongs: Vec<_> = raw.read().frames.iter().filter(|frame| frame.opcode == wire::PONG).collect();
    assert_eq!(pongs.iter().map(|frame| frame.text()).collect::<Vec<_>>(), ["4"]);
}

/// A pong that waits is not sent behind the Close.
#[test]
fn no_pong_follows_our_close() {
    for end in ["close 1000", "panic"] {
        let mut world = world(SlowConsumer::Disconnect);
        let mut raw = world.open(1);
        raw.peer.stall(true);
        world.net.set_buffer(4000);
        let mut bytes = wire::masked(wire::TEXT, b"send 20 98");
        bytes.extend(wire::masked(wire::PING, b"?"));
        bytes.extend(wire::masked(wire::TEXT, end.as_bytes()));
        raw.peer.send(&bytes);
        world.net.set_buffer(200);
        world.settle();
        raw.peer.stall(false);
        world.settle();
        raw.close(1000);
        world.pass(50);
        assert!(raw.read().closed && raw.peer.is_eof());
    }
    let mut world = world(SlowConsumer::Disconnect);
    let mut raw = world.open(1);
    raw.peer.stall(true);
    world.net.set_buffer(4000);
    let parts =
        [wire::masked(wire::TEXT, b"send 20 98"), wire::masked(wire::PING, b"?"), wire::masked(wire::CLOSE, b"")];
    raw.peer.send(&parts.concat());
    world.net.set_buffer(200);
    world.settle();
    raw.peer.stall(false);
    world.pass(50);
    assert!(raw.read().closed && raw.peer.is_eof());
}

/// The connection that holds most goes; the others keep what waits for them.
#[test]
fn at_the_memory_limit_the_worst_holder_is_dropped() {
    let mut config = config();
    config.limits.frame_bytes = 100_000;
    config.limits.outbox_high = 1 << 20;
    let mut world = World::one(config);
    world.net.set_buffer(200);
    let (mut small, mut large) = (world.open(1), world.open(2));
    small.peer.stall(true);
    large.peer.stall(true);
    small.text("send 2 5000");
    large.text("send 30 2000");
    world.settle();
    assert_eq!((world.counters().open, world.counters().evicted), (2, 0));
    small.text("send 2 12000");
    world.settle();
    assert_eq!((world.counters().open, world.counters().evicted), (1, 1));
    assert_eq!(world.closes(1013, "memory"), 1);
    world.net.set_buffer(1 << 20);
    small.peer.stall(false);
    world.settle();
    assert_eq!(small.read().texts().len(), 4);
    large.peer.stall(false);
    world.settle();
    assert!(large.read().texts().len() < 30);
}

/// Publications that nobody has taken yet cost no subscriber its connection: those beyond the limit are refused.
#[test]
fn publications_beyond_the_memory_limit_are_refused_and_evict_nobody() {
    let mut config = config();
    config.limits.frame_bytes = 60_000;
    config.limits.owed_bytes = 1 << 20; // not what is tested
    config.budgets.deliveries = 1;
    let mut world = World::one(config);
    let mut subscribers: Vec<_> = (1..=20).map(|key| world.open_with(key, "sub t")).collect();
    let mut idle = world.open(99);
    for _ in 0..8 {
        world.handle.publish("t", Message::text(&"x".repeat(9000)));
    }
    (0..400).for_each(|_| world.turn());
    idle.text("say here");
    world.settle();
    assert_eq!(idle.read().texts(), ["here"]);
    let refused = world.counters().publish_refused as usize;
    assert!((1..8).contains(&refused), "{refused} of 8 refused");
    assert!(subscribers.iter_mut().all(|raw| raw.read().texts().len() == 8 - refused));
    assert_eq!((world.counters().open, world.counters().evicted), (21, 0));
}

/// Who publishes faster than subscribers are served is not read until they have been.
#[test]
fn a_publisher_is_throttled_by_what_is_owed() {
    let mut config = config();
    config.limits.owed_bytes = 1000;
    config.budgets.deliveries = 1;
    let mut world = World::one(config);
    let mut subscribers: Vec<_> = (1..=5).map(|key| world.open_with(key, "sub t")).collect();
    let publisher = world.open(99);
    let op = format!("tell t {}", "x".repeat(200));
    (0..50).for_each(|_| publisher.text(&op));
    world.turn();
    world.turn();
    let received = world.record.borrow().life(99).received.len();
    assert!(received < 12, "{received} of 50 were read though nobody has got one");
    assert_eq!(world.counters().throttled, 1);
    (0..200).for_each(|_| world.turn());
    assert_eq!(world.record.borrow().life(99).received.len(), 50);
    assert!(subscribers.iter_mut().all(|raw| raw.read().texts().len() == 50));
}

/// What is owed may end without a walk: with its subscribers, or because they are sent something else.
#[test]
fn a_throttled_publisher_is_read_again_however_what_was_owed_ends() {
    for end in ["gone", "caught up"] {
        let mut config = config();
        config.limits.owed_bytes = 1000;
        config.budgets.deliveries = 1;
        let mut world = World::one(config);
        let subscribers: Vec<_> = (1..=5).map(|key| world.open_with(key, "sub t")).collect();
        let publisher = world.open(99);
        let op = format!("tell t {}", "x".repeat(200));
        (0..20).for_each(|_| publisher.text(&op));
        world.turn();
        assert_eq!(world.counters().throttled, 1);
        for raw in &subscribers {
            match end {
                "gone" => raw.peer.reset(),
                _ => raw.text("say here"),
            }
        }
        (0..200).for_each(|_| world.turn());
        assert_eq!(world.record.borrow().life(99).received.len(), 20, "{end}");
    }
}

/// A large reply that the peer is slow to take is no reason to apply the policy to the publications behind it.
#[test]
fn a_large_reply_in_flight_does_not_make_a_slow_consumer() {
    let mut world = world(SlowConsumer::Disconnect);
    let mut raw = world.open_with(1, "sub t");
    raw.peer.stall(true);
    raw.text("send 1 50000");
    world.turn();
    world.handle.publish("t", Message::text("news"));
    world.settle();
    assert_eq!(world.counters().open, 1);
    world.net.set_buffer(1 << 20);
    raw.peer.stall(false);
    world.settle();
    assert_eq!(raw.read().texts().last().map(|text| &text[..]), Some("news"));
}

/// A close while a send is in flight and publications are owed: the policy is not applied to one that is leaving.
#[test]
fn a_close_with_publications_owed_still_sends_its_close() {
    for end in ["close 1000", "peer", "violation", "eof"] {
        let mut config = tight(SlowConsumer::Disconnect);
        config.budgets.deliveries = 1;
        let mut world = World::one(config);
        world.net.set_buffer(200);
        let _first = world.open_with(1, "sub t");
        let mut raw = world.open_with(2, "sub t");
        let id = world.record.borrow().ids[&2];
        raw.peer.stall(true);
        world.handle.mail(id, "send 1 900".into()).unwrap();
        world.settle(); // in flight from here on
        // Owed, 1,500 bytes, when the close comes.
        let owing = (0..15).map(|i| format!("tell t {i:.<98}")).collect::<Vec<_>>().join(";");
        match end {
            "peer" => {
                raw.peer.send(&[wire::masked(wire::TEXT, owing.as_bytes()), wire::masked(wire::CLOSE, b"")].concat())
            }
            "violation" => raw.peer.send(&[wire::masked(wire::TEXT, owing.as_bytes()), vec![0xff, 0xff]].concat()),
            "eof" => {
                let sent = raw.peer.send(&wire::masked(wire::TEXT, owing.as_bytes()));
                raw.peer.shutdown();
                sent
            }
            _ => {
                world.handle.mail(id, format!("{owing};{end}")).unwrap();
                true
            }
        };
        (0..20).for_each(|_| world.turn());
        raw.peer.stall(false);
        world.pass(100);
        raw.read();
        assert!(!raw.peer.is_reset(), "{end}");
        assert_eq!(raw.seen.closed, end != "eof", "{end}");
        assert!(raw.seen.texts().len() <= 16);
    }
}
