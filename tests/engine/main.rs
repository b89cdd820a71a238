//! The engine on the simulator, rule by rule: each test fails if its rule is gone.
#![cfg(feature = "epoll")]
#![forbid(unsafe_code)]

mod closing;
#[path = "../common/mod.rs"]
mod common;
mod drain;
mod encodings;
mod flow;
mod http;
mod keepalive;
mod listeners;
mod opening;
mod outgoing;
mod profiles;
mod spinning;
mod topics;
mod workers;
