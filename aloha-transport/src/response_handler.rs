//! Requests that wait for their answer: one table per connection, slots used again, no allocation a request.
//!
//! ```text
//!            insert                 complete                poll
//!   Free ───────────► Waiting ─────────────────► Answered ───────► Free
//!     ▲                 │  │ expire                  ▲
//!     │                 │  └──────► TimedOut ────────┘ complete
//!     │        abandon  │              │ poll
//!     │                 ▼              ▼
//!     └─────────────── Abandoned ◄─────┘
//!         complete
//! ```
//!
//! A slot is free again only when its answer has come, so no late answer can meet another request.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::RequestError;
use crate::message::RequestId;
use crate::reply::Reply;

pub(crate) type Answer = Result<Reply, RequestError>;
pub(crate) type Callback = Box<dyn FnOnce(Answer) + Send>;

enum Slot {
    Free,
    Waiting {
        deadline: Option<Deadline>,
        waker: Option<Waker>,
    },
    Called(Callback),
    TimedOut(Duration),
    Abandoned,
    Answered(Answer),
}

/// When a request's time is up, and how long that was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) timeout: Duration,
}

/// What to do once the connection's lock is released.
pub(crate) enum Completion {
    Wake(Waker),
    Call(Callback, Answer),
}

impl Completion {
    pub(crate) fn run(self) {
        match self {
            Self::Wake(waker) => waker.wake(),
            Self::Call(callback, answer) => callback(answer),
        }
    }
}

/// The table; pure.
pub(crate) struct TransportResponseHandler {
    peer: Arc<str>,
    slots: Vec<(u16, Slot)>,
    free: Vec<u32>,
    in_flight: u32,
    /// No deadline in the table is earlier.
    next_deadline: Option<Instant>,
}

impl TransportResponseHandler {
    pub(crate) fn new(peer: Arc<str>) -> Self {
        Self {
            peer,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            next_deadline: None,
        }
    }

    /// How many answers are due.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    /// A slot for a future that will poll; `None` when `limit` slots are taken.
    pub(crate) fn insert(&mut self, deadline: Option<Deadline>, limit: u32) -> Option<RequestId> {
        if let Some(Deadline { at, .. }) = deadline {
            self.next_deadline = Some(self.next_deadline.map_or(at, |next| next.min(at)));
        }
        self.take_slot(
            Slot::Waiting {
                deadline,
                waker: None,
            },
            limit,
        )
    }

    /// A slot whose answer goes to a callback.
    pub(crate) fn insert_callback(&mut self, callback: Callback, limit: u32) -> Option<RequestId> {
        self.take_slot(Slot::Called(callback), limit)
    }

    fn take_slot(&mut self, slot: Slot, limit: u32) -> Option<RequestId> {
        let limit = limit.min(RequestId::INDEX_MAX);
        let index = match self.free.pop() {
            Some(index) => index,
            None if (self.slots.len() as u64) < u64::from(limit) => {
                if self.slots.is_empty() {
                    // Many connections never need a second one.
                    self.slots.reserve_exact(1);
                }
                self.slots.push((0, Slot::Free));
                u32::try_from(self.slots.len() - 1).expect("limited to 22 bits")
            }
            None => return None,
        };
        let (generation, place) = &mut self.slots[index as usize];
        *place = slot;
        self.in_flight += 1;
        Some(RequestId::new(index, *generation))
    }

    fn slot(&mut self, id: RequestId) -> Option<&mut Slot> {
        let index = id.index();
        self.slots
            .get_mut(index as usize)
            .filter(|(generation, _)| RequestId::new(index, *generation) == id)
            .map(|(_, slot)| slot)
    }

    fn release(&mut self, id: RequestId) {
        let (generation, slot) = &mut self.slots[id.index() as usize];
        *slot = Slot::Free;
        // The id has ten bits for it; the wrap is harmless because answers are never late.
        *generation = (*generation + 1) & 0x3ff;
        self.free.push(id.index());
    }

    /// Notes an answer. An id nobody waits for is ignored: `Err` says so.
    pub(crate) fn complete(
        &mut self,
        id: RequestId,
        answer: Answer,
    ) -> Result<Option<Completion>, UnknownId> {
        let index = id.index() as usize;
        if self.slot(id).is_none() {
            return Err(UnknownId(id));
        }
        let slot = &mut self.slots[index].1;
        match std::mem::replace(slot, Slot::Free) {
            Slot::Waiting { waker, .. } => {
                *slot = Slot::Answered(answer);
                self.in_flight -= 1;
                Ok(waker.map(Completion::Wake))
            }
            // Its time was over first, whatever the peer says of it now.
            Slot::TimedOut(timeout) => {
                let peer = Arc::clone(&self.peer);
                *slot = Slot::Answered(Err(RequestError::TimedOut { peer, timeout }));
                self.in_flight -= 1;
                Ok(None)
            }
            Slot::Called(callback) => {
                self.in_flight -= 1;
                self.release(id);
                Ok(Some(Completion::Call(callback, answer)))
            }
            Slot::Abandoned => {
                self.in_flight -= 1;
                self.release(id);
                Ok(None)
            }
            kept @ (Slot::Free | Slot::Answered(_)) => {
                *slot = kept;
                Err(UnknownId(id))
            }
        }
    }

    /// Takes the answer, or leaves the waker.
    pub(crate) fn poll(&mut self, id: RequestId, cx: &Context<'_>) -> Poll<Answer> {
        let index = id.index() as usize;
        assert!(
            self.slot(id).is_some(),
            "a future holds its slot until it has the answer"
        );
        let slot = &mut self.slots[index].1;
        match slot {
            Slot::Waiting { waker, .. } => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            Slot::TimedOut(timeout) => {
                let (peer, timeout) = (Arc::clone(&self.peer), *timeout);
                *slot = Slot::Abandoned;
                Poll::Ready(Err(RequestError::TimedOut { peer, timeout }))
            }
            Slot::Answered(_) => {
                let Slot::Answered(answer) = std::mem::replace(slot, Slot::Free) else {
                    unreachable!("matched above")
                };
                self.release(id);
                Poll::Ready(answer)
            }
            Slot::Free | Slot::Called(_) | Slot::Abandoned => {
                unreachable!("a future holds its slot until it has the answer")
            }
        }
    }

    /// The asker is gone. The callback is for the caller to drop, outside of any lock.
    pub(crate) fn abandon(&mut self, id: RequestId) -> Abandoned {
        let Some(slot) = self.slot(id) else {
            return Abandoned::Answered;
        };
        match std::mem::replace(slot, Slot::Abandoned) {
            Slot::Waiting { .. } => Abandoned::Due(None),
            Slot::Called(callback) => Abandoned::Due(Some(callback)),
            Slot::TimedOut(_) | Slot::Abandoned => Abandoned::Answered,
            Slot::Answered(_) => {
                self.release(id);
                Abandoned::Answered
            }
            Slot::Free => {
                *slot = Slot::Free;
                Abandoned::Answered
            }
        }
    }

    /// Gives a waiting request another deadline.
    pub(crate) fn set_deadline(&mut self, id: RequestId, to: Option<Deadline>) {
        if let Some(Slot::Waiting { deadline, .. }) = self.slot(id) {
            *deadline = to;
            if let Some(Deadline { at, .. }) = to {
                self.next_deadline = Some(self.next_deadline.map_or(at, |next| next.min(at)));
            }
        }
    }

    /// Gives a slot back whose id was never sent.
    pub(crate) fn forget(&mut self, id: RequestId) -> Option<Callback> {
        let slot = self.slot(id)?;
        let taken = std::mem::replace(slot, Slot::Free);
        if matches!(
            taken,
            Slot::Waiting { .. } | Slot::Called(_) | Slot::TimedOut(_) | Slot::Abandoned
        ) {
            self.in_flight -= 1;
        }
        self.release(id);
        match taken {
            Slot::Called(callback) => Some(callback),
            Slot::Free
            | Slot::Waiting { .. }
            | Slot::TimedOut(_)
            | Slot::Abandoned
            | Slot::Answered(_) => None,
        }
    }

    /// Ends what is overdue: pushes the ids to cancel and the tasks to wake.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        cancel: &mut Vec<RequestId>,
        wake: &mut Vec<Completion>,
    ) {
        if self.next_deadline.is_none_or(|next| now < next) {
            return;
        }
        self.next_deadline = None;
        for (index, (generation, slot)) in self.slots.iter_mut().enumerate() {
            let Slot::Waiting {
                deadline: Some(deadline),
                waker,
            } = slot
            else {
                continue;
            };
            if deadline.at > now {
                let at = deadline.at;
                self.next_deadline = Some(self.next_deadline.map_or(at, |next| next.min(at)));
                continue;
            }
            wake.extend(waker.take().map(Completion::Wake));
            *slot = Slot::TimedOut(deadline.timeout);
            cancel.push(RequestId::new(
                u32::try_from(index).expect("limited to 22 bits"),
                *generation,
            ));
        }
    }

    /// The requests whose askers still wait.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = RequestId> {
        (0_u32..)
            .zip(&self.slots)
            .filter(|(_, (_, slot))| matches!(slot, Slot::Waiting { .. } | Slot::Called(_)))
            .map(|(index, (generation, _))| RequestId::new(index, *generation))
    }

    /// Answers everything that waits with one error.
    pub(crate) fn fail_all(&mut self, error: &RequestError) -> Vec<Completion> {
        let due: Vec<RequestId> = (0_u32..)
            .zip(&self.slots)
            .filter(|(_, (_, slot))| !matches!(slot, Slot::Free | Slot::Answered(_)))
            .map(|(index, (generation, _))| RequestId::new(index, *generation))
            .collect();
        self.next_deadline = None;
        due.into_iter()
            .filter_map(|id| {
                self.complete(id, Err(error.clone()))
                    .expect("just listed as waiting")
            })
            .collect()
    }
}

impl fmt::Debug for TransportResponseHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportResponseHandler")
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// What became of a request that nobody waits for any more.
pub(crate) enum Abandoned {
    /// The answer is still due, and a `Cancel` worth sending.
    Due(Option<Callback>),
    /// The answer is there, or the peer was told already.
    Answered,
}

/// An answer to a request that nobody waits for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownId(pub(crate) RequestId);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::task::Waker;

    fn table() -> TransportResponseHandler {
        TransportResponseHandler::new("peer:1".into())
    }

    fn poll(table: &mut TransportResponseHandler, id: RequestId) -> Poll<Answer> {
        table.poll(id, &Context::from_waker(Waker::noop()))
    }

    fn reply(text: &'static str) -> Answer {
        Ok(Reply::inline(text.as_bytes()).expect("it is short"))
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn answers_come_in_any_order_and_each_is_taken_once() {
        let mut t = table();
        let first = t.insert(None, 8).unwrap();
        let second = t.insert(None, 8).unwrap();
        assert!(poll(&mut t, first).is_pending());
        assert!(t.complete(second, reply("two")).unwrap().is_none());
        assert!(t.complete(first, reply("one")).unwrap().is_some());
        assert!(matches!(poll(&mut t, first), Poll::Ready(Ok(body)) if *body == *b"one"));
        assert!(matches!(poll(&mut t, second), Poll::Ready(Ok(body)) if *body == *b"two"));
        assert_eq!(t.in_flight(), 0);
        assert!(matches!(t.complete(first, reply("again")), Err(UnknownId(id)) if id == first));
    }

    #[test]
    fn an_unknown_id_is_ignored() {
        let stray = RequestId::from_bits(77);
        assert!(matches!(table().complete(stray, reply("?")), Err(UnknownId(id)) if id == stray));
    }

    #[test]
    fn a_failure_with_an_unknown_id_is_ignored_and_one_with_a_known_id_reaches_its_asker() {
        use crate::error::{Failure, FailureCode};

        let failed = || {
            let failure = Failure::new(FailureCode::APPLICATION, "no");
            Err(RequestError::Failed(failure))
        };
        let mut t = table();
        let id = t.insert(None, 8).unwrap();
        let stray = RequestId::new(id.index(), 5);
        assert!(matches!(t.complete(stray, failed()), Err(UnknownId(id)) if id == stray));
        assert!(poll(&mut t, id).is_pending());
        t.complete(id, failed()).unwrap();
        let answer = poll(&mut t, id);
        assert!(
            matches!(answer, Poll::Ready(Err(RequestError::Failed(failure))) if failure.text == "no")
        );
    }

    #[test]
    fn only_those_whose_askers_wait_are_awaited() {
        let mut t = table();
        let [waits, abandoned, answered] = [(); 3].map(|()| t.insert(None, 8).unwrap());
        let called = t.insert_callback(Box::new(drop), 8).unwrap();
        t.abandon(abandoned);
        t.complete(answered, reply("yes")).unwrap();
        assert!(t.awaited().eq([waits, called]));
        assert_eq!(t.in_flight(), 3, "three answers are due");
    }

    #[test]
    fn an_abandoned_slot_is_not_used_again_before_its_answer() {
        let mut t = table();
        let id = t.insert(None, 1).unwrap();
        assert!(matches!(t.abandon(id), Abandoned::Due(None)));
        assert!(t.insert(None, 1).is_none());
        assert!(t.complete(id, reply("late")).unwrap().is_none());
        let next = t.insert(None, 1).unwrap();
        assert_ne!(next, id, "the generation tells them apart");
    }

    #[test]
    fn a_request_ends_at_its_deadline_and_not_before() {
        let mut t = table();
        let start = now();
        let timeout = Duration::from_secs(1);
        let id = t
            .insert(
                Some(Deadline {
                    at: start + timeout,
                    timeout,
                }),
                8,
            )
            .unwrap();
        let (mut cancel, mut wake) = (Vec::new(), Vec::new());
        assert!(poll(&mut t, id).is_pending());
        t.expire(
            start + timeout - Duration::from_millis(1),
            &mut cancel,
            &mut wake,
        );
        assert!(cancel.is_empty() && wake.is_empty());
        t.expire(start + timeout, &mut cancel, &mut wake);
        assert_eq!((cancel, wake.len()), (vec![id], 1));
        assert!(matches!(
            poll(&mut t, id),
            Poll::Ready(Err(RequestError::TimedOut { .. }))
        ));
        assert_eq!(t.in_flight(), 1, "the answer is still due");
        assert!(t.complete(id, reply("late")).unwrap().is_none());
        assert_eq!(t.in_flight(), 0);
    }

    #[test]
    fn all_outstanding_requests_fail_once_when_the_connection_ends() {
        let mut t = table();
        let seen = Arc::new(Mutex::new(0));
        let id = t.insert(None, 8).unwrap();
        let counter = Arc::clone(&seen);
        t.insert_callback(Box::new(move |_| *counter.lock().unwrap() += 1), 8)
            .unwrap();
        let error = RequestError::ConnectionClosed {
            peer: "p".into(),
            reason: crate::CloseReason::Peer,
        };
        t.fail_all(&error).into_iter().for_each(Completion::run);
        t.fail_all(&error).into_iter().for_each(Completion::run);
        assert_eq!(*seen.lock().unwrap(), 1);
        assert!(matches!(
            poll(&mut t, id),
            Poll::Ready(Err(RequestError::ConnectionClosed { .. }))
        ));
    }
}
