//! Completions on io_uring.
//!
//! One multishot accept per listener and one multishot receive per socket stand in the kernel. Received bytes come in
//! provided buffers and are lent from there. What a turn asks (sends, new receives, cancellations) is written to the
//! submission queue and handed over by the system call that waits for the next turn: one per turn, whatever it does.
//!
//! A receive that stands in the kernel takes 864 B there. A socket that rests has a multishot poll instead, of 256 B, and
//! its bytes are taken by a `recv` of our own when that tells of them. Never both: the poll is asked for when the receive
//! has ended, so that no bytes overtake others.
//!
//! # Descriptors
//!
//! Sockets have ordinary descriptors, not direct ones (of the ring's own table). A worker with its own descriptor table
//! has its own `RLIMIT_NOFILE` already, on either driver; a full direct table drops the connections that the kernel
//! accepts meanwhile, where ordinary ones wait in its queue; shutting down, asking for the peer and taking the bytes of a
//! resting socket would each be an operation of the ring instead of a call; and the speed is the same.
//!
//! # Who owns what the kernel uses
//!
//! * The bytes of a send belong to a batch, which stays in its slot until the last completion of that send; frames in a
//!   batch neither change nor die ([`SendBatch`]).
//! * Provided buffers belong to `BufRing`. The kernel writes into what it has not announced yet; a part that it
//!   announced is ours until we give the buffer back, which is after the callback that it was lent to.
//! * A slot is freed, and its descriptor closed, when no operation names it any more.
//! * Dropping the driver ends all operations and waits for that. If the kernel does not end them, what they name is
//!   leaked.

#![deny(unsafe_code)]

mod accept;
mod buf_ring;
mod faults;
mod messages;
mod probe;
mod queue;
mod setup;
mod slots;
mod sockets;
#[cfg(test)]
mod tests;

use super::socket::{Listening, start_connect};
use super::{
    Address, Completion, CompletionSink, ConnectOptions, Driver, DriverConfig, DriverCounters, ListenOptions,
    ListenerId, SocketId, Submit, Wake,
};
use crate::buffer::SendBatch;
use accept::Acceptor;
use buf_ring::BufRing;
pub(super) use probe::probe;
use queue::{Event, Op, Queue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::Shutdown;
use setup::Sizes;
use slots::{Slots, State};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io, mem,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

/// Bytes that a resting socket receives at once.
const SCRATCH: usize = 64 << 10;

/// The driver on io_uring (Linux 6.1 or newer; best from 6.12 on).
///
/// Its sockets take 24 bytes each in user space. A send is always [`Submit::Pending`]: the kernel learns of it with the
/// next [`Driver::poll`].
pub struct Uring {
    queue: Queue,
    buffers: BufRing,
    slots: Slots,
    acceptor: Acceptor,
    bell: Arc<Bell>,
    /// The waker's counter is to be read again.
    bell_rang: bool,
    config: DriverConfig,
    counters: DriverCounters,
    /// Sockets to look at before the next wait, and those of them that come first.
    wishes: Vec<SocketId>,
    hungry: Vec<SocketId>,
    /// Sockets that have something to report without the kernel.
    due: Vec<SocketId>,
    /// Bytes that came for paused sockets before the kernel knew: by slot.
    held: BTreeMap<u32, Vec<u8>>,
    /// Completions that were taken from the kernel and not handed out yet.
    events: VecDeque<Event>,
    /// Where resting sockets receive.
    scratch: Box<[u8]>,
}

/// What of a [`Uring`] exists before its thread does: the waker. It may change threads.
#[derive(Debug)]
pub struct UringSeed {
    bell: Arc<Bell>,
    config: DriverConfig,
}

/// An eventfd that the ring reads.
#[derive(Debug)]
struct Bell(OwnedFd);

impl Wake for Bell {
    fn wake(&self) {
        // It fails only if the counter is full: then a wake is on its way.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl Uring {
    /// A driver without sockets, to be used on this thread.
    ///
    /// # Errors
    /// As [`UringSeed::start`].
    pub fn new(config: DriverConfig) -> io::Result<Self> {
        UringSeed::new(config)?.start()
    }
}

impl UringSeed {
    /// # Errors
    /// No descriptor is left for the waker.
    pub fn new(config: DriverConfig) -> io::Result<Self> {
        let bell = Arc::new(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        Ok(UringSeed { bell, config })
    }

    /// What wakes the driver to be.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.bell.clone()
    }

    /// The driver, on the thread that will use it.
    ///
    /// # Errors
    /// [`Unavailable`](super::Unavailable), as an [`io::Error`] of kind `Unsupported`.
    pub fn start(self) -> io::Result<Uring> {
        self.start_with(true)
    }

    /// As [`UringSeed::start`]; `incremental`: with buffers that are used piece by piece, if the kernel has them.
    fn start_with(self, incremental: bool) -> io::Result<Uring> {
        let UringSeed { bell, config } = self;
        let config = config.normalized();
        let (queue, buffers) = Sizes::of(&config).make(incremental)?;
        Ok(Uring {
            queue,
            buffers,
            slots: Slots::default(),
            acceptor: Acceptor::new(),
            bell,
            bell_rang: true,
            config,
            counters: DriverCounters::default(),
            wishes: Vec::new(),
            hungry: Vec::new(),
            due: Vec::new(),
            held: BTreeMap::new(),
            events: VecDeque::new(),
            scratch: vec![0; config.receive_budget.min(SCRATCH)].into_boxed_slice(),
        })
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Driver for Uring {
    fn listen(&mut self, address: &Address, options: ListenOptions) -> io::Result<ListenerId> {
        Ok(self.acceptor.insert(Listening::new(address, options)?))
    }

    fn local_address(&self, listener: ListenerId) -> Option<Address> {
        self.acceptor.address(listener).cloned()
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.acceptor.leave(listener);
    }

    fn connect(&mut self, address: &Address, options: ConnectOptions) -> io::Result<SocketId> {
        let id = self.slots.add(start_connect(address, options)?, State::CONNECTING);
        self.enqueue(id);
        Ok(id)
    }

    fn pause(&mut self, id: SocketId) {
        if let Some(socket) = self.slots.open(id)
            && socket.state.begin(State::PAUSED)
        {
            self.enqueue(id);
        }
    }

    fn resume(&mut self, id: SocketId) {
        let Some(socket) = self.slots.open(id).filter(|socket| socket.state.any(State::PAUSED)) else { return };
        socket.state.clear(State::PAUSED | State::HUNG_UP);
        if socket.state.any(State::HELD) && socket.state.begin(State::DUE) {
            self.due.push(id);
        }
        self.enqueue(id);
    }

    fn rest(&mut self, id: SocketId) {
        if let Some(socket) = self.slots.open(id)
            && socket.state.begin(State::RESTING)
        {
            self.enqueue(id);
        }
    }

    fn rouse(&mut self, id: SocketId) {
        if let Some(socket) = self.slots.open(id)
            && socket.state.any(State::RESTING)
        {
            socket.state.clear(State::RESTING);
            self.enqueue(id);
        }
    }

    #[inline]
    fn send(&mut self, id: SocketId, batch: SendBatch) -> Submit {
        let Some(socket) = self.slots.open(id) else { return Submit::Done(batch) };
        debug_assert!(!socket.state.any(State::SHUT), "{id} is shut down");
        assert!(socket.batch.is_none(), "{id} has a send in flight");
        if batch.left() == 0 {
            return Submit::Done(batch);
        }
        socket.batch = Some(batch);
        self.start_send(id);
        Submit::Pending
    }

    fn shutdown(&mut self, id: SocketId) {
        if let Some(socket) = self.slots.open(id) {
            socket.state.set(State::SHUT);
            if let (Some(fd), None) = (&socket.fd, &socket.batch) {
                // It fails only if the connection is gone, which the kernel tells.
                let _ = rustix::net::shutdown(fd, Shutdown::Write);
            }
        }
    }

    fn close(&mut self, id: SocketId) {
        if let Some(socket) = self.slots.open(id) {
            socket.state.set(State::CLOSING);
            self.enqueue(id);
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.bell.clone()
    }

    fn poll(&mut self, timeout: Option<Duration>, sink: &mut impl CompletionSink) -> io::Result<()> {
        let settled = self.ask().then_some(Duration::ZERO);
        let wait = [timeout, self.due_in(), settled].into_iter().flatten().min();
        self.queue.enter(wait)?;
        sink.polled();
        if !self.events.is_empty() {
            self.work_off(sink); // the poll before ended early: else those that are due would wait as long as such polls go on
        }
        self.take(sink);
        self.work_off(sink);
        self.hand_out(sink);
        Ok(())
    }

    fn longest_wait(&self) -> Option<Duration> {
        let unasked = self.bell_rang || !self.wishes.is_empty() || !self.hungry.is_empty();
        if unasked || self.acceptor.is_changed() || self.queue.has_unsubmitted() {
            return Some(Duration::ZERO);
        }
        self.due_in()
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.as_fd())
    }

    fn counters(&self) -> DriverCounters {
        let Acceptor { exhausted, failed, .. } = self.acceptor;
        DriverCounters { accept_exhausted: exhausted, accept_failed: failed, ..self.counters }
    }
}

impl Uring {
    /// Writes down for the kernel what is wanted of it. True if that settled something of which it will not tell.
    fn ask(&mut self) -> bool {
        if mem::take(&mut self.bell_rang) {
            self.queue.wake(self.bell.0.as_raw_fd());
        }
        let settled = self.acceptor.ask(&mut self.queue);
        self.reconcile_all();
        settled
    }

    /// How long there is nothing to deliver that the kernel would not tell of.
    fn due_in(&self) -> Option<Duration> {
        let due = !self.due.is_empty() || !self.events.is_empty() || self.queue.has_backlog();
        if due { Some(Duration::ZERO) } else { self.acceptor.wait() }
    }

    /// Takes all completions that there are, or as many as the sink takes.
    fn take(&mut self, sink: &mut impl CompletionSink) {
        loop {
            if self.events.is_empty() {
                self.queue.take(&mut self.events);
            }
            while let Some(event) = self.events.pop_front() {
                if !self.dispatch(event, sink) {
                    self.counters.stale += 1;
                }
                if !sink.takes_more() {
                    return;
                }
            }
            if !self.queue.has_answers() {
                return;
            }
        }
    }

    #[inline]
    fn dispatch(&mut self, event: Event, sink: &mut impl CompletionSink) -> bool {
        match event.op {
            Op::Receive | Op::Watch | Op::Send => self.socket_event(&event, sink),
            Op::Accept | Op::AcceptWatch => {
                let of_cancel = event.of_cancel;
                self.acceptor.take(event) || of_cancel
            }
            Op::Wake => {
                self.bell_rang = true;
                if event.result.is_ok() {
                    sink.complete(Completion::Woken);
                }
                true
            }
        }
    }

    /// Hands out connections that were accepted, a portion of them.
    fn hand_out(&mut self, sink: &mut impl CompletionSink) {
        for _ in 0..self.config.accepts_per_poll {
            let Some(arrival) = self.acceptor.next() else { break };
            let id = self.slots.add(arrival.fd, State::default());
            self.enqueue(id);
            sink.complete(Completion::Accepted { id, listener: arrival.listener, peer: arrival.peer });
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if !self.queue.end() {
            // The kernel still reads batches and writes into buffers: they stay for ever.
            mem::forget(mem::take(&mut self.slots));
            self.buffers.leak();
        }
    }
}
