//! The inside of a kit: sockets, what they publish, time, mail.
#![forbid(unsafe_code)]

use super::Received;
use crate::channels::context::is_reserved;
use crate::channels::outlet::{Address, Full, Letter, Outlet, Post, Refused, Sent, Service, TimerKey};
use crate::channels::{Broadcast, Outgoing, Reason, Scratch, Socket, UserSocket};
use crate::proto::{CloseCode, MessageKind};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, mpsc};
use std::time::Duration;

pub(super) struct World {
    mount: Arc<UserSocket>,
    /// In the order in which they came.
    pub(super) clients: BTreeMap<u128, Member>,
    published: VecDeque<Publication>,
    now: Duration,
    pub(super) letters: mpsc::Receiver<(u128, Letter)>,
    post: Arc<dyn Post>,
    pub(super) patience: Duration,
    next_id: u128,
}

pub(super) struct Member {
    socket: Socket,
    pub(super) desk: Desk,
}

/// The outlet of one client.
pub(super) struct Desk {
    id: u128,
    mount: Arc<UserSocket>,
    post: Arc<dyn Post>,
    pub(super) inbox: VecDeque<Received>,
    pub(super) subscriptions: HashMap<String, Service>,
    published: Vec<Publication>,
    pub(super) timers: Vec<Timer>,
    next_key: u64,
    now: Duration,
    pub(super) held: bool,
    pub(super) waiting: VecDeque<(MessageKind, Vec<u8>)>,
    pub(super) closed: Option<CloseCode>,
    /// The socket has been told that the connection is over.
    ended: bool,
    scratch: Scratch,
}

/// What was published.
struct Publication {
    topic: String,
    kind: MessageKind,
    bytes: Vec<u8>,
    /// Whose socket has to see it; the fastlane has served all others.
    to: Vec<u128>,
}

pub(super) struct Timer {
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

impl World {
    pub(super) fn new(mount: Arc<UserSocket>) -> World {
        let (sender, letters) = mpsc::channel();
        let post = Arc::new(Lane(sender));
        let (clients, published) = (BTreeMap::new(), VecDeque::new());
        let patience = Duration::from_secs(5);
        World { mount, clients, published, now: Duration::ZERO, letters, post, patience, next_id: 0 }
    }

    pub(super) fn enter(&mut self, socket: Socket) -> u128 {
        let id = self.next_id;
        self.next_id += 1;
        let desk = Desk {
            id,
            mount: Arc::clone(&self.mount),
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
            ended: false,
            scratch: Scratch::default(),
        };
        self.clients.insert(id, Member { socket, desk });
        self.act(id, |socket, desk| socket.open(desk));
        id
    }

    /// The connection is over.
    pub(super) fn leave(&mut self, id: u128) {
        self.act(id, |_, desk| desk.close(CloseCode::NORMAL));
        self.clients.remove(&id);
    }

    /// Runs something for one client, then whatever follows from it.
    pub(super) fn act(&mut self, id: u128, run: impl FnOnce(&mut Socket, &mut Desk)) {
        self.run(id, run);
        self.go_on();
    }

    /// Publishes from outside.
    pub(super) fn publish(&mut self, topic: &str, kind: MessageKind, bytes: Vec<u8>) {
        self.published_by(None, vec![Publication { topic: topic.to_owned(), kind, bytes, to: vec![] }]);
        self.go_on();
    }

    fn go_on(&mut self) {
        loop {
            if let Some(publication) = self.published.pop_front() {
                let Publication { topic, kind, bytes, to } = publication;
                for id in to {
                    self.run(id, |socket, desk| socket.delivery(desk, &topic, kind, &bytes));
                }
            } else if !self.hear() {
                return;
            }
        }
    }

    /// Runs something for a client that is still connected; if that closes the connection, its channels end.
    fn run(&mut self, id: u128, run: impl FnOnce(&mut Socket, &mut Desk)) {
        let Some(Member { socket, desk }) = self.clients.get_mut(&id).filter(|member| !member.desk.ended) else {
            return;
        };
        run(socket, desk);
        if desk.closed.is_some() {
            desk.ended = true;
            socket.end(desk, &Reason::Closed);
        }
        let published = std::mem::take(&mut desk.published);
        self.published_by(Some(id), published);
    }

    /// The fastlane serves at once who needs no socket for it; the publisher has had its own share in the callback, so
    /// that a broadcast is before the reply.
    fn published_by(&mut self, id: Option<u128>, published: Vec<Publication>) {
        for mut publication in published {
            for desk in self.clients.values_mut().map(|member| &mut member.desk).filter(|desk| Some(desk.id) != id) {
                let Publication { topic, kind, bytes, to } = &mut publication;
                desk.deliver(topic, *kind, bytes, to);
            }
            self.published.push_back(publication);
        }
    }

    /// Goes on with what a client sent while it was held; false if there is nothing.
    fn hear(&mut self) -> bool {
        let waits = |member: &&mut Member| !member.desk.held && !member.desk.ended && !member.desk.waiting.is_empty();
        let Some(member) = self.clients.values_mut().find(waits) else { return false };
        let (id, message) = (member.desk.id, member.desk.waiting.pop_front());
        if let Some((kind, bytes)) = message {
            self.run(id, |socket, desk| socket.message(desk, kind, &bytes));
        }
        true
    }

    /// Acts on the letters that are there; false if there is none.
    pub(super) fn read_letters(&mut self) -> bool {
        let mut any = false;
        while let Ok((id, letter)) = self.letters.try_recv() {
            self.act(id, |socket, desk| socket.letter(desk, letter));
            any = true;
        }
        any
    }

    /// Whether nobody has an address to write to: no letter will come but those that are there.
    pub(super) fn is_alone(&self) -> bool {
        let alone = Arc::strong_count(&self.post) == 1 + self.clients.len(); // ours, and one of each client
        fence(Ordering::Acquire); // the count is read relaxed: what was sent before somebody let go is seen
        alone
    }

    pub(super) fn advance(&mut self, by: Duration) {
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

impl Desk {
    /// Serves this client on the fastlane, or notes in `to` that its socket has to see the publication.
    fn deliver(&mut self, topic: &str, kind: MessageKind, bytes: &[u8], to: &mut Vec<u128>) {
        let Some(service) = self.subscriptions.get(topic) else { return };
        let Broadcast { event, payload } = Broadcast::read(kind, bytes).expect("channels publish broadcasts");
        match *service {
            Service::Fastlane { .. } if is_reserved(event) => {}
            Service::Fastlane { serializer, route } if !self.mount.intercepts(route, event) => {
                let (message, mut bytes) = (Outgoing::Broadcast { topic, event, payload }, Vec::new());
                if let Ok(kind) = self.mount.versions().serializer(serializer).encode(&message, &mut bytes) {
                    self.send(kind, &bytes);
                }
            }
            _ => to.push(self.id),
        }
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

    fn publish(&mut self, topic: &str, all: bool, kind: MessageKind, bytes: &[u8]) -> u32 {
        let mut to = Vec::new();
        if all {
            self.deliver(topic, kind, bytes, &mut to);
        }
        self.published.push(Publication { topic: topic.to_owned(), kind, bytes: bytes.to_vec(), to });
        0
    }

    fn set_timer(&mut self, delay: Duration, serial: u32, token: u64) -> Result<TimerKey, Refused> {
        let key = self.next_key;
        self.next_key += 1;
        self.timers.push(Timer { due: self.now + delay, key, serial, token });
        Ok(TimerKey(key))
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
