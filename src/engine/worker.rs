//! One thread's loop: poll, mail, walks, timers, flush.
#![forbid(unsafe_code)]

use super::admission::Admission;
use super::config::Config;
use super::core::Core;
use super::counters::Board;
use super::deadlines::{BUCKETS, TICK};
use super::drain::Drain;
use super::encoding::Encodings;
use super::error::ConnectError;
use super::handler::{Handler, Scope};
use super::hub::Interest;
use super::lane::{LaneConfig, Receiver, lane};
use super::mail::{Exchange, Handle, Mail, Port, Ports};
use super::random::Random;
use super::session::{Awakened, Clock, Engine};
use super::spin::Spin;
use super::table::{JOIN_BYTES, Table};
use super::timer::Wheel;
use crate::buffer::Paged;
use crate::driver::{Address, ConnectOptions, Driver, Epoll, ListenOptions, ListenerId, SocketId, Wake};
use crate::pubsub::{self, Topics};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use std::{
    fmt, io,
    sync::{Arc, OnceLock},
};

/// Rounds of flushing per turn: what a `writable` or a resumed input queues leaves in the same turn, up to this.
const FLUSH_ROUNDS: usize = 4;

/// A worker that is not yet on its thread: what the others know of it.
pub struct WorkerSeed<M> {
    index: u16,
    lane: Receiver<Mail<M>>,
    handle: Handle<M>,
    board: Arc<Board>,
    drain: Arc<OnceLock<Drain>>,
    admission: Arc<Admission>,
    config: Config,
}

impl<M> fmt::Debug for WorkerSeed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSeed").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Prepares workers that know each other, one per waker, and the handle to all of them.
///
/// The wakers of the drivers-to-be come first, so that a worker may give itself its own descriptor table later.
pub fn group<M: Send + 'static>(wakers: &[Arc<dyn Wake>], config: Config) -> (Vec<WorkerSeed<M>>, Handle<M>) {
    let config = config.normalized();
    let limits = config.limits;
    let lanes = LaneConfig { capacity: limits.mail_messages, overflow_bytes: limits.mail_overflow_bytes };
    let (mut ports, mut receivers) = (Vec::new(), Vec::new());
    for waker in wakers {
        let waker = Arc::clone(waker);
        let (sender, receiver) = lane(lanes, Arc::new(move || waker.wake()));
        ports.push(Port { lane: sender, drain: Arc::default(), board: Arc::default() });
        receivers.push(receiver);
    }
    let shares: Vec<_> =
        ports.iter().map(|port: &Port<M>| (Arc::clone(&port.board), Arc::clone(&port.drain))).collect();
    let handle = Handle { ports: Arc::new(Ports { ports, interest: Interest::new(wakers.len()) }) };
    let admission = Arc::new(Admission::new(limits.connections, limits.connections_per_ip));
    let seeds = receivers.into_iter().zip(shares).enumerate();
    let seeds = seeds.map(|(index, (lane, (board, drain)))| WorkerSeed {
        index: index as u16,
        lane,
        handle: handle.clone(),
        board,
        drain,
        admission: Arc::clone(&admission),
        config,
    });
    (seeds.collect(), handle)
}

impl<M: Send + 'static> WorkerSeed<M> {
    /// The handle to this worker and those of its group, for the handler that is to be made.
    pub fn handle(&self) -> &Handle<M> {
        &self.handle
    }

    /// Makes the worker, on the thread that will run it.
    pub fn start<H: Handler<Mail = M>, D: Driver>(self, driver: D, handler: H) -> Worker<H, D> {
        let mut worker = self.start_at(driver, handler, Instant::now(), None);
        worker.engine.clock = Clock::System;
        worker
    }

    /// As [`WorkerSeed::start`], with the time and the source of randomness given: for simulations. The time stays that
    /// until the first turn.
    pub fn start_at<H: Handler<Mail = M>, D: Driver>(
        self,
        driver: D,
        handler: H,
        now: Instant,
        seed: Option<u64>,
    ) -> Worker<H, D> {
        let WorkerSeed { index, lane, handle, board, drain, admission, config } = self;
        let alone = handle.ports.ports.len() == 1;
        let interest = handle.ports.interest.worker(usize::from(index));
        let table = Table::new(config, Wheel::new(TICK, BUCKETS, now), Random::new(seed), interest, now);
        let limits = pubsub::Limits {
            max_subscriptions: config.limits.subscriptions,
            max_topics: config.limits.topics,
            pass_bytes: JOIN_BYTES,
        };
        let exchange = (!alone).then(|| Arc::clone(&handle.ports) as Arc<dyn Exchange>);
        let engine = Engine {
            core: Core::new(index, Topics::new(limits), table, exchange, Encodings::new(handler.encoder())),
            handler,
            states: Paged::new(),
            board,
            admission,
            drain: None,
            refused: 0,
            clock: Clock::Told(now),
            scratch: Vec::new(),
            fired: Vec::with_capacity(config.budgets.timers as usize),
            completions: 0,
            receives: 0,
        };
        Worker {
            driver,
            engine,
            lane,
            drain,
            handle,
            listeners: Vec::new(),
            spin: Spin::default(),
            worked: false,
            receives: 0,
        }
    }
}

/// One thread's driver, engine and handler. It does not leave its thread.
///
/// Run it with [`Worker::run`], or inside a loop of your own:
///
/// ```no_run
/// # use wingbeat::{*, engine::Worker};
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type State = ();
/// #     type Mail = Never;
/// #     fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> { Upgrade::Accept(()) }
/// #     fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) { conn.send(message); }
/// # }
/// let mut worker = Worker::new(Config::default(), Echo)?;
/// worker.listen(&"127.0.0.1:9001".parse().unwrap())?;
/// loop {
///     // Wait for `worker.as_fd()` to become readable, `worker.next_timeout(now)` at most; then:
///     worker.turn(std::time::Instant::now())?;
/// #   break;
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Worker<H: Handler, D: Driver = Epoll> {
    driver: D,
    engine: Engine<H>,
    lane: Receiver<Mail<H::Mail>>,
    drain: Arc<OnceLock<Drain>>,
    handle: Handle<H::Mail>,
    listeners: Vec<ListenerId>,
    spin: Spin,
    worked: bool,
    /// Receives up to the turn before.
    receives: u64,
}

impl<H: Handler, D: Driver> fmt::Debug for Worker<H, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("core", &self.engine.core).finish_non_exhaustive()
    }
}

impl<H: Handler> Worker<H> {
    /// A worker of its own, on epoll.
    pub fn new(config: Config, handler: H) -> io::Result<Self> {
        let driver = Epoll::new(config.driver)?;
        let (mut seeds, _) = group(&[driver.waker()], config);
        let seed = seeds.pop().expect("one waker gives one worker");
        Ok(seed.start(driver, handler))
    }
}

impl<H: Handler, D: Driver> Worker<H, D> {
    /// Listens, and returns the bound address (the port, where 0 was asked for).
    pub fn listen(&mut self, address: &Address) -> io::Result<Address> {
        let config = &self.engine.core.table.config;
        let options = ListenOptions { backlog: config.backlog, reuse_port: config.reuse_port };
        self.listen_with(address, options)
    }

    pub(crate) fn listen_with(&mut self, address: &Address, options: ListenOptions) -> io::Result<Address> {
        let id = self.driver.listen(address, options)?;
        self.listeners.push(id);
        Ok(self.driver.local_address(id).unwrap_or_else(|| address.clone()))
    }

    /// The handle to this worker and those of its group.
    pub fn handle(&self) -> Handle<H::Mail> {
        self.handle.clone()
    }

    /// Lets `act` use the handler and the worker between turns: to connect, publish, send. The time is that of the call,
    /// or, where [`Worker::turn`] tells the time, that of the turn before.
    pub fn with<T>(&mut self, act: impl FnOnce(&mut H, &mut Scope<'_>) -> T) -> T {
        if let Clock::System = self.engine.clock {
            self.engine.set_time(Instant::now());
        }
        let answer = act(&mut self.engine.handler, &mut Scope { core: &mut self.engine.core });
        self.engine.after_callbacks();
        answer
    }

    /// The driver, for tests and embedding.
    pub fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    /// A descriptor that is readable when a turn would find something; none where the driver has none.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.driver.as_fd()
    }

    /// How long the next turn may be put off: zero if there is work, none if only the descriptor matters. To be asked
    /// before each wait on the descriptor: it is here that other threads learn that they have to wake this one.
    pub fn next_timeout(&mut self, now: Instant) -> Option<Duration> {
        [self.longest_sleep(now), self.driver.longest_wait()].into_iter().flatten().min()
    }

    /// How long a poll may wait; what the driver has to do by itself, it knows.
    fn longest_sleep(&mut self, now: Instant) -> Option<Duration> {
        // The drain is looked for after the lane has announced the sleep: else its wake could be lost.
        if self.has_work() || !self.lane.prepare_sleep() || self.is_told_to_drain() {
            return Some(Duration::ZERO);
        }
        self.engine.next_due(now)
    }

    /// Whether a drain is over: nothing lives any more, and nobody waits to be accepted.
    pub fn is_drained(&self) -> bool {
        self.engine.drain.is_some() && self.engine.core.table.live == 0 && self.driver.longest_wait().is_none()
    }

    /// Sockets of this worker that exist, those in the opening and closing handshakes included.
    pub fn sockets(&self) -> u32 {
        self.engine.core.table.live
    }

    /// One turn without waiting, at the time `now`.
    pub fn turn(&mut self, now: Instant) -> io::Result<()> {
        self.engine.clock = Clock::Told(now);
        self.poll(Some(Duration::ZERO))?;
        self.work();
        Ok(())
    }

    /// One turn that waits for something to do, `timeout` at most. Reads the system's clock.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.engine.clock = Clock::System;
        if !self.spin(timeout)? {
            let timeout = match (timeout, self.longest_sleep(Instant::now())) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            self.poll(timeout)?;
        }
        self.work();
        Ok(())
    }

    /// Turns until a drain is over.
    pub fn run(mut self) -> io::Result<()> {
        while !self.is_drained() {
            self.wait(None)?;
        }
        Ok(())
    }

    /// Looks for work for this long before a turn blocks, if the turn before had some; zero, the default, never.
    ///
    /// It takes a CPU that nobody else wants. Where looking does not pay, or another thread takes the CPU meanwhile, it
    /// is done more rarely by itself, after every 64th such turn at least.
    pub fn set_spin(&mut self, spin: Duration) {
        self.spin = Spin::new(spin);
    }

    fn is_told_to_drain(&self) -> bool {
        self.engine.drain.is_none() && self.drain.get().is_some()
    }

    fn has_work(&self) -> bool {
        let core = &self.engine.core;
        core.table.has_work() || !core.topics.is_idle() || !core.dials.is_empty()
    }

    /// Waking a halted core costs more than looking again a few times. True if there is something to do.
    fn spin(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        // A drain may end without a completion: it is not looked for here.
        let has_work = self.has_work() || self.driver.longest_wait() == Some(Duration::ZERO);
        if !self.worked || has_work || self.engine.drain.is_some() {
            return Ok(false);
        }
        let fits = |time: &Duration| timeout.is_none_or(|timeout| *time <= timeout);
        let Some(time) = self.spin.begin().filter(fits) else { return Ok(false) };
        let (completions, receives, start) = (self.engine.completions, self.engine.receives, Instant::now());
        let due = self.engine.next_due(start).unwrap_or(Duration::MAX);
        loop {
            self.driver.poll(Some(Duration::ZERO), &mut self.engine)?;
            // As of the end of the look: what the callbacks took is not the spin's.
            let took = self.engine.core.table.now.saturating_duration_since(start);
            let has_mail = !self.lane.is_empty();
            if self.engine.receives != receives || has_mail {
                self.spin.hit(took);
            }
            if self.engine.completions != completions || has_mail {
                return Ok(true);
            }
            if took >= time {
                self.spin.miss(took);
                return Ok(false);
            }
            if took >= due || self.is_told_to_drain() {
                return Ok(false);
            }
            std::hint::spin_loop();
        }
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let before = self.engine.completions;
        let polled = self.driver.poll(timeout, &mut Awakened { engine: &mut self.engine, lane: &mut self.lane });
        if polled.is_err() {
            self.lane.awake(); // nothing was polled
        }
        self.worked = self.engine.completions != before || !self.lane.is_empty();
        polled
    }

    /// The rest of a turn, after the completions.
    fn work(&mut self) {
        self.mail();
        self.engine.advance_timers();
        self.dial();
        let mut deliveries = self.deliveries();
        for _ in 0..FLUSH_ROUNDS {
            self.fan_out(&mut deliveries);
            self.engine.core.table.flush(&mut self.driver);
            self.callbacks_after_flush();
            self.pause_and_resume();
            let walks = deliveries > 0 && !self.engine.core.topics.is_idle();
            if self.engine.core.table.dirty.is_empty() && !walks {
                break;
            }
        }
        self.engine.core.table.evict();
        self.engine.after_callbacks();
        self.rest_and_rouse();
        self.shut_and_close();
        self.account();
    }

    /// How many deliveries this turn may make: as many as there were receives, and no fewer than the budget says.
    fn deliveries(&mut self) -> u32 {
        let receives = self.engine.receives - self.receives;
        self.receives = self.engine.receives;
        self.engine.core.table.config.budgets.deliveries.max(receives.try_into().unwrap_or(u32::MAX))
    }

    fn mail(&mut self) {
        for _ in 0..self.engine.core.table.config.budgets.mail {
            // What other workers publish waits, and in the end is refused, like what is published here.
            let table = &self.engine.core.table;
            if table.owed_bytes > table.config.limits.owed_bytes {
                break;
            }
            let Some(mail) = self.lane.receive() else { break };
            self.engine.mail(mail);
        }
        if let (None, Some(plan)) = (self.engine.drain, self.drain.get()) {
            self.engine.start_drain(*plan);
            self.engine.after_callbacks();
        }
        if self.engine.drain.is_some() {
            self.listeners.drain(..).for_each(|listener| self.driver.unlisten(listener));
        }
    }

    /// Makes the outgoing connections that callbacks asked for; those asked for meanwhile wait for the next turn.
    fn dial(&mut self) {
        let mut dials = std::mem::take(&mut self.engine.core.dials);
        for dial in dials.drain(..) {
            if self.engine.drain.is_some() {
                self.engine.dial_failed(dial, ConnectError::Closed);
                continue;
            }
            let options = ConnectOptions { source: dial.target.source };
            match self.driver.connect(&dial.target.address, options) {
                Ok(id) => self.engine.dialled(id, dial),
                Err(error) => self.engine.dial_failed(dial, ConnectError::of(&error)),
            }
        }
        dials.append(&mut self.engine.core.dials);
        self.engine.core.dials = dials;
    }

    /// Delivers what publications owe, within the budget of the turn.
    fn fan_out(&mut self, deliveries: &mut u32) {
        let core = &mut self.engine.core;
        if !core.topics.is_idle() && *deliveries > 0 {
            core.topics.walk(deliveries, &mut core.table);
        }
        core.table.unthrottle();
        self.engine.after_callbacks();
    }

    fn callbacks_after_flush(&mut self) {
        while let Some(id) = self.engine.core.table.writable.pop() {
            if self.engine.core.table.is_open(id) {
                self.engine.call(id.slot, |handler, conn, state| handler.writable(conn, state));
            }
        }
        self.engine.after_callbacks();
    }

    fn pause_and_resume(&mut self) {
        while let Some(id) = self.engine.core.table.pauses.pop() {
            if self.engine.holds(id) {
                self.driver.pause(id);
            }
        }
        let mut resumes: Vec<SocketId> = std::mem::take(&mut self.engine.core.table.resumes);
        for id in resumes.drain(..) {
            if self.engine.resume(id) {
                self.driver.resume(id);
            }
        }
        let planned = &mut self.engine.core.table.resumes;
        resumes.append(planned);
        *planned = resumes;
    }

    /// In this order: what came in a turn ends the rest that the turn began.
    fn rest_and_rouse(&mut self) {
        let table = &mut self.engine.core.table;
        table.rests.drain(..).for_each(|id| self.driver.rest(id));
        table.rouses.drain(..).for_each(|id| self.driver.rouse(id));
    }

    fn shut_and_close(&mut self) {
        let table = &mut self.engine.core.table;
        table.shutdowns.drain(..).for_each(|id| self.driver.shutdown(id));
        table.closes.drain(..).for_each(|id| self.driver.close(id));
    }

    fn account(&mut self) {
        let core = &mut self.engine.core;
        let counters = &mut core.table.counters;
        counters.turns += 1;
        counters.woken = self.lane.woken();
        counters.open = u64::from(core.table.open);
        counters.frames_live = u64::from(core.table.slab.live());
        counters.frame_bytes = core.table.slab.live_bytes() as u64;
        counters.topics = core.topics.len() as u64;
        self.engine.board.publish(counters, self.driver.counters());
    }
}
