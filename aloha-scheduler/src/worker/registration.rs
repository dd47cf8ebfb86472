//! The search for a master that takes us, and the life with it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::attempt::HeldAttempt;
use crate::constraint::Attributes;
use crate::ids::WorkerId;
use crate::jitter;
use crate::resources::Resources;
use crate::runner::CgroupSupport;

/// However a master errs, heartbeats are no more frequent.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What a worker says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRegistration {
    /// Its id, the same each time.
    pub id: WorkerId,
    /// The host it is reached at.
    pub host: String,
    /// The port it is reached at.
    pub port: u16,
    /// What it has for applications.
    pub offers: Resources,
    /// The attempts it holds: those that run, and those whose end no master has acknowledged.
    pub attempts: Vec<HeldAttempt>,
    /// What of the resources of applications it enforces.
    pub enforces: CgroupSupport,
    /// What it is or has besides, for constraints (`aloha.worker.attributes`).
    pub attributes: Attributes,
    /// The newest epoch that it has seen.
    pub epoch: u64,
}

/// How a worker waits between two rounds of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// How long a master has to answer.
    pub answer_within: Duration,
    /// The pause after the first round; it doubles with each.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// Makes the pauses of two workers differ: a random number, drawn by the shell.
    pub jitter_seed: u64,
}

impl Backoff {
    /// The pause after this round, counted from 0: between half of the nominal time and all of it.
    fn pause(&self, round: u32) -> Duration {
        let nominal = self
            .pause_min
            .saturating_mul(2u32.saturating_pow(round))
            .min(self.pause_max);
        let seed = self.jitter_seed.wrapping_add(u64::from(round));
        jitter::shorten(nominal, 0.5, seed)
    }
}

/// Where a worker stands with its masters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// Not yet begun.
    Idle,
    /// Asking one master after another.
    Searching {
        /// The master asked last, by its place in the settings.
        master: usize,
        /// How many masters were asked in vain in this round.
        failed: usize,
        /// How many rounds were in vain.
        round: u32,
        /// Whether it still may answer.
        asking: bool,
        /// Until when to wait, for its answer or before the next is asked.
        until: Instant,
    },
    /// A master has taken us.
    Registered {
        /// Its address.
        master: String,
        /// The epoch of its leadership.
        epoch: u64,
        /// How often it wants to hear from us.
        heartbeat_interval: Duration,
        /// The silence after which it gives us up: four such intervals, as it announced them.
        timeout: Duration,
        /// When to say so next.
        next_heartbeat: Instant,
    },
    /// A master refused us for good.
    GaveUp {
        /// Why.
        reason: String,
    },
}

impl Registration {
    /// The address of the master that has taken us.
    pub fn master(&self) -> Option<&str> {
        match self {
            Self::Registered { master, .. } => Some(master),
            Self::Idle | Self::Searching { .. } | Self::GaveUp { .. } => None,
        }
    }

    /// The search, as it begins with this master.
    pub(super) fn asking(master: usize, backoff: &Backoff, now: Instant) -> Self {
        Self::Searching {
            master,
            failed: 0,
            round: 0,
            asking: true,
            until: now + backoff.answer_within,
        }
    }

    pub(super) fn registered(
        master: String,
        epoch: u64,
        heartbeat_interval: Duration,
        now: Instant,
    ) -> Self {
        let timeout = heartbeat_interval.saturating_mul(4);
        let heartbeat_interval = heartbeat_interval.max(HEARTBEAT_INTERVAL_MIN);
        let next_heartbeat = now + heartbeat_interval;
        Self::Registered {
            master,
            epoch,
            heartbeat_interval,
            timeout,
            next_heartbeat,
        }
    }

    /// The master asked last said no: on to the next, or to a pause after the last of a round. `Some` is who to ask.
    pub(super) fn ask_next(
        &mut self,
        masters: usize,
        backoff: &Backoff,
        now: Instant,
    ) -> Option<usize> {
        let Self::Searching {
            master,
            failed,
            round,
            asking,
            until,
        } = self
        else {
            return None;
        };
        if *asking {
            *failed += 1;
            if *failed >= masters {
                *until = now + backoff.pause(*round);
                *failed = 0;
                *round = round.saturating_add(1);
                *asking = false;
                return None;
            }
        }
        *master = (*master + 1) % masters.max(1);
        *asking = true;
        *until = now + backoff.answer_within;
        Some(*master)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Searching { until, .. } => Some(*until),
            Self::Registered { next_heartbeat, .. } => Some(*next_heartbeat),
            Self::Idle | Self::GaveUp { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_never_fall_below_half_of_it() {
        let (pause_min, pause_max) = (Duration::from_secs(1), Duration::from_secs(60));
        for jitter_seed in 0..100 {
            let backoff = Backoff {
                answer_within: pause_min,
                pause_min,
                pause_max,
                jitter_seed,
            };
            for (round, nominal) in [(0, 1), (1, 2), (5, 32), (6, 60), (u32::MAX, 60)] {
                let nominal = Duration::from_secs(nominal);
                let pause = backoff.pause(round);
                assert!(
                    nominal / 2 <= pause && pause <= nominal,
                    "{pause:?} after round {round}"
                );
            }
        }
    }

    #[test]
    fn two_workers_pause_differently() {
        let second = Duration::from_secs(1);
        let backoff = |jitter_seed| Backoff {
            answer_within: second,
            pause_min: second,
            pause_max: second,
            jitter_seed,
        };
        assert_ne!(backoff(1).pause(0), backoff(2).pause(0));
    }
}
