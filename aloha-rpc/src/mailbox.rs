//! An inbox as those see it who do not know the type of its messages.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::flow::InboundFlow;
use crate::mail::Control;
use crate::remote_lane::{RemoteLane, RemoteMail};
use crate::supervision::Termination;

/// An inbox without its message type: what the dispatcher and the connections see.
pub(crate) trait Mailbox: Send + Sync + 'static {
    fn name(&self) -> &Arc<str>;
    /// Appends messages of one read, under one lock. Nothing is taken from `mails` if the endpoint is stopped.
    fn deliver(
        &self,
        flow: &Arc<InboundFlow>,
        bytes: &Bytes,
        mails: &mut Vec<RemoteMail>,
        now: Option<Instant>,
    ) -> Delivered;
    fn control(&self, control: Control);
    /// What was posted before is handled before.
    fn stop(&self);
    /// What waits is given up.
    fn abandon(&self);
    fn is_open(&self) -> bool;
    /// Comes with the end of the endpoint.
    fn watch(&self) -> oneshot::Receiver<Termination>;
    /// A connection begins or ceases to send to this endpoint.
    fn join(&self);
    fn leave(&self);
    fn load(&self, now: Instant) -> Load;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// What became of messages that were delivered.
pub(crate) enum Delivered {
    Taken,
    /// They were taken, and older ones made room for them.
    Displaced(RemoteLane),
    Stopped,
}

/// What an inbox holds at a moment, and what its endpoint has done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    pub(crate) waiting: usize,
    pub(crate) oldest: Option<Duration>,
    pub(crate) handled: u64,
    pub(crate) errors: u64,
    pub(crate) restarts: u64,
    pub(crate) handler_time: Duration,
    pub(crate) handler_time_max: Duration,
}
