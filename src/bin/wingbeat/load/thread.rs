//! One load thread: its turns, from connecting to the last answer.
#![forbid(unsafe_code)]

use super::channels::Channels;
use super::churn::Churn;
use super::client::{Base, Client, GoOn, Targets, Workload};
use super::echo::{Echo, Idle};
use super::fanout::Fanout;
use super::plan::Plan;
use super::procfs::own_thread_cpu_ns;
use super::shared::{Shared, Times};
use super::stats::Tally;
use crate::args::Mode;
use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::set_current_timer_slack;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};
use wingbeat::driver::{Chosen, SystemDriver, SystemSeed};
use wingbeat::engine::{Handle, Worker, WorkerSeed};

/// A turn waits for so long at most, so that the thread sees when the run begins or is ended.
const WAIT_MAX_NS: u64 = 10_000_000;
/// epoll waits in whole milliseconds: what is due within this is waited for with a finer clock.
const FINE_WAIT_NS: u64 = 2_000_000;
/// Waking a CPU takes this: what is due sooner is spun for, if the thread has a CPU to itself.
const SPIN_BEFORE_DUE_NS: u64 = 100_000;
/// After a turn that did something the thread looks for more for so long before it sleeps, if it has a CPU to itself.
const SPIN_AFTER_WORK_NS: u64 = 50_000;
/// A turn in which nothing happened takes less CPU time than this; what is longer, the thread was not running.
const IDLE_TURN_NS: u64 = 5_000;
/// As that, if there are many more threads than CPUs: what their waking costs must not show.
const WAIT_MAX_CROWDED_NS: u64 = 50_000_000;
/// Threads per CPU that are a crowd.
const CROWD: u32 = 8;
/// How long answers may take to come after the end; for longer the more subscribers there are.
const GRACE_NS: u64 = 5_000_000_000;
/// How long the closing handshakes may take from when the last of them came to its end.
const CLOSING_NS: u64 = 1_000_000_000;
/// As that, in a crowd: its threads take turns, and so do those of the server.
const CLOSING_CROWDED_NS: u64 = 10_000_000_000;

/// What a thread brings back.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// CPU time within the window, less what was spun while nothing was due; none if the kernel did not tell.
    pub(crate) busy_ns: Option<u64>,
}

/// What a thread begins with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) plan: Arc<Plan>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: u32,
    pub(crate) targets: Targets,
    /// To the workers of all threads.
    pub(crate) handle: Handle<GoOn>,
    pub(crate) seed: WorkerSeed<GoOn>,
    pub(crate) driver: SystemSeed,
    /// Whether there is a CPU to spin on.
    pub(crate) may_spin: bool,
    pub(crate) cpus: u32,
}

impl Start {
    /// Does a run's part of one thread, on the thread that calls it.
    ///
    /// # Errors
    /// What the kernel says if the thread gets no descriptor table of its own, or polling fails.
    pub(crate) fn run(self) -> io::Result<Outcome> {
        if self.plan.own_fd_tables {
            unshare(CloneFlags::CLONE_FILES)?;
        }
        // Without it the kernel may end a fine wait 50 us late. If it is refused, it does.
        let _ = set_current_timer_slack(NonZeroU64::new(1_000));
        let mut base = Base::new(self.plan, self.shared, self.index, self.targets, self.handle);
        let is_crowded = base.plan.threads / CROWD >= self.cpus;
        let (wait_max_ns, closing_ns) =
            if is_crowded { (WAIT_MAX_CROWDED_NS, CLOSING_CROWDED_NS) } else { (WAIT_MAX_NS, CLOSING_NS) };
        let part = Engine { seed: self.seed, driver: self.driver, may_spin: self.may_spin, wait_max_ns, closing_ns };
        match base.plan.mode {
            Mode::Echo => Thread::start(part, Echo::new(&base.plan, base.links.len() as u32), base)?.run(),
            Mode::Fanout => Thread::start(part, Fanout::new(&base), base)?.run(),
            Mode::Idle => Thread::start(part, Idle, base)?.run(),
            Mode::Connect => Thread::start(part, Churn::new(base.links.len() as u32), base)?.run(),
            Mode::Channels => Thread::start(part, Channels::new(&mut base), base)?.run(),
        }
    }
}

/// What a thread has of the engine, and how it waits.
struct Engine {
    seed: WorkerSeed<GoOn>,
    driver: SystemSeed,
    may_spin: bool,
    wait_max_ns: u64,
    closing_ns: u64,
}

struct Thread<W: Workload> {
    worker: Worker<Client<W>, SystemDriver>,
    shared: Arc<Shared>,
    may_spin: bool,
    wait_max_ns: u64,
    closing_ns: u64,
    /// Whether the driver itself waits with the resolution of the clock.
    waits_finely: bool,
    activity: u64,
    worked_at: u64,
    spun_ns: u64,
}

impl<W: Workload> Thread<W> {
    fn start(engine: Engine, workload: W, base: Base) -> io::Result<Thread<W>> {
        let Engine { seed, driver, may_spin, wait_max_ns, closing_ns } = engine;
        let shared = Arc::clone(&base.shared);
        let waits_finely = base.plan.driver == Chosen::Uring;
        let worker = seed.start(driver.start()?, Client { base, workload });
        Ok(Thread {
            worker,
            shared,
            may_spin,
            wait_max_ns,
            closing_ns,
            waits_finely,
            activity: 0,
            worked_at: 0,
            spun_ns: 0,
        })
    }

    fn run(mut self) -> io::Result<Outcome> {
        let Some(times) = self.connect()? else { return Ok(self.outcome(None)) };
        self.worker.with(|client, scope| client.begin(scope, &times));
        let busy_ns = self.drive(&times)?;
        self.settle()?;
        self.close()?;
        Ok(self.outcome(busy_ns))
    }

    /// Connects, and waits until all threads have; none if the run ends before it begins.
    fn connect(&mut self) -> io::Result<Option<Times>> {
        self.worker.with(|client, scope| client.connect(scope));
        loop {
            if let Some(times) = self.shared.times() {
                return Ok(Some(times));
            }
            let now = self.shared.clock.now();
            if now >= self.shared.end() {
                self.worker.with(|client, _| client.stop(now));
                self.close()?;
                return Ok(None);
            }
            self.turn(now, now + self.wait_max_ns)?;
        }
    }

    /// Turns until the end: the CPU time that the window took.
    fn drive(&mut self, times: &Times) -> io::Result<Option<u64>> {
        let mut now = self.shared.clock.now();
        let mut at_start = None;
        while now < self.shared.end() {
            if at_start.is_none() && now >= times.window.start {
                at_start = Some(own_thread_cpu_ns().ok());
                self.spun_ns = 0;
            }
            let due = self.worker.with(|client, _| client.workload.next_at()).unwrap_or(u64::MAX);
            now = self.turn(now, due.min(now + self.wait_max_ns))?;
        }
        let busy = at_start.flatten().zip(own_thread_cpu_ns().ok()).map(|(start, end)| end - start);
        let busy = busy.map(|ns| ns.saturating_sub(self.spun_ns));
        let end = self.shared.end();
        self.worker.with(|client, _| client.stop(end));
        Ok(busy)
    }

    /// Takes the answers that are still to come.
    fn settle(&mut self) -> io::Result<()> {
        let mut now = self.shared.clock.now();
        let patience = self.worker.with(|client, _| client.base.plan.patience_ns(GRACE_NS));
        let patience = self.shared.end().saturating_add(patience);
        while now < patience && !self.worker.with(|client, _| client.workload.is_settled(&client.base)) {
            now = self.turn(now, now + WAIT_MAX_NS)?;
        }
        Ok(())
    }

    /// Says goodbye on all connections.
    fn close(&mut self) -> io::Result<()> {
        self.worker.with(|client, _| client.conclude());
        let mut now = self.shared.clock.now();
        let (mut sockets, mut patience) = (0, now + self.closing_ns);
        while now < patience && self.worker.sockets() > 0 {
            let left = self.worker.sockets();
            if mem::replace(&mut sockets, left) != left {
                patience = now + self.closing_ns;
            }
            self.worker.with(|client, scope| client.say_goodbye(scope, left));
            now = self.turn(now, now + WAIT_MAX_NS)?;
        }
        Ok(())
    }

    /// One turn at `now` that waits until `due` at most; the time after it.
    fn turn(&mut self, now: u64, due: u64) -> io::Result<u64> {
        let until_due = due.saturating_sub(now);
        let lively = now.saturating_sub(self.worked_at) < SPIN_AFTER_WORK_NS;
        let spins = self.may_spin && (lively || until_due < SPIN_BEFORE_DUE_NS);
        if spins || until_due == 0 {
            self.worker.turn(self.shared.clock.instant(now))?;
        } else if self.waits_finely {
            self.worker.wait(Some(Duration::from_nanos(until_due)))?;
        } else if until_due < FINE_WAIT_NS {
            self.wait_finely(now, until_due)?;
        } else {
            self.worker.wait(Some(Duration::from_millis(until_due / 1_000_000 - 1)))?;
        }
        let after = self.shared.clock.now();
        let activity = self.worker.with(|client, scope| {
            client.turn(scope, after);
            client.base.activity
        });
        if mem::replace(&mut self.activity, activity) != activity {
            self.worked_at = after;
        } else if spins {
            self.spun_ns += (after - now).min(IDLE_TURN_NS);
        }
        Ok(after)
    }

    /// One turn that waits with the resolution of the clock.
    fn wait_finely(&mut self, now: u64, until_due: u64) -> io::Result<()> {
        let instant = self.shared.clock.instant(now);
        let wait = self.worker.next_timeout(instant).map_or(until_due, |next| until_due.min(next.as_nanos() as u64));
        if let Some(fd) = self.worker.as_fd() {
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait as _ };
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.worker.turn(self.shared.clock.instant(self.shared.clock.now()))
    }

    fn outcome(mut self, busy_ns: Option<u64>) -> Outcome {
        let tally = self.worker.with(|client, _| client.base.recorder.take_tally());
        Outcome { tally, busy_ns }
    }
}
