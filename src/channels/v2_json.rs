//! [`V2`]: the current format, and its text messages.
#![forbid(unsafe_code)]

use super::{
    DecodeError, EncodeError, Envelope, Json, Outgoing, Payload, Serializer, Slot, json_read::Scanner, json_write,
    v2_binary,
};
use crate::proto::MessageKind;

/// Version 2.0: a JSON array `[join_ref, ref, topic, event, payload]`, or, if the payload is bytes, a binary layout.
///
/// Both kinds can be mixed freely; the payload alone decides. Further elements of an array are ignored. Decoding
/// allocates only for strings with escapes, encoding not at all. A payload may be nested as deep as its length allows:
/// it is not looked into; [`Payload::parse`] has serde_json's limit of 128 levels.
#[derive(Clone, Copy, Debug, Default)]
pub struct V2;

impl Serializer for V2 {
    fn decode<'a>(&self, kind: MessageKind, bytes: &'a [u8]) -> Result<Envelope<'a>, DecodeError> {
        match kind {
            MessageKind::Text => decode(bytes),
            MessageKind::Binary => v2_binary::decode(bytes).ok_or(DecodeError::Binary),
        }
    }

    fn encode(&self, message: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<MessageKind, EncodeError> {
        match message.payload() {
            Payload::Binary(data) => v2_binary::encode(message, data, out).map(|()| MessageKind::Binary),
            Payload::Json(_) => {
                encode(message, out);
                Ok(MessageKind::Text)
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| DecodeError::Json)?;
    five(text).ok_or_else(|| DecodeError::of(text))
}

fn five(text: &str) -> Option<Envelope<'_>> {
    let mut scanner = Scanner::new(text);
    let mut next = |mark| scanner.eat(mark).then(|| scanner.slot())?;
    let (join_ref, reference, topic, event) = (next(b'[')?, next(b',')?, next(b',')?, next(b',')?);
    let payload = scanner.eat(b',').then(|| scanner.value())??;
    while scanner.eat(b',') {
        scanner.value()?;
    }
    let whole = scanner.eat(b']') && scanner.end();
    let payload = Payload::Json(Json::trusted(payload));
    whole.then_some(Envelope { join_ref, reference, topic, event, payload })
}

fn encode(message: &Outgoing<'_>, out: &mut Vec<u8>) {
    match message {
        Outgoing::Reply { join_ref, reference, topic, status, response } => {
            begin(out, join_ref, reference);
            json_write::slot(out, topic);
            out.extend_from_slice(br#","phx_reply","#);
            json_write::reply(out, status, response);
        }
        Outgoing::Push { join_ref, reference, topic, event, payload } => {
            begin(out, join_ref, reference);
            end(out, topic, event, payload);
        }
        Outgoing::Broadcast { topic, event, payload } => {
            begin(out, &Slot::NULL, &Slot::NULL);
            end(out, topic, event, payload);
        }
    }
    out.push(b']');
}

fn begin(out: &mut Vec<u8>, join_ref: &Slot<'_>, reference: &Slot<'_>) {
    out.push(b'[');
    json_write::slot(out, join_ref);
    out.push(b',');
    json_write::slot(out, reference);
    out.push(b',');
}

fn end(out: &mut Vec<u8>, topic: &str, event: &str, payload: &Payload<'_>) {
    json_write::string(out, topic);
    out.push(b',');
    json_write::string(out, event);
    out.push(b',');
    out.extend_from_slice(payload.as_bytes());
}
