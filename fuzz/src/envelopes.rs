//! `envelope_json` and `envelope_binary`: messages of the Phoenix wire against a reading by `serde_json` or by hand,
//! and what was read, echoed, against the same reading.
#![forbid(unsafe_code)]

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::fmt;
use wingbeat::{
    MessageKind::{Binary, Text},
    channels::{DecodeError, EncodeError, Envelope, Json, Outgoing, Payload, Serializer, Slot, V1, V2},
};

/// The text as both versions read it, and their echo of it.
pub fn envelope_json(data: &[u8]) {
    let (v1, v2) = (V1.decode(Text, data), V2.decode(Text, data));
    let text = std::str::from_utf8(data).ok();
    let json = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    assert_eq!(text.is_some_and(|text| Json::new(text).is_ok()), json.is_some());
    let Some(json) = json else {
        return assert_eq!((v1, v2), (Err(DecodeError::Json), Err(DecodeError::Json)));
    };
    assert_eq!(v2.as_ref().ok(), naive_v2(json.get()).as_ref());
    assert_eq!(v1.as_ref().ok(), naive_v1(json.get()).as_ref());
    for (serializer, decoded) in [(&V1 as &dyn Serializer, v1), (&V2, v2)] {
        match decoded {
            Ok(envelope) => echo(serializer, &envelope),
            Err(error) => assert_eq!(error, DecodeError::Shape),
        }
    }
    assert_eq!(V1.decode(Binary, data), Err(DecodeError::NoBinary));
}

fn naive_v2(json: &str) -> Option<Envelope<'_>> {
    let values = serde_json::from_str::<Vec<&RawValue>>(json).ok()?;
    let [join_ref, reference, topic, event, payload, ..] = values[..] else { return None };
    Some(Envelope {
        join_ref: naive_slot(join_ref)?,
        reference: naive_slot(reference)?,
        topic: naive_slot(topic)?,
        event: naive_slot(event)?,
        payload: Payload::Json(payload.into()),
    })
}

fn naive_v1(json: &str) -> Option<Envelope<'_>> {
    let pairs = serde_json::from_str::<Pairs<'_>>(json).ok()?.0;
    let slot = |wanted: &str| {
        let slots = pairs.iter().filter(|(key, _)| key == wanted).map(|(_, value)| naive_slot(value));
        slots.collect::<Option<Vec<_>>>().map(|mut slots| slots.pop())
    };
    Some(Envelope {
        join_ref: slot("join_ref")?.unwrap_or_default(),
        reference: slot("ref")??,
        topic: slot("topic")??,
        event: slot("event")??,
        payload: Payload::Json(pairs.iter().rfind(|(key, _)| key == "payload")?.1.into()),
    })
}

fn naive_slot(value: &RawValue) -> Option<Slot<'_>> {
    Some(match value.get() {
        "null" => Slot::Null,
        string if string.starts_with('"') => Slot::Text(serde_json::from_str::<String>(string).ok()?.into()),
        other => Slot::Other(other.into()),
    })
}

/// Every pair of an object, in order: `serde_json`'s maps would keep one of a key.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    status: String,
    #[serde(borrow)]
    response: &'a RawValue,
}

/// The reply and the push that carry what came in are messages again, with the same parts.
fn echo(serializer: &dyn Serializer, envelope: &Envelope<'_>) {
    let mut out = Vec::new();
    let reply = reply(envelope, "o\"k");
    assert_eq!(serializer.encode(&reply, &mut out), Ok(Text));
    let back = serializer.decode(Text, &out).expect("a reply has five slots too");
    assert_eq!((&back.reference, &back.topic), (&envelope.reference, &envelope.topic));
    assert_eq!(back.event.as_text(), Some("phx_reply"));
    let v2 = out.starts_with(b"[");
    assert_eq!(back.join_ref, if v2 { envelope.join_ref.clone() } else { Slot::Null });
    let answer = back.payload.parse::<Answer<'_>>().expect("status and response");
    assert_eq!((answer.status.as_str(), Some(answer.response.get())), ("o\"k", envelope.payload.as_json()));

    let (Some(topic), Some(event)) = (envelope.topic.as_text(), envelope.event.as_text()) else { return };
    out.clear();
    let (join_ref, reference, payload) = (&envelope.join_ref, &envelope.reference, envelope.payload);
    let push = Outgoing::Push { join_ref, reference, topic, event, payload };
    assert_eq!(serializer.encode(&push, &mut out), Ok(Text));
    let mut back = serializer.decode(Text, &out).expect("a push has five slots too");
    if !v2 {
        back.join_ref = envelope.join_ref.clone();
    }
    assert_eq!(&back, envelope);
}

fn reply<'a>(envelope: &'a Envelope<'a>, status: &'a str) -> Outgoing<'a> {
    let Envelope { join_ref, reference, topic, payload, .. } = envelope;
    Outgoing::Reply { join_ref, reference, topic, status, response: *payload }
}

/// The bytes as a client's binary message, written again by a client, and echoed by the server in each layout.
pub fn envelope_binary(data: &[u8]) {
    let decoded = V2.decode(Binary, data);
    let Some((strings, payload)) = naive_layout(data, 0, 4) else {
        return assert_eq!(decoded, Err(DecodeError::Binary));
    };
    let envelope = decoded.expect("the layout is right");
    let [join_ref, reference, topic, event] = strings[..] else { unreachable!("four were asked for") };
    let slots = [&envelope.join_ref, &envelope.reference, &envelope.topic, &envelope.event];
    assert_eq!(slots.map(Slot::as_text), [join_ref, reference, topic, event].map(Some));
    assert_eq!(envelope.payload, Payload::Binary(payload));
    let lengths = strings.iter().map(|string| string.len() as u8);
    let again = [0].into_iter().chain(lengths).chain(strings.concat().into_bytes()).chain(payload.iter().copied());
    assert!(again.eq(data.iter().copied()), "a client would have written it otherwise");

    let push = Outgoing::Push { join_ref: slots[0], reference: slots[1], topic, event, payload: envelope.payload };
    let broadcast = Outgoing::Broadcast { topic, event, payload: envelope.payload };
    for (message, kind, expected) in [
        (push, 0, vec![join_ref, topic, event]),
        (reply(&envelope, event), 1, vec![join_ref, reference, topic, event]),
        (broadcast, 2, vec![topic, event]),
    ] {
        let mut out = Vec::new();
        assert_eq!(V2.encode(&message, &mut out), Ok(Binary));
        assert_eq!(naive_layout(&out, kind, expected.len()), Some((expected, payload)));
        assert_eq!(V1.encode(&message, &mut out), Err(EncodeError::NoBinary));
    }
}

/// A kind, `count` lengths, as many strings, data.
fn naive_layout(data: &[u8], kind: u8, count: usize) -> Option<(Vec<&str>, &[u8])> {
    if data.len() < 1 + count || data[0] != kind {
        return None;
    }
    let (mut at, mut strings) = (1 + count, Vec::new());
    for &length in &data[1..=count] {
        let end = at + usize::from(length);
        strings.push(std::str::from_utf8(data.get(at..end)?).ok()?);
        at = end;
    }
    Some((strings, &data[at..]))
}
