//! The loads under which servers are compared, and the goals that wingbeat has set itself beside two of the peers.
#![forbid(unsafe_code)]

use clap::ValueEnum;

const DEPTHS: [u32; 2] = [1, 16];
const CONNECTIONS: [u32; 4] = [1, 100, 1_000, 10_000];
const PAYLOADS: [u32; 4] = [20, 1_024, 16_384, 65_536];
/// More than this in flight at once, and the kernel's memory for TCP is what is measured.
const IN_FLIGHT_BYTES: u64 = 4 << 30;
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
    /// What the goals speak of, and nothing else.
    Figures,
    /// That, and what is around it.
    Default,
    /// Every combination that is possible.
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
        Extent::Full => u64::from(echo.connections) * u64::from(echo.depth * echo.payload) <= IN_FLIGHT_BYTES,
        Extent::Figures => echo_goal("uws", *echo).is_some(),
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
    all.filter(|fanout| match extent {
        Extent::Full | Extent::Default => true,
        Extent::Figures => fanout_goal("uws", *fanout).is_some(),
        Extent::Quick => fanout.subscribers == 1_000,
    })
    .collect()
}

/// Two connection counts whose difference in memory is divided by their difference.
pub fn memory_counts(extent: Extent) -> (u32, u32) {
    if extent == Extent::Quick { (1_000, 4_000) } else { (4_000, 16_000) }
}

/// Subscribers of the large publish.
pub fn publish_subscribers(extent: Extent) -> u32 {
    if extent == Extent::Quick { 1_000 } else { 10_000 }
}

/// The largest CPU ratio wingbeat / peer that counts as reached: beside a floor a goal, beside uWebSockets an aim.
pub fn echo_goal(peer: &str, echo: Echo) -> Option<f64> {
    let (floor, uws) = match (echo.connections, echo.depth, echo.payload) {
        (100, 1, 20) => (1.05, 0.95),
        (1_000, 1, 20) => (1.05, 0.90),
        (10_000, 1, 20) => (1.05, 0.93),
        (100 | 1_000, 16, 20) => (1.15, 0.85),
        (100, 1, 16_384 | 65_536) => (1.10, 1.0),
        _ => return None,
    };
    goal(peer, floor, uws)
}

/// The same per delivery.
pub fn fanout_goal(peer: &str, fanout: Fanout) -> Option<f64> {
    match (fanout.subscribers, fanout.burst) {
        (1_000 | 10_000, 1) => goal(peer, 1.10, 0.85),
        (1_000 | 10_000, 16) => goal(peer, 1.15, 0.85),
        _ => None,
    }
}

/// The same per opening handshake.
pub fn handshake_goal(peer: &str) -> Option<f64> {
    (peer == "uws").then_some(1.0)
}

fn goal(peer: &str, floor: f64, uws: f64) -> Option<f64> {
    match peer {
        "raw-epoll" | "raw-uring" => Some(floor),
        "uws" => Some(uws),
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
        let [quick, figures, default, full] =
            [Extent::Quick, Extent::Figures, Extent::Default, Extent::Full].map(echoes);
        // All but 10,000 x 16 x 64 KiB.
        assert_eq!(full.len(), CONNECTIONS.len() * DEPTHS.len() * PAYLOADS.len() - 1);
        assert!(figures.iter().all(|echo| default.contains(echo)) && figures.len() < default.len());
        assert!(default.iter().all(|echo| full.contains(echo)) && default.len() < full.len());
        assert!(quick.iter().all(|echo| default.contains(echo)) && !quick.is_empty());
    }

    #[test]
    fn the_figures_are_the_loads_that_have_goals() {
        for peer in ["raw-epoll", "raw-uring", "uws"] {
            let (echoes, fanouts) = (echoes(Extent::Figures), fanouts(Extent::Figures));
            assert!(echoes.iter().all(|echo| echo_goal(peer, *echo).is_some()) && echoes.len() == 7);
            assert!(fanouts.iter().all(|fanout| fanout_goal(peer, *fanout).is_some()) && fanouts.len() == 4);
        }
        assert!(echoes(Extent::Full).iter().all(|echo| echo_goal("tungstenite", *echo).is_none()));
    }
}
