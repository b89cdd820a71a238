//! The driver that this machine offers: chosen at start, one for all workers.
#![forbid(unsafe_code)]

use super::{
    Address, CompletionSink, ConnectOptions, Driver, DriverConfig, DriverCounters, Epoll, EpollSeed, ListenOptions,
    ListenerId, SocketId, Submit, Wake,
};
#[cfg(all(feature = "uring", target_os = "linux"))]
use super::{Uring, UringSeed, uring};
use crate::buffer::SendBatch;
use std::{error, fmt, io, os::fd::BorrowedFd, sync::Arc, time::Duration};

/// Whether [`DriverChoice::Auto`] takes io_uring where it works. To be true as soon as it measures better than epoll: so
/// far it ties with small messages, needs less for a large fan-out and for handshakes, and more for messages of 64 KiB;
/// a connection that is not at rest takes 656 B more of the kernel's memory (benches/peers, README).
const AUTO_TAKES_URING: bool = false;

/// Which kernel interface moves the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum DriverChoice {
    /// The one that measured best: epoll, so far. What it resolves to tells also why io_uring could not be had.
    #[default]
    Auto,
    /// epoll.
    Epoll,
    /// io_uring, or an error.
    Uring,
}

/// What a [`DriverChoice`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chosen {
    /// epoll, and why io_uring does not work here, if it was looked for and does not.
    Epoll(Option<Unavailable>),
    /// io_uring.
    Uring,
}

impl DriverChoice {
    /// Looks whether io_uring works, unless epoll is asked for.
    ///
    /// # Errors
    /// Why [`DriverChoice::Uring`] cannot be had.
    pub fn resolve(self) -> Result<Chosen, Unavailable> {
        match self {
            DriverChoice::Epoll => Ok(Chosen::Epoll(None)),
            DriverChoice::Uring => probe().map(|()| Chosen::Uring),
            DriverChoice::Auto => match probe() {
                Ok(()) if AUTO_TAKES_URING => Ok(Chosen::Uring),
                outcome => Ok(Chosen::Epoll(outcome.err())),
            },
        }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chosen::Epoll(None) => f.write_str("epoll"),
            Chosen::Epoll(Some(why)) => write!(f, "epoll ({why})"),
            Chosen::Uring => f.write_str("io_uring"),
        }
    }
}

#[cfg(all(feature = "uring", target_os = "linux"))]
use uring::probe;

#[cfg(not(all(feature = "uring", target_os = "linux")))]
fn probe() -> Result<(), Unavailable> {
    Err(Unavailable::NotBuilt)
}

/// Why the io_uring driver cannot be used. The fault is the machine's set-up; a retry makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unavailable {
    /// This build is without it: not for Linux, or without the feature `uring`.
    NotBuilt,
    /// The kernel is older than Linux 6.1, or built without io_uring.
    OldKernel,
    /// The administrator has switched it off: `sysctl kernel.io_uring_disabled` is not 0.
    Disabled,
    /// A filter of system calls (seccomp, as containers have one) or a security module forbids it.
    Forbidden,
    /// Not enough memory may be locked (`ulimit -l`), or there is none.
    Memory,
    /// No descriptor is left.
    Descriptors,
    /// The kernel says something else.
    Other(io::ErrorKind),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unavailable::NotBuilt => "this build has no io_uring driver",
            Unavailable::OldKernel => "io_uring needs Linux 6.1 or newer, with io_uring built in",
            Unavailable::Disabled => "io_uring is switched off (sysctl kernel.io_uring_disabled)",
            Unavailable::Forbidden => "io_uring is forbidden to this process (seccomp, or a security module)",
            Unavailable::Memory => "io_uring may not lock enough memory (ulimit -l), or none is left",
            Unavailable::Descriptors => "no descriptor is left for io_uring",
            Unavailable::Other(kind) => return write!(f, "io_uring does not work here: {kind}"),
        })
    }
}

impl error::Error for Unavailable {}

impl From<Unavailable> for io::Error {
    fn from(why: Unavailable) -> Self {
        io::Error::new(io::ErrorKind::Unsupported, why)
    }
}

/// What of a [`SystemDriver`] exists before its thread does. It may change threads.
#[derive(Debug)]
pub enum SystemSeed {
    /// See [`EpollSeed`].
    Epoll(EpollSeed),
    /// See [`UringSeed`].
    #[cfg(all(feature = "uring", target_os = "linux"))]
    Uring(UringSeed),
}

impl SystemSeed {
    /// # Errors
    /// No descriptor or memory is left for the waker.
    pub fn new(chosen: Chosen, config: DriverConfig) -> io::Result<Self> {
        match chosen {
            Chosen::Epoll(_) => EpollSeed::new(config).map(SystemSeed::Epoll),
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Chosen::Uring => UringSeed::new(config).map(SystemSeed::Uring),
            #[cfg(not(all(feature = "uring", target_os = "linux")))]
            Chosen::Uring => Err(Unavailable::NotBuilt.into()),
        }
    }

    /// What wakes the driver to be.
    pub fn waker(&self) -> Arc<dyn Wake> {
        match self {
            SystemSeed::Epoll(seed) => seed.waker(),
            #[cfg(all(feature = "uring", target_os = "linux"))]
            SystemSeed::Uring(seed) => seed.waker(),
        }
    }

    /// The driver, on the thread that will use it.
    ///
    /// # Errors
    /// [`Unavailable`], as an [`io::Error`] of kind `Unsupported`.
    pub fn start(self) -> io::Result<SystemDriver> {
        match self {
            SystemSeed::Epoll(seed) => Ok(SystemDriver::Epoll(seed.start())),
            #[cfg(all(feature = "uring", target_os = "linux"))]
            SystemSeed::Uring(seed) => seed.start().map(SystemDriver::Uring),
        }
    }
}

/// One of the drivers on real sockets.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one per thread")]
pub enum SystemDriver {
    /// See [`Epoll`].
    Epoll(Epoll),
    /// See [`Uring`].
    #[cfg(all(feature = "uring", target_os = "linux"))]
    Uring(Uring),
}

/// The same call on whichever it is.
macro_rules! either {
    ($driver:expr, $it:ident => $call:expr) => {
        match $driver {
            SystemDriver::Epoll($it) => $call,
            #[cfg(all(feature = "uring", target_os = "linux"))]
            SystemDriver::Uring($it) => $call,
        }
    };
}

impl Driver for SystemDriver {
    fn listen(&mut self, address: &Address, options: ListenOptions) -> io::Result<ListenerId> {
        either!(self, driver => driver.listen(address, options))
    }

    fn local_address(&self, listener: ListenerId) -> Option<Address> {
        either!(self, driver => driver.local_address(listener))
    }

    fn unlisten(&mut self, listener: ListenerId) {
        either!(self, driver => driver.unlisten(listener));
    }

    fn connect(&mut self, address: &Address, options: ConnectOptions) -> io::Result<SocketId> {
        either!(self, driver => driver.connect(address, options))
    }

    fn pause(&mut self, id: SocketId) {
        either!(self, driver => driver.pause(id));
    }

    fn resume(&mut self, id: SocketId) {
        either!(self, driver => driver.resume(id));
    }

    fn rest(&mut self, id: SocketId) {
        either!(self, driver => driver.rest(id));
    }

    fn rouse(&mut self, id: SocketId) {
        either!(self, driver => driver.rouse(id));
    }

    #[inline]
    fn send(&mut self, id: SocketId, batch: SendBatch) -> Submit {
        either!(self, driver => driver.send(id, batch))
    }

    fn shutdown(&mut self, id: SocketId) {
        either!(self, driver => driver.shutdown(id));
    }

    fn close(&mut self, id: SocketId) {
        either!(self, driver => driver.close(id));
    }

    fn waker(&self) -> Arc<dyn Wake> {
        either!(self, driver => driver.waker())
    }

    #[inline]
    fn poll(&mut self, timeout: Option<Duration>, sink: &mut impl CompletionSink) -> io::Result<()> {
        either!(self, driver => driver.poll(timeout, sink))
    }

    fn longest_wait(&self) -> Option<Duration> {
        either!(self, driver => driver.longest_wait())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        either!(self, driver => driver.as_fd())
    }

    fn counters(&self) -> DriverCounters {
        either!(self, driver => driver.counters())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_what_was_asked_for_or_an_error() {
        assert_eq!(DriverChoice::Epoll.resolve(), Ok(Chosen::Epoll(None)));
        let uring = DriverChoice::Uring.resolve();
        assert_eq!(uring.map(|chosen| chosen == Chosen::Uring), probe().map(|()| true));
        match DriverChoice::Auto.resolve() {
            Ok(Chosen::Epoll(why)) => assert_eq!(why, probe().err()),
            other => assert!(AUTO_TAKES_URING && other == Ok(Chosen::Uring)),
        }
    }

    #[test]
    fn it_says_why_not() {
        assert_eq!(Chosen::Epoll(None).to_string(), "epoll");
        let disabled = Chosen::Epoll(Some(Unavailable::Disabled)).to_string();
        assert_eq!(disabled, "epoll (io_uring is switched off (sysctl kernel.io_uring_disabled))");
    }
}
