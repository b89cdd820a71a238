//! What the contract suite cannot provoke from outside: operations that the kernel ends by itself.
#![forbid(unsafe_code)]

use super::*;
use crate::buffer::{FrameSlab, FrameSlabConfig};

#[derive(Default)]
struct Log {
    accepted: Vec<SocketId>,
    connected: Vec<SocketId>,
    received: BTreeMap<u32, Vec<u8>>,
    sent: Vec<SendBatch>,
    closed: usize,
    failed: usize,
    woken: usize,
}

impl CompletionSink for Log {
    fn takes_more(&self) -> bool {
        true
    }

    fn complete(&mut self, completion: Completion<'_>) {
        match completion {
            Completion::Accepted { id, .. } => self.accepted.push(id),
            Completion::Connected { id } => self.connected.push(id),
            Completion::Received { id, data } => self.received.entry(id.slot).or_default().extend_from_slice(data),
            Completion::Sent { batch, result, .. } => {
                assert!(result.is_ok(), "{result:?}");
                self.sent.push(batch);
            }
            Completion::Closed { .. } => self.closed += 1,
            Completion::Failed { .. } => self.failed += 1,
            Completion::Woken => self.woken += 1,
            Completion::Eof { .. } | Completion::Progress { .. } => {}
        }
    }
}

const OPTIONS: ListenOptions = ListenOptions { backlog: 64, reuse_port: false };
const SHORT: Option<Duration> = Some(Duration::from_millis(2));

fn until(driver: &mut Uring, log: &mut Log, mut done: impl FnMut(&mut Uring, &mut Log) -> bool) {
    for _ in 0..10_000 {
        driver.poll(SHORT, log).unwrap();
        if done(driver, log) {
            return;
        }
    }
    panic!("it never happened");
}

fn bytes(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn batch(slab: &mut FrameSlab, bytes: &[u8]) -> SendBatch {
    let mut batch = SendBatch::new();
    for part in bytes.chunks(bytes.len().div_ceil(7)) {
        let frame = slab.build(part.len(), 1, |out| out.extend_from_slice(part));
        batch.push(frame, slab);
    }
    batch
}

/// Before each poll the kernel is made to end everything: accepts, receives, sends, polls, the waker's read. Nothing is
/// lost, doubled or left.
fn everything_ends_all_the_time(incremental: bool) {
    let config = DriverConfig { receive_buffer: 3000, receive_pool: 6000, ..DriverConfig::default() };
    let driver = UringSeed::new(config).unwrap().start_with(incremental);
    let (mut driver, mut log) = (driver.unwrap(), Log::default());
    let mut slab = FrameSlab::new(FrameSlabConfig::default());
    let listener = driver.listen(&"127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap();
    let address = driver.local_address(listener).unwrap();
    let ends: Vec<_> = (0..10).map(|_| driver.connect(&address, ConnectOptions::default()).unwrap()).collect();
    let waker = driver.waker();
    until(&mut driver, &mut log, |driver, log| {
        driver.queue.sabotage();
        log.connected.len() == ends.len() && log.accepted.len() == ends.len()
    });
    let mut rounds = 0;
    let (mut given, mut pending) = (0, 0);
    until(&mut driver, &mut log, |driver, log| {
        rounds += 1;
        for mut batch in log.sent.drain(..) {
            batch.recycle(&mut slab);
            pending -= 1;
        }
        if pending == 0 && given < 300_000 {
            for &id in &ends {
                let batch = batch(&mut slab, &bytes(given, 20_000));
                pending += usize::from(matches!(driver.send(id, batch), Submit::Pending));
            }
            given += 20_000;
        }
        if rounds % 3 == 0 {
            let id = log.accepted[rounds % 10];
            if rounds % 2 == 0 { driver.pause(id) } else { driver.resume(id) }
        }
        if rounds % 4 == 0 {
            let id = log.accepted[rounds / 4 % 10];
            if rounds % 3 == 0 { driver.rouse(id) } else { driver.rest(id) }
        }
        if rounds % 2 == 0 {
            driver.queue.sabotage();
        }
        if given == 300_000 {
            log.accepted.iter().for_each(|&id| driver.resume(id));
        }
        given == 300_000 && log.accepted.iter().all(|id| log.received.get(&id.slot).map_or(0, Vec::len) == given)
    });
    for id in &log.accepted {
        assert!(log.received[&id.slot] == bytes(0, given), "what arrives is what was sent");
    }
    let woken = log.woken;
    driver.queue.sabotage();
    waker.wake();
    until(&mut driver, &mut log, |_, log| log.woken > woken);
    for id in ends.iter().chain(&log.accepted.clone()) {
        driver.close(*id);
    }
    until(&mut driver, &mut log, |driver, log| {
        driver.queue.sabotage();
        log.closed == 20
    });
    log.sent.drain(..).for_each(|mut batch| _ = batch.recycle(&mut slab));
    assert_eq!((slab.live(), log.failed, driver.counters()), (0, 0, DriverCounters::default()));
}

#[test]
fn what_the_kernel_ends_is_asked_for_again() {
    everything_ends_all_the_time(true);
}

#[test]
fn what_the_kernel_ends_is_asked_for_again_with_whole_buffers() {
    everything_ends_all_the_time(false);
}

/// Far more sockets have bytes than there are buffers: most receives end for want of one.
fn everybody_waits_for_buffers(incremental: bool) {
    let config = DriverConfig { receive_buffer: 10, receive_pool: 40, events: 4, ..DriverConfig::default() };
    let driver = UringSeed::new(config).unwrap().start_with(incremental);
    let (mut driver, mut log) = (driver.unwrap(), Log::default());
    let mut slab = FrameSlab::new(FrameSlabConfig::default());
    let listener = driver.listen(&"127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap();
    let address = driver.local_address(listener).unwrap();
    let ends: Vec<_> = (0..50).map(|_| driver.connect(&address, ConnectOptions::default()).unwrap()).collect();
    until(&mut driver, &mut log, |_, log| log.connected.len() == 50 && log.accepted.len() == 50);
    for &id in &ends {
        let batch = batch(&mut slab, &bytes(0, 1000));
        assert!(matches!(driver.send(id, batch), Submit::Pending));
    }
    let (mut polls, mut least) = (0, 0);
    until(&mut driver, &mut log, |_, log| {
        polls += 1;
        let counts = || log.accepted.iter().map(|id| log.received.get(&id.slot).map_or(0, Vec::len));
        least = least.max(counts().max().unwrap() - counts().min().unwrap());
        counts().all(|count| count == 1000)
    });
    assert!(polls >= 50_000 / 40, "{polls} polls: four buffers bring no more");
    assert!(least < 1000, "one has all before another has any");
    until(&mut driver, &mut log, |_, log| log.sent.len() == 50);
    log.sent.drain(..).for_each(|mut batch| _ = batch.recycle(&mut slab));
    assert_eq!(slab.live(), 0);
}

#[test]
fn more_sockets_than_buffers_all_get_their_turn() {
    everybody_waits_for_buffers(true);
}

#[test]
fn more_sockets_than_whole_buffers_all_get_their_turn() {
    everybody_waits_for_buffers(false);
}

#[test]
fn dropping_ends_what_is_in_flight() {
    let mut slab = FrameSlab::new(FrameSlabConfig::default());
    let (mut driver, mut log) = (Uring::new(DriverConfig::default()).unwrap(), Log::default());
    let listener = driver.listen(&"127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap();
    let address = driver.local_address(listener).unwrap();
    let near = driver.connect(&address, ConnectOptions::default()).unwrap();
    until(&mut driver, &mut log, |_, log| log.connected.len() == 1 && log.accepted.len() == 1);
    driver.pause(log.accepted[0]);
    let body = {
        let frame = slab.build(1 << 25, 1, |out| out.resize(1 << 25, 1));
        let body = slab.body(&frame);
        let mut batch = SendBatch::new();
        batch.push(frame, &slab);
        assert!(matches!(driver.send(near, batch), Submit::Pending));
        body
    };
    (0..10).for_each(|_| driver.poll(SHORT, &mut log).unwrap());
    assert!(log.sent.is_empty() && driver.queue.outstanding() >= 4, "{}", driver.queue.outstanding());
    assert!(driver.queue.end(), "the kernel ends them when it is told");
    assert_eq!(driver.queue.outstanding(), 0);
    drop(driver);
    assert_eq!(
        std::rc::Rc::strong_count(&body),
        2,
        "the driver has given up its share: the slab's and this one are left"
    );
}

/// Receives and polls that the kernel has of sockets.
fn standing(driver: &Uring, ids: &[SocketId]) -> (usize, usize) {
    let count = |what| ids.iter().filter(|id| driver.slots[id.slot].state.any(what)).count();
    (count(State::RECEIVE), count(State::WATCH))
}

#[test]
fn a_resting_socket_has_a_poll_and_no_receive() {
    let mut slab = FrameSlab::new(FrameSlabConfig::default());
    let (mut driver, mut log) = (Uring::new(DriverConfig::default()).unwrap(), Log::default());
    let listener = driver.listen(&"127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap();
    let address = driver.local_address(listener).unwrap();
    let ends: Vec<_> = (0..60).map(|_| driver.connect(&address, ConnectOptions::default()).unwrap()).collect();
    until(&mut driver, &mut log, |_, log| log.connected.len() == 60 && log.accepted.len() == 60);
    let ids = log.accepted.clone();
    // Beside them: the other ends' receives, the accept, the waker's read.
    let all = 2 * 60 + 2;
    until(&mut driver, &mut log, |driver, _| standing(driver, &ids) == (60, 0) && driver.queue.outstanding() == all);

    ids.iter().for_each(|&id| driver.rest(id));
    until(&mut driver, &mut log, |driver, _| standing(driver, &ids) == (0, 60));
    assert_eq!(driver.queue.outstanding(), all, "each receive has ended");
    for round in 1..4 {
        for &id in &ends {
            let batch = batch(&mut slab, &bytes(0, 100));
            assert!(matches!(driver.send(id, batch), Submit::Pending));
        }
        until(&mut driver, &mut log, |_, log| {
            ids.iter().all(|id| log.received.get(&id.slot).is_some_and(|bytes| bytes.len() == round * 100))
        });
        assert_eq!((standing(&driver, &ids), driver.queue.outstanding()), ((0, 60), all), "the same polls, still");
    }

    ids.iter().for_each(|&id| driver.rouse(id));
    until(&mut driver, &mut log, |driver, _| driver.queue.outstanding() == all);
    assert_eq!(standing(&driver, &ids), (60, 0));
    // What comes to nothing within a turn asks for nothing.
    for &id in &ids {
        driver.rest(id);
        driver.rouse(id);
    }
    driver.ask();
    assert!(!driver.queue.has_unsubmitted());
    // A poll that waited for the end of a paused socket makes way.
    ids.iter().for_each(|&id| driver.pause(id));
    until(&mut driver, &mut log, |driver, _| standing(driver, &ids) == (0, 60));
    for &id in &ids {
        driver.resume(id);
        driver.rest(id);
    }
    let tells = |driver: &Uring, id: &SocketId| driver.slots[id.slot].state.any(State::WATCHES_BYTES);
    until(&mut driver, &mut log, |driver, _| ids.iter().all(|id| tells(driver, id)));
    until(&mut driver, &mut log, |_, log| log.sent.len() == 180);
    log.sent.drain(..).for_each(|mut batch| _ = batch.recycle(&mut slab));
    assert_eq!((standing(&driver, &ids), slab.live(), driver.counters()), ((0, 60), 0, DriverCounters::default()));
}

/// As many as a machine with many workers has, each with a ring of the default size, at work at once.
#[test]
fn a_process_has_many_rings() {
    let mut drivers: Vec<_> = (0..56).map(|_| (Uring::new(DriverConfig::default()).unwrap(), Log::default())).collect();
    for (driver, log) in &mut drivers {
        let listener = driver.listen(&"127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap();
        let address = driver.local_address(listener).unwrap();
        driver.connect(&address, ConnectOptions::default()).unwrap();
        until(driver, log, |_, log| log.connected.len() == 1 && log.accepted.len() == 1);
    }
}

/// In a process of its own, because the limit would hit the other tests.
#[test]
fn a_ring_is_smaller_where_little_memory_may_be_locked() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    const CHILD: &str = "WINGBEAT_TEST_LITTLE_MEMORY";
    if std::env::var_os(CHILD).is_none() {
        let thread = std::thread::current();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", thread.name().unwrap()]).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        return assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }
    let limit = |bytes| setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum: Some(bytes) }).unwrap();
    let mut mine = capabilities(None).unwrap();
    mine.effective.remove(CapabilitySet::IPC_LOCK); // who has it is not limited
    set_capabilities(None, mine).unwrap();
    limit(64 << 10);
    let sizes = Sizes::of(&DriverConfig::default());
    let whole = Queue::new(sizes.entries as u32, sizes.completions as u32);
    if whole.is_ok() {
        return; // before Linux 6.14 rings are not limited
    }
    let (mut driver, mut log) = (Uring::new(DriverConfig::default()).unwrap(), Log::default());
    let listener = driver.listen(&"127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap();
    let address = driver.local_address(listener).unwrap();
    let ends: Vec<_> = (0..60).map(|_| driver.connect(&address, ConnectOptions::default()).unwrap()).collect();
    until(&mut driver, &mut log, |_, log| log.connected.len() == ends.len() && log.accepted.len() == ends.len());
    limit(0);
    assert_eq!(Uring::new(DriverConfig::default()).unwrap_err().kind(), io::ErrorKind::Unsupported);
}

/// The descriptor of the ring wakes another event loop, also for what only this thread's own system call would finish.
#[test]
fn the_descriptor_becomes_readable_while_it_is_waited_for() {
    use rustix::event::{PollFd, PollFlags, Timespec};
    use std::io::Write;
    let (mut driver, mut log) = (Uring::new(DriverConfig::default()).unwrap(), Log::default());
    let listener = driver.listen(&"127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap();
    let Some(Address::Tcp(address)) = driver.local_address(listener) else { panic!() };
    let mut peer = std::net::TcpStream::connect(address).unwrap();
    until(&mut driver, &mut log, |_, log| log.accepted.len() == 1);
    (0..10).for_each(|_| driver.poll(SHORT, &mut log).unwrap());
    assert_eq!(driver.longest_wait(), None);
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        peer.write_all(b"x").unwrap();
        peer
    });
    let fd = driver.as_fd().unwrap();
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&patience)).unwrap(), 1);
    driver.poll(Some(Duration::ZERO), &mut log).unwrap();
    assert_eq!(log.received[&log.accepted[0].slot], b"x");
    drop(late.join());
}
