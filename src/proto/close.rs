//! Close codes and the payload of a Close frame (RFC 6455 §5.5.1, §7.4).
#![forbid(unsafe_code)]

use super::{ProtoError, utf8};
use std::fmt;

/// Bytes that the reason of a Close frame has at most: 125 less the code (RFC 6455 §5.5).
pub const MAX_CLOSE_REASON: usize = super::MAX_CONTROL_PAYLOAD - 2;

/// Why a connection was closed.
///
/// A value made by [`CloseCode::new`] is legal on the wire. Three of the constants are not: they only report what
/// happened, and the [`Writer`](super::Writer) refuses to send them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The server goes down, or the user left the page.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL: CloseCode = CloseCode(1002);
    /// A kind of data that is not accepted here, such as binary.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// For reports only: the Close frame carried no code.
    pub const NO_STATUS: CloseCode = CloseCode(1005);
    /// For reports only: the connection ended without a Close frame.
    pub const ABNORMAL: CloseCode = CloseCode(1006);
    /// The message contradicts its type: text that is not UTF-8.
    pub const INVALID_DATA: CloseCode = CloseCode(1007);
    /// The peer broke a rule of the application or a limit that has no code of its own.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// The message is too large.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// The client needs an extension that the server did not grant.
    pub const MANDATORY_EXTENSION: CloseCode = CloseCode(1010);
    /// The server failed.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// The server restarts; connect again (registered with IANA).
    pub const SERVICE_RESTART: CloseCode = CloseCode(1012);
    /// The server is overloaded; connect again later (registered with IANA).
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);
    /// A gateway got no valid answer from the server behind it (registered with IANA).
    pub const BAD_GATEWAY: CloseCode = CloseCode(1014);
    /// For reports only: the TLS handshake failed.
    pub const TLS_FAILED: CloseCode = CloseCode(1015);

    /// A code that is legal on the wire: 1000-1003, 1007-1014, 3000-4999 (RFC 6455 §7.4). `None` for others.
    #[inline]
    pub const fn new(code: u16) -> Option<CloseCode> {
        let code = CloseCode(code);
        if code.is_sendable() { Some(code) } else { None }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether a Close frame may carry it.
    #[inline]
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

/// Reads the payload of a Close frame, unmasked: `None` if it is empty, else the code and the reason.
///
/// # Errors
/// [`ProtoError::BadCloseLength`] for a payload of one byte, [`ProtoError::BadCloseCode`] for a code that is not legal
/// on the wire, [`ProtoError::InvalidUtf8`] for the reason.
pub fn parse_close(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, ProtoError> {
    if payload.is_empty() {
        return Ok(None);
    }
    let (code, reason) = payload.split_first_chunk().ok_or(ProtoError::BadCloseLength)?;
    let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(ProtoError::BadCloseCode)?;
    Ok(Some((code, utf8::parse(reason)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_codes_of_the_wire_are_accepted() {
        let legal: Vec<u16> = (0..=u16::MAX).filter(|&code| CloseCode::new(code).is_some()).collect();
        let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(legal, expected);
        for report in [CloseCode::NO_STATUS, CloseCode::ABNORMAL, CloseCode::TLS_FAILED] {
            assert!(!report.is_sendable());
        }
    }

    #[test]
    fn payloads_are_read_or_refused() {
        assert_eq!(parse_close(b""), Ok(None));
        assert_eq!(parse_close(b"\x03"), Err(ProtoError::BadCloseLength));
        assert_eq!(parse_close(b"\x03\xe8"), Ok(Some((CloseCode::NORMAL, ""))));
        assert_eq!(parse_close("\u{3}éso long".as_bytes()), Err(ProtoError::BadCloseCode));
        assert_eq!(parse_close(b"\x0b\xb8bye \xe2\x9c\x93"), Ok(Some((CloseCode(3000), "bye ✓"))));
        assert_eq!(parse_close(b"\x03\xe8bye \xe2\x9c"), Err(ProtoError::InvalidUtf8));
        assert_eq!(parse_close(b"\x03\xed\xff"), Err(ProtoError::BadCloseCode), "the code is looked at first");
    }
}
