//! When a worker looks again before it blocks: counts of looks and waits, whatever the clock says.
#![forbid(unsafe_code)]

use crate::common::world::config;
use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};
use wingbeat::buffer::SendBatch;
use wingbeat::driver::{
    Address, Completion, CompletionSink, ConnectOptions, Driver, DriverCounters, ListenOptions, ListenerId, SocketId,
    Submit, Wake,
};
use wingbeat::engine::{Worker, group};
use wingbeat::{Conn, Drain, Handle, Handler, Message, Request, Scope, Upgrade};

/// Far longer than the test takes: what ends such a spin is work.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// Short enough that it ends at the first look.
const AT_ONCE: Duration = Duration::from_nanos(1);
/// Looks of one turn that are too many.
const ENDLESS: u32 = 1 << 30;
/// How long another thread has the CPU.
const AWAY: Duration = Duration::from_millis(1);
const LISTENER: ListenerId = ListenerId(0);

/// What a poll finds.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Found {
    Nothing,
    /// Something, which the engine counts as work.
    Woken,
    /// Bytes, of a connection that is gone by now.
    Bytes,
    /// Nothing, and another thread had the CPU meanwhile.
    Preempted,
    /// Mail, sent by another thread during the wait.
    Mail,
    /// The same, but after the wait, while callbacks run.
    LateMail,
    /// Nothing, but another thread asks for a drain.
    Drain,
}

/// What polls will find, and how many there were: looks, which do not wait, and waits.
#[derive(Debug)]
struct Plan {
    looks_find: VecDeque<Found>,
    wait_finds: Found,
    looks: u32,
    waits: u32,
}

struct Planned {
    plan: Rc<RefCell<Plan>>,
    /// What other threads have.
    handle: Rc<OnceCell<Handle<u32>>>,
}

impl Planned {
    fn mail(&self) {
        self.handle.get().expect("it is set first").mail_worker(0, 1).expect("there is room");
    }
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

impl Driver for Planned {
    fn listen(&mut self, _: &Address, _: ListenOptions) -> io::Result<ListenerId> {
        Ok(LISTENER)
    }

    fn local_address(&self, _: ListenerId) -> Option<Address> {
        None
    }

    fn unlisten(&mut self, _: ListenerId) {}

    fn connect(&mut self, _: &Address, _: ConnectOptions) -> io::Result<SocketId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn pause(&mut self, _: SocketId) {}

    fn resume(&mut self, _: SocketId) {}

    fn send(&mut self, _: SocketId, batch: SendBatch) -> Submit {
        Submit::Done(batch)
    }

    fn shutdown(&mut self, _: SocketId) {}

    fn close(&mut self, _: SocketId) {}

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(NoWake)
    }

    fn poll(&mut self, timeout: Option<Duration>, sink: &mut impl CompletionSink) -> io::Result<()> {
        let mut plan = self.plan.borrow_mut();
        let found = if timeout == Some(Duration::ZERO) {
            plan.looks += 1;
            assert!(plan.looks < ENDLESS, "it spins for ever");
            plan.looks_find.pop_front().unwrap_or(Found::Nothing)
        } else {
            plan.waits += 1;
            plan.wait_finds
        };
        drop(plan);
        match found {
            Found::Preempted => thread::sleep(AWAY),
            Found::Mail => self.mail(),
            Found::Drain => self.handle.get().expect("it is set first").drain(Drain::default()),
            _ => {}
        }
        sink.polled();
        match found {
            Found::Woken => sink.complete(Completion::Woken),
            Found::Bytes => {
                let id = SocketId { slot: 0, generation: 7 };
                sink.complete(Completion::Received { id, data: &mut [0] });
            }
            Found::LateMail => self.mail(),
            Found::Nothing | Found::Preempted | Found::Mail | Found::Drain => {}
        }
        Ok(())
    }

    fn longest_wait(&self) -> Option<Duration> {
        None
    }

    fn counters(&self) -> DriverCounters {
        DriverCounters::default()
    }
}

/// Counts its timers.
struct Quiet {
    timers: u32,
}

impl Handler for Quiet {
    type State = ();
    type Mail = u32;

    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn message(&mut self, _: &mut Conn<'_>, (): &mut (), _: Message<'_>) {}

    fn timer(&mut self, _: &mut Scope<'_>, _: u64) {
        self.timers += 1;
    }
}

/// A worker that spins, and what its polls find.
struct Bench {
    worker: Worker<Quiet, Planned>,
    handle: Handle<u32>,
    plan: Rc<RefCell<Plan>>,
}

impl Bench {
    fn new(spin: Duration) -> Bench {
        let plan = Plan { looks_find: VecDeque::new(), wait_finds: Found::Nothing, looks: 0, waits: 0 };
        let plan = Rc::new(RefCell::new(plan));
        let driver = Planned { plan: Rc::clone(&plan), handle: Rc::default() };
        let (mut seeds, handle) = group(&[driver.waker()], config());
        let _ = driver.handle.set(handle.clone());
        let mut worker = seeds.pop().expect("one waker gives one worker").start(driver, Quiet { timers: 0 });
        worker.set_spin(spin);
        Bench { worker, handle, plan }
    }

    /// One turn: how many looks and how many waits it took.
    fn turn(&mut self, looks_find: &[Found], wait_finds: Found) -> (u32, u32) {
        self.turn_of(None, looks_find, wait_finds)
    }

    fn turn_of(&mut self, timeout: Option<Duration>, looks_find: &[Found], wait_finds: Found) -> (u32, u32) {
        let looks_find = looks_find.iter().copied().collect();
        *self.plan.borrow_mut() = Plan { looks_find, wait_finds, looks: 0, waits: 0 };
        self.worker.wait(timeout).expect("it is planned");
        let plan = self.plan.borrow();
        assert!(plan.looks_find.is_empty(), "{plan:?} is left");
        (plan.looks, plan.waits)
    }
}

use Found::{Bytes, LateMail, Mail, Nothing, Preempted, Woken};

#[test]
fn it_does_not_block_while_work_comes() {
    let mut bench = Bench::new(FOR_EVER);
    assert_eq!(bench.turn(&[], Bytes), (0, 1), "there was no work before: it waits at once");
    for idle in 0..100 {
        let finds = [vec![Nothing; idle], vec![if idle % 2 == 0 { Bytes } else { Woken }]].concat();
        assert_eq!(bench.turn(&finds, Nothing), (idle as u32 + 1, 0), "it looks until work is there");
    }
}

#[test]
fn it_blocks_when_none_comes() {
    let mut bench = Bench::new(FOR_EVER);
    for _ in 0..100 {
        assert_eq!(bench.turn(&[], Nothing), (0, 1), "the turn before had no work");
    }
    let mut bench = Bench::new(AT_ONCE);
    bench.turn(&[], Bytes);
    assert_eq!(bench.turn(&[], Nothing), (1, 1), "the spin ends, and then it waits");
    let mut never = Bench::new(Duration::ZERO);
    for _ in 0..100 {
        assert_eq!(never.turn(&[], Bytes), (0, 1));
    }
}

#[test]
fn mail_is_work_though_nobody_wakes_a_worker_that_spins() {
    let mut bench = Bench::new(FOR_EVER);
    bench.turn(&[], Woken);
    for mail in 1..=10 {
        bench.handle.mail_worker(0, mail).unwrap();
        assert_eq!(bench.turn(&[], Nothing), (1, 0), "it is found at the first look");
        let counters = bench.handle.metrics().counters;
        assert_eq!((counters.mail, counters.woken), (u64::from(mail), 0));
    }
}

#[test]
fn a_wait_that_is_to_be_shorter_is_not_prolonged() {
    let mut bench = Bench::new(FOR_EVER);
    bench.turn(&[], Bytes);
    assert_eq!(bench.turn_of(Some(Duration::ZERO), &[Bytes], Nothing), (1, 0));
    assert_eq!(bench.turn_of(Some(FOR_EVER / 2), &[], Bytes), (0, 1));
    assert_eq!(bench.turn_of(Some(FOR_EVER), &[Nothing, Bytes], Nothing), (2, 0));
}

#[test]
fn what_is_due_ends_a_spin() {
    let mut bench = Bench::new(FOR_EVER);
    bench.turn(&[], Bytes);
    bench.worker.with(|_, scope| _ = scope.set_timer(Duration::from_millis(1), 0));
    let (_, waits) = bench.turn(&[], Nothing);
    assert_eq!((bench.worker.with(|handler, _| handler.timers), waits), (1, 0));
    bench.turn(&[], Bytes);
    assert_eq!(bench.turn(&[Nothing, Found::Drain], Nothing), (3, 0), "it looks once more, as it does not wait");
    assert!(bench.worker.is_drained());
}

/// Each turn has work, but none comes within the spin.
#[test]
fn where_it_never_pays_it_becomes_rare() {
    let mut bench = Bench::new(AT_ONCE);
    bench.turn(&[], Bytes);
    let looks: u32 = (0..1000).map(|_| bench.turn(&[], Bytes).0).sum();
    assert!((10..30).contains(&looks), "{looks} of 1000");
}

#[test]
fn it_gives_way_to_others_that_want_the_cpu() {
    let mut bench = Bench::new(AWAY / 10);
    bench.turn(&[], Bytes);
    for _ in 0..3 {
        assert_eq!(bench.turn(&[Preempted], Bytes), (1, 1));
        for _ in 0..64 {
            assert_eq!(bench.turn(&[], Bytes), (0, 1), "it rests");
        }
    }
}

/// The callbacks of a poll may take long. What others send meanwhile is seen right after them.
#[test]
fn a_worker_that_waits_is_woken_and_one_in_its_callbacks_is_not() {
    let mut bench = Bench::new(Duration::ZERO);
    for turn in 1..=10 {
        assert_eq!(bench.turn(&[], Mail), (0, 1));
        assert_eq!(bench.turn(&[], LateMail), (0, 1));
        let counters = bench.handle.metrics().counters;
        assert_eq!((counters.mail, counters.woken), (2 * turn, turn));
    }
}
