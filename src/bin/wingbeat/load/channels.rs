//! `load channels`: clients of Phoenix channels that push and are replied to, or broadcast.
#![forbid(unsafe_code)]

use super::bursts::{Bursts, Publish};
use super::client::{Base, Workload};
use super::exchange::{Ask, Exchange};
use super::flight::Contents;
use super::phoenix::{BROADCAST_REF, FIRST_PUSH_REF, HEARTBEAT_REF, Incoming, JOIN_REF, Push, Reader, Reply};
use super::plan::{ChannelPlan, Plan};
use super::shared::Times;
use super::stamp::{STAMP_BYTES, Stamp};
use super::stats::ErrorKind;
use std::time::Duration;
use wingbeat::{Conn, Message, MessageKind, Scope};

/// How long a join may take: as the official client has it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Timers of a connection.
const JOIN_DUE: u64 = 0;
const HEARTBEAT_DUE: u64 = 1;

/// Clients with one channel each, spread over the topics. The first client in each topic is the one that broadcasts;
/// what it broadcasts, all of the topic get, it too.
#[derive(Debug)]
pub(crate) struct Channels {
    reader: Reader,
    seats: Seats,
    clients: Vec<Client>,
    /// By topic.
    joins: Vec<String>,
    heartbeat: String,
    heartbeat_every: Duration,
    replies: Option<Exchange<Replies>>,
    broadcasts: Option<Bursts<Broadcasts>>,
}

/// Which topic a connection of this thread joins.
#[derive(Clone, Copy, Debug)]
struct Seats {
    thread: u32,
    threads: u32,
    topics: u32,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    stage: Stage,
    awaits_heartbeat: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not connected, or of no use any more.
    Away,
    /// The join was sent at this time.
    Joining(u64),
    Joined,
}

/// Pushes that the server answers.
#[derive(Debug)]
struct Replies {
    contents: Contents,
    /// By topic.
    pushes: Vec<Push>,
    seats: Seats,
}

/// Pushes that the server broadcasts.
#[derive(Debug)]
struct Broadcasts {
    filler: Contents,
    /// By topic.
    pushes: Vec<Push>,
}

impl Channels {
    /// What a thread does in a run whose plan is one of channels.
    pub(crate) fn new(base: &mut Base) -> Channels {
        base.recorder.with_channels();
        let plan = &base.plan;
        let channels = plan.channels.as_ref().expect("the plan of this mode has them");
        let seats = Seats { thread: base.thread, threads: plan.threads, topics: channels.topics };
        let connections = base.links.len() as u32;
        let replies = channels.traffic.has_replies().then(|| Replies::new(plan, channels, seats));
        let broadcasts = channels.traffic.has_broadcasts().then(|| Broadcasts::new(plan, channels));
        Channels {
            reader: Reader::new(channels.version, &channels.broadcast_event, plan.payload),
            seats,
            clients: vec![Client { stage: Stage::Away, awaits_heartbeat: false }; connections as usize],
            joins: channels.topic_names().map(|topic| channels.version.join(&topic)).collect(),
            heartbeat: channels.version.heartbeat(),
            heartbeat_every: channels.heartbeat,
            replies: replies.map(|ask| Exchange::new(plan, connections, ask)),
            broadcasts: broadcasts.map(|publish| Bursts::new(base, connections, publish)),
        }
    }

    fn replied(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, reply: Reply<'_>, now: u64) {
        let is_ok = reply.is_ok;
        match reply.reference {
            JOIN_REF => self.join_answered(base, conn, index, is_ok),
            HEARTBEAT_REF => self.clients[index as usize].awaits_heartbeat = false,
            BROADCAST_REF if !is_ok => base.recorder.error(ErrorKind::ReplyStatus),
            BROADCAST_REF => {}
            _ => self.push_answered(base, conn, index, reply, now),
        }
    }

    fn join_answered(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, is_ok: bool) {
        let Stage::Joining(since) = self.clients[index as usize].stage else { return };
        if !is_ok {
            return self.give_up(base, conn, index, ErrorKind::JoinRefused);
        }
        self.clients[index as usize].stage = Stage::Joined;
        let now = base.now();
        base.recorder.joined(since, now);
        if let Some(broadcasts) = &mut self.broadcasts {
            let topic = self.seats.topic(index);
            broadcasts.join(base, index, topic..topic + 1);
            if index < broadcasts.publishers() {
                broadcasts.enter(base, conn, index);
            }
        }
        conn.set_timer(self.heartbeat_every, HEARTBEAT_DUE);
        base.stand(&mut conn.scope());
    }

    fn push_answered(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, reply: Reply<'_>, now: u64) {
        let Reply { reference, is_ok, contents } = reply;
        let number = reference.checked_sub(FIRST_PUSH_REF);
        let (Some(replies), Some(number)) = (&mut self.replies, number) else {
            return base.recorder.error(ErrorKind::OutOfOrder);
        };
        if !replies.answer_to(base, index, number) {
            return;
        }
        if !is_ok {
            base.recorder.error(ErrorKind::ReplyStatus);
        } else if contents.is_some_and(|contents| contents != replies.ask.contents.of(number)) {
            base.recorder.error(ErrorKind::WrongContents);
        }
        base.recorder.reply(replies.sent_at(index, number), now, contents.map_or(0, str::len));
        replies.go_on(conn, index, now);
    }

    fn delivered(&mut self, base: &mut Base, index: u32, stamp: Stamp, now: u64) {
        if let Some(broadcasts) = &mut self.broadcasts
            && broadcasts.arrive(base, index, stamp)
        {
            let bytes = base.plan.payload;
            base.recorder.delivery(stamp.time_ns, now, bytes);
        }
    }

    /// A client is of no use (any more).
    fn give_up(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, why: ErrorKind) {
        let stood = std::mem::replace(&mut self.clients[index as usize].stage, Stage::Away) == Stage::Joined;
        base.give_up(conn, index, stood, why);
        self.left(base, index);
    }

    /// What a client that is gone awaits is lost.
    fn left(&mut self, base: &mut Base, index: u32) {
        if let Some(replies) = &mut self.replies {
            replies.closed(base, index);
        }
        if let Some(broadcasts) = &mut self.broadcasts {
            broadcasts.leave(base, index);
        }
    }
}

impl Seats {
    fn topic(self, index: u32) -> u32 {
        (index * self.threads + self.thread) % self.topics
    }
}

impl Replies {
    fn new(plan: &Plan, channels: &ChannelPlan, seats: Seats) -> Replies {
        Replies { contents: Contents::new(plan.payload), pushes: channels.pushes(&channels.reply_event), seats }
    }
}

impl Ask for Replies {
    fn send(&self, conn: &mut Conn<'_>, index: u32, number: u64) {
        let push = &self.pushes[self.seats.topic(index) as usize];
        push.send(conn, FIRST_PUSH_REF + number, b"", self.contents.of(number));
    }
}

impl Broadcasts {
    fn new(plan: &Plan, channels: &ChannelPlan) -> Broadcasts {
        let filler = Contents::new(plan.payload - STAMP_BYTES);
        Broadcasts { filler, pushes: channels.pushes(&channels.broadcast_event) }
    }
}

impl Publish for Broadcasts {
    fn send(&self, conn: &mut Conn<'_>, stamp: Stamp) {
        // The publisher is the first client of the topic of its number.
        let push = &self.pushes[stamp.publisher as usize];
        push.send(conn, BROADCAST_REF, &stamp.encode(), self.filler.of(stamp.sequence.into()));
    }
}

impl ChannelPlan {
    fn topic_names(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.topics).map(|number| format!("{}{number}", self.topic_prefix))
    }

    fn pushes(&self, event: &str) -> Vec<Push> {
        self.topic_names().map(|topic| Push::new(self.version, &topic, event)).collect()
    }
}

impl Workload for Channels {
    fn open(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        self.clients[index as usize].stage = Stage::Joining(base.now());
        let join = &self.joins[self.seats.topic(index) as usize];
        conn.send(Message { kind: MessageKind::Text, payload: join.as_bytes() });
        conn.set_timer(JOIN_TIMEOUT, JOIN_DUE);
    }

    fn stands(&self, index: u32) -> bool {
        self.clients[index as usize].stage == Stage::Joined
    }

    fn begin(&mut self, base: &mut Base, scope: &mut Scope<'_>, times: &Times) {
        if let Some(replies) = &mut self.replies {
            replies.begin(base, scope, times);
        }
        if let Some(broadcasts) = &mut self.broadcasts {
            broadcasts.begin(base, scope, times);
        }
    }

    fn message(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, message: Message<'_>) {
        if self.clients[index as usize].stage == Stage::Away {
            return;
        }
        let now = base.message_time();
        match self.reader.read(message) {
            Ok(Incoming::Reply(reply)) => self.replied(base, conn, index, reply, now),
            Ok(Incoming::Delivery(stamp)) => self.delivered(base, index, stamp, now),
            Ok(Incoming::Crashed) => self.give_up(base, conn, index, ErrorKind::PhxError),
            Ok(Incoming::Closed) => self.give_up(base, conn, index, ErrorKind::PhxClose),
            Ok(Incoming::Other) => {}
            Ok(Incoming::ForeignDelivery) | Err(_) => base.recorder.error(ErrorKind::WrongContents),
        }
    }

    fn go_on(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        if let Some(broadcasts) = &mut self.broadcasts {
            broadcasts.go_on(base, conn, index);
        }
    }

    fn turn(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        if let Some(replies) = &mut self.replies {
            replies.turn(base, scope, now);
        }
        if let Some(broadcasts) = &mut self.broadcasts {
            broadcasts.turn(base, scope, now);
        }
    }

    fn next_at(&self) -> Option<u64> {
        let replies = self.replies.as_ref().and_then(Exchange::next_at);
        let broadcasts = self.broadcasts.as_ref().and_then(Bursts::next_at);
        replies.into_iter().chain(broadcasts).min()
    }

    fn conn_timer(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, token: u64) {
        let client = &mut self.clients[index as usize];
        match (token, client.stage) {
            (JOIN_DUE, Stage::Joining(_)) => self.give_up(base, conn, index, ErrorKind::JoinTimeout),
            (HEARTBEAT_DUE, Stage::Joined) if client.awaits_heartbeat => {
                self.give_up(base, conn, index, ErrorKind::HeartbeatTimeout);
            }
            (HEARTBEAT_DUE, Stage::Joined) => {
                client.awaits_heartbeat = true;
                conn.send(Message { kind: MessageKind::Text, payload: self.heartbeat.as_bytes() });
                conn.set_timer(self.heartbeat_every, HEARTBEAT_DUE);
            }
            _ => {}
        }
    }

    fn closed(&mut self, base: &mut Base, _: &mut Scope<'_>, index: u32) {
        self.clients[index as usize].stage = Stage::Away;
        self.left(base, index);
    }

    fn stop(&mut self, base: &mut Base) {
        if let Some(replies) = &mut self.replies {
            replies.stop(base);
        }
        if let Some(broadcasts) = &mut self.broadcasts {
            broadcasts.stop();
        }
    }

    fn is_settled(&self, base: &Base) -> bool {
        self.replies.as_ref().is_none_or(Exchange::is_settled)
            && self.broadcasts.as_ref().is_none_or(|broadcasts| broadcasts.is_settled(base))
    }

    fn conclude(&mut self, base: &mut Base) {
        if let Some(replies) = &mut self.replies {
            replies.conclude(base);
        }
        if let Some(broadcasts) = &mut self.broadcasts {
            broadcasts.conclude(base);
        }
    }
}
