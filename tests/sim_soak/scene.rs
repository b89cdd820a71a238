//! One run: workers, peers, faults and what happens to them, all from a seed.
#![forbid(unsafe_code)]

use crate::common::script::{Destination, Foreign, tagged};
use crate::common::wire;
use crate::common::world::{Raw, World, config};
use crate::oracle;
use std::sync::Arc;
use std::time::Duration;
use wingbeat::driver::sim::Faults;
use wingbeat::engine::{Drain, SlowConsumer, Target};
use wingbeat::proto::handshake::client::RequestHead;
use wingbeat::{CloseCode, Config, ConnId, Message};

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What ran over all seeds: a soak that no longer reaches a path says so.
#[derive(Debug, Default)]
pub struct Tally {
    opened: u64,
    messages: u64,
    sent: u64,
    dropped: u64,
    undelivered: u64,
    published: u64,
    refused_publishes: u64,
    evicted: u64,
    refused: u64,
    stale_mail: u64,
    panics: u64,
    exhausted: u64,
    checked: u64,
    complete: u64,
    causes: std::collections::BTreeMap<String, u64>,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.opened += other.opened;
        self.messages += other.messages;
        self.sent += other.sent;
        self.dropped += other.dropped;
        self.undelivered += other.undelivered;
        self.published += other.published;
        self.refused_publishes += other.refused_publishes;
        self.evicted += other.evicted;
        self.refused += other.refused;
        self.stale_mail += other.stale_mail;
        self.panics += other.panics;
        self.exhausted += other.exhausted;
        self.checked += other.checked;
        self.complete += other.complete;
        for (cause, count) in &other.causes {
            *self.causes.entry(cause.clone()).or_default() += count;
        }
    }

    pub fn assert_that_every_path_ran(&self) {
        if self.opened < 10_000 {
            return; // too few seeds to tell
        }
        let counts = [self.dropped, self.undelivered, self.refused_publishes, self.evicted, self.refused];
        assert!(counts.iter().chain([&self.stale_mail, &self.panics, &self.exhausted]).all(|&count| count > 0));
        for cause in ["peer", "local", "remote", "protocol", "panic", "idle", "stalled", "slow_consumer", "memory"] {
            assert!(self.causes.contains_key(cause), "nothing was closed for {cause}");
        }
        assert!(["drain", "lost", "failed"].iter().all(|cause| self.causes.contains_key(*cause)));
        assert!(self.complete * 4 > self.checked, "the oracle sees too few connections to their end");
    }
}

/// A raw peer, what it sent, and how it behaves.
pub struct Player {
    pub raw: Raw,
    pub key: u32,
    /// Bytes that are still to be sent.
    unsent: Vec<u8>,
    pub pings: Vec<String>,
    sent_close: bool,
    /// It sends no more, for one reason or another.
    pub over: bool,
}

pub struct Scene {
    pub world: World,
    pub config: Config,
    pub players: Vec<Player>,
    dice: Dice,
    next_key: u32,
    next_number: u64,
    trace: bool,
    /// Steps at which each worker took a turn.
    pub turns: Vec<Vec<u64>>,
    /// The step from which on the network and all peers are kind.
    pub kind_from: u64,
}

const TOPICS: [&str; 4] = ["t0", "t1", "t2", "t3"];

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn tiny(dice: &mut Dice) -> Config {
    let mut config = config();
    use SlowConsumer::{Conflate, Disconnect, DropNewest, DropOldest};
    config.slow_consumer = dice.pick(&[Disconnect, DropNewest, DropOldest, Conflate]);
    let limits = &mut config.limits;
    limits.outbox_high = dice.pick(&[300, 300, 1000, 64 << 10]);
    limits.outbox_low = dice.pick(&[0, 100, 250]);
    limits.message_bytes = dice.pick(&[500, 1 << 20]);
    limits.handshake_timeout = dice.pick(&[ms(60), ms(5000)]);
    limits.idle_timeout = dice.pick(&[ms(0), ms(150), ms(60_000)]);
    limits.close_timeout = dice.pick(&[ms(40), ms(300)]);
    limits.stall_timeout = dice.pick(&[ms(100), ms(30_000)]);
    limits.frame_bytes = dice.pick(&[12_000, 256 << 20, 256 << 20]);
    limits.connections = dice.pick(&[4, 1000, 1000]);
    limits.connections_per_ip = dice.pick(&[0, 0, 1000, 5]);
    limits.mail_messages = dice.pick(&[2, 64]);
    limits.mail_overflow_bytes = dice.pick(&[0, 2000, 1 << 20]);
    limits.subscriptions = dice.pick(&[2, 1024]);
    limits.topics = dice.pick(&[3, 1024]);
    config.budgets.mail = dice.pick(&[1, 1024, 1024]);
    config.budgets.deliveries = dice.pick(&[1, 3, 20, 4096]);
    config.budgets.timers = dice.pick(&[1, 1024]);
    config.budgets.sends = dice.pick(&[1, 8]);
    config.driver.receive_buffer = dice.pick(&[3, 50, 500, 64 << 10]);
    config.driver.receive_budget = dice.pick(&[100, 512 << 10]);
    config.driver.accepts_per_poll = dice.pick(&[1, 256]);
    config
}

impl Scene {
    pub fn new(seed: u64, trace: bool) -> Scene {
        let workers = 1 + (seed % 3) as usize;
        let scene = Scene { trace, ..Scene::with_workers(seed, workers) };
        scene.note(|| format!("{:#?}", scene.config));
        scene
    }

    pub fn with_workers(seed: u64, workers: usize) -> Scene {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let config = tiny(&mut dice);
        let world = World::new(seed, config, workers);
        world.net.set_buffer(dice.pick(&[40, 400, 64 << 10]));
        world.net.set_faults(dice.pick(&[Faults::default(), Faults::benign(), Faults::benign(), Faults::hostile()]));
        if dice.one_in(8) {
            world.net.set_socket_limit(3);
        }
        world.record.borrow_mut().silent = true;
        Scene {
            world,
            config,

            players: Vec::new(),
            dice,
            next_key: 0,
            next_number: 0,
            trace: false,
            turns: vec![Vec::new(); workers],
            kind_from: u64::MAX,
        }
    }

    pub fn fingerprint(&self) -> u64 {
        self.world.net.fingerprint()
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>9?} step {:>4}  {}", self.world.net.elapsed(), self.world.record.borrow().step, text());
        }
    }

    /// Plays it, and holds the outcome to the rules.
    pub fn play(&mut self) -> Tally {
        let steps = 20 + self.dice.below(60);
        for _ in 0..steps {
            for _ in 0..self.dice.below(4) {
                self.act();
            }
            self.turn();
            let pause = self.dice.pick(&[0, 0, 1, 2, 10, 60]);
            self.world.net.advance(ms(pause));
        }
        self.end();
        self.world.assert_quiet();
        let (checked, complete) = oracle::check(self);
        self.tally(checked, complete)
    }

    fn tally(&self, checked: u64, complete: u64) -> Tally {
        let snapshot = self.world.handle.metrics();
        let counters = snapshot.counters;
        let mut tally = Tally {
            opened: counters.opened,
            messages: counters.received_messages,
            sent: counters.messages_sent,
            dropped: counters.messages_dropped,
            undelivered: counters.messages_undelivered,
            published: counters.published,
            refused_publishes: counters.publish_refused,
            evicted: counters.evicted,
            refused: counters.refused,
            stale_mail: counters.mail_stale,
            panics: counters.panics,
            exhausted: counters.accept_exhausted,
            checked,
            complete,
            causes: Default::default(),
        };
        for ((_, cause), count) in &snapshot.closes {
            *tally.causes.entry((*cause).to_owned()).or_default() += count;
        }
        tally
    }

    // ---- turns ----------------------------------------------------------------------------------------------

    fn turn(&mut self) {
        for worker in 0..self.world.workers.len() {
            if !self.dice.one_in(6) {
                self.turn_of(worker); // else it is busy elsewhere
            }
        }
    }

    fn turn_of(&mut self, worker: usize) {
        let step = {
            let mut record = self.world.record.borrow_mut();
            record.step += 1;
            record.step
        };
        self.turns[worker].push(step);
        let now = self.world.net.now();
        self.world.workers[worker].turn(now).expect("the simulator does not fail");
        self.look();
    }

    /// Holds what the kernel took to the rules of frames.
    fn look(&mut self) {
        for player in &mut self.players {
            let bytes = player.raw.peer.take();
            if let Err(error) = player.raw.seen.push(&bytes) {
                panic!("peer {}: {error}", player.key);
            }
        }
        let counters = self.world.counters();
        let ended = counters.messages_sent + counters.messages_dropped + counters.messages_undelivered;
        assert!(ended <= counters.messages_accepted, "more messages ended than there were: {counters:?}");
    }

    // ---- what happens ---------------------------------------------------------------------------------------

    fn act(&mut self) {
        match self.dice.below(40) {
            0..8 if self.players.len() < 10 => self.connect(),
            8..22 => self.speak(),
            22..24 => self.ping(),
            24..26 => self.stall(),
            26 => self.close(),
            27 => self.misbehave(),
            28..30 => self.publish_outside(),
            30 => self.send_outside(),
            31..34 => self.mail(),
            34 => self.disconnect(),
            35 => self.dial(),
            36 => self.flush_peers(),
            _ => {}
        }
    }

    fn connect(&mut self) {
        self.next_key += 1;
        let key = self.next_key;
        let Ok(peer) = self.world.net.connect(&self.world.address) else { return };
        let open = if self.dice.one_in(2) { self.script(1) } else { String::new() };
        let mut unsent = wire::request("/", &format!("X-Key: {key}\r\nX-Open: {open}\r\n"));
        if self.dice.one_in(12) {
            unsent = [&b"GET /healthz HTTP/1.1\r\nHost: sim\r\n\r\n"[..], b"BROKEN\r\n\r\n", b"GET / "]
                [self.dice.below(3)]
            .to_vec();
        }
        let raw = Raw { peer, seen: wire::Decoder::default() };
        let player = Player { raw, key, unsent, pings: Vec::new(), sent_close: false, over: false };
        self.note(|| format!("peer {key} connects; {open:?}"));
        self.players.push(player);
        let at = self.players.len() - 1;
        self.send_part(at);
    }

    /// A peer that may still send something.
    fn player(&mut self) -> Option<usize> {
        let able = |player: &Player| !player.over && !player.sent_close;
        let able: Vec<usize> = (0..self.players.len()).filter(|&at| able(&self.players[at])).collect();
        (!able.is_empty()).then(|| able[self.dice.below(able.len())])
    }

    /// Some steps for the handler to do.
    fn script(&mut self, most: usize) -> String {
        let steps: Vec<_> = (0..1 + self.dice.below(most)).map(|_| self.script_step()).collect();
        steps.join(";")
    }

    fn script_step(&mut self) -> String {
        let topic = self.dice.pick(&TOPICS);
        let len = self.dice.pick(&[0, 10, 60, 130, 700]);
        match self.dice.below(32) {
            0..6 => format!("send {} {len}", 1 + self.dice.below(4)),
            6..11 => format!("pub {topic} {len}"),
            11..13 => format!("pubfrom {topic} {len}"),
            13..20 => format!("sub {topic}"),
            20..22 => format!("unsub {topic}"),
            22 => format!("close {}", self.dice.pick(&[1000, 1001, 4000])),
            23 if self.dice.one_in(3) => "panic".to_owned(),
            24..26 => format!("pause;after {} resume", self.dice.below(30)),
            26 => format!("ping {}", self.number()),
            27 => format!("to {} send 2 {len},sub {topic}", 1 + self.dice.below(10)),
            28 if self.dice.one_in(2) => format!("to {} close 1001", 1 + self.dice.below(10)),
            29 => format!("after {} send 1 {len},pub {topic} 5", self.dice.below(20)),
            30 => format!("with u{}|", self.number()),
            _ => format!("send 1 {}", 3000),
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn speak(&mut self) {
        let Some(at) = self.player() else { return };
        let script = self.script(5);
        self.note(|| format!("peer {} says {script}", self.players[at].key));
        let key = (self.dice.next() as u32).to_ne_bytes();
        let payload = script.as_bytes();
        let mut frames = Vec::new();
        if self.dice.one_in(3) {
            let cut = self.dice.below(payload.len() + 1);
            frames.extend(wire::frame(wire::TEXT, false, &payload[..cut], Some(key)));
            if self.dice.one_in(2) {
                frames.extend(self.ping_frame(at));
            }
            frames.extend(wire::frame(wire::CONTINUATION, true, &payload[cut..], Some(key)));
        } else {
            frames.extend(wire::frame(wire::TEXT, true, payload, Some(key)));
        }
        self.players[at].unsent.extend(frames);
        self.send_part(at);
    }

    fn ping_frame(&mut self, at: usize) -> Vec<u8> {
        let text = self.number().to_string();
        let frame = wire::masked(wire::PING, text.as_bytes());
        self.players[at].pings.push(text);
        frame
    }

    fn ping(&mut self) {
        let Some(at) = self.player() else { return };
        let frame = self.ping_frame(at);
        self.players[at].unsent.extend(frame);
        self.send_part(at);
    }

    /// Sends what waits, or some of it.
    fn send_part(&mut self, at: usize) {
        let player = &mut self.players[at];
        let count = if self.dice.one_in(5) { self.dice.below(player.unsent.len() + 1) } else { player.unsent.len() };
        let part: Vec<u8> = player.unsent.drain(..count).collect();
        player.raw.peer.send(&part);
    }

    fn flush_peers(&mut self) {
        for player in &mut self.players {
            let rest = std::mem::take(&mut player.unsent);
            player.raw.peer.send(&rest);
        }
    }

    fn stall(&mut self) {
        if self.players.is_empty() {
            return;
        }
        let at = self.dice.below(self.players.len());
        let stalled = self.dice.one_in(2);
        self.note(|| format!("peer {} stalls: {stalled}", self.players[at].key));
        self.players[at].raw.peer.stall(stalled);
    }

    fn close(&mut self) {
        let Some(at) = self.player() else { return };
        let payload = match self.dice.below(3) {
            0 => Vec::new(),
            _ => wire::close_payload(self.dice.pick(&[1000, 1001, 3333]), "bye"),
        };
        self.note(|| format!("peer {} closes", self.players[at].key));
        let player = &mut self.players[at];
        player.unsent.extend(wire::masked(wire::CLOSE, &payload));
        player.sent_close = true;
        self.send_part(at);
    }

    fn misbehave(&mut self) {
        let Some(at) = self.player() else { return };
        let kind = self.dice.below(5);
        self.note(|| format!("peer {} misbehaves: {kind}", self.players[at].key));
        let player = &mut self.players[at];
        player.over = true;
        let rest = std::mem::take(&mut player.unsent);
        match kind {
            0 => _ = player.raw.peer.send(&[&rest[..], &[0x83, 0x00]].concat()),
            1 => _ = player.raw.peer.send(&[&rest[..], &wire::masked(wire::TEXT, b"\xff\xff")].concat()),
            2 => player.raw.peer.shutdown(),
            3 => player.raw.peer.reset(),
            _ => player.raw.peer.close(),
        }
    }

    fn outside(&mut self) -> u64 {
        let mut record = self.world.record.borrow_mut();
        record.step += 1;
        record.step
    }

    fn publish_outside(&mut self) {
        self.outside();
        let (topic, len) = (self.dice.pick(&TOPICS), self.dice.pick(&[0, 20, 200]));
        let text = tagged("h", self.number(), len);
        self.note(|| format!("the handle publishes {text} to {topic}"));
        let published = self.world.handle.publish(topic, Message::text(&text));
        self.world.record.borrow_mut().published_outside(topic, &text, published.refused > 0);
    }

    /// Any connection that there ever was.
    fn id(&mut self) -> Option<ConnId> {
        let record = self.world.record.borrow();
        let count = record.lives.len();
        let (&(worker, slot, generation), _) = record.lives.iter().nth(self.dice.below(count.max(1)))?;
        Some(ConnId { worker, socket: wingbeat::driver::SocketId { slot, generation }, request: 0 })
    }

    fn send_outside(&mut self) {
        let step = self.outside();
        let Some(id) = self.id() else { return };
        let text = tagged("h", self.number(), 10);
        self.note(|| format!("the handle sends {text} to {id}"));
        let refused = self.world.handle.send(id, Message::text(&text)).is_err();
        let foreign = Foreign { text, source: None, to: Destination::Conn(id), step, refused };
        self.world.record.borrow_mut().foreign.push(foreign);
    }

    fn mail(&mut self) {
        self.outside();
        let Some(id) = self.id() else { return };
        let script = self.script(3);
        self.note(|| format!("mail to {id}: {script}"));
        let _ = self.world.handle.mail(id, script);
    }

    fn disconnect(&mut self) {
        self.outside();
        let Some(id) = self.id() else { return };
        self.note(|| format!("disconnect {id}"));
        let _ = self.world.handle.disconnect(id, CloseCode::GOING_AWAY, "moved");
    }

    /// One of the workers connects to the others, or to itself.
    fn dial(&mut self) {
        self.outside();
        let token = 500 + u64::from(self.number() as u32) * 10;
        let mut head = RequestHead::new("sim", "/").expect("it is valid");
        head.header("X-Key", &(token + 1).to_string()).expect("it is valid");
        let target = Target { address: self.world.address.clone(), head, source: None, reconnect: None };
        let script = self.script(4);
        self.note(|| format!("connection {token} is dialled; {script}"));
        self.world.record.borrow_mut().on_open.insert(token as u32, script);
        let at = self.dice.below(self.world.workers.len());
        self.world.workers[at].with(|_, scope| scope.connect(&Arc::new(target), token));
    }

    // ---- the end --------------------------------------------------------------------------------------------

    /// The network is kind again, and everybody leaves: by a drain, or one by one.
    fn end(&mut self) {
        self.world.net.set_faults(Faults::default());
        self.world.net.set_socket_limit(usize::MAX);
        self.world.net.set_buffer(64 << 10);
        self.players.iter().for_each(|player| player.raw.peer.stall(false));
        self.flush_peers();
        self.kind_from = self.world.record.borrow().step;
        self.players.iter_mut().for_each(|player| player.over |= player.raw.peer.is_reset());
        let drains = self.dice.one_in(2);
        self.note(|| format!("the end, by a drain: {drains}"));
        if !drains || self.dice.one_in(2) {
            (0..30).for_each(|_| self.last_turn(false));
        }
        if drains {
            (0..self.dice.below(4)).for_each(|_| self.publish_outside());
            let plan = Drain { batch: 3, interval: ms(10), deadline: ms(1000), ..Drain::default() };
            self.world.handle.drain(plan);
        } else {
            self.leave();
        }
        for turn in 0..400 {
            self.last_turn(true);
            if turn == 100 {
                // Those whose handshake or last frame never came to its end.
                self.players.iter().for_each(|player| player.raw.peer.close());
            }
            if self.world.workers.iter().all(|worker| worker.sockets() == 0) {
                break;
            }
        }
        // What a worker said last to the topics of the others.
        (0..200).for_each(|_| self.last_turn(true));
        assert!(self.world.workers.iter().all(|worker| worker.sockets() == 0), "a connection never ended");
    }

    /// Everybody closes, the connections of the client role as told by the handle.
    fn leave(&mut self) {
        for at in 0..self.players.len() {
            let player = &mut self.players[at];
            if !player.over && !player.sent_close {
                player.sent_close = true;
                player.raw.peer.send(&wire::masked(wire::CLOSE, b""));
            }
        }
        let own: Vec<ConnId> = {
            let record = self.world.record.borrow();
            let own = record.lives.iter().filter(|(_, life)| life.closed.is_none() && life.key >= 500);
            own.map(|(&(worker, slot, generation), _)| ConnId {
                worker,
                socket: wingbeat::driver::SocketId { slot, generation },
                request: 0,
            })
            .collect()
        };
        for id in own {
            while self.world.handle.disconnect(id, CloseCode::NORMAL, "").is_err() {
                self.last_turn(false);
            }
        }
    }

    fn last_turn(&mut self, closing: bool) {
        for worker in 0..self.world.workers.len() {
            self.turn_of(worker);
        }
        self.world.net.advance(ms(5));
        for player in &mut self.players {
            if closing && player.raw.seen.closed && !player.sent_close && !player.over {
                player.sent_close = true;
                player.raw.peer.send(&wire::masked(wire::CLOSE, b""));
            }
            if closing && player.raw.peer.is_eof() {
                player.raw.peer.close();
            }
        }
        if closing {
            // Peers that never got beyond their handshake, or ended in the middle of a frame.
            self.players.iter().filter(|player| player.over).for_each(|player| player.raw.peer.close());
        }
    }
}
