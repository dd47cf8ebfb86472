//! The lane of an inbox for messages from other environments: bytes, as they came, in order.
//!
//! What the messages of one read have in common (the memory of the read, the sender's flow) is kept once for all of them,
//! so that the reader and the endpoint's task do not pass counts of references to and fro for each.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use aloha_transport::{Failure, FailureCode, PendingRequest};
use bytes::Bytes;
use tokio::time::Instant;

use crate::flow::InboundFlow;
use crate::mail::Sent;
use crate::remote_call::RemoteCall;
use crate::trace::TraceContext;

/// How many reads may wait whole. A few small messages of a read hold all of its memory, which their endpoint's limit does
/// not count; where more reads wait than this, they are taken out of it.
const SHARED_READS_MAX: usize = 16;
/// Messages of a read that are at least so many bytes share its memory, for it is not much more than they are.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// A message that came over a connection, not decoded yet.
pub(crate) struct RemoteMail {
    /// Its place in the bytes of its read.
    pub(crate) body: Range<usize>,
    pub(crate) sent: Sent,
    pub(crate) request: Option<PendingRequest>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) extras: Option<Box<Extras>>,
}

/// What few messages have.
#[derive(Default)]
pub(crate) struct Extras {
    /// The calls of its envelope.
    pub(crate) calls: Vec<Option<RemoteCall>>,
    pub(crate) trace: Option<TraceContext>,
}

/// What the messages of one read to one endpoint have in common.
pub(crate) struct Source {
    /// Out for as long as a message is decoded.
    pub(crate) flow: Option<Arc<InboundFlow>>,
    pub(crate) bytes: Bytes,
    messages: usize,
}

/// Messages in the order they came. Most endpoints never see one: it takes memory once something is appended.
#[derive(Default)]
pub(crate) struct RemoteLane(Option<Box<Lane>>);

#[derive(Default)]
struct Lane {
    mails: VecDeque<RemoteMail>,
    sources: VecDeque<Source>,
}

impl RemoteLane {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |lane| lane.mails.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends messages of one read.
    pub(crate) fn append(
        &mut self,
        flow: &Arc<InboundFlow>,
        bytes: &Bytes,
        mails: &mut Vec<RemoteMail>,
    ) {
        let lane = self.0.get_or_insert_default();
        let bytes = if lane.sources.len() < SHARED_READS_MAX {
            bytes.clone()
        } else {
            compact(bytes, mails)
        };
        lane.sources.push_back(Source {
            flow: Some(Arc::clone(flow)),
            bytes,
            messages: mails.len(),
        });
        lane.mails.extend(mails.drain(..));
    }

    /// The next message and what it has in common with others.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<(RemoteMail, &mut Source)> {
        let Lane { mails, sources } = &mut **self.0.as_mut()?;
        let Some(mail) = mails.pop_front() else {
            // The memory of the last read is let go.
            sources.clear();
            return None;
        };
        while sources.front().is_some_and(|source| source.messages == 0) {
            sources.pop_front();
        }
        let source = sources.front_mut().expect("every message has one");
        source.messages -= 1;
        Some((mail, source))
    }

    /// The next message that nobody will handle, and whose it is.
    pub(crate) fn pop_unhandled(&mut self) -> Option<(Arc<InboundFlow>, RemoteMail)> {
        let (mail, source) = self.pop()?;
        Some((Arc::clone(source.flow()), mail))
    }

    /// Lets go of memory that an unusual burst needed.
    pub(crate) fn shrink_to(&mut self, messages: usize) {
        if let Some(lane) = &mut self.0
            && lane.mails.capacity() > messages
        {
            lane.mails.shrink_to(messages);
            lane.sources.shrink_to(messages);
        }
    }
}

/// Memory that holds these messages and not much more; their places are brought up to date.
fn compact(bytes: &Bytes, mails: &mut [RemoteMail]) -> Bytes {
    let length: usize = mails.iter().map(|mail| mail.body.len()).sum();
    if length >= SHARED_BYTES_MIN {
        return bytes.clone();
    }
    let mut own = Vec::with_capacity(length);
    for mail in mails {
        let start = own.len();
        own.extend_from_slice(&bytes[mail.body.clone()]);
        mail.body = start..own.len();
    }
    own.into()
}

impl Drop for RemoteLane {
    fn drop(&mut self) {
        let failure = Failure::new(
            FailureCode::DROPPED,
            "the call was dropped without an answer",
        );
        while let Some((flow, mail)) = self.pop_unhandled() {
            mail.bounce(&flow, &failure);
        }
    }
}

impl Source {
    pub(crate) fn flow(&self) -> &Arc<InboundFlow> {
        self.flow.as_ref().expect("put back after each message")
    }
}

impl RemoteMail {
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.extras.as_ref()?.trace
    }

    /// Answers every call of the message with a failure.
    pub(crate) fn bounce(self, flow: &InboundFlow, failure: &Failure) {
        if let Some(request) = self.request {
            flow.link.client.respond_failure(request, failure);
        }
        let calls = self.extras.map(|extras| extras.calls);
        for call in calls.into_iter().flatten().flatten() {
            call.fail(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(body: Range<usize>) -> RemoteMail {
        RemoteMail {
            body,
            sent: Sent::OneWay,
            request: None,
            deadline: None,
            extras: None,
        }
    }

    #[test]
    fn small_messages_leave_the_memory_of_their_read_and_large_ones_do_not() {
        let read = Bytes::from(vec![1; SHARED_BYTES_MIN / 2].repeat(4));
        let mut small = [mail(10..20), mail(30..30), mail(40..45)];
        let own = compact(&read, &mut small);
        assert!(read.is_unique());
        assert_eq!(own, [1; 15][..]);
        assert_eq!(small.map(|mail| mail.body), [0..10, 10..10, 10..15]);
        let mut large = [mail(5..5 + SHARED_BYTES_MIN)];
        assert_eq!(compact(&read, &mut large), read);
        assert_eq!(large[0].body, 5..5 + SHARED_BYTES_MIN);
    }
}
