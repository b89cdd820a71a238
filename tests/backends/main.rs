//! The driver contract, each bullet of `wingbeat::driver` as a test, run on every backend: epoll and io_uring with real
//! sockets, io_uring with queues and buffers so small that the kernel ends multishots and runs out of buffers all the
//! time, the simulated kernel, and the simulated kernel with everything cut, late and in disorder (20 seeds each).
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

on_every_backend![
    bytes_of_any_length_come_and_go,
    a_batch_of_many_parts_arrives_in_order,
    short_sends_continue_while_the_peer_reads_slowly,
    a_short_send_that_moves_bytes_is_told,
    a_paused_socket_delivers_nothing_until_it_is_resumed,
    a_paused_socket_reports_a_fin_once_no_bytes_are_before_it,
    a_paused_socket_reports_a_reset,
    bytes_before_a_half_close_arrive_and_sending_still_works,
    a_reset_is_reported_once_after_the_send_in_flight_came_back,
    a_reset_after_the_end_is_reported,
    close_gives_the_send_in_flight_back_then_closed,
    what_is_asked_of_a_closed_id_is_ignored,
    a_slot_is_used_again_only_after_closed_and_with_a_new_generation,
    shutdown_waits_for_what_is_in_flight,
    outgoing_connections_stand_or_fail,
    one_driver_can_have_both_ends,
    unlisten_accepts_what_waits_and_then_refuses,
    port_zero_is_resolved_and_ports_collide,
    a_waker_works_from_another_thread,
    a_resting_socket_receives_and_sends_like_any_other,
    a_resting_socket_that_is_flooded_does_not_starve_another,
    resting_sockets_heed_a_sink_that_takes_no_more,
    rest_and_rouse_in_quick_succession_lose_nothing,
    a_resting_socket_is_paused_and_resumed_like_any_other,
    a_resting_socket_reports_the_end_and_the_reset,
    bytes_that_came_before_the_rest_come_first,
    a_resting_socket_closes_and_shuts_down_like_any_other,
    a_socket_may_rest_before_it_is_connected,
    a_flooding_socket_does_not_starve_another,
    a_sink_that_takes_no_more_gets_the_rest_from_the_next_polls,
    a_herd_is_accepted_in_portions,
    unix_sockets_work_alike,
];
