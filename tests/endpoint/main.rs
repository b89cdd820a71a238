//! Endpoints on the simulator: order and answers over random interleavings, the fastlane's counts, long-polling.
#![cfg(feature = "epoll")]
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "a test program has no other users")]

mod connect;
mod fastlane;
mod large;
mod logs;
mod longpoll;
mod mistakes;
mod oracle;
mod order;
mod room;
mod timers;
#[path = "../common/wire.rs"]
#[allow(dead_code, reason = "it is shared with the tests of the engine")]
mod wire;
#[path = "../common/workers.rs"]
mod workers;
mod world;
