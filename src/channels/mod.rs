//! The Phoenix model: sockets that multiplex channels, spoken so that the official `phoenix` client works unchanged.
//!
//! Everything here but `transport` and `longpoll` is sans-IO: a [`Serializer`] turns messages into [`Envelope`]s and
//! back, and channels act on an outlet, whatever stands behind it.
#![forbid(unsafe_code)]

mod broadcast;
mod envelope;
#[cfg(feature = "jwt")]
pub mod jwt;
mod payload;
pub mod presence;
mod serializer;
pub mod token;

pub use broadcast::Broadcast;
pub use envelope::{Envelope, Outgoing, Slot};
pub use payload::{Json, Payload, PayloadError, ToPayload};
pub use presence::{Diff, Owner, PhxRef, Presence, TrackError};
pub use serializer::{DecodeError, EncodeError, Serializer};
