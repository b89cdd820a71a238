//! [`Mount`]: a kind of socket at a path, and who may connect to it (docs/phoenix-wire.md §1).
#![forbid(unsafe_code)]

use super::log::{Filtered, connected, may_come, refused};
use crate::channels::{Assigns, Reason, UserSocket};
use crate::engine::{Keepalive, Profile, Request, Response};
use crate::http::{OriginPolicy, Params, Session, SessionCookie, Value, is_csrf_token};
use crate::proto::CloseCode;
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use std::borrow::Cow;
use std::net::IpAddr;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// What a client connects with.
pub struct ConnectInfo<'a> {
    request: &'a Request<'a>,
    params: Params,
    auth_token: Option<String>,
    session: Option<Session>,
    transport: Transport,
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One WebSocket.
    WebSocket,
    /// HTTP requests.
    LongPoll,
}

/// What `connect` decides.
#[derive(Debug)]
#[must_use = "it is what connect returns"]
pub enum Connect {
    /// The client may connect.
    Accept {
        /// For its channels.
        assigns: Assigns,
        /// The topic by which all its connections can be disconnected and addressed.
        id: Option<String>,
    },
    /// 403.
    Refuse,
    /// What [`Mount::on_error`] answers, by default 403.
    Error(Cow<'static, str>),
}

/// A [`UserSocket`] with what surrounds it: who may connect, over which transports, with which limits.
pub struct Mount {
    pub(super) socket: Arc<UserSocket>,
    connect: Box<dyn Fn(&ConnectInfo<'_>) -> Connect + Send + Sync>,
    on_error: Option<OnError>,
    on_disconnect: Option<OnDisconnect>,
    pub(super) origin: Option<OriginPolicy>,
    auth_token: bool,
    session: Option<SessionCookie>,
    subprotocols: Option<Vec<String>>,
    pub(super) websocket: Option<WebSocketOptions>,
    pub(super) longpoll: Option<LongPollOptions>,
}

type OnError = Box<dyn Fn(&Request<'_>, &str) -> Response + Send + Sync>;

type OnDisconnect = Box<dyn Fn(&Disconnected<'_>) + Send + Sync>;

/// The names and values of a path's variables.
pub(super) type Vars = Vec<(String, String)>;

/// How a mount serves WebSockets.
#[derive(Clone, Debug)]
pub struct WebSocketOptions {
    /// What follows the mount's path. Default `/websocket`.
    pub path: String,
    /// Time without a byte from the client, after which the connection is closed with 1002. The server sends no pings:
    /// the `phoenix` client has heartbeats of its own. Default 60 s.
    pub timeout: Duration,
    /// Bytes of one message. Beyond: close 1009. Default 1 MiB.
    pub message_bytes: u32,
}

/// How a mount serves long-polling.
#[derive(Clone, Debug)]
pub struct LongPollOptions {
    /// What follows the mount's path. Default `/longpoll`.
    pub path: String,
    /// How long a poll waits for messages. A session without a poll for one and a half times as long ends. Default 10 s.
    pub window: Duration,
    /// Sessions of clients of one IP address, all workers together. Beyond: 429, before `connect` is asked. Behind a proxy
    /// all clients have its address. Default 0: off. However they are spread, a worker has room for
    /// [`Limits::listeners`](crate::Limits::listeners) sessions, beyond which it is 503.
    pub sessions_per_ip: u32,
    /// How long a session's token is valid. Default 14 days.
    pub token_age: Duration,
    /// Bytes of one request's body, if its token is that of a session; 4 KiB if not. Beyond: 413. Default 8,000,000.
    pub body_bytes: u32,
    /// Bytes of messages that wait for a poll. Beyond: the session ends, but for one message that waits alone. Default
    /// 1 MiB.
    pub buffer_bytes: usize,
    /// Bytes of messages that a client sent while one of its joins is being decided. Beyond: the session ends. Default
    /// 1 MiB.
    pub waiting_bytes: usize,
}

/// What a client that may not connect is answered.
#[derive(Debug)]
pub(super) enum Refusal {
    Status(u16),
    Response(Response),
}

/// A client that is gone.
#[derive(Clone, Copy, Debug)]
pub struct Disconnected<'a> {
    client: &'a Client,
    reason: &'a Reason,
    transport: Transport,
}

/// What `connect` gave a client, kept for [`Mount::on_disconnect`].
#[derive(Debug, Default)]
pub(super) struct Client {
    assigns: Assigns,
    id: Option<Box<str>>,
}

/// A client that may connect.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) serializer: u8,
    pub(super) assigns: Assigns,
    pub(super) id: Option<String>,
    pub(super) protocol: Option<String>,
}

impl<'a> ConnectInfo<'a> {
    /// The query's parameters and the variables of the mount's path.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// A parameter that is text.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.text(name)
    }

    /// The peer's address, without its port; none on a Unix socket. Behind a proxy it is the proxy's: who trusts it reads
    /// the client's from the field that it sets ([`ConnectInfo::x_headers`]).
    pub fn peer(&self) -> Option<IpAddr> {
        self.request.peer()
    }

    /// The token that the client gave as `authToken`, if the mount wants one ([`Mount::auth_token`]).
    pub fn auth_token(&self) -> Option<&str> {
        self.auth_token.as_deref()
    }

    /// The session of the browser's cookie, if the mount reads sessions ([`Mount::session`]), the cookie is signed by
    /// this server and the parameter `_csrf_token` is the session's.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// WebSocket or long-poll.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// A header field, as text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.request.header(name)?).ok()
    }

    /// The `User-Agent`.
    pub fn user_agent(&self) -> Option<&'a str> {
        self.header("user-agent")
    }

    /// Fields whose names begin with `x-`.
    pub fn x_headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers_that_begin("x-")
    }

    /// Fields whose names begin with `sec-websocket-`.
    pub fn sec_websocket_headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers_that_begin("sec-websocket-")
    }

    /// `traceparent` and `tracestate`.
    pub fn trace_context(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let wanted = |name: &str| ["traceparent", "tracestate"].iter().any(|wanted| name.eq_ignore_ascii_case(wanted));
        self.request.headers().filter(move |(name, _)| wanted(name))
    }

    /// The whole request: path, query, all fields.
    pub fn request(&self) -> &'a Request<'a> {
        self.request
    }

    fn headers_that_begin(&self, prefix: &'static str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let begins = |name: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        self.request.headers().filter(move |(name, _)| begins(name))
    }
}

impl<'a> Disconnected<'a> {
    /// The values that `connect` gave it.
    pub fn assigns(&self) -> &'a Assigns {
        &self.client.assigns
    }

    /// The id that `connect` gave it.
    pub fn id(&self) -> Option<&'a str> {
        self.client.id.as_deref()
    }

    /// Why: [`Reason::Disconnected`] (by its id), [`Reason::Draining`], [`Reason::Inactive`] (a long-poll session that was
    /// not polled), else [`Reason::Closed`].
    pub fn reason(&self) -> &'a Reason {
        self.reason
    }

    /// WebSocket or long-poll.
    pub fn transport(&self) -> Transport {
        self.transport
    }
}

impl Connect {
    /// The client may connect.
    pub fn accept() -> Connect {
        Connect::Accept { assigns: Assigns::new(), id: None }
    }

    /// A value for its channels ([`Ctx::assigns`](crate::channels::Ctx::assigns)).
    pub fn assign<T: 'static>(self, value: T) -> Connect {
        match self {
            Connect::Accept { assigns, id } => Connect::Accept { assigns: assigns.with(value), id },
            refused => refused,
        }
    }

    /// The socket's id: a topic, such as `users:7`, by which all its connections can be disconnected and addressed.
    pub fn id(self, id: impl Into<String>) -> Connect {
        match self {
            Connect::Accept { assigns, .. } => Connect::Accept { assigns, id: Some(id.into()) },
            refused => refused,
        }
    }
}

impl Mount {
    /// Everybody may connect, over a WebSocket, from pages of the endpoint's own host.
    pub fn new(socket: UserSocket) -> Mount {
        Mount {
            socket: Arc::new(socket),
            connect: Box::new(|_| Connect::accept()),
            on_error: None,
            on_disconnect: None,
            origin: None,
            auth_token: false,
            session: None,
            subprotocols: None,
            websocket: Some(WebSocketOptions::default()),
            longpoll: None,
        }
    }

    /// Who may connect. A panic is answered with 500.
    pub fn connect(mut self, connect: impl Fn(&ConnectInfo<'_>) -> Connect + Send + Sync + 'static) -> Mount {
        self.connect = Box::new(connect);
        self
    }

    /// The answer to a client for whom `connect` found an error ([`Connect::Error`]). Default 403. Long-polling has its
    /// own way to say it.
    pub fn on_error(mut self, answer: impl Fn(&Request<'_>, &str) -> Response + Send + Sync + 'static) -> Mount {
        self.on_error = Some(Box::new(answer));
        self
    }

    /// Called when a client that was connected is gone, its channels have ended and nothing can be sent any more: once per
    /// WebSocket that was open, or long-poll session. A panic is logged and counted like one of a handler.
    pub fn on_disconnect(mut self, hook: impl Fn(&Disconnected<'_>) + Send + Sync + 'static) -> Mount {
        self.on_disconnect = Some(Box::new(hook));
        self
    }

    /// What is kept of a client for its end: nothing if nobody asks.
    pub(super) fn client(&self, assigns: &Assigns, id: Option<&str>) -> Option<Box<Client>> {
        self.on_disconnect.as_ref()?;
        Some(Box::new(Client { assigns: assigns.clone(), id: id.map(Into::into) }))
    }

    /// Tells the program that a client is gone.
    pub(super) fn disconnected(&self, client: &Client, reason: &Reason, transport: Transport) {
        if let Some(hook) = &self.on_disconnect {
            hook(&Disconnected { client, reason, transport });
        }
    }

    /// The origins from which browsers may connect. Default: the endpoint's.
    pub fn check_origin(mut self, policy: OriginPolicy) -> Mount {
        self.origin = Some(policy);
        self
    }

    /// Takes the token that the `phoenix` client sends as `authToken`. Default off: a client that sends one does not get
    /// the subprotocol it offers, and gives up.
    pub fn auth_token(mut self, on: bool) -> Mount {
        self.auth_token = on;
        self
    }

    /// Reads the session of the pages' cookie, for [`ConnectInfo::session`].
    pub fn session(mut self, cookie: SessionCookie) -> Mount {
        self.session = Some(cookie);
        self
    }

    /// The subprotocols that are spoken, the preferred first. A client that offers others alone is refused with 403.
    /// Default: whatever the client offers is not looked at.
    pub fn subprotocols<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Mount {
        self.subprotocols = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// How WebSockets are served; none: not at all.
    pub fn websocket(mut self, options: impl Into<Option<WebSocketOptions>>) -> Mount {
        self.websocket = options.into();
        self
    }

    /// How long-polling is served; none, which is the default: not at all.
    pub fn longpoll(mut self, options: impl Into<Option<LongPollOptions>>) -> Mount {
        self.longpoll = options.into();
        self
    }

    /// The checks of docs/phoenix-wire.md §1.1 in their order, after the path: what comes out is accepted, or why not.
    pub(super) fn admit(
        &self,
        request: &Request<'_>,
        vars: Vars,
        origin: &OriginPolicy,
        transport: Transport,
    ) -> Result<Admitted, Refusal> {
        let refuse = |status, why| refused(transport, status, why);
        if transport == Transport::WebSocket && request.method() != "GET" {
            return Err(refuse(400, "the method is not GET"));
        }
        let query = request.query().unwrap_or_default();
        let mut params = Params::parse(query).map_err(|_| refuse(400, "the query cannot be read"))?;
        if !may_come(origin, request, transport) {
            return Err(refuse(403, "its origin may not connect"));
        }
        let (auth_token, protocol) = match transport {
            Transport::WebSocket => self.protocols(request)?,
            Transport::LongPoll => (self.auth_token.then(|| longpoll_token(request)).flatten(), None),
        };
        let vsn = match params.get("vsn") {
            None => None,
            Some(Value::Text(vsn)) => Some(vsn.as_str()),
            Some(_) => return Err(refuse(403, "vsn is no text")),
        };
        let serializer = self.socket.versions().negotiate(vsn).ok_or_else(|| refuse(403, "nobody speaks its vsn"))?;
        for (name, value) in vars {
            params.put(&name, Value::Text(value));
        }
        let session = self.session.as_ref().and_then(|cookie| cookie.read(request));
        let session = session.filter(|session| params.text("_csrf_token").is_some_and(|t| is_csrf_token(session, t)));
        let info = ConnectInfo { request, params, auth_token, session, transport };
        let begun = Instant::now();
        let decision = (self.connect)(&info);
        connected(&info, serializer, &decision, begun.elapsed());
        match decision {
            Connect::Accept { assigns, id } => Ok(Admitted { serializer, assigns, id, protocol }),
            Connect::Refuse => Err(Refusal::Status(403)),
            Connect::Error(reason) => match &self.on_error {
                Some(answer) => Err(Refusal::Response(answer(request, &reason))),
                None => Err(Refusal::Status(403)),
            },
        }
    }

    /// The auth token and the subprotocol to answer with (docs/phoenix-wire.md §1.4, §1.5).
    fn protocols(&self, request: &Request<'_>) -> Result<(Option<String>, Option<String>), Refusal> {
        let offered = request.header("sec-websocket-protocol").map(String::from_utf8_lossy);
        let Some(offered) = offered else { return Ok((None, None)) };
        let mut names: Vec<&str> = offered.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut token = None;
        if self.auth_token {
            let bearers = names.iter().filter_map(|name| name.strip_prefix(BEARER)).collect::<Vec<_>>();
            if let [bearer] = bearers[..] {
                let unreadable = || refused(Transport::WebSocket, 500, "its auth token cannot be decoded");
                let bytes = STANDARD_NO_PAD.decode(bearer).map_err(|_| unreadable())?;
                token = Some(String::from_utf8(bytes).map_err(|_| unreadable())?);
                names.retain(|name| !name.starts_with(BEARER));
            }
        }
        let phoenix = self.auth_token.then_some("phoenix");
        let spoken = phoenix.into_iter().chain(self.subprotocols.iter().flatten().map(String::as_str));
        if (self.subprotocols.is_none() && !self.auth_token) || names.is_empty() {
            return Ok((token, None));
        }
        match spoken.into_iter().find(|name| names.contains(name)) {
            Some(name) => Ok((token, Some(name.to_owned()))),
            None => Err(refused(Transport::WebSocket, 403, "nobody speaks its subprotocols")),
        }
    }
}

/// What the subprotocol that carries an auth token begins with.
const BEARER: &str = "base64url.bearer.phx.";

fn longpoll_token(request: &Request<'_>) -> Option<String> {
    String::from_utf8(request.header("x-phoenix-authtoken")?.to_vec()).ok()
}

impl WebSocketOptions {
    pub(super) fn profile(&self) -> Profile {
        Profile {
            message_bytes: self.message_bytes,
            idle_timeout: self.timeout,
            keepalive: Keepalive::Silent(CloseCode::PROTOCOL),
        }
    }
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        WebSocketOptions { path: "/websocket".into(), timeout: Duration::from_secs(60), message_bytes: 1 << 20 }
    }
}

impl Default for LongPollOptions {
    fn default() -> Self {
        LongPollOptions {
            path: "/longpoll".into(),
            window: Duration::from_secs(10),
            sessions_per_ip: 0,
            token_age: Duration::from_secs(14 * 24 * 3600),
            body_bytes: 8_000_000,
            buffer_bytes: 1 << 20,
            waiting_bytes: 1 << 20,
        }
    }
}

/// Without secrets: it may be logged.
impl fmt::Debug for ConnectInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectInfo")
            .field("transport", &self.transport)
            .field("path", &self.request.path())
            .field("params", &Filtered(&self.params))
            .finish_non_exhaustive()
    }
}

impl From<UserSocket> for Mount {
    fn from(socket: UserSocket) -> Self {
        Mount::new(socket)
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("socket", &self.socket).finish_non_exhaustive()
    }
}
