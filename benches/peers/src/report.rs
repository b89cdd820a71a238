//! The tables, as Markdown, row by row while the measurement runs.
#![forbid(unsafe_code)]

use crate::compare::{Disturbance, Pair, Run};
use crate::stats::{Estimate, median};

/// Under this share of a core the throughput is the client's, not the server's.
const SATURATED: f64 = 0.95;
/// Under this share of the deliveries that were to be made, a large publish did not disturb as it should have.
/// Generous: the background run is cut off at any point between two publishes.
const PUBLISHED: f64 = 0.5;

pub fn echo_head(title: &str, load: &str) {
    println!("\n## {title}\n");
    println!(
        "| {load} | peer | peer CPU us | wingbeat CPU us | CPU ratio [95 %] | goal | throughput ratio \
         | p50/p99 us peer | p50/p99 us wingbeat | server share peer/wingbeat | flags |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
}

pub fn echo_row(load: &str, peer: &str, pairs: &[Pair<Run>], goal: Option<f64>) {
    let of = |pick: fn(&Run) -> f64| columns(pairs, pick);
    let (cpu, share) = (of(|run| run.cpu_us), of(|run| run.cpu_share));
    let (p50, p99) = (of(|run| run.p50_us), of(|run| run.p99_us));
    let ratio = ratios(pairs, |run| run.cpu_us);
    println!(
        "| {load} | {peer} | {} | {} | {} | {} | {} | {}/{} | {}/{} | {:.0}/{:.0} % | {} |",
        significant(cpu.0),
        significant(cpu.1),
        bracketed(ratio),
        verdict(ratio, goal),
        bracketed(ratios(pairs, |run| run.per_second)),
        significant(p50.0),
        significant(p99.0),
        significant(p50.1),
        significant(p99.1),
        share.0 * 100.0,
        share.1 * 100.0,
        flags(pairs)
    );
}

pub fn handshake_head() {
    println!("\n## Opening handshakes\n");
    println!(
        "| peer | peer CPU us | wingbeat CPU us | CPU ratio [95 %] | peer/s | wingbeat/s | throughput ratio \
         | server share peer/wingbeat | flags |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
}

pub fn handshake_row(peer: &str, pairs: &[Pair<Run>]) {
    let of = |pick: fn(&Run) -> f64| columns(pairs, pick);
    let (cpu, rate, share) = (of(|run| run.cpu_us), of(|run| run.per_second), of(|run| run.cpu_share));
    println!(
        "| {peer} | {} | {} | {} | {:.0} | {:.0} | {} | {:.0}/{:.0} % | {} |",
        significant(cpu.0),
        significant(cpu.1),
        bracketed(ratios(pairs, |run| run.cpu_us)),
        rate.0,
        rate.1,
        bracketed(ratios(pairs, |run| run.per_second)),
        share.0 * 100.0,
        share.1 * 100.0,
        flags(pairs)
    );
}

pub fn memory_head(few: u32, many: u32) {
    println!("\n## User-space bytes per idle connection (slope of RSS from {few} to {many})\n");
    println!("| peer | peer bytes [95 %] | wingbeat bytes [95 %] | ratio | goal |");
    println!("|---|---|---|---|---|");
}

pub fn memory_row(peer: &str, pairs: &[Pair<f64>], goal: f64) {
    let peers = Estimate::of(&pairs.iter().map(|pair| pair.peer).collect::<Vec<_>>());
    let ours = Estimate::of(&pairs.iter().map(|pair| pair.ours).collect::<Vec<_>>());
    let ratio = ours.median / peers.median;
    println!(
        "| {peer} | {} | {} | {} | {} |",
        bracketed(peers),
        bracketed(ours),
        significant(ratio),
        verdict(ours, Some(goal))
    );
}

pub fn publish_head(subscribers: u32) {
    println!("\n## Echo latency beside one publish per second to {subscribers} subscribers\n");
    println!("100 connections, 5,000 messages/s open loop; p99 in us.\n");
    println!(
        "| peer | peer without | peer with | peer with/without [95 %] | wingbeat without | wingbeat with \
         | wingbeat with/without [95 %] | goal | flags |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
}

pub fn publish_row(peer: &str, pairs: &[Pair<Disturbance>], subscribers: u32, goal: f64) {
    let factor = |pick: fn(&Pair<Disturbance>) -> Disturbance| {
        let found = pairs.iter().map(pick);
        Estimate::of(&found.map(|found| found.with_us / found.without_us).collect::<Vec<_>>())
    };
    let (without, with) = (columns(pairs, |found| found.without_us), columns(pairs, |found| found.with_us));
    let (peers, ours) = (factor(|pair| pair.peer), factor(|pair| pair.ours));
    let mut flags = Vec::new();
    if both(pairs).any(|found| found.errors > 0.0) {
        flags.push("errors");
    }
    if both(pairs).any(|found| found.deliveries_per_s < f64::from(subscribers) * PUBLISHED) {
        flags.push("published too little");
    }
    println!(
        "| {peer} | {} | {} | {} | {} | {} | {} | {} | {} |",
        significant(without.0),
        significant(with.0),
        bracketed(peers),
        significant(without.1),
        significant(with.1),
        bracketed(ours),
        verdict(ours, Some(goal)),
        flags.join(", ")
    );
}

/// In place of a row that could not be measured; the reason goes to standard error.
pub fn failed_row(load: &str, peer: &str) {
    println!("| {load}, {peer}: **failed** |");
}

/// A goal counts as reached when the interval touches it.
fn verdict(ratio: Estimate, goal: Option<f64>) -> String {
    match goal {
        None => String::new(),
        Some(goal) if ratio.low <= goal => format!("{goal} reached"),
        Some(goal) => format!("{goal} **missed**"),
    }
}

fn flags(pairs: &[Pair<Run>]) -> String {
    let mut flags = Vec::new();
    if both(pairs).any(|run| run.client_limited) {
        flags.push("client-limited");
    } else if both(pairs).any(|run| run.cpu_share < SATURATED) {
        flags.push("server not saturated");
    }
    if both(pairs).any(|run| run.errors > 0.0) {
        flags.push("errors");
    }
    if both(pairs).any(Run::contradicted) {
        flags.push("CPU readings differ");
    }
    flags.join(", ")
}

fn both<T>(pairs: &[Pair<T>]) -> impl Iterator<Item = &T> {
    pairs.iter().flat_map(|pair| [&pair.peer, &pair.ours])
}

/// Medians of the peer's and of our values.
fn columns<T>(pairs: &[Pair<T>], pick: impl Fn(&T) -> f64) -> (f64, f64) {
    let peers: Vec<_> = pairs.iter().map(|pair| pick(&pair.peer)).collect();
    let ours: Vec<_> = pairs.iter().map(|pair| pick(&pair.ours)).collect();
    (median(&peers), median(&ours))
}

/// wingbeat / peer, pair by pair.
fn ratios(pairs: &[Pair<Run>], pick: impl Fn(&Run) -> f64) -> Estimate {
    Estimate::of(&pairs.iter().map(|pair| pick(&pair.ours) / pick(&pair.peer)).collect::<Vec<_>>())
}

fn bracketed(estimate: Estimate) -> String {
    format!("{} [{}, {}]", significant(estimate.median), significant(estimate.low), significant(estimate.high))
}

/// Three significant digits, a dash for what was not measured.
fn significant(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run {
        per_second: 100.0,
        cpu_us: 4.0,
        cpu_share: 1.0,
        p50_us: 40.0,
        p99_us: 90.0,
        errors: 0.0,
        client_limited: false,
        cross_check: 1.0,
    };

    #[test]
    fn a_goal_is_reached_when_the_interval_touches_it() {
        let ratio = Estimate { median: 1.08, low: 1.05, high: 1.12 };
        assert_eq!(verdict(ratio, Some(1.05)), "1.05 reached");
        assert_eq!(verdict(ratio, Some(1.04)), "1.04 **missed**");
        assert_eq!(verdict(ratio, None), "");
    }

    #[test]
    fn ratios_are_taken_within_pairs() {
        let pair = |peer, ours| Pair { peer: Run { cpu_us: peer, ..RUN }, ours: Run { cpu_us: ours, ..RUN } };
        // The machine slowed down by half in the middle: the ratio does not see it.
        let pairs = [pair(4.0, 4.2), pair(8.0, 8.4), pair(4.0, 4.2)];
        let ratio = ratios(&pairs, |run| run.cpu_us);
        assert!((ratio.median - 1.05).abs() < 1e-9 && (ratio.high - 1.05).abs() < 1e-9);
    }

    #[test]
    fn what_weakens_a_figure_is_flagged() {
        let pair = |run| [Pair { peer: RUN, ours: run }];
        assert_eq!(flags(&pair(RUN)), "");
        assert_eq!(flags(&pair(Run { client_limited: true, errors: 2.0, ..RUN })), "client-limited, errors");
        assert_eq!(flags(&pair(Run { cpu_share: 0.9, ..RUN })), "server not saturated");
        assert_eq!(flags(&pair(Run { cross_check: 1.2, ..RUN })), "CPU readings differ");
        assert_eq!(flags(&pair(Run { cross_check: f64::NAN, ..RUN })), "", "too short to tell is no contradiction");
    }
}
