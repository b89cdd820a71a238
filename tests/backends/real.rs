//! What only real sockets have: descriptor limits, socket files, and the descriptor of the driver itself.
#![forbid(unsafe_code)]

use crate::harness::{Backend, LISTEN, Peer, Real, RealDriver, Seen, World, pattern};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{
    env, fs, io::ErrorKind, net::TcpListener, os::unix::net::UnixListener, process::Command, thread, time::Duration,
};
use wingbeat::driver::{Address, DriverConfig};

const CHILD: &str = "WINGBEAT_TEST_FEW_DESCRIPTORS";

macro_rules! on_real_drivers {
    ($($test:ident),* $(,)?) => {
        mod epoll {
            use crate::harness::Real;
            $(#[test] fn $test() { super::$test(Real::<wingbeat::driver::Epoll>::new()) })*
        }
        #[cfg(feature = "uring")]
        mod uring {
            use crate::harness::Real;
            $(#[test] fn $test() { super::$test(Real::<wingbeat::driver::Uring>::new()) })*
        }
    };
}

on_real_drivers![
    running_out_of_descriptors_backs_off_and_recovers,
    stale_socket_files_are_replaced_and_foreign_files_are_not,
    the_descriptor_is_readable_when_a_poll_would_find_something,
    ipv6_listens_beside_ipv4,
    what_came_before_a_reset_is_not_lost_to_a_failed_send,
];

/// In a process of its own, because the limit would hit the other tests.
fn running_out_of_descriptors_backs_off_and_recovers<D: RealDriver>(net: Real<D>) {
    if env::var_os(CHILD).is_none() {
        let thread = thread::current();
        let name = thread.name().expect("tests have a thread of their name");
        let mut child = Command::new(env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
        return;
    }
    let mut world = World::new(net);
    let (address, _) = world.listen();
    // The peers are connected before the limit falls on them too; the kernel queues them. (An accept of io_uring knows
    // the limit of when it was asked for: it is asked for by the first poll.)
    let mut served = world.net.try_connect(&address).unwrap();
    let mut peers: Vec<_> = (0..12).map(|_| world.net.try_connect(&address).unwrap()).collect();
    let highest = fs::read_dir("/proc/self/fd").unwrap().count() as u64; // one more than are open
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(highest + 1), maximum }).unwrap();

    world.until(|world| world.driver.counters().accept_exhausted > 0);
    assert!((1..1 + peers.len()).contains(&world.accepted().len()));
    let first = world.accepted()[0];
    // Those that are connected are served meanwhile, and accepting rests: 10 polls of 2 ms are far less than the pause,
    // and without one each of them would refuse a peer.
    let exhausted = world.driver.counters().accept_exhausted;
    served.send(b"hello");
    (0..10).for_each(|_| world.poll(Some(Duration::from_millis(2))));
    assert_eq!(world.received(first), b"hello");
    assert!(world.driver.counters().accept_exhausted < exhausted + 4, "no pause");
    // Polls wait meanwhile, even those without a timeout of their own, and go on by themselves.
    let (polls, exhausted) = (world.log.polls, world.driver.counters().accept_exhausted);
    while world.driver.counters().accept_exhausted < exhausted + 2 {
        world.poll(None);
    }
    assert!(world.log.polls - polls < 20, "{} polls: a busy loop", world.log.polls - polls);
    // Each time one peer was told so, by a close.
    let exhausted = world.driver.counters().accept_exhausted;
    let refused = peers.iter_mut().filter_map(|peer| {
        peer.pump();
        peer.is_eof().then_some(())
    });
    assert_eq!(refused.count() as u64, exhausted);

    // With descriptors again, those that still wait are accepted.
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    world.until(|world| world.accepted().len() as u64 + exhausted == 13);
    let ids = world.accepted();
    world.finish(&ids);
}

fn stale_socket_files_are_replaced_and_foreign_files_are_not<D: RealDriver>(net: Real<D>) {
    let address = net.unix();
    let Address::Unix(path) = &address else { panic!() };
    let mut driver = net.driver(Default::default());

    drop(UnixListener::bind(path).unwrap()); // leaves its file behind
    let listener = driver.listen(&address, LISTEN).unwrap();
    assert!(net.try_connect(&address).is_some());
    driver.unlisten(listener);
    let mut world = World::new(net);
    std::mem::swap(&mut world.driver, &mut driver);
    world.settle();
    assert!(!path.exists(), "the file goes with the listener");

    fs::write(path, "data").unwrap();
    assert_eq!(world.driver.listen(&address, LISTEN).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(fs::read(path).unwrap(), b"data");
    fs::remove_file(path).unwrap();

    world.driver.listen(&address, LISTEN).unwrap();
    fs::remove_file(path).unwrap();
    let other = UnixListener::bind(path).unwrap(); // a successor took the path over
    drop(world.driver);
    assert!(path.exists(), "a successor's file stays");
    drop(other);
}

fn the_descriptor_is_readable_when_a_poll_would_find_something<D: RealDriver>(net: Real<D>) {
    let mut world = World::new(net);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    world.settle();
    let readable = |world: &World<Real<D>>| {
        let fd = world.driver.as_fd().unwrap();
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&none)).unwrap() == 1
    };
    assert!(!readable(&world) && world.driver.longest_wait().is_none());
    peer.send(b"x");
    assert!(readable(&world));
    world.poll(Some(Duration::ZERO));
    assert_eq!(world.received(id), b"x");
    assert!(!readable(&world));
    world.driver.close(id);
    assert_eq!(world.driver.longest_wait(), Some(Duration::ZERO), "closing is due, without the kernel");
    world.poll(Some(Duration::from_secs(60)));
    assert!(world.has(&Seen::Closed(id)) && world.driver.longest_wait().is_none());
    world.finish(&[]);
}

fn ipv6_listens_beside_ipv4<D: RealDriver>(net: Real<D>) {
    let mut world = World::new(net);
    if TcpListener::bind("[::1]:0").is_err() {
        return; // this host has no IPv6
    }
    let (address, listener) = world.listen_at(&"[::1]:0".parse().unwrap());
    let (id, mut peer) = world.pair(&address);
    assert!(world.has(&Seen::Accepted(id, listener, Some("::1".parse().unwrap()))));
    peer.send(b"six");
    world.until(|world| world.received(id) == b"six");
    world.finish(&[id]);
}

/// A send notices the reset before the poll does.
fn what_came_before_a_reset_is_not_lost_to_a_failed_send<D: RealDriver>(net: Real<D>) {
    let config = DriverConfig { receive_buffer: 16, receive_budget: 16, ..DriverConfig::default() };
    let mut world = World::with(net, config);
    let (address, _) = world.listen();
    let (id, mut peer) = world.pair(&address);
    world.settle();
    let words = pattern(0, 1000); // far beyond the budget of one poll
    peer.send(&words);
    peer.reset();
    assert!(world.send(id, &[b"too late"]));
    world.until(|world| world.count(|seen| matches!(seen, Seen::Failed(..))) == 1);
    assert_eq!(world.received(id), words);
    world.finish(&[id]);
}
