//! Connections, timers, mail and turns: what makes a worker of a driver, the protocol and the topics.
#![forbid(unsafe_code)]

pub mod hub;
pub mod lane;
pub mod timer;
