//! What is counted while a run goes on: latencies, messages, errors.
#![forbid(unsafe_code)]

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Resolution of the smallest latencies.
const LATENCY_MIN_NS: u64 = 64;
/// Longer latencies count as this.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
/// What the report is made of: 0.1 %.
const DIGITS: u8 = 3;
/// What the live line is made of: coarse enough to stay in the CPU's first cache.
const DIGITS_LIVE: u8 = 2;
/// How often a thread passes its live figures on.
const LIVE_EVERY_NS: u64 = 100_000_000;

/// A histogram of latencies in nanoseconds.
pub(crate) type Latencies = Histogram<u64>;

fn latencies(digits: u8) -> Latencies {
    Histogram::new_with_bounds(LATENCY_MIN_NS, LATENCY_MAX_NS, digits).expect("the bounds are constant and valid")
}

/// The part of a run that is measured, in nanoseconds of the run's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// First instant that counts: the end of the warm-up.
    pub(crate) start: u64,
    /// First instant that counts no more.
    pub(crate) end: u64,
}

impl Window {
    pub(crate) fn contains(&self, at: u64) -> bool {
        self.start <= at && at < self.end
    }
}

/// Figures of one load thread. Recording allocates nothing.
#[derive(Debug)]
pub(crate) struct Recorder {
    window: Window,
    tally: Tally,
    slices: Slices,
    live: Live,
    live_due: u64,
    shared: Arc<SharedLive>,
}

/// What a run, or one thread of it, counted.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Latencies of what was sent, or was to be sent, within the window.
    pub(crate) latencies: Latencies,
    /// Messages that arrived within the window; in `connect` handshakes.
    pub(crate) messages: u64,
    /// Payload bytes of these.
    pub(crate) bytes: u64,
    /// Messages per slice of the window.
    pub(crate) messages_per_slice: Vec<u64>,
    /// Messages whose turn had come, and that were still unsent at the end.
    pub(crate) unsent: u64,
    /// Messages sent that never arrived.
    pub(crate) lost: u64,
    /// Messages published within the whole run.
    pub(crate) published: u64,
    /// What went wrong.
    pub(crate) errors: Errors,
    /// What channels add; none in the other modes.
    pub(crate) channels: Option<Box<ChannelTally>>,
}

/// What is counted in channels beside the sums of [`Tally`], which are those of replies and deliveries together.
#[derive(Debug)]
pub(crate) struct ChannelTally {
    /// From each join to its answer, if that was ok; over the whole run.
    pub(crate) joins: Latencies,
    /// From each push to its reply.
    pub(crate) replies: Part,
    /// From each push to each of its deliveries.
    pub(crate) deliveries: Part,
}

/// Messages of one kind.
#[derive(Debug)]
pub(crate) struct Part {
    /// Of what was sent within the window.
    pub(crate) latencies: Latencies,
    /// What came within the window.
    pub(crate) count: u64,
}

impl Recorder {
    /// A recorder that measures nothing until its [`open`](Recorder::open); its live figures go to `shared`.
    pub(crate) fn new(shared: Arc<SharedLive>) -> Recorder {
        Recorder {
            window: Window { start: u64::MAX, end: u64::MAX },
            tally: Tally::default(),
            slices: Slices::default(),
            live: Live::default(),
            live_due: 0,
            shared,
        }
    }

    /// Counts channels too.
    pub(crate) fn with_channels(&mut self) {
        self.tally.channels = Some(Box::default());
    }

    /// A join at `sent` was answered with ok at `now`.
    pub(crate) fn joined(&mut self, sent: u64, now: u64) {
        if let Some(channels) = &mut self.tally.channels {
            channels.joins.saturating_record(now.saturating_sub(sent));
        }
    }

    /// As [`message`](Recorder::message), for the reply to a push.
    pub(crate) fn reply(&mut self, sent: u64, now: u64, bytes: usize) {
        self.message(sent, now, bytes);
        if let Some(channels) = &mut self.tally.channels {
            channels.replies.record(self.window, sent, now);
        }
    }

    /// As [`message`](Recorder::message), for the delivery of a broadcast.
    pub(crate) fn delivery(&mut self, sent: u64, now: u64, bytes: usize) {
        self.message(sent, now, bytes);
        if let Some(channels) = &mut self.tally.channels {
            channels.deliveries.record(self.window, sent, now);
        }
    }

    /// Sets what is measured, cut into slices of `slice_ns`.
    pub(crate) fn open(&mut self, window: Window, slice_ns: u64) {
        self.window = window;
        self.slices = Slices { length: slice_ns, at: 0, end: window.start + slice_ns };
        let count = (window.end - window.start).div_ceil(slice_ns);
        self.tally.messages_per_slice = vec![0; count as usize];
    }

    /// Ends the measured part early.
    pub(crate) fn cut(&mut self, end: u64) {
        self.window.end = self.window.end.min(end);
    }

    /// A message of `bytes` arrived at `now` that was sent, or was to be sent, at `sent`. Costs two increments of
    /// histograms.
    pub(crate) fn message(&mut self, sent: u64, now: u64, bytes: usize) {
        let latency = now.saturating_sub(sent);
        self.live.latencies.saturating_record(latency);
        self.live.messages += 1;
        self.live.bytes += bytes as u64;
        if self.window.contains(sent) {
            self.tally.latencies.saturating_record(latency);
        }
        if self.window.contains(now) {
            self.tally.messages += 1;
            self.tally.bytes += bytes as u64;
            let slice = self.slices.index(now);
            self.tally.messages_per_slice[slice] += 1;
        }
    }

    /// A message that was to be sent at `intended` could not be by `now`, the end. It has waited so long at least.
    pub(crate) fn unsent(&mut self, intended: u64, now: u64) {
        if self.window.contains(intended) {
            self.tally.latencies.saturating_record(now.saturating_sub(intended));
            self.tally.unsent += 1;
        }
    }

    /// So many messages were sent and did not arrive.
    pub(crate) fn lost(&mut self, messages: u64) {
        self.tally.lost += messages;
    }

    /// So many messages were published.
    pub(crate) fn published(&mut self, messages: u64) {
        self.tally.published += messages;
    }

    /// Something went wrong.
    pub(crate) fn error(&mut self, kind: ErrorKind) {
        self.tally.errors.add(kind, 1);
    }

    /// Passes the live figures on if it is time. To be called once per turn.
    pub(crate) fn tick(&mut self, now: u64) {
        if now >= self.live_due {
            self.live_due = now + LIVE_EVERY_NS;
            self.shared.add(&mut self.live);
        }
    }

    /// What was counted since the last call.
    pub(crate) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            latencies: latencies(DIGITS),
            messages: 0,
            bytes: 0,
            messages_per_slice: Vec::new(),
            unsent: 0,
            lost: 0,
            published: 0,
            errors: Errors::default(),
            channels: None,
        }
    }
}

impl Default for ChannelTally {
    fn default() -> ChannelTally {
        ChannelTally { joins: latencies(DIGITS), replies: Part::default(), deliveries: Part::default() }
    }
}

impl Default for Part {
    fn default() -> Part {
        Part { latencies: latencies(DIGITS), count: 0 }
    }
}

impl Part {
    fn record(&mut self, window: Window, sent: u64, now: u64) {
        self.count += u64::from(window.contains(now));
        if window.contains(sent) {
            self.latencies.saturating_record(now.saturating_sub(sent));
        }
    }

    fn merge(&mut self, other: &Part) {
        add(&mut self.latencies, &other.latencies);
        self.count += other.count;
    }
}

fn add(sum: &mut Latencies, part: &Latencies) {
    sum.add(part).expect("all histograms have the same bounds");
}

impl ChannelTally {
    fn merge(&mut self, other: &ChannelTally) {
        add(&mut self.joins, &other.joins);
        self.replies.merge(&other.replies);
        self.deliveries.merge(&other.deliveries);
    }
}

impl Tally {
    /// Adds what another thread counted in the same window.
    pub(crate) fn merge(&mut self, other: &Tally) {
        add(&mut self.latencies, &other.latencies);
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.unsent += other.unsent;
        self.lost += other.lost;
        self.published += other.published;
        self.errors.merge(&other.errors);
        if let Some(channels) = &other.channels {
            self.channels.get_or_insert_default().merge(channels);
        }
        let longest = self.messages_per_slice.len().max(other.messages_per_slice.len());
        self.messages_per_slice.resize(longest, 0);
        for (sum, count) in self.messages_per_slice.iter_mut().zip(&other.messages_per_slice) {
            *sum += count;
        }
    }
}

/// Which slice of the window is being filled: one comparison per message, as time only goes on.
#[derive(Debug, Default)]
struct Slices {
    length: u64,
    at: usize,
    end: u64,
}

impl Slices {
    fn index(&mut self, now: u64) -> usize {
        while now >= self.end {
            self.at += 1;
            self.end += self.length;
        }
        self.at
    }
}

/// Figures since the last live line.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) latencies: Latencies,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Default for Live {
    fn default() -> Live {
        Live { latencies: latencies(DIGITS_LIVE), messages: 0, bytes: 0 }
    }
}

/// Where a thread leaves its live figures for the one that shows them.
#[derive(Debug, Default)]
pub(crate) struct SharedLive(Mutex<Live>);

impl SharedLive {
    /// Moves figures in.
    fn add(&self, from: &mut Live) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        move_figures(from, &mut live);
    }

    /// Moves out what came in since the last call.
    pub(crate) fn take(&self, into: &mut Live) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        move_figures(&mut live, into);
    }
}

fn move_figures(from: &mut Live, into: &mut Live) {
    if from.messages > 0 {
        add(&mut into.latencies, &from.latencies);
        from.latencies.reset();
    }
    into.messages += std::mem::take(&mut from.messages);
    into.bytes += std::mem::take(&mut from.bytes);
}

/// What can go wrong with a connection or a message.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ErrorKind {
    /// Nobody listens there.
    ConnectRefused,
    /// No free local port or address is left.
    ConnectNoAddress,
    /// No descriptor was left here.
    ConnectNoDescriptor,
    /// The kernel had no memory left for a socket.
    ConnectNoMemory,
    /// Nobody answered.
    ConnectTimeout,
    /// The connection could not be made for another reason.
    ConnectFailed,
    /// The opening handshake was answered with this HTTP status.
    HandshakeStatus(u16),
    /// The answer to the opening handshake breaks RFC 6455 or HTTP.
    HandshakeInvalid,
    /// The opening handshake was not answered in time.
    HandshakeTimeout,
    /// The server closed instead of answering the opening handshake.
    HandshakeClosed,
    /// The server closed with this code before the end.
    Closed(u16),
    /// The connection ended without a closing handshake (1006).
    ConnectionLost,
    /// The server broke RFC 6455.
    ProtocolError,
    /// The answer is not what was sent.
    WrongContents,
    /// A message arrived twice, or after one that was sent later.
    OutOfOrder,
    /// A join was answered with another status than ok.
    JoinRefused,
    /// A join was not answered in time.
    JoinTimeout,
    /// A push was answered with another status than ok.
    ReplyStatus,
    /// The server said that a channel crashed.
    PhxError,
    /// The server ended a channel.
    PhxClose,
    /// A heartbeat was not answered by the time of the next.
    HeartbeatTimeout,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::ConnectRefused => "connect_refused",
            ErrorKind::ConnectNoAddress => "connect_no_address",
            ErrorKind::ConnectNoDescriptor => "connect_no_descriptor",
            ErrorKind::ConnectNoMemory => "connect_no_memory",
            ErrorKind::ConnectTimeout => "connect_timeout",
            ErrorKind::ConnectFailed => "connect_failed",
            ErrorKind::HandshakeStatus(status) => return write!(f, "handshake_status_{status}"),
            ErrorKind::HandshakeInvalid => "handshake_invalid",
            ErrorKind::HandshakeTimeout => "handshake_timeout",
            ErrorKind::HandshakeClosed => "handshake_closed",
            ErrorKind::Closed(code) => return write!(f, "closed_{code}"),
            ErrorKind::ConnectionLost => "connection_lost",
            ErrorKind::ProtocolError => "protocol_error",
            ErrorKind::WrongContents => "wrong_contents",
            ErrorKind::OutOfOrder => "out_of_order",
            ErrorKind::JoinRefused => "join_refused",
            ErrorKind::JoinTimeout => "join_timeout",
            ErrorKind::ReplyStatus => "reply_status",
            ErrorKind::PhxError => "phx_error",
            ErrorKind::PhxClose => "phx_close",
            ErrorKind::HeartbeatTimeout => "heartbeat_timeout",
        })
    }
}

/// How often each kind of error happened. Small: kinds times codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors(BTreeMap<ErrorKind, u64>);

impl Errors {
    pub(crate) fn add(&mut self, kind: ErrorKind, count: u64) {
        *self.0.entry(kind).or_default() += count;
    }

    pub(crate) fn merge(&mut self, other: &Errors) {
        other.iter().for_each(|(kind, count)| self.add(kind, count));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ErrorKind, u64)> {
        self.0.iter().map(|(kind, count)| (*kind, *count))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn recorder() -> (Recorder, Arc<SharedLive>) {
        let shared = Arc::new(SharedLive::default());
        let mut recorder = Recorder::new(Arc::clone(&shared));
        recorder.open(Window { start: 1000 * MS, end: 2000 * MS }, 300 * MS);
        (recorder, shared)
    }

    #[test]
    fn nothing_counts_before_the_window_opens() {
        let mut recorder = Recorder::new(Arc::default());
        recorder.message(5, 10, 1);
        let tally = recorder.take_tally();
        assert_eq!((tally.messages, tally.latencies.len()), (0, 0));
    }

    #[test]
    fn latency_counts_by_sending_and_throughput_by_arrival() {
        let (mut recorder, _) = recorder();
        recorder.message(900 * MS, 1100 * MS, 10); // sent in the warm-up
        recorder.message(1100 * MS, 1102 * MS, 10);
        recorder.message(1950 * MS, 2500 * MS, 10); // answered after the end
        recorder.message(2000 * MS, 2001 * MS, 10);
        recorder.unsent(1999 * MS, 2999 * MS);
        recorder.unsent(2001 * MS, 2999 * MS);
        let tally = recorder.take_tally();
        assert_eq!((tally.messages, tally.bytes, tally.unsent), (2, 20, 1));
        assert_eq!(tally.latencies.len(), 3);
        assert!(tally.latencies.max() >= 999 * MS && tally.latencies.min() <= 2 * MS);
        assert_eq!(tally.messages_per_slice, [2, 0, 0, 0]);
    }

    #[test]
    fn slices_follow_the_clock() {
        let (mut recorder, _) = recorder();
        for at in [1000, 1299, 1300, 1950, 1999] {
            recorder.message(at * MS, at * MS, 1);
        }
        assert_eq!(recorder.take_tally().messages_per_slice, [2, 1, 0, 2]);
    }

    #[test]
    fn a_cut_window_ends_early() {
        let (mut recorder, _) = recorder();
        recorder.cut(1500 * MS);
        recorder.message(1400 * MS, 1400 * MS, 1);
        recorder.message(1600 * MS, 1600 * MS, 1);
        assert_eq!(recorder.take_tally().messages, 1);
    }

    #[test]
    fn latencies_keep_three_digits() {
        let (mut recorder, _) = recorder();
        let from = 1000 * MS;
        for latency in [25_000, 1_234_000, 3 * LATENCY_MAX_NS] {
            recorder.message(from, from + latency, 1);
        }
        let latencies = recorder.take_tally().latencies;
        for (quantile, expected) in [(0.3, 25_000.0), (0.6, 1_234_000.0), (1.0, LATENCY_MAX_NS as f64)] {
            let seen = latencies.value_at_quantile(quantile) as f64;
            assert!((seen / expected - 1.0).abs() < 0.003, "{seen} {expected}");
        }
    }

    #[test]
    fn threads_merge() {
        let (mut one, _) = recorder();
        let (mut other, _) = recorder();
        one.message(1000 * MS, 1001 * MS, 5);
        other.message(1000 * MS, 1900 * MS, 5);
        one.error(ErrorKind::Closed(1013));
        other.error(ErrorKind::Closed(1013));
        other.error(ErrorKind::ConnectRefused);
        other.lost(3);
        let mut sum = Tally::default();
        sum.merge(&one.take_tally());
        sum.merge(&other.take_tally());
        assert_eq!((sum.messages, sum.bytes, sum.lost, sum.latencies.len()), (2, 10, 3, 2));
        assert_eq!(sum.messages_per_slice, [1, 0, 0, 1]);
        let errors: Vec<_> = sum.errors.iter().map(|(kind, count)| (kind.to_string(), count)).collect();
        assert_eq!(errors, [("connect_refused".to_owned(), 1), ("closed_1013".to_owned(), 2)]);
    }

    #[test]
    fn live_figures_move_once() {
        let (mut recorder, shared) = recorder();
        recorder.message(0, 5 * MS, 7);
        recorder.tick(5 * MS);
        recorder.message(0, 6 * MS, 7);
        recorder.tick(6 * MS); // too early
        let mut live = Live::default();
        shared.take(&mut live);
        assert_eq!((live.messages, live.bytes, live.latencies.len()), (1, 7, 1));
        shared.take(&mut live);
        assert_eq!(live.messages, 1);
        recorder.tick(5 * MS + LIVE_EVERY_NS);
        shared.take(&mut live);
        assert_eq!((live.messages, live.latencies.len()), (2, 2));
    }
}
