//! The contract suite with faults, and each fault by itself.
#![forbid(unsafe_code)]

#[path = "../../../../tests/backends/contract.rs"]
mod contract;
#[path = "../../../../tests/backends/harness.rs"]
#[allow(dead_code, reason = "other backends use the rest")]
mod harness;
#[path = "../../../../tests/backends/rest.rs"]
mod rest;

/// Every test of the contract by its name.
mod promises {
    pub(super) use super::contract::*;
    pub(super) use super::rest::*;
}

use super::super::queue::Op;
use super::super::{Uring, UringSeed};
use super::provoked::{Rates, name, passing};
use super::*;
use crate::driver::{ConnectOptions, Driver, DriverConfig, DriverCounters};
use harness::{Backend, Peer, Real, Seen, World, pattern};
use std::time::Duration;

const RATES: Rates = Rates { answered: 200, ended: 150, cut: 300, refused: 30 };

fn with_faults(seed: u64, rates: Rates, incremental: bool) -> Real<Uring> {
    Real::with(16 << 20, move |config| {
        let mut driver = UringSeed::new(config).unwrap().start_with(incremental).unwrap();
        driver.queue.faults = Faults::seeded(seed, rates);
        driver
    })
}

macro_rules! with_faults_of_four_seeds {
    ($($test:ident),* $(,)?) => {
        $(#[test] fn $test() {
            for seed in 0..4 {
                promises::$test(with_faults(seed, RATES, seed % 2 == 0));
            }
        })*
    };
}

contract::every_promise!(with_faults_of_four_seeds);

const OPS: [Op; 6] = [Op::Receive, Op::Watch, Op::Send, Op::Accept, Op::AcceptWatch, Op::Wake];
/// Those that stand until something happens, so that there is something to end.
const STANDING: [Op; 5] = [Op::Receive, Op::Watch, Op::Send, Op::Accept, Op::Wake];

/// Both ends of ten connections, through everything that can go wrong: all bytes arrive, in order, and nothing is left.
#[test]
fn every_fault_is_provoked_and_nothing_is_lost() {
    let rates = Rates { answered: 400, ended: 400, cut: 500, refused: 50 };
    let config = DriverConfig { receive_buffer: 3000, receive_budget: 6000, ..DriverConfig::default() };
    let mut world = World::with(with_faults(7, rates, true), config);
    // Each error of a wait for a connection comes once; random ones never say that no descriptor is left.
    for &error in passing(Op::AcceptWatch) {
        world.driver.queue.faults.script(Op::Accept, Errno::NFILE);
        world.driver.queue.faults.script(Op::AcceptWatch, error);
    }
    let (address, _) = world.listen();
    (0..20).for_each(|_| world.poll(Some(Duration::from_millis(1))));
    let mut ends = Vec::new();
    for _ in 0..10 {
        ends.push(world.driver.connect(&address, ConnectOptions::default()).unwrap());
    }
    world.until(|world| world.accepted().len() == 10 && world.count(|seen| matches!(seen, Seen::Connected(_))) == 10);
    let (total, mut given) = (600_000, 0);
    let waker = world.driver.waker();
    let all: Vec<_> = ends.iter().copied().chain(world.accepted()).collect();
    while given < total {
        let sent = world.count(|seen| matches!(seen, Seen::Sent(_, Ok(()))));
        let bytes = pattern(given, 20_000);
        let parts: Vec<_> = bytes.chunks(if given % 3 == 0 { 20_000 } else { 999 }).collect();
        let in_flight = all.iter().filter(|&&id| world.send(id, &parts)).count();
        given += bytes.len();
        // One end or the other rests for a part of the time.
        let rests = all[given / 20_000 % all.len()];
        world.driver.pause(rests);
        waker.wake();
        (0..3).for_each(|_| world.poll(Some(Duration::from_millis(1))));
        world.driver.resume(rests);
        world.until(|world| world.count(|seen| matches!(seen, Seen::Sent(_, Ok(())))) == sent + in_flight);
    }
    world.until(|world| all.iter().all(|&id| world.received(id).len() == total));
    assert!(all.iter().all(|&id| world.received(id) == pattern(0, total)), "what arrives is what was sent");
    let tally = &world.driver.queue.faults.tally;
    for op in OPS {
        let of_op = |error: &Errno| tally.answered.contains_key(&(name(op), error.raw_os_error()));
        assert!(passing(op).iter().all(of_op), "{op:?}: {tally:?}");
    }
    assert!(STANDING.iter().all(|&op| tally.ended.contains_key(name(op))), "{tally:?}");
    assert!(tally.cut > 100 && tally.refused > 10, "{tally:?}");
    assert_eq!(world.driver.counters(), DriverCounters::default());
    world.finish(&all);
}

/// Whatever limit it is, those that wait are accepted later, and one is told at once.
#[test]
fn no_descriptor_for_one_that_waits_refuses_it_and_rests() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        let mut world = World::new(with_faults(0, Rates::default(), true));
        world.driver.queue.faults.script(Op::Accept, error);
        let (address, _) = world.listen();
        let mut peers: Vec<_> = (0..5).map(|_| world.net.try_connect(&address).unwrap()).collect();
        world.until(|world| world.accepted().len() == 4);
        world.settle();
        let refused = peers.iter_mut().filter_map(|peer| {
            peer.pump();
            peer.is_eof().then_some(())
        });
        assert_eq!((refused.count(), world.driver.counters().accept_exhausted), (1, 1), "{error}");
        let ids = world.accepted();
        world.finish(&ids);
    }
}

#[test]
fn no_descriptor_while_nobody_waits_refuses_nobody() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        let mut world = World::new(with_faults(0, Rates::default(), true));
        let (address, _) = world.listen();
        let pairs: Vec<_> = (0..3)
            .map(|_| {
                world.driver.queue.faults.script(Op::Accept, error);
                world.driver.queue.sabotage(); // so that it is asked for again
                world.settle();
                world.pair(&address)
            })
            .collect();
        let tally = &world.driver.queue.faults.tally;
        assert_eq!(tally.answered[&(name(Op::Accept), error.raw_os_error())], 3);
        assert_eq!(world.driver.counters(), DriverCounters::default(), "{error}");
        world.finish(&pairs.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    }
}

/// Far more sends in one turn than the submission queue holds, each of many parts: each socket gets its own.
#[test]
fn sends_beyond_the_queue_do_not_mix() {
    for refused in [0, 300] {
        let config = DriverConfig { events: 2, ..DriverConfig::default() };
        let mut world = World::with(with_faults(1, Rates { refused, ..Rates::default() }, true), config);
        let (address, _) = world.listen();
        let mut peers: Vec<_> = (0..40).map(|_| world.net.try_connect(&address).unwrap()).collect();
        world.until(|world| world.accepted().len() == 40);
        let ids = world.accepted();
        for (i, &id) in ids.iter().enumerate() {
            let bytes = pattern(i * 1000, 100 + i);
            let parts: Vec<_> = bytes.chunks(9).collect();
            assert!(world.send(id, &parts));
        }
        world.until(|world| world.count(|seen| matches!(seen, Seen::Sent(_, Ok(())))) == 40);
        peers.iter_mut().for_each(Peer::pump);
        let mut got: Vec<_> = peers.iter_mut().map(Peer::take).collect();
        got.sort_by_key(Vec::len);
        for (i, got) in got.iter().enumerate() {
            assert_eq!(*got, pattern(i * 1000, 100 + i));
        }
        world.finish(&ids);
    }
}

/// Far more completions at once than the queue holds: the kernel keeps them, and multishots end.
#[test]
fn completions_beyond_the_queue_all_arrive() {
    let mut world =
        World::with(with_faults(0, Rates::default(), true), DriverConfig { events: 1, ..DriverConfig::default() });
    let (address, _) = world.listen();
    let mut peers: Vec<_> = (0..50).map(|_| world.net.try_connect(&address).unwrap()).collect();
    let mut overflows = 0;
    for round in 1..=20 {
        for (i, peer) in peers.iter_mut().enumerate() {
            peer.send(&pattern(i + (round - 1) * 100, 100));
        }
        world.until(|world| {
            overflows += usize::from(world.driver.queue.has_overflowed());
            world.log.received.values().filter(|bytes| bytes.len() == round * 100).count() == 50
        });
        let ids = world.accepted();
        let in_flight = ids.iter().filter(|&&id| world.send(id, &[&pattern(round, 100)])).count();
        assert_eq!(in_flight, 50);
        world.until(|world| {
            overflows += usize::from(world.driver.queue.has_overflowed());
            world.count(|seen| matches!(seen, Seen::Sent(_, Ok(())))) == round * 50
        });
    }
    assert!(overflows > 0, "the queue had room for all");
    for (i, peer) in peers.iter_mut().enumerate() {
        let all = pattern(i, 2000);
        assert!(world.log.received.values().any(|bytes| *bytes == all), "what peer {i} sent");
        peer.pump();
        assert_eq!(peer.take(), (1..=20).flat_map(|round| pattern(round, 100)).collect::<Vec<_>>());
    }
    let ids = world.accepted();
    world.finish(&ids);
}
