//! One connection: the outlet of a socket, and the client that judges what it gets.
#![forbid(unsafe_code)]

use super::EVENTS;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::{mem, sync::Arc, sync::mpsc, time::Duration};
use wingbeat::MessageKind::{self, Text};
use wingbeat::channels::{
    Address, Broadcast, Full, Letter, Outgoing, Outlet, Post, Refused, Scratch, Sent, Serializer, Service, TimerKey,
    V1, V2,
};
use wingbeat::proto::CloseCode;

pub(super) struct Desk {
    pub(super) id: u128,
    pub(super) client: Client,
    pub(super) subscriptions: BTreeMap<String, Service>,
    pub(super) timers: Vec<(u64, u32, u64)>,
    pub(super) published: Vec<Publication>,
    pub(super) waiting: VecDeque<(MessageKind, Vec<u8>)>,
    pub(super) held: bool,
    pub(super) closed: bool,
    post: Arc<dyn Post>,
    room: usize,
    next_key: u64,
    scratch: Scratch,
}

pub(super) struct Publication {
    pub(super) topic: String,
    pub(super) kind: MessageKind,
    pub(super) bytes: Vec<u8>,
    /// Whose socket has to see it.
    pub(super) to: Vec<u128>,
}

/// What a client knows.
pub(super) struct Client {
    old: bool,
    live: BTreeMap<String, Live>,
    /// What the pushes of the last channel of a topic carried.
    gone: BTreeMap<String, Value>,
    /// A channel whose phx_close has to come next.
    replaced: Option<(String, Value)>,
    /// By ref: the join's topic and join_ref.
    joins: HashMap<String, (String, Value)>,
    last_join: String,
    pub(super) owed: HashMap<String, u32>,
    got: HashMap<String, u32>,
}

struct Live {
    join_ref: Value,
    push_ref: Value,
}

struct Lane(mpsc::Sender<(u128, Letter)>);

impl Post for Lane {
    fn post(&self, id: u128, letter: Letter) -> Result<(), Full> {
        self.0.send((id, letter)).map_err(|_| Full)
    }
}

impl Publication {
    pub(super) fn new(topic: &str, kind: MessageKind, bytes: &[u8]) -> Publication {
        Publication { topic: topic.to_owned(), kind, bytes: bytes.to_vec(), to: Vec::new() }
    }
}

impl Desk {
    pub(super) fn new(id: u128, post: mpsc::Sender<(u128, Letter)>, room: usize, client: Client) -> Desk {
        Desk {
            id,
            client,
            subscriptions: BTreeMap::new(),
            timers: Vec::new(),
            published: Vec::new(),
            waiting: VecDeque::new(),
            held: false,
            closed: false,
            post: Arc::new(Lane(post)),
            room,
            next_key: 0,
            scratch: Scratch::default(),
        }
    }

    /// Serves the fastlane, or notes that the socket has to see it.
    pub(super) fn deliver(&mut self, publication: &mut Publication) {
        let Publication { topic, kind, bytes, to } = publication;
        let Some(service) = self.subscriptions.get(topic) else { return };
        let Broadcast { event, payload } = Broadcast::read(*kind, bytes).expect("channels publish broadcasts");
        match service {
            Service::Fastlane { .. } if event.starts_with("phx_") => {}
            Service::Fastlane { serializer, route } if *route != 1 || !["spied", "went"].contains(&event) => {
                let (message, mut bytes) = (Outgoing::Broadcast { topic, event, payload }, Vec::new());
                let serializers: [&dyn Serializer; 2] = [&V1, &V2];
                let kind = serializers[usize::from(*serializer)].encode(&message, &mut bytes).expect("it is text");
                self.send(kind, &bytes);
            }
            _ => to.push(self.id),
        }
    }
}

impl Outlet for Desk {
    fn send(&mut self, kind: MessageKind, bytes: &[u8]) -> Sent {
        if self.closed {
            return Sent::Closing;
        }
        self.client.hear(kind, bytes);
        Sent::Queued
    }

    fn subscribe(&mut self, topic: &str, service: Service) -> Result<(), Refused> {
        if self.subscriptions.len() >= self.room && !self.subscriptions.contains_key(topic) {
            return Err(Refused);
        }
        self.subscriptions.insert(topic.to_owned(), service);
        Ok(())
    }

    fn unsubscribe(&mut self, topic: &str) {
        self.subscriptions.remove(topic);
    }

    fn publish(&mut self, topic: &str, all: bool, kind: MessageKind, bytes: &[u8]) -> u32 {
        let mut publication = Publication::new(topic, kind, bytes);
        if all {
            self.deliver(&mut publication);
        }
        self.published.push(publication);
        0
    }

    fn set_timer(&mut self, _: Duration, serial: u32, token: u64) -> Result<TimerKey, Refused> {
        self.next_key += 1;
        self.timers.push((self.next_key, serial, token));
        Ok(TimerKey(self.next_key))
    }

    fn cancel_timer(&mut self, key: TimerKey) {
        self.timers.retain(|(timer, ..)| *timer != key.0);
    }

    fn hold(&mut self) {
        assert!(!mem::replace(&mut self.held, true), "held twice");
    }

    fn release(&mut self) {
        assert!(mem::replace(&mut self.held, false), "nothing was held");
    }

    fn close(&mut self, _: CloseCode) {
        self.closed = true;
    }

    fn address(&self) -> Address {
        Address::new(Arc::clone(&self.post), self.id)
    }

    fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
}

impl Client {
    pub(super) fn new(old: bool) -> Client {
        let (live, gone, joins, owed, got) = Default::default();
        Client { old, live, gone, replaced: None, joins, last_join: String::new(), owed, got }
    }

    /// The join_ref that goes with messages on a topic.
    pub(super) fn join_ref(&self, topic: &str) -> Value {
        self.live.get(topic).map_or(Value::Null, |live| live.join_ref.clone())
    }

    pub(super) fn write(
        &self,
        join_ref: &Value,
        reference: &str,
        topic: &str,
        event: &str,
        payload: &Value,
    ) -> Vec<u8> {
        let message = match self.old {
            true => {
                json!({ "join_ref": join_ref, "ref": reference, "topic": topic, "event": event, "payload": payload })
            }
            false => json!([join_ref, reference, topic, event, payload]),
        };
        message.to_string().into_bytes()
    }

    /// The decision table, read once more: how many replies a message gets, a join's perhaps later.
    pub(super) fn expect(&mut self, kind: MessageKind, bytes: &[u8]) {
        let Some([join_ref, reference, topic, event, _]) = slots(kind, bytes) else { return };
        let (Value::String(reference), Some(topic), Some(event)) = (reference, topic.as_str(), event.as_str()) else {
            return;
        };
        let replies = match self.live.get(topic) {
            _ if event == "phx_join" => {
                self.joins.insert(reference.clone(), (topic.to_owned(), join_ref));
                self.last_join.clone_from(&reference);
                1
            }
            Some(live) if topic != "phoenix" => match EVENTS.iter().find(|(name, _)| *name == event) {
                _ if !join_ref.is_null() && join_ref != live.join_ref => 0,
                Some((_, replies)) => *replies,
                None => u32::from(event == "phx_leave"),
            },
            _ => 1,
        };
        self.owed.insert(reference, replies);
    }

    fn hear(&mut self, kind: MessageKind, bytes: &[u8]) {
        let [join_ref, reference, topic, event, payload] = slots(kind, bytes).expect("what a server writes");
        let (topic, event) = (topic.as_str().expect("text"), event.as_str().expect("text"));
        if let Some((closed, join_ref)) = self.replaced.take() {
            assert_eq!(
                (event, topic, &reference),
                ("phx_close", &*closed, &join_ref),
                "the replaced is closed at once"
            );
            return;
        }
        match event {
            "phx_reply" => self.replied(reference.as_str().expect("refs are text"), &payload["status"]),
            "phx_close" | "phx_error" => {
                let ended = self.live.remove(topic).expect("a channel that ends had joined");
                assert_eq!(ended.join_ref, reference);
                self.gone.insert(topic.to_owned(), ended.push_ref);
            }
            _ => {
                let live = self.live.get(topic).map(|live| &live.push_ref);
                let farewell = event == "bye" && (self.old || self.gone.get(topic) == Some(&join_ref));
                assert!(live.is_some() || farewell, "{event} on {topic}, which is not joined");
                let mine = self.old || join_ref.is_null() || live == Some(&join_ref);
                assert!(mine || farewell, "{event} on {topic} is of another channel");
            }
        }
    }

    fn replied(&mut self, reference: &str, status: &Value) {
        *self.got.entry(reference.to_owned()).or_default() += 1;
        let Some((topic, join_ref)) = self.joins.remove(reference) else { return };
        self.replaced = self.live.remove(&topic).map(|live| (topic.clone(), live.join_ref));
        if status == "ok" {
            let push_ref = if join_ref.is_null() { json!(reference) } else { join_ref.clone() };
            self.live.insert(topic, Live { join_ref, push_ref });
        }
    }

    /// Every message has the replies that it is owed, and what is live here is what has joined there.
    pub(super) fn check(&self, joined: &BTreeSet<String>, held: bool) {
        assert!(self.replaced.is_none(), "the replaced channel was not closed");
        for (reference, owed) in &self.owed {
            let waits = held && *reference == self.last_join;
            let got = self.got.get(reference).copied().unwrap_or_default();
            assert_eq!(got, if waits { 0 } else { *owed }, "replies to {reference}");
        }
        let waiting = self.joins.get(&self.last_join).filter(|_| held).map(|(topic, _)| topic);
        let live = self.live.keys().filter(|topic| Some(*topic) != waiting).collect::<BTreeSet<_>>();
        assert_eq!(live, joined.iter().collect());
    }
}

/// The five slots of either version.
fn slots(kind: MessageKind, bytes: &[u8]) -> Option<[Value; 5]> {
    if kind != Text {
        return None;
    }
    match serde_json::from_slice(bytes).ok()? {
        Value::Array(slots) => slots.try_into().ok(),
        mut object => Some(["join_ref", "ref", "topic", "event", "payload"].map(|slot| object[slot].take())),
    }
}
