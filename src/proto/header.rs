//! The frame header (RFC 6455 §5.2).
#![forbid(unsafe_code)]

use super::{MaskingKey, Opcode, ProtoError, Role};

/// Payload bytes that a control frame has at most (RFC 6455 §5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

pub(super) const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
pub(super) const MASKED: u8 = 0x80;
pub(super) const LENGTH: u8 = 0x7f;
/// Values of the 7 length bits that say: 2 or 8 bytes of length follow.
pub(super) const LENGTH_16: u8 = 126;
pub(super) const LENGTH_64: u8 = 127;

/// A header that was checked, as far as it can be by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    /// Payload bytes, below 2^63.
    pub(super) len: u64,
    /// Zero in a frame that is not masked.
    pub(super) key: MaskingKey,
    /// Bytes of the header itself.
    pub(super) size: usize,
}

impl Header {
    /// Bytes of the longest header.
    pub(super) const MAX_SIZE: usize = 14;

    /// Reads the header at the front of `bytes`; `None` if it is cut. `role` is ours. `in_message`: whether a message
    /// is in progress.
    ///
    /// Each check is made as soon as its byte is there, and in the order of the bytes: a bad header fails with the same
    /// error however it is cut.
    #[inline]
    pub(super) fn parse(bytes: &[u8], role: Role, in_message: bool) -> Result<Option<Header>, ProtoError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (fin, opcode) = check_first(first, in_message)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        check_second(second, opcode, role)?;
        let (len, at) = match second & LENGTH {
            LENGTH_16 => match length_16(bytes)? {
                Some(len) => (len, 4),
                None => return Ok(None),
            },
            LENGTH_64 => match length_64(bytes)? {
                Some(len) => (len, 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        if role == Role::Client {
            return Ok(Some(Header { fin, opcode, len, key: MaskingKey::default(), size: at }));
        }
        let Some(&key) = bytes[at..].first_chunk() else { return Ok(None) };
        Ok(Some(Header { fin, opcode, len, key: MaskingKey(key), size: at + 4 }))
    }

    /// Bytes of the header that begins with `bytes`, as far as they tell: the size, or 2 if there are fewer.
    pub(super) fn announced_size(bytes: &[u8]) -> usize {
        let [_, second, ..] = bytes else { return 2 };
        let length = match second & LENGTH {
            LENGTH_16 => 2,
            LENGTH_64 => 8,
            _ => 0,
        };
        2 + length + if second & MASKED != 0 { 4 } else { 0 }
    }

    /// Whether the frame is a whole data message by itself.
    #[inline]
    pub(super) fn is_unfragmented(&self) -> bool {
        self.fin && self.opcode.message_kind().is_some()
    }
}

#[inline]
fn check_first(first: u8, in_message: bool) -> Result<(bool, Opcode), ProtoError> {
    let fin = first & FIN != 0;
    if first & RESERVED != 0 {
        return Err(ProtoError::ReservedBits);
    }
    match Opcode::from_wire(first & OPCODE) {
        None => Err(ProtoError::UnknownOpcode),
        Some(opcode) if opcode.is_control() && !fin => Err(ProtoError::FragmentedControl),
        Some(Opcode::Continuation) if !in_message => Err(ProtoError::UnexpectedContinuation),
        Some(Opcode::Text | Opcode::Binary) if in_message => Err(ProtoError::UnfinishedMessage),
        Some(opcode) => Ok((fin, opcode)),
    }
}

#[inline]
fn check_second(second: u8, opcode: Opcode, role: Role) -> Result<(), ProtoError> {
    match (role, second & MASKED != 0) {
        (Role::Server, false) => Err(ProtoError::UnmaskedFrame),
        (Role::Client, true) => Err(ProtoError::MaskedFrame),
        _ if opcode.is_control() && (second & LENGTH) as usize > MAX_CONTROL_PAYLOAD => Err(ProtoError::ControlTooLong),
        _ => Ok(()),
    }
}

#[inline]
fn length_16(bytes: &[u8]) -> Result<Option<u64>, ProtoError> {
    let Some(&length) = bytes[2..].first_chunk() else { return Ok(None) };
    let len = u16::from_be_bytes(length);
    if len < u16::from(LENGTH_16) { Err(ProtoError::LengthNotMinimal) } else { Ok(Some(u64::from(len))) }
}

#[inline]
fn length_64(bytes: &[u8]) -> Result<Option<u64>, ProtoError> {
    let length = &bytes[2..];
    if length.first().is_some_and(|high| high & 0x80 != 0) {
        return Err(ProtoError::LengthTooLarge);
    }
    if length.starts_with(&[0; 6]) {
        return Err(ProtoError::LengthNotMinimal); // it fits into 2 bytes
    }
    Ok(length.first_chunk().map(|&length| u64::from_be_bytes(length)))
}
