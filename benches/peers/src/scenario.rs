//! The loads under which servers are compared, and the goals that wingbeat has set itself beside two of the peers.
#![forbid(unsafe_code)]

use clap::ValueEnum;

const DEPTHS: [u32; 2] = [1, 16];
const CONNECTIONS: [u32; 4] = [1, 100, 1_000, 10_000];
const PAYLOADS: [u32; 3] = [20, 1_024, 16_384];
const SUBSCRIBERS: [u32; 3] = [100, 1_000, 10_000];

/// A kind of comparison, with a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// CPU per echoed message
    Echo,
    /// CPU per delivery of what one publisher sends
    Fanout,
    /// Bytes per idle connection
    Memory,
    /// CPU per opening handshake
    Handshake,
    /// Echo latency beside a large publish
    Publish,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The fewest and smallest runs that exercise everything; no claim can rest on them.
    Quick,
    /// What the goals speak of.
    Default,
    /// Every combination.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    pub connections: u32,
    pub depth: u32,
    pub payload: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    pub subscribers: u32,
    pub burst: u32,
}

/// Echo loads: payload by payload, depth by depth.
pub fn echoes(extent: Extent) -> Vec<Echo> {
    let all = PAYLOADS.iter().flat_map(|&payload| {
        let depths = DEPTHS.iter();
        depths.flat_map(move |&depth| CONNECTIONS.map(|connections| Echo { connections, depth, payload }))
    });
    all.filter(|echo| match extent {
        Extent::Full => true,
        Extent::Quick => echo.connections == 100 && echo.payload == 20,
        Extent::Default => match (echo.payload, echo.depth) {
            (20, 1) => true,
            (20, _) => [100, 1_000].contains(&echo.connections),
            (1_024, _) => echo.connections == 100,
            _ => echo.connections == 100 && echo.depth == 1,
        },
    })
    .collect()
}

/// Fan-out loads: the default is everything already.
pub fn fanouts(extent: Extent) -> Vec<Fanout> {
    let all = SUBSCRIBERS.iter().flat_map(|&subscribers| DEPTHS.map(|burst| Fanout { subscribers, burst }));
    all.filter(|fanout| extent != Extent::Quick || fanout.subscribers == 1_000).collect()
}

/// Two connection counts whose difference in memory is divided by their difference.
pub fn memory_counts(extent: Extent) -> (u32, u32) {
    if extent == Extent::Quick { (1_000, 4_000) } else { (4_000, 16_000) }
}

/// Subscribers of the large publish.
pub fn publish_subscribers(extent: Extent) -> u32 {
    if extent == Extent::Quick { 1_000 } else { 10_000 }
}

/// The largest CPU ratio wingbeat / peer that counts as reached.
pub fn echo_goal(peer: &str, echo: Echo) -> Option<f64> {
    match (peer, echo.depth, echo.payload) {
        ("raw-epoll", 1, 20) => Some(1.05),
        ("raw-epoll", 16, 20) => Some(1.20),
        _ => None,
    }
}

/// The largest CPU ratio wingbeat / peer that counts as reached.
pub fn fanout_goal(peer: &str, fanout: Fanout) -> Option<f64> {
    match (peer, fanout.subscribers, fanout.burst) {
        ("uws", 1_000 | 10_000, 1) => Some(1.0),
        ("uws", 1_000 | 10_000, _) => Some(0.85),
        _ => None,
    }
}

/// User-space bytes per idle connection that wingbeat promises.
pub const MEMORY_GOAL_BYTES: f64 = 128.0;
/// How many times the p99 without it a large publish may cost wingbeat's other connections.
pub const PUBLISH_GOAL: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_nest_and_the_full_one_is_the_whole_product() {
        let [quick, default, full] = [Extent::Quick, Extent::Default, Extent::Full].map(echoes);
        assert_eq!(full.len(), CONNECTIONS.len() * DEPTHS.len() * PAYLOADS.len());
        assert!(default.iter().all(|echo| full.contains(echo)) && default.len() < full.len());
        assert!(quick.iter().all(|echo| default.contains(echo)) && !quick.is_empty());
    }

    #[test]
    fn every_goal_is_measured_by_default() {
        let echoes = echoes(Extent::Default);
        assert!(DEPTHS.iter().all(|&depth| {
            echoes.iter().any(|echo| echo.depth == depth && echo_goal("raw-epoll", *echo).is_some())
        }));
        let fanouts = fanouts(Extent::Default);
        assert_eq!(fanouts.iter().filter(|fanout| fanout_goal("uws", **fanout).is_some()).count(), 4);
    }
}
