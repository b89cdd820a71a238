//! Random bytes for nonces and masking keys.
#![forbid(unsafe_code)]

use std::{fmt, io};

use crate::proto::MaskingKey;

/// Bytes from the system's secure source that are taken at once: one system call for 256 frames.
const BATCH: usize = 1024;

/// Masking keys, each used once (RFC 6455 §10.3).
pub(super) struct Keys {
    bytes: [u8; BATCH],
    used: usize,
}

impl Keys {
    pub(super) fn new() -> Keys {
        Keys { bytes: [0; BATCH], used: BATCH }
    }

    pub(super) fn next(&mut self) -> io::Result<MaskingKey> {
        if self.used == BATCH {
            fill(&mut self.bytes)?;
            self.used = 0;
        }
        let (keys, _) = self.bytes.as_chunks::<4>();
        let key = keys[self.used / 4];
        self.used += 4;
        Ok(MaskingKey(key))
    }
}

/// Tells nothing: keys that a peer could foresee are worth nothing.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// A nonce for one opening handshake.
pub(super) fn nonce() -> io::Result<[u8; 16]> {
    let mut nonce = [0; 16];
    fill(&mut nonce)?;
    Ok(nonce)
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(|_| io::Error::other("the system has no random bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_do_not_repeat_across_batches() {
        let mut keys = Keys::new();
        let seen: HashSet<_> = (0..BATCH).map(|_| keys.next().unwrap()).collect();
        // 1,024 random keys of 32 bits: more than one pair that is equal comes once in 10^8 runs.
        assert!(seen.len() >= BATCH - 1);
    }
}
