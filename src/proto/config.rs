//! What a reader is told: which side it is on, and its limits.
#![forbid(unsafe_code)]

/// Which side of the connection we are.
///
/// A server's reader demands masked frames and its writer sends unmasked ones; a client the other way round
/// (RFC 6455 §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// We accepted the connection.
    Server,
    /// We opened it.
    Client,
}

/// What a [`Reader`](super::Reader) accepts. Judged when a frame's header is known, before any of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimits {
    /// Payload bytes of a message, all fragments together, inclusive. Beyond it
    /// [`MessageTooBig`](super::ProtoError::MessageTooBig) (1009). 1 MiB.
    pub max_message: u32,
    /// Fragments of a message that may have any size. 1,024.
    pub free_fragments: u32,
    /// Payload bytes that a message of more fragments must have per fragment, on average over all of them so far, else
    /// [`TooManyFragments`](super::ProtoError::TooManyFragments) (1008). It bounds the work that a message of many tiny
    /// fragments causes; their count alone costs no memory. 32.
    pub min_fragment_bytes: u32,
}

impl Default for ReadLimits {
    fn default() -> Self {
        ReadLimits { max_message: 1 << 20, free_fragments: 1024, min_fragment_bytes: 32 }
    }
}
