//! Accepting where no descriptor is left: one connection is refused, so that its peer knows, and accepting backs off.
#![forbid(unsafe_code)]

use super::socket::Listening;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// How long accepting stops when no descriptor is left, unless a socket closes meanwhile.
const BACKOFF: Duration = Duration::from_millis(100);

/// What accepted sockets are.
pub(super) const ACCEPTED: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// A descriptor kept back, and the time until which accepting stops.
#[derive(Debug)]
pub(super) struct Reserve {
    /// Gives its place to the connection that would otherwise wait for ever, and keep its listener readable.
    descriptor: Option<OwnedFd>,
    backs_off_until: Option<Instant>,
    /// Times that no descriptor was left.
    exhausted: u64,
}

impl Reserve {
    pub(super) fn new() -> Self {
        Reserve { descriptor: spare(), backs_off_until: None, exhausted: 0 }
    }

    /// Takes one connection out of the queue and closes it. False if nobody waits there.
    pub(super) fn refuse_one(&mut self, listener: &Listening) -> bool {
        let waited = self.descriptor.take().is_none() || !matches!(accept_with(listener, ACCEPTED), Err(Errno::AGAIN));
        self.descriptor = spare();
        waited
    }

    /// No descriptor was left: accepting stops for a while. Logged the first time, the second, the fourth, and so on.
    pub(super) fn exhausted(&mut self) {
        self.exhausted += 1;
        if self.exhausted.is_power_of_two() {
            tracing::warn!(
                times = self.exhausted,
                "no descriptor is left to accept with: raise `ulimit -n`, or give each worker a table of its own",
            );
        }
        self.back_off();
    }

    /// Accepting stops for a while.
    pub(super) fn back_off(&mut self) {
        self.backs_off_until = Some(Instant::now() + BACKOFF);
    }

    /// A descriptor was closed: there is one to accept with. True if that ends the back-off.
    pub(super) fn freed(&mut self) -> bool {
        self.backs_off_until.take().is_some()
    }

    /// Whether accepting backs off, as far as it was looked at ([`Reserve::look`]).
    pub(super) fn backs_off(&self) -> bool {
        self.backs_off_until.is_some()
    }

    /// Looks at the clock; true if that ends the back-off.
    pub(super) fn look(&mut self) -> bool {
        self.backs_off_until.take_if(|until| *until <= Instant::now()).is_some()
    }

    /// How long accepting still backs off.
    pub(super) fn left(&self) -> Option<Duration> {
        self.backs_off_until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

/// What an error of accept(2) is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// No descriptor or no memory is left.
    Exhausted,
    /// The connection broke while it waited, or the call was interrupted: the next one may be accepted.
    Connection,
    /// Nobody waits, or the listener is of no use.
    Listener,
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        match error {
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Refusal::Exhausted,
            // What accept(2) lists.
            Errno::INTR
            | Errno::CONNABORTED
            | Errno::PERM
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::TIMEDOUT => Refusal::Connection,
            _ => Refusal::Listener,
        }
    }
}

fn spare() -> Option<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).ok()
}
