//! What the lock of a connection guards.

use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::time::Instant;

use super::closing::Parting;
use super::idle::Idle;
use super::life::Pulse;
use crate::client::Body;
use crate::credit::Credits;
use crate::error::{CloseReason, Failure};
use crate::handshake::Hello;
use crate::incoming::IncomingRequests;
use crate::message::{self, RequestId, encode_failure};
use crate::rare::Rare;
use crate::response_handler::TransportResponseHandler;
use crate::streams::Streams;
use crate::transfer::{CHUNK_BYTES, Order, Transfers};
use crate::write_queue::WriteQueue;

/// What one connection has to do and is owed.
pub(super) struct State {
    pub(super) phase: Phase,
    /// Nothing new is taken; what is queued and owed still goes.
    pub(super) parting: Option<Parting>,
    pub(super) queue: WriteQueue,
    /// Large frames, and what must not overtake them.
    pub(super) transfers: Rare<Transfers>,
    pub(super) streams: Rare<Streams>,
    pub(super) credits: Credits,
    pub(super) responses: TransportResponseHandler,
    pub(super) incoming: IncomingRequests,
    pub(super) frame_bytes_max: usize,
    pub(super) requests_in_flight_max: u32,
    /// The writer, while it waits for something to write, or for its end.
    pub(super) writer: Option<Waker>,
    /// Who makes the connection, and then the reader, while it waits.
    pub(super) reader: Option<Waker>,
    pub(super) pulse: Pulse,
    pub(super) idle: Idle,
    /// A message has passed since the last look.
    pub(super) touched: bool,
    /// The writer writes what it took out of the queue.
    pub(super) writing: bool,
    /// When the keeper was asked to call.
    pub(super) named: Option<Instant>,
    pub(super) watchers: Vec<Waker>,
}

pub(super) enum Phase {
    Connecting,
    Open(Arc<Hello>),
    Closed(CloseReason),
}

/// How many bytes of large frames one write takes along: two parts, for with one alone a single large message is
/// slower by a third.
const PARTS_BYTES: usize = 2 * CHUNK_BYTES;

impl State {
    /// Queues a frame; one that is large, or must not overtake one that is, among the transfers.
    pub(super) fn push(
        &mut self,
        order: Order,
        kind: u8,
        id: Option<RequestId>,
        head: &[u8],
        body: &Body<'_>,
    ) {
        if body.len() < self.transfers.takes_from() {
            self.queue.push(kind, id, head, body);
        } else {
            self.transfers
                .push(&mut self.queue, order, kind, id, head, body);
        }
    }

    /// Queues a cancel, not before its request. `inside` says that the id went inside some message.
    pub(super) fn push_cancel(&mut self, id: RequestId, inside: bool) {
        self.transfers.push_cancel(&mut self.queue, id, inside);
        // Woken when the cancel is written.
        let streams = self.streams.changed();
        self.watchers
            .extend(streams.and_then(|streams| streams.give_up(id)));
    }

    pub(super) fn has_something_to_write(&self) -> bool {
        !self.queue.is_empty()
            || self.transfers.is_ready()
            || self.streams.is_ready()
            || self.owes_goodbye()
    }

    /// Adds parts of what is large, and the goodbye that waited for it.
    pub(super) fn take_large(&mut self, batch: &mut WriteQueue) {
        if self.transfers.is_ready() {
            self.transfers.take(batch, PARTS_BYTES);
        }
        if self.streams.is_ready() {
            let mut pumps = self.streams.take(batch, CHUNK_BYTES);
            self.watchers.append(&mut pumps);
        }
        if self.owes_goodbye() {
            self.send_goodbye(batch);
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.queue.is_empty() && self.transfers.is_empty() && !self.streams.is_ready()
    }

    /// Bytes of small frames that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.queue.len() + self.transfers.held_bytes()
    }

    /// Bytes that wait where a frame with such a body would: small frames and large ones are counted apart.
    pub(super) fn waiting_with(&self, body_bytes: usize) -> usize {
        if body_bytes > CHUNK_BYTES {
            self.transfers.bytes()
        } else {
            self.waiting_bytes()
        }
    }

    /// Keeps the waker of one who watches the connection, once.
    pub(super) fn watch(&mut self, cx: &Context<'_>) {
        if !self
            .watchers
            .iter()
            .any(|known| known.will_wake(cx.waker()))
        {
            self.watchers.push(cx.waker().clone());
        }
    }
}

/// Keeps the waker of the task.
pub(super) fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    if !kept.as_ref().is_some_and(|kept| kept.will_wake(cx.waker())) {
        *kept = Some(cx.waker().clone());
    }
}

pub(super) fn push_failure(state: &mut State, id: RequestId, failure: &Failure) {
    state.queue.push(
        message::RPC_FAILURE,
        Some(id),
        &encode_failure(failure),
        &Body::Copied(&[]),
    );
}
