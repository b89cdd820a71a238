//! One socket of a simulated driver.
#![forbid(unsafe_code)]

use super::super::{Completion, SocketId, Wake};
use super::Address;
use super::kernel::{EndId, Kernel};
use crate::buffer::SendBatch;
use std::{
    io::ErrorKind,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

#[derive(Default, Debug)]
pub(super) struct Socket {
    pub(super) generation: u32,
    /// Neither free nor closed.
    pub(super) open: bool,
    pub(super) end: Option<EndId>,
    pub(super) batch: Option<SendBatch>,
    pub(super) connect: Option<Connect>,
    pub(super) error: Option<ErrorKind>,
    /// When a send that is in flight goes on, or is reported.
    pub(super) send_at: Duration,
    pub(super) paused: bool,
    pub(super) resting: bool,
    pub(super) eof: bool,
    pub(super) shut: bool,
    pub(super) failed: bool,
    pub(super) closing: bool,
}

#[derive(Debug)]
pub(super) struct Connect {
    pub(super) at: Duration,
    pub(super) to: Address,
    pub(super) source: IpAddr,
}

impl Socket {
    /// Whether its turn would get something done now.
    pub(super) fn is_ready(&self, kernel: &mut Kernel) -> bool {
        if self.closing || self.error.is_some() {
            return true;
        }
        if let Some(connect) = &self.connect {
            return connect.at <= kernel.now;
        }
        let Some(end) = self.end.filter(|_| !self.failed) else { return false };
        let (waits, fin, reset) = kernel.arrival(end);
        let receives = waits > 0 && !self.paused && !self.eof || fin && waits == 0 && !self.eof || reset;
        let sends = self.batch.as_ref().is_some_and(|batch| batch.left() == 0 || kernel.room(end) > 0);
        receives || sends && self.send_at <= kernel.now
    }

    /// When it has something to do without anybody else's doing.
    pub(super) fn next_time(&self) -> Option<Duration> {
        let sends = self.batch.is_some().then_some(self.send_at);
        self.connect.as_ref().map(|connect| connect.at).or(sends)
    }

    /// Lets the kernel take what it likes of a batch. True when all is taken; that is to be told at `send_at`.
    pub(super) fn transmit(&mut self, kernel: &mut Kernel, batch: &mut SendBatch) -> bool {
        let Some(end) = self.end else { return false }; // not connected yet
        let faults = kernel.faults;
        if batch.left() > 0 {
            let mut max = batch.left();
            if kernel.random.roll(faults.would_block) {
                max = 0;
                self.send_at = kernel.now + Duration::from_micros(1 + kernel.random.below(2000) as u64);
            } else if kernel.random.roll(faults.partial_send) {
                max = kernel.part_of(max);
            }
            if !kernel.take_from(end, batch, max) {
                return false;
            }
            if kernel.random.roll(faults.delay_sent) {
                self.send_at = kernel.now + Duration::from_micros(1 + kernel.random.below(5000) as u64);
            }
        }
        true
    }
}

/// A send that ends early: failed, unless the kernel had taken all of it and was late to say so.
pub(super) fn sent(id: SocketId, batch: SendBatch, error: ErrorKind) -> Completion<'static> {
    let result = if batch.left() == 0 { Ok(()) } else { Err(error.into()) };
    Completion::Sent { id, batch, result }
}

/// Wakes the poll of a driver that sleeps.
pub(super) struct SimWake(pub(super) Arc<AtomicBool>);

impl Wake for SimWake {
    fn wake(&self) {
        self.0.store(true, SeqCst);
    }
}
