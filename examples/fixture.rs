//! A server that any test of the Phoenix wire can talk to: one of everything that a channel can do.
//!
//!     cargo run --example fixture -- --port 4010
//!
//! It prints where it listens; SIGTERM drains it. Sockets: `/socket`, `/quick` (idle after 1.5 s), `/tok` (auth token; it has
//! to be what the parameter `want` says, if there is one),
//! `/conn` (origin of the connection itself). Channels: `room:*`, `realtime:*`, `exact`.
#![forbid(unsafe_code)]

use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::error::Error;
use std::time::Duration;
use std::{env, thread};
use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, OwnedPayload, Payload, Presence, Reason, UserSocket};
use wingbeat::endpoint::{Connect, ConnectInfo, Endpoint, LongPollOptions, Mount, WebSocketOptions};
use wingbeat::http::OriginPolicy;
use wingbeat::{Drain, Response};

struct Room {
    presence: Presence,
    /// What the join brought, for a topic that tracks.
    joined_with: Option<Tracked>,
}

#[derive(Deserialize)]
struct Tracked {
    #[serde(default = "first_user")]
    key: String,
    #[serde(default)]
    meta: Map<String, Value>,
}

fn first_user() -> String {
    "u1".to_owned()
}

impl Channel for Room {
    const INTERCEPT: &'static [&'static str] = &["intercepted"];

    fn join(&mut self, ctx: &mut JoinCtx<'_>, topic: &str, payload: Payload<'_>) -> Join {
        match topic.strip_prefix("room:").unwrap_or_default() {
            name if name.starts_with("deny") => {
                Join::refuse(json!({ "reason": "unauthorized", "got": value(payload) }))
            }
            "crash" => panic!("a join that crashes"),
            "slow" => {
                let later = ctx.later();
                thread::spawn(move || {
                    thread::sleep(Duration::from_secs(3));
                    let _ = later.ok(Payload::EMPTY);
                });
                Join::Later
            }
            "reply" => Join::reply(json!({ "joined": true, "p": value(payload) })),
            name if name.starts_with("pres") => {
                self.joined_with = payload.parse().ok();
                Join::Ok
            }
            _ => Join::Ok,
        }
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>) {
        let Some(Tracked { key, meta }) = self.joined_with.take() else { return };
        ctx.track(&self.presence, &key, &meta).expect("a new channel tracks nothing yet");
        ctx.push("presence_state", self.presence.list(ctx.topic()));
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "echo" => return Outcome::ok(payload),
            "err" => return Outcome::error(payload),
            "custom" => return Outcome::reply("weird_status", payload),
            "status_only" => return Outcome::ok(Payload::EMPTY),
            "list" => return Outcome::ok([1, 2, 3]),
            "str" => return Outcome::ok("str"),
            "shout" => _ = ctx.broadcast("shout", payload),
            "shout_from" => _ = ctx.broadcast_from("shout", payload),
            "shout_reply" => {
                ctx.broadcast("shout", payload);
                return Outcome::ok(Payload::EMPTY);
            }
            "shout_bin" => _ = ctx.broadcast("bcast_bin", Payload::Binary(&[1, 2, 3])),
            "push" => _ = ctx.push("pushed", payload),
            "push_bin" => {
                ctx.push("pushed_bin", payload);
                return Outcome::ok(payload);
            }
            "intercept" => _ = ctx.broadcast("intercepted", payload),
            "async" => {
                let (reply, later) = (ctx.reply_to().expect("a message came in"), OwnedPayload::from(payload));
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(50));
                    let _ = reply.ok(later);
                });
            }
            "crash" => panic!("a callback that crashes"),
            "stop_normal" => return Outcome::Stop(Reason::Normal),
            "stop_other" => return Outcome::Stop(Reason::Other("because".into())),
            "stop_shutdown" => return Outcome::ok(json!({ "bye": true })).and_stop(Reason::Shutdown),
            "exit_normal" => return Outcome::Stop(Reason::Crashed),
            "disconnect_me" => {
                let id = ctx.id().map(str::to_owned);
                id.into_iter().for_each(|id| _ = ctx.disconnect(&id));
            }
            "update" => {
                let Ok(Tracked { key, meta }) = payload.parse() else { return Outcome::Unhandled };
                return match ctx.update(&self.presence, &key, &meta) {
                    Ok(_) => Outcome::ok(Payload::EMPTY),
                    Err(error) => Outcome::error(json!({ "reason": error.to_string() })),
                };
            }
            "plist" => return Outcome::ok(self.presence.list(ctx.topic())),
            _ => return Outcome::Unhandled,
        }
        Outcome::NoReply
    }

    fn handle_out(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        let mut object: Map<String, Value> = payload.parse().unwrap_or_default();
        object.insert("seen".to_owned(), true.into());
        ctx.push(event, object);
        Outcome::NoReply
    }
}

/// A payload to put into another: JSON as it is.
fn value(payload: Payload<'_>) -> Value {
    match payload.parse::<&RawValue>() {
        Ok(json) => serde_json::from_str(json.get()).unwrap_or_default(),
        Err(_) => json!(payload.as_bytes()),
    }
}

fn connect(info: &ConnectInfo<'_>) -> Connect {
    let is = |name| info.param(name) == Some("1");
    match info.param("uid") {
        _ if is("reject") => Connect::Refuse,
        _ if is("rl") => Connect::Error("rate_limit".into()),
        _ if is("raise") => panic!("a connect that crashes"),
        Some(uid) => Connect::accept().id(format!("users:{uid}")),
        None => Connect::accept(),
    }
}

/// Refuses also who brings another auth token than the parameter `want` says.
fn connect_with_token(info: &ConnectInfo<'_>) -> Connect {
    match info.param("want") {
        Some(wanted) if info.auth_token() != Some(wanted) => Connect::Refuse,
        _ => connect(info),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let port = match arguments.iter().position(|argument| argument == "--port") {
        Some(at) => arguments.get(at + 1).ok_or("--port wants a number")?.parse::<u16>()?,
        None => 4010,
    };
    let presence = Presence::new();
    let mount = || {
        let presence = presence.clone();
        let room = move || Room { presence: presence.clone(), joined_with: None };
        let socket = UserSocket::new()
            .channel("room:*", room.clone())
            .channel("realtime:*", room.clone())
            .channel("exact", room);
        Mount::new(socket).connect(connect)
    };
    let too_many = |_: &wingbeat::Request<'_>, reason: &str| match reason {
        "rate_limit" => Response::text(429, "Too many requests"),
        _ => Response::text(403, ""),
    };
    let quick = WebSocketOptions { timeout: Duration::from_millis(1500), ..WebSocketOptions::default() };
    let quick_poll = LongPollOptions { window: Duration::from_millis(500), ..LongPollOptions::default() };
    let endpoint = Endpoint::new()
        .check_origin(OriginPolicy::list(["//localhost", "//*.example.com"])?)
        .socket(
            "/socket",
            mount()
                .websocket(WebSocketOptions { message_bytes: 1_000_000, ..WebSocketOptions::default() })
                .longpoll(LongPollOptions::default())
                .on_error(too_many),
        )
        .socket("/quick", mount().websocket(quick).longpoll(quick_poll))
        .socket("/tok", mount().connect(connect_with_token).longpoll(LongPollOptions::default()).auth_token(true))
        .socket("/conn", mount().check_origin(OriginPolicy::Conn))
        .not_found(|_| Response::text(404, "nf"));
    let serving = endpoint.spawn(format!("127.0.0.1:{port}"))?;
    let address = serving.running().tcp_address().ok_or("TCP was asked for")?;
    println!("listening on {address}");
    let (handle, mut signals) = (serving.handle().clone(), Signals::new([SIGTERM, SIGINT])?);
    thread::spawn(move || signals.forever().next().inspect(|_| handle.drain(Drain::default())));
    serving.join()?;
    Ok(())
}
