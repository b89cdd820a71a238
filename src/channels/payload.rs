//! [`Payload`]: what a message carries, raw until somebody asks.
#![forbid(unsafe_code)]

use super::json_read::Scanner;
use crate::proto::MessageKind;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{error, fmt};

/// What a message carries. JSON stays the text that it came as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Any JSON value.
    Json(Json<'a>),
    /// Bytes, as they are.
    Binary(&'a [u8]),
}

/// The text of one JSON value, valid by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

/// A payload that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPayload(Owned);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Json(Box<str>),
    Binary(Box<[u8]>),
}

/// What can be sent as a payload: a [`Payload`], [`Json`], or whatever serde can serialize (a struct, a map, `json!`).
pub trait ToPayload {
    /// The payload, as it is or as written into `scratch`.
    ///
    /// # Errors
    /// [`PayloadError::Unserializable`].
    fn to_payload<'s>(&'s self, scratch: &'s mut Vec<u8>) -> Result<Payload<'s>, PayloadError>;
}

/// Why a payload cannot be sent. The fault is the sender's; a retry makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadError {
    /// Pushes and broadcasts carry a JSON object or bytes; only replies carry other values.
    NotAnObject,
    /// Its `Serialize` failed.
    Unserializable,
}

impl<'a> Payload<'a> {
    /// `{}`.
    pub const EMPTY: Payload<'static> = Payload::Json(Json::EMPTY);

    /// The payload as a value of your type, which may borrow from it. A binary payload is an error.
    ///
    /// # Errors
    /// What serde says.
    pub fn parse<T: Deserialize<'a>>(&self) -> serde_json::Result<T> {
        match self {
            Payload::Json(json) => json.parse(),
            Payload::Binary(_) => Err(serde::de::Error::custom("the payload is binary")),
        }
    }

    /// The JSON text, if it is JSON.
    pub fn as_json(&self) -> Option<&'a str> {
        match self {
            Payload::Json(json) => Some(json.as_str()),
            Payload::Binary(_) => None,
        }
    }

    /// The bytes, if it is binary.
    pub fn as_binary(&self) -> Option<&'a [u8]> {
        match self {
            Payload::Json(_) => None,
            Payload::Binary(bytes) => Some(bytes),
        }
    }

    /// Its bytes, JSON text or binary.
    pub fn as_bytes(&self) -> &'a [u8] {
        match self {
            Payload::Json(json) => json.as_str().as_bytes(),
            Payload::Binary(bytes) => bytes,
        }
    }

    /// Text for JSON, binary for bytes.
    pub fn kind(&self) -> MessageKind {
        match self {
            Payload::Json(_) => MessageKind::Text,
            Payload::Binary(_) => MessageKind::Binary,
        }
    }

    /// Whether it may be pushed and broadcast: an object, or bytes.
    pub fn is_pushable(&self) -> bool {
        match self {
            Payload::Json(json) => json.is_object(),
            Payload::Binary(_) => true,
        }
    }
}

impl OwnedPayload {
    /// Keeps a payload. What came in with a message never fails: `OwnedPayload::from(payload)`.
    ///
    /// # Errors
    /// [`PayloadError::Unserializable`].
    pub fn new(payload: impl ToPayload) -> Result<OwnedPayload, PayloadError> {
        Ok(payload.to_payload(&mut Vec::new())?.into())
    }

    /// The payload, lent.
    pub fn as_payload(&self) -> Payload<'_> {
        match &self.0 {
            Owned::Json(text) => Payload::Json(Json::trusted(text)),
            Owned::Binary(bytes) => Payload::Binary(bytes),
        }
    }
}

impl<'a> Json<'a> {
    /// `{}`.
    pub const EMPTY: Json<'static> = Json("{}");

    /// Checks that `text` is one JSON value, and takes it without the white space around it. Cost: a pass over it.
    ///
    /// # Errors
    /// What serde says.
    pub fn new(text: &'a str) -> serde_json::Result<Json<'a>> {
        match Scanner::only(text) {
            Some(value) => Ok(Json(value)),
            None => serde_json::from_str::<&RawValue>(text).map(Json::from),
        }
    }

    /// For text that is one JSON value, without white space around it, because of where it comes from.
    pub(crate) fn trusted(text: &'a str) -> Json<'a> {
        debug_assert!(Json::new(text).is_ok_and(|json| json.0 == text), "not JSON: {text}");
        Json(text)
    }

    /// The text.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// The value as one of your types.
    ///
    /// # Errors
    /// What serde says.
    pub fn parse<T: Deserialize<'a>>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.0)
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }
}

impl<'a> From<&'a RawValue> for Json<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Json(raw.get())
    }
}

impl From<Payload<'_>> for OwnedPayload {
    fn from(payload: Payload<'_>) -> Self {
        OwnedPayload(match payload {
            Payload::Json(json) => Owned::Json(json.as_str().into()),
            Payload::Binary(bytes) => Owned::Binary(bytes.into()),
        })
    }
}

impl ToPayload for Payload<'_> {
    fn to_payload<'s>(&'s self, _: &'s mut Vec<u8>) -> Result<Payload<'s>, PayloadError> {
        Ok(*self)
    }
}

impl ToPayload for OwnedPayload {
    fn to_payload<'s>(&'s self, _: &'s mut Vec<u8>) -> Result<Payload<'s>, PayloadError> {
        Ok(self.as_payload())
    }
}

impl ToPayload for Json<'_> {
    fn to_payload<'s>(&'s self, _: &'s mut Vec<u8>) -> Result<Payload<'s>, PayloadError> {
        Ok(Payload::Json(*self))
    }
}

impl<T: Serialize + ?Sized> ToPayload for T {
    fn to_payload<'s>(&'s self, scratch: &'s mut Vec<u8>) -> Result<Payload<'s>, PayloadError> {
        scratch.clear();
        serde_json::to_writer(&mut *scratch, self).map_err(|_| PayloadError::Unserializable)?;
        let text = simdutf8::basic::from_utf8(scratch).map_err(|_| PayloadError::Unserializable)?;
        Ok(Payload::Json(Json::trusted(text)))
    }
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PayloadError::NotAnObject => "only an object or bytes can be pushed or broadcast",
            PayloadError::Unserializable => "the payload cannot be serialized",
        })
    }
}

impl error::Error for PayloadError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_payload_is_what_came_in() {
        for payload in [Payload::Json(Json::trusted(r#"[1, {"a":2}]"#)), Payload::Binary(&[0, 255]), Payload::EMPTY] {
            assert_eq!(OwnedPayload::from(payload).as_payload(), payload);
        }
    }
}
