//! Errors of the engine: small, `Copy`, each with its consequence.
#![forbid(unsafe_code)]

use crate::proto::{CloseCode, ProtoError, handshake::HandshakeError};
use rustix::io::Errno;
use std::{error::Error, fmt, io};

/// What became of a message handed to a connection. May be ignored: the policy decides then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendStatus {
    /// It waits in the outbox and leaves at the end of the turn.
    Queued,
    /// As `Queued`, and more than the high watermark waits: hold back until `writable`.
    High,
    /// The connection is closing; the message was counted as undelivered.
    Closing,
}

/// Why a mail was not taken: the worker's lane and its overflow are full. Retry makes sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the worker's mailbox is full")
    }
}

impl Error for Full {}

/// Why there is no further listener: the worker has [`Limits::listeners`](super::Limits::listeners) already. A retry makes
/// sense after one was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyListeners;

impl fmt::Display for TooManyListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the worker has too many listeners")
    }
}

impl Error for TooManyListeners {}

/// What a publish reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Published {
    /// Subscribers on this worker, the excepted one included; 0 when published from outside.
    pub local: u32,
    /// Other workers that were told.
    pub workers: u32,
    /// Workers whose mailbox was full, or this one at its limit of frame memory: their subscribers will not get it.
    pub refused: u32,
}

/// Why an outgoing connection did not come to stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The kernel's word: refused, unreachable, out of ports. Retry may make sense.
    Io(io::ErrorKind),
    /// The process, or the machine, has no descriptor left: a limit of this side. Retry makes sense when others closed.
    Descriptors,
    /// The kernel has no memory left for a socket, or for what watches it. Retry makes sense when others closed.
    Memory,
    /// The answer was no valid opening handshake, or another status than 101.
    Handshake(HandshakeError),
    /// No answer within [`Limits::handshake_timeout`](super::Limits::handshake_timeout).
    Timeout,
    /// The peer closed before it answered, or this worker drains.
    Closed,
    /// The handler declined in `connected`.
    Declined,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Io(kind) => write!(f, "{kind}"),
            ConnectError::Descriptors => f.write_str("no descriptor is left"),
            ConnectError::Memory => f.write_str("the kernel has no memory left for a socket"),
            ConnectError::Handshake(error) => write!(f, "{error}"),
            ConnectError::Timeout => f.write_str("no answer to the opening handshake in time"),
            ConnectError::Closed => f.write_str("closed before the opening handshake was answered"),
            ConnectError::Declined => f.write_str("declined by the handler"),
        }
    }
}

impl Error for ConnectError {}

impl ConnectError {
    /// What the kernel said when a socket was made and told to connect.
    pub(crate) fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => ConnectError::Descriptors,
            Some(Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC) => ConnectError::Memory,
            _ => ConnectError::Io(error.kind()),
        }
    }
}

/// How a connection ended: the code, and who or what ended it. Each pair is counted in the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CloseReason {
    /// The code on the wire; 1005 if the peer's Close had none, 1006 if there was no Close.
    pub code: u16,
    /// Who or what.
    pub cause: CloseCause,
}

/// Who or what ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseCause {
    /// The peer started the closing handshake.
    Peer,
    /// The handler did.
    Local,
    /// [`Handle::disconnect`](super::Handle::disconnect) did.
    Remote,
    /// The peer broke the protocol.
    Protocol(ProtoError),
    /// The handler panicked (1011).
    Panic,
    /// Nothing came from the peer within the idle timeout, pings included.
    Idle,
    /// The peer took nothing of what waited for it within the stall timeout.
    Stalled,
    /// [`SlowConsumer::Disconnect`](super::SlowConsumer::Disconnect).
    SlowConsumer,
    /// It held most of the worker's frames when their limit was reached.
    Memory,
    /// A planned drain (1012).
    Drain,
    /// The peer's side ended without a Close.
    Lost,
    /// The socket broke.
    Failed(io::ErrorKind),
}

impl CloseCause {
    /// A stable name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            CloseCause::Peer => "peer",
            CloseCause::Local => "local",
            CloseCause::Remote => "remote",
            CloseCause::Protocol(_) => "protocol",
            CloseCause::Panic => "panic",
            CloseCause::Idle => "idle",
            CloseCause::Stalled => "stalled",
            CloseCause::SlowConsumer => "slow_consumer",
            CloseCause::Memory => "memory",
            CloseCause::Drain => "drain",
            CloseCause::Lost => "lost",
            CloseCause::Failed(_) => "failed",
        }
    }

    /// Whether the peer, a stranger, or this side ended it.
    pub fn initiator(self) -> &'static str {
        match self {
            CloseCause::Peer | CloseCause::Lost => "peer",
            CloseCause::Failed(_) => "network",
            _ => "server",
        }
    }
}

impl CloseReason {
    pub(crate) fn new(code: CloseCode, cause: CloseCause) -> Self {
        CloseReason { code: code.get(), cause }
    }

    pub(crate) const LOST: CloseReason = CloseReason { code: 1006, cause: CloseCause::Lost };
}

/// Why a subscription was refused.
pub use crate::pubsub::SubscribeError;
