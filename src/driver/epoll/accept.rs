//! Listeners: accepting in portions, and going on when no descriptor is left.
#![forbid(unsafe_code)]

use super::super::reserve::{ACCEPTED, Refusal, Reserve};
use super::super::socket::Listening;
use super::super::{Address, ListenerId};
use rustix::net::acceptfrom_with;
use slab::Slab;
use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    time::Duration,
};

#[derive(Debug)]
struct Listener {
    socket: Listening,
    /// Connections may wait, and no event will say so again.
    ready: bool,
    /// To be closed when nothing waits any more.
    leaving: bool,
}

/// What one attempt to accept gave.
pub(super) enum Accept {
    /// A connection, and the peer's address if it has one.
    Connection(OwnedFd, Option<IpAddr>),
    /// One that broke while it waited.
    Broken,
    /// Nothing waits.
    Drained,
    /// No descriptor or no memory is left; accepting stops for a while.
    Exhausted,
}

/// All listeners of a driver.
#[derive(Debug)]
pub(super) struct Acceptor {
    listeners: Slab<Listener>,
    reserve: Reserve,
}

impl Acceptor {
    pub(super) fn new() -> Self {
        Acceptor { listeners: Slab::new(), reserve: Reserve::new() }
    }

    pub(super) fn insert(&mut self, socket: Listening) -> (ListenerId, RawFd) {
        let fd = rustix::fd::AsFd::as_fd(&socket).as_raw_fd();
        let key = self.listeners.insert(Listener { socket, ready: false, leaving: false });
        (ListenerId(key as u32), fd)
    }

    /// Closes the listener at once.
    pub(super) fn remove(&mut self, id: ListenerId) {
        self.listeners.try_remove(id.0 as usize);
    }

    /// Closes the listener when nothing waits any more.
    pub(super) fn leave(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(id.0 as usize) {
            (listener.ready, listener.leaving) = (true, true);
        }
    }

    pub(super) fn address(&self, id: ListenerId) -> Option<&Address> {
        self.listeners.get(id.0 as usize).filter(|listener| !listener.leaving).map(|listener| listener.socket.address())
    }

    /// Notes an event; false if there is no such listener.
    pub(super) fn set_ready(&mut self, id: ListenerId) -> bool {
        self.listeners.get_mut(id.0 as usize).map(|listener| listener.ready = true).is_some()
    }

    /// How long nothing is to be accepted: zero if something may wait, none if an event will tell.
    pub(super) fn wait(&self) -> Option<Duration> {
        let any_ready = self.listeners.iter().any(|(_, listener)| listener.ready);
        any_ready.then(|| self.reserve.left().unwrap_or_default())
    }

    /// A descriptor was closed: there is one to accept with.
    pub(super) fn descriptor_freed(&mut self) {
        self.reserve.freed();
    }

    /// The next listener from `at` on that may have something.
    pub(super) fn next_ready(&mut self, at: usize) -> Option<ListenerId> {
        self.reserve.look();
        if self.reserve.backs_off() {
            return None;
        }
        self.listeners
            .iter()
            .find(|(key, listener)| *key >= at && listener.ready)
            .map(|(key, _)| ListenerId(key as u32))
    }

    /// Accepts one connection of a listener that exists.
    pub(super) fn accept(&mut self, id: ListenerId) -> Accept {
        let listener = &mut self.listeners[id.0 as usize];
        match acceptfrom_with(&listener.socket, ACCEPTED).map_err(Refusal::from) {
            Ok((fd, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Accept::Connection(fd, peer.map(|peer| peer.ip()))
            }
            Err(Refusal::Exhausted) => {
                self.reserve.refuse_one(&listener.socket);
                self.reserve.exhausted();
                Accept::Exhausted
            }
            Err(Refusal::Connection) => Accept::Broken,
            Err(Refusal::Listener) => {
                listener.ready = false;
                if listener.leaving {
                    self.listeners.remove(id.0 as usize);
                }
                Accept::Drained
            }
        }
    }
}
