//! Open loop: when each message is to be sent, whether or not anything is ready for it.
#![forbid(unsafe_code)]

use super::plan::Plan;

/// The send times of one thread, by bursts (of one message each, in echo). They are computed, not stored: however far
/// the thread is behind, each message keeps the time at which it was wanted, and its latency counts from there.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Of the first burst, in nanoseconds of the run's clock.
    start_ns: f64,
    /// Between two bursts.
    interval_ns: f64,
    /// The burst that is wanted next.
    next: u64,
}

/// Those that send by one schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Senders {
    /// Which of the threads this is.
    pub(crate) thread: u32,
    /// How many this thread has.
    pub(crate) here: u32,
    /// How many all threads have.
    pub(crate) in_all: u32,
}

impl Schedule {
    /// The schedule of a thread whose `senders` send `burst` messages at a time; none for a closed loop, or for a thread
    /// that has none. All threads together send at the plan's rate, evenly if each has as many senders.
    pub(crate) fn new(plan: &Plan, senders: Senders, start_ns: u64, burst: u32) -> Option<Schedule> {
        let rate = plan.rate_of_each_kind().filter(|_| senders.here > 0)?;
        let burst_ns = 1e9 * f64::from(burst) / rate;
        Some(Schedule {
            start_ns: start_ns as f64 + burst_ns * f64::from(senders.thread),
            interval_ns: burst_ns * f64::from(senders.in_all) / f64::from(senders.here),
            next: 0,
        })
    }

    /// When the burst `number` of this thread is wanted.
    pub(crate) fn wanted_at(&self, number: u64) -> u64 {
        (self.start_ns + number as f64 * self.interval_ns) as u64
    }

    /// When the next is.
    pub(crate) fn next_at(&self) -> u64 {
        self.wanted_at(self.next)
    }

    /// Takes the number of the next burst if it is wanted by `now`.
    pub(crate) fn take(&mut self, now: u64) -> Option<u64> {
        let number = self.next;
        (self.next_at() <= now).then(|| {
            self.next += 1;
            number
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;

    const ALONE: Senders = Senders { thread: 0, here: 1, in_all: 1 };

    #[test]
    fn threads_share_the_rate() {
        let plan = plan("echo ws://127.0.0.1/ -c 3 -t 2 -r 3000").unwrap();
        let start = 1_000_000;
        let mut times = Vec::new();
        for (thread, here) in [(0, 2), (1, 1)] {
            let mut schedule = Schedule::new(&plan, Senders { thread, here, in_all: 3 }, start, 1).unwrap();
            let end = start + 1_000_000_000 - 1;
            while let Some(number) = schedule.take(end) {
                times.push(schedule.wanted_at(number));
            }
        }
        assert!((2999..=3000).contains(&times.len()), "{}", times.len());
        assert!(times.iter().all(|&at| at >= start));
    }

    #[test]
    fn being_late_changes_no_wanted_time() {
        let plan = plan("echo ws://127.0.0.1/ -c 1 -t 1 -r 1000").unwrap();
        let mut schedule = Schedule::new(&plan, ALONE, 0, 1).unwrap();
        assert_eq!(schedule.take(0), Some(0));
        assert_eq!(schedule.take(999_999), None);
        let late: Vec<_> = std::iter::from_fn(|| schedule.take(5_000_000)).collect();
        assert_eq!(late, [1, 2, 3, 4, 5]);
        assert_eq!(
            late.iter().map(|&n| schedule.wanted_at(n)).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5].map(|ms| ms * 1_000_000)
        );
        assert_eq!(schedule.next_at(), 6_000_000);
    }

    #[test]
    fn a_burst_counts_as_its_messages() {
        let plan = plan("fanout ws://127.0.0.1/ -r 1000 -t 1").unwrap();
        let mut schedule = Schedule::new(&plan, ALONE, 0, 4).unwrap();
        assert_eq!((schedule.take(0), schedule.take(0)), (Some(0), None));
        assert_eq!(schedule.next_at(), 4_000_000);
    }

    #[test]
    fn a_closed_loop_has_none() {
        assert!(Schedule::new(&plan("echo ws://127.0.0.1/").unwrap(), ALONE, 0, 1).is_none());
        let none_here = Senders { here: 0, ..ALONE };
        assert!(Schedule::new(&plan("echo ws://127.0.0.1/ -r 5").unwrap(), none_here, 0, 1).is_none());
    }
}
