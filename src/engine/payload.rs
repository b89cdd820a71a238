//! [`PayloadWriter`]: what a payload is written into, in place.
#![forbid(unsafe_code)]

use std::{fmt, io};

/// The payload of a message that is being written, in place: it can be added to, and nothing before it can be reached.
///
/// `write!` works on it as on any [`fmt::Write`] or [`io::Write`] (where both traits are in scope, name one); neither
/// ever fails.
#[derive(Debug)]
pub struct PayloadWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> PayloadWriter<'a> {
    /// Writes behind what is in `out` now.
    #[inline]
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        PayloadWriter { out, start }
    }

    /// Adds bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Adds text.
    #[inline]
    pub fn push_str(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Adds a byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.out.push(byte);
    }

    /// Bytes of the payload so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether nothing was written yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl io::Write for PayloadWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for PayloadWriter<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_appends() {
        let mut out = b"before".to_vec();
        let mut payload = PayloadWriter::new(&mut out);
        assert!(payload.is_empty());
        payload.extend_from_slice(b"a");
        payload.push(b'b');
        payload.push_str("c");
        payload.push(b'd');
        fmt::Write::write_fmt(&mut payload, format_args!("{}", 1)).unwrap();
        io::Write::write_fmt(&mut payload, format_args!("{}", 2)).unwrap();
        assert_eq!(io::Write::write(&mut payload, b"ef").unwrap(), 2);
        assert_eq!(payload.len(), 8);
        assert_eq!(out, b"beforeabcd12ef");
    }
}
