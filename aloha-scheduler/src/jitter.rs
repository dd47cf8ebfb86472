//! Chance that needs no source of it: the same seed gives the same number.

use std::time::Duration;

/// One step of splitmix64 (Steele, Lea, Flood 2014): neighbouring seeds give unrelated numbers.
pub(crate) fn scramble(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Shortens a nominal time by chance, to no less than this part of it.
pub(crate) fn shorten(nominal: Duration, least: f64, seed: u64) -> Duration {
    let chance = f64::from(u32::try_from(scramble(seed) >> 32).unwrap_or(u32::MAX));
    nominal.mul_f64(least + (1.0 - least) * chance / f64::from(u32::MAX))
}
