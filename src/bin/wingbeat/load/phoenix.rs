//! What a client of Phoenix channels says, put together from prepared parts, and what it hears, as far as it counts.
#![forbid(unsafe_code)]

use super::stamp::Stamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use wingbeat::channels::{DecodeError, Serializer, V1, V2};
use wingbeat::{Conn, Message, MessageKind};

/// Of the join, and so of all that belongs to it.
pub(crate) const JOIN_REF: u64 = 1;
/// Of every heartbeat: one is in flight at most.
pub(crate) const HEARTBEAT_REF: u64 = 2;
/// Of every push that is broadcast: whether it is replied to is up to the server.
pub(crate) const BROADCAST_REF: u64 = 3;
/// Of the first push that is replied to; the next ones count up.
pub(crate) const FIRST_PUSH_REF: u64 = 4;

/// A format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Objects.
    V1,
    /// Arrays.
    V2,
}

/// A push that a client sends over and over: all of it but the reference and the contents.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    before_reference: &'static str,
    before_contents: String,
    after_contents: &'static str,
}

/// Reads what comes in. Allocates nothing for what servers normally send.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    version: Version,
    /// What a broadcast is called.
    broadcast_event: String,
    /// Bytes of the contents of a message.
    length: usize,
}

/// A message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// `phx_reply`.
    Reply(Reply<'a>),
    /// A broadcast of this run.
    Delivery(Stamp),
    /// It is called as a broadcast, and is none of this run.
    ForeignDelivery,
    /// `phx_error`: the channel crashed.
    Crashed,
    /// `phx_close`: the channel is over.
    Closed,
    /// What an application says of its own accord.
    Other,
}

/// The answer to a push, a join or a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    /// Of what it answers.
    pub(crate) reference: u64,
    /// Whether the status is `ok`.
    pub(crate) is_ok: bool,
    /// `data` of the response, if it has that.
    pub(crate) contents: Option<&'a str>,
}

impl Version {
    /// The version that a `vsn` asks for.
    pub(crate) fn named(vsn: &str) -> Option<Version> {
        let (major, patch) = vsn.split_once(".0.")?;
        let is_number = !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
        match major {
            "1" if is_number => Some(Version::V1),
            "2" if is_number => Some(Version::V2),
            _ => None,
        }
    }

    /// The message that joins a topic.
    pub(crate) fn join(self, topic: &str) -> String {
        let topic = quoted(topic);
        match self {
            Version::V1 => format!(r#"{{"topic":{topic},"event":"phx_join","payload":{{}},"ref":"{JOIN_REF}"}}"#),
            Version::V2 => format!(r#"["{JOIN_REF}","{JOIN_REF}",{topic},"phx_join",{{}}]"#),
        }
    }

    /// A heartbeat.
    pub(crate) fn heartbeat(self) -> String {
        match self {
            Version::V1 => {
                format!(r#"{{"topic":"phoenix","event":"heartbeat","payload":{{}},"ref":"{HEARTBEAT_REF}"}}"#)
            }
            Version::V2 => format!(r#"[null,"{HEARTBEAT_REF}","phoenix","heartbeat",{{}}]"#),
        }
    }
}

impl Push {
    /// Pushes of `event` to `topic`, whose payload is an object with one string, `data`.
    pub(crate) fn new(version: Version, topic: &str, event: &str) -> Push {
        let (topic, event) = (quoted(topic), quoted(event));
        match version {
            Version::V1 => Push {
                before_reference: r#"{"ref":""#,
                before_contents: format!(r#"","topic":{topic},"event":{event},"payload":{{"data":""#),
                after_contents: r#""}}"#,
            },
            Version::V2 => Push {
                before_reference: V2_JOIN_REF,
                before_contents: format!(r#"",{topic},{event},{{"data":""#),
                after_contents: r#""}]"#,
            },
        }
    }

    /// Sends it with contents that need no escape, given in two parts.
    pub(crate) fn send(&self, conn: &mut Conn<'_>, reference: u64, first: &[u8], rest: &str) {
        conn.send_with(MessageKind::Text, |out| {
            self.write(reference, first, rest, |piece| out.extend_from_slice(piece))
        });
    }

    /// Writes it, piece by piece.
    fn write(&self, reference: u64, first: &[u8], rest: &str, mut write: impl FnMut(&[u8])) {
        let mut digits = [0; 20];
        write(self.before_reference.as_bytes());
        write(decimal(reference, &mut digits));
        write(self.before_contents.as_bytes());
        write(first);
        write(rest.as_bytes());
        write(self.after_contents.as_bytes());
    }
}

impl Reader {
    /// For broadcasts of this name whose contents are `length` bytes.
    pub(crate) fn new(version: Version, broadcast_event: &str, length: usize) -> Reader {
        Reader { version, broadcast_event: broadcast_event.to_owned(), length }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is no message of this version.
    pub(crate) fn read<'a>(&self, message: Message<'a>) -> Result<Incoming<'a>, DecodeError> {
        let envelope = match self.version {
            Version::V1 => V1.decode(message.kind, message.payload),
            Version::V2 => V2.decode(message.kind, message.payload),
        }?;
        let event = envelope.event.as_text().unwrap_or_default();
        Ok(match event {
            "phx_reply" => {
                let reference = envelope.reference.as_text().and_then(|text| text.parse().ok());
                let reply: ReplyPayload<'_> = envelope.payload.parse().map_err(|_| DecodeError::Shape)?;
                let contents = reply.response.and_then(|json| contents_of(json.get()));
                let reference = reference.ok_or(DecodeError::Shape)?;
                Incoming::Reply(Reply { reference, is_ok: reply.status == "ok", contents })
            }
            "phx_error" => Incoming::Crashed,
            "phx_close" => Incoming::Closed,
            _ => match envelope.payload.as_json().and_then(contents_of).and_then(|text| self.stamp(text)) {
                Some(stamp) => Incoming::Delivery(stamp),
                None if event == self.broadcast_event => Incoming::ForeignDelivery,
                None => Incoming::Other,
            },
        })
    }

    fn stamp(&self, contents: &str) -> Option<Stamp> {
        Stamp::decode(contents.as_bytes()).filter(|_| contents.len() == self.length)
    }
}

/// The payload of `phx_reply`.
#[derive(Deserialize)]
struct ReplyPayload<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
}

/// The payload of a push, as it comes back.
#[derive(Deserialize)]
struct Body<'a> {
    data: &'a str,
}

/// `data` of an object; none if it is something else, or has no such string.
fn contents_of(json: &str) -> Option<&str> {
    // What serde would say about anything else, it would allocate for.
    let may_have = json.starts_with('{') && json.len() > "{}".len();
    may_have.then(|| serde_json::from_str::<Body<'_>>(json).ok())?.map(|body| body.data)
}

/// The begin of a push up to its reference: it carries [`JOIN_REF`].
const V2_JOIN_REF: &str = r#"["1",""#;

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The digits of a number, at a fraction of what formatting costs.
fn decimal(number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(version: Version, text: &'a str) -> Result<Incoming<'a>, DecodeError> {
        let reader = Reader::new(version, "shout", 20);
        reader.read(Message { kind: MessageKind::Text, payload: text.as_bytes() })
    }

    #[test]
    fn versions_have_names() {
        assert_eq!((Version::named("1.0.0"), Version::named("2.0.9")), (Some(Version::V1), Some(Version::V2)));
        for wrong in ["", "2", "2.0", "2.0.", "2.1.0", "3.0.0", "2.0.0-rc.1", "2.0.+1", "12.0.0"] {
            assert_eq!(Version::named(wrong), None, "{wrong}");
        }
    }

    /// What is sent is what the library's own serializers read.
    #[test]
    fn what_is_sent_is_understood() {
        for version in [Version::V1, Version::V2] {
            let serializer: &dyn Serializer = if version == Version::V1 { &V1 } else { &V2 };
            let join = version.join("a \"room\"");
            let heartbeat = version.heartbeat();
            for (text, topic, event, reference) in
                [(&join, "a \"room\"", "phx_join", "1"), (&heartbeat, "phoenix", "heartbeat", "2")]
            {
                let envelope = serializer.decode(MessageKind::Text, text.as_bytes()).unwrap();
                assert_eq!((envelope.topic.as_text(), envelope.event.as_text()), (Some(topic), Some(event)));
                assert_eq!(envelope.reference.as_text(), Some(reference));
                assert_eq!(envelope.payload.as_json(), Some("{}"));
            }
            let push = Push::new(version, "room:\\", "ev\"ent");
            for (reference, digits) in [(4, "4"), (10, "10"), (u64::MAX, "18446744073709551615")] {
                let mut text = Vec::new();
                push.write(reference, b"abc", "def", |piece| text.extend_from_slice(piece));
                let envelope = serializer.decode(MessageKind::Text, &text).unwrap();
                assert_eq!((envelope.topic.as_text(), envelope.event.as_text()), (Some("room:\\"), Some("ev\"ent")));
                assert_eq!(envelope.reference.as_text(), Some(digits));
                assert_eq!(envelope.payload.as_json(), Some(r#"{"data":"abcdef"}"#));
                assert_eq!(envelope.join_ref.as_text(), (version == Version::V2).then_some("1"));
            }
        }
    }

    #[test]
    fn replies_are_read_in_any_form() {
        let reply = |reference, is_ok, contents| Ok(Incoming::Reply(Reply { reference, is_ok, contents }));
        for (version, text, expected) in [
            (
                Version::V2,
                r#"["1","4","r","phx_reply",{"status":"ok","response":{"data":"x"}}]"#,
                reply(4, true, Some("x")),
            ),
            (
                Version::V2,
                r#" [ null , "40" , "r" , "phx_reply" , { "response" : { "a" : 1 , "data" : "y" } , "status" : "ok" } ] "#,
                reply(40, true, Some("y")),
            ),
            (Version::V2, r#"["1","5","r","phx_reply",{"status":"ok","response":{}}]"#, reply(5, true, None)),
            (Version::V2, r#"["1","5","r","phx_reply",{"status":"ok","response":[1]}]"#, reply(5, true, None)),
            (Version::V2, r#"["1","5","r","phx_reply",{"status":"ok"}]"#, reply(5, true, None)),
            (
                Version::V2,
                r#"["1","1","r","phx_reply",{"status":"error","response":{"reason":"no"}}]"#,
                reply(1, false, None),
            ),
            (
                Version::V1,
                r#"{"topic":"r","ref":"4","payload":{"status":"ok","response":{"data":"x"}},"event":"phx_reply"}"#,
                reply(4, true, Some("x")),
            ),
        ] {
            assert_eq!(read(version, text), expected, "{text}");
        }
    }

    #[test]
    fn events_are_told_apart() {
        let stamp = Stamp { publisher: 3, sequence: 4, time_ns: 500 };
        let stamped = String::from_utf8(stamp.encode().to_vec()).unwrap();
        let event = |event: &str, data: &str| format!(r#"[null,null,"r","{event}",{{"data":"{data}"}}]"#);
        assert_eq!(read(Version::V2, &event("said", &format!("{stamped}1234"))), Ok(Incoming::Delivery(stamp)));
        assert_eq!(read(Version::V2, &event("shout", &stamped)), Ok(Incoming::ForeignDelivery));
        assert_eq!(read(Version::V2, &event("other", &stamped)), Ok(Incoming::Other));
        assert_eq!(read(Version::V2, r#"[null,null,"r","presence_state",{}]"#), Ok(Incoming::Other));
        assert_eq!(read(Version::V2, r#"["1","1","r","phx_error",{}]"#), Ok(Incoming::Crashed));
        assert_eq!(read(Version::V2, r#"["1","1","r","phx_close",{}]"#), Ok(Incoming::Closed));
        for wrong in
            ["", "[]", "{}", r#"["1",null,"r","phx_reply",{"status":"ok"}]"#, r#"["1","x","r","phx_reply",{}]"#]
        {
            assert!(read(Version::V2, wrong).is_err(), "{wrong}");
        }
    }
}
