//! What crosses threads to a worker, and [`Handle`], through which it is sent.
#![forbid(unsafe_code)]

use super::counters::{Board, Snapshot};
use super::drain::Drain;
use super::error::{Full, Published};
use super::handler::{ConnId, Message};
use super::hub::Interest;
use super::lane::Sender;
use super::request::Response;
use crate::driver::SocketId;
use crate::proto::{CloseCode, MessageKind};
use bytes::Bytes;
use std::{
    fmt, iter,
    sync::{Arc, OnceLock},
};

/// A publication between workers: topic and payload in one allocation, not yet encoded, because encoding classes differ
/// from worker to worker.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    bytes: Arc<[u8]>,
    topic_len: u32,
    kind: MessageKind,
    key: u64,
}

impl Parcel {
    pub(crate) fn new(topic: &str, key: u64, message: Message<'_>) -> Self {
        // Zeros of a known number are collected straight into the `Arc`: that is the one allocation.
        let mut bytes: Arc<[u8]> = iter::repeat_n(0, topic.len() + message.payload.len()).collect();
        let (head, tail) = Arc::get_mut(&mut bytes).expect("nobody else has it yet").split_at_mut(topic.len());
        head.copy_from_slice(topic.as_bytes());
        tail.copy_from_slice(message.payload);
        Parcel { bytes, topic_len: topic.len() as u32, kind: message.kind, key }
    }

    /// Topic, key and message.
    pub(crate) fn open(&self) -> (&str, u64, Message<'_>) {
        let (topic, payload) = self.bytes.split_at(self.topic_len as usize);
        let topic = std::str::from_utf8(topic).expect("a parcel is made from a str");
        (topic, self.key, Message { kind: self.kind, payload })
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// What a worker finds in its lane.
#[derive(Debug)]
pub(crate) enum Mail<M> {
    Publish(Parcel),
    Send { id: SocketId, kind: MessageKind, payload: Bytes },
    Disconnect { id: SocketId, code: CloseCode, reason: Box<str> },
    User { id: SocketId, mail: M },
    Upgrade { id: SocketId, mail: M },
    Respond { id: ConnId, response: Box<Response> },
    Worker { mail: M },
}

/// The workers of a server, as one that publishes sees them.
pub(crate) trait Exchange: Send + Sync {
    /// Sends a publication to every worker that may have subscribers, but for `except`, which has served its own.
    fn spread(&self, except: Option<usize>, topic: &str, key: u64, message: Message<'_>) -> Published;
}

/// What the other threads know of a worker.
pub(crate) struct Port<M> {
    pub(crate) lane: Sender<Mail<M>>,
    /// The drain, once one was asked for. Beside the lane, so that a full lane cannot refuse it; the first one counts.
    pub(crate) drain: Arc<OnceLock<Drain>>,
    pub(crate) board: Arc<Board>,
}

pub(crate) struct Ports<M> {
    pub(crate) ports: Vec<Port<M>>,
    pub(crate) interest: Arc<Interest>,
}

impl<M: Send> Ports<M> {
    pub(crate) fn post(&self, worker: usize, mail: Mail<M>, bytes: usize) -> Result<(), Full> {
        let Some(port) = self.ports.get(worker) else { return Err(Full) };
        port.lane.send(mail, bytes).map_err(|_| Full)
    }
}

impl<M: Send> Exchange for Ports<M> {
    fn spread(&self, except: Option<usize>, topic: &str, key: u64, message: Message<'_>) -> Published {
        let mut published = Published::default();
        let mut parcel = None;
        for worker in self.interest.workers(self.interest.hash(topic)).filter(|&worker| Some(worker) != except) {
            let parcel = parcel.get_or_insert_with(|| Parcel::new(topic, key, message));
            match self.post(worker, Mail::Publish(parcel.clone()), parcel.size()) {
                Ok(()) => published.workers += 1,
                Err(Full) => published.refused += 1,
            }
        }
        published
    }
}

/// A running server as other threads see it: cheap to clone, usable from threads and async tasks alike.
///
/// Each call puts mail into the lane of a worker and wakes it if it sleeps; none waits. Mail of one thread to one worker
/// keeps its order.
pub struct Handle<M> {
    pub(crate) ports: Arc<Ports<M>>,
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Handle { ports: Arc::clone(&self.ports) }
    }
}

impl<M> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("workers", &self.ports.ports.len()).finish()
    }
}

impl<M: Send + 'static> Handle<M> {
    /// Publishes to every subscriber of a topic. [`Published::refused`] tells how many workers had no room: their
    /// subscribers miss it. Cost: one allocation, and one mail per worker that may have subscribers.
    pub fn publish(&self, topic: &str, message: Message<'_>) -> Published {
        self.publish_keyed(topic, 0, message)
    }

    /// As [`Handle::publish`], about `key`; see [`Scope::publish_keyed`](super::Scope::publish_keyed).
    pub fn publish_keyed(&self, topic: &str, key: u64, message: Message<'_>) -> Published {
        self.ports.spread(None, topic, key, message)
    }

    /// Sends a message to one connection. It is dropped, and counted, if the connection is gone by then. Cost: one
    /// allocation and one copy of the payload here; see [`Handle::send_bytes`].
    pub fn send(&self, id: ConnId, message: Message<'_>) -> Result<(), Full> {
        self.send_bytes(id, message.kind, Bytes::copy_from_slice(message.payload))
    }

    /// As [`Handle::send`], with a payload that is shared, not copied: for one that goes to many connections, or that
    /// came as [`Bytes`]. That a text is UTF-8 is your promise.
    pub fn send_bytes(&self, id: ConnId, kind: MessageKind, payload: Bytes) -> Result<(), Full> {
        let len = payload.len();
        self.ports.post(id.worker.into(), Mail::Send { id: id.socket, kind, payload }, len)
    }

    /// Calls [`Handler::mail`](super::Handler::mail) of one connection. Dropped, and counted, if it is gone by then.
    /// For mail that owns next to nothing on the heap; else see [`Handle::mail_sized`].
    pub fn mail(&self, id: ConnId, mail: M) -> Result<(), Full> {
        self.mail_sized(id, mail, 0)
    }

    /// As [`Handle::mail`], for mail that owns `bytes` on the heap: they count towards
    /// [`Limits::mail_overflow_bytes`](super::Limits::mail_overflow_bytes).
    pub fn mail_sized(&self, id: ConnId, mail: M, bytes: usize) -> Result<(), Full> {
        self.ports.post(id.worker.into(), Mail::User { id: id.socket, mail }, size_of::<M>().saturating_add(bytes))
    }

    /// Calls [`Handler::worker_mail`](super::Handler::worker_mail) on one worker: for what belongs to no connection.
    /// [`Full`] for a worker that there is not, too. For mail that owns next to nothing on the heap; else see
    /// [`Handle::mail_worker_sized`].
    pub fn mail_worker(&self, worker: u16, mail: M) -> Result<(), Full> {
        self.mail_worker_sized(worker, mail, 0)
    }

    /// As [`Handle::mail_worker`], for mail that owns `bytes` on the heap; see [`Handle::mail_sized`].
    pub fn mail_worker_sized(&self, worker: u16, mail: M, bytes: usize) -> Result<(), Full> {
        self.ports.post(worker.into(), Mail::Worker { mail }, size_of::<M>().saturating_add(bytes))
    }

    /// Workers that this handle reaches, numbered from 0.
    pub fn workers(&self) -> u16 {
        self.ports.ports.len() as u16
    }

    /// Answers an opening handshake that the handler put off with [`Upgrade::Later`](super::Upgrade::Later).
    pub fn answer_upgrade(&self, id: ConnId, mail: M) -> Result<(), Full> {
        self.answer_upgrade_sized(id, mail, 0)
    }

    /// As [`Handle::answer_upgrade`], for mail that owns `bytes` on the heap; see [`Handle::mail_sized`].
    pub fn answer_upgrade_sized(&self, id: ConnId, mail: M, bytes: usize) -> Result<(), Full> {
        self.ports.post(id.worker.into(), Mail::Upgrade { id: id.socket, mail }, size_of::<M>().saturating_add(bytes))
    }

    /// Starts the closing handshake of one connection.
    pub fn disconnect(&self, id: ConnId, code: CloseCode, reason: &str) -> Result<(), Full> {
        let mail = Mail::Disconnect { id: id.socket, code, reason: reason.into() };
        self.ports.post(id.worker.into(), mail, reason.len())
    }

    /// Starts a drain on every worker: no new connections, those that are open closed in batches with 1012; then the
    /// workers end. It cannot be refused, and may overtake mail that waits. A second one changes nothing.
    pub fn drain(&self, drain: Drain) {
        let workers = self.ports.ports.len() as u32;
        for (port, worker) in self.ports.ports.iter().zip(0..) {
            let _ = port.drain.set(drain.share(worker, workers));
            port.lane.wake();
        }
    }

    /// Counters of all workers, as of the last turn of each.
    pub fn metrics(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for port in &self.ports.ports {
            let mut worker = port.board.snapshot();
            worker.counters.mail_refused = port.lane.refused(); // counted by those who send
            sum.add(&worker);
        }
        sum
    }
}
