//! Listeners: accepting by multishot, handing out in portions, and going on when no descriptor is left.

#![forbid(unsafe_code)]

use super::super::reserve::{ACCEPTED, Refusal, Reserve};
use super::super::socket::Listening;
use super::super::{Address, ListenerId, SocketId};
use super::queue::{Event, Op, Queue};
use rustix::io::Errno;
use rustix::net::{accept_with, getpeername};
use slab::Slab;
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::Duration,
};

#[derive(Debug)]
struct Listener {
    socket: Listening,
    /// The kernel has a multishot accept of it.
    accepts: bool,
    /// The kernel has a poll of it.
    watched: bool,
    cancelled: bool,
    /// No descriptor was left and nothing waited: the next connection is waited for without taking a descriptor.
    watch_next: bool,
    /// To be closed when nothing waits any more.
    leaving: bool,
}

/// A connection that was accepted and not handed out yet.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) listener: ListenerId,
    pub(super) fd: OwnedFd,
    pub(super) peer: Option<IpAddr>,
}

/// All listeners of a driver.
#[derive(Debug)]
pub(super) struct Acceptor {
    listeners: Slab<Listener>,
    arrivals: VecDeque<Arrival>,
    reserve: Reserve,
    /// Something is to be asked of the kernel.
    changed: bool,
    /// Times that no descriptor was left.
    pub(super) exhausted: u64,
    /// Connections that broke before they were handed out.
    pub(super) failed: u64,
}

impl Acceptor {
    pub(super) fn new() -> Self {
        Acceptor {
            listeners: Slab::new(),
            arrivals: VecDeque::new(),
            reserve: Reserve::new(),
            changed: false,
            exhausted: 0,
            failed: 0,
        }
    }

    pub(super) fn insert(&mut self, socket: Listening) -> ListenerId {
        let (accepts, watched, cancelled, watch_next, leaving) = Default::default();
        let listener = Listener { socket, accepts, watched, cancelled, watch_next, leaving };
        self.changed = true;
        ListenerId(self.listeners.insert(listener) as u32)
    }

    /// Closes the listener when nothing waits any more.
    pub(super) fn leave(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(id.0 as usize) {
            listener.leaving = true;
            self.changed = true;
        }
    }

    pub(super) fn address(&self, id: ListenerId) -> Option<&Address> {
        self.listeners.get(id.0 as usize).filter(|listener| !listener.leaving).map(|listener| listener.socket.address())
    }

    /// A descriptor was closed: there is one to accept with.
    pub(super) fn descriptor_freed(&mut self) {
        self.changed |= self.reserve.freed();
    }

    /// Whether something is to be asked of the kernel.
    pub(super) fn is_changed(&self) -> bool {
        self.changed && !self.reserve.backs_off()
    }

    /// How long nothing is to be done here: zero if something is to be handed out, none if the kernel will tell.
    pub(super) fn wait(&self) -> Option<Duration> {
        if !self.arrivals.is_empty() {
            return Some(Duration::ZERO);
        }
        self.reserve.left()
    }

    /// The next connection to hand out.
    pub(super) fn next(&mut self) -> Option<Arrival> {
        self.arrivals.pop_front()
    }

    /// Asks the kernel for what is missing: accepts, or the end of those of listeners that leave. True if a listener has
    /// gone, which the kernel will not tell.
    pub(super) fn ask(&mut self, queue: &mut Queue) -> bool {
        self.changed |= self.reserve.look();
        if !self.is_changed() {
            return false;
        }
        self.changed = false;
        let before = self.listeners.len();
        for key in (0..self.listeners.capacity()).filter(|&key| self.listeners.contains(key)).collect::<Vec<_>>() {
            self.ask_for(key, queue);
        }
        self.listeners.len() < before
    }

    fn ask_for(&mut self, key: usize, queue: &mut Queue) {
        let listener = &mut self.listeners[key];
        let fd: RawFd = listener.socket.as_fd().as_raw_fd();
        let id = SocketId { slot: key as u32, generation: 0 };
        if listener.leaving {
            if !listener.accepts && !listener.watched {
                return self.drain(key);
            }
            if !std::mem::replace(&mut listener.cancelled, true) {
                queue.cancel(if listener.accepts { Op::Accept } else { Op::AcceptWatch }, id);
            }
        } else if !listener.accepts && !listener.watched {
            if std::mem::take(&mut listener.watch_next) {
                listener.watched = true;
                queue.watch_listener(id.slot, fd);
            } else {
                listener.accepts = true;
                queue.accept(id.slot, fd);
            }
        }
    }

    /// Takes what the kernel said about a listener. False if there is no such listener.
    pub(super) fn take(&mut self, event: Event) -> bool {
        let Some(listener) = self.listeners.get_mut(event.slot as usize) else { return false };
        if event.of_cancel {
            // There was nothing to cancel; if there is now, it is cancelled again.
            self.changed |= listener.accepts || listener.watched;
            listener.cancelled = false;
            return true;
        }
        if !event.more {
            match event.op {
                Op::Accept => listener.accepts = false,
                _ => listener.watched = false,
            }
            listener.cancelled = false;
            self.changed = true;
        }
        match (event.accepted, event.result) {
            (Some(fd), _) => self.arrived(event.slot, fd),
            (None, Err(error)) if event.op == Op::Accept => self.refused(event.slot as usize, error),
            _ => {}
        }
        true
    }

    fn arrived(&mut self, listener: u32, fd: OwnedFd) {
        let mut peer = None;
        if let Address::Tcp(_) = self.listeners[listener as usize].socket.address() {
            // It fails for one that broke while it waited.
            let address = getpeername(&fd).ok().flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
            let Some(address) = address else {
                self.failed += 1;
                return;
            };
            peer = Some(address.ip());
        }
        self.arrivals.push_back(Arrival { listener: ListenerId(listener), fd, peer });
    }

    /// Accepting ended with an error.
    fn refused(&mut self, key: usize, error: Errno) {
        match Refusal::from(error) {
            Refusal::Exhausted => self.starve(key),
            Refusal::Connection => {}
            // The end was asked for, or nobody waits.
            Refusal::Listener if matches!(error, Errno::CANCELED | Errno::AGAIN) => {}
            Refusal::Listener => self.reserve.back_off(),
        }
    }

    /// No descriptor is left. The kernel takes one before it looks whether anybody waits, so only if somebody does that
    /// counts: one is refused, and accepting backs off. Else the next one is waited for.
    fn starve(&mut self, key: usize) {
        if self.reserve.refuse_one(&self.listeners[key].socket) {
            self.exhausted += 1;
            self.reserve.exhausted();
        } else {
            self.listeners[key].watch_next = true;
        }
    }

    /// Accepts what still waits for a listener that leaves, and closes it.
    fn drain(&mut self, key: usize) {
        loop {
            let listener = &self.listeners[key].socket;
            match accept_with(listener, ACCEPTED) {
                Ok(fd) => self.arrived(key as u32, fd),
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PERM | Errno::PROTO) => {}
                Err(error) if Refusal::from(error) == Refusal::Exhausted && self.reserve.refuse_one(listener) => {
                    self.exhausted += 1;
                    return self.reserve.exhausted();
                }
                Err(_) => {
                    self.listeners.remove(key);
                    return;
                }
            }
        }
    }
}
