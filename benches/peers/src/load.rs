//! One run of `wingbeat load` against one server, and what it found.
#![forbid(unsafe_code)]

use crate::process::{self, CLIENT_CORE, Sample, Sampler, Server};
use crate::stats::median;
use serde_json::Value;
use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Ramp, warm-up and closing together never take longer than this beside the measured time.
const OVERHEAD: Duration = Duration::from_secs(90);
const WARMUP: &str = "500ms";

/// Arguments of the load tool that differ between runs.
#[derive(Clone, Debug)]
pub struct Load {
    pub mode: &'static str,
    /// Path and query on the server.
    pub path: &'static str,
    pub connections: u32,
    pub depth: Option<u32>,
    pub payload: Option<u32>,
    pub subscribers: Option<u32>,
    pub rate: Option<u32>,
    pub duration: Duration,
    /// Scheduling priority of the client process.
    pub niceness: i32,
}

impl Load {
    pub fn new(mode: &'static str, path: &'static str, connections: u32, duration: Duration) -> Self {
        Self {
            mode,
            path,
            connections,
            duration,
            depth: None,
            payload: None,
            subscribers: None,
            rate: None,
            niceness: 0,
        }
    }

    /// Runs it to its end beside a sampler of the server.
    ///
    /// # Errors
    /// When the tool does not start, does not end in time, or prints no JSON.
    pub fn run(&self, wingbeat: &Path, server: &Server) -> Result<Outcome, Box<dyn Error>> {
        self.start(wingbeat, server)?.finish()
    }

    /// Starts it and returns while it runs.
    ///
    /// # Errors
    /// When the tool does not start.
    pub fn start(&self, wingbeat: &Path, server: &Server) -> Result<Running, Box<dyn Error>> {
        let mut command = self.command(wingbeat, server);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(&mut command, CLIENT_CORE, self.niceness)?;
        let output = drain(child.stdout.take().expect("stdout is piped"));
        let errors = drain(child.stderr.take().expect("stderr is piped"));
        let deadline = Instant::now() + self.duration + OVERHEAD;
        let line = format!("{command:?}");
        Ok(Running {
            child,
            output,
            errors,
            deadline,
            line,
            sampler: Sampler::start(server.pid()),
            duration: self.duration,
        })
    }

    fn command(&self, wingbeat: &Path, server: &Server) -> Command {
        let mut command = Command::new(wingbeat);
        command.arg("load").arg(self.mode).arg(server.url(self.path));
        // The same client for everybody, whatever the servers use.
        command.args(["--driver", "epoll", "-c", &self.connections.to_string(), "-t", "1"]);
        command.args(["-d", &format!("{}ms", self.duration.as_millis()), "--warmup", WARMUP]);
        let optional =
            [("-p", self.depth), ("--payload", self.payload), ("--subscribers", self.subscribers), ("-r", self.rate)];
        for (flag, value) in optional {
            if let Some(value) = value {
                command.arg(flag).arg(value.to_string());
            }
        }
        command.args(["--server-pid", &server.pid().to_string(), "--json", "-"]);
        command
    }
}

/// A run that has not ended.
pub struct Running {
    child: Child,
    output: JoinHandle<Vec<u8>>,
    errors: JoinHandle<Vec<u8>>,
    deadline: Instant,
    line: String,
    sampler: Sampler,
    duration: Duration,
}

impl Running {
    /// Has it stop early: it still prints what it has measured.
    pub fn interrupt(&self) {
        process::interrupt(&self.child);
    }

    /// Waits for its end and reads its JSON.
    ///
    /// # Errors
    /// When it does not end in time, or prints no JSON.
    pub fn finish(mut self) -> Result<Outcome, Box<dyn Error>> {
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() > self.deadline => {
                    self.child.kill()?;
                    self.child.wait()?;
                    break None;
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        let ended = Instant::now();
        let samples = self.sampler.finish();
        let output = self.output.join().expect("reading a pipe does not panic");
        let errors = self.errors.join().expect("reading a pipe does not panic");
        let errors = String::from_utf8_lossy(&errors).trim().to_owned();
        let Some(status) = status else { return Err(format!("`{}` did not end: {errors}", self.line).into()) };
        // Exit 1 with JSON means counted errors, which the table shows; without JSON there is nothing to show.
        let json = serde_json::from_slice(&output)
            .map_err(|error| format!("`{}` ({status}) printed no JSON ({error}): {errors}", self.line))?;
        Ok(Outcome { json, window: window(&samples, ended, self.duration), line: self.line })
    }
}

/// What a run found.
pub struct Outcome {
    pub json: Value,
    window: Vec<Sample>,
    line: String,
}

impl Outcome {
    /// A number at a dotted path of the JSON.
    ///
    /// # Errors
    /// When it is not there: the load tool and this runner have grown apart.
    pub fn number(&self, key: &str) -> Result<f64, Box<dyn Error>> {
        let pointer = format!("/{}", key.replace('.', "/"));
        let number = self.json.pointer(&pointer).and_then(Value::as_f64);
        Ok(number.ok_or_else(|| format!("the JSON of `{}` has no number `{key}`:\n{:#}", self.line, self.json))?)
    }

    /// Whether the client was the bottleneck; an older tool that does not say is taken not to have been.
    pub fn client_limited(&self) -> bool {
        self.json["client_limited"].as_bool().unwrap_or(false)
    }

    /// Failed connections, lost messages and all else that the tool counts as errors.
    pub fn errors(&self) -> f64 {
        let kinds = self.json["errors"].as_object().into_iter().flatten().map(|(_, count)| count);
        let counts = kinds.chain([&self.json["connections_failed"], &self.json["lost_messages"]]);
        counts.filter_map(Value::as_f64).sum()
    }

    /// Share of a core that the server used, by our own reading: the median over short intervals, so that neither ramp
    /// nor closing counts. NaN when the run was too short to tell.
    pub fn cpu_share(&self) -> f64 {
        let shares = self.window.windows(2).map(|pair| {
            let used = pair[1].cpu.saturating_sub(pair[0].cpu);
            used.as_secs_f64() / (pair[1].at - pair[0].at).as_secs_f64()
        });
        median(&shares.collect::<Vec<_>>())
    }

    /// Resident bytes of the server while the load lasted (median).
    pub fn rss_bytes(&self) -> f64 {
        median(&self.window.iter().map(|sample| sample.rss_bytes as f64).collect::<Vec<_>>())
    }
}

/// The samples of the measured time without its last quarter, where connections may be closing already.
fn window(samples: &[Sample], ended: Instant, duration: Duration) -> Vec<Sample> {
    let inside = |sample: &&Sample| {
        let before_end = ended - sample.at;
        before_end < duration && before_end > duration / 4
    };
    samples.iter().filter(inside).copied().collect()
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe is the end of what there was to read.
        let _read = pipe.read_to_end(&mut bytes);
        bytes
    })
}
