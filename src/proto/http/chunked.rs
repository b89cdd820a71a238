//! The chunked transfer coding (RFC 9112 §7.1), taken apart as it comes.
#![forbid(unsafe_code)]

use crate::proto::handshake::headers::is_token_byte;
use std::fmt;

/// Bytes of chunk extensions and trailer fields that are read and dropped in one body; more is [`BodyError::Overhead`].
const OVERHEAD: u32 = 8 << 10;
/// Hexadecimal digits of a chunk's size, leading zeros included.
const DIGITS: u8 = 8;

/// A reader of one chunked body: bytes in, whatever they are cut into, the body's bytes out.
///
/// Stricter than a tolerant recipient, because where two recipients disagree about where a body ends, requests are
/// smuggled: every line ends with CRLF, a size is hexadecimal digits alone (no sign, no blank, no `0x`; 8 at most), and
/// extensions and trailer fields hold no control byte but the tab. Extensions and trailer fields are dropped.
///
/// ```
/// use wingbeat::proto::http::Chunked;
///
/// let (mut chunked, mut body) = (Chunked::new(), Vec::new());
/// let bytes = b"4\r\nwing\r\n4;a=b\r\nbeat\r\n0\r\n\r\nGET /";
/// assert_eq!(chunked.read(bytes, &mut body, 100), Ok(bytes.len() - 5));
/// assert!(chunked.is_done());
/// assert_eq!(body, b"wingbeat");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    state: State,
    /// What the size line says, or what of the chunk is still to come.
    size: u32,
    digits: u8,
    overhead: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataEnd,
    /// At the start of a trailer field, or of the empty line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
    Done,
}

impl Chunked {
    /// At the start of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the body is complete, its trailer section included.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Appends to `body` what `bytes` hold of it. Returns how many of them belong to the message: all, unless the body
    /// ends among them.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] as soon as a chunk is announced with which `body` would be longer than `limit`;
    /// nothing of that chunk is appended.
    pub fn read(&mut self, bytes: &[u8], body: &mut Vec<u8>, limit: usize) -> Result<usize, BodyError> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let take = (bytes.len() - at).min(self.size as usize);
                body.extend_from_slice(&bytes[at..at + take]);
                at += take;
                self.size -= take as u32;
                self.state = if self.size == 0 { State::DataCr } else { State::Data };
                continue;
            }
            self.state = self.step(bytes[at], limit.saturating_sub(body.len()))?;
            at += 1;
        }
        Ok(at)
    }

    /// What one byte outside a chunk's data leads to.
    fn step(&mut self, byte: u8, room: usize) -> Result<State, BodyError> {
        Ok(match (self.state, byte) {
            (State::Size, byte) if byte.is_ascii_hexdigit() => self.digit(byte)?,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, byte) if is_text(byte) => self.dropped(State::Extension)?,
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                match self.size {
                    0 => State::Trailer,
                    size if size as usize > room => return Err(BodyError::TooLarge),
                    _ => State::Data,
                }
            }
            (State::DataCr, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => State::Size,
            (State::Trailer, b'\r') => State::LastEnd,
            (State::Trailer | State::TrailerName, byte) if is_token_byte(byte) => self.dropped(State::TrailerName)?,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, byte) if is_text(byte) => self.dropped(State::TrailerValue)?,
            (State::TrailerEnd, b'\n') => State::Trailer,
            (State::LastEnd, b'\n') => State::Done,
            _ => return Err(BodyError::Malformed),
        })
    }

    fn digit(&mut self, byte: u8) -> Result<State, BodyError> {
        if self.digits == DIGITS {
            return Err(BodyError::Malformed);
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.size = if self.digits == 0 { 0 } else { self.size << 4 } | u32::from(digit);
        self.digits += 1;
        Ok(State::Size)
    }

    fn dropped(&mut self, state: State) -> Result<State, BodyError> {
        self.overhead += 1;
        if self.overhead > OVERHEAD { Err(BodyError::Overhead) } else { Ok(state) }
    }
}

/// Why a body is not taken. The connection cannot be used for another request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// Not the chunked coding (RFC 9112 §7.1). The peer's fault; 400.
    Malformed,
    /// Longer than the limit; 413.
    TooLarge,
    /// More than 8 KiB of chunk extensions and trailer fields; 431.
    Overhead,
}

impl BodyError {
    /// The HTTP status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLarge => 413,
            Self::Overhead => 431,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the body is not in the chunked coding",
            Self::TooLarge => "the body is too large",
            Self::Overhead => "too many chunk extensions or trailer fields",
        })
    }
}

impl std::error::Error for BodyError {}

/// What extensions and field values may hold (RFC 9110 §5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(Vec<u8>, usize), BodyError>;

    /// Reads in pieces; the body and the bytes that belong to it, if it is complete.
    fn read(bytes: &[u8], piece: usize, limit: usize) -> Option<Outcome> {
        let (mut chunked, mut body, mut used) = (Chunked::new(), Vec::new(), 0);
        for piece in bytes.chunks(piece) {
            match chunked.read(piece, &mut body, limit) {
                Ok(taken) => used += taken,
                Err(error) => return Some(Err(error)),
            }
        }
        chunked.is_done().then_some(Ok((body, used)))
    }

    #[test]
    fn any_cutting_gives_the_same_body() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"0\r\n\r\n", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"0005;x=\"y z\";q\r\nhello\r\n1\r\n!\r\n00\r\nA: b\r\nB:\r\n\r\n", b"hello!"),
            (b"A\r\n0123456789\r\na\r\n0123456789\r\n0;last\r\n\r\n", b"01234567890123456789"),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        ];
        for (bytes, body) in cases {
            let behind = [bytes, b"GET / HTTP/1.1"].concat();
            for piece in 1..=behind.len() {
                assert_eq!(read(&behind, piece, 20), Some(Ok((body.to_vec(), bytes.len()))), "{piece}");
            }
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut], 3, 20), None, "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_another_recipient_could_read_otherwise_is_refused() {
        for bytes in [
            "\r\n",
            ";\r\n",
            "g\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n",
            "0x5\r\nhello",
            "-5\r\nhello",
            "+5\r\nhello",
            "5\nhello",
            "5\r\nhelloo\r\n",
            "5\r\nhello\n0",
            "5\r\nhell\r\n0\r\n\r\n",
            "000000005\r\nhello",
            "5;a\nb\r\nhello",
            "5;a\0\r\nhello",
            "0\r\nno colon\r\n\r\n",
            "0\r\n: nameless\r\n\r\n",
            "0\r\n\n",
            "0\r\nA: b\nB: c\r\n\r\n",
            "0\r\nA: b\r\n folded\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "5\r\r\nhello",
            "0\r\n\r\r\n",
        ] {
            for piece in [1, 3, 100] {
                assert_eq!(read(bytes.as_bytes(), piece, 100), Some(Err(BodyError::Malformed)), "{bytes:?}");
            }
        }
    }

    #[test]
    fn limits_are_exact() {
        let body = b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
        assert_eq!(read(body, 4, 6), Some(Ok((b"abcdef".to_vec(), body.len()))));
        assert_eq!(read(body, 4, 5), Some(Err(BodyError::TooLarge)));
        assert_eq!(read(b"FFFFFFFF\r\n", 4, 1 << 20), Some(Err(BodyError::TooLarge)));
        let padded = |bytes: usize| [b"0;", "x".repeat(bytes).as_bytes(), b"\r\n\r\n"].concat();
        assert!(matches!(read(&padded(8192), 100, 0), Some(Ok(_))));
        assert_eq!(read(&padded(8193), 100, 0), Some(Err(BodyError::Overhead)));
        let many = b"1;x\r\na\r\n".repeat(8193);
        assert_eq!(read(&many, 100, 1 << 20), Some(Err(BodyError::Overhead)));
    }
}
