//! UTF-8 (RFC 3629), whole and in pieces.
#![forbid(unsafe_code)]

use super::ProtoError;

/// Whether `bytes` are UTF-8.
#[inline]
pub fn is_valid(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

/// `bytes` as text.
///
/// # Errors
/// [`ProtoError::InvalidUtf8`].
#[inline]
pub fn parse(bytes: &[u8]) -> Result<&str, ProtoError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| ProtoError::InvalidUtf8)
}

/// Checks text that comes in pieces, cut anywhere. One byte; the bulk of a piece is checked at once, only a code point
/// that was cut goes byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validator(State);

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A code point.
    Start,
    /// One, two, three bytes of the range 80-BF.
    Last1,
    Last2,
    Last3,
    /// The second byte has a narrower range, because shorter forms, surrogates and what is above 10FFFF are excluded.
    AfterE0,
    AfterEd,
    AfterF0,
    AfterF4,
    /// Nothing: a bad byte was seen.
    Bad,
}

impl Default for Validator {
    fn default() -> Self {
        Validator::new()
    }
}

impl Validator {
    /// At the start of a text.
    pub const fn new() -> Validator {
        Validator(State::Start)
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`ProtoError::InvalidUtf8`] if what came so far is not the beginning of any valid text, so at the first bad
    /// byte; then for every byte that follows.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), ProtoError> {
        while self.0 != State::Start
            && let [first, rest @ ..] = bytes
        {
            self.step(*first)?;
            bytes = rest;
        }
        let (whole, cut) = bytes.split_at(bytes.len() - cut_len(bytes));
        if !is_valid(whole) {
            self.0 = State::Bad;
            return Err(ProtoError::InvalidUtf8);
        }
        cut.iter().try_for_each(|&byte| self.step(byte))
    }

    /// Whether what came so far is a whole text: no code point is cut.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.0 == State::Start
    }

    fn step(&mut self, byte: u8) -> Result<(), ProtoError> {
        self.0 = self.0.after(byte);
        if self.0 == State::Bad { Err(ProtoError::InvalidUtf8) } else { Ok(()) }
    }
}

impl State {
    /// The table of RFC 3629 §4.
    fn after(self, byte: u8) -> State {
        match (self, byte) {
            (State::Start, 0x00..=0x7f) | (State::Last1, 0x80..=0xbf) => State::Start,
            (State::Start, 0xc2..=0xdf) => State::Last1,
            (State::Start, 0xe0) => State::AfterE0,
            (State::Start, 0xed) => State::AfterEd,
            (State::Start, 0xe1..=0xef) => State::Last2,
            (State::Start, 0xf0) => State::AfterF0,
            (State::Start, 0xf1..=0xf3) => State::Last3,
            (State::Start, 0xf4) => State::AfterF4,
            (State::Last2, 0x80..=0xbf) | (State::AfterE0, 0xa0..=0xbf) | (State::AfterEd, 0x80..=0x9f) => State::Last1,
            (State::Last3, 0x80..=0xbf) | (State::AfterF0, 0x90..=0xbf) | (State::AfterF4, 0x80..=0x8f) => State::Last2,
            _ => State::Bad,
        }
    }
}

/// How many bytes at the end of `bytes` begin a code point that does not end there, by the length that its first byte
/// announces. Whether they are valid is not looked at.
fn cut_len(bytes: &[u8]) -> usize {
    for (back, &byte) in (1..4).zip(bytes.iter().rev()) {
        let announced = match byte {
            0x80..=0xbf => continue,
            0x00..=0x7f => 1,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
        };
        return if announced > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first byte after which no valid text begins like this, told by the standard library.
    fn first_bad(bytes: &[u8]) -> Option<usize> {
        let error = std::str::from_utf8(bytes).err()?;
        let at = error.valid_up_to();
        let begins = matches!(bytes[at], 0xc2..=0xf4);
        error.error_len().map(|len| at + if begins { len } else { 0 })
    }

    fn first_refused(bytes: &[u8], chunk: usize) -> Option<usize> {
        let mut validator = Validator::new();
        bytes.chunks(chunk).position(|piece| validator.push(piece).is_err())
    }

    fn check(bytes: &[u8]) {
        assert_eq!(first_refused(bytes, 1), first_bad(bytes), "{bytes:x?}");
        let mut validator = Validator::new();
        assert_eq!(validator.push(bytes).is_ok(), first_bad(bytes).is_none(), "{bytes:x?}");
        let complete = validator.is_complete() && first_bad(bytes).is_none();
        assert_eq!(complete, std::str::from_utf8(bytes).is_ok(), "{bytes:x?}");
    }

    #[test]
    fn all_sequences_of_up_to_three_bytes() {
        for a in 0..=255 {
            check(&[a]);
            for b in 0..=255 {
                check(&[a, b]);
                // A third byte after plain ASCII adds nothing that two bytes have not shown.
                for c in (0..=255).filter(|_| a >= 0x80) {
                    check(&[a, b, c]);
                }
            }
        }
    }

    #[test]
    fn four_and_five_bytes_of_every_class() {
        const CLASSES: [u8; 21] = [
            0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf3,
            0xf4, 0xf5, 0xff,
        ];
        for code in 0..21u32.pow(4) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| CLASSES[(code / 21u32.pow(i) % 21) as usize]);
            check(&[a, b, c, d]);
            check(&[0xf0, a, b, c, d]);
        }
    }

    #[test]
    fn long_texts_with_one_bad_byte_anywhere_in_any_pieces() {
        let text = "κόσμε 𝄞 plain ascii for a while, long enough for wide registers, then \u{10ffff} €uro ".repeat(3);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 0xa5;
            let bad = first_bad(&bytes);
            for chunk in [1, 2, 3, 5, 16, 63, 64, 65, 1000] {
                assert_eq!(first_refused(&bytes, chunk), bad.map(|bad| bad / chunk), "byte {at} in pieces of {chunk}");
            }
        }
    }

    #[test]
    fn stays_bad() {
        let mut validator = Validator::new();
        assert!(validator.push(b"\xff").is_err());
        assert!(validator.push(b"fine").is_err() && !validator.is_complete());
    }
}
