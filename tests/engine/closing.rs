//! The closing handshake, from either side, and connections that end without one.
#![forbid(unsafe_code)]

use crate::common::script::Event;
use crate::common::wire;
use crate::common::world::*;
use std::time::Duration;
use wingbeat::CloseCode;
use wingbeat::engine::{CloseCause, CloseReason};

fn reason(code: u16, cause: CloseCause) -> CloseReason {
    CloseReason { code, cause }
}

#[test]
fn the_peer_starts_and_its_code_comes_back() {
    for (payload, answered, reported) in [
        (wire::close_payload(1000, "bye"), 1000, 1000),
        (wire::close_payload(4321, ""), 4321, 4321),
        (Vec::new(), 1005, 1005),
    ] {
        let mut world = World::one(config());
        let mut raw = world.open(1);
        raw.text("say last");
        raw.peer.send(&wire::masked(wire::CLOSE, &payload));
        raw.text("say too late");
        world.settle();
        assert_eq!(raw.read().texts(), ["last"]);
        assert_eq!(raw.seen.close_code(), Some(answered));
        assert!(raw.peer.is_eof() && !raw.peer.is_reset(), "the server closes first, without RST");
        assert!(world.events().contains(&Event::Close(1, reason(reported, CloseCause::Peer))));
        assert_eq!(world.closes(reported, "peer"), 1);
        raw.peer.close();
        world.settle();
        world.assert_quiet();
    }
}

#[test]
fn the_handler_starts_and_nothing_is_received_or_sent_after_its_close() {
    let mut world = World::one(config());
    let mut raw = world.open(1);
    raw.text("sub t;say before;close 4000 enough;say after;tell t after");
    raw.text("say later");
    world.settle();
    assert_eq!(raw.read().texts()[0], "before");
    assert!(!raw.seen.texts().contains(&"after") || raw.seen.texts() == ["before", "after"]);
    assert_eq!(raw.seen.frames.last().unwrap().payload, wire::close_payload(4000, "enough"));
    assert!(!raw.peer.is_eof(), "it waits for the peer's Close");
    assert_eq!(world.record.borrow().life(1).received.len(), 1);
    raw.peer.send(&wire::masked(wire::PING, b"?"));
    world.settle();
    raw.close(4000);
    world.settle();
    raw.read();
    assert!(raw.peer.is_eof() && !raw.peer.is_reset());
    raw.peer.close();
    world.settle();
    world.assert_quiet();
    let closes = world.events().iter().filter(|event| matches!(event, Event::Close(..))).count();
    assert_eq!((closes, world.closes(4000, "local")), (1, 1));
}

#[test]
fn both_sides_start_at_once() {
    let mut world = World::one(config());
    let mut raw = world.open(1);
    let id = world.record.borrow().ids[&1];
    world.handle.disconnect(id, CloseCode::GOING_AWAY, "moved").unwrap();
    raw.close(1000); // arrives in the very turn in which the disconnect is taken
    world.settle();
    assert_eq!(raw.read().frames.iter().filter(|frame| frame.opcode == wire::CLOSE).count(), 1);
    assert!(raw.peer.is_eof() && !raw.peer.is_reset());
    raw.peer.close();
    world.settle();
    world.assert_quiet();

    let mut world = World::one(config());
    let mut raw = world.open(1);
    raw.text("close 1001");
    raw.close(1000);
    world.settle();
    assert_eq!((raw.read().close_code(), raw.peer.is_eof()), (Some(1001), true));
    raw.peer.close();
    world.settle();
    world.assert_quiet();
}

#[test]
fn a_disconnect_from_outside_is_told_apart() {
    let mut world = World::one(config());
    let mut raw = world.open(1);
    let id = world.record.borrow().ids[&1];
    world.handle.disconnect(id, CloseCode::GOING_AWAY, "moved").unwrap();
    world.settle();
    assert_eq!(raw.read().frames.last().unwrap().payload, wire::close_payload(1001, "moved"));
    assert_eq!(world.closes(1001, "remote"), 1);
}

#[test]
fn a_peer_that_does_not_answer_our_close_is_dropped_at_the_deadline() {
    let mut config = config();
    config.limits.close_timeout = Duration::from_millis(200);
    let mut world = World::one(config);
    let mut raw = world.open(1);
    raw.text("close 1000");
    world.pass(180);
    assert_eq!((raw.read().close_code(), world.workers[0].sockets()), (Some(1000), 1));
    world.pass(40);
    assert_eq!(world.workers[0].sockets(), 0);
    world.assert_quiet();
}

#[test]
fn a_peer_that_answers_but_does_not_close_is_dropped_at_the_deadline() {
    let mut config = config();
    config.limits.close_timeout = Duration::from_millis(200);
    let mut world = World::one(config);
    let raw = world.open(1);
    raw.close(1000);
    world.pass(180);
    assert_eq!(world.workers[0].sockets(), 1, "it waits for the peer's FIN");
    world.pass(60);
    world.assert_quiet();
}

#[test]
fn a_broken_rule_is_answered_with_its_code_and_a_fin() {
    let text = |payload: &[u8]| wire::masked(wire::TEXT, payload);
    for (bytes, code) in [
        (wire::frame(wire::TEXT, true, b"unmasked", None), 1002),
        (vec![0xc1, 0x80, 0, 0, 0, 0], 1002),
        (wire::masked(3, b""), 1002),
        (wire::frame(wire::PING, false, b"", Some([0; 4])), 1002),
        (wire::masked(wire::CONTINUATION, b""), 1002),
        (wire::masked(wire::PING, &[0; 126]), 1002),
        (wire::masked(wire::CLOSE, b"x"), 1002),
        (wire::masked(wire::CLOSE, &wire::close_payload(1006, "")), 1002),
        (wire::masked(wire::CLOSE, &[3, 232, 0xff]), 1007),
        (text(&[0xff]), 1007),
    ] {
        let mut world = World::one(config());
        let mut raw = world.open(1);
        raw.text("say before");
        raw.peer.send(&bytes);
        raw.peer.send(&[0x5a; 3000]); // unread input must not turn into an RST that overtakes the Close
        world.settle();
        assert_eq!(raw.read().texts(), ["before"]);
        assert_eq!(raw.seen.close_code(), Some(code), "{bytes:?}");
        assert!(raw.peer.is_eof() && !raw.peer.is_reset());
        assert_eq!((world.workers[0].sockets(), world.closes(code, "protocol")), (1, 1));
        raw.peer.close();
        world.settle();
        world.assert_quiet();
    }
}

#[test]
fn the_message_limit_is_exact() {
    let mut limited = config();
    limited.limits.message_bytes = 1000;
    for cut in [false, true] {
        for (len, code) in [(1000, None), (1001, Some(1009))] {
            let mut world = World::one(limited);
            let mut raw = world.open(1);
            let payload = format!("{:.<len$}", "say ");
            if cut {
                let (one, two) = payload.as_bytes().split_at(500);
                raw.peer.send(&wire::frame(wire::TEXT, false, one, Some([1, 2, 3, 4])));
                raw.peer.send(&wire::frame(wire::CONTINUATION, true, two, Some([4, 3, 2, 1])));
            } else {
                raw.text(&payload);
            }
            world.settle();
            assert_eq!(raw.read().close_code(), code);
            assert_eq!(raw.seen.texts().len(), usize::from(code.is_none()));
        }
    }
}

#[test]
fn too_many_small_fragments_are_1008() {
    let mut limited = config();
    limited.limits.fragments_free = 4;
    limited.limits.fragment_bytes_min = 10;
    let fragments = |world: &mut World, bytes: usize| {
        let mut raw = world.open(1);
        for i in 0..8 {
            let opcode = if i == 0 { wire::BINARY } else { wire::CONTINUATION };
            raw.peer.send(&wire::frame(opcode, i == 7, &vec![b'x'; bytes], Some([9; 4])));
        }
        world.settle();
        raw.read().close_code()
    };
    assert_eq!(fragments(&mut World::one(limited), 10), None);
    assert_eq!(fragments(&mut World::one(limited), 9), Some(1008));
}

#[test]
fn data_before_a_half_close_is_answered() {
    let mut world = World::one(config());
    let mut raw = world.open(1);
    raw.text("say answer");
    raw.peer.shutdown();
    world.settle();
    assert_eq!(raw.read().texts(), ["answer"]);
    assert!(raw.peer.is_eof() && !raw.peer.is_reset());
    world.settle();
    world.assert_quiet();
    assert!(world.events().contains(&Event::Close(1, reason(1006, CloseCause::Lost))));
}

#[test]
fn input_that_waits_while_paused_is_read_before_the_end() {
    let mut world = World::one(config());
    let mut raw = world.open(1);
    raw.text("pause;after 100 resume");
    raw.text("say one");
    world.settle();
    raw.text("say two");
    raw.peer.shutdown();
    world.pass(60);
    assert_eq!(raw.read().texts(), Vec::<&str>::new());
    world.pass(60);
    assert_eq!(raw.read().texts(), ["one", "two"]);
    world.assert_quiet();
}

/// The end of the stream was seen while input waited; then the handler closed: nothing else would come to end it.
#[test]
fn a_paused_connection_whose_peer_is_gone_ends_at_once_when_closed() {
    let mut world = World::one(config());
    let mut raw = world.open(1);
    let two = [wire::masked(wire::TEXT, b"pause"), wire::masked(wire::TEXT, b"say never")].concat();
    raw.peer.send(&two);
    raw.peer.shutdown();
    world.settle();
    let id = world.record.borrow().ids[&1];
    world.handle.disconnect(id, CloseCode::NORMAL, "").unwrap();
    world.settle();
    assert_eq!((raw.read().close_code(), world.workers[0].sockets()), (Some(1000), 0));
    assert_eq!(world.record.borrow().life(1).received, ["pause"]);
    world.assert_quiet();
}

#[test]
fn a_panic_closes_its_connection_alone() {
    let mut world = World::one(config());
    let (mut raw, mut other) = (world.open(1), world.open(2));
    raw.text("say before;panic");
    raw.text("say after");
    world.settle();
    raw.read();
    assert_eq!((raw.seen.texts(), raw.seen.close_code()), (vec!["before"], Some(1011)));
    other.text("say alive");
    world.settle();
    assert_eq!(other.read().texts(), ["alive"]);
    assert_eq!((world.counters().panics, world.closes(1011, "panic")), (1, 1));
    assert!(world.events().contains(&Event::Close(1, reason(1011, CloseCause::Panic))));
}

#[test]
fn a_reset_tells_the_handler_once() {
    let mut world = World::one(config());
    let raw = world.open(1);
    raw.peer.reset();
    world.settle();
    world.assert_quiet();
    let lost = reason(1006, CloseCause::Failed(std::io::ErrorKind::ConnectionReset));
    assert_eq!(world.events().iter().filter(|event| **event == Event::Close(1, lost)).count(), 1);
}

#[test]
fn a_reason_is_cut_to_what_a_close_holds() {
    let mut world = World::one(config());
    let mut raw = world.open(1);
    raw.text(&format!("close 1000 {}é", "x".repeat(122)));
    world.settle();
    let payload = &raw.read().frames.last().unwrap().payload;
    assert_eq!(payload, &wire::close_payload(1000, &"x".repeat(122)));
}

/// In an event loop of one's own nothing else would wake the worker for it.
#[test]
fn a_socket_to_be_closed_is_work() {
    let mut world = World::one(config());
    let raw = world.open(1);
    let now = world.net.now();
    assert!(world.workers[0].next_timeout(now).is_some_and(|wait| !wait.is_zero()));
    raw.peer.reset();
    world.turn();
    assert_eq!(world.workers[0].next_timeout(now), Some(Duration::ZERO));
    world.turn();
    world.assert_quiet();
    assert_eq!(world.workers[0].next_timeout(now), None);
}
