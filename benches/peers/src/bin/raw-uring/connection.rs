//! A connection, and the bytes it has to send.

use crate::buffers::{Buffers, Piece};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use wingbeat_peers::wire::Session;

pub struct Connection {
    pub fd: OwnedFd,
    pub session: Session,
    /// What the kernel sends, one operation at a time.
    pub sending: Option<Outgoing>,
    /// What is to be sent next.
    pub waiting: Option<Outgoing>,
    /// The kernel has a receive of it.
    pub receiving: bool,
    /// To be closed when nothing is left to send.
    pub closing: bool,
}

/// Bytes to send.
pub struct Outgoing {
    source: Source,
    at: usize,
    left: usize,
}

enum Source {
    /// They are where they were received, in the buffer of this number.
    Lent(u16),
    /// Copied, or shared with other connections.
    Kept(Rc<Vec<u8>>),
}

impl Connection {
    pub fn new(fd: OwnedFd) -> Self {
        let (session, closing) = (Session::default(), false);
        Self { fd, session, sending: None, waiting: None, receiving: true, closing }
    }

    /// Whether the kernel names the descriptor, or bytes of this connection.
    pub fn is_busy(&self) -> bool {
        self.receiving || self.sending.is_some()
    }

    /// Adds to what waits. True if a send is to be started.
    pub fn enqueue(&mut self, next: Outgoing, buffers: &mut Buffers) -> bool {
        let was_idle = self.waiting.is_none() && self.sending.is_none();
        self.waiting = Some(match self.waiting.take() {
            None => next,
            Some(waiting) => waiting.join(next, buffers),
        });
        was_idle
    }
}

impl Outgoing {
    /// A piece of a buffer, which is released when it was sent.
    pub fn lent(buffer: u16, at: usize, length: usize) -> Self {
        Self { source: Source::Lent(buffer), at, left: length }
    }

    pub fn kept(bytes: Vec<u8>) -> Self {
        Self::shared(Rc::new(bytes))
    }

    pub fn shared(bytes: Rc<Vec<u8>>) -> Self {
        let left = bytes.len();
        Self { source: Source::Kept(bytes), at: 0, left }
    }

    /// Only a range of them.
    pub fn part(self, start: usize, length: usize) -> Self {
        Self { at: self.at + start, left: length, ..self }
    }

    /// Where they are, which holds until they are advanced over, joined or released.
    pub fn raw(&self, buffers: &Buffers) -> (*const u8, u32) {
        let start = match &self.source {
            Source::Lent(_) => buffers.address(self.at),
            Source::Kept(bytes) => bytes[self.at..].as_ptr(),
        };
        (start, u32::try_from(self.left).unwrap_or(u32::MAX))
    }

    /// Whether they lie in a buffer.
    pub fn is_lent(&self) -> bool {
        matches!(self.source, Source::Lent(_))
    }

    /// The same bytes, not in a buffer.
    pub fn keep(self, buffers: &mut Buffers) -> Self {
        if !self.is_lent() {
            return self;
        }
        let mut bytes = Vec::new();
        self.copy_to(&mut bytes, buffers);
        Self::kept(bytes)
    }

    /// Bytes that were sent. True if none is left.
    pub fn advance(&mut self, sent: usize) -> bool {
        self.at += sent;
        self.left -= sent;
        self.left == 0
    }

    pub fn release(self, buffers: &mut Buffers) {
        if let Source::Lent(buffer) = self.source {
            buffers.release(buffer);
        }
    }

    /// Both in one piece.
    fn join(self, next: Self, buffers: &mut Buffers) -> Self {
        let mut bytes = match self {
            // Joined before, or a topic's batch that no other connection has any more: it can grow where it is.
            Self { source: Source::Kept(bytes), at, left }
                if at + left == bytes.len() && Rc::strong_count(&bytes) == 1 =>
            {
                let mut bytes = Rc::unwrap_or_clone(bytes);
                bytes.drain(..at);
                bytes
            }
            other => {
                let mut bytes = Vec::new();
                other.copy_to(&mut bytes, buffers);
                bytes
            }
        };
        next.copy_to(&mut bytes, buffers);
        Self::kept(bytes)
    }

    fn copy_to(self, bytes: &mut Vec<u8>, buffers: &mut Buffers) {
        match &self.source {
            Source::Lent(buffer) => {
                let piece = Piece { buffer: *buffer, at: self.at, length: self.left };
                bytes.extend_from_slice(buffers.bytes(piece));
            }
            Source::Kept(kept) => bytes.extend_from_slice(&kept[self.at..self.at + self.left]),
        }
        self.release(buffers);
    }
}
