//! wingbeat: a real-time server engine. Bytes in, events out, bytes out.
#![deny(unsafe_code)]

pub mod buffer;
#[cfg(feature = "epoll")]
pub mod driver;
pub mod proto;
