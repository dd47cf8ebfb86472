//! The reader: cuts every whole frame of a read, settles answers under one lock, hands requests on in order.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tracing::trace;

use super::{Connection, State};
use crate::client::Body;
use crate::error::{CloseReason, RequestError};
use crate::frame::{LENGTH_BYTES, whole_frame};
use crate::message::{self, Head, Message, MessageError, RequestId};
use crate::reply::Reply;
use crate::request_handler::{Incoming, PendingRequest, RequestHandler, dropped};
use crate::response_handler::Completion;

/// The first read buffer; a connection that is busy gets larger ones.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

impl Connection {
    pub(super) async fn read_loop(
        self: &Arc<Self>,
        mut reader: Box<dyn AsyncRead + Send + Unpin>,
        mut buffer: BytesMut,
        handler: &mut dyn RequestHandler,
    ) -> CloseReason {
        let mut read = ReadBatch::default();
        let mut chunk = READ_BYTES_MIN;
        loop {
            if let Err(reason) = self.take_frames(&mut buffer, &mut read, handler) {
                return reason;
            }
            if buffer.capacity() - buffer.len() < chunk / 4 {
                buffer.reserve(chunk.max(missing(&buffer)));
            }
            let room = buffer.capacity() - buffer.len();
            match reader.read_buf(&mut buffer).await {
                Ok(0) if buffer.is_empty() => return CloseReason::Peer,
                Ok(0) => return CloseReason::Io(Arc::new(io::ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => {
                    if bytes == room {
                        chunk = (4 * chunk).min(READ_BYTES_MAX);
                    }
                    count(&self.received_bytes, bytes);
                }
                Err(error) => return CloseReason::Io(Arc::new(error)),
            }
        }
    }

    /// Deals with every whole frame in the buffer: answers first, under one lock, then requests in order.
    fn take_frames(
        &self,
        buffer: &mut BytesMut,
        read: &mut ReadBatch,
        handler: &mut dyn RequestHandler,
    ) -> Result<(), CloseReason> {
        let (end, cut) = read.cut(buffer, self.config.frame_bytes_max);
        let mut result = cut.map_err(CloseReason::Protocol);
        if end == 0 {
            return result;
        }
        if read.shares {
            let bytes = buffer.split_to(end).freeze();
            result = self.settle(&bytes, Some(&bytes), read).and(result);
            if !read.messages.is_empty() {
                handler.on_messages(&bytes, &mut read.messages);
            }
        } else {
            result = self.settle(&buffer[..end], None, read).and(result);
            buffer.advance(end);
        }
        for left in read.messages.drain(..) {
            if let Some(request) = left.request {
                self.respond_failure(request.id(), &dropped());
            }
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
            completions,
            wakers,
            ..
        } = read;
        let mut result = Ok(());
        let mut state = self.lock();
        state.touched |=
            !(messages.is_empty() && replies.is_empty()) || others.iter().any(Message::is_use);
        for place in 0..messages.len() {
            let Some(request) = &messages[place].request else {
                continue;
            };
            let id = request.id();
            if !state.incoming.register(id) {
                messages.truncate(place);
                result = Err(CloseReason::Protocol(format!(
                    "request id {id:?} is in use or over the limit"
                )));
                break;
            }
        }
        let mut complete =
            |state: &mut State, id, answer| match state.responses.complete(id, answer) {
                Ok(completion) => completions.extend(completion),
                Err(unknown) => {
                    trace!(peer = %self.peer, id = ?unknown.0, "an answer that nobody waits for")
                }
            };
        for (id, body) in replies.drain(..) {
            let reply = match shared {
                Some(shared) if !Reply::fits(body.len()) => shared.slice(body).into(),
                _ => Reply::inline(&bytes[body]).expect("others are shared"),
            };
            complete(&mut state, id, Ok(reply));
        }
        for other in others.drain(..) {
            match other {
                Message::RpcFailure { id, failure } => {
                    complete(&mut state, id, Err(RequestError::Failed(failure)));
                }
                Message::Cancel { id } => {
                    self.any_cancelled.store(true, Ordering::Release);
                    wakers.append(&mut state.incoming.cancel(id));
                }
                Message::Ping { nonce } => {
                    state.queue.push(
                        message::PONG,
                        None,
                        &nonce.to_le_bytes(),
                        &Body::Copied(&[]),
                    );
                }
                Message::Credit {
                    flow,
                    messages,
                    bytes,
                } => wakers.append(&mut state.credits.grant(flow, messages, bytes)),
                Message::Goodbye => wakers.append(&mut self.on_goodbye(&mut state)),
                Message::Pong { .. }
                | Message::RpcRequest { .. }
                | Message::OneWay { .. }
                | Message::RpcResponse { .. } => {}
            }
        }
        self.wake_writer(state);
        wakers.drain(..).for_each(Waker::wake);
        completions.drain(..).for_each(Completion::run);
        result
    }
}

/// Adds to a counter that one task alone writes.
pub(super) fn count(counter: &AtomicU64, bytes: usize) {
    counter.store(
        counter.load(Ordering::Relaxed) + bytes as u64,
        Ordering::Relaxed,
    );
}

/// What one read brought, by kind: messages in their order, and what needs no order among itself or with them. Kept
/// between reads for its memory.
#[derive(Default)]
struct ReadBatch {
    messages: Vec<Incoming>,
    replies: Vec<(RequestId, Range<usize>)>,
    others: Vec<Message>,
    /// Whether the bytes of any frame outlive the read.
    shares: bool,
    completions: Vec<Completion>,
    wakers: Vec<Waker>,
}

impl ReadBatch {
    /// Finds every whole frame in `bytes`: gives where they end, and what is wrong behind them.
    fn cut(&mut self, bytes: &[u8], frame_bytes_max: usize) -> (usize, Result<(), String>) {
        self.shares = false;
        let mut at = 0;
        loop {
            let length = match whole_frame(&bytes[at..], frame_bytes_max) {
                Ok(Some(length)) => length,
                Ok(None) => return (at, Ok(())),
                Err(error) => return (at, Err(error.to_string())),
            };
            let start = at + LENGTH_BYTES;
            let end = start + length;
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
                self.messages.push(Incoming { body, request });
            }
            Head::Reply { id, head } => {
                let body = start + head..end;
                self.shares |= !Reply::fits(body.len());
                self.replies.push((id, body));
            }
            Head::Other => self
                .others
                .push(Message::decode(Bytes::copy_from_slice(frame))?),
        }
        Ok(())
    }
}

/// How much to reserve for the frame at the start of the buffer: what it lacks, but no more than
/// has arrived of it, so that a claim alone reserves nothing.
fn missing(buffer: &BytesMut) -> usize {
    buffer.first_chunk::<LENGTH_BYTES>().map_or(0, |length| {
        let whole = LENGTH_BYTES + u32::from_le_bytes(*length) as usize;
        whole.saturating_sub(buffer.len()).min(buffer.len())
    })
}
