//! What a test holds of the simulated network: the network itself, raw peers, and their listeners.
#![forbid(unsafe_code)]

use super::faults::Faults;
use super::kernel::{EndId, Kernel, Owner};
use super::{Address, DriverConfig, ListenOptions, ListenerId, Sim};
use std::{
    cell::{Ref, RefCell, RefMut},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    time::{Duration, Instant},
};

/// A network in one thread: drivers and raw peers that share a virtual clock and one source of randomness.
///
/// Clones refer to the same network. The clock moves when every driver sleeps (see [`Driver::poll`](super::Driver)),
/// or by [`Net::advance`].
#[derive(Clone, Debug)]
pub struct Net(Rc<RefCell<Kernel>>);

/// The test's end of a connection. Clones refer to the same end.
#[derive(Clone, Debug)]
pub struct Peer {
    net: Net,
    end: EndId,
}

/// Where raw peers are connected to by drivers.
#[derive(Debug)]
pub struct PeerListener {
    net: Net,
    id: ListenerId,
}

impl Net {
    /// A network without faults. The same seed and the same calls give the same run.
    pub fn new(seed: u64) -> Self {
        Net(Rc::new(RefCell::new(Kernel::new(seed))))
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.kernel().faults = faults;
    }

    /// Changes how many bytes a socket holds that were sent and not read (64 KiB at first).
    pub fn set_buffer(&self, bytes: usize) {
        self.kernel().buffer = bytes.max(1);
    }

    /// Changes how many sockets each driver can have before accepting is exhausted (no limit at first).
    pub fn set_socket_limit(&self, sockets: usize) {
        self.kernel().socket_limit = sockets;
    }

    /// A driver in this network.
    pub fn driver(&self, config: DriverConfig) -> Sim {
        let (party, woken) = self.kernel().join();
        Sim::new(self.clone(), party, config, woken)
    }

    /// A raw peer connects to a driver's listener, from 127.0.0.1.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionRefused`] if nobody listens there or the listener's queue is full.
    pub fn connect(&self, address: &Address) -> io::Result<Peer> {
        self.connect_from(Ipv4Addr::LOCALHOST.into(), address)
    }

    /// A raw peer connects from a source address.
    ///
    /// # Errors
    /// As [`Net::connect`].
    pub fn connect_from(&self, source: IpAddr, address: &Address) -> io::Result<Peer> {
        let mut kernel = self.kernel();
        let end = kernel.connect(Owner::Test, address, source).ok_or(ErrorKind::ConnectionRefused)?;
        Ok(Peer { net: self.clone(), end })
    }

    /// Listens for drivers that connect. Port 0 gets a port.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`].
    pub fn listen(&self, address: &Address) -> io::Result<PeerListener> {
        let options = ListenOptions { backlog: 1024, reuse_port: false };
        let id = self.kernel().listen(Owner::Test, address, options)?;
        Ok(PeerListener { net: self.clone(), id })
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        let kernel = self.kernel();
        kernel.base + kernel.now
    }

    /// The virtual time since the network began.
    pub fn elapsed(&self) -> Duration {
        self.kernel().now
    }

    /// Moves the clock, without regard to what would have happened meanwhile: a clock jump.
    pub fn advance(&self, by: Duration) {
        self.kernel().now += by;
    }

    /// When the test itself does something next: the clock moves to there if no driver has anything before, and no
    /// further. None lifts it. The present time makes the clock stand still.
    pub fn hold_clock(&self, at: Option<Instant>) {
        let mut kernel = self.kernel();
        let base = kernel.base;
        kernel.hold = at.map(|at| at.saturating_duration_since(base));
    }

    /// Randomness for the test, from the same seed.
    pub fn random(&self) -> u64 {
        self.kernel().random.next()
    }

    /// A random number below `n` (0 if `n` is 0).
    pub fn below(&self, n: usize) -> usize {
        self.kernel().random.below(n)
    }

    /// A hash of everything that went in and out of the drivers so far, with its time and order.
    pub fn fingerprint(&self) -> u64 {
        self.kernel().fingerprint
    }

    pub(super) fn kernel(&self) -> RefMut<'_, Kernel> {
        self.0.borrow_mut()
    }
}

impl Peer {
    /// Sends; what the other side has no room for waits. False if this end is closed or reset.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let mut kernel = self.net.kernel();
        let end = kernel.end(self.end);
        if end.reset || end.closed || end.fin_follows {
            return false;
        }
        end.outbox.extend(bytes);
        kernel.flow(self.end);
        true
    }

    /// All that was read so far and not taken. To be dropped before the next poll or call of the network.
    pub fn received(&self) -> Ref<'_, [u8]> {
        Ref::map(self.net.0.borrow(), |kernel| kernel.received(self.end))
    }

    /// Takes what was read.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.net.kernel().end(self.end).received)
    }

    /// Bytes that the kernel took for this end in all, read or not.
    pub fn accepted(&self) -> u64 {
        self.net.kernel().end(self.end).accepted
    }

    /// What the kernel took for this end and it has not read, because it is stalled.
    pub fn unread(&self) -> Vec<u8> {
        self.net.kernel().end(self.end).inbox.iter().copied().collect()
    }

    /// Sends no more: a FIN after what waits.
    pub fn shutdown(&self) {
        let mut kernel = self.net.kernel();
        kernel.end(self.end).fin_follows = true;
        kernel.flow(self.end);
    }

    /// Closes both directions. Unread bytes, or any that still come, make it a reset.
    pub fn close(&self) {
        self.net.kernel().close(self.end);
    }

    /// Breaks the connection; what the other side has not read is lost or not, by chance.
    pub fn reset(&self) {
        let mut kernel = self.net.kernel();
        kernel.end(self.end).closed = true;
        kernel.reset(self.end ^ 1);
    }

    /// Stops reading (the kernel still takes a buffer full), or reads again.
    pub fn stall(&self, stalled: bool) {
        let mut kernel = self.net.kernel();
        kernel.end(self.end).stalled = stalled;
        kernel.arrived(self.end);
    }

    /// Whether the other side's FIN was reached.
    pub fn is_eof(&self) -> bool {
        let mut kernel = self.net.kernel();
        let end = kernel.end(self.end);
        end.fin && end.inbox.is_empty()
    }

    /// Whether the other side broke the connection.
    pub fn is_reset(&self) -> bool {
        self.net.kernel().end(self.end).reset
    }
}

impl PeerListener {
    /// Where it listens.
    pub fn address(&self) -> Address {
        self.net.kernel().bound(self.id).clone()
    }

    /// Takes a connection, if one waits.
    pub fn accept(&self) -> Option<Peer> {
        let mut kernel = self.net.kernel();
        let (end, _) = kernel.accept(self.id)?;
        kernel.end(end).owner = Owner::Test;
        kernel.arrived(end);
        drop(kernel);
        Some(Peer { net: self.net.clone(), end })
    }
}

impl Drop for PeerListener {
    fn drop(&mut self) {
        self.net.kernel().unlisten(self.id);
    }
}
