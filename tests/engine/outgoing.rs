//! The client role.
#![forbid(unsafe_code)]

use crate::common::script::Event;
use crate::common::wire::{self, Decoder};
use crate::common::world::*;
use std::sync::Arc;
use std::time::Duration;
use wingbeat::driver::sim::PeerListener;
use wingbeat::engine::{ConnectError, Drain, Reconnect, SlowConsumer, Target};
use wingbeat::proto::handshake::client::RequestHead;
use wingbeat::{Address, CloseCode, Message};

struct Server {
    listener: PeerListener,
}

impl Server {
    fn new(world: &World) -> Server {
        Server { listener: world.net.listen(&"127.0.0.1:0".parse::<Address>().unwrap()).unwrap() }
    }

    fn target(&self, reconnect: Option<Reconnect>) -> Arc<Target> {
        let mut head = RequestHead::new("sim", "/").unwrap();
        head.protocol("chat").unwrap();
        Arc::new(Target { address: self.listener.address(), head, source: None, reconnect })
    }

    /// Takes the connection that comes, and its request.
    fn accept(&self, world: &mut World) -> Option<Raw> {
        world.settle();
        let peer = self.listener.accept()?;
        world.settle();
        let mut raw = Raw { peer, seen: Decoder::of_client() };
        raw.read();
        Some(raw)
    }
}

fn accept_head(request: &str) -> Vec<u8> {
    let key = request.split("Sec-WebSocket-Key: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a key");
    let accept = wingbeat::proto::handshake::accept_key(key.as_bytes());
    let accept = std::str::from_utf8(&accept).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

fn dial(world: &mut World, target: &Arc<Target>, token: u64) {
    world.workers[0].with(|_, scope| scope.connect(target, token));
}

/// An outgoing connection with key 1 that stands.
fn standing(world: &mut World, server: &Server, reconnect: Option<Reconnect>) -> Raw {
    dial(world, &server.target(reconnect), 1);
    let raw = server.accept(world).unwrap();
    raw.peer.send(&accept_head(raw.seen.head.as_ref().unwrap()));
    world.settle();
    raw
}

fn say(peer: &Raw, text: &str) {
    peer.peer.send(&wire::frame(wire::TEXT, true, text.as_bytes(), None));
}

#[test]
fn every_frame_is_masked_with_a_key_of_its_own() {
    let mut world = World::one(config());
    let server = Server::new(&world);
    let mut raw = standing(&mut world, &server, None);
    assert_eq!(world.take_events()[..3], [Event::Connected(1), Event::Note("protocol chat".into()), Event::Open(1)]);
    say(&raw, "sub t;send 50 20;ping x;with hello;tell t 1;tell t 2;tell t 3");
    let mut other = world.open_with(2, "sub t");
    world.handle.publish("t", Message::text("4"));
    world.handle.publish("t", Message::binary(b"5"));
    world.settle();
    let texts = raw.read().texts();
    assert_eq!(texts[50..], ["hello", "1", "2", "3", "4", "5"]);
    assert_eq!(raw.seen.messages().last().unwrap().opcode, wire::BINARY);
    assert!(raw.seen.keys_repeated == 0 && raw.seen.frames.len() == 57);
    assert_eq!(other.read().texts(), ["4", "5"], "what is shared with others is not masked");
    raw.peer.send(&wire::frame(wire::CLOSE, true, &wire::close_payload(1000, ""), None));
    world.settle();
    assert_eq!(raw.read().close_code(), Some(1000));
    assert!(!raw.peer.is_eof(), "the server closes first");
    raw.peer.close();
    other.peer.close();
    world.settle();
    world.assert_quiet();
}

#[test]
fn what_is_masked_is_conflated_too() {
    let mut config = config();
    config.limits.outbox_high = 1000;
    config.limits.outbox_low = 300;
    config.slow_consumer = SlowConsumer::Conflate;
    let mut world = World::one(config);
    let server = Server::new(&world);
    world.net.set_buffer(400); // the handshake fits
    let mut raw = standing(&mut world, &server, None);
    say(&raw, "sub t");
    world.settle();
    raw.peer.stall(true);
    for i in 0..30 {
        world.handle.publish_keyed("t", i % 2, Message::text(&format!("{i:.<98}")));
        world.turn();
    }
    assert_eq!(world.counters().open, 1, "what is left of two keys is below the mark");
    raw.peer.stall(false);
    world.settle();
    let texts: Vec<_> = raw.read().texts().iter().map(|text| text.trim_end_matches('.').to_owned()).collect();
    assert_eq!(texts[texts.len() - 2..], ["28", "29"]);
    assert_eq!(world.counters().messages_dropped as usize, 30 - texts.len());
    assert!(texts.len() < 30, "nothing was superseded: the mark was not reached");
}

#[test]
fn frames_that_come_with_the_answer_are_read() {
    let mut world = World::one(config());
    let server = Server::new(&world);
    dial(&mut world, &server.target(None), 1);
    let mut raw = server.accept(&mut world).unwrap();
    let mut bytes = accept_head(raw.seen.head.as_ref().unwrap());
    bytes.extend(wire::frame(wire::TEXT, true, b"say early", None));
    for byte in bytes {
        raw.peer.send(&[byte]);
        world.turn();
    }
    world.settle();
    assert_eq!(raw.read().texts(), ["early"]);
}

#[test]
fn a_masked_frame_from_a_server_is_1002() {
    let mut world = World::one(config());
    let server = Server::new(&world);
    let mut raw = standing(&mut world, &server, None);
    raw.text("say no");
    world.settle();
    assert_eq!(raw.read().close_code(), Some(1002));
}

#[test]
fn what_fails_is_told_with_its_reason() {
    let mut config = config();
    config.limits.handshake_timeout = Duration::from_millis(200);
    let mut world = World::one(config);
    let server = Server::new(&world);
    let target = server.target(None);
    for (token, answer) in [(1, "HTTP/1.1 404 Not Found\r\n\r\n"), (2, ""), (3, "late")] {
        dial(&mut world, &target, token);
        let raw = server.accept(&mut world).unwrap();
        match answer {
            "" => raw.peer.close(),
            "late" => world.pass(260),
            answer => _ = raw.peer.send(answer.as_bytes()),
        }
        world.settle();
    }
    dial(&mut world, &target, 9); // one that the handler does not take
    let raw = server.accept(&mut world).unwrap();
    raw.peer.send(&accept_head(raw.seen.head.as_ref().unwrap()));
    world.settle();
    drop(server);
    dial(&mut world, &target, 4);
    world.settle();
    let failed: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::ConnectFailed(token, error) => Some((token, error)),
            _ => None,
        })
        .collect();
    assert!(matches!(failed[0], (1, ConnectError::Handshake(_))), "{failed:?}");
    assert_eq!(failed[1..4], [(2, ConnectError::Closed), (3, ConnectError::Timeout), (9, ConnectError::Declined)]);
    assert_eq!(failed[4..], [(4, ConnectError::Io(std::io::ErrorKind::ConnectionRefused))]);
    assert_eq!((world.counters().open, world.workers[0].sockets()), (0, 0));
}

/// Counts tries that find nobody, and the waits between them.
#[test]
fn tries_come_again_within_their_bounds() {
    let mut world = World::one(config());
    let server = Server::new(&world);
    let reconnect = Reconnect { first: Duration::from_millis(100), max: Duration::from_millis(400) };
    let target = server.target(Some(reconnect));
    drop(server);
    dial(&mut world, &target, 1);
    let mut waits = Vec::new();
    let mut last = Duration::ZERO;
    while waits.len() < 40 {
        world.pass(4);
        let failed = world.take_events().iter().filter(|event| matches!(event, Event::ConnectFailed(1, _))).count();
        for _ in 0..failed {
            waits.push(world.net.elapsed() - last);
            last = world.net.elapsed();
        }
        assert!(world.net.elapsed() < Duration::from_secs(60));
    }
    let slack = Duration::from_millis(8);
    assert!(waits[1] <= reconnect.first + slack && waits[2] <= reconnect.first * 2 + slack, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= reconnect.max + slack), "{waits:?}");
    assert!(waits[4..].iter().any(|wait| *wait > reconnect.max / 2), "the bound grows: {waits:?}");
    assert!(waits[4..].iter().any(|wait| *wait < reconnect.max / 2), "and the waits are spread: {waits:?}");
}

/// A server that accepts and drops at once: the waits grow as if it had refused. One that stood starts them anew.
#[test]
fn a_connection_that_stood_for_a_moment_does_not_reset_the_waits() {
    let mut world = World::one(config());
    let server = Server::new(&world);
    let reconnect = Reconnect { first: Duration::from_millis(10), max: Duration::from_secs(4) };
    let mut raw = standing(&mut world, &server, Some(reconnect));
    let again = |world: &mut World, raw: &Raw| {
        raw.peer.reset();
        let (from, mut peer) = (world.net.elapsed(), None);
        while peer.is_none() {
            world.pass(4);
            peer = server.accept(world);
        }
        let raw = peer.unwrap();
        raw.peer.send(&accept_head(raw.seen.head.as_ref().unwrap()));
        world.settle();
        (raw, world.net.elapsed() - from)
    };
    let mut waits = Vec::new();
    for _ in 0..20 {
        let (next, wait) = again(&mut world, &raw);
        waits.push(wait);
        raw = next;
    }
    assert!(waits[12..].iter().any(|wait| *wait > Duration::from_secs(1)), "{waits:?}");
    world.pass(4100);
    let (_, wait) = again(&mut world, &raw);
    assert!(wait <= Duration::from_millis(30), "{wait:?}");
}

#[test]
fn a_lost_connection_comes_again_one_that_we_closed_does_not() {
    let mut world = World::one(config());
    let server = Server::new(&world);
    let reconnect = Some(Reconnect { first: Duration::from_millis(100), max: Duration::from_millis(400) });
    let raw = standing(&mut world, &server, reconnect);
    for lost in 0..3 {
        match lost {
            0 => standing_lost(&mut world, &raw),
            _ => server_closes(&mut world, &server),
        }
        world.pass(420);
    }
    let raw = server.accept(&mut world).unwrap();
    raw.peer.send(&accept_head(raw.seen.head.as_ref().unwrap()));
    world.settle();
    let id = world.record.borrow().ids[&1];
    world.handle.disconnect(id, CloseCode::NORMAL, "").unwrap();
    world.settle();
    raw.peer.send(&wire::frame(wire::CLOSE, true, b"", None));
    raw.peer.close();
    world.pass(2000);
    assert!(server.listener.accept().is_none());
    assert_eq!(world.events().iter().filter(|event| matches!(event, Event::Connected(1))).count(), 4);
    world.assert_quiet();
}

fn standing_lost(world: &mut World, raw: &Raw) {
    raw.peer.reset();
    world.settle();
}

fn server_closes(world: &mut World, server: &Server) {
    let raw = server.accept(world).unwrap();
    raw.peer.send(&accept_head(raw.seen.head.as_ref().unwrap()));
    world.settle();
    raw.peer.send(&wire::frame(wire::CLOSE, true, &wire::close_payload(1012, ""), None));
    world.settle();
    raw.peer.close();
    world.settle();
}

/// A worker that drains neither connects again nor at all, and tells the handler.
#[test]
fn a_drain_ends_reconnecting() {
    let mut world = World::one(config());
    let server = Server::new(&world);
    let reconnect = Some(Reconnect { first: Duration::from_millis(1), max: Duration::from_millis(1) });
    let target = server.target(reconnect);
    dial(&mut world, &target, 1);
    let _opening = server.accept(&mut world).unwrap();
    let _open = world.open(7);
    world.handle.drain(Drain { deadline: Duration::from_millis(500), ..Drain::default() });
    world.pass(100);
    dial(&mut world, &target, 2);
    world.pass(300);
    assert!(server.listener.accept().is_none());
    let events = world.events();
    for token in [1, 2] {
        let told = events.iter().filter(|event| matches!(event, Event::ConnectFailed(at, _) if *at == token)).count();
        assert_eq!(told, 1, "token {token}");
    }
}

/// A handler that connects again at once, from within `connect_failed`, does not hold up the turn.
#[test]
fn dialling_from_a_failure_takes_a_turn_each() {
    let mut world = World::one(config());
    let server = Server::new(&world);
    let target = server.target(None);
    drop(server);
    for token in 0..5 {
        dial(&mut world, &target, token * 10 + 1);
    }
    world.settle();
    let tokens: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::ConnectFailed(token, _) => Some(token),
            _ => None,
        })
        .collect();
    assert_eq!(tokens, [1, 11, 21, 31, 41], "in the order they were asked for");
}
