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
        lane.sources.push_back(Source {
            flow: Some(Arc::clone(flow)),
            bytes: bytes.clone(),
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
