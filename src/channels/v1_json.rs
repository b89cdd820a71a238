//! [`V1`]: the format of clients that name no version, or 1.0.
#![forbid(unsafe_code)]

use super::{
    DecodeError, EncodeError, Envelope, Json, Outgoing, Payload, Serializer, Slot, json_read::Scanner, json_write,
};
use crate::proto::MessageKind;

/// Version 1.0: a JSON object with `topic`, `event`, `payload` and `ref`, text only.
///
/// All four must be there; a client may add `join_ref`, the server never does. Of a key that comes twice the last
/// counts, others are ignored. What holds for [`V2`](super::V2) about allocations and depth holds here.
#[derive(Clone, Copy, Debug, Default)]
pub struct V1;

impl Serializer for V1 {
    fn decode<'a>(&self, kind: MessageKind, bytes: &'a [u8]) -> Result<Envelope<'a>, DecodeError> {
        if kind == MessageKind::Binary {
            return Err(DecodeError::NoBinary);
        }
        let text = simdutf8::basic::from_utf8(bytes).map_err(|_| DecodeError::Json)?;
        object(text).ok_or_else(|| DecodeError::of(text))
    }

    fn encode(&self, message: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<MessageKind, EncodeError> {
        if let Payload::Binary(_) = message.payload() {
            return Err(EncodeError::NoBinary);
        }
        encode(message, out);
        Ok(MessageKind::Text)
    }
}

fn object(text: &str) -> Option<Envelope<'_>> {
    let mut scanner = Scanner::new(text);
    let (mut join_ref, mut reference, mut topic, mut event, mut payload) = (Slot::Null, None, None, None, None);
    let mut more = scanner.eat(b'{');
    while more {
        let key = scanner.string()?;
        if !scanner.eat(b':') {
            return None;
        }
        match &*key {
            "join_ref" => join_ref = scanner.slot()?,
            "ref" => reference = Some(scanner.slot()?),
            "topic" => topic = Some(scanner.slot()?),
            "event" => event = Some(scanner.slot()?),
            "payload" => payload = Some(scanner.value()?),
            _ => _ = scanner.value()?,
        }
        more = scanner.eat(b',');
    }
    let whole = scanner.eat(b'}') && scanner.end();
    let payload = Payload::Json(Json::trusted(payload?));
    let (reference, topic, event) = (reference?, topic?, event?);
    whole.then_some(Envelope { join_ref, reference, topic, event, payload })
}

fn encode(message: &Outgoing<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"topic":"#);
    match message {
        Outgoing::Reply { reference, topic, status, response, .. } => {
            json_write::slot(out, topic);
            out.extend_from_slice(br#","event":"phx_reply","ref":"#);
            json_write::slot(out, reference);
            out.extend_from_slice(br#","payload":"#);
            json_write::reply(out, status, response);
        }
        Outgoing::Push { reference, topic, event, payload, .. } => end(out, topic, event, reference, payload),
        Outgoing::Broadcast { topic, event, payload } => end(out, topic, event, &Slot::NULL, payload),
    }
    out.push(b'}');
}

fn end(out: &mut Vec<u8>, topic: &str, event: &str, reference: &Slot<'_>, payload: &Payload<'_>) {
    json_write::string(out, topic);
    out.extend_from_slice(br#","event":"#);
    json_write::string(out, event);
    out.extend_from_slice(br#","ref":"#);
    json_write::slot(out, reference);
    out.extend_from_slice(br#","payload":"#);
    out.extend_from_slice(payload.as_bytes());
}
