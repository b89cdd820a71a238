//! What a fan-out message carries: who published it, its number, and when.
#![forbid(unsafe_code)]

/// Bytes of a stamp, at the start of the payload.
pub(crate) const STAMP_BYTES: usize = 16;
/// Publishers that a stamp can tell apart.
pub(crate) const PUBLISHERS_MAX: u32 = 1 << PUBLISHER_BITS;

const PUBLISHER_BITS: u32 = 24;
const TIME_BITS: u32 = 40;
/// 40 bits of this are 30 hours.
const TIME_UNIT_NS: u64 = 100;

/// What payloads are made of: 64 characters that no text format escapes.
pub(crate) const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-";

/// 96 bits as 16 characters of 6 bits each, so that one form suits text, JSON strings and binary messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Below [`PUBLISHERS_MAX`].
    pub(crate) publisher: u32,
    /// Counts the publisher's messages from 0, and wraps.
    pub(crate) sequence: u32,
    /// When it was sent, or was to be sent, in nanoseconds of the run's clock; kept to 100 ns.
    pub(crate) time_ns: u64,
}

impl Stamp {
    pub(crate) fn encode(self) -> [u8; STAMP_BYTES] {
        let time = u128::from(self.time_ns / TIME_UNIT_NS) & ((1 << TIME_BITS) - 1);
        let bits = u128::from(self.publisher) << (32 + TIME_BITS) | u128::from(self.sequence) << TIME_BITS | time;
        std::array::from_fn(|at| ALPHABET[(bits >> (6 * at)) as usize & 63])
    }

    /// Reads the stamp at the start of a payload; none if there is none.
    pub(crate) fn decode(payload: &[u8]) -> Option<Stamp> {
        let characters: &[u8; STAMP_BYTES] = payload.first_chunk()?;
        let mut bits = 0u128;
        for (at, &character) in characters.iter().enumerate() {
            let value = VALUES[usize::from(character)];
            if value == NO_VALUE {
                return None;
            }
            bits |= u128::from(value) << (6 * at);
        }
        let time = (bits & ((1 << TIME_BITS) - 1)) as u64;
        Some(Stamp {
            publisher: (bits >> (32 + TIME_BITS)) as u32,
            sequence: (bits >> TIME_BITS) as u32,
            time_ns: time * TIME_UNIT_NS,
        })
    }
}

/// By character: where it stands in the alphabet.
const VALUES: [u8; 256] = {
    let mut values = [NO_VALUE; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values
};
const NO_VALUE: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive() {
        for (publisher, sequence, time_ns) in
            [(0, 0, 0), (PUBLISHERS_MAX - 1, u32::MAX, ((1 << TIME_BITS) - 1) * 100), (7, 1_000_000, 123_456_789_000)]
        {
            let stamp = Stamp { publisher, sequence, time_ns };
            let bytes = stamp.encode();
            assert!(bytes.iter().all(|byte| ALPHABET.contains(byte)));
            assert_eq!(Stamp::decode(&bytes), Some(stamp));
        }
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        let bytes = Stamp { publisher: 1, sequence: 2, time_ns: 300 }.encode();
        assert_eq!(Stamp::decode(&bytes[..15]), None);
        for wrong in [0, b'/', b'"', b'\\', 0xff] {
            let mut bytes = bytes;
            bytes[8] = wrong;
            assert_eq!(Stamp::decode(&bytes), None);
        }
    }
}
