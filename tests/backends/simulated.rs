//! What only the simulated kernel has: reproducible runs, faults, and a clock of its own.
#![forbid(unsafe_code)]

use crate::harness::{Backend, LISTEN, Seen, Simulated, World, pattern};
use std::time::Duration;
use wingbeat::driver::{ConnectOptions, Driver, SocketId, sim::Faults};

/// An echo server under fire; returns the hash of everything that happened.
fn run(seed: u64, faults: Faults) -> (u64, u64, Vec<Seen>) {
    let net = Simulated::kind(seed);
    net.net.set_faults(faults);
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let peers: Vec<_> = (0..10).map(|_| world.net.try_connect(&address).unwrap()).collect();
    let mut asked = vec![0; peers.len()];
    let (mut echoed, mut busy) = (std::collections::HashMap::<SocketId, usize>::new(), Vec::new());
    let mut handled = 0;
    for turn in 0..400 {
        for (i, peer) in peers.iter().enumerate() {
            if turn < 200 && world.net.net.below(3) == 0 && !peer.is_reset() {
                let length = 1 + world.net.net.below(500);
                asked[i] += if peer.send(&pattern(asked[i], length)) { length } else { 0 };
            }
        }
        world.poll(Some(Duration::from_millis(50)));
        for seen in &world.log.seen[handled..] {
            match seen {
                Seen::Sent(id, _) => busy.retain(|other| other != id),
                Seen::Failed(id, _) => world.driver.close(*id),
                _ => {}
            }
        }
        handled = world.log.seen.len();
        for id in world.accepted() {
            let from = echoed.entry(id).or_default();
            let bytes = world.received(id)[*from..].to_vec();
            if !bytes.is_empty() && !busy.contains(&id) {
                *from += bytes.len();
                if world.send(id, &[&bytes]) {
                    busy.push(id);
                }
            }
        }
    }
    for (peer, asked) in peers.iter().zip(&asked) {
        let got = peer.received();
        assert!(*got == pattern(0, got.len()), "what arrives is a prefix, in order");
        if faults == Faults::benign() {
            assert_eq!(got.len(), *asked, "and without broken connections all of it");
        }
    }
    let exhausted = world.driver.counters().accept_exhausted;
    let seen = world.log.seen.clone();
    let fingerprint = world.net.net.fingerprint();
    let open: Vec<_> = world.accepted().into_iter().filter(|id| !world.has(&Seen::Closed(*id))).collect();
    world.finish(&open);
    (fingerprint, exhausted, seen)
}

#[test]
fn the_same_seed_is_the_same_run() {
    for faults in [Faults::default(), Faults::benign(), Faults::hostile()] {
        for seed in 0..10 {
            let (first, again) = (run(seed, faults), run(seed, faults));
            assert_eq!(first, again, "seed {seed}");
        }
    }
    assert_ne!(run(1, Faults::benign()).0, run(2, Faults::benign()).0);
}

#[test]
fn every_fault_happens() {
    let (mut failed, mut ended, mut exhausted, mut single_bytes, mut pending) = (0, 0, 0, 0, 0);
    for seed in 0..100 {
        let (_, refused, seen) = run(seed, Faults::hostile());
        exhausted += refused;
        for seen in seen {
            match seen {
                Seen::Failed(..) => failed += 1,
                Seen::Eof(_) => ended += 1,
                Seen::Received(_, 1) => single_bytes += 1,
                Seen::Sent(_, Ok(())) => pending += 1,
                _ => {}
            }
        }
    }
    let all = [failed, ended, single_bytes, pending];
    assert!(exhausted > 0 && all.iter().all(|&count| count > 0), "{exhausted} {all:?}");
}

#[test]
fn descriptors_run_out_and_come_back() {
    let net = Simulated::kind(3);
    net.net.set_socket_limit(2);
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let peers: Vec<_> = (0..5).map(|_| world.net.try_connect(&address).unwrap()).collect();
    let start = world.net.net.elapsed();
    world.until(|world| world.driver.counters().accept_exhausted == 2);
    assert!(world.net.net.elapsed() - start >= Duration::from_millis(100), "it backs off between two");
    assert!(peers[2].is_eof() && peers[3].is_eof() && !peers[4].is_eof());
    let first = world.accepted()[0];
    world.driver.close(first);
    world.until(|world| world.accepted().len() == 3); // at once, not after the pause
    assert!(world.net.net.elapsed() - start < Duration::from_millis(200));
    let ids = world.accepted()[1..].to_vec();
    world.finish(&ids);
}

#[test]
fn the_clock_moves_when_all_drivers_sleep() {
    let net = Simulated::kind(5);
    let (mut one, mut two) = (World::new(net_of(&net)), World::new(net_of(&net)));
    one.poll(Some(Duration::from_secs(10)));
    assert_eq!(net.net.elapsed(), Duration::ZERO, "the other has not said that it sleeps");
    two.poll(Some(Duration::from_secs(3)));
    assert_eq!(net.net.elapsed(), Duration::from_secs(3));
    one.poll(Some(Duration::from_secs(7)));
    assert_eq!(net.net.elapsed(), Duration::from_secs(3), "the other has reached its timeout and was not polled yet");
    two.poll(None);
    assert_eq!(net.net.elapsed(), Duration::from_secs(10));

    // Bytes between the two, and a step of the test, go before a timeout.
    let (address, _) = two.listen();
    let near = one.driver.connect(&address, ConnectOptions::default()).unwrap();
    while two.accepted().is_empty() || !one.has(&Seen::Connected(near)) {
        one.poll(None);
        two.poll(None);
    }
    assert!(!one.send(near, &[b"hello"]));
    one.poll(Some(Duration::from_secs(60)));
    two.poll(Some(Duration::from_secs(60)));
    let far = two.accepted()[0];
    assert_eq!(two.received(far), b"hello");
    assert_eq!(net.net.elapsed(), Duration::from_secs(10));
    net.net.hold_clock(Some(net.net.now() + Duration::from_secs(1)));
    for _ in 0..5 {
        one.poll(Some(Duration::from_secs(60)));
        two.poll(Some(Duration::from_secs(60)));
    }
    assert_eq!(net.net.elapsed(), Duration::from_secs(11));
    net.net.advance(Duration::from_secs(1000));
    assert_eq!(net.net.elapsed(), Duration::from_secs(1011));
    one.finish(&[near]);
    two.finish(&[far]);
}

#[test]
#[should_panic(expected = "a send while another one is in flight")]
fn a_second_send_in_flight_is_caught() {
    let mut world = World::new(Simulated::kind(1));
    let (address, _) = world.listen();
    let (id, peer) = world.pair(&address);
    peer.stall(true);
    world.fill(id);
    world.send(id, &[b"one too many"]);
}

#[test]
#[should_panic(expected = "a send after shutdown")]
fn a_send_after_shutdown_is_caught() {
    let mut world = World::new(Simulated::kind(1));
    let (address, _) = world.listen();
    let (id, _peer) = world.pair(&address);
    world.driver.shutdown(id);
    world.send(id, &[b"too late"]);
}

#[test]
#[should_panic(expected = "no driver made this id")]
fn a_made_up_id_is_caught() {
    let mut world = World::new(Simulated::kind(1));
    world.send(SocketId { slot: 0, generation: 0 }, &[b"nobody"]);
}

#[test]
fn a_socket_closed_with_unread_bytes_resets_its_peer() {
    let mut world = World::new(Simulated::kind(1));
    let (address, listener) = world.listen();
    let (id, peer) = world.pair(&address);
    world.driver.pause(id);
    peer.send(b"unread");
    world.finish(&[id]);
    assert!(peer.is_reset());
    let _ = (listener, LISTEN);
}

fn net_of(net: &Simulated) -> Simulated {
    let mut other = Simulated::kind(0);
    other.net = net.net.clone();
    other
}
