//! Frames into a buffer of the caller (RFC 6455 §5.2). No state, no checks of what is sent when: that is the
//! [`Writer`](super::Writer)'s.
#![forbid(unsafe_code)]

use super::{MaskingKey, Opcode, header, mask};

/// The first payload lengths that need 2 and 8 bytes of length.
const FROM_16: usize = 126;
const FROM_64: usize = 1 << 16;

/// Bytes of the header of a frame with `payload_len` bytes: 2, 4 or 10, and 4 more if it is masked.
#[inline]
pub const fn header_len(payload_len: usize, masked: bool) -> usize {
    let key = if masked { 4 } else { 0 };
    key + match payload_len {
        0..FROM_16 => 2,
        FROM_16..FROM_64 => 4,
        _ => 10,
    }
}

/// Appends a frame to `out`. Masked if there is a `key`. One copy of the payload.
#[inline]
pub fn frame(out: &mut Vec<u8>, opcode: Opcode, fin: bool, payload: &[u8], key: Option<MaskingKey>) {
    let head = Head::new(opcode, fin, payload.len(), key);
    out.reserve(head.len + payload.len());
    // Copies of a size that the compiler knows need no call; these two are the headers that a server sends most.
    match head.len {
        2 => out.extend_from_slice(&[head.bytes[0], head.bytes[1]]),
        4 => out.extend_from_slice(&[head.bytes[0], head.bytes[1], head.bytes[2], head.bytes[3]]),
        _ => out.extend_from_slice(head.bytes()),
    }
    out.extend_from_slice(payload);
    if let Some(key) = key {
        let start = out.len() - payload.len();
        mask::apply(&mut out[start..], key);
    }
}

/// Appends a frame with FIN whose payload `write` appends. The payload is moved only if its header is not of 4 bytes (8
/// if masked): by 2 bytes if it has up to 125, by 6 if it has more than 65,535.
///
/// # Panics
/// If `write` took away bytes that were in `out` before. If `write` panics, `out` keeps what had been appended by then.
#[inline]
pub fn frame_with(out: &mut Vec<u8>, opcode: Opcode, key: Option<MaskingKey>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let guess = header_len(FROM_16, key.is_some());
    out.resize(start + guess, 0);
    write(out);
    assert!(out.len() >= start + guess, "the payload's writer must only append");
    finish(out, start, guess, opcode, key);
}

/// Puts the header before the payload that stands `guess` bytes behind `start`.
fn finish(out: &mut Vec<u8>, start: usize, guess: usize, opcode: Opcode, key: Option<MaskingKey>) {
    let payload_len = out.len() - start - guess;
    let head = Head::new(opcode, true, payload_len, key);
    if let Some(key) = key {
        mask::apply(&mut out[start + guess..], key);
    }
    if head.len > guess {
        out.resize(start + head.len + payload_len, 0);
    }
    if head.len != guess {
        out.copy_within(start + guess..start + guess + payload_len, start + head.len);
        out.truncate(start + head.len + payload_len);
    }
    out[start..start + head.len].copy_from_slice(head.bytes());
}

/// The bytes of a header.
struct Head {
    bytes: [u8; header::Header::MAX_SIZE],
    len: usize,
}

impl Head {
    #[inline]
    fn new(opcode: Opcode, fin: bool, payload_len: usize, key: Option<MaskingKey>) -> Head {
        let mut bytes = [0; header::Header::MAX_SIZE];
        let len = header_len(payload_len, key.is_some());
        bytes[0] = opcode as u8 | if fin { header::FIN } else { 0 };
        bytes[1] = match payload_len {
            0..FROM_16 => payload_len as u8,
            FROM_16..FROM_64 => {
                bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
                header::LENGTH_16
            }
            _ => {
                bytes[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
                header::LENGTH_64
            }
        };
        if let Some(MaskingKey(key)) = key {
            bytes[1] |= header::MASKED;
            bytes[len - 4..len].copy_from_slice(&key);
        }
        Head { bytes, len }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: MaskingKey = MaskingKey([0x37, 0xfa, 0x21, 0x3d]);

    #[test]
    fn examples_of_the_standard() {
        // RFC 6455 §5.7
        let mut out = Vec::new();
        frame(&mut out, Opcode::Text, true, b"Hello", None);
        assert_eq!(out, b"\x81\x05Hello");
        out.clear();
        frame(&mut out, Opcode::Text, true, b"Hello", Some(KEY));
        assert_eq!(out, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        out.clear();
        frame(&mut out, Opcode::Text, false, b"Hel", None);
        frame(&mut out, Opcode::Continuation, true, b"lo", None);
        assert_eq!(out, b"\x01\x03Hel\x80\x02lo");
        out.clear();
        frame(&mut out, Opcode::Binary, true, &[7; 256], None);
        assert_eq!(out[..5], *b"\x82\x7e\x01\x00\x07");
        out.clear();
        frame(&mut out, Opcode::Binary, true, &[7; 65536], None);
        assert_eq!(out[..11], *b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00\x07");
    }

    #[test]
    fn written_in_place_is_as_copied_at_every_border_of_the_length() {
        for len in [0, 1, 2, 5, 6, 7, 125, 126, 127, 1000, 65535, 65536, 65537, 100_000] {
            for key in [None, Some(KEY)] {
                let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
                let (mut copied, mut in_place) = (b"before".to_vec(), b"before".to_vec());
                frame(&mut copied, Opcode::Binary, true, &payload, key);
                frame_with(&mut in_place, Opcode::Binary, key, |out| out.extend_from_slice(&payload));
                assert!(copied == in_place, "{len} bytes");
                assert_eq!(copied.len(), 6 + header_len(len, key.is_some()) + len);
            }
        }
    }

    #[test]
    #[should_panic(expected = "only append")]
    fn a_writer_that_takes_bytes_away_is_caught() {
        let mut out = b"before".to_vec();
        frame_with(&mut out, Opcode::Text, None, Vec::clear);
    }
}
