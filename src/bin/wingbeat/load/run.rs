//! A run from the outside: starts the threads, watches server and client, and computes the result.
#![forbid(unsafe_code)]

use super::client::{GoOn, Targets};
use super::plan::{Machine, Plan};
use super::procfs::{CpuTimes, Process};
use super::shared::{Shared, Times};
use super::stats::{Live, Tally, Window};
use super::summary::{Observed, ServerUse, Summary};
use super::thread::{Outcome, Start};
use crate::args::Mode;
use crate::failure::Failure;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use wingbeat::driver::SystemSeed;
use wingbeat::engine::{Config, Handle, Limits, group};

/// Time for all threads to see that the run begins.
const HEADSTART_NS: u64 = 20_000_000;
/// The window is cut into so many slices, if each has the shortest length at least.
const SLICES: u64 = 60;
const SLICE_NS_MIN: u64 = 100_000_000;

/// Load that is on its way.
#[derive(Debug)]
pub(crate) struct Run {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<Outcome>>>,
    machine: Machine,
    server: Option<Watched>,
    /// To the threads' workers.
    handle: Handle<GoOn>,
}

/// The server's process, and what it used by when.
#[derive(Debug)]
struct Watched {
    process: Process,
    used: ServerUse,
    cpu_at_start: Option<CpuTimes>,
}

/// How many connections stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) connected: u32,
    pub(crate) failed: u32,
    pub(crate) total: u32,
}

impl Progress {
    /// Whether each connection stands or has failed.
    pub(crate) fn is_complete(&self) -> bool {
        self.connected + self.failed >= self.total
    }

    /// Whether no connection could be made.
    pub(crate) fn has_failed(&self) -> bool {
        self.total > 0 && self.connected == 0 && self.failed >= self.total
    }
}

impl Run {
    /// Starts the threads, which begin to connect.
    ///
    /// # Errors
    /// [`Failure::Failed`] if a name does not resolve, the process to watch is not there, or the kernel refuses a
    /// thread.
    pub(crate) fn start(plan: Plan, machine: Machine) -> Result<Run, Failure> {
        let server = plan.server_pid.map(Watched::new).transpose()?;
        let (shared, plan) = (Arc::new(Shared::new(&plan)), Arc::new(plan));
        let targets = targets(&plan)?;
        let config = config(&plan);
        let cannot = |error| Failure::cannot("start a thread", error);
        let drivers =
            (0..plan.threads).map(|_| SystemSeed::new(plan.driver, config.driver)).collect::<io::Result<Vec<_>>>();
        let drivers = drivers.map_err(cannot)?;
        let wakers: Vec<_> = drivers.iter().map(SystemSeed::waker).collect();
        let (seeds, handle) = group(&wakers, config);
        let mut run = Run { plan, shared, threads: Vec::new(), machine, server, handle };
        for (index, (seed, driver)) in seeds.into_iter().zip(drivers).enumerate() {
            let start = Start {
                plan: Arc::clone(&run.plan),
                shared: Arc::clone(&run.shared),
                index: index as u32,
                targets: targets.clone(),
                handle: run.handle.clone(),
                seed,
                driver,
                may_spin: run.plan.threads < machine.cpus,
                cpus: machine.cpus,
            };
            let thread = thread::Builder::new().name(format!("load-{index}")).spawn(|| start.run());
            run.threads.push(thread.map_err(cannot)?);
        }
        Ok(run)
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How far connecting is. In connect nothing has to stand before the run begins.
    pub(crate) fn progress(&self) -> Progress {
        Progress {
            connected: self.shared.connected.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            total: if self.plan.mode == Mode::Connect { 0 } else { self.plan.total() },
        }
    }

    /// Connections that ended before the run did.
    pub(crate) fn dropped(&self) -> u32 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Whether going on makes no sense: no connection is left, or a thread has ended.
    pub(crate) fn is_broken(&self) -> bool {
        let deserted =
            self.plan.mode != Mode::Connect && self.dropped() > 0 && self.dropped() >= self.progress().connected;
        deserted || self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Begins the warm-up.
    pub(crate) fn begin(&mut self) {
        let begin = self.shared.clock.now() + HEADSTART_NS;
        let start = begin + self.plan.warmup.as_nanos() as u64;
        let length = self.plan.duration.as_nanos() as u64;
        let slice = (length / SLICES).max(SLICE_NS_MIN);
        self.shared.begin(Times { begin, window: Window { start, end: start + length }, slice });
        if let Some(server) = &mut self.server {
            server.used.rss_connected = server.process.rss_bytes().unwrap_or(0);
        }
    }

    /// Time until something is to be done here: the begin of the window, or the end of the run. Zero: the run is over.
    pub(crate) fn attend(&mut self) -> Duration {
        let now = self.shared.clock.now();
        let start = self.shared.times().map_or(u64::MAX, |times| times.window.start);
        if now >= self.shared.end() {
            return Duration::ZERO;
        }
        if now < start {
            return Duration::from_nanos(start - now);
        }
        if let Some(server) = self.server.as_mut().filter(|server| server.cpu_at_start.is_none()) {
            server.cpu_at_start = server.process.cpu_times().ok();
        }
        Duration::from_nanos(self.shared.end() - now)
    }

    /// Ends the run now.
    pub(crate) fn cut(&self) {
        self.shared.cut(self.shared.clock.now());
    }

    /// Adds the figures since the last call.
    pub(crate) fn take_live(&self, live: &mut Live) {
        self.shared.live.iter().for_each(|shared| shared.take(live));
    }

    /// Waits for the answers that are still to come, and computes the result of a run that is over.
    ///
    /// # Errors
    /// [`Failure::Failed`] if a thread could not go on.
    pub(crate) fn finish(mut self) -> Result<Summary, Failure> {
        self.cut();
        let server = self.server.take().and_then(Watched::end);
        let mut tally = Tally::default();
        let mut busy_ns = Some(0);
        for thread in std::mem::take(&mut self.threads) {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a load thread panicked")));
            let outcome = ended.map_err(|error| Failure::cannot("go on", error))?;
            tally.merge(&outcome.tally);
            busy_ns = busy_ns.zip(outcome.busy_ns).map(|(sum, ns)| sum + ns);
        }
        Ok(Summary::new(&self.plan, tally, &self.observed(busy_ns, server)))
    }

    /// Ends a run none of whose connections could be made: why.
    pub(crate) fn abandon(self) -> Failure {
        let url = self.plan.url.url.clone();
        match self.finish() {
            Ok(summary) => Failure::Failed(format!("no connection to {url} could be made: {}", summary.error_list())),
            Err(failure) => failure,
        }
    }

    fn observed(&self, client_busy_ns: Option<u64>, server: Option<ServerUse>) -> Observed {
        let progress = self.progress();
        let times = self.shared.times();
        let seconds = |ns: u64| ns as f64 / 1e9;
        let connects = self.plan.mode == Mode::Connect;
        let failed = progress.failed + self.dropped();
        Observed {
            duration_s: times.map_or(0.0, |times| seconds(self.shared.end().saturating_sub(times.window.start))),
            connect_s: if connects { 0.0 } else { seconds(self.shared.last_connected()) },
            pings: self.handle.metrics().counters.pings,
            connected: if connects { self.plan.connections } else { progress.connected },
            connections_failed: failed,
            subscribers: self.shared.credits.joined(),
            interrupted: times.is_none_or(|times| self.shared.end() < times.window.end),
            client_busy_ns,
            cpus: self.machine.cpus,
            server,
            slice_s: times.map_or(0.0, |times| seconds(times.slice)),
        }
    }
}

impl Watched {
    fn new(pid: u32) -> Result<Watched, Failure> {
        let cannot = |error| Failure::cannot(format!("watch process {pid}"), error);
        let process = Process::new(pid).map_err(cannot)?;
        let used = ServerUse { rss_before: process.rss_bytes().map_err(cannot)?, ..ServerUse::default() };
        Ok(Watched { process, used, cpu_at_start: None })
    }

    /// What it used; none if it is gone, or the window never began.
    fn end(self) -> Option<ServerUse> {
        let cpu = self.process.cpu_times().ok()?.since(&self.cpu_at_start?);
        Some(ServerUse { cpu, rss_end: self.process.rss_bytes().ok()?, ..self.used })
    }
}

/// Where the connections of a run go.
fn targets(plan: &Plan) -> Result<Targets, Failure> {
    let sources = plan.source_addresses();
    let subscribers = plan.url.targets(&sources)?;
    let connections = match &plan.publish_url {
        Some(url) if url.url != plan.url.url => url.targets(&sources)?,
        _ => subscribers.clone(),
    };
    Ok(Targets { connections, subscribers })
}

/// The engine as a client that must not be what limits: it holds back nothing, and pings nobody. What it holds is
/// bounded by the plan: the messages in flight.
fn config(plan: &Plan) -> Config {
    let defaults = Limits::default();
    let limits = Limits {
        message_bytes: defaults.message_bytes.max(plan.payload as u32),
        fragment_bytes_min: 0,
        handshake_timeout: Duration::from_secs(10),
        idle_timeout: Duration::ZERO,
        outbox_high: u32::MAX,
        outbox_low: u32::MAX / 2,
        frame_bytes: usize::MAX,
        connections: usize::MAX,
        ..defaults
    };
    Config { limits, ..Config::default() }
}
