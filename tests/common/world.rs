//! Workers on one simulated network, and raw peers that talk to them.
#![forbid(unsafe_code)]

use super::script::{Event, Record, Script, Shared};
use super::wire::{self, Decoder};
use super::workers;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use wingbeat::driver::sim::{Net, Peer, Sim};
use wingbeat::engine::{CloseCause, Counters, Handle, Worker};
use wingbeat::{Address, Config};

pub type SimWorker = Worker<Script, Sim>;

pub struct World {
    pub net: Net,
    pub workers: Vec<SimWorker>,
    pub handle: Handle<String>,
    pub record: Shared,
    pub address: Address,
}

/// A raw peer and what it was sent.
pub struct Raw {
    pub peer: Peer,
    pub seen: Decoder,
}

/// As small as others, with workers on one port and little room for mail.
pub fn config() -> Config {
    let mut config = workers::config();
    config.limits.mail_messages = 64;
    config.reuse_port = true;
    config
}

impl World {
    pub fn new(seed: u64, config: Config, workers: usize) -> World {
        let net = Net::new(seed);
        let record: Shared = Rc::new(RefCell::new(Record::default()));
        let at = vec!["127.0.0.1:4000".parse().expect("an address"); workers];
        let make = |_, _: &_| Script { record: Rc::clone(&record) };
        let (workers, mut addresses, handle) = workers::start(&net, seed, config, &at, make);
        let address = addresses.pop().expect("a worker");
        World { net, workers, handle, record, address }
    }

    pub fn one(config: Config) -> World {
        World::new(1, config, 1)
    }

    /// A turn of every worker.
    pub fn turn(&mut self) {
        for worker in &mut self.workers {
            self.record.borrow_mut().step += 1;
            worker.turn(self.net.now()).expect("the simulator does not fail");
        }
    }

    /// Enough turns for everything that needs no time.
    pub fn settle(&mut self) {
        (0..10).for_each(|_| self.turn());
    }

    /// Lets time pass, with a turn every 4 ms.
    pub fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(4) {
            self.net.advance(Duration::from_millis(4));
            self.turn();
        }
        self.settle();
    }

    pub fn counters(&self) -> Counters {
        self.handle.metrics().counters
    }

    pub fn closes(&self, code: u16, cause: &'static str) -> u64 {
        self.handle.metrics().closes.get(&(code, cause)).copied().unwrap_or(0)
    }

    pub fn connect(&self) -> Raw {
        Raw { peer: self.net.connect(&self.address).expect("it listens"), seen: Decoder::default() }
    }

    /// A connection with a key, open.
    pub fn open(&mut self, key: u32) -> Raw {
        self.open_with(key, "")
    }

    /// As `open`; the script runs in the handler's `open`.
    pub fn open_with(&mut self, key: u32, script: &str) -> Raw {
        let mut raw = self.connect();
        raw.peer.send(&wire::request("/", &format!("X-Key: {key}\r\nX-Open: {script}\r\n")));
        self.settle();
        raw.read();
        assert_eq!(raw.seen.status(), Some(101));
        raw
    }

    pub fn events(&self) -> Vec<Event> {
        self.record.borrow().events.clone()
    }

    /// Events that were not taken before.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.record.borrow_mut().events)
    }

    /// Everything was given back, and every message is accounted for.
    pub fn assert_quiet(&self) {
        let counters = self.counters();
        assert_eq!((counters.frames_live, counters.frame_bytes, counters.topics, counters.open), (0, 0, 0, 0));
        let ended = counters.messages_sent + counters.messages_dropped + counters.messages_undelivered;
        assert_eq!(counters.messages_accepted, ended);
        assert!(self.workers.iter().all(|worker| worker.sockets() == 0));
        let record = self.record.borrow();
        assert_eq!(counters.panics, record.panics, "a callback found a broken rule");
        assert_eq!(counters.opened, record.upgrades_accepted);
        for life in record.lives.values() {
            let (_, reason) = life.closed.expect("close was called for each");
            assert!(!life.judged || reason.cause == CloseCause::SlowConsumer, "{life:?}");
        }
    }
}

impl Raw {
    pub fn text(&self, text: &str) {
        self.peer.send(&wire::masked(wire::TEXT, text.as_bytes()));
    }

    pub fn close(&self, code: u16) {
        self.peer.send(&wire::masked(wire::CLOSE, &wire::close_payload(code, "")));
    }

    /// Looks at what came; returns the decoder.
    pub fn read(&mut self) -> &Decoder {
        let bytes = self.peer.take();
        self.seen.push(&bytes).unwrap_or_else(|error| panic!("{error}"));
        &self.seen
    }
}
