//! `socket_ops`: messages, broadcasts, timers and letters for three sockets, against what
//! docs/phoenix-wire.md promises a client.
#![forbid(unsafe_code)]

mod channel;
mod desk;

use channel::{Censored, Connection, Scripted, calls};
use desk::{Client, Desk, Publication};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::mpsc;
use std::{collections::VecDeque, mem, sync::Arc};
use wingbeat::MessageKind::{self, Binary, Text};
use wingbeat::channels::{Assigns, Broadcast, Letter, Payload, Reason, Service, Socket, UserSocket};

const SOCKETS: usize = 3;
const TOPICS: [&str; 5] = ["t:1", "t:2", "w:1", "id:0", "nowhere"];
/// How a join goes; see [`Scripted`].
const JOINS: [&str; 8] = ["ok", "reply", "refuse", "panic", "later", "forgotten", "nobody", "busy"];
/// What a client pushes, and how many replies it gets at once.
const EVENTS: [(&str, u32); 18] = [
    ("echo", 1),
    ("quiet", 0),
    ("later", 0),
    ("push", 0),
    ("broadcast", 0),
    ("broadcast_from", 0),
    ("broadcast and reply", 1),
    ("spied", 0),
    ("watch", 0),
    ("unwatch", 0),
    ("timer", 0),
    ("cancel", 0),
    ("push_to", 0),
    ("disconnect", 0),
    ("stop", 0),
    ("stop reply", 1),
    ("panic", 0),
    ("nobody knows this", 0),
];
const BROKEN: [(MessageKind, &[u8]); 4] = [(Text, b"["), (Text, b"{}"), (Binary, b"\x09"), (Binary, b"\0\xff\0\0\0")];
/// Subscriptions that a client may have, if the settings say so.
const CROWDED: usize = 3;

struct World {
    mount: Arc<UserSocket>,
    members: Vec<(Socket, Desk)>,
    published: VecDeque<Publication>,
    mail: (mpsc::Sender<(u128, Letter)>, mpsc::Receiver<(u128, Letter)>),
    next_id: u128,
    next_ref: u64,
    crowded: bool,
    /// The last socket speaks V1.
    old: bool,
}

/// The first byte: bit 0: few subscriptions; bit 1: the last socket speaks V1. Then operations of three bytes: what, on
/// which socket, with what.
pub fn socket_ops(data: &[u8]) {
    let Some((&settings, operations)) = data.split_first() else { return };
    let mut world = World::new(settings);
    for operation in operations.chunks_exact(3).take(300) {
        world.operate(operation[0], operation[1], usize::from(operation[2]));
        world.follow();
        world.check();
    }
    for at in 0..SOCKETS {
        world.renew(at, &Reason::Draining);
        world.follow();
    }
    world.check();
}

impl World {
    fn new(settings: u8) -> World {
        calls(mem::take);
        let mount = UserSocket::new()
            .channel("t:*", Scripted::default)
            .channel("w:*", Censored::default)
            .channel("id:*", Scripted::default)
            .channels_max(3);
        let (mount, members, published, mail) = (Arc::new(mount), Vec::new(), VecDeque::new(), mpsc::channel());
        let (crowded, old) = (settings & 1 != 0, settings & 2 != 0);
        let mut world = World { mount, members, published, mail, next_id: 0, next_ref: 0, crowded, old };
        for at in 0..SOCKETS {
            let member = world.member(at);
            world.members.push(member);
            world.run(at, |socket, desk| socket.open(desk));
        }
        world
    }

    /// A fresh connection; the first has no id.
    fn member(&mut self, at: usize) -> (Socket, Desk) {
        self.next_id += 1;
        let (id, old) = (self.next_id, self.old && at + 1 == SOCKETS);
        let name = at.checked_sub(1).map(|number| format!("id:{number}"));
        let room = if self.crowded { CROWDED } else { usize::MAX };
        let desk = Desk::new(id, self.mail.0.clone(), room, Client::new(old));
        let assigns = Assigns::new().with(Connection(id));
        (Socket::new(Arc::clone(&self.mount), u8::from(!old), assigns, name), desk)
    }

    fn operate(&mut self, operation: u8, choice: u8, operand: usize) {
        let at = usize::from(choice) % SOCKETS;
        let (topic, rest) = (TOPICS[operand % TOPICS.len()], operand / TOPICS.len());
        match operation % 13 {
            0 | 1 => self.join(at, topic, JOINS[rest % JOINS.len()], choice >> 2 & 1 == 1),
            2 => self.request(at, choice >> 2, topic, "phx_leave", ""),
            3..=5 => {
                let other = TOPICS[usize::from(choice >> 4) % TOPICS.len()];
                self.request(at, choice >> 2, topic, EVENTS[rest % EVENTS.len()].0, other);
            }
            6 => self.request(at, choice >> 2, "phoenix", "heartbeat", ""),
            7 => {
                let (kind, bytes) = BROKEN[operand % BROKEN.len()];
                self.message(at, kind, bytes.to_vec());
            }
            8 => {
                let event = ["said", "spied", "disconnect", "", "stop"][rest % 5];
                let mut bytes = Vec::new();
                let kind = Broadcast { event, payload: Payload::EMPTY }.write(&mut bytes);
                self.publish(usize::MAX, vec![Publication::new(topic, kind, &bytes)]);
            }
            9 => {
                self.run(at, |socket, desk| {
                    let Some(at) = operand.checked_rem(desk.timers.len()) else { return };
                    let (_, serial, token) = desk.timers.swap_remove(at);
                    socket.timer(desk, serial, token);
                });
            }
            10 => calls(|calls| calls.answer_join(operand)),
            11 => self.answer(operand),
            12 if choice >> 2 & 3 == 0 => self.renew(at, &Reason::Closed),
            _ => calls(|calls| calls.tell(operand)),
        }
    }

    fn join(&mut self, at: usize, topic: &str, how: &str, nameless: bool) {
        let reference = self.fresh_ref();
        let join_ref = if nameless { Value::Null } else { json!(reference) };
        let bytes = self.members[at].1.client.write(&join_ref, &reference, topic, "phx_join", &json!({ "how": how }));
        self.message(at, Text, bytes);
    }

    /// A message that goes by the join_ref that the client knows, or none, or another.
    fn request(&mut self, at: usize, which: u8, topic: &str, event: &str, other: &str) {
        let (reference, client) = (self.fresh_ref(), &self.members[at].1.client);
        let join_ref = match which % 4 {
            0 | 1 => client.join_ref(topic),
            2 => Value::Null,
            _ => json!(0),
        };
        let payload = json!({ "ref": reference, "topic": other });
        let bytes = client.write(&join_ref, &reference, topic, event, &payload);
        self.message(at, Text, bytes);
    }

    fn fresh_ref(&mut self) -> String {
        self.next_ref += 1;
        self.next_ref.to_string()
    }

    /// Hands a message over, unless the socket holds messages back, and counts what it is owed for it.
    fn message(&mut self, at: usize, kind: MessageKind, bytes: Vec<u8>) {
        let desk = &mut self.members[at].1;
        if desk.held {
            return desk.waiting.push_back((kind, bytes));
        }
        desk.client.expect(kind, &bytes);
        self.run(at, |socket, desk| socket.message(desk, kind, &bytes));
    }

    /// A late reply arrives exactly once if its connection is there.
    fn answer(&mut self, operand: usize) {
        let Some((id, late, reference)) = calls(|calls| calls.pick_reply(operand)) else { return };
        late.ok(operand).expect("there is room");
        if let Some((_, desk)) = self.members.iter_mut().find(|(_, desk)| desk.id == id) {
            *desk.client.owed.entry(reference).or_default() += 1;
        }
    }

    /// The connection ends, and another takes its place.
    fn renew(&mut self, at: usize, reason: &Reason) {
        let (socket, desk) = &mut self.members[at];
        desk.closed = true;
        socket.end(desk, reason);
        assert!(desk.timers.is_empty(), "timers outlive the connection");
        assert_eq!(socket.channels(), 0);
        let (id, published) = (desk.id, mem::take(&mut desk.published));
        self.publish(at, published);
        let member = self.member(at);
        self.members[at] = member;
        assert!(calls(|calls| calls.joined_by(id).is_empty()), "a channel did not end");
        self.run(at, |socket, desk| socket.open(desk));
    }

    fn run(&mut self, at: usize, run: impl FnOnce(&mut Socket, &mut Desk)) {
        let (socket, desk) = &mut self.members[at];
        run(socket, desk);
        let (published, closed) = (mem::take(&mut desk.published), desk.closed);
        self.publish(at, published);
        if closed {
            self.renew(at, &Reason::Closed);
        }
    }

    /// The fastlane serves at once; the publisher's own share was served in the callback.
    fn publish(&mut self, by: usize, published: Vec<Publication>) {
        for mut publication in published {
            for (_, (_, desk)) in self.members.iter_mut().enumerate().filter(|(at, _)| *at != by) {
                desk.deliver(&mut publication);
            }
            self.published.push_back(publication);
        }
    }

    /// Everything that follows from an operation.
    fn follow(&mut self) {
        loop {
            if let Some(Publication { topic, kind, bytes, to }) = self.published.pop_front() {
                for id in to {
                    if let Some(at) = self.members.iter().position(|(_, desk)| desk.id == id) {
                        self.run(at, |socket, desk| socket.delivery(desk, &topic, kind, &bytes));
                    }
                }
            } else if let Ok((id, letter)) = self.mail.1.try_recv() {
                if let Some(at) = self.members.iter().position(|(_, desk)| desk.id == id) {
                    self.run(at, |socket, desk| socket.letter(desk, letter));
                }
            } else {
                let waits = |(_, desk): &(Socket, Desk)| !desk.held && !desk.waiting.is_empty();
                let Some(at) = self.members.iter().position(waits) else { return };
                if let Some((kind, bytes)) = self.members[at].1.waiting.pop_front() {
                    self.message(at, kind, bytes);
                }
            }
        }
    }

    /// What holds whenever nothing is under way.
    fn check(&mut self) {
        for (socket, desk) in &self.members {
            let name = socket.id().map(str::to_owned);
            let (joined, watched) = calls(|calls| (calls.joined_by(desk.id), calls.watched_by(desk.id)));
            assert_eq!(socket.channels(), joined.len());
            let wanted = joined.iter().chain(&watched).chain(&name).collect::<BTreeSet<_>>();
            assert_eq!(desk.subscriptions.keys().collect::<BTreeSet<_>>(), wanted);
            for (topic, service) in &desk.subscriptions {
                let by_socket = watched.contains(topic) || name.as_deref() == Some(topic);
                assert_eq!(*service == Service::Socket, by_socket, "{topic}");
            }
            let clocks = usize::from(desk.held); // of the join that waits for its answer
            assert_eq!(desk.timers.len(), clocks + calls(|calls| calls.timers_of(desk.id)));
            desk.client.check(&joined, desk.held);
        }
    }
}
