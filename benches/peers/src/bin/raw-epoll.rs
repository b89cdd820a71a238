//! The floor of epoll: an echo, and topics, that validate nothing. One `recv` into a shared buffer and one `send` per turn
//! of a connection; what a turn publishes goes to each subscriber in one `send`.
#![forbid(unsafe_code)]

use clap::Parser;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use wingbeat_peers::topics::Topics;
use wingbeat_peers::wire::Session;

const LISTENER: Token = Token(usize::MAX);
const RECEIVE_BUFFER: usize = 512 * 1024;
const EVENTS_PER_TURN: usize = 1_024;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    bind: SocketAddr,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let listener = wingbeat_peers::listen(arguments.bind)?;
    wingbeat_peers::announce(&listener)?;
    Server::new(TcpListener::from_std(listener))?.run()
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    topics: Topics,
    buffer: Vec<u8>,
}

impl Server {
    fn new(mut listener: TcpListener) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (connections, topics) = (Slab::new(), Topics::default());
        Ok(Self { poll, listener, connections, topics, buffer: vec![0; RECEIVE_BUFFER] })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(slot) => self.turn(slot, event),
                }
            }
            self.deliver();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let entry = self.connections.vacant_entry();
            // Both interests once and for all: edge-triggered, the second costs nothing until a send was refused.
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(entry.key()), interest)?;
            entry.insert(Connection { stream, session: Session::default(), unsent: Vec::new() });
        }
    }

    fn turn(&mut self, slot: usize, event: &Event) {
        let connection = &mut self.connections[slot];
        if connection.turn(event, &mut self.buffer, &mut self.topics, slot).is_err() {
            connection.session.leave(&mut self.topics, slot);
            self.connections.remove(slot);
        }
    }

    /// Sends what this turn has published.
    fn deliver(&mut self) {
        while let Some((frames, members)) = self.topics.next_batch() {
            for member in members {
                // A member that cannot be sent to has an event of its own, which ends it.
                let _sent = self.connections[*member].send(&frames);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    session: Session,
    /// What the kernel refused; nothing is read before it is gone.
    unsent: Vec<u8>,
}

impl Connection {
    /// Reads what is there and answers it; an error ends the connection, be it a failure or the regular end.
    fn turn(&mut self, event: &Event, buffer: &mut Vec<u8>, topics: &mut Topics, own: usize) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            self.send(&unsent)?;
        } else if !event.is_readable() {
            return Ok(());
        }
        while self.unsent.is_empty() {
            let kept = self.session.cut().len();
            if kept * 2 > buffer.len() {
                buffer.resize(buffer.len() * 2, 0);
            }
            buffer[..kept].copy_from_slice(self.session.cut());
            let room = buffer.len() - kept;
            let received = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.answer(&mut buffer[..kept + received], topics, own)?;
            // A short read means drained, unless the end of the stream is already waiting behind it.
            if received < room && !event.is_read_closed() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn answer(&mut self, data: &mut [u8], topics: &mut Topics, own: usize) -> io::Result<()> {
        let taken = self.session.take(data, topics, own)?;
        self.send(&taken.first)?;
        self.send(&data[taken.replies])?;
        if taken.closing {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        self.session.keep_cut(&data[taken.consumed..]);
        Ok(())
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && self.unsent.is_empty() {
            match self.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }
}
