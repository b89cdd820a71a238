//! The opening handshake (RFC 6455 §4), both sides: bytes in, a judged request or response out, bytes out.
//!
//! ```text
//!              server::parse            server::upgrade            server::write_accept
//! bytes ──────► Request ───────────────► UpgradeRequest ──────────► 101
//!                  │ Ok(None)                │ Err                     (client::parse_response judges it)
//!                  ▼                         ▼
//!              plain HTTP               server::write_error ──────► 4xx, 5xx
//! ```
//! Nothing is kept between calls: whoever reads the socket keeps the bytes and calls again with more of them. Each call
//! reads the head from its start, which [`RequestLimits::max_bytes`] bounds. What stands behind the head
//! ([`server::Request::head_len`], [`client::Response::head_len`]) is the caller's: frames may already be there.
#![forbid(unsafe_code)]

use std::fmt;

mod answer;
pub mod client;
pub(crate) mod headers;
pub mod server;
mod target;
mod url;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::Fault;

/// How large the head of a request or a response may be: request line, fields and the empty line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of the whole head, the empty line included; a longer one is refused with 431. 8 KiB by default.
    pub max_bytes: u32,
    /// Header fields; one more is refused with 431. 64 by default and at most: a larger number means 64.
    pub max_headers: u16,
}

impl RequestLimits {
    /// 8 KiB and 64 fields.
    pub const DEFAULT: Self = Self { max_bytes: 8 * 1024, max_headers: 64 };

    /// The most header fields a head can have, whatever [`RequestLimits::max_headers`] says.
    pub const MOST_HEADERS: usize = 64;

    /// The bytes of `bytes` that a head may reach into.
    fn window<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[..bytes.len().min(self.max_bytes as usize)]
    }

    /// Whether a head that fills `window` without an end is too long already.
    fn exhausted_by(&self, window: &[u8]) -> bool {
        window.len() >= self.max_bytes as usize
    }

    fn header_slots(&self) -> usize {
        usize::from(self.max_headers).min(Self::MOST_HEADERS)
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`: base64 of the SHA-1 of the key and the fixed GUID
/// (RFC 6455 §4.2.2, step 5.4).
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(28), "20 bytes are 28 characters");
    accept
}

/// Why a handshake fails. [`status`](Self::status) is what a server answers, [`body`](Self::body) says it in words.
///
/// A retry of the same bytes fails again; only [`Refused`](Self::Refused) may pass later (503, for instance).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not a head of HTTP/1.1 (RFC 9112 §2): line ends, tokens, control bytes, folded or nameless fields.
    Malformed,
    /// The request target is none of the forms of RFC 9112 §3.2, or not ASCII, or has a fragment.
    Target,
    /// Neither HTTP/1.1 nor HTTP/1.0; or 1.0 for a WebSocket, where RFC 6455 §4.1 asks for 1.1 at least.
    HttpVersion,
    /// The head has more bytes or fields than [`RequestLimits`] allow.
    TooLarge,
    /// Not exactly one valid `Host` (RFC 9112 §3.2).
    Host,
    /// `Content-Length` is repeated, no decimal number, or accompanied by `Transfer-Encoding` (RFC 9112 §6.3).
    ContentLength,
    /// `Transfer-Encoding` is repeated or empty, or comes with HTTP/1.0 (RFC 9112 §6.1).
    TransferEncoding,
    /// Another transfer coding than `chunked` alone (RFC 9112 §6.1).
    TransferCoding,
    /// A WebSocket handshake with another method than GET (RFC 6455 §4.1).
    Method,
    /// `Upgrade: websocket` without the token `upgrade` in `Connection` (RFC 6455 §4.2.1).
    Connection,
    /// A WebSocket handshake that announces a body: what follows it could be read as frames or as a body.
    UpgradeWithBody,
    /// `Sec-WebSocket-Version` is missing or repeated (RFC 6455 §4.2.1, §11.3.5).
    WebSocketVersionField,
    /// `Sec-WebSocket-Version` is not 13 (RFC 6455 §4.4).
    WebSocketVersion,
    /// A plain request for something that only speaks WebSocket; never found by this module, but answered by it.
    UpgradeRequired,
    /// `Sec-WebSocket-Key` is missing, repeated, or not base64 of 16 bytes (RFC 6455 §4.2.1).
    Key,
    /// `Sec-WebSocket-Protocol` is no list of tokens (RFC 6455 §11.3.4); from a server: not one token.
    Protocol,
    /// `Sec-WebSocket-Extensions` is not of the grammar of RFC 6455 §9.1.
    Extensions,

    /// Client: the server answered with this status instead of 101.
    Refused(u16),
    /// Client: the 101 lacks `Upgrade: websocket`, lists more there, or lacks `Connection: Upgrade` (RFC 6455 §4.1).
    NotUpgraded,
    /// Client: `Sec-WebSocket-Accept` is missing, repeated or does not belong to the key (RFC 6455 §4.1).
    Accept,
    /// Client: the server chose a subprotocol that was not offered, or more than one (RFC 6455 §4.1).
    UnrequestedProtocol,
    /// Client: the server accepted an extension that was not offered (RFC 6455 §4.1).
    UnrequestedExtension,

    /// This program: a header to be sent has a name that is no token, or a control byte in its value.
    InvalidHeader,
    /// This program: a header to be sent is one that the handshake writes itself.
    ReservedHeader,
    /// This program: the subprotocol to be chosen was not offered by the client (RFC 6455 §4.2.2).
    ProtocolNotOffered,
    /// This program: a final response cannot have this status (it is not in 200..=999).
    InvalidStatus,
}

impl HandshakeError {
    /// The HTTP status a server answers with. For an error only a client meets: 502, what a gateway would answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::WebSocketVersion | Self::UpgradeRequired => 426,
            Self::TooLarge => 431,
            Self::TransferCoding => 501,
            Self::HttpVersion => 505,
            Self::Refused(_)
            | Self::NotUpgraded
            | Self::Accept
            | Self::UnrequestedProtocol
            | Self::UnrequestedExtension => 502,
            Self::InvalidHeader | Self::ReservedHeader | Self::ProtocolNotOffered | Self::InvalidStatus => 500,
            _ => 400,
        }
    }

    /// One line of text for the body of the answer. Says nothing about this program's inside.
    pub fn body(self) -> &'static str {
        match self {
            Self::Malformed => "not an HTTP/1.1 message",
            Self::Target => "invalid request target",
            Self::HttpVersion => "HTTP/1.1 is required",
            Self::TooLarge => "the head of the message is too large",
            Self::Host => "exactly one valid Host header is required",
            Self::ContentLength => "invalid or conflicting Content-Length",
            Self::TransferEncoding => "invalid Transfer-Encoding",
            Self::TransferCoding => "unknown transfer coding",
            Self::Method => "a WebSocket handshake must use GET",
            Self::Connection => "the Connection header must contain the token upgrade",
            Self::UpgradeWithBody => "a WebSocket handshake must not have a body",
            Self::WebSocketVersionField => "exactly one Sec-WebSocket-Version header is required",
            Self::WebSocketVersion => "only Sec-WebSocket-Version 13 is supported",
            Self::UpgradeRequired => "this resource speaks WebSocket only",
            Self::Key => "exactly one Sec-WebSocket-Key header with 16 bytes in base64 is required",
            Self::Protocol => "Sec-WebSocket-Protocol must be a list of tokens",
            Self::Extensions => "malformed Sec-WebSocket-Extensions",
            Self::Refused(_) => "the server refused the WebSocket handshake",
            Self::NotUpgraded => "the server's answer lacks Upgrade: websocket or Connection: Upgrade",
            Self::Accept => "the server's answer has a wrong Sec-WebSocket-Accept",
            Self::UnrequestedProtocol => "the server chose a subprotocol that was not offered",
            Self::UnrequestedExtension => "the server accepted an extension that was not offered",
            Self::InvalidHeader | Self::ReservedHeader | Self::ProtocolNotOffered | Self::InvalidStatus => {
                "internal server error"
            }
        }
    }

    /// Whether the peer broke the rules. Otherwise its bytes were legal but beyond what this side takes, or what this
    /// program wanted to send was wrong.
    pub fn fault(self) -> Fault {
        match self {
            Self::TooLarge
            | Self::TransferCoding
            | Self::InvalidHeader
            | Self::ReservedHeader
            | Self::ProtocolNotOffered
            | Self::InvalidStatus => Fault::Local,
            _ => Fault::Peer,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the server refused the WebSocket handshake with status {status}"),
            Self::InvalidHeader => f.write_str("a header to be sent is not valid"),
            Self::ReservedHeader => f.write_str("a header to be sent is written by the handshake itself"),
            Self::ProtocolNotOffered => f.write_str("the chosen subprotocol was not offered"),
            Self::InvalidStatus => f.write_str("not a status of a final response"),
            error => f.write_str(error.body()),
        }
    }
}

impl std::error::Error for HandshakeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_key_of_the_rfc() {
        // RFC 6455 §1.3.
        assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_this_program_did_wrong_is_500_and_says_nothing_of_it() {
        use HandshakeError::*;
        for error in [InvalidHeader, ReservedHeader, ProtocolNotOffered, InvalidStatus] {
            assert_eq!((error.status(), error.fault(), error.body()), (500, Fault::Local, "internal server error"));
            assert_ne!(error.to_string(), error.body());
        }
        assert_eq!((TooLarge.status(), TooLarge.fault()), (431, Fault::Local));
        assert_eq!((Key.status(), Key.fault(), Key.to_string()), (400, Fault::Peer, Key.body().to_owned()));
    }

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<HandshakeError>() <= 4);
    }
}
