//! Long-polling: the same sockets over HTTP requests (docs/phoenix-wire.md §7).
//!
//! A session lives on the worker that made it; a request for it may come in on any, and is mailed there.
#![forbid(unsafe_code)]

use super::body::Batch;
use super::line::{Desk, Whose};
use super::mail::session_address;
use super::mount::{Client, LongPollOptions};
use super::quota::Seat;
use crate::channels::{Address, Outlet, Reason, Refused, Scratch, Sent, Service, Socket, TimerKey};
use crate::engine::{ConnId, Message, Request, Response, Scope, TopicListenerId};
use crate::proto::{CloseCode, MessageKind};
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::{sync::Arc, time::Duration};

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
    Post(Batch),
}

/// One client that polls.
pub(super) struct Session {
    pub(super) socket: Socket,
    pub(super) state: State,
}

/// What a session's outlet acts on.
pub(super) struct State {
    pub(super) id: SessionId,
    pub(super) listener: TopicListenerId,
    mount: u16,
    options: Arc<LongPollOptions>,
    /// The encoding class of each topic that is subscribed.
    served: HashMap<Box<str>, u8>,
    /// Messages that wait for a poll, those in flight first.
    out: VecDeque<Box<str>>,
    out_bytes: usize,
    flight: Option<Flight>,
    /// The poll that waits for messages, and the token it came with.
    poll: Option<(ConnId, String)>,
    clock: Option<TimerKey>,
    held: bool,
    waiting: VecDeque<(MessageKind, Vec<u8>)>,
    waiting_bytes: usize,
    pub(super) closed: bool,
    /// Why, if it was not the client.
    why: Option<Reason>,
    pub(super) client: Option<Box<Client>>,
    /// Counts the session until it ends.
    _seat: Option<Seat>,
}

/// Messages in an answer of which it is not known yet whether its request still waits: it may be another worker's.
#[derive(Clone, Copy)]
struct Flight {
    request: ConnId,
    messages: usize,
}

/// The outlet of a session.
pub(super) struct Wire<'a, 'c> {
    pub(super) scope: &'a mut Scope<'c>,
    pub(super) desk: &'a mut Desk,
    pub(super) state: &'a mut State,
}

/// An answer to a request, to be sent by the request's worker.
#[derive(Debug)]
pub struct Reply {
    pub(super) request: ConnId,
    pub(super) response: Response,
    /// The session that has to know whether it was sent, because messages are in it.
    pub(super) session: Option<SessionId>,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        socket: Socket,
        listener: TopicListenerId,
        mount: u16,
        options: Arc<LongPollOptions>,
        client: Option<Box<Client>>,
        seat: Option<Seat>,
    ) -> Session {
        let state = State {
            id,
            listener,
            mount,
            options,
            served: HashMap::new(),
            out: VecDeque::new(),
            out_bytes: 0,
            flight: None,
            poll: None,
            clock: None,
            held: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            closed: false,
            why: None,
            client,
            _seat: seat,
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
        let mut wire = Wire { scope, desk, state };
        run(socket, &mut wire);
        while !wire.state.held && !wire.state.closed {
            let Some((kind, bytes)) = wire.state.waiting.pop_front() else { break };
            wire.state.waiting_bytes -= waiting_size(&bytes);
            socket.message(&mut wire, kind, &bytes);
        }
    }

    /// The session was asked for the first time: the clock begins.
    pub(super) fn begin(&mut self, scope: &mut Scope<'_>, desk: &mut Desk) {
        self.act(scope, desk, |socket, outlet| socket.open(outlet));
        self.arm(scope, desk, self.state.options.window * 3 / 2);
    }

    /// A poll: answered at once if messages wait, else within the window. A poll that waited before has been given up.
    pub(super) fn poll(
        &mut self,
        scope: &mut Scope<'_>,
        desk: &mut Desk,
        request: ConnId,
        token: String,
    ) -> Vec<Reply> {
        let stale =
            self.state.poll.replace((request, token)).map(|(stale, token)| Reply::new(stale, empty(204, &token)));
        self.arm(scope, desk, self.state.options.window);
        stale.into_iter().chain(self.flush(scope, desk)).collect()
    }

    /// Messages of the client. The answer says whether they were taken; replies come with the next poll.
    pub(super) fn post(&mut self, scope: &mut Scope<'_>, desk: &mut Desk, request: ConnId, batch: Batch) -> Vec<Reply> {
        for (kind, bytes) in batch.messages {
            if self.state.held {
                self.state.waiting_bytes += waiting_size(&bytes);
                self.state.waiting.push_back((kind, bytes));
                self.state.closed |= self.state.waiting_bytes > self.state.options.waiting_bytes;
            } else {
                self.act(scope, desk, |socket, outlet| socket.message(outlet, kind, &bytes));
            }
            if self.state.closed {
                break;
            }
        }
        self.state.closed |= batch.broken;
        let status = if self.state.closed { 408 } else { 200 };
        let taken = Reply::new(request, answer(&json!({ "status": status })));
        self.flush(scope, desk).into_iter().chain([taken]).collect()
    }

    /// Gives a poll that waits what there is to give. The messages stay until [`Session::answered`].
    pub(super) fn flush(&mut self, scope: &mut Scope<'_>, desk: &mut Desk) -> Option<Reply> {
        let state = &mut self.state;
        if state.out.is_empty() || state.flight.is_some() {
            return None;
        }
        let (request, token) = state.poll.take()?;
        state.flight = Some(Flight { request, messages: state.out.len() });
        let response = answer(&json!({ "status": 200, "token": token, "messages": state.out }));
        let session = Some(state.id);
        self.arm(scope, desk, self.state.options.window * 3 / 2);
        Some(Reply { request, response, session })
    }

    /// What became of an answer with messages: if its request was gone they wait for the next poll.
    pub(super) fn answered(&mut self, request: ConnId, sent: bool) {
        let state = &mut self.state;
        let Some(flight) = state.flight.take_if(|flight| flight.request == request) else { return };
        if sent {
            state.out_bytes -= state.out.drain(..flight.messages).map(|text| text.len()).sum::<usize>();
        }
    }

    /// Time is up: for the poll that waits, or for a client that does not poll.
    pub(super) fn clock(&mut self, scope: &mut Scope<'_>, desk: &mut Desk) -> Option<Reply> {
        self.state.clock = None;
        if let Some(flight) = self.state.flight {
            self.answered(flight.request, true); // the other worker had no room to say it
        }
        let Some((request, token)) = self.state.poll.take() else {
            self.end(scope, desk, Reason::Inactive);
            return None;
        };
        self.arm(scope, desk, self.state.options.window * 3 / 2);
        Some(Reply::new(request, empty(204, &token)))
    }

    /// Ends what the client has joined; the session is to be buried.
    pub(super) fn end(&mut self, scope: &mut Scope<'_>, desk: &mut Desk, reason: Reason) {
        self.act(scope, desk, |socket, outlet| socket.end(outlet, &reason));
        self.state.closed = true;
        self.state.why = Some(reason);
    }

    /// The client, if somebody wants to know of its end, and why that is.
    pub(super) fn take_client(&mut self) -> Option<(Box<Client>, Reason)> {
        let other = if self.socket.is_disconnected() { Reason::Disconnected } else { Reason::Closed };
        Some((self.state.client.take()?, self.state.why.take().unwrap_or(other)))
    }

    pub(super) fn mount(&self) -> u16 {
        self.state.mount
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
        self.state.clock.take().into_iter().for_each(|key| desk.timers.cancel(scope, key));
        scope.listener_close(self.state.listener);
        self.state.poll.take().map(|(request, _)| Reply::new(request, gone()))
    }

    fn arm(&mut self, scope: &mut Scope<'_>, desk: &mut Desk, after: Duration) {
        if let Some(clock) = self.state.clock.take() {
            desk.timers.cancel(scope, clock);
        }
        self.state.clock = Some(desk.timers.set(scope, after, Whose::Clock(self.state.id)));
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
        self.state.out.push_back(text.into());
        // A message larger than the whole buffer passes, alone: else the client would end up here each time anew.
        if self.state.out_bytes > self.state.options.buffer_bytes && self.state.out.len() > 1 {
            tracing::debug!("a long-poll session is not polled as fast as messages come");
            self.state.closed = true;
        }
        Sent::Queued
    }

    fn subscribe(&mut self, topic: &str, service: Service) -> Result<(), Refused> {
        self.scope.listener_subscribe(self.state.listener, topic).map_err(|_| Refused)?;
        self.state.served.insert(topic.into(), self.desk.classes.of(self.state.mount, service));
        Ok(())
    }

    fn unsubscribe(&mut self, topic: &str) {
        self.scope.listener_unsubscribe(self.state.listener, topic);
        self.state.served.remove(topic);
    }

    /// What the session's own client is to get goes there at once: a listener hears after the callback, when a reply to
    /// the same message would be there already.
    fn publish(&mut self, topic: &str, all: bool, kind: MessageKind, bytes: &[u8]) -> u32 {
        let message = Message { kind, payload: bytes };
        let own = self.state.served.get(topic).filter(|_| all).copied();
        let mut written = Vec::new();
        let frame = own.and_then(|class| self.desk.classes.write(class, topic, message, &mut written).frame);
        if let Some(kind) = frame {
            let _ = self.send(kind, &written);
        }
        let published = match all && frame.is_none() {
            true => self.scope.publish(topic, message),
            false => self.scope.publish_from_listener(self.state.listener, topic, message),
        };
        published.refused
    }

    fn set_timer(&mut self, delay: Duration, serial: u32, token: u64) -> Result<TimerKey, Refused> {
        let Wire { scope, desk, state } = self;
        Ok(desk.timers.set(scope, delay, Whose::Session(state.id, serial, token)))
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

impl Ask {
    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        let what = match &self.what {
            What::Poll(token) => token.len(),
            What::Post(batch) => batch.messages.iter().map(|(_, bytes)| waiting_size(bytes)).sum(),
        };
        size_of::<Self>() + what
    }
}

impl Reply {
    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.response.body.len()
    }

    /// An answer without messages.
    fn new(request: ConnId, response: Response) -> Reply {
        Reply { request, response, session: None }
    }
}

/// What a message that waits costs: one without bytes is not free either.
fn waiting_size(bytes: &[u8]) -> usize {
    bytes.len() + size_of::<(MessageKind, Vec<u8>)>()
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

/// The few answers that are no 200: their body is for people.
pub(super) fn failed(status: u16, text: &'static str) -> Response {
    Response::text(status, text).header("Access-Control-Allow-Origin", "*").header("Cache-Control", "no-store")
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
