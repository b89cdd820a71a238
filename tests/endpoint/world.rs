//! An endpoint's workers on one simulated network, each at a port of its own, and clients that talk to them.
#![forbid(unsafe_code)]

use crate::wire::{self, Decoder};
use crate::workers;
pub use crate::workers::config;
use serde_json::Value;
use std::time::Duration;
use wingbeat::driver::sim::{Net, Peer, Sim};
use wingbeat::endpoint::{Endpoint, EndpointHandle, EndpointHandler};
use wingbeat::engine::{Counters, Worker};
use wingbeat::{Address, Config};

pub struct World {
    pub net: Net,
    pub workers: Vec<Worker<EndpointHandler, Sim>>,
    pub handle: EndpointHandle,
    pub addresses: Vec<Address>,
}

impl World {
    pub fn new(seed: u64, endpoint: Endpoint, workers: usize) -> World {
        World::with(seed, endpoint, workers, config())
    }

    pub fn with(seed: u64, endpoint: Endpoint, workers: usize, config: Config) -> World {
        let net = Net::new(seed);
        let make = endpoint.handlers().expect("there is randomness");
        let at: Vec<Address> =
            (0..workers).map(|index| format!("127.0.0.1:{}", 4000 + index).parse().expect("an address")).collect();
        let (workers, addresses, handle) = workers::start(&net, seed, config, &at, make);
        World { net, workers, handle: EndpointHandle::from(handle), addresses }
    }

    pub fn turn(&mut self) {
        for worker in &mut self.workers {
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

    /// No worker keeps anything of clients that are gone.
    pub fn assert_empty(&mut self) {
        self.assert_no_sessions();
        assert!(self.workers.iter().all(|worker| worker.sockets() == 0));
    }

    /// As [`World::assert_empty`], with connections that are still open.
    pub fn assert_no_sessions(&mut self) {
        for worker in &mut self.workers {
            let kept = worker.with(|handler, _| format!("{handler:?}"));
            assert!(kept.contains("sessions: 0, listeners: 0, requests: 0, timers: 0"), "{kept}");
        }
    }

    pub fn raw(&self, worker: usize) -> Peer {
        self.net.connect(&self.addresses[worker]).expect("it listens")
    }

    /// A WebSocket to a worker; its 101 is not awaited.
    pub fn connect(&self, worker: usize, query: &str) -> Client {
        self.connect_as(worker, &format!("2.0.0{query}"))
    }

    /// A WebSocket of another version.
    pub fn connect_as(&self, worker: usize, vsn: &str) -> Client {
        let peer = self.raw(worker);
        peer.send(&wire::request(&format!("/socket/websocket?vsn={vsn}"), ""));
        Client { peer, seen: Decoder::default(), taken: 0 }
    }

    /// As `connect`, open.
    pub fn open(&mut self, worker: usize, query: &str) -> Client {
        let mut client = self.connect(worker, query);
        self.settle();
        client.read();
        assert_eq!(client.seen.status(), Some(101), "{:?}", client.seen.head);
        client
    }

    /// A plain request to a worker, on a connection of its own that stays open.
    pub fn http(&self, worker: usize, request: &str) -> Http {
        let peer = self.raw(worker);
        peer.send(request.as_bytes());
        Http { peer, bytes: Vec::new() }
    }
}

/// A client over a WebSocket.
pub struct Client {
    pub peer: Peer,
    pub seen: Decoder,
    taken: usize,
}

impl Client {
    pub fn send(&self, message: &Value) {
        self.peer.send(&wire::masked(wire::TEXT, message.to_string().as_bytes()));
    }

    pub fn close(&self, code: u16) {
        self.peer.send(&wire::masked(wire::CLOSE, &wire::close_payload(code, "")));
    }

    pub fn read(&mut self) {
        let bytes = self.peer.take();
        self.seen.push(&bytes).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Messages that were not taken before.
    pub fn take(&mut self) -> Vec<Value> {
        self.read();
        let texts = self.seen.messages().skip(self.taken).map(|frame| frame.text());
        let values: Vec<Value> = texts.map(|text| serde_json::from_str(text).expect("JSON")).collect();
        self.taken += values.len();
        values
    }
}

/// An HTTP connection.
pub struct Http {
    pub peer: Peer,
    bytes: Vec<u8>,
}

impl Http {
    /// Head and body of the answer, if it is there whole.
    pub fn answer(&mut self) -> Option<(String, String)> {
        self.bytes.extend(self.peer.take());
        let text = String::from_utf8(self.bytes.clone()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.expect("a length");
        let body = body.get(..length)?;
        self.bytes.drain(..head.len() + 4 + length);
        Some((head.to_owned(), body.to_owned()))
    }
}
