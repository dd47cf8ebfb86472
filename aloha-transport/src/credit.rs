//! How much this side may still send to each receiver of a connection: credit, given back by the peer as its
//! receivers take messages up.
//!
//! A *flow* is one receiver on one connection and in one direction, named by a number that the layer on top
//! chooses. Every flow starts with the same credit, so that messages may be sent before the connection is made;
//! from then on the peer alone adds to it, with `Credit` frames. A receiver that is slow or stuck therefore stops
//! those who send to it, and never the connection.

use std::task::{Context, Poll, Waker};

/// Messages that may be sent to a receiver before it gave any credit.
pub const INITIAL_CREDIT_MESSAGES: u32 = 16_384;
/// Bytes of messages that may be sent to a receiver before it gave any credit.
pub const INITIAL_CREDIT_BYTES: u32 = 1 << 20;
/// Bytes that are kept for a message whose credit is reserved before its size is known.
const RESERVED_BYTES: i64 = 4096;
/// How many flows one connection may have in one direction.
pub const FLOWS_MAX: u32 = 65_536;

/// Which credit a message uses up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Charge {
    /// None: the layer on top does without.
    #[default]
    Free,
    /// That of this flow; without any left, the message is refused.
    Flow(u32),
    /// That which [`TransportClient::reserve`](crate::TransportClient::reserve) took before.
    Reserved(u32),
}

/// The credit of all flows that leave by one connection; pure.
#[derive(Debug, Default)]
pub(crate) struct Credits {
    flows: Vec<Flow>,
}

#[derive(Debug)]
struct Flow {
    messages: i64,
    /// The last message may go below zero, so that one of any size can pass.
    bytes: i64,
    /// How many messages have their credit already, [`RESERVED_BYTES`] each.
    reserved: i64,
    waiting: Vec<Waker>,
}

/// The number of a flow is too large.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyFlows;

impl Credits {
    fn flow(&mut self, number: u32) -> Result<&mut Flow, TooManyFlows> {
        if number >= FLOWS_MAX {
            return Err(TooManyFlows);
        }
        let index = number as usize;
        while self.flows.len() <= index {
            self.flows.push(Flow {
                messages: i64::from(INITIAL_CREDIT_MESSAGES),
                bytes: i64::from(INITIAL_CREDIT_BYTES),
                reserved: 0,
                waiting: Vec::new(),
            });
        }
        Ok(&mut self.flows[index])
    }

    /// Whether a message may go.
    pub(crate) fn allows(&mut self, charge: Charge) -> Result<bool, TooManyFlows> {
        Ok(match charge {
            Charge::Free => true,
            Charge::Flow(number) => self.flow(number)?.is_open(),
            // Others may have sent more than they reserved.
            Charge::Reserved(number) => {
                let flow = self.flow(number)?;
                flow.bytes + RESERVED_BYTES * flow.reserved > 0
            }
        })
    }

    /// Uses credit up for a message that [`allows`](Self::allows) let pass.
    pub(crate) fn take(&mut self, charge: Charge, bytes: usize) {
        let number = match charge {
            Charge::Free => return,
            Charge::Flow(number) => number,
            Charge::Reserved(number) => {
                self.flows[number as usize].unreserve();
                number
            }
        };
        let flow = &mut self.flows[number as usize];
        flow.messages -= 1;
        flow.bytes -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    /// Takes the credit of one message, or leaves the waker.
    pub(crate) fn poll_reserve(
        &mut self,
        number: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<(), TooManyFlows>> {
        let flow = self.flow(number)?;
        if flow.is_open() {
            flow.messages -= 1;
            flow.bytes -= RESERVED_BYTES;
            flow.reserved += 1;
            return Poll::Ready(Ok(()));
        }
        if !flow.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            flow.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Gives reserved credit back; gives those who wait for it.
    pub(crate) fn release(&mut self, number: u32) -> Vec<Waker> {
        let Some(flow) = self.flows.get_mut(number as usize) else {
            return Vec::new();
        };
        flow.unreserve();
        flow.take_waiting()
    }

    /// The peer gives credit. Gives those who wait for it.
    pub(crate) fn grant(&mut self, number: u32, messages: u32, bytes: u32) -> Vec<Waker> {
        // A flow that this side never used is none of its business.
        let Some(flow) = self.flows.get_mut(number as usize) else {
            return Vec::new();
        };
        flow.messages = flow.messages.saturating_add(i64::from(messages));
        flow.bytes = flow.bytes.saturating_add(i64::from(bytes));
        flow.take_waiting()
    }

    /// Whether nobody has reserved anything, nor waits to.
    pub(crate) fn is_idle(&self) -> bool {
        let mut flows = self.flows.iter();
        flows.all(|flow| flow.reserved == 0 && flow.waiting.is_empty())
    }

    /// The connection has ended: nobody waits any more.
    pub(crate) fn close(&mut self) -> Vec<Waker> {
        self.flows
            .iter_mut()
            .flat_map(|flow| std::mem::take(&mut flow.waiting))
            .collect()
    }
}

impl Flow {
    fn is_open(&self) -> bool {
        self.messages > 0 && self.bytes > 0
    }

    fn unreserve(&mut self) {
        self.messages += 1;
        self.bytes += RESERVED_BYTES;
        self.reserved -= 1;
    }

    fn take_waiting(&mut self) -> Vec<Waker> {
        if self.is_open() {
            std::mem::take(&mut self.waiting)
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Charge = Charge::Flow(3);

    #[test]
    fn credit_ends_and_comes_back() {
        let mut credits = Credits::default();
        for _ in 0..INITIAL_CREDIT_MESSAGES {
            assert_eq!(credits.allows(FLOW), Ok(true));
            credits.take(FLOW, 1);
        }
        assert_eq!(credits.allows(FLOW), Ok(false));
        assert_eq!(
            credits.allows(Charge::Flow(2)),
            Ok(true),
            "each has its own"
        );
        let cx = Context::from_waker(Waker::noop());
        assert!(credits.poll_reserve(3, &cx).is_pending());
        assert_eq!(credits.grant(3, 1, 1).len(), 1);
        assert!(credits.poll_reserve(3, &cx).is_ready());
        assert_eq!(credits.allows(FLOW), Ok(false), "the reserved one is gone");
        assert_eq!(credits.allows(Charge::Reserved(3)), Ok(true));
    }

    #[test]
    fn one_message_of_any_size_may_pass() {
        let mut credits = Credits::default();
        assert_eq!(credits.allows(FLOW), Ok(true));
        credits.take(FLOW, 5 << 20);
        assert_eq!(credits.allows(FLOW), Ok(false));
        assert!(credits.grant(3, 1, 1 << 20).is_empty());
        assert_eq!(credits.allows(FLOW), Ok(false), "four MiB are still owed");
        credits.grant(3, 0, (3 << 20) + 1);
        assert_eq!(credits.allows(FLOW), Ok(true));
    }

    #[test]
    fn what_is_reserved_stays_so_while_others_send() {
        let mut credits = Credits::default();
        let cx = Context::from_waker(Waker::noop());
        assert!(credits.poll_reserve(3, &cx).is_ready());
        let mut sent = 0;
        while credits.allows(FLOW) == Ok(true) {
            credits.take(FLOW, 100);
            sent += 100;
        }
        assert!(sent < INITIAL_CREDIT_BYTES, "the reserved bytes are left");
        assert_eq!(credits.allows(Charge::Reserved(3)), Ok(true));
        credits.take(Charge::Reserved(3), 5 << 20);
        assert!(credits.poll_reserve(3, &cx).is_pending());
        assert_eq!(credits.grant(3, 0, 5 << 20).len(), 1);
    }

    #[test]
    fn a_reservation_that_is_given_back_is_whole_again() {
        let mut credits = Credits::default();
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..100_000 {
            assert!(credits.poll_reserve(3, &cx).is_ready());
            assert!(credits.release(3).is_empty());
        }
    }

    #[test]
    fn a_peer_cannot_name_flows_that_are_not_there() {
        let mut credits = Credits::default();
        assert!(credits.grant(u32::MAX, u32::MAX, u32::MAX).is_empty());
        assert_eq!(credits.allows(Charge::Flow(FLOWS_MAX)), Err(TooManyFlows));
    }
}
