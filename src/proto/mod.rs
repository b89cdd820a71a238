//! RFC 6455, sans-IO: bytes in, events out, bytes out. No sockets, no clock, no randomness of its own.
//!
//! ```text
//!  bytes in ──► Reader ──► events ──► your code ──► Writer ──► bytes out
//!               28 B, no heap                       2 B
//! ```
//!
//! [`Reader`] takes frames apart in the buffer that the bytes came in: a message that arrived whole is unmasked and
//! checked in place and lent as a slice of that buffer; only what was cut or fragmented is put together in an
//! [`Assembler`]. [`Writer`] appends frames to a buffer of yours and keeps the rules of the closing handshake. The two
//! share nothing, so both can be borrowed at once. [`server`] and [`client`] make a ready pair:
//!
//! ```
//! use wingbeat::proto::{self, Incoming, MaskingKey, MessageKind, ReadLimits};
//!
//! let (mut reader, mut writer) = proto::server(ReadLimits::default());
//! let mut out = Vec::new();
//!
//! // Bytes in: what a client sent, masked, in whatever pieces the transport made of it.
//! let mut received = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
//! for chunk in received.chunks_mut(4) {
//!     let mut data = chunk;
//!     // Events out.
//!     while let Some(incoming) = reader.next(&mut data)? {
//!         match incoming {
//!             Incoming::Message { kind, payload } => writer.message(&mut out, kind, payload, MaskingKey::default())?,
//!             Incoming::Ping(payload) => writer.pong(&mut out, payload, MaskingKey::default())?,
//!             Incoming::Pong(_) => {}
//!             Incoming::Close(status) => {
//!                 writer.close_received();
//!                 writer.close(&mut out, status.map(|(code, _)| code), "", MaskingKey::default())?;
//!             }
//!         }
//!     }
//! }
//! // Bytes out.
//! assert_eq!(out, b"\x81\x05Hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod close;
mod config;
mod decoder;
pub mod encoder;
mod error;
pub mod extensions;
pub mod handshake;
mod header;
pub mod http;
pub mod mask;
mod message;
mod opcode;
mod reader;
pub mod utf8;
mod writer;

pub use close::{CloseCode, MAX_CLOSE_REASON, parse_close};
pub use config::{ReadLimits, Role};
pub use error::{Fault, ProtoError, WriteError};
pub use header::MAX_CONTROL_PAYLOAD;
pub use mask::MaskingKey;
pub use message::{Assembler, Incoming, MessageReader, client, server};
pub use opcode::{ControlKind, MessageKind, Opcode};
pub use reader::{Event, Reader};
pub use writer::Writer;
