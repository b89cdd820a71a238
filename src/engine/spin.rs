//! Whether a worker looks for work a little longer before it sleeps.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Spins in a row that found nothing before the worker begins to leave some out.
const PATIENCE: u32 = 4;
/// Turns that are left out at most.
const SKIPPED_MAX: u32 = 64;

/// How long to spin, and how well it has paid of late.
///
/// A spin that finds work saves a wake-up (35 us and more), one that finds none costs its time. With one message each
/// millisecond none would: after a few of those the worker leaves out one turn that had work, then two, four, and so
/// on up to 64, until one pays again.
///
/// A spin that lasted twice its time was not running: another thread wants the CPU. Then the worker leaves out most at
/// once. So it gives way on a machine that is busy with other things, too, of which the number of CPUs tells nothing.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    time: Duration,
    /// Spins in a row that found nothing.
    misses: u32,
    /// Turns with work to leave out before the next spin.
    skip: u32,
}

impl Spin {
    pub(crate) fn new(time: Duration) -> Self {
        Spin { time, misses: 0, skip: 0 }
    }

    /// How long to spin, after a turn that had work; none: not this time.
    pub(crate) fn begin(&mut self) -> Option<Duration> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        (!self.time.is_zero()).then_some(self.time)
    }

    /// A spin found work that came from elsewhere, after `took`.
    pub(crate) fn hit(&mut self, took: Duration) {
        self.misses = 0;
        self.give_way(took);
    }

    /// A spin found nothing for its whole time.
    pub(crate) fn miss(&mut self, took: Duration) {
        self.misses = self.misses.saturating_add(1);
        if let Some(excess) = self.misses.checked_sub(PATIENCE) {
            self.skip = 1u32.checked_shl(excess).unwrap_or(SKIPPED_MAX).min(SKIPPED_MAX);
        }
        self.give_way(took);
    }

    fn give_way(&mut self, took: Duration) {
        if took > self.time.saturating_mul(2) {
            self.skip = SKIPPED_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_micros(50);

    /// Turns with work until the next spin, that one included.
    fn until_next(spin: &mut Spin) -> u32 {
        (1..=1000).find(|_| spin.begin().is_some()).expect("it spins again")
    }

    #[test]
    fn what_never_pays_is_done_ever_more_rarely_and_what_pays_always() {
        let mut spin = Spin::new(TIME);
        let gaps: Vec<_> = (0..13)
            .map(|_| {
                let gap = until_next(&mut spin);
                spin.miss(TIME);
                gap
            })
            .collect();
        assert_eq!(gaps, [1, 1, 1, 1, 2, 3, 5, 9, 17, 33, 65, 65, 65]);
        assert_eq!(until_next(&mut spin), 65);
        spin.hit(TIME);
        for _ in 0..100 {
            assert_eq!(until_next(&mut spin), 1);
            (0..PATIENCE - 1).for_each(|_| spin.miss(TIME));
            spin.hit(TIME);
        }
    }

    #[test]
    fn it_gives_way_to_who_took_the_cpu() {
        let mut spin = Spin::new(TIME);
        spin.hit(TIME * 2);
        assert_eq!(until_next(&mut spin), 1);
        spin.hit(TIME * 3);
        assert_eq!(until_next(&mut spin), SKIPPED_MAX + 1);
        spin.miss(TIME * 3);
        assert_eq!(until_next(&mut spin), SKIPPED_MAX + 1);
    }

    #[test]
    fn no_time_is_no_spin() {
        assert_eq!(Spin::default().begin(), None);
    }

    #[test]
    fn very_many_misses_are_as_many() {
        let mut spin = Spin { misses: u32::MAX - 1, ..Spin::new(TIME) };
        (0..3).for_each(|_| spin.miss(TIME));
        assert_eq!(until_next(&mut spin), SKIPPED_MAX + 1);
    }
}
