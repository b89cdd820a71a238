//! The handler of an endpoint: what each worker does with connections, requests and mail.
#![forbid(unsafe_code)]

use super::line::{Desk, Gone, Line, Whose};
use super::log::may_come;
use super::longpoll::{self, Ask, Reply, Session, SessionId, What};
use super::mail::{Mail, PostOffice, conn_address, mail_worker};
use super::mount::{Admitted, Client, LongPollOptions, Refusal, Transport, Vars};
use super::quota::Seat;
use super::timers::TimerTable;
use super::{Shared, body};
use crate::channels::{Reason, Scratch, Socket};
use crate::engine::{
    Acceptance, Answer, CloseCause, CloseReason, Conn, ConnId, Encoder, Handle, Handler, Message, Request, Response,
    Scope, TopicListenerId, Upgrade,
};
use serde_json::json;
use slab::Slab;
use std::collections::HashMap;
use std::time::SystemTime;
use std::{fmt, sync::Arc};

/// An [`Endpoint`](super::Endpoint) on one worker.
pub struct EndpointHandler {
    shared: Arc<Shared>,
    handle: Handle<Mail>,
    worker: u16,
    desk: Desk,
    sessions: Slab<Session>,
    listeners: HashMap<TopicListenerId, SessionId>,
    /// Long-poll requests of this worker that wait for an answer, and whose sessions are to give it.
    requests: HashMap<ConnId, SessionId>,
    made: u32,
    draining: bool,
}

/// The socket of an open connection.
#[derive(Debug)]
pub struct Live {
    socket: Socket,
    mount: u16,
    address: u128,
    client: Option<Box<Client>>,
}

impl EndpointHandler {
    pub(super) fn new(shared: Arc<Shared>, worker: usize, handle: &Handle<Mail>) -> Self {
        let desk = Desk {
            classes: Arc::clone(&shared.classes),
            timers: TimerTable::new(),
            scratch: Scratch::default(),
            post: Arc::new(PostOffice(handle.clone())),
        };
        EndpointHandler {
            shared,
            handle: handle.clone(),
            worker: worker as u16,
            desk,
            sessions: Slab::new(),
            listeners: HashMap::new(),
            requests: HashMap::new(),
            made: 0,
            draining: false,
        }
    }

    // ---- long-polling ---------------------------------------------------------------------------------------

    fn longpoll(&mut self, scope: &mut Scope<'_>, request: &Request<'_>, mount: u16, vars: Vars) -> Answer {
        let options = Arc::clone(self.shared.longpoll_options(mount));
        match request.method() {
            "OPTIONS" => longpoll::preflight(request).into(),
            "GET" | "HEAD" | "POST" if !may_come(self.shared.origin(mount), request, Transport::LongPoll) => {
                longpoll::answer(&json!({ "status": 403 })).into()
            }
            "GET" => match self.session_of(request, mount, &options) {
                Some((session, token)) => self.forward(scope, session, request.id(), What::Poll(token)),
                None => self.new_session(scope, request, mount, vars, options).into(),
            },
            "POST" => {
                let session = self.session_of(request, mount, &options);
                let Some((session, _)) = session else { return longpoll::gone().into() };
                let batch = body::messages(request.header("content-type"), request.body());
                self.forward(scope, session, request.id(), What::Post(batch))
            }
            _ => longpoll::failed(400, "").into(),
        }
    }

    /// The session that a request's token names, with the token; none if it is not one of ours, or too old.
    fn session_of(&self, request: &Request<'_>, mount: u16, options: &LongPollOptions) -> Option<(SessionId, String)> {
        let header = request.header("x-phoenix-longpoll-token").and_then(|token| std::str::from_utf8(token).ok());
        let token = match header {
            Some(token) => token.to_owned(),
            None => crate::http::Params::parse(request.query()?).ok()?.text("token")?.to_owned(),
        };
        let signer = &self.shared.signer;
        let (of, worker, number): ((u64, u16), u16, u64) =
            signer.verify_json(PURPOSE, &token, options.token_age, SystemTime::now()).ok()?;
        (of == (self.shared.instance, mount)).then_some((SessionId { worker, number }, token))
    }

    fn forward(&mut self, scope: &mut Scope<'_>, session: SessionId, request: ConnId, what: What) -> Answer {
        self.requests.insert(request, session);
        let ask = Ask { session, request, what };
        if session.worker == self.worker {
            self.asked(scope, ask);
        } else if mail_worker(&self.handle, session.worker, Mail::Ask(Box::new(ask))).is_err() {
            self.requests.remove(&request);
            return longpoll::failed(503, "too much mail for a worker\n").into();
        }
        Answer::Later
    }

    /// Runs `connect`, and makes a session for whom it lets in: 410 tells the client that it begins anew.
    fn new_session(
        &mut self,
        scope: &mut Scope<'_>,
        request: &Request<'_>,
        mount: u16,
        vars: Vars,
        options: Arc<LongPollOptions>,
    ) -> Response {
        if self.draining {
            return longpoll::failed(503, "the server is going away\n");
        }
        let Ok(seat) = self.seat(request, mount, &options) else {
            tracing::debug!("an address has as many long-poll sessions as it may");
            return longpoll::failed(429, "too many sessions of one address\n");
        };
        let refused = || longpoll::answer(&json!({ "status": 403 }));
        let shared = Arc::clone(&self.shared);
        let admitted =
            shared.mounts[usize::from(mount)].mount.admit(request, vars, shared.origin(mount), Transport::LongPoll);
        let Ok(Admitted { serializer, assigns, id: name, .. }) = admitted else { return refused() };
        let Ok(listener) = scope.listen() else { return longpoll::failed(503, "too many sessions\n") };
        let place = &shared.mounts[usize::from(mount)].mount;
        let client = place.client(&assigns, name.as_deref());
        let socket = Socket::new(Arc::clone(&place.socket), serializer, assigns, name);
        self.made = self.made.wrapping_add(1);
        let slot = self.sessions.vacant_entry();
        let id = SessionId { worker: self.worker, number: u64::from(self.made) << 32 | slot.key() as u64 };
        let session = slot.insert(Session::new(id, socket, listener, mount, options, client, seat));
        self.listeners.insert(listener, id);
        session.begin(scope, &mut self.desk);
        let token =
            shared.signer.sign_json(PURPOSE, &((shared.instance, mount), id.worker, id.number), SystemTime::now());
        longpoll::empty(410, &token.expect("numbers can be written"))
    }

    /// Counts a session of the request's address, if there is a limit; an error beyond it.
    fn seat(&self, request: &Request<'_>, mount: u16, options: &LongPollOptions) -> Result<Option<Seat>, ()> {
        match request.peer().filter(|_| options.sessions_per_ip > 0) {
            Some(peer) => self.shared.quota.enter(mount, peer, options.sessions_per_ip).map(Some).ok_or(()),
            None => Ok(None),
        }
    }

    fn asked(&mut self, scope: &mut Scope<'_>, ask: Ask) {
        let Ask { session: id, request, what } = ask;
        let desk = &mut self.desk;
        let replies = match (session_mut(&mut self.sessions, id), what) {
            (Some(session), What::Poll(token)) => session.poll(scope, desk, request, token),
            (Some(session), What::Post(messages)) => session.post(scope, desk, request, messages),
            (None, _) => vec![Reply { request, response: longpoll::gone(), session: None }],
        };
        self.send(scope, replies);
        self.bury(scope, id);
    }

    /// Runs something for a session, then gives a waiting poll what came of it.
    fn with_session(
        &mut self,
        scope: &mut Scope<'_>,
        id: SessionId,
        run: impl FnOnce(&mut Session, &mut Scope<'_>, &mut Desk) -> Option<Reply>,
    ) {
        let Some(session) = session_mut(&mut self.sessions, id) else { return };
        let first = run(session, scope, &mut self.desk);
        let then = session.flush(scope, &mut self.desk);
        self.send(scope, first.into_iter().chain(then));
        self.bury(scope, id);
    }

    /// Takes a session away that is over.
    fn bury(&mut self, scope: &mut Scope<'_>, id: SessionId) {
        if !session_mut(&mut self.sessions, id).is_some_and(|session| session.state.closed) {
            return;
        }
        let mut session = self.sessions.remove(index(id));
        self.listeners.remove(&session.state.listener);
        let (client, mount) = (session.take_client(), session.mount());
        let reply = session.bury(scope, &mut self.desk);
        self.send(scope, reply);
        if let Some((client, reason)) = client {
            self.shared.mounts[usize::from(mount)].mount.disconnected(&client, &reason, Transport::LongPoll);
        }
    }

    /// Sends answers, or has them sent by the workers of their requests.
    fn send(&mut self, scope: &mut Scope<'_>, replies: impl IntoIterator<Item = Reply>) {
        for reply in replies {
            let (request, session) = (reply.request, reply.session);
            if request.worker == self.worker {
                self.answer(scope, reply);
            } else if mail_worker(&self.handle, request.worker, Mail::Answer(Box::new(reply))).is_err() {
                tracing::warn!("a long-poll answer is not sent: the worker has no room for mail");
                self.answered(session, request, false);
            }
        }
    }

    /// Answers a request of this worker, if it still waits, and tells the session.
    fn answer(&mut self, scope: &mut Scope<'_>, reply: Reply) {
        let Reply { request, response, session } = reply;
        self.requests.remove(&request);
        let sent = scope.respond(request, response);
        let Some(id) = session.filter(|id| id.worker != self.worker) else {
            return self.answered(session, request, sent);
        };
        if mail_worker(&self.handle, id.worker, Mail::Answered { session: id, request, sent }).is_err() {
            tracing::warn!(sent, "a long-poll session does not learn what became of an answer");
        }
    }

    fn answered(&mut self, session: Option<SessionId>, request: ConnId, sent: bool) {
        if let Some(session) = session.and_then(|id| session_mut(&mut self.sessions, id)) {
            session.answered(request, sent);
        }
    }
}

/// Bytes of a body that is read of a client without a session: what it gets is a word, whatever it sends.
const STRANGER_BYTES: u32 = 4 << 10;
/// What tokens of sessions are signed for.
const PURPOSE: &str = "wingbeat longpoll session";

fn index(id: SessionId) -> usize {
    (id.number & u64::from(u32::MAX)) as usize
}

fn session_mut(sessions: &mut Slab<Session>, id: SessionId) -> Option<&mut Session> {
    sessions.get_mut(index(id)).filter(|session| session.state.id == id)
}

impl Handler for EndpointHandler {
    type State = Live;
    type Mail = Mail;

    fn encoder(&self) -> Option<Box<dyn Encoder>> {
        Some(Box::new((*self.shared.classes).clone()))
    }

    fn mounts(&self, request: &Request<'_>) -> bool {
        self.shared.websocket(request.path()).is_some()
    }

    fn upgrade(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Upgrade<Live> {
        let shared = Arc::clone(&self.shared);
        let Some((mount, vars, options)) = shared.websocket(request.path()) else {
            return Upgrade::Reject(Response::not_found());
        };
        let place = &shared.mounts[usize::from(mount)];
        let admitted = match place.mount.admit(request, vars, shared.origin(mount), Transport::WebSocket) {
            Ok(admitted) => admitted,
            Err(Refusal::Status(status)) => return Upgrade::Reject(Response::text(status, "")),
            Err(Refusal::Response(response)) => return Upgrade::Reject(response),
        };
        let Admitted { serializer, assigns, id, protocol } = admitted;
        let client = place.mount.client(&assigns, id.as_deref());
        let socket = Socket::new(Arc::clone(&place.mount.socket), serializer, assigns, id);
        let mut with =
            Acceptance::new().profile(options.profile()).header("Cache-Control", "max-age=0, private, must-revalidate");
        if let Some(protocol) = &protocol {
            with = with.protocol(protocol);
        }
        let address = conn_address(request.id());
        Upgrade::AcceptWith(Live { socket, mount, address, client }, with)
    }

    fn body_limit(&self, request: &Request<'_>) -> u32 {
        let Some((mount, _)) = self.shared.longpoll(request.path()) else { return request.body_limit() };
        let options = self.shared.longpoll_options(mount);
        match self.session_of(request, mount, options) {
            Some(_) => options.body_bytes,
            None => options.body_bytes.min(STRANGER_BYTES),
        }
    }

    fn request(&mut self, scope: &mut Scope<'_>, request: &Request<'_>) -> Answer {
        match self.shared.longpoll(request.path()) {
            Some((mount, vars)) => self.longpoll(scope, request, mount, vars),
            None => Arc::clone(&self.shared).router.answer(scope, request),
        }
    }

    fn request_gone(&mut self, scope: &mut Scope<'_>, id: ConnId) {
        let Some(session) = self.requests.remove(&id) else { return };
        if session.worker == self.worker {
            self.with_session(scope, session, |session, scope, desk| {
                session.request_gone(scope, desk, id);
                None
            });
        } else if mail_worker(&self.handle, session.worker, Mail::RequestGone(session, id)).is_err() {
            tracing::debug!("a long-poll session learns when it answers that its poll is gone");
        }
    }

    fn open(&mut self, conn: &mut Conn<'_>, live: &mut Live) {
        let Live { socket, mount, .. } = live;
        socket.open(&mut Line { conn, desk: &mut self.desk, mount: *mount });
    }

    fn message(&mut self, conn: &mut Conn<'_>, live: &mut Live, message: Message<'_>) {
        let Live { socket, mount, .. } = live;
        let mut line = Line { conn, desk: &mut self.desk, mount: *mount };
        socket.message(&mut line, message.kind, message.payload);
        self.desk.scratch.shrink();
    }

    fn delivery(&mut self, conn: &mut Conn<'_>, live: &mut Live, topic: &str, message: Message<'_>) {
        let Live { socket, mount, .. } = live;
        let mut line = Line { conn, desk: &mut self.desk, mount: *mount };
        socket.delivery(&mut line, topic, message.kind, message.payload);
    }

    fn mail(&mut self, conn: &mut Conn<'_>, live: &mut Live, mail: Mail) {
        let Live { socket, mount, .. } = live;
        if let Mail::Letter(letter) = mail {
            socket.letter(&mut Line { conn, desk: &mut self.desk, mount: *mount }, letter);
        }
    }

    fn conn_timer(&mut self, conn: &mut Conn<'_>, live: &mut Live, token: u64) {
        let Live { socket, mount, .. } = live;
        if let Some(Whose::Channel(serial, token)) = self.desk.timers.fired(token) {
            socket.timer(&mut Line { conn, desk: &mut self.desk, mount: *mount }, serial, token);
        }
    }

    fn close(&mut self, scope: &mut Scope<'_>, mut live: Live, reason: CloseReason) {
        let why = match reason.cause {
            _ if live.socket.is_disconnected() => Reason::Disconnected,
            CloseCause::Drain => Reason::Draining,
            _ => Reason::Closed,
        };
        let mut gone = Gone { scope, desk: &mut self.desk, address: live.address };
        live.socket.end(&mut gone, &why);
        if let Some(client) = live.client {
            self.shared.mounts[usize::from(live.mount)].mount.disconnected(&client, &why, Transport::WebSocket);
        }
    }

    fn heard(&mut self, scope: &mut Scope<'_>, listener: TopicListenerId, topic: &str, message: Message<'_>) {
        let Some(&id) = self.listeners.get(&listener) else { return };
        self.with_session(scope, id, |session, scope, desk| {
            session.act(scope, desk, |socket, outlet| socket.delivery(outlet, topic, message.kind, message.payload));
            None
        });
    }

    fn worker_mail(&mut self, scope: &mut Scope<'_>, mail: Mail) {
        match mail {
            Mail::Ask(ask) => self.asked(scope, *ask),
            Mail::Session(id, letter) => self.with_session(scope, id, |session, scope, desk| {
                session.act(scope, desk, |socket, outlet| socket.letter(outlet, letter));
                None
            }),
            Mail::Answer(reply) => self.answer(scope, *reply),
            Mail::Answered { session, request, sent } => self.with_session(scope, session, |session, _, _| {
                session.answered(request, sent);
                None
            }),
            Mail::RequestGone(session, request) => self.with_session(scope, session, |session, scope, desk| {
                session.request_gone(scope, desk, request);
                None
            }),
            Mail::Letter(_) => {}
        }
    }

    /// The sessions end; there will be no others.
    fn draining(&mut self, scope: &mut Scope<'_>) {
        self.draining = true;
        let ids: Vec<_> = self.sessions.iter().map(|(_, session)| session.state.id).collect();
        tracing::info!(worker = self.worker, connections = scope.connections(), sessions = ids.len(), "socket_drain");
        for id in ids {
            self.with_session(scope, id, |session, scope, desk| {
                session.end(scope, desk, Reason::Draining);
                None
            });
        }
    }

    fn timer(&mut self, scope: &mut Scope<'_>, token: u64) {
        match self.desk.timers.fired(token) {
            Some(Whose::Clock(id)) => self.with_session(scope, id, Session::clock),
            Some(Whose::Session(id, serial, own)) => self.with_session(scope, id, |session, scope, desk| {
                session.act(scope, desk, |socket, outlet| socket.timer(outlet, serial, own));
                None
            }),
            Some(Whose::Channel(..)) | None => {}
        }
    }
}

impl fmt::Debug for EndpointHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointHandler")
            .field("worker", &self.worker)
            .field("sessions", &self.sessions.len())
            .field("listeners", &self.listeners.len())
            .field("requests", &self.requests.len())
            .field("timers", &self.desk.timers.len())
            .finish_non_exhaustive()
    }
}
