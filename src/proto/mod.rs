//! RFC 6455, sans-IO: bytes in, events out, bytes out. No sockets, no clock, no randomness of its own.
#![forbid(unsafe_code)]

pub mod extensions;
pub mod handshake;
