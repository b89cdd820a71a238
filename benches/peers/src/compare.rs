//! Runs the peers and wingbeat in turn (A B C A B C) under one load and keeps what was found, round by round.
#![forbid(unsafe_code)]

use crate::load::{Load, Outcome};
use crate::peer::{Driver, Peer};
use crate::process::{Program, Server};
use crate::scenario::{Echo, Fanout};
use serde_json::{Value, json};
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Beyond this difference our own CPU reading contradicts the load tool's.
const CROSS_CHECK: f64 = 0.15;
/// Resident memory is the same from run to run but for a few pages.
const MEMORY_PAIRS: u32 = 3;
const ECHO: &str = "/echo";
const TOPIC: &str = "/topics?topic=all";
const FANOUT_PAYLOAD: u32 = 64;
/// The open-loop echo beside a large publish.
const STEADY_CONNECTIONS: u32 = 100;
const STEADY_RATE: u32 = 5_000;
const STEADY_NICENESS: i32 = -10;
/// Connections that open and close all the time in the handshake load.
const HANDSHAKES_AT_ONCE: u32 = 64;

/// What every comparison needs.
pub struct Bench {
    /// The load tool.
    pub wingbeat: PathBuf,
    /// wingbeat as a server, on each driver that is to be measured.
    pub ours: Vec<(Driver, Program)>,
    /// Rounds, in each of which every server runs once.
    pub pairs: u32,
    pub duration: Duration,
}

/// One run, reduced to what the tables show. What a kind of load does not have is NaN.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub per_second: f64,
    pub cpu_us: f64,
    pub cpu_share: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub errors: f64,
    pub client_limited: bool,
    /// Our own CPU reading over the load tool's.
    pub cross_check: f64,
}

/// What all servers showed under one load.
pub struct Rounds<T> {
    pub peers: Vec<(Peer, Series<T>)>,
    pub ours: Vec<(Driver, Series<T>)>,
}

/// What one server showed, a run per round, up to the first that failed.
pub struct Series<T> {
    pub runs: Vec<T>,
    pub failure: Option<String>,
}

/// A peer's run and the wingbeat run of the same round.
#[derive(Clone, Copy, Debug)]
pub struct Pair<T> {
    pub peer: T,
    pub ours: T,
}

/// Echo p99 without and with the large publish.
#[derive(Clone, Copy, Debug)]
pub struct Disturbance {
    pub without_us: f64,
    pub with_us: f64,
    pub deliveries_per_s: f64,
    pub errors: f64,
}

impl Run {
    /// Whether our own reading of the server's CPU contradicts the load tool's.
    pub fn contradicted(&self) -> bool {
        (self.cross_check - 1.0).abs() > CROSS_CHECK
    }

    fn messages(outcome: &Outcome) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            p50_us: outcome.number("latency_us.p50")?,
            p99_us: outcome.number("latency_us.p99")?,
            ..Self::counted(outcome, "messages_per_s", "server_cpu_us_per_message")?
        })
    }

    fn handshakes(outcome: &Outcome) -> Result<Self, Box<dyn Error>> {
        Self::counted(outcome, "handshakes_per_s", "server_cpu_us_per_handshake")
    }

    fn counted(outcome: &Outcome, rate: &str, cpu: &str) -> Result<Self, Box<dyn Error>> {
        let per_second = outcome.number(rate)?;
        let cpu_us = outcome.number(cpu)?;
        Ok(Self {
            per_second,
            cpu_us,
            cpu_share: outcome.number("server_cpu_share")?,
            p50_us: f64::NAN,
            p99_us: f64::NAN,
            errors: outcome.errors(),
            client_limited: outcome.client_limited(),
            cross_check: outcome.cpu_share() * 1e6 / per_second / cpu_us,
        })
    }
}

impl<T: Copy> Rounds<T> {
    /// A peer beside wingbeat on a driver; none when either failed.
    pub fn pairs(&self, peer: &str, driver: Driver) -> Option<Vec<Pair<T>>> {
        let whole = |series: &Series<T>| series.failure.is_none();
        let (_, peers) = self.peers.iter().find(|(of, series)| of.name == peer && whole(series))?;
        let (_, ours) = self.ours.iter().find(|(of, series)| *of == driver && whole(series))?;
        Some(peers.runs.iter().zip(&ours.runs).map(|(&peer, &ours)| Pair { peer, ours }).collect())
    }
}

impl<T> Series<T> {
    fn new() -> Self {
        Self { runs: Vec::new(), failure: None }
    }

    fn add(&mut self, program: &Program, run: &mut impl FnMut(&Program) -> Result<T, Box<dyn Error>>) {
        if self.failure.is_none() {
            match run(program) {
                Ok(found) => self.runs.push(found),
                Err(error) => self.failure = Some(error.to_string()),
            }
        }
    }
}

impl Bench {
    pub fn echo(&self, peers: &[Peer], echo: Echo) -> Rounds<Run> {
        let mut load = Load::new("echo", ECHO, echo.connections, self.duration);
        load.depth = Some(echo.depth);
        load.payload = Some(echo.payload);
        self.rounds(self.pairs, peers, |program| Run::messages(&self.outcome(program, &load)?))
    }

    pub fn fanout(&self, peers: &[Peer], fanout: Fanout) -> Rounds<Run> {
        let load = fanout_load(fanout, self.duration);
        self.rounds(self.pairs, peers, |program| Run::messages(&self.outcome(program, &load)?))
    }

    pub fn handshake(&self, peers: &[Peer]) -> Rounds<Run> {
        let load = Load::new("connect", ECHO, HANDSHAKES_AT_ONCE, self.duration);
        self.rounds(self.pairs, peers, |program| Run::handshakes(&self.outcome(program, &load)?))
    }

    /// User-space bytes per idle connection: the slope of RSS between two counts, each in a fresh process.
    pub fn memory(&self, peers: &[Peer], (few, many): (u32, u32)) -> Rounds<f64> {
        let resident = |program: &Program, connections| -> Result<f64, Box<dyn Error>> {
            let outcome = self.outcome(program, &Load::new("idle", ECHO, connections, self.duration))?;
            match outcome.errors() {
                0.0 => Ok(outcome.rss_bytes()),
                errors => Err(format!("{errors} errors while {connections} connections were held").into()),
            }
        };
        self.rounds(self.pairs.min(MEMORY_PAIRS), peers, |program| {
            Ok((resident(program, many)? - resident(program, few)?) / f64::from(many - few))
        })
    }

    /// Echo at a fixed rate beside `subscribers` connections on a topic, idle and then with one publish per second.
    /// It fails where this process may not raise the priority of the echo client.
    pub fn publish(&self, peers: &[Peer], subscribers: u32) -> Rounds<Disturbance> {
        self.rounds(self.pairs, peers, |program| self.disturbance(program, subscribers))
    }

    fn disturbance(&self, program: &Program, subscribers: u32) -> Result<Disturbance, Box<dyn Error>> {
        // Long enough for the echo run inside; it is interrupted when that has ended.
        let beside = self.duration + Duration::from_secs(60);
        let idle = Load::new("idle", TOPIC, subscribers, beside);
        let mut publishing = fanout_load(Fanout { subscribers, burst: 1 }, beside);
        publishing.rate = Some(1);
        let without = self.steady_echo(program, subscribers, &idle)?;
        let with = self.steady_echo(program, subscribers, &publishing)?;
        Ok(Disturbance {
            without_us: without.0.number("latency_us.p99")?,
            with_us: with.0.number("latency_us.p99")?,
            deliveries_per_s: with.1.number("messages_per_s")?,
            errors: without.0.errors() + without.1.errors() + with.0.errors() + with.1.errors(),
        })
    }

    /// The echo run and the run beside it.
    fn steady_echo(
        &self,
        program: &Program,
        subscribers: u32,
        beside: &Load,
    ) -> Result<(Outcome, Outcome), Box<dyn Error>> {
        let server = Server::start(program)?;
        let background = beside.start(&self.wingbeat, &server)?;
        let mut load = Load::new("echo", ECHO, STEADY_CONNECTIONS, self.duration);
        load.payload = Some(FANOUT_PAYLOAD);
        load.rate = Some(STEADY_RATE);
        load.niceness = STEADY_NICENESS;
        let ramped = server.wait_for_descriptors(subscribers as usize);
        let steady = ramped.map_err(Into::into).and_then(|()| load.run(&self.wingbeat, &server));
        // Ended in any case: left alone it would disturb the runs that follow.
        background.interrupt();
        let background = background.finish();
        Ok((steady?, background?))
    }

    fn outcome(&self, program: &Program, load: &Load) -> Result<Outcome, Box<dyn Error>> {
        load.run(&self.wingbeat, &Server::start(program)?)
    }

    fn rounds<T>(
        &self,
        count: u32,
        peers: &[Peer],
        mut run: impl FnMut(&Program) -> Result<T, Box<dyn Error>>,
    ) -> Rounds<T> {
        let is_wanted = |peer: &&Peer| self.ours.iter().any(|(driver, _)| peer.is_beside(*driver));
        let mut rounds = Rounds {
            peers: peers.iter().filter(is_wanted).map(|peer| (peer.clone(), Series::new())).collect(),
            ours: self.ours.iter().map(|(driver, _)| (*driver, Series::new())).collect(),
        };
        for _ in 0..count {
            for (peer, series) in &mut rounds.peers {
                series.add(&peer.program, &mut run);
            }
            for ((_, program), (_, series)) in self.ours.iter().zip(&mut rounds.ours) {
                series.add(program, &mut run);
            }
        }
        rounds
    }
}

impl From<Run> for Value {
    fn from(run: Run) -> Self {
        json!({
            "per_s": run.per_second, "server_cpu_us": run.cpu_us, "server_cpu_share": run.cpu_share,
            "latency_p50_us": run.p50_us, "latency_p99_us": run.p99_us, "errors": run.errors,
            "client_limited": run.client_limited, "cpu_cross_check": run.cross_check,
        })
    }
}

impl From<Disturbance> for Value {
    fn from(found: Disturbance) -> Self {
        json!({
            "latency_p99_us_without": found.without_us, "latency_p99_us_with": found.with_us,
            "deliveries_per_s": found.deliveries_per_s, "errors": found.errors,
        })
    }
}

fn fanout_load(fanout: Fanout, duration: Duration) -> Load {
    let mut load = Load::new("fanout", TOPIC, 1, duration);
    load.subscribers = Some(fanout.subscribers);
    load.depth = Some(fanout.burst);
    load.payload = Some(FANOUT_PAYLOAD);
    load
}
