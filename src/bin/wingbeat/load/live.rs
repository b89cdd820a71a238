//! What a run shows while it goes on, on standard error: bars and a line that changes on a terminal, else plain lines.
#![forbid(unsafe_code)]

use super::stats::Live;
use crate::units::{bytes, count, micros};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// How often the live line changes.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(1);

/// Shows how far a run is.
#[derive(Debug)]
pub(crate) struct Display {
    /// None if standard error is no terminal.
    bar: Option<ProgressBar>,
}

impl Display {
    /// A bar of `total` connections to make.
    pub(crate) fn connecting(total: u32) -> Display {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total.into()), ProgressDrawTarget::stderr());
            bar.with_style(style("connecting {bar:40} {pos}/{len}"))
        });
        Display { bar }
    }

    /// A line of figures; with a length a bar that fills up in that time.
    pub(crate) fn running(length: Option<Duration>) -> Display {
        let bar = io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(length.map(|length| length.as_secs()), ProgressDrawTarget::stderr());
            let template =
                if length.is_some() { "{bar:10} {pos:>3}/{len} s  {wide_msg}" } else { "{elapsed:>5}  {wide_msg}" };
            bar.with_style(style(template))
        });
        Display { bar }
    }

    /// Moves the bar, on a terminal.
    pub(crate) fn position(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
    }

    /// Shows a line: in the place of the last on a terminal, below it elsewhere.
    pub(crate) fn line(&self, text: String) {
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => note(&text),
        }
    }

    /// Takes the bar away, on a terminal.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line on standard error. That nobody reads it is no reason to stop.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The figures of the last `seconds` as a line.
pub(crate) fn line(live: &Live, seconds: f64, unit: &str) -> String {
    let seconds = seconds.max(1e-3);
    let rate = count(live.messages as f64 / seconds);
    if live.messages == 0 {
        return format!("{rate:>6} {unit}/s");
    }
    let at = |quantile| micros(live.latencies.value_at_quantile(quantile) as f64 / 1e3);
    let speed = bytes(live.bytes as f64 / seconds);
    format!("{rate:>6} {unit}/s  {speed:>9}/s  p50 {:>7}  p99 {:>7}  max {:>7}", at(0.5), at(0.99), at(1.0))
}

/// As [`line`], in less width.
pub(crate) fn short_line(live: &Live, seconds: f64) -> String {
    let at = |quantile| micros(live.latencies.value_at_quantile(quantile) as f64 / 1e3);
    let rate = count(live.messages as f64 / seconds.max(1e-3));
    format!("{rate:>5}/s p50 {:>7} p99 {:>7}", at(0.5), at(0.99))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is constant and valid").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_figures_of_its_time() {
        let mut live = Live::default();
        assert_eq!(line(&live, 1.0, "messages").trim(), "0 messages/s");
        live.messages = 1000;
        live.bytes = 64_000;
        (0..1000).for_each(|_| live.latencies.saturating_record(250_000));
        let text = line(&live, 0.5, "messages");
        assert!(short_line(&live, 0.5).starts_with("2.00k/s p50  251 us p99 "), "{}", short_line(&live, 0.5));
        assert!(text.contains("2.00k messages/s") && text.contains("125 KiB/s") && text.contains("p99"), "{text}");
    }

    #[test]
    fn templates_are_valid() {
        for display in [Display::connecting(3), Display::running(Some(LINE_EVERY)), Display::running(None)] {
            display.position(1);
            display.finish();
        }
        style("connecting {bar:40} {pos}/{len}");
        style("{bar:10} {pos:>3}/{len} s  {wide_msg}");
        style("{elapsed:>5}  {wide_msg}");
    }
}
