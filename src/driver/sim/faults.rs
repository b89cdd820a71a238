//! What goes wrong, and how often.
#![forbid(unsafe_code)]

/// How often the simulated kernel misbehaves: chances in 1,000 per operation that could be hit. All of it is allowed
/// by the driver contract or by TCP, so that an engine that stumbles over any of it is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A receive gives a random part of what is there (half of the time a single byte).
    pub partial_receive: u16,
    /// A socket that could be received from is passed over for one poll.
    pub late_receive: u16,
    /// The kernel takes a random part of a send.
    pub partial_send: u16,
    /// The kernel takes nothing of a send for a while (up to 2 ms), though there is room.
    pub would_block: u16,
    /// The kernel takes all of a send, yet says so later (up to 5 ms).
    pub delay_sent: u16,
    /// The peer's host resets the connection, per socket and poll.
    pub reset: u16,
    /// The peer stops sending for good, per socket and poll.
    pub half_close: u16,
    /// No descriptor is left to accept with.
    pub accept_exhausted: u16,
    /// Sockets that are ready in the same poll are served in random order, per poll.
    pub reorder: u16,
    /// A connect takes a while (up to 20 ms).
    pub slow_connect: u16,
    /// A connect is refused though somebody listens.
    pub refuse_connect: u16,
    /// The clock jumps ahead by up to 10 s, per poll.
    pub clock_jump: u16,
}

impl Faults {
    /// Everything cut, late and in disorder, but no connection is broken and the clock runs smoothly: what was sent
    /// has to arrive.
    pub const fn benign() -> Self {
        Faults {
            partial_receive: 500,
            late_receive: 100,
            partial_send: 300,
            would_block: 150,
            delay_sent: 150,
            reset: 0,
            half_close: 0,
            accept_exhausted: 0,
            reorder: 700,
            slow_connect: 300,
            refuse_connect: 0,
            clock_jump: 0,
        }
    }

    /// All of it.
    pub const fn hostile() -> Self {
        Faults { reset: 5, half_close: 5, accept_exhausted: 20, refuse_connect: 50, clock_jump: 2, ..Faults::benign() }
    }
}

/// SplitMix64: small, seedable, and good enough to choose what goes wrong.
#[derive(Clone, Debug)]
pub(in crate::driver) struct Random(pub(in crate::driver) u64);

impl Random {
    pub(in crate::driver) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub(in crate::driver) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// True `per_mille` times of 1,000. Draws nothing for 0, so that a fault that is off does not shift the others.
    pub(in crate::driver) fn roll(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < usize::from(per_mille)
    }
}
