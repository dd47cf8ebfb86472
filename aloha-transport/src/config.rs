//! Every limit and timeout of the transport, named, with its default.

use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::error::ConfigError;

/// The limits and timeouts of a [`TransportContext`](crate::TransportContext).
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// How long a TCP connect may take. Default 10 s.
    pub connect_timeout: Duration,
    /// How long a new connection may take to finish its handshake. Default 5 s.
    pub handshake_timeout: Duration,
    /// The largest frame accepted and sent, in bytes after the length field. Default 16 MiB.
    pub frame_bytes_max: usize,
    /// How many bytes may wait to be written to one peer before sends are refused; messages above 256 KiB are counted
    /// apart from the others, against the same limit. Default 64 MiB.
    pub outbound_bytes_max: usize,
    /// How many requests of one peer may be unanswered at once; at least 4,096. Default 65,536.
    pub requests_in_flight_max: u32,
    /// How many inbound connections a server holds. Default 16,384.
    pub connections_max: usize,
    /// How many inbound connections of a server may be without a finished handshake. Default 1,024.
    pub handshakes_max: usize,
    /// How many of those may come from one host. Default 256.
    pub handshakes_per_address_max: usize,
    /// How many connections a [`TransportClientFactory`](crate::TransportClientFactory) keeps to one address; at least
    /// one. Default 1.
    pub connections_per_peer: usize,
    /// How long an address is left alone after a connection to it could not be made; doubled with each further failure
    /// up to [`reconnect_backoff_max`](Self::reconnect_backoff_max), less up to a half by chance. Default 50 ms.
    pub reconnect_backoff_min: Duration,
    /// The longest time for which an address is left alone. Default 5 s.
    pub reconnect_backoff_max: Duration,
    /// How long nothing may be received before this side asks whether the peer is there; none or zero: it never asks.
    /// Default 15 s.
    pub ping_interval: Option<Duration>,
    /// How long the peer may then be silent before it is given up. None or zero: it is asked nothing. A peer that
    /// vanished is found no later than two intervals and one such time-out after its last byte: between 25 and 40 s
    /// with the defaults. It has longer for as long as what waits to be written goes out. Default 10 s.
    pub ping_timeout: Option<Duration>,
    /// How long a connection that this side made may go unused before it is closed in good order: no message went either
    /// way, none is queued, no answer is due at either end and no credit reserved. It is noticed up to a quarter later.
    /// A way back to who does not listen is closed with it. None or zero: never. Default none.
    pub idle_timeout: Option<Duration>,
    /// How long a reader tries again and again after something was received, before it waits for the system to wake it.
    /// It saves the time of waking up, and uses up a processor meanwhile: 50 µs is as long as an answer on the same
    /// machine takes. Where there is only one processor it keeps the peer from working, and is refused. None or zero:
    /// never. Default none.
    pub polling: Option<Duration>,
    /// How long a graceful close may take to write what is queued and to answer what the peer asked. Default 2 s.
    pub flush_timeout: Duration,
}

impl TransportConfig {
    pub(crate) fn idle(&self) -> Option<Duration> {
        self.idle_timeout.filter(|limit| !limit.is_zero())
    }

    pub(crate) fn polls_for(&self) -> Option<Duration> {
        self.polling.filter(|limit| !limit.is_zero())
    }

    /// Whether these can be kept to on this machine. It is asked for before a server listens and a client connects.
    ///
    /// # Errors
    ///
    /// They cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        // Where the system does not say, nothing is wrong that anybody knows of.
        self.check_with(|| available_parallelism().map_or(usize::MAX, NonZero::get))
    }

    fn check_with(&self, processors: impl FnOnce() -> usize) -> Result<(), ConfigError> {
        match self.polls_for() {
            Some(polling) if processors() < 2 => Err(ConfigError::Polling { polling }),
            _ => Ok(()),
        }
    }

    /// Interval and time-out of pings, where they are on.
    pub(crate) fn pings(&self) -> Option<(Duration, Duration)> {
        let on = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        on(self.ping_interval).zip(on(self.ping_timeout))
    }
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            frame_bytes_max: 16 << 20,
            outbound_bytes_max: 64 << 20,
            requests_in_flight_max: 65_536,
            connections_max: 16_384,
            handshakes_max: 1024,
            handshakes_per_address_max: 256,
            connections_per_peer: 1,
            reconnect_backoff_min: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(5),
            ping_interval: Some(Duration::from_secs(15)),
            ping_timeout: Some(Duration::from_secs(10)),
            idle_timeout: None,
            polling: None,
            flush_timeout: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_is_refused_where_there_is_one_processor() {
        let micros = Duration::from_micros;
        let refused = |polling: Option<Duration>, processors: usize| {
            let config = TransportConfig {
                polling,
                ..TransportConfig::default()
            };
            config
                .check_with(|| processors)
                .err()
                .map(|error| error.to_string())
        };
        let text = "polling for 50µs needs two processors, and there is one";
        assert_eq!(refused(Some(micros(50)), 1).as_deref(), Some(text));
        assert_eq!(refused(Some(micros(50)), 2), None);
        assert_eq!(refused(Some(Duration::ZERO), 1), None);
        assert_eq!(refused(None, 1), None);
    }
}
