//! The floor: an epoll echo that validates nothing. One `recv` into a shared buffer and one `send` per turn of a
//! connection; frame headers are read only as far as unmasking needs. No UTF-8, no limits, no timers, no fragments.
#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use sha1::{Digest, Sha1};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;

const LISTENER: Token = Token(usize::MAX);
const RECEIVE_BUFFER: usize = 512 * 1024;
const EVENTS_PER_TURN: usize = 1_024;
const MASK_BIT: u8 = 0x80;
const OPCODE_BITS: u8 = 0x0f;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const KEY_LENGTH: usize = 4;
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

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
    buffer: Vec<u8>,
}

impl Server {
    fn new(mut listener: TcpListener) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self { poll, listener, connections: Slab::new(), buffer: vec![0; RECEIVE_BUFFER] })
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
            entry.insert(Connection { stream, upgraded: false, cut: Vec::new(), unsent: Vec::new() });
        }
    }

    fn turn(&mut self, slot: usize, event: &Event) {
        let connection = &mut self.connections[slot];
        if connection.turn(event, &mut self.buffer).is_err() {
            self.connections.remove(slot);
        }
    }
}

struct Connection {
    stream: TcpStream,
    upgraded: bool,
    /// The start of a frame or request whose end has not arrived.
    cut: Vec<u8>,
    /// Replies that the kernel refused; nothing is read before they are gone.
    unsent: Vec<u8>,
}

impl Connection {
    /// Reads what is there and answers it; an error ends the connection, be it a failure or the regular end.
    fn turn(&mut self, event: &Event, buffer: &mut Vec<u8>) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            self.send(&unsent)?;
        } else if !event.is_readable() {
            return Ok(());
        }
        while self.unsent.is_empty() {
            let kept = self.cut.len();
            if kept * 2 > buffer.len() {
                buffer.resize(buffer.len() * 2, 0);
            }
            buffer[..kept].copy_from_slice(&self.cut);
            let room = buffer.len() - kept;
            let received = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.cut.clear();
            self.answer(&mut buffer[..kept + received])?;
            // A short read means drained, unless the end of the stream is already waiting behind it.
            if received < room && !event.is_read_closed() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn answer(&mut self, mut data: &mut [u8]) -> io::Result<()> {
        if !self.upgraded {
            let Some(end) = data.windows(4).position(|window| window == b"\r\n\r\n") else {
                self.cut.extend_from_slice(data);
                return Ok(());
            };
            let (request, rest) = data.split_at_mut(end + 4);
            let response = upgrade(request).ok_or(ErrorKind::InvalidData)?;
            self.upgraded = true;
            self.send(response.as_bytes())?;
            data = rest;
        }
        let echoed = echo(data);
        if !echoed.replies.is_empty() {
            self.send(&data[echoed.replies])?;
        }
        if echoed.closing {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        self.cut.extend_from_slice(&data[echoed.consumed..]);
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

struct Echoed {
    replies: Range<usize>,
    consumed: usize,
    closing: bool,
}

/// Turns the whole frames at the start of `data` into one run of replies, in place. A reply is four bytes shorter than
/// its frame (no masking key): the first payload stays where it is, later ones move towards it.
fn echo(data: &mut [u8]) -> Echoed {
    let mut at = 0;
    let mut written = KEY_LENGTH;
    let mut closing = false;
    while let Some((header, payload)) = frame(&data[at..]) {
        let start = at + header + KEY_LENGTH;
        let key = [data[start - 4], data[start - 3], data[start - 2], data[start - 1]];
        data.copy_within(at..at + header, written);
        data[written + 1] &= !MASK_BIT;
        match data[written] & OPCODE_BITS {
            PING => data[written] = data[written] & !OPCODE_BITS | PONG,
            CLOSE => closing = true,
            _ => {}
        }
        written += header;
        unmask(&mut data[start..start + payload], key);
        if written != start {
            data.copy_within(start..start + payload, written);
        }
        written += payload;
        at = start + payload;
    }
    let begin = if at == 0 { written } else { KEY_LENGTH };
    Echoed { replies: begin..written, consumed: at, closing }
}

/// Header bytes without the masking key, and payload bytes, of a frame that is there as a whole.
fn frame(data: &[u8]) -> Option<(usize, usize)> {
    let (header, payload) = match *data.get(1)? & !MASK_BIT {
        126 => (4, u64::from(u16::from_be_bytes(data.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(data.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let payload = usize::try_from(payload).ok()?;
    (data.len() - header >= payload.checked_add(KEY_LENGTH)?).then_some((header, payload))
}

fn unmask(payload: &mut [u8], key: [u8; KEY_LENGTH]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

fn upgrade(request: &[u8]) -> Option<String> {
    let request = std::str::from_utf8(request).ok()?;
    let headers = request.lines().filter_map(|line| line.split_once(':'));
    let key = headers.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?.1.trim();
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize());
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}
