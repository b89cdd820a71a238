//! The command line. What it means is decided here; whether it fits together, by the part that uses it.
#![forbid(unsafe_code)]

use crate::units::{parse_duration, parse_positive_duration, parse_rate, parse_size};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;
use wingbeat::engine::Limits;

/// A real-time server engine: a WebSocket server with topics, and a load tool for any WebSocket server.
///
/// Sizes are bytes or KiB, MiB, GiB; times carry their unit: 500ms, 10s, 2m.
#[derive(Debug, Parser)]
#[command(name = "wingbeat", version, disable_help_subcommand = true, arg_required_else_help = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a chat at /, channels at /socket (chat:*, room:*), /echo, /topics?topic=NAME, /publish?topic=NAME, /healthz
    Serve(ServeArgs),
    /// Put load on a WebSocket server and measure it
    Load(Box<LoadArgs>),
    /// Serve, put load on it, and show messages per second and latency until Ctrl-C
    Demo(DemoArgs),
    /// Write a small project to begin with: a page, an API, and a socket with a channel
    New(NewArgs),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// Where to listen: IP:PORT, [IPV6]:PORT or unix:PATH; may be given more than once
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    pub(crate) bind: Vec<String>,
    /// Worker threads [default: CPUs this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Kernel interface that moves the bytes
    #[arg(long, value_enum, default_value_t = DriverChoice::Auto)]
    pub(crate) driver: DriverChoice,
    /// Largest message accepted, inclusive
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    pub(crate) max_message: usize,
    /// Connections at once, all workers together; beyond them 503
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    pub(crate) max_connections: usize,
    /// Microseconds to look for work before sleeping, 0 for never [default: adaptive]
    #[arg(long, value_name = "N")]
    pub(crate) spin_us: Option<u32>,
    /// What happens to a connection that reads more slowly than its topics bring
    #[arg(long, value_enum, default_value_t = SlowConsumer::Disconnect)]
    pub(crate) slow_consumer: SlowConsumer,
    /// Give each worker its own descriptor table, so that together they pass RLIMIT_NOFILE
    #[arg(long)]
    pub(crate) own_fd_table: bool,
    /// Share the port with other processes that ask for it too (SO_REUSEPORT)
    #[arg(long)]
    pub(crate) reuse_port: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DriverChoice {
    /// The one that measured best so far, which is epoll
    Auto,
    /// epoll, through mio
    Epoll,
    /// io_uring
    Uring,
}

impl From<DriverChoice> for wingbeat::driver::DriverChoice {
    fn from(choice: DriverChoice) -> Self {
        match choice {
            DriverChoice::Auto => Self::Auto,
            DriverChoice::Epoll => Self::Epoll,
            DriverChoice::Uring => Self::Uring,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SlowConsumer {
    /// Close it with 1013
    Disconnect,
    /// Drop what does not fit
    DropNewest,
    /// Drop what waits longest
    DropOldest,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// What to do
    #[arg(value_enum)]
    pub(crate) mode: Mode,
    /// ws://HOST[:PORT][/PATH] or ws+unix:SOCKET[:/PATH]; in channels the mount, without /websocket
    pub(crate) url: String,
    /// Connections; in fanout those that publish [default: 50, in fanout 1]
    #[arg(short, long, value_name = "N")]
    pub(crate) connections: Option<NonZeroU32>,
    /// Threads [default: half the CPUs, and as many as the connections need descriptor tables]
    #[arg(short, long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Kernel interface that moves the bytes
    #[arg(long, value_enum, default_value_t = DriverChoice::Auto)]
    pub(crate) driver: DriverChoice,
    /// How long to measure, after the warm-up
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = parse_positive_duration)]
    pub(crate) duration: Duration,
    /// Messages per second in total, on a schedule that does not wait for answers (open loop); 0.02 is one in 50 s
    #[arg(short, long, value_name = "N", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    /// Messages in flight per connection; of broadcasts the burst [default: 1; for answers with --rate: 1024, or 256KiB]
    #[arg(short, long, value_name = "D")]
    pub(crate) pipeline: Option<NonZeroU32>,
    /// Bytes of a message; in channels of the string in its payload
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = parse_size)]
    pub(crate) payload: usize,
    /// Send binary messages instead of text
    #[arg(long)]
    pub(crate) binary: bool,
    /// How long to run before measuring
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub(crate) warmup: Duration,
    /// A header of the opening handshake, "Name: value"; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// A subprotocol to offer; may be given more than once
    #[arg(long = "subprotocol", value_name = "NAME")]
    pub(crate) subprotocols: Vec<String>,
    /// Addresses to connect from, 127.0.0.1 and the N-1 after it [default on loopback: one per 4,000 connections]
    #[arg(long, value_name = "N")]
    pub(crate) source_addresses: Option<NonZeroU32>,
    /// Process to watch for CPU time and memory
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<NonZeroU32>,
    /// Write the result as JSON; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the result as a web page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// fanout: connections that receive [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) subscribers: Option<NonZeroU32>,
    /// fanout: where the publishers connect [default: URL]
    #[arg(long, value_name = "URL")]
    pub(crate) publish_url: Option<String>,
    #[command(flatten)]
    pub(crate) channels: ChannelArgs,
}

/// Flags of the mode `channels`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Options of channels")]
pub(crate) struct ChannelArgs {
    /// What the clients do once they have joined [default: reply]
    #[arg(long, value_enum)]
    pub(crate) traffic: Option<Traffic>,
    /// Topics that the clients are spread over [default: 1]
    #[arg(long, value_name = "K")]
    pub(crate) topics: Option<NonZeroU32>,
    /// What the topics are called, before their number [default: room:]
    #[arg(long, value_name = "TEXT")]
    pub(crate) topic_prefix: Option<String>,
    /// Event that the server answers; if the answer has `data`, it has to be that of the push [default: echo]
    #[arg(long, value_name = "EVENT")]
    pub(crate) reply_event: Option<String>,
    /// Event that the server broadcasts to the whole topic, sender included [default: shout]
    #[arg(long, value_name = "EVENT")]
    pub(crate) broadcast_event: Option<String>,
    /// Version of the wire format, 1.0.x or 2.0.x [default: 2.0.0]
    #[arg(long, value_name = "VERSION")]
    pub(crate) vsn: Option<String>,
    /// Time between two heartbeats of a connection [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_positive_duration)]
    pub(crate) heartbeat: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Traffic {
    /// Every client pushes and awaits the reply
    Reply,
    /// One client per topic pushes what all clients of the topic get
    Broadcast,
    /// Both at once; a rate is split evenly
    Both,
    /// Nothing but heartbeats
    None,
}

impl Traffic {
    /// Whether pushes are replied to.
    pub(crate) fn has_replies(self) -> bool {
        matches!(self, Traffic::Reply | Traffic::Both)
    }

    /// Whether pushes are broadcast.
    pub(crate) fn has_broadcasts(self) -> bool {
        matches!(self, Traffic::Broadcast | Traffic::Both)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Send messages and time their echoes
    Echo,
    /// Publish messages and time them at each subscriber
    Fanout,
    /// Hold connections that do nothing
    Idle,
    /// Connect, close, and again: opening handshakes per second
    Connect,
    /// Join Phoenix channels, and time replies to pushes, or broadcasts
    Channels,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// End after this long [default: at Ctrl-C]
    #[arg(short, long, value_name = "TIME", value_parser = parse_positive_duration)]
    pub(crate) duration: Option<Duration>,
    /// Connections that send messages and get them back
    #[arg(short, long, value_name = "N", default_value = "50")]
    pub(crate) connections: NonZeroU32,
    /// Connections that subscribe to one topic
    #[arg(long, value_name = "N", default_value = "100")]
    pub(crate) subscribers: NonZeroU32,
    /// Worker threads [default: CPUs this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Bytes of a message
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = parse_size)]
    pub(crate) payload: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct NewArgs {
    /// The project: its crate, and its directory below this one
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Use the crate wingbeat in this directory instead of a published version [default: the checkout of `cargo run`]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) path: Option<PathBuf>,
}

/// A choice as it is written on the command line and in the JSON.
pub(crate) fn name_of(choice: impl ValueEnum) -> String {
    choice.to_possible_value().expect("no choice is hidden").get_name().to_owned()
}

/// Why there is no command to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoCommand {
    /// Help or the version was asked for: print it, exit 0.
    Asked(String),
    /// A flag is wrong: print this one line, exit 2.
    Wrong(String),
}

/// Reads the command line.
///
/// # Errors
/// [`NoCommand`], whose text is ready to print.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, NoCommand> {
    Cli::try_parse_from(arguments).map_err(|error| {
        let text = error.render().to_string();
        if error.use_stderr() { NoCommand::Wrong(one_line(&text)) } else { NoCommand::Asked(text) }
    })
}

/// clap explains an error in paragraphs; the first says what is wrong.
fn one_line(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or(text);
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Command, NoCommand> {
        let words = std::iter::once("wingbeat").chain(line.split_whitespace());
        parse(words.map(OsString::from)).map(|cli| cli.command)
    }

    fn load(line: &str) -> LoadArgs {
        match parse_words(line) {
            Ok(Command::Load(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_has_its_defaults_and_flags() {
        let Ok(Command::Serve(args)) = parse_words("serve") else { panic!() };
        assert_eq!(args.bind, ["127.0.0.1:4000"]);
        assert_eq!((args.workers, args.driver, args.max_message), (None, DriverChoice::Auto, 1 << 20));
        assert_eq!((args.spin_us, args.slow_consumer), (None, SlowConsumer::Disconnect));
        assert_eq!(args.max_connections, 1_000_000);
        assert!(!args.own_fd_table && !args.reuse_port);
        let Ok(Command::Serve(args)) = parse_words(
            "serve --bind 0.0.0.0:1 --bind unix:/run/a --workers 3 --driver epoll --max-message 16MiB --spin-us 0 \
             --slow-consumer drop-oldest --own-fd-table --reuse-port",
        ) else {
            panic!()
        };
        assert_eq!(args.bind, ["0.0.0.0:1", "unix:/run/a"]);
        assert_eq!(args.workers.map(NonZeroUsize::get), Some(3));
        assert_eq!((args.max_message, args.spin_us), (16 << 20, Some(0)));
        assert_eq!((args.driver, args.slow_consumer), (DriverChoice::Epoll, SlowConsumer::DropOldest));
        assert!(args.own_fd_table && args.reuse_port);
    }

    #[test]
    fn load_has_its_defaults_and_flags() {
        let args = load("load echo ws://h/echo");
        assert_eq!((args.mode, args.url.as_str()), (Mode::Echo, "ws://h/echo"));
        assert_eq!((args.duration, args.warmup), (Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((args.payload, args.binary, args.rate), (64, false, None));
        let args = load(
            "load fanout ws://h/t -c 2 -t 3 -d 500ms -r 1000 -p 16 --payload 1KiB --binary --warmup 0s -H A:b -H C:d \
             --subprotocol x --source-addresses 4 --server-pid 7 --json - --html r.html --subscribers 9 --publish-url ws://h/p",
        );
        assert_eq!((args.connections, args.subscribers), (NonZeroU32::new(2), NonZeroU32::new(9)));
        assert_eq!((args.rate, args.pipeline), (Some(1000.0), NonZeroU32::new(16)));
        assert_eq!((args.headers.len(), args.subprotocols.len(), args.payload), (2, 1, 1024));
        assert_eq!(args.json.unwrap().as_os_str(), "-");
        let args = load(
            "load channels ws://h/socket --traffic both --topics 3 --topic-prefix lobby: --reply-event ping \
             --broadcast-event new_msg --vsn 1.0.0 --heartbeat 5s",
        );
        let channels = args.channels;
        assert_eq!(
            (args.mode, channels.traffic, channels.topics),
            (Mode::Channels, Some(Traffic::Both), NonZeroU32::new(3))
        );
        assert_eq!((channels.topic_prefix.as_deref(), channels.vsn.as_deref()), (Some("lobby:"), Some("1.0.0")));
        assert_eq!(channels.heartbeat, Some(Duration::from_secs(5)));
    }

    #[test]
    fn demo_has_its_defaults() {
        let Ok(Command::Demo(args)) = parse_words("demo") else { panic!() };
        assert_eq!((args.duration, args.connections.get(), args.subscribers.get()), (None, 50, 100));
    }

    #[test]
    fn a_bad_flag_is_one_line() {
        for line in [
            "",
            "dance",
            "serve --nonsense",
            "serve --driver kqueue",
            "serve --max-message 1.5MiB",
            "serve --workers 0",
            "load echo",
            "load sing ws://h/",
            "load echo ws://h/ -d 10",
            "load echo ws://h/ -d 0s",
            "load echo ws://h/ -r 0",
            "load echo ws://h/ -r -1",
            "load echo ws://h/ -r inf",
            "load echo ws://h/ --server-pid me",
            "load channels ws://h/ --traffic loud",
            "load channels ws://h/ --topics 0",
        ] {
            match parse_words(line) {
                Err(NoCommand::Wrong(text)) => assert!(!text.contains('\n') && text.len() > 20, "{line}: {text}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        assert_eq!(
            parse_words("serve --max-message 1.5MiB").unwrap_err(),
            NoCommand::Wrong(
                "invalid value '1.5MiB' for '--max-message <SIZE>': a size is a number of bytes, or one with KiB, MiB or GiB"
                    .into()
            )
        );
    }

    #[test]
    fn help_is_not_an_error() {
        for line in ["--help", "serve --help", "load --help", "demo -h", "--version"] {
            assert!(matches!(parse_words(line), Err(NoCommand::Asked(_))), "{line}");
        }
    }
}
