//! [`Env`] and [`Meta`]: what the channels of a socket share, and what a socket knows of each.
#![forbid(unsafe_code)]

use super::context::Assigns;
use super::context::PRESENCE_DIFF;
use super::log::{Seldom, brief};
use super::outlet::{Outlet, Refused, Sent, Service, TimerKey};
use super::user_socket::UserSocket;
use super::{Broadcast, Diff, Envelope, Json, Outgoing, Owner, Payload, Presence, Slot};
use std::{mem, sync::Arc, time::Duration};

/// What all channels of a socket share.
pub(super) struct Env {
    pub(super) mount: Arc<UserSocket>,
    pub(super) serializer: u8,
    pub(super) assigns: Assigns,
    pub(super) id: Option<Box<str>>,
    /// Topics that channels (by serial) subscribed to themselves.
    pub(super) watched: Vec<(Box<str>, u32)>,
    /// Topics that lost such a subscription in the running callback.
    pub(super) unwatched: Vec<Box<str>>,
    /// Timers of channels that have not fired, by number: the limit of the mount bounds them.
    timers: Vec<Timer>,
    next_timer: u64,
}

/// A timer of a channel. Its outlet knows it by `number`, not by the channel's token, so that it is found when it fires.
pub(super) struct Timer {
    number: u64,
    token: u64,
    pub(super) key: TimerKey,
    pub(super) serial: u32,
}

/// What a channel's callbacks may see of its place in the socket.
pub(super) struct Meta {
    pub(super) topic: Box<str>,
    /// As the join carried it.
    pub(super) join_ref: Slot<'static>,
    /// What pushes carry if the join had no `join_ref`: its `ref`.
    pub(super) stand_in: Option<Box<Slot<'static>>>,
    pub(super) serial: u32,
    pub(super) route: u16,
    /// Something was sent that cannot be.
    pub(super) failed: bool,
    pub(super) present: Option<Box<Present>>,
}

/// Where a channel is tracked: what it leaves when it ends.
pub(super) struct Present {
    pub(super) owner: Owner,
    pub(super) places: Vec<Place>,
}

/// A store that knows the channel, on one topic.
pub(super) struct Place {
    /// None: the channel's own.
    pub(super) topic: Option<Box<str>>,
    pub(super) store: Presence,
    /// Keys that are tracked there.
    pub(super) keys: usize,
}

impl Env {
    pub(super) fn new(mount: Arc<UserSocket>, serializer: u8, assigns: Assigns, id: Option<Box<str>>) -> Env {
        let (watched, unwatched, timers) = (Vec::new(), Vec::new(), Vec::new());
        Env { mount, serializer, assigns, id, watched, unwatched, timers, next_timer: 0 }
    }

    /// Writes a message in the client's format and sends it.
    pub(super) fn send(&self, outlet: &mut dyn Outlet, message: &Outgoing<'_>) -> Sent {
        let mut bytes = mem::take(&mut outlet.scratch().message);
        bytes.clear();
        let sent = match self.mount.versions().serializer(self.serializer).encode(message, &mut bytes) {
            Ok(kind) => outlet.send(kind, &bytes),
            Err(error) => {
                static UNWRITABLE: Seldom = Seldom::new();
                if let Some(times) = UNWRITABLE.turn() {
                    tracing::warn!(%error, times, "a message cannot be written");
                }
                Sent::Invalid
            }
        };
        outlet.scratch().message = bytes;
        sent
    }

    /// A reply of the socket itself.
    pub(super) fn answer(
        &self,
        outlet: &mut dyn Outlet,
        join_ref: &Slot<'_>,
        to: &Envelope<'_>,
        status: &str,
        response: Payload<'_>,
    ) {
        let (reference, topic) = (&to.reference, &to.topic);
        let _ = self.send(outlet, &Outgoing::Reply { join_ref, reference, topic, status, response });
    }

    /// `phx_close` or `phx_error`: both slots hold the `join_ref`.
    pub(super) fn notice(&self, outlet: &mut dyn Outlet, meta: &Meta, event: &str, payload: &'static str) {
        let (join_ref, reference) = (&meta.join_ref, &meta.join_ref);
        let payload = Payload::Json(Json::trusted(payload));
        let _ = self.send(outlet, &Outgoing::Push { join_ref, reference, topic: &meta.topic, event, payload });
    }

    /// The `phx_close` of the channel that a second join has replaced, behind the reply to that join.
    pub(super) fn replaced(&self, outlet: &mut dyn Outlet, replaced: Option<(Box<str>, Slot<'static>)>) {
        let Some((topic, join_ref)) = replaced else { return };
        let (join_ref, reference) = (&join_ref, &join_ref);
        let (event, payload) = ("phx_close", Payload::EMPTY);
        let _ = self.send(outlet, &Outgoing::Push { join_ref, reference, topic: &topic, event, payload });
    }

    pub(super) fn watches(&self, topic: &str, serial: u32) -> bool {
        self.watched.iter().any(|(watched, by)| *by == serial && **watched == *topic)
    }

    /// Whether a channel other than this one subscribed to the topic itself.
    pub(super) fn overheard(&self, topic: &str, by: u32) -> bool {
        self.watched.iter().any(|(watched, serial)| *serial != by && **watched == *topic)
    }

    /// Ends what a channel subscribed to itself.
    pub(super) fn forget(&mut self, serial: u32) {
        while let Some(at) = self.watched.iter().position(|(_, by)| *by == serial) {
            self.unwatched.push(self.watched.swap_remove(at).0);
        }
    }

    pub(super) fn arm(
        &mut self,
        outlet: &mut dyn Outlet,
        delay: Duration,
        serial: u32,
        token: u64,
    ) -> Result<TimerKey, Refused> {
        if self.timers.len() >= self.mount.max_timers() {
            return Err(Refused);
        }
        let (number, key) = self.clock(outlet, delay, serial)?;
        self.timers.push(Timer { number, token, key, serial });
        Ok(key)
    }

    /// A timer of the socket itself: its number is nobody else's.
    pub(super) fn clock(
        &mut self,
        outlet: &mut dyn Outlet,
        delay: Duration,
        serial: u32,
    ) -> Result<(u64, TimerKey), Refused> {
        let number = self.next_timer;
        self.next_timer += 1;
        Ok((number, outlet.set_timer(delay, serial, number)?))
    }

    /// The token of a timer that is no more.
    pub(super) fn fired(&mut self, number: u64) -> Option<u64> {
        let at = self.timers.binary_search_by_key(&number, |timer| timer.number).ok()?;
        Some(self.timers.remove(at).token)
    }

    /// Cancels these timers: one that outlives its channel would cost memory until it is due.
    pub(super) fn disarm(&mut self, outlet: &mut dyn Outlet, which: impl Fn(&Timer) -> bool) {
        self.timers.retain(|timer| {
            let ends = which(timer);
            if ends {
                outlet.cancel_timer(timer.key);
            }
            !ends
        });
    }

    /// Whether broadcasts on this topic have to come to the socket, channel or not.
    pub(super) fn wants(&self, topic: &str) -> bool {
        self.id.as_deref() == Some(topic) || self.watched.iter().any(|(watched, _)| **watched == *topic)
    }

    pub(super) fn service(&self, topic: &str, route: u16) -> Service {
        match self.wants(topic) {
            true => Service::Socket,
            false => Service::Fastlane { serializer: self.serializer, route },
        }
    }
}

impl Present {
    /// Where a store tracks the channel on this topic.
    pub(super) fn place(&self, topic: Option<&str>, store: &Presence) -> Option<usize> {
        self.places.iter().position(|place| place.topic.as_deref() == topic && place.store.is(store))
    }
}

impl Meta {
    /// The `join_ref` of pushes and replies.
    pub(super) fn push_ref(&self) -> &Slot<'static> {
        self.stand_in.as_deref().unwrap_or(&self.join_ref)
    }

    /// Whether a message with this `join_ref` is for this channel, and not for one that was here before.
    pub(super) fn hears(&self, join_ref: &Slot<'_>) -> bool {
        join_ref.is_null() || *join_ref == self.join_ref
    }
}

/// Tells of all that a channel has been tracked as, which has ended.
pub(super) fn untracked(outlet: &mut dyn Outlet, own: &str, present: &Present) {
    for place in &present.places {
        let topic = place.topic.as_deref().unwrap_or(own);
        if let Some(diff) = place.store.untrack_owner(topic, present.owner) {
            tell(outlet, &diff);
        }
    }
}

/// Broadcasts a diff.
pub(super) fn tell(outlet: &mut dyn Outlet, diff: &Diff) {
    static REFUSED: Seldom = Seldom::new();
    let workers = publish(outlet, diff.topic(), true, PRESENCE_DIFF, diff.payload());
    if workers > 0
        && let Some(times) = REFUSED.turn()
    {
        let topic = brief(diff.topic());
        tracing::warn!(topic, workers, times, "workers had no room for a presence diff: their clients miss it");
    }
}

/// Publishes an event to the subscribers of a topic, or to all but this outlet's own. How many workers refused it.
pub(super) fn publish(outlet: &mut dyn Outlet, topic: &str, all: bool, event: &str, payload: Payload<'_>) -> u32 {
    let mut bytes = mem::take(&mut outlet.scratch().message);
    bytes.clear();
    let kind = Broadcast { event, payload }.write(&mut bytes);
    let refused = outlet.publish(topic, all, kind, &bytes);
    outlet.scratch().message = bytes;
    refused
}
