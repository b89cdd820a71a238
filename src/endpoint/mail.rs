//! What crosses threads to a worker of an endpoint, and how a socket is addressed from outside.
#![forbid(unsafe_code)]

use super::longpoll::{Ask, Reply, SessionId};
use crate::channels::{Full, Letter, Post};
use crate::driver::SocketId;
use crate::engine::{ConnId, Handle};
use std::fmt;

/// Mail of an endpoint's workers.
pub enum Mail {
    /// To the socket of a connection.
    Letter(Letter),
    /// To the socket of a long-poll session.
    Session(SessionId, Letter),
    /// A long-poll request for a session of this worker, which came in on another.
    Ask(Box<Ask>),
    /// The answer to a long-poll request of this worker, by the session's worker.
    Answer(Box<Reply>),
    /// Whether an answer with messages found its request waiting.
    Answered {
        /// Whose messages they are.
        session: SessionId,
        /// Which request was answered.
        request: ConnId,
        /// If not, they stay for the next poll.
        sent: bool,
    },
    /// A request that waits for a session's messages is gone.
    RequestGone(SessionId, ConnId),
    /// The sessions of this worker end.
    Drain,
}

/// Carries letters to sockets, wherever they live.
pub(super) struct PostOffice(pub(super) Handle<Mail>);

/// Set in the ids of sessions.
const SESSION: u128 = 1 << 127;

pub(super) fn conn_address(id: ConnId) -> u128 {
    u128::from(id.worker) << 64 | u128::from(id.socket.generation) << 32 | u128::from(id.socket.slot)
}

pub(super) fn session_address(id: SessionId) -> u128 {
    SESSION | u128::from(id.worker) << 64 | u128::from(id.number)
}

impl Post for PostOffice {
    fn post(&self, id: u128, letter: Letter) -> Result<(), Full> {
        let worker = (id >> 64) as u16;
        let sent = if id & SESSION == 0 {
            let socket = SocketId { slot: id as u32, generation: (id >> 32) as u32 };
            self.0.mail(ConnId { worker, socket, request: 0 }, Mail::Letter(letter))
        } else {
            self.0.mail_worker(worker, Mail::Session(SessionId { worker, number: id as u64 }, letter))
        };
        sent.map_err(|_| Full)
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mail::Letter(_) => "Letter",
            Mail::Session(..) => "Session",
            Mail::Ask(_) => "Ask",
            Mail::Answer(_) => "Answer",
            Mail::Answered { .. } => "Answered",
            Mail::RequestGone(..) => "RequestGone",
            Mail::Drain => "Drain",
        })
    }
}
