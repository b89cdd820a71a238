//! [`Received`]: what a server sent, read back.
#![forbid(unsafe_code)]

use crate::proto::MessageKind;
use serde_json::{Map, Value, json};

/// A message that a client got.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Null in broadcasts; V1 never carries it.
    pub join_ref: Value,
    /// Null in all but replies, `phx_close` and `phx_error`.
    pub reference: Value,
    /// The topic; one that is no text, which a client may have sent, as its JSON.
    pub topic: String,
    /// The event.
    pub event: String,
    /// JSON as it is; bytes as an array of numbers.
    pub payload: Value,
}

impl Received {
    /// Reads what a server sends: V1 objects, V2 arrays and bytes.
    pub(super) fn read(kind: MessageKind, bytes: &[u8]) -> Received {
        if kind == MessageKind::Binary {
            return Received::read_binary(bytes);
        }
        if bytes.starts_with(b"{") {
            return Received::read_object(bytes);
        }
        let (join_ref, reference, topic, event, payload) = serde_json::from_slice(bytes).expect("what V2 writes");
        Received { join_ref, reference, topic: text(topic), event, payload }
    }

    fn read_object(bytes: &[u8]) -> Received {
        let mut slots: Map<String, Value> = serde_json::from_slice(bytes).expect("what V1 writes");
        let mut take = |slot| slots.remove(slot).expect("V1 writes four slots");
        let (reference, payload, topic, event) = (take("ref"), take("payload"), take("topic"), take("event"));
        assert!(slots.is_empty(), "V1 writes nothing else: {slots:?}");
        Received { join_ref: Value::Null, reference, topic: text(topic), event: text(event), payload }
    }

    fn read_binary(bytes: &[u8]) -> Received {
        let slots = [3, 4, 2][usize::from(bytes[0])]; // push, reply, broadcast
        let (lens, mut rest) = bytes[1..].split_at(slots);
        let mut texts = lens.iter().map(|len| {
            let (slot, behind) = rest.split_at(usize::from(*len));
            rest = behind;
            String::from_utf8(slot.to_vec()).expect("slots are text")
        });
        let mut next = || texts.next().expect("as many as lengths");
        let (join_ref, reference) = match bytes[0] {
            0 => (json!(next()), Value::Null),
            1 => (json!(next()), json!(next())),
            _ => (Value::Null, Value::Null),
        };
        let (topic, event) = (next(), next());
        let payload = json!(rest);
        match bytes[0] {
            1 => {
                let payload = json!({ "status": event, "response": payload });
                Received { join_ref, reference, topic, event: "phx_reply".to_owned(), payload }
            }
            _ => Received { join_ref, reference, topic, event, payload },
        }
    }
}

fn text(slot: Value) -> String {
    slot.as_str().map_or_else(|| slot.to_string(), str::to_owned)
}
