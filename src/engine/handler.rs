//! What a user implements and touches: [`Handler`], [`Conn`], [`Scope`], [`Message`].
#![forbid(unsafe_code)]

use super::core::{Alarm, Core};
use super::encoding::{Encoder, PLAIN};
use super::error::{CloseCause, CloseReason, ConnectError, Published, SendStatus, SubscribeError};
use super::listener::TopicListenerId;
use super::opening::ClientResponse;
use super::payload::PayloadWriter;
use super::profile::Profile;
use super::request::{Answer, Request, Response};
use super::target::Target;
use super::timer::TimerId;
use crate::driver::SocketId;
use crate::proto::{CloseCode, MessageKind};
use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

/// For handlers that take no mail: a type without values.
pub type Never = Infallible;

/// One WebSocket, for as long as it lives, or one plain request: never given to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId {
    /// Index of the worker that serves it.
    pub worker: u16,
    /// Its socket there.
    pub socket: SocketId,
    /// Which plain request of the socket; 0 for the WebSocket.
    pub request: u32,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.worker, self.socket)
    }
}

/// A text or binary message. The payload is lent for the call.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Text or binary.
    pub kind: MessageKind,
    /// Its bytes; of a received text they are valid UTF-8.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// A text message.
    pub fn text(text: &'a str) -> Self {
        Message { kind: MessageKind::Text, payload: text.as_bytes() }
    }

    /// A binary message.
    pub fn binary(payload: &'a [u8]) -> Self {
        Message { kind: MessageKind::Binary, payload }
    }

    /// The payload as text, if the message is one. Cost: a pass over the bytes.
    pub fn as_text(&self) -> Option<&'a str> {
        match self.kind {
            MessageKind::Text => simdutf8::basic::from_utf8(self.payload).ok(),
            MessageKind::Binary => None,
        }
    }
}

/// Your application: one value per worker, shared by its connections, so neither `Sync` nor locks are needed.
///
/// No callback is called from within another. What a callback sends leaves at the end of the turn, joined. A panic in
/// a callback closes that connection with 1011; the worker goes on, with the handler as the panic left it (under
/// `panic = "abort"` the process ends instead).
pub trait Handler: 'static {
    /// What you keep per connection. It lives beside the connection, so that both can be borrowed at once.
    type State: 'static;
    /// What other threads may send to one connection, or to a worker; [`Never`] if nothing.
    type Mail: Send + 'static;

    /// Whether [`Handler::upgrade`] decides about this request; else it is [`Handler::request`]. Asked once its head is
    /// there and beyond doubt. The default: if it is a valid opening handshake.
    ///
    /// True for another request (any method, no `Upgrade`, a handshake that lacks something): `upgrade` is called, and
    /// where it accepts the request is answered with 400 and what the handshake lacks; the state is dropped without
    /// [`Handler::close`]. So who may not connect learns that first. False for an invalid handshake: it is refused with
    /// the status that says why. False for a valid one: it is a plain request, and the last of its connection.
    fn mounts(&self, request: &Request<'_>) -> bool {
        request.is_upgrade()
    }

    /// An opening handshake that is valid so far ([`Handler::mounts`] tells of exceptions): who may connect, and with
    /// what state.
    fn upgrade(&mut self, scope: &mut Scope<'_>, request: &Request<'_>) -> Upgrade<Self::State>;

    /// The late answer to [`Upgrade::Later`], sent with [`Handle::answer_upgrade`](super::Handle::answer_upgrade).
    /// The default refuses with 503.
    fn upgrade_later(&mut self, scope: &mut Scope<'_>, id: ConnId, mail: Self::Mail) -> Upgrade<Self::State> {
        let _ = (scope, id, mail);
        Upgrade::Reject(Response::new(503))
    }

    /// How many bytes the body of a plain request may have, asked when its head is there. Above it: 413, unread. The
    /// default is [`Limits::body_bytes`](super::Limits::body_bytes).
    fn body_limit(&self, request: &Request<'_>) -> u32 {
        request.body_limit()
    }

    /// A plain HTTP request, with its whole body. The default answers 404.
    fn request(&mut self, scope: &mut Scope<'_>, request: &Request<'_>) -> Answer {
        let _ = (scope, request);
        Response::not_found().into()
    }

    /// A request that was put off with [`Answer::Later`] will not be answered any more: its peer is gone (or sends no
    /// more, which is the same here), or the time for it is over.
    fn request_gone(&mut self, scope: &mut Scope<'_>, id: ConnId) {
        let _ = (scope, id);
    }

    /// The connection is open; its 101 leaves with what is sent here.
    fn open(&mut self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = (conn, state);
    }

    /// A message came in.
    fn message(&mut self, conn: &mut Conn<'_>, state: &mut Self::State, message: Message<'_>);

    /// Mail for this connection from another thread.
    fn mail(&mut self, conn: &mut Conn<'_>, state: &mut Self::State, mail: Self::Mail) {
        let _ = (conn, state, mail);
    }

    /// Mail for this worker, sent with [`Handle::mail_worker`](super::Handle::mail_worker).
    fn worker_mail(&mut self, scope: &mut Scope<'_>, mail: Self::Mail) {
        let _ = (scope, mail);
    }

    /// What turns publications into the encodings of classes 1 to 15. Asked once, when the worker starts.
    fn encoder(&self) -> Option<Box<dyn Encoder>> {
        None
    }

    /// A publication for a subscription whose [`Encoding`](super::Encoding) says `deliver`: topic and message as they
    /// were published. Called after the callback or walk that brought it, in publish order.
    fn delivery(&mut self, conn: &mut Conn<'_>, state: &mut Self::State, topic: &str, message: Message<'_>) {
        let _ = (conn, state, topic, message);
    }

    /// A publication for a listener ([`Scope::listen`]), as it was published.
    fn heard(&mut self, scope: &mut Scope<'_>, listener: TopicListenerId, topic: &str, message: Message<'_>) {
        let _ = (scope, listener, topic, message);
    }

    /// What waits for this connection fell below the low watermark after it had been above the high one.
    fn writable(&mut self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = (conn, state);
    }

    /// A pong came in (the engine's own keepalive pings are answered here too).
    fn pong(&mut self, conn: &mut Conn<'_>, state: &mut Self::State, payload: &[u8]) {
        let _ = (conn, state, payload);
    }

    /// The connection ended; nothing more is received or delivered. Called exactly once per accepted upgrade, except
    /// after a panic of this method itself.
    fn close(&mut self, scope: &mut Scope<'_>, state: Self::State, reason: CloseReason) {
        let _ = (scope, state, reason);
    }

    /// An outgoing connection was answered with a valid 101: take it with a state, or decline. The default declines.
    fn connected(
        &mut self,
        scope: &mut Scope<'_>,
        id: ConnId,
        token: u64,
        response: &ClientResponse<'_>,
    ) -> Upgrade<Self::State> {
        let _ = (scope, id, token, response);
        Upgrade::Reject(Response::new(503))
    }

    /// An outgoing connection did not come to stand. With a [`Reconnect`](super::Reconnect) in its target the next try
    /// is planned already.
    fn connect_failed(&mut self, scope: &mut Scope<'_>, token: u64, error: ConnectError) {
        let _ = (scope, token, error);
    }

    /// A timer of [`Conn::set_timer`] is due.
    fn conn_timer(&mut self, conn: &mut Conn<'_>, state: &mut Self::State, token: u64) {
        let _ = (conn, state, token);
    }

    /// A drain has begun ([`Handle::drain`](super::Handle::drain)): what is no connection, such as sessions over plain
    /// requests, ends here. Called once, before the first connection is closed.
    fn draining(&mut self, scope: &mut Scope<'_>) {
        let _ = scope;
    }

    /// A timer of [`Scope::set_timer`] is due.
    fn timer(&mut self, scope: &mut Scope<'_>, token: u64) {
        let _ = (scope, token);
    }
}

/// The answer to an opening handshake.
#[derive(Debug)]
pub enum Upgrade<S> {
    /// Open the connection with this state.
    Accept(S),
    /// As `Accept`, with a subprotocol or header fields in the 101, or limits of its own.
    AcceptWith(S, Acceptance),
    /// Refuse with this HTTP response.
    Reject(Response),
    /// Decide later: the connection waits, within the handshake timeout, for
    /// [`Handle::answer_upgrade`](super::Handle::answer_upgrade). What is needed of the request is to be copied.
    Later,
}

/// What a 101 carries beyond the necessary, and the [`Profile`] of the connection.
#[derive(Debug, Default, Clone)]
pub struct Acceptance {
    pub(crate) protocol: Option<Box<str>>,
    pub(crate) headers: Vec<(Box<str>, Box<str>)>,
    pub(super) profile: Option<Profile>,
}

impl Acceptance {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The chosen subprotocol. It must be one of those offered, else the connection is refused with 500.
    pub fn protocol(mut self, name: &str) -> Self {
        self.protocol = Some(name.into());
        self
    }

    /// A header field for the 101. The connection is refused with 500 if the name is no token or is one that the
    /// handshake itself writes (`Upgrade`, `Sec-WebSocket-Accept`), or if the value holds a control byte other than a
    /// tab.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A worker, without a connection.
#[derive(Debug)]
pub struct Scope<'a> {
    pub(crate) core: &'a mut Core,
}

impl Scope<'_> {
    /// Index of the worker.
    pub fn worker(&self) -> u16 {
        self.core.worker
    }

    /// An open connection of this worker.
    pub fn conn(&mut self, id: ConnId) -> Option<Conn<'_>> {
        let here = id.worker == self.core.worker && self.core.table.is_open(id.socket);
        if here { Some(Conn { core: self.core, slot: id.socket.slot }) } else { None }
    }

    /// Open connections of this worker.
    pub fn connections(&self) -> u32 {
        self.core.table.open
    }

    /// Sends a message to every subscriber of a topic, on all workers. Subscribers of one publisher get its messages in
    /// order. Cost: the message is encoded once here and once on each worker that has subscribers.
    pub fn publish(&mut self, topic: &str, message: Message<'_>) -> Published {
        self.core.publish(topic, None, 0, message)
    }

    /// As [`Scope::publish`], about `key`: under [`SlowConsumer::Conflate`](super::SlowConsumer::Conflate) it takes the
    /// place of an older publication of this topic and key that a slow subscriber has not got yet. `publish` is about key 0.
    pub fn publish_keyed(&mut self, topic: &str, key: u64, message: Message<'_>) -> Published {
        self.core.publish(topic, None, key, message)
    }

    /// As [`Scope::publish`], with the payload that `write` writes into memory of the worker that is kept for this.
    /// That a text is UTF-8 is your promise.
    pub fn publish_with(
        &mut self,
        topic: &str,
        kind: MessageKind,
        write: impl FnOnce(&mut PayloadWriter<'_>),
    ) -> Published {
        self.core.publish_with(topic, kind, write)
    }

    /// Subscribers of a topic on this worker.
    pub fn subscribers(&self, topic: &str) -> u32 {
        self.core.topics.subscribers(topic)
    }

    /// Calls [`Handler::timer`] with `token` after `delay` (1 ms resolution), counted from the time of this turn. What is
    /// returned cancels it, and may be dropped. Cost: O(log timers).
    pub fn set_timer(&mut self, delay: Duration, token: u64) -> TimerId {
        self.core.alarm(delay, Alarm::User(token))
    }

    /// Cancels a timer of this worker: [`Handler::timer`] is not called for it. False if it was called or cancelled
    /// already.
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        self.core.timers.cancel(id).is_some()
    }

    /// Connects to a server; [`Handler::connected`] or [`Handler::connect_failed`] follows with `token`.
    pub fn connect(&mut self, target: &Arc<Target>, token: u64) {
        self.core.connect(target, token);
    }
}

/// One open connection, within a callback.
#[derive(Debug)]
pub struct Conn<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) slot: u32,
}

impl Conn<'_> {
    /// Its id, for use from anywhere.
    pub fn id(&self) -> ConnId {
        self.core.conn_id(self.slot)
    }

    /// The worker it is on.
    pub fn scope(&mut self) -> Scope<'_> {
        Scope { core: self.core }
    }

    /// The same connection, borrowed for less long.
    pub fn reborrow(&mut self) -> Conn<'_> {
        Conn { core: self.core, slot: self.slot }
    }

    /// Sends a message. It leaves at the end of the turn, joined with what else is sent to this connection.
    /// Cost: one copy of the payload into recycled memory, no allocation.
    #[inline]
    pub fn send(&mut self, message: Message<'_>) -> SendStatus {
        self.core.send(self.slot, message)
    }

    /// Sends a message whose payload `write` writes in place, behind what is queued: no copy, and no buffer of your own.
    /// That a text is UTF-8 is your promise. If `write` panics nothing is sent of it.
    #[inline]
    pub fn send_with(&mut self, kind: MessageKind, write: impl FnOnce(&mut PayloadWriter<'_>)) -> SendStatus {
        self.core.send_with(self.slot, kind, write)
    }

    /// Sends a ping. At most 125 bytes; more is cut.
    pub fn ping(&mut self, payload: &[u8]) -> SendStatus {
        self.core.ping(self.slot, payload)
    }

    /// Delivers what is published to `topic` from now on, as it is published. A second time is no error and changes
    /// nothing (but the class of [`Conn::subscribe_as`]).
    pub fn subscribe(&mut self, topic: &str) -> Result<(), SubscribeError> {
        self.core.subscribe(self.slot, topic, PLAIN)
    }

    /// Ends a subscription; what was published before is still delivered. False if there was none, or the connection is
    /// closing, which ends all of them.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        self.core.unsubscribe(self.slot, topic)
    }

    /// As [`Scope::publish`]; this connection gets it too if it subscribes.
    pub fn publish(&mut self, topic: &str, message: Message<'_>) -> Published {
        self.core.publish(topic, None, 0, message)
    }

    /// As [`Conn::publish`], to all subscribers but this connection.
    pub fn publish_from(&mut self, topic: &str, message: Message<'_>) -> Published {
        self.core.publish(topic, Some(self.slot), 0, message)
    }

    /// As [`Scope::publish_with`].
    pub fn publish_with(
        &mut self,
        topic: &str,
        kind: MessageKind,
        write: impl FnOnce(&mut PayloadWriter<'_>),
    ) -> Published {
        self.core.publish_with(topic, kind, write)
    }

    /// Starts the closing handshake after this callback. A code that may not be sent becomes 1000
    /// ([`CloseCode::is_sendable`]). A reason beyond 123 bytes is cut at a character.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.core.close(self.slot, code, reason, CloseCause::Local);
    }

    /// Calls [`Handler::conn_timer`] with `token` after `delay` (1 ms resolution), if the connection is still open then.
    /// What is returned cancels it ([`Scope::cancel_timer`]), and may be dropped. Cost: O(log timers).
    pub fn set_timer(&mut self, delay: Duration, token: u64) -> TimerId {
        let id = self.core.table.id(self.slot);
        self.core.alarm(delay, Alarm::Conn(id, token))
    }

    /// Bytes that wait for this connection or are in flight.
    pub fn queued_bytes(&self) -> u32 {
        self.core.table.queued(self.slot)
    }

    /// Stops receiving from this connection, after this message. What has arrived already waits, in order.
    ///
    /// Whoever pauses has to see to it that it is resumed: a later callback for this connection
    /// ([`Handler::writable`], [`Handler::mail`]), a timer, or another connection through [`Scope::conn`]. Nothing else
    /// does it: while it is paused its silence means nothing, so the idle timeout does not watch it, and a peer that is
    /// gone without a word stays until something is sent to it. (The stall timeout watches it, and a reset is noticed.)
    pub fn pause(&mut self) {
        self.core.table.pause(self.slot);
    }

    /// Receives again, starting with what waited.
    pub fn resume(&mut self) {
        self.core.table.resume(self.slot);
    }
}

impl SendStatus {
    /// Closes the connection with 1013 if more than the high watermark waits.
    pub fn or_close(self, conn: &mut Conn<'_>) {
        if self == SendStatus::High {
            conn.close(CloseCode::TRY_AGAIN_LATER, "");
        }
    }
}
