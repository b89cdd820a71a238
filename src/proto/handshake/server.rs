//! The server's side: read the request, judge it, write the answer (RFC 6455 §4.2, RFC 9112).
//!
//! ```
//! use wingbeat::proto::handshake::{RequestLimits, server::{self, Parsed}};
//!
//! let bytes = b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
//!     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
//! let mut answer = Vec::new();
//! let Parsed::Request(request) = server::parse(bytes, &RequestLimits::default())? else { panic!("read on") };
//! match server::upgrade(&request) {
//!     Ok(Some(upgrade)) => server::write_accept(&mut answer, &upgrade, None, &[])?,
//!     Ok(None) => server::write_response(&mut answer, 404, &[], b"", request.wants_keep_alive(), false)?,
//!     Err(error) => server::write_error(&mut answer, error),
//! }
//! assert!(answer.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
//! # Ok::<(), wingbeat::proto::handshake::HandshakeError>(())
//! ```
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::headers::{self, Known};
use super::target::{self, Target};
use super::{HandshakeError, RequestLimits};
use crate::proto::extensions::{Offer, Offers};

pub use super::accept_key;
pub use super::answer::{reason_phrase, write_accept, write_continue, write_error, write_response};
pub use super::headers::{Fields, Values};

/// What [`parse`] found.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack between two calls")]
pub enum Parsed<'b> {
    /// The head is not complete yet: read more and call again with all of it.
    NeedMore,
    /// A whole head that keeps the rules of HTTP/1.1, or of HTTP/1.0.
    Request(Request<'b>),
}

/// Reads one request head from the start of `bytes`.
///
/// What is wrong is refused as early as it can be seen, also in an unfinished head. Deliberately stricter than HTTP
/// asks where leniency is how requests are smuggled: a bare CR or LF, a folded field, blanks before the colon, a
/// repeated `Content-Length` even with equal values. Of `Transfer-Encoding` only `chunked` alone is taken: 501 for codings
/// that are unknown, 400 beside a `Content-Length` or `Upgrade: websocket`, and in HTTP/1.0.
///
/// Costs one walk of the head (at most [`RequestLimits::max_bytes`]); allocates nothing.
///
/// # Errors
/// [`HandshakeError`] with the status to answer; the connection cannot be used for another request.
pub fn parse<'b>(bytes: &'b [u8], limits: &RequestLimits) -> Result<Parsed<'b>, HandshakeError> {
    let window = limits.window(bytes);
    let mut fields = [const { MaybeUninit::uninit() }; RequestLimits::MOST_HEADERS];
    let mut head = httparse::Request::new(&mut []);
    let read = head.parse_with_uninit_headers(window, &mut fields[..limits.header_slots()]);
    let head_len = match read {
        Ok(httparse::Status::Complete(head_len)) => head_len,
        Ok(httparse::Status::Partial) if headers::has_bare_line_feed(window) => return Err(HandshakeError::Malformed),
        Ok(httparse::Status::Partial) if limits.exhausted_by(window) => return Err(HandshakeError::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(Parsed::NeedMore),
        Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::TooLarge),
        Err(httparse::Error::Version) => return Err(wrong_version(window)),
        Err(_) => return Err(HandshakeError::Malformed),
    };
    if headers::has_bare_line_feed(&window[..head_len]) {
        return Err(HandshakeError::Malformed);
    }
    Request::judge(&window[..head_len], &head).map(Parsed::Request)
}

/// Judges whether `request` opens a WebSocket (RFC 6455 §4.2.1). `Ok(None)`: it is a plain HTTP request, for
/// `Upgrade` does not list `websocket`.
///
/// `Sec-WebSocket-Extensions` and `Sec-WebSocket-Protocol` that are not of their grammar refuse the handshake, as
/// RFC 6455 §9.1 demands for the former; an extension that is well-formed but unknown does not, it is an offer. An
/// offered subprotocol may have a `/` or `=`, which no token has: clients offer base64 there to authenticate.
/// The unused bits in the last character of the key may be set (RFC 4648 §3.5 leaves it open).
///
/// # Errors
/// [`HandshakeError`] with the status to answer by [`write_error`]; nothing that follows the head may be read.
pub fn upgrade<'b>(request: &Request<'b>) -> Result<Option<UpgradeRequest<'b>>, HandshakeError> {
    let known = &request.known;
    if !known.upgrade_websocket {
        return Ok(None);
    }
    if request.is_http_1_0 {
        return Err(HandshakeError::HttpVersion);
    }
    if request.method != "GET" {
        return Err(HandshakeError::Method);
    }
    if !known.connection_upgrade {
        return Err(HandshakeError::Connection);
    }
    if request.framing != Framing::Length(0) {
        return Err(HandshakeError::UpgradeWithBody);
    }
    if known.version.once().ok_or(HandshakeError::WebSocketVersionField)? != b"13" {
        return Err(HandshakeError::WebSocketVersion);
    }
    let key = known.key.once().and_then(checked_key).ok_or(HandshakeError::Key)?;
    // Most requests have neither field: their iterators need not look for them.
    let none = Fields::new(b"");
    let protocols = if known.protocol.value.is_some() { request.fields } else { none };
    let extensions = if known.extensions.value.is_some() { request.fields } else { none };
    let upgrade = UpgradeRequest {
        key,
        protocols: protocols.values("sec-websocket-protocol"),
        extensions: extensions.values("sec-websocket-extensions"),
    };
    upgrade.check_protocols()?;
    upgrade.check_extensions()?;
    Ok(Some(upgrade))
}

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Framing {
    /// So many bytes follow the head; 0 for a request without a body.
    Length(u64),
    /// In the chunked coding: [`proto::http::Chunked`](crate::proto::http::Chunked) reads it.
    Chunked,
}

/// What a request expects of the server before it sends its body (RFC 9110 §10.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Expectation {
    /// Nothing.
    None,
    /// `100-continue`: to be told with [`write_continue`] that the body is wanted.
    Continue,
    /// Something else, to be answered with 417.
    Unknown,
}

/// The head of a request that keeps the rules of HTTP/1.1 or HTTP/1.0. Borrows the bytes it was parsed from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'b> {
    method: &'b str,
    target: Target<'b>,
    fields: Fields<'b>,
    known: Known<'b>,
    framing: Framing,
    is_http_1_0: bool,
    head_len: usize,
}

impl<'b> Request<'b> {
    /// The method, as it was written: methods are case-sensitive.
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// The request target, as it was written: visible ASCII without `#`.
    pub fn target(&self) -> &'b str {
        self.target.whole
    }

    /// The target's path, up to the `?`, not percent-decoded; without scheme and host if the target has them.
    /// `*` for `OPTIONS *`, empty for `CONNECT`.
    pub fn path(&self) -> &'b str {
        self.target.path
    }

    /// What follows the `?`, not percent-decoded.
    pub fn query(&self) -> Option<&'b str> {
        self.target.query
    }

    /// The first field with this name, which is compared without regard to case. Walks the head.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.header_values(name).next()
    }

    /// Every field with this name, in order.
    pub fn header_values<'n>(&self, name: &'n str) -> Values<'b, 'n> {
        self.fields.values(name)
    }

    /// All fields in order. A value has no CR, LF or NUL, but may hold bytes that are not UTF-8.
    pub fn headers(&self) -> Fields<'b> {
        self.fields
    }

    /// Bytes of the head, the empty line included; what follows belongs to the body or, after an upgrade, is frames.
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// How the body that follows the head is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the connection may serve another request: `Connection` does not list `close`, and in HTTP/1.0 lists
    /// `keep-alive` (RFC 9112 §9.3).
    pub fn wants_keep_alive(&self) -> bool {
        !self.known.connection_close && (!self.is_http_1_0 || self.known.connection_keep_alive)
    }

    /// What the client waits for before it sends the body; in HTTP/1.0 nothing (RFC 9110 §10.1.1).
    pub fn expectation(&self) -> Expectation {
        match self.known.expect.value {
            Some(_) if self.is_http_1_0 => Expectation::None,
            None => Expectation::None,
            Some(value) if !self.known.expect.repeated && value.eq_ignore_ascii_case(b"100-continue") => {
                Expectation::Continue
            }
            Some(_) => Expectation::Unknown,
        }
    }

    fn judge(bytes: &'b [u8], head: &httparse::Request<'_, 'b>) -> Result<Self, HandshakeError> {
        let (Some(method), Some(written)) = (head.method, head.path) else {
            return Err(HandshakeError::Malformed);
        };
        let target = target::split(method, written).ok_or(HandshakeError::Target)?;
        let known = Known::gather(head.headers);
        let is_http_1_0 = head.version == Some(0);
        let hostless = is_http_1_0 && known.host.value.is_none(); // RFC 9112 §3.2 asks for it of 1.1 alone
        if !hostless && !known.host.once().is_some_and(target::is_host) {
            return Err(HandshakeError::Host);
        }
        let framing = framing(&known, is_http_1_0)?;
        // One blank between the words of the request line, or the parser had refused it.
        let empty_lines = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let request_line = empty_lines + method.len() + written.len() + "  HTTP/1.1\r\n".len();
        let fields = Fields::new(&bytes[request_line..bytes.len() - "\r\n".len()]);
        Ok(Self { method, target, fields, known, framing, is_http_1_0, head_len: bytes.len() })
    }
}

/// A request that opens a WebSocket. Borrows the bytes of its [`Request`].
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequest<'b> {
    key: &'b str,
    protocols: Values<'b, 'static>,
    extensions: Values<'b, 'static>,
}

impl<'b> UpgradeRequest<'b> {
    /// `Sec-WebSocket-Key`: 24 characters, base64 of 16 bytes.
    pub fn key(&self) -> &'b str {
        self.key
    }

    /// The offered subprotocols in the client's order of preference; tokens, compared exactly.
    pub fn protocols(&self) -> impl Iterator<Item = &'b str> + use<'b> {
        // Tokens, so always ASCII.
        self.protocol_elements().map(|token| std::str::from_utf8(token).unwrap_or_default())
    }

    /// Whether the client offers this subprotocol.
    pub fn offers_protocol(&self, protocol: &str) -> bool {
        self.protocol_elements().any(|offered| offered == protocol.as_bytes())
    }

    /// The offered extensions in the client's order of preference.
    pub fn extensions(&self) -> impl Iterator<Item = Offer<'b>> + use<'b> {
        // `check_extensions` has walked them all without an error.
        self.extensions.flat_map(Offers::new).map_while(Result::ok)
    }

    fn protocol_elements(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        self.protocols.flat_map(headers::elements)
    }

    fn check_protocols(&self) -> Result<(), HandshakeError> {
        match self.protocol_elements().all(headers::is_offered_protocol) {
            true => Ok(()),
            false => Err(HandshakeError::Protocol),
        }
    }

    fn check_extensions(&self) -> Result<(), HandshakeError> {
        match self.extensions.flat_map(Offers::new).all(|offer| offer.is_ok()) {
            true => Ok(()),
            false => Err(HandshakeError::Extensions),
        }
    }
}

/// The key if it is base64 of 16 bytes.
fn checked_key(key: &[u8]) -> Option<&str> {
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    let mut nonce = [0; 18]; // the decoder asks for room for whole groups
    let decoded = key.len() == 24 && LENIENT.decode_slice(key, &mut nonce) == Ok(16);
    decoded.then(|| std::str::from_utf8(key).ok()).flatten()
}

/// Where the body ends, if that is beyond doubt (RFC 9112 §6.3).
fn framing(known: &Known<'_>, is_http_1_0: bool) -> Result<Framing, HandshakeError> {
    if let Some(coding) = known.transfer_encoding.value {
        return match () {
            () if known.content_length.value.is_some() => Err(HandshakeError::ContentLength),
            () if is_http_1_0 || known.transfer_encoding.repeated || coding.is_empty() => {
                Err(HandshakeError::TransferEncoding)
            }
            () if known.upgrade_websocket => Err(HandshakeError::UpgradeWithBody),
            () if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            () => Err(HandshakeError::TransferCoding),
        };
    }
    if known.content_length.value.is_none() {
        return Ok(Framing::Length(0));
    }
    known.content_length.once().and_then(decimal).map(Framing::Length).ok_or(HandshakeError::ContentLength)
}

/// `1*DIGIT`: no sign, no blanks, no list.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.iter().map(|byte| byte.is_ascii_digit().then(|| u64::from(byte - b'0')));
    let number = digits.reduce(|number, digit| number?.checked_mul(10)?.checked_add(digit?));
    number.flatten()
}

/// Tells another version of HTTP, as in `PRI * HTTP/2.0`, from what is no HTTP at all.
fn wrong_version(window: &[u8]) -> HandshakeError {
    let start = window.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(window.len());
    let version = window[start..].splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    match version.strip_prefix(b"HTTP/") {
        Some([b'0'..=b'9', ..]) => HandshakeError::HttpVersion,
        _ => HandshakeError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0018"), Some(18));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for value in ["", "-1", "+1", "1 ", "1,1", "0x1", "1.0", "18446744073709551616", "é"] {
            assert_eq!(decimal(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn a_key_is_16_bytes_of_base64() {
        for key in ["dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAAA==", "++++////++++////++++/w=="] {
            assert_eq!(checked_key(key.as_bytes()), Some(key));
        }
        assert!(checked_key(b"AAAAAAAAAAAAAAAAAAAAAB==").is_some(), "unused bits may be set");
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=A",
            "dGhlIHNhbXBsZSBub25jZWE=",
            "dGhlIHNhbXBs ZSBub25jQ==",
        ] {
            assert_eq!(checked_key(key.as_bytes()), None, "{key:?}");
        }
    }
}
