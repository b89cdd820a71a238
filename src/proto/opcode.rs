//! What a frame is (RFC 6455 §5.2, §11.8).
#![forbid(unsafe_code)]

/// The opcode of a frame. The values are those of the wire; all others are reserved and fail the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with a fragmented message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// Starts or answers the closing handshake.
    Close = 8,
    /// Asks for a Pong.
    Ping = 9,
    /// Answers a Ping, or says unasked that the sender lives.
    Pong = 10,
}

/// What a message carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MessageKind {
    /// UTF-8. The reader has checked it; the writer trusts its caller.
    Text,
    /// Any bytes.
    Binary,
}

/// Which control frame. It carries at most 125 bytes and may come between the fragments of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ControlKind {
    /// See [`parse_close`](super::parse_close) for its payload.
    Close,
    /// To be answered with a Pong of the same payload.
    Ping,
    /// Needs no answer.
    Pong,
}

impl Opcode {
    /// The opcode of a wire value (the low 4 bits of a frame's first byte); `None` if it is reserved.
    #[inline]
    pub const fn from_wire(value: u8) -> Option<Opcode> {
        Some(match value {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    /// Whether it is a control frame (RFC 6455 §5.5).
    #[inline]
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }

    /// The kind of message that a frame with this opcode begins.
    #[inline]
    pub const fn message_kind(self) -> Option<MessageKind> {
        match self {
            Opcode::Text => Some(MessageKind::Text),
            Opcode::Binary => Some(MessageKind::Binary),
            _ => None,
        }
    }

    /// The kind of control frame.
    #[inline]
    pub const fn control_kind(self) -> Option<ControlKind> {
        match self {
            Opcode::Close => Some(ControlKind::Close),
            Opcode::Ping => Some(ControlKind::Ping),
            Opcode::Pong => Some(ControlKind::Pong),
            _ => None,
        }
    }
}

impl From<MessageKind> for Opcode {
    #[inline]
    fn from(kind: MessageKind) -> Opcode {
        match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        }
    }
}

impl From<ControlKind> for Opcode {
    #[inline]
    fn from(kind: ControlKind) -> Opcode {
        match kind {
            ControlKind::Close => Opcode::Close,
            ControlKind::Ping => Opcode::Ping,
            ControlKind::Pong => Opcode::Pong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_values_go_both_ways_and_the_rest_is_reserved() {
        for value in 0..=255 {
            match Opcode::from_wire(value) {
                Some(opcode) => assert_eq!(opcode as u8, value),
                None => assert!(!matches!(value, 0..=2 | 8..=10)),
            }
        }
    }

    #[test]
    fn every_opcode_but_continuation_has_exactly_one_kind() {
        for opcode in (0..16).filter_map(Opcode::from_wire) {
            assert_eq!(opcode.control_kind().is_some(), opcode.is_control());
            assert_eq!(opcode.message_kind().is_some(), !opcode.is_control() && opcode != Opcode::Continuation);
            assert!(opcode.message_kind().is_none_or(|kind| Opcode::from(kind) == opcode));
            assert!(opcode.control_kind().is_none_or(|kind| Opcode::from(kind) == opcode));
        }
    }
}
