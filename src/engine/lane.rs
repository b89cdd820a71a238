//! The lane of a worker: how mail of other threads reaches it, in each sender's order, with at most one wake per sleep.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_queue::ArrayQueue;

/// Messages go to the queue.
const DIRECT: u8 = 0;
/// Messages go to the overflow, because it is not empty.
const OVERFLOWING: u8 = 1;
/// The receiver is gone.
const CLOSED: u8 = 2;

/// Bytes of a message in the queue that count as none: so small ones cost nothing to count, and the queue has a limit
/// all the same.
const SMALL: usize = 1024;
/// Entries whose memory the overflow keeps while it is empty.
const KEEP: usize = 64;

/// What a lane may hold.
#[derive(Debug, Clone, Copy)]
pub struct LaneConfig {
    /// Messages in the lock-free queue (default 4,096). Beyond that they go to the overflow.
    pub capacity: usize,
    /// Bytes of messages, as stated by the senders: of those in the queue what is above 1 KiB each, of those in the
    /// overflow all, and at least the size of the message type (default 4 MiB). Beyond that messages are refused and
    /// counted; but one that is larger than all this goes to a queue in which no other counts.
    pub overflow_bytes: usize,
}

impl Default for LaneConfig {
    fn default() -> Self {
        LaneConfig { capacity: 4096, overflow_bytes: 4 << 20 }
    }
}

/// Wakes the worker that sleeps on its driver. Called at most once per [`Receiver::prepare_sleep`], from any thread;
/// rarely also just as the worker finds mail and stays awake, or after it woke for another reason.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Makes a lane. The receiver belongs to one worker; senders are cloned for everybody else.
///
/// # Panics
/// If the capacity is 0.
pub fn lane<T>(config: LaneConfig, waker: Waker) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(config.capacity),
        route: AtomicU8::new(DIRECT),
        overflow: Mutex::new(VecDeque::new()),
        bytes: AtomicUsize::new(0),
        limit: config.overflow_bytes,
        asleep: AtomicBool::new(false),
        waker,
        refused: AtomicU64::new(0),
        woken: AtomicU64::new(0),
    });
    (Sender { shared: shared.clone() }, Receiver { shared, taken: VecDeque::new() })
}

/// A lane's end for other threads.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// A lane's end for its worker.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Taken out of the queue and the overflow under the lock; older than everything that is in them now.
    taken: VecDeque<(T, usize)>,
}

/// The lane took nothing: queue and overflow are full, or the worker is gone. The message comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// # Why each sender's order holds
///
/// Let a sender send `a`, then `b`.
/// * Both in the queue: it is first in, first out. Both in the overflow: likewise.
/// * `a` in the overflow, `b` in the queue. `a` was put there under the lock, together with `route = OVERFLOWING`. The
///   sender later read `DIRECT`, which only the receiver stores, under the lock, in the step that empties the overflow.
///   So `a` was in `taken` before `b` entered the queue, and `taken` is received before the queue is looked at again.
/// * `a` in the queue, `b` in the overflow. `a` entered the queue before `b` was put into the overflow under the lock.
///   The receiver takes `b` under the same lock and *first* empties the queue there; whatever it saw of the queue
///   before it had the lock does not matter. So `a` is in `taken` ahead of `b`, or was received before.
///
/// Emptying the queue under the lock ends: only senders that read `DIRECT` before can still push, once each.
///
/// # Why no wake-up is lost
///
/// The receiver stores `asleep`, then a fence, then looks at the lane. A sender puts its message in, then a fence, then
/// looks at `asleep`. Of two threads that each write before a `SeqCst` fence and read after it at least one sees the
/// other's write: either the receiver finds the message and stays awake, or the sender finds `asleep` and wakes it.
/// Only the sender whose swap turns `asleep` off calls the waker: one wake per sleep, however many messages.
struct Shared<T> {
    /// Messages, and what they have in `bytes`.
    queue: ArrayQueue<(T, usize)>,
    /// `OVERFLOWING` exactly while the overflow is not empty; written under the lock of `overflow` only.
    route: AtomicU8,
    overflow: Mutex<VecDeque<(T, usize)>>,
    /// Bytes of everything that is not yet received, as far as they count.
    bytes: AtomicUsize,
    limit: usize,
    asleep: AtomicBool,
    waker: Waker,
    refused: AtomicU64,
    woken: AtomicU64,
}

impl<T> Sender<T> {
    /// Sends a message that occupies `bytes`, and wakes the worker if it sleeps. Neither blocks nor allocates unless the
    /// queue is full.
    ///
    /// # Errors
    /// [`Full`]: nothing was sent, and the refusal is counted.
    pub fn send(&self, value: T, bytes: usize) -> Result<(), Full<T>> {
        let sent = match self.shared.route.load(Ordering::Acquire) {
            DIRECT => self.shared.push(value, bytes),
            _ => self.shared.push_overflow(value, bytes),
        };
        match sent {
            Ok(()) => self.shared.wake(),
            Err(_) => _ = self.shared.refused.fetch_add(1, Ordering::Relaxed),
        }
        sent
    }

    /// Wakes the worker if it sleeps, for something that was put beside the lane. The worker sees it, as it would see a
    /// message, if it looks for it after [`Receiver::prepare_sleep`].
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Messages that this lane has refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl<T> Receiver<T> {
    /// The next message, if there is one. Takes a lock only if there was an overflow, once for all that is in it.
    pub fn receive(&mut self) -> Option<T> {
        if self.taken.is_empty() {
            if let Some((value, bytes)) = self.shared.queue.pop() {
                self.shared.release(bytes);
                return Some(value);
            }
            if self.shared.route.load(Ordering::Acquire) == DIRECT {
                return None;
            }
            self.take_overflow();
        }
        let (value, bytes) = self.taken.pop_front()?;
        self.shared.release(bytes);
        if self.taken.is_empty() {
            self.taken.shrink_to(KEEP);
        }
        Some(value)
    }

    /// Announces that the worker is about to block. False: there is mail, and it must not. After true, whoever sends
    /// next calls the waker; the worker may block, and calls [`Receiver::awake`] when it goes on.
    ///
    /// One call allows to block once. A wake may be for a message that has been received already, so a worker that
    /// finds nothing after a wake must come here again: the flag is off, and nobody would wake it.
    pub fn prepare_sleep(&mut self) -> bool {
        self.shared.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return true;
        }
        self.awake();
        false
    }

    /// Ends what [`Receiver::prepare_sleep`] began, whether a sender or something else woke the worker.
    pub fn awake(&mut self) {
        self.shared.asleep.store(false, Ordering::SeqCst);
    }

    /// Messages that wait. Exact only while nobody sends.
    pub fn len(&self) -> usize {
        self.taken.len() + self.shared.queue.len() + self.shared.lock().len()
    }

    /// Whether no message waits. Takes no lock.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.shared.queue.is_empty() && self.shared.route.load(Ordering::SeqCst) == DIRECT
    }

    /// Messages that this lane has refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// How often a sender has called the waker.
    pub fn woken(&self) -> u64 {
        self.shared.woken.load(Ordering::Relaxed)
    }

    /// Moves everything that waits to `taken`, in order.
    fn take_overflow(&mut self) {
        let mut overflow = self.shared.lock();
        while let Some(entry) = self.shared.queue.pop() {
            self.taken.push_back(entry);
        }
        self.taken.append(&mut overflow);
        overflow.shrink_to(KEEP);
        self.shared.route.store(DIRECT, Ordering::Release);
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { shared: self.shared.clone() }
    }
}

/// Closes the lane: what waits is dropped, and senders get everything back.
impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let overflow = {
            let mut overflow = self.shared.lock();
            self.shared.route.store(CLOSED, Ordering::Release);
            std::mem::take(&mut *overflow)
        };
        // Outside the lock: a message may hold a sender of this lane, or send while it is dropped.
        drop(overflow);
        while self.shared.queue.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("refused", &self.refused()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("refused", &self.refused())
            .field("woken", &self.woken())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the worker's lane is full")
    }
}

impl<T> std::error::Error for Full<T> {}

impl<T> Shared<T> {
    /// To the queue, or to the overflow if that is full.
    fn push(&self, value: T, bytes: usize) -> Result<(), Full<T>> {
        let counted = bytes.saturating_sub(SMALL);
        // One message above the limit passes, alone: else it never would.
        if counted > 0 && !self.reserve(counted, |before| before == 0) {
            return Err(Full(value));
        }
        let Err((value, counted)) = self.queue.push((value, counted)) else { return Ok(()) };
        self.release(counted);
        self.push_overflow(value, bytes)
    }

    fn push_overflow(&self, value: T, bytes: usize) -> Result<(), Full<T>> {
        let mut overflow = self.lock();
        // A message that states no bytes still occupies its place: the overflow has no other limit.
        let bytes = bytes.max(size_of::<T>()).max(1);
        if self.route.load(Ordering::Relaxed) == CLOSED || !self.reserve(bytes, |_| false) {
            return Err(Full(value));
        }
        overflow.push_back((value, bytes));
        self.route.store(OVERFLOWING, Ordering::Release);
        Ok(())
    }

    /// Counts bytes, if they are within the limit or `beyond` allows it of what is counted already.
    fn reserve(&self, bytes: usize, beyond: impl Fn(usize) -> bool) -> bool {
        let reserved = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            let after = before.saturating_add(bytes);
            (after <= self.limit || beyond(before)).then_some(after)
        });
        reserved.is_ok()
    }

    fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        // The plain look keeps the line shared while the worker is awake; the swap decides who wakes it.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::SeqCst) {
            self.woken.fetch_add(1, Ordering::Relaxed);
            (self.waker)();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(T, usize)>> {
        // A panic while the lock is held can only be an allocation failure; the list is whole either way.
        self.overflow.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn small(capacity: usize, overflow_bytes: usize) -> (Sender<u32>, Receiver<u32>) {
        lane(LaneConfig { capacity, overflow_bytes }, Arc::new(|| {}))
    }

    fn receive_all(receiver: &mut Receiver<u32>) -> Vec<u32> {
        std::iter::from_fn(|| receiver.receive()).collect()
    }

    #[test]
    fn overflows_in_order_up_to_its_bytes_exactly() {
        let (sender, mut receiver) = small(2, 10);
        assert!((0..4).all(|id| sender.send(id, 5).is_ok()));
        assert_eq!(sender.send(4, 1), Err(Full(4)), "the limit is used up");
        assert_eq!(sender.send(5, 0), Err(Full(5)), "every message occupies its place");
        assert_eq!((receiver.len(), receiver.refused()), (4, 2));
        assert_eq!((receiver.receive(), receiver.receive()), (Some(0), Some(1)));
        assert_eq!(sender.send(6, 5), Err(Full(6)), "room in the queue is not used while something older overflows");
        assert_eq!(receiver.receive(), Some(2));
        assert!((7..9).all(|id| sender.send(id, 5).is_ok()), "the queue is in use again");
        assert_eq!(sender.send(9, 6), Err(Full(9)), "what was taken and not received counts");
        assert_eq!(sender.send(10, 5), Ok(()));
        assert_eq!(receive_all(&mut receiver), [3, 7, 8, 10]);
        assert_eq!(sender.send(11, 11), Ok(()), "the queue asks for no bytes");
        assert_eq!((receiver.len(), sender.refused()), (1, 4));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn behaves_as_one_queue(
            capacity in 1usize..4,
            limit in 0usize..20,
            ops in prop::collection::vec(prop::option::weighted(0.6, 0usize..8), 1..100),
        ) {
            let (sender, mut receiver) = small(capacity, limit);
            let (mut model, mut refused) = (VecDeque::new(), 0);
            for (id, op) in ops.into_iter().enumerate() {
                match op {
                    Some(bytes) => match sender.send(id as u32, bytes) {
                        Ok(()) => model.push_back(id as u32),
                        Err(Full(back)) => {
                            prop_assert_eq!(back, id as u32);
                            prop_assert!(!model.is_empty(), "an empty lane takes everything");
                            refused += 1;
                        }
                    },
                    None => prop_assert_eq!(receiver.receive(), model.pop_front()),
                }
                prop_assert_eq!(receiver.len(), model.len());
                prop_assert_eq!(receiver.is_empty(), model.is_empty());
                prop_assert!(receiver.shared.bytes.load(Ordering::Relaxed) <= limit);
            }
            prop_assert_eq!(receiver.refused(), refused);
            prop_assert_eq!(receive_all(&mut receiver), Vec::from(model));
            prop_assert_eq!(receiver.shared.bytes.load(Ordering::Relaxed), 0);
        }
    }

    /// The receiver has just seen the queue empty when a sender fills it and goes on into the overflow.
    #[test]
    fn what_entered_the_queue_before_the_overflow_comes_first() {
        let (sender, mut receiver) = small(2, 64);
        assert_eq!(receiver.receive(), None);
        (0..3).for_each(|id| sender.send(id, 4).unwrap());
        receiver.take_overflow();
        sender.send(3, 4).unwrap();
        assert_eq!(receive_all(&mut receiver), [0, 1, 2, 3]);
    }

    #[test]
    fn each_sender_keeps_its_order_over_a_tiny_queue() {
        const SENDERS: u32 = 4;
        const EACH: u32 = 20_000;
        let (sender, mut receiver) = small(2, 256);
        let threads: Vec<_> = (0..SENDERS)
            .map(|from| {
                let sender = sender.clone();
                thread::spawn(move || {
                    (0..EACH).for_each(|id| {
                        while sender.send(from * EACH + id, 1).is_err() {
                            thread::yield_now()
                        }
                    })
                })
            })
            .collect();
        let mut next = [0; SENDERS as usize];
        while next.iter().sum::<u32>() < SENDERS * EACH {
            match receiver.receive() {
                Some(message) => {
                    let from = &mut next[(message / EACH) as usize];
                    assert_eq!(message % EACH, *from);
                    *from += 1;
                }
                None => thread::yield_now(),
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(receiver.is_empty() && receiver.shared.bytes.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn one_wake_per_sleep() {
        let wakes = Arc::new(AtomicU32::new(0));
        let counter = wakes.clone();
        let config = LaneConfig { capacity: 4, ..LaneConfig::default() };
        let (sender, mut receiver) = lane(config, Arc::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)));
        let wakes = || wakes.load(Ordering::Relaxed);
        sender.send(0, 1).unwrap();
        assert!(!receiver.prepare_sleep(), "there is mail");
        sender.send(1, 1).unwrap();
        assert_eq!(wakes(), 0, "nobody sleeps");
        assert_eq!(receive_all(&mut receiver), [0, 1]);
        assert!(receiver.prepare_sleep());
        (0..10).for_each(|id| sender.send(id, 1).unwrap());
        assert_eq!((wakes(), receiver.woken()), (1, 1));
        receiver.awake();
        assert!(!receiver.prepare_sleep(), "the overflow is mail, too");
        assert_eq!(receive_all(&mut receiver).len(), 10);
        assert!(receiver.prepare_sleep());
        receiver.awake();
        sender.send(0, 1).unwrap();
        assert_eq!(wakes(), 1, "something else has woken it");
    }

    /// The receiver parks without a timeout whenever it may: one lost wake-up, and this never ends.
    #[test]
    fn no_wake_up_is_lost() {
        const SENDERS: u32 = 3;
        const EACH: u32 = 50_000;
        let sleeper = thread::current();
        let (sender, mut receiver) =
            lane(LaneConfig { capacity: 8, overflow_bytes: 1 << 20 }, Arc::new(move || sleeper.unpark()));
        let threads: Vec<_> = (0..SENDERS)
            .map(|_| {
                let sender = sender.clone();
                thread::spawn(move || (0..EACH).for_each(|id| sender.send(id, 1).unwrap()))
            })
            .collect();
        let (mut received, mut announced) = (0, 0u64);
        while received < SENDERS * EACH {
            while receiver.receive().is_some() {
                received += 1;
            }
            if received < SENDERS * EACH {
                announced += 1;
                if receiver.prepare_sleep() {
                    thread::park();
                    receiver.awake();
                }
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(receiver.woken() <= announced);
    }

    #[test]
    fn bytes_in_the_queue_have_a_limit_too() {
        let (sender, mut receiver) = small(64, 10_000);
        let large = 4_000 + SMALL;
        assert_eq!((sender.send(0, large), sender.send(1, large)), (Ok(()), Ok(())));
        assert_eq!(sender.send(2, large), Err(Full(2)));
        assert!((3..13).all(|id| sender.send(id, SMALL).is_ok()), "small ones are not counted");
        assert_eq!(receiver.receive(), Some(0));
        assert_eq!((sender.send(13, large), sender.send(14, large)), (Ok(()), Err(Full(14))));
        assert_eq!(receive_all(&mut receiver).len(), 12);
        assert_eq!(sender.send(15, 1 << 20), Ok(()), "one that is above the limit passes, alone");
        assert_eq!(sender.send(16, large), Err(Full(16)));
        assert_eq!(receive_all(&mut receiver), [15]);
        assert_eq!(receiver.shared.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_closed_lane_gives_everything_back() {
        let message = Arc::new(());
        let (sender, mut receiver) = lane(LaneConfig { capacity: 2, overflow_bytes: 64 }, Arc::new(|| {}));
        (0..4).for_each(|_| sender.send(message.clone(), 1).unwrap());
        receiver.receive();
        drop(receiver);
        assert_eq!(Arc::strong_count(&message), 1);
        assert!(sender.send(message.clone(), 0).is_err());
        assert_eq!(sender.refused(), 1);
    }
}
