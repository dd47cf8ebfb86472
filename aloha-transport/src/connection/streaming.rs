//! What a connection does with streams: opens them behind requests and replies, and hands on what happens to them.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;

use super::{Connection, Phase, State, push_failure};
use crate::body_stream::pump;
use crate::client::Body;
use crate::credit::Charge;
use crate::error::{Failure, FailureCode, LimitOf, SendError};
use crate::message::{self, Message, RequestId};
use crate::streams::{STREAMS_MAX, StreamError};
use crate::transfer::Order;
use crate::write_queue::frame_length;

impl Connection {
    /// Queues a request with a stream behind it, and perhaps one behind the reply.
    pub(crate) fn send_with_stream(
        self: &Arc<Self>,
        message: &[u8],
        source: impl AsyncRead + Send + Unpin + 'static,
        timeout: Duration,
        wants_stream: bool,
    ) -> Result<RequestId, SendError> {
        let deadline = self.deadline(timeout);
        let mut state = self.lock();
        let body = Body::Copied(message);
        let unknown = Some(RequestId::from_bits(0));
        self.check_room(&mut state, Charge::Free, unknown, &[0; 4], &body)?;
        if state.streams.is_full() {
            return Err(SendError::TooManyStreams {
                peer: Arc::clone(&self.peer),
                limit: STREAMS_MAX,
            });
        }
        let (id, earlier) = self.take_id(&mut state, deadline)?;
        let number = state.streams.begin(Some(id)).expect("there is room");
        if wants_stream {
            state.streams.want(id);
        }
        let kind = message::STREAM_REQUEST;
        let number_field = number.to_le_bytes();
        state.push(Order::Free, kind, Some(id), &number_field, &body);
        self.wake_writer(state);
        self.call_at(earlier);
        self.spawn_pump(number, source);
        Ok(id)
    }

    /// Queues a request whose reply may have a stream behind it.
    pub(crate) fn send_for_stream(
        &self,
        message: &[u8],
        timeout: Duration,
    ) -> Result<RequestId, SendError> {
        let deadline = self.deadline(timeout);
        let mut state = self.lock();
        let body = Body::Copied(message);
        let unknown = Some(RequestId::from_bits(0));
        self.check_room(&mut state, Charge::Free, unknown, &[], &body)?;
        let (id, earlier) = self.take_id(&mut state, deadline)?;
        state.streams.want(id);
        state.push(Order::Free, message::RPC_REQUEST, Some(id), &[], &body);
        self.wake_writer(state);
        self.call_at(earlier);
        Ok(id)
    }

    /// Queues a reply with a stream behind it, or a failure that says why there is none.
    pub(crate) fn respond_with_stream(
        self: &Arc<Self>,
        id: RequestId,
        head: &[u8],
        source: impl AsyncRead + Send + Unpin + 'static,
    ) {
        let mut state = self.lock();
        if !state.incoming.finish(id) {
            return;
        }
        state.touched = true;
        let body = Body::Copied(head);
        if let Some(failure) = self.reply_refused(&state, id, &[0; 4], &body) {
            push_failure(&mut state, id, &failure);
            return self.wake_writer(state);
        }
        let Some(number) = state.streams.begin(None) else {
            let text =
                format!("{STREAMS_MAX} streams to the asker are open, and that is the limit");
            let failure = Failure::new(FailureCode::STREAM_REFUSED, text);
            push_failure(&mut state, id, &failure);
            return self.wake_writer(state);
        };
        let kind = message::STREAM_RESPONSE;
        let number_field = number.to_le_bytes();
        state.push(Order::None, kind, Some(id), &number_field, &body);
        self.wake_writer(state);
        self.spawn_pump(number, source);
    }

    /// Why a reply cannot be queued.
    pub(super) fn reply_refused(
        &self,
        state: &State,
        id: RequestId,
        head: &[u8],
        body: &Body<'_>,
    ) -> Option<Failure> {
        let bytes = frame_length(Some(id), head, body);
        let limit = state.frame_bytes_max;
        if bytes > limit {
            let whose = match self.whose_limit(state) {
                LimitOf::Ours => "the answerer's",
                LimitOf::Peers => "the asker's",
            };
            let text = format!("a reply of {bytes} bytes is over {whose} limit of {limit}");
            return Some(Failure::new(FailureCode::REPLY_TOO_LARGE, text));
        }
        let waiting = state.waiting_with(body.len());
        let limit = self.config.outbound_bytes_max;
        (waiting > 0 && waiting + bytes > limit).then(|| {
            let text =
                format!("{waiting} bytes wait to be sent to the asker, the limit is {limit}");
            Failure::new(FailureCode::REPLY_REFUSED, text)
        })
    }

    /// One task a stream, which awaits its source.
    fn spawn_pump(self: &Arc<Self>, number: u32, source: impl AsyncRead + Send + Unpin + 'static) {
        let pumping = pump(Arc::clone(self), number, source);
        self.runtime.spawn(Box::pin(pumping));
    }

    // ---- for the pump --------------------------------------------------------------------------

    pub(crate) fn poll_stream_room(&self, number: u32, cx: &Context<'_>) -> Poll<Option<usize>> {
        self.lock().streams.poll_room(number, cx)
    }

    pub(crate) fn poll_stream_unwanted(&self, number: u32, cx: &Context<'_>) -> Poll<()> {
        self.lock().streams.poll_unwanted(number, cx)
    }

    pub(crate) fn push_stream(&self, number: u32, bytes: Bytes) {
        let mut state = self.lock();
        state.streams.push(number, bytes);
        self.wake_writer(state);
    }

    pub(crate) fn finish_stream(&self, number: u32, end: Result<(), String>) {
        let mut state = self.lock();
        let pump = state.streams.finish(number, end);
        self.wake_writer(state);
        drop(pump);
    }

    // ---- for the reader ------------------------------------------------------------------------

    pub(crate) fn fetch_stream(&self, id: RequestId) -> Option<u32> {
        self.lock().streams.fetch(id)
    }

    pub(crate) fn poll_stream(
        &self,
        number: u32,
        read: &mut BytesMut,
        cx: &Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let mut state = self.lock();
        let (polled, grant) = state.streams.poll_read(number, read, cx);
        if let Some(bytes) = grant {
            self.grant_stream(&mut state, number, bytes);
            self.wake_writer(state);
        }
        polled
    }

    pub(crate) fn on_stream_read(&self, number: u32, bytes: u32) {
        let mut state = self.lock();
        if state.streams.on_read(number, bytes) {
            self.grant_stream(&mut state, number, bytes);
            self.wake_writer(state);
        }
    }

    fn grant_stream(&self, state: &mut State, number: u32, bytes: u32) {
        let mut fields = [0; 8];
        fields[..4].copy_from_slice(&number.to_le_bytes());
        fields[4..].copy_from_slice(&bytes.to_le_bytes());
        let nothing = Body::Copied(&[]);
        let queue = &mut state.queue;
        queue.push(message::STREAM_CREDIT, None, &fields, &nothing);
    }

    pub(crate) fn on_reader_gone(&self, number: u32) {
        let mut state = self.lock();
        state.stop_stream(number);
        self.wake_writer(state);
    }
}

impl State {
    /// Nobody reads an incoming stream any more.
    pub(super) fn stop_stream(&mut self, number: u32) {
        if self.streams.on_reader_gone(number) && !matches!(self.phase, Phase::Closed(_)) {
            let fields = number.to_le_bytes();
            let nothing = Body::Copied(&[]);
            let queue = &mut self.queue;
            queue.push(message::STREAM_STOP, None, &fields, &nothing);
        }
    }

    /// A reply with a stream has come, after its answer was noted.
    pub(super) fn answer_with_stream(&mut self, id: RequestId, number: u32) {
        if !self.streams.answer(id, number) {
            self.stop_stream(number);
        }
    }

    /// Notes what the peer says of a stream that is open. Gives whom to wake.
    pub(super) fn on_stream(&mut self, message: Message) -> Result<Option<Waker>, StreamError> {
        match message {
            Message::StreamData { stream, bytes } => self.streams.on_data(stream, &bytes),
            Message::StreamEnd { stream, failure } => self.streams.on_end(stream, failure),
            Message::StreamCredit { stream, bytes } => self.streams.grant(stream, bytes),
            Message::StreamStop { stream } => self.streams.stop(stream),
            _ => Ok(None),
        }
    }
}
