//! The driver contract: what moves bytes between sockets and a worker, by completions.
//!
//! A driver owns the sockets. It accepts, connects, receives, sends and closes, and tells its [`CompletionSink`] what
//! it finished. Readiness (epoll) is turned into completions here, so that nothing above knows which kernel interface
//! is in use, and the simulator can stand in for the kernel.
//!
//! Every driver provides, and the `backends` suite checks:
//!
//! * one receive is outstanding on each socket unless it is paused; the bytes are lent for the call only;
//! * at most one send is in flight per socket; a short send continues where it stopped, and each continuation that
//!   moves bytes without finishing is told ([`Completion::Progress`]): a slow peer is known from one that takes nothing;
//! * ids carry a generation: what is asked of a closed id is ignored, and a completion of an older generation is never
//!   delivered;
//! * [`Completion::Closed`] is the last completion of an id; its slot is used again only after it was delivered;
//! * a batch handed to [`Driver::send`] comes back exactly once: as [`Submit::Done`] or in [`Completion::Sent`];
//! * a paused socket delivers no bytes, yet reports a reset, and the peer's FIN once no unread bytes are before it;
//! * all of this holds for a socket that rests ([`Driver::rest`]): what a driver saves shows in memory and time alone;
//! * running out of descriptors on accept backs off, is counted, and keeps serving.
#![deny(unsafe_code)]

mod epoll;
mod reserve;
pub mod sim;
mod socket;
mod system;
mod table;
#[cfg(all(feature = "uring", target_os = "linux"))]
mod uring;
mod waker;

pub use epoll::{Epoll, EpollSeed};
pub(crate) use socket::reserve_port;
pub use socket::{Address, AddressError, is_port_free};
pub use system::{Chosen, DriverChoice, SystemDriver, SystemSeed, Unavailable};
#[cfg(all(feature = "uring", target_os = "linux"))]
pub use uring::{Uring, UringSeed};
pub use waker::Wake;

use crate::buffer::SendBatch;
use std::{fmt, io, net::IpAddr, net::SocketAddr, os::fd::BorrowedFd, sync::Arc, time::Duration};

/// A socket of one driver. The slot is the index of the connection's records too; the generation tells apart those
/// that used the slot one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId {
    /// Index, small and dense; at most one live socket has it.
    pub slot: u32,
    /// Counts the sockets that had this slot.
    pub generation: u32,
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// A listening socket of one driver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub u32);

/// How to listen.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that the kernel queues before they are accepted (capped by `net.core.somaxconn`).
    pub backlog: u32,
    /// `SO_REUSEPORT`: several workers (or processes) bind the same port, and the kernel spreads connections.
    pub reuse_port: bool,
}

/// How to connect.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectOptions {
    /// Source address to bind, port 0 for any. Many source addresses allow more than 28,000 connections to one target.
    pub source: Option<SocketAddr>,
}

/// Sizes and budgets of a driver; each is at least 1, and a 0 counts as that.
#[derive(Clone, Copy, Debug)]
pub struct DriverConfig {
    /// Bytes of the receive buffer that all sockets of the worker share. On io_uring there are as many such buffers as
    /// fit into the pool, and one at least.
    pub receive_buffer: usize,
    /// Bytes of all receive buffers together on io_uring, where the kernel fills them ahead of the worker: about 20
    /// sockets per system call. When it finds none left, it stops receiving and has to be asked again, socket by socket.
    pub receive_pool: usize,
    /// Kernel events taken at once; on io_uring a quarter of the completions that the kernel has room for.
    pub events: usize,
    /// Connections accepted per poll and listener at most, so that a herd does not starve those that are connected.
    pub accepts_per_poll: usize,
    /// Bytes received from one socket per poll at most; on io_uring that is the pool, unless the socket rests.
    pub receive_budget: usize,
}

impl Default for DriverConfig {
    fn default() -> Self {
        DriverConfig {
            receive_buffer: 256 << 10,
            receive_pool: 2 << 20,
            events: 1024,
            accepts_per_poll: 256,
            receive_budget: 512 << 10,
        }
    }
}

impl DriverConfig {
    /// The same with at least 1 wherever 0 would let nothing ever happen.
    pub(crate) fn normalized(self) -> Self {
        DriverConfig {
            receive_buffer: self.receive_buffer.max(1),
            receive_pool: self.receive_pool.max(1),
            events: self.events.max(1),
            accepts_per_poll: self.accepts_per_poll.max(1),
            receive_budget: self.receive_budget.max(1),
        }
    }
}

/// What a driver finished.
#[derive(Debug)]
pub enum Completion<'a> {
    /// A connection came in.
    Accepted {
        /// The new socket.
        id: SocketId,
        /// Where it came in.
        listener: ListenerId,
        /// The peer's address; none on a Unix socket.
        peer: Option<IpAddr>,
    },
    /// An outgoing connection stands.
    Connected {
        /// The socket that [`Driver::connect`] returned.
        id: SocketId,
    },
    /// Bytes came in. They are lent, to be changed in place, and gone after the call.
    Received {
        /// The socket.
        id: SocketId,
        /// At least one byte.
        data: &'a mut [u8],
    },
    /// The peer will send no more. Sending still works. Delivered once.
    Eof {
        /// The socket.
        id: SocketId,
    },
    /// The kernel took more of the send that is in flight, not all: the peer takes bytes, slowly. Comes any number of
    /// times after [`Submit::Pending`], never after the [`Completion::Sent`] that follows.
    Progress {
        /// The socket.
        id: SocketId,
    },
    /// A send that was [`Submit::Pending`] ended.
    Sent {
        /// The socket.
        id: SocketId,
        /// The batch, given back.
        batch: SendBatch,
        /// Whether the kernel took all of it.
        result: io::Result<()>,
    },
    /// The socket is broken (reset, failed connect). Delivered once; the socket is to be closed.
    Failed {
        /// The socket.
        id: SocketId,
        /// What the kernel said.
        error: io::ErrorKind,
    },
    /// The last completion of an id, after [`Driver::close`].
    Closed {
        /// The socket that was.
        id: SocketId,
    },
    /// Somebody called the waker.
    Woken,
}

/// Who takes completions. It cannot reach the driver from within: what it wants done it notes, and the worker does it
/// after the poll.
pub trait CompletionSink {
    /// Called once per poll, when the wait in the kernel is over and before the first completion: the place to read
    /// the clock.
    fn polled(&mut self) {}
    /// Takes one completion.
    fn complete(&mut self, completion: Completion<'_>);
    /// Whether a poll is to go on with what is ready. If not, it returns after what the completion at hand entails (bytes
    /// that were held while a socket was paused come whole), and the next one goes on without waiting. For a sink whose
    /// answers should leave while they are in the processor's cache.
    fn takes_more(&self) -> bool;
}

/// What became of a send.
#[must_use]
#[derive(Debug)]
pub enum Submit {
    /// The kernel took all of it now (or the id is gone): the batch comes straight back.
    Done(SendBatch),
    /// A [`Completion::Sent`] follows, exactly one, also if the socket fails or is closed meanwhile.
    Pending,
}

/// Counters of a driver since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Times that accepting stopped because no descriptor was left.
    pub accept_exhausted: u64,
    /// Sockets that could not be set up after accept, and were closed.
    pub accept_failed: u64,
    /// Completions of the kernel for a socket that was gone.
    pub stale: u64,
}

/// Moves bytes between sockets and a worker. One per worker thread; not `Send` once in use.
pub trait Driver {
    /// Starts listening. On a Unix path that exists but answers nobody, the stale file is replaced.
    fn listen(&mut self, address: &Address, options: ListenOptions) -> io::Result<ListenerId>;
    /// The address that a listener is bound to (the port, where 0 was asked for).
    fn local_address(&self, listener: ListenerId) -> Option<Address>;
    /// Stops listening; what waits in the kernel's queue is accepted first.
    fn unlisten(&mut self, listener: ListenerId);
    /// Starts connecting; [`Completion::Connected`] or [`Completion::Failed`] follows.
    fn connect(&mut self, address: &Address, options: ConnectOptions) -> io::Result<SocketId>;
    /// Stops receiving.
    fn pause(&mut self, id: SocketId);
    /// Receives again.
    fn resume(&mut self, id: SocketId);
    /// Hints that little is expected of this socket for long: it may be watched in the cheapest way, though what it
    /// receives costs more then. It rests until [`Driver::rouse`], through what comes meanwhile. Cost: O(1); of no effect
    /// on a socket that rests already.
    fn rest(&mut self, id: SocketId) {
        let _ = id;
    }
    /// Ends the rest of a socket: bytes are expected again. Cost: O(1); of no effect on one that does not rest.
    fn rouse(&mut self, id: SocketId) {
        let _ = id;
    }
    /// Sends. The caller has no other send in flight on this socket.
    fn send(&mut self, id: SocketId, batch: SendBatch) -> Submit;
    /// Shuts down the sending side, after what is in flight.
    fn shutdown(&mut self, id: SocketId);
    /// Closes; [`Completion::Closed`] follows from the next poll. A send in flight comes back first, failed.
    fn close(&mut self, id: SocketId);
    /// What wakes a poll from another thread.
    fn waker(&self) -> Arc<dyn Wake>;
    /// Waits until something is finished, `timeout` at most (rounded up to the clock of the kernel interface; none
    /// waits without end), and delivers it. Returns after at most one round over what was ready.
    fn poll(&mut self, timeout: Option<Duration>, sink: &mut impl CompletionSink) -> io::Result<()>;
    /// How long the next poll may be put off though [`Driver::as_fd`] stays unreadable: zero if something is due (a
    /// socket to close, bytes beyond the budget), none if the descriptor tells. [`Driver::poll`] heeds it by itself.
    fn longest_wait(&self) -> Option<Duration>;
    /// A descriptor that is readable when the kernel has something for a poll, for use in another event loop.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Counters since the start.
    fn counters(&self) -> DriverCounters;
}
