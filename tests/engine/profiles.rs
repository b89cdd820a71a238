//! Limits of one kind of connection, beside those of the worker.
#![forbid(unsafe_code)]

use crate::common::wire;
use crate::common::world::*;
use std::time::Duration;

/// A connection that was accepted with a profile: message bytes, milliseconds until it is idle, close code (0: pings).
fn open(world: &mut World, key: u32, profile: &str) -> Raw {
    let mut raw = world.connect();
    raw.peer.send(&wire::request("/profile", &format!("X-Key: {key}\r\nX-Profile: {profile}\r\n")));
    world.settle();
    assert_eq!(raw.read().status(), Some(101));
    raw
}

fn pings(raw: &mut Raw) -> usize {
    raw.read().frames.iter().filter(|frame| frame.opcode == wire::PING).count()
}

#[test]
fn a_silent_one_is_closed_with_its_code_and_not_pinged() {
    let mut config = config();
    config.limits.idle_timeout = Duration::from_millis(3000);
    let mut world = World::one(config);
    let mut raws = [open(&mut world, 1, "1000 600 1002"), open(&mut world, 2, "1000 600 0"), world.open(3)];
    world.pass(440);
    assert_eq!(raws.each_mut().map(pings), [0, 1, 0]);
    world.pass(140);
    assert_eq!(raws.each_mut().map(|raw| raw.read().close_code()), [None; 3]);
    world.pass(60);
    assert_eq!(raws.each_mut().map(|raw| raw.read().close_code()), [Some(1002), Some(1001), None]);
    assert_eq!((world.closes(1002, "idle"), world.closes(1001, "idle")), (1, 1));
    assert_eq!(raws.each_mut().map(pings), [0, 1, 0]);
    world.pass(1500);
    assert_eq!(raws.each_mut().map(pings), [0, 1, 1], "the others have the limits of the worker");
}

#[test]
fn whatever_comes_in_counts_as_life() {
    let mut world = World::one(config());
    let mut raw = open(&mut world, 1, "1000 600 1002");
    for round in 0..6 {
        world.pass(560);
        match round % 3 {
            0 => raw.text("nothing"),
            1 => _ = raw.peer.send(&wire::masked(wire::PING, b"")),
            _ => _ = raw.peer.send(&wire::masked(wire::PONG, b"")),
        }
        world.settle();
    }
    world.pass(560);
    assert_eq!(raw.read().close_code(), None);
    world.pass(80);
    assert_eq!((raw.read().close_code(), pings(&mut raw)), (Some(1002), 0));
}

/// What came in while the process stood still is read before the silence is judged.
#[test]
fn a_jump_of_the_clock_does_not_close_one_that_spoke() {
    let mut world = World::one(config());
    let mut raws = [open(&mut world, 1, "1000 600 1002"), open(&mut world, 2, "1000 600 1002")];
    raws[0].text("nothing");
    world.net.advance(Duration::from_secs(100));
    world.settle();
    assert_eq!(raws.each_mut().map(|raw| raw.read().close_code()), [None, Some(1002)]);
}

#[test]
fn one_without_a_timeout_stays_and_one_that_is_paused_is_not_idle() {
    let mut config = config();
    config.limits.idle_timeout = Duration::from_millis(300);
    let mut world = World::one(config);
    let mut raws = [open(&mut world, 1, "1000 0 1002"), open(&mut world, 2, "1000 600 1002")];
    raws[1].text("pause");
    world.pass(3000);
    assert_eq!(raws.each_mut().map(|raw| (pings(raw), raw.read().close_code())), [(0, None); 2]);
}

#[test]
fn each_profile_has_its_own_message_limit() {
    let mut config = config();
    config.limits.message_bytes = 30;
    let mut world = World::one(config);
    let mut raws = [open(&mut world, 1, "20 600 1002"), world.open(2), open(&mut world, 3, "40 600 1002")];
    for (len, expected) in [
        (20, [None, None, None]),
        (21, [Some(1009), None, None]),
        (31, [Some(1009), Some(1009), None]),
        (41, [Some(1009), Some(1009), Some(1009)]),
    ] {
        for raw in &raws {
            raw.text(&"x".repeat(len));
        }
        world.settle();
        assert_eq!(raws.each_mut().map(|raw| raw.read().close_code()), expected, "{len} bytes");
    }
}

/// A slot that is used again has the limits of its new connection.
#[test]
fn a_profile_goes_with_its_connection() {
    let mut world = World::one(config());
    let raw = open(&mut world, 1, "20 600 1002");
    raw.peer.close();
    world.settle();
    let mut raw = world.open(2);
    raw.text(&"x".repeat(100));
    world.pass(1000);
    assert_eq!(raw.read().close_code(), None);
}
