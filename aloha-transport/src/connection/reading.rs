//! The reader: cuts every whole frame of a read, settles answers under one lock, hands requests on in order.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Instant;
use tracing::trace;

use super::assembly::{Assembly, AssemblyError, is_part};
use super::{Connection, Phase, State};
use crate::body_stream::BodyStream;
use crate::client::Body;
use crate::error::{CloseReason, RequestError};
use crate::frame::{LENGTH_BYTES, whole_frame};
use crate::message::{self, Head, Message, MessageError, RequestId};
use crate::reply::Reply;
use crate::request_handler::{
    Incoming, PendingRequest, RequestHandler, RpcResponseCallback, dropped,
};
use crate::response_handler::Completion;
use crate::streams::StreamError;

/// The first read buffer; a connection that is busy gets larger ones.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
/// More than a reader that polls can do.
const TRIES_PER_MICROSECOND: u128 = 10;
/// Behind a read that brought no more, nothing is kept to read into.
const QUIET_BYTES_MAX: usize = 1 << 10;
/// Frames that are neither messages nor answers are copied up to this size; larger ones share what was read.
const COPIED_BYTES_MAX: usize = 256;

impl Connection {
    pub(super) async fn read_loop(
        self: &Arc<Self>,
        reader: &mut (dyn AsyncRead + Send + Unpin),
        buffer: &mut BytesMut,
        handler: &mut dyn RequestHandler,
    ) -> CloseReason {
        let mut read = ReadBatch::default();
        let mut chunk = READ_BYTES_MIN;
        let mut quiet = true;
        let polling = self.config.polls_for();
        // When something was received.
        let mut since = None;
        loop {
            if let Err(reason) = self.take_frames(buffer, &mut read, handler) {
                return reason;
            }
            if let Some(bytes) = read.assembly.take_read() {
                self.grant_parts(bytes);
            }
            if read.assembly.wants_bytes() {
                match reader.read_buf(&mut read.assembly.room()).await {
                    Ok(0) => return CloseReason::Io(Arc::new(io::ErrorKind::UnexpectedEof.into())),
                    Ok(bytes) => {
                        read.assembly.filled(bytes);
                        count(&self.received_bytes, bytes);
                    }
                    Err(error) => return CloseReason::Io(Arc::new(error)),
                }
                continue;
            }
            let little = buffer.is_empty() && quiet;
            if !little && buffer.capacity() - buffer.len() < chunk / 4 {
                buffer.reserve(chunk.max(missing(buffer)));
            }
            let room = match little {
                true => READ_BYTES_MIN,
                false => buffer.capacity() - buffer.len(),
            };
            let bytes = {
                let read = pin!(async {
                    match little {
                        true => read_little(reader, buffer).await,
                        false => reader.read_buf(buffer).await,
                    }
                });
                match polling {
                    // In a box, so that nobody else has room for it.
                    Some(limit) => Box::pin(self.poll_and_wait(limit, since, read)).await,
                    None => read.await,
                }
            };
            if polling.is_some() {
                since = Some(self.runtime.now());
            }
            match bytes {
                Ok(0) if buffer.is_empty() && read.assembly.is_empty() => return CloseReason::Peer,
                Ok(0) => return CloseReason::Io(Arc::new(io::ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => {
                    if bytes == room {
                        chunk = (4 * chunk).min(READ_BYTES_MAX);
                    }
                    quiet = bytes <= QUIET_BYTES_MAX;
                    count(&self.received_bytes, bytes);
                }
                Err(error) => return CloseReason::Io(Arc::new(error)),
            }
        }
    }

    /// Waits for a read, but tries again and again before, if something was received no longer than `limit` ago.
    async fn poll_and_wait<T>(
        &self,
        limit: Duration,
        since: Option<Instant>,
        mut read: Pin<&mut impl Future<Output = T>>,
    ) -> T {
        // Also where the clock stands still, as in a test, this comes to an end.
        let tries = limit.as_micros().saturating_mul(TRIES_PER_MICROSECOND);
        let until = since.and_then(|since| since.checked_add(limit));
        for _ in 0..tries {
            if until.is_none_or(|until| until <= self.runtime.now()) {
                break;
            }
            let tried = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
            if let Poll::Ready(read) = tried {
                return read;
            }
            tokio::task::yield_now().await;
        }
        read.await
    }

    /// Deals with every whole frame in the buffer, and with those that parts in it make whole.
    fn take_frames(
        self: &Arc<Self>,
        buffer: &mut BytesMut,
        read: &mut ReadBatch,
        handler: &mut dyn RequestHandler,
    ) -> Result<(), CloseReason> {
        let frame_bytes_max = self.config.frame_bytes_max;
        let protocol = |error: AssemblyError| CloseReason::Protocol(error.to_string());
        loop {
            if !read.assembly.wants_bytes() {
                let (end, cut) = read.cut(buffer, frame_bytes_max);
                if end > 0 && read.shares {
                    let bytes = buffer.split_to(end).freeze();
                    self.hand_on(&bytes, Some(&bytes), read, handler)?;
                } else if end > 0 {
                    self.hand_on(&buffer[..end], None, read, handler)?;
                    buffer.advance(end);
                }
                cut.map_err(CloseReason::Protocol)?;
            }
            let taken = read.assembly.take_parts(buffer, frame_bytes_max);
            let Some(frame) = taken.map_err(protocol)? else {
                if is_whole(buffer, frame_bytes_max) {
                    continue;
                }
                return Ok(());
            };
            let noted = read.note(&frame, 0);
            noted.map_err(|error| CloseReason::Protocol(error.to_string()))?;
            self.hand_on(&frame, Some(&frame), read, handler)?;
        }
    }

    /// Answers first, under one lock, then requests in order.
    fn hand_on(
        self: &Arc<Self>,
        bytes: &[u8],
        shared: Option<&Bytes>,
        read: &mut ReadBatch,
        handler: &mut dyn RequestHandler,
    ) -> Result<(), CloseReason> {
        let result = self.settle(bytes, shared, read);
        if let (false, Some(shared)) = (read.messages.is_empty(), shared) {
            handler.on_messages(shared, &mut read.messages);
        }
        for left in read.messages.drain(..) {
            if let Some(request) = left.request {
                self.respond_failure(request.id(), &dropped());
            }
        }
        for StreamRequest { id, number, body } in read.streams.drain(..) {
            let stream = BodyStream::new(Arc::clone(self), number);
            let callback = RpcResponseCallback::new(Arc::clone(self), id);
            handler.on_stream_request(body, stream, callback);
        }
        result
    }

    /// Under one lock: notes requests, completes answers, obeys the rest. Then wakes and calls.
    fn settle(
        &self,
        bytes: &[u8],
        shared: Option<&Bytes>,
        read: &mut ReadBatch,
    ) -> Result<(), CloseReason> {
        let ReadBatch {
            messages,
            replies,
            others,
            streams,
            completions,
            wakers,
            ..
        } = read;
        let others: Vec<Message> = others
            .drain(..)
            .map(|place| match shared {
                Some(shared) => Message::decode(shared.slice(place)),
                None => Message::decode(Bytes::copy_from_slice(&bytes[place])),
            })
            .collect::<Result<_, _>>()
            .map_err(|error| CloseReason::Protocol(error.to_string()))?;
        let mut state = self.lock();
        if let Phase::Closed(reason) = &state.phase {
            // Nobody would ever cancel a request noted now, nor end a stream.
            messages.clear();
            return Err(reason.clone());
        }
        state.touched |=
            !(messages.is_empty() && replies.is_empty()) || others.iter().any(Message::is_use);
        let mut result = register(&mut state, messages);
        let mut complete = |state: &mut State, id, answer| {
            if let Some(streams) = state.streams.changed() {
                streams.on_answered(id);
            }
            match state.responses.complete(id, answer) {
                Ok(completion) => {
                    completion
                        .into_iter()
                        .for_each(|completion| push(completions, completion));
                }
                Err(unknown) => {
                    trace!(peer = %self.peer, id = ?unknown.0, "an answer that nobody waits for")
                }
            }
        };
        for (id, body) in replies.drain(..) {
            let reply = match shared {
                Some(shared) if !Reply::fits(body.len()) => shared.slice(body).into(),
                _ => Reply::inline(&bytes[body]).expect("others are shared"),
            };
            complete(&mut state, id, Ok(reply));
        }
        for other in others {
            let obeyed = match other {
                Message::RpcFailure { id, failure } => {
                    complete(&mut state, id, Err(RequestError::Failed(failure)));
                    Ok(())
                }
                Message::StreamResponse { id, stream, body } => {
                    state.streams.opened(stream).map(|()| {
                        complete(&mut state, id, Ok(body.into()));
                        state.answer_with_stream(id, stream);
                    })
                }
                Message::StreamRequest { id, stream, body } if state.incoming.register(id) => {
                    let number = stream;
                    let request = StreamRequest { id, number, body };
                    state.streams.opened(number).map(|()| streams.push(request))
                }
                Message::StreamRequest { id, .. } => {
                    result = Err(id_in_use(id));
                    break;
                }
                other => self
                    .obey(&mut state, other)
                    .map(|mut woken| wakers.append(&mut woken)),
            };
            if let Err(error) = obeyed {
                result = Err(CloseReason::Protocol(error.to_string()));
                break;
            }
        }
        self.wake_writer(state);
        wakers.drain(..).for_each(Waker::wake);
        completions.drain(..).for_each(Completion::run);
        result
    }

    /// What is neither message nor answer. Gives whom to wake.
    fn obey(&self, state: &mut State, other: Message) -> Result<Vec<Waker>, StreamError> {
        Ok(match other {
            Message::Cancel { id } => {
                self.any_cancelled.store(true, Ordering::Release);
                state.incoming.cancel(id)
            }
            Message::Ping { nonce } => {
                let nonce = nonce.to_le_bytes();
                let nothing = Body::Copied(&[]);
                state.queue.push(message::PONG, None, &nonce, &nothing);
                Vec::new()
            }
            Message::Credit {
                flow,
                messages,
                bytes,
            } => state.credits.grant(flow, messages, bytes),
            Message::PartCredit { bytes } => {
                state.transfers.grant(bytes);
                Vec::new()
            }
            Message::Goodbye => self.on_goodbye(state),
            stream @ (Message::StreamData { .. }
            | Message::StreamEnd { .. }
            | Message::StreamCredit { .. }
            | Message::StreamStop { .. }) => state.on_stream(stream)?.into_iter().collect(),
            Message::Pong { .. }
            | Message::RpcRequest { .. }
            | Message::OneWay { .. }
            | Message::RpcResponse { .. }
            | Message::RpcFailure { .. }
            | Message::StreamRequest { .. }
            | Message::StreamResponse { .. } => Vec::new(),
        })
    }
}

/// Notes the requests among the messages, up to one that may not be.
fn register(state: &mut State, messages: &mut Vec<Incoming>) -> Result<(), CloseReason> {
    for place in 0..messages.len() {
        if let Some(request) = &messages[place].request
            && !state.incoming.register(request.id())
        {
            let id = request.id();
            messages.truncate(place);
            return Err(id_in_use(id));
        }
    }
    Ok(())
}

fn id_in_use(id: RequestId) -> CloseReason {
    CloseReason::Protocol(format!("request id {id:?} is in use or over the limit"))
}

/// Adds to a counter that one task alone writes.
pub(super) fn count(counter: &AtomicU64, bytes: usize) {
    counter.store(
        counter.load(Ordering::Relaxed) + bytes as u64,
        Ordering::Relaxed,
    );
}

/// Whether a whole frame that is no part is next.
fn is_whole(buffer: &[u8], frame_bytes_max: usize) -> bool {
    !is_part(buffer) && !matches!(whole_frame(buffer, frame_bytes_max), Ok(None))
}

/// What one read brought, by kind: messages in their order, and what needs no order among itself or with them. Kept
/// between reads for its memory.
#[derive(Default)]
struct ReadBatch {
    messages: Vec<Incoming>,
    replies: Vec<(RequestId, Range<usize>)>,
    others: Vec<Range<usize>>,
    /// Requests behind which a stream follows.
    streams: Vec<StreamRequest>,
    /// Frames that come in parts.
    assembly: Assembly,
    /// Whether the bytes of any frame outlive the read.
    shares: bool,
    completions: Vec<Completion>,
    wakers: Vec<Waker>,
}

struct StreamRequest {
    id: RequestId,
    number: u32,
    body: Bytes,
}

impl ReadBatch {
    /// Finds every whole frame in `bytes` that is no part of a larger one, up to the first that is: gives where they
    /// end, and what is wrong behind them. A message behind a request with a stream is for the next time, so that it
    /// does not overtake.
    fn cut(&mut self, bytes: &[u8], frame_bytes_max: usize) -> (usize, Result<(), String>) {
        self.shares = false;
        let mut behind_stream = false;
        let mut at = 0;
        loop {
            if is_part(&bytes[at..]) {
                return (at, Ok(()));
            }
            let length = match whole_frame(&bytes[at..], frame_bytes_max) {
                Ok(Some(length)) => length,
                Ok(None) => return (at, Ok(())),
                Err(error) => return (at, Err(error.to_string())),
            };
            let start = at + LENGTH_BYTES;
            let end = start + length;
            behind_stream |= bytes[start] == message::STREAM_REQUEST;
            if behind_stream && matches!(bytes[start], message::ONE_WAY | message::RPC_REQUEST) {
                return (at, Ok(()));
            }
            if let Err(error) = self.note(&bytes[start..end], start) {
                return (at, Err(error.to_string()));
            }
            at = end;
        }
    }

    /// Notes the frame that begins at `start`.
    fn note(&mut self, frame: &[u8], start: usize) -> Result<(), MessageError> {
        let end = start + frame.len();
        match message::head(frame)? {
            Head::Message { id, head } => {
                self.shares = true;
                let body = start + head..end;
                let request = id.map(PendingRequest::new);
                push(&mut self.messages, Incoming { body, request });
            }
            Head::Reply { id, head } => {
                let body = start + head..end;
                self.shares |= !Reply::fits(body.len());
                push(&mut self.replies, (id, body));
            }
            Head::Other => {
                self.shares |= frame.len() > COPIED_BYTES_MAX;
                self.others.push(start..end);
            }
        }
        Ok(())
    }
}

/// Reads a little into an empty buffer, which has no memory as long as nothing comes.
async fn read_little(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut room = [const { MaybeUninit::uninit() }; READ_BYTES_MIN];
        let mut room = ReadBuf::uninit(&mut room);
        match Pin::new(&mut *reader).poll_read(cx, &mut room) {
            Poll::Ready(Ok(())) => {
                buffer.extend_from_slice(room.filled());
                Poll::Ready(Ok(room.filled().len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if buffer.capacity() > 0 {
                    *buffer = BytesMut::new();
                }
                Poll::Pending
            }
        }
    })
    .await
}

/// Appends; the first goes to memory for one, for many connections never have two at once.
fn push<T>(to: &mut Vec<T>, item: T) {
    if to.capacity() == 0 {
        to.reserve_exact(1);
    }
    to.push(item);
}

/// How much to reserve for the frame at the start of the buffer: what it lacks, but no more than
/// has arrived of it, so that a claim alone reserves nothing.
fn missing(buffer: &BytesMut) -> usize {
    buffer.first_chunk::<LENGTH_BYTES>().map_or(0, |length| {
        let whole = LENGTH_BYTES + u32::from_le_bytes(*length) as usize;
        whole.saturating_sub(buffer.len()).min(buffer.len())
    })
}
