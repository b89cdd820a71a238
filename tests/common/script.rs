//! A handler that does what messages tell it, and a record of all that happened to it.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;
use wingbeat::{
    Acceptance, Answer, ClientResponse, CloseCode, CloseReason, Conn, ConnId, ConnectError, Encoder, Encoding, Handler,
    Keepalive, Message, MessageKind, Profile, Published, Request, Response, Scope, SendStatus, TopicListenerId,
    Upgrade,
};

/// What the handler was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Upgrade(u32),
    Open(u32),
    Message(u32, String),
    Writable(u32),
    Pong(u32, String),
    /// Key, topic, text.
    Delivery(u32, String, String),
    /// Topic, text.
    Heard(TopicListenerId, String, String),
    /// Worker, text.
    WorkerMail(u16, String),
    Close(u32, CloseReason),
    Connected(u64),
    ConnectFailed(u64, ConnectError),
    Note(String),
}

/// What a connection has to get, in the order of its worker's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Own(String),
    Topic(String),
    /// Published after the connection asked to be closed: it may come or not.
    Perhaps(String),
}

/// A publication or message from another worker or from outside.
#[derive(Clone, Debug)]
pub struct Foreign {
    pub text: String,
    /// The worker, or none: the handle.
    pub source: Option<u16>,
    pub to: Destination,
    /// Step at which it was posted.
    pub step: u64,
    /// Whether a worker refused it.
    pub refused: bool,
}

#[derive(Clone, Debug)]
pub enum Destination {
    Topic(String),
    Conn(ConnId),
}

#[derive(Clone, Debug, Default)]
pub struct Life {
    pub key: u32,
    pub due: Vec<Due>,
    /// Topic, from step, to step.
    pub subscriptions: Vec<(String, u64, Option<u64>)>,
    pub opened: u64,
    pub closed: Option<(u64, CloseReason)>,
    /// It asked to be closed.
    pub closing: bool,
    /// The engine noted a close in the middle of a callback: only a policy does that.
    pub judged: bool,
    /// Messages that came in.
    pub received: Vec<String>,
}

impl Life {
    fn subscribed(&self, topic: &str) -> bool {
        self.subscriptions.iter().any(|(name, _, to)| name == topic && to.is_none())
    }
}

/// Shared by all workers of a world.
#[derive(Debug, Default)]
pub struct Record {
    /// Counts turns of workers and actions from outside.
    pub step: u64,
    pub lives: BTreeMap<(u16, u32, u32), Life>,
    pub foreign: Vec<Foreign>,
    pub events: Vec<Event>,
    pub last_published: Option<Published>,
    /// Workers that began to drain, and their open connections then.
    pub drains: Vec<(u16, u32)>,
    pub published: u64,
    pub upgrades_accepted: u64,
    /// The newest connection of each key.
    pub ids: HashMap<u32, ConnId>,
    pub later: HashMap<u64, (ConnId, String)>,
    next: u64,
    /// What a connection that was accepted late needs.
    deferred: HashMap<(u16, u32, u32), (u32, String)>,
    pub silent: bool,
    /// Encodings made: class and text.
    pub encoded: Vec<(u8, String)>,
    /// Panics that scripts asked for: any other is a broken rule, found in a callback.
    pub panics: u64,
    /// What connections of the client role do first, by key.
    pub on_open: HashMap<u32, String>,
}

pub type Shared = Rc<RefCell<Record>>;

pub fn place(id: ConnId) -> (u16, u32, u32) {
    (id.worker, id.socket.slot, id.socket.generation)
}

impl Record {
    pub fn life(&self, key: u32) -> &Life {
        &self.lives[&place(self.ids[&key])]
    }

    pub fn log(&mut self, event: Event) {
        if !self.silent {
            self.events.push(event);
        }
    }

    /// A number nobody had.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn alive(&mut self, id: ConnId) -> &mut Life {
        let life = self.lives.get_mut(&place(id)).unwrap_or_else(|| panic!("{id} was never opened"));
        assert!(life.closed.is_none(), "{id}: a callback after close");
        life
    }

    /// What the subscribers on the publisher's worker have to get, and what may come elsewhere.
    fn publication(&mut self, worker: Option<u16>, topic: &str, except: Option<ConnId>, text: &str, refused: bool) {
        for (at, life) in &mut self.lives {
            if Some(at.0) == worker
                && life.closed.is_none()
                && life.subscribed(topic)
                && except.is_none_or(|except| place(except) != *at)
            {
                let text = text.to_owned();
                life.due.push(if life.closing || refused { Due::Perhaps(text) } else { Due::Topic(text) });
            }
        }
        let (text, to) = (text.to_owned(), Destination::Topic(topic.to_owned()));
        self.foreign.push(Foreign { text, source: worker, to, step: self.step, refused });
    }

    /// A publication through the handle.
    pub fn published_outside(&mut self, topic: &str, text: &str, refused: bool) {
        self.publication(None, topic, None, text, refused);
    }
}

/// The handler. Mail is a script too.
pub struct Script {
    pub record: Shared,
}

/// State of a connection: who it is.
#[derive(Debug)]
pub struct Me(pub ConnId);

fn number<T: std::str::FromStr>(text: Option<&str>) -> T {
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("a script without a number: {text:?}"))
}

/// A text that tells where it comes from and is not repeated, of at least `len` bytes.
pub fn tagged(tag: &str, number: u64, len: usize) -> String {
    format!("{:.<len$}", format!("{tag}{number}|"))
}

impl Script {
    pub fn run(&mut self, conn: &mut Conn<'_>, script: &str) {
        for step in script.split(';').filter(|step| !step.is_empty()) {
            self.step(conn, step.trim());
        }
    }

    fn step(&mut self, conn: &mut Conn<'_>, step: &str) {
        let (name, rest) = step.split_once(' ').unwrap_or((step, ""));
        let mut words = rest.split(' ');
        let id = conn.id();
        match name {
            "say" => self.say(conn, rest),
            "send" => {
                let (count, len) = (number::<u32>(words.next()), number(words.next()));
                for _ in 0..count {
                    let number = self.record.borrow_mut().number();
                    self.say(conn, &tagged("o", number, len));
                }
            }
            "with" => {
                let status = conn.send_with(MessageKind::Text, |out| out.push_str(rest));
                self.said(id, status, rest);
            }
            "tell" => {
                let (topic, text) = rest.split_once(' ').expect("tell TOPIC TEXT");
                self.publish(conn, topic, text, false);
            }
            "tellwith" => {
                let (topic, text) = rest.split_once(' ').expect("tellwith TOPIC TEXT");
                let published = conn.publish_with(topic, MessageKind::Text, |out| out.push_str(text));
                self.published(id.worker, topic, None, text, published);
            }
            "pub" | "pubfrom" => {
                let (topic, len) = (words.next().expect("a topic"), number(words.next()));
                let number = self.record.borrow_mut().number();
                self.publish(conn, topic, &tagged(&format!("p{}.", id.worker), number, len), name == "pubfrom");
            }
            "tellothers" => {
                let (topic, text) = rest.split_once(' ').expect("tellothers TOPIC TEXT");
                self.publish(conn, topic, text, true);
            }
            "sub" => self.subscribe(conn, rest, 0),
            "unsub" => self.unsubscribe(conn, rest),
            "subas" => {
                let (class, topic) = rest.split_once(' ').expect("subas CLASS TOPIC");
                self.subscribe(conn, topic, number(Some(class)));
            }
            "close" => {
                let code = CloseCode::new(number(words.next())).expect("a code");
                self.record.borrow_mut().alive(id).closing = true;
                conn.close(code, words.next().unwrap_or(""));
            }
            "panic" => {
                self.record.borrow_mut().alive(id).closing = true;
                self.panic();
            }
            "pause" => conn.pause(),
            "resume" => conn.resume(),
            "ping" => _ = conn.ping(rest.as_bytes()),
            "after" => {
                let (delay, script) = rest.split_once(' ').expect("after MS SCRIPT");
                let token = self.record.borrow_mut().number();
                self.record.borrow_mut().later.insert(token, (id, script.replace(',', ";")));
                conn.scope().set_timer(Duration::from_millis(number(Some(delay))), token);
            }
            "to" => {
                // Another connection of this worker, by its key.
                let (key, script) = rest.split_once(' ').expect("to KEY SCRIPT");
                let other = self.record.borrow().ids.get(&number(Some(key))).copied();
                let mut scope = conn.scope();
                let script = script.replace(',', ";");
                if let Some(mut other) = other.and_then(|id| scope.conn(id)) {
                    self.run(&mut other, &script);
                }
            }
            "queued" => {
                let note = format!("queued {}", conn.queued_bytes());
                self.record.borrow_mut().log(Event::Note(note));
            }
            _ => {}
        }
    }

    fn panic(&self) -> ! {
        self.record.borrow_mut().panics += 1;
        std::panic::panic_any("scripted")
    }

    fn say(&mut self, conn: &mut Conn<'_>, text: &str) {
        let status = conn.send(Message::text(text));
        self.said(conn.id(), status, text);
    }

    fn said(&mut self, id: ConnId, status: SendStatus, text: &str) {
        if status != SendStatus::Closing {
            self.record.borrow_mut().alive(id).due.push(Due::Own(text.to_owned()));
        }
    }

    fn publish(&mut self, conn: &mut Conn<'_>, topic: &str, text: &str, from: bool) {
        let published = match from {
            true => conn.publish_from(topic, Message::text(text)),
            false => conn.publish(topic, Message::text(text)),
        };
        self.published(conn.id().worker, topic, from.then(|| conn.id()), text, published);
    }

    fn published(&mut self, worker: u16, topic: &str, except: Option<ConnId>, text: &str, published: Published) {
        let mut record = self.record.borrow_mut();
        record.last_published = Some(published);
        record.published += 1;
        record.publication(Some(worker), topic, except, text, published.refused > 0);
    }

    fn subscribe(&mut self, conn: &mut Conn<'_>, topic: &str, class: u8) {
        let outcome = if class == 0 { conn.subscribe(topic) } else { conn.subscribe_as(topic, class) };
        let mut record = self.record.borrow_mut();
        let step = record.step;
        if let Err(error) = outcome {
            return record.log(Event::Note(format!("{error:?}")));
        }
        let life = record.alive(conn.id());
        if !life.closing && !life.subscribed(topic) {
            life.subscriptions.push((topic.to_owned(), step, None));
        }
    }

    fn unsubscribe(&mut self, conn: &mut Conn<'_>, topic: &str) {
        let was = conn.unsubscribe(topic);
        let mut record = self.record.borrow_mut();
        let step = record.step;
        let life = record.alive(conn.id());
        if life.closing {
            return; // it has no effect any more: the close ends it
        }
        let open = life.subscriptions.iter_mut().find(|(name, _, to)| name == topic && to.is_none());
        assert!(open.is_some() || !was, "there was no subscription");
        if open.is_some() && !was {
            // What it was sent or owed has just made it a slow consumer.
            (life.closing, life.judged) = (true, true);
            return;
        }
        if let Some((_, _, to)) = open {
            *to = Some(step);
        }
    }

    fn accept(&mut self, id: ConnId, key: u32) -> Me {
        let mut record = self.record.borrow_mut();
        record.upgrades_accepted += 1;
        let opened = record.step;
        let life = Life { key, opened, ..Life::default() };
        assert!(record.lives.insert(place(id), life).is_none(), "{id} was given twice");
        record.ids.insert(key, id);
        Me(id)
    }
}

impl Handler for Script {
    type State = Me;
    type Mail = String;

    fn upgrade(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Upgrade<Me> {
        let text = |name| request.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let key = text("x-key").map_or(0, |key| key.parse().expect("a key"));
        let id = request.id();
        self.record.borrow_mut().log(Event::Upgrade(key));
        self.record.borrow_mut().deferred.insert(place(id), (key, text("x-open").unwrap_or_default()));
        match request.path() {
            "/reject" => Upgrade::Reject(Response::text(403, "not you\n").header("X-Why", "because")),
            "/later" => {
                self.record.borrow_mut().ids.insert(key, id);
                Upgrade::Later
            }
            "/panic" => self.panic(),
            "/chat" => {
                assert!(request.offers_protocol("chat"));
                let with = Acceptance::new().protocol("chat").header("X-Served-By", "sim");
                Upgrade::AcceptWith(self.accept(id, key), with)
            }
            "/profile" => {
                // Message bytes, milliseconds until it is idle, close code (0: with pings).
                let numbers = text("x-profile").expect("a profile");
                let mut numbers = numbers.split(' ');
                let message_bytes = number(numbers.next());
                let idle_timeout = Duration::from_millis(number(numbers.next()));
                let keepalive = CloseCode::new(number(numbers.next())).map_or(Keepalive::Ping, Keepalive::Silent);
                let profile = Profile { message_bytes, idle_timeout, keepalive };
                Upgrade::AcceptWith(self.accept(id, key), Acceptance::new().profile(profile))
            }
            "/unoffered" => Upgrade::AcceptWith(Me(id), Acceptance::new().protocol("other")),
            "/split" => Upgrade::AcceptWith(Me(id), Acceptance::new().header("X-A", "a\r\nX-B: b")),
            _ => Upgrade::Accept(self.accept(id, key)),
        }
    }

    fn upgrade_later(&mut self, _: &mut Scope<'_>, id: ConnId, mail: String) -> Upgrade<Me> {
        let key = self.record.borrow().deferred[&place(id)].0;
        match mail.as_str() {
            "accept" => Upgrade::Accept(self.accept(id, key)),
            "later" => Upgrade::Later,
            _ => Upgrade::Reject(Response::text(403, "thought about it\n")),
        }
    }

    fn request(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Answer {
        let response = match request.path() {
            "/healthz" => Response::text(200, "ok\n"),
            "/typed" => Response::with_type(200, "text/csv", vec![b'1', b',', b'2']),
            "/owned" => Response::text(200, format!("{}", request.path().len())),
            "/split" => Response::text(200, "ok\n").header("X-A", "a\r\nX-B: b"),
            "/panic" => self.panic(),
            _ => Response::not_found(),
        };
        response.into()
    }

    fn open(&mut self, conn: &mut Conn<'_>, me: &mut Me) {
        assert_eq!(conn.id(), me.0);
        let known = self.record.borrow_mut().deferred.remove(&place(me.0));
        let (key, script) = known.unwrap_or_default();
        let key = if key == 0 { self.record.borrow().lives[&place(me.0)].key } else { key };
        self.record.borrow_mut().log(Event::Open(key));
        let own = self.record.borrow_mut().on_open.remove(&key).unwrap_or_default();
        self.run(conn, &script);
        self.run(conn, &own);
    }

    fn message(&mut self, conn: &mut Conn<'_>, me: &mut Me, message: Message<'_>) {
        assert_eq!(conn.id(), me.0);
        let text = String::from_utf8_lossy(message.payload).into_owned();
        let mut record = self.record.borrow_mut();
        let life = record.alive(me.0);
        assert!(!life.closing, "{}: a message after it was closed", me.0);
        life.received.push(text.clone());
        let key = life.key;
        record.log(Event::Message(key, text.clone()));
        drop(record);
        self.run(conn, &text);
    }

    fn mail(&mut self, conn: &mut Conn<'_>, me: &mut Me, mail: String) {
        assert!(!self.record.borrow_mut().alive(me.0).closing);
        self.run(conn, &mail);
    }

    fn encoder(&self) -> Option<Box<dyn Encoder>> {
        Some(Box::new(Codes { record: Rc::clone(&self.record) }))
    }

    fn delivery(&mut self, conn: &mut Conn<'_>, me: &mut Me, topic: &str, message: Message<'_>) {
        assert_eq!(conn.id(), me.0);
        let mut record = self.record.borrow_mut();
        assert!(!record.alive(me.0).closing, "{}: a delivery after it was closed", me.0);
        let (key, text) = (record.alive(me.0).key, String::from_utf8_lossy(message.payload).into_owned());
        record.log(Event::Delivery(key, topic.to_owned(), text.clone()));
        drop(record);
        if let Some(script) = text.strip_prefix('!') {
            self.run(conn, &script.replace(',', ";"));
        }
    }

    fn worker_mail(&mut self, scope: &mut Scope<'_>, mail: String) {
        self.record.borrow_mut().log(Event::WorkerMail(scope.worker(), mail.clone()));
        match mail.split_once(' ') {
            Some(("tell", rest)) => {
                let (topic, text) = rest.split_once(' ').expect("tell TOPIC TEXT");
                scope.publish(topic, Message::text(text));
            }
            _ if mail == "panic" => self.panic(),
            _ => {}
        }
    }

    fn draining(&mut self, scope: &mut Scope<'_>) {
        self.record.borrow_mut().drains.push((scope.worker(), scope.connections()));
        scope.publish("draining", Message::text("farewell"));
    }

    fn heard(&mut self, scope: &mut Scope<'_>, listener: TopicListenerId, topic: &str, message: Message<'_>) {
        let text = String::from_utf8_lossy(message.payload).into_owned();
        self.record.borrow_mut().log(Event::Heard(listener, topic.to_owned(), text.clone()));
        match text.as_str() {
            "!stop" => scope.listener_close(listener),
            "!panic" => self.panic(),
            "!answer" => _ = scope.publish_from_listener(listener, topic, Message::text("heard")),
            _ => {}
        }
    }

    fn writable(&mut self, conn: &mut Conn<'_>, me: &mut Me) {
        let mut record = self.record.borrow_mut();
        assert!(!record.alive(me.0).closing);
        let key = record.alive(me.0).key;
        record.log(Event::Writable(key));
        let _ = conn;
    }

    fn pong(&mut self, _: &mut Conn<'_>, me: &mut Me, payload: &[u8]) {
        let mut record = self.record.borrow_mut();
        let key = record.alive(me.0).key;
        record.log(Event::Pong(key, String::from_utf8_lossy(payload).into_owned()));
    }

    fn close(&mut self, scope: &mut Scope<'_>, me: Me, reason: CloseReason) {
        assert!(scope.conn(me.0).is_none(), "a connection that is over cannot be reached");
        let mut record = self.record.borrow_mut();
        let step = record.step;
        let life = record.alive(me.0);
        life.closed = Some((step, reason));
        life.subscriptions.iter_mut().for_each(|(_, _, to)| *to = to.or(Some(step)));
        let key = life.key;
        record.log(Event::Close(key, reason));
        if key % 5 == 4 {
            // A farewell to whoever listens.
            let text = tagged(&format!("p{}.", me.0.worker), record.number(), 0);
            drop(record);
            let published = scope.publish("t0", Message::text(&text));
            self.published(me.0.worker, "t0", None, &text, published);
        }
    }

    fn connected(&mut self, _: &mut Scope<'_>, id: ConnId, token: u64, response: &ClientResponse<'_>) -> Upgrade<Me> {
        let protocol = response.protocol().unwrap_or("none").to_owned();
        self.record.borrow_mut().log(Event::Connected(token));
        self.record.borrow_mut().log(Event::Note(format!("protocol {protocol}")));
        if token % 10 == 9 {
            return Upgrade::Reject(Response::new(503));
        }
        let me = self.accept(id, token as u32);
        Upgrade::Accept(me)
    }

    fn connect_failed(&mut self, _: &mut Scope<'_>, token: u64, error: ConnectError) {
        self.record.borrow_mut().log(Event::ConnectFailed(token, error));
    }

    fn timer(&mut self, scope: &mut Scope<'_>, token: u64) {
        let Some((id, script)) = self.record.borrow_mut().later.remove(&token) else { return };
        if let Some(mut conn) = scope.conn(id) {
            self.run(&mut conn, &script);
        }
    }
}

/// What classes get: 1 and 2 a message that names class and topic, as text and as bytes; 3 a callback; 4 both; 5
/// nothing; 6 a panic for what begins with "bad", else as 1.
struct Codes {
    record: Shared,
}

impl Encoder for Codes {
    fn encode(&mut self, class: u8, topic: &str, message: Message<'_>, out: &mut Vec<u8>) -> Encoding {
        let text = String::from_utf8_lossy(message.payload);
        self.record.borrow_mut().encoded.push((class, text.clone().into_owned()));
        out.extend_from_slice(format!("{class}:{topic}:{text}").as_bytes());
        match class {
            2 => Encoding::frame(MessageKind::Binary),
            3 => Encoding::DELIVER,
            4 => Encoding { frame: Some(MessageKind::Text), deliver: true },
            5 => Encoding::SKIP,
            6 if text.starts_with("bad") => {
                self.record.borrow_mut().panics += 1;
                std::panic::panic_any("scripted")
            }
            _ => Encoding::frame(MessageKind::Text),
        }
    }
}
