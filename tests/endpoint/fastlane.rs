//! The fastlane: a broadcast is encoded once per serializer in use, however many subscribe.
#![forbid(unsafe_code)]

use crate::wire;
use crate::world::{Client, World};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wingbeat::MessageKind;
use wingbeat::channels::{
    Channel, Ctx, DecodeError, EncodeError, Envelope, Join, JoinCtx, Outcome, Outgoing, Payload, Serializer,
    UserSocket, V1, V2, Versions,
};
use wingbeat::endpoint::{BroadcastError, Connect, Endpoint, Mount};

/// Another serializer, with counts.
struct Counting<S> {
    inner: S,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    broadcasts: AtomicU64,
    pushes: AtomicU64,
}

impl Counts {
    /// Broadcasts and pushes that were encoded since the last time.
    fn take(&self) -> (u64, u64) {
        (self.broadcasts.swap(0, Ordering::Relaxed), self.pushes.swap(0, Ordering::Relaxed))
    }
}

impl<S: Serializer> Serializer for Counting<S> {
    fn decode<'a>(&self, kind: MessageKind, bytes: &'a [u8]) -> Result<Envelope<'a>, DecodeError> {
        self.inner.decode(kind, bytes)
    }

    fn encode(&self, message: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<MessageKind, EncodeError> {
        match message {
            Outgoing::Broadcast { .. } => self.counts.broadcasts.fetch_add(1, Ordering::Relaxed),
            Outgoing::Push { .. } => self.counts.pushes.fetch_add(1, Ordering::Relaxed),
            Outgoing::Reply { .. } => 0,
        };
        self.inner.encode(message, out)
    }
}

struct Room;

impl Channel for Room {
    const INTERCEPT: &'static [&'static str] = &["loud"];

    fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        Join::Ok
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        ctx.broadcast(event, payload);
        Outcome::NoReply
    }
}

/// A world, its counts, and so many subscribers of each version.
fn world(workers: usize, v1: usize, v2: usize) -> (World, Arc<Counts>, Vec<Client>) {
    let counts = Arc::new(Counts::default());
    let versions = Versions::none()
        .with("~> 1.0.0", Counting { inner: V1, counts: Arc::clone(&counts) })
        .with("~> 2.0.0", Counting { inner: V2, counts: Arc::clone(&counts) });
    let socket = UserSocket::new().channel("room:*", || Room).serializers(versions);
    let mut world = World::new(1, Endpoint::new().socket("/socket", socket), workers);
    let mut clients = Vec::new();
    for at in 0..v1 + v2 {
        let client = world.connect_as(at % workers, if at < v1 { "1.0.0" } else { "2.0.0" });
        world.turn();
        let join = match at < v1 {
            true => json!({ "topic": "room:a", "event": "phx_join", "payload": {}, "ref": "1" }),
            false => json!(["1", "1", "room:a", "phx_join", {}]),
        };
        client.send(&join);
        world.turn();
        clients.push(client);
    }
    world.settle();
    clients.iter_mut().for_each(|client| assert_eq!(client.take().len(), 1));
    counts.take();
    (world, counts, clients)
}

fn all_get(clients: &mut [Client], event: &str) {
    for client in clients {
        let got = client.take();
        let of = |message: &Value| message.get(3).or(message.get("event")) == Some(&json!(event));
        assert!(got.len() == 1 && of(&got[0]), "{got:?}");
    }
}

#[test]
fn one_encoding_per_serializer_in_use() {
    for (v1, v2, encodings) in [(0, 1, 1), (0, 1000, 1), (1, 0, 1), (500, 500, 2)] {
        let (mut world, counts, mut clients) = world(1, v1, v2);
        world.handle.broadcast("room:a", "said", json!({ "n": 1 })).expect("there is room");
        world.pass(200);
        all_get(&mut clients, "said");
        assert_eq!(counts.take(), (encodings, 0), "{v1} + {v2} subscribers");
    }
}

#[test]
fn one_per_worker_that_has_subscribers_and_none_without() {
    let (mut world, counts, mut clients) = world(2, 0, 100);
    clients[0].send(&json!(["1", "2", "room:a", "said", { "n": 1 }]));
    world.settle();
    all_get(&mut clients, "said");
    assert_eq!(counts.take(), (2, 0));
    world.handle.broadcast("room:nobody", "said", json!({})).expect("nobody misses it");
    world.settle();
    assert_eq!(counts.take(), (0, 0));
}

#[test]
fn an_intercepted_event_costs_a_push_per_client_and_others_cost_as_ever() {
    let (mut world, counts, mut clients) = world(1, 10, 20);
    world.handle.broadcast("room:a", "loud", json!({ "n": 1 })).expect("there is room");
    world.settle();
    all_get(&mut clients, "loud");
    assert_eq!(counts.take(), (0, 30));
    world.handle.broadcast("room:a", "said", json!({ "n": 1 })).expect("there is room");
    world.settle();
    all_get(&mut clients, "said");
    assert_eq!(counts.take(), (2, 0));
}

#[test]
fn what_a_format_cannot_say_its_clients_miss_alone() {
    let (mut world, counts, mut clients) = world(1, 1, 1);
    world.handle.broadcast("room:a", "said", Payload::Binary(&[1, 2, 255])).expect("there is room");
    world.settle();
    clients.iter_mut().for_each(Client::read);
    let frames: Vec<_> = clients.iter().map(|client| client.seen.frames.len()).collect();
    assert_eq!((frames, counts.take()), (vec![1, 2], (2, 0)));
    let frame = clients[1].seen.frames.last().expect("a frame");
    assert_eq!((frame.opcode, &frame.payload[..]), (wire::BINARY, &b"\x02\x06\x04room:asaid\x01\x02\xff"[..]));
}

#[test]
fn push_to_is_not_heard_by_who_joined_a_topic_of_the_ids_name() {
    let mount = Mount::new(UserSocket::new().channel("*", || Room))
        .connect(|info| Connect::accept().id(info.param("id").unwrap_or("nobody")));
    let mut world = World::new(1, Endpoint::new().socket("/socket", mount), 2);
    let mut clients = Vec::new();
    for (worker, vsn, id) in [(0, "2.0.0", "users:7"), (0, "2.0.0", "m"), (1, "2.0.0", "m"), (1, "1.0.0", "m")] {
        let mut client = world.connect_as(worker, &format!("{vsn}&id={id}"));
        world.settle();
        let topic = if id == "m" { "users:7" } else { "room:a" };
        match vsn == "1.0.0" {
            true => client.send(&json!({ "topic": topic, "event": "phx_join", "payload": {}, "ref": "1" })),
            false => client.send(&json!(["1", "1", topic, "phx_join", {}])),
        }
        world.settle();
        assert_eq!(client.take().len(), 1);
        clients.push(client);
    }
    world.handle.push_to("users:7", "room:a", "direct", json!({ "secret": 1 })).expect("there is room");
    world.settle();
    assert_eq!(clients[0].take(), [json!(["1", null, "room:a", "direct", { "secret": 1 }])]);
    for client in &mut clients[1..] {
        assert!(client.take().is_empty());
    }
}

#[test]
fn no_handle_sends_an_event_of_the_protocol() {
    let (mut world, _, mut clients) = world(1, 1, 1);
    for event in ["phx_close", "phx_error", "phx_direct\0", "phx_"] {
        let refused = Err(BroadcastError::ReservedEvent);
        assert_eq!(world.handle.broadcast("room:a", event, json!({})), refused);
        assert_eq!(world.handle.push_to("nobody", "room:a", event, json!({})), refused);
    }
    world.settle();
    assert!(clients.iter_mut().all(|client| client.take().is_empty()));
}
