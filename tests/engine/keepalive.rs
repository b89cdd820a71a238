//! What silence means.
#![forbid(unsafe_code)]

use crate::common::wire;
use crate::common::world::*;
use std::time::Duration;
use wingbeat::Config;
use wingbeat::engine::Drain;

fn idle() -> Config {
    let mut config = config();
    config.limits.idle_timeout = Duration::from_millis(600);
    config
}

fn pings(raw: &mut Raw) -> usize {
    raw.read().frames.iter().filter(|frame| frame.opcode == wire::PING).count()
}

#[test]
fn a_silent_peer_is_pinged_at_two_thirds_and_closed_at_the_end() {
    let mut world = World::one(idle());
    let mut raw = world.open(1);
    world.pass(380);
    assert_eq!(pings(&mut raw), 0);
    world.pass(60);
    assert_eq!(pings(&mut raw), 1);
    world.pass(140);
    assert_eq!((pings(&mut raw), raw.seen.close_code()), (1, None));
    world.pass(60);
    assert_eq!(raw.read().close_code(), Some(1001));
    assert_eq!(world.closes(1001, "idle"), 1);
}

#[test]
fn a_pong_or_any_byte_counts_as_life() {
    let mut world = World::one(idle());
    let mut raw = world.open(1);
    for round in 1..=5 {
        world.pass(440);
        assert_eq!((pings(&mut raw), raw.seen.close_code()), (round, None));
        match round % 2 {
            0 => raw.peer.send(&wire::masked(wire::PONG, b"")),
            _ => raw.peer.send(&[0x8a]), // a byte of a pong; the rest follows
        };
        world.settle();
        if round % 2 == 1 {
            raw.peer.send(&wire::masked(wire::PONG, b"")[1..]);
            world.settle();
        }
    }
}

/// A socket rests once its peer has said nothing but pings and pongs between two of ours, and until it says more.
#[test]
fn who_only_answers_pings_rests_until_it_speaks() {
    let says: [(&[u8], bool); 5] = [
        (&wire::masked(wire::PONG, b"by itself"), false),
        (&wire::masked(wire::TEXT, b"nothing"), true),
        (&wire::masked(wire::PING, b""), false), // answered from where it rests
        (&wire::frame(wire::TEXT, false, b"part", Some([0; 4])), true),
        (&wire::masked(wire::TEXT, b"nothing")[..4], false), // not a frame yet
    ];
    for (words, speaks) in says {
        let mut world = World::one(idle());
        let (mut raw, mut other) = (world.open(1), world.open(2));
        let pong = |raw: &mut Raw| {
            let answered = raw.seen.frames.len();
            raw.read().frames[answered..].iter().filter(|frame| frame.opcode == wire::PING).count() == 1
                && raw.peer.send(&wire::masked(wire::PONG, b""))
        };
        for round in 0..4 {
            world.pass(440);
            assert!(pong(&mut raw) && pong(&mut other));
            world.settle();
            // The first ping finds out; and pongs, which are life, are no reason to wake.
            assert_eq!(world.workers[0].driver().resting(), if round == 0 { 0 } else { 2 });
        }
        raw.peer.send(words);
        world.settle();
        assert_eq!(world.workers[0].driver().resting(), if speaks { 1 } else { 2 });
    }
}

#[test]
fn without_pings_the_silent_rest_too() {
    for idle_timeout in [Duration::ZERO, Duration::from_millis(400)] {
        let mut config = config();
        config.limits.stall_timeout = Duration::from_millis(250);
        let mut world = World::one(config);
        let mut raw = world.connect();
        let profile = format!("1000 {} 1002", idle_timeout.as_millis());
        raw.peer.send(&wire::request("/profile", &format!("X-Key: 1\r\nX-Profile: {profile}\r\n")));
        world.settle();
        assert_eq!(raw.read().status(), Some(101));
        world.pass(200);
        assert_eq!(world.workers[0].driver().resting(), 0);
        world.pass(100);
        assert_eq!(world.workers[0].driver().resting(), 1, "{idle_timeout:?}");
        raw.text("nothing");
        world.settle();
        assert_eq!((world.workers[0].driver().resting(), world.counters().open), (0, 1));
    }
}

#[test]
fn what_we_send_is_no_sign_of_life() {
    let mut world = World::one(idle());
    let mut raw = world.open(1);
    let id = world.record.borrow().ids[&1];
    for _ in 0..8 {
        world.pass(80);
        world.handle.send(id, wingbeat::Message::text("news")).unwrap();
    }
    world.settle();
    assert_eq!(raw.read().close_code(), Some(1001));
}

/// After a jump of the clock (a stopped process, a suspended machine) nobody is dropped who was not asked.
#[test]
fn a_jump_of_the_clock_pings_before_it_closes() {
    let mut world = World::one(idle());
    let mut raw = world.open(1);
    world.net.advance(Duration::from_secs(100));
    world.settle();
    assert_eq!((pings(&mut raw), raw.seen.close_code()), (1, None));
    world.pass(180);
    assert_eq!(raw.read().close_code(), None, "a third of the timeout is left to answer");
    world.pass(60);
    assert_eq!(raw.read().close_code(), Some(1001));
}

#[test]
fn a_paused_peer_is_not_idle() {
    let mut world = World::one(idle());
    let mut raw = world.open(1);
    raw.text("pause");
    world.pass(2000);
    assert_eq!((pings(&mut raw), raw.read().close_code()), (0, None));
}

#[test]
fn keepalive_can_be_off() {
    let mut config = idle();
    config.limits.idle_timeout = Duration::ZERO;
    let mut world = World::one(config);
    let mut raw = world.open(1);
    world.pass(3000);
    assert_eq!(raw.read().frames, []);
    assert_eq!(world.counters().open, 1);
}

/// A peer that takes nothing: noticed within twice the stall timeout, however long the idle timeout is.
#[test]
fn a_peer_that_takes_nothing_is_dropped_after_the_stall_timeout() {
    for idle_timeout in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3600)] {
        let mut config = config();
        config.limits.idle_timeout = idle_timeout;
        config.limits.stall_timeout = Duration::from_millis(300);
        config.limits.close_timeout = Duration::from_millis(100);
        let mut world = World::one(config);
        world.net.set_buffer(100);
        let raw = world.open(1);
        raw.peer.stall(true);
        raw.text("send 1 500");
        world.pass(280);
        assert_eq!(world.counters().open, 1);
        world.pass(400);
        assert_eq!((world.closes(1013, "stalled"), world.counters().open), (1, 0), "{idle_timeout:?}");
        world.pass(150);
        world.assert_quiet();
    }
}

/// One that takes a little now and then is slow, not stalled.
#[test]
fn a_slow_peer_is_not_stalled() {
    let mut config = config();
    config.limits.idle_timeout = Duration::ZERO;
    config.limits.stall_timeout = Duration::from_millis(300);
    config.limits.outbox_high = 100;
    let mut world = World::one(config);
    world.net.set_buffer(1000);
    let mut raw = world.open(1);
    raw.peer.stall(true);
    raw.text("send 100 200");
    for _ in 0..30 {
        world.pass(100);
        raw.peer.stall(false);
        world.turn();
        raw.peer.stall(true);
    }
    assert_eq!((world.counters().open, world.closes(1013, "stalled")), (1, 0));
    raw.peer.stall(false);
    world.settle();
    world.pass(100);
    assert_eq!(raw.read().texts().len(), 100);
}

/// One batch may take a peer much longer than the stall timeout, and the rest of it longer than the close timeout: it is
/// slow, not gone.
#[test]
fn a_peer_that_takes_a_batch_in_small_parts_is_not_dropped() {
    let mut config = config();
    config.limits.idle_timeout = Duration::ZERO;
    config.limits.stall_timeout = Duration::from_millis(100);
    config.limits.close_timeout = Duration::from_millis(100);
    let mut world = World::one(config);
    world.net.set_buffer(100);
    let mut raw = world.open(1);
    let mut slowly = |world: &mut World, rounds: usize| {
        for _ in 0..rounds {
            raw.peer.stall(true);
            world.pass(60);
            raw.peer.stall(false);
            world.turn();
            raw.peer.stall(true);
        }
        raw.read().frames.len()
    };
    let id = world.record.borrow().ids[&1];
    world.handle.mail(id, "send 1 3000".into()).unwrap();
    assert_eq!(slowly(&mut world, 12), 0, "it is one batch");
    assert_eq!((world.counters().open, world.closes(1013, "stalled")), (1, 0));
    world.handle.disconnect(id, wingbeat::CloseCode::NORMAL, "").unwrap();
    assert_eq!(slowly(&mut world, 24), 2, "the message, then the Close");
    assert_eq!((raw.seen.close_code(), raw.peer.is_reset()), (Some(1000), false));
}

/// "Never" is a time like any other, and no short one.
#[test]
fn the_longest_times_there_are_mean_never() {
    let mut config = config();
    config.limits.idle_timeout = Duration::MAX;
    config.limits.stall_timeout = Duration::MAX;
    config.limits.close_timeout = Duration::MAX;
    config.limits.handshake_timeout = Duration::MAX;
    let mut world = World::one(config);
    world.net.set_buffer(200);
    let (mut silent, mut stalled, closing, opening) = (world.open(1), world.open(2), world.open(3), world.connect());
    stalled.peer.stall(true);
    stalled.text("send 1 500");
    closing.text("close 1000");
    world.settle();
    // Longer than the wheel's horizon of 65 s, so that every deadline is looked at several times.
    for _ in 0..10 {
        world.net.advance(Duration::from_secs(60));
        world.settle();
    }
    assert_eq!((pings(&mut silent), world.counters().open), (0, 2));
    assert_eq!(world.workers[0].sockets(), 4);
    stalled.peer.stall(false);
    world.settle();
    world.pass(20);
    assert_eq!(stalled.read().texts().len(), 1);
    let day = Duration::from_secs(86_400);
    let far = Drain { deadline: Duration::MAX, interval: day, batch: 1, ..Drain::default() };
    world.handle.drain(far);
    world.net.advance(Duration::from_secs(3600));
    world.settle();
    assert_eq!(world.counters().open, 1, "one batch; the next is due in a day");
    drop(opening);
}

/// A stall timeout beyond the wheel's horizon is not cut to it.
#[test]
fn a_long_stall_timeout_is_kept() {
    let mut config = config();
    config.limits.idle_timeout = Duration::ZERO;
    config.limits.stall_timeout = Duration::from_secs(200);
    let mut world = World::one(config);
    world.net.set_buffer(100);
    let raw = world.open(1);
    raw.peer.stall(true);
    raw.text("send 1 500");
    world.settle();
    for _ in 0..19 {
        world.net.advance(Duration::from_secs(10));
        world.settle();
    }
    assert_eq!(world.counters().open, 1);
    for _ in 0..22 {
        world.net.advance(Duration::from_secs(10));
        world.settle();
    }
    assert_eq!((world.closes(1013, "stalled"), world.counters().open), (1, 0));
}
