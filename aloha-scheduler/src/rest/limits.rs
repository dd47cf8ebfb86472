//! What the REST server may spend on its clients.

use std::time::Duration;

/// What a REST server may spend: on a connection, on a request, and on all of them together.
///
/// The defaults are those of the keys `aloha.master.rest.*`, which say why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestLimits {
    /// Connections at once. To take one more, the one is closed that waits for its client the longest.
    pub connections_max: usize,
    /// Requests worked on at once; those that wait for news do not count.
    pub requests_max: usize,
    /// Requests at once that wait for news: long polls and output. They never have more than half of the
    /// connections.
    pub long_requests_max: usize,
    /// Largest head of a request: its first line and its headers.
    pub header_bytes_max: usize,
    /// Most headers of a request.
    pub headers_max: usize,
    /// How long a head may take to arrive, from its first byte on.
    pub header_timeout: Duration,
    /// Largest body.
    pub body_bytes_max: usize,
    /// What the bodies of all requests under way may hold together.
    pub bodies_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// What answers that wait for slow clients may hold together, but for 64 KiB of each.
    pub answers_bytes_max: usize,
    /// How long a connection may be open without a request.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer that is ready for it.
    pub write_timeout: Duration,
}

impl Default for RestLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            requests_max: 1024,
            long_requests_max: 2048,
            header_bytes_max: 16 << 10,
            headers_max: 100,
            header_timeout: Duration::from_secs(10),
            body_bytes_max: 1 << 20,
            bodies_bytes_max: 64 << 20,
            body_timeout: Duration::from_secs(30),
            answers_bytes_max: 256 << 20,
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
        }
    }
}
