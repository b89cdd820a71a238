//! Plain HTTP on a connection that is no WebSocket (yet): one request after the other, their bodies, answers now and
//! later (RFC 9110, RFC 9112).
//!
//! ```text
//!          head read          body, if any          Handler::request
//!  Idle ─────────────► Head ───────────────► Body ───────────────────► Answering ──► Idle, or the end
//!   ▲                   │ an upgrade: see `opening`                       │ Later: input waits
//!   └───────────────────┴──── Handle::respond, Scope::respond ◄───────────┘
//! ```
//! A request is in work at a time; bytes behind it wait, and are read when its answer is queued: answers leave in the
//! order of the requests.
#![forbid(unsafe_code)]

use super::connection::Phase;
use super::core::Core;
use super::deadlines::ticks;
use super::error::Full;
use super::handler::{ConnId, Handler, Scope};
use super::mail::{Handle, Mail};
use super::request::{Answer, Request, Response};
use super::session::Engine;
use super::table::Table;
use crate::proto::handshake::server::{self, Expectation, Framing};
use crate::proto::http::{BodyError, Chunked};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes made room for when a body begins, however long it says it will be.
const BODY_ROOM: usize = 64 << 10;

/// Where a connection stands between and within plain requests.
#[derive(Debug, Default)]
pub(crate) enum Http {
    /// A request head is awaited, or being read.
    #[default]
    Head,
    /// Kept alive: nothing of another request has come.
    Idle,
    /// A body is being read.
    Body(Box<Upload>),
    /// The handler has the request, or answers it later.
    Answering(Pending),
}

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    /// [`ConnId::request`].
    request: u32,
    keep_alive: bool,
    head_only: bool,
}

/// A body that has not arrived whole.
#[derive(Debug)]
pub(crate) struct Upload {
    head: Vec<u8>,
    body: Vec<u8>,
    limit: usize,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Length(usize),
    Chunked(Chunked),
}

impl Upload {
    fn new(head: &[u8], framing: Framing, limit: u32) -> Result<Self, BodyError> {
        let limit = limit as usize;
        let rest = match framing {
            Framing::Chunked => Rest::Chunked(Chunked::new()),
            Framing::Length(length) if length > limit as u64 => return Err(BodyError::TooLarge),
            Framing::Length(length) => Rest::Length(length as usize),
        };
        let room = match rest {
            Rest::Length(length) => length.min(BODY_ROOM),
            Rest::Chunked(_) => 0,
        };
        Ok(Upload { head: head.to_vec(), body: Vec::with_capacity(room), limit, rest })
    }

    /// Takes what belongs to the body; returns how many bytes that were.
    fn read(&mut self, data: &[u8]) -> Result<usize, BodyError> {
        match &mut self.rest {
            Rest::Chunked(chunked) => chunked.read(data, &mut self.body, self.limit),
            Rest::Length(left) => {
                let take = data.len().min(*left);
                self.body.extend_from_slice(&data[..take]);
                *left -= take;
                Ok(take)
            }
        }
    }

    fn is_done(&self) -> bool {
        match &self.rest {
            Rest::Chunked(chunked) => chunked.is_done(),
            Rest::Length(left) => *left == 0,
        }
    }
}

impl<M: Send + 'static> Handle<M> {
    /// Answers a request that the handler put off with [`Answer::Later`]. Dropped, and counted, if its peer is gone by
    /// then or it was answered already.
    pub fn respond(&self, id: ConnId, response: Response) -> Result<(), Full> {
        let bytes = response.body.len();
        self.ports.post(id.worker.into(), Mail::Respond { id, response: Box::new(response) }, bytes)
    }
}

impl Scope<'_> {
    /// Answers a request of this worker that the handler put off with [`Answer::Later`], or is about to. False if no
    /// request waits under this id: its peer is gone, or it was answered already.
    pub fn respond(&mut self, id: ConnId, response: Response) -> bool {
        self.core.respond(id, &response)
    }
}

impl Core {
    pub(crate) fn respond(&mut self, id: ConnId, response: &Response) -> bool {
        let slot = id.socket.slot;
        let waits = id.worker == self.worker
            && self.table.live(id.socket).is_some()
            && self.table.pending(slot).is_some_and(|pending| pending.request == id.request);
        if waits {
            self.table.answer(slot, response);
            self.table.plan_resume(slot);
        }
        waits
    }
}

impl Table {
    fn pending(&mut self, slot: u32) -> Option<&mut Pending> {
        match self.hot[slot].cold.as_deref_mut() {
            Some(cold) => match &mut cold.http {
                Http::Answering(pending) => Some(pending),
                _ => None,
            },
            None => None,
        }
    }

    /// Whether a connection is kept alive and nothing of another request has come.
    pub(crate) fn is_idle(&self, slot: u32) -> bool {
        self.hot[slot].cold.as_deref().is_some_and(|cold| matches!(cold.http, Http::Idle))
    }

    /// Whether a body is being read.
    pub(crate) fn is_reading_body(&self, slot: u32) -> bool {
        self.hot[slot].cold.as_deref().is_some_and(|cold| matches!(cold.http, Http::Body(_)))
    }

    /// Queues the answer to the request in work; then another is awaited, or the connection ends.
    fn answer(&mut self, slot: u32, response: &Response) {
        let Some(&mut pending) = self.pending(slot) else { return };
        let keep_alive = pending.keep_alive && !self.draining && !response.asks_to_close();
        self.response(slot, response, keep_alive, pending.head_only);
        if !keep_alive {
            self.cold(slot).http = Http::Head;
            return self.finish(slot);
        }
        self.cold(slot).http = Http::Idle;
        let due = ticks(self.config.limits.keep_alive_timeout);
        let (tick, hot) = (self.tick, &mut self.hot[slot]);
        hot.phase = Phase::Opening;
        hot.tick = tick;
        self.arm(slot, tick.wrapping_add(due));
    }

    /// Queues a response: 500 in place of one that cannot be sent.
    pub(crate) fn response(&mut self, slot: u32, response: &Response, keep_alive: bool, head_only: bool) {
        let date = self.date.now();
        let is = |name: &str, known: &str| name.eq_ignore_ascii_case(known);
        let mut headers = Vec::with_capacity(response.headers.len() + 1);
        headers.push(("Date", str::from_utf8(&date).unwrap_or_default()));
        for (name, value) in &response.headers {
            match (&**name, &**value) {
                (name, _) if is(name, "connection") => {} // `write_response` writes it
                (name, value) if is(name, "date") => headers[0].1 = value,
                field => headers.push(field),
            }
        }
        let fields: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let body = if head_only { 0 } else { response.body.len() };
        self.raw(slot, 128 + fields + body, |out| {
            let body = &response.body;
            if let Err(error) = server::write_response(out, response.status, &headers, body, keep_alive, head_only) {
                tracing::error!(%error, "the handler's response cannot be sent");
                let _ = server::write_response(out, 500, &headers[..1], b"", keep_alive, head_only);
            }
        });
    }

    /// Lets leave what is queued, then shuts the sending side.
    pub(crate) fn finish(&mut self, slot: u32) {
        if self.hot[slot].phase < Phase::Finishing {
            self.hot[slot].phase = Phase::Finishing;
            self.start_deadline(slot);
            self.mark_dirty(slot);
            self.plan_resume(slot); // a paused socket would never show the peer's end
        }
    }

    pub(crate) fn start_deadline(&mut self, slot: u32) {
        let due = ticks(self.config.limits.close_timeout);
        self.hot[slot].tick = self.tick;
        self.arm(slot, self.tick.wrapping_add(due));
    }

    /// From now the peer has this time for a head or a body.
    fn start_reading(&mut self, slot: u32, time: Duration) {
        let due = ticks(time);
        self.hot[slot].tick = self.tick;
        self.arm(slot, self.tick.wrapping_add(due));
    }
}

impl<H: Handler> Engine<H> {
    /// Reads requests, one after the other, as long as each can be answered.
    pub(crate) fn requests(&mut self, slot: u32, mut data: &mut [u8]) {
        while !data.is_empty() {
            match self.core.table.hot[slot].phase {
                Phase::Opening => {}
                Phase::Open => return self.frames(slot, data),
                Phase::Deferred | Phase::Answering => return self.core.table.stash(slot, data),
                _ => return,
            }
            if self.core.table.must_wait(slot) {
                return self.core.table.stash(slot, data);
            }
            let Some(used) = self.read_request(slot, data) else { return self.core.table.stash(slot, data) };
            data = &mut data[used..];
        }
    }

    /// Returns how many bytes were used, or none if a head is incomplete.
    fn read_request(&mut self, slot: u32, data: &[u8]) -> Option<usize> {
        match std::mem::take(&mut self.core.table.cold(slot).http) {
            Http::Head | Http::Answering(_) => {}
            Http::Body(upload) => return Some(self.read_body(slot, upload, data)),
            Http::Idle => {
                // RFC 9112 §2.2: an empty line in front of a request is no request.
                let empty = 2 * data.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
                if empty > 0 {
                    self.core.table.cold(slot).http = Http::Idle;
                    return Some(empty);
                }
                self.core.table.start_reading(slot, self.core.table.config.limits.handshake_timeout);
            }
        }
        let limits = self.core.table.config.limits.request();
        match server::parse(data, &limits) {
            Ok(server::Parsed::NeedMore) => None,
            Ok(server::Parsed::Request(head)) => Some(self.dispatch(slot, data, &head)),
            Err(error) => {
                self.refuse(slot, error);
                Some(data.len())
            }
        }
    }

    fn dispatch(&mut self, slot: u32, data: &[u8], head: &server::Request<'_>) -> usize {
        let upgrade = server::upgrade(head);
        let request = self.request_of(slot, head, upgrade.as_ref().ok().and_then(Option::as_ref));
        let mounted = self.ask(|handler, _| handler.mounts(&request));
        match (mounted, &upgrade) {
            (Some(true), _) => self.upgrade(slot, &data[..head.head_len()], head, &upgrade),
            (Some(false), Err(error)) => self.refuse(slot, *error),
            (Some(false), Ok(_)) => return self.begin(slot, data, head),
            (None, _) => self.respond(slot, &Response::new(500), false),
        }
        head.head_len()
    }

    pub(crate) fn request_of<'a>(
        &self,
        slot: u32,
        head: &'a server::Request<'a>,
        upgrade: Option<&'a server::UpgradeRequest<'a>>,
    ) -> Request<'a> {
        let peer = self.core.table.hot[slot].cold.as_deref().and_then(|cold| cold.peer);
        let body_limit = self.core.table.config.limits.body_bytes;
        Request { head, upgrade, peer, id: self.core.conn_id(slot), body: &[], body_limit }
    }

    /// A plain request: its body first. Returns how many bytes were used.
    fn begin(&mut self, slot: u32, data: &[u8], head: &server::Request<'_>) -> usize {
        let (head_len, framing) = (head.head_len(), head.framing());
        let rest = &data[head_len..];
        if head.expectation() == Expectation::Unknown {
            self.core.table.counters.bad_requests += 1;
            self.respond(slot, &Response::new(417), head.method() == "HEAD");
            return data.len();
        }
        if framing == Framing::Length(0) {
            self.plain(slot, head, &[]);
            return head_len;
        }
        let request = self.request_of(slot, head, None);
        let limit = self.ask(|handler, _| handler.body_limit(&request));
        let Some(limit) = limit else {
            self.respond(slot, &Response::new(500), false);
            return data.len();
        };
        if let Framing::Length(length @ 1..) = framing
            && length <= u64::from(limit)
            && length <= rest.len() as u64
        {
            let length = length as usize; // it is all there: no copy
            self.plain(slot, head, &rest[..length]);
            return head_len + length;
        }
        match Upload::new(&data[..head_len], framing, limit) {
            Ok(upload) => {
                let table = &mut self.core.table;
                table.cold(slot).http = Http::Body(Box::new(upload));
                table.start_reading(slot, table.config.limits.body_timeout);
                if head.expectation() == Expectation::Continue && rest.is_empty() {
                    table.raw(slot, 32, server::write_continue);
                }
                head_len
            }
            Err(error) => {
                self.refuse_body(slot, error);
                data.len()
            }
        }
    }

    fn read_body(&mut self, slot: u32, mut upload: Box<Upload>, data: &[u8]) -> usize {
        let used = match upload.read(data) {
            Ok(used) => used,
            Err(error) => {
                self.refuse_body(slot, error);
                return data.len();
            }
        };
        self.core.table.counters.copied_bytes += used as u64;
        if !upload.is_done() {
            self.core.table.cold(slot).http = Http::Body(upload);
            return used;
        }
        let limits = self.core.table.config.limits.request();
        if let Ok(server::Parsed::Request(head)) = server::parse(&upload.head, &limits) {
            self.plain(slot, &head, &upload.body);
        }
        used
    }

    fn refuse_body(&mut self, slot: u32, error: BodyError) {
        self.core.table.counters.bad_requests += 1;
        self.respond(slot, &Response::text(error.status(), format!("{error}\n")), false);
    }

    /// A whole request: the handler's.
    fn plain(&mut self, slot: u32, head: &server::Request<'_>, body: &[u8]) {
        let mut request = Request { body, ..self.request_of(slot, head, None) };
        let table = &mut self.core.table;
        table.counters.requests += 1;
        request.id.request = (table.counters.requests as u32).max(1);
        // What stands behind a handshake that is answered as plain HTTP may be frames: it is not read as a request.
        let upgrades = matches!(server::upgrade(head), Ok(Some(_)));
        let keep_alive = head.wants_keep_alive() && !upgrades && !table.config.limits.keep_alive_timeout.is_zero();
        let pending = Pending { request: request.id.request, keep_alive, head_only: head.method() == "HEAD" };
        table.cold(slot).http = Http::Answering(pending);
        table.hot[slot].phase = Phase::Answering;
        match self.ask(|handler, scope| handler.request(scope, &request)) {
            Some(Answer::Now(response)) => self.core.table.answer(slot, &response),
            Some(Answer::Later) => self.await_answer(slot),
            None => {
                if let Some(pending) = self.core.table.pending(slot) {
                    pending.keep_alive = false;
                }
                self.core.table.answer(slot, &Response::new(500));
            }
        }
    }

    fn await_answer(&mut self, slot: u32) {
        let due = ticks(self.core.table.config.limits.answer_timeout);
        let table = &mut self.core.table;
        if table.pending(slot).is_none() {
            return; // answered in the callback
        }
        table.hot[slot].tick = table.tick;
        table.arm(slot, table.tick.wrapping_add(due));
        table.pauses.push(table.id(slot));
    }

    /// The time for the answer is over.
    pub(crate) fn answer_timed_out(&mut self, slot: u32) {
        let Some(&mut pending) = self.core.table.pending(slot) else { return };
        self.core.table.response(slot, &Response::text(503, "no answer in time\n"), false, pending.head_only);
        self.abandon(slot);
        self.finish(slot);
    }

    /// Tells the handler that an answer will find nobody; nothing if none is awaited.
    pub(crate) fn abandon(&mut self, slot: u32) {
        let Some(&mut pending) = self.core.table.pending(slot) else { return };
        self.core.table.cold(slot).http = Http::Head;
        let id = ConnId { request: pending.request, ..self.core.conn_id(slot) };
        self.ask(|handler, scope| handler.request_gone(scope, id));
    }

    /// The peer sends no more, and what it sent before is read: its answers leave, then the connection ends.
    pub(crate) fn requests_end(&mut self, slot: u32) {
        self.abandon(slot);
        self.finish(slot);
    }
}

/// The field `Date` (RFC 9110 §6.6.1), written once a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HttpDate {
    second: u64,
    text: [u8; 29],
}

impl HttpDate {
    fn now(&mut self) -> [u8; 29] {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second || self.text[0] == 0 {
            *self = HttpDate { second, text: imf_fixdate(second) };
        }
        self.text
    }
}

/// Seconds since 1970 as an IMF-fixdate (RFC 9110 §5.6.7), for years of four digits.
fn imf_fixdate(second: u64) -> [u8; 29] {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (second / 86_400, second % 86_400);
    // Years are counted from March, so that the day that comes and goes is the last of a year.
    let shifted = days + 719_468;
    let era_day = shifted % 146_097;
    let era_year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let march_month = (5 * year_day + 2) / 153;
    let day = year_day - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = shifted / 146_097 * 400 + era_year + u64::from(month < 2);
    let text = format!(
        "{}, {day:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[days as usize % 7],
        MONTHS[month as usize],
        year % 10_000,
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    text.as_bytes().try_into().unwrap_or([b'?'; 29])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (second, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
        ] {
            assert_eq!(str::from_utf8(&imf_fixdate(second)), Ok(text));
        }
    }
}
