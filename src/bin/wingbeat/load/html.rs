//! The result as one self-contained page: style and charts inline, nothing fetched.
#![forbid(unsafe_code)]

use super::plot::{Axis, Plot, escape};
use super::summary::Summary;
use crate::units::{count, micros};

const STYLE: &str = include_str!("page.css");

impl Summary {
    /// The result as a web page that needs nothing else.
    pub(crate) fn to_html(&self) -> String {
        let title = escape(&format!("{} {}", self.mode, self.url));
        let warning =
            self.warning().map(|text| format!("<p class=\"warning\">{}</p>\n", escape(text))).unwrap_or_default();
        let charts: String = [self.latency_plot(), self.throughput_plot()]
            .into_iter()
            .flatten()
            .map(|(heading, plot)| format!("<section>\n<h2>{heading}</h2>\n{}</section>\n", plot.to_svg()))
            .collect();
        let row = |(name, text): (&str, String)| {
            format!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>\n", escape(&text))
        };
        let rows: String = self.rows().into_iter().map(row).collect();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n<body>\n<h1>{title}</h1>\n{warning}\
             <div class=\"charts\">\n{charts}</div>\n<table>\n{rows}</table>\n\
             <footer>wingbeat {}</footer>\n</body>\n</html>\n",
            self.wingbeat
        )
    }

    fn latency_plot(&self) -> Option<(&'static str, Plot)> {
        let (first, last) = (self.curve.first()?, self.curve.last()?);
        let nines_max = last.nines.max(1.0);
        let ticks = (0..=nines_max as u32).map(|nines| (f64::from(nines), percentile_label(nines)));
        let mut ticks: Vec<_> = ticks.collect();
        ticks.insert(1, (2f64.log10(), "50".to_owned()));
        let plot = Plot {
            description: format!("latency by percentile, {} to {}", micros(first.micros), micros(last.micros)),
            x: Axis { title: "percentile", from: 0.0, to: nines_max, ticks },
            y: Axis::decades("latency", first.micros, last.micros, short_micros),
            points: self.curve.iter().map(|point| (point.nines, point.micros.max(1e-3).log10())).collect(),
        };
        Some(("Latency by percentile", plot))
    }

    fn throughput_plot(&self) -> Option<(&'static str, Plot)> {
        let slice_s = self.slice_s?;
        let mut points = Vec::with_capacity(self.messages_per_slice.len());
        let mut start = 0.0;
        for &messages in &self.messages_per_slice {
            let length = slice_s.min(self.duration_s - start);
            // What is left of a slice that the end cut off says little.
            if length < slice_s / 2.0 && !points.is_empty() {
                break;
            }
            points.push((start + length / 2.0, messages as f64 / length));
            start += slice_s;
        }
        let max = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let heading = if self.handshakes.is_some() { "Handshakes per second" } else { "Messages per second" };
        let plot = Plot {
            description: format!("{heading} over time, up to {}", count(max)),
            x: Axis::spanning("seconds", self.duration_s, |value| format!("{value}")),
            y: Axis::linear("", max, count),
            points,
        };
        (self.messages.is_some() || self.handshakes.is_some()).then_some((heading, plot))
    }
}

/// `0`, `90`, `99`, `99.9`.
fn percentile_label(nines: u32) -> String {
    match nines {
        0 => "0".to_owned(),
        1 => "90".to_owned(),
        2 => "99".to_owned(),
        more => format!("99.{}", "9".repeat(more as usize - 2)),
    }
}

/// A power of ten: `10 us`, `1 ms`.
fn short_micros(value: f64) -> String {
    match value {
        v if v < 0.9 => format!("{:.0} ns", v * 1e3),
        v if v < 900.0 => format!("{v:.0} us"),
        v if v < 900_000.0 => format!("{:.0} ms", v / 1e3),
        v => format!("{:.0} s", v / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::sample;
    use super::*;

    #[test]
    fn the_page_needs_nothing_else() {
        let page = sample("echo ws://127.0.0.1:4000/echo?<script>=1").to_html();
        for outside in ["http://", "https://", "<script", "<link", "@import", "url(", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("echo?&lt;script&gt;=1"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("<section").count(), page.matches("</section>").count());
        for part in
            ["prefers-color-scheme: dark", "width=device-width", ">99.9<", "p99.9", "The client was the bottleneck"]
        {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn modes_without_messages_have_fewer_charts() {
        assert!(sample("connect ws://127.0.0.1/").to_html().contains("Handshakes per second"));
        let mut idle = sample("idle ws://127.0.0.1/");
        idle.curve.clear();
        assert_eq!(idle.to_html().matches("<svg").count(), 0);
    }

    #[test]
    fn labels_are_short() {
        assert_eq!([0, 1, 2, 3, 5].map(percentile_label), ["0", "90", "99", "99.9", "99.999"]);
        assert_eq!([0.1, 1.0, 10.0, 1e3, 1e6].map(short_micros), ["100 ns", "1 us", "10 us", "1 ms", "1 s"]);
    }
}
