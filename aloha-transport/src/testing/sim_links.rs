//! What befalls a segment between two hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::trace;

use super::random::SplitMix64;

/// As good as for ever, and safe to add to any moment.
const AGES: Duration = Duration::from_secs(86_400 * 365 * 30);

/// How a [`SimNetwork`](super::SimNetwork) treats the segments it carries.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use aloha_transport::testing::{SimConditions, SimNetwork};
///
/// let network = SimNetwork::new(7);
/// network.set_conditions(SimConditions {
///     loss: 0.05,
///     ..SimConditions::default()
/// });
/// network.set_conditions_between("near", "far", SimConditions {
///     delay: Duration::from_millis(80)..=Duration::from_millis(120),
///     ..SimConditions::default()
/// });
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SimConditions {
    /// How long a segment is under way. tokio's timers round a moment up to the next millisecond.
    /// Default 1 ms to 5 ms.
    pub delay: RangeInclusive<Duration>,
    /// How likely a segment is lost, each time it is sent; below 1. Default 0.
    pub loss: f64,
    /// How much later a lost segment arrives, for each time it is lost. Default 200 ms.
    pub retransmit_after: Duration,
    /// How likely a segment breaks its connection. Default 0.
    pub reset: f64,
}

impl Default for SimConditions {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1)..=Duration::from_millis(5),
            loss: 0.0,
            retransmit_after: Duration::from_millis(200),
            reset: 0.0,
        }
    }
}

impl SimConditions {
    fn check(&self) {
        assert!(!self.delay.is_empty(), "no delay is in {:?}", self.delay);
        assert!(
            (0.0..1.0).contains(&self.loss),
            "the loss {} is not in 0.0..1.0",
            self.loss
        );
        assert!(
            (0.0..=1.0).contains(&self.reset),
            "the reset {} is not in 0.0..=1.0",
            self.reset
        );
    }

    fn flight(&self, random: &mut SplitMix64) -> Duration {
        let mut flight = random.duration(&self.delay);
        while random.chance(self.loss) {
            flight = flight.saturating_add(self.retransmit_after);
        }
        flight.min(AGES)
    }
}

/// Two hosts, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair(Arc<str>, Arc<str>);

impl Pair {
    pub(super) fn of(one: &str, other: &str) -> Self {
        Self(one.min(other).into(), one.max(other).into())
    }

    pub(super) fn has(&self, host: &str) -> bool {
        *self.0 == *host || *self.1 == *host
    }
}

/// What becomes of a segment that is sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives(Instant),
    /// Until the partition is healed.
    Held,
    /// Its connection breaks.
    Breaks,
}

/// The ways between hosts, and the one source of chance.
#[derive(Debug)]
pub(super) struct Links {
    random: SplitMix64,
    conditions: SimConditions,
    between: BTreeMap<Pair, SimConditions>,
    partitions: BTreeSet<Pair>,
}

impl Links {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: SplitMix64::new(seed),
            conditions: SimConditions::default(),
            between: BTreeMap::new(),
            partitions: BTreeSet::new(),
        }
    }

    pub(super) fn set_conditions(&mut self, conditions: SimConditions) {
        conditions.check();
        self.conditions = conditions;
    }

    pub(super) fn set_conditions_between(&mut self, pair: Pair, conditions: SimConditions) {
        conditions.check();
        self.between.insert(pair, conditions);
    }

    /// False if it was there.
    pub(super) fn partition(&mut self, pair: Pair) -> bool {
        self.partitions.insert(pair)
    }

    /// False if there was none.
    pub(super) fn heal(&mut self, pair: &Pair) -> bool {
        self.partitions.remove(pair)
    }

    pub(super) fn partitions(&self) -> Vec<Pair> {
        self.partitions.iter().cloned().collect()
    }

    pub(super) fn are_parted(&self, pair: &Pair) -> bool {
        self.partitions.contains(pair)
    }

    /// Sends a segment of a connection.
    pub(super) fn send(&mut self, pair: &Pair, now: Instant) -> Fate {
        if self.are_parted(pair) {
            return Fate::Held;
        }
        let conditions = self.between.get(pair).unwrap_or(&self.conditions);
        if self.random.chance(conditions.reset) {
            return Fate::Breaks;
        }
        let flight = conditions.flight(&mut self.random);
        trace!(one = %pair.0, other = %pair.1, ?flight, "segment");
        Fate::Arrives(now + flight)
    }

    /// When a sign that belongs to no open connection arrives; never, while the hosts are parted.
    pub(super) fn signal(&mut self, pair: &Pair, now: Instant) -> Option<Instant> {
        if self.are_parted(pair) {
            return None;
        }
        let conditions = self.between.get(pair).unwrap_or(&self.conditions);
        let flight = conditions.flight(&mut self.random);
        trace!(one = %pair.0, other = %pair.1, ?flight, "sign");
        Some(now + flight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::now;
    use super::*;

    #[test]
    fn a_lost_segment_is_late_by_whole_retransmissions() {
        let mut links = Links::new(7);
        let pair = Pair::of("b", "a");
        links.set_conditions_between(
            Pair::of("a", "b"),
            SimConditions {
                delay: Duration::from_millis(3)..=Duration::from_millis(3),
                loss: 0.5,
                ..SimConditions::default()
            },
        );
        let start = now();
        let mut late: Vec<_> = (0..100)
            .map(|_| match links.send(&pair, start) {
                Fate::Arrives(at) => (at - start).as_millis(),
                other => panic!("{other:?}"),
            })
            .collect();
        late.sort_unstable();
        late.dedup();
        assert_eq!(late[..4], [3, 203, 403, 603]);
        let elsewhere = links.send(&Pair::of("a", "c"), start);
        assert!(
            matches!(elsewhere, Fate::Arrives(at) if SimConditions::default().delay.contains(&(at - start)))
        );
    }

    #[test]
    #[should_panic(expected = "the loss 1 is not in 0.0..1.0")]
    fn a_network_that_loses_everything_is_refused() {
        let conditions = SimConditions {
            loss: 1.0,
            ..SimConditions::default()
        };
        Links::new(7).set_conditions(conditions);
    }
}
