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

mod received;
mod world;

pub use received::Received;

use super::context::is_reserved;
use super::{Assigns, Broadcast, OwnedPayload, Payload, Socket, ToPayload, UserSocket};
use crate::proto::{CloseCode, MessageKind};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use std::{fmt, rc::Rc, sync::Arc};
use world::World;

/// How often an assertion that waits looks whether anybody is left who could bring what it waits for.
const GLANCE: Duration = Duration::from_millis(1);

/// A server without sockets, for one mount.
pub struct Kit {
    mount: Arc<UserSocket>,
    world: Rc<RefCell<World>>,
}

/// A client of a [`Kit`]. Dropped, it has disconnected.
pub struct Client {
    world: Rc<RefCell<World>>,
    id: u128,
    /// Speaks V1: objects, and no `join_ref`.
    objects: bool,
    next_ref: Cell<u64>,
    /// Of each topic's join.
    join_refs: RefCell<HashMap<String, String>>,
}

impl Kit {
    /// A server with this mount.
    pub fn new(mount: UserSocket) -> Kit {
        let mount = Arc::new(mount);
        let world = World::new(Arc::clone(&mount));
        Kit { mount, world: Rc::new(RefCell::new(world)) }
    }

    /// A client without assigns or id, speaking V2.
    pub fn connect(&self) -> Client {
        self.enter("2.0.0", Assigns::new(), None)
    }

    /// A client as `connect` would have let it in, speaking V2.
    pub fn connect_as(&self, assigns: Assigns, id: Option<&str>) -> Client {
        self.enter("2.0.0", assigns, id)
    }

    /// A client without assigns or id that asked for this `vsn`. One that begins with `1.` has it write V1, like the
    /// clients of its time without `join_ref`; any other V2.
    ///
    /// # Panics
    /// If the mount has no serializer for it.
    pub fn connect_with(&self, vsn: &str) -> Client {
        self.enter(vsn, Assigns::new(), None)
    }

    fn enter(&self, vsn: &str, assigns: Assigns, id: Option<&str>) -> Client {
        let Some(serializer) = self.mount.versions().negotiate(Some(vsn)) else { panic!("the mount speaks no {vsn}") };
        let socket = Socket::new(Arc::clone(&self.mount), serializer, assigns, id.map(str::to_owned));
        let (world, objects) = (Rc::clone(&self.world), vsn.starts_with("1."));
        let id = world.borrow_mut().enter(socket);
        Client { world, id, objects, next_ref: Cell::new(0), join_refs: RefCell::default() }
    }

    /// Broadcasts from outside, as a handle of the server does.
    ///
    /// # Panics
    /// If it cannot be sent: the payload, or an event that begins with `phx_`.
    pub fn broadcast(&self, topic: &str, event: &str, payload: impl ToPayload) {
        assert!(!is_reserved(event), "{event} is an event of the protocol");
        let payload = OwnedPayload::new(payload).expect("a payload that can be sent");
        let mut bytes = Vec::new();
        let kind = Broadcast { event, payload: payload.as_payload() }.write(&mut bytes);
        self.world.borrow_mut().publish(topic, kind, bytes);
    }

    /// How long assertions wait for other threads before they fail, by default 5 s. They fail at once if nobody holds a
    /// [`ReplyRef`](super::ReplyRef), [`JoinRef`](super::JoinRef) or [`ChannelHandle`](super::ChannelHandle): nothing can
    /// come then.
    pub fn patience(&self, patience: Duration) {
        self.world.borrow_mut().patience = patience;
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
        let join_ref = if self.objects { Value::Null } else { json!(reference) };
        self.send_raw(&join_ref, &json!(reference), topic, "phx_join", payload);
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
        let join_ref = self.join_refs.borrow().get(topic).filter(|_| !self.objects).map_or(Value::Null, |it| json!(it));
        self.send_raw(&join_ref, &json!(reference), topic, event, payload);
        reference
    }

    /// Leaves a topic; the answer is for [`Client::next`] or the assertions.
    pub fn leave(&self, topic: &str) -> String {
        self.push(topic, "phx_leave", json!({}))
    }

    /// Sends a message whose slots are all given; on V1 a null `join_ref` is left out.
    pub fn send_raw(&self, join_ref: &Value, reference: &Value, topic: &str, event: &str, payload: impl ToPayload) {
        let payload = OwnedPayload::new(payload).expect("a payload that can be sent");
        match payload.as_payload() {
            Payload::Json(json) if self.objects => {
                let (topic, event) = (json!(topic), json!(event));
                let join_ref = if join_ref.is_null() { String::new() } else { format!(r#","join_ref":{join_ref}"#) };
                let slots = format!(r#""topic":{topic},"event":{event},"ref":{reference}{join_ref}"#);
                self.send(MessageKind::Text, format!(r#"{{{slots},"payload":{}}}"#, json.as_str()).as_bytes());
            }
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

    /// The topics that this client is subscribed to, sorted, those that its channels asked for included.
    pub fn subscriptions(&self) -> Vec<String> {
        let world = self.world.borrow();
        let mut topics = world.clients[&self.id].desk.subscriptions.keys().cloned().collect::<Vec<_>>();
        topics.sort_unstable();
        topics
    }

    /// Timers of its channels that have not fired.
    pub fn timers(&self) -> usize {
        self.world.borrow().clients[&self.id].desk.timers.len()
    }

    /// The code that the server closed with, if it did. What is sent from then on is lost.
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
    /// Unless this push comes (a message to this client alone, which V1 cannot tell from a broadcast). Messages before it
    /// stay.
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
                && (self.objects || received.join_ref.is_null() == broadcast)
        });
        assert!(found.is_some(), "no {event} {payload} on {topic}; there is: {:?}", self.rest());
    }

    /// Takes the first message of this kind; waits for other threads that may have something to say.
    fn wait(&self, wanted: impl Fn(&Received) -> bool) -> Option<Received> {
        let mut world = self.world.borrow_mut();
        let until = Instant::now() + world.patience;
        loop {
            let (over, last) = (Instant::now() >= until, world.is_alone());
            let news = world.read_letters();
            let inbox = &mut world.clients.get_mut(&self.id)?.desk.inbox;
            if let Some(at) = inbox.iter().position(&wanted) {
                return inbox.remove(at);
            }
            if over || last && !news {
                return None;
            }
            if let Ok((id, letter)) = world.letters.recv_timeout(GLANCE) {
                world.act(id, |socket, desk| socket.letter(desk, letter));
            }
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
        world.leave(self.id);
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
