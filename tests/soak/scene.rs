//! One round: a server, its clients, and what they do, from a seed.
#![forbid(unsafe_code)]

use crate::Dice;
use crate::client::{Client, Due, End, Rules};
use crate::model::{Publications, Topic, acknowledged};
use crate::service::Service;
use crate::wire;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use wingbeat::driver::DriverChoice;
use wingbeat::{CloseCode, Config, ConnId, Counters, Drain, Handle, Message, Running, Server, SlowConsumer};

/// Far more than anything takes: it ends a round that hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const STEPS: usize = 500;
const CLIENTS: usize = 24;
const TOPICS: usize = 5;
/// The handle, among publishers.
const HANDLE: u32 = 0;

/// What ran: a soak that no longer reaches a path says so.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    clients: u64,
    abandoned: u64,
    received: u64,
    deliveries: u64,
    counters: Counters,
    closes: BTreeMap<(u16, &'static str), u64>,
}

impl Tally {
    pub(crate) fn assert_that_every_path_ran(&self) {
        for cause in ["peer", "local", "remote", "protocol", "slow_consumer", "drain", "lost", "failed"] {
            assert!(self.closes.keys().any(|(_, of)| *of == cause), "nothing was closed for {cause}");
        }
        let Counters { choked, messages_dropped, messages_undelivered, mail_stale, .. } = self.counters;
        let counts = [choked, messages_dropped, messages_undelivered, mail_stale, self.abandoned, self.deliveries];
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    }
}

pub(crate) struct Scene {
    dice: Dice,
    config: Config,
    server: Running<String>,
    address: SocketAddr,
    clients: Vec<Client>,
    next_key: u32,
    publications: Publications,
    /// Bytes of each topic before and since everything was last settled: they may still be in a worker's lane, and come to
    /// those that subscribe now.
    recent: [(usize, usize); TOPICS],
    /// Connections that are gone.
    former: Vec<ConnId>,
    /// Connections whose opening handshake never comes to its end.
    abandoned: Vec<TcpStream>,
    draining: bool,
    clients_made: u64,
    abandoned_made: u64,
    received: u64,
    deliveries: u64,
}

fn config(dice: &mut Dice) -> Config {
    use SlowConsumer::{Conflate, Disconnect, DropNewest, DropOldest};
    let mut config =
        Config { slow_consumer: dice.pick(&[Disconnect, DropNewest, DropOldest, Conflate]), ..Config::default() };
    config.limits.outbox_high = dice.pick(&[8 << 10, 64 << 10, 300 << 10]);
    config.limits.outbox_low = dice.pick(&[0, 2000]);
    config.budgets.deliveries = dice.pick(&[1, 32]);
    config.driver.receive_buffer = dice.pick(&[50, 4096, config.driver.receive_buffer]);
    config.driver.receive_budget = dice.pick(&[8192, config.driver.receive_budget]);
    config.driver.events = dice.pick(&[2, config.driver.events]);
    // A machine that does much else must not look like a client that does nothing.
    config.limits.handshake_timeout = PATIENCE;
    config.limits.close_timeout = PATIENCE;
    config.limits.stall_timeout = PATIENCE;
    config.limits.idle_timeout = PATIENCE;
    config
}

impl Scene {
    pub(crate) fn new(seed: u64, driver: DriverChoice) -> Scene {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let config = config(&mut dice);
        let workers = 1 + dice.below(2);
        let server = Server::bind("127.0.0.1:0").expect("an address").driver(driver).config(config).workers(workers);
        let server = server.spawn(|_| Service).expect("a server");
        let address = server.tcp_address().expect("TCP");
        let (clients_made, abandoned_made, received, deliveries) = Default::default();
        Scene {
            dice,
            config,
            server,
            address,
            clients: Vec::new(),
            next_key: HANDLE,
            publications: Publications::default(),
            recent: [(0, 0); TOPICS],
            former: Vec::new(),
            abandoned: Vec::new(),
            draining: false,
            clients_made,
            abandoned_made,
            received,
            deliveries,
        }
    }

    pub(crate) fn play(mut self, tally: &mut Tally) {
        for step in 0..STEPS {
            self.act();
            let some = self.dice.below(8);
            self.pump(some);
            if step % 40 == 39 {
                self.settle();
            }
        }
        if self.dice.one_in(2) {
            self.settle();
        }
        self.end(tally);
    }

    fn handle(&self) -> Handle<String> {
        self.server.handle().clone()
    }

    // ---- what happens -----------------------------------------------------------------------------------------

    fn act(&mut self) {
        if self.clients.len() < CLIENTS && self.dice.one_in(3) || self.clients.is_empty() {
            return self.connect();
        }
        let at = self.dice.below(self.clients.len());
        match self.dice.below(100) {
            0..28 => self.echoes(at),
            28..30 => self.talk(at, Client::ping),
            30..44 => self.subscribe(at),
            44..49 => self.unsubscribe(at),
            49..65 => self.publish(at),
            65..71 => self.publish_outside(),
            71..75 => self.push(at),
            75..79 => self.stall(at),
            79..81 => self.talk(at, |client| client.command("z3")),
            81 => self.abandon(),
            82..88 => self.flood(),
            _ => self.end_one(at),
        }
    }

    fn connect(&mut self) {
        self.next_key += 1;
        self.clients_made += 1;
        let (seed, small) = (self.dice.next(), self.dice.one_in(4));
        self.clients.push(Client::connect(self.next_key, seed, self.address, small));
    }

    /// Does something with a client that may still send.
    fn talk(&mut self, at: usize, what: impl FnOnce(&mut Client)) {
        let client = &mut self.clients[at];
        if client.end == End::Open && client.code.is_none() {
            what(client);
        }
    }

    fn echoes(&mut self, at: usize) {
        let (count, most) = self.dice.pick(&[(1, 126), (20, 126), (3, 3000), (1, 70_000), (1, 400_000), (1, 1 << 20)]);
        let mut dice = Dice(self.dice.next());
        self.talk(at, |client| {
            for _ in 0..count {
                let length = if dice.one_in(8) { most } else { dice.below(most + 1) };
                let binary = dice.one_in(2);
                let start = dice.next();
                let byte = |i: usize| (start.rotate_left(i as u32 % 64) as usize).wrapping_add(i * 31) as u8;
                let mut payload: Vec<u8> =
                    (0..length).map(|i| if binary { byte(i) } else { b' ' + byte(i) % 95 }).collect();
                if let Some(first) = payload.first_mut() {
                    *first = b'e';
                }
                let opcode = if binary { wire::BINARY } else { wire::TEXT };
                client.message(opcode, &payload);
                client.expect(Due::Frame(opcode, payload));
            }
        });
    }

    /// What had been published on a client's worker by now.
    fn before(&self, at: usize, topic: Topic) -> BTreeMap<u32, u64> {
        let worker = self.clients[at].id.map(|id| id.worker);
        worker.map_or_else(BTreeMap::new, |worker| acknowledged(&self.publications, topic, Some(worker)))
    }

    fn subscribe(&mut self, at: usize) {
        let topic = self.dice.below(TOPICS);
        let (before, recent) = (self.before(at, topic), self.recent[topic]);
        self.talk(at, |client| {
            if !client.wants.contains(&topic) {
                client.published_bytes += recent.0 + recent.1;
                client.wants.push(topic);
                client.command(&format!("s{topic}"));
                client.expect(Due::Subscribed(topic, before));
            }
        });
    }

    fn unsubscribe(&mut self, at: usize) {
        let Some(&topic) = self.clients[at].wants.first() else { return };
        let before = self.before(at, topic);
        self.talk(at, |client| {
            client.wants.retain(|other| *other != topic);
            client.command(&format!("u{topic}"));
            client.expect(Due::Unsubscribed(topic, before));
        });
    }

    /// Notes that bytes are on their way to everybody who may have subscribed.
    fn weigh(&mut self, topic: Topic, bytes: usize) {
        self.recent[topic].1 += bytes;
        for client in self.clients.iter_mut().filter(|client| client.may_hear(topic)) {
            client.published_bytes += bytes;
        }
    }

    fn publish(&mut self, at: usize) {
        let topic = self.dice.below(TOPICS);
        let (count, most) = self.dice.pick(&[(1, 200), (10, 200), (3, 3000), (1, 20_000)]);
        for _ in 0..count {
            let length = self.dice.below(most);
            let client = &mut self.clients[at];
            if client.end != End::Open || client.code.is_some() {
                return;
            }
            let Some(id) = client.id else { return };
            let text = self.publications.issue(topic, client.key, Some(id.worker), length);
            client.command(&format!("p{topic} {text}"));
            client.expect(Due::Published(topic));
            self.weigh(topic, text.len() + 4);
        }
    }

    fn publish_outside(&mut self) {
        let (topic, length) = (self.dice.below(TOPICS), self.dice.below(2000));
        let count = self.dice.pick(&[1, 1, 30]);
        self.publish_as_handle(topic, count, length);
    }

    /// The handle sends to one, by message or by mail, and to one that is gone.
    fn push(&mut self, at: usize) {
        let (mail, handle) = (self.dice.one_in(2), self.handle());
        self.talk(at, |client| {
            let Some(id) = client.id else { return };
            let text = format!("x{} {} from elsewhere", client.key, client.pushes.0);
            let taken = if mail { handle.mail(id, text) } else { handle.send(id, Message::text(&text)) };
            client.pushes.0 += u64::from(taken.is_ok());
        });
        if let Some(&gone) = self.former.last() {
            let _ = self.handle().send(gone, Message::text("x to nobody"));
        }
    }

    /// Reads no more for a while, and much comes.
    fn stall(&mut self, at: usize) {
        let (count, length) = self.dice.pick(&[(400, 20_000), (400, 20_000), (300, 1000)]);
        self.subscribe(at);
        self.talk(at, |client| {
            client.stalled = true;
            client.command(&format!("b{count} {length}"));
            client.expect(Due::Burst(0, count, length));
        });
    }

    /// Much is published to one that does not read.
    fn flood(&mut self) {
        let stalled = self.clients.iter().find(|client| client.stalled && !client.wants.is_empty());
        if let Some(topic) = stalled.map(|client| client.wants[0]) {
            self.publish_as_handle(topic, 100, 4000);
        }
    }

    fn publish_as_handle(&mut self, topic: Topic, count: usize, length: usize) {
        for _ in 0..count {
            let text = self.publications.issue(topic, HANDLE, None, length);
            self.weigh(topic, text.len() + 4);
            let published = self.handle().publish(&topic.to_string(), Message::text(&text));
            self.publications.acknowledge(topic, HANDLE, published.refused > 0);
        }
    }

    fn abandon(&mut self) {
        self.abandoned_made += 1;
        let mut stream = TcpStream::connect(self.address).expect("the server listens");
        let request = wire::request("/", "");
        stream.write_all(&request[..self.dice.below(request.len())]).expect("room for a few bytes");
        if self.dice.one_in(2) {
            self.abandoned.push(stream);
        }
    }

    fn end_one(&mut self, at: usize) {
        let (how, code, handle) = (self.dice.below(6), self.dice.pick(&[1000, 1001, 3000, 4999]), self.handle());
        let garbage = self.dice.pick(&[&[0x83, 0x80, 0, 0, 0, 0][..], &[0xc1, 0x80, 0, 0, 0, 0], &[0x81, 0x01, b'x']]);
        self.talk(at, |client| {
            let known = client.id.filter(|_| how == 5);
            match how {
                0 => {
                    client.close(code);
                    client.end = End::Whole(code);
                }
                1 => {
                    client.command(&format!("c{code}"));
                    client.end = End::Whole(code);
                }
                2 => {
                    client.raw(garbage);
                    client.end = End::Whole(1002);
                }
                3 => client.half_close(),
                4 => client.reset(),
                _ => {}
            }
            if let Some(id) = known
                && handle.disconnect(id, CloseCode::new(code).expect("a code"), "").is_ok()
            {
                client.end = End::Cut(code);
            }
        });
    }

    // ---- going on ---------------------------------------------------------------------------------------------

    /// Lets some of the clients, or all, write and read. True if something moved.
    fn pump(&mut self, some: usize) -> bool {
        let rules = &mut Rules {
            publications: &mut self.publications,
            drops: self.config.slow_consumer != SlowConsumer::Disconnect,
            draining: self.draining,
            high: self.config.limits.outbox_high as usize,
        };
        let mut moved = false;
        for (i, client) in self.clients.iter_mut().enumerate() {
            if some == 0 || i % (some + 1) == 0 {
                moved |= client.pump(rules);
            }
        }
        let (gone, there): (Vec<_>, _) = std::mem::take(&mut self.clients).into_iter().partition(Client::is_gone);
        self.clients = there;
        for client in gone {
            self.former.extend(client.id);
            self.received += client.received;
            self.deliveries += client.deliveries;
        }
        moved
    }

    fn lacking(&mut self) -> Option<String> {
        let rules = Rules {
            publications: &mut self.publications,
            drops: self.config.slow_consumer != SlowConsumer::Disconnect,
            draining: self.draining,
            high: self.config.limits.outbox_high as usize,
        };
        let lacks = |client: &Client| client.lacks(&rules).map(|what| format!("client {}: {what}", client.key));
        self.clients.iter().find_map(lacks)
    }

    fn until(&mut self, mut what: impl FnMut(&mut Scene) -> Option<String>) {
        let begin = Instant::now();
        loop {
            let moved = self.pump(0);
            let Some(lack) = what(self) else { return };
            assert!(begin.elapsed() < PATIENCE, "it never came: {lack}; {:?}", self.handle().metrics());
            if !moved {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Everybody reads, until everything that was asked for has come and everybody who is to end has.
    fn settle(&mut self) {
        self.clients.iter_mut().for_each(|client| client.stalled = false);
        self.until(Scene::lacking);
        let drops = self.config.slow_consumer != SlowConsumer::Disconnect;
        self.clients.iter_mut().for_each(|client| client.caught_up(drops));
        self.recent.iter_mut().for_each(|recent| *recent = (recent.1, 0));
        self.until(|scene| {
            let (open, there) = (scene.handle().metrics().counters.open, scene.clients.len() as u64);
            (open != there).then(|| format!("{open} are open, {there} clients are there"))
        });
    }

    fn end(mut self, tally: &mut Tally) {
        // One whose opening handshake is under way would be refused.
        self.clients.iter_mut().for_each(|client| client.stalled = false);
        self.until(|scene| {
            let waits = |client: &&Client| client.id.is_none() && client.code.is_none();
            scene.clients.iter().find(waits).map(|client| format!("the greeting of {}", client.key))
        });
        self.draining = true;
        self.server.drain(Drain { batch: 5, interval: Duration::from_millis(20), ..Drain::default() });
        for client in self.clients.iter_mut().filter(|client| client.end == End::Open) {
            client.end = End::Cut(CloseCode::SERVICE_RESTART.get());
        }
        self.abandoned.clear();
        self.until(|scene| scene.clients.first().map(|client| format!("the end of client {}", client.key)));
        let handle = self.handle();
        self.server.join().expect("the workers end well");
        let snapshot = handle.metrics();
        let all = snapshot.counters;
        let left = (all.open, all.frames_live, all.frame_bytes, all.topics, all.driver_stale, all.panics);
        assert_eq!(left, (0, 0, 0, 0, 0, 0), "open, frames, their bytes, topics, stale completions, panics: {all:?}");
        assert_eq!(all.messages_accepted, all.messages_sent + all.messages_dropped + all.messages_undelivered);
        assert_eq!(all.opened, snapshot.closes.values().sum::<u64>(), "each close is counted once");
        tally.counters.add(&all);
        for (reason, count) in snapshot.closes {
            *tally.closes.entry(reason).or_default() += count;
        }
        tally.clients += self.clients_made;
        tally.abandoned += self.abandoned_made;
        tally.received += self.received;
        tally.deliveries += self.deliveries;
    }
}
