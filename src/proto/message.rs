//! Whole messages: parts put together, and the reader for those who want nothing else.
#![forbid(unsafe_code)]

use super::{CloseCode, ControlKind, Event, MessageKind, ProtoError, ReadLimits, Reader, Role, Writer, parse_close};

/// Puts together what the [`Reader`] hands out in parts, in one buffer: the data message so far, and behind it the
/// control frame so far.
///
/// What [`message_part`](Assembler::message_part) and [`control_part`](Assembler::control_part) return at the last part
/// counts as handed over: [`is_empty`](Assembler::is_empty) no longer sees it, and the next call overwrites it.
#[derive(Debug, Default)]
pub struct Assembler {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that belong to the message in progress.
    message: usize,
    /// Bytes behind them that belong to the control frame in progress. What is behind those was handed over.
    control: usize,
    copied: u64,
}

impl Assembler {
    /// Uses `buffer`, whose content is discarded.
    pub fn new(buffer: Vec<u8>) -> Assembler {
        Assembler { buffer, message: 0, control: 0, copied: 0 }
    }

    /// Gives the buffer back, emptied.
    pub fn into_buffer(mut self) -> Vec<u8> {
        self.buffer.clear();
        self.buffer
    }

    /// Adds a part to the data message; at the last one returns the whole message.
    pub fn message_part(&mut self, payload: &[u8], last: bool) -> Option<&mut [u8]> {
        if last {
            return Some(self.last_message_part(payload));
        }
        self.append(payload);
        self.message += payload.len();
        None
    }

    /// Adds a part to the control frame; at the last one returns its whole payload. The data message stays as it is.
    pub fn control_part(&mut self, payload: &[u8], last: bool) -> Option<&mut [u8]> {
        if last {
            return Some(self.last_control_part(payload));
        }
        self.append(payload);
        self.control += payload.len();
        None
    }

    /// Whether nothing is in progress, so that the buffer can go elsewhere.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.message + self.control == 0
    }

    /// Payload bytes copied since this assembler was made.
    #[inline]
    pub fn copied(&self) -> u64 {
        self.copied
    }

    fn last_message_part(&mut self, payload: &[u8]) -> &mut [u8] {
        self.append(payload);
        self.message = 0;
        &mut self.buffer
    }

    fn last_control_part(&mut self, payload: &[u8]) -> &mut [u8] {
        self.append(payload);
        self.control = 0;
        &mut self.buffer[self.message..]
    }

    fn append(&mut self, payload: &[u8]) {
        self.buffer.truncate(self.message + self.control);
        self.buffer.extend_from_slice(payload);
        self.copied += payload.len() as u64;
    }
}

/// A whole message or control frame, as [`MessageReader::next`] returns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// A message.
    Message {
        /// Text has been checked.
        kind: MessageKind,
        /// At most [`ReadLimits::max_message`] bytes.
        payload: &'a [u8],
    },
    /// To be answered with a Pong of the same payload.
    Ping(&'a [u8]),
    /// Needs no answer.
    Pong(&'a [u8]),
    /// The closing handshake: to be answered with a Close frame, unless ours was sent first. Code and reason, if there
    /// are any. It is the last that comes.
    Close(Option<(CloseCode, &'a str)>),
}

/// [`Reader`], [`Assembler`] and limits in one: the receiving half for those who bring their own transport.
///
/// A message that lies whole in the bytes given is lent from there; one that was cut is copied once into a buffer that
/// grows up to the largest message and stays.
#[derive(Debug)]
pub struct MessageReader {
    reader: Reader,
    assembler: Assembler,
    limits: ReadLimits,
    closed: bool,
}

/// The two halves of a server's side of a connection, after the opening handshake.
pub fn server(limits: ReadLimits) -> (MessageReader, Writer) {
    (MessageReader::new(Role::Server, limits), Writer::new(Role::Server))
}

/// The two halves of a client's side of a connection, after the opening handshake.
pub fn client(limits: ReadLimits) -> (MessageReader, Writer) {
    (MessageReader::new(Role::Client, limits), Writer::new(Role::Client))
}

impl MessageReader {
    /// The receiving half alone. `role` is our side.
    pub fn new(role: Role, limits: ReadLimits) -> MessageReader {
        MessageReader { reader: Reader::new(role), assembler: Assembler::default(), limits, closed: false }
    }

    /// Takes the next message or control frame from the front of `data`, which then begins behind it; `None`: all bytes
    /// are used up. What follows a Close frame is discarded (RFC 6455 §5.5.1).
    ///
    /// # Errors
    /// What fails the connection: send a Close frame with its [`close_code`](ProtoError::close_code), then drop the
    /// connection. From then on the same error.
    #[inline]
    pub fn next<'s, 'd: 's>(&'s mut self, data: &mut &'d mut [u8]) -> Result<Option<Incoming<'s>>, ProtoError> {
        if self.closed {
            *data = &mut [];
        }
        loop {
            match self.reader.next(data, &self.limits)? {
                Event::NeedMore => return Ok(None),
                Event::Message { kind, payload } => return Ok(Some(Incoming::Message { kind, payload })),
                Event::MessagePart { kind, payload, last: true } => {
                    let payload = self.assembler.last_message_part(payload);
                    return Ok(Some(Incoming::Message { kind, payload }));
                }
                Event::MessagePart { payload, .. } => _ = self.assembler.message_part(payload, false),
                Event::Control { kind, payload } => {
                    return control(&mut self.reader, &mut self.closed, kind, payload).map(Some);
                }
                Event::ControlPart { kind, payload, last: true } => {
                    let payload = self.assembler.last_control_part(payload);
                    return control(&mut self.reader, &mut self.closed, kind, payload).map(Some);
                }
                Event::ControlPart { payload, .. } => _ = self.assembler.control_part(payload, false),
            }
        }
    }

    /// Payload bytes copied so far: 0 as long as everything arrived whole.
    pub fn copied(&self) -> u64 {
        self.assembler.copied()
    }
}

fn control<'a>(
    reader: &mut Reader,
    closed: &mut bool,
    kind: ControlKind,
    payload: &'a [u8],
) -> Result<Incoming<'a>, ProtoError> {
    match kind {
        ControlKind::Ping => Ok(Incoming::Ping(payload)),
        ControlKind::Pong => Ok(Incoming::Pong(payload)),
        ControlKind::Close => {
            *closed = true;
            parse_close(payload).map(Incoming::Close).map_err(|error| reader.fail(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_frames_leave_the_message_alone() {
        let mut assembler = Assembler::new(b"left over".to_vec());
        assert!(assembler.is_empty());
        assert_eq!(assembler.message_part(b"one ", false), None);
        assert_eq!(assembler.control_part(b"pi", false), None);
        assert_eq!(assembler.control_part(b"ng", true), Some(&mut b"ping"[..].to_vec()[..]));
        assert_eq!(assembler.control_part(b"", true), Some(&mut [][..]));
        assert!(!assembler.is_empty());
        assert_eq!(assembler.message_part(b"two", true), Some(&mut b"one two"[..].to_vec()[..]));
        assert!(assembler.is_empty());
        assert_eq!(assembler.control_part(b"pong", true), Some(&mut b"pong"[..].to_vec()[..]));
        assert_eq!(assembler.message_part(b"", true), Some(&mut [][..]));
        assert_eq!(assembler.copied(), 15);
        let buffer = assembler.into_buffer();
        assert!(buffer.is_empty() && buffer.capacity() >= 8);
    }
}
