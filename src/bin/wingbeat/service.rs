//! What `wingbeat serve` does with connections: echo, topics, a health check; the rest is the chat's endpoint.
#![forbid(unsafe_code)]

use crate::routes::Route;
use slab::Slab;
use wingbeat::endpoint::{EndpointHandler, Live, Mail};
use wingbeat::engine::{Answer, ConnId, Encoder, TopicListenerId};
use wingbeat::{CloseCode, CloseReason, Conn, Handler, Message, Request, Response, Scope, Upgrade};

/// One per worker.
#[derive(Debug)]
pub(crate) struct Service {
    /// Topic names of the connections that have one. They are here so that the others pay nothing for it.
    names: Slab<Box<str>>,
    /// The sockets of the connections that have one.
    sockets: Slab<Box<Live>>,
    endpoint: EndpointHandler,
}

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Role {
    Echo,
    /// Subscribed to the topic under this key, and publishes to it.
    Member(u32),
    /// Publishes to the topic under this key.
    Publisher(u32),
    /// Carries the socket under this key.
    Socket(u32),
}

// It is kept for every connection.
const _: () = assert!(size_of::<Option<Role>>() == 8);

impl Service {
    /// What is not this service's own goes to `endpoint`.
    pub(crate) fn new(endpoint: EndpointHandler) -> Self {
        Service { names: Slab::new(), sockets: Slab::new(), endpoint }
    }

    /// No name of a client's is that of a channel's topic, so that nobody speaks to channels past their rules.
    fn keep(&mut self, name: &str) -> u32 {
        self.names.insert(format!("topics/{name}").into()) as u32
    }

    /// The role of a connection to the endpoint. One that is accepted and then refused, because it is no handshake
    /// (`Handler::mounts`), is never closed: it must not leave a socket behind.
    fn admit(&mut self, live: Live, is_handshake: bool) -> Role {
        match is_handshake {
            true => Role::Socket(self.sockets.insert(Box::new(live)) as u32),
            false => Role::Echo,
        }
    }

    /// Hands something to the endpoint, if the connection is one of its own.
    fn hand_on(&mut self, role: &Role, to: impl FnOnce(&mut EndpointHandler, &mut Live)) {
        if let Role::Socket(key) = role {
            to(&mut self.endpoint, &mut self.sockets[*key as usize]);
        }
    }
}

impl Handler for Service {
    type State = Role;
    type Mail = Mail;

    fn mounts(&self, request: &Request<'_>) -> bool {
        match Route::of(request.path(), request.query()) {
            Route::Other => self.endpoint.mounts(request),
            _ => request.is_upgrade(),
        }
    }

    fn upgrade(&mut self, scope: &mut Scope<'_>, request: &Request<'_>) -> Upgrade<Role> {
        match Route::of(request.path(), request.query()) {
            Route::Echo => Upgrade::Accept(Role::Echo),
            Route::Topics(name) => Upgrade::Accept(Role::Member(self.keep(&name))),
            Route::Publish(name) => Upgrade::Accept(Role::Publisher(self.keep(&name))),
            Route::BadTopic => Upgrade::Reject(bad_topic()),
            // A server may ignore an upgrade that it does not want, and answer (RFC 9110 §7.8).
            Route::Health => Upgrade::Reject(healthy()),
            Route::Other => match self.endpoint.upgrade(scope, request) {
                Upgrade::Accept(live) => Upgrade::Accept(self.admit(live, request.is_upgrade())),
                Upgrade::AcceptWith(live, with) => Upgrade::AcceptWith(self.admit(live, request.is_upgrade()), with),
                Upgrade::Reject(response) => Upgrade::Reject(response),
                Upgrade::Later => Upgrade::Later,
            },
        }
    }

    fn upgrade_later(&mut self, scope: &mut Scope<'_>, id: ConnId, mail: Mail) -> Upgrade<Role> {
        match self.endpoint.upgrade_later(scope, id, mail) {
            Upgrade::Accept(live) => Upgrade::Accept(self.admit(live, true)),
            Upgrade::AcceptWith(live, with) => Upgrade::AcceptWith(self.admit(live, true), with),
            Upgrade::Reject(response) => Upgrade::Reject(response),
            Upgrade::Later => Upgrade::Later,
        }
    }

    fn body_limit(&self, request: &Request<'_>) -> u32 {
        self.endpoint.body_limit(request)
    }

    fn request(&mut self, scope: &mut Scope<'_>, request: &Request<'_>) -> Answer {
        let response = match Route::of(request.path(), request.query()) {
            Route::Other => return self.endpoint.request(scope, request),
            _ if !matches!(request.method(), "GET" | "HEAD") => Response::new(405).header("Allow", "GET, HEAD"),
            Route::Health => healthy(),
            Route::BadTopic => bad_topic(),
            Route::Echo | Route::Topics(_) | Route::Publish(_) => Response::upgrade_required(),
        };
        response.into()
    }

    fn open(&mut self, conn: &mut Conn<'_>, role: &mut Role) {
        if let Role::Member(key) = role
            && let Err(error) = conn.subscribe(&self.names[*key as usize])
        {
            tracing::warn!(%error, "a subscription was refused");
            conn.close(CloseCode::TRY_AGAIN_LATER, "no room for this topic");
        }
        self.hand_on(role, |endpoint, live| endpoint.open(conn, live));
    }

    fn message(&mut self, conn: &mut Conn<'_>, role: &mut Role, message: Message<'_>) {
        match role {
            Role::Echo => {
                conn.send(message);
            }
            Role::Member(key) | Role::Publisher(key) => {
                conn.publish(&self.names[*key as usize], message);
            }
            Role::Socket(_) => self.hand_on(role, |endpoint, live| endpoint.message(conn, live, message)),
        }
    }

    fn close(&mut self, scope: &mut Scope<'_>, role: Role, reason: CloseReason) {
        match role {
            Role::Echo => {}
            Role::Member(key) | Role::Publisher(key) => {
                self.names.remove(key as usize);
            }
            Role::Socket(key) => {
                let live = self.sockets.remove(key as usize);
                self.endpoint.close(scope, *live, reason);
            }
        }
    }

    // ---- the endpoint's alone -------------------------------------------------------------------------------

    fn encoder(&self) -> Option<Box<dyn Encoder>> {
        self.endpoint.encoder()
    }

    fn delivery(&mut self, conn: &mut Conn<'_>, role: &mut Role, topic: &str, message: Message<'_>) {
        self.hand_on(role, |endpoint, live| endpoint.delivery(conn, live, topic, message));
    }

    fn mail(&mut self, conn: &mut Conn<'_>, role: &mut Role, mail: Mail) {
        self.hand_on(role, |endpoint, live| endpoint.mail(conn, live, mail));
    }

    fn conn_timer(&mut self, conn: &mut Conn<'_>, role: &mut Role, token: u64) {
        self.hand_on(role, |endpoint, live| endpoint.conn_timer(conn, live, token));
    }

    fn worker_mail(&mut self, scope: &mut Scope<'_>, mail: Mail) {
        self.endpoint.worker_mail(scope, mail);
    }

    fn heard(&mut self, scope: &mut Scope<'_>, listener: TopicListenerId, topic: &str, message: Message<'_>) {
        self.endpoint.heard(scope, listener, topic, message);
    }

    fn timer(&mut self, scope: &mut Scope<'_>, token: u64) {
        self.endpoint.timer(scope, token);
    }

    fn draining(&mut self, scope: &mut Scope<'_>) {
        self.endpoint.draining(scope);
    }

    fn request_gone(&mut self, scope: &mut Scope<'_>, id: ConnId) {
        self.endpoint.request_gone(scope, id);
    }
}

fn healthy() -> Response {
    Response::text(200, "ok\n")
}

fn bad_topic() -> Response {
    Response::text(400, "?topic=NAME is needed: 1 to 255 bytes of UTF-8, percent-encoded\n")
}
