//! What can be seen from outside: numbers at a moment, and a trait that hears of things as they happen.

use std::sync::Arc;
use std::time::Duration;

use crate::address::RpcAddress;
use crate::dead_letter::DeadLetter;

/// Hears of what happens in an environment, to feed counters and histograms of your own.
///
/// Called on the tasks of endpoints and connections: an implementation must be quick and must not wait. Without one,
/// nothing is measured: no clock is read for a message.
pub trait Metrics: Send + Sync + 'static {
    /// A message was handled, well or not, in this time.
    fn on_handled(&self, endpoint: &str, took: Duration) {
        let _ = (endpoint, took);
    }

    /// A callback failed; `kind` is that of its error.
    fn on_error(&self, endpoint: &str, kind: &str) {
        let _ = (endpoint, kind);
    }

    /// An endpoint was made anew.
    fn on_restart(&self, endpoint: &str) {
        let _ = endpoint;
    }

    /// Messages will not be handled.
    fn on_dead_letter(&self, letter: &DeadLetter) {
        let _ = letter;
    }

    /// A connection to or from another environment is open.
    fn on_connected(&self, remote: &RpcAddress) {
        let _ = remote;
    }

    /// A connection has ended.
    fn on_disconnected(&self, remote: &RpcAddress) {
        let _ = remote;
    }
}

/// An environment at a moment, from [`RpcEnv::snapshot`](crate::RpcEnv::snapshot).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EnvSnapshot {
    /// Every endpoint that users set up, by name.
    pub endpoints: Vec<EndpointSnapshot>,
    /// Every open connection, in the order they were made.
    pub connections: Vec<ConnectionSnapshot>,
    /// Messages that were taken and not handled, since the start.
    pub dead_letters: u64,
}

/// An endpoint at a moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// Messages that wait for it.
    pub waiting: usize,
    /// How long the oldest message that waits or is being handled has done so; measured only with
    /// [`RpcEnvBuilder::metrics`](crate::RpcEnvBuilder::metrics).
    pub oldest: Option<Duration>,
    /// Messages handled since it was set up.
    pub handled: u64,
    /// Errors and panics of its callbacks.
    pub errors: u64,
    /// How often it was made anew.
    pub restarts: u64,
    /// The time its handlers took together; measured only with metrics.
    pub handler_time: Duration,
    /// The longest time a handler took; measured only with metrics.
    pub handler_time_max: Duration,
}

/// A connection at a moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionSnapshot {
    /// The environment at the other end: the address it listens on, or where it called from.
    pub remote: Option<RpcAddress>,
    /// Made by this side.
    pub outbound: bool,
    /// How many connections this side made to the address before this one.
    pub reconnects: u64,
    /// Bytes read.
    pub received_bytes: u64,
    /// Bytes written.
    pub sent_bytes: u64,
    /// Bytes that wait to be written, without those of large messages.
    pub queued_bytes: usize,
    /// Bytes of large messages that wait to be written, in parts between which others pass.
    pub transfer_bytes: usize,
    /// Asks of this side without a reply.
    pub requests_outstanding: u32,
    /// Asks of the other side that this one has not answered.
    pub answers_owed: u32,
}
