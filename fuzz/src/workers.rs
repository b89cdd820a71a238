//! `worker_sim`: two workers on the simulated kernel, raw peers that behave as the input says, and what has to hold of
//! every byte that the peers got.
#![forbid(unsafe_code)]

use crate::naive::{self, Item};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};
use wingbeat::buffer::FrameSlabConfig;
use wingbeat::driver::{Address, Driver, DriverConfig, sim};
use wingbeat::engine::{self, Config, Drain, Handle, SlowConsumer, Worker};
use wingbeat::proto::{MaskingKey, Opcode, ReadLimits, Role, encoder};
use wingbeat::{CloseCode, Conn, Handler, Message, MessageKind, Never, Request, Scope, Upgrade};

const PEERS: usize = 6;
const TOPICS: [&str; 3] = ["a", "b", "c"];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const LONGEST: usize = 4096; // operations that are looked at, in bytes of input

/// How often the handler was told of a connection's beginning and end.
#[derive(Default)]
struct Ledger {
    opened: u32,
    closed: u32,
}

/// Does what the first byte of a message says: echo, subscribe, unsubscribe, publish, close. A message is that byte, one
/// of a topic, and its number: the peer in the high byte.
struct Obey(Rc<RefCell<Ledger>>);

impl Handler for Obey {
    type State = ();
    type Mail = Never;

    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        self.0.borrow_mut().opened += 1;
        Upgrade::Accept(())
    }

    fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
        let [command, topic, ..] = *message.payload else { return };
        let topic = TOPICS[usize::from(topic) % TOPICS.len()];
        match command {
            ECHO => _ = conn.send(message),
            SUBSCRIBE => _ = conn.subscribe(topic),
            UNSUBSCRIBE => _ = conn.unsubscribe(topic),
            PUBLISH => _ = conn.publish(topic, message),
            PUBLISH_TO_OTHERS => _ = conn.publish_from(topic, message),
            _ => conn.close(CloseCode::NORMAL, "as told"),
        }
    }

    fn close(&mut self, _: &mut Scope<'_>, (): (), _: wingbeat::CloseReason) {
        self.0.borrow_mut().closed += 1;
    }
}

const ECHO: u8 = 0;
const SUBSCRIBE: u8 = 1;
const UNSUBSCRIBE: u8 = 2;
const PUBLISH: u8 = 3;
const PUBLISH_TO_OTHERS: u8 = 4;
const CLOSE: u8 = 5;

/// A raw peer and what it has sent and got.
struct Peer {
    end: sim::Peer,
    number: u8,
    sent: u32,
    echoes: u32,
    /// It has kept to the protocol and was not hindered: all of its echoes have to come back.
    clean: bool,
    got: Vec<u8>,
}

struct Machine {
    net: sim::Net,
    workers: Vec<Worker<Obey, sim::Sim>>,
    handle: Handle<Never>,
    addresses: Vec<Address>,
    peers: BTreeMap<usize, Peer>,
    /// Those that were replaced.
    past: Vec<Peer>,
    ledger: Rc<RefCell<Ledger>>,
}

/// A byte of seed, a byte of settings, then operations of three bytes: which, and two operands.
pub fn worker_sim(data: &[u8]) {
    let Some((&[seed, settings], operations)) = data.split_first_chunk() else { return };
    let mut machine = Machine::new(seed, settings);
    for operation in operations[..operations.len().min(LONGEST)].chunks_exact(3) {
        machine.step(operation[0], operation[1], operation[2]);
    }
    machine.finish();
}

impl Machine {
    fn new(seed: u8, settings: u8) -> Machine {
        let net = sim::Net::new(u64::from(seed));
        net.set_buffer(if settings & 4 != 0 { 300 } else { 64 << 10 });
        let mut config = Config {
            driver: DriverConfig { receive_buffer: 4096, receive_budget: 8192, ..DriverConfig::default() },
            frames: FrameSlabConfig { small_frames: 8, medium_frames: 2, keep_large_bytes: 1 << 16 },
            slow_consumer: match settings & 3 {
                0 => SlowConsumer::Disconnect,
                1 => SlowConsumer::DropNewest,
                _ => SlowConsumer::DropOldest,
            },
            ..Config::default()
        };
        config.limits.close_timeout = Duration::from_millis(50);
        if settings & 8 != 0 {
            (config.limits.outbox_high, config.limits.outbox_low) = (400, 100);
            config.limits.message_bytes = 1000;
            config.budgets.deliveries = 3;
            config.limits.mail_messages = 4;
            config.limits.mail_overflow_bytes = 200;
        }
        let drivers = [net.driver(config.driver), net.driver(config.driver)];
        let wakers = drivers.iter().map(Driver::waker).collect::<Vec<_>>();
        let (seeds, handle) = engine::group(&wakers, config);
        let ledger = Rc::default();
        let start = |(seed, driver): (engine::WorkerSeed<Never>, _)| {
            seed.start_at(driver, Obey(Rc::clone(&ledger)), net.now(), Some(7))
        };
        let mut workers = seeds.into_iter().zip(drivers).map(start).collect::<Vec<_>>();
        let listen = |(port, worker): (usize, &mut Worker<Obey, sim::Sim>)| {
            let address = format!("127.0.0.1:{}", 4000 + port).parse().expect("an address");
            worker.listen(&address).expect("nobody else listens")
        };
        let addresses = workers.iter_mut().enumerate().map(listen).collect();
        Machine { net, workers, handle, addresses, peers: BTreeMap::new(), past: Vec::new(), ledger }
    }

    fn step(&mut self, which: u8, a: u8, b: u8) {
        let index = usize::from(a) % PEERS;
        match which % 16 {
            0 => self.connect(index, b),
            1..=7 => self.command(index, a, b),
            8 => self.misbehave(index, b),
            9 => self.end(index, b),
            10 => self.stall(index, b & 1 == 1),
            11 => self.faults(b),
            12 => self.net.advance(Duration::from_millis(u64::from(b) * u64::from(b))),
            13 => _ = self.handle.publish(TOPICS[index % TOPICS.len()], Message::binary(&[PUBLISH, 0, 0xff, b, 0, 0])),
            _ => (0..=b % 8).for_each(|_| self.turn()),
        }
    }

    fn turn(&mut self) {
        // As in `Worker::run`: a worker that has drained turns no more.
        for worker in self.workers.iter_mut().filter(|worker| !worker.is_drained()) {
            let now = self.net.now();
            worker.turn(now).expect("the simulated kernel has no errors of its own");
        }
        self.net.advance(Duration::from_millis(1));
    }

    /// A new peer sends its opening handshake, cut in two.
    fn connect(&mut self, index: usize, b: u8) {
        let Ok(end) = self.net.connect(&self.addresses[usize::from(b) % 2]) else { return };
        let (first, second) = REQUEST.split_at(usize::from(b).min(REQUEST.len()));
        end.send(first);
        if b & 2 != 0 {
            self.turn();
        }
        end.send(second);
        // A number of its own, so that a message tells who sent it.
        let number = (self.past.len() + self.peers.len()) as u8;
        let peer = Peer { end, number, sent: 0, echoes: 0, clean: true, got: Vec::new() };
        self.past.extend(self.peers.insert(index, peer));
    }

    fn command(&mut self, index: usize, a: u8, b: u8) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        peer.sent += 1;
        let command = b % 6;
        let mut payload = vec![command, a >> 4, peer.number, 0, (peer.sent >> 8) as u8, peer.sent as u8];
        payload.resize(6 + usize::from(b / 6) * 20, 0x2e);
        let mut wire = Vec::new();
        let key = MaskingKey([a, b, 3, 4]);
        encoder::frame(&mut wire, Opcode::Binary, true, &payload, Some(key));
        if a & 8 != 0 {
            encoder::frame(&mut wire, Opcode::Ping, true, &payload[..6], Some(key));
        }
        peer.clean &= command != CLOSE;
        if peer.end.send(&wire) && command == ECHO {
            peer.echoes += 1;
        }
    }

    fn misbehave(&mut self, index: usize, b: u8) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        peer.clean = false;
        let wire: &[u8] = match b % 6 {
            0 => b"\x88\x80\0\0\0\0",                                     // Close without a code
            1 => b"\x88\x82\0\0\0\0\x03\xe9",                             // Close 1001
            2 => b"\x81\x81\0\0\0\0\xff",                                 // no UTF-8
            3 => b"\x82\xff\0\0\0\0\x10\0\0\0\0\0\0\0",                   // too big
            4 => &[b; 3],                                                 // noise
            _ => b"\x02\x81\0\0\0\0\0\x09\x80\0\0\0\0\x80\x81\0\0\0\0\0", // fragments around a ping
        };
        peer.end.send(wire);
    }

    fn end(&mut self, index: usize, b: u8) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        peer.clean = false;
        match b % 3 {
            0 => peer.end.shutdown(),
            1 => peer.end.close(),
            _ => peer.end.reset(),
        }
    }

    fn stall(&mut self, index: usize, stalled: bool) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        peer.end.stall(stalled);
    }

    fn faults(&mut self, b: u8) {
        self.net.set_faults(match b % 3 {
            0 => sim::Faults::default(),
            1 => sim::Faults::benign(),
            _ => sim::Faults::hostile(),
        });
        if b % 3 == 2 {
            self.peers.values_mut().for_each(|peer| peer.clean = false);
        }
    }

    /// Everything settles: replies arrive, a drain ends all, and what was received is judged.
    fn finish(mut self) {
        self.net.set_faults(sim::Faults::default());
        for peer in self.peers.values().chain(&self.past) {
            peer.end.stall(false);
        }
        self.settle();
        for peer in self.peers.values_mut() {
            peer.collect();
            peer.check(true);
        }
        let plan = Drain {
            batch: 4,
            interval: Duration::from_millis(5),
            deadline: Duration::from_millis(50),
            ..Drain::default()
        };
        self.handle.drain(plan);
        self.turn_until(|machine| machine.workers.iter().all(Worker::is_drained), 2_000);
        assert!(self.workers.iter().all(Worker::is_drained), "the drain does not end");
        for peer in self.peers.values_mut().chain(&mut self.past) {
            peer.collect();
            peer.check(false);
        }
        let ledger = self.ledger.borrow();
        assert_eq!(ledger.opened, ledger.closed, "every accepted upgrade ends in one call of close");
    }

    fn turn_until(&mut self, done: impl Fn(&Machine) -> bool, most: u32) {
        for _ in 0..most {
            self.turn();
            if done(self) {
                return;
            }
        }
    }

    /// Turns until nothing has happened for longer than the simulated kernel delays anything.
    fn settle(&mut self) {
        let (mut last, mut quiet) = (0, 0);
        while quiet < 32 {
            self.turn();
            let fingerprint = self.net.fingerprint();
            quiet = if fingerprint == last { quiet + 1 } else { 0 };
            last = fingerprint;
        }
    }
}

impl Peer {
    fn collect(&mut self) {
        let bytes = self.end.take();
        self.got.extend(bytes);
    }

    /// `complete`: before the drain, when all replies must have arrived.
    fn check(&self, complete: bool) {
        let Some(head) = self.got.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return };
        if !self.got.starts_with(b"HTTP/1.1 101 ") {
            return assert!(self.got.starts_with(b"HTTP/1.1 "), "neither HTTP nor WebSocket");
        }
        let (items, error) = naive::decode(Role::Client, &ReadLimits::default(), &self.got[head + 4..], false);
        assert_eq!(error, None, "what the server sent is not RFC 6455");
        let mut latest = BTreeMap::new();
        let mut echoes = 0;
        for (i, item) in items.iter().enumerate() {
            match item {
                Item::Message(MessageKind::Binary, payload) => echoes += self.check_message(payload, &mut latest),
                Item::Message(MessageKind::Text, _) => panic!("nobody sent text"),
                Item::Close(_) => assert_eq!(i + 1, items.len(), "a frame after Close"),
                Item::Ping(_) | Item::Pong(_) => {}
            }
        }
        let over = self.end.is_eof() || self.end.is_reset() || matches!(items.last(), Some(Item::Close(_)));
        if complete && self.clean && !over {
            assert_eq!(echoes, self.echoes, "echoes of connection {} are missing", self.number);
        }
    }

    /// Each sender's messages arrive in the order they were sent, each at most once. 1 for an echo.
    fn check_message(&self, payload: &[u8], latest: &mut BTreeMap<u8, u32>) -> u32 {
        let &[command, _, sender, outside, high, low, ..] = payload else { panic!("a message was cut: {payload:?}") };
        if sender == 0xff {
            return 0; // from the handle, whose messages are not numbered
        }
        assert_eq!(outside, 0);
        let number = u32::from(high) << 8 | u32::from(low);
        assert!(latest.insert(sender, number).is_none_or(|before| before < number), "connection {sender} out of order");
        match command {
            ECHO => assert_eq!(sender, self.number, "somebody else's echo"),
            PUBLISH => {}
            PUBLISH_TO_OTHERS => assert_ne!(sender, self.number, "its own, which leaves it out"),
            _ => panic!("nobody sent this: {payload:?}"),
        }
        u32::from(command == ECHO)
    }
}
