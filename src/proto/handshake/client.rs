//! The client's side: write the request, judge the answer (RFC 6455 §4.1).
//!
//! ```
//! use wingbeat::proto::handshake::{RequestLimits, client::{self, RequestHead, Url}};
//!
//! let url: Url = "ws://example.com/chat?room=1".parse()?;
//! let mut head = RequestHead::to(&url);
//! head.header("Origin", "http://example.com")?.protocol("chat")?;
//! let nonce = *b"sixteen random b"; // from a secure source, fresh for each connection
//! let mut request = Vec::new();
//! head.write(&mut request, &nonce);
//! assert!(request.starts_with(b"GET /chat?room=1 HTTP/1.1\r\nHost: example.com\r\n"));
//! let more = client::parse_response(b"HTTP/1.1 101 Swi", &head, &nonce, &RequestLimits::default())?;
//! assert!(more.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::headers::{self, Known};
use super::{HandshakeError, RequestLimits, accept_key, target};

pub use super::url::{Url, UrlError};

/// A checked template of opening handshakes: only the nonce differs from connection to connection.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// From the request line on, without the key and the subprotocols.
    written: String,
    protocols: Vec<String>,
}

impl RequestHead {
    /// A handshake for `target` (`/path?query`) at `host` (as in `Host`: with the port unless it is 80).
    ///
    /// # Errors
    /// [`HandshakeError::InvalidHeader`] if `host` or `target` has bytes that do not belong there.
    pub fn new(host: &str, target: &str) -> Result<Self, HandshakeError> {
        let valid = target.starts_with('/') && target::is_printable(target);
        if !valid || host.is_empty() || !target::is_host(host.as_bytes()) {
            return Err(HandshakeError::InvalidHeader);
        }
        Ok(Self::checked(host, target))
    }

    /// A handshake for `url`.
    pub fn to(url: &Url) -> Self {
        Self::checked(&url.host_header(), url.target())
    }

    fn checked(host: &str, target: &str) -> Self {
        let written = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\n"
        );
        Self { written, protocols: Vec::new() }
    }

    /// Adds a header, `Origin` or `Authorization` for instance.
    ///
    /// # Errors
    /// [`HandshakeError::InvalidHeader`]: the name is no token, or the value has a control byte.
    /// [`HandshakeError::ReservedHeader`]: the handshake writes this header itself, or it would announce a body.
    pub fn header(&mut self, name: &str, value: &str) -> Result<&mut Self, HandshakeError> {
        const RESERVED: &[&str] = &[
            "connection",
            "content-length",
            "host",
            "sec-websocket-accept",
            "sec-websocket-extensions",
            "sec-websocket-key",
            "sec-websocket-protocol",
            "sec-websocket-version",
            "transfer-encoding",
            "upgrade",
        ];
        headers::check_field(name, value)?;
        headers::check_not_reserved(name, RESERVED)?;
        self.written.extend([name, ": ", value, "\r\n"]);
        Ok(self)
    }

    /// Offers a subprotocol; the first offered is the most wanted.
    ///
    /// # Errors
    /// [`HandshakeError::InvalidHeader`]: not a token, or offered already (RFC 6455 §4.1).
    pub fn protocol(&mut self, name: &str) -> Result<&mut Self, HandshakeError> {
        if !headers::is_token(name.as_bytes()) || self.protocols.iter().any(|offered| offered == name) {
            return Err(HandshakeError::InvalidHeader);
        }
        self.protocols.push(name.to_owned());
        Ok(self)
    }

    /// The offered subprotocols in order.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        self.protocols.iter().map(String::as_str)
    }

    /// Appends the request. `nonce` must be 16 random bytes, fresh for each connection (RFC 6455 §4.1).
    pub fn write(&self, out: &mut Vec<u8>, nonce: &[u8; 16]) {
        out.extend_from_slice(self.written.as_bytes());
        out.extend_from_slice(b"Sec-WebSocket-Key: ");
        out.extend_from_slice(&key(nonce));
        for (index, protocol) in self.protocols.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"\r\nSec-WebSocket-Protocol: " } else { b", " });
            out.extend_from_slice(protocol.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// A judged 101: the connection speaks WebSocket from [`head_len`](Self::head_len) on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    head_len: usize,
    protocol: Option<usize>,
}

impl Response {
    /// Bytes of the head, the empty line included; what follows is frames.
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// The subprotocol the server chose, one of those that `head` offers.
    pub fn protocol<'h>(&self, head: &'h RequestHead) -> Option<&'h str> {
        self.protocol.and_then(|index| head.protocols.get(index)).map(String::as_str)
    }
}

/// Judges the answer to the request that `head` wrote with `nonce`. `Ok(None)`: incomplete, read more and call again
/// with all of it.
///
/// # Errors
/// The handshake has failed and the connection must be closed: [`HandshakeError::Refused`] with any status but 101, as
/// soon as the status is read; one of the client's variants for a 101 that does not belong to the request;
/// [`HandshakeError::TooLarge`] or [`HandshakeError::Malformed`] for a head that cannot be read.
pub fn parse_response(
    bytes: &[u8],
    head: &RequestHead,
    nonce: &[u8; 16],
    limits: &RequestLimits,
) -> Result<Option<Response>, HandshakeError> {
    let window = limits.window(bytes);
    let mut fields = [const { MaybeUninit::uninit() }; RequestLimits::MOST_HEADERS];
    let fields = &mut fields[..limits.header_slots()];
    let mut answer = httparse::Response::new(&mut []);
    let read = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut answer, window, fields);
    match (answer.code, answer.version) {
        (Some(status), _) if status != 101 => return Err(HandshakeError::Refused(status)),
        (_, Some(0)) => return Err(HandshakeError::HttpVersion),
        _ => {}
    }
    let head_len = match read {
        Ok(httparse::Status::Complete(head_len)) => head_len,
        Ok(httparse::Status::Partial) if headers::has_bare_line_feed(window) => return Err(HandshakeError::Malformed),
        Ok(httparse::Status::Partial) if limits.exhausted_by(window) => return Err(HandshakeError::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::TooLarge),
        Err(_) => return Err(HandshakeError::Malformed),
    };
    if headers::has_bare_line_feed(&window[..head_len]) {
        return Err(HandshakeError::Malformed);
    }
    let protocol = judge(&Known::gather(answer.headers), head, nonce)?;
    Ok(Some(Response { head_len, protocol }))
}

/// The five checks of RFC 6455 §4.1; gives the chosen subprotocol.
fn judge(known: &Known<'_>, head: &RequestHead, nonce: &[u8; 16]) -> Result<Option<usize>, HandshakeError> {
    let upgraded = known.upgrade.once().is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    if !upgraded || !known.connection_upgrade {
        return Err(HandshakeError::NotUpgraded);
    }
    if known.accept.once() != Some(&accept_key(&key(nonce))) {
        return Err(HandshakeError::Accept);
    }
    // No extension is ever offered; an empty field accepts none.
    if known.extensions.repeated || known.extensions.value.is_some_and(|value| !value.is_empty()) {
        return Err(HandshakeError::UnrequestedExtension);
    }
    if known.protocol.value.is_none() {
        return Ok(None);
    }
    let offered = |chosen: &[u8]| head.protocols.iter().position(|offered| offered.as_bytes() == chosen);
    let chosen = known.protocol.once().and_then(offered).ok_or(HandshakeError::UnrequestedProtocol)?;
    Ok(Some(chosen))
}

/// `Sec-WebSocket-Key` for a nonce.
fn key(nonce: &[u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    let written = STANDARD.encode_slice(nonce, &mut key);
    debug_assert_eq!(written, Ok(24), "16 bytes are 24 characters");
    key
}
