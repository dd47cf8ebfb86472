//! How a connection ends in good order: both ends say goodbye, and nothing that was queued or asked is lost.
//!
//! ```text
//!   who closes                              the peer
//!   Goodbye ───────────────────────────────► takes nothing new for this connection either
//!   handles what comes, answers what it owes
//!   ◄──────────────── what was queued, then Goodbye; from here on answers and cancels alone
//!   ◄──────────────────────────────────────  end of its bytes, once its askers have their answers
//!   end of its bytes, once all is answered ─►
//! ```
//!
//! An end sends nothing new behind its goodbye. It shuts its direction down once it has heard the peer's goodbye, owes
//! nobody an answer, nobody waits for one, and its queue is written; the connection is over when both directions are.
//! Who began waits no longer than the flush may take.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use tokio::time::Instant;

use super::{Connection, Phase, State, keep_waker};
use crate::client::Body;
use crate::error::{CloseReason, RequestError};
use crate::message::{self, RequestId};
use crate::response_handler::Completion;
use crate::write_queue::WriteQueue;

/// A connection that takes nothing new: this end has said goodbye.
#[derive(Debug)]
pub(super) struct Parting {
    /// What began it.
    by: By,
    /// The goodbye is queued. It comes behind all large messages.
    said: bool,
    /// The peer has said goodbye too.
    heard: bool,
    /// When the rest is given up.
    until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Us,
    Peer,
}

impl Parting {
    /// Why nothing new is taken.
    pub(super) fn reason(&self) -> CloseReason {
        match self.by {
            By::Us => CloseReason::Local,
            By::Peer => CloseReason::Peer,
        }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl Connection {
    /// Takes nothing new, and ends once what is queued is written and what the peer asked is answered, or when the
    /// flush may take no longer. What was asked here fails now.
    pub(crate) fn close_gracefully(&self) {
        let mut state = self.lock();
        if let Phase::Connecting = state.phase
            && state.queue.one_way() + state.transfers.one_way() == 0
        {
            // Nobody would miss it.
            drop(state);
            return self.close(CloseReason::Local);
        }
        let Some(last) = self.part(&mut state) else {
            return;
        };
        let earlier = state
            .parting
            .as_ref()
            .and_then(Parting::until)
            .and_then(|until| state.name(until));
        self.wake_writer(state);
        self.call_at(earlier);
        last.run();
    }

    /// What a future gives, unless the connection is closed first. One future at a time may be run so: that of who makes
    /// the connection, then the reader. It is borrowed, for one that is given away is kept twice.
    pub(crate) async fn unless_closed<T>(
        &self,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        poll_fn(|cx| {
            if self.is_closed() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(given) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(given));
            }
            let mut state = self.lock();
            if let Phase::Closed(_) = state.phase {
                return Poll::Ready(None);
            }
            keep_waker(&mut state.reader, cx);
            Poll::Pending
        })
        .await
    }

    /// Says goodbye; gives what is to be done once the lock is free. None: it is too late, or was done.
    pub(super) fn part(&self, state: &mut State) -> Option<Last> {
        if matches!(state.phase, Phase::Closed(_))
            || matches!(state.parting, Some(Parting { by: By::Us, .. }))
        {
            return None;
        }
        // Nobody waits any more, so the peer need not go on.
        let awaited: Vec<RequestId> = state.responses.awaited().collect();
        for id in awaited {
            state.push_cancel(id, false);
        }
        let completions = state.responses.fail_all(&RequestError::ConnectionClosed {
            peer: self.peer.clone(),
            reason: CloseReason::Local,
        });
        let heard = state.parting.is_some();
        let wakers = self.say_goodbye(state, By::Us);
        if let Some(parting) = &mut state.parting {
            parting.heard = heard;
            parting.until = self.runtime.now().checked_add(self.config.flush_timeout);
        }
        Some(Last {
            wakers,
            completions,
        })
    }

    /// The peer said goodbye: so does this end, behind what is queued. Gives those to wake.
    pub(super) fn on_goodbye(&self, state: &mut State) -> Vec<Waker> {
        if matches!(state.phase, Phase::Closed(_)) {
            return Vec::new();
        }
        let wakers = match state.parting {
            Some(_) => Vec::new(),
            None => self.say_goodbye(state, By::Peer),
        };
        if let Some(parting) = &mut state.parting {
            parting.heard = true;
        }
        wakers
    }

    fn say_goodbye(&self, state: &mut State, by: By) -> Vec<Waker> {
        let said = state.parting.as_ref().is_some_and(|parting| parting.said);
        state.parting = Some(Parting {
            by,
            said,
            heard: false,
            until: None,
        });
        if state.owes_goodbye() {
            let mut queue = std::mem::take(&mut state.queue);
            state.send_goodbye(&mut queue);
            state.queue = queue;
        }
        self.ending.store(true, Ordering::Release);
        let mut wakers = std::mem::take(&mut state.watchers);
        wakers.append(&mut state.credits.close());
        wakers
    }

    /// This direction is shut down: the peer's end follows, or is not waited for.
    pub(super) async fn shut(&self) -> CloseReason {
        self.call_at(self.limit_parting());
        poll_fn(|cx| self.poll_closed(cx)).await;
        CloseReason::Local
    }

    fn limit_parting(&self) -> Option<Instant> {
        let limit = self.runtime.now().checked_add(self.config.flush_timeout);
        let mut state = self.lock();
        let parting = state.parting.as_mut()?;
        parting.until = parting.until.or(limit);
        let until = parting.until?;
        state.name(until)
    }

    /// Ends the connection after its reader or writer has ended. Behind a goodbye that is no failure.
    pub(super) fn close_in_order(&self, found: CloseReason) {
        let reason = match (&self.lock().parting, &found) {
            (Some(parting), CloseReason::Peer) => Some(parting.reason()),
            (Some(parting), CloseReason::Io(_)) if parting.heard => Some(parting.reason()),
            _ => None,
        };
        self.close(reason.unwrap_or(found));
    }
}

impl State {
    /// Whether the goodbye is to be queued now.
    pub(super) fn owes_goodbye(&self) -> bool {
        self.parting.as_ref().is_some_and(|parting| !parting.said) && self.transfers.is_empty()
    }

    pub(super) fn send_goodbye(&mut self, queue: &mut WriteQueue) {
        queue.push(message::GOODBYE, None, &[], &Body::Copied(&[]));
        if let Some(parting) = &mut self.parting {
            parting.said = true;
        }
    }

    /// Whether this end has done all that it had to do behind its goodbye.
    pub(super) fn has_finished(&self) -> bool {
        self.parting.as_ref().is_some_and(|parting| parting.heard)
            && matches!(self.phase, Phase::Open(_))
            && self.is_flushed()
            && self.streams.is_empty()
            && self.responses.awaited().next().is_none()
            && !self.incoming.is_owing()
    }
}

/// What a goodbye leaves to be done once the lock is free.
#[must_use = "somebody waits for it"]
pub(super) struct Last {
    wakers: Vec<Waker>,
    completions: Vec<Completion>,
}

impl Last {
    pub(super) fn run(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        self.completions.into_iter().for_each(Completion::run);
    }
}
