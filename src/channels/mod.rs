//! The Phoenix model: sockets that multiplex channels, spoken so that the official `phoenix` client works unchanged.
//!
//! Everything here but `transport` and `longpoll` is sans-IO: a [`Serializer`] turns messages into [`Envelope`]s and
//! back, and channels act on an outlet, whatever stands behind it.
#![forbid(unsafe_code)]

mod broadcast;
mod envelope;
mod json_read;
mod json_write;
mod payload;
mod serializer;
mod v1_json;
mod v2_binary;
mod v2_json;
mod versions;

pub use broadcast::Broadcast;
pub use envelope::{Envelope, Outgoing, Slot};
pub use payload::{Json, Payload, PayloadError, ToPayload};
pub use serializer::{DecodeError, EncodeError, Serializer};
pub use v1_json::V1;
pub use v2_json::V2;
pub use versions::Versions;
