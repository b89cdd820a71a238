//! The opening handshake, both roles, and plain HTTP: until frames flow.
#![forbid(unsafe_code)]

use super::admission::Admitted;
use super::connection::{Deferred, Outgoing, Phase, flag};
use super::core::Dial;
use super::error::{CloseReason, ConnectError};
use super::handler::{Acceptance, Handler, Upgrade};
use super::http::Http;
use super::request::Response;
use super::session::Engine;
use crate::driver::SocketId;
use crate::proto::handshake::{HandshakeError, client, server};
use crate::proto::{Reader, Role};
use std::net::IpAddr;

/// Refused connections that are told so at a time; those beyond are closed without a word, so that a herd at the limit
/// does not take the descriptors that the limit is to keep free.
const REFUSED: u32 = 1024;

impl<H: Handler> Engine<H> {
    pub(crate) fn accepted(&mut self, id: SocketId, peer: Option<IpAddr>) {
        self.occupy(id, Phase::Opening, 0);
        let table = &mut self.core.table;
        table.counters.accepted += 1;
        match self.admission.enter(peer) {
            Admitted::Yes(address) => {
                let hot = &mut table.hot[id.slot];
                hot.flags |= flag::ADMITTED;
                if let Some(address) = address {
                    hot.address = address;
                }
                table.cold(id.slot).peer = peer;
                if self.drain.is_some() {
                    self.respond(id.slot, &Response::text(503, "the server is going away\n"), false);
                }
            }
            Admitted::No => {
                table.counters.refused += 1;
                self.refused += 1;
                if self.refused > REFUSED {
                    return self.core.table.force(id.slot);
                }
                self.respond(id.slot, &Response::text(503, "too many connections\n"), false);
            }
        }
    }

    pub(crate) fn connected(&mut self, id: SocketId) {
        let Some(hot) = self.core.table.live(id) else { return };
        let Some(outgoing) = hot.cold.as_deref().and_then(|cold| cold.outgoing.as_ref()) else { return };
        let mut request = std::mem::take(&mut self.scratch);
        request.clear();
        outgoing.target.head.write(&mut request, &outgoing.nonce);
        hot.phase = Phase::Opening;
        self.core.table.raw(id.slot, 512, |out| out.extend_from_slice(&request));
        self.scratch = request;
    }

    /// Puts an outgoing connection into the slot that the driver gave it.
    pub(crate) fn dialled(&mut self, id: SocketId, dial: Dial) {
        self.occupy(id, Phase::Connecting, flag::CLIENT);
        let outgoing = Outgoing {
            nonce: self.core.table.random.take(),
            target: dial.target,
            token: dial.token,
            attempt: dial.attempt,
            opened: None,
        };
        self.core.table.cold(id.slot).outgoing = Some(outgoing);
    }

    /// Bytes for a connection whose head is not complete.
    pub(crate) fn opening(&mut self, slot: u32, data: &mut [u8]) {
        if self.core.table.hot[slot].has(flag::HELD) {
            return self.core.table.stash(slot, data);
        }
        let Some(mut buffer) = self.core.table.unstash(slot) else { return self.read_head(slot, data) };
        let limit = self.core.table.config.limits.request_bytes as usize;
        // A head comes to an end only with a line feed: no need to look again before one came.
        let worth_a_look = data.contains(&b'\n') || buffer.len() + data.len() > limit;
        buffer.extend_from_slice(data);
        self.core.table.counters.copied_bytes += data.len() as u64;
        if worth_a_look {
            self.read_head(slot, &mut buffer);
            self.core.table.spill.give(buffer);
        } else {
            self.core.table.cold(slot).input = buffer;
        }
    }

    fn read_head(&mut self, slot: u32, data: &mut [u8]) {
        if !self.core.table.hot[slot].has(flag::CLIENT) {
            return self.requests(slot, data);
        }
        let Some(used) = self.read_response(slot, data) else { return self.core.table.stash(slot, data) };
        if self.core.table.hot[slot].phase == Phase::Open && used < data.len() {
            self.frames(slot, &mut data[used..]);
        }
    }

    // ---- server ---------------------------------------------------------------------------------------------

    pub(crate) fn upgrade(&mut self, slot: u32, bytes: &[u8], head: &server::Request<'_>, upgrade: &Judged<'_>) {
        if self.drain.is_some() {
            return self.respond(slot, &Response::text(503, "the server is going away\n"), false);
        }
        let request = self.request_of(slot, head, upgrade.as_ref().ok().and_then(Option::as_ref));
        let verdict = self.ask(|handler, scope| handler.upgrade(scope, &request));
        if let Some(Upgrade::Later) = verdict {
            let table = &mut self.core.table;
            table.hot[slot].phase = Phase::Deferred;
            table.cold(slot).deferred = Some(Deferred { head: bytes.to_vec() });
            return table.pauses.push(table.id(slot));
        }
        self.decide(slot, verdict, head, upgrade);
    }

    fn decide(
        &mut self,
        slot: u32,
        verdict: Option<Upgrade<H::State>>,
        head: &server::Request<'_>,
        upgrade: &Judged<'_>,
    ) {
        let (state, with) = match verdict {
            Some(Upgrade::Accept(state)) => (state, Acceptance::default()),
            Some(Upgrade::AcceptWith(state, with)) => (state, with),
            Some(Upgrade::Reject(response)) => return self.respond(slot, &response, head.method() == "HEAD"),
            Some(Upgrade::Later) => return self.respond(slot, &Response::new(503), false), // put off twice
            None => return self.respond(slot, &Response::new(500), false),
        };
        match upgrade {
            Ok(Some(upgrade)) => self.accept(slot, state, &with, upgrade),
            invalid => {
                drop(state);
                self.core.table.counters.bad_requests += 1;
                let text = what_it_lacks(head, invalid.as_ref().err().copied());
                self.respond(slot, &Response::text(400, text), head.method() == "HEAD");
            }
        }
    }

    fn accept(&mut self, slot: u32, state: H::State, with: &Acceptance, upgrade: &server::UpgradeRequest<'_>) {
        let mut answer = std::mem::take(&mut self.scratch);
        answer.clear();
        let extra: Vec<(&str, &str)> = with.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        match server::write_accept(&mut answer, upgrade, with.protocol.as_deref(), &extra) {
            Ok(()) => {
                self.core.table.raw(slot, 512, |out| out.extend_from_slice(&answer));
                self.core.table.set_profile(slot, with.profile);
                self.open(slot, state, Role::Server);
            }
            Err(error) => {
                tracing::error!(%error, "the handler's answer to an opening handshake cannot be sent");
                drop(state);
                self.respond(slot, &Response::new(500), false);
            }
        }
        self.scratch = answer;
    }

    fn open(&mut self, slot: u32, state: H::State, role: Role) {
        let idle = self.ticks(self.core.table.profile(slot).first_deadline());
        let table = &mut self.core.table;
        table.counters.opened += 1;
        table.open += 1;
        let (tick, hot) = (table.tick, &mut table.hot[slot]);
        hot.phase = Phase::Open;
        hot.flags |= flag::COUNTED_OPEN;
        hot.tick = tick;
        hot.reader = Reader::new(role);
        if let Some(cold) = self.core.table.hot[slot].cold.as_deref_mut() {
            cold.http = Http::Head;
        }
        self.core.table.shed_cold(slot);
        self.watch(slot, tick.wrapping_add(idle));
        self.states[slot] = Some(state);
        self.call(slot, |handler, conn, state| handler.open(conn, state));
    }

    /// The handler's late answer.
    pub(crate) fn answer_deferred(&mut self, id: SocketId, mail: H::Mail) {
        let deferred = self.core.table.live(id).filter(|hot| hot.phase == Phase::Deferred);
        let Some(deferred) = deferred.and_then(|hot| hot.cold.as_deref_mut()?.deferred.take()) else {
            self.core.table.counters.mail_stale += 1;
            return;
        };
        let limits = self.core.table.config.limits.request();
        let Ok(server::Parsed::Request(head)) = server::parse(&deferred.head, &limits) else { return };
        let upgrade = server::upgrade(&head);
        let conn = self.core.conn_id(id.slot);
        let verdict = self.ask(|handler, scope| handler.upgrade_later(scope, conn, mail));
        self.decide(id.slot, verdict, &head, &upgrade);
        self.core.table.plan_resume(id.slot);
    }

    /// An invalid handshake: the status that says why, then the end.
    pub(crate) fn refuse(&mut self, slot: u32, error: HandshakeError) {
        self.core.table.counters.bad_requests += 1;
        let mut answer = std::mem::take(&mut self.scratch);
        answer.clear();
        server::write_error(&mut answer, error);
        self.core.table.raw(slot, 512, |out| out.extend_from_slice(&answer));
        self.scratch = answer;
        self.finish(slot);
    }

    /// Answers with a response, then ends the connection.
    pub(crate) fn respond(&mut self, slot: u32, response: &Response, head_only: bool) {
        self.core.table.response(slot, response, false, head_only);
        self.finish(slot);
    }

    // ---- client ---------------------------------------------------------------------------------------------

    fn read_response(&mut self, slot: u32, data: &[u8]) -> Option<usize> {
        let limits = self.core.table.config.limits.request();
        let outgoing = self.core.table.hot[slot].cold.as_deref().and_then(|cold| cold.outgoing.as_ref())?;
        let (token, target) = (outgoing.token, outgoing.target.clone());
        let response = match client::parse_response(data, &target.head, &outgoing.nonce, &limits) {
            Ok(None) => return None,
            Ok(Some(response)) => response,
            Err(error) => {
                self.connect_failed(slot, ConnectError::Handshake(error));
                self.core.table.force(slot);
                return Some(data.len());
            }
        };
        let id = self.core.conn_id(slot);
        let answer = ClientResponse { response: &response, head: &target.head };
        match self.ask(|handler, scope| handler.connected(scope, id, token, &answer)) {
            Some(Upgrade::Accept(state) | Upgrade::AcceptWith(state, _)) => {
                let (now, cold) = (self.core.table.now, self.core.table.cold(slot));
                match &mut cold.outgoing {
                    Some(outgoing) if target.reconnect.is_some() => outgoing.opened = Some(now),
                    outgoing => *outgoing = None,
                }
                self.open(slot, state, Role::Client);
            }
            _ => {
                self.core.table.cold(slot).outgoing = None; // the handler does not want it
                self.ask(|handler, scope| handler.connect_failed(scope, token, ConnectError::Declined));
                self.core.table.force(slot);
            }
        }
        Some(response.head_len())
    }

    /// Tells the handler, and plans the next try; nothing for a connection that is not outgoing or was open.
    pub(crate) fn connect_failed(&mut self, slot: u32, error: ConnectError) {
        let hot = &self.core.table.hot[slot];
        if hot.phase > Phase::Opening || !hot.has(flag::CLIENT) {
            return;
        }
        let Some(dial) = self.take_dial(slot) else { return };
        self.dial_failed(dial, error);
    }

    pub(crate) fn dial_failed(&mut self, dial: Dial, error: ConnectError) {
        let token = dial.token;
        self.redial(dial);
        self.ask(|handler, scope| handler.connect_failed(scope, token, error));
    }

    /// Plans the next try, unless the worker is about to end.
    pub(crate) fn redial(&mut self, dial: Dial) {
        if self.drain.is_none() {
            self.core.reconnect(dial);
        }
    }

    /// What an outgoing connection belongs to, taken so that it is acted on once.
    pub(crate) fn take_dial(&mut self, slot: u32) -> Option<Dial> {
        let outgoing = self.core.table.hot[slot].cold.as_deref_mut()?.outgoing.take()?;
        let Outgoing { target, token, attempt, opened, .. } = outgoing;
        let stood = opened.map(|opened| self.core.table.now.saturating_duration_since(opened));
        let fresh = stood.zip(target.reconnect).is_some_and(|(stood, reconnect)| stood >= reconnect.max);
        Some(Dial { target, token, attempt: if fresh { 0 } else { attempt } })
    }

    /// An opening handshake that took too long.
    pub(crate) fn opening_timed_out(&mut self, slot: u32) {
        self.core.table.counters.handshake_timeouts += 1;
        if self.core.table.hot[slot].has(flag::CLIENT) {
            self.connect_failed(slot, ConnectError::Timeout);
            self.core.table.force(slot);
            self.end(slot, CloseReason::LOST);
        } else {
            self.respond(slot, &Response::text(408, "no complete request in time\n"), false);
        }
    }
}

/// A request as [`server::upgrade`] judges it.
pub(crate) type Judged<'a> = Result<Option<server::UpgradeRequest<'a>>, HandshakeError>;

/// Says to the developer of a client what a request lacks that was admitted as an opening handshake, in the manner of
/// those servers that look at it this late.
fn what_it_lacks(head: &server::Request<'_>, error: Option<HandshakeError>) -> String {
    let got = |name: &str| {
        let values: Vec<_> = head.header_values(name).map(|value| format!("\"{}\"", value.escape_ascii())).collect();
        format!("got [{}]", values.join(", "))
    };
    let lists = |name: &str, token: &str| {
        let mut elements = head.header_values(name).flat_map(|value| value.split(|byte| *byte == b','));
        elements.any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    };
    match () {
        () if head.method() != "GET" => format!("HTTP method {} unsupported\n", head.method()),
        () if head.header("host").is_none_or(<[u8]>::is_empty) => "'host' header is absent\n".into(),
        () if !lists("connection", "upgrade") => {
            format!("'connection' header must contain 'upgrade', {}\n", got("connection"))
        }
        () if !lists("upgrade", "websocket") => {
            format!("'upgrade' header must contain 'websocket', {}\n", got("upgrade"))
        }
        () if head.header("sec-websocket-key").is_none() => "'sec-websocket-key' header is absent\n".into(),
        () if head.header("sec-websocket-version") != Some(b"13") => {
            format!("'sec-websocket-version' header must equal '13', {}\n", got("sec-websocket-version"))
        }
        () => format!("{}\n", error.map_or("not an opening handshake", HandshakeError::body)),
    }
}

/// A valid answer to an opening handshake of ours.
#[derive(Clone, Copy, Debug)]
pub struct ClientResponse<'a> {
    response: &'a client::Response,
    head: &'a client::RequestHead,
}

impl<'a> ClientResponse<'a> {
    /// The subprotocol that the server chose of those offered.
    pub fn protocol(&self) -> Option<&'a str> {
        self.response.protocol(self.head)
    }
}
