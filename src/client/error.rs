//! What can go wrong on a client's connection.
#![forbid(unsafe_code)]

use std::{error::Error, fmt, io};

use crate::proto::handshake::HandshakeError;
use crate::proto::handshake::client::UrlError;
use crate::proto::{ProtoError, WriteError};

/// Why a call of a [`Client`](super::Client) failed. Which of them end the connection, the calls say.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL cannot be used. Ours.
    Url(UrlError),
    /// The opening handshake failed, or could not be written as wanted; the variant tells whose fault it is.
    Handshake(HandshakeError),
    /// The peer broke the protocol, or went beyond a limit. It was sent the close code.
    Protocol(ProtoError),
    /// The frame cannot be sent; nothing was. Ours.
    Write(WriteError),
    /// A deadline passed. Whether a retry makes sense, the call says.
    Timeout,
    /// The peer ended the stream without a closing handshake: 1006 (RFC 6455 §7.1.5). It may be worth connecting again.
    Disconnected,
    /// The connection had ended before the call.
    Ended,
    /// The operating system said so.
    Io(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Url(error) => error.fmt(f),
            ClientError::Handshake(error) => error.fmt(f),
            ClientError::Protocol(error) => error.fmt(f),
            ClientError::Write(error) => error.fmt(f),
            ClientError::Timeout => f.write_str("timed out"),
            ClientError::Disconnected => f.write_str("the server dropped the connection without a Close frame"),
            ClientError::Ended => f.write_str("the connection has ended"),
            ClientError::Io(error) => error.fmt(f),
        }
    }
}

impl Error for ClientError {}

impl From<UrlError> for ClientError {
    fn from(error: UrlError) -> ClientError {
        ClientError::Url(error)
    }
}

impl From<HandshakeError> for ClientError {
    fn from(error: HandshakeError) -> ClientError {
        ClientError::Handshake(error)
    }
}

impl From<ProtoError> for ClientError {
    fn from(error: ProtoError) -> ClientError {
        ClientError::Protocol(error)
    }
}

impl From<WriteError> for ClientError {
    fn from(error: WriteError) -> ClientError {
        ClientError::Write(error)
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        match error.kind() {
            // A socket's timeout is reported as either, by system.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Timeout,
            _ => ClientError::Io(error),
        }
    }
}
