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
use compare::{Bench, Pair, Rounds, Run};
use peer::{Driver, Peer};
use scenario::{Extent, Kind};
use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const LOCK: &str = include_str!("../Cargo.lock");
const VERSIONED: [&str; 5] = ["tokio-tungstenite", "fastwebsockets", "tokio", "mio", "io-uring"];
const WINGBEAT: &str = "../../target/release/wingbeat";
const BUILD_WINGBEAT: &str = "cargo build --release --features cli --bin wingbeat";
const TABLES: [Kind; 5] = [Kind::Echo, Kind::Fanout, Kind::Memory, Kind::Handshake, Kind::Publish];
/// Those that are figures to reach.
const FIGURES: [Kind; 4] = [Kind::Echo, Kind::Fanout, Kind::Memory, Kind::Handshake];
/// Above this share of busy cores a warning is printed.
const QUIET: f64 = 0.05;
/// Spread between equal runs is 15 %: fewer pairs cannot tell a difference of 10 %.
const CLAIM_PAIRS: u32 = 11;

/// Runs other WebSocket servers beside `wingbeat serve` under the same load and prints the ratios.
#[derive(Parser)]
struct Arguments {
    /// Rounds per row, in each of which every server runs once; a claim needs 11, a look 3 [default: 11, quick 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: Option<u32>,
    /// Seconds measured per run [default: 3, quick and figures 1]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Few and small runs, to see that everything works
    #[arg(long, group = "extent")]
    quick: bool,
    /// Only the loads that have goals, a row each: half an hour
    #[arg(long, group = "extent")]
    figures: bool,
    /// Every combination of connections, depth and payload
    #[arg(long, group = "extent")]
    full: bool,
    /// Only these tables [default: all that the extent has]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Only these peers [default: all; figures: raw-epoll,raw-uring,uws]
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// What wingbeat runs on
    #[arg(long, value_enum, value_delimiter = ',', default_value = "epoll,uring")]
    drivers: Vec<Driver>,
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
    let peers = peers(arguments, folder)?;
    process::pin(process::CLIENT_CORE).map_err(|error| format!("two cores are needed, one per side: {error}"))?;
    let extent = extent(arguments);
    let (pairs, seconds) = match extent {
        Extent::Quick => (1, 1),
        Extent::Figures => (CLAIM_PAIRS, 1),
        Extent::Default | Extent::Full => (CLAIM_PAIRS, 3),
    };
    let ours = |driver: &Driver| (*driver, peer::wingbeat(&wingbeat, *driver));
    let bench = Bench {
        ours: arguments.drivers.iter().map(ours).collect(),
        wingbeat,
        pairs: arguments.pairs.unwrap_or(pairs),
        duration: Duration::from_secs(arguments.seconds.unwrap_or(seconds)),
    };
    print_conditions(&bench);
    let mut session = Session { bench, peers, extent, runs: Vec::new(), failures: 0 };
    tables(arguments, extent).into_iter().for_each(|kind| session.table(kind));
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
        Arguments { figures: true, .. } => Extent::Figures,
        Arguments { full: true, .. } => Extent::Full,
        _ => Extent::Default,
    }
}

fn tables(arguments: &Arguments, extent: Extent) -> Vec<Kind> {
    match (arguments.only.is_empty(), extent) {
        (false, _) => arguments.only.clone(),
        (true, Extent::Figures) => FIGURES.to_vec(),
        (true, _) => TABLES.to_vec(),
    }
}

fn peers(arguments: &Arguments, folder: &Path) -> Result<Vec<Peer>, Box<dyn Error>> {
    let named = |name: &str| Peer::named(name, folder);
    match (arguments.peers.is_empty(), arguments.figures) {
        (false, _) => arguments.peers.iter().map(|name| named(name)).collect(),
        (true, true) => peer::WITH_GOALS.into_iter().map(named).collect(),
        (true, false) => peer::NAMES.into_iter().map(named).collect(),
    }
}

fn print_conditions(bench: &Bench) {
    println!("# wingbeat beside its peers\n");
    println!("Ratios are wingbeat / peer: CPU below 1 and throughput above 1 are in wingbeat's favour.\n");
    println!(
        "* {} rounds of {:?}, every server once in each; medians, intervals by bootstrap",
        bench.pairs, bench.duration
    );
    println!("* server on core {}, client (on epoll) on core {}, loopback", process::SERVER_CORE, process::CLIENT_CORE);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    println!("* Linux {}, {}", kernel.trim(), model.trim_start_matches([' ', '\t', ':']));
    let versions = VERSIONED.iter().filter_map(|name| Some(format!("{name} {}", locked_version(name)?)));
    println!("* uWebSockets 20.58, {}", versions.collect::<Vec<_>>().join(", "));
    if bench.pairs < CLAIM_PAIRS {
        println!("* **Fewer than {CLAIM_PAIRS} rounds: a look, not a claim.**");
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
        match self.extent {
            Extent::Figures => report::figures_head("Echo, per message"),
            _ => report::echo_head("Echo", "connections x depth, payload"),
        }
        for echo in scenario::echoes(self.extent) {
            let load = format!("{} x {}, {} B", echo.connections, echo.depth, echo.payload);
            let rounds = self.bench.echo(&self.peers, echo);
            self.messages("echo", &load, &rounds, |peer| scenario::echo_goal(peer, echo));
        }
    }

    fn fanout(&mut self) {
        match self.extent {
            Extent::Figures => report::figures_head("Fan-out, 64 B, per delivery"),
            _ => report::echo_head("Fan-out, 64 B, per delivery", "subscribers x burst"),
        }
        for fanout in scenario::fanouts(self.extent) {
            let load = format!("{} x {}", fanout.subscribers, fanout.burst);
            let rounds = self.bench.fanout(&self.with_topics(), fanout);
            self.messages("fanout", &load, &rounds, |peer| scenario::fanout_goal(peer, fanout));
        }
    }

    /// Rows of echo or fan-out: one per driver where only the goals count, else one per driver and peer.
    fn messages(&mut self, kind: &str, load: &str, rounds: &Rounds<Run>, goal: impl Fn(&str) -> Option<f64>) {
        if self.extent != Extent::Figures {
            self.rows(kind, load, rounds, |peer, driver, pairs| {
                report::echo_row(load, peer, driver, pairs, goal(peer))
            });
            return;
        }
        self.keep(kind, load, rounds);
        for (driver, _) in &rounds.ours {
            let floor = rounds.peers.iter().find(|(peer, _)| peer.floor_of == Some(*driver));
            let floor = floor.map_or("", |(peer, _)| peer.name);
            let (beside_floor, beside_uws) = (rounds.pairs(floor, *driver), rounds.pairs("uws", *driver));
            let (floor, uws) = ((beside_floor.as_deref(), goal(floor)), (beside_uws.as_deref(), goal("uws")));
            report::figures_row(load, *driver, floor, uws);
        }
    }

    fn memory(&mut self) {
        let (few, many) = scenario::memory_counts(self.extent);
        report::memory_head(few, many);
        let rounds = self.bench.memory(&self.without_floors(), (few, many));
        self.rows("memory", "bytes per idle connection", &rounds, |peer, driver, pairs| {
            report::memory_row(peer, driver, pairs, scenario::MEMORY_GOAL_BYTES);
        });
    }

    fn handshake(&mut self) {
        report::handshake_head();
        let rounds = self.bench.handshake(&self.without_floors());
        self.rows("handshake", "opening handshakes", &rounds, |peer, driver, pairs| {
            report::handshake_row(peer, driver, pairs, scenario::handshake_goal(peer));
        });
    }

    fn publish(&mut self) {
        let subscribers = scenario::publish_subscribers(self.extent);
        report::publish_head(subscribers);
        let rounds = self.bench.publish(&self.with_topics(), subscribers);
        self.rows("publish", &format!("{subscribers} subscribers"), &rounds, |peer, driver, pairs| {
            report::publish_row(peer, driver, pairs, subscribers, scenario::PUBLISH_GOAL);
        });
    }

    fn with_topics(&self) -> Vec<Peer> {
        self.peers.iter().filter(|peer| peer.topics).cloned().collect()
    }

    /// Where the floors have no goal, they are not measured for the figures.
    fn without_floors(&self) -> Vec<Peer> {
        let is_wanted = |peer: &&Peer| self.extent != Extent::Figures || peer.floor_of.is_none();
        self.peers.iter().filter(is_wanted).cloned().collect()
    }

    /// Keeps the runs and prints a row per peer and driver.
    fn rows<T: Copy + Into<Value>>(
        &mut self,
        kind: &str,
        load: &str,
        rounds: &Rounds<T>,
        print_row: impl Fn(&str, Driver, &[Pair<T>]),
    ) {
        self.keep(kind, load, rounds);
        for (peer, _) in &rounds.peers {
            for (driver, _) in rounds.ours.iter().filter(|(driver, _)| peer.is_beside(*driver)) {
                if let Some(pairs) = rounds.pairs(peer.name, *driver) {
                    print_row(peer.name, *driver, &pairs);
                }
            }
        }
    }

    /// Keeps the runs, and says which servers failed: that does not end a measurement of hours.
    fn keep<T: Copy + Into<Value>>(&mut self, kind: &str, load: &str, rounds: &Rounds<T>) {
        let peers = rounds.peers.iter().map(|(peer, series)| (peer.name.to_owned(), series));
        let ours = rounds.ours.iter().map(|(driver, series)| (format!("wingbeat {}", driver.name()), series));
        for (server, series) in peers.chain(ours) {
            let runs: Vec<Value> = series.runs.iter().map(|run| (*run).into()).collect();
            self.runs.push(json!({ "kind": kind, "load": load, "server": server, "runs": runs }));
            if let Some(error) = &series.failure {
                report::failed_row(load, &server);
                eprintln!("peers: {kind}, {load}, {server}: {error}");
                self.failures += 1;
            }
        }
    }
}
