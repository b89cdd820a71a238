//! Limits, budgets and sizes of a worker: every number that bounds something, with its default and unit.
#![forbid(unsafe_code)]

use crate::{buffer::FrameSlabConfig, driver::DriverConfig, proto::handshake::RequestLimits};
use std::time::Duration;

/// What happens to a connection that does not take what its topics bring.
///
/// Judged after the flush attempt, on what the kernel refused, once more than [`Limits::outbox_high`] bytes wait.
/// Replies of the handler and control frames are never dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// Close it with 1013 (try again later).
    #[default]
    Disconnect,
    /// Keep what waits, drop what comes.
    DropNewest,
    /// Drop what has waited longest, keep what comes: the newest always.
    DropOldest,
    /// Of publications with the same topic and key ([`Scope::publish_keyed`](super::Scope::publish_keyed)) keep the newest
    /// alone. If that is still too much, close with 1013. For state that is superseded: prices, positions.
    Conflate,
}

/// Numbers that are enforced. Each has a consequence that the peer or the caller sees.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message, inclusive. Beyond: close 1009. Default 1 MiB.
    pub message_bytes: u32,
    /// Fragments of one message that are free of the next rule. Default 1,024.
    pub fragments_free: u32,
    /// Bytes that further fragments must carry on average. Below: close 1008. Default 32.
    pub fragment_bytes_min: u32,
    /// Bytes of a request head. Beyond: 431. Default 8 KiB.
    pub request_bytes: u32,
    /// Header fields of a request (64 at most). Beyond: 431. Default 64.
    pub request_headers: u16,
    /// Bytes of the body of a plain request, if the handler's [`body_limit`](super::Handler::body_limit) does not say
    /// otherwise. Beyond: 413. Default 1 MiB.
    pub body_bytes: u32,
    /// Time for the opening handshake, from accept or connect, and for each later request head, from its first byte.
    /// Beyond: 408, or a failed connect. Default 5 s.
    pub handshake_timeout: Duration,
    /// Time for the body of a plain request, from its head. Beyond: 408. Default 15 s.
    pub body_timeout: Duration,
    /// Time between an answer and the next request of its connection. Beyond: closed without a word. Zero: a connection
    /// serves one plain request. Default 60 s.
    pub keep_alive_timeout: Duration,
    /// Time for the answer to a request that was put off ([`Answer::Later`](super::Answer::Later)). Beyond: 503.
    /// Default 30 s.
    pub answer_timeout: Duration,
    /// Time without a byte from the peer. A ping is sent at two thirds; at the end: close 1001. Zero: off. Default 60 s.
    pub idle_timeout: Duration,
    /// Time for the closing handshake, then again for the peer to close, each counted from when the peer last took a part
    /// of what was queued before. Beyond: the socket is closed. Default 5 s.
    pub close_timeout: Duration,
    /// Time in which a peer must take something of what waits for it: a byte is enough, as far as the kernel tells
    /// (epoll does when a third of the socket's send buffer is free). Beyond, and within twice of it: close 1013.
    /// Default 30 s.
    pub stall_timeout: Duration,
    /// Bytes waiting for one connection above which its receiving pauses and [`SlowConsumer`] is judged. Default 64 KiB.
    pub outbox_high: u32,
    /// Bytes waiting below which receiving resumes and `writable` is called. Default 16 KiB.
    pub outbox_low: u32,
    /// Bytes of all frames of a worker. Beyond: publications are refused ([`Published::refused`](super::Published)), and
    /// the connections that hold most are closed with 1013. Default 256 MiB.
    pub frame_bytes: usize,
    /// Bytes of publications that a worker has yet to hand to all their subscribers, above which it does not read from
    /// connections that publish, nor take mail, until half is handed out. Default 1 MiB.
    pub owed_bytes: usize,
    /// Connections of the server, all workers together. Beyond: 503. Default 1,000,000.
    pub connections: usize,
    /// Connections from one IP address, all workers together. Beyond: 503. Default 0: off.
    pub connections_per_ip: u32,
    /// Mail that waits for one worker, in messages; beyond it goes to the overflow. Default 4,096.
    pub mail_messages: usize,
    /// Bytes of mail that waits for one worker: of the first [`Limits::mail_messages`] what is above 1 KiB each, of the
    /// overflow all. Beyond: the sender gets [`Full`](super::Full); a message that is larger than all this passes where
    /// no other counts. Default 4 MiB.
    pub mail_overflow_bytes: usize,
    /// Topics that one connection is subscribed to. Beyond: an error to the caller. Default 1,024.
    pub subscriptions: u32,
    /// Listeners of one worker ([`Scope::listen`](super::Scope::listen)). Beyond: an error to the caller. Default 100,000.
    pub listeners: u32,
    /// Topics of one worker. Beyond: an error to the caller. Default 1,048,576.
    pub topics: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes: 1 << 20,
            fragments_free: 1024,
            fragment_bytes_min: 32,
            request_bytes: 8 << 10,
            request_headers: 64,
            body_bytes: 1 << 20,
            handshake_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(15),
            keep_alive_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            outbox_high: 64 << 10,
            outbox_low: 16 << 10,
            frame_bytes: 256 << 20,
            owed_bytes: 1 << 20,
            connections: 1_000_000,
            connections_per_ip: 0,
            mail_messages: 4096,
            mail_overflow_bytes: 4 << 20,
            subscriptions: 1024,
            listeners: 100_000,
            topics: 1 << 20,
        }
    }
}

impl Limits {
    pub(crate) fn request(&self) -> RequestLimits {
        RequestLimits { max_bytes: self.request_bytes, max_headers: self.request_headers.min(64) }
    }
}

/// How much one turn of a worker does at most, so that its length is bounded whatever comes in.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Messages taken from other threads per turn. Default 1,024.
    pub mail: usize,
    /// Deliveries of publications per turn (a joined burst counts as one per subscriber), or as many as there were
    /// receives, if those are more: so that neither replies nor publications starve the other. The rest is owed to
    /// the next turn. A delivery costs about 4 us of system call, a turn 0.5 us: the default of 32 keeps replies within
    /// about 150 us of a publication to any number of subscribers, at 0.3 % of its cost. Default 32.
    pub deliveries: u32,
    /// Timers fired per turn. Default 1,024.
    pub timers: u32,
    /// Sends tried per connection and turn. Default 8.
    pub sends: u32,
}

impl Default for Budgets {
    fn default() -> Self {
        Budgets { mail: 1024, deliveries: 32, timers: 1024, sends: 8 }
    }
}

/// Everything a worker is built from.
///
/// Values that would stop a worker for ever are raised or cut when it is made: budgets, driver sizes,
/// [`Limits::outbox_high`] and [`Limits::mail_messages`] are at least 1, [`Limits::outbox_low`] at most the high mark.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Enforced numbers.
    pub limits: Limits,
    /// Work per turn.
    pub budgets: Budgets,
    /// Buffers and budgets of the driver.
    pub driver: DriverConfig,
    /// Frames made ready at start.
    pub frames: FrameSlabConfig,
    /// What a slow consumer meets.
    pub slow_consumer: SlowConsumer,
    /// How long a worker looks for work before it blocks, after a turn that had some. Costs CPU, saves the wake-up
    /// (35 us and more). Applied only where there are more CPUs than workers as the server starts; done more rarely where
    /// it does not pay, or others want the CPU. Default 50 us; zero: off.
    pub spin: Duration,
    /// Kernel queue of connections not yet accepted. Default 4,096.
    pub backlog: u32,
    /// Gives each worker a descriptor table of its own (`unshare(CLONE_FILES)`), so that the process holds
    /// `workers x RLIMIT_NOFILE` connections. The table starts as a copy of the process's: what is open when the server
    /// starts stays open until its workers end, so start it early. Default off.
    pub own_descriptor_table: bool,
    /// Lets other processes bind the same port (`SO_REUSEPORT`), for a rolling restart. Default off: a port in use is
    /// an error.
    pub reuse_port: bool,
}

impl Config {
    /// The one place that mends values with which nothing would ever happen.
    pub(crate) fn normalized(mut self) -> Self {
        let Budgets { mail, deliveries, timers, sends } = self.budgets;
        self.budgets =
            Budgets { mail: mail.max(1), deliveries: deliveries.max(1), timers: timers.max(1), sends: sends.max(1) };
        self.driver = self.driver.normalized();
        let limits = &mut self.limits;
        limits.mail_messages = limits.mail_messages.max(1); // a lane has a place
        limits.outbox_high = limits.outbox_high.max(1); // a flush takes a frame
        limits.outbox_low = limits.outbox_low.min(limits.outbox_high); // what is choked goes on below it
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            limits: Limits::default(),
            budgets: Budgets::default(),
            driver: DriverConfig::default(),
            frames: FrameSlabConfig::default(),
            slow_consumer: SlowConsumer::default(),
            spin: Duration::from_micros(50),
            backlog: 4096,
            own_descriptor_table: false,
            reuse_port: false,
        }
    }
}
