//! The result of a run: every figure of the report, the JSON and the page is computed here, once.
#![forbid(unsafe_code)]

use super::plan::Plan;
use super::procfs::CpuUse;
use super::stats::{Errors, Latencies, Tally};
use crate::args::{Mode, name_of};
use serde::{Serialize, Serializer};

/// A thread that uses this share of a CPU is taken to be busy all the time.
const BUSY: f64 = 0.95;

/// The result of a run. Its fields, in this order, are the keys of the JSON; `docs/load-json.md` says what they mean.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) wingbeat: &'static str,
    pub(crate) mode: String,
    pub(crate) url: String,
    pub(crate) publish_url: Option<String>,
    pub(crate) payload_bytes: Option<u64>,
    pub(crate) binary: Option<bool>,
    pub(crate) pipeline: Option<u32>,
    #[serde(serialize_with = "whole_if_it_is")]
    pub(crate) rate_per_s: Option<f64>,
    pub(crate) threads: u32,
    pub(crate) source_addresses: u32,
    pub(crate) warmup_s: f64,
    pub(crate) interrupted: bool,
    pub(crate) duration_s: f64,
    pub(crate) connections: u32,
    pub(crate) connections_failed: u32,
    pub(crate) subscribers: Option<u32>,
    pub(crate) connect_s: f64,
    pub(crate) pings: u64,
    pub(crate) messages: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) published: Option<u64>,
    pub(crate) messages_per_s: Option<f64>,
    pub(crate) bytes_per_s: Option<f64>,
    pub(crate) handshakes: Option<u64>,
    pub(crate) handshakes_per_s: Option<f64>,
    pub(crate) latency_us: Option<LatencyMicros>,
    pub(crate) lost_messages: Option<u64>,
    pub(crate) unsent_messages: Option<u64>,
    pub(crate) channels: Option<ChannelFigures>,
    #[serde(serialize_with = "errors_by_name")]
    pub(crate) errors: Errors,
    pub(crate) client_cpu_share: Option<f64>,
    pub(crate) client_limited: Option<bool>,
    pub(crate) server_cpu_share: Option<f64>,
    pub(crate) server_busiest_thread_share: Option<f64>,
    pub(crate) server_cpu_us_per_message: Option<f64>,
    pub(crate) server_cpu_us_per_handshake: Option<f64>,
    pub(crate) server_rss_bytes: Option<u64>,
    pub(crate) server_bytes_per_connection: Option<f64>,
    pub(crate) slice_s: Option<f64>,
    pub(crate) messages_per_slice: Vec<u64>,
    /// The curve of the page; too long for the JSON.
    #[serde(skip)]
    pub(crate) curve: Vec<Percentile>,
}

/// What channels have beside the rest.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChannelFigures {
    pub(crate) traffic: String,
    pub(crate) topics: u32,
    pub(crate) topic_prefix: String,
    pub(crate) reply_event: String,
    pub(crate) broadcast_event: String,
    pub(crate) vsn: String,
    pub(crate) heartbeat_s: f64,
    pub(crate) join_latency_us: Option<LatencyMicros>,
    pub(crate) replies: Option<u64>,
    pub(crate) replies_per_s: Option<f64>,
    pub(crate) reply_latency_us: Option<LatencyMicros>,
    pub(crate) deliveries: Option<u64>,
    pub(crate) deliveries_per_s: Option<f64>,
    pub(crate) delivery_latency_us: Option<LatencyMicros>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct LatencyMicros {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

/// A point of the latency curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percentile {
    /// Decades of nines: 0 is the minimum, 1 is 90 %, 2 is 99 %.
    pub(crate) nines: f64,
    pub(crate) micros: f64,
}

/// What was seen beside the messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Seconds that were measured.
    pub(crate) duration_s: f64,
    /// Seconds that the connections took to stand.
    pub(crate) connect_s: f64,
    /// Pings of the server, over the whole run; each was answered.
    pub(crate) pings: u64,
    /// Connections that stood, subscribers among them.
    pub(crate) connected: u32,
    pub(crate) connections_failed: u32,
    pub(crate) subscribers: u32,
    pub(crate) interrupted: bool,
    /// CPU time of the load threads within the window less what they spun for the schedule; none if unknown.
    pub(crate) client_busy_ns: Option<u64>,
    /// CPUs that this process may use.
    pub(crate) cpus: u32,
    pub(crate) server: Option<ServerUse>,
    /// Length of a slice of the window, in seconds.
    pub(crate) slice_s: f64,
}

/// What the watched process used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerUse {
    /// Within the window.
    pub(crate) cpu: CpuUse,
    /// Resident bytes before the first connection.
    pub(crate) rss_before: u64,
    /// Resident bytes when all connections stood.
    pub(crate) rss_connected: u64,
    /// Resident bytes at the end of the window.
    pub(crate) rss_end: u64,
}

impl Summary {
    /// Computes all figures of a run.
    pub(crate) fn new(plan: &Plan, tally: Tally, seen: &Observed) -> Summary {
        let sends = plan.has_messages();
        let publishes = plan.publishers() > 0;
        let connects = plan.mode == Mode::Connect;
        let per_s = |count: u64| ratio(count as f64, seen.duration_s);
        let client_cpu_share = seen.client_busy_ns.and_then(|ns| {
            let wall = seen.duration_s * f64::from(plan.threads.min(seen.cpus.max(1)));
            ratio(ns as f64 / 1e9, wall)
        });
        let server = seen.server.map(|server| server.shares(seen, &tally, plan)).unwrap_or_default();
        Summary {
            wingbeat: env!("CARGO_PKG_VERSION"),
            mode: name_of(plan.mode),
            url: plan.url.url.clone(),
            publish_url: plan.publish_url.as_ref().map(|url| url.url.clone()),
            payload_bytes: sends.then_some(plan.payload as u64),
            binary: (sends && plan.mode != Mode::Channels).then_some(plan.binary),
            pipeline: sends.then_some(plan.pipeline),
            rate_per_s: plan.rate,
            threads: plan.threads,
            source_addresses: plan.sources,
            warmup_s: plan.warmup.as_secs_f64(),
            interrupted: seen.interrupted,
            duration_s: seen.duration_s,
            connections: seen.connected,
            connections_failed: seen.connections_failed,
            subscribers: (plan.mode == Mode::Fanout).then_some(seen.subscribers),
            connect_s: seen.connect_s,
            pings: seen.pings,
            messages: sends.then_some(tally.messages),
            bytes: sends.then_some(tally.bytes),
            published: publishes.then_some(tally.published),
            messages_per_s: per_s(tally.messages).filter(|_| sends),
            bytes_per_s: per_s(tally.bytes).filter(|_| sends),
            handshakes: connects.then_some(tally.messages),
            handshakes_per_s: per_s(tally.messages).filter(|_| connects),
            latency_us: LatencyMicros::of(&tally.latencies),
            lost_messages: sends.then_some(tally.lost),
            unsent_messages: (sends && plan.rate.is_some()).then_some(tally.unsent),
            channels: ChannelFigures::new(plan, &tally, seen.duration_s),
            client_cpu_share,
            client_limited: client_cpu_share.map(|client| is_client_limited(client, server.busiest)),
            server_cpu_share: server.cpu,
            server_busiest_thread_share: server.busiest,
            server_cpu_us_per_message: server.us_per_message,
            server_cpu_us_per_handshake: server.us_per_handshake,
            server_rss_bytes: seen.server.map(|server| server.rss_end),
            server_bytes_per_connection: server.bytes_per_connection,
            slice_s: (!tally.messages_per_slice.is_empty()).then_some(seen.slice_s),
            curve: curve(&tally.latencies),
            errors: tally.errors,
            messages_per_slice: tally.messages_per_slice,
        }
    }

    /// Whether a connection failed or a message was lost: the command then exits with 1.
    pub(crate) fn has_failed(&self) -> bool {
        !self.errors.is_empty() || self.connections_failed > 0 || self.lost_messages.unwrap_or(0) > 0
    }
}

/// The client is the bottleneck if it was busy all the time while the server was not; if the server is unknown, if it
/// was busy.
fn is_client_limited(client: f64, server_busiest: Option<f64>) -> bool {
    client >= BUSY && server_busiest.is_none_or(|server| server < BUSY)
}

#[derive(Default)]
struct ServerShares {
    cpu: Option<f64>,
    busiest: Option<f64>,
    us_per_message: Option<f64>,
    us_per_handshake: Option<f64>,
    bytes_per_connection: Option<f64>,
}

impl ServerUse {
    fn shares(&self, seen: &Observed, tally: &Tally, plan: &Plan) -> ServerShares {
        let us_per = ratio(self.cpu.total_ns as f64 / 1e3, tally.messages as f64);
        let grown = self.rss_connected as f64 - self.rss_before as f64;
        ServerShares {
            cpu: ratio(self.cpu.total_ns as f64 / 1e9, seen.duration_s),
            busiest: ratio(self.cpu.busiest_ns as f64 / 1e9, seen.duration_s),
            us_per_message: us_per.filter(|_| plan.has_messages()),
            us_per_handshake: us_per.filter(|_| plan.mode == Mode::Connect),
            bytes_per_connection: ratio(grown, f64::from(seen.connected)).filter(|_| plan.mode != Mode::Connect),
        }
    }
}

impl ChannelFigures {
    fn new(plan: &Plan, tally: &Tally, duration_s: f64) -> Option<ChannelFigures> {
        let (channels, counted) = (plan.channels.as_ref()?, tally.channels.as_deref());
        let replied = counted.filter(|_| channels.traffic.has_replies());
        let broadcast = counted.filter(|_| channels.traffic.has_broadcasts());
        let (replied, broadcast) = (replied.map(|c| &c.replies), broadcast.map(|c| &c.deliveries));
        let (replies, deliveries) = (replied.map(|part| part.count), broadcast.map(|part| part.count));
        let per_s = |count: Option<u64>| ratio(count? as f64, duration_s);
        Some(ChannelFigures {
            traffic: name_of(channels.traffic),
            topics: channels.topics,
            topic_prefix: channels.topic_prefix.clone(),
            reply_event: channels.reply_event.clone(),
            broadcast_event: channels.broadcast_event.clone(),
            vsn: channels.vsn.clone(),
            heartbeat_s: channels.heartbeat.as_secs_f64(),
            join_latency_us: counted.and_then(|c| LatencyMicros::of(&c.joins)),
            replies,
            replies_per_s: per_s(replies),
            reply_latency_us: replied.and_then(|part| LatencyMicros::of(&part.latencies)),
            deliveries,
            deliveries_per_s: per_s(deliveries),
            delivery_latency_us: broadcast.and_then(|part| LatencyMicros::of(&part.latencies)),
        })
    }
}

impl LatencyMicros {
    fn of(latencies: &Latencies) -> Option<LatencyMicros> {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        (!latencies.is_empty()).then(|| LatencyMicros {
            min: latencies.min() as f64 / 1e3,
            mean: latencies.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: latencies.max() as f64 / 1e3,
        })
    }
}

/// Points per decade of nines.
const CURVE_STEPS: u32 = 16;
/// No curve goes beyond 99.9999 %.
const CURVE_NINES_MAX: u32 = 6;

/// Latency over percentile, evenly spaced in nines, as far as there are samples for it.
fn curve(latencies: &Latencies) -> Vec<Percentile> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let nines_max = (latencies.len() as f64).log10().min(f64::from(CURVE_NINES_MAX));
    let steps = (0..=CURVE_STEPS * CURVE_NINES_MAX).map(|step| f64::from(step) / f64::from(CURVE_STEPS));
    let within = steps.take_while(|&nines| nines < nines_max).chain([nines_max]);
    let point = |nines: f64| {
        let quantile = 1.0 - 10f64.powf(-nines);
        Percentile { nines, micros: latencies.value_at_quantile(quantile) as f64 / 1e3 }
    };
    within.map(point).collect()
}

fn ratio(value: f64, by: f64) -> Option<f64> {
    (by > 0.0).then_some(value / by)
}

/// A rate as a whole number, where it is one.
fn whole_if_it_is<S: Serializer>(rate: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match rate {
        Some(rate) if rate.fract() == 0.0 => serializer.serialize_u64(*rate as u64),
        rate => rate.serialize(serializer),
    }
}

fn errors_by_name<S: Serializer>(errors: &Errors, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(errors.iter().map(|(kind, count)| (kind.to_string(), count)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::plan::tests::plan;
    use super::super::stats::{ErrorKind, Recorder, Window};
    use super::*;

    const MS: u64 = 1_000_000;

    /// A run of 2 s with 1,000 messages of 1 to 1,000 ms, one lost, one error.
    pub(crate) fn sample(line: &str) -> Summary {
        let plan = plan(line).unwrap();
        let mut recorder = Recorder::new(Default::default());
        recorder.open(Window { start: 0, end: 2000 * MS }, 500 * MS);
        if plan.channels.is_some() {
            recorder.with_channels();
            recorder.joined(0, 3 * MS);
        }
        for n in 1..=1000 {
            let (sent, now) = (2 * n * MS - n * MS, 2 * n * MS - MS);
            match n % 4 {
                0 if plan.channels.is_some() => recorder.reply(sent, now, 64),
                _ => recorder.delivery(sent, now, 64),
            }
        }
        recorder.lost(1);
        recorder.published(10);
        recorder.error(ErrorKind::Closed(1013));
        let server = ServerUse {
            cpu: CpuUse { total_ns: 1_000 * MS, busiest_ns: 800 * MS },
            rss_before: 10 << 20,
            rss_connected: (10 << 20) + 5000,
            rss_end: 12 << 20,
        };
        let seen = Observed {
            duration_s: 2.0,
            connect_s: 0.25,
            pings: 7,
            connected: 50,
            connections_failed: 1,
            subscribers: 49,
            interrupted: false,
            client_busy_ns: Some(7_840 * MS),
            cpus: 8,
            server: Some(server),
            slice_s: 0.5,
        };
        Summary::new(&plan, recorder.take_tally(), &seen)
    }

    #[test]
    fn figures_are_computed() {
        let summary = sample("echo ws://127.0.0.1:4000/echo --server-pid 1");
        assert_eq!(
            (summary.messages, summary.messages_per_s, summary.bytes_per_s),
            (Some(1000), Some(500.0), Some(32000.0))
        );
        assert_eq!((summary.client_cpu_share, summary.client_limited), (Some(0.98), Some(true)));
        assert_eq!((summary.server_cpu_share, summary.server_busiest_thread_share), (Some(0.5), Some(0.4)));
        assert_eq!(
            (summary.server_cpu_us_per_message, summary.server_bytes_per_connection),
            (Some(1000.0), Some(100.0))
        );
        assert_eq!((summary.handshakes, summary.subscribers, summary.unsent_messages), (None, None, None));
        let latency = summary.latency_us.unwrap();
        assert!(
            (latency.p50 / 499_000.0 - 1.0).abs() < 0.01 && (latency.max / 999_000.0 - 1.0).abs() < 0.01,
            "{latency:?}"
        );
        assert!(summary.has_failed());
    }

    #[test]
    fn keys_that_do_not_apply_are_null() {
        let connect = sample("connect ws://127.0.0.1:4000/");
        assert_eq!((connect.handshakes, connect.messages, connect.lost_messages), (Some(1000), None, None));
        assert_eq!((connect.server_cpu_us_per_handshake, connect.server_cpu_us_per_message), (Some(1000.0), None));
        let fanout = sample("fanout ws://127.0.0.1:4000/ -r 10");
        assert_eq!((fanout.subscribers, fanout.published, fanout.unsent_messages), (Some(49), Some(10), Some(0)));
        let nothing = Summary::new(&plan("idle ws://127.0.0.1/").unwrap(), Tally::default(), &Observed::default());
        assert_eq!((nothing.latency_us, nothing.client_limited, nothing.client_cpu_share), (None, None, None));
        assert!(!nothing.has_failed() && nothing.curve.is_empty());
    }

    #[test]
    fn channels_tell_replies_from_deliveries() {
        let both = sample("channels ws://127.0.0.1:4000/socket --traffic both -c 50").channels.unwrap();
        assert_eq!((both.replies, both.deliveries, both.deliveries_per_s), (Some(250), Some(750), Some(375.0)));
        assert!(both.join_latency_us.is_some_and(|join| join.max > 2_990.0 && join.max < 3_010.0));
        assert!(both.reply_latency_us.is_some() && both.delivery_latency_us.is_some());
        let quiet = sample("channels ws://127.0.0.1:4000/socket --traffic none");
        let figures = quiet.channels.unwrap();
        assert_eq!((quiet.messages, figures.replies, figures.deliveries), (None, None, None));
        assert!(sample("echo ws://127.0.0.1/").channels.is_none());
    }

    #[test]
    fn the_client_is_limited_by_this_rule() {
        assert!(is_client_limited(0.95, None));
        assert!(is_client_limited(0.99, Some(0.94)));
        assert!(!is_client_limited(0.99, Some(0.95)));
        assert!(!is_client_limited(0.94, Some(0.1)));
        assert!(!is_client_limited(0.94, None));
    }

    #[test]
    fn the_curve_rises_to_the_maximum() {
        let summary = sample("echo ws://127.0.0.1:4000/echo");
        assert!(summary.curve.windows(2).all(|w| w[0].nines < w[1].nines && w[0].micros <= w[1].micros));
        assert_eq!(summary.curve.last().map(|point| point.nines), Some(3.0));
        assert_eq!(summary.curve.len(), 3 * CURVE_STEPS as usize + 1);
    }
}
