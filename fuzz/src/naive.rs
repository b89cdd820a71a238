//! A second decoder of RFC 6455: slow, with everything in memory, one rule after the other. It knows where each error
//! becomes certain, which is where the real one has to fail.
#![forbid(unsafe_code)]

use wingbeat::proto::{MessageKind, ProtoError, ReadLimits, Role};

/// A whole message or control frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The payload as it is.
    Close(Vec<u8>),
}

/// What was found, and the error with the index of the byte that makes it certain.
pub(crate) type Decoded = (Vec<Item>, Option<(ProtoError, usize)>);

/// The message in progress.
struct Message {
    kind: MessageKind,
    bytes: Vec<u8>,
    fragments: u32,
}

/// Decodes all of `bytes`. `judge_close`: payloads of Close frames are checked, and nothing follows the first one.
pub(crate) fn decode(role: Role, limits: &ReadLimits, bytes: &[u8], judge_close: bool) -> Decoded {
    let mut items = Vec::new();
    let mut message = None;
    let mut at = 0;
    loop {
        match frame(role, limits, bytes, at, &mut message) {
            Err(error) => return (items, Some(error)),
            Ok(None) => return (items, None),
            Ok(Some((end, item))) => {
                let close = match &item {
                    Some(Item::Close(payload)) if judge_close => Some(check_close(payload)),
                    _ => None,
                };
                if let Some(Err(error)) = close {
                    return (items, Some((error, end - 1)));
                }
                items.extend(item);
                if close.is_some() {
                    return (items, None);
                }
                at = end;
            }
        }
    }
}

type Frame = Result<Option<(usize, Option<Item>)>, (ProtoError, usize)>;

/// The frame at `at`: its end and what it completes. `None`: it is cut, and so far nothing is wrong with it.
fn frame(role: Role, limits: &ReadLimits, bytes: &[u8], at: usize, message: &mut Option<Message>) -> Frame {
    let Some(&first) = bytes.get(at) else { return Ok(None) };
    let (fin, opcode) = (first >= 0x80, first & 0x0f);
    let control = opcode >= 8;
    let rules = [
        (first & 0x70 != 0, ProtoError::ReservedBits),
        (!matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10), ProtoError::UnknownOpcode),
        (control && !fin, ProtoError::FragmentedControl),
        (opcode == 0 && message.is_none(), ProtoError::UnexpectedContinuation),
        ((opcode == 1 || opcode == 2) && message.is_some(), ProtoError::UnfinishedMessage),
    ];
    if let Some((_, error)) = rules.into_iter().find(|(broken, _)| *broken) {
        return Err((error, at));
    }
    let Some(&second) = bytes.get(at + 1) else { return Ok(None) };
    let masked = second >= 0x80;
    if role == Role::Server && !masked {
        return Err((ProtoError::UnmaskedFrame, at + 1));
    }
    if role == Role::Client && masked {
        return Err((ProtoError::MaskedFrame, at + 1));
    }
    if control && second & 0x7f > 125 {
        return Err((ProtoError::ControlTooLong, at + 1));
    }
    let Some((length, after_length)) = length(bytes, at)? else { return Ok(None) };
    let start = after_length + if masked { 4 } else { 0 };
    if bytes.len() < start {
        return Ok(None);
    }
    let key = if masked { bytes[after_length..start].to_vec() } else { vec![0] };
    if control {
        return Ok(control_frame(bytes, opcode, start, length as usize, &key));
    }
    data_frame(limits, bytes, (fin, opcode), (start, length), &key, message)
}

/// The length and where the header goes on behind it.
fn length(bytes: &[u8], at: usize) -> Result<Option<(u64, usize)>, (ProtoError, usize)> {
    let size = match bytes[at + 1] & 0x7f {
        126 => 2,
        127 => 8,
        short => return Ok(Some((u64::from(short), at + 2))),
    };
    let mut length = 0;
    for i in 0..size {
        let Some(&byte) = bytes.get(at + 2 + i) else { return Ok(None) };
        length = length << 8 | u64::from(byte);
        let here = at + 2 + i;
        if size == 8 && i == 0 && byte >= 0x80 {
            return Err((ProtoError::LengthTooLarge, here));
        }
        if size == 2 && i == 1 && length < 126 || size == 8 && i == 5 && length == 0 {
            return Err((ProtoError::LengthNotMinimal, here));
        }
    }
    Ok(Some((length, at + 2 + size)))
}

fn control_frame(bytes: &[u8], opcode: u8, start: usize, length: usize, key: &[u8]) -> Option<(usize, Option<Item>)> {
    let payload = bytes.get(start..start + length)?;
    let payload = payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % key.len()]).collect();
    let item = match opcode {
        8 => Item::Close(payload),
        9 => Item::Ping(payload),
        _ => Item::Pong(payload),
    };
    Some((start + length, Some(item)))
}

fn data_frame(
    limits: &ReadLimits,
    bytes: &[u8],
    (fin, opcode): (bool, u8),
    (start, length): (usize, u64),
    key: &[u8],
    message: &mut Option<Message>,
) -> Frame {
    let fragmented = !fin || opcode == 0;
    let kind = if opcode == 1 { MessageKind::Text } else { MessageKind::Binary };
    let current = message.get_or_insert(Message { kind, bytes: Vec::new(), fragments: 0 });
    let total = current.bytes.len() as u64 + length;
    if total > u64::from(limits.max_message) {
        return Err((ProtoError::MessageTooBig, start - 1));
    }
    current.fragments += 1;
    let least = u64::from(current.fragments) * u64::from(limits.min_fragment_bytes);
    if fragmented && current.fragments > limits.free_fragments && total < least {
        return Err((ProtoError::TooManyFragments, start - 1));
    }
    for i in 0..length as usize {
        let Some(&byte) = bytes.get(start + i) else { return Ok(None) };
        current.bytes.push(byte ^ key[i % key.len()]);
        if current.kind == MessageKind::Text && !begins_text(&current.bytes) {
            return Err((ProtoError::InvalidUtf8, start + i));
        }
    }
    let end = start + length as usize;
    if !fin {
        return Ok(Some((end, None)));
    }
    let Message { kind, bytes: payload, .. } = message.take().expect("it is in progress");
    if kind == MessageKind::Text && std::str::from_utf8(&payload).is_err() {
        return Err((ProtoError::InvalidUtf8, end - 1));
    }
    Ok(Some((end, Some(Item::Message(kind, payload)))))
}

/// Whether some valid text begins with these bytes, the last of which is new.
fn begins_text(bytes: &[u8]) -> bool {
    let recent = &bytes[bytes.len().saturating_sub(8)..];
    // All before the last byte was good: what begins within a code point is skipped.
    let start = recent.iter().position(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    std::str::from_utf8(&recent[start..]).map_or_else(|error| error.error_len().is_none(), |_| true)
}

fn check_close(payload: &[u8]) -> Result<(), ProtoError> {
    let (code, reason) = match payload {
        [] => return Ok(()),
        [_] => return Err(ProtoError::BadCloseLength),
        [high, low, reason @ ..] => (u32::from(*high) * 256 + u32::from(*low), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ProtoError::BadCloseCode);
    }
    std::str::from_utf8(reason).map(|_| ()).map_err(|_| ProtoError::InvalidUtf8)
}
