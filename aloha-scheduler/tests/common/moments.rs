//! What happens when, as it follows from a seed.

use std::time::Duration;

/// splitmix64.
pub struct Moments(pub u64);

impl Moments {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("below a usize")
    }

    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let range = u64::try_from((most - least).as_micros()).expect("seconds");
        least + Duration::from_micros(self.below(range + 1))
    }
}

/// What an environment variable says of seeds and rounds.
pub fn number(variable: &str, otherwise: u64) -> u64 {
    let value = std::env::var(variable).ok();
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}
