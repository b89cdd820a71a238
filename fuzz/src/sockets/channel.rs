//! Channels that do what their client says, and note it.
#![forbid(unsafe_code)]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::{cell::RefCell, panic::resume_unwind, time::Duration};
use wingbeat::channels::{
    Channel, ChannelHandle, Ctx, Info, Join, JoinCtx, JoinRef, Outcome, Payload, Reason, ReplyRef, TimerKey,
};

/// Which connection a channel belongs to, among its assigns.
pub(super) struct Connection(pub(super) u128);

/// What channels did, and what they gave away.
#[derive(Default)]
pub(super) struct Calls {
    joined: BTreeSet<(u128, String)>,
    /// Connection, topic of the channel, topic that it watches.
    watched: BTreeSet<(u128, String, String)>,
    /// Whose timer a token is.
    timers: BTreeMap<u64, (u128, String)>,
    next_token: u64,
    joins: Vec<JoinRef>,
    replies: Vec<(u128, ReplyRef, String)>,
    handles: Vec<ChannelHandle>,
}

thread_local! {
    static CALLS: RefCell<Calls> = RefCell::default();
}

pub(super) fn calls<T>(look: impl FnOnce(&mut Calls) -> T) -> T {
    CALLS.with_borrow_mut(look)
}

impl Calls {
    pub(super) fn joined_by(&self, id: u128) -> BTreeSet<String> {
        self.joined.iter().filter(|(by, _)| *by == id).map(|(_, topic)| topic.clone()).collect()
    }

    pub(super) fn watched_by(&self, id: u128) -> BTreeSet<String> {
        self.watched.iter().filter(|(by, ..)| *by == id).map(|(.., topic)| topic.clone()).collect()
    }

    pub(super) fn timers_of(&self, id: u128) -> usize {
        self.timers.values().filter(|(by, _)| *by == id).count()
    }

    /// Lets somebody in, or not, or never answers.
    pub(super) fn answer_join(&mut self, operand: usize) {
        let Some(at) = operand.checked_rem(self.joins.len()) else { return };
        let join = self.joins.swap_remove(at);
        match operand / 8 % 4 {
            0 => join.ok(json!({})).expect("there is room"),
            1 => join.refuse(json!({})).expect("there is room"),
            2 => {
                join.refuse(json!({})).expect("there is room");
                join.ok(json!({})).expect("there is room");
            }
            _ => {}
        }
    }

    pub(super) fn pick_reply(&mut self, operand: usize) -> Option<(u128, ReplyRef, String)> {
        let at = operand.checked_rem(self.replies.len())?;
        Some(if operand > 127 { self.replies[at].clone() } else { self.replies.swap_remove(at) })
    }

    pub(super) fn tell(&mut self, operand: usize) {
        if let Some(at) = operand.checked_rem(self.handles.len()) {
            self.handles[at].send(operand % 8 == 7).expect("there is room");
        }
    }
}

#[derive(Default)]
pub(super) struct Scripted {
    busy: bool,
    timers: Vec<(u64, TimerKey)>,
}

impl Channel for Scripted {
    fn join(&mut self, ctx: &mut JoinCtx<'_>, _: &str, payload: Payload<'_>) -> Join {
        let wish = payload.parse::<Value>().expect("JSON");
        calls(|calls| calls.handles.push(ctx.handle()));
        match wish["how"].as_str() {
            Some("reply") => Join::reply([1]),
            Some("refuse") => Join::refuse(json!({})),
            Some("panic") => crash(),
            Some("later") => {
                calls(|calls| calls.joins.push(ctx.later()));
                Join::Later
            }
            Some("forgotten") => {
                drop(ctx.later());
                Join::Later
            }
            Some("nobody") => Join::Later,
            Some("busy") => {
                self.busy = true;
                Join::Ok
            }
            _ => Join::Ok,
        }
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>) {
        let fresh = calls(|calls| calls.joined.insert(place(ctx)));
        assert!(fresh, "the topic is joined twice");
        if self.busy {
            ctx.push("welcome", json!({}));
            ctx.broadcast("came", json!({}));
        }
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        let wish = payload.parse::<Value>().expect("JSON");
        let topic = wish["topic"].as_str().expect("a topic");
        let (id, own) = place(ctx);
        match event {
            "echo" => return Outcome::ok(payload),
            "quiet" => {}
            "later" => {
                let reference = wish["ref"].as_str().expect("a ref").to_owned();
                let late = ctx.reply_to().expect("a message came in");
                calls(|calls| calls.replies.push((id, late, reference)));
            }
            "push" => drop(ctx.push("pushed", payload)),
            "broadcast" => drop(ctx.broadcast_to(topic, "said", payload)),
            "broadcast_from" => drop(ctx.broadcast_from("said", payload)),
            "broadcast and reply" => {
                ctx.broadcast("said", payload);
                return Outcome::error(json!(null));
            }
            "spied" => drop(ctx.broadcast("spied", payload)),
            "watch" if ctx.subscribe(topic).is_ok() => {
                calls(|calls| calls.watched.insert((id, own, topic.to_owned())));
            }
            "watch" => {}
            "unwatch" => {
                ctx.unsubscribe(topic);
                calls(|calls| calls.watched.remove(&(id, own, topic.to_owned())));
            }
            "timer" => self.set_timer(ctx),
            "cancel" => {
                if let Some((token, key)) = self.timers.pop() {
                    ctx.cancel_timer(key);
                    calls(|calls| calls.timers.remove(&token));
                }
            }
            "push_to" => drop(ctx.push_to("id:0", "direct", payload)),
            "disconnect" => drop(ctx.disconnect(topic)),
            "stop" => return Outcome::Stop(Reason::Normal),
            "stop reply" => return Outcome::ok(json!({})).and_stop(Reason::Other("strange".into())),
            "panic" => crash(),
            _ => return Outcome::Unhandled,
        }
        Outcome::NoReply
    }

    fn handle_info(&mut self, ctx: &mut Ctx<'_>, info: Info<'_>) -> Outcome {
        match info {
            Info::Timer(token) => {
                let owner = calls(|calls| calls.timers.remove(&token));
                assert_eq!(owner, Some(place(ctx)), "a timer that is not armed, or another channel's");
                ctx.push("timer", json!({}));
            }
            Info::Message(message) if message.downcast_ref() == Some(&true) => return Outcome::ok(json!({})),
            Info::Broadcast { topic, event, .. } => {
                let (id, own) = place(ctx);
                assert!(calls(|calls| calls.watched.contains(&(id, own, topic.to_owned()))), "{topic} is not watched");
                if event == "stop" {
                    return Outcome::Stop(Reason::Shutdown);
                }
                ctx.push("heard", json!({}));
            }
            _ => drop(ctx.push("message", json!({}))),
        }
        Outcome::NoReply
    }

    fn terminate(&mut self, ctx: &mut Ctx<'_>, _: &Reason) {
        let (id, own) = place(ctx);
        calls(|calls| {
            assert!(calls.joined.remove(&(id, own.clone())), "it had not joined, or ends twice");
            calls.watched.retain(|(by, topic, _)| (*by, topic) != (id, &own));
            calls.timers.retain(|_, (by, topic)| (*by, &*topic) != (id, &own));
        });
        ctx.push("bye", json!({}));
        ctx.broadcast("went", json!({}));
        // What is begun now must not stay.
        let _ = ctx.subscribe("t:2");
        ctx.set_timer(Duration::ZERO, 0);
        if self.busy {
            crash();
        }
    }
}

impl Scripted {
    fn set_timer(&mut self, ctx: &mut Ctx<'_>) {
        let token = calls(|calls| {
            calls.next_token += 1;
            calls.timers.insert(calls.next_token, place(ctx));
            calls.next_token
        });
        match ctx.set_timer(Duration::ZERO, token) {
            Ok(key) => self.timers.push((token, key)),
            Err(_) => drop(calls(|calls| calls.timers.remove(&token))),
        }
    }
}

fn place(ctx: &Ctx<'_>) -> (u128, String) {
    let Connection(id) = ctx.assigns().get().expect("every connection has one");
    (*id, ctx.topic().to_owned())
}

/// A panic that the fuzzer's hook does not see: the socket has to live with it.
fn crash() -> ! {
    resume_unwind(Box::new(()))
}

/// As [`Scripted`], but some broadcasts go through it.
#[derive(Default)]
pub(super) struct Censored(Scripted);

impl Channel for Censored {
    const INTERCEPT: &'static [&'static str] = &["spied", "went"];

    fn join(&mut self, ctx: &mut JoinCtx<'_>, topic: &str, payload: Payload<'_>) -> Join {
        self.0.join(ctx, topic, payload)
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>) {
        self.0.joined(ctx);
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        self.0.handle_in(ctx, event, payload)
    }

    fn handle_out(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        assert!(Self::INTERCEPT.contains(&event));
        if payload == Payload::EMPTY && event == "spied" {
            crash();
        }
        ctx.push(event, payload);
        Outcome::ok(json!({}))
    }

    fn handle_info(&mut self, ctx: &mut Ctx<'_>, info: Info<'_>) -> Outcome {
        self.0.handle_info(ctx, info)
    }

    fn terminate(&mut self, ctx: &mut Ctx<'_>, reason: &Reason) {
        self.0.terminate(ctx, reason);
    }
}
