//! Runs a peer and wingbeat in turn (A B A B) under one load and keeps what both found, pair by pair.
#![forbid(unsafe_code)]

use crate::load::{Load, Outcome};
use crate::peer::Peer;
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
    /// wingbeat as a server.
    pub ours: Program,
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

/// A peer's run and the wingbeat run right after it.
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

impl Bench {
    /// # Errors
    /// When a program does not start or the load tool's JSON lacks a key.
    pub fn echo(&self, peer: &Peer, echo: Echo) -> Result<Vec<Pair<Run>>, Box<dyn Error>> {
        let mut load = Load::new("echo", ECHO, echo.connections, self.duration);
        load.depth = Some(echo.depth);
        load.payload = Some(echo.payload);
        self.paired(peer, |program| Run::messages(&self.outcome(program, &load)?))
    }

    /// # Errors
    /// As [`Bench::echo`].
    pub fn fanout(&self, peer: &Peer, fanout: Fanout) -> Result<Vec<Pair<Run>>, Box<dyn Error>> {
        let load = fanout_load(fanout, self.duration);
        self.paired(peer, |program| Run::messages(&self.outcome(program, &load)?))
    }

    /// # Errors
    /// As [`Bench::echo`].
    pub fn handshake(&self, peer: &Peer) -> Result<Vec<Pair<Run>>, Box<dyn Error>> {
        let load = Load::new("connect", ECHO, HANDSHAKES_AT_ONCE, self.duration);
        self.paired(peer, |program| Run::handshakes(&self.outcome(program, &load)?))
    }

    /// User-space bytes per idle connection: the slope of RSS between two counts, each in a fresh process.
    ///
    /// # Errors
    /// As [`Bench::echo`].
    pub fn memory(&self, peer: &Peer, (few, many): (u32, u32)) -> Result<Vec<Pair<f64>>, Box<dyn Error>> {
        let resident = |program: &Program, connections| -> Result<f64, Box<dyn Error>> {
            let outcome = self.outcome(program, &Load::new("idle", ECHO, connections, self.duration))?;
            match outcome.errors() {
                0.0 => Ok(outcome.rss_bytes()),
                errors => Err(format!("{errors} errors while {connections} connections were held").into()),
            }
        };
        let pairs = self.pairs.min(MEMORY_PAIRS);
        interleaved(pairs, &peer.program, &self.ours, |program| {
            Ok((resident(program, many)? - resident(program, few)?) / f64::from(many - few))
        })
    }

    /// Echo at a fixed rate beside `subscribers` connections on a topic, idle and then with one publish per second.
    ///
    /// # Errors
    /// As [`Bench::echo`]; also when this process may not raise the priority of the echo client.
    pub fn publish(&self, peer: &Peer, subscribers: u32) -> Result<Vec<Pair<Disturbance>>, Box<dyn Error>> {
        self.paired(peer, |program| self.disturbance(program, subscribers))
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

    fn paired<T>(
        &self,
        peer: &Peer,
        run: impl FnMut(&Program) -> Result<T, Box<dyn Error>>,
    ) -> Result<Vec<Pair<T>>, Box<dyn Error>> {
        interleaved(self.pairs, &peer.program, &self.ours, run)
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

fn interleaved<T>(
    pairs: u32,
    peer: &Program,
    ours: &Program,
    mut run: impl FnMut(&Program) -> Result<T, Box<dyn Error>>,
) -> Result<Vec<Pair<T>>, Box<dyn Error>> {
    (0..pairs).map(|_| Ok(Pair { peer: run(peer)?, ours: run(ours)? })).collect()
}

fn fanout_load(fanout: Fanout, duration: Duration) -> Load {
    let mut load = Load::new("fanout", TOPIC, 1, duration);
    load.subscribers = Some(fanout.subscribers);
    load.depth = Some(fanout.burst);
    load.payload = Some(FANOUT_PAYLOAD);
    load
}
