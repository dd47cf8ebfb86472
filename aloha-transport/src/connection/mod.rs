//! One connection: its write queue, the requests of both ends, its life.
//!
//! The object exists before the socket does: frames queue up while the connection is being made, in
//! the order they will be written. One lock guards it all. It is held to append bytes, swap
//! buffers or move answers, never while anything is encoded, woken or called.

pub(crate) mod assembly;
mod closing;
mod counted;
mod idle;
mod life;
mod reading;
mod state;
mod streaming;
mod writing;

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use counted::Counted;
use idle::Idle;
use life::Pulse;
use state::{Phase, State, keep_waker, push_failure};
use tokio::time::Instant;
use tracing::debug;

use crate::client::Body;
use crate::config::TransportConfig;
use crate::credit::{Charge, Credits, FLOWS_MAX, TooManyFlows};
use crate::error::{CloseReason, Failure, LimitOf, RequestError, SendError};
use crate::handshake::{Hello, REQUESTS_IN_FLIGHT_MIN};
use crate::incoming::IncomingRequests;
use crate::keeper::Keeper;
use crate::message::{self, RequestId};
use crate::rare::Rare;
use crate::request_handler::RequestHandler;
use crate::response_handler::{
    Abandoned, Answer, Callback, Completion, Deadline, TransportResponseHandler,
};
use crate::runtime::Runtime;
use crate::stream::Stream;
use crate::transfer::{CHUNK_BYTES, Order};
use crate::write_queue::{WriteQueue, frame_length, wire_length};

pub(crate) struct Connection {
    peer: Arc<str>,
    /// Made by this side.
    outbound: bool,
    config: Arc<TransportConfig>,
    runtime: Arc<dyn Runtime>,
    keeper: Arc<Keeper>,
    /// What the keeper knows this connection by.
    number: u64,
    state: Mutex<State>,
    /// Set when nothing new is taken any more.
    ending: AtomicBool,
    /// Set when the connection is closed.
    ended: AtomicBool,
    /// Whether any request was ever cancelled.
    any_cancelled: AtomicBool,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Messages that want no answer and were not written.
    lost: AtomicU64,
    lost_hook: Option<LostHook>,
    /// What the layer on top keeps about this connection.
    attachment: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// Hears of messages that were queued, want no answer, and were not written: to whom, and how many.
pub(crate) type LostHook = Arc<dyn Fn(&Arc<str>, u64) + Send + Sync>;

/// What a connection has carried, and what it owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConnectionStatistics {
    /// Bytes read from the peer.
    pub received_bytes: u64,
    /// Bytes written to the peer.
    pub sent_bytes: u64,
    /// Bytes that wait to be written, without those of large messages.
    pub queued_bytes: usize,
    /// Bytes of large messages that wait to be written, in parts between which others pass.
    pub transfer_bytes: usize,
    /// Bytes of streams that were taken from their sources and wait to be written.
    pub stream_bytes: usize,
    /// Streams under way, in both directions.
    pub streams_open: u32,
    /// Requests of this side without an answer.
    pub requests_outstanding: u32,
    /// Requests of the peer without an answer.
    pub answers_owed: u32,
    /// Messages that want no answer and were not written before the connection ended.
    pub messages_lost: u64,
}

impl Connection {
    pub(crate) fn new(
        peer: &str,
        outbound: bool,
        config: Arc<TransportConfig>,
        runtime: Arc<dyn Runtime>,
        keeper: Arc<Keeper>,
        lost_hook: Option<LostHook>,
    ) -> Arc<Self> {
        let peer: Arc<str> = peer.into();
        let state = State {
            phase: Phase::Connecting,
            parting: None,
            queue: WriteQueue::default(),
            transfers: Rare::default(),
            streams: Rare::default(),
            credits: Credits::default(),
            responses: TransportResponseHandler::new(Arc::clone(&peer)),
            incoming: IncomingRequests::new(
                config.requests_in_flight_max.max(REQUESTS_IN_FLIGHT_MIN),
            ),
            // A length field holds no more.
            frame_bytes_max: config.frame_bytes_max.min(u32::MAX as usize),
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MIN,
            writer: None,
            reader: None,
            pulse: Pulse::default(),
            idle: Idle::default(),
            touched: false,
            writing: false,
            named: None,
            watchers: Vec::new(),
        };
        Arc::new(Self {
            peer,
            outbound,
            config,
            runtime,
            number: keeper.next_number(),
            keeper,
            state: Mutex::new(state),
            attachment: OnceLock::new(),
            ending: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            any_cancelled: AtomicBool::new(false),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            lost_hook,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attachment(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.attachment
    }

    pub(crate) fn statistics(&self) -> ConnectionStatistics {
        let state = self.lock();
        ConnectionStatistics {
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            queued_bytes: state.waiting_bytes(),
            transfer_bytes: state.transfers.bytes(),
            stream_bytes: state.streams.pending_bytes(),
            streams_open: state.streams.open(),
            requests_outstanding: state.responses.in_flight(),
            answers_owed: state.incoming.active(),
            messages_lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// Whether anything is under way in either direction.
    pub(crate) fn is_outstanding(&self) -> bool {
        let state = self.lock();
        let asked = state.responses.in_flight() > 0 || state.incoming.active() > 0;
        asked || !state.streams.is_empty() || !state.is_flushed()
    }

    pub(crate) fn peer(&self) -> &Arc<str> {
        &self.peer
    }

    pub(crate) fn is_outbound(&self) -> bool {
        self.outbound
    }

    /// What the peer said of itself, once the handshake is done.
    pub(crate) fn hello(&self) -> Option<Arc<Hello>> {
        match &self.lock().phase {
            Phase::Open(hello) => Some(Arc::clone(hello)),
            Phase::Connecting | Phase::Closed(_) => None,
        }
    }

    /// Asked for every message, so without the lock: a stale yes is found out when the message is queued.
    pub(crate) fn is_active(&self) -> bool {
        !self.ending.load(Ordering::Acquire)
    }

    /// Whether it is closed. One that is not may still bring messages, though nothing new is taken.
    pub(crate) fn is_closed(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ready once the handshake is done or has failed.
    pub(crate) fn poll_connected(&self, cx: &Context<'_>) -> Poll<Result<(), CloseReason>> {
        let mut state = self.lock();
        if let (Phase::Connecting | Phase::Open(_), Some(parting)) = (&state.phase, &state.parting)
        {
            return Poll::Ready(Err(parting.reason()));
        }
        match &state.phase {
            Phase::Connecting => {
                state.watch(cx);
                Poll::Pending
            }
            Phase::Open(_) => Poll::Ready(Ok(())),
            Phase::Closed(reason) => Poll::Ready(Err(reason.clone())),
        }
    }

    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<CloseReason> {
        let mut state = self.lock();
        if let Phase::Closed(reason) = &state.phase {
            return Poll::Ready(reason.clone());
        }
        state.watch(cx);
        Poll::Pending
    }

    // ---- sending -------------------------------------------------------------------------------

    pub(crate) fn send_one_way(
        &self,
        charge: Charge,
        head: &[u8],
        body: &Body<'_>,
    ) -> Result<(), SendError> {
        let mut state = self.lock();
        self.check_room(&mut state, charge, None, head, body)?;
        state.credits.take(charge, body.len());
        state.push(charge.into(), message::ONE_WAY, None, head, body);
        self.wake_writer(state);
        Ok(())
    }

    pub(crate) fn send_request(
        &self,
        charge: Charge,
        head: &[u8],
        body: &Body<'_>,
        timeout: Option<Duration>,
    ) -> Result<RequestId, SendError> {
        let deadline = timeout.and_then(|timeout| self.deadline(timeout));
        let mut state = self.lock();
        self.check_room(
            &mut state,
            charge,
            Some(RequestId::from_bits(0)),
            head,
            body,
        )?;
        let (id, earlier) = self.take_id(&mut state, deadline)?;
        state.credits.take(charge, body.len());
        state.push(charge.into(), message::RPC_REQUEST, Some(id), head, body);
        self.wake_writer(state);
        self.call_at(earlier);
        Ok(id)
    }

    /// A slot for a request, and the moment that the keeper is to be told of, if so.
    fn take_id(
        &self,
        state: &mut State,
        deadline: Option<Deadline>,
    ) -> Result<(RequestId, Option<Instant>), SendError> {
        let limit = state.requests_in_flight_max;
        let id = state
            .responses
            .insert(deadline, limit)
            .ok_or_else(|| self.too_many(limit))?;
        let earlier = deadline.and_then(|deadline| state.name(deadline.at));
        Ok((id, earlier))
    }

    /// An id for a call that travels inside a message.
    pub(crate) fn reserve_id(&self, callback: Callback) -> Result<RequestId, SendError> {
        let mut state = self.lock();
        self.check_open(&state)?;
        let limit = state.requests_in_flight_max;
        state
            .responses
            .insert_callback(callback, limit)
            .ok_or_else(|| self.too_many(limit))
    }

    pub(crate) fn forget_id(&self, id: RequestId) {
        let callback = self.lock().responses.forget(id);
        drop(callback);
    }

    /// The asker of `id` is gone: tells the peer, unless the answer is there.
    pub(crate) fn cancel(&self, id: RequestId) {
        let mut state = self.lock();
        let Abandoned::Due(callback) = state.responses.abandon(id) else {
            return;
        };
        if matches!(state.phase, Phase::Connecting | Phase::Open(_)) {
            state.push_cancel(id, callback.is_some());
        }
        self.wake_writer(state);
        drop(callback);
    }

    /// Gives a waiting request what is left of another time limit, counted from now.
    pub(crate) fn set_timeout(&self, id: RequestId, timeout: Duration) {
        let deadline = self.deadline(timeout);
        let mut state = self.lock();
        state.responses.set_deadline(id, deadline);
        let earlier = deadline.and_then(|deadline| state.name(deadline.at));
        drop(state);
        self.call_at(earlier);
    }

    fn deadline(&self, timeout: Duration) -> Option<Deadline> {
        // A limit beyond the end of time is none.
        let at = self.runtime.now().checked_add(timeout)?;
        Some(Deadline { at, timeout })
    }

    /// Ready once half of the queue's bytes are free, or none ever will be.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), SendError>> {
        let mut state = self.lock();
        self.check_open(&state)?;
        if state.waiting_bytes() <= self.config.outbound_bytes_max / 2 {
            return Poll::Ready(Ok(()));
        }
        state.watch(cx);
        Poll::Pending
    }

    /// Takes the credit of one message once there is some.
    pub(crate) fn poll_reserve(&self, flow: u32, cx: &Context<'_>) -> Poll<Result<(), SendError>> {
        let mut state = self.lock();
        self.check_open(&state)?;
        let reserved = state.credits.poll_reserve(flow, cx);
        reserved.map_err(|error| self.too_many_flows(error))
    }

    /// Reserved credit that was not used.
    pub(crate) fn release(&self, flow: u32) {
        let waiting = self.lock().credits.release(flow);
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn poll_answer(&self, id: RequestId, cx: &Context<'_>) -> Poll<Answer> {
        self.lock().responses.poll(id, cx)
    }

    fn check_open(&self, state: &State) -> Result<(), SendError> {
        let reason = match (&state.phase, &state.parting) {
            (Phase::Closed(reason), _) => reason.clone(),
            (Phase::Connecting | Phase::Open(_), None) => return Ok(()),
            (Phase::Connecting | Phase::Open(_), Some(parting)) => parting.reason(),
        };
        Err(SendError::Closed {
            peer: Arc::clone(&self.peer),
            reason,
        })
    }

    fn check_room(
        &self,
        state: &mut State,
        charge: Charge,
        id: Option<RequestId>,
        head: &[u8],
        body: &Body<'_>,
    ) -> Result<(), SendError> {
        self.check_open(state)?;
        match state.credits.allows(charge) {
            Ok(true) => {}
            Ok(false) => {
                let peer = Arc::clone(&self.peer);
                return Err(SendError::NoCredit { peer });
            }
            Err(error) => return Err(self.too_many_flows(error)),
        }
        let bytes = frame_length(id, head, body);
        if bytes > state.frame_bytes_max {
            return Err(SendError::TooLarge {
                peer: Arc::clone(&self.peer),
                bytes,
                limit: state.frame_bytes_max,
                whose: self.whose_limit(state),
            });
        }
        let (waiting, limit) = (
            state.waiting_with(body.len()),
            self.config.outbound_bytes_max,
        );
        // A single message over the limit may still pass an empty queue.
        if waiting > 0 && waiting + wire_length(id, head, body) > limit {
            return Err(SendError::Full {
                peer: Arc::clone(&self.peer),
                waiting,
                limit,
            });
        }
        state.touched = true;
        Ok(())
    }

    fn whose_limit(&self, state: &State) -> LimitOf {
        if state.frame_bytes_max < self.config.frame_bytes_max {
            LimitOf::Peers
        } else {
            LimitOf::Ours
        }
    }

    fn too_many_flows(&self, TooManyFlows: TooManyFlows) -> SendError {
        SendError::TooManyFlows {
            peer: Arc::clone(&self.peer),
            limit: FLOWS_MAX,
        }
    }

    fn too_many(&self, limit: u32) -> SendError {
        SendError::TooManyRequests {
            peer: Arc::clone(&self.peer),
            limit,
        }
    }

    /// Wakes the writer after something was queued. Answers, cancels and pongs are queued whatever waits already;
    /// a peer that makes them pile up far beyond the limit does not read, and is given up.
    fn wake_writer(&self, mut state: MutexGuard<'_, State>) {
        let is_due = state.has_something_to_write() || state.parting.is_some();
        let writer = if is_due && !state.writing {
            state.writer.take()
        } else {
            None
        };
        let frame_bytes_max = state.frame_bytes_max.min(CHUNK_BYTES);
        let piled_up =
            state.waiting_bytes() > 2 * self.config.outbound_bytes_max.max(frame_bytes_max);
        drop(state);
        if piled_up {
            self.close(CloseReason::Protocol(
                "it does not read what it is sent".to_owned(),
            ));
        } else if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Lets the peer send more to a receiver of this side.
    pub(crate) fn grant(&self, flow: u32, messages: u32, bytes: u32) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Open(_)) {
            return;
        }
        let mut fields = [0; 12];
        fields[..4].copy_from_slice(&flow.to_le_bytes());
        fields[4..8].copy_from_slice(&messages.to_le_bytes());
        fields[8..].copy_from_slice(&bytes.to_le_bytes());
        state
            .queue
            .push(message::CREDIT, None, &fields, &Body::Copied(&[]));
        self.wake_writer(state);
    }

    /// Lets the peer send more parts of large frames.
    fn grant_parts(&self, bytes: u32) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Open(_)) {
            return;
        }
        let fields = bytes.to_le_bytes();
        state
            .queue
            .push(message::PART_CREDIT, None, &fields, &Body::Copied(&[]));
        self.wake_writer(state);
    }

    // ---- answering -----------------------------------------------------------------------------

    pub(crate) fn respond(&self, id: RequestId, head: &[u8], body: &Body<'_>) {
        let mut state = self.lock();
        if !state.incoming.finish(id) {
            return;
        }
        state.touched = true;
        match self.reply_refused(&state, id, head, body) {
            Some(failure) => push_failure(&mut state, id, &failure),
            None => state.push(Order::None, message::RPC_RESPONSE, Some(id), head, body),
        }
        self.wake_writer(state);
    }

    pub(crate) fn respond_failure(&self, id: RequestId, failure: &Failure) {
        let mut state = self.lock();
        if state.incoming.finish(id) {
            state.touched = true;
            push_failure(&mut state, id, failure);
            self.wake_writer(state);
        }
    }

    /// Notes a request whose id came inside a message.
    pub(crate) fn register_incoming(&self, id: RequestId) -> bool {
        let mut state = self.lock();
        // After the end nobody would ever cancel it, nor take its answer.
        !matches!(state.phase, Phase::Closed(_)) && state.incoming.register(id)
    }

    pub(crate) fn is_cancelled(&self, id: RequestId) -> bool {
        // Until the first cancel nothing is, and nobody needs the lock to know it.
        self.any_cancelled.load(Ordering::Acquire) && self.lock().incoming.is_cancelled(id)
    }

    pub(crate) fn poll_cancelled(&self, id: RequestId, cx: &Context<'_>) -> Poll<()> {
        self.lock().incoming.poll_cancelled(id, cx)
    }

    // ---- life ----------------------------------------------------------------------------------

    /// The handshake is done: the peer's limits hold from now on.
    fn open(self: &Arc<Self>, hello: Hello) -> Result<(), CloseReason> {
        let mut state = self.lock();
        match &state.phase {
            Phase::Connecting => {}
            Phase::Closed(reason) => return Err(reason.clone()),
            Phase::Open(_) => return Err(CloseReason::Local),
        }
        state.frame_bytes_max = state.frame_bytes_max.min(hello.frame_bytes_max as usize);
        state.requests_in_flight_max = self
            .config
            .requests_in_flight_max
            .max(REQUESTS_IN_FLIGHT_MIN)
            .min(hello.requests_in_flight_max);
        state.phase = Phase::Open(Arc::new(hello));
        let watchers = std::mem::take(&mut state.watchers);
        let now = self.runtime.now();
        state.pulse.start(&self.config, now);
        if self.outbound {
            state.idle.start(&self.config, now);
        }
        let next = state.next_moment();
        let earlier = next.and_then(|next| state.name(next));
        drop(state);
        self.keep();
        self.call_at(earlier);
        watchers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn on_lost(&self, messages: u64) {
        if messages > 0 {
            self.lost.fetch_add(messages, Ordering::Relaxed);
            if let Some(hook) = self.lost_hook.clone() {
                // On a task of its own: whoever closes the connection may hold locks of the layer on top.
                let peer = Arc::clone(&self.peer);
                self.runtime
                    .spawn(Box::pin(async move { hook(&peer, messages) }));
            }
        }
    }

    /// Ends the connection; everything outstanding fails. Later calls change nothing.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Closed(_)) {
            return;
        }
        debug!(peer = %self.peer, %reason, "connection closed");
        let error = match &reason {
            CloseReason::NotConnected(error) => RequestError::NotConnected(error.clone()),
            _ => RequestError::ConnectionClosed {
                peer: Arc::clone(&self.peer),
                reason: reason.clone(),
            },
        };
        let streams = state.streams.changed();
        let streams = streams.map(|streams| streams.close(&reason));
        state.phase = Phase::Closed(reason);
        self.ending.store(true, Ordering::Release);
        self.ended.store(true, Ordering::Release);
        let queue = std::mem::take(&mut state.queue);
        let transfers = std::mem::take(&mut state.transfers);
        let completions = state.responses.fail_all(&error);
        self.any_cancelled.store(true, Ordering::Release);
        let mut wakers = state.incoming.close();
        wakers.extend(streams.into_iter().flatten());
        wakers.append(&mut state.watchers);
        wakers.append(&mut state.credits.close());
        wakers.extend(state.writer.take());
        wakers.extend(state.reader.take());
        drop(state);
        self.keeper.forget(self.number);
        self.on_lost(queue.one_way() + transfers.one_way());
        drop((queue, transfers));
        wakers.into_iter().for_each(Waker::wake);
        completions.into_iter().for_each(Completion::run);
    }

    /// Opens the connection and reads in the background; gives the writer, which runs to the connection's end.
    /// `received` holds what came behind the handshake.
    pub(crate) fn start(
        self: &Arc<Self>,
        hello: Hello,
        stream: Stream,
        mut received: BytesMut,
        handler: impl FnOnce() -> Box<dyn RequestHandler>,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        if let Err(reason) = self.open(hello) {
            self.close(reason);
            return None;
        }
        let Stream {
            mut reader, writer, ..
        } = stream;
        let reading = Arc::clone(self);
        let mut handler = handler();
        // What is not moved into a future of its own is kept once.
        self.runtime.spawn(Box::pin(async move {
            let _guard = ReaderGuard(Arc::clone(&reading));
            let read = {
                let read = reading.read_loop(&mut *reader, &mut received, &mut *handler);
                reading.unless_closed(pin!(read)).await
            };
            drop((reader, received));
            reading.close_in_order(read.unwrap_or(CloseReason::Local));
            let reason = poll_fn(|cx| reading.poll_closed(cx)).await;
            handler.on_disconnected(&reason);
        }));
        let writing = Arc::clone(self);
        Some(async move {
            let mut writer = Counted {
                writer,
                written: &writing.sent_bytes,
            };
            let reason = writing.write_loop(&mut writer).await;
            drop(writer);
            writing.close_in_order(reason);
        })
    }
}

/// Ends the connection whose reader panics: in a handler, or in a callback of the layer on top. Nobody would read it again.
struct ReaderGuard(Arc<Connection>);

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = io::Error::other("what handles the messages of the connection panicked");
            self.0.close(CloseReason::Io(Arc::new(error)));
        }
    }
}
