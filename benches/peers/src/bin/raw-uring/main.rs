//! The floor of io_uring: what `raw-epoll` does, with one multishot receive per connection into shared buffers, replies
//! sent from where they were received, and one system call per turn that submits all sends and waits.
#![deny(unsafe_op_in_unsafe_fn)]

mod buffers;
mod connection;

use buffers::{Buffers, GROUP, Piece};
use clap::Parser;
use connection::{Connection, Outgoing};
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::net::{Shutdown, shutdown};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use wingbeat_peers::topics::Topics;

/// Sends handed over at once; a turn with more makes more system calls.
const SUBMISSIONS: u32 = 256;
/// Few, so that the queue stays in the cache: with 32,768 of them a message costs up to 10 % more. When they do not
/// suffice for a turn, they are taken in between.
const COMPLETIONS: u32 = 4 * 1024;

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const OPERATION_SHIFT: u32 = 32;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    bind: SocketAddr,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let listener = wingbeat_peers::listen(arguments.bind)?;
    // Never dropped: operations that have not completed name memory of its connections.
    let mut server = ManuallyDrop::new(Server::new(&listener)?);
    wingbeat_peers::announce(&listener)?;
    server.run()
}

struct Server {
    queue: Queue,
    listener: RawFd,
    buffers: Buffers,
    connections: Slab<Connection>,
    topics: Topics,
    /// Connections that may have a send to start.
    dirty: Vec<usize>,
    /// Connections whose receive has ended because no buffer was left.
    starved: VecDeque<usize>,
}

impl Server {
    fn new(listener: &TcpListener) -> io::Result<Self> {
        let queue = Queue::new()?;
        Ok(Self {
            buffers: Buffers::register(&queue.ring.submitter())?,
            queue,
            listener: listener.as_raw_fd(),
            connections: Slab::new(),
            topics: Topics::default(),
            dirty: Vec::new(),
            starved: VecDeque::new(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        self.queue.accept(self.listener)?;
        let mut answers = Vec::new();
        loop {
            self.queue.wait(&mut answers)?;
            for answer in answers.drain(..) {
                self.complete(&answer)?;
            }
            self.deliver()?;
            self.flush()?;
            self.feed()?;
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let slot = (completion.user_data() & ((1 << OPERATION_SHIFT) - 1)) as usize;
        match completion.user_data() >> OPERATION_SHIFT {
            ACCEPT => self.accepted(completion),
            RECEIVE => self.received(slot, completion),
            _ => self.sent(slot, completion.result()),
        }
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        match completion.result() {
            error if -error == libc::ECONNABORTED => {}
            error if error < 0 => return Err(io::Error::from_raw_os_error(-error)),
            fd => {
                // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                let raw = fd.as_raw_fd();
                let slot = self.connections.insert(Connection::new(fd));
                self.queue.receive(slot, raw)?;
            }
        }
        if !cqueue::more(completion.flags()) {
            self.queue.accept(self.listener)?;
        }
        Ok(())
    }

    fn received(&mut self, slot: usize, completion: &cqueue::Entry) -> io::Result<()> {
        let (result, flags) = (completion.result(), completion.flags());
        let connection = &mut self.connections[slot];
        connection.receiving = cqueue::more(flags);
        let mut alive = result > 0 || -result == libc::ENOBUFS;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            let piece = self.buffers.filled(buffer, result.max(0) as usize, cqueue::buffer_more(flags));
            if piece.length == 0 || connection.closing {
                self.buffers.release(buffer);
            } else {
                alive &= self.answer(slot, piece).is_ok();
            }
        }
        if !alive {
            self.end(slot);
        } else if !self.connections[slot].receiving {
            self.starved.push_back(slot);
        }
        Ok(())
    }

    /// Answers what was received; an error ends the connection.
    fn answer(&mut self, slot: usize, piece: Piece) -> io::Result<()> {
        let Self { buffers, topics, dirty, connections, .. } = self;
        let connection = &mut connections[slot];
        let session = &mut connection.session;
        let (taken, replies) = if session.cut().is_empty() {
            let data = buffers.bytes(piece);
            let taken = match session.take(data, topics, slot) {
                Ok(taken) => taken,
                Err(error) => {
                    buffers.release(piece.buffer);
                    return Err(error);
                }
            };
            session.keep_cut(&data[taken.consumed..]);
            let range = taken.replies.clone();
            (taken, Outgoing::lent(piece.buffer, piece.at + range.start, range.len()))
        } else {
            let mut data = session.take_cut();
            data.extend_from_slice(buffers.bytes(piece));
            buffers.release(piece.buffer);
            let taken = session.take(&mut data, topics, slot)?;
            if taken.consumed == 0 {
                session.restore_cut(data);
                return Ok(());
            }
            session.keep_cut(&data[taken.consumed..]);
            let range = taken.replies.clone();
            (taken, Outgoing::kept(data).part(range.start, range.len()))
        };
        let mut is_dirty = false;
        if !taken.first.is_empty() {
            is_dirty |= connection.enqueue(Outgoing::kept(taken.first), buffers);
        }
        if taken.replies.is_empty() {
            replies.release(buffers);
        } else {
            is_dirty |= connection.enqueue(replies, buffers);
        }
        connection.closing = taken.closing;
        if is_dirty {
            dirty.push(slot);
        }
        Ok(())
    }

    fn sent(&mut self, slot: usize, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[slot];
        let Some(mut sending) = connection.sending.take() else { return Ok(()) };
        match result {
            0.. if sending.advance(result as usize) => sending.release(&mut self.buffers),
            // The socket is full: what is left waits there, and must not hold up a buffer meanwhile.
            result if result >= 0 || -result == libc::EAGAIN => {
                let kept = connection.sending.insert(sending.keep(&mut self.buffers));
                return self.queue.send(slot, connection.fd.as_raw_fd(), kept, &self.buffers);
            }
            _ => {
                sending.release(&mut self.buffers);
                self.end(slot);
                return Ok(());
            }
        }
        if connection.waiting.is_some() {
            self.dirty.push(slot);
        } else if connection.closing {
            self.end(slot);
        }
        Ok(())
    }

    /// Sends what this turn has published.
    fn deliver(&mut self) -> io::Result<()> {
        let Self { queue, buffers, connections, topics, .. } = self;
        while let Some((frames, members)) = topics.next_batch() {
            let frames = Rc::new(frames);
            for slot in members {
                let connection = &mut connections[*slot];
                if !connection.closing && connection.enqueue(Outgoing::shared(Rc::clone(&frames)), buffers) {
                    queue.start(*slot, connection, buffers)?;
                }
            }
        }
        Ok(())
    }

    /// Starts the sends of this turn, one per connection.
    fn flush(&mut self) -> io::Result<()> {
        for slot in self.dirty.drain(..) {
            // It may have ended since, and the slot be another's.
            if let Some(connection) = self.connections.get_mut(slot) {
                self.queue.start(slot, connection, &self.buffers)?;
            }
        }
        Ok(())
    }

    /// Receives again for connections that found no buffer, as many as there are buffers now.
    fn feed(&mut self) -> io::Result<()> {
        for _ in 0..self.buffers.provided() {
            let Some(slot) = self.starved.pop_front() else { break };
            let connection = self.connections.get_mut(slot).filter(|connection| !connection.receiving);
            if let Some(connection) = connection {
                connection.receiving = true;
                self.queue.receive(slot, connection.fd.as_raw_fd())?;
            }
        }
        Ok(())
    }

    /// Ends a connection: at once if the kernel has no operation of it, else when the last of them has ended.
    fn end(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.closing = true;
        if let Some(waiting) = connection.waiting.take() {
            waiting.release(&mut self.buffers);
        }
        if connection.is_busy() {
            // It fails only if the connection is gone already, which ends the operations as well.
            let _shut = shutdown(&connection.fd, Shutdown::Both);
        } else {
            let connection = self.connections.remove(slot);
            connection.session.leave(&mut self.topics, slot);
        }
    }
}

/// What is asked of the kernel, and what it answers.
struct Queue {
    ring: IoUring,
    /// Answers that were taken while the turn was still asking.
    answers: Vec<cqueue::Entry>,
}

impl Queue {
    fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        Ok(Self { ring, answers: Vec::new() })
    }

    fn accept(&mut self, listener: RawFd) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener)).flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).build();
        // SAFETY: it names no memory.
        unsafe { self.push(entry, ACCEPT, 0) }
    }

    fn receive(&mut self, slot: usize, fd: RawFd) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(fd), GROUP).build();
        // SAFETY: it names no memory; provided buffers live for ever.
        unsafe { self.push(entry, RECEIVE, slot) }
    }

    /// Starts to send what waits, unless something is being sent already.
    fn start(&mut self, slot: usize, connection: &mut Connection, buffers: &Buffers) -> io::Result<()> {
        if connection.sending.is_some() {
            return Ok(());
        }
        connection.sending = connection.waiting.take();
        match &connection.sending {
            Some(sending) => self.send(slot, connection.fd.as_raw_fd(), sending, buffers),
            None => Ok(()),
        }
    }

    /// Sends what a connection has in `sending`.
    fn send(&mut self, slot: usize, fd: RawFd, sending: &Outgoing, buffers: &Buffers) -> io::Result<()> {
        let (start, length) = sending.raw(buffers);
        // What lies in a buffer is sent at once or not at all: a peer that does not read must not hold up the buffer.
        let flags = if sending.is_lent() { libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT } else { libc::MSG_NOSIGNAL };
        let entry = opcode::Send::new(Fd(fd), start, length).flags(flags).build();
        // SAFETY: the bytes are not freed, changed or received over before `Outgoing::release`, which only the completion
        // of this operation brings about: until then it stays in `Connection::sending`, which is not dropped before.
        unsafe { self.push(entry, SEND, slot) }
    }

    /// # Safety
    /// The memory that the entry names is valid until the operation has completed.
    unsafe fn push(&mut self, entry: squeue::Entry, operation: u64, slot: usize) -> io::Result<()> {
        let entry = entry.user_data(operation << OPERATION_SHIFT | slot as u64);
        // SAFETY: as the caller promises.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
            self.answers.extend(self.ring.completion());
        }
        Ok(())
    }

    /// Hands over what is asked, waits until something is answered, and takes all answers.
    fn wait(&mut self, answers: &mut Vec<cqueue::Entry>) -> io::Result<()> {
        answers.append(&mut self.answers);
        match self.ring.submit_and_wait(usize::from(answers.is_empty())) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            entered => drop(entered?),
        }
        answers.extend(self.ring.completion());
        Ok(())
    }
}
