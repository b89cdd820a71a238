//! [`Serializer`]: between the bytes of a WebSocket message and an [`Envelope`].
#![forbid(unsafe_code)]

use super::{Envelope, Outgoing, json_read::Scanner};
use crate::proto::MessageKind;
use std::{error, fmt};

/// One version of the wire format. It keeps no state, so that one encoding of a broadcast serves all its clients.
pub trait Serializer: Send + Sync + 'static {
    /// Reads a message.
    ///
    /// # Errors
    /// It is none of this format: the connection is closed with 1011.
    fn decode<'a>(&self, kind: MessageKind, bytes: &'a [u8]) -> Result<Envelope<'a>, DecodeError>;

    /// Writes a message behind what is in `out`, and says what kind of frame it goes into.
    ///
    /// # Errors
    /// It cannot be written in this format; `out` is as before.
    fn encode(&self, message: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<MessageKind, EncodeError>;
}

/// Why bytes are no message. The fault is the client's; the connection is closed with 1011.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// No JSON.
    Json,
    /// JSON, but not the five slots; or a slot's string holds half of a surrogate pair, and is no text.
    Shape,
    /// A binary message whose kind or lengths are wrong.
    Binary,
    /// A binary message to a format that has none.
    NoBinary,
}

/// Why a message cannot be written. The fault is the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A slot of a binary message is longer than 255 bytes, or cannot be written as a string.
    Slot,
    /// Bytes in a format that has none.
    NoBinary,
}

impl DecodeError {
    /// What is wrong with a text in which the slots were not found.
    pub(super) fn of(text: &str) -> DecodeError {
        if Scanner::only(text).is_some() { DecodeError::Shape } else { DecodeError::Json }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Json => "the message is not JSON",
            DecodeError::Shape => "the message has not the five slots",
            DecodeError::Binary => "the binary message is malformed",
            DecodeError::NoBinary => "this format has no binary messages",
        })
    }
}

impl error::Error for DecodeError {}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodeError::Slot => "a slot does not fit into a binary message",
            EncodeError::NoBinary => "this format has no binary messages",
        })
    }
}

impl error::Error for EncodeError {}
