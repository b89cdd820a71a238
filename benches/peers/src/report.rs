//! The tables, as Markdown, row by row while the measurement runs.
#![forbid(unsafe_code)]

use crate::compare::{Disturbance, Pair, Run};
use crate::peer::Driver;
use crate::stats::{Estimate, median};

/// Under this share of a core the throughput is the client's, not the server's.
const SATURATED: f64 = 0.95;
/// Under this share of the deliveries that were to be made, a large publish did not disturb as it should have.
/// Generous: the background run is cut off at any point between two publishes.
const PUBLISHED: f64 = 0.5;

pub fn echo_head(title: &str, load: &str) {
    println!("\n## {title}\n");
    println!(
        "| {load} | peer | wingbeat on | peer CPU us | wingbeat CPU us | CPU ratio [95 %] | goal | throughput ratio \
         | p50/p99 us peer | p50/p99 us wingbeat | server share peer/wingbeat | flags |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
}

pub fn echo_row(load: &str, peer: &str, driver: Driver, pairs: &[Pair<Run>], goal: Option<f64>) {
    let of = |pick: fn(&Run) -> f64| columns(pairs, pick);
    let (cpu, share) = (of(|run| run.cpu_us), of(|run| run.cpu_share));
    let (p50, p99) = (of(|run| run.p50_us), of(|run| run.p99_us));
    let ratio = ratios(pairs, |run| run.cpu_us);
    println!(
        "| {load} | {peer} | {} | {} | {} | {} | {} | {} | {}/{} | {}/{} | {:.0}/{:.0} % | {} |",
        driver.name(),
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
        "| peer | wingbeat on | peer CPU us | wingbeat CPU us | CPU ratio [95 %] | goal | peer/s | wingbeat/s | throughput ratio \
         | server share peer/wingbeat | flags |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
}

pub fn handshake_row(peer: &str, driver: Driver, pairs: &[Pair<Run>], goal: Option<f64>) {
    let of = |pick: fn(&Run) -> f64| columns(pairs, pick);
    let (cpu, rate, share) = (of(|run| run.cpu_us), of(|run| run.per_second), of(|run| run.cpu_share));
    let ratio = ratios(pairs, |run| run.cpu_us);
    println!(
        "| {peer} | {} | {} | {} | {} | {} | {:.0} | {:.0} | {} | {:.0}/{:.0} % | {} |",
        driver.name(),
        significant(cpu.0),
        significant(cpu.1),
        bracketed(ratio),
        verdict(ratio, goal),
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
    println!("| peer | wingbeat on | peer bytes [95 %] | wingbeat bytes [95 %] | ratio | goal |");
    println!("|---|---|---|---|---|---|");
}

pub fn memory_row(peer: &str, driver: Driver, pairs: &[Pair<f64>], goal: f64) {
    let peers = Estimate::of(&pairs.iter().map(|pair| pair.peer).collect::<Vec<_>>());
    let ours = Estimate::of(&pairs.iter().map(|pair| pair.ours).collect::<Vec<_>>());
    let ratio = ours.median / peers.median;
    println!(
        "| {peer} | {} | {} | {} | {} | {} |",
        driver.name(),
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
        "| peer | wingbeat on | peer without | peer with | peer with/without [95 %] | wingbeat without | wingbeat with \
         | wingbeat with/without [95 %] | goal | flags |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
}

pub fn publish_row(peer: &str, driver: Driver, pairs: &[Pair<Disturbance>], subscribers: u32, goal: f64) {
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
        "| {peer} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        driver.name(),
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

/// Pairs with one of the peers that the goals speak of, and the goal.
pub type Beside<'a> = (Option<&'a [Pair<Run>]>, Option<f64>);

pub fn figures_head(title: &str) {
    println!("\n## {title}: server CPU\n");
    println!(
        "| work | driver | wingbeat us | floor us | ratio to the floor of the driver [95 %] | goal \
         | uws us | ratio to uws [95 %] | aim | flags |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
}

/// wingbeat on a driver beside its floor and beside uWebSockets; a dash for what was not measured.
pub fn figures_row(work: &str, driver: Driver, floor: Beside<'_>, uws: Beside<'_>) {
    let Some(measured) = floor.0.or(uws.0) else { return };
    let cells = |(pairs, goal): Beside<'_>| match pairs {
        None => "- | - | -".to_owned(),
        Some(pairs) => {
            let ratio = ratios(pairs, |run| run.cpu_us);
            let cpu = significant(columns(pairs, |run| run.cpu_us).0);
            format!("{cpu} | {} | {}", bracketed(ratio), verdict(ratio, goal))
        }
    };
    println!(
        "| {work} | {} | {} | {} | {} | {} |",
        driver.name(),
        significant(columns(measured, |run| run.cpu_us).1),
        cells(floor),
        cells(uws),
        flags(&[floor.0, uws.0].into_iter().flatten().flatten().copied().collect::<Vec<_>>())
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
