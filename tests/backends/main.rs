//! The driver contract, each bullet of `wingbeat::driver` as a test, run on every backend: epoll and io_uring with real
//! sockets, io_uring with queues and buffers so small that the kernel ends multishots and runs out of buffers all the
//! time, the simulated kernel, and the simulated kernel with everything cut, late and in disorder (20 seeds each).
//! The library's unit tests run it once more, on io_uring with a layer of faults.
#![forbid(unsafe_code)]
#![cfg(feature = "epoll")]

mod contract;
mod harness;
mod real;
mod rest;
mod simulated;

/// Every test of the contract by its name.
mod promises {
    pub(crate) use crate::contract::*;
    pub(crate) use crate::rest::*;
}

macro_rules! on_every_backend {
    ($($test:ident),* $(,)?) => {
        mod epoll {
            $(#[test] fn $test() { super::promises::$test(super::harness::Real::<wingbeat::driver::Epoll>::new()) })*
        }
        #[cfg(feature = "uring")]
        mod uring {
            $(#[test] fn $test() { super::promises::$test(super::harness::Real::<wingbeat::driver::Uring>::new()) })*
        }
        #[cfg(feature = "uring")]
        mod tiny_uring {
            $(#[test] fn $test() { super::promises::$test(super::harness::Real::<wingbeat::driver::Uring>::tiny()) })*
        }
        mod sim {
            $(#[test] fn $test() { super::promises::$test(super::harness::Simulated::kind(1)) })*
        }
        mod unkind_sim {
            $(#[test] fn $test() {
                for seed in 0..20 {
                    super::promises::$test(super::harness::Simulated::unkind(seed))
                }
            })*
        }
    };
}

contract::every_promise!(on_every_backend);
