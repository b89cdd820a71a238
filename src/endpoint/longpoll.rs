//! Long-polling: the same sockets over HTTP requests (PHOENIX.md §7).
//!
//! A session lives on the worker that made it; a request for it may come in on any, and is mailed there.
#![forbid(unsafe_code)]

use super::line::{Desk, Whose};
use super::mail::session_address;
use super::mount::LongPollOptions;
use crate::channels::{Address, Outlet, Reason, Refused, Scratch, Sent, Service, Socket, TimerKey};
use crate::engine::{ConnId, ListenerId, Message, Request, Response, Scope};
use crate::proto::{CloseCode, MessageKind};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::collections::VecDeque;
use std::{mem, sync::Arc, time::Duration};

/// Messages that one request may bring; those beyond are ignored.
const BATCH: usize = 100;
/// Bytes of what a client sent while one of its joins is being decided.
const WAITING_BYTES: usize = 1 << 20;

/// A session, for as long as the process lives: never given to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId {
    pub(super) worker: u16,
    pub(super) number: u64,
}

/// A request for a session, on its way to the session's worker.
#[derive(Debug)]
pub struct Ask {
    pub(super) session: SessionId,
    /// Under what the request is answered.
    pub(super) request: ConnId,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// The token comes back with the messages.
    Poll(String),
    /// Messages of the client.
    Post(Vec<(MessageKind, Vec<u8>)>),
}

/// One client that polls.
pub(super) struct Session {
    pub(super) socket: Socket,
    pub(super) state: State,
}

/// What a session's outlet acts on.
pub(super) struct State {
    pub(super) id: SessionId,
    pub(super) listener: ListenerId,
    options: Arc<LongPollOptions>,
    /// Messages that wait for a poll.
    out: VecDeque<Box<str>>,
    out_bytes: usize,
    /// What was sent after a publication of the session's own that it has not heard yet: a reply must not overtake the
    /// broadcast before it.
    behind: VecDeque<Behind>,
    /// A topic that this session alone hears: what is published here after another publication is heard after it. None if
    /// the server had no room for the subscription; then replies overtake.
    fence: Option<Box<str>>,
    /// The poll that waits for messages, and the token it came with.
    poll: Option<(ConnId, String)>,
    clock: Option<TimerKey>,
    held: bool,
    waiting: VecDeque<(MessageKind, Vec<u8>)>,
    waiting_bytes: usize,
    pub(super) closed: bool,
}

/// A place in the order of what a session sends.
enum Behind {
    /// What has been heard when the fence is.
    Publication,
    Message(Box<str>),
}

/// The outlet of a session.
pub(super) struct Wire<'a, 'c> {
    pub(super) scope: &'a mut Scope<'c>,
    pub(super) desk: &'a mut Desk,
    pub(super) state: &'a mut State,
    /// Whether what is sent belongs to a publication that is heard now: it is before all that is behind.
    heard: bool,
}

/// An answer to a request, to be sent by whoever can.
pub(super) type Reply = (ConnId, Response);

impl Session {
    pub(super) fn new(id: SessionId, socket: Socket, listener: ListenerId, options: Arc<LongPollOptions>) -> Session {
        let state = State {
            id,
            listener,
            options,
            out: VecDeque::new(),
            out_bytes: 0,
            behind: VecDeque::new(),
            fence: None,
            poll: None,
            clock: None,
            held: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            closed: false,
        };
        Session { socket, state }
    }

    /// Runs something for the socket, then what it held back meanwhile.
    pub(super) fn act(
        &mut self,
        scope: &mut Scope<'_>,
        desk: &mut Desk,
        run: impl FnOnce(&mut Socket, &mut dyn Outlet),
    ) {
        let Session { socket, state } = self;
        let mut wire = Wire { scope, desk, state, heard: false };
        run(socket, &mut wire);
        while !wire.state.held && !wire.state.closed {
            let Some((kind, bytes)) = wire.state.waiting.pop_front() else { break };
            wire.state.waiting_bytes -= bytes.len();
            socket.message(&mut wire, kind, &bytes);
        }
    }

    /// The session was asked for the first time: the clock begins.
    pub(super) fn begin(&mut self, scope: &mut Scope<'_>, desk: &mut Desk) {
        let fence = format!("\0longpoll/{}", self.state.id.number);
        self.state.fence = scope.listener_subscribe(self.state.listener, &fence).is_ok().then(|| fence.into());
        self.act(scope, desk, |socket, outlet| socket.open(outlet));
        self.arm(scope, desk, self.state.options.window * 3 / 2);
    }

    /// A publication on a topic of the session's.
    pub(super) fn hear(&mut self, scope: &mut Scope<'_>, desk: &mut Desk, topic: &str, message: Message<'_>) {
        let Session { socket, state } = self;
        if state.fence.as_deref() == Some(topic) {
            return state.pass_fence();
        }
        socket.delivery(&mut Wire { scope, desk, state, heard: true }, topic, message.kind, message.payload);
    }

    /// A poll: answered at once if messages wait, else within the window. A poll that waited before has been given up.
    pub(super) fn poll(
        &mut self,
        scope: &mut Scope<'_>,
        desk: &mut Desk,
        request: ConnId,
        token: String,
    ) -> Vec<Reply> {
        let stale = self.state.poll.replace((request, token)).map(|(stale, token)| (stale, empty(204, &token)));
        self.arm(scope, desk, self.state.options.window);
        stale.into_iter().chain(self.flush(scope, desk)).collect()
    }

    /// Messages of the client. The answer says whether they were taken; replies come with the next poll.
    pub(super) fn post(
        &mut self,
        scope: &mut Scope<'_>,
        desk: &mut Desk,
        request: ConnId,
        messages: Vec<(MessageKind, Vec<u8>)>,
    ) -> Vec<Reply> {
        for (kind, bytes) in messages {
            if self.state.held {
                self.state.waiting_bytes += bytes.len();
                self.state.waiting.push_back((kind, bytes));
                self.state.closed |= self.state.waiting_bytes > WAITING_BYTES;
            } else {
                self.act(scope, desk, |socket, outlet| socket.message(outlet, kind, &bytes));
            }
            if self.state.closed {
                break;
            }
        }
        let status = if self.state.closed { 408 } else { 200 };
        self.flush(scope, desk).into_iter().chain([(request, answer(&json!({ "status": status })))]).collect()
    }

    /// Gives a poll that waits what there is to give.
    pub(super) fn flush(&mut self, scope: &mut Scope<'_>, desk: &mut Desk) -> Option<Reply> {
        let state = &mut self.state;
        if state.out.is_empty() {
            return None;
        }
        let (request, token) = state.poll.take()?;
        state.out_bytes = state.behind.iter().map(Behind::bytes).sum();
        let messages = state.out.drain(..).collect::<Vec<_>>();
        self.arm(scope, desk, self.state.options.window * 3 / 2);
        Some((request, answer(&json!({ "status": 200, "token": token, "messages": messages }))))
    }

    /// Time is up: for the poll that waits, or for a client that does not poll.
    pub(super) fn clock(&mut self, scope: &mut Scope<'_>, desk: &mut Desk) -> Option<Reply> {
        self.state.clock = None;
        let Some((request, token)) = self.state.poll.take() else {
            self.act(scope, desk, |socket, outlet| socket.end(outlet, &Reason::Inactive));
            self.state.closed = true;
            return None;
        };
        self.arm(scope, desk, self.state.options.window * 3 / 2);
        Some((request, empty(204, &token)))
    }

    /// The connection on which a poll waited is gone.
    pub(super) fn request_gone(&mut self, scope: &mut Scope<'_>, desk: &mut Desk, request: ConnId) {
        if self.state.poll.take_if(|(waits, _)| *waits == request).is_some() {
            self.arm(scope, desk, self.state.options.window * 3 / 2);
        }
    }

    /// The session is over: what is answered to the poll that waits.
    pub(super) fn bury(mut self, scope: &mut Scope<'_>, desk: &mut Desk) -> Option<Reply> {
        self.act(scope, desk, |socket, outlet| socket.end(outlet, &Reason::Closed));
        if let Some(clock) = self.state.clock.take() {
            desk.timers.cancel(scope, clock);
        }
        scope.listener_close(self.state.listener);
        self.state.poll.take().map(|(request, _)| (request, gone()))
    }

    fn arm(&mut self, scope: &mut Scope<'_>, desk: &mut Desk, after: Duration) {
        if let Some(clock) = self.state.clock.take() {
            desk.timers.cancel(scope, clock);
        }
        self.state.clock = Some(desk.timers.set(scope, after, Whose::Clock(self.state.id)));
    }
}

impl Behind {
    fn bytes(&self) -> usize {
        match self {
            Behind::Publication => 0,
            Behind::Message(text) => text.len(),
        }
    }
}

impl State {
    /// The first publication among what is behind has been heard: what follows it is next.
    fn pass_fence(&mut self) {
        if self.behind.pop_front().is_none() {
            return; // published by somebody else
        }
        while let Some(Behind::Message(text)) = self.behind.front_mut() {
            self.out.push_back(mem::take(text));
            self.behind.pop_front();
        }
    }
}

impl Outlet for Wire<'_, '_> {
    /// A binary message has to be text all the same: it travels in a JSON string.
    fn send(&mut self, _: MessageKind, bytes: &[u8]) -> Sent {
        if self.state.closed {
            return Sent::Closing;
        }
        let Ok(text) = simdutf8::basic::from_utf8(bytes) else { return Sent::Invalid };
        self.state.out_bytes += text.len();
        match self.heard || self.state.behind.is_empty() {
            true => self.state.out.push_back(text.into()),
            false => self.state.behind.push_back(Behind::Message(text.into())),
        }
        if self.state.out_bytes > self.state.options.buffer_bytes {
            tracing::debug!("a long-poll session is not polled as fast as messages come");
            self.state.closed = true;
        }
        Sent::Queued
    }

    fn subscribe(&mut self, topic: &str, _: Service) -> Result<(), Refused> {
        self.scope.listener_subscribe(self.state.listener, topic).map_err(|_| Refused)
    }

    fn unsubscribe(&mut self, topic: &str) {
        self.scope.listener_unsubscribe(self.state.listener, topic);
    }

    fn publish(&mut self, topic: &str, all: bool, kind: MessageKind, bytes: &[u8]) {
        let message = Message { kind, payload: bytes };
        if !all {
            self.scope.publish_from_listener(self.state.listener, topic, message);
            return;
        }
        self.scope.publish(topic, message);
        if let Some(fence) = &self.state.fence {
            self.scope.publish(fence, Message::binary(&[]));
            self.state.behind.push_back(Behind::Publication);
            self.heard = false;
        }
    }

    fn set_timer(&mut self, delay: Duration, serial: u32, token: u64) -> TimerKey {
        self.desk.timers.set(self.scope, delay, Whose::Session(self.state.id, serial, token))
    }

    fn cancel_timer(&mut self, key: TimerKey) {
        self.desk.timers.cancel(self.scope, key);
    }

    fn hold(&mut self) {
        self.state.held = true;
    }

    fn release(&mut self) {
        self.state.held = false;
    }

    fn close(&mut self, _: CloseCode) {
        self.state.closed = true;
    }

    fn address(&self) -> Address {
        Address::new(Arc::clone(&self.desk.post), session_address(self.state.id))
    }

    fn scratch(&mut self) -> &mut Scratch {
        &mut self.desk.scratch
    }
}

/// The messages of a POST; none if one cannot be read.
pub(super) fn messages(request: &Request<'_>) -> Option<Vec<(MessageKind, Vec<u8>)>> {
    if request.header("content-type") != Some(b"application/x-ndjson") {
        return Some(vec![(MessageKind::Text, request.body().to_vec())]);
    }
    let items = request.body().split(|byte| *byte == b'\n').take(BATCH);
    items.map(|item| message(item.strip_suffix(b"\r").unwrap_or(item))).collect()
}

/// An item of a batch: a text message, or a binary one in base64.
pub(super) fn message(item: &[u8]) -> Option<(MessageKind, Vec<u8>)> {
    match item.first() {
        Some(b'[') => Some((MessageKind::Text, item.to_vec())),
        _ => Some((MessageKind::Binary, STANDARD.decode(item).ok()?)),
    }
}

/// Every answer is a 200 that says what it really is in its body.
pub(super) fn answer(body: &serde_json::Value) -> Response {
    Response::with_type(200, "application/json; charset=utf-8", body.to_string())
        .header("Access-Control-Allow-Origin", "*")
        .header("Cache-Control", "no-store")
}

pub(super) fn empty(status: u16, token: &str) -> Response {
    answer(&json!({ "status": status, "token": token, "messages": [] }))
}

pub(super) fn gone() -> Response {
    answer(&json!({ "status": 410 }))
}

/// What browsers ask before a request from another origin.
pub(super) fn preflight(request: &Request<'_>) -> Response {
    let asked = request.header("access-control-request-headers").and_then(|asked| std::str::from_utf8(asked).ok());
    Response::with_type(200, "application/json; charset=utf-8", "")
        .header("Access-Control-Allow-Origin", "*")
        .header("Access-Control-Allow-Headers", asked.unwrap_or_default().to_owned())
        .header("Access-Control-Allow-Methods", "get, post, options")
        .header("Access-Control-Max-Age", "3600")
}
