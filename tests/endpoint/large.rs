//! Broadcasts that are larger than what a mailbox or a connection holds of small ones.
#![forbid(unsafe_code)]

use crate::world::{World, config};
use serde_json::{Value, json};
use wingbeat::Config;
use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload, Sent, UserSocket};
use wingbeat::endpoint::{Endpoint, Mount, WebSocketOptions};

struct Room;

impl Channel for Room {
    fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        Join::Ok
    }
    /// Broadcasts as often as the event says, and tells how many workers had no room.
    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        let times = event.parse::<usize>().expect("a number");
        let sent = (0..times).map(|_| match ctx.broadcast("said", payload) {
            Sent::Refused(workers) => workers,
            _ => 0,
        });
        Outcome::ok(json!(sent.collect::<Vec<_>>()))
    }
}

/// What a client on worker 0 and one on worker 1 get, by size, and what the first is answered.
fn say(config: Config, bytes: usize, times: usize) -> ([Vec<usize>; 2], Value) {
    let options = WebSocketOptions { message_bytes: 16 << 20, ..WebSocketOptions::default() };
    let mount = Mount::new(UserSocket::new().channel("room:*", || Room)).websocket(options);
    let mut world = World::with(7, Endpoint::new().socket("/socket", mount), 2, config);
    let mut clients = [0, 1].map(|worker| world.open(worker, ""));
    for client in &mut clients {
        client.send(&json!(["1", "1", "room:a", "phx_join", {}]));
        world.settle();
        client.take();
    }
    clients[0].send(&json!(["1", "2", "room:a", times.to_string(), { "text": "x".repeat(bytes) }]));
    let (mut said, mut reply) = ([vec![], vec![]], Value::Null);
    for _ in 0..1000 {
        world.turn();
        for (client, said) in clients.iter_mut().zip(&mut said) {
            for message in client.take() {
                match message[3].as_str() {
                    Some("said") => said.push(message[4]["text"].as_str().expect("a text").len()),
                    _ => reply = message[4]["response"].clone(),
                }
            }
        }
    }
    assert_eq!(clients.map(|client| client.seen.close_code()), [None, None]);
    (said, reply)
}

#[test]
fn a_large_broadcast_reaches_the_clients_of_other_workers() {
    for bytes in [1 << 20, 3 << 20, 5 << 20, 8 << 20] {
        assert_eq!(say(config(), bytes, 1), ([vec![bytes], vec![bytes]], json!([0])));
    }
}

#[test]
fn of_two_that_do_not_fit_together_the_sender_hears_which_was_refused() {
    let mut config = config();
    config.limits.outbox_high = 16 << 20; // else the clients are closed as too slow for the second
    let bytes = 3 << 20;
    assert_eq!(say(config, 1 << 20, 2), ([vec![1 << 20; 2], vec![1 << 20; 2]], json!([0, 0])));
    assert_eq!(say(config, bytes, 2), ([vec![bytes; 2], vec![bytes]], json!([0, 1])), "worker 1 has room for 4 MiB");
}
