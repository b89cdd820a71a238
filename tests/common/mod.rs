//! What the tests of the engine share: a second decoder, a handler that does what messages tell it, a simulated world.
#![forbid(unsafe_code)]
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod script;
pub mod wire;
pub mod workers;
pub mod world;
