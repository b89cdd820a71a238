//! The binary messages of [`V2`](super::V2): a kind, a byte per length, the slots, the data.
//!
//! ```text
//! client, push   0 | join_ref ref topic event | data        four lengths, then what they measure
//! server, push   0 | join_ref topic event | data
//! reply          1 | join_ref ref topic status | data
//! broadcast      2 | topic event | data
//! ```
//! A kind means one thing in one direction only. Null is written as length 0; what is read with length 0 is the empty
//! string, which is not null.
#![forbid(unsafe_code)]

use super::{EncodeError, Envelope, Outgoing, Payload, Slot};

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;

/// Reads what clients send; none if it is something else, or a slot is not UTF-8.
pub(super) fn decode(bytes: &[u8]) -> Option<Envelope<'_>> {
    let (&[PUSH, join_ref, reference, topic, event], rest) = bytes.split_first_chunk()? else { return None };
    let lengths = [join_ref, reference, topic, event].map(usize::from);
    let (slots, data) = rest.split_at_checked(lengths.iter().sum())?;
    let mut slots = simdutf8::basic::from_utf8(slots).ok()?;
    let mut next = |length| {
        let (slot, behind) = slots.split_at_checked(length)?;
        slots = behind;
        Some(Slot::from(slot))
    };
    Some(Envelope {
        join_ref: next(lengths[0])?,
        reference: next(lengths[1])?,
        topic: next(lengths[2])?,
        event: next(lengths[3])?,
        payload: Payload::Binary(data),
    })
}

/// Writes a message whose payload is `data`.
pub(super) fn encode(message: &Outgoing<'_>, data: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match message {
        Outgoing::Reply { join_ref, reference, topic, status, .. } => {
            let topic = topic.as_text().ok_or(EncodeError::Slot)?;
            write(REPLY, [spell(join_ref)?, spell(reference)?, topic, status], data, out)
        }
        Outgoing::Push { join_ref, topic, event, .. } => write(PUSH, [spell(join_ref)?, topic, event], data, out),
        Outgoing::Broadcast { topic, event, .. } => write(BROADCAST, [topic, event], data, out),
    }
}

/// A ref as bytes: those of a number or a truth value are its JSON text, as Phoenix has it.
fn spell<'a>(reference: &'a Slot<'_>) -> Result<&'a str, EncodeError> {
    match reference {
        Slot::Null => Ok(""),
        Slot::Text(text) => Ok(text),
        Slot::Other(json) if json.starts_with(['[', '{']) => Err(EncodeError::Slot),
        Slot::Other(json) => Ok(json),
    }
}

fn write<const N: usize>(kind: u8, slots: [&str; N], data: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if slots.iter().any(|slot| slot.len() > usize::from(u8::MAX)) {
        return Err(EncodeError::Slot);
    }
    out.push(kind);
    out.extend_from_slice(&slots.map(|slot| slot.len() as u8));
    slots.iter().for_each(|slot| out.extend_from_slice(slot.as_bytes()));
    out.extend_from_slice(data);
    Ok(())
}
