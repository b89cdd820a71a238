//! The opening handshake, plain HTTP, and the limits of admission.
#![forbid(unsafe_code)]

use crate::common::script::Event;
use crate::common::wire;
use crate::common::world::*;
use std::net::IpAddr;
use std::time::Duration;
use wingbeat::Config;
use wingbeat::driver::sim::Faults;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn answer(world: &mut World, request: &[u8]) -> Raw {
    let mut raw = world.connect();
    raw.peer.send(request);
    world.settle();
    raw.read();
    raw
}

fn gone(world: &mut World, raw: &Raw) {
    assert!(raw.peer.is_eof() && !raw.peer.is_reset());
    raw.peer.close();
    world.settle();
    assert_eq!(world.workers[0].sockets(), 0);
}

#[test]
fn a_handshake_that_takes_too_long_is_answered_with_408() {
    let mut config = config();
    config.limits.handshake_timeout = ms(200);
    let mut world = World::one(config);
    let mut slow = world.connect();
    slow.peer.send(b"GET / HTTP/1.1\r\nHost: sim\r\n");
    world.pass(180);
    assert_eq!(slow.read().head, None);
    slow.peer.send(b"Upgrade: websocket\r\n"); // activity does not prolong it
    world.pass(60);
    assert_eq!(slow.read().status(), Some(408));
    assert_eq!(world.counters().handshake_timeouts, 1);
    gone(&mut world, &slow);
}

#[test]
fn a_head_may_be_cut_at_every_byte() {
    let request = [wire::request("/", "X-Key: 1\r\n"), wire::masked(wire::TEXT, b"say first")].concat();
    for at in 0..=request.len() {
        let mut world = World::one(config());
        let mut raw = world.connect();
        raw.peer.send(&request[..at]);
        world.settle();
        raw.peer.send(&request[at..]);
        world.settle();
        let seen = raw.read();
        assert_eq!((seen.status(), seen.texts()), (Some(101), vec!["first"]), "cut at {at}");
        assert!(seen.head.as_ref().is_some_and(|head| head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    }
    let mut world = World::one(config());
    world.net.set_faults(Faults { partial_receive: 1000, ..Faults::default() });
    let mut raw = world.connect();
    raw.peer.send(&request);
    (0..400).for_each(|_| world.turn());
    assert_eq!(raw.read().texts(), ["first"]);
}

#[test]
fn request_limits_are_exact() {
    let mut limited = config();
    limited.limits.request_bytes = 300;
    limited.limits.request_headers = 8;
    let padded = |bytes: usize| {
        let bare = wire::request("/", "X-Pad: \r\n").len();
        wire::request("/", &format!("X-Pad: {}\r\n", "x".repeat(bytes - bare)))
    };
    for (request, status) in [
        (padded(300), 101),
        (padded(301), 431),
        (wire::request("/", &"A: b\r\n".repeat(3)), 101),
        (wire::request("/", &"A: b\r\n".repeat(4)), 431),
    ] {
        let mut world = World::one(limited);
        assert_eq!(answer(&mut world, &request).seen.status(), Some(status), "{}", request.len());
    }
    let mut world = World::one(limited);
    let endless = answer(&mut world, &b"GET / HTTP/1.1\r\n".iter().chain(&[b'x'; 400]).copied().collect::<Vec<u8>>());
    assert_eq!(endless.seen.status(), Some(431));
    assert_eq!(world.counters().bad_requests, 1);
    gone(&mut world, &endless);
}

#[test]
fn beyond_the_connection_limit_comes_503_until_one_leaves() {
    let mut limited = config();
    limited.limits.connections = 2;
    let mut world = World::new(1, limited, 1);
    let (first, _second) = (world.open(1), world.open(2));
    let mut third = world.connect();
    world.settle();
    assert_eq!(third.read().status(), Some(503));
    assert_eq!(world.counters().refused, 1);
    third.peer.close();
    first.peer.reset();
    world.settle();
    world.open(3);
}

/// A herd at the limit: so many are told, the others are closed at once, and the one that is there goes on.
#[test]
fn beyond_the_connection_limit_only_so_many_are_told() {
    let mut config = config();
    config.limits.connections = 1;
    config.backlog = 2000;
    let mut world = World::one(config);
    let mut first = world.open(1);
    let mut herd: Vec<_> = (0..1030).map(|_| world.connect()).collect();
    world.settle();
    herd.iter_mut().for_each(|raw| _ = raw.read());
    let told = herd.iter().filter(|raw| raw.seen.status() == Some(503)).count();
    let closed = herd.iter().filter(|raw| raw.seen.status().is_none() && raw.peer.is_eof()).count();
    assert_eq!((told, closed), (1024, 6));
    first.text("say still here");
    herd.drain(..).for_each(|raw| raw.peer.close());
    world.settle();
    assert_eq!(first.read().texts(), ["still here"]);
    let mut late = world.connect();
    world.settle();
    assert_eq!(late.read().status(), Some(503), "there is room to tell others");
}

#[test]
fn beyond_the_limit_per_address_comes_503_until_one_leaves() {
    let mut limited = config();
    limited.limits.connections_per_ip = 1;
    let mut world = World::one(limited);
    let from = |world: &mut World, last: u8| {
        let peer = world.net.connect_from(IpAddr::from([127, 0, 0, last]), &world.address).unwrap();
        peer.send(&wire::request("/", ""));
        world.settle();
        let mut raw = Raw { peer, seen: wire::Decoder::default() };
        raw.read();
        raw
    };
    let first = from(&mut world, 1);
    assert_eq!(first.seen.status(), Some(101));
    assert_eq!(from(&mut world, 1).seen.status(), Some(503));
    assert_eq!(from(&mut world, 2).seen.status(), Some(101));
    first.peer.reset();
    world.settle();
    assert_eq!(from(&mut world, 1).seen.status(), Some(101));
}

#[test]
fn subprotocols_and_fields_are_those_of_the_handler() {
    let mut world = World::one(config());
    let raw = answer(&mut world, &wire::request("/chat", "Sec-WebSocket-Protocol: other, chat\r\n"));
    let head = raw.seen.head.unwrap();
    assert!(
        head.contains("\r\nSec-WebSocket-Protocol: chat\r\n") && head.contains("\r\nX-Served-By: sim\r\n"),
        "{head}"
    );
    for path in ["/unoffered", "/split", "/panic"] {
        let raw = answer(&mut world, &wire::request(path, ""));
        assert_eq!(raw.seen.status(), Some(500), "{path}");
        assert!(!raw.seen.head.unwrap().contains("X-B"));
    }
    assert_eq!(world.counters().panics, 1);
}

#[test]
fn a_handler_rejects_with_its_own_response() {
    let mut world = World::one(config());
    let raw = answer(&mut world, &wire::request("/reject", ""));
    assert_eq!(raw.seen.status(), Some(403));
    assert!(raw.seen.head.as_ref().unwrap().contains("\r\nX-Why: because\r\n"));
    assert_eq!(raw.seen.body(), "not you\n");
    gone(&mut world, &raw);
    assert_eq!(world.counters().opened, 0);
}

#[test]
fn plain_requests_are_answered_by_the_handler() {
    let mut world = World::one(config());
    let get = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let raw = answer(&mut world, &get("GET", "/healthz"));
    assert_eq!((raw.seen.status(), raw.seen.body().as_str()), (Some(200), "ok\n"));
    gone(&mut world, &raw);
    let raw = answer(&mut world, &get("HEAD", "/healthz"));
    assert_eq!((raw.seen.status(), raw.seen.body().as_str()), (Some(200), ""));
    let raw = answer(&mut world, &get("GET", "/typed"));
    assert!(raw.seen.head.as_ref().unwrap().contains("\r\nContent-Type: text/csv\r\n"));
    assert_eq!(raw.seen.body(), "1,2");
    assert_eq!(answer(&mut world, &get("GET", "/owned")).seen.body(), "6");
    for (path, status) in [("/nowhere", 404), ("/split", 500), ("/panic", 500)] {
        assert_eq!(answer(&mut world, &get("GET", path)).seen.status(), Some(status));
    }
    let raw = answer(&mut world, b"BROKEN\r\n\r\n");
    assert_eq!(raw.seen.status(), Some(400));
}

fn later(limits: Config) -> (World, Raw) {
    let mut world = World::one(limits);
    let mut raw = world.connect();
    // Frames that come with the request, and behind it, wait in order.
    raw.peer.send(&[wire::request("/later", "X-Key: 1\r\n"), wire::masked(wire::TEXT, b"say 1")].concat());
    world.settle();
    raw.text("say 2");
    world.settle();
    assert_eq!(raw.read().head, None);
    (world, raw)
}

#[test]
fn a_late_answer_accepts_and_what_waited_is_read_in_order() {
    let (mut world, mut raw) = later(config());
    let id = world.record.borrow().ids[&1];
    world.handle.answer_upgrade(id, "accept".into()).unwrap();
    world.settle();
    raw.text("say 3");
    world.settle();
    assert_eq!(raw.read().texts(), ["1", "2", "3"]);
    world.handle.answer_upgrade(id, "accept".into()).unwrap();
    world.settle();
    assert_eq!(world.counters().mail_stale, 1, "a second answer finds nobody");
}

#[test]
fn a_late_answer_rejects() {
    for (mail, status) in [("reject", 403), ("later", 503)] {
        let (mut world, mut raw) = later(config());
        let id = world.record.borrow().ids[&1];
        world.handle.answer_upgrade(id, mail.into()).unwrap();
        world.settle();
        assert_eq!(raw.read().status(), Some(status));
        gone(&mut world, &raw);
        assert!(!world.events().contains(&Event::Open(1)));
    }
}

#[test]
fn a_late_answer_that_does_not_come_is_503() {
    let mut limits = config();
    limits.limits.handshake_timeout = ms(200);
    let (mut world, mut raw) = later(limits);
    world.pass(260);
    assert_eq!(raw.read().status(), Some(503));
    let id = world.record.borrow().ids[&1];
    world.handle.answer_upgrade(id, "accept".into()).unwrap();
    world.settle();
    assert_eq!(world.counters().mail_stale, 1);
    gone(&mut world, &raw);
}

#[test]
fn a_peer_that_leaves_while_it_waits_is_gone() {
    let (mut world, raw) = later(config());
    raw.peer.reset();
    world.settle();
    let id = world.record.borrow().ids[&1];
    world.handle.answer_upgrade(id, "accept".into()).unwrap();
    world.settle();
    assert_eq!((world.counters().mail_stale, world.counters().opened, world.workers[0].sockets()), (1, 0, 0));
}

#[test]
fn slots_are_used_again_with_another_generation() {
    let mut world = World::one(config());
    let mut ids = Vec::new();
    for round in 0..50 {
        let raw = world.open(round);
        ids.push(world.record.borrow().ids[&round]);
        raw.peer.close();
        world.settle();
    }
    assert!(ids.iter().all(|id| id.socket.slot == 0));
    assert!(ids.windows(2).all(|pair| pair[0].socket.generation < pair[1].socket.generation));
    let last = world.open(99);
    assert_eq!(world.record.borrow().ids[&99].socket.slot, 0);
    world.handle.send(ids[0], wingbeat::Message::text("for one that is gone")).unwrap();
    world.handle.mail(ids[1], "say no".into()).unwrap();
    world.handle.disconnect(ids[2], wingbeat::CloseCode::NORMAL, "").unwrap();
    world.settle();
    assert_eq!(world.counters().mail_stale, 3);
    last.peer.close();
    world.settle();
    world.assert_quiet();
}

#[test]
fn running_out_of_descriptors_is_waited_out() {
    let mut world = World::one(config());
    world.net.set_socket_limit(1);
    let first = world.open(1);
    let refused = world.connect();
    world.settle();
    assert!(refused.peer.is_eof() || refused.peer.is_reset());
    assert_eq!(world.counters().accept_exhausted, 1);
    first.peer.close();
    world.pass(200);
    world.open(2);
}
