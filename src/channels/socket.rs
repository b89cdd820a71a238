//! [`Socket`]: one client's connection, which carries its channels (docs/phoenix-wire.md §3 and §4 name the rules).
#![forbid(unsafe_code)]

use super::channel::{AnyChannel, Info, Join, Outcome, Reason};
use super::context::{Assigns, Ctx, DISCONNECT, JoinCtx, is_reserved, read_direct_event};
use super::env::{Env, Meta, untracked};
use super::log::{Seldom, brief, panicked};
use super::outlet::{Content, Letter, Outlet, Refused, Sent, Service, TimerKey};
use super::user_socket::UserSocket;
use super::{Broadcast, Envelope, Json, Outgoing, OwnedPayload, Payload, Slot};
use crate::proto::{CloseCode, MessageKind};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use std::{fmt, mem, sync::Arc};
use tracing::{Level, field};

/// The server's side of one `phoenix` socket: it routes what comes in to channels, and acts on an [`Outlet`].
pub struct Socket {
    env: Env,
    channels: Vec<Joined>,
    waiting: Option<Box<Waiting>>,
    next_serial: u32,
    disconnected: bool,
}

struct Joined {
    meta: Meta,
    channel: Box<dyn AnyChannel>,
}

/// A join that is answered later.
struct Waiting {
    pending: Pending,
    channel: Box<dyn AnyChannel>,
    /// What fires when nobody answers.
    number: u64,
    clock: TimerKey,
}

/// A join until its reply.
struct Pending {
    meta: Meta,
    reference: Slot<'static>,
    /// The `join_ref` of the channel that this join took the place of.
    replaced: Option<(Box<str>, Slot<'static>)>,
    /// When it began, if the log is to have its duration.
    begun: Option<Instant>,
}

impl Socket {
    /// A socket of a mount, after `connect` accepted it. `serializer` is what [`Versions::negotiate`](super::Versions)
    /// gave.
    pub fn new(mount: Arc<UserSocket>, serializer: u8, assigns: Assigns, id: Option<String>) -> Socket {
        let id = id.map(String::into_boxed_str);
        let env = Env::new(mount, serializer, assigns, id);
        Socket { env, channels: Vec::new(), waiting: None, next_serial: 0, disconnected: false }
    }

    /// To be called once, before anything else. Without room for the subscription to the socket's id, the connection is
    /// closed with 1013.
    pub fn open(&mut self, outlet: &mut dyn Outlet) {
        if let Some(id) = &self.env.id
            && outlet.subscribe(id, Service::Socket).is_err()
        {
            tracing::debug!(id = &**id, "no room for the subscription to a socket's id");
            outlet.close(CloseCode::TRY_AGAIN_LATER); // it could not be disconnected by id
        }
    }

    /// The id that `connect` gave.
    pub fn id(&self) -> Option<&str> {
        self.env.id.as_deref()
    }

    /// Whether it was closed by a `disconnect` on its id.
    pub fn is_disconnected(&self) -> bool {
        self.disconnected
    }

    /// Channels that are joined.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// A message of the client. One that cannot be read closes the connection with 1011.
    pub fn message(&mut self, outlet: &mut dyn Outlet, kind: MessageKind, bytes: &[u8]) {
        let mount = Arc::clone(&self.env.mount);
        match mount.versions().serializer(self.env.serializer).decode(kind, bytes) {
            Ok(envelope) => self.route(outlet, &envelope),
            Err(error) => {
                tracing::debug!(%error, "a client's message cannot be read");
                outlet.close(CloseCode::INTERNAL);
            }
        }
    }

    /// The decision table of docs/phoenix-wire.md §3, in its order.
    fn route(&mut self, outlet: &mut dyn Outlet, envelope: &Envelope<'_>) {
        let (Some(topic), Some(event)) = (envelope.topic.as_text(), envelope.event.as_text()) else {
            return self.unmatched(outlet, envelope);
        };
        if topic == "phoenix" && event == "heartbeat" {
            return self.env.answer(outlet, &Slot::NULL, envelope, "ok", Payload::EMPTY);
        }
        let refs = [&envelope.join_ref, &envelope.reference];
        if event == "phx_join" && refs.iter().any(|slot| slot.size() > UserSocket::REF_BYTES) {
            tracing::debug!(topic = brief(topic), "the refs of a client's join are too long");
            return outlet.close(CloseCode::INTERNAL);
        }
        match (self.find(topic), event) {
            (None, "phx_join") => self.join(outlet, topic, envelope, None),
            (Some(at), "phx_join") => {
                let old = self.stop(outlet, at, &Reason::DuplicateJoin, false);
                self.join(outlet, topic, envelope, Some((topic.into(), old)));
            }
            (Some(at), _) if !self.channels[at].meta.hears(&envelope.join_ref) => {}
            (Some(at), "phx_leave") => self.leave(outlet, at, envelope),
            (Some(at), _) => self.handle_in(outlet, at, (topic, event), envelope),
            (None, "phx_leave") => self.env.answer(outlet, &envelope.join_ref, envelope, "ok", Payload::EMPTY),
            (None, _) => self.unmatched(outlet, envelope),
        }
    }

    fn handle_in(&mut self, outlet: &mut dyn Outlet, at: usize, (topic, event): (&str, &str), envelope: &Envelope<'_>) {
        let begun = tracing::enabled!(Level::DEBUG).then(Instant::now);
        self.call(outlet, at, Some(&envelope.reference), |channel, ctx| {
            channel.handle_in(ctx, event, envelope.payload)
        });
        if let Some(begun) = begun {
            let (topic, event, duration) = (brief(topic), brief(event), begun.elapsed());
            tracing::debug!(topic, event, ?duration, "channel_handled_in");
        }
    }

    fn unmatched(&mut self, outlet: &mut dyn Outlet, envelope: &Envelope<'_>) {
        let response = Payload::Json(Json::trusted(r#"{"reason":"unmatched topic"}"#));
        self.env.answer(outlet, &Slot::NULL, envelope, "error", response);
    }

    fn find(&self, topic: &str) -> Option<usize> {
        self.channels.iter().position(|joined| *joined.meta.topic == *topic)
    }

    fn find_serial(&self, serial: u32) -> Option<usize> {
        self.channels.iter().position(|joined| joined.meta.serial == serial)
    }

    // ---- joining --------------------------------------------------------------------------------------------

    fn join(
        &mut self,
        outlet: &mut dyn Outlet,
        topic: &str,
        envelope: &Envelope<'_>,
        replaced: Option<(Box<str>, Slot<'static>)>,
    ) {
        let mount = Arc::clone(&self.env.mount);
        let Some((index, route)) = mount.route(topic) else {
            tracing::debug!(topic = brief(topic), "a client wants to join a topic that no route matches");
            self.unmatched(outlet, envelope);
            return self.env.replaced(outlet, replaced);
        };
        if self.channels.len() >= mount.max_channels() {
            tracing::debug!(topic = brief(topic), "a client wants to join more channels than one socket may");
            let response = Payload::Json(Json::trusted(r#"{"reason":"too many channels joined"}"#));
            self.env.answer(outlet, &envelope.join_ref, envelope, "error", response);
            return self.env.replaced(outlet, replaced);
        }
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let (later, begun) = (Cell::new(false), tracing::enabled!(Level::INFO).then(Instant::now));
        let mut ctx = JoinCtx { outlet: &*outlet, env: &self.env, serial, later: &later };
        let attempt = AssertUnwindSafe(|| {
            let mut channel = route.channel();
            (channel.join(&mut ctx, topic, envelope.payload), channel)
        });
        let tried = catch_unwind(attempt).ok();
        let join_ref = envelope.join_ref.clone().into_owned();
        let reference = envelope.reference.clone().into_owned();
        let stand_in = join_ref.is_null().then(|| Box::new(reference.clone()));
        let meta = Meta { topic: topic.into(), join_ref, stand_in, serial, route: index, failed: false, present: None };
        let pending = Pending { meta, reference, replaced, begun };
        match tried {
            Some((Join::Ok, channel)) => self.admit(outlet, pending, channel, Payload::EMPTY),
            Some((Join::Reply(reply), channel)) => self.admit(outlet, pending, channel, reply.as_payload()),
            Some((Join::Refuse(why), _)) => self.refuse(outlet, pending, why.as_payload()),
            Some((Join::Later, channel)) if later.get() => {
                self.wait(outlet, pending, channel);
            }
            Some((Join::Later, _)) => self.refuse(outlet, pending, join_crashed()),
            None => {
                panicked(topic, "join");
                self.refuse(outlet, pending, join_crashed());
            }
        }
    }

    /// Holds the connection until somebody answers the join, or the time for it is up.
    fn wait(&mut self, outlet: &mut dyn Outlet, pending: Pending, channel: Box<dyn AnyChannel>) {
        let patience = self.env.mount.join_patience();
        match self.env.clock(outlet, patience, pending.meta.serial) {
            Ok((number, clock)) => {
                self.waiting = Some(Box::new(Waiting { pending, channel, number, clock }));
                outlet.hold();
            }
            Err(Refused) => self.refuse(outlet, pending, join_crashed()),
        }
    }

    /// The subscription first, so that nothing is missed, then the reply, then whatever else.
    fn admit(&mut self, outlet: &mut dyn Outlet, pending: Pending, channel: Box<dyn AnyChannel>, reply: Payload<'_>) {
        let service = self.env.service(&pending.meta.topic, pending.meta.route);
        if let Err(error) = outlet.subscribe(&pending.meta.topic, service) {
            tracing::debug!(topic = brief(&pending.meta.topic), %error, "a join is refused");
            let why = Payload::Json(Json::trusted(r#"{"reason":"no room for another subscription"}"#));
            return self.refuse(outlet, pending, why);
        }
        if self.decided(outlet, &pending, "ok", reply) == Sent::Invalid {
            self.settle(outlet, &pending.meta.topic);
            return self.refuse(outlet, pending, join_crashed());
        }
        let Pending { meta, replaced, .. } = pending;
        self.channels.push(Joined { meta, channel });
        self.env.replaced(outlet, replaced);
        self.call(outlet, self.channels.len() - 1, None, |channel, ctx| {
            channel.joined(ctx);
            Outcome::NoReply
        });
    }

    fn refuse(&mut self, outlet: &mut dyn Outlet, pending: Pending, why: Payload<'_>) {
        if self.decided(outlet, &pending, "error", why) == Sent::Invalid {
            let _ = self.decided(outlet, &pending, "error", join_crashed());
        }
        self.env.replaced(outlet, pending.replaced);
    }

    /// The reply to a join.
    fn decided(&self, outlet: &mut dyn Outlet, pending: &Pending, status: &str, response: Payload<'_>) -> Sent {
        let Pending { meta, reference, begun, .. } = pending;
        let duration = begun.map(|begun| field::debug(begun.elapsed()));
        tracing::info!(topic = brief(&meta.topic), status, duration, "channel_joined");
        let (join_ref, topic) = (&meta.join_ref, &Slot::from(&*meta.topic));
        self.env.send(outlet, &Outgoing::Reply { join_ref, reference, topic, status, response })
    }

    // ---- calling --------------------------------------------------------------------------------------------

    /// The one place that runs a callback of a joined channel.
    fn call(
        &mut self,
        outlet: &mut dyn Outlet,
        at: usize,
        reference: Option<&Slot<'_>>,
        run: impl FnOnce(&mut dyn AnyChannel, &mut Ctx<'_>) -> Outcome,
    ) {
        let Joined { meta, channel } = &mut self.channels[at];
        let mut ctx = Ctx { outlet: &mut *outlet, env: &mut self.env, meta, reference };
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut **channel, &mut ctx)));
        let outcome = outcome.unwrap_or_else(|_| {
            panicked(&self.channels[at].meta.topic, "after the join");
            Outcome::Stop(Reason::Crashed)
        });
        self.unwatch(outlet);
        if mem::take(&mut self.channels[at].meta.failed) {
            static INVALID: Seldom = Seldom::new();
            if let Some(times) = INVALID.turn() {
                let topic = brief(&self.channels[at].meta.topic);
                tracing::warn!(topic, times, "a channel sent what cannot be sent");
            }
            self.stop(outlet, at, &Reason::Crashed, true);
            return;
        }
        match outcome {
            Outcome::NoReply => {}
            Outcome::Reply(status, response) => {
                if self.reply(outlet, at, reference, &status, &response) == Sent::Invalid {
                    self.stop(outlet, at, &Reason::Crashed, true);
                }
            }
            Outcome::Stop(reason) => {
                self.stop(outlet, at, &reason, true);
            }
            Outcome::StopReply(reason, status, response) => {
                let sent = self.reply(outlet, at, reference, &status, &response);
                self.stop(outlet, at, if sent == Sent::Invalid { &Reason::Crashed } else { &reason }, true);
            }
            Outcome::Unhandled => {
                let topic = brief(&self.channels[at].meta.topic);
                tracing::debug!(topic, "a client pushed an event that its channel does not know");
                self.stop(outlet, at, &Reason::Crashed, true);
            }
        }
    }

    fn reply(
        &mut self,
        outlet: &mut dyn Outlet,
        at: usize,
        reference: Option<&Slot<'_>>,
        status: &str,
        response: &OwnedPayload,
    ) -> Sent {
        let Some(reference) = reference else { return Sent::Queued };
        let meta = &self.channels[at].meta;
        let topic = &Slot::from(&*meta.topic);
        let response = response.as_payload();
        self.env.send(outlet, &Outgoing::Reply { join_ref: meta.push_ref(), reference, topic, status, response })
    }

    /// Does what [`Ctx::unsubscribe`] noted.
    fn unwatch(&mut self, outlet: &mut dyn Outlet) {
        while let Some(topic) = self.env.unwatched.pop() {
            self.settle(outlet, &topic);
        }
    }

    /// Brings the subscription to a topic in line with who wants it.
    fn settle(&self, outlet: &mut dyn Outlet, topic: &str) {
        match self.find(topic) {
            Some(at) => {
                let service = self.env.service(topic, self.channels[at].meta.route);
                let _ = outlet.subscribe(topic, service); // it is subscribed: nothing can be refused
            }
            None if self.env.wants(topic) => {}
            None => outlet.unsubscribe(topic),
        }
    }

    // ---- ending ---------------------------------------------------------------------------------------------

    /// The reply, `phx_close`, then whatever `terminate` sends.
    fn leave(&mut self, outlet: &mut dyn Outlet, at: usize, envelope: &Envelope<'_>) {
        let join_ref = self.channels[at].meta.push_ref().clone();
        self.env.answer(outlet, &join_ref, envelope, "ok", Payload::EMPTY);
        self.stop(outlet, at, &Reason::Left, true);
    }

    /// Ends a channel and returns its `join_ref`. A graceful end is told before `terminate`, a crash after it.
    fn stop(&mut self, outlet: &mut dyn Outlet, at: usize, reason: &Reason, tell: bool) -> Slot<'static> {
        let mut joined = self.channels.remove(at);
        let graceful = reason.is_graceful();
        let serial = joined.meta.serial;
        self.env.forget(serial);
        self.settle(outlet, &joined.meta.topic);
        self.unwatch(outlet);
        if tell && graceful {
            self.env.notice(outlet, &joined.meta, "phx_close", "{}");
        }
        self.terminate(outlet, &mut joined, reason);
        if tell && !graceful {
            self.env.notice(outlet, &joined.meta, "phx_error", r#"{"reason":"channel_crash"}"#);
        }
        joined.meta.join_ref
    }

    fn terminate(&mut self, outlet: &mut dyn Outlet, joined: &mut Joined, reason: &Reason) {
        let Joined { meta, channel } = joined;
        tracing::debug!(topic = brief(&meta.topic), %reason, "a channel ends");
        let mut ctx = Ctx { outlet: &mut *outlet, env: &mut self.env, meta, reference: None };
        if catch_unwind(AssertUnwindSafe(|| channel.terminate(&mut ctx, reason))).is_err() {
            panicked(&joined.meta.topic, "terminate");
        }
        if let Some(present) = joined.meta.present.take() {
            untracked(outlet, &joined.meta.topic, &present);
        }
        self.env.disarm(outlet, |timer| timer.serial == joined.meta.serial);
        self.env.forget(joined.meta.serial); // what it subscribed to just now
        self.unwatch(outlet);
    }

    /// The connection is over: every channel ends, without a word to the client.
    pub fn end(&mut self, outlet: &mut dyn Outlet, reason: &Reason) {
        if let Some(waits) = self.waiting.take() {
            outlet.cancel_timer(waits.clock);
        }
        while let Some(mut joined) = self.channels.pop() {
            self.terminate(outlet, &mut joined, reason);
        }
    }

    // ---- what the server brings -----------------------------------------------------------------------------

    /// A broadcast that the outlet did not send to the client by itself.
    pub fn delivery(&mut self, outlet: &mut dyn Outlet, topic: &str, kind: MessageKind, bytes: &[u8]) {
        let Some(broadcast) = Broadcast::read(kind, bytes) else {
            return tracing::debug!(
                topic = brief(topic),
                "a publication that is no broadcast went to the topic of channels"
            );
        };
        let Broadcast { event, payload } = broadcast;
        if self.env.id.as_deref() == Some(topic) && self.addressed(outlet, event, payload) {
            return;
        }
        if is_reserved(event) {
            return; // to the socket of another id: whoever listens on its topic is not meant
        }
        if let Some(at) = self.find(topic) {
            if self.env.mount.intercepts(self.channels[at].meta.route, event) {
                self.call(outlet, at, None, |channel, ctx| channel.handle_out(ctx, event, payload));
            } else {
                let _ = self.env.send(outlet, &Outgoing::Broadcast { topic, event, payload });
            }
        }
        self.inform(outlet, topic, event, payload, None);
    }

    /// Tells the channels that subscribed to a topic themselves, but for the one that sent it.
    fn inform(&mut self, outlet: &mut dyn Outlet, topic: &str, event: &str, payload: Payload<'_>, from: Option<u32>) {
        let listens = |(to, by): &&(Box<str>, u32)| **to == *topic && Some(*by) != from;
        let listeners: Vec<u32> = self.env.watched.iter().filter(listens).map(|(_, by)| *by).collect();
        for serial in listeners {
            if let Some(at) = self.find_serial(serial) {
                let info = Info::Broadcast { topic, event, payload };
                self.call(outlet, at, None, |channel, ctx| channel.handle_info(ctx, info));
            }
        }
    }

    /// What comes on the topic of the socket's id; false if it is nothing that the socket knows.
    fn addressed(&mut self, outlet: &mut dyn Outlet, event: &str, payload: Payload<'_>) -> bool {
        if event == DISCONNECT {
            self.disconnected = true;
            self.end(outlet, &Reason::Disconnected);
            outlet.close(CloseCode::GOING_AWAY);
            return true;
        }
        let Some((topic, event)) = read_direct_event(event) else { return false };
        if let Some(at) = self.find(topic) {
            let (join_ref, reference) = (self.channels[at].meta.push_ref(), &Slot::NULL);
            let _ = self.env.send(outlet, &Outgoing::Push { join_ref, reference, topic, event, payload });
        }
        true
    }

    /// A timer of [`Outlet::set_timer`] is due.
    pub fn timer(&mut self, outlet: &mut dyn Outlet, serial: u32, token: u64) {
        if let Some(waits) = self.waiting.take_if(|waits| waits.number == token) {
            tracing::debug!(topic = brief(&waits.pending.meta.topic), "nobody answered a join in time");
            self.refuse(outlet, waits.pending, join_crashed());
            return outlet.release();
        }
        let Some(token) = self.env.fired(token) else { return };
        if let Some(at) = self.find_serial(serial) {
            self.call(outlet, at, None, |channel, ctx| channel.handle_info(ctx, Info::Timer(token)));
        }
    }

    /// What another thread sent.
    pub fn letter(&mut self, outlet: &mut dyn Outlet, letter: Letter) {
        match letter.0 {
            Content::Reply(late) => {
                let topic = &Slot::from(&*late.topic);
                let (status, response) = (&*late.status, late.response.as_payload());
                let (join_ref, reference) = (&late.join_ref, &late.reference);
                let _ = self.env.send(outlet, &Outgoing::Reply { join_ref, reference, topic, status, response });
            }
            Content::Info { serial, message } => {
                if let Some(at) = self.find_serial(serial) {
                    self.call(outlet, at, None, |channel, ctx| channel.handle_info(ctx, Info::Message(message)));
                }
            }
            Content::Overheard(heard) => {
                self.inform(outlet, &heard.topic, &heard.event, heard.payload.as_payload(), Some(heard.from));
            }
            Content::Join { serial, answer } => {
                let Some(waits) = self.waiting.take_if(|waits| waits.pending.meta.serial == serial) else {
                    return;
                };
                let Waiting { pending, channel, clock, .. } = *waits;
                outlet.cancel_timer(clock);
                match &answer {
                    Some(Ok(reply)) => self.admit(outlet, pending, channel, reply.as_payload()),
                    Some(Err(why)) => self.refuse(outlet, pending, why.as_payload()),
                    None => self.refuse(outlet, pending, join_crashed()),
                }
                outlet.release();
            }
        }
    }
}

fn join_crashed() -> Payload<'static> {
    Payload::Json(Json::trusted(r#"{"reason":"join crashed"}"#))
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = self.channels.iter().map(|joined| &*joined.meta.topic).collect::<Vec<_>>();
        f.debug_struct("Socket").field("id", &self.env.id).field("channels", &topics).finish_non_exhaustive()
    }
}
