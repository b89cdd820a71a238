//! Servers and clients as pinned child processes, and what the kernel says about a process.
#![forbid(unsafe_code)]

use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub const SERVER_CORE: usize = 0;
pub const CLIENT_CORE: usize = 1;
/// Enough for a full measurement with a fresh port per run.
const PORTS: Range<u16> = 20_000..32_000;
const READY_WITHIN: Duration = Duration::from_secs(10);
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// Pins the calling thread; threads and processes that it starts inherit that.
///
/// # Errors
/// When the core does not exist or this process may not use it.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Starts `command` on one core with a niceness, from a thread of its own: a child inherits both from its thread.
///
/// # Errors
/// When the program, the core or (for a negative niceness) the right is missing.
pub fn spawn(command: &mut Command, core: usize, niceness: i32) -> io::Result<Child> {
    let spawned = thread::scope(|scope| {
        let start = || {
            pin(core)?;
            if niceness != 0 {
                let refused = |error: rustix::io::Errno| io::Error::new(error.kind(), "priority needs CAP_SYS_NICE");
                setpriority_process(None, niceness).map_err(refused)?;
            }
            command.spawn()
        };
        scope.spawn(start).join().expect("starting a process does not panic")
    });
    spawned.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", command.get_program().display())))
}

/// Asks a child to end by SIGINT: the load tool then prints what it has measured so far.
pub fn interrupt(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Already gone is as good.
        let _sent = kill_process(pid, Signal::INT);
    }
}

/// How to start a server; `--bind` is added.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<String>,
}

/// A server on its core, killed when dropped.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts it on a free port and waits for `listening on ADDR`.
    ///
    /// # Errors
    /// When it does not start, or does not listen in time.
    pub fn start(program: &Program) -> io::Result<Self> {
        let address = format!("127.0.0.1:{}", unused_port()?);
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).args(["--bind", &address]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = spawn(&mut command, SERVER_CORE, 0)?;
        let output = child.stdout.take().expect("stdout is piped");
        let server = Self { child, address };
        let (announced, announcement) = mpsc::channel();
        // Reads on after the announcement, so that a server which prints more never blocks on a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.starts_with("listening on ") {
                    // The receiver is gone after the first of several listeners.
                    let _sent = announced.send(());
                }
            }
        });
        let failed = |_| io::Error::other(format!("{} did not say `listening on`", program.path.display()));
        announcement.recv_timeout(READY_WITHIN).map_err(failed)?;
        Ok(server)
    }

    pub fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it holds this many descriptors: a ramp is over.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    pub fn wait_for_descriptors(&self, count: usize) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let folder = format!("/proc/{}/fd", self.pid());
        while Path::new(&folder).read_dir()?.count() < count {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("the server never held {count} connections")));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A port that this runner has not used before and nobody has: below the range that clients connect from, where a port
/// that was free a moment ago may be a connection's by now.
fn unused_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(PORTS.start);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if !PORTS.contains(&port) {
            return Err(io::Error::other("no port is left to listen on"));
        }
        // Without SO_REUSEADDR, so that connections which linger from an earlier measurement count as use.
        let probe = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        if probe.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).is_ok() {
            return Ok(port);
        }
    }
}

/// What `/proc` said at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Instant,
    /// CPU time of all threads together.
    pub cpu: Duration,
    pub rss_bytes: u64,
}

impl Sample {
    /// None when the process is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let mut nanoseconds = 0;
        for task in Path::new(&format!("/proc/{pid}/task")).read_dir().ok()? {
            let schedstat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            nanoseconds += schedstat.split(' ').next()?.parse::<u64>().ok()?;
        }
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        let rss_bytes = pages * rustix::param::page_size() as u64;
        Some(Self { at: Instant::now(), cpu: Duration::from_nanos(nanoseconds), rss_bytes })
    }
}

/// Samples a process from a thread of its own until it is asked for the samples.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Sample>>,
}

impl Sampler {
    pub fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let Some(sample) = Sample::of(pid) else { break };
                samples.push(sample);
                thread::sleep(SAMPLE_EVERY);
            }
            samples
        });
        Self { stop, thread }
    }

    pub fn finish(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampler does not panic")
    }
}

/// Share of all cores that is busy while nothing of ours runs: a measurement beside it is worth little.
pub fn machine_busy(over: Duration) -> Option<f64> {
    let before = cpu_ticks()?;
    thread::sleep(over);
    let after = cpu_ticks()?;
    let total = after.0.checked_sub(before.0).filter(|ticks| *ticks > 0)?;
    Some(1.0 - (after.1 - before.1) as f64 / total as f64)
}

/// All ticks since boot, and the idle ones (idle and iowait).
fn cpu_ticks() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).map_while(|tick| tick.parse().ok()).collect();
    // Guest time is part of user time already.
    Some((ticks.iter().take(8).sum(), ticks.get(3)? + ticks.get(4)?))
}
