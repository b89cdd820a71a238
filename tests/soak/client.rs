//! One client: a socket that does not block, what it has yet to write, and what it has yet to get.
#![forbid(unsafe_code)]

use crate::Dice;
use crate::model::{Publications, Publisher, Span, Topic, acknowledged, parse};
use crate::service::burst_part;
use crate::wire::{self, Decoder, Frame};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;
use wingbeat::{ConnId, driver::SocketId};

/// A reply that has to come, in this order.
pub(crate) enum Due {
    /// Where it is connected to.
    Greeting,
    /// This.
    Frame(u8, Vec<u8>),
    /// A subscription begins; what its worker had published before.
    Subscribed(Topic, BTreeMap<Publisher, u64>),
    /// It ends; what its worker had published before.
    Unsubscribed(Topic, BTreeMap<Publisher, u64>),
    /// A publication is on its way.
    Published(Topic),
    /// Messages of a burst: the next, of how many, of what length.
    Burst(usize, usize, usize),
}

impl fmt::Debug for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Due::Greeting => f.write_str("a greeting"),
            Due::Frame(opcode, payload) => write!(f, "{opcode} of {} bytes", payload.len()),
            Due::Subscribed(topic, _) => write!(f, "S{topic}"),
            Due::Unsubscribed(topic, _) => write!(f, "U{topic}"),
            Due::Published(topic) => write!(f, "P of {topic}"),
            Due::Burst(at, count, length) => write!(f, "{at} of {count} of {length} bytes"),
        }
    }
}

/// How it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Not yet.
    Open,
    /// With a Close of this code, after all replies.
    Whole(u16),
    /// With a Close of this code, after some of the replies.
    Cut(u16),
    /// In whatever way, after some of the replies: it has ended its own side without a Close.
    Half,
    /// It is gone without a word.
    Gone,
}

pub(crate) struct Client {
    pub(crate) key: u32,
    pub(crate) id: Option<ConnId>,
    socket: Option<Socket>,
    dice: Dice,
    /// What is to be written, and how much of it was.
    out: Vec<u8>,
    written: usize,
    /// It shuts its side down when all is written.
    shut: bool,
    seen: Decoder,
    pub(crate) due: VecDeque<Due>,
    due_bytes: usize,
    pings: VecDeque<Vec<u8>>,
    /// Messages that the handle sent, by number: next to send, next to get.
    pub(crate) pushes: (u64, u64),
    pub(crate) spans: BTreeMap<Topic, Span>,
    /// Topics that it has asked to subscribe to and not to leave.
    pub(crate) wants: Vec<Topic>,
    /// It does not read.
    pub(crate) stalled: bool,
    /// So much waited for it that the policy of slow consumers may have struck since it had everything.
    pub(crate) slow: bool,
    /// It was slow once.
    pub(crate) was_slow: bool,
    /// It has missed something, and has to be told so by a Close.
    doomed: bool,
    /// Bytes of publications since it had everything.
    pub(crate) published_bytes: usize,
    pub(crate) end: End,
    /// It has sent its Close.
    pub(crate) sent_close: bool,
    /// The code of the Close that came.
    pub(crate) code: Option<u16>,
    pub(crate) received: u64,
    pub(crate) deliveries: u64,
}

/// What a client is held to.
pub(crate) struct Rules<'a> {
    pub(crate) publications: &'a mut Publications,
    /// The policy drops publications.
    pub(crate) drops: bool,
    /// The server drains: it closes whom it likes.
    pub(crate) draining: bool,
    /// Bytes that may wait for a client that is not slow.
    pub(crate) high: usize,
}

impl Client {
    /// Connects; small: with the least buffer for what it receives.
    pub(crate) fn connect(key: u32, seed: u64, to: SocketAddr, small: bool) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        if small {
            socket.set_recv_buffer_size(32 << 10).expect("a small buffer");
        }
        socket.connect(&to.into()).expect("the server listens");
        socket.set_nonblocking(true).expect("it does not block");
        socket.set_tcp_nodelay(true).expect("no delay");
        let (due_bytes, written, published_bytes, received, deliveries) = Default::default();
        let (shut, stalled, slow, was_slow, sent_close, doomed) = Default::default();
        Client {
            key,
            id: None,
            socket: Some(socket),
            dice: Dice(seed),
            out: wire::request("/", ""),
            written,
            shut,
            seen: Decoder::default(),
            due: VecDeque::from([Due::Greeting]),
            due_bytes,
            pings: VecDeque::new(),
            pushes: (0, 0),
            spans: BTreeMap::new(),
            wants: Vec::new(),
            stalled,
            slow,
            was_slow,
            doomed,
            published_bytes,
            end: End::Open,
            sent_close,
            code: None,
            received,
            deliveries,
        }
    }

    // ---- what it does -----------------------------------------------------------------------------------------

    /// A message, in one frame or in many, with pings between them.
    pub(crate) fn message(&mut self, opcode: u8, payload: &[u8]) {
        let mut rest = payload;
        let mut opcode = opcode;
        let fragments = if self.dice.one_in(3) { 1 + self.dice.below(8) } else { 0 };
        for _ in 0..fragments {
            let (part, after) = rest.split_at(self.dice.below(rest.len() + 1));
            self.frame(opcode, false, part);
            (opcode, rest) = (wire::CONTINUATION, after);
            if self.dice.one_in(4) {
                self.ping();
            }
        }
        self.frame(opcode, true, rest);
    }

    pub(crate) fn ping(&mut self) {
        let payload = self.dice.next().to_string().into_bytes();
        self.frame(wire::PING, true, &payload);
        self.pings.push_back(payload);
    }

    pub(crate) fn frame(&mut self, opcode: u8, fin: bool, payload: &[u8]) {
        let key = (self.dice.next() as u32).to_be_bytes();
        self.raw(&wire::frame(opcode, fin, payload, Some(key)));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn command(&mut self, text: &str) {
        self.message(wire::TEXT, text.as_bytes());
    }

    pub(crate) fn expect(&mut self, due: Due) {
        self.due_bytes += match &due {
            Due::Frame(_, payload) => payload.len(),
            Due::Burst(_, count, length) => count * length,
            _ => 0,
        };
        self.due.push_back(due);
    }

    /// Its last frame.
    pub(crate) fn close(&mut self, code: u16) {
        self.sent_close = true;
        self.frame(wire::CLOSE, true, &wire::close_payload(code, ""));
    }

    /// Whether it has subscribed, as far as one can know.
    pub(crate) fn may_hear(&self, topic: Topic) -> bool {
        let asks = |due: &Due| matches!(due, Due::Subscribed(of, _) | Due::Unsubscribed(of, _) if *of == topic);
        self.spans.contains_key(&topic) || self.due.iter().any(asks)
    }

    /// Ends its side when everything is written.
    pub(crate) fn half_close(&mut self) {
        self.shut = true;
        self.end = End::Half;
    }

    /// Breaks the connection, with whatever is on its way.
    pub(crate) fn reset(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.set_linger(Some(Duration::ZERO)).expect("a reset");
        }
        self.end = End::Gone;
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.socket.is_none()
    }

    /// Whether it has written all.
    pub(crate) fn has_written(&self) -> bool {
        self.written == self.out.len()
    }

    // ---- what happens to it -----------------------------------------------------------------------------------

    /// Writes and reads some. True if something moved.
    pub(crate) fn pump(&mut self, rules: &mut Rules<'_>) -> bool {
        self.judge(rules);
        let moved = self.write();
        let moved = !self.stalled && self.read(rules) || moved;
        if self.is_gone() {
            self.finished();
        }
        moved
    }

    /// Whether so much may wait for it that the policy strikes.
    fn judge(&mut self, rules: &Rules<'_>) {
        if self.due_bytes + self.published_bytes > rules.high / 2 {
            (self.slow, self.was_slow) = (true, true);
        }
    }

    fn write(&mut self) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        let mut moved = false;
        for _ in 0..4 {
            let rest = &self.out[self.written..];
            if rest.is_empty() {
                break;
            }
            let most = self.dice.pick(&[1, 2, 7, 100, 1500, 20_000, 1 << 20]);
            match socket.write(&rest[..rest.len().min(most)]) {
                Ok(count) => (self.written, moved) = (self.written + count, true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    // The server has closed; what it said before is still read.
                    self.out.clear();
                    self.written = 0;
                }
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            if std::mem::take(&mut self.shut) {
                let _ = socket.shutdown(Shutdown::Write);
            }
        }
        moved
    }

    fn read(&mut self, rules: &mut Rules<'_>) -> bool {
        let most = self.dice.pick(&[10, 1000, 65536, 65536]);
        let mut buffer = [0; 65536];
        let Some(socket) = &mut self.socket else { return false };
        match socket.read(&mut buffer[..most]) {
            Ok(0) => self.socket = None,
            Ok(count) => {
                self.received += count as u64;
                self.seen.push(&buffer[..count]).unwrap_or_else(|error| self.fail(&error));
                assert!(matches!(self.seen.status(), None | Some(101)), "{:?}", self.seen.head);
                for frame in std::mem::take(&mut self.seen.frames) {
                    self.take(frame, rules);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.socket = None,
        }
        true
    }

    fn take(&mut self, frame: Frame, rules: &mut Rules<'_>) {
        match (frame.opcode, frame.payload.first()) {
            (wire::PING, _) => self.frame(wire::PONG, true, &frame.payload),
            (wire::PONG, _) => {
                // Newer pings supersede older ones.
                let at = self.pings.iter().position(|ping| *ping == frame.payload);
                let at = at.unwrap_or_else(|| self.fail("a pong without a ping, or out of order"));
                self.pings.drain(..=at);
            }
            (wire::CLOSE, _) => self.closed(frame.code(), rules),
            (_, Some(b'm')) => self.publication(frame.text(), rules),
            (_, Some(b'x')) => self.pushed(frame.text()),
            _ => self.reply(&frame, rules),
        }
    }

    fn publication(&mut self, text: &str, rules: &Rules<'_>) {
        self.deliveries += 1;
        let head = &text[..text.len().min(60)];
        let (topic, publisher, number) = parse(text).unwrap_or_else(|| self.fail(head));
        let outcome = match self.spans.get_mut(&topic) {
            Some(span) => span.take(publisher, number, rules.publications),
            None => Err("it has not subscribed".into()),
        };
        if outcome.unwrap_or_else(|error| self.fail(&format!("{head}: {error}"))) {
            self.missed(&format!("those before {head}"), rules);
        }
    }

    fn pushed(&mut self, text: &str) {
        let expected = format!("x{} {} ", self.key, self.pushes.1);
        if !text.starts_with(&expected) || self.pushes.1 == self.pushes.0 {
            self.fail(&format!("{text} came, next is {expected}"));
        }
        self.pushes.1 += 1;
    }

    fn reply(&mut self, frame: &Frame, rules: &mut Rules<'_>) {
        let Some(due) = self.due.pop_front() else {
            self.fail(&format!("nothing was asked for, and {:?} came", start(frame)));
        };
        let text = || String::from_utf8_lossy(&frame.payload);
        let right = match &due {
            Due::Greeting => {
                self.id = greeting(&text());
                self.id.is_some()
            }
            Due::Frame(opcode, payload) => {
                self.due_bytes -= payload.len();
                frame.opcode == *opcode && frame.payload == *payload
            }
            &Due::Burst(at, count, length) => {
                self.due_bytes -= length;
                if at + 1 < count {
                    self.due.push_front(Due::Burst(at + 1, count, length));
                }
                text() == burst_part(at, length)
            }
            Due::Subscribed(topic, before) => {
                self.spans.insert(*topic, Span::new(*topic, before, rules.publications));
                text() == format!("S{topic}")
            }
            Due::Unsubscribed(topic, before) => {
                let span = self.spans.remove(topic).expect("it had subscribed");
                if let Some(missing) = span.missing(before, rules.publications) {
                    self.missed(&format!("{missing:?} of topic {topic}, before its end"), rules);
                }
                text() == format!("U{topic}")
            }
            &Due::Published(topic) => {
                let refused = text().strip_prefix('P').and_then(|count| count.parse::<u32>().ok());
                rules.publications.acknowledge(topic, self.key, refused.is_some_and(|count| count > 0));
                self.heard_itself(topic, rules);
                refused.is_some()
            }
        };
        if !right {
            self.fail(&format!("{:?} came instead of {due:?}", start(frame)));
        }
    }

    /// A subscriber gets its own publication before the answer to it.
    fn heard_itself(&mut self, topic: Topic, rules: &Rules<'_>) {
        let Some(span) = self.spans.get(&topic) else { return };
        let acknowledged = rules.publications.0[&(topic, self.key)].acknowledged;
        if let Some(missing) = span.missing(&BTreeMap::from([(self.key, acknowledged)]), rules.publications) {
            self.missed(&format!("its own {missing:?}, before the answer"), rules);
        }
    }

    /// Publications did not come. A policy may have dropped them, or is about to close the connection, which leaves them
    /// behind.
    fn missed(&mut self, what: &str, rules: &Rules<'_>) {
        if !(self.slow || rules.drops && self.was_slow) {
            self.fail(&format!("missed {what}"));
        }
        self.doomed |= !rules.drops;
    }

    fn closed(&mut self, code: u16, rules: &Rules<'_>) {
        self.code = Some(code);
        if self.doomed && code != 1013 {
            self.fail(&format!("publications were left behind, and the Close says {code}"));
        }
        match self.end {
            End::Whole(expected) if code == expected && self.due.is_empty() => {}
            End::Cut(expected) if code == expected => {}
            End::Half | End::Cut(_) | End::Whole(_) | End::Open if code == 1013 && self.slow => {}
            End::Half => {}
            _ if code == 1012 && rules.draining => {}
            _ => self.fail(&format!("a Close with {code}")),
        }
        if !self.sent_close {
            self.close(code);
        }
    }

    /// The socket has ended.
    fn finished(&self) {
        if self.code.is_none() && !matches!(self.end, End::Half | End::Gone) {
            self.fail("the connection ended without a Close");
        }
    }

    // ---- what it lacks ----------------------------------------------------------------------------------------

    /// What it has yet to get or do, so that everything until now has happened; none if nothing.
    pub(crate) fn lacks(&self, rules: &Rules<'_>) -> Option<String> {
        if self.is_gone() {
            return None;
        }
        if self.end != End::Open || self.code.is_some() {
            return Some(format!("its end {:?}, code {:?}", self.end, self.code));
        }
        if !self.has_written() || !self.due.is_empty() {
            let rest = self.out.len() - self.written;
            return Some(format!("{rest} bytes to write, replies {:?}", self.due.iter().take(5).collect::<Vec<_>>()));
        }
        if !self.pings.is_empty() || self.pushes.0 != self.pushes.1 {
            return Some(format!("pongs {:?}, pushes {:?}", self.pings, self.pushes));
        }
        if self.doomed {
            return Some("the Close with 1013".into());
        }
        if rules.drops && self.was_slow {
            return None;
        }
        let missing = |(&topic, span): (&Topic, &Span)| {
            let all = acknowledged(rules.publications, topic, None);
            span.missing(&all, rules.publications).map(|missing| format!("{missing:?} of topic {topic}"))
        };
        self.spans.iter().find_map(missing)
    }

    /// It has everything.
    pub(crate) fn caught_up(&mut self, drops: bool) {
        // What was dropped cannot be told from what still waits.
        (self.slow, self.published_bytes) = (drops && self.was_slow, 0);
    }

    fn fail(&self, what: &str) -> ! {
        let Client { key, id, end, code, slow, was_slow, stalled, spans, .. } = self;
        panic!(
            "client {key} ({id:?}): {what}\nend {end:?}, code {code:?}, slow {slow} {was_slow}, stalled {stalled}, \
             next {:?}, {spans:?}",
            self.due.front()
        )
    }
}

fn greeting(text: &str) -> Option<ConnId> {
    let mut words = text.strip_prefix('h')?.split(' ');
    let worker = words.next()?.parse().ok()?;
    let socket = SocketId { slot: words.next()?.parse().ok()?, generation: words.next()?.parse().ok()? };
    Some(ConnId { worker, socket, request: 0 })
}

fn start(frame: &Frame) -> (u8, usize, String) {
    let start = &frame.payload[..frame.payload.len().min(60)];
    (frame.opcode, frame.payload.len(), String::from_utf8_lossy(start).into_owned())
}
