//! Time: a wheel for the deadlines of connections, a heap for the timers of user code.
#![forbid(unsafe_code)]

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use slab::Slab;

const NIL: u32 = u32::MAX;
/// Marks a `prev` that names the bucket whose first entry this is, not a slot.
const BUCKET: u32 = 1 << 31;
/// Most buckets: keeps `BUCKET | bucket` apart from `NIL`.
const MAX_BUCKETS: usize = 1 << 30;
/// Cancelled timers that the heap may hold before it is cleaned.
const MIN_CANCELLED: usize = 64;

/// A hashed timer wheel: one deadline per slot, arming, moving and disarming in a few stores.
///
/// The links live with the slots' owner ([`Links`]), 8 bytes each; the wheel itself is a table of buckets and allocates
/// only when it is made. A bucket is one tick. Deadlines beyond the horizon (`buckets` ticks ahead) are cut to it, so a
/// slot may fire early: its owner compares with the deadline it keeps, and arms the slot again. The same habit makes
/// activity cheap: it moves the deadline that the owner keeps and leaves the wheel alone.
///
/// Ticks count from the start of the wheel and wrap; they are compared as such.
#[derive(Debug)]
pub struct Wheel {
    start: Instant,
    tick_nanos: u64,
    /// The first slot of each bucket.
    heads: Vec<u32>,
    /// A bit per bucket: it has slots.
    occupied: Vec<u64>,
    /// The last tick whose slots have all fired.
    done: u32,
    armed: u32,
}

/// What the wheel keeps per slot: 8 bytes in the owner's record.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    prev: u32,
    next: u32,
}

/// Gives the wheel access to the links of its slots. A slot is a number below 2^31.
pub trait Links {
    /// The link of `slot`, which starts as [`Link::default`].
    fn link(&mut self, slot: u32) -> &mut Link;
}

impl Default for Link {
    /// A slot without a deadline.
    fn default() -> Self {
        Link { prev: NIL, next: NIL }
    }
}

impl Link {
    /// Whether the slot has a deadline in the wheel.
    pub fn is_armed(&self) -> bool {
        self.prev != NIL
    }
}

impl Wheel {
    /// A wheel of `buckets` ticks of length `tick` each, beginning at `start`.
    ///
    /// # Panics
    /// If `buckets` is not a power of two of at least 64 and at most 2^30, or `tick` is zero.
    pub fn new(tick: Duration, buckets: usize, start: Instant) -> Self {
        assert!(buckets.is_power_of_two() && (64..=MAX_BUCKETS).contains(&buckets));
        let tick_nanos = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX);
        assert!(tick_nanos > 0);
        Wheel { start, tick_nanos, heads: vec![NIL; buckets], occupied: vec![0; buckets / 64], done: 0, armed: 0 }
    }

    /// The tick that `at` lies in, rounded down. A deadline that must not fire early takes the tick after it.
    pub fn tick_at(&self, at: Instant) -> u32 {
        (self.nanos_at(at) / self.tick_nanos) as u32
    }

    /// How many slots have a deadline.
    pub fn len(&self) -> usize {
        self.armed as usize
    }

    /// Whether no slot has a deadline.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Gives `slot` a deadline in place of any it had: it fires once [`Wheel::advance`] gets to `due`, or earlier if
    /// that is beyond the horizon. A tick that is over fires with the next one.
    pub fn arm(&mut self, slot: u32, due: u32, links: &mut impl Links) {
        debug_assert!(slot < BUCKET);
        self.disarm(slot, links);
        let ahead = (due.wrapping_sub(self.done) as i32).clamp(1, self.heads.len() as i32) as u32;
        let bucket = self.bucket(self.done.wrapping_add(ahead));
        let first = std::mem::replace(&mut self.heads[bucket as usize], slot);
        *links.link(slot) = Link { prev: BUCKET | bucket, next: first };
        if first != NIL {
            links.link(first).prev = slot;
        }
        self.occupied[bucket as usize / 64] |= 1 << (bucket % 64);
        self.armed += 1;
    }

    /// Takes the deadline of `slot` away, if it has one. True if it had.
    pub fn disarm(&mut self, slot: u32, links: &mut impl Links) -> bool {
        let Link { prev, next } = std::mem::take(links.link(slot));
        if prev == NIL {
            return false;
        }
        if next != NIL {
            links.link(next).prev = prev;
        }
        if prev & BUCKET == 0 {
            links.link(prev).next = next;
        } else {
            self.set_head(prev & !BUCKET, next);
        }
        self.armed -= 1;
        true
    }

    /// Appends to `fired` the slots whose tick is `now` or earlier, and disarms them, until the budget is used up; the
    /// next call goes on from there. Ticks without slots cost nothing.
    pub fn advance(&mut self, now: u32, budget: &mut u32, links: &mut impl Links, fired: &mut Vec<u32>) {
        while (now.wrapping_sub(self.done) as i32) > 0 {
            let ahead = self.ticks_ahead().filter(|&ahead| ahead <= now.wrapping_sub(self.done));
            let Some(ahead) = ahead else {
                self.done = now;
                return;
            };
            let tick = self.done.wrapping_add(ahead);
            self.done = tick.wrapping_sub(1);
            if !self.drain(self.bucket(tick), budget, links, fired) {
                return;
            }
            self.done = tick;
        }
    }

    /// How long after `now` the next slot may fire; zero if it is overdue, `None` if no slot has a deadline.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        let ahead = self.ticks_ahead()?;
        let nanos = self.nanos_at(now);
        let late = ((nanos / self.tick_nanos) as u32).wrapping_sub(self.done) as i32;
        let ticks = u64::try_from(i64::from(ahead) - i64::from(late)).unwrap_or(0);
        Some(Duration::from_nanos((ticks * self.tick_nanos).saturating_sub(nanos % self.tick_nanos)))
    }

    /// Empties a bucket into `fired`. False if the budget ended first.
    fn drain(&mut self, bucket: u32, budget: &mut u32, links: &mut impl Links, fired: &mut Vec<u32>) -> bool {
        let mut slot = self.heads[bucket as usize];
        while slot != NIL && *budget > 0 {
            fired.push(slot);
            slot = std::mem::take(links.link(slot)).next;
            *budget -= 1;
            self.armed -= 1;
        }
        self.set_head(bucket, slot);
        if slot != NIL {
            links.link(slot).prev = BUCKET | bucket;
        }
        slot == NIL
    }

    fn set_head(&mut self, bucket: u32, slot: u32) {
        self.heads[bucket as usize] = slot;
        if slot == NIL {
            self.occupied[bucket as usize / 64] &= !(1 << (bucket % 64));
        }
    }

    fn bucket(&self, tick: u32) -> u32 {
        tick & (self.heads.len() as u32 - 1)
    }

    /// Ticks from `done` to the next bucket with slots: 1 to `buckets`. A look at one word per 64 buckets.
    fn ticks_ahead(&self) -> Option<u32> {
        let first = self.bucket(self.done.wrapping_add(1));
        let words = self.occupied.len();
        let from = first as usize / 64;
        // The first word is looked at twice: at its upper part now, and after the whole turn at what is left, its lower
        // part.
        (0..=words).find_map(|step| {
            let at = (from + step) % words;
            let mask = if step == 0 { u64::MAX << (first % 64) } else { u64::MAX };
            let bits = self.occupied[at] & mask;
            (bits != 0).then(|| self.bucket((at as u32 * 64 + bits.trailing_zeros()).wrapping_sub(first)) + 1)
        })
    }

    fn nanos_at(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_nanos() as u64
    }
}

/// Timers of user code, each with a value that comes back when it is due; equal deadlines in the order they were set.
///
/// Setting one costs a heap insertion. Cancelling costs one look; cancelled entries leave the heap when their time
/// comes, or when they are more than half of it.
#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Reverse<Entry>>,
    live: Slab<(u64, T)>,
    set: u64,
}

/// Names one timer. It stays valid, and useless, after the timer has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId {
    key: u32,
    sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    due: Instant,
    id: TimerId,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.id.sequence).cmp(&(other.due, other.id.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers { heap: BinaryHeap::new(), live: Slab::new(), set: 0 }
    }
}

impl<T> Timers<T> {
    /// The longest delay: a hundred years. A longer one is cut to it.
    pub const MAX_DELAY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

    /// No timers; allocates nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Timers that are neither due nor cancelled.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Sets a timer that is due `delay` after `now`, and then gives `token` back.
    pub fn after(&mut self, now: Instant, delay: Duration, token: T) -> TimerId {
        let sequence = self.set;
        self.set += 1;
        let id = TimerId { key: self.live.insert((sequence, token)) as u32, sequence };
        self.heap.push(Reverse(Entry { due: now + delay.min(Self::MAX_DELAY), id }));
        id
    }

    /// Cancels a timer and gives its token back; `None` if it was due or cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let token = self.take(id)?;
        let cancelled = self.heap.len() - self.live.len();
        if cancelled > MIN_CANCELLED && cancelled > self.live.len() {
            let live = &self.live;
            self.heap.retain(|Reverse(entry)| is_live(live, entry.id));
        }
        Some(token)
    }

    /// The token of the next timer that is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        while let Some(&Reverse(entry)) = self.heap.peek() {
            if entry.due > now {
                return None;
            }
            self.heap.pop();
            if let Some(token) = self.take(entry.id) {
                return Some(token);
            }
        }
        None
    }

    /// When the next timer is due. Drops cancelled ones that are in front of it.
    pub fn next_due(&mut self) -> Option<Instant> {
        while let Some(&Reverse(entry)) = self.heap.peek() {
            if is_live(&self.live, entry.id) {
                return Some(entry.due);
            }
            self.heap.pop();
        }
        None
    }

    fn take(&mut self, id: TimerId) -> Option<T> {
        is_live(&self.live, id).then(|| self.live.remove(id.key as usize).1)
    }
}

fn is_live<T>(live: &Slab<(u64, T)>, id: TimerId) -> bool {
    live.get(id.key as usize).is_some_and(|&(sequence, _)| sequence == id.sequence)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    impl Links for Vec<Link> {
        fn link(&mut self, slot: u32) -> &mut Link {
            &mut self[slot as usize]
        }
    }

    fn wheel(slots: usize, done: u32) -> (Wheel, Vec<Link>, Instant) {
        let start = Instant::now();
        let mut wheel = Wheel::new(TICK, 64, start);
        wheel.done = done;
        (wheel, vec![Link::default(); slots], start)
    }

    fn advance(wheel: &mut Wheel, now: u32, links: &mut Vec<Link>) -> Vec<u32> {
        let mut fired = Vec::new();
        wheel.advance(now, &mut { u32::MAX }, links, &mut fired);
        fired
    }

    #[derive(Debug, Clone)]
    enum Op {
        Arm(u32, i32),
        Disarm(u32),
        Advance(u32, u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u32..20, -5i32..100).prop_map(|(slot, ahead)| Op::Arm(slot, ahead)),
            1 => (0u32..20).prop_map(Op::Disarm),
            3 => (0u32..90, 0u32..30).prop_map(|(ticks, budget)| Op::Advance(ticks, budget)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn fires_as_a_sorted_map_would(
            begin in prop_oneof![Just(0u32), Just(u32::MAX - 40)],
            ops in prop::collection::vec(op(), 1..100),
        ) {
            let (mut wheel, mut links, start) = wheel(20, begin);
            // The model counts ticks from `begin` without wrapping; `done` is where an unfinished advance stands.
            let (mut model, mut now, mut done) = (BTreeMap::<u32, i64>::new(), 0i64, 0i64);
            for op in ops {
                match op {
                    Op::Arm(slot, ahead) => {
                        let due = now + i64::from(ahead);
                        wheel.arm(slot, begin.wrapping_add(due as u32), &mut links);
                        model.insert(slot, due.clamp(done + 1, done + 64));
                    }
                    Op::Disarm(slot) => {
                        prop_assert_eq!(wheel.disarm(slot, &mut links), model.remove(&slot).is_some());
                    }
                    Op::Advance(ticks, budget) => {
                        now += i64::from(ticks);
                        let (mut fired, mut left) = (Vec::new(), budget);
                        wheel.advance(begin.wrapping_add(now as u32), &mut left, &mut links, &mut fired);
                        prop_assert_eq!(fired.len() as u32, budget - left);
                        let mut last = i64::MIN;
                        for slot in fired {
                            let due = model.remove(&slot).expect("it was armed");
                            prop_assert!(due <= now && due >= last, "fired out of order");
                            last = due;
                        }
                        let next = model.values().copied().filter(|&due| due <= now).min();
                        prop_assert!(next.is_none() || left == 0, "due, and not fired within the budget");
                        prop_assert!(next.is_none_or(|due| due >= last));
                        done = next.map_or(now, |due| due - 1);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                for slot in 0..20 {
                    prop_assert_eq!(links[slot as usize].is_armed(), model.contains_key(&slot));
                }
                if begin == 0 {
                    let at = start + TICK * now as u32;
                    let next = model.values().min().map(|&due| TICK * u32::try_from(due - now).unwrap_or(0));
                    prop_assert_eq!(wheel.next_due(at), next);
                }
            }
        }
    }

    #[test]
    fn moves_and_clamps() {
        let (mut wheel, mut links, start) = wheel(3, 0);
        wheel.arm(0, 5, &mut links);
        wheel.arm(1, 5, &mut links);
        wheel.arm(0, 7, &mut links);
        wheel.arm(2, 1_000_000, &mut links);
        assert_eq!(wheel.next_due(start), Some(TICK * 5));
        assert_eq!(wheel.next_due(start + TICK * 4 + TICK / 2), Some(TICK / 2));
        assert_eq!(wheel.next_due(start + TICK * 50), Some(Duration::ZERO));
        assert_eq!(advance(&mut wheel, 5, &mut links), [1]);
        assert!(advance(&mut wheel, 6, &mut links).is_empty());
        assert_eq!(advance(&mut wheel, 63, &mut links), [0]);
        assert_eq!(advance(&mut wheel, 64, &mut links), [2], "cut to the horizon as it was");
        assert!(wheel.is_empty() && wheel.next_due(start).is_none());
    }

    #[test]
    fn rounds_down_and_never_before_the_start() {
        let (wheel, _, start) = wheel(0, 0);
        assert_eq!(wheel.tick_at(start + TICK - Duration::from_nanos(1)), 0);
        assert_eq!(wheel.tick_at(start + TICK), 1);
        assert_eq!(wheel.tick_at(start.checked_sub(TICK).unwrap_or(start)), 0);
    }

    #[test]
    fn a_million_slots_are_re_armed_and_fire_once() {
        const SLOTS: u32 = 1_000_000;
        let (mut wheel, mut links, _) = wheel(SLOTS as usize, 0);
        (0..SLOTS).for_each(|slot| wheel.arm(slot, 1 + slot % 60, &mut links));
        (0..SLOTS).for_each(|slot| wheel.arm(slot, 1 + slot % 30, &mut links));
        assert_eq!(wheel.len(), SLOTS as usize);
        let (mut fired, mut turns) = (Vec::new(), 0);
        while !wheel.is_empty() {
            wheel.advance(30, &mut 4096, &mut links, &mut fired);
            turns += 1;
        }
        assert_eq!(turns, SLOTS.div_ceil(4096));
        assert!(fired.windows(2).all(|pair| pair[0] % 30 <= pair[1] % 30));
        fired.sort_unstable();
        assert!(fired.iter().copied().eq(0..SLOTS));
    }

    #[test]
    fn user_timers_come_in_order_and_cancelled_ones_do_not() {
        let (mut timers, now) = (Timers::new(), Instant::now());
        let ms = Duration::from_millis;
        timers.after(now, ms(20), "late");
        let second = timers.after(now, ms(10), "cancelled");
        timers.after(now, ms(10), "first");
        timers.after(now, ms(10), "second");
        assert_eq!(timers.cancel(second), Some("cancelled"));
        assert_eq!(timers.cancel(second), None);
        let again = timers.after(now, Duration::MAX, "in the freed place");
        assert_eq!(timers.cancel(second), None, "an old id does not hit a new timer");
        assert_eq!(timers.next_due(), Some(now + ms(10)));
        assert_eq!(timers.pop_due(now + ms(9)), None);
        assert_eq!(timers.pop_due(now + ms(15)), Some("first"));
        assert_eq!(timers.pop_due(now + ms(15)), Some("second"));
        assert_eq!(timers.pop_due(now + ms(15)), None);
        assert_eq!(timers.pop_due(now + ms(20)), Some("late"));
        assert_eq!((timers.len(), timers.cancel(again)), (1, Some("in the freed place")));
        assert_eq!((timers.next_due(), timers.is_empty()), (None, true));
    }

    #[test]
    fn cancelled_timers_do_not_pile_up() {
        let (mut timers, now) = (Timers::new(), Instant::now());
        timers.after(now, TICK, 0);
        for round in 1..10_000 {
            let id = timers.after(now, Duration::from_secs(3600), round);
            assert_eq!(timers.cancel(id), Some(round));
            assert!(timers.heap.len() <= MIN_CANCELLED + 2);
        }
        assert_eq!(timers.pop_due(now + TICK), Some(0));
    }
}
