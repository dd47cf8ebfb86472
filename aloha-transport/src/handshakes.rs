//! How many callers have not said yet who they are: strangers who hold connections open keep nobody else out for long.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::config::TransportConfig;

/// How long a log line about a crowd stands for those that follow.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// The unfinished handshakes of one server.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    counts: Arc<Mutex<Counts>>,
    logged: Option<Instant>,
    /// Turned away since then.
    unlogged: u64,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_host: BTreeMap<Box<str>, usize>,
}

/// A handshake that is counted for as long as this is there.
#[derive(Debug)]
pub(crate) struct Unfinished {
    counts: Arc<Mutex<Counts>>,
    host: Box<str>,
}

/// Why nobody else is let in for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    All(usize),
    OneHost(usize),
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(limit) => write!(
                f,
                "{limit} callers have not finished their handshake, and that is its limit"
            ),
            Self::OneHost(limit) => write!(
                f,
                "{limit} callers from your host have not finished their handshake, and that is its limit"
            ),
        }
    }
}

impl Handshakes {
    /// Counts a caller in, unless there are too many.
    pub(crate) fn begin(
        &self,
        peer_address: &str,
        config: &TransportConfig,
    ) -> Result<Unfinished, Crowd> {
        let host = host_of(peer_address);
        let mut counts = lock(&self.counts);
        if counts.all >= config.handshakes_max {
            return Err(Crowd::All(config.handshakes_max));
        }
        let from_host = counts.by_host.get(host).copied().unwrap_or(0);
        if from_host >= config.handshakes_per_address_max {
            return Err(Crowd::OneHost(config.handshakes_per_address_max));
        }
        counts.all += 1;
        counts.by_host.insert(host.into(), from_host + 1);
        Ok(Unfinished {
            counts: Arc::clone(&self.counts),
            host: host.into(),
        })
    }

    /// Tells the log of one who was turned away; of many in a short time, once.
    pub(crate) fn log(&mut self, crowd: &Crowd, peer_address: &str, now: Instant) {
        self.unlogged += 1;
        if self.logged.is_some_and(|logged| now - logged < LOG_PAUSE) {
            return;
        }
        self.logged = Some(now);
        let turned_away = std::mem::take(&mut self.unlogged);
        warn!(peer = %peer_address, turned_away, reason = %crowd, "too many callers that do not say who they are");
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all -= 1;
        if let Some(count) = counts.by_host.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                counts.by_host.remove(&self.host);
            }
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address without what tells the connections of one host apart.
fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_counted_by_host_and_all_together_until_they_are_done() {
        let config = TransportConfig {
            handshakes_max: 3,
            handshakes_per_address_max: 2,
            ..TransportConfig::default()
        };
        let handshakes = Handshakes::default();
        let begin = |address| handshakes.begin(address, &config);
        let one = begin("[::1]:1").unwrap();
        let _two = begin("[::1]:2").unwrap();
        assert_eq!(begin("[::1]:3").unwrap_err(), Crowd::OneHost(2));
        let _other = begin("10.0.0.1:3").unwrap();
        assert_eq!(begin("10.0.0.2:3").unwrap_err(), Crowd::All(3));
        drop(one);
        let _three = begin("[::1]:4").unwrap();
        assert_eq!(lock(&handshakes.counts).by_host.len(), 2);
    }
}
