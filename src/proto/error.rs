//! What can go wrong in reading and in writing frames.
#![forbid(unsafe_code)]

use super::CloseCode;
use std::{error::Error, fmt};

/// Why a connection has to be failed (RFC 6455 §7.1.7). Reading on after it makes no sense: the place in the byte
/// stream is lost, and the reader keeps returning the same error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ProtoError {
    /// A client sent a frame without a masking key (RFC 6455 §5.1). 1002.
    UnmaskedFrame,
    /// A server sent a masked frame (RFC 6455 §5.1). 1002.
    MaskedFrame,
    /// A reserved bit is set, though no extension that defines it was agreed (RFC 6455 §5.2). 1002.
    ReservedBits,
    /// Opcode 3-7 or 11-15 (RFC 6455 §5.2). 1002.
    UnknownOpcode,
    /// A control frame without FIN (RFC 6455 §5.5). 1002.
    FragmentedControl,
    /// A control frame of more than 125 bytes (RFC 6455 §5.5). 1002.
    ControlTooLong,
    /// A length in more bytes than it needs (RFC 6455 §5.2). 1002.
    LengthNotMinimal,
    /// A length of 2^63 or more (RFC 6455 §5.2). 1002.
    LengthTooLarge,
    /// A continuation frame, but no message to go on with (RFC 6455 §5.4). 1002.
    UnexpectedContinuation,
    /// A new message before the one in progress was ended (RFC 6455 §5.4). 1002.
    UnfinishedMessage,
    /// A text message or a close reason that is not UTF-8 (RFC 6455 §8.1). 1007.
    InvalidUtf8,
    /// A Close frame of one byte (RFC 6455 §5.5.1). 1002.
    BadCloseLength,
    /// A Close frame with a code that must not be sent (RFC 6455 §7.4). 1002.
    BadCloseCode,
    /// A message beyond [`ReadLimits::max_message`](super::ReadLimits::max_message). 1009.
    MessageTooBig,
    /// A message in too many too small fragments, see
    /// [`ReadLimits::min_fragment_bytes`](super::ReadLimits::min_fragment_bytes). 1008.
    TooManyFragments,
}

/// Who caused an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// The peer broke the protocol.
    Peer,
    /// The peer's bytes were legal; a limit of this side refused them.
    Local,
}

/// Why a frame was not written. Nothing was appended. The cause is always this side's code, and the same call fails
/// again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// Our Close frame is written already; nothing may follow it (RFC 6455 §5.5.1).
    CloseSent,
    /// A Ping or Pong payload of more than 125 bytes (RFC 6455 §5.5).
    ControlTooLong,
    /// A close reason of more than 123 bytes (RFC 6455 §5.5).
    ReasonTooLong,
    /// A close reason without a code to stand behind (RFC 6455 §5.5.1).
    ReasonWithoutCode,
    /// A close code that is for reports only, such as 1005 (RFC 6455 §7.4.1).
    UnsendableCode,
}

const _: () = assert!(size_of::<ProtoError>() == 1 && size_of::<WriteError>() == 1);

impl ProtoError {
    /// The code of the Close frame that this error causes.
    #[inline]
    pub const fn close_code(self) -> CloseCode {
        match self {
            ProtoError::InvalidUtf8 => CloseCode::INVALID_DATA,
            ProtoError::MessageTooBig => CloseCode::TOO_BIG,
            ProtoError::TooManyFragments => CloseCode::POLICY,
            _ => CloseCode::PROTOCOL,
        }
    }

    /// Whether the peer broke the protocol or met a limit of ours.
    #[inline]
    pub const fn fault(self) -> Fault {
        match self {
            ProtoError::MessageTooBig | ProtoError::TooManyFragments => Fault::Local,
            _ => Fault::Peer,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            ProtoError::UnmaskedFrame => "a client's frame is not masked",
            ProtoError::MaskedFrame => "a server's frame is masked",
            ProtoError::ReservedBits => "a reserved bit is set",
            ProtoError::UnknownOpcode => "reserved opcode",
            ProtoError::FragmentedControl => "fragmented control frame",
            ProtoError::ControlTooLong => "control frame of more than 125 bytes",
            ProtoError::LengthNotMinimal => "length not in its shortest form",
            ProtoError::LengthTooLarge => "length of 2^63 bytes or more",
            ProtoError::UnexpectedContinuation => "continuation without a message",
            ProtoError::UnfinishedMessage => "new message before the end of the last",
            ProtoError::InvalidUtf8 => "invalid UTF-8",
            ProtoError::BadCloseLength => "close payload of one byte",
            ProtoError::BadCloseCode => "illegal close code",
            ProtoError::MessageTooBig => "message too big",
            ProtoError::TooManyFragments => "too many small fragments",
        }
    }
}

impl fmt::Display for ProtoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Error for ProtoError {}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WriteError::CloseSent => "a close frame was sent already",
            WriteError::ControlTooLong => "control payload of more than 125 bytes",
            WriteError::ReasonTooLong => "close reason of more than 123 bytes",
            WriteError::ReasonWithoutCode => "close reason without a close code",
            WriteError::UnsendableCode => "close code that must not be sent",
        })
    }
}

impl Error for WriteError {}
