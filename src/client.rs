//! A small blocking client, for tools and tests: one thread, one connection, the standard library's sockets.
//!
//! ```no_run
//! use wingbeat::client::{Client, Message};
//! use wingbeat::proto::CloseCode;
//!
//! let mut client = Client::connect("ws://127.0.0.1:4000/echo")?;
//! client.send_text("hello")?;
//! assert_eq!(client.receive()?, Message::Text("hello".into()));
//! client.close(CloseCode::NORMAL, "done")?;
//! # Ok::<(), wingbeat::client::ClientError>(())
//! ```
//! [`Client::receive`] answers pings and the closing handshake by itself; nothing else happens between calls. A client
//! that only sends never sees a ping, and a server may close it for that. Dropping a client drops the connection
//! without a closing handshake; [`Client::close`] makes one.
#![forbid(unsafe_code)]

mod builder;
mod error;
mod keys;
mod stream;

use std::io::Write;
use std::ops::Range;
#[cfg(unix)]
use std::path::Path;
use std::time::{Duration, Instant};

use crate::proto::{CloseCode, Incoming, MaskingKey, MessageKind, MessageReader, ProtoError, WriteError, Writer};

pub use builder::Builder;
pub use error::ClientError;
pub use stream::Stream;

use keys::Keys;
use stream::after;

/// Bytes of the receive buffer: more than the head of a response may have, so that one fits whole.
const INPUT_BYTES: usize = 16 * 1024;

/// One WebSocket connection of a client, from the opening handshake to the end.
///
/// Holds 16 KiB for receiving, and what the largest message sent and the largest cut message received have needed.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    reader: MessageReader,
    writer: Writer,
    keys: Keys,
    input: Box<[u8]>,
    /// The bytes of `input` that came in and that `reader` has not taken yet.
    unread: Range<usize>,
    /// Frames on their way out; kept for its memory.
    output: Vec<u8>,
    protocol: Option<String>,
    read_timeout: Option<Duration>,
    close_timeout: Duration,
    /// When a closing handshake that we began has to be over.
    close_by: Option<Instant>,
    /// A write has failed: what the peer sees may end within a frame, so nothing can follow.
    write_failed: bool,
    ended: bool,
}

/// What [`Client::receive`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A Pong with its payload: the answer to [`Client::ping`], or one sent unasked.
    Pong(Vec<u8>),
    /// The closing handshake is complete, with the code and reason of the peer's Close frame if it has them. The last
    /// that comes.
    Closed(Option<(CloseCode, String)>),
}

impl Client {
    /// Connects to a `ws://` URL with the defaults of [`Builder`].
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub fn connect(url: &str) -> Result<Client, ClientError> {
        Client::builder(url).connect()
    }

    /// Connects to `target` (`/path?query`) at the Unix socket `path`. The `Host` header says `localhost`.
    ///
    /// # Errors
    /// As [`Builder::connect`].
    #[cfg(unix)]
    pub fn connect_unix(path: impl AsRef<Path>, target: &str) -> Result<Client, ClientError> {
        Client::builder_unix(path, target).connect()
    }

    /// Prepares a connection to a `ws://` URL.
    pub fn builder(url: &str) -> Builder {
        Builder::tcp(url)
    }

    /// Prepares a connection to `target` (`/path?query`) at the Unix socket `path`.
    #[cfg(unix)]
    pub fn builder_unix(path: impl AsRef<Path>, target: &str) -> Builder {
        Builder::unix(path.as_ref(), target)
    }

    /// Sends a text message in one frame. Blocks while the peer does not read, up to [`Builder::write_timeout`].
    ///
    /// # Errors
    /// [`ClientError::Write`] once a Close frame was sent, [`ClientError::Ended`] after the end, or
    /// [`ClientError::Io`] and [`ClientError::Timeout`], after which nothing more can be sent, while
    /// [`receive`](Client::receive) still returns what the peer sent before.
    pub fn send_text(&mut self, text: &str) -> Result<(), ClientError> {
        self.send(|writer, out, key| writer.message(out, MessageKind::Text, text.as_bytes(), key))
    }

    /// Sends a binary message in one frame. Blocks while the peer does not read, up to [`Builder::write_timeout`].
    ///
    /// # Errors
    /// As [`Client::send_text`].
    pub fn send_binary(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.send(|writer, out, key| writer.message(out, MessageKind::Binary, bytes, key))
    }

    /// Sends a Ping with up to 125 bytes; its answer comes as [`Message::Pong`].
    ///
    /// # Errors
    /// As [`Client::send_text`], and [`WriteError::ControlTooLong`].
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        self.send(|writer, out, key| writer.ping(out, payload, key))
    }

    /// Waits for the next message or for the end. Pings that come before it are answered, a Close frame too.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if no message was complete within [`Builder::read_timeout`]; calling again goes on where
    /// this call stopped. The others end the connection: [`ClientError::Disconnected`] without a Close frame,
    /// [`ClientError::Protocol`] when the peer broke the protocol or a limit (it has been told the close code),
    /// [`ClientError::Io`]. After the end [`ClientError::Ended`].
    pub fn receive(&mut self) -> Result<Message, ClientError> {
        self.receive_until(self.read_timeout.map(after))
    }

    /// Performs the closing handshake: sends a Close frame, waits for the peer's, and for the end of the stream, all
    /// within [`Builder::close_timeout`]. Returns what the peer's Close frame said. Messages that come until then are
    /// discarded.
    ///
    /// # Errors
    /// [`ClientError::Write`] if code or reason (up to 123 bytes) cannot be sent; the connection is then as it was.
    /// Otherwise as [`Client::receive`]; the connection has ended.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<Option<(CloseCode, String)>, ClientError> {
        self.put(|writer, out, key| writer.close(out, Some(code), reason, key))?;
        self.close_by = Some(after(self.close_timeout));
        let closed = self.await_close();
        if closed.is_err() {
            self.end();
        }
        closed
    }

    /// The subprotocol that the server chose, one of those offered.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The socket, to look at addresses or set options. Reading or writing it breaks the connection, and the client sets
    /// its read timeout anew with each call.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    fn await_close(&mut self) -> Result<Option<(CloseCode, String)>, ClientError> {
        self.stream.limit_writes(Some(self.close_timeout))?;
        // If the peer is gone, reading will tell, after what it still sent.
        _ = self.flush();
        loop {
            if let Message::Closed(status) = self.receive_until(self.close_by)? {
                return Ok(status);
            }
        }
    }

    fn receive_until(&mut self, deadline: Option<Instant>) -> Result<Message, ClientError> {
        if self.ended {
            return Err(ClientError::Ended);
        }
        loop {
            match self.next_read() {
                Ok(Some(Message::Closed(status))) => {
                    self.writer.close_received();
                    self.wind_up(status.as_ref().map(|(code, _)| *code));
                    return Ok(Message::Closed(status));
                }
                Ok(Some(message)) => return Ok(message),
                Ok(None) => self.fill(deadline)?,
                Err(error) => {
                    if let ClientError::Protocol(error) = error {
                        self.wind_up(Some(error.close_code()));
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The next message among the bytes that came in; `None`: more are needed.
    fn next_read(&mut self) -> Result<Option<Message>, ClientError> {
        loop {
            let mut data = &mut self.input[self.unread.clone()];
            let incoming = self.reader.next(&mut data);
            self.unread.start = self.unread.end - data.len();
            return Ok(Some(match incoming? {
                None => return Ok(None),
                Some(Incoming::Message { kind: MessageKind::Binary, payload }) => Message::Binary(payload.to_vec()),
                Some(Incoming::Message { kind: MessageKind::Text, payload }) => {
                    Message::Text(String::from_utf8(payload.to_vec()).map_err(|_| ProtoError::InvalidUtf8)?)
                }
                Some(Incoming::Pong(payload)) => Message::Pong(payload.to_vec()),
                Some(Incoming::Close(status)) => {
                    Message::Closed(status.map(|(code, reason)| (code, reason.to_owned())))
                }
                Some(Incoming::Ping(payload)) => {
                    if !self.writer.is_close_sent() && !self.write_failed {
                        self.output.clear();
                        self.writer.pong(&mut self.output, payload, self.keys.next()?)?;
                        _ = self.flush(); // as in `await_close`
                    }
                    continue;
                }
            }));
        }
    }

    fn send(
        &mut self,
        frame: impl FnOnce(&mut Writer, &mut Vec<u8>, MaskingKey) -> Result<(), WriteError>,
    ) -> Result<(), ClientError> {
        self.put(frame)?;
        self.flush()
    }

    /// Puts one frame into `output`.
    fn put(
        &mut self,
        frame: impl FnOnce(&mut Writer, &mut Vec<u8>, MaskingKey) -> Result<(), WriteError>,
    ) -> Result<(), ClientError> {
        if self.ended || self.write_failed {
            return Err(ClientError::Ended);
        }
        let key = self.keys.next()?;
        self.output.clear();
        Ok(frame(&mut self.writer, &mut self.output, key)?)
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        let written = self.stream.write_all(&self.output);
        self.write_failed |= written.is_err();
        Ok(written?)
    }

    /// Reads once, at most until `deadline`. Only for when all bytes are taken.
    fn fill(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        debug_assert!(self.unread.is_empty(), "bytes would be lost");
        match self.stream.read_until(&mut self.input, deadline) {
            Ok(0) => {
                self.end();
                Err(ClientError::Disconnected)
            }
            Ok(bytes) => {
                self.unread = 0..bytes;
                Ok(())
            }
            Err(ClientError::Timeout) => Err(ClientError::Timeout),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// Sends a Close frame unless there was one, and waits for the server to end the stream (RFC 6455 §7.1.1). Reading
    /// on until then also keeps the kernel from resetting the connection, which could take our Close frame with it.
    fn wind_up(&mut self, code: Option<CloseCode>) {
        if !self.writer.is_close_sent() {
            _ = self.stream.limit_writes(Some(self.close_timeout));
            _ = self.send(|writer, out, key| writer.close(out, code, "", key));
        }
        let deadline = self.close_by.unwrap_or_else(|| after(self.close_timeout));
        while self.stream.read_until(&mut self.input, Some(deadline)).is_ok_and(|bytes| bytes > 0) {}
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        self.stream.shut_down();
    }
}
