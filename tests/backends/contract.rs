//! The contract, one test per promise.
//!
//! This file, `rest.rs` and `harness.rs` are compiled twice: here, and into the library's unit tests
//! (`src/driver/uring/faults/tests.rs`), which run them on io_uring with faults. So they name each other by `super`.
#![forbid(unsafe_code)]

use super::harness::{Backend, LISTEN, Peer, Seen, World, pattern};
use std::{io::ErrorKind, thread, time::Duration};
use wingbeat::{
    buffer::SendBatch,
    driver::{Address, ConnectOptions, Driver, DriverConfig, ListenOptions, SocketId, Submit},
};

/// Gives a macro the names of all of them.
macro_rules! every_promise {
    ($each:ident) => {
        $each![
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
    };
}
pub(crate) use every_promise;

pub(crate) fn bytes_of_any_length_come_and_go(net: impl Backend) {
    let mut world = World::new(net);
    let (address, listener) = world.listen();
    let (id, mut peer) = world.pair(&address);
    assert!(world.has(&Seen::Accepted(id, listener, Some("127.0.0.1".parse().unwrap()))));
    let mut total = 0;
    for length in [1, 2, 125, 126, 1000, 16 << 10, (16 << 10) + 1, 64 << 10, 300_000] {
        let bytes = pattern(total, length);
        peer.send(&bytes);
        total += length;
        world.until(|world| {
            peer.pump();
            world.received(id).len() == total
        });
        assert_eq!(world.received(id)[total - length..], bytes);
        let before = world.count(|seen| matches!(seen, Seen::Sent(..)));
        let in_flight = world.send(id, &[&bytes]);
        let mut back = Vec::new();
        world.until(|_| {
            peer.pump();
            back.extend(peer.take());
            back.len() >= length
        });
        assert_eq!(back, bytes);
        world.until(|world| world.count(|seen| matches!(seen, Seen::Sent(..))) == before + usize::from(in_flight));
    }
    // A batch of nothing is done.
    world.until(|world| !world.send(id, &[]));
    world.finish(&[id]);
}

pub(crate) fn a_batch_of_many_parts_arrives_in_order(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    // Below and above the size up to which a driver may copy them together.
    for length in [3, 100, 5_000] {
        let parts: Vec<Vec<u8>> =
            (0..SendBatch::MAX_PARTS).map(|i| pattern(i * length, if i % 7 == 0 { 0 } else { length + i })).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let before = world.count(|seen| matches!(seen, Seen::Sent(..)));
        let in_flight = world.send(id, &parts);
        let mut back = Vec::new();
        world.until(|world| {
            peer.pump();
            back.extend(peer.take());
            world.count(|seen| matches!(seen, Seen::Sent(..))) == before + usize::from(in_flight)
                && back.len() >= parts.concat().len()
        });
        assert_eq!(back, parts.concat());
    }
    world.finish(&[id]);
}

pub(crate) fn short_sends_continue_while_the_peer_reads_slowly(net: impl Backend) {
    let total = net.bulk();
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    peer.stall(true);
    let (mut given, mut checked, mut completed, mut pending, mut round) = (0, 0, 0, 0, 0);
    world.until(|world| {
        round += 1;
        peer.stall(round % 3 != 0);
        peer.pump();
        let bytes = peer.take();
        assert!(bytes == pattern(checked, bytes.len()), "wrong bytes after {checked}");
        checked += bytes.len();
        completed = world.count(|seen| matches!(seen, Seen::Sent(_, Ok(()))));
        while pending == completed && given < total {
            // Many small parts and few large ones, in turn.
            let length = if given % 3 == 0 { 64 << 10 } else { 1000 };
            let bytes = pattern(given, length.min(total - given).max(1));
            let parts: Vec<&[u8]> = bytes.chunks(length.div_ceil(SendBatch::MAX_PARTS)).collect();
            given += bytes.len();
            pending += usize::from(world.send(id, &parts));
        }
        checked == total && pending == completed
    });
    assert!(pending > 0, "the peer was never too slow");
    world.finish(&[id]);
}

pub(crate) fn a_short_send_that_moves_bytes_is_told(net: impl Backend) {
    let bulk = net.bulk();
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    let bytes = pattern(0, bulk);
    peer.stall(true);
    assert!(world.send(id, &[&bytes]));
    let told = |world: &World<_>| world.count(|seen| *seen == Seen::Progress(id));
    // What the kernel itself takes is some, as long as it has room.
    let quiet = (0..20).any(|_| {
        let before = told(&world);
        world.settle();
        told(&world) == before
    });
    assert!(quiet, "a peer that takes nothing is no progress");
    let (before, mut back) = (told(&world), 0);
    peer.stall(false);
    world.until(|world| {
        peer.pump();
        back += peer.take().len();
        world.has(&Seen::Sent(id, Ok(())))
    });
    assert!(told(&world) > before);
    assert!(!matches!(world.log.seen.last(), Some(Seen::Progress(_))), "none after the send came back");
    world.until(|_| {
        peer.pump();
        back += peer.take().len();
        back == bulk
    });
    world.finish(&[id]);
}

pub(crate) fn a_paused_socket_delivers_nothing_until_it_is_resumed(net: impl Backend) {
    let config = DriverConfig { receive_buffer: 512, receive_budget: 1024, ..DriverConfig::default() };
    let mut world = World::with(net, config);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    let (bytes, _) = pause_in_the_middle(&mut world, id, &mut peer);
    world.driver.resume(id);
    world.until(|world| world.received(id).len() == bytes.len());
    assert_eq!(world.received(id), bytes);
    // With nothing waiting, and sending meanwhile.
    world.driver.pause(id);
    world.driver.pause(id);
    let in_flight = world.send(id, &[b"out"]);
    world.until(|world| {
        peer.pump();
        world.count(|seen| matches!(seen, Seen::Sent(..))) == usize::from(in_flight)
    });
    world.driver.resume(id);
    peer.send(b"again");
    world.until(|world| world.received(id).ends_with(b"again"));
    world.finish(&[id]);
}

/// Pauses a socket before bytes come, and again after the first of them. Returns all that were sent, and how many came.
pub(crate) fn pause_in_the_middle<B: Backend>(
    world: &mut World<B>,
    id: SocketId,
    peer: &mut B::Peer,
) -> (Vec<u8>, usize) {
    world.driver.pause(id);
    let bytes = pattern(0, 10_000);
    peer.send(&bytes);
    world.settle();
    assert_eq!(world.received(id), b"");
    world.driver.resume(id);
    world.until(|world| !world.received(id).is_empty());
    world.driver.pause(id);
    let so_far = world.received(id).len();
    world.settle();
    assert_eq!(world.received(id).len(), so_far);
    (bytes, so_far)
}

pub(crate) fn a_paused_socket_reports_a_fin_once_no_bytes_are_before_it(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (empty, mut peer) = world.pair(&address);
    world.driver.pause(empty);
    peer.shutdown();
    world.until(|world| world.has(&Seen::Eof(empty)));
    world.driver.resume(empty);
    world.settle();

    let (full, mut peer) = world.pair(&address);
    world.driver.pause(full);
    peer.send(b"unread");
    peer.shutdown();
    world.settle();
    assert!(!world.has(&Seen::Eof(full)) && world.received(full).is_empty());
    world.driver.resume(full);
    world.until(|world| world.has(&Seen::Eof(full)));
    assert_eq!(world.received(full), b"unread");
    world.finish(&[empty, full]);
}

pub(crate) fn a_paused_socket_reports_a_reset(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    for unread in [&b""[..], b"unread"] {
        let (id, mut peer) = world.pair(&address);
        world.driver.pause(id);
        peer.send(unread);
        world.settle();
        peer.reset();
        world.until(|world| world.has(&Seen::Failed(id, ErrorKind::ConnectionReset)));
        assert_eq!(world.received(id), b"");
        world.driver.resume(id);
        world.settle();
        world.driver.close(id);
        world.until(|world| world.has(&Seen::Closed(id)));
    }
    world.finish(&[]);
}

pub(crate) fn bytes_before_a_half_close_arrive_and_sending_still_works(net: impl Backend) {
    let config = DriverConfig { receive_buffer: 1000, receive_budget: 3000, ..DriverConfig::default() };
    let mut world = World::with(net, config);
    let (address, _) = world.listen();
    for length in [0, 1, 1000, 2500, 3000, 6000, 50_000] {
        let (id, mut peer) = world.pair(&address);
        peer.send(&pattern(0, length));
        peer.shutdown();
        world.until(|world| {
            peer.pump();
            world.has(&Seen::Eof(id))
        });
        assert_eq!(world.received(id), pattern(0, length));
        let before = world.count(|seen| matches!(seen, Seen::Sent(..)));
        let in_flight = world.send(id, &[b"still ", b"there"]);
        let mut back = Vec::new();
        world.until(|world| {
            peer.pump();
            back.extend(peer.take());
            back == b"still there"
                && world.count(|seen| matches!(seen, Seen::Sent(..))) == before + usize::from(in_flight)
        });
        assert!(!peer.is_eof());
        world.driver.close(id);
        world.until(|world| {
            peer.pump();
            world.has(&Seen::Closed(id)) && peer.is_eof()
        });
        assert_eq!(world.count(|seen| *seen == Seen::Eof(id)), 1);
        world.log.received.remove(&id);
        world.log.seen.retain(|seen| matches!(seen, Seen::Accepted(..)));
    }
    world.finish(&[]);
}

pub(crate) fn a_reset_is_reported_once_after_the_send_in_flight_came_back(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    peer.stall(true);
    world.fill(id);
    peer.reset();
    world.until(|world| world.count(|seen| matches!(seen, Seen::Failed(..))) == 1);
    let from_end: Vec<_> = world.log.seen.iter().rev().take(2).collect();
    assert!(matches!(from_end[..], [Seen::Failed(..), Seen::Sent(_, Err(_))]), "{from_end:?}");
    // What is sent now comes back failed, and the failure is not reported again.
    let sent = world.count(|seen| matches!(seen, Seen::Sent(..)));
    assert!(world.send(id, &[b"too late"]));
    world.until(|world| world.count(|seen| matches!(seen, Seen::Sent(..))) == sent + 1);
    assert!(matches!(world.log.seen.last(), Some(Seen::Sent(_, Err(_)))));
    world.settle();
    world.finish(&[id]);
}

pub(crate) fn a_reset_after_the_end_is_reported(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    peer.shutdown();
    world.until(|world| world.has(&Seen::Eof(id)));
    peer.reset();
    world.until(|world| world.count(|seen| matches!(seen, Seen::Failed(..))) == 1);
    world.finish(&[id]);
}

pub(crate) fn close_gives_the_send_in_flight_back_then_closed(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    peer.stall(true);
    world.fill(id);
    let before = world.log.seen.len();
    world.driver.close(id);
    assert_eq!(world.log.seen.len(), before);
    while !world.has(&Seen::Closed(id)) {
        world.poll(None); // does not wait
    }
    assert_eq!(world.log.seen[before..], [Seen::Sent(id, Err(ErrorKind::ConnectionAborted)), Seen::Closed(id)]);
    world.finish(&[id]);
}

pub(crate) fn what_is_asked_of_a_closed_id_is_ignored(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, _peer) = world.pair(&address);
    world.driver.close(id);
    for _ in 0..2 {
        // Before Closed is delivered, and after.
        assert!(!world.send(id, &[b"nobody"]), "the batch comes straight back");
        world.driver.pause(id);
        world.driver.resume(id);
        world.driver.shutdown(id);
        world.driver.close(id);
        world.settle();
    }
    assert_eq!(world.count(|seen| *seen == Seen::Closed(id)), 1);
    // A newer socket in the same slot is not hit by the old id.
    let (next, mut peer) = world.pair(&address);
    assert_eq!(next.slot, id.slot);
    assert!(!world.send(id, &[b"nobody"]));
    world.driver.pause(id);
    world.driver.shutdown(id);
    world.driver.close(id);
    peer.send(b"hello");
    world.until(|world| world.received(next) == b"hello");
    peer.pump();
    assert!(!peer.is_eof() && peer.take().is_empty());
    world.finish(&[next]);
}

pub(crate) fn a_slot_is_used_again_only_after_closed_and_with_a_new_generation(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let mut peers = Vec::new();
    let mut last = None;
    for _ in 0..30 {
        let (id, peer) = world.pair(&address);
        peers.push(peer);
        if let Some(last) = last {
            world.driver.close(last);
            // An accept in the same poll must not get the slot before Closed.
            peers.push(world.net.try_connect(&address).unwrap());
        }
        world.settle();
        last = Some(id);
    }
    let mut current = std::collections::HashMap::new();
    for seen in &world.log.seen {
        match seen {
            Seen::Accepted(id, ..) => {
                assert!(current.insert(id.slot, Some(id.generation)).flatten().is_none(), "{id} is taken twice")
            }
            Seen::Closed(id) => assert_eq!(current.insert(id.slot, None), Some(Some(id.generation))),
            _ => {}
        }
    }
    let reused = world.accepted().iter().filter(|id| id.generation > 0).count();
    assert!(reused >= 20, "slots are reused: {reused}");
    let mut ids = world.accepted();
    ids.sort_by_key(|id| (id.slot, id.generation));
    ids.dedup();
    assert_eq!(ids.len(), world.accepted().len(), "no id comes twice");
    ids.retain(|id| !world.has(&Seen::Closed(*id)));
    world.finish(&ids);
}

pub(crate) fn shutdown_waits_for_what_is_in_flight(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    peer.stall(true);
    let given = world.fill(id);
    world.driver.shutdown(id);
    world.settle();
    peer.pump();
    assert!(!peer.is_eof());
    peer.stall(false);
    let mut taken = 0;
    world.until(|_| {
        peer.pump();
        taken += peer.take().len();
        peer.is_eof()
    });
    assert_eq!(taken, given);
    assert!(world.count(|seen| *seen == Seen::Sent(id, Ok(()))) > 0);
    // Receiving goes on.
    peer.send(b"bye");
    world.until(|world| world.received(id) == b"bye");
    let (idle, mut peer) = world.pair(&address);
    world.driver.shutdown(idle);
    world.until(|_| {
        peer.pump();
        peer.is_eof()
    });
    world.finish(&[id, idle]);
}

pub(crate) fn outgoing_connections_stand_or_fail(net: impl Backend) {
    let mut world = World::new(net);
    let (address, listener) = world.net.listen();
    let id = world.driver.connect(&address, ConnectOptions { source: "127.0.0.1:0".parse().ok() }).unwrap();
    world.until(|world| world.has(&Seen::Connected(id)));
    let mut peer = world.net.accept(&listener).unwrap();
    peer.send(b"welcome");
    world.until(|world| world.received(id) == b"welcome");
    let in_flight = world.send(id, &[b"thanks"]);
    let mut back = Vec::new();
    world.until(|world| {
        peer.pump();
        back.extend(peer.take());
        back == b"thanks" && world.count(|seen| matches!(seen, Seen::Sent(..))) == usize::from(in_flight)
    });
    drop(listener);
    let mut ids = vec![id];
    // A kernel may say it at once, or later.
    match world.driver.connect(&address, ConnectOptions::default()) {
        Ok(refused) => {
            world.until(|world| world.has(&Seen::Failed(refused, ErrorKind::ConnectionRefused)));
            assert!(!world.has(&Seen::Connected(refused)));
            ids.push(refused);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
    }
    world.finish(&ids);
}

pub(crate) fn one_driver_can_have_both_ends(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let near = world.driver.connect(&address, ConnectOptions::default()).unwrap();
    world.until(|world| world.has(&Seen::Connected(near)) && world.accepted().len() == 1);
    let far = world.accepted()[0];
    let bytes = pattern(0, 500_000);
    let in_flight = [world.send(near, &[&bytes]), world.send(far, &[&bytes[..10], &bytes[10..]])];
    let pending = in_flight.iter().filter(|&&pending| pending).count();
    world.until(|world| world.received(far).len() == bytes.len() && world.received(near).len() == bytes.len());
    assert!(world.received(far) == bytes && world.received(near) == bytes);
    world.until(|world| world.count(|seen| matches!(seen, Seen::Sent(_, Ok(())))) == pending);
    world.driver.close(near);
    world.until(|world| world.has(&Seen::Eof(far)));
    world.finish(&[near, far]);
}

pub(crate) fn unlisten_accepts_what_waits_and_then_refuses(net: impl Backend) {
    let mut world = World::with(net, DriverConfig { accepts_per_poll: 2, ..DriverConfig::default() });
    let (address, listener) = world.listen();
    let mut peers: Vec<_> = (0..5).map(|_| world.net.try_connect(&address).unwrap()).collect();
    world.driver.unlisten(listener);
    assert_eq!(world.driver.local_address(listener), None);
    world.until(|world| world.accepted().len() == 5);
    world.settle();
    assert!(world.net.try_connect(&address).is_none());
    peers[4].send(b"served");
    world.until(|world| world.accepted().iter().any(|&id| world.received(id) == b"served"));
    let again = world.driver.listen(&address, LISTEN).unwrap();
    assert_eq!(world.driver.local_address(again), Some(address));
    let ids = world.accepted();
    world.finish(&ids);
}

pub(crate) fn port_zero_is_resolved_and_ports_collide(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    assert!(matches!(address, Address::Tcp(address) if address.port() != 0));
    assert_eq!(world.driver.listen(&address, LISTEN).unwrap_err().kind(), ErrorKind::AddrInUse);
    let shared = ListenOptions { reuse_port: true, ..LISTEN };
    assert_eq!(world.driver.listen(&address, shared).unwrap_err().kind(), ErrorKind::AddrInUse);

    let first = world.driver.listen(&"127.0.0.1:0".parse().unwrap(), shared).unwrap();
    let shared_address = world.driver.local_address(first).unwrap();
    let mut other = world.net.driver(DriverConfig::default());
    other.listen(&shared_address, shared).unwrap();
    let peers: Vec<_> = (0..40).map(|_| world.net.try_connect(&shared_address).unwrap()).collect();
    std::mem::swap(&mut world.driver, &mut other);
    world.settle();
    let theirs = world.accepted().len();
    std::mem::swap(&mut world.driver, &mut other);
    world.until(|world| world.accepted().len() == peers.len());
    assert!(theirs > 0 && theirs < peers.len(), "connections are spread: {theirs}");
}

pub(crate) fn a_waker_works_from_another_thread(net: impl Backend) {
    let mut world = World::new(net);
    let waker = world.driver.waker();
    for _ in 0..3 {
        let waker = waker.clone();
        let before = world.count(|seen| *seen == Seen::Woken);
        let thread = thread::spawn(move || waker.wake());
        while world.count(|seen| *seen == Seen::Woken) == before {
            world.poll(None);
        }
        thread.join().unwrap();
    }
    waker.wake();
    waker.wake();
    world.settle();
    assert_eq!(world.count(|seen| *seen == Seen::Woken), 4, "two wakes before a poll are one");
    world.finish(&[]);
}

pub(crate) fn a_flooding_socket_does_not_starve_another(net: impl Backend) {
    let config = DriverConfig { receive_buffer: 4096, receive_budget: 10_000, ..DriverConfig::default() };
    let mut world = World::with(net, config);
    let (address, _) = world.listen();
    let (flood, mut flooder) = world.pair(&address);
    let (quiet, mut other) = world.pair(&address);
    let bytes = pattern(0, 400_000);
    flooder.send(&bytes);
    let (mut asked, mut answered, mut waited, mut longest) = (0, 0, 0, 0);
    while world.received(flood).len() < bytes.len() {
        if world.received(quiet).len() == asked {
            longest = longest.max(waited);
            (answered, waited) = (answered + 1, 0);
            other.send(b"?");
            asked += 1;
        }
        flooder.pump();
        let (before, from) = (world.received(flood).len(), world.log.seen.len());
        world.poll(Some(Duration::from_millis(1)));
        assert!(world.received(flood).len() - before <= config.receive_budget, "the budget holds");
        // The last byte may still be on its way through a real kernel, and a fault passes one over: not for long.
        waited += 1;
        assert!(world.log.seen.len() - from < 1000, "a poll is one round");
    }
    assert!(world.received(flood) == bytes);
    assert!(answered >= 10 && longest <= 20, "{answered} answers, {longest} polls between two");
    world.finish(&[flood, quiet]);
}

pub(crate) fn a_sink_that_takes_no_more_gets_the_rest_from_the_next_polls(net: impl Backend) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let mut pairs: Vec<_> = (0..12).map(|_| world.pair(&address)).collect();
    let (ids, bytes) = serve_a_sink_that_takes_little(&mut world, &mut pairs);
    // What it left did not wait for the kernel: a socket that is asked for something meanwhile is served as well.
    let (first, peer) = &mut pairs[0];
    peer.send(b"more");
    world.until(|world| world.received(*first).len() == bytes + 4);
    world.log.appetite = 0;
    world.finish(&ids);
}

/// Sends to all sockets while the sink takes 200 bytes in a poll. Returns the sockets, and how many bytes each got.
pub(crate) fn serve_a_sink_that_takes_little<B: Backend>(
    world: &mut World<B>,
    pairs: &mut [(SocketId, B::Peer)],
) -> (Vec<SocketId>, usize) {
    world.log.appetite = 200;
    let bytes = pattern(0, 150);
    for (_, peer) in &mut *pairs {
        peer.send(&bytes);
    }
    let ids: Vec<_> = pairs.iter().map(|(id, _)| *id).collect();
    world.until(|world| {
        assert!(world.log.taken < 350, "{} bytes in a poll", world.log.taken);
        ids.iter().all(|&id| world.received(id) == bytes)
    });
    (ids, bytes.len())
}

pub(crate) fn a_herd_is_accepted_in_portions(net: impl Backend) {
    let mut world = World::with(net, DriverConfig { accepts_per_poll: 3, ..DriverConfig::default() });
    let (address, _) = world.listen();
    let peers: Vec<_> = (0..20).map(|_| world.net.try_connect(&address).unwrap()).collect();
    let mut before = 0;
    world.until(|world| {
        let accepted = world.accepted().len();
        assert!(accepted - before <= 3);
        before = accepted;
        accepted == peers.len()
    });
    let ids = world.accepted();
    world.finish(&ids);
}

pub(crate) fn unix_sockets_work_alike(net: impl Backend) {
    let mut world = World::new(net);
    let address = world.net.unix();
    let (bound, listener) = world.listen_at(&address);
    assert_eq!(bound, address);
    let (id, mut peer) = world.pair(&address);
    assert!(world.has(&Seen::Accepted(id, listener, None)));
    peer.send(&pattern(0, 100_000));
    world.until(|world| {
        peer.pump();
        world.received(id).len() == 100_000
    });
    assert!(world.received(id) == pattern(0, 100_000));
    peer.stall(true);
    let given = world.fill(id);
    peer.stall(false);
    let mut taken = 0;
    world.until(|_| {
        peer.pump();
        taken += peer.take().len();
        taken == given
    });
    let outgoing = world.driver.connect(&address, ConnectOptions::default()).unwrap();
    world.until(|world| world.has(&Seen::Connected(outgoing)) && world.accepted().len() == 2);
    peer.shutdown();
    world.until(|world| world.has(&Seen::Eof(id)));
    let accepted = world.accepted()[1];
    let batch = world.batch(&[b"local"]);
    if let Submit::Done(mut batch) = world.driver.send(outgoing, batch) {
        batch.recycle(&mut world.slab);
    }
    world.until(|world| world.received(accepted) == b"local");
    world.settle();
    assert_eq!(world.driver.listen(&address, LISTEN).unwrap_err().kind(), ErrorKind::AddrInUse);
    world.settle();
    world.driver.unlisten(listener);
    world.settle();
    assert!(world.driver.listen(&address, LISTEN).is_ok(), "the address is free again");
    let mut ids = world.accepted(); // on real sockets also the connection that asked whether anybody listens
    ids.push(outgoing);
    world.finish(&ids);
}
