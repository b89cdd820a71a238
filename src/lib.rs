//! wingbeat: a real-time server engine. Bytes in, events out, bytes out.
#![deny(unsafe_code)]

pub mod buffer;
pub mod client;
#[cfg(feature = "epoll")]
pub mod driver;
#[cfg(feature = "epoll")]
pub mod engine;
pub mod proto;
pub mod pubsub;
#[cfg(feature = "epoll")]
pub mod server;

#[cfg(feature = "epoll")]
pub use driver::Address;
#[cfg(feature = "epoll")]
pub use engine::*;
pub use proto::{CloseCode, MessageKind};
#[cfg(feature = "epoll")]
pub use server::{Running, Server};
