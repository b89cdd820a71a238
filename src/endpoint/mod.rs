//! [`Endpoint`]: pages, an API and channels in one program.
//!
//! ```no_run
//! use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload, UserSocket};
//! use wingbeat::endpoint::Endpoint;
//!
//! struct Room;
//! impl Channel for Room {
//!     fn join(&mut self, _: &mut JoinCtx<'_>, _topic: &str, _: Payload<'_>) -> Join { Join::Ok }
//!     fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
//!         match event {
//!             "post" => {
//!                 ctx.broadcast("post", payload);
//!                 Outcome::NoReply
//!             }
//!             _ => Outcome::Unhandled,
//!         }
//!     }
//! }
//!
//! Endpoint::new()
//!     .socket("/socket", UserSocket::new().channel("room:*", || Room))
//!     .serve("127.0.0.1:4000")?;
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

#[doc(hidden)] // public for the fuzz target alone: no part of the API
pub mod body;
mod classes;
mod handler;
mod line;
mod log;
mod longpoll;
mod mail;
mod mount;
mod path;
mod quota;
mod routes;
mod timers;

pub use handler::{EndpointHandler, Live};
pub use longpoll::SessionId;
pub use mail::Mail;
pub use mount::{Connect, ConnectInfo, Disconnected, LongPollOptions, Mount, Transport, WebSocketOptions};

use crate::channels::token::{Signer, WeakSecret};
use crate::channels::{Broadcast, OwnedPayload, PayloadError, ToPayload, direct_event, is_reserved};
use crate::engine::{Config, Drain, Handle, Message, Published, Response, Scope, Snapshot};
use crate::http::{Context, OriginPolicy, Router};
use crate::server::{Running, Server, ToAddress};
use classes::Classes;
use mount::Vars;
use path::Pattern;
use quota::Quota;
use std::{error, fmt, io, ptr, sync::Arc, time::Duration};

/// What a program serves: sockets at paths, and everything else by a [`Router`].
#[derive(Debug)]
pub struct Endpoint {
    mounts: Vec<Place>,
    router: Router,
    origin: OriginPolicy,
    signer: Option<Signer>,
    config: Config,
    workers: Option<usize>,
}

/// A mount and where it is.
#[derive(Debug)]
struct Place {
    mount: Mount,
    websocket: Option<Pattern>,
    longpoll: Option<(Pattern, Arc<LongPollOptions>)>,
}

/// What all workers share.
#[derive(Debug)]
struct Shared {
    mounts: Vec<Place>,
    router: Router,
    origin: OriginPolicy,
    signer: Signer,
    /// Tells this process's sessions from those of others with the same secret, and from those before a restart.
    instance: u64,
    classes: Arc<Classes>,
    quota: Arc<Quota>,
}

/// An endpoint's handle for other threads: broadcasts, disconnects, drains. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EndpointHandle {
    handle: Handle<Mail>,
}

/// An endpoint that runs on threads of its own.
#[derive(Debug)]
pub struct Serving {
    running: Running<Mail>,
    handle: EndpointHandle,
}

/// Why a broadcast from outside was not made, or not everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BroadcastError {
    /// It cannot be sent.
    Payload(PayloadError),
    /// The event begins with `phx_`: those are the protocol's own.
    ReservedEvent,
    /// So many workers had no room for it: their clients miss it.
    Refused(u32),
}

impl Endpoint {
    /// No sockets, no pages. Browsers may connect from pages of the host and port that they connect to, whatever the
    /// scheme ([`OriginPolicy::SameHost`]): behind a proxy that speaks TLS too, if it passes on their `Host`. To name the
    /// host is stricter; see [`Endpoint::host`].
    pub fn new() -> Endpoint {
        Endpoint {
            mounts: Vec::new(),
            router: Router::new(),
            origin: OriginPolicy::SameHost,
            signer: None,
            config: Config::default(),
            workers: None,
        }
    }

    /// The host name under which the endpoint is known: browsers may connect from its pages alone, whatever scheme and
    /// port.
    pub fn host(mut self, name: &str) -> Endpoint {
        self.origin = OriginPolicy::Host(name.to_owned());
        self
    }

    /// The origins from which browsers may connect, where a mount says nothing else.
    pub fn check_origin(mut self, policy: OriginPolicy) -> Endpoint {
        self.origin = policy;
        self
    }

    /// The secret that tokens are signed with, at least 32 bytes. Default: a random one for this process, with which
    /// long-poll sessions end with the process.
    ///
    /// # Errors
    /// It is too short.
    pub fn secret(mut self, secret: &[u8]) -> Result<Endpoint, WeakSecret> {
        self.signer = Some(Signer::new(secret)?);
        Ok(self)
    }

    /// Mounts a socket: WebSockets at `path` + `/websocket`, long-polling if the [`Mount`] says so. The path may have
    /// variables (`/tenants/:tenant/socket`), which become parameters. Sockets come before routes: what is sent to the paths of
    /// one does not come to the router.
    ///
    /// # Panics
    /// The path, or that of a transport, does not begin with `/`, has a variable without a name, or a `*`; or another
    /// socket, mounted before, has taken it already.
    pub fn socket(mut self, path: &str, mount: impl Into<Mount>) -> Endpoint {
        let mount = mount.into();
        let websocket = mount.websocket.as_ref().map(|options| Pattern::new(path, &options.path));
        let longpoll = mount.longpoll.clone();
        let longpoll = longpoll.map(|options| (Pattern::new(path, &options.path), Arc::new(options)));
        let place = Place { mount, websocket, longpoll };
        for new in place.patterns() {
            let taken = self.mounts.iter().flat_map(Place::patterns).chain(place.patterns());
            if let Some(taken) = taken.filter(|taken| !ptr::eq(*taken, new)).find(|taken| taken.covers(new)) {
                panic!("a socket at {new} is never reached, behind the one at {taken}");
            }
        }
        self.mounts.push(place);
        self
    }

    /// Everything else by a router of its own: what [`Endpoint::get`] and its siblings declared before is replaced.
    pub fn router(mut self, router: Router) -> Endpoint {
        self.router = router;
        self
    }

    /// Limits, budgets, sizes.
    pub fn config(mut self, config: Config) -> Endpoint {
        self.config = config;
        self
    }

    /// Threads; see [`Server::workers`].
    pub fn workers(mut self, workers: usize) -> Endpoint {
        self.workers = Some(workers);
        self
    }

    /// Serves until a drain is over. Blocks.
    ///
    /// # Errors
    /// As [`Server::serve`].
    pub fn serve(self, address: impl ToAddress) -> io::Result<()> {
        self.spawn(address)?.join()
    }

    /// Serves on threads of its own, and returns as soon as they listen.
    ///
    /// # Errors
    /// As [`Server::spawn`].
    pub fn spawn(self, address: impl ToAddress) -> io::Result<Serving> {
        let server = Server::bind(address)?;
        self.spawn_on(server)
    }

    /// As [`Endpoint::spawn`], on a server that was set up otherwise (more addresses, a driver).
    ///
    /// # Errors
    /// As [`Server::spawn`].
    pub fn spawn_on(self, server: Server) -> io::Result<Serving> {
        let mut config = self.config;
        // A poll waits for its window, and is answered by the session, not by the engine.
        let window = self.mounts.iter().filter_map(|place| Some(place.longpoll.as_ref()?.1.window)).max();
        let answer = window.unwrap_or_default().saturating_add(ANSWER_SLACK);
        config.limits.answer_timeout = config.limits.answer_timeout.max(answer);
        let mut server = server.config(config);
        if let Some(workers) = self.workers {
            server = server.workers(workers);
        }
        let running = server.spawn_with(self.handlers()?)?;
        let handle = EndpointHandle::from(running.handle().clone());
        Ok(Serving { running, handle })
    }

    /// What makes the handler of each worker, for [`Server::spawn_with`] or a handler of your own that hands on to it
    /// all that is not its own. [`Endpoint::config`] and [`Endpoint::workers`] are then the server's affair, and
    /// [`EndpointHandle`] is made [`From`] the server's handle.
    ///
    /// With long-polling, [`Limits::answer_timeout`](crate::engine::Limits::answer_timeout) has to exceed every
    /// [`LongPollOptions::window`] by some seconds, else polls that wait are answered with 503: [`Endpoint::spawn_on`]
    /// sees to that, a server of your own has to do it itself.
    ///
    /// # Errors
    /// The system has no randomness for the secret that was not given.
    pub fn handlers(
        self,
    ) -> io::Result<impl Fn(usize, &Handle<Mail>) -> EndpointHandler + Clone + Send + Sync + 'static> {
        let shared = Arc::new(self.share()?);
        Ok(move |worker, handle: &Handle<Mail>| EndpointHandler::new(Arc::clone(&shared), worker, handle))
    }

    fn share(self) -> io::Result<Shared> {
        let mut classes = Classes::default();
        for (place, index) in self.mounts.iter().zip(0..) {
            classes.add(index, &place.mount.socket);
        }
        let mut random = [0; 40];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let (instance, secret) = random.split_at(8);
        let instance = u64::from_le_bytes(instance.try_into().expect("8 bytes"));
        let signer = self.signer.unwrap_or_else(|| Signer::new(secret).expect("32 bytes are enough"));
        let Endpoint { mounts, router, origin, .. } = self;
        let (classes, quota) = (Arc::new(classes), Arc::default());
        Ok(Shared { mounts, router, origin, signer, instance, classes, quota })
    }
}

/// What an answer may take beyond the window of a poll.
const ANSWER_SLACK: Duration = Duration::from_secs(5);

impl Default for Endpoint {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// Where its transports are.
    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.websocket.iter().chain(self.longpoll.iter().map(|(pattern, _)| pattern))
    }
}

impl Shared {
    fn websocket(&self, path: &str) -> Option<(u16, Vars, &WebSocketOptions)> {
        (0..).zip(&self.mounts).find_map(|(index, place)| {
            let vars = place.websocket.as_ref()?.matches(path)?;
            Some((index, vars, place.mount.websocket.as_ref()?))
        })
    }

    fn longpoll(&self, path: &str) -> Option<(u16, Vars)> {
        (0..).zip(&self.mounts).find_map(|(index, place)| Some((index, place.longpoll.as_ref()?.0.matches(path)?)))
    }

    fn longpoll_options(&self, mount: u16) -> &Arc<LongPollOptions> {
        let (_, options) = self.mounts[usize::from(mount)].longpoll.as_ref().expect("its path was matched");
        options
    }

    fn origin(&self, mount: u16) -> &OriginPolicy {
        self.mounts[usize::from(mount)].mount.origin.as_ref().unwrap_or(&self.origin)
    }
}

impl From<Handle<Mail>> for EndpointHandle {
    fn from(handle: Handle<Mail>) -> Self {
        EndpointHandle { handle }
    }
}

impl EndpointHandle {
    /// Sends an event to all who have joined a topic.
    ///
    /// # Errors
    /// [`BroadcastError`].
    pub fn broadcast(&self, topic: &str, event: &str, payload: impl ToPayload) -> Result<(), BroadcastError> {
        allowed(event)?;
        publish(event, payload, |message| self.handle.publish(topic, message))
    }

    /// Sends an event to one user: every socket of this id that has joined this topic.
    ///
    /// # Errors
    /// [`BroadcastError`].
    pub fn push_to(&self, id: &str, topic: &str, event: &str, payload: impl ToPayload) -> Result<(), BroadcastError> {
        allowed(event)?;
        publish(&direct_event(topic, event), payload, |message| self.handle.publish(id, message))
    }

    /// Closes every connection of the sockets of this id, with 1001.
    ///
    /// # Errors
    /// [`BroadcastError::Refused`].
    pub fn disconnect(&self, id: &str) -> Result<(), BroadcastError> {
        self.broadcast(id, crate::channels::DISCONNECT, crate::channels::Payload::EMPTY)
    }

    /// Ends the endpoint: long-poll sessions at once, WebSockets in batches with 1012, then the workers.
    pub fn drain(&self, plan: Drain) {
        self.handle.drain(plan);
    }

    /// Counters of all workers.
    pub fn metrics(&self) -> Snapshot {
        self.handle.metrics()
    }

    /// The engine's own handle.
    pub fn engine(&self) -> &Handle<Mail> {
        &self.handle
    }
}

impl Serving {
    /// What runs: addresses.
    pub fn running(&self) -> &Running<Mail> {
        &self.running
    }

    /// For other threads.
    pub fn handle(&self) -> &EndpointHandle {
        &self.handle
    }

    /// Waits for the end, which follows a drain.
    ///
    /// # Errors
    /// As [`Running::join`].
    pub fn join(self) -> io::Result<()> {
        self.running.join()
    }
}

/// Sends an event to all who have joined a topic, from a handler of plain requests or of the engine.
///
/// # Errors
/// [`BroadcastError`].
pub fn broadcast(
    scope: &mut Scope<'_>,
    topic: &str,
    event: &str,
    payload: impl ToPayload,
) -> Result<(), BroadcastError> {
    allowed(event)?;
    publish(event, payload, |message| scope.publish(topic, message))
}

impl Context<'_> {
    /// Sends an event to all who have joined a topic.
    ///
    /// # Errors
    /// [`BroadcastError`].
    pub fn broadcast(&mut self, topic: &str, event: &str, payload: impl ToPayload) -> Result<(), BroadcastError> {
        broadcast(self.scope(), topic, event, payload)
    }
}

/// Clients act on the protocol's own events, so nobody else may send one.
fn allowed(event: &str) -> Result<(), BroadcastError> {
    if is_reserved(event) { Err(BroadcastError::ReservedEvent) } else { Ok(()) }
}

fn publish(
    event: &str,
    payload: impl ToPayload,
    publish: impl FnOnce(Message<'_>) -> Published,
) -> Result<(), BroadcastError> {
    let payload = OwnedPayload::new(payload).map_err(BroadcastError::Payload)?;
    let payload = payload.as_payload();
    if !payload.is_pushable() {
        return Err(BroadcastError::Payload(PayloadError::NotAnObject));
    }
    let mut bytes = Vec::new();
    let kind = Broadcast { event, payload }.write(&mut bytes);
    match publish(Message { kind, payload: &bytes }).refused {
        0 => Ok(()),
        refused => Err(BroadcastError::Refused(refused)),
    }
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BroadcastError::Payload(error) => error.fmt(f),
            BroadcastError::ReservedEvent => f.write_str("events that begin with phx_ are the protocol's own"),
            BroadcastError::Refused(workers) => write!(f, "{workers} workers had no room for the broadcast"),
        }
    }
}

impl error::Error for BroadcastError {}

/// 500 for what cannot be sent, 503 where a worker had no room: a handler of requests may use `?`.
impl From<BroadcastError> for Response {
    fn from(error: BroadcastError) -> Response {
        match error {
            BroadcastError::Payload(_) | BroadcastError::ReservedEvent => Response::new(500),
            BroadcastError::Refused(_) => Response::new(503),
        }
    }
}
