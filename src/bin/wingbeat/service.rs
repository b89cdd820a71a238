//! What `wingbeat serve` does with connections: echo, topics, a health check; the rest is the chat's endpoint.
#![forbid(unsafe_code)]

use crate::routes::Route;
use slab::Slab;
use std::collections::HashMap;
use std::rc::Rc;
use wingbeat::endpoint::{EndpointHandler, Live, Mail};
use wingbeat::engine::{Answer, ConnId, Encoder, TopicListenerId};
use wingbeat::{CloseCode, CloseReason, Conn, Handler, Message, Request, Response, Scope, Upgrade};

/// One per worker.
#[derive(Debug)]
pub(crate) struct Service {
    /// The topics of members and publishers.
    names: Names,
    /// The sockets of the connections that have one.
    sockets: Slab<Box<Live>>,
    endpoint: EndpointHandler,
}

/// Names of topics, each once however many connections have it.
#[derive(Debug, Default)]
struct Names {
    /// With how many connections have it.
    names: Slab<(Rc<str>, u32)>,
    keys: HashMap<Rc<str>, u32>,
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
        Service { names: Names::default(), sockets: Slab::new(), endpoint }
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
            Route::Topics(name) => Upgrade::Accept(Role::Member(self.names.keep(&name))),
            Route::Publish(name) => Upgrade::Accept(Role::Publisher(self.names.keep(&name))),
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
            && let Err(error) = conn.subscribe(self.names.name(*key))
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
                conn.publish(self.names.name(*key), message);
            }
            Role::Socket(_) => self.hand_on(role, |endpoint, live| endpoint.message(conn, live, message)),
        }
    }

    fn close(&mut self, scope: &mut Scope<'_>, role: Role, reason: CloseReason) {
        match role {
            Role::Echo => {}
            Role::Member(key) | Role::Publisher(key) => self.names.give_up(key),
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

impl Names {
    /// The key of a client's topic, for one more connection. No name of a client's is that of a channel's topic, so that
    /// nobody speaks to channels past their rules.
    fn keep(&mut self, name: &str) -> u32 {
        let name: Rc<str> = format!("topics/{name}").into();
        let names = &mut self.names;
        let key = *self.keys.entry(name).or_insert_with_key(|name| names.insert((Rc::clone(name), 0)) as u32);
        names[key as usize].1 += 1;
        key
    }

    fn name(&self, key: u32) -> &str {
        &self.names[key as usize].0
    }

    /// A connection has the topic no more.
    fn give_up(&mut self, key: u32) {
        let connections = &mut self.names[key as usize].1;
        *connections -= 1;
        if *connections == 0 {
            let (name, _) = self.names.remove(key as usize);
            self.keys.remove(&name);
        }
    }
}

fn healthy() -> Response {
    Response::text(200, "ok\n")
}

fn bad_topic() -> Response {
    Response::text(400, "?topic=NAME is needed: 1 to 255 bytes of UTF-8, percent-encoded\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_goes_with_its_last_connection() {
        let mut names = Names::default();
        let (a, b) = (names.keep("a"), names.keep("b"));
        assert_eq!((names.keep("a"), names.name(a), names.name(b)), (a, "topics/a", "topics/b"));
        names.give_up(a);
        assert_eq!((names.name(a), names.names.len()), ("topics/a", 2));
        names.give_up(a);
        names.give_up(b);
        assert!(names.names.is_empty() && names.keys.is_empty());
    }
}
