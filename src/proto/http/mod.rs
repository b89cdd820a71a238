//! Bodies of HTTP/1.1 messages, sans-IO. Heads are read by [`handshake::server`](super::handshake::server).
#![forbid(unsafe_code)]

mod chunked;

pub use chunked::{BodyError, Chunked};
