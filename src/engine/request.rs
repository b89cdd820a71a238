//! What a handler is asked over HTTP, and what it answers: [`Request`], [`Response`], [`Answer`].
#![forbid(unsafe_code)]

use super::handler::ConnId;
use crate::proto::handshake::server;
use bytes::Bytes;
use std::{borrow::Cow, net::IpAddr};

/// What a handler answers to a plain request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This, at once.
    Now(Response),
    /// Later, with [`Handle::respond`](super::Handle::respond) or [`Scope::respond`](super::Scope::respond), under the
    /// [`Request::id`]; what is needed of the request is to be copied. Until then nothing more is read from the
    /// connection. Without an answer within [`Limits::answer_timeout`](super::Limits::answer_timeout) it is 503, and
    /// [`Handler::request_gone`](super::Handler::request_gone) is called.
    Later,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Answer::Now(response)
    }
}

/// A request: an opening handshake or plain HTTP. It lives as long as the call.
#[derive(Debug)]
pub struct Request<'a> {
    pub(crate) head: &'a server::Request<'a>,
    pub(crate) upgrade: Option<&'a server::UpgradeRequest<'a>>,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) id: ConnId,
    pub(crate) body: &'a [u8],
    pub(crate) body_limit: u32,
}

impl<'a> Request<'a> {
    /// The request method, as sent.
    pub fn method(&self) -> &'a str {
        self.head.method()
    }

    /// The target without its query, not percent-decoded.
    pub fn path(&self) -> &'a str {
        self.head.path()
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query()
    }

    /// The first field of this name (in any case).
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head.header(name)
    }

    /// All fields in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.head.headers()
    }

    /// The whole body, without its transfer coding; empty without one, and until [`Handler::request`]
    /// (in `mounts`, `body_limit` and `upgrade`).
    ///
    /// [`Handler::request`]: super::Handler::request
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// [`Limits::body_bytes`](super::Limits::body_bytes), for a [`Handler::body_limit`](super::Handler::body_limit)
    /// that differs from it for some requests only.
    pub fn body_limit(&self) -> u32 {
        self.body_limit
    }

    /// Whether this is a valid opening handshake.
    pub fn is_upgrade(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Whether the client offers this subprotocol.
    pub fn offers_protocol(&self, name: &str) -> bool {
        self.upgrade.is_some_and(|upgrade| upgrade.offers_protocol(name))
    }

    /// The subprotocols the client offers, in its order of preference.
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> {
        self.upgrade.into_iter().flat_map(|upgrade| upgrade.protocols())
    }

    /// The peer's address; none on a Unix socket.
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Of an opening handshake: the id that the connection has, and will have once open. Of a plain request: the id
    /// under which it is answered later.
    pub fn id(&self) -> ConnId {
        self.id
    }
}

/// An HTTP response. After the answer to a plain request the connection is kept alive if the client allows it.
#[derive(Debug, Clone)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    pub(crate) body: Bytes,
}

impl Response {
    /// A response with the reason phrase of its status as text. `status` is 200 to 999, else
    /// 500 is sent.
    pub fn new(status: u16) -> Self {
        Response::text(status, server::reason_phrase(status))
    }

    /// A plain-text response.
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        };
        Response::with_type(status, "text/plain; charset=utf-8", body)
    }

    /// A response of any type. The body is static bytes or text, a `Vec`, a `String`, or [`Bytes`] that others share:
    /// it is not copied before it is sent.
    pub fn with_type(status: u16, content_type: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Self {
        Response { status, headers: vec![("Content-Type".into(), content_type.into())], body: body.into() }
    }

    /// 200 with a page.
    pub fn html(body: impl Into<Bytes>) -> Self {
        Response::with_type(200, "text/html; charset=utf-8", body)
    }

    /// 200 with a value as JSON; 500 if it cannot be written as such.
    pub fn json(value: &(impl serde::Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Response::with_type(200, "application/json", body),
            Err(error) => {
                tracing::error!(%error, "a response cannot be written as JSON");
                Response::new(500)
            }
        }
    }

    /// 302 to another place.
    pub fn redirect(location: impl Into<Cow<'static, str>>) -> Self {
        Response::new(302).header("Location", location)
    }

    /// 204.
    pub fn no_content() -> Self {
        Response { status: 204, headers: Vec::new(), body: Bytes::new() }
    }

    /// The same with another status.
    pub fn with_status(self, status: u16) -> Self {
        Response { status, ..self }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether there is a field of this name (in any case).
    pub fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name))
    }

    /// As [`Response::header`], in place of the fields of this name that are there.
    pub fn set_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        self.headers.retain(|(field, _)| !field.eq_ignore_ascii_case(&name));
        self.header(name, value)
    }

    /// 404.
    pub fn not_found() -> Self {
        Response::new(404)
    }

    /// 426 for a plain request to a WebSocket path.
    pub fn upgrade_required() -> Self {
        Response::text(426, "this path speaks WebSocket\n")
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Version", "13")
    }

    /// Adds a header field; of a `Connection` of yours only `close` has an effect. `Date` and `Content-Length` are there
    /// without you. The response becomes a bare 500, and the log says why,
    /// if a name is no token (RFC 9110 §5.6.2) or is `Content-Length` or `Transfer-Encoding`, if a value holds a control
    /// byte other than a tab, or if the status is outside 200 to 999.
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Whether a `Connection` among the fields lists `close`.
    pub(crate) fn asks_to_close(&self) -> bool {
        let lists = |value: &str| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"));
        self.headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("connection") && lists(value))
    }
}

/// 200 with plain text.
impl From<&'static str> for Response {
    fn from(text: &'static str) -> Self {
        Response::text(200, text)
    }
}

/// 200 with plain text.
impl From<String> for Response {
    fn from(text: String) -> Self {
        Response::text(200, text)
    }
}

/// Of either side: so that `?` works where a response is the error.
impl<T: Into<Response>, E: Into<Response>> From<Result<T, E>> for Response {
    fn from(result: Result<T, E>) -> Self {
        result.map_or_else(Into::into, Into::into)
    }
}
