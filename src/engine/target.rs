//! Where an outgoing connection goes, and what happens when it is lost.
#![forbid(unsafe_code)]

use crate::driver::Address;
use crate::proto::handshake::client::RequestHead;
use std::{net::SocketAddr, time::Duration};

/// What an outgoing connection connects to. Names are resolved by the caller, outside the worker.
#[derive(Debug)]
pub struct Target {
    /// The server's socket.
    pub address: Address,
    /// The opening handshake: host, target, fields, subprotocols.
    pub head: RequestHead,
    /// Source address to bind; port 0 lets the kernel choose.
    pub source: Option<SocketAddr>,
    /// Connect again, with the same token, when the connection fails or is lost; none: once.
    pub reconnect: Option<Reconnect>,
}

/// Exponential backoff with full jitter: the n-th try after a failure waits a random time up to `first * 2^n`, `max` at
/// most, so that clients of a server that went away do not come back as a herd. `n` begins at 0 again only after a
/// connection that stood for `max`: a server that accepts and then drops is not met with ever fresh tries.
#[derive(Clone, Copy, Debug)]
pub struct Reconnect {
    /// Bound of the first wait. Default 500 ms.
    pub first: Duration,
    /// Bound of every wait. Default 30 s.
    pub max: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Reconnect { first: Duration::from_millis(500), max: Duration::from_secs(30) }
    }
}

impl Reconnect {
    /// The wait before try `attempt` (from 0), for a `random` number uniform over all of `u64`.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let bound = self.first.saturating_mul(1 << attempt.min(20)).min(self.max);
        bound.mul_f64(random as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_are_spread() {
        let reconnect = Reconnect::default();
        assert_eq!(reconnect.delay(0, u64::MAX), Duration::from_millis(500));
        assert_eq!(reconnect.delay(3, u64::MAX), Duration::from_secs(4));
        assert_eq!(reconnect.delay(40, u64::MAX), Duration::from_secs(30));
        assert_eq!(reconnect.delay(40, 0), Duration::ZERO);
        let half = reconnect.delay(0, u64::MAX / 2);
        assert!(half > Duration::from_millis(249) && half < Duration::from_millis(251));
    }
}
