//! Numbers that look random and are the same for the same seed.

/// SplitMix64, by Steele, Lea and Flood.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A whole number below this one.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// Between 0 and 1.
    pub(crate) fn part(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "it has 53 bits, as a float has")]
        let bits = (self.number() >> 11) as f64;
        bits / 9_007_199_254_740_992.0
    }

    /// Whether something of this probability happens.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.part() < probability
    }

    /// One of these.
    pub(crate) fn of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        let place = self.below(N as u64);
        all[usize::try_from(place).expect("below a usize")]
    }

    /// A time whose logarithm is normally distributed, in milliseconds: many are short, and a few very long.
    pub(crate) fn long_tailed_millis(&mut self, median_seconds: f64, spread: f64) -> u64 {
        // Box and Muller's transformation.
        let radius = (-2.0 * (1.0 - self.part()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.part()).cos();
        let millis = 1000.0 * median_seconds * (spread * normal).exp();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive, and what is too large becomes the largest number"
        )]
        let millis = millis as u64;
        millis
    }
}
