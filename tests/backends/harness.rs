//! What the contract tests need of a backend: peers to talk to, and a record of what the driver completed.
#![forbid(unsafe_code)]

use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    collections::{HashMap, VecDeque},
    env, fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
#[cfg(feature = "uring")]
use wingbeat::driver::Uring;
use wingbeat::{
    buffer::{FrameSlab, FrameSlabConfig, SendBatch},
    driver::{
        Address, Completion, CompletionSink, Driver, DriverConfig, Epoll, ListenOptions, ListenerId, SocketId, Submit,
        sim,
    },
};

pub(crate) const LISTEN: ListenOptions = ListenOptions { backlog: 64, reuse_port: false };

/// Where the other ends come from.
pub(crate) trait Backend {
    type Driver: Driver;
    type Peer: Peer;
    type Listener;
    /// Polls (of 2 ms at most) after which what did not happen never will.
    const PATIENCE: usize;
    /// Bytes that a test moves when it wants many.
    fn bulk(&self) -> usize;
    fn driver(&self, config: DriverConfig) -> Self::Driver;
    /// A Unix address that nobody uses.
    fn unix(&self) -> Address;
    fn try_connect(&self, to: &Address) -> Option<Self::Peer>;
    fn listen(&self) -> (Address, Self::Listener);
    fn accept(&self, listener: &Self::Listener) -> Option<Self::Peer>;
}

/// The other end of a connection.
pub(crate) trait Peer {
    fn send(&mut self, bytes: &[u8]);
    /// Moves what can be moved now, in both directions.
    fn pump(&mut self) {}
    /// Takes what was received.
    fn take(&mut self) -> Vec<u8>;
    fn stall(&mut self, stalled: bool);
    fn shutdown(&mut self);
    fn reset(&mut self);
    fn is_eof(&self) -> bool;
}

/// A driver on real sockets.
pub(crate) trait RealDriver: Driver + Sized + 'static {
    fn make(config: DriverConfig) -> Self;
}

impl RealDriver for Epoll {
    fn make(config: DriverConfig) -> Self {
        Epoll::new(config).unwrap()
    }
}

#[cfg(feature = "uring")]
impl RealDriver for Uring {
    fn make(config: DriverConfig) -> Self {
        Uring::new(config).unwrap()
    }
}

/// A driver on real sockets, and its peers.
pub(crate) struct Real<D> {
    directory: PathBuf,
    bulk: usize,
    make: Box<dyn Fn(DriverConfig) -> D>,
}

impl<D: RealDriver> Real<D> {
    pub(crate) fn new() -> Self {
        Self::with(64 << 20, D::make)
    }

    /// With a driver whose queues and buffers are so small that the kernel always lacks something.
    #[cfg(feature = "uring")]
    pub(crate) fn tiny() -> Self {
        Self::with(16 << 20, |mut config| {
            config.receive_buffer = config.receive_buffer.min(200);
            config.receive_budget = config.receive_budget.min(400);
            config.receive_pool = config.receive_budget;
            config.events = 2;
            D::make(config)
        })
    }
}

impl<D> Real<D> {
    /// With drivers of whatever make.
    pub(crate) fn with(bulk: usize, make: impl Fn(DriverConfig) -> D + 'static) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wingbeat-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        Real { directory, bulk, make: Box::new(make) }
    }
}

impl<D> Drop for Real<D> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A socket that never blocks, with what waits to be sent.
pub(crate) struct RealPeer {
    socket: Option<Socket>,
    outbox: VecDeque<u8>,
    received: Vec<u8>,
    stalled: bool,
    shut: bool,
    eof: bool,
}

impl RealPeer {
    pub(crate) fn new(socket: Socket) -> Self {
        socket.set_nonblocking(true).unwrap();
        let (outbox, received) = (VecDeque::new(), Vec::new());
        RealPeer { socket: Some(socket), outbox, received, stalled: false, shut: false, eof: false }
    }
}

impl Peer for RealPeer {
    fn send(&mut self, bytes: &[u8]) {
        self.outbox.extend(bytes);
        self.pump();
    }

    fn pump(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        while !self.outbox.is_empty() {
            match socket.write(self.outbox.make_contiguous()) {
                Ok(sent) => drop(self.outbox.drain(..sent)),
                Err(_) => break, // full, or broken, which the test finds by what is missing
            }
        }
        if self.shut && self.outbox.is_empty() {
            let _ = socket.shutdown(Shutdown::Write);
        }
        let mut buffer = [0; 65536];
        while !self.stalled && !self.eof {
            match socket.read(&mut buffer) {
                Ok(0) => self.eof = true,
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(_) => break,
            }
        }
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    fn stall(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    fn shutdown(&mut self) {
        self.shut = true;
        self.pump();
    }

    fn reset(&mut self) {
        let socket = self.socket.take().unwrap();
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn is_eof(&self) -> bool {
        self.eof
    }
}

impl<D: Driver> Backend for Real<D> {
    type Driver = D;
    type Peer = RealPeer;
    type Listener = std::net::TcpListener;
    const PATIENCE: usize = 10_000;

    fn bulk(&self) -> usize {
        self.bulk
    }

    fn driver(&self, mut config: DriverConfig) -> D {
        if config.receive_budget < DriverConfig::default().receive_budget {
            config.receive_pool = config.receive_budget; // what io_uring brings of one socket is bounded by it
        }
        (self.make)(config)
    }

    fn unix(&self) -> Address {
        Address::Unix(self.directory.join("socket"))
    }

    fn try_connect(&self, to: &Address) -> Option<RealPeer> {
        let (domain, to) = match to {
            Address::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
            Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path).unwrap()),
        };
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        match socket.connect(&to) {
            Ok(()) => Some(RealPeer::new(socket)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                None
            }
        }
    }

    fn listen(&self) -> (Address, Self::Listener) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        (listener.local_addr().unwrap().into(), listener)
    }

    fn accept(&self, listener: &Self::Listener) -> Option<RealPeer> {
        listener.accept().ok().map(|(stream, _)| RealPeer::new(stream.into()))
    }
}

/// The simulated kernel.
pub(crate) struct Simulated {
    pub(crate) net: sim::Net,
    bulk: usize,
}

impl Simulated {
    pub(crate) fn kind(seed: u64) -> Self {
        Simulated { net: sim::Net::new(seed), bulk: 64 << 20 }
    }

    pub(crate) fn unkind(seed: u64) -> Self {
        let net = sim::Net::new(seed);
        net.set_faults(sim::Faults::benign());
        Simulated { net, bulk: 1 << 20 }
    }
}

impl Backend for Simulated {
    type Driver = sim::Sim;
    type Peer = sim::Peer;
    type Listener = sim::PeerListener;
    const PATIENCE: usize = 1_000_000;

    fn bulk(&self) -> usize {
        self.bulk
    }

    fn driver(&self, config: DriverConfig) -> sim::Sim {
        self.net.driver(config)
    }

    fn unix(&self) -> Address {
        Address::Unix("socket".into())
    }

    fn try_connect(&self, to: &Address) -> Option<sim::Peer> {
        self.net.connect(to).ok()
    }

    fn listen(&self) -> (Address, sim::PeerListener) {
        let listener = self.net.listen(&"127.0.0.1:0".parse().unwrap()).unwrap();
        (listener.address(), listener)
    }

    fn accept(&self, listener: &sim::PeerListener) -> Option<sim::Peer> {
        listener.accept()
    }
}

impl Peer for sim::Peer {
    fn send(&mut self, bytes: &[u8]) {
        sim::Peer::send(self, bytes);
    }

    fn take(&mut self) -> Vec<u8> {
        sim::Peer::take(self)
    }

    fn stall(&mut self, stalled: bool) {
        sim::Peer::stall(self, stalled);
    }

    fn shutdown(&mut self) {
        sim::Peer::shutdown(self);
    }

    fn reset(&mut self) {
        sim::Peer::reset(self);
    }

    fn is_eof(&self) -> bool {
        sim::Peer::is_eof(self)
    }
}

/// A completion, without what it lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Accepted(SocketId, ListenerId, Option<IpAddr>),
    Connected(SocketId),
    Received(SocketId, usize),
    Eof(SocketId),
    Progress(SocketId),
    Sent(SocketId, Result<(), ErrorKind>),
    Failed(SocketId, ErrorKind),
    Closed(SocketId),
    Woken,
}

/// The sink of the tests.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) seen: Vec<Seen>,
    pub(crate) received: HashMap<SocketId, Vec<u8>>,
    /// Calls of `polled`.
    pub(crate) polls: usize,
    /// Bytes of this poll.
    pub(crate) taken: usize,
    /// Bytes after which it takes no more in a poll; 0: any number.
    pub(crate) appetite: usize,
    back: Vec<SendBatch>,
    mid_poll: bool,
}

impl CompletionSink for Log {
    fn polled(&mut self) {
        assert!(!self.mid_poll, "polled() comes once, before the first completion");
        self.polls += 1;
        self.taken = 0;
        self.mid_poll = true;
    }

    fn complete(&mut self, completion: Completion<'_>) {
        assert!(self.mid_poll, "a completion before polled()");
        self.seen.push(match completion {
            Completion::Accepted { id, listener, peer } => Seen::Accepted(id, listener, peer),
            Completion::Connected { id } => Seen::Connected(id),
            Completion::Received { id, data } => {
                assert!(!data.is_empty());
                self.received.entry(id).or_default().extend_from_slice(data);
                let length = data.len();
                self.taken += length;
                data.fill(0xEE); // lent to be changed
                Seen::Received(id, length)
            }
            Completion::Eof { id } => Seen::Eof(id),
            Completion::Progress { id } => Seen::Progress(id),
            Completion::Sent { id, batch, result } => {
                assert_eq!(batch.left() == 0, result.is_ok());
                self.back.push(batch);
                Seen::Sent(id, result.map_err(|error| error.kind()))
            }
            Completion::Failed { id, error } => Seen::Failed(id, error),
            Completion::Closed { id } => Seen::Closed(id),
            Completion::Woken => Seen::Woken,
        });
    }

    fn takes_more(&self) -> bool {
        self.appetite == 0 || self.taken < self.appetite
    }
}

/// A driver at work.
pub(crate) struct World<B: Backend> {
    pub(crate) driver: B::Driver,
    pub(crate) net: B,
    pub(crate) slab: FrameSlab,
    pub(crate) log: Log,
}

impl<B: Backend> World<B> {
    pub(crate) fn new(net: B) -> Self {
        Self::with(net, DriverConfig::default())
    }

    pub(crate) fn with(net: B, config: DriverConfig) -> Self {
        let driver = net.driver(config);
        World { driver, net, slab: FrameSlab::new(FrameSlabConfig::default()), log: Log::default() }
    }

    pub(crate) fn listen(&mut self) -> (Address, ListenerId) {
        self.listen_at(&"127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn listen_at(&mut self, address: &Address) -> (Address, ListenerId) {
        let id = self.driver.listen(address, LISTEN).unwrap();
        (self.driver.local_address(id).unwrap(), id)
    }

    /// A connection to a listener, accepted.
    pub(crate) fn pair(&mut self, to: &Address) -> (SocketId, B::Peer) {
        let before = self.accepted().len();
        let peer = self.net.try_connect(to).unwrap();
        self.until(|world| world.accepted().len() > before);
        (self.accepted()[before], peer)
    }

    pub(crate) fn accepted(&self) -> Vec<SocketId> {
        let id = |seen: &Seen| if let Seen::Accepted(id, ..) = seen { Some(*id) } else { None };
        self.log.seen.iter().filter_map(id).collect()
    }

    pub(crate) fn poll(&mut self, timeout: Option<Duration>) {
        self.log.mid_poll = false;
        let before = self.log.polls;
        self.driver.poll(timeout, &mut self.log).unwrap();
        assert_eq!(self.log.polls, before + 1);
        for mut batch in self.log.back.drain(..) {
            batch.recycle(&mut self.slab);
        }
    }

    /// Polls until something holds.
    #[track_caller]
    pub(crate) fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..B::PATIENCE {
            if done(self) {
                return;
            }
            self.poll(Some(Duration::from_millis(2)));
        }
        panic!("it never happened; seen last: {:?}", self.log.seen.iter().rev().take(20).collect::<Vec<_>>());
    }

    /// Polls long enough for anything that is on its way to arrive.
    pub(crate) fn settle(&mut self) {
        for _ in 0..30 {
            self.poll(Some(Duration::from_millis(1)));
        }
    }

    pub(crate) fn batch(&mut self, parts: &[&[u8]]) -> SendBatch {
        let mut batch = SendBatch::new();
        for part in parts {
            let frame = self.slab.build(part.len(), 1, |out| out.extend_from_slice(part));
            batch.push(frame, &self.slab);
        }
        batch
    }

    /// Sends; true if it is in flight now.
    pub(crate) fn send(&mut self, id: SocketId, parts: &[&[u8]]) -> bool {
        let batch = self.batch(parts);
        match self.driver.send(id, batch) {
            Submit::Done(mut batch) => {
                batch.recycle(&mut self.slab);
                false
            }
            Submit::Pending => true,
        }
    }

    /// Sends until the peer's and the kernel's buffers are full; returns how many bytes were given.
    pub(crate) fn fill(&mut self, id: SocketId) -> usize {
        let part = vec![7; 100_000];
        let mut given = 0;
        loop {
            given += part.len();
            if self.send(id, &[&part]) {
                let sent = self.count(|seen| matches!(seen, Seen::Sent(..)));
                self.settle();
                if self.count(|seen| matches!(seen, Seen::Sent(..))) == sent {
                    return given;
                }
            }
        }
    }

    pub(crate) fn count(&self, what: impl Fn(&Seen) -> bool) -> usize {
        self.log.seen.iter().filter(|seen| what(seen)).count()
    }

    pub(crate) fn has(&self, what: &Seen) -> bool {
        self.log.seen.contains(what)
    }

    pub(crate) fn received(&self, id: SocketId) -> &[u8] {
        self.log.received.get(&id).map_or(&[], |bytes| bytes)
    }

    /// Closes every socket and checks that nothing is left or was lost.
    pub(crate) fn finish(mut self, ids: &[SocketId]) {
        for &id in ids {
            self.driver.close(id);
        }
        self.until(|world| ids.iter().all(|&id| world.has(&Seen::Closed(id))));
        for id in ids {
            let of_id = |seen: &Seen| match seen {
                Seen::Accepted(of, ..) | Seen::Connected(of) | Seen::Received(of, _) | Seen::Eof(of) => of == id,
                Seen::Sent(of, _) | Seen::Progress(of) | Seen::Failed(of, _) | Seen::Closed(of) => of == id,
                Seen::Woken => false,
            };
            let of_id: Vec<_> = self.log.seen.iter().filter(|seen| of_id(seen)).collect();
            assert_eq!(of_id.last(), Some(&&Seen::Closed(*id)), "Closed is the last completion");
            for once in [Seen::Eof(*id), Seen::Closed(*id)] {
                assert!(of_id.iter().filter(|seen| ***seen == once).count() <= 1, "{once:?} comes once");
            }
            assert!(of_id.iter().filter(|seen| matches!(seen, Seen::Failed(..))).count() <= 1);
        }
        assert_eq!(self.slab.live(), 0, "every batch came back");
        assert_eq!(self.driver.counters().stale, 0);
    }
}

/// Bytes that differ at each position, so that what is lost, doubled or swapped shows.
pub(crate) fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}
