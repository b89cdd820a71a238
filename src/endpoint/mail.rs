//! What crosses threads to a worker of an endpoint, and how a socket is addressed from outside.
#![forbid(unsafe_code)]

use super::longpoll::{Ask, Reply, SessionId};
use crate::channels::{Full, Letter, Post};
use crate::driver::SocketId;
use crate::engine::{self, ConnId, Handle};
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
}

impl Mail {
    /// Bytes that it holds beyond its own, for the limit of a worker's mail.
    pub(super) fn size(&self) -> usize {
        match self {
            Mail::Letter(letter) | Mail::Session(_, letter) => letter.size(),
            Mail::Ask(ask) => ask.size(),
            Mail::Answer(reply) => reply.size(),
            Mail::Answered { .. } | Mail::RequestGone(..) => 0,
        }
    }
}

/// Sends mail to a worker, with its size.
pub(super) fn mail_worker(handle: &Handle<Mail>, worker: u16, mail: Mail) -> Result<(), engine::Full> {
    let size = mail.size();
    handle.mail_worker_sized(worker, mail, size)
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
            let size = letter.size();
            self.0.mail_sized(ConnId { worker, socket, request: 0 }, Mail::Letter(letter), size)
        } else {
            mail_worker(&self.0, worker, Mail::Session(SessionId { worker, number: id as u64 }, letter))
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
        })
    }
}
