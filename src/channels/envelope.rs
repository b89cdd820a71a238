//! [`Envelope`] and [`Outgoing`]: the five slots of a message, before and after a serializer.
#![forbid(unsafe_code)]

use super::Payload;
use std::borrow::Cow;

/// One of the four slots around a payload, as the peer wrote it. Two are equal only if type and value are: `7` is not
/// `"7"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Slot<'a> {
    /// JSON null, or not there.
    #[default]
    Null,
    /// A string, unescaped.
    Text(Cow<'a, str>),
    /// Any other JSON value, as its text.
    Other(Cow<'a, str>),
}

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The `ref` of the join that the message belongs to.
    pub join_ref: Slot<'a>,
    /// What a reply to this message will carry.
    pub reference: Slot<'a>,
    /// The topic. Not always text: what is not is nobody's topic.
    pub topic: Slot<'a>,
    /// The event. Not always text either.
    pub event: Slot<'a>,
    /// What it carries.
    pub payload: Payload<'a>,
}

/// A message that goes out.
#[derive(Clone, Debug)]
pub enum Outgoing<'a> {
    /// `phx_reply`.
    Reply {
        /// As in the request, or null.
        join_ref: &'a Slot<'a>,
        /// As in the request.
        reference: &'a Slot<'a>,
        /// As in the request.
        topic: &'a Slot<'a>,
        /// `ok`, `error`, or any other word.
        status: &'a str,
        /// Any value.
        response: Payload<'a>,
    },
    /// To one channel.
    Push {
        /// Of that channel.
        join_ref: &'a Slot<'a>,
        /// Null; in `phx_close` and `phx_error` the `join_ref` again.
        reference: &'a Slot<'a>,
        /// The topic.
        topic: &'a str,
        /// The event.
        event: &'a str,
        /// An object or bytes.
        payload: Payload<'a>,
    },
    /// To every subscriber of a topic: the same bytes for all.
    Broadcast {
        /// The topic.
        topic: &'a str,
        /// The event.
        event: &'a str,
        /// An object or bytes.
        payload: Payload<'a>,
    },
}

impl<'a> Outgoing<'a> {
    /// What it carries: of a reply, the response.
    pub fn payload(&self) -> Payload<'a> {
        match self {
            Outgoing::Reply { response: payload, .. }
            | Outgoing::Push { payload, .. }
            | Outgoing::Broadcast { payload, .. } => *payload,
        }
    }
}

impl Slot<'_> {
    /// The null slot, to borrow.
    pub const NULL: Slot<'static> = Slot::Null;

    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Slot::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Slot::Null)
    }

    /// Bytes of its text.
    pub(super) fn size(&self) -> usize {
        match self {
            Slot::Null => 0,
            Slot::Text(text) | Slot::Other(text) => text.len(),
        }
    }

    /// The same, owning what it holds.
    pub fn into_owned(self) -> Slot<'static> {
        match self {
            Slot::Null => Slot::Null,
            Slot::Text(text) => Slot::Text(Cow::Owned(text.into_owned())),
            Slot::Other(json) => Slot::Other(Cow::Owned(json.into_owned())),
        }
    }
}

impl<'a> From<&'a str> for Slot<'a> {
    fn from(text: &'a str) -> Self {
        Slot::Text(Cow::Borrowed(text))
    }
}
