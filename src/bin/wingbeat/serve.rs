//! `wingbeat serve`: starting it, and ending it.
#![forbid(unsafe_code)]

use crate::args::{ServeArgs, SlowConsumer};
use crate::chat;
use crate::descriptors;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::service::Service;
use std::io::{self, IsTerminal, Write};
use std::num::NonZero;
use std::thread;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use wingbeat::driver::{Address, DriverChoice};
use wingbeat::endpoint::{EndpointHandle, Mail};
use wingbeat::engine::{self, Config, Counters, Drain, Snapshot};
use wingbeat::{Running, Server};

/// Runs `wingbeat serve` until a signal.
///
/// # Errors
/// [`Failure`] if an address is none, cannot be listened on, or a worker could not go on.
pub(crate) fn serve(args: &ServeArgs, interrupt: Interrupt) -> Result<(), Failure> {
    start_log();
    descriptors::raise_limit();
    let running = start(args)?;
    tracing::info!("driver: {}", running.driver());
    announce(running.addresses()).map_err(|error| Failure::cannot("write standard output", error))?;
    if let Some(address) = running.tcp_address() {
        tracing::info!("a chat is at http://{address}/");
    }
    let handle = EndpointHandle::from(running.handle().clone());
    thread::spawn(move || {
        if let Err(error) = interrupt.wait() {
            tracing::error!(%error, "signals cannot be waited for: draining now");
        }
        tracing::info!("draining");
        handle.drain(Drain::default());
    });
    let handle = running.handle().clone();
    let ended = running.join();
    tell_closes(&handle.metrics());
    ended.map_err(|error| Failure::cannot("go on", error))
}

/// How the connections of this run ended, and how many did not.
fn tell_closes(metrics: &Snapshot) {
    let closes = metrics.closes.iter().map(|((code, cause), count)| format!("{count} with {code} ({cause})"));
    let closes = closes.collect::<Vec<_>>().join(", ");
    let Counters { opened, refused, accept_exhausted, .. } = metrics.counters;
    tracing::info!("{opened} connections were opened, closed: {}", if closes.is_empty() { "none" } else { &closes });
    if refused > 0 || accept_exhausted > 0 {
        tracing::warn!(
            "{refused} were refused at a limit, accepting stopped {accept_exhausted} times for want of descriptors"
        );
    }
}

/// Starts the workers and returns as soon as all of them listen.
///
/// # Errors
/// [`Failure`] if an address is none, or cannot be listened on.
pub(crate) fn start(args: &ServeArgs) -> Result<Running<Mail>, Failure> {
    let addresses = args.bind.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
    let is_repeated = |at: &usize| is_named(&addresses[*at]) && addresses[..*at].contains(&addresses[*at]);
    if let Some(at) = (0..addresses.len()).find(is_repeated) {
        return Err(Failure::usage(format!("--bind {} is given twice", addresses[at])));
    }
    let config = config(args)?;
    let driver = args.driver.into();
    if let Err(why) = DriverChoice::resolve(driver) {
        return Err(Failure::Failed(format!("{why}; use --driver epoll or auto")));
    }
    let cannot = |error: io::Error| Failure::cannot(format!("listen on {}", args.bind.join(", ")), error);
    let (first, others) = addresses.split_first().ok_or_else(|| Failure::usage("--bind is missing"))?;
    let mut server = Server::bind(first).map_err(cannot)?.driver(driver).config(config);
    for other in others {
        server = server.listen(other).map_err(cannot)?;
    }
    if let Some(workers) = args.workers {
        server = server.workers(workers.get());
    }
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    if args.spin_us.is_some_and(|micros| micros > 0) && args.workers.map_or(cpus, NonZero::get) >= cpus {
        tracing::warn!("--spin-us is not used: it takes fewer workers than CPUs, which are {cpus}");
    }
    let endpoint = chat::endpoint(config.limits.message_bytes).handlers().map_err(cannot)?;
    server.spawn_with(move |worker, handle| Service::new(endpoint(worker, handle))).map_err(cannot)
}

/// Whether an address names one place: each port 0 becomes a port of its own.
fn is_named(address: &Address) -> bool {
    !matches!(address, Address::Tcp(address) if address.port() == 0)
}

fn address(text: &str) -> Result<Address, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("invalid value '{text}' for '--bind <ADDRESS>': {error}")))
}

fn config(args: &ServeArgs) -> Result<Config, Failure> {
    let mut config = Config::default();
    config.limits.message_bytes =
        u32::try_from(args.max_message).map_err(|_| Failure::usage("--max-message must be less than 4GiB"))?;
    config.limits.connections = args.max_connections;
    if let Some(micros) = args.spin_us {
        config.spin = Duration::from_micros(micros.into());
    }
    config.slow_consumer = match args.slow_consumer {
        SlowConsumer::Disconnect => engine::SlowConsumer::Disconnect,
        SlowConsumer::DropNewest => engine::SlowConsumer::DropNewest,
        SlowConsumer::DropOldest => engine::SlowConsumer::DropOldest,
    };
    config.own_descriptor_table = args.own_fd_table;
    config.reuse_port = args.reuse_port;
    Ok(config)
}

/// One line per listener, for whoever waits for the server to be ready.
fn announce(addresses: &[Address]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    addresses.iter().try_for_each(|address| writeln!(out, "listening on {address}"))?;
    out.flush()
}

/// `RUST_LOG` chooses what is logged; else what concerns the server, not every client that comes and joins.
fn start_log() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,wingbeat::endpoint=warn,wingbeat::channels=warn"));
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    log.with_target(false).with_env_filter(filter).init();
}
