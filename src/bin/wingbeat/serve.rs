//! `wingbeat serve`: echo, topics, and a health check.
#![forbid(unsafe_code)]

use crate::args::{ServeArgs, SlowConsumer};
use crate::descriptors;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::routes::Route;
use slab::Slab;
use std::io::{self, IsTerminal, Write};
use std::num::NonZero;
use std::thread;
use std::time::Duration;
use wingbeat::driver::{Address, DriverChoice};
use wingbeat::engine::{self, Config, Drain};
use wingbeat::{
    Answer, CloseCode, CloseReason, Conn, Handler, Message, Never, Request, Response, Running, Scope, Server, Upgrade,
};

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
    let handle = running.handle().clone();
    thread::spawn(move || {
        if let Err(error) = interrupt.wait() {
            tracing::error!(%error, "signals cannot be waited for: draining now");
        }
        tracing::info!("draining");
        handle.drain(Drain::default());
    });
    running.join().map_err(|error| Failure::cannot("go on", error))
}

/// Starts the workers and returns as soon as all of them listen.
///
/// # Errors
/// [`Failure`] if an address is none, or cannot be listened on.
pub(crate) fn start(args: &ServeArgs) -> Result<Running<Never>, Failure> {
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
    server.spawn(|_worker| Service::default()).map_err(cannot)
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

fn start_log() {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).init();
}

/// What `serve` does with connections: one per worker.
#[derive(Debug, Default)]
struct Service {
    /// Topic names of the connections that have one. They are here so that the others pay nothing for it.
    names: Slab<Box<str>>,
}

/// What a connection is for.
#[derive(Debug)]
enum Role {
    Echo,
    /// Subscribed to the topic under this key, and publishes to it.
    Member(u32),
    /// Publishes to the topic under this key.
    Publisher(u32),
}

// It is kept for every connection.
const _: () = assert!(size_of::<Option<Role>>() == 8);

impl Service {
    fn keep(&mut self, name: &str) -> u32 {
        self.names.insert(name.into()) as u32
    }
}

impl Handler for Service {
    type State = Role;
    type Mail = Never;

    fn upgrade(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Upgrade<Role> {
        match Route::of(request.path(), request.query()) {
            Route::Echo => Upgrade::Accept(Role::Echo),
            Route::Topics(name) => Upgrade::Accept(Role::Member(self.keep(&name))),
            Route::Publish(name) => Upgrade::Accept(Role::Publisher(self.keep(&name))),
            Route::BadTopic => Upgrade::Reject(bad_topic()),
            // A server may ignore an upgrade that it does not want, and answer (RFC 9110 §7.8).
            Route::Health => Upgrade::Reject(healthy()),
            Route::Unknown => Upgrade::Reject(Response::not_found()),
        }
    }

    fn request(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Answer {
        let response = match Route::of(request.path(), request.query()) {
            Route::Unknown => Response::not_found(),
            _ if !matches!(request.method(), "GET" | "HEAD") => Response::new(405).header("Allow", "GET, HEAD"),
            Route::Health => healthy(),
            Route::BadTopic => bad_topic(),
            Route::Echo | Route::Topics(_) | Route::Publish(_) => Response::upgrade_required(),
        };
        response.into()
    }

    fn open(&mut self, conn: &mut Conn<'_>, role: &mut Role) {
        if let Role::Member(key) = role
            && let Err(error) = conn.subscribe(&self.names[*key as usize])
        {
            tracing::warn!(%error, "a subscription was refused");
            conn.close(CloseCode::TRY_AGAIN_LATER, "no room for this topic");
        }
    }

    fn message(&mut self, conn: &mut Conn<'_>, role: &mut Role, message: Message<'_>) {
        match role {
            Role::Echo => {
                conn.send(message);
            }
            Role::Member(key) | Role::Publisher(key) => {
                conn.publish(&self.names[*key as usize], message);
            }
        }
    }

    fn close(&mut self, _: &mut Scope<'_>, role: Role, _: CloseReason) {
        if let Role::Member(key) | Role::Publisher(key) = role {
            self.names.remove(key as usize);
        }
    }
}

fn healthy() -> Response {
    Response::text(200, "ok\n")
}

fn bad_topic() -> Response {
    Response::text(400, "?topic=NAME is needed: 1 to 255 bytes of UTF-8, percent-encoded\n")
}
