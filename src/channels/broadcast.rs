//! [`Broadcast`]: a message to a topic on its way to the serializers of its subscribers.
#![forbid(unsafe_code)]

use super::Payload;
use super::payload::Json;
use crate::proto::MessageKind;

/// An event and its payload, as they travel between publishers and workers: not yet in any serializer's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broadcast<'a> {
    /// The event.
    pub event: &'a str,
    /// An object or bytes.
    pub payload: Payload<'a>,
}

impl<'a> Broadcast<'a> {
    /// Writes it behind what is in `out`: the event's length in four bytes, the event, the payload. The kind of the
    /// publication is that of the payload.
    pub fn write(&self, out: &mut Vec<u8>) -> MessageKind {
        out.extend_from_slice(&(self.event.len() as u32).to_be_bytes());
        out.extend_from_slice(self.event.as_bytes());
        out.extend_from_slice(self.payload.as_bytes());
        self.payload.kind()
    }

    /// Reads what [`Broadcast::write`] wrote; none if somebody else published it. Cost: a pass over the text.
    pub fn read(kind: MessageKind, bytes: &'a [u8]) -> Option<Broadcast<'a>> {
        let (len, rest) = bytes.split_first_chunk()?;
        let (event, payload) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        let event = simdutf8::basic::from_utf8(event).ok()?;
        let payload = match kind {
            MessageKind::Binary => Payload::Binary(payload),
            MessageKind::Text => Payload::Json(Json::new(simdutf8::basic::from_utf8(payload).ok()?).ok()?),
        };
        Some(Broadcast { event, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        let object = Payload::Json(Json::new(r#"{"a":[1,"é"]}"#).unwrap());
        for payload in [object, Payload::EMPTY, Payload::Binary(&[]), Payload::Binary(&[0, 255])] {
            for event in ["", "new_msg", "é"] {
                let (mut bytes, broadcast) = (Vec::new(), Broadcast { event, payload });
                let kind = broadcast.write(&mut bytes);
                assert_eq!(Broadcast::read(kind, &bytes), Some(broadcast));
            }
        }
        for strange in [&b""[..], b"\0\0\0", b"\0\0\0\x05abc{}", b"\0\0\0\x01\xff{}", b"\0\0\0\x01a{"] {
            assert_eq!(Broadcast::read(MessageKind::Text, strange), None);
        }
    }
}
