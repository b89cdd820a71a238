//! The rules of channels (docs/phoenix-wire.md §2 to §4), message by message, on the test kit.
#![forbid(unsafe_code)]

mod ending;
mod inbound;
mod joining;
mod outbound;
mod table;
mod threads;

use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use wingbeat::channels::testing::{Client, Kit};
use wingbeat::channels::{
    Channel, ChannelHandle, Ctx, Info, Join, JoinCtx, JoinRef, Outcome, Payload, Reason, ReplyRef, TimerKey, UserSocket,
};
use wingbeat::proto::MessageKind;

/// What channels saw, and what they gave away.
#[derive(Clone, Default)]
struct Spy(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    log: Vec<String>,
    replies: Vec<ReplyRef>,
    joins: Vec<JoinRef>,
    handles: Vec<ChannelHandle>,
}

impl Spy {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().expect("no test panics while it looks")
    }

    fn note(&self, line: String) {
        self.notes().log.push(line);
    }

    /// What was noted since the last time.
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.notes().log)
    }
}

/// A channel that does what the client's message says.
struct Probe {
    spy: Spy,
    then: Value,
    timers: HashMap<u64, TimerKey>,
}

impl Probe {
    fn new(spy: &Spy) -> Probe {
        Probe { spy: spy.clone(), then: Value::Null, timers: HashMap::new() }
    }
}

/// What no serializer can write.
struct Unserializable;

impl serde::Serialize for Unserializable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("never"))
    }
}

const BYTES: Payload<'static> = Payload::Binary(&[1, 2, 255]);

impl Channel for Probe {
    fn join(&mut self, ctx: &mut JoinCtx<'_>, topic: &str, payload: Payload<'_>) -> Join {
        if payload.as_binary().is_some() {
            return Join::reply(payload);
        }
        let wish: Value = payload.parse().expect("JSON");
        self.then = wish["then"].clone();
        match wish["how"].as_str().unwrap_or("ok") {
            "reply" => Join::reply(json!({ "topic": topic })),
            "list" => Join::reply(json!([1, null])),
            "binary" => Join::reply(BYTES),
            "refuse" => Join::refuse(json!({ "reason": "members only" })),
            "refuse binary" => Join::refuse(BYTES),
            "unserializable" => Join::reply(Unserializable),
            "panic" => panic!("as asked, in join"),
            "later" => {
                self.spy.notes().joins.push(ctx.later());
                self.spy.notes().handles.push(ctx.handle());
                Join::Later
            }
            "later, forgotten" => {
                drop(ctx.later());
                Join::Later
            }
            "later, by nobody" => Join::Later,
            "later, yet at once" => {
                self.spy.notes().joins.push(ctx.later());
                Join::Ok
            }
            _ => Join::Ok,
        }
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>) {
        match self.then.as_str().unwrap_or_default() {
            "push" => {
                ctx.push("welcome", json!({}));
                ctx.broadcast("came", json!({}));
            }
            "panic" => panic!("as asked, in joined"),
            "invalid" => drop(ctx.push("welcome", json!([]))),
            _ => {}
        }
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "echo" => return Outcome::ok(payload),
            "push" => return noted(ctx.push("pushed", payload)),
            "broadcast" => return noted(ctx.broadcast("said", payload)),
            "broadcast and reply" => {
                ctx.broadcast("said", payload);
                return Outcome::ok(json!({}));
            }
            "broadcast_from" => return noted(ctx.broadcast_from("said", payload)),
            "shown" => return noted(ctx.broadcast("shown", payload)),
            "spied" => return noted(ctx.broadcast("spied", payload)),
            _ => {}
        }
        let wish: Value = payload.parse().unwrap_or_default();
        let text = |slot: &str| wish[slot].as_str().unwrap_or_default().to_owned();
        let number = |slot: &str| wish[slot].as_u64().unwrap_or_default();
        let reason = match &*text("reason") {
            "shutdown" => Reason::Shutdown,
            "strange" => Reason::Other("strange".into()),
            _ => Reason::Normal,
        };
        match event {
            "quiet" => Outcome::NoReply,
            "error" => Outcome::error(json!({ "why": wish })),
            "weird" => Outcome::reply("weird_status", json!([1, "two", null])),
            "bytes" => Outcome::ok(BYTES),
            "unserializable" => Outcome::ok(Unserializable),
            "stop" => Outcome::Stop(reason),
            "stop reply" => Outcome::ok(json!({ "last": true })).and_stop(reason),
            "panic" => panic!("as asked, in handle_in"),
            "later" => {
                self.spy.notes().replies.push(ctx.reply_to().expect("a message came in"));
                Outcome::NoReply
            }
            "answer all" => {
                let replies = std::mem::take(&mut self.spy.notes().replies);
                replies.iter().for_each(|to| _ = ctx.reply(to, "ok", json!({ "late": true })));
                Outcome::NoReply
            }
            "handle" => {
                self.spy.notes().handles.push(ctx.handle());
                Outcome::NoReply
            }
            "push bytes" => noted(ctx.push("pushed", BYTES)),
            "broadcast bytes" => noted(ctx.broadcast("said", BYTES)),
            "push unserializable" => noted(ctx.push("pushed", Unserializable)),
            "broadcast_to" => noted(ctx.broadcast_to(&text("topic"), "said", json!({ "from": ctx.topic() }))),
            "push_to" => noted(ctx.push_to(&text("id"), "direct", json!({ "a": 1 }))),
            "broadcast as" => noted(ctx.broadcast(&text("event"), json!({}))),
            "push as" => noted(ctx.push(&text("event"), json!({}))),
            "push_to as" => noted(ctx.push_to(&text("id"), &text("event"), json!({}))),
            "push_to bytes" => noted(ctx.push_to(&text("id"), "direct", BYTES)),
            "disconnect" => {
                ctx.disconnect(&text("id"));
                Outcome::NoReply
            }
            "subscribe" => {
                ctx.subscribe(&text("topic")).expect("the kit has no limit");
                Outcome::NoReply
            }
            "unsubscribe" => {
                ctx.unsubscribe(&text("topic"));
                Outcome::NoReply
            }
            "timer" => {
                let key = ctx.set_timer(Duration::from_millis(number("after")), number("token"));
                let set = key.map(|key| self.timers.insert(number("token"), key));
                if set.is_ok() { Outcome::NoReply } else { Outcome::error(json!({})) }
            }
            "cancel" => {
                ctx.cancel_timer(self.timers[&number("token")]);
                Outcome::NoReply
            }
            "then" => {
                self.then = wish["then"].clone();
                Outcome::NoReply
            }
            _ => Outcome::Unhandled,
        }
    }

    fn handle_info(&mut self, ctx: &mut Ctx<'_>, info: Info<'_>) -> Outcome {
        assert!(ctx.reply_to().is_none(), "nothing came in");
        match info {
            Info::Timer(token) => {
                ctx.push("timer", json!({ "token": token }));
            }
            Info::Message(message) => match message.downcast_ref::<&str>() {
                Some(&"stop") => return Outcome::Stop(Reason::Normal),
                Some(&"reply") => return Outcome::ok(json!({})),
                Some(text) => drop(ctx.push("message", json!({ "text": text }))),
                None => panic!("nobody sends this"),
            },
            Info::Broadcast { topic, event, payload } => {
                let bytes = payload.as_bytes().len();
                self.spy.note(format!("{} heard {topic} {event} {bytes}", ctx.topic()));
            }
            _ => unreachable!("nothing else is sent"),
        }
        Outcome::NoReply
    }

    fn terminate(&mut self, ctx: &mut Ctx<'_>, reason: &Reason) {
        self.spy.note(format!("{} ends: {reason}", ctx.topic()));
        match self.then.as_str().unwrap_or_default() {
            "panic in terminate" => panic!("as asked, in terminate"),
            "busy terminate" => {
                ctx.subscribe("news").expect("the kit has no limit");
                ctx.set_timer(Duration::from_secs(3600), 9).expect("there is room");
                ctx.broadcast("went", json!({}));
            }
            _ => {}
        }
        ctx.push("bye", json!({}));
    }
}

fn noted(_: wingbeat::channels::Sent) -> Outcome {
    Outcome::NoReply
}

/// A [`Probe`] that sees "shown" and "spied" before its client does.
struct Censor(Probe);

impl Channel for Censor {
    const INTERCEPT: &'static [&'static str] = &["shown", "spied"];

    fn join(&mut self, ctx: &mut JoinCtx<'_>, topic: &str, payload: Payload<'_>) -> Join {
        self.0.join(ctx, topic, payload)
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        self.0.handle_in(ctx, event, payload)
    }

    fn handle_out(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match payload.as_json() {
            Some(r#"{"stop":true}"#) => Outcome::Stop(Reason::Normal),
            _ if event == "shown" => {
                ctx.push(event, payload);
                Outcome::ok(json!({})) // nobody asked: it goes nowhere
            }
            _ => Outcome::NoReply,
        }
    }

    fn terminate(&mut self, ctx: &mut Ctx<'_>, reason: &Reason) {
        self.0.terminate(ctx, reason);
    }
}

fn mount(spy: &Spy) -> UserSocket {
    let [first, second, third] = [spy.clone(), spy.clone(), spy.clone()];
    UserSocket::new()
        .channel("exact", move || Probe::new(&first))
        .channel("room:*", move || Probe::new(&second))
        .channel("censored:*", move || Censor(Probe::new(&third)))
        .channel("broken:*", || -> Probe { panic!("as asked, in the factory") })
}

fn kit() -> (Kit, Spy) {
    let spy = Spy::default();
    (Kit::new(mount(&spy)), spy)
}

/// A kit and a client that has joined `room:a` as `["1", "1", …]`.
fn joined() -> (Kit, Spy, Client) {
    let (kit, spy) = kit();
    let client = kit.connect();
    client.join("room:a", json!({})).expect("everybody may join");
    (kit, spy, client)
}

/// Sends a message as it is.
fn tell(client: &Client, message: Value) {
    client.send(MessageKind::Text, message.to_string().as_bytes());
}

/// What the client got since the last time, as arrays of five.
fn heard(client: &Client) -> Vec<Value> {
    std::iter::from_fn(|| client.next())
        .map(|it| json!([it.join_ref, it.reference, it.topic, it.event, it.payload]))
        .collect()
}

fn exchange(client: &Client, message: Value) -> Vec<Value> {
    tell(client, message);
    heard(client)
}

/// A reply, as [`heard`] shows it.
fn reply(join_ref: impl Into<Value>, reference: impl Into<Value>, topic: &str, status: &str, response: Value) -> Value {
    let payload = json!({ "status": status, "response": response });
    json!([join_ref.into(), reference.into(), topic, "phx_reply", payload])
}

fn unmatched(reference: impl Into<Value>, topic: &str) -> Value {
    reply(Value::Null, reference, topic, "error", json!({ "reason": "unmatched topic" }))
}

/// `phx_close`, as [`heard`] shows it.
fn close(join_ref: impl Into<Value>, topic: &str) -> Value {
    let join_ref = join_ref.into();
    json!([join_ref, join_ref, topic, "phx_close", {}])
}

/// `phx_error`, as [`heard`] shows it.
fn crash(join_ref: impl Into<Value>, topic: &str) -> Value {
    let join_ref = join_ref.into();
    json!([join_ref, join_ref, topic, "phx_error", { "reason": "channel_crash" }])
}

fn bye(join_ref: impl Into<Value>, topic: &str) -> Value {
    json!([join_ref.into(), null, topic, "bye", {}])
}
