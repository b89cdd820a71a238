//! How a client connects.
#![forbid(unsafe_code)]

use std::io::Write;
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::keys::{self, Keys};
use super::stream::{Stream, after};
use super::{Client, ClientError, INPUT_BYTES};
use crate::proto::handshake::client::{self as handshake, RequestHead, Url};
use crate::proto::handshake::{HandshakeError, RequestLimits};
use crate::proto::{self, ReadLimits};

const _: () = assert!(INPUT_BYTES >= RequestLimits::DEFAULT.max_bytes as usize, "a head must fit into the buffer");

/// What a [`Client`] is to be; made by [`Client::builder`]. What is wrong in it, [`connect`](Builder::connect) reports.
#[derive(Debug)]
pub struct Builder {
    plan: Result<Plan, ClientError>,
    limits: ReadLimits,
    connect_timeout: Duration,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    close_timeout: Duration,
}

#[derive(Debug)]
struct Plan {
    place: Place,
    head: RequestHead,
}

#[derive(Debug)]
enum Place {
    Tcp {
        host: String,
        port: u16,
    },
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Builder {
    pub(super) fn tcp(url: &str) -> Builder {
        Builder::new(Url::parse(url).map_err(ClientError::from).map(|url| Plan {
            head: RequestHead::to(&url),
            place: Place::Tcp { host: url.host().to_owned(), port: url.port() },
        }))
    }

    #[cfg(unix)]
    pub(super) fn unix(path: &Path, target: &str) -> Builder {
        let head = RequestHead::new("localhost", target).map_err(ClientError::from);
        Builder::new(head.map(|head| Plan { head, place: Place::Unix(path.to_owned()) }))
    }

    fn new(plan: Result<Plan, ClientError>) -> Builder {
        Builder {
            plan,
            limits: ReadLimits::default(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: None,
            write_timeout: None,
            close_timeout: Duration::from_secs(5),
        }
    }

    /// Adds a header to the request; those that the handshake writes itself are refused.
    pub fn header(self, name: &str, value: &str) -> Builder {
        self.with_head(|head| head.header(name, value).map(drop))
    }

    /// Offers a subprotocol; the first offered is the most wanted.
    pub fn protocol(self, name: &str) -> Builder {
        self.with_head(|head| head.protocol(name).map(drop))
    }

    /// The longest that connecting and the opening handshake together may take. 10 s. Resolving a name, and connecting
    /// to a Unix socket, are not limited by it.
    pub fn connect_timeout(self, timeout: Duration) -> Builder {
        Builder { connect_timeout: timeout, ..self }
    }

    /// The longest that [`Client::receive`] may wait. No limit.
    pub fn read_timeout(self, timeout: Duration) -> Builder {
        Builder { read_timeout: Some(timeout), ..self }
    }

    /// The longest that one write to the socket may block, more than zero. No limit.
    pub fn write_timeout(self, timeout: Duration) -> Builder {
        Builder { write_timeout: Some(timeout), ..self }
    }

    /// The longest that a closing handshake may take, more than zero. 5 s.
    pub fn close_timeout(self, timeout: Duration) -> Builder {
        Builder { close_timeout: timeout, ..self }
    }

    /// The most payload bytes a received message may have; a larger one fails the connection (1009). 1 MiB.
    pub fn max_message(self, bytes: u32) -> Builder {
        Builder { limits: ReadLimits { max_message: bytes, ..self.limits }, ..self }
    }

    /// Connects and performs the opening handshake.
    ///
    /// # Errors
    /// [`ClientError::Url`] and [`ClientError::Handshake`] for what was put into the builder, before anything is sent;
    /// [`ClientError::Io`], [`ClientError::Timeout`] and [`ClientError::Disconnected`]; [`ClientError::Handshake`] for
    /// the server's answer, with [`Refused`](HandshakeError::Refused) if its status is not 101.
    pub fn connect(self) -> Result<Client, ClientError> {
        let Plan { place, head } = self.plan?;
        let deadline = after(self.connect_timeout);
        let mut stream = match &place {
            Place::Tcp { host, port } => Stream::connect(host, *port, deadline)?,
            #[cfg(unix)]
            Place::Unix(path) => Stream::Unix(std::os::unix::net::UnixStream::connect(path)?),
        };
        let nonce = keys::nonce()?;
        let mut output = Vec::new();
        head.write(&mut output, &nonce);
        stream.limit_writes(Some(self.connect_timeout))?;
        stream.write_all(&output)?;
        let mut input = vec![0; INPUT_BYTES].into_boxed_slice();
        let (answer, filled) = answer(&mut stream, &mut input, &head, &nonce, deadline)?;
        stream.limit_writes(self.write_timeout)?;
        let (reader, writer) = proto::client(self.limits);
        Ok(Client {
            stream,
            reader,
            writer,
            keys: Keys::new(),
            input,
            unread: answer.head_len()..filled,
            output,
            protocol: answer.protocol(&head).map(str::to_owned),
            read_timeout: self.read_timeout,
            close_timeout: self.close_timeout,
            close_by: None,
            write_failed: false,
            ended: false,
        })
    }

    fn with_head(mut self, change: impl FnOnce(&mut RequestHead) -> Result<(), HandshakeError>) -> Builder {
        if let Ok(plan) = &mut self.plan
            && let Err(error) = change(&mut plan.head)
        {
            self.plan = Err(error.into());
        }
        self
    }
}

/// Reads until the answer is complete; gives it, and the number of bytes read, frames behind it included.
fn answer(
    stream: &mut Stream,
    input: &mut [u8],
    head: &RequestHead,
    nonce: &[u8; 16],
    deadline: Instant,
) -> Result<(handshake::Response, usize), ClientError> {
    let mut filled = 0;
    loop {
        match stream.read_until(&mut input[filled..], Some(deadline))? {
            0 => return Err(ClientError::Disconnected),
            bytes => filled += bytes,
        }
        if let Some(answer) = handshake::parse_response(&input[..filled], head, nonce, &RequestLimits::DEFAULT)? {
            return Ok((answer, filled));
        }
    }
}
