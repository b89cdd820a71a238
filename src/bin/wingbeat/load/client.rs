//! The connections of one load thread: how they are made and counted. What they do is a [`Workload`].
#![forbid(unsafe_code)]

use super::plan::Plan;
use super::shared::{Clock, Shared, Times};
use super::stats::{ErrorKind, Recorder};
use crate::args::Mode;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wingbeat::engine::{ClientResponse, Target};
use wingbeat::proto::handshake::HandshakeError;
use wingbeat::{
    CloseCause, CloseReason, Conn, ConnId, ConnectError, Handle, Handler, Message, Request, Response, Scope, Upgrade,
};

/// Closing handshakes of one thread that are under way at once: few enough that each ends within its time.
const CLOSING_MAX: u32 = 256;
/// Messages after which the clock is read again within a turn.
const MESSAGES_PER_READING: u8 = 16;

/// Tells a publisher that all subscribers got its burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GoOn;

/// What connections do once they stand. Connections of a thread are numbered from 0.
pub(crate) trait Workload: 'static {
    /// A connection is open.
    fn open(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        let _ = (base, conn, index);
    }
    /// Whether a connection that is open stands. If not yet, the workload calls [`Base::stand`] or [`Base::give_up`].
    fn stands(&self, index: u32) -> bool {
        let _ = index;
        true
    }
    /// All stand: the first messages.
    fn begin(&mut self, base: &mut Base, scope: &mut Scope<'_>, times: &Times);
    /// A message came in.
    fn message(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, message: Message<'_>);
    /// Another thread says that a publisher of this one may go on.
    fn go_on(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        let _ = (base, conn, index);
    }
    /// A turn is over, at `now`: what is due.
    fn turn(&mut self, base: &mut Base, scope: &mut Scope<'_>, now: u64) {
        let _ = (base, scope, now);
    }
    /// When `turn` has something to do again, if the clock decides that.
    fn next_at(&self) -> Option<u64> {
        None
    }
    /// A connection could not be made.
    fn refused(&mut self, base: &mut Base, scope: &mut Scope<'_>, index: u32) {
        let _ = (base, scope, index);
    }
    /// A timer of a connection is due.
    fn conn_timer(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32, token: u64) {
        let _ = (base, conn, index, token);
    }
    /// A timer of this workload is due.
    fn timer(&mut self, base: &mut Base, scope: &mut Scope<'_>, index: u32) {
        let _ = (base, scope, index);
    }
    /// A connection is over.
    fn closed(&mut self, base: &mut Base, scope: &mut Scope<'_>, index: u32) {
        let _ = (base, scope, index);
    }
    /// Nothing is to be sent any more.
    fn stop(&mut self, base: &mut Base) {
        let _ = base;
    }
    /// Whether all that was sent has arrived.
    fn is_settled(&self, base: &Base) -> bool {
        let _ = base;
        true
    }
    /// Counts what did not arrive.
    fn conclude(&mut self, base: &mut Base) {
        let _ = base;
    }
}

/// What all workloads have.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) plan: Arc<Plan>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) recorder: Recorder,
    pub(crate) clock: MessageClock,
    pub(crate) handle: Handle<GoOn>,
    /// Which of the threads this is.
    pub(crate) thread: u32,
    /// Connections that stand, by their index.
    pub(crate) links: Vec<Option<ConnId>>,
    /// Counts callbacks and sends: tells a turn that did something from one that did not.
    pub(crate) activity: u64,
    targets: Targets,
    next: u32,
    connecting: u32,
    /// How many may be, at once.
    connecting_max: u32,
    /// Connections below this index have been told that it is over.
    told: u32,
    is_over: bool,
    /// The window is known: what comes in is measured.
    is_measured: bool,
}

/// Where connections go: one entry per source address.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    /// Of the connections that `-c` counts.
    pub(crate) connections: Vec<Arc<Target>>,
    /// Of subscribers.
    pub(crate) subscribers: Vec<Arc<Target>>,
}

/// The clock as it is read while messages come in: once per turn, and again after every few messages.
#[derive(Debug)]
pub(crate) struct MessageClock {
    clock: Clock,
    reading: u64,
    left: u8,
}

impl MessageClock {
    /// The time, for a message.
    #[inline]
    fn of_message(&mut self) -> u64 {
        if self.left == 0 {
            self.reading = self.clock.now();
            self.left = MESSAGES_PER_READING;
        }
        self.left -= 1;
        self.reading
    }

    /// The time now.
    fn read(&mut self) -> u64 {
        self.left = 0;
        self.clock.now()
    }
}

impl Base {
    pub(crate) fn new(
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        thread: u32,
        targets: Targets,
        handle: Handle<GoOn>,
    ) -> Base {
        let links = vec![None; plan.share(plan.total(), thread) as usize];
        // In connect the workload makes the connections itself.
        let next = if plan.mode == Mode::Connect { links.len() as u32 } else { 0 };
        Base {
            recorder: Recorder::new(Arc::clone(&shared.live[thread as usize])),
            clock: MessageClock { clock: shared.clock, reading: 0, left: 0 },
            connecting_max: plan.connecting_max(),
            plan,
            shared,
            handle,
            thread,
            links,
            activity: 0,
            targets,
            next,
            connecting: 0,
            told: 0,
            is_over: false,
            is_measured: false,
        }
    }

    /// Measures from now on, if the run has begun. Messages of another thread may come in before this one has looked.
    fn measure(&mut self) {
        if let Some(times) = self.shared.times().filter(|_| !self.is_measured) {
            self.recorder.open(times.window, times.slice);
            self.is_measured = true;
        }
    }

    /// The number of a connection among those of all threads: publishers come before subscribers.
    pub(crate) fn number(&self, index: u32) -> u32 {
        index * self.plan.threads + self.thread
    }

    /// The time for a message that came in; up to 15 messages old.
    #[inline]
    pub(crate) fn message_time(&mut self) -> u64 {
        self.clock.of_message()
    }

    /// The time now.
    pub(crate) fn now(&mut self) -> u64 {
        self.clock.read()
    }

    /// Whether nothing is to be sent any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// A connection that stands.
    pub(crate) fn conn<'a>(&self, scope: &'a mut Scope<'_>, index: u32) -> Option<Conn<'a>> {
        scope.conn(self.links[index as usize]?)
    }

    /// Counts a connection that stands now, and makes more.
    pub(crate) fn stand(&mut self, scope: &mut Scope<'_>) {
        let now = self.now();
        self.shared.count_connected(now);
        self.make_next(scope);
    }

    /// Counts a connection that is of no use (any more), and closes it. `stood` says whether it ever was.
    pub(crate) fn give_up(&mut self, conn: &mut Conn<'_>, index: u32, stood: bool, why: ErrorKind) {
        if !self.is_over {
            self.count_failed(&mut conn.scope(), stood, why);
        }
        self.links[index as usize] = None;
        conn.close(wingbeat::CloseCode::NORMAL, "");
    }

    fn count_failed(&mut self, scope: &mut Scope<'_>, stood: bool, why: ErrorKind) {
        self.recorder.error(why);
        let count = if stood { &self.shared.dropped } else { &self.shared.failed };
        count.fetch_add(1, Ordering::Relaxed);
        if !stood {
            self.make_next(scope);
        }
    }

    /// One connection is no longer being made: another may be.
    fn make_next(&mut self, scope: &mut Scope<'_>) {
        self.connecting = self.connecting.saturating_sub(1);
        self.dial_more(scope);
    }

    /// Makes a connection.
    pub(crate) fn dial(&self, scope: &mut Scope<'_>, index: u32) {
        let number = self.number(index);
        let targets =
            if number < self.plan.connections { &self.targets.connections } else { &self.targets.subscribers };
        scope.connect(&targets[number as usize % targets.len()], index.into());
    }

    /// Makes more connections, as many at once as is polite.
    fn dial_more(&mut self, scope: &mut Scope<'_>) {
        while self.connecting < self.connecting_max && (self.next as usize) < self.links.len() && !self.is_over {
            self.dial(scope, self.next);
            self.next += 1;
            self.connecting += 1;
        }
    }
}

/// The handler of a load thread.
#[derive(Debug)]
pub(crate) struct Client<W> {
    pub(crate) base: Base,
    pub(crate) workload: W,
}

impl<W: Workload> Client<W> {
    /// Begins to make the connections.
    pub(crate) fn connect(&mut self, scope: &mut Scope<'_>) {
        self.base.dial_more(scope);
    }

    /// Lets the workload begin.
    pub(crate) fn begin(&mut self, scope: &mut Scope<'_>, times: &Times) {
        self.base.measure();
        self.workload.begin(&mut self.base, scope, times);
    }

    /// After each turn of the run.
    pub(crate) fn turn(&mut self, scope: &mut Scope<'_>, now: u64) {
        self.base.clock.left = 0;
        self.workload.turn(&mut self.base, scope, now);
        self.base.recorder.tick(now);
    }

    /// Lets the workload end.
    pub(crate) fn stop(&mut self, end: u64) {
        self.base.is_over = true;
        self.base.recorder.cut(end);
        self.workload.stop(&mut self.base);
        self.base.shared.stopped.fetch_add(1, Ordering::Release);
    }

    /// Counts what is missing.
    pub(crate) fn conclude(&mut self) {
        self.workload.conclude(&mut self.base);
    }

    /// Starts closing handshakes, as long as few are under way, of the `sockets` that there are.
    pub(crate) fn say_goodbye(&mut self, scope: &mut Scope<'_>, sockets: u32) {
        let base = &mut self.base;
        let count = base.links.len() as u32;
        let untold = base.links[base.told as usize..].iter().flatten().count() as u32;
        let mut under_way = sockets.saturating_sub(untold);
        while base.told < count && under_way < CLOSING_MAX {
            if let Some(mut conn) = base.conn(scope, base.told) {
                conn.close(wingbeat::CloseCode::NORMAL, "");
                under_way += 1;
            }
            base.told += 1;
        }
    }
}

impl<W: Workload> Handler for Client<W> {
    type State = u32;
    type Mail = GoOn;

    /// This side never listens.
    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<u32> {
        Upgrade::Reject(Response::not_found())
    }

    fn connected(&mut self, _: &mut Scope<'_>, id: ConnId, token: u64, _: &ClientResponse<'_>) -> Upgrade<u32> {
        let index = token as u32;
        self.base.links[index as usize] = Some(id);
        Upgrade::Accept(index)
    }

    fn open(&mut self, conn: &mut Conn<'_>, index: &mut u32) {
        self.base.activity += 1;
        self.workload.open(&mut self.base, conn, *index);
        if self.workload.stands(*index) {
            self.base.stand(&mut conn.scope());
        }
    }

    fn connect_failed(&mut self, scope: &mut Scope<'_>, token: u64, error: ConnectError) {
        self.base.activity += 1;
        if !self.base.is_over {
            self.base.count_failed(scope, false, connect_error(error));
        }
        self.workload.refused(&mut self.base, scope, token as u32);
    }

    fn message(&mut self, conn: &mut Conn<'_>, index: &mut u32, message: Message<'_>) {
        self.base.activity += 1;
        if !self.base.is_measured {
            self.base.measure();
        }
        self.workload.message(&mut self.base, conn, *index, message);
    }

    fn mail(&mut self, conn: &mut Conn<'_>, index: &mut u32, _: GoOn) {
        self.base.activity += 1;
        self.workload.go_on(&mut self.base, conn, *index);
    }

    fn conn_timer(&mut self, conn: &mut Conn<'_>, index: &mut u32, token: u64) {
        self.base.activity += 1;
        self.workload.conn_timer(&mut self.base, conn, *index, token);
    }

    fn timer(&mut self, scope: &mut Scope<'_>, token: u64) {
        self.base.activity += 1;
        self.workload.timer(&mut self.base, scope, token as u32);
    }

    fn close(&mut self, scope: &mut Scope<'_>, index: u32, reason: CloseReason) {
        self.base.activity += 1;
        self.base.links[index as usize] = None;
        if !self.base.is_over && reason.cause != CloseCause::Local {
            let stood = self.workload.stands(index);
            self.base.count_failed(scope, stood, close_error(reason));
        }
        self.workload.closed(&mut self.base, scope, index);
    }
}

fn connect_error(error: ConnectError) -> ErrorKind {
    match error {
        ConnectError::Io(io::ErrorKind::ConnectionRefused) => ErrorKind::ConnectRefused,
        ConnectError::Io(io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse) => ErrorKind::ConnectNoAddress,
        ConnectError::Descriptors => ErrorKind::ConnectNoDescriptor,
        ConnectError::Memory | ConnectError::Io(io::ErrorKind::OutOfMemory) => ErrorKind::ConnectNoMemory,
        ConnectError::Io(io::ErrorKind::TimedOut) => ErrorKind::ConnectTimeout,
        ConnectError::Handshake(HandshakeError::Refused(status)) => ErrorKind::HandshakeStatus(status),
        ConnectError::Handshake(_) => ErrorKind::HandshakeInvalid,
        ConnectError::Timeout => ErrorKind::HandshakeTimeout,
        ConnectError::Closed => ErrorKind::HandshakeClosed,
        _ => ErrorKind::ConnectFailed,
    }
}

fn close_error(reason: CloseReason) -> ErrorKind {
    match reason.cause {
        CloseCause::Protocol(_) => ErrorKind::ProtocolError,
        CloseCause::Peer => ErrorKind::Closed(reason.code),
        _ => ErrorKind::ConnectionLost,
    }
}
