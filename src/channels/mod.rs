//! The Phoenix model: sockets that multiplex channels, spoken so that the official `phoenix` client works unchanged.
//!
//! ```text
//!  bytes ──► Serializer ──► Envelope ──► Socket ──► Channel::handle_in(ctx, event, payload)
//!                                          │             │ ctx.push(..)  ctx.broadcast(..)
//!  bytes ◄── Serializer ◄── Outgoing ◄─────┘             ▼
//!     ▲                                               Outlet: a WebSocket, a long-poll session, a test
//!     └──── fastlane: one encoding per serializer ◄── publish, to the subscribers of a topic
//! ```
//!
//! Nothing here does I/O: a [`Socket`] is told what came in, and acts on an [`Outlet`].
#![forbid(unsafe_code)]

mod broadcast;
mod channel;
mod context;
mod env;
mod envelope;
mod json_read;
mod json_write;
#[cfg(feature = "jwt")]
pub mod jwt;
mod log;
mod outlet;
mod payload;
pub mod presence;
mod refs;
mod router;
mod serializer;
mod socket;
pub mod testing;
pub mod token;
mod user_socket;
mod v1_json;
mod v2_binary;
mod v2_json;
mod versions;

pub use broadcast::Broadcast;
pub use channel::{Channel, Info, Join, Outcome, Reason};
pub use context::{Assigns, Ctx, JoinCtx, Scratch};
#[cfg(feature = "epoll")]
pub(crate) use context::{DISCONNECT, direct_event, is_reserved};
pub use envelope::{Envelope, Outgoing, Slot};
#[cfg(feature = "epoll")]
pub(crate) use log::{Seldom, brief};
pub use outlet::{Address, Full, Letter, Outlet, Post, Refused, Sent, Service, TimerKey};
pub use payload::{Json, OwnedPayload, Payload, PayloadError, ToPayload};
pub use presence::{Diff, Owner, PhxRef, Presence, TrackError};
pub use refs::{ChannelHandle, JoinRef, ReplyError, ReplyRef};
pub use serializer::{DecodeError, EncodeError, Serializer};
pub use socket::Socket;
pub use user_socket::UserSocket;
pub use v1_json::V1;
pub use v2_json::V2;
pub use versions::Versions;
