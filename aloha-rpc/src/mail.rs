//! What lies in an inbox: messages of both lanes, news of the control lane, and what becomes of what nobody handles.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use aloha_transport::{Failure, FailureCode};

use crate::address::RpcAddress;
use crate::error::{EndpointError, code};
use crate::remote_lane::RemoteLane;
use crate::supervision::Terminated;
use crate::trace::TraceContext;

/// A buffer with room for more messages than this is not kept.
const KEPT_MESSAGES_MAX: usize = 1024;

thread_local! {
    static DROPPING: Cell<Option<Discard>> = const { Cell::new(None) };
}

/// Why messages are dropped unhandled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discard {
    /// Their endpoint is stopped.
    Stopped,
    /// Newer ones took their place.
    Displaced,
    /// They could not be passed on.
    RelayLost,
    /// Nobody was there to take them.
    NotTaken,
    /// Their endpoint has ended, and had seen them.
    Ended,
}

impl Discard {
    /// What the calls inside are answered with.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Stopped => Failure::new(code::ENDPOINT_STOPPED, "the endpoint is stopped"),
            Self::Displaced => Failure::new(
                FailureCode::OVERLOADED,
                "newer messages took its place in a full inbox",
            ),
            Self::Ended => {
                Failure::new(FailureCode::DROPPED, "the endpoint ended without an answer")
            }
            Self::NotTaken => Failure::new(FailureCode::OVERLOADED, "nobody takes it"),
            Self::RelayLost => Failure::new(code::RELAY_LOST, "the way to the endpoint is lost"),
        }
    }
}

/// Why messages that are dropped now on this thread are dropped, if this layer does it.
pub(crate) fn discarding() -> Option<Discard> {
    DROPPING.get()
}

/// Drops each of several.
pub(crate) fn discard_all<T>(mail: impl IntoIterator<Item = T>, why: Discard) {
    for mail in mail {
        discard(mail, why);
    }
}

/// Drops a message that nobody will handle; the calls inside say why. A panic of its `Drop` ends here.
pub(crate) fn discard<T>(mail: T, why: Discard) {
    struct Reset(Option<Discard>);
    impl Drop for Reset {
        fn drop(&mut self) {
            DROPPING.set(self.0);
        }
    }
    let _reset = Reset(DROPPING.replace(Some(why)));
    drop(catch_unwind(AssertUnwindSafe(|| drop(mail))));
}

/// How a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    OneWay,
    Asked,
}

/// What comes by the control lane.
#[derive(Debug)]
pub(crate) enum Control {
    Connected(RpcAddress),
    Disconnected(RpcAddress),
    NetworkError(Arc<str>, RpcAddress),
    Terminated(Terminated),
    /// A handler that runs beside the endpoint's task failed, or a linked endpoint ended.
    Failed(EndpointError),
}

/// News in the order it came. It is rare: it takes memory once there is some.
#[derive(Default)]
#[expect(
    clippy::box_collection,
    reason = "an empty one is a pointer, not four words"
)]
pub(crate) struct ControlLane(Option<Box<VecDeque<Control>>>);

impl ControlLane {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|lane| lane.is_empty())
    }

    pub(crate) fn push(&mut self, control: Control) {
        self.0.get_or_insert_default().push_back(control);
    }

    pub(crate) fn pop(&mut self) -> Option<Control> {
        self.0.as_mut()?.pop_front()
    }
}

/// A local message that waits.
pub(crate) struct LocalMail<M> {
    pub(crate) sent: Sent,
    /// As the user weighs it, if so.
    pub(crate) bytes: u32,
    pub(crate) trace: Option<Box<TraceContext>>,
    pub(crate) message: M,
}

impl<M> LocalMail<M> {
    #[inline]
    pub(crate) fn new(sent: Sent, message: M, trace: Option<Box<TraceContext>>) -> Self {
        Self {
            sent,
            bytes: 0,
            trace,
            message,
        }
    }
}

/// What the endpoint's task takes at a time. After the rest of the batch: stop, when `stop` is set.
pub(crate) struct Batch<M> {
    pub(crate) control: ControlLane,
    pub(crate) local: VecDeque<LocalMail<M>>,
    pub(crate) remote: RemoteLane,
    pub(crate) stop: bool,
}

impl<M> Default for Batch<M> {
    fn default() -> Self {
        Self {
            control: ControlLane::default(),
            local: VecDeque::new(),
            remote: RemoteLane::default(),
            stop: false,
        }
    }
}

impl<M> Batch<M> {
    pub(crate) fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty() && self.control.is_empty() && !self.stop
    }

    /// Lets go of memory that an unusual burst needed.
    pub(crate) fn trim(&mut self) {
        if self.local.capacity() > KEPT_MESSAGES_MAX {
            self.local.shrink_to(KEPT_MESSAGES_MAX);
        }
        self.remote.shrink_to(KEPT_MESSAGES_MAX);
    }

    /// Messages of both lanes.
    pub(crate) fn messages(&self) -> usize {
        self.local.len() + self.remote.len()
    }
}
