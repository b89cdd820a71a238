//! Runs other WebSocket servers beside `wingbeat serve` under the same load and prints the ratios as Markdown.
#![forbid(unsafe_code)]

mod compare;
mod load;
mod peer;
mod process;
mod report;
mod scenario;
mod stats;

use clap::Parser;
use compare::{Bench, Pair};
use peer::Peer;
use scenario::{Extent, Kind};
use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const LOCK: &str = include_str!("../Cargo.lock");
const VERSIONED: [&str; 4] = ["tokio-tungstenite", "fastwebsockets", "tokio", "mio"];
const WINGBEAT: &str = "../../target/release/wingbeat";
const BUILD_WINGBEAT: &str = "cargo build --release --features cli --bin wingbeat";
/// Above this share of busy cores a warning is printed.
const QUIET: f64 = 0.05;
/// Spread between equal runs is 15 %: fewer pairs cannot tell a difference of 10 %.
const CLAIM_PAIRS: u32 = 11;

/// Runs other WebSocket servers beside `wingbeat serve` under the same load and prints the ratios.
#[derive(Parser)]
struct Arguments {
    /// Interleaved pairs per row; a claim needs 11, a look 3 [default: 11, quick 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: Option<u32>,
    /// Seconds measured per run [default: 3, quick 1]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Few and small runs, to see that everything works
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Every combination of connections, depth and payload
    #[arg(long)]
    full: bool,
    /// Only these tables
    #[arg(long, value_enum, value_delimiter = ',', default_value = "echo,fanout,memory,handshake,publish")]
    only: Vec<Kind>,
    /// Only these peers
    #[arg(long, value_delimiter = ',', default_values = peer::NAMES)]
    peers: Vec<String>,
    /// The wingbeat program, both server and load tool [default: ../../target/release/wingbeat]
    #[arg(long, value_name = "PATH")]
    wingbeat: Option<PathBuf>,
    /// Write every single run here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match compare_all(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare_all(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wingbeat = arguments.wingbeat.clone().unwrap_or_else(|| home.join(WINGBEAT));
    if !wingbeat.is_file() {
        return Err(format!("{} is missing; in the root package: {BUILD_WINGBEAT}", wingbeat.display()).into());
    }
    build_peers(home)?;
    let program = std::env::current_exe()?;
    let folder = program.parent().ok_or("this program has no folder")?;
    let peers = arguments.peers.iter().map(|name| Peer::named(name, folder)).collect::<Result<Vec<_>, _>>()?;
    process::pin(process::CLIENT_CORE).map_err(|error| format!("two cores are needed, one per side: {error}"))?;
    let (pairs, seconds) = if arguments.quick { (1, 1) } else { (CLAIM_PAIRS, 3) };
    let bench = Bench {
        ours: peer::wingbeat(&wingbeat),
        wingbeat,
        pairs: arguments.pairs.unwrap_or(pairs),
        duration: Duration::from_secs(arguments.seconds.unwrap_or(seconds)),
    };
    print_conditions(&bench);
    let mut session = Session { bench, peers, extent: extent(arguments), runs: Vec::new(), failures: 0 };
    arguments.only.iter().for_each(|kind| session.table(*kind));
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_vec_pretty(&session.runs)?)?;
    }
    match session.failures {
        0 => Ok(()),
        failures => Err(format!("{failures} rows could not be measured").into()),
    }
}

/// `cargo run` builds this program alone: have the peers built as well, by the cargo that started it.
fn build_peers(home: &Path) -> Result<(), Box<dyn Error>> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bins"]).current_dir(home);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    if build.status()?.success() { Ok(()) } else { Err("the peers do not build".into()) }
}

fn extent(arguments: &Arguments) -> Extent {
    match arguments {
        Arguments { quick: true, .. } => Extent::Quick,
        Arguments { full: true, .. } => Extent::Full,
        _ => Extent::Default,
    }
}

fn print_conditions(bench: &Bench) {
    println!("# wingbeat beside its peers\n");
    println!("Ratios are wingbeat / peer: CPU below 1 and throughput above 1 are in wingbeat's favour.\n");
    println!("* {} pairs of {:?}; medians, intervals by bootstrap", bench.pairs, bench.duration);
    println!("* server on core {}, client on core {}, loopback", process::SERVER_CORE, process::CLIENT_CORE);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    println!("* Linux {}, {}", kernel.trim(), model.trim_start_matches([' ', '\t', ':']));
    let versions = VERSIONED.iter().filter_map(|name| Some(format!("{name} {}", locked_version(name)?)));
    println!("* uWebSockets 20.58, {}", versions.collect::<Vec<_>>().join(", "));
    if bench.pairs < CLAIM_PAIRS {
        println!("* **Fewer than {CLAIM_PAIRS} pairs: a look, not a claim.**");
    }
    if cfg!(debug_assertions) {
        println!("* **The peers are not optimised (debug build): these figures mean nothing.**");
    }
    if let Some(busy) = process::machine_busy(Duration::from_secs(1)).filter(|busy| *busy > QUIET) {
        println!("* **The machine was {:.0} % busy with other work before the start.**", busy * 100.0);
    }
}

fn locked_version(name: &str) -> Option<&'static str> {
    let entry = LOCK.split("[[package]]").find(|entry| entry.contains(&format!("\nname = \"{name}\"\n")))?;
    entry.lines().find_map(|line| line.strip_prefix("version = "))?.trim_matches('"').into()
}

/// A measurement in progress.
struct Session {
    bench: Bench,
    peers: Vec<Peer>,
    extent: Extent,
    runs: Vec<Value>,
    /// Rows that could not be measured.
    failures: usize,
}

impl Session {
    fn table(&mut self, kind: Kind) {
        match kind {
            Kind::Echo => self.echo(),
            Kind::Fanout => self.fanout(),
            Kind::Memory => self.memory(),
            Kind::Handshake => self.handshake(),
            Kind::Publish => self.publish(),
        }
    }

    fn echo(&mut self) {
        report::echo_head("Echo", "connections x depth, payload");
        for echo in scenario::echoes(self.extent) {
            let load = format!("{} x {}, {} B", echo.connections, echo.depth, echo.payload);
            for peer in self.peers.clone() {
                let goal = scenario::echo_goal(peer.name, echo);
                let found = self.bench.echo(&peer, echo);
                self.keep("echo", &load, &peer, found, |pairs| report::echo_row(&load, peer.name, pairs, goal));
            }
        }
    }

    fn fanout(&mut self) {
        report::echo_head("Fan-out, 64 B, per delivery", "subscribers x burst");
        for fanout in scenario::fanouts(self.extent) {
            let load = format!("{} x {}", fanout.subscribers, fanout.burst);
            for peer in self.with_topics() {
                let goal = scenario::fanout_goal(peer.name, fanout);
                let found = self.bench.fanout(&peer, fanout);
                self.keep("fanout", &load, &peer, found, |pairs| report::echo_row(&load, peer.name, pairs, goal));
            }
        }
    }

    fn memory(&mut self) {
        let (few, many) = scenario::memory_counts(self.extent);
        report::memory_head(few, many);
        for peer in self.peers.clone() {
            let found = self.bench.memory(&peer, (few, many));
            let row = |pairs: &[Pair<f64>]| report::memory_row(peer.name, pairs, scenario::MEMORY_GOAL_BYTES);
            self.keep("memory", "bytes per idle connection", &peer, found, row);
        }
    }

    fn handshake(&mut self) {
        report::handshake_head();
        for peer in self.peers.clone() {
            let found = self.bench.handshake(&peer);
            self.keep("handshake", "opening handshakes", &peer, found, |pairs| report::handshake_row(peer.name, pairs));
        }
    }

    fn publish(&mut self) {
        let subscribers = scenario::publish_subscribers(self.extent);
        report::publish_head(subscribers);
        for peer in self.with_topics() {
            let found = self.bench.publish(&peer, subscribers);
            let row = |pairs: &[_]| report::publish_row(peer.name, pairs, subscribers, scenario::PUBLISH_GOAL);
            self.keep("publish", &format!("{subscribers} subscribers"), &peer, found, row);
        }
    }

    fn with_topics(&self) -> Vec<Peer> {
        self.peers.iter().filter(|peer| peer.topics).cloned().collect()
    }

    /// Prints a row and keeps its runs. One that failed does not end a measurement of hours.
    fn keep<T: Copy + Into<Value>>(
        &mut self,
        kind: &str,
        load: &str,
        peer: &Peer,
        found: Result<Vec<Pair<T>>, Box<dyn Error>>,
        print_row: impl FnOnce(&[Pair<T>]),
    ) {
        match found {
            Ok(pairs) => {
                print_row(&pairs);
                let pairs =
                    pairs.into_iter().map(|pair| json!({ "peer": pair.peer.into(), "wingbeat": pair.ours.into() }));
                let pairs: Vec<Value> = pairs.collect();
                self.runs.push(json!({ "kind": kind, "load": load, "peer": peer.name, "pairs": pairs }));
            }
            Err(error) => {
                report::failed_row(load, peer.name);
                eprintln!("peers: {kind}, {load}, {} and wingbeat: {error}", peer.name);
                self.failures += 1;
            }
        }
    }
}
