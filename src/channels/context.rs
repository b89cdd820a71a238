//! What a channel's callbacks act through: [`Ctx`] and [`JoinCtx`].
#![forbid(unsafe_code)]

use super::env::{Env, Meta, Place, Present, publish, tell};
use super::outlet::{Content, Outlet, Overheard, Refused, Sent, Service, TimerKey};
use super::refs::{ChannelHandle, JoinRef, ReplyRef};
use super::{Json, Outgoing, Owner, Payload, PhxRef, Presence, Slot, ToPayload, TrackError};
use serde::Serialize;
use std::any::{Any, TypeId};
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::{fmt, mem, time::Duration};

/// Buffers of a worker for what is being written.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) payload: Vec<u8>,
    pub(super) message: Vec<u8>,
}

impl Scratch {
    /// Bytes of each buffer that are kept between messages.
    const KEEP: usize = 64 << 10;

    /// Gives back what one huge message needed.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.payload, &mut self.message] {
            if buffer.capacity() > Self::KEEP {
                buffer.clear();
                buffer.shrink_to(Self::KEEP);
            }
        }
    }
}

/// What `connect` found out about a client, for its channels: one value per type.
///
/// ```
/// # use wingbeat::channels::Assigns;
/// struct UserId(u64);
/// let assigns = Assigns::new().with(UserId(7));
/// assert_eq!(assigns.get::<UserId>().map(|id| id.0), Some(7));
/// ```
#[derive(Clone, Default)]
pub struct Assigns(Option<Rc<HashMap<TypeId, Box<dyn Any>>>>);

impl Assigns {
    /// Nothing. Costs no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value; one of the same type is replaced.
    ///
    /// # Panics
    /// If these assigns have been cloned: they are put together before they are given away.
    pub fn with<T: 'static>(mut self, value: T) -> Self {
        let map = Rc::get_mut(self.0.get_or_insert_default()).expect("assigns grow before they are shared");
        map.insert(TypeId::of::<T>(), Box::new(value));
        self
    }

    /// The value of this type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.as_ref()?.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

impl fmt::Debug for Assigns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assigns").field("len", &self.0.as_ref().map_or(0, |map| map.len())).finish()
    }
}

/// A joined channel, within a callback.
pub struct Ctx<'a> {
    pub(super) outlet: &'a mut dyn Outlet,
    pub(super) env: &'a mut Env,
    pub(super) meta: &'a mut Meta,
    /// Of the message that came in, if one did.
    pub(super) reference: Option<&'a Slot<'a>>,
}

impl Ctx<'_> {
    /// The topic of this channel.
    pub fn topic(&self) -> &str {
        &self.meta.topic
    }

    /// What `connect` found out about the client.
    pub fn assigns(&self) -> &Assigns {
        &self.env.assigns
    }

    /// The socket's id, if its mount gives one.
    pub fn id(&self) -> Option<&str> {
        self.env.id.as_deref()
    }

    /// Sends an event to this client. The payload is an object or bytes.
    pub fn push(&mut self, event: &str, payload: impl ToPayload) -> Sent {
        if is_reserved(event) {
            return self.invalid();
        }
        self.with_payload(payload, |ctx, payload| {
            let (join_ref, reference) = (ctx.meta.push_ref(), &Slot::NULL);
            let message = Outgoing::Push { join_ref, reference, topic: &ctx.meta.topic, event, payload };
            ctx.env.send(ctx.outlet, &message)
        })
    }

    /// Sends an event to all who have joined this topic, this client included, on all workers. It is encoded once per
    /// serializer that is in use.
    pub fn broadcast(&mut self, event: &str, payload: impl ToPayload) -> Sent {
        self.announce(None, true, event, payload)
    }

    /// As [`Ctx::broadcast`], to all but this channel: its client does not get it. Another channel of this client that
    /// subscribed to the topic ([`Ctx::subscribe`]) does.
    pub fn broadcast_from(&mut self, event: &str, payload: impl ToPayload) -> Sent {
        self.announce(None, false, event, payload)
    }

    /// Sends an event to all who have joined another topic.
    pub fn broadcast_to(&mut self, topic: &str, event: &str, payload: impl ToPayload) -> Sent {
        self.announce(Some(topic), true, event, payload)
    }

    /// Sends an event to one user: every socket of this id that has joined this topic.
    pub fn push_to(&mut self, id: &str, event: &str, payload: impl ToPayload) -> Sent {
        if is_reserved(event) {
            return self.invalid();
        }
        let event = direct_event(&self.meta.topic, event);
        self.publish(Some(id), true, &event, payload)
    }

    /// Closes every connection of the sockets of this id, with 1001: its users connect again.
    pub fn disconnect(&mut self, id: &str) -> Sent {
        self.publish(Some(id), true, DISCONNECT, Payload::EMPTY)
    }

    fn announce(&mut self, topic: Option<&str>, all: bool, event: &str, payload: impl ToPayload) -> Sent {
        if is_reserved(event) {
            return self.invalid();
        }
        self.publish(topic, all, event, payload)
    }

    fn invalid(&mut self) -> Sent {
        self.meta.failed = true;
        Sent::Invalid
    }

    fn publish(&mut self, topic: Option<&str>, all: bool, event: &str, payload: impl ToPayload) -> Sent {
        self.with_payload(payload, |ctx, payload| {
            let refused = publish(ctx.outlet, topic.unwrap_or(&ctx.meta.topic), all, event, payload);
            match refused + u32::from(!all && !ctx.overhear(event, payload)) {
                0 => Sent::Queued,
                refused => Sent::Refused(refused),
            }
        })
    }

    /// The outlet leaves out this whole socket: its other channels hear by mail what they subscribed to. False if there
    /// is no room for it.
    fn overhear(&self, event: &str, payload: Payload<'_>) -> bool {
        let (topic, from) = (&self.meta.topic, self.meta.serial);
        if !self.env.overheard(topic, from) {
            return true;
        }
        let heard = Overheard { from, topic: topic.clone(), event: event.into(), payload: payload.into() };
        self.outlet.address().send(Content::Overheard(Box::new(heard))).is_ok()
    }

    fn with_payload(&mut self, payload: impl ToPayload, send: impl FnOnce(&mut Self, Payload<'_>) -> Sent) -> Sent {
        let mut scratch = mem::take(&mut self.outlet.scratch().payload);
        let sent = match payload.to_payload(&mut scratch) {
            Ok(payload) if payload.is_pushable() => send(self, payload),
            Ok(_) | Err(_) => Sent::Invalid,
        };
        self.outlet.scratch().payload = scratch;
        self.meta.failed |= sent == Sent::Invalid;
        sent
    }

    /// What a reply to the current message will need, for later and from any thread. None outside `handle_in`.
    pub fn reply_to(&self) -> Option<ReplyRef> {
        let reference = self.reference?.clone().into_owned();
        let (join_ref, topic) = (self.meta.push_ref().clone(), self.meta.topic.clone());
        Some(ReplyRef { address: self.outlet.address(), join_ref, reference, topic })
    }

    /// Answers a message of this socket now, where [`ReplyRef::reply`] goes by mail. `to` may be of any of its channels,
    /// even an ended one; one of another socket is a mistake that its client will not hear of.
    pub fn reply(&mut self, to: &ReplyRef, status: &str, payload: impl ToPayload) -> Sent {
        let mut scratch = mem::take(&mut self.outlet.scratch().payload);
        let sent = match payload.to_payload(&mut scratch) {
            Ok(response) => {
                let topic = &Slot::from(&*to.topic);
                let (join_ref, reference) = (&to.join_ref, &to.reference);
                self.env.send(self.outlet, &Outgoing::Reply { join_ref, reference, topic, status, response })
            }
            Err(_) => Sent::Invalid,
        };
        self.outlet.scratch().payload = scratch;
        self.meta.failed |= sent == Sent::Invalid;
        sent
    }

    /// Lets other threads send messages to this channel's [`handle_info`](super::Channel::handle_info).
    pub fn handle(&self) -> ChannelHandle {
        ChannelHandle { address: self.outlet.address(), serial: self.meta.serial }
    }

    /// Calls [`handle_info`](super::Channel::handle_info) with [`Info::Timer`](super::Info::Timer) after `delay`, if the
    /// channel is still there.
    ///
    /// # Errors
    /// The socket has as many timers as [`UserSocket::timers_max`](super::UserSocket::timers_max) allows, or its
    /// connection is over: no timer was set.
    pub fn set_timer(&mut self, delay: Duration, token: u64) -> Result<TimerKey, Refused> {
        self.env.arm(self.outlet, delay, self.meta.serial, token)
    }

    /// Forgets a timer of this channel. What is left when the channel has ended is forgotten by itself.
    pub fn cancel_timer(&mut self, key: TimerKey) {
        let serial = self.meta.serial;
        self.env.disarm(self.outlet, |timer| timer.serial == serial && timer.key == key);
    }

    /// Broadcasts on another topic come to [`handle_info`](super::Channel::handle_info) from now on.
    ///
    /// # Errors
    /// A limit of the server was reached.
    pub fn subscribe(&mut self, topic: &str) -> Result<(), Refused> {
        if !self.env.watches(topic, self.meta.serial) {
            self.outlet.subscribe(topic, Service::Socket)?;
            self.env.watched.push((topic.into(), self.meta.serial));
        }
        Ok(())
    }

    /// Ends [`Ctx::subscribe`].
    pub fn unsubscribe(&mut self, topic: &str) {
        let serial = self.meta.serial;
        if self.env.watches(topic, serial) {
            self.env.watched.retain(|(watched, by)| *by != serial || **watched != *topic);
            self.env.unwatched.push(topic.into());
        }
    }

    /// Makes this client present on this topic under a key, with a meta (an object), until the channel ends or
    /// [`Ctx::untrack`]; everybody on the topic gets the `presence_diff`. What is there already goes to the client by
    /// `ctx.push("presence_state", presence.list(ctx.topic()))`.
    ///
    /// # Errors
    /// [`TrackError`]; nothing has changed.
    pub fn track(
        &mut self,
        presence: &Presence,
        key: &str,
        meta: &(impl Serialize + ?Sized),
    ) -> Result<PhxRef, TrackError> {
        self.track_at(None, presence, key, meta)
    }

    /// As [`Ctx::track`], on another topic, whose members are told. It too ends with this channel.
    ///
    /// # Errors
    /// [`TrackError`]; nothing has changed.
    pub fn track_on(
        &mut self,
        topic: &str,
        presence: &Presence,
        key: &str,
        meta: &(impl Serialize + ?Sized),
    ) -> Result<PhxRef, TrackError> {
        self.track_at(Some(topic).filter(|topic| **topic != *self.meta.topic), presence, key, meta)
    }

    fn track_at(
        &mut self,
        topic: Option<&str>,
        presence: &Presence,
        key: &str,
        meta: &(impl Serialize + ?Sized),
    ) -> Result<PhxRef, TrackError> {
        let present =
            self.meta.present.get_or_insert_with(|| Box::new(Present { owner: Owner::next(), places: vec![] }));
        let (reference, diff) = presence.track(topic.unwrap_or(&self.meta.topic), present.owner, key, meta)?;
        match present.place(topic, presence) {
            Some(at) => present.places[at].keys += 1,
            None => {
                let (topic, store) = (topic.map(Box::from), presence.clone());
                present.places.push(Place { topic, store, keys: 1 });
            }
        }
        tell(self.outlet, &diff);
        Ok(reference)
    }

    /// Replaces the meta of a key that this channel tracks.
    ///
    /// # Errors
    /// [`TrackError`]; nothing has changed.
    pub fn update(
        &mut self,
        presence: &Presence,
        key: &str,
        meta: &(impl Serialize + ?Sized),
    ) -> Result<PhxRef, TrackError> {
        self.update_with(presence, key, |_| meta)
    }

    /// As [`Ctx::update`], from the meta that is there (its `phx_ref` may stay in it, it is replaced).
    ///
    /// # Errors
    /// [`TrackError`]; nothing has changed.
    pub fn update_with<M: Serialize>(
        &mut self,
        presence: &Presence,
        key: &str,
        change: impl FnOnce(Json<'_>) -> M,
    ) -> Result<PhxRef, TrackError> {
        let present = self.meta.present.as_ref().ok_or(TrackError::NotTracked)?;
        let (reference, diff) = presence.update_with(&self.meta.topic, present.owner, key, change)?;
        tell(self.outlet, &diff);
        Ok(reference)
    }

    /// Ends what [`Ctx::track`] began; false if this channel does not track the key.
    pub fn untrack(&mut self, presence: &Presence, key: &str) -> bool {
        self.untrack_at(None, presence, key)
    }

    /// Ends what [`Ctx::track_on`] began; false if this channel does not track the key there.
    pub fn untrack_on(&mut self, topic: &str, presence: &Presence, key: &str) -> bool {
        self.untrack_at(Some(topic).filter(|topic| **topic != *self.meta.topic), presence, key)
    }

    fn untrack_at(&mut self, topic: Option<&str>, presence: &Presence, key: &str) -> bool {
        let Some(present) = &mut self.meta.present else { return false };
        let Some(at) = present.place(topic, presence) else { return false };
        let Some(diff) = presence.untrack(topic.unwrap_or(&self.meta.topic), present.owner, key) else { return false };
        present.places[at].keys -= 1;
        if present.places[at].keys == 0 {
            present.places.swap_remove(at);
        }
        tell(self.outlet, &diff);
        true
    }
}

impl fmt::Debug for Ctx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx").field("topic", &self.meta.topic).finish_non_exhaustive()
    }
}

/// A client that wants to join.
pub struct JoinCtx<'a> {
    pub(super) outlet: &'a dyn Outlet,
    pub(super) env: &'a Env,
    pub(super) serial: u32,
    /// Whether somebody may answer later.
    pub(super) later: &'a Cell<bool>,
}

impl JoinCtx<'_> {
    /// What `connect` found out about the client.
    pub fn assigns(&self) -> &Assigns {
        &self.env.assigns
    }

    /// The socket's id, if its mount gives one.
    pub fn id(&self) -> Option<&str> {
        self.env.id.as_deref()
    }

    /// For [`Join::Later`](super::Join::Later): answers the join from any thread.
    pub fn later(&self) -> JoinRef {
        self.later.set(true);
        JoinRef { address: self.outlet.address(), serial: self.serial, answered: AtomicBool::new(false) }
    }

    /// Lets other threads send messages to this channel's [`handle_info`](super::Channel::handle_info), once it has
    /// joined.
    pub fn handle(&self) -> ChannelHandle {
        ChannelHandle { address: self.outlet.address(), serial: self.serial }
    }
}

impl fmt::Debug for JoinCtx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinCtx").field("id", &self.env.id).finish_non_exhaustive()
    }
}

/// The event that tells who came and who went.
pub(super) const PRESENCE_DIFF: &str = "presence_diff";

/// The event that closes the sockets of an id.
pub(crate) const DISCONNECT: &str = "disconnect";

/// The event, on the topic of a socket's id, that is pushed to the channel of `topic` as `event`. The length says where
/// the topic ends, whatever is in it.
pub(crate) fn direct_event(topic: &str, event: &str) -> String {
    format!("phx_direct\0{}\0{topic}{event}", topic.len())
}

/// Whether an event is the protocol's own: clients act on `phx_close` and `phx_error`, so nobody's channel may send one.
pub(crate) fn is_reserved(event: &str) -> bool {
    event.starts_with("phx_")
}

/// Topic and event of [`direct_event`].
pub(super) fn read_direct_event(event: &str) -> Option<(&str, &str)> {
    let (len, rest) = event.strip_prefix("phx_direct\0")?.split_once('\0')?;
    rest.split_at_checked(len.parse().ok()?)
}
