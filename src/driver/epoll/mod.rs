//! Completions on epoll, through mio.
//!
//! Sockets are registered once, edge-triggered, for both directions. A receive that does not fill the buffer has
//! drained the socket (unless the peer's FIN is behind it), so that a message costs one `recv` and one `send`, and a
//! batch of them one `epoll_wait`. What is cut by a budget, fails at a send, or was closed is *due*: the next poll does
//! not wait and works it off, in turn, after the events.
#![forbid(unsafe_code)]

mod accept;
mod send;
mod slots;

use super::socket::{Listening, start_connect};
use super::{
    Address, Completion, CompletionSink, ConnectOptions, Driver, DriverConfig, DriverCounters, ListenOptions,
    ListenerId, SocketId, Submit, Wake,
};
use crate::buffer::SendBatch;
use accept::{Accept, Acceptor};
use mio::{Events, Interest, Poll, Token, event::Event, unix::SourceFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt::socket_error};
use send::{GATHER, shut_down, transmit};
use slots::{Slots, State};
use std::{
    fmt,
    io::{self, ErrorKind},
    mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

/// Slots from here on are listeners, the last one is the waker.
const LISTENERS: u32 = 1 << 31;
const WAKER: u32 = u32::MAX;

/// The driver on epoll.
///
/// Its sockets take 24 bytes each; the receive buffer is one for all of them.
pub struct Epoll {
    events: Events,
    /// How many of them were handed out in a poll that ended early; 0: all.
    taken: usize,
    /// Sockets that were due when that poll began and have not had their turn.
    due: usize,
    sockets: Sockets,
}

/// Everything but the events, which are read while it changes.
struct Sockets {
    poll: Poll,
    waker: Arc<mio::Waker>,
    config: DriverConfig,
    slots: Slots,
    acceptor: Acceptor,
    buffer: Box<[u8]>,
    gather: Vec<u8>,
    counters: DriverCounters,
}

impl Epoll {
    /// A driver without sockets. A worker that is to have a descriptor table of its own makes its driver first (wakers
    /// are used by other threads), then unshares the table, then listens.
    ///
    /// # Errors
    /// No descriptor or memory is left for the epoll instance and the waker.
    pub fn new(config: DriverConfig) -> io::Result<Self> {
        EpollSeed::new(config).map(EpollSeed::start)
    }
}

/// What of an [`Epoll`] exists before its thread does: the epoll instance and the waker. It may change threads.
#[derive(Debug)]
pub struct EpollSeed {
    poll: Poll,
    waker: Arc<mio::Waker>,
    config: DriverConfig,
}

impl EpollSeed {
    /// # Errors
    /// No descriptor or memory is left for the epoll instance and the waker.
    pub fn new(config: DriverConfig) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), Token(WAKER as usize))?);
        Ok(EpollSeed { poll, waker, config })
    }

    /// What wakes the driver to be.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    /// The driver, on the thread that will use it.
    pub fn start(self) -> Epoll {
        let EpollSeed { poll, waker, config } = self;
        let config = config.normalized();
        Epoll {
            events: Events::with_capacity(config.events),
            taken: 0,
            due: 0,
            sockets: Sockets {
                poll,
                waker,
                config,
                slots: Slots::new(),
                acceptor: Acceptor::new(),
                buffer: vec![0; config.receive_buffer].into_boxed_slice(),
                gather: Vec::with_capacity(GATHER),
                counters: DriverCounters::default(),
            },
        }
    }
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll").field("counters", &self.sockets.counters).finish_non_exhaustive()
    }
}

impl Driver for Epoll {
    fn listen(&mut self, address: &Address, options: ListenOptions) -> io::Result<ListenerId> {
        let Sockets { poll, acceptor, .. } = &mut self.sockets;
        let (id, fd) = acceptor.insert(Listening::new(address, options)?);
        let token = Token((LISTENERS + id.0) as usize);
        let registered = poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE);
        registered.inspect_err(|_| acceptor.remove(id)).map(|()| id)
    }

    fn local_address(&self, listener: ListenerId) -> Option<Address> {
        self.sockets.acceptor.address(listener).cloned()
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.sockets.acceptor.leave(listener);
    }

    fn connect(&mut self, address: &Address, options: ConnectOptions) -> io::Result<SocketId> {
        self.sockets.insert(start_connect(address, options)?, State::CONNECTING)
    }

    fn pause(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.slots.open(id) {
            socket.state.set(State::PAUSED);
        }
    }

    fn resume(&mut self, id: SocketId) {
        let slots = &mut self.sockets.slots;
        let Some(socket) = slots.open(id) else { return };
        socket.state.clear(State::PAUSED);
        if socket.state.any(State::READABLE) {
            slots.push_due(id.slot);
        }
    }

    #[inline]
    fn send(&mut self, id: SocketId, batch: SendBatch) -> Submit {
        self.sockets.send(id, batch)
    }

    fn shutdown(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.slots.open(id) {
            socket.state.set(State::SHUT);
            if let (Some(fd), None) = (&socket.fd, &socket.batch) {
                shut_down(fd);
            }
        }
    }

    fn close(&mut self, id: SocketId) {
        let Sockets { slots, acceptor, .. } = &mut self.sockets;
        if let Some(socket) = slots.open(id) {
            socket.fd = None; // closes it, which also takes it out of epoll
            socket.state.set(State::CLOSING);
            slots.push_due(id.slot);
            acceptor.descriptor_freed();
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.sockets.waker.clone()
    }

    fn poll(&mut self, timeout: Option<Duration>, sink: &mut impl CompletionSink) -> io::Result<()> {
        let Epoll { events, taken, due, sockets } = self;
        let is_fresh = *taken == 0 && *due == 0;
        if is_fresh {
            // Not those that are added by the events: each socket has one turn per poll.
            *due = sockets.slots.due();
            let wait = [timeout, sockets.longest_wait()].into_iter().flatten().min();
            if let Err(error) = sockets.poll.poll(events, wait)
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error);
            }
        }
        sink.polled();
        if is_fresh || *taken > 0 {
            for (at, event) in events.iter().enumerate().skip(mem::take(taken)) {
                sockets.dispatch(event, sink);
                if !sink.takes_more() {
                    *taken = at + 1;
                    return Ok(());
                }
            }
        }
        while *due > 0 {
            *due -= 1;
            if let Some(id) = sockets.slots.pop_due() {
                sockets.work_off(id, sink);
            }
            if !sink.takes_more() && *due > 0 {
                return Ok(());
            }
        }
        sockets.accept(sink);
        Ok(())
    }

    fn longest_wait(&self) -> Option<Duration> {
        if self.taken > 0 || self.due > 0 { Some(Duration::ZERO) } else { self.sockets.longest_wait() }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.sockets.poll.registry().as_fd())
    }

    fn counters(&self) -> DriverCounters {
        self.sockets.counters
    }
}

impl Sockets {
    fn insert(&mut self, fd: OwnedFd, state: State) -> io::Result<SocketId> {
        let raw: RawFd = fd.as_raw_fd();
        let id = self.slots.insert(fd, state);
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.poll.registry().register(&mut SourceFd(&raw), token(id), interest) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.slots.remove(id.slot);
                Err(error)
            }
        }
    }

    fn longest_wait(&self) -> Option<Duration> {
        if self.slots.due() > 0 { Some(Duration::ZERO) } else { self.acceptor.wait() }
    }

    fn dispatch(&mut self, event: &Event, sink: &mut impl CompletionSink) {
        let id = socket_id(event.token());
        match id.slot {
            WAKER => sink.complete(Completion::Woken),
            LISTENERS.. => {
                if !self.acceptor.set_ready(ListenerId(id.slot - LISTENERS)) {
                    self.counters.stale += 1;
                }
            }
            _ => self.socket_event(id, event, sink),
        }
    }

    #[inline]
    fn socket_event(&mut self, id: SocketId, event: &Event, sink: &mut impl CompletionSink) {
        let Some(socket) = self.slots.open(id) else {
            // An event that was kept while a poll ended early may be of a socket that was closed since.
            self.counters.stale += u64::from(!self.slots.is_closing(id));
            return;
        };
        if socket.state.any(State::CONNECTING) && !self.finish_connect(id, sink) {
            return;
        }
        // Receiving comes first: what the peer said before it broke the connection is not lost to a failed send.
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let state = &mut self.slots[id.slot].state;
            state.set(State::READABLE);
            if event.is_read_closed() {
                state.set(State::HUNG_UP);
            }
            if state.any(State::PAUSED.or(State::EOF)) {
                self.probe(id, event.is_error(), sink);
            } else if !self.slots.is_due(id.slot) {
                self.receive(id, sink);
            }
        }
        let socket = &self.slots[id.slot];
        if socket.batch.is_some() && socket.error.is_none() {
            self.continue_send(id, sink);
        }
    }

    /// True if the connection stands.
    fn finish_connect(&mut self, id: SocketId, sink: &mut impl CompletionSink) -> bool {
        let socket = &mut self.slots[id.slot];
        let Some(fd) = &socket.fd else { return false };
        match socket_error(fd) {
            Ok(Ok(())) => {
                socket.state.clear(State::CONNECTING);
                sink.complete(Completion::Connected { id });
                true
            }
            Ok(Err(error)) | Err(error) => {
                self.fail(id, kind(error), sink);
                false
            }
        }
    }

    /// Receives until nothing is left or the budget is spent.
    #[inline]
    fn receive(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let mut budget = self.config.receive_budget;
        loop {
            let socket = &mut self.slots[id.slot];
            let Some(fd) = &socket.fd else { return };
            let room = self.buffer.len().min(budget);
            match recv(fd, &mut self.buffer[..room], RecvFlags::empty()) {
                Ok((0, _)) => return self.end(id, sink),
                Ok((received, _)) => {
                    let drained = received < room && !socket.state.any(State::HUNG_UP);
                    if drained {
                        socket.state.clear(State::READABLE);
                    }
                    sink.complete(Completion::Received { id, data: &mut self.buffer[..received] });
                    budget -= received;
                    if drained {
                        return;
                    }
                    if budget == 0 || !sink.takes_more() {
                        return self.slots.push_due(id.slot);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return socket.state.clear(State::READABLE),
                Err(error) => return self.fail(id, kind(error), sink),
            }
        }
    }

    /// Looks for what a socket has to report though its bytes are not wanted: a failure, or an end without bytes
    /// before it.
    fn probe(&mut self, id: SocketId, error: bool, sink: &mut impl CompletionSink) {
        let socket = &self.slots[id.slot];
        let Some(fd) = &socket.fd else { return };
        if error && let Ok(Err(error)) = socket_error(fd) {
            return self.fail(id, kind(error), sink);
        }
        if socket.state.any(State::HUNG_UP) && !socket.state.any(State::EOF) {
            match recv(fd, &mut [0; 1], RecvFlags::PEEK) {
                Ok((0, _)) => self.end(id, sink),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => self.fail(id, kind(error), sink),
            }
        }
    }

    fn end(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let state = &mut self.slots[id.slot].state;
        state.clear(State::READABLE);
        state.set(State::EOF);
        sink.complete(Completion::Eof { id });
    }

    fn send(&mut self, id: SocketId, mut batch: SendBatch) -> Submit {
        let Some(socket) = self.slots.open(id) else { return Submit::Done(batch) };
        debug_assert!(socket.batch.is_none(), "{id} has a send in flight");
        debug_assert!(!socket.state.any(State::SHUT), "{id} is shut down");
        let Some(fd) = &socket.fd else { return Submit::Done(batch) };
        match transmit(fd, &mut batch, &mut self.gather) {
            Ok(true) => return Submit::Done(batch),
            Ok(false) => {}
            Err(error) => {
                socket.error = Some(kind(error));
                self.slots.push_due(id.slot);
            }
        }
        self.slots[id.slot].batch = Some(batch);
        Submit::Pending
    }

    fn continue_send(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let socket = &mut self.slots[id.slot];
        let (Some(fd), Some(batch)) = (&socket.fd, &mut socket.batch) else { return };
        let before = batch.left();
        match transmit(fd, batch, &mut self.gather) {
            Ok(false) if batch.left() < before => sink.complete(Completion::Progress { id }),
            Ok(false) => {}
            Ok(true) => {
                if socket.state.any(State::SHUT) {
                    shut_down(fd);
                }
                if let Some(batch) = socket.batch.take() {
                    sink.complete(Completion::Sent { id, batch, result: Ok(()) });
                }
            }
            Err(error) if self.slots.is_due(id.slot) => self.slots[id.slot].error = Some(kind(error)),
            Err(error) => self.fail(id, kind(error), sink),
        }
    }

    /// Gives back what is in flight, then reports the failure, once.
    fn fail(&mut self, id: SocketId, error: ErrorKind, sink: &mut impl CompletionSink) {
        let socket = &mut self.slots[id.slot];
        socket.error = None;
        socket.state.clear(State::READABLE);
        let reported = socket.state.any(State::FAILED);
        socket.state.set(State::FAILED.or(State::EOF));
        if let Some(batch) = socket.batch.take() {
            sink.complete(Completion::Sent { id, batch, result: Err(error.into()) });
        }
        if !reported {
            sink.complete(Completion::Failed { id, error });
        }
    }

    /// Does what was put off.
    fn work_off(&mut self, id: SocketId, sink: &mut impl CompletionSink) {
        let socket = &mut self.slots[id.slot];
        if socket.state.any(State::CLOSING) {
            let error = socket.error.take().unwrap_or(ErrorKind::ConnectionAborted);
            if let Some(batch) = socket.batch.take() {
                sink.complete(Completion::Sent { id, batch, result: Err(error.into()) });
            }
            sink.complete(Completion::Closed { id });
            self.slots.remove(id.slot);
        } else if let Some(error) = socket.error {
            // As with events: what the peer said before it broke the connection is not lost to a failed send.
            if socket.state.any(State::READABLE) && !socket.state.any(State::PAUSED.or(State::EOF)) {
                self.receive(id, sink);
            }
            if !self.slots.is_due(id.slot) {
                self.fail(id, error, sink); // else the budget was spent: the rest comes first
            }
        } else if socket.state.any(State::PAUSED.or(State::EOF)) {
            self.probe(id, false, sink);
        } else if socket.state.any(State::READABLE) {
            self.receive(id, sink);
        }
    }

    fn accept(&mut self, sink: &mut impl CompletionSink) {
        let mut at = 0;
        while let Some(listener) = self.acceptor.next_ready(at) {
            at = listener.0 as usize + 1;
            for _ in 0..self.config.accepts_per_poll {
                match self.acceptor.accept(listener) {
                    Accept::Connection(fd, peer) => match self.insert(fd, State::default()) {
                        Ok(id) => sink.complete(Completion::Accepted { id, listener, peer }),
                        Err(_) => self.counters.accept_failed += 1,
                    },
                    Accept::Broken => {}
                    Accept::Drained => break,
                    Accept::Exhausted => {
                        self.counters.accept_exhausted += 1;
                        return;
                    }
                }
            }
        }
    }
}

fn kind(error: Errno) -> ErrorKind {
    io::Error::from(error).kind()
}

fn token(id: SocketId) -> Token {
    Token((u64::from(id.generation) << 32 | u64::from(id.slot)) as usize)
}

fn socket_id(token: Token) -> SocketId {
    SocketId { slot: token.0 as u32, generation: (token.0 as u64 >> 32) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::tcp_nodelay;

    #[derive(Default)]
    struct Count {
        accepted: Option<SocketId>,
        connected: bool,
    }

    impl CompletionSink for Count {
        fn takes_more(&self) -> bool {
            true
        }

        fn complete(&mut self, completion: Completion<'_>) {
            match completion {
                Completion::Accepted { id, .. } => self.accepted = Some(id),
                Completion::Connected { .. } => self.connected = true,
                _ => {}
            }
        }
    }

    /// A driver with a connection to itself: the outgoing socket and the accepted one.
    fn pair() -> (Epoll, SocketId, SocketId) {
        let mut driver = Epoll::new(DriverConfig::default()).unwrap();
        let options = ListenOptions { backlog: 8, reuse_port: false };
        let listener = driver.listen(&"127.0.0.1:0".parse().unwrap(), options).unwrap();
        let address = driver.local_address(listener).unwrap();
        let near = driver.connect(&address, ConnectOptions::default()).unwrap();
        let mut seen = Count::default();
        while !seen.connected || seen.accepted.is_none() {
            driver.poll(Some(Duration::from_millis(100)), &mut seen).unwrap();
        }
        (driver, near, seen.accepted.unwrap())
    }

    #[test]
    fn accepted_and_outgoing_sockets_do_not_delay() {
        let (driver, near, far) = pair();
        for id in [near, far] {
            assert!(tcp_nodelay(driver.sockets.slots[id.slot].fd.as_ref().unwrap()).unwrap());
        }
    }

    #[test]
    fn events_of_an_older_generation_are_discarded_and_counted() {
        let (mut driver, near, far) = pair();
        // A duplicate keeps the socket in epoll beyond its close: what a forked child would do.
        let duplicate = driver.sockets.slots[near.slot].fd.as_ref().unwrap().try_clone().unwrap();
        driver.close(near);
        driver.poll(Some(Duration::ZERO), &mut Count::default()).unwrap();
        rustix::net::send(
            driver.sockets.slots[far.slot].fd.as_ref().unwrap(),
            b"late",
            rustix::net::SendFlags::NOSIGNAL,
        )
        .unwrap();
        struct Nothing;
        impl CompletionSink for Nothing {
            fn takes_more(&self) -> bool {
                true
            }

            fn complete(&mut self, completion: Completion<'_>) {
                panic!("{completion:?}");
            }
        }
        driver.poll(Some(Duration::from_millis(100)), &mut Nothing).unwrap();
        assert_eq!(driver.counters().stale, 1);
        drop(duplicate);
    }

    #[test]
    fn tokens_keep_slot_and_generation_apart() {
        let id = SocketId { slot: LISTENERS - 1, generation: u32::MAX };
        assert_eq!(socket_id(token(id)), id);
    }
}
