//! A test kit: channels without a server.
//!
//! A [`Kit`] stands for a server with one mount, a [`Client`] for one that is connected to it. Everything happens at
//! once, on this thread, in the order of the real thing; time passes when [`Kit::advance`] says so.
//!
//! ```
//! use serde_json::json;
//! use wingbeat::channels::testing::Kit;
//! use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload, UserSocket};
//!
//! struct Room;
//! impl Channel for Room {
//!     fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join { Join::Ok }
//!     fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
//!         match event {
//!             "shout" => { ctx.broadcast("shout", payload); Outcome::NoReply }
//!             "echo" => Outcome::ok(payload),
//!             _ => Outcome::Unhandled,
//!         }
//!     }
//! }
//!
//! let kit = Kit::new(UserSocket::new().channel("room:*", || Room));
//! let (anna, bert) = (kit.connect(), kit.connect());
//! anna.join("room:1", json!({})).unwrap();
//! bert.join("room:1", json!({})).unwrap();
//!
//! let reference = anna.push("room:1", "echo", json!({"a": 1}));
//! anna.assert_reply(&reference, "ok", json!({"a": 1}));
//! anna.push("room:1", "shout", json!({"b": 2}));
//! bert.assert_broadcast("room:1", "shout", json!({"b": 2}));
//! ```
#![forbid(unsafe_code)]

use super::context::Scratch;
use super::outlet::{Address, Full, Letter, Outlet, Post, Refused, Sent, Service, TimerKey};
use super::{Assigns, Broadcast, OwnedPayload, Payload, Reason, Socket, ToPayload, UserSocket};
use crate::proto::{CloseCode, MessageKind};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::{fmt, time::Duration};

/// How long the assertions wait for what another thread has promised.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server without sockets, for one mount.
pub struct Kit {
    mount: Arc<UserSocket>,
    world: Rc<RefCell<World>>,
}

/// A client of a [`Kit`]. Dropped, it has disconnected.
pub struct Client {
    world: Rc<RefCell<World>>,
    id: u128,
    next_ref: Cell<u64>,
    /// Of each topic's join.
    join_refs: RefCell<HashMap<String, String>>,
}

/// A message that a client got.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Null in broadcasts.
    pub join_ref: Value,
    /// Null in all but replies, `phx_close` and `phx_error`.
    pub reference: Value,
    /// The topic.
    pub topic: String,
    /// The event.
    pub event: String,
    /// JSON as it is; bytes as an array of numbers.
    pub payload: Value,
}

struct World {
    clients: HashMap<u128, Member>,
    order: Vec<u128>,
    published: VecDeque<Publication>,
    now: Duration,
    letters: mpsc::Receiver<(u128, Letter)>,
    post: Arc<dyn Post>,
    next_id: u128,
}

struct Member {
    socket: Socket,
    desk: Desk,
}

/// The outlet of one client.
struct Desk {
    id: u128,
    post: Arc<dyn Post>,
    inbox: VecDeque<Received>,
    subscriptions: HashMap<String, Service>,
    published: Vec<Publication>,
    timers: Vec<Timer>,
    next_key: u64,
    now: Duration,
    held: bool,
    waiting: VecDeque<(MessageKind, Vec<u8>)>,
    closed: Option<CloseCode>,
    scratch: Scratch,
}

struct Publication {
    topic: String,
    except: Option<u128>,
    kind: MessageKind,
    bytes: Vec<u8>,
}

struct Timer {
    due: Duration,
    key: u64,
    serial: u32,
    token: u64,
}

struct Lane(mpsc::Sender<(u128, Letter)>);

impl Post for Lane {
    fn post(&self, id: u128, letter: Letter) -> Result<(), Full> {
        self.0.send((id, letter)).map_err(|_| Full)
    }
}

impl Kit {
    /// A server with this mount.
    pub fn new(mount: UserSocket) -> Kit {
        let (sender, letters) = mpsc::channel();
        let world = World {
            clients: HashMap::new(),
            order: Vec::new(),
            published: VecDeque::new(),
            now: Duration::ZERO,
            letters,
            post: Arc::new(Lane(sender)),
            next_id: 0,
        };
        Kit { mount: Arc::new(mount), world: Rc::new(RefCell::new(world)) }
    }

    /// A client without assigns or id, speaking V2.
    pub fn connect(&self) -> Client {
        self.connect_as(Assigns::new(), None)
    }

    /// A client as `connect` would have let it in.
    pub fn connect_as(&self, assigns: Assigns, id: Option<&str>) -> Client {
        let serializer = self.mount.versions().negotiate(Some("2.0.0")).expect("the mount speaks V2");
        let socket = Socket::new(Arc::clone(&self.mount), serializer, assigns, id.map(str::to_owned));
        let id = self.world.borrow_mut().enter(socket);
        let client =
            Client { world: Rc::clone(&self.world), id, next_ref: Cell::new(0), join_refs: RefCell::default() };
        client.world.borrow_mut().act(id, |socket, desk| socket.open(desk));
        client
    }

    /// Broadcasts from outside, as a handle of the server does.
    pub fn broadcast(&self, topic: &str, event: &str, payload: impl ToPayload) {
        let payload = OwnedPayload::new(payload).expect("a payload that can be sent");
        let mut bytes = Vec::new();
        let kind = Broadcast { event, payload: payload.as_payload() }.write(&mut bytes);
        let mut world = self.world.borrow_mut();
        world.published.push_back(Publication { topic: topic.to_owned(), except: None, kind, bytes });
        world.act(u128::MAX, |_, _| {});
    }

    /// Lets time pass: timers fire in order.
    pub fn advance(&self, by: Duration) {
        self.world.borrow_mut().advance(by);
    }
}

impl Client {
    /// Joins a topic and waits for the reply: the response, or the reason of a refusal.
    ///
    /// # Errors
    /// The response of a refusal.
    pub fn join(&self, topic: &str, payload: impl ToPayload) -> Result<Value, Value> {
        let reference = self.fresh_ref();
        self.join_refs.borrow_mut().insert(topic.to_owned(), reference.clone());
        self.send_raw(&json!(reference), &json!(reference), topic, "phx_join", payload);
        let reply = self.wait(|received| received.event == "phx_reply" && received.reference == *reference);
        let Some(reply) = reply else { panic!("the join of {topic} was not answered") };
        match reply.payload["status"] == "ok" {
            true => Ok(reply.payload["response"].clone()),
            false => Err(reply.payload["response"].clone()),
        }
    }

    /// Pushes an event, and returns the `ref` of it.
    pub fn push(&self, topic: &str, event: &str, payload: impl ToPayload) -> String {
        let reference = self.fresh_ref();
        let join_ref = self.join_refs.borrow().get(topic).map_or(Value::Null, |join_ref| json!(join_ref));
        self.send_raw(&join_ref, &json!(reference), topic, event, payload);
        reference
    }

    /// Leaves a topic; the answer is for [`Client::next`] or the assertions.
    pub fn leave(&self, topic: &str) -> String {
        self.push(topic, "phx_leave", json!({}))
    }

    /// Sends a message whose slots are all given.
    pub fn send_raw(&self, join_ref: &Value, reference: &Value, topic: &str, event: &str, payload: impl ToPayload) {
        let payload = OwnedPayload::new(payload).expect("a payload that can be sent");
        match payload.as_payload() {
            Payload::Json(json) => {
                let text = format!("[{join_ref},{reference},{},{},{}]", json!(topic), json!(event), json.as_str());
                self.send(MessageKind::Text, text.as_bytes());
            }
            Payload::Binary(bytes) => {
                let slot = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let slots = [slot(join_ref), slot(reference), topic.to_owned(), event.to_owned()];
                let mut message = vec![0];
                message.extend(slots.iter().map(|slot| u8::try_from(slot.len()).expect("slots of 255 bytes at most")));
                slots.iter().for_each(|slot| message.extend_from_slice(slot.as_bytes()));
                message.extend_from_slice(bytes);
                self.send(MessageKind::Binary, &message);
            }
        }
    }

    /// Sends the bytes of a WebSocket message.
    pub fn send(&self, kind: MessageKind, bytes: &[u8]) {
        let mut world = self.world.borrow_mut();
        let Some(member) = world.clients.get_mut(&self.id) else { return };
        if member.desk.held {
            return member.desk.waiting.push_back((kind, bytes.to_vec()));
        }
        world.act(self.id, |socket, desk| socket.message(desk, kind, bytes));
    }

    /// The oldest message that no assertion has taken, if there is one.
    pub fn next(&self) -> Option<Received> {
        let mut world = self.world.borrow_mut();
        world.read_letters();
        world.clients.get_mut(&self.id)?.desk.inbox.pop_front()
    }

    /// The code that the server closed with, if it did.
    pub fn closed(&self) -> Option<CloseCode> {
        self.world.borrow().clients.get(&self.id)?.desk.closed
    }

    /// The connection is lost, or closed by the client: its channels end.
    pub fn disconnect(self) {}

    /// # Panics
    /// Unless the reply to `reference` comes, and is this. Messages before it stay.
    #[track_caller]
    pub fn assert_reply(&self, reference: &str, status: &str, response: impl ToPayload) {
        let reply = self.wait(|received| received.event == "phx_reply" && received.reference == *reference);
        let Some(reply) = reply else { panic!("no reply to {reference}; there is: {:?}", self.rest()) };
        assert_eq!(reply.payload, json!({ "status": status, "response": value(response) }));
    }

    /// # Panics
    /// Unless this push comes (a message to this client alone). Messages before it stay.
    #[track_caller]
    pub fn assert_push(&self, topic: &str, event: &str, payload: impl ToPayload) {
        self.assert_message(topic, event, payload, false);
    }

    /// # Panics
    /// Unless this broadcast comes (the same message to all). Messages before it stay.
    #[track_caller]
    pub fn assert_broadcast(&self, topic: &str, event: &str, payload: impl ToPayload) {
        self.assert_message(topic, event, payload, true);
    }

    /// # Panics
    /// If there is a message of this event that no assertion has taken.
    #[track_caller]
    pub fn refute(&self, topic: &str, event: &str) {
        self.world.borrow_mut().read_letters();
        let rest = self.rest();
        assert!(!rest.iter().any(|received| received.topic == topic && received.event == event), "there is: {rest:?}");
    }

    #[track_caller]
    fn assert_message(&self, topic: &str, event: &str, payload: impl ToPayload, broadcast: bool) {
        let payload = value(payload);
        let found = self.wait(|received| {
            received.topic == topic
                && received.event == event
                && received.payload == payload
                && received.join_ref.is_null() == broadcast
        });
        assert!(found.is_some(), "no {event} {payload} on {topic}; there is: {:?}", self.rest());
    }

    /// Takes the first message of this kind; waits for other threads that have something to say.
    fn wait(&self, wanted: impl Fn(&Received) -> bool) -> Option<Received> {
        let mut world = self.world.borrow_mut();
        loop {
            world.read_letters();
            let inbox = &mut world.clients.get_mut(&self.id)?.desk.inbox;
            if let Some(at) = inbox.iter().position(&wanted) {
                return inbox.remove(at);
            }
            let (id, letter) = world.letters.recv_timeout(PATIENCE).ok()?;
            world.act(id, |socket, desk| socket.letter(desk, letter));
        }
    }

    fn rest(&self) -> Vec<Received> {
        self.world
            .borrow()
            .clients
            .get(&self.id)
            .map_or_else(Vec::new, |member| member.desk.inbox.iter().cloned().collect())
    }

    fn fresh_ref(&self) -> String {
        self.next_ref.set(self.next_ref.get() + 1);
        self.next_ref.get().to_string()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Ok(mut world) = self.world.try_borrow_mut() else { return };
        world.act(self.id, |socket, desk| socket.end(desk, &Reason::Closed));
        world.clients.remove(&self.id);
        let id = self.id;
        world.order.retain(|other| *other != id);
    }
}

impl World {
    fn enter(&mut self, socket: Socket) -> u128 {
        let id = self.next_id;
        self.next_id += 1;
        let desk = Desk {
            id,
            post: Arc::clone(&self.post),
            inbox: VecDeque::new(),
            subscriptions: HashMap::new(),
            published: Vec::new(),
            timers: Vec::new(),
            next_key: 0,
            now: self.now,
            held: false,
            waiting: VecDeque::new(),
            closed: None,
            scratch: Scratch::default(),
        };
        self.clients.insert(id, Member { socket, desk });
        self.order.push(id);
        id
    }

    /// Runs something for one client, then whatever follows from it.
    fn act(&mut self, id: u128, run: impl FnOnce(&mut Socket, &mut Desk)) {
        self.run(id, run);
        loop {
            if let Some(publication) = self.published.pop_front() {
                self.deliver(&publication);
            } else if !self.hear() {
                return;
            }
        }
    }

    fn run(&mut self, id: u128, run: impl FnOnce(&mut Socket, &mut Desk)) {
        let Some(member) = self.clients.get_mut(&id) else { return };
        run(&mut member.socket, &mut member.desk);
        self.published.extend(member.desk.published.drain(..));
    }

    fn deliver(&mut self, publication: &Publication) {
        let Publication { topic, except, kind, bytes } = publication;
        for id in self.order.clone() {
            let subscribed = self.clients.get(&id).is_some_and(|member| member.desk.subscriptions.contains_key(topic));
            if subscribed && *except != Some(id) {
                self.run(id, |socket, desk| socket.delivery(desk, topic, *kind, bytes));
            }
        }
    }

    /// Goes on with what a client sent while it was held; false if there is nothing.
    fn hear(&mut self) -> bool {
        let waits = |member: &&mut Member| !member.desk.held && !member.desk.waiting.is_empty();
        let Some(member) = self.clients.values_mut().find(waits) else { return false };
        let (id, message) = (member.desk.id, member.desk.waiting.pop_front());
        if let Some((kind, bytes)) = message {
            self.run(id, |socket, desk| socket.message(desk, kind, &bytes));
        }
        true
    }

    fn read_letters(&mut self) {
        while let Ok((id, letter)) = self.letters.try_recv() {
            self.act(id, |socket, desk| socket.letter(desk, letter));
        }
    }

    fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        loop {
            let timers = self
                .clients
                .values()
                .flat_map(|member| member.desk.timers.iter().map(|timer| (timer.due, member.desk.id, timer.key)));
            let Some((due, id, key)) = timers.filter(|(due, ..)| *due <= until).min() else { break };
            self.now = due;
            let desk = &mut self.clients.get_mut(&id).expect("it has a timer").desk;
            desk.now = due;
            let at = desk.timers.iter().position(|timer| timer.key == key).expect("it was found there");
            let Timer { serial, token, .. } = desk.timers.remove(at);
            self.act(id, |socket, desk| socket.timer(desk, serial, token));
        }
        self.now = until;
        self.clients.values_mut().for_each(|member| member.desk.now = until);
    }
}

impl Outlet for Desk {
    fn send(&mut self, kind: MessageKind, bytes: &[u8]) -> Sent {
        if self.closed.is_some() {
            return Sent::Closing;
        }
        self.inbox.push_back(Received::read(kind, bytes));
        Sent::Queued
    }

    fn subscribe(&mut self, topic: &str, service: Service) -> Result<(), Refused> {
        self.subscriptions.insert(topic.to_owned(), service);
        Ok(())
    }

    fn unsubscribe(&mut self, topic: &str) {
        self.subscriptions.remove(topic);
    }

    fn publish(&mut self, topic: &str, all: bool, kind: MessageKind, bytes: &[u8]) {
        let except = (!all).then_some(self.id);
        self.published.push(Publication { topic: topic.to_owned(), except, kind, bytes: bytes.to_vec() });
    }

    fn set_timer(&mut self, delay: Duration, serial: u32, token: u64) -> TimerKey {
        let key = self.next_key;
        self.next_key += 1;
        self.timers.push(Timer { due: self.now + delay, key, serial, token });
        TimerKey(key)
    }

    fn cancel_timer(&mut self, key: TimerKey) {
        self.timers.retain(|timer| timer.key != key.0);
    }

    fn hold(&mut self) {
        self.held = true;
    }

    fn release(&mut self) {
        self.held = false;
    }

    fn close(&mut self, code: CloseCode) {
        self.closed.get_or_insert(code);
    }

    fn address(&self) -> Address {
        Address::new(Arc::clone(&self.post), self.id)
    }

    fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
}

impl Received {
    /// Reads what a V2 server sends.
    fn read(kind: MessageKind, bytes: &[u8]) -> Received {
        if kind == MessageKind::Binary {
            return Received::read_binary(bytes);
        }
        let (join_ref, reference, topic, event, payload) = serde_json::from_slice(bytes).expect("what V2 writes");
        Received { join_ref, reference, topic, event, payload }
    }

    fn read_binary(bytes: &[u8]) -> Received {
        let slots = [3, 4, 2][usize::from(bytes[0])]; // push, reply, broadcast
        let (lens, mut rest) = bytes[1..].split_at(slots);
        let mut texts = lens.iter().map(|len| {
            let (slot, behind) = rest.split_at(usize::from(*len));
            rest = behind;
            String::from_utf8(slot.to_vec()).expect("slots are text")
        });
        let mut next = || texts.next().expect("as many as lengths");
        let (join_ref, reference) = match bytes[0] {
            0 => (json!(next()), Value::Null),
            1 => (json!(next()), json!(next())),
            _ => (Value::Null, Value::Null),
        };
        let (topic, event) = (next(), next());
        let payload = json!(rest);
        match bytes[0] {
            1 => {
                let payload = json!({ "status": event, "response": payload });
                Received { join_ref, reference, topic, event: "phx_reply".to_owned(), payload }
            }
            _ => Received { join_ref, reference, topic, event, payload },
        }
    }
}

/// A payload as [`Received::payload`] shows it.
fn value(payload: impl ToPayload) -> Value {
    let payload = OwnedPayload::new(payload).expect("a payload that can be sent");
    match payload.as_payload() {
        Payload::Json(json) => json.parse().expect("JSON"),
        Payload::Binary(bytes) => json!(bytes),
    }
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").field("clients", &self.world.borrow().clients.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}
