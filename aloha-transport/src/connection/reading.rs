//! The reader: cuts every whole frame of a read, settles answers under one lock, hands requests on in order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tracing::trace;

use super::Connection;
use crate::client::Body;
use crate::error::{CloseReason, RequestError};
use crate::frame::{LENGTH_BYTES, cut_frame};
use crate::message::{self, Message, RequestId};
use crate::request_handler::{RequestHandler, RpcResponseCallback};
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
        self: &Arc<Self>,
        buffer: &mut BytesMut,
        read: &mut ReadBatch,
        handler: &mut dyn RequestHandler,
    ) -> Result<(), CloseReason> {
        let mut broken = None;
        loop {
            match cut_frame(buffer, self.config.frame_bytes_max) {
                Ok(Some(frame)) => match Message::decode(frame) {
                    Ok(message) => read.messages.push(message),
                    Err(error) => broken = Some(CloseReason::Protocol(error.to_string())),
                },
                Ok(None) => break,
                Err(error) => broken = Some(CloseReason::Protocol(error.to_string())),
            }
            if broken.is_some() {
                break;
            }
        }
        if !read.messages.is_empty() {
            if let Err(reason) = self.settle(read) {
                broken = Some(reason);
            }
            for request in read.requests.drain(..) {
                match request {
                    Request::Rpc(id, body) => {
                        handler.on_request(body, RpcResponseCallback::new(Arc::clone(self), id));
                    }
                    Request::OneWay(body) => handler.on_one_way(body),
                }
            }
            handler.on_read_complete();
        }
        broken.map_or(Ok(()), Err)
    }

    /// Under one lock: completes answers, notes cancels and requests. Then wakes and calls.
    fn settle(&self, read: &mut ReadBatch) -> Result<(), CloseReason> {
        let ReadBatch {
            messages,
            requests,
            completions,
            wakers,
        } = read;
        let mut result = Ok(());
        let mut state = self.lock();
        for message in messages.drain(..) {
            let answered = match message {
                Message::OneWay { body } => {
                    requests.push(Request::OneWay(body));
                    continue;
                }
                Message::RpcRequest { id, body } => {
                    if state.incoming.register(id) {
                        requests.push(Request::Rpc(id, body));
                        continue;
                    }
                    result = Err(CloseReason::Protocol(format!(
                        "request id {id:?} is in use or over the limit"
                    )));
                    break;
                }
                Message::RpcResponse { id, body } => state.responses.complete(id, Ok(body)),
                Message::RpcFailure { id, failure } => state
                    .responses
                    .complete(id, Err(RequestError::Failed(failure))),
                Message::Cancel { id } => {
                    self.any_cancelled.store(true, Ordering::Release);
                    wakers.append(&mut state.incoming.cancel(id));
                    continue;
                }
                Message::Ping { nonce } => {
                    state.queue.push(
                        message::PONG,
                        None,
                        &nonce.to_le_bytes(),
                        &Body::Copied(&[]),
                    );
                    continue;
                }
                Message::Pong { .. } => continue,
                Message::Credit {
                    flow,
                    messages,
                    bytes,
                } => {
                    wakers.append(&mut state.credits.grant(flow, messages, bytes));
                    continue;
                }
            };
            match answered {
                Ok(completion) => completions.extend(completion),
                Err(unknown) => {
                    trace!(peer = %self.peer, id = ?unknown.0, "an answer that nobody waits for")
                }
            }
        }
        messages.clear();
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

enum Request {
    Rpc(RequestId, Bytes),
    OneWay(Bytes),
}

/// What one read brought; kept between reads for its memory.
#[derive(Default)]
struct ReadBatch {
    messages: Vec<Message>,
    requests: Vec<Request>,
    completions: Vec<Completion>,
    wakers: Vec<Waker>,
}

/// How much to reserve for the frame at the start of the buffer: what it lacks, but no more than
/// has arrived of it, so that a claim alone reserves nothing.
fn missing(buffer: &BytesMut) -> usize {
    buffer.first_chunk::<LENGTH_BYTES>().map_or(0, |length| {
        let whole = LENGTH_BYTES + u32::from_le_bytes(*length) as usize;
        whole.saturating_sub(buffer.len()).min(buffer.len())
    })
}
