//! The channel of the order property: it does what its clients' events say.
#![forbid(unsafe_code)]

use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wingbeat::channels::{
    Channel, Ctx, Info, Join, JoinCtx, JoinRef, Outcome, Payload, Presence, Reason, ReplyRef, UserSocket,
};
use wingbeat::endpoint::{Connect, Endpoint, Mount};

/// What waits for the test to answer it.
#[derive(Clone, Default)]
pub struct Promises {
    pub joins: Arc<Mutex<Vec<JoinRef>>>,
    /// With the ref as the client wrote it, and the client.
    pub replies: Arc<Mutex<Vec<(String, ReplyRef)>>>,
}

pub struct Room {
    promises: Promises,
    presence: Presence,
    timed: Vec<ReplyRef>,
    who: String,
}

/// The name a client connected with.
#[derive(Clone)]
struct Name(String);

pub fn endpoint(promises: &Promises, presence: &Presence) -> Endpoint {
    let (promises, presence) = (promises.clone(), presence.clone());
    let room =
        move || Room { promises: promises.clone(), presence: presence.clone(), timed: Vec::new(), who: String::new() };
    let mount = Mount::new(UserSocket::new().channel("room:*", room)).connect(|info| {
        let name = info.param("name").unwrap_or("nobody").to_owned();
        Connect::accept().id(format!("users:{name}")).assign(Name(name))
    });
    Endpoint::new().socket("/socket", mount)
}

impl Channel for Room {
    const INTERCEPT: &'static [&'static str] = &["loud"];

    fn join(&mut self, ctx: &mut JoinCtx<'_>, _: &str, payload: Payload<'_>) -> Join {
        self.who = ctx.assigns().get::<Name>().expect("connect gave it").0.clone();
        let how: Value = payload.parse().expect("JSON");
        match how["how"].as_str() {
            Some("slow") => {
                self.promises.joins.lock().unwrap().push(ctx.later());
                Join::Later
            }
            Some("refuse") => Join::refuse(json!({ "reason": "no" })),
            Some("panic") => std::panic::panic_any("scripted"),
            Some("reply") => Join::reply(json!({ "hello": self.who })),
            _ => Join::Ok,
        }
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>) {
        ctx.push("welcome", json!({}));
        let presence = self.presence.clone();
        ctx.track(&presence, &self.who, &json!({ "topic": ctx.topic() })).expect("it is not tracked");
        ctx.push("presence_state", presence.list(ctx.topic()).payload());
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "echo" => Outcome::ok(payload),
            "none" => Outcome::NoReply,
            "later" => {
                let reply = ctx.reply_to().expect("there is a message");
                self.promises.replies.lock().unwrap().push((payload.as_json().expect("JSON").to_owned(), reply));
                Outcome::NoReply
            }
            "timer" => {
                self.timed.push(ctx.reply_to().expect("there is a message"));
                ctx.set_timer(Duration::from_millis(20), self.timed.len() as u64 - 1).expect("there is room");
                Outcome::NoReply
            }
            "say" => {
                ctx.broadcast("said", payload);
                Outcome::ok(payload)
            }
            "others" => {
                ctx.broadcast_from("said", payload);
                Outcome::ok(payload)
            }
            "loud" => {
                ctx.broadcast("loud", payload);
                Outcome::ok(payload)
            }
            "update" => {
                let presence = self.presence.clone();
                ctx.update(&presence, &self.who, &json!({ "updated": true })).expect("it is tracked");
                Outcome::ok(payload)
            }
            "whisper" => {
                let to: Value = payload.parse().expect("JSON");
                ctx.push_to(to["to"].as_str().expect("an id"), "whispered", payload);
                Outcome::ok(payload)
            }
            "crash" => std::panic::panic_any("scripted"),
            "stop" => Outcome::ok(payload).and_stop(Reason::Normal),
            _ => Outcome::Unhandled,
        }
    }

    fn handle_info(&mut self, ctx: &mut Ctx<'_>, info: Info<'_>) -> Outcome {
        if let Info::Timer(at) = info {
            ctx.reply(&self.timed[at as usize], "ok", json!({ "timed": true }));
        }
        Outcome::NoReply
    }

    fn terminate(&mut self, ctx: &mut Ctx<'_>, _: &Reason) {
        ctx.push("bye", json!({}));
        ctx.broadcast_from("left", json!({ "who": self.who }));
    }
}
