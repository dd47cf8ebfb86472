//! Numbers that follow from a seed, the same on every machine.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Steele, Lea and Flood's `SplitMix64`: one word of state, and every seed is as good as another.
#[derive(Debug)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with this probability. Draws in any case, so that another probability shifts nothing else.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < probability
    }

    /// A duration of the range, to the nanosecond. The range is not empty.
    pub(super) fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let span = range.end().saturating_sub(*range.start()).as_nanos();
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        let choices = u128::from(span) + 1;
        let offset = (u128::from(self.next()) * choices) >> 64;
        let offset = u64::try_from(offset).expect("less than the number of choices");
        range.start().saturating_add(Duration::from_nanos(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = SplitMix64::new(1_234_567);
        let numbers = [random.next(), random.next(), random.next()];
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(numbers, published);
    }

    #[test]
    fn durations_reach_both_ends_of_their_range_and_nothing_beyond() {
        let mut random = SplitMix64::new(7);
        let range = Duration::from_nanos(5)..=Duration::from_nanos(8);
        let mut seen: Vec<_> = (0..100).map(|_| random.duration(&range)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [5, 6, 7, 8].map(Duration::from_nanos));
        assert_eq!(
            random.duration(&(Duration::ZERO..=Duration::ZERO)),
            Duration::ZERO
        );
    }

    #[test]
    fn chances_are_those_asked_for() {
        let mut random = SplitMix64::new(7);
        let mut hits = |probability| (0..1000).filter(|_| random.chance(probability)).count();
        assert_eq!((hits(0.0), hits(1.0)), (0, 1000));
        assert!((200..300).contains(&hits(0.25)));
    }
}
