//! What a run does: the command line, checked against itself and against what this machine allows.
#![forbid(unsafe_code)]

use super::phoenix::Version;
use super::stamp::{PUBLISHERS_MAX, STAMP_BYTES};
use super::target::{Destination, is_loopback_v4};
use crate::args::{ChannelArgs, LoadArgs, Mode, Traffic};
use crate::descriptors;
use crate::failure::Failure;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use wingbeat::driver::{Address, Chosen, DriverChoice};

/// Connections from one source address at most: beyond that the kernel scans long for a free port.
const CONNECTIONS_PER_SOURCE: u32 = 4_000;
/// Descriptors that a process or thread needs beside its connections, and beside [`DESCRIPTORS_PER_THREAD`].
const SPARE_DESCRIPTORS: u64 = 64;
/// Descriptors that each thread has open before any has a table of its own: its waker, and what that wakes. Every table
/// begins with a copy of them.
const DESCRIPTORS_PER_THREAD: u64 = 2;
/// Messages in flight per connection when a rate is given and no pipeline: the schedule decides, memory is bounded.
const OPEN_LOOP_IN_FLIGHT: u32 = 1_024;
/// Bytes in flight per connection at most, in the same case; one message always fits.
const OPEN_LOOP_BYTES: usize = 256 << 10;

/// Connections that are being made at once, by all threads together.
const CONNECTING_MAX: u32 = 4_096;
/// A server on a busy machine delivers no more slowly than this.
const DELIVERY_NS_MAX: u64 = 50_000;

/// A run that makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    /// Where connections go; in fanout the subscribers'.
    pub(crate) url: Destination,
    /// Where publishers connect, in fanout.
    pub(crate) publish_url: Option<Destination>,
    /// Connections; in fanout the publishers.
    pub(crate) connections: u32,
    /// Subscribers, in fanout; else 0.
    pub(crate) subscribers: u32,
    pub(crate) threads: u32,
    pub(crate) driver: Chosen,
    /// Whether each thread has a descriptor table of its own.
    pub(crate) own_fd_tables: bool,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    /// Messages per second of all connections together; none for a closed loop.
    pub(crate) rate: Option<f64>,
    /// Messages in flight per connection at most; in fanout the burst.
    pub(crate) pipeline: u32,
    /// Messages that a publisher sends at a time.
    pub(crate) burst: u32,
    pub(crate) payload: usize,
    pub(crate) binary: bool,
    /// How many source addresses connections are spread over; 0 leaves the source to the kernel.
    pub(crate) sources: u32,
    pub(crate) server_pid: Option<u32>,
    /// In channels.
    pub(crate) channels: Option<ChannelPlan>,
}

/// What is special to channels.
#[derive(Clone, Debug)]
pub(crate) struct ChannelPlan {
    pub(crate) traffic: Traffic,
    /// Client number `n` joins topic number `n % topics`; the first in each topic is the one that broadcasts.
    pub(crate) topics: u32,
    pub(crate) topic_prefix: String,
    pub(crate) reply_event: String,
    pub(crate) broadcast_event: String,
    /// As given; `version` is what it means.
    pub(crate) vsn: String,
    pub(crate) version: Version,
    pub(crate) heartbeat: Duration,
}

/// What this machine allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// CPUs that this process may use.
    pub(crate) cpus: u32,
    /// Descriptors in one table.
    pub(crate) descriptors: u64,
}

impl Machine {
    /// Looks, after it raised the soft limit of descriptors to the hard one.
    pub(crate) fn here() -> Machine {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Machine { cpus, descriptors: descriptors::raise_limit().unwrap_or(1 << 20) }
    }
}

impl Plan {
    /// Checks a command line, and fills in what depends on the mode and the machine.
    ///
    /// # Errors
    /// [`Failure::Usage`] if flags contradict each other, [`Failure::Failed`] if the name does not resolve.
    pub(crate) fn new(args: &LoadArgs, machine: Machine) -> Result<Plan, Failure> {
        refuse_foreign_flags(args)?;
        let channels = (args.mode == Mode::Channels).then(|| ChannelPlan::new(&args.channels)).transpose()?;
        let url = match &channels {
            Some(channels) => destination(&websocket_url(&args.url, &channels.vsn), args)?,
            None => destination(&args.url, args)?,
        };
        let fanout = args.mode == Mode::Fanout;
        let publish_url = match &args.publish_url {
            Some(text) => Some(destination(text, args)?),
            None => fanout.then(|| url.clone()),
        };
        let stamped = fanout || channels.as_ref().is_some_and(|channels| channels.traffic.has_broadcasts());
        if stamped && args.payload < STAMP_BYTES {
            return Err(Failure::usage(format!(
                "--payload must be at least {STAMP_BYTES} if it is published: each message carries its stamp"
            )));
        }
        let pipeline = pipeline(args);
        let in_flight = args.payload.saturating_add(MESSAGE_OVERHEAD).saturating_mul(pipeline as usize);
        if in_flight > IN_FLIGHT_BYTES_MAX {
            return Err(Failure::usage("--payload times --pipeline is 64MiB at most: each connection holds that much"));
        }
        let connections = args.connections.map_or(if fanout { 1 } else { 50 }, |n| n.get());
        if stamped && connections > PUBLISHERS_MAX {
            return Err(Failure::usage(format!("--connections is {PUBLISHERS_MAX} at most if they publish")));
        }
        if channels.as_ref().is_some_and(|channels| channels.topics > connections) {
            return Err(Failure::usage("--topics is at most --connections: each topic needs a client"));
        }
        let subscribers = if fanout { args.subscribers.map_or(100, |n| n.get()) } else { 0 };
        let total = connections.saturating_add(subscribers);
        let (threads, own_fd_tables) = threads(args, machine, total)?;
        Ok(Plan {
            mode: args.mode,
            sources: sources(args, &url.resolve()?, total)?,
            url,
            publish_url,
            connections,
            subscribers,
            threads,
            driver: DriverChoice::resolve(args.driver.into()).map_err(|why| Failure::Failed(why.to_string()))?,
            own_fd_tables,
            warmup: if is_silent(args) { Duration::ZERO } else { args.warmup },
            duration: args.duration,
            rate: args.rate,
            pipeline,
            burst: args.pipeline.map_or(1, |burst| burst.get()),
            payload: args.payload,
            binary: args.binary,
            server_pid: args.server_pid.map(|pid| pid.get()),
            channels,
        })
    }

    /// Connections that publish: in fanout and channels the first ones.
    pub(crate) fn publishers(&self) -> u32 {
        match &self.channels {
            Some(channels) if channels.traffic.has_broadcasts() => channels.topics,
            None if self.mode == Mode::Fanout => self.connections,
            _ => 0,
        }
    }

    /// Whether messages go back and forth.
    pub(crate) fn has_messages(&self) -> bool {
        matches!(self.mode, Mode::Echo | Mode::Fanout)
            || self.channels.as_ref().is_some_and(|channels| channels.traffic != Traffic::None)
    }

    /// Messages per second that are replied to, and as many that are broadcast if there are both.
    pub(crate) fn rate_of_each_kind(&self) -> Option<f64> {
        let has_both = self.channels.as_ref().is_some_and(|channels| channels.traffic == Traffic::Both);
        self.rate.map(|rate| rate / if has_both { 2.0 } else { 1.0 })
    }

    /// Connections of all kinds.
    pub(crate) fn total(&self) -> u32 {
        self.connections + self.subscribers
    }

    /// Connections that each thread makes at once: few enough that all of them together fit into the queues of the server,
    /// and each is answered in time.
    pub(crate) fn connecting_max(&self) -> u32 {
        (CONNECTING_MAX / self.threads).clamp(8, 256)
    }

    /// How long one message may take to reach all subscribers before it counts as lost, in nanoseconds; not less than
    /// `least`.
    pub(crate) fn patience_ns(&self, least: u64) -> u64 {
        least + u64::from(self.subscribers) * DELIVERY_NS_MAX
    }

    /// How many of `count` things the thread `index` has: they are dealt in turn.
    pub(crate) fn share(&self, count: u32, index: u32) -> u32 {
        count / self.threads + u32::from(index < count % self.threads)
    }

    /// The addresses that connections come from, in turn; none if the kernel chooses.
    pub(crate) fn source_addresses(&self) -> Vec<IpAddr> {
        let first = Ipv4Addr::LOCALHOST.to_bits();
        (first..first + self.sources).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))).collect()
    }
}

/// Bytes in flight per connection at most: more is no test of a server any more, and two copies of it per connection
/// are no help to the client.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// What a message in flight takes beside its payload: a frame header, and when it was sent.
const MESSAGE_OVERHEAD: usize = 16;

impl ChannelPlan {
    fn new(args: &ChannelArgs) -> Result<ChannelPlan, Failure> {
        let or = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
        let vsn = or(&args.vsn, "2.0.0");
        let version = Version::named(&vsn)
            .ok_or_else(|| Failure::usage(format!("--vsn is 1.0.x or 2.0.x, not '{}'", vsn.escape_debug())))?;
        Ok(ChannelPlan {
            traffic: args.traffic.unwrap_or(Traffic::Reply),
            topics: args.topics.map_or(1, |topics| topics.get()),
            topic_prefix: or(&args.topic_prefix, "room:"),
            reply_event: or(&args.reply_event, "echo"),
            broadcast_event: or(&args.broadcast_event, "shout"),
            vsn,
            version,
            heartbeat: args.heartbeat.unwrap_or(HEARTBEAT),
        })
    }
}

/// As the official client has it.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Where the WebSockets of a mount are: `ws://h/socket?a=b` becomes `ws://h/socket/websocket?a=b&vsn=2.0.0`.
fn websocket_url(mount: &str, vsn: &str) -> String {
    let (path, query) =
        mount.split_once('?').map_or((mount, String::new()), |(path, query)| (path, format!("{query}&")));
    let path = path.trim_end_matches('/');
    // Of a Unix socket the path on the server may be missing.
    let colon = if path.strip_prefix("ws+unix:").is_some_and(|rest| !rest.contains(':')) { ":" } else { "" };
    format!("{path}{colon}/websocket?{query}vsn={vsn}")
}

/// Whether a run sends nothing (but heartbeats), so that there is nothing to warm up.
fn is_silent(args: &LoadArgs) -> bool {
    args.mode == Mode::Idle || args.channels.traffic == Some(Traffic::None)
}

const CHANNELS_ONLY: &str = "--traffic, --topics, --topic-prefix, --reply-event, --broadcast-event, --vsn and --heartbeat \
                             apply to channels only";

fn refuse_foreign_flags(args: &LoadArgs) -> Result<(), Failure> {
    let channels = args.mode == Mode::Channels;
    let binary = matches!(args.mode, Mode::Echo | Mode::Fanout);
    let messages = binary || channels && !is_silent(args);
    let foreign = [
        (!channels && args.channels != ChannelArgs::default(), CHANNELS_ONLY),
        (args.mode != Mode::Fanout && args.subscribers.is_some(), "--subscribers applies to fanout only"),
        (args.mode != Mode::Fanout && args.publish_url.is_some(), "--publish-url applies to fanout only"),
        (!messages && args.rate.is_some(), "--rate applies to echo, fanout and channels only"),
        (!messages && args.pipeline.is_some(), "--pipeline applies to echo, fanout and channels only"),
        (!binary && args.binary, "--binary applies to echo and fanout only"),
    ];
    match foreign.into_iter().find(|(given, _)| *given) {
        Some((_, text)) => Err(Failure::usage(text)),
        None => Ok(()),
    }
}

fn pipeline(args: &LoadArgs) -> u32 {
    match (args.pipeline, args.rate) {
        (Some(depth), _) => depth.get(),
        (None, Some(_)) if is_answered(args) => {
            let fitting = OPEN_LOOP_BYTES / args.payload.max(1);
            OPEN_LOOP_IN_FLIGHT.min(u32::try_from(fitting).unwrap_or(u32::MAX)).max(1)
        }
        (None, _) => 1,
    }
}

/// Whether messages have answers that each connection awaits.
fn is_answered(args: &LoadArgs) -> bool {
    match args.mode {
        Mode::Channels => args.channels.traffic.is_none_or(Traffic::has_replies),
        mode => mode == Mode::Echo,
    }
}

/// How many threads, and whether each needs its own descriptor table.
fn threads(args: &LoadArgs, machine: Machine, total: u32) -> Result<(u32, bool), Failure> {
    // In connect the next connection is made while the last is still closing.
    let descriptors = u64::from(total) * if args.mode == Mode::Connect { 2 } else { 1 };
    let Some(needed) = tables(descriptors, machine.descriptors) else {
        let limit = machine.descriptors;
        return Err(Failure::usage(format!("no number of --threads holds that many: a descriptor table has {limit}")));
    };
    let threads = match args.threads {
        None => (machine.cpus / 2).clamp(1, total).max(needed),
        Some(threads) => u32::try_from(threads.get()).unwrap_or(u32::MAX).min(total),
    };
    let per_table = per_table(threads, machine.descriptors);
    if u64::from(threads) * per_table < descriptors {
        return Err(Failure::usage(format!(
            "--threads must be at least {needed}: one descriptor table holds {per_table} connections"
        )));
    }
    Ok((threads, needed > 1))
}

/// Connections that fit into the descriptor table of each of so many threads.
fn per_table(threads: u32, limit: u64) -> u64 {
    limit.saturating_sub(SPARE_DESCRIPTORS + DESCRIPTORS_PER_THREAD * u64::from(threads)).max(1)
}

/// The smallest number of threads whose tables hold so many connections; none if no number does.
fn tables(connections: u64, limit: u64) -> Option<u32> {
    let most = u32::try_from(limit.saturating_sub(SPARE_DESCRIPTORS) / DESCRIPTORS_PER_THREAD / 2).unwrap_or(u32::MAX);
    // Beyond `most` each further thread takes more room than it brings.
    (1..=most.clamp(1, THREADS_MAX)).find(|&threads| u64::from(threads) * per_table(threads, limit) >= connections)
}

/// More threads than a machine starts.
const THREADS_MAX: u32 = 1 << 16;

fn sources(args: &LoadArgs, address: &Address, total: u32) -> Result<u32, Failure> {
    match (args.source_addresses, is_loopback_v4(address)) {
        (Some(_), false) => Err(Failure::usage("--source-addresses needs a URL with an address 127.x.x.x")),
        (Some(count), true) if count.get() > SOURCES_MAX => {
            Err(Failure::usage(format!("--source-addresses is {SOURCES_MAX} at most")))
        }
        (Some(count), true) => Ok(count.get()),
        // Each handshake leaves a port in TIME_WAIT for a minute: take all the addresses that could be of use.
        (None, true) if args.mode == Mode::Connect => Ok(CONNECT_SOURCES.max(total.div_ceil(CONNECTIONS_PER_SOURCE))),
        (None, true) if total > CONNECTIONS_PER_SOURCE => Ok(total.div_ceil(CONNECTIONS_PER_SOURCE)),
        (None, _) => Ok(0),
    }
}

/// 127.0.0.1 to 127.0.255.255.
const SOURCES_MAX: u32 = 65_535;
/// Source addresses of `connect` on loopback: 64 x 28,000 ports last a minute at 29,000 handshakes per second.
const CONNECT_SOURCES: u32 = 64;

fn destination(url: &str, args: &LoadArgs) -> Result<Destination, Failure> {
    let mut destination = Destination::parse(url)?;
    args.headers.iter().try_for_each(|line| destination.header(line))?;
    args.subprotocols.iter().try_for_each(|name| destination.subprotocol(name))?;
    Ok(destination)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::args::{Command, parse};
    use std::ffi::OsString;

    const MACHINE: Machine = Machine { cpus: 8, descriptors: 20_000 };

    /// The plan of `wingbeat load LINE`.
    pub(crate) fn plan(line: &str) -> Result<Plan, Failure> {
        let words = ["wingbeat", "load"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        let Ok(Command::Load(args)) = parse(words).map(|cli| cli.command) else { panic!("{line}") };
        Plan::new(&args, MACHINE)
    }

    #[test]
    fn defaults_depend_on_the_mode() {
        let echo = plan("echo ws://127.0.0.1/").unwrap();
        assert_eq!((echo.connections, echo.subscribers, echo.threads, echo.pipeline, echo.sources), (50, 0, 4, 1, 0));
        let fanout = plan("fanout ws://127.0.0.1/a").unwrap();
        assert_eq!((fanout.connections, fanout.subscribers, fanout.pipeline), (1, 100, 1));
        assert_eq!(fanout.publish_url.map(|url| url.url), Some(fanout.url.url));
        assert_eq!(plan("echo ws://127.0.0.1/ -r 10").unwrap().pipeline, OPEN_LOOP_IN_FLIGHT);
        assert_eq!(plan("echo ws://127.0.0.1/ -r 10 --payload 64KiB").unwrap().pipeline, 4);
        assert_eq!(plan("echo ws://127.0.0.1/ -r 10 -p 2").unwrap().pipeline, 2);
        assert_eq!(plan("echo ws://127.0.0.1/ --payload 1MiB -p 63").unwrap().pipeline, 63);
        assert_eq!(plan("fanout ws://127.0.0.1/ -r 10").unwrap().pipeline, 1);
        assert_eq!(plan("idle ws://127.0.0.1/ --warmup 5s").unwrap().warmup, Duration::ZERO);
        assert_eq!(plan("connect ws://127.0.0.1/").unwrap().sources, CONNECT_SOURCES);
        assert_eq!(plan("connect ws://[::1]/").unwrap().sources, 0);
    }

    #[test]
    fn channels_are_planned() {
        let reply = plan("channels ws://127.0.0.1/socket").unwrap();
        assert_eq!(reply.url.url, "ws://127.0.0.1/socket/websocket?vsn=2.0.0");
        assert_eq!((reply.connections, reply.subscribers, reply.pipeline, reply.publishers()), (50, 0, 1, 0));
        let channels = reply.channels.unwrap();
        assert_eq!((channels.traffic, channels.topics, channels.version), (Traffic::Reply, 1, Version::V2));
        assert_eq!(channels.heartbeat, Duration::from_secs(30));
        let both = plan("channels ws://127.0.0.1/a/?x=y --traffic both --topics 4 --vsn 1.0.7 -r 11").unwrap();
        assert_eq!(both.url.url, "ws://127.0.0.1/a/websocket?x=y&vsn=1.0.7");
        assert_eq!((both.publishers(), both.pipeline, both.burst), (4, OPEN_LOOP_IN_FLIGHT, 1));
        assert_eq!((both.rate_of_each_kind(), both.channels.unwrap().version), (Some(5.5), Version::V1));
        let broadcast = plan("channels ws://127.0.0.1/a --traffic broadcast -r 11").unwrap();
        assert_eq!((broadcast.pipeline, broadcast.rate_of_each_kind()), (1, Some(11.0)));
        let none = plan("channels ws+unix:/a.sock --traffic none --warmup 5s --payload 1").unwrap();
        assert_eq!(none.url.url, "ws+unix:/a.sock:/websocket?vsn=2.0.0");
        assert_eq!((none.warmup, none.has_messages()), (Duration::ZERO, false));
    }

    #[test]
    fn many_connections_get_tables_and_sources() {
        let small = plan("idle ws://127.0.0.1/ -c 4000 -t 1").unwrap();
        assert!(!small.own_fd_tables && small.source_addresses().is_empty());
        let large = plan("idle ws://127.0.0.1/ -c 200000").unwrap();
        assert!(large.own_fd_tables);
        assert_eq!((large.threads, large.sources), (11, 50));
        let sources = large.source_addresses();
        assert_eq!((sources[0].to_string(), sources[49].to_string()), ("127.0.0.1".into(), "127.0.0.50".into()));
        assert_eq!((0..11).map(|thread| large.share(200_000, thread)).sum::<u32>(), 200_000);
        assert!(large.share(200_000, 0) <= 20_000 - SPARE_DESCRIPTORS as u32);
        assert!(plan("idle ws://127.0.0.1/ -c 200000 -t 2").is_err());
        let wide = plan("idle ws://127.0.0.1/ -c 3 --source-addresses 300").unwrap();
        assert_eq!(wide.source_addresses()[299].to_string(), "127.0.1.44");
    }

    #[test]
    fn what_contradicts_itself_is_told() {
        for line in [
            "echo ws://127.0.0.1/ --subscribers 4",
            "echo ws://127.0.0.1/ --publish-url ws://127.0.0.1/",
            "idle ws://127.0.0.1/ -r 5",
            "connect ws://127.0.0.1/ -p 5",
            "connect ws://127.0.0.1/ --binary",
            "fanout ws://127.0.0.1/ --payload 15",
            "fanout ws://127.0.0.1/ --publish-url http://127.0.0.1/",
            "echo ws://127.0.0.1/ --payload 1GiB",
            "echo ws://127.0.0.1/ --payload 1MiB -p 64",
            "fanout ws://127.0.0.1/ --payload 1MiB -p 64",
            "echo ws://127.0.0.1/ --payload 0 -p 4294967295",
            "echo ws://127.0.0.1/ -H novalue",
            "echo ws://127.0.0.1/ -H :x",
            "idle ws+unix:/a --source-addresses 2",
            "idle ws://[::1]/ --source-addresses 2",
            "idle ws://127.0.0.1/ --source-addresses 65536",
            "echo ws://127.0.0.1/ --topics 2",
            "idle ws://127.0.0.1/ --traffic none",
            "channels ws://127.0.0.1/socket --vsn 3.0.0",
            "channels ws://127.0.0.1/socket --vsn 2.0.x",
            "channels ws://127.0.0.1/socket --binary",
            "channels ws://127.0.0.1/socket --subscribers 5",
            "channels ws://127.0.0.1/socket --topics 51",
            "channels ws://127.0.0.1/socket --traffic broadcast --payload 15",
            "channels ws://127.0.0.1/socket --traffic none -r 5",
        ] {
            assert!(matches!(plan(line), Err(Failure::Usage(_))), "{line}");
        }
    }
}
