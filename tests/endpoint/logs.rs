//! What the log says of clients, and what it does not: their secrets.
#![forbid(unsafe_code)]

use crate::wire;
use crate::world::World;
use serde_json::{Value, json};
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload, UserSocket};
use wingbeat::endpoint::{Connect, Endpoint, LongPollOptions, Mount};
use wingbeat::http::OriginPolicy;

/// Everything that is logged, a line each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wingbeat")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Log {
    /// The lines that have all these parts, of those that were not taken before.
    fn take(&self, parts: &[&str]) -> usize {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        assert!(!lines.iter().any(|line| line.contains("s3cret")), "{lines:#?}");
        let found = lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
        if found == 0 {
            println!("{lines:#?}");
        }
        found
    }
}

struct Room;

impl Channel for Room {
    fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        Join::Ok
    }
    fn handle_in(&mut self, _: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "echo" => Outcome::ok(payload),
            _ => Outcome::Unhandled,
        }
    }
}

fn world() -> World {
    let mount = Mount::new(UserSocket::new().channel("room:*", || Room))
        .auth_token(true)
        .check_origin(OriginPolicy::Host("sim".into()))
        .longpoll(LongPollOptions::default())
        .connect(|info| {
            tracing::info!(target: "wingbeat::test", ?info, "a program may log it");
            if info.param("name") == Some("nobody") { Connect::Refuse } else { Connect::accept() }
        });
    World::new(7, Endpoint::new().socket("/socket", mount), 1)
}

/// Runs with everything logged.
fn logged(run: impl FnOnce(&Log)) {
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || run(&log));
}

#[test]
fn joins_and_pushes_are_logged_with_their_durations() {
    logged(|log| {
        let mut world = world();
        let client = world.open(0, "&access_token=s3cret&user[password]=s3cret&name=ada");
        assert_eq!(log.take(&["INFO", "socket_connected", "duration=", "ada", "[FILTERED]"]), 1);
        let mut send = |message: Value| {
            client.send(&message);
            world.settle();
        };
        send(json!(["1", "1", "room:a", "phx_join", { "token": "s3cret" }]));
        assert_eq!(log.take(&["INFO", "channel_joined", "room:a", "status=\"ok\"", "duration="]), 1);
        send(json!(["1", "2", "room:a", "echo", { "password": "s3cret" }]));
        assert_eq!(log.take(&["DEBUG", "channel_handled_in", "room:a", "event=\"echo\"", "duration="]), 1);
        send(json!(["1", "3", "room:a", "s".repeat(100), "s3cret"]));
        assert_eq!(log.take(&["channel_handled_in", &format!("event=\"{}\"", "s".repeat(64))]), 1);
        send(json!(["4", "4", "nowhere", "phx_join", "s3cret"]));
        assert_eq!(log.take(&["no route"]), 1);
        client.peer.send(&wire::masked(wire::TEXT, b"s3cret"));
        world.settle();
        assert_eq!(log.take(&["cannot be read"]), 1);
    });
}

#[test]
fn refusals_say_why() {
    logged(|log| {
        let mut world = world();
        for (target, field, why) in [
            ("/socket/websocket?vsn=2.0.0&token=s3cret", "Origin: https://evil.test", "origin may not connect"),
            ("/socket/websocket?vsn=9.0.0&token=s3cret", "X: s3cret", "vsn"),
            ("/socket/longpoll?vsn=9.0.0&token=s3cret", "X: s3cret", "vsn"),
            ("/socket/websocket?vsn[]=s3cret", "X: s3cret", "vsn"),
            ("/socket/websocket?%ff=s3cret", "X: s3cret", "query"),
            ("/socket/websocket?vsn=2.0.0", "Sec-WebSocket-Protocol: s3cret", "subprotocol"),
            ("/socket/websocket?vsn=2.0.0", "Sec-WebSocket-Protocol: base64url.bearer.phx.s3cret!", "auth token"),
            ("/socket/websocket?vsn=2.0.0&name=nobody&token=s3cret", "Authorization: s3cret", "result=\"refused\""),
        ] {
            log.take(&[]);
            let _client = world.http(0, &format!("GET {target} HTTP/1.1\r\nHost: sim\r\n{field}\r\n\r\n"));
            world.settle();
            assert_eq!(log.take(&["DEBUG", why]), 1, "{why}");
        }
    });
}
