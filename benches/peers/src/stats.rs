//! Medians, and how far to trust them.
#![forbid(unsafe_code)]

const RESAMPLES: usize = 10_000;
/// Fixed, so that the same runs always give the same interval.
const SEED: u64 = 0x5749_4e47_4245_4154;
const TAIL: f64 = 0.025;

/// A median with the 95 % interval of its percentile bootstrap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// NaN throughout when there are no values.
    pub fn of(values: &[f64]) -> Self {
        let mut random = SplitMix(SEED);
        let mut sample = vec![0.0; values.len()];
        let mut medians: Vec<f64> = (0..if values.is_empty() { 0 } else { RESAMPLES })
            .map(|_| {
                sample.fill_with(|| values[random.below(values.len())]);
                median(&sample)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Self { median: median(values), low: quantile(&medians, TAIL), high: quantile(&medians, 1.0 - TAIL) }
    }
}

/// The middle value, or the mean of the two in the middle; NaN when there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Sebastiano Vigna's SplitMix64: small, seedable, more than good enough to resample with.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_needs_no_order_and_takes_the_mean_of_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_interval_lies_around_the_median_and_is_the_same_each_time() {
        let ratios = [0.91, 1.02, 0.97, 1.00, 1.10, 0.99, 0.95, 1.04, 1.01, 0.98, 1.07];
        let estimate = Estimate::of(&ratios);
        assert_eq!(estimate, Estimate::of(&ratios));
        assert_eq!(estimate.median, 1.0);
        assert!(0.91 < estimate.low && estimate.low < 1.0, "{estimate:?}");
        assert!(1.0 < estimate.high && estimate.high < 1.10, "{estimate:?}");
    }

    #[test]
    fn one_value_is_its_own_interval() {
        assert_eq!(Estimate::of(&[1.5]), Estimate { median: 1.5, low: 1.5, high: 1.5 });
        assert!(Estimate::of(&[]).low.is_nan());
    }
}
