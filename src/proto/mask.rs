//! Masking (RFC 6455 §5.3): an exclusive or with 4 bytes, over and over, fused with the look for non-ASCII bytes.
//!
//! Written over 8-byte words in a shape that the compiler turns into vector code for whatever target it builds for.
#![forbid(unsafe_code)]

/// The 4 bytes that a client mixes into a frame's payload. Zero leaves the payload as it is.
///
/// A client must take each key from a strong source of entropy, and a fresh one for each frame (RFC 6455 §10.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MaskingKey(pub [u8; 4]);

impl MaskingKey {
    /// The key for what follows `len` bytes: the same bytes, beginning where the payload goes on.
    #[inline]
    pub const fn advanced(self, len: usize) -> MaskingKey {
        let [a, b, c, d] = self.0;
        MaskingKey(match len % 4 {
            0 => [a, b, c, d],
            1 => [b, c, d, a],
            2 => [c, d, a, b],
            _ => [d, a, b, c],
        })
    }

    #[inline]
    const fn is_zero(self) -> bool {
        u32::from_ne_bytes(self.0) == 0
    }
}

const NON_ASCII: u64 = u64::from_ne_bytes([0x80; 8]);

/// Masks or unmasks `payload` in place.
#[inline]
pub fn apply(payload: &mut [u8], key: MaskingKey) {
    if !key.is_zero() {
        mix(payload, key);
    }
}

/// Masks or unmasks `payload` in place, and tells whether the result is all ASCII. One pass over the bytes.
#[inline]
pub fn apply_checking_ascii(payload: &mut [u8], key: MaskingKey) -> bool {
    if key.is_zero() { payload.is_ascii() } else { mix(payload, key) & NON_ASCII == 0 }
}

/// Returns the results or-ed together; the optimiser drops that where it is not looked at.
#[inline(always)]
fn mix(payload: &mut [u8], key: MaskingKey) -> u64 {
    let [a, b, c, d] = key.0;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    let mut seen = 0;
    for word in words {
        let mixed = u64::from_ne_bytes(*word) ^ wide;
        *word = mixed.to_ne_bytes();
        seen |= mixed;
    }
    let (halves, rest) = rest.as_chunks_mut::<4>();
    for half in halves {
        let mixed = u32::from_ne_bytes(*half) ^ u32::from_ne_bytes(key.0);
        *half = mixed.to_ne_bytes();
        seen |= u64::from(mixed) | u64::from(mixed) << 32;
    }
    for (byte, key) in rest.iter_mut().zip(key.0) {
        *byte ^= key;
        seen |= u64::from_ne_bytes([*byte; 8]);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_by_one(payload: &[u8], key: MaskingKey) -> Vec<u8> {
        payload.iter().enumerate().map(|(i, byte)| byte ^ key.0[i % 4]).collect()
    }

    #[test]
    fn every_length_and_offset_is_as_one_by_one() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 37 % 251) as u8).collect();
        for key in [MaskingKey([0x37, 0xfa, 0x21, 0x3d]), MaskingKey([0, 0, 0, 1]), MaskingKey::default()] {
            for from in 0..9 {
                for to in from..bytes.len() {
                    let mut copy = bytes.clone();
                    apply(&mut copy[from..to], key);
                    assert_eq!(copy[from..to], one_by_one(&bytes[from..to], key)[..]);
                    assert_eq!((&copy[..from], &copy[to..]), (&bytes[..from], &bytes[to..]));
                }
            }
        }
    }

    #[test]
    fn a_key_goes_on_where_a_cut_was() {
        let key = MaskingKey([1, 2, 3, 4]);
        let bytes = [0x55; 40];
        for cut in 0..=bytes.len() {
            let mut copy = bytes;
            let (head, tail) = copy.split_at_mut(cut);
            apply(head, key);
            apply(tail, key.advanced(cut));
            assert_eq!(copy[..], one_by_one(&bytes, key)[..]);
        }
    }

    #[test]
    fn one_byte_that_is_not_ascii_is_seen_wherever_it_stands() {
        for key in [MaskingKey([0x91, 0x82, 0x13, 0x04]), MaskingKey::default()] {
            for len in 0..100 {
                let text = vec![b'a'; len];
                let mut masked = one_by_one(&text, key);
                assert!(apply_checking_ascii(&mut masked, key));
                assert_eq!(masked, text);
                for at in 0..len {
                    let mut masked = one_by_one(&text, key);
                    masked[at] ^= 0x80;
                    assert!(!apply_checking_ascii(&mut masked, key), "{at} of {len}");
                }
            }
        }
    }
}
