//! A simulated kernel: deterministic from a seed, with a virtual clock, and unkind.
//!
//! [`Net`] is the network. [`Net::driver`] gives it a [`Sim`] per worker, and the test holds the other ends: raw
//! [`Peer`]s that connect to a worker's listener or are connected to. Everything runs in one thread, so that several
//! workers, their topics and their peers are one reproducible run.
//!
//! What the engine owes its driver is asserted: one send in flight per socket, none after a shutdown, no made-up ids.
//!
//! ```
//! use wingbeat::driver::{Completion, CompletionSink, Driver, DriverConfig, ListenOptions, sim};
//! use std::time::Duration;
//!
//! struct Print(Vec<String>);
//! impl CompletionSink for Print {
//!     fn takes_more(&self) -> bool {
//!         true
//!     }
//!     fn complete(&mut self, completion: Completion<'_>) {
//!         self.0.push(format!("{completion:?}"));
//!     }
//! }
//!
//! let net = sim::Net::new(42);
//! let mut driver = net.driver(DriverConfig::default());
//! let listener = driver.listen(&"127.0.0.1:80".parse()?, ListenOptions { backlog: 16, reuse_port: false })?;
//! let peer = net.connect(&driver.local_address(listener).unwrap())?;
//! peer.send(b"hi");
//! let mut seen = Print(Vec::new());
//! driver.poll(None, &mut seen)?; // accepts
//! driver.poll(None, &mut seen)?; // receives
//! assert!(seen.0[1].contains("data: [104, 105]"));
//! driver.poll(Some(Duration::from_secs(60)), &mut seen)?; // nothing happens: a minute of virtual time passes
//! assert_eq!(net.elapsed(), Duration::from_secs(60));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod faults;
mod kernel;
mod net;
mod socket;

pub use faults::Faults;
#[cfg(all(test, feature = "uring", target_os = "linux"))]
pub(in crate::driver) use faults::Random;
pub use net::{Net, Peer, PeerListener};

use super::{
    Address, Completion, CompletionSink, ConnectOptions, Driver, DriverConfig, DriverCounters, ListenOptions,
    ListenerId, SocketId, Submit, Wake,
};
use crate::buffer::SendBatch;
use kernel::{EndId, Owner};
use socket::{Connect, SimWake, Socket, sent};
use std::{
    io::{self, ErrorKind},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The driver of one simulated worker. Made by [`Net::driver`].
#[derive(Debug)]
pub struct Sim {
    net: Net,
    party: usize,
    config: DriverConfig,
    sockets: Vec<Socket>,
    free: Vec<u32>,
    listeners: Vec<ListenerId>,
    backoff: Duration,
    woken: Arc<AtomicBool>,
    counters: DriverCounters,
    buffer: Vec<u8>,
    ready: Vec<u32>,
    /// Where the next round begins, if the last one ended early: behind the socket that was served last.
    cursor: u32,
}

impl Driver for Sim {
    fn listen(&mut self, address: &Address, options: ListenOptions) -> io::Result<ListenerId> {
        let id = self.net.kernel().listen(Owner::Driver(self.party), address, options)?;
        self.listeners.push(id);
        Ok(id)
    }

    fn local_address(&self, listener: ListenerId) -> Option<Address> {
        self.listeners.contains(&listener).then(|| self.net.kernel().address(listener)).flatten()
    }

    fn unlisten(&mut self, listener: ListenerId) {
        if self.listeners.contains(&listener) {
            self.net.kernel().unlisten(listener);
        }
    }

    fn connect(&mut self, address: &Address, options: ConnectOptions) -> io::Result<SocketId> {
        let mut kernel = self.net.kernel();
        let slow = kernel.faults.slow_connect;
        let takes = if kernel.random.roll(slow) { kernel.random.below(20_000) } else { 0 };
        let at = kernel.now + Duration::from_micros(takes as u64);
        drop(kernel);
        let source = options.source.map_or(Ipv4Addr::LOCALHOST.into(), |source| source.ip());
        let id = self.insert(None);
        self.sockets[id.slot as usize].connect = Some(Connect { at, to: address.clone(), source });
        Ok(id)
    }

    fn pause(&mut self, id: SocketId) {
        if let Some(socket) = self.open(id) {
            socket.paused = true;
        }
    }

    fn resume(&mut self, id: SocketId) {
        if let Some(socket) = self.open(id) {
            socket.paused = false;
        }
    }

    fn rest(&mut self, id: SocketId) {
        if let Some(socket) = self.open(id) {
            socket.resting = true;
        }
    }

    fn rouse(&mut self, id: SocketId) {
        if let Some(socket) = self.open(id) {
            socket.resting = false;
        }
    }

    fn send(&mut self, id: SocketId, mut batch: SendBatch) -> Submit {
        let net = self.net.clone();
        let mut kernel = net.kernel();
        let Some(socket) = self.open(id) else { return Submit::Done(batch) };
        assert!(socket.batch.is_none(), "{id}: a send while another one is in flight");
        assert!(!socket.shut, "{id}: a send after shutdown");
        if batch.left() == 0 {
            return Submit::Done(batch);
        }
        kernel.note(&[1, u64::from(id.slot), u64::from(id.generation), batch.left() as u64]);
        socket.send_at = kernel.now;
        let reset = socket.end.is_some_and(|end| kernel.end(end).reset);
        if socket.failed || reset {
            socket.error = Some(ErrorKind::BrokenPipe);
        } else if socket.transmit(&mut kernel, &mut batch) && socket.send_at <= kernel.now {
            return Submit::Done(batch);
        }
        socket.batch = Some(batch);
        Submit::Pending
    }

    fn shutdown(&mut self, id: SocketId) {
        let net = self.net.clone();
        let Some(socket) = self.open(id) else { return };
        socket.shut = true;
        if let (Some(end), None) = (socket.end, &socket.batch) {
            net.kernel().shut_down(end);
        }
    }

    fn close(&mut self, id: SocketId) {
        let net = self.net.clone();
        let Some(socket) = self.open(id) else { return };
        (socket.open, socket.closing) = (false, true);
        let mut kernel = net.kernel();
        kernel.note(&[2, u64::from(id.slot), u64::from(id.generation)]);
        if let Some(end) = socket.end {
            kernel.close(end);
        }
        self.backoff = Duration::ZERO;
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(SimWake(Arc::clone(&self.woken)))
    }

    /// Delivers what is ready. If nothing is, this driver sleeps, and if all drivers of the network sleep, the clock
    /// moves to the first moment at which one has something to do or reaches its timeout. It never blocks.
    fn poll(&mut self, timeout: Option<Duration>, sink: &mut impl CompletionSink) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.begin();
        let woken = self.woken.swap(false, SeqCst);
        if !self.collect(&mut ready) && !woken {
            self.sleep(timeout);
            self.collect(&mut ready);
        }
        sink.polled();
        if woken || self.woken.swap(false, SeqCst) {
            sink.complete(Completion::Woken);
        }
        let begin = ready.partition_point(|&slot| slot < std::mem::take(&mut self.cursor));
        ready.rotate_left(begin);
        let accepts_first = self.shuffle(&mut ready);
        if accepts_first {
            self.accept(sink);
        }
        for &slot in &ready {
            self.serve(slot, sink);
            if !sink.takes_more() {
                self.cursor = slot + 1; // the others are still ready at the next poll
                break;
            }
        }
        if !accepts_first {
            self.accept(sink);
        }
        ready.clear();
        self.ready = ready;
        Ok(())
    }

    fn longest_wait(&self) -> Option<Duration> {
        let due = self.cursor > 0 || self.sockets.iter().any(|socket| socket.closing || socket.error.is_some());
        due.then_some(Duration::ZERO)
    }

    fn counters(&self) -> DriverCounters {
        self.counters
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let mut kernel = self.net.kernel();
        for end in self.sockets.iter().filter_map(|socket| socket.end) {
            kernel.close(end);
        }
        kernel.leave(self.party);
    }
}

impl Sim {
    fn new(net: Net, party: usize, config: DriverConfig, woken: Arc<AtomicBool>) -> Self {
        Sim {
            net,
            party,
            config: config.normalized(),
            sockets: Vec::new(),
            free: Vec::new(),
            listeners: Vec::new(),
            backoff: Duration::ZERO,
            woken,
            counters: DriverCounters::default(),
            buffer: Vec::new(),
            ready: Vec::new(),
            cursor: 0,
        }
    }

    /// Sockets that are open, or closed and not reported yet.
    pub fn live(&self) -> usize {
        self.sockets.len() - self.free.len()
    }

    /// Sockets that are open and rest ([`Driver::rest`]).
    pub fn resting(&self) -> usize {
        self.sockets.iter().filter(|socket| socket.open && socket.resting).count()
    }

    fn insert(&mut self, end: Option<EndId>) -> SocketId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(Socket::default());
            self.sockets.len() as u32 - 1
        });
        let generation = self.sockets[slot as usize].generation;
        self.sockets[slot as usize] = Socket { generation, end, open: true, ..Socket::default() };
        SocketId { slot, generation }
    }

    fn open(&mut self, id: SocketId) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(id.slot as usize);
        let socket = socket.unwrap_or_else(|| panic!("{id}: no driver made this id"));
        assert!(id.generation <= socket.generation, "{id}: no driver made this id");
        (id.generation == socket.generation && socket.open).then_some(socket)
    }

    fn begin(&self) {
        let mut kernel = self.net.kernel();
        kernel.rouse(self.party);
        let chance = kernel.faults.clock_jump;
        if kernel.random.roll(chance) {
            let jump = kernel.random.below(10_000) as u64;
            kernel.now += Duration::from_millis(jump);
        }
    }

    /// Finds out which sockets have something to report; false if none has and nothing is to be accepted.
    fn collect(&mut self, ready: &mut Vec<u32>) -> bool {
        let mut kernel = self.net.kernel();
        let kernel = &mut *kernel;
        ready.clear();
        ready.extend((0..self.sockets.len() as u32).filter(|&slot| self.sockets[slot as usize].is_ready(kernel)));
        !ready.is_empty() || self.backoff <= kernel.now && self.listeners.iter().any(|&id| kernel.has_queued(id))
    }

    fn sleep(&mut self, timeout: Option<Duration>) {
        let mut kernel = self.net.kernel();
        let now = kernel.now;
        let queued = self.listeners.iter().any(|&id| kernel.has_queued(id));
        let own = self.sockets.iter().filter_map(Socket::next_time).chain(queued.then_some(self.backoff));
        let until = own.filter(|&at| at > now).chain(timeout.map(|timeout| now.saturating_add(timeout))).min();
        kernel.sleep(self.party, until);
    }

    fn shuffle(&self, ready: &mut [u32]) -> bool {
        let mut kernel = self.net.kernel();
        let chance = kernel.faults.reorder;
        if !kernel.random.roll(chance) {
            return false;
        }
        for i in (1..ready.len()).rev() {
            ready.swap(i, kernel.random.below(i + 1));
        }
        kernel.random.below(2) == 0
    }

    /// Gives one socket its turn.
    fn serve(&mut self, slot: u32, sink: &mut impl CompletionSink) {
        let id = SocketId { slot, generation: self.sockets[slot as usize].generation };
        if self.sockets[slot as usize].closing {
            return self.finish_close(id, sink);
        }
        if self.sockets[slot as usize].connect.is_some() && !self.finish_connect(id, sink) {
            return;
        }
        self.misfortune(slot);
        // Sends and receives have no order between them.
        let send_first = self.net.kernel().random.below(2) == 0;
        if send_first {
            self.continue_send(id, sink);
        }
        self.receive(id, sink);
        if !send_first {
            self.continue_send(id, sink);
        }
        if let Some(error) = self.sockets[slot as usize].error {
            self.fail(id, error, sink);
        }
    }

    fn finish_close(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let socket = &mut self.sockets[id.slot as usize];
        if let Some(batch) = socket.batch.take() {
            sink.complete(sent(id, batch, socket.error.unwrap_or(ErrorKind::ConnectionAborted)));
        }
        self.net.kernel().note(&[3, u64::from(id.slot)]);
        sink.complete(Completion::Closed { id });
        let generation = id.generation.wrapping_add(1);
        self.sockets[id.slot as usize] = Socket { generation, ..Socket::default() };
        self.free.push(id.slot);
    }

    fn finish_connect(&mut self, id: SocketId, sink: &mut impl CompletionSink) -> bool {
        let socket = &mut self.sockets[id.slot as usize];
        let mut kernel = self.net.kernel();
        let Some(connect) = socket.connect.take_if(|connect| connect.at <= kernel.now) else { return false };
        let chance = kernel.faults.refuse_connect;
        let refused = kernel.random.roll(chance);
        let owner = Owner::Driver(self.party);
        socket.end = if refused { None } else { kernel.connect(owner, &connect.to, connect.source) };
        kernel.note(&[4, u64::from(id.slot), u64::from(socket.end.is_some())]);
        let connected = socket.end.is_some();
        if let (Some(end), true, None) = (socket.end, socket.shut, &socket.batch) {
            kernel.shut_down(end);
        }
        drop(kernel);
        if connected {
            sink.complete(Completion::Connected { id });
        } else {
            self.fail(id, ErrorKind::ConnectionRefused, sink);
        }
        connected
    }

    /// Lets the peer's host break or half-close the connection.
    fn misfortune(&mut self, slot: u32) {
        let mut kernel = self.net.kernel();
        let Some(end) = self.sockets[slot as usize].end else { return };
        let Faults { reset, half_close, .. } = kernel.faults;
        if kernel.random.roll(reset) {
            kernel.reset(end);
            kernel.reset(end ^ 1);
        } else if kernel.random.roll(half_close) {
            kernel.stop_sending(end ^ 1);
        }
    }

    fn continue_send(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let socket = &mut self.sockets[id.slot as usize];
        let mut kernel = self.net.kernel();
        if socket.error.is_some() || socket.send_at > kernel.now {
            return;
        }
        if socket.end.is_none_or(|end| kernel.end(end).reset) {
            return; // the receiving side reports it
        }
        let Some(mut batch) = socket.batch.take() else { return };
        let before = batch.left();
        if !socket.transmit(&mut kernel, &mut batch) || socket.send_at > kernel.now {
            let moved = batch.left() < before;
            socket.batch = Some(batch);
            drop(kernel);
            if moved {
                sink.complete(Completion::Progress { id });
            }
            return;
        }
        if let (Some(end), true) = (socket.end, socket.shut) {
            kernel.shut_down(end);
        }
        kernel.note(&[5, u64::from(id.slot)]);
        drop(kernel);
        sink.complete(Completion::Sent { id, batch, result: Ok(()) });
    }

    fn receive(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let mut budget = self.config.receive_budget;
        loop {
            let socket = &mut self.sockets[id.slot as usize];
            let Some(end) = socket.end.filter(|_| !socket.failed) else { return };
            let mut kernel = self.net.kernel();
            let (waits, fin, reset) = kernel.arrival(end);
            if waits > 0 && !socket.paused && !socket.eof {
                let faults = kernel.faults;
                if budget == 0 || kernel.random.roll(faults.late_receive) {
                    return;
                }
                let cut = kernel.random.roll(faults.partial_receive);
                let whole = waits.min(self.config.receive_buffer).min(budget);
                let part = if cut { kernel.part_of(whole) } else { whole };
                self.buffer.clear();
                kernel.read(end, part, &mut self.buffer);
                kernel.note(&[6, u64::from(id.slot)]);
                kernel.note_bytes(&self.buffer);
                drop(kernel);
                budget -= part;
                sink.complete(Completion::Received { id, data: &mut self.buffer });
                if cut {
                    return;
                }
            } else if reset {
                drop(kernel);
                return self.fail(id, ErrorKind::ConnectionReset, sink);
            } else if fin && waits == 0 && !socket.eof {
                socket.eof = true;
                kernel.note(&[7, u64::from(id.slot)]);
                drop(kernel);
                return sink.complete(Completion::Eof { id });
            } else {
                return;
            }
        }
    }

    fn fail(&mut self, id: SocketId, error: ErrorKind, sink: &mut impl CompletionSink) {
        let socket = &mut self.sockets[id.slot as usize];
        socket.error = None;
        self.net.kernel().note(&[8, u64::from(id.slot)]);
        let reported = std::mem::replace(&mut socket.failed, true);
        if let Some(batch) = socket.batch.take() {
            sink.complete(sent(id, batch, error));
        }
        if !reported {
            sink.complete(Completion::Failed { id, error });
        }
    }

    fn accept(&mut self, sink: &mut impl CompletionSink) {
        for listener in self.listeners.clone() {
            for _ in 0..self.config.accepts_per_poll {
                let mut kernel = self.net.kernel();
                if self.backoff > kernel.now {
                    return;
                }
                let Some((end, peer)) = kernel.accept(listener) else { break };
                let chance = kernel.faults.accept_exhausted;
                if self.live() >= kernel.socket_limit || kernel.random.roll(chance) {
                    kernel.close(end);
                    self.counters.accept_exhausted += 1;
                    self.backoff = kernel.now + ACCEPT_BACKOFF;
                    return;
                }
                kernel.end(end).owner = Owner::Driver(self.party);
                kernel.note(&[9, u64::from(listener.0)]);
                drop(kernel);
                let id = self.insert(Some(end));
                sink.complete(Completion::Accepted { id, listener, peer });
            }
        }
    }
}
