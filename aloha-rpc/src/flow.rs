//! How much one peer may have on the way to one endpoint: its credit, seen from the endpoint.
//!
//! A flow starts with the transport's initial credit. As the endpoint takes messages up, the peer gets credit back, so
//! that what it has on the way, waiting included, tends to the endpoint's *window*: its inbox's limit, divided by
//! the connections that send to it. What is within the credit always has a place; a peer that sends more breaks
//! the protocol.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aloha_transport::{INITIAL_CREDIT_BYTES, INITIAL_CREDIT_MESSAGES};

use crate::link::Link;

pub(crate) struct InboundFlow {
    pub(crate) link: Arc<Link>,
    number: u32,
    /// All the credit that was ever given: messages and bytes.
    granted: (AtomicU64, AtomicU64),
    returned: Mutex<Returned>,
}

/// What the endpoint has taken up, and the window at the last grant.
struct Returned {
    messages: u64,
    bytes: u64,
    window: (u64, u64),
}

/// What a peer has sent by a flow; kept by the reader alone.
#[derive(Debug, Default)]
pub(crate) struct Received {
    messages: u64,
    bytes: u64,
}

impl InboundFlow {
    pub(crate) fn new(link: Arc<Link>, number: u32) -> Arc<Self> {
        let initial = (
            u64::from(INITIAL_CREDIT_MESSAGES),
            u64::from(INITIAL_CREDIT_BYTES),
        );
        Arc::new(Self {
            link,
            number,
            granted: (AtomicU64::new(initial.0), AtomicU64::new(initial.1)),
            returned: Mutex::new(Returned {
                messages: 0,
                bytes: 0,
                window: initial,
            }),
        })
    }

    /// Counts a message that came; false when the peer had no credit for it.
    #[must_use]
    pub(crate) fn receive(&self, received: &mut Received, bytes: usize) -> bool {
        let allowed = received.messages < self.granted.0.load(Ordering::Relaxed)
            && received.bytes < self.granted.1.load(Ordering::Relaxed);
        received.messages += 1;
        received.bytes += bytes as u64;
        allowed
    }

    /// Messages were taken up, or thrown away: gives credit up to `window` once half of the last is used up.
    pub(crate) fn give_back(&self, messages: u64, bytes: u64, window: (u64, u64)) {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.messages += messages;
        returned.bytes += bytes;
        let due = |granted: &AtomicU64, returned: u64, last: u64, window: u64| {
            // Below zero where the last message was larger than the credit.
            let on_the_way = signed(granted.load(Ordering::Relaxed)) - signed(returned);
            (on_the_way <= signed(last / 2)).then(|| {
                let more = (signed(window) - on_the_way).clamp(0, i64::from(u32::MAX));
                granted.fetch_add(more.unsigned_abs(), Ordering::Relaxed);
                u32::try_from(more).expect("clamped above")
            })
        };
        let of_messages = due(
            &self.granted.0,
            returned.messages,
            returned.window.0,
            window.0,
        );
        let of_bytes = due(&self.granted.1, returned.bytes, returned.window.1, window.1);
        if of_messages.is_some() {
            returned.window.0 = window.0;
        }
        if of_bytes.is_some() {
            returned.window.1 = window.1;
        }
        let (messages, bytes) = (of_messages.unwrap_or(0), of_bytes.unwrap_or(0));
        drop(returned);
        if messages > 0 || bytes > 0 {
            self.link.client.grant(self.number, messages, bytes);
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What an endpoint took up of one flow and has not given back yet.
#[derive(Default)]
pub(crate) struct Taken {
    flow: Option<Arc<InboundFlow>>,
    messages: u64,
    bytes: u64,
    /// How many to note before they are given back.
    at_once: u64,
}

/// How many messages are given back at a time, at most.
const GIVEN_BACK_AT_ONCE: u64 = 256;

impl Taken {
    /// Notes one message.
    pub(crate) fn add(
        &mut self,
        flow: &Arc<InboundFlow>,
        bytes: usize,
        window: impl Fn() -> (u64, u64),
    ) {
        if !self
            .flow
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, flow))
        {
            self.give_back(&window);
            self.flow = Some(Arc::clone(flow));
            // A narrow window must not wait for a number that it never lets through.
            self.at_once = GIVEN_BACK_AT_ONCE.min(window().0.div_ceil(4));
        }
        self.messages += 1;
        self.bytes += bytes as u64;
        if self.messages >= self.at_once || bytes > 4096 {
            self.give_back(window);
        }
    }

    /// Gives all back that was noted.
    pub(crate) fn give_back(&mut self, window: impl Fn() -> (u64, u64)) {
        if self.messages == 0 {
            return;
        }
        if let Some(flow) = &self.flow {
            flow.give_back(self.messages, self.bytes, window());
        }
        (self.messages, self.bytes) = (0, 0);
    }
}
