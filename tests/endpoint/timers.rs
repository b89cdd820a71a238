//! Timers end with their channel and with their connection.
#![forbid(unsafe_code)]

use crate::world::World;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wingbeat::channels::{Channel, Ctx, Info, Join, JoinCtx, JoinRef, Outcome, Payload, TimerKey, UserSocket};
use wingbeat::endpoint::Endpoint;

/// `set N`: so many timers, due in an hour; `cancel`: the newest; `soon`: one that is due in 20 ms.
#[derive(Default)]
struct Alarms(Vec<TimerKey>);

impl Channel for Alarms {
    fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        Join::Ok
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "set" => {
                let count: u64 = payload.parse().expect("a number");
                self.0.extend((0..count).filter_map(|token| ctx.set_timer(Duration::from_secs(3600), token).ok()));
            }
            "cancel" => self.0.pop().into_iter().for_each(|key| ctx.cancel_timer(key)),
            _ => _ = ctx.set_timer(Duration::from_millis(20), 7),
        }
        Outcome::NoReply
    }

    fn handle_info(&mut self, ctx: &mut Ctx<'_>, info: Info<'_>) -> Outcome {
        if let Info::Timer(token) = info {
            ctx.push("fired", json!({ "token": token }));
        }
        Outcome::NoReply
    }
}

/// Somebody was to answer its joins, and does not.
struct Undecided(Arc<Mutex<Vec<JoinRef>>>);

impl Channel for Undecided {
    fn join(&mut self, ctx: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        self.0.lock().expect("nobody panics").push(ctx.later());
        Join::Later
    }

    fn handle_in(&mut self, _: &mut Ctx<'_>, _: &str, _: Payload<'_>) -> Outcome {
        Outcome::NoReply
    }
}

#[test]
fn a_connection_is_not_held_forever_by_a_join_that_nobody_answers() {
    let promises = Arc::default();
    let kept = Arc::clone(&promises);
    let socket = UserSocket::new()
        .channel("*", move || Undecided(Arc::clone(&promises)))
        .join_timeout(Duration::from_millis(100));
    let mut world = World::new(1, Endpoint::new().socket("/socket", socket), 1);
    let mut client = world.open(0, "");
    client.send(&json!(["1", "1", "a", "phx_join", {}]));
    client.send(&json!([null, "2", "phoenix", "heartbeat", {}]));
    world.settle();
    assert!(client.take().is_empty());
    world.pass(150);
    let answers = client.take();
    assert_eq!(answers[0][4], json!({ "status": "error", "response": { "reason": "join crashed" } }));
    assert_eq!((answers.len(), &answers[1][1]), (2, &json!("2")), "what was held back is heard");
    // One that waits when its client goes leaves no timer behind.
    client.send(&json!(["3", "3", "b", "phx_join", {}]));
    assert_eq!((timers(&mut world), kept.lock().expect("nobody panics").len()), (1, 2));
    client.peer.close();
    world.settle();
    world.assert_empty();
}

fn timers(world: &mut World) -> u64 {
    world.settle();
    let kept = world.workers[0].with(|handler, _| format!("{handler:?}"));
    let (_, behind) = kept.split_once("timers: ").expect("it says so");
    behind.split(|c: char| !c.is_ascii_digit()).next().and_then(|count| count.parse().ok()).expect("a number")
}

#[test]
fn timers_end_with_their_channel_and_their_connection() {
    let endpoint = Endpoint::new().socket("/socket", UserSocket::new().channel("*", Alarms::default));
    let mut world = World::new(1, endpoint, 1);
    let mut client = world.open(0, "");
    for (reference, topic) in [("1", "a"), ("2", "b")] {
        client.send(&json!([reference, reference, topic, "phx_join", {}]));
        client.send(&json!([reference, "9", topic, "set", 100]));
        client.send(&json!([reference, "9", topic, "cancel", {}]));
        client.send(&json!([reference, "9", topic, "soon", {}]));
    }
    assert_eq!(timers(&mut world), 200);
    world.pass(40);
    let fired = client.take().iter().filter(|message| message[3] == "fired" && message[4]["token"] == 7).count();
    assert_eq!((fired, timers(&mut world)), (2, 198));
    client.send(&json!(["1", "3", "a", "phx_leave", {}]));
    assert_eq!(timers(&mut world), 99, "those of a channel end with it");
    client.send(&json!(["2", "4", "b", "set", 5000]));
    assert_eq!(timers(&mut world), 1024, "a socket has a limit");
    client.peer.close();
    world.settle();
    world.assert_empty();
}
