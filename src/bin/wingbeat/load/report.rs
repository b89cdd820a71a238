//! The result as text, and as JSON.
#![forbid(unsafe_code)]

use super::reason::resource;
use super::stats::ErrorKind;
use super::summary::{LatencyMicros, Summary};
use crate::units::{bytes, count, micros};
use std::fmt::{self, Write};

impl Summary {
    /// The result as JSON, with a line break at its end. `docs/load-json.md` has the keys.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers can be written as JSON") + "\n"
    }

    /// The result as rows of a name and its figures: the text and the page show the same.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("run", self.run()), ("connections", self.connections())];
        let mut row = |name, text: Option<String>| rows.extend(text.map(|text| (name, text)));
        row("messages", self.throughput());
        row("handshakes", part(self.handshakes_per_s, self.handshakes, None));
        row("joins", self.channels.as_ref().and_then(|c| latency(c.join_latency_us)));
        // Of one kind alone, the rows of all messages tell the same.
        if let Some(both) = self.channels.as_ref().filter(|c| c.replies.is_some() && c.deliveries.is_some()) {
            row("replies", part(both.replies_per_s, both.replies, both.reply_latency_us));
            row("deliveries", part(both.deliveries_per_s, both.deliveries, both.delivery_latency_us));
        }
        row("latency", latency(self.latency_us));
        row("server", self.server());
        row("client", self.client_cpu_share.map(|share| format!("{} of its CPU", percent(share))));
        row("pings", (self.pings > 0).then(|| format!("{} answered", self.pings)));
        row("errors", Some(self.error_list()));
        rows
    }

    /// One sentence if the figures are the client's rather than the server's.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        (self.client_limited == Some(true)).then_some(
            "The client was the bottleneck: its threads were busy all the time, and the server was not. \
             The server can do more than this.",
        )
    }

    fn run(&self) -> String {
        let mut text = format!("{} {}", self.mode, self.url);
        let wrote = (|| {
            if let Some(url) = self.publish_url.as_ref().filter(|url| **url != self.url) {
                write!(text, ", published at {url}")?;
            }
            if let Some(channels) = &self.channels {
                write!(text, ", {} in {} topic{}", channels.traffic, channels.topics, plural(channels.topics))?;
            }
            if let Some(size) = self.payload_bytes {
                write!(text, ", {} {}", bytes(size as f64), if self.binary == Some(true) { "binary" } else { "text" })?;
            }
            match (self.rate_per_s, self.pipeline) {
                (Some(rate), _) => write!(text, ", {rate}/s open loop")?,
                (None, Some(depth)) => write!(text, ", {depth} in flight")?,
                (None, None) => {}
            }
            let interrupted = if self.interrupted { ", interrupted" } else { "" };
            write!(text, ", {} thread{}, {:.1} s{interrupted}", self.threads, plural(self.threads), self.duration_s)
        })();
        wrote.map(|()| text).unwrap_or_default()
    }

    fn connections(&self) -> String {
        let subscribers = self.subscribers.map(|n| format!(" ({n} subscribers)")).unwrap_or_default();
        let failed =
            if self.connections_failed > 0 { format!(", {} failed", self.connections_failed) } else { String::new() };
        format!("{}{subscribers} in {:.2} s{failed}", self.connections, self.connect_s)
    }

    fn throughput(&self) -> Option<String> {
        let (messages, bytes_per_s) = (self.messages?, self.bytes_per_s?);
        let mut text = format!("{}/s, {}/s, {messages} in all", count(self.messages_per_s?), bytes(bytes_per_s));
        if let Some(unsent) = self.unsent_messages.filter(|&unsent| unsent > 0) {
            text += &format!("; {unsent} behind schedule and unsent");
        }
        Some(text)
    }

    fn server(&self) -> Option<String> {
        let mut parts = Vec::new();
        parts.extend(self.server_cpu_share.map(|share| format!("{} of a CPU", percent(share))));
        parts.extend(self.server_busiest_thread_share.map(|share| format!("its busiest thread {}", percent(share))));
        parts.extend(self.server_cpu_us_per_message.map(|us| format!("{us:.3} us per message")));
        parts.extend(self.server_cpu_us_per_handshake.map(|us| format!("{us:.1} us per handshake")));
        parts.extend(self.server_rss_bytes.map(|rss| format!("{} resident", bytes(rss as f64))));
        parts.extend(self.server_bytes_per_connection.map(|size| format!("{size:.0} B per connection")));
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Errors by kind, with what they mean, and lost messages.
    pub(crate) fn error_list(&self) -> String {
        let mut resources = resource(&self.url).to_owned();
        if let Some(other) = self.publish_url.as_deref().map(resource).filter(|other| *other != resources) {
            resources += &format!(" or {other}");
        }
        let reason = |kind: ErrorKind| kind.reason(&resources).map(|text| format!(" ({text})")).unwrap_or_default();
        let part = |(kind, count): (ErrorKind, u64)| format!("{kind} {count}{}", reason(kind));
        let mut parts: Vec<_> = self.errors.iter().map(part).collect();
        parts.extend(self.lost_messages.filter(|&lost| lost > 0).map(|lost| format!("lost messages {lost}")));
        if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
    }
}

/// The result as text for a terminal.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, text) in self.rows() {
            writeln!(f, "{name:<12} {text}")?;
        }
        self.warning().map_or(Ok(()), |warning| writeln!(f, "{warning}"))
    }
}

fn latency(latency: Option<LatencyMicros>) -> Option<String> {
    let latency = latency?;
    let named = [
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p99.9", latency.p99_9),
        ("max", latency.max),
    ];
    Some(named.map(|(name, value)| format!("{name} {}", micros(value))).join("  "))
}

/// What is one of its kind: handshakes, replies alone, or deliveries alone.
fn part(per_s: Option<f64>, in_all: Option<u64>, of: Option<LatencyMicros>) -> Option<String> {
    let mut text = format!("{}/s, {} in all", count(per_s?), in_all?);
    text.extend(latency(of).map(|latency| format!("; {latency}")));
    Some(text)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::sample;

    /// The JSON of a known run, byte for byte: its keys are a promise.
    #[test]
    fn the_json_is_as_promised() {
        let line = "fanout ws://127.0.0.1:4000/topics?topic=x --publish-url ws://127.0.0.1:4000/publish?topic=x -r 100 --server-pid 1";
        let version = format!("\"wingbeat\": \"{}\"", env!("CARGO_PKG_VERSION"));
        let json = sample(line).to_json().replace(&version, "\"wingbeat\": \"VERSION\"");
        assert_eq!(json, include_str!("golden.json"));
    }

    #[test]
    fn the_json_of_channels_is_as_promised() {
        let line = "channels ws://127.0.0.1:4000/socket --traffic both --topics 5 -r 100 --server-pid 1";
        let version = format!("\"wingbeat\": \"{}\"", env!("CARGO_PKG_VERSION"));
        let json = sample(line).to_json().replace(&version, "\"wingbeat\": \"VERSION\"");
        assert_eq!(json, include_str!("golden-channels.json"));
    }

    #[test]
    fn every_key_is_documented() {
        let docs = include_str!("../../../../docs/load-json.md");
        let json: serde_json::Value = serde_json::from_str(&sample("channels ws://127.0.0.1/").to_json()).unwrap();
        for (key, value) in json.as_object().unwrap() {
            let inner = value.as_object().filter(|_| key != "errors");
            match inner {
                Some(inner) => {
                    inner.keys().for_each(|name| assert!(docs.contains(&format!("`{key}.{name}`")), "{key}.{name}"))
                }
                None => assert!(docs.contains(&format!("`{key}`")), "{key}"),
            }
        }
    }

    #[test]
    fn every_kind_of_error_is_documented() {
        use super::super::stats::ErrorKind::*;
        let docs = include_str!("../../../../docs/load-json.md");
        let kinds = [
            ConnectRefused,
            ConnectNoAddress,
            ConnectNoDescriptor,
            ConnectNoMemory,
            ConnectTimeout,
            ConnectFailed,
            HandshakeStatus(503),
            HandshakeInvalid,
            HandshakeTimeout,
            HandshakeClosed,
            Closed(1013),
            ConnectionLost,
            ProtocolError,
            WrongContents,
            OutOfOrder,
            JoinRefused,
            JoinTimeout,
            ReplyStatus,
            PhxError,
            PhxClose,
            HeartbeatTimeout,
        ];
        for kind in kinds {
            let name = kind.to_string().replace("503", "CODE").replace("1013", "CODE");
            assert!(docs.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn the_text_has_all_that_was_measured() {
        let text = sample("echo ws://127.0.0.1:4000/echo --server-pid 1").to_string();
        for part in [
            "echo ws://127.0.0.1:4000/echo, 64 B text, 1 in flight, 4 threads, 2.0 s",
            "50 in 0.25 s, 1 failed",
            "500/s, 31.2 KiB/s, 1000 in all",
            "p50 499 ms", // of 1 to 999 ms
            "1000.000 us per message",
            "100 B per connection",
            "closed_1013 1 (the server closed with code 1013), lost messages 1",
            "The client was the bottleneck",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        let both = sample("channels ws://127.0.0.1:4000/socket?a=b --traffic both --topics 2").to_string();
        for part in [
            "channels ws://127.0.0.1:4000/socket/websocket?a=b&vsn=2.0.0, both in 2 topics, 64 B text, 1 in flight",
            "\njoins        p50 3.00 ms",
            "\nreplies      125/s, 250 in all; p50",
            "\ndeliveries   375/s, 750 in all; p50",
            "\nlatency      p50 499 ms",
        ] {
            assert!(both.contains(part), "{part} is not in:\n{both}");
        }
        let connect = sample("connect ws://127.0.0.1:4000/").to_string();
        assert!(connect.contains("handshakes   500/s, 1000 in all") && !connect.contains("messages  "), "{connect}");
    }
}
