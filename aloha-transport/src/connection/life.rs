//! What becomes due on a connection, seen by the keeper of its context: deadlines of requests.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Connection, Phase, State};
use crate::client::Body;
use crate::message;
use crate::response_handler::Completion;

impl Connection {
    /// Lets the keeper call this connection from now on.
    pub(crate) fn keep(self: &Arc<Self>) {
        self.keeper.keep(self.number, self);
        // Whoever closed it meanwhile has let go of it too early.
        if matches!(self.lock().phase, Phase::Closed(_)) {
            self.keeper.forget(self.number);
        }
    }

    /// Tells the keeper of a moment that it has not been told of.
    pub(super) fn call_at(&self, earlier: Option<Instant>) {
        if let Some(at) = earlier {
            self.keeper.call_at(self.number, at);
        }
    }

    /// Does what is due, and says when to be called again.
    pub(crate) fn on_time(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Closed(_)) {
            return None;
        }
        let (mut cancel, mut completions) = (Vec::new(), Vec::new());
        state.responses.expire(now, &mut cancel, &mut completions);
        for id in cancel {
            state
                .queue
                .push(message::CANCEL, Some(id), &[], &Body::Copied(&[]));
        }
        let next = state.responses.next_deadline();
        state.named = next;
        self.wake_writer(state);
        completions.into_iter().for_each(Completion::run);
        next
    }
}

impl State {
    /// Notes a moment at which something is due; gives it back if the keeper has to be told.
    pub(super) fn name(&mut self, at: Instant) -> Option<Instant> {
        if self.named.is_some_and(|named| named <= at) {
            return None;
        }
        self.named = Some(at);
        Some(at)
    }
}
