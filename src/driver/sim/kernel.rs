//! The kernel's side of all simulated sockets, and the clock.
#![forbid(unsafe_code)]

use super::faults::{Faults, Random};
use super::{Address, ListenOptions, ListenerId};
use crate::buffer::SendBatch;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Index of an end; the other end of the connection is `end ^ 1`.
pub(super) type EndId = u32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Test,
    Driver(usize),
    /// In a listener's queue, or closed.
    Nobody,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    /// What arrived and was not read, [`Kernel::buffer`] bytes at most.
    pub(super) inbox: VecDeque<u8>,
    /// No more comes after `inbox`.
    pub(super) fin: bool,
    pub(super) reset: bool,
    pub(super) closed: bool,
    /// What a raw peer still has to send, as room allows, and whether a FIN follows.
    pub(super) outbox: VecDeque<u8>,
    pub(super) fin_follows: bool,
    /// What a raw peer has read.
    pub(super) received: Vec<u8>,
    /// Bytes that came here in all.
    pub(super) accepted: u64,
    pub(super) stalled: bool,
}

#[derive(Debug)]
struct Listener {
    address: Address,
    owner: Owner,
    reuse_port: bool,
    backlog: usize,
    queue: VecDeque<(EndId, Option<IpAddr>)>,
    leaving: bool,
}

/// What the network knows of a driver.
#[derive(Debug)]
pub(super) struct Party {
    /// Until when it has nothing to do; none means that it has not polled since something happened.
    asleep: Option<Option<Duration>>,
    pub(super) woken: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) base: Instant,
    pub(super) now: Duration,
    pub(super) hold: Option<Duration>,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) buffer: usize,
    pub(super) socket_limit: usize,
    ends: Vec<End>,
    listeners: Vec<Listener>,
    parties: Vec<Party>,
    next_port: u16,
    pub(super) fingerprint: u64,
}

impl Kernel {
    pub(super) fn new(seed: u64) -> Self {
        Kernel {
            base: Instant::now(),
            now: Duration::ZERO,
            hold: None,
            random: Random(seed),
            faults: Faults::default(),
            buffer: 64 << 10,
            socket_limit: usize::MAX,
            ends: Vec::new(),
            listeners: Vec::new(),
            parties: Vec::new(),
            next_port: 40_000,
            fingerprint: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds a driver; also returns what wakes it.
    pub(super) fn join(&mut self) -> (usize, Arc<AtomicBool>) {
        let woken = Arc::new(AtomicBool::new(false));
        self.parties.push(Party { asleep: None, woken: Arc::clone(&woken) });
        (self.parties.len() - 1, woken)
    }

    pub(super) fn end(&mut self, end: EndId) -> &mut End {
        &mut self.ends[end as usize]
    }

    pub(super) fn received(&self, end: EndId) -> &[u8] {
        &self.ends[end as usize].received
    }

    /// Mixes into the fingerprint.
    pub(super) fn note(&mut self, words: &[u64]) {
        for word in [self.now.as_nanos() as u64].iter().chain(words) {
            self.fingerprint = (self.fingerprint ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
    }

    pub(super) fn note_bytes(&mut self, bytes: &[u8]) {
        bytes.chunks(8).for_each(|chunk| {
            self.note(&[chunk.iter().fold(chunk.len() as u64, |word, &byte| word << 8 | u64::from(byte))]);
        });
    }

    fn wake(&mut self, owner: Owner) {
        if let Owner::Driver(party) = owner {
            self.parties[party].asleep = None;
        }
    }

    fn wake_owner(&mut self, end: EndId) {
        let owner = self.end(end).owner;
        self.wake(owner);
    }

    /// A driver polls.
    pub(super) fn rouse(&mut self, party: usize) {
        self.parties[party].asleep = None;
    }

    /// A driver has nothing to do until `until` at the latest. If that holds for all of them, the clock moves to the
    /// first who has.
    pub(super) fn sleep(&mut self, party: usize, until: Option<Duration>) {
        self.parties[party].asleep = Some(until);
        if self.parties.iter().any(|party| party.asleep.is_none() || party.woken.load(SeqCst)) {
            return;
        }
        let first = self.parties.iter().filter_map(|party| party.asleep.flatten()).chain(self.hold).min();
        self.now = first.map_or(self.now, |first| first.max(self.now));
    }

    /// The driver is gone: the clock does not wait for it.
    pub(super) fn leave(&mut self, party: usize) {
        self.parties[party].asleep = Some(None);
        self.parties[party].woken = Arc::default();
        for id in self.listeners_of(party) {
            self.unlisten(id);
            while let Some((end, _)) = self.accept(id) {
                self.reset(end ^ 1);
            }
        }
    }

    pub(super) fn listen(&mut self, owner: Owner, address: &Address, options: ListenOptions) -> io::Result<ListenerId> {
        let mut address = address.clone();
        if let Address::Tcp(tcp) = &mut address
            && tcp.port() == 0
        {
            tcp.set_port(self.next_port);
            self.next_port += 1;
        }
        let mut others = self.listeners.iter().filter(|other| other.address == address && !other.leaving);
        if others.any(|other| !(other.reuse_port && options.reuse_port)) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let backlog = options.backlog.max(1) as usize;
        let queue = VecDeque::new();
        let reuse_port = options.reuse_port;
        self.listeners.push(Listener { address, owner, reuse_port, backlog, queue, leaving: false });
        Ok(ListenerId(self.listeners.len() as u32 - 1))
    }

    pub(super) fn unlisten(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(id.0 as usize) {
            listener.leaving = true;
        }
    }

    pub(super) fn address(&self, id: ListenerId) -> Option<Address> {
        self.listeners.get(id.0 as usize).filter(|listener| !listener.leaving).map(|listener| listener.address.clone())
    }

    pub(super) fn bound(&self, id: ListenerId) -> &Address {
        &self.listeners[id.0 as usize].address
    }

    pub(super) fn listeners_of(&self, party: usize) -> Vec<ListenerId> {
        let ids = (0..self.listeners.len()).filter(|&id| self.listeners[id].owner == Owner::Driver(party));
        ids.map(|id| ListenerId(id as u32)).collect()
    }

    pub(super) fn has_queued(&self, id: ListenerId) -> bool {
        !self.listeners[id.0 as usize].queue.is_empty()
    }

    pub(super) fn accept(&mut self, id: ListenerId) -> Option<(EndId, Option<IpAddr>)> {
        self.listeners[id.0 as usize].queue.pop_front()
    }

    /// Makes a connection and puts its far end in a listener's queue; none if it is refused.
    pub(super) fn connect(&mut self, owner: Owner, to: &Address, source: IpAddr) -> Option<EndId> {
        let listening = |listener: &Listener| listener.address == *to && !listener.leaving;
        let candidates: Vec<_> = (0..self.listeners.len()).filter(|&id| listening(&self.listeners[id])).collect();
        let id = *candidates.get(self.random.below(candidates.len()))?;
        if self.listeners[id].queue.len() >= self.listeners[id].backlog {
            return None;
        }
        let end = self.ends.len() as EndId;
        self.ends.extend([End::new(owner), End::new(Owner::Nobody)]);
        let peer = matches!(to, Address::Tcp(_)).then_some(source);
        self.listeners[id].queue.push_back((end + 1, peer));
        self.wake(self.listeners[id].owner);
        Some(end)
    }

    /// Bytes that the other side of `end` has room for.
    pub(super) fn room(&self, end: EndId) -> usize {
        let far = &self.ends[end as usize ^ 1];
        if far.closed { usize::MAX } else { self.buffer.saturating_sub(far.inbox.len()) }
    }

    /// What arrived at `end`: bytes to read, whether a FIN is behind them, whether the connection is broken.
    pub(super) fn arrival(&self, end: EndId) -> (usize, bool, bool) {
        let near = &self.ends[end as usize];
        (near.inbox.len(), near.fin, near.reset)
    }

    /// A random part of `whole`, at least 1 (half of the time just that).
    pub(super) fn part_of(&mut self, whole: usize) -> usize {
        if self.random.below(2) == 0 { 1.min(whole) } else { (1 + self.random.below(whole)).min(whole) }
    }

    /// Takes up to `max` bytes of a batch; true when nothing is left of it.
    pub(super) fn take_from(&mut self, end: EndId, batch: &mut SendBatch, max: usize) -> bool {
        let mut max = max.min(self.room(end));
        let mut taken = 0;
        let mut pieces = [IoSlice::new(&[]); SendBatch::MAX_PARTS];
        let count = batch.slices(&mut pieces);
        let far = self.end(end ^ 1);
        for piece in &pieces[..count] {
            let part = &piece[..piece.len().min(max)];
            if !far.closed {
                far.inbox.extend(part);
                far.accepted += part.len() as u64;
            }
            max -= part.len();
            taken += part.len();
        }
        let far_is_gone = far.closed;
        if far_is_gone && taken > 0 {
            self.reset(end); // bytes for a closed socket are answered with RST
        }
        self.arrived(end ^ 1);
        batch.advance(taken)
    }

    /// Moves up to `max` bytes that arrived to `out`.
    pub(super) fn read(&mut self, end: EndId, max: usize, out: &mut Vec<u8>) {
        let inbox = &mut self.end(end).inbox;
        let count = inbox.len().min(max);
        out.extend(inbox.drain(..count));
        self.flow(end ^ 1);
        self.wake_owner(end ^ 1);
    }

    /// No more bytes follow from `end`.
    pub(super) fn shut_down(&mut self, end: EndId) {
        self.end(end ^ 1).fin = true;
        self.wake_owner(end ^ 1);
    }

    /// A raw peer's host sends nothing from now on but a FIN.
    pub(super) fn stop_sending(&mut self, end: EndId) {
        let far = self.end(end);
        if far.owner == Owner::Test && !far.fin_follows {
            far.fin_follows = true;
            self.flow(end);
        }
    }

    /// The owner of `end` lets go of it.
    pub(super) fn close(&mut self, end: EndId) {
        let near = self.end(end);
        if near.closed {
            return;
        }
        near.closed = true;
        near.owner = Owner::Nobody;
        if !near.inbox.is_empty() || near.reset {
            self.reset(end ^ 1);
        } else {
            near.fin_follows = true;
            self.flow(end);
            self.wake_owner(end ^ 1);
        }
    }

    /// An RST arrives at `end`.
    pub(super) fn reset(&mut self, end: EndId) {
        let loses = self.random.below(2) == 0;
        let near = self.end(end);
        if near.closed {
            return;
        }
        near.reset = true;
        near.outbox.clear();
        // What a raw peer got is kept: it is the test's record of what the kernel took.
        if loses && near.owner != Owner::Test {
            near.inbox.clear();
        }
        self.wake_owner(end);
    }

    /// A raw peer's bytes go where there is room.
    pub(super) fn flow(&mut self, end: EndId) {
        let room = self.room(end);
        let near = self.end(end);
        let count = near.outbox.len().min(room);
        let moved: Vec<u8> = near.outbox.drain(..count).collect();
        let ends_here = near.fin_follows && near.outbox.is_empty();
        let far = self.end(end ^ 1);
        if far.closed && count > 0 {
            return self.reset(end);
        }
        far.inbox.extend(&moved);
        far.accepted += moved.len() as u64;
        let fin_is_new = ends_here && !far.fin;
        far.fin |= ends_here;
        if count > 0 || fin_is_new {
            self.wake_owner(end ^ 1);
        }
    }

    /// The raw peer reads what arrived, unless it is stalled.
    pub(super) fn arrived(&mut self, end: EndId) {
        let near = self.end(end);
        if near.owner == Owner::Test && !near.stalled {
            let End { inbox, received, .. } = near;
            received.extend(inbox.drain(..));
            self.wake_owner(end ^ 1);
        }
        self.wake_owner(end);
    }
}

impl End {
    fn new(owner: Owner) -> Self {
        End {
            owner,
            inbox: VecDeque::new(),
            fin: false,
            reset: false,
            closed: false,
            outbox: VecDeque::new(),
            fin_follows: false,
            received: Vec::new(),
            accepted: 0,
            stalled: false,
        }
    }
}
