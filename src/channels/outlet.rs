//! [`Outlet`]: what a [`Socket`](super::Socket) acts on, whatever stands behind it.
#![forbid(unsafe_code)]

use super::context::Scratch;
use super::{OwnedPayload, Slot};
use crate::proto::{CloseCode, MessageKind};
use std::{any::Any, error, fmt, sync::Arc, time::Duration};

/// Where a socket's messages go and its subscriptions live: a WebSocket, a long-poll session, or a test.
pub trait Outlet {
    /// Sends one message to the client, in order.
    fn send(&mut self, kind: MessageKind, bytes: &[u8]) -> Sent;

    /// Subscribes the client to a topic, or changes how it is served there.
    ///
    /// # Errors
    /// A limit of the server was reached.
    fn subscribe(&mut self, topic: &str, service: Service) -> Result<(), Refused>;

    /// Ends a subscription, if there is one; what was broadcast before still reaches the client.
    fn unsubscribe(&mut self, topic: &str);

    /// Publishes what [`Broadcast::write`](super::Broadcast::write) made, to all subscribers, or to all but this
    /// outlet's own. How many workers had no room for it: their subscribers miss it.
    fn publish(&mut self, topic: &str, all: bool, kind: MessageKind, bytes: &[u8]) -> u32;

    /// Calls [`Socket::timer`](super::Socket::timer) with `serial` and `token` after `delay`. The socket keeps its timers
    /// within the limit of its mount, and cancels each that has not fired when its channel ends.
    ///
    /// # Errors
    /// It could not fire: the connection is over.
    fn set_timer(&mut self, delay: Duration, serial: u32, token: u64) -> Result<TimerKey, Refused>;

    /// Forgets a timer.
    fn cancel_timer(&mut self, key: TimerKey);

    /// Holds back what the client sends from now on, in order, until [`Outlet::release`].
    fn hold(&mut self);

    /// Goes on with what the client sent.
    fn release(&mut self);

    /// Closes the connection after this call.
    fn close(&mut self, code: CloseCode);

    /// How other threads reach this socket.
    fn address(&self) -> Address;

    /// Buffers that the sockets of one thread share.
    fn scratch(&mut self) -> &mut Scratch;
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// It is on its way.
    Queued,
    /// It is on its way, and the client does not keep up.
    High,
    /// The connection is closing; the message is lost.
    Closing,
    /// Of a broadcast: so many workers had no room for it, and their clients miss it.
    Refused(u32),
    /// It could not be written: a push or broadcast whose payload is no object or whose event begins with `phx_`, bytes
    /// on a format that has none, or a payload that cannot be serialized. The channel crashes after this callback.
    Invalid,
}

/// How a subscription is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The fastlane: broadcasts are encoded once for all, and only intercepted events come to the socket.
    Fastlane {
        /// Index of the serializer among the versions of the mount.
        serializer: u8,
        /// Index of the route, which knows the intercepted events.
        route: u16,
    },
    /// Every broadcast comes to the socket.
    Socket,
}

/// There is no room for another subscription, or another timer: a limit was reached, or the connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// A timer of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKey(pub u64);

/// Where a socket lives, for other threads. Cheap to clone.
#[derive(Clone)]
pub struct Address {
    post: Arc<dyn Post>,
    id: u128,
}

/// What carries letters to sockets.
pub trait Post: Send + Sync {
    /// Puts a letter into the lane of the socket's worker. It is dropped if the socket is gone by then.
    ///
    /// # Errors
    /// [`Full`]: the worker has no room for more mail.
    fn post(&self, id: u128, letter: Letter) -> Result<(), Full>;
}

/// The worker has no room for more mail; a later try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What other threads send to a socket.
#[derive(Debug)]
pub struct Letter(pub(super) Content);

#[derive(Debug)]
pub(super) enum Content {
    Reply(Box<LateReply>),
    /// No answer: whoever was to give it is gone.
    Join {
        serial: u32,
        answer: Option<Result<OwnedPayload, OwnedPayload>>,
    },
    Info {
        serial: u32,
        message: Box<dyn Any + Send>,
    },
    Overheard(Box<Overheard>),
}

/// What a channel broadcast to all but itself, for the others of its socket that subscribed to its topic.
#[derive(Debug)]
pub(super) struct Overheard {
    pub(super) from: u32,
    pub(super) topic: Box<str>,
    pub(super) event: Box<str>,
    pub(super) payload: OwnedPayload,
}

#[derive(Debug)]
pub(super) struct LateReply {
    pub(super) join_ref: Slot<'static>,
    pub(super) reference: Slot<'static>,
    pub(super) topic: Box<str>,
    pub(super) status: Box<str>,
    pub(super) response: OwnedPayload,
}

impl Address {
    /// The socket that `post` knows as `id`.
    pub fn new(post: Arc<dyn Post>, id: u128) -> Self {
        Address { post, id }
    }

    pub(super) fn send(&self, content: Content) -> Result<(), Full> {
        self.post.post(self.id, Letter(content))
    }
}

impl Letter {
    /// Bytes that it holds, for the limits of a mailbox.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + match &self.0 {
                Content::Reply(reply) => size_of::<LateReply>() + reply.response.as_payload().as_bytes().len(),
                Content::Join { answer: Some(Ok(payload) | Err(payload)), .. } => payload.as_payload().as_bytes().len(),
                Content::Join { answer: None, .. } => 0,
                Content::Info { message, .. } => size_of_val(&**message),
                Content::Overheard(heard) => size_of::<Overheard>() + heard.payload.as_payload().as_bytes().len(),
            }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.id).finish()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room for another subscription or timer")
    }
}

impl error::Error for Refused {}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the worker has no room for more mail")
    }
}

impl error::Error for Full {}
