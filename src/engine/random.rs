//! Randomness of a worker: masking keys, nonces, jitter. From the operating system, or from a seed in simulations.
#![forbid(unsafe_code)]

use crate::proto::MaskingKey;

const BUFFER: usize = 4096;

/// A source of unpredictable bytes (RFC 6455 §5.3 demands it of masking keys), bought from the system 4 KiB at a time.
#[derive(Debug)]
pub(crate) struct Random {
    buffer: Box<[u8; BUFFER]>,
    used: usize,
    seed: Option<u64>,
}

impl Random {
    /// From the operating system; with a `seed` it is reproducible, for simulations alone.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Random { buffer: Box::new([0; BUFFER]), used: BUFFER, seed }
    }

    pub(crate) fn key(&mut self) -> MaskingKey {
        MaskingKey(self.take())
    }

    pub(crate) fn number(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > BUFFER {
            self.refill();
        }
        let bytes = self.buffer[self.used..self.used + N].try_into().expect("the range has N bytes");
        self.used += N;
        bytes
    }

    fn refill(&mut self) {
        self.used = 0;
        match &mut self.seed {
            None => getrandom::fill(&mut self.buffer[..]).expect("the system provides randomness"),
            Some(state) => self.buffer.chunks_exact_mut(8).for_each(|chunk| {
                // splitmix64
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                chunk.copy_from_slice(&(z ^ (z >> 31)).to_ne_bytes());
            }),
        }
    }
}
