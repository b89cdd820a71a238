//! The contract holds for sockets that rest: nobody outside can tell.
#![forbid(unsafe_code)]

use super::contract::{pause_in_the_middle, serve_a_sink_that_takes_little};
use super::harness::{Backend, Peer, Seen, World, pattern};
use std::{io::ErrorKind, time::Duration};
use wingbeat::driver::{ConnectOptions, Driver, DriverConfig, SocketId};

fn resting<B: Backend>(world: &mut World<B>, to: &wingbeat::driver::Address) -> (SocketId, B::Peer) {
    let (id, peer) = world.pair(to);
    world.settle();
    world.driver.rest(id);
    world.settle();
    (id, peer)
}

pub(crate) fn a_resting_socket_receives_and_sends_like_any_other(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, mut peer) = resting(&mut world, &address);
    let mut total = 0;
    for length in [1, 2, 125, 1000, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 700_000] {
        let bytes = pattern(total, length);
        peer.send(&bytes);
        total += length;
        world.until(|world| {
            peer.pump();
            world.received(id).len() == total
        });
        assert!(world.received(id)[total - length..] == bytes, "{length}");
        let before = world.count(|seen| matches!(seen, Seen::Sent(..)));
        let in_flight = world.send(id, &[&bytes]);
        let mut back = Vec::new();
        world.until(|world| {
            peer.pump();
            back.extend(peer.take());
            back.len() >= length
                && world.count(|seen| matches!(seen, Seen::Sent(..))) == before + usize::from(in_flight)
        });
        assert!(back == bytes, "{length}");
    }
    world.driver.rouse(id);
    peer.send(b"awake");
    world.until(|world| world.received(id).ends_with(b"awake"));
    world.finish(&[id]);
}

pub(crate) fn a_resting_socket_that_is_flooded_does_not_starve_another(net: impl Backend) {
    let config = DriverConfig { receive_buffer: 4096, receive_budget: 10_000, ..DriverConfig::default() };
    let mut world = World::with(net, config);
    let (address, _) = world.listen();
    let (flood, mut flooder) = resting(&mut world, &address);
    let (quiet, mut other) = resting(&mut world, &address);
    let bytes = pattern(0, 200_000);
    flooder.send(&bytes);
    other.send(b"?");
    while world.received(flood).len() < bytes.len() {
        flooder.pump();
        let before = world.received(flood).len();
        world.poll(Some(Duration::from_millis(1)));
        assert!(world.received(flood).len() - before <= config.receive_budget, "the budget holds");
        if world.received(flood).len() > bytes.len() / 2 {
            assert_eq!(world.received(quiet), b"?");
        }
    }
    assert!(world.received(flood) == bytes);
    world.finish(&[flood, quiet]);
}

pub(crate) fn resting_sockets_heed_a_sink_that_takes_no_more(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let mut pairs: Vec<_> = (0..12).map(|_| resting(&mut world, &address)).collect();
    let (ids, _) = serve_a_sink_that_takes_little(&mut world, &mut pairs);
    world.log.appetite = 0;
    world.finish(&ids);
}

pub(crate) fn rest_and_rouse_in_quick_succession_lose_nothing(net: impl Backend) {
    let config = DriverConfig { receive_buffer: 300, receive_budget: 900, ..DriverConfig::default() };
    let mut world = World::with(net, config);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    let bytes = pattern(0, 120_000);
    let (mut given, mut round) = (0, 0usize);
    world.until(|world| {
        round += 1;
        // Bytes are on their way at every step, and steps fall together in one turn or do not.
        for step in 0..1 + round % 3 {
            match (round * 7 + step * 3) % 5 {
                0 | 3 => world.driver.rest(id),
                1 | 4 => world.driver.rouse(id),
                _ if round % 4 == 0 => {
                    world.driver.pause(id);
                    world.driver.resume(id);
                }
                _ => world.driver.pause(id),
            }
        }
        if round % 3 == 0 {
            world.driver.resume(id);
        }
        let more = (1 + round % 700).min(bytes.len() - given);
        peer.send(&bytes[given..given + more]);
        given += more;
        if given == bytes.len() {
            world.driver.resume(id);
        }
        world.received(id).len() == bytes.len()
    });
    assert!(world.received(id) == bytes);
    peer.shutdown();
    world.driver.resume(id);
    world.until(|world| world.has(&Seen::Eof(id)));
    world.finish(&[id]);
}

pub(crate) fn a_resting_socket_is_paused_and_resumed_like_any_other(net: impl Backend) {
    let config = DriverConfig { receive_buffer: 512, receive_budget: 1024, ..DriverConfig::default() };
    let mut world = World::with(net, config);
    let (address, _) = world.listen();
    let (id, mut peer) = resting(&mut world, &address);
    let (bytes, so_far) = pause_in_the_middle(&mut world, id, &mut peer);
    // Whether it is paused and whether it rests are two things.
    world.driver.rouse(id);
    world.settle();
    world.driver.rest(id);
    world.settle();
    assert_eq!(world.received(id).len(), so_far);
    world.driver.resume(id);
    world.until(|world| world.received(id).len() == bytes.len());
    assert_eq!(world.received(id), bytes);

    world.driver.pause(id);
    world.settle();
    peer.send(b"unread");
    peer.shutdown();
    world.settle();
    assert!(!world.has(&Seen::Eof(id)) && world.received(id).len() == bytes.len());
    world.driver.resume(id);
    world.until(|world| world.has(&Seen::Eof(id)));
    assert!(world.received(id).ends_with(b"unread"));
    world.finish(&[id]);
}

pub(crate) fn a_resting_socket_reports_the_end_and_the_reset(net: impl Backend) {
    let config = DriverConfig { receive_buffer: 1000, receive_budget: 3000, ..DriverConfig::default() };
    let mut world = World::with(net, config);
    let (address, _) = world.listen();
    let mut ids = Vec::new();
    for length in [0, 1, 1000, 3000, 20_000] {
        let (id, mut peer) = resting(&mut world, &address);
        ids.push(id);
        peer.send(&pattern(0, length));
        peer.shutdown();
        world.until(|world| {
            peer.pump();
            world.has(&Seen::Eof(id))
        });
        assert!(world.received(id) == pattern(0, length), "{length}");
        // It still sends, goes to rest and comes back, and learns of a reset.
        world.driver.rouse(id);
        let before = world.count(|seen| matches!(seen, Seen::Sent(..)));
        let in_flight = world.send(id, &[b"still there"]);
        let mut back = Vec::new();
        world.until(|world| {
            peer.pump();
            back.extend(peer.take());
            back == b"still there"
                && world.count(|seen| matches!(seen, Seen::Sent(..))) == before + usize::from(in_flight)
        });
        world.driver.rest(id);
        world.settle();
        peer.reset();
        world.until(|world| world.count(|seen| matches!(seen, Seen::Failed(of, _) if *of == id)) == 1);
    }
    let (id, mut peer) = resting(&mut world, &address);
    peer.reset();
    world.until(|world| world.has(&Seen::Failed(id, ErrorKind::ConnectionReset)));
    ids.push(id);
    world.settle();
    let polls = world.log.polls;
    world.poll(Some(Duration::from_millis(20)));
    assert_eq!(world.log.polls, polls + 1);
    world.finish(&ids);
}

/// A receive that is being ended may have brought bytes that were not looked at yet.
pub(crate) fn bytes_that_came_before_the_rest_come_first(net: impl Backend) {
    let config = DriverConfig { receive_buffer: 64, receive_budget: 128, ..DriverConfig::default() };
    let mut world = World::with(net, config);
    let (address, _) = world.listen();
    let mut pairs: Vec<_> = (0..8).map(|_| world.pair(&address)).collect();
    world.settle();
    let bytes = pattern(0, 4000);
    for half in [&bytes[..2000], &bytes[2000..]] {
        for (id, peer) in &mut pairs {
            peer.send(&half[..1000]);
            world.driver.rest(*id);
            peer.send(&half[1000..]);
        }
        world.poll(Some(Duration::from_millis(2)));
        for (id, _) in &pairs {
            world.driver.rouse(*id);
        }
    }
    world.until(|world| pairs.iter().all(|(id, _)| world.received(*id).len() == bytes.len()));
    assert!(pairs.iter().all(|(id, _)| world.received(*id) == bytes));
    let ids: Vec<_> = pairs.iter().map(|(id, _)| *id).collect();
    world.finish(&ids);
}

pub(crate) fn a_resting_socket_closes_and_shuts_down_like_any_other(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (shut, mut peer) = resting(&mut world, &address);
    world.driver.shutdown(shut);
    world.until(|_| {
        peer.pump();
        peer.is_eof()
    });
    peer.send(b"one way");
    world.until(|world| world.received(shut) == b"one way");

    let (full, mut silent) = resting(&mut world, &address);
    silent.stall(true);
    world.fill(full);
    world.driver.close(full);
    world.until(|world| world.has(&Seen::Closed(full)));
    assert!(world.has(&Seen::Sent(full, Err(ErrorKind::ConnectionAborted))));

    // The moment it is to rest, the moment it is roused, and with bytes on their way.
    for step in 0..4 {
        let (id, mut peer) = world.pair(&address);
        world.settle();
        world.driver.rest(id);
        if step == 1 {
            world.poll(Some(Duration::ZERO));
        }
        if step == 2 {
            world.settle();
            world.driver.rouse(id);
        }
        if step == 3 {
            world.settle();
            peer.send(b"unheard");
        }
        world.driver.close(id);
        world.driver.rouse(id);
        world.driver.rest(id);
        world.until(|world| world.has(&Seen::Closed(id)));
        world.driver.rest(id);
        let (next, mut peer) = world.pair(&address);
        assert_eq!(next.slot, id.slot);
        peer.send(b"hello");
        world.until(|world| world.received(next) == b"hello");
        world.driver.close(next);
        world.until(|world| world.has(&Seen::Closed(next)));
    }
    world.finish(&[shut]);
}

pub(crate) fn a_socket_may_rest_before_it_is_connected(net: impl Backend) {
    let mut world = World::new(net);
    let (address, listener) = world.net.listen();
    let id = world.driver.connect(&address, ConnectOptions::default()).unwrap();
    world.driver.rest(id);
    let mut peer = None;
    world.until(|world| {
        peer = peer.take().or_else(|| world.net.accept(&listener));
        peer.is_some() && world.has(&Seen::Connected(id))
    });
    let mut peer = peer.unwrap();
    peer.send(b"welcome");
    world.until(|world| world.received(id) == b"welcome");
    peer.shutdown();
    world.until(|world| world.has(&Seen::Eof(id)));
    world.finish(&[id]);
}
