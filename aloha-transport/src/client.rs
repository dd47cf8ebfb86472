//! The end of a connection that sends: requests, one-way messages, close.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::body_stream::StreamResponseFuture;
use crate::connection::{Connection, ConnectionStatistics};
use crate::credit::Charge;
use crate::error::{CloseReason, Failure, RequestError, SendError};
use crate::handshake::Hello;
use crate::message::RequestId;
use crate::reply::Reply;
use crate::request_handler::{PendingRequest, RpcResponseCallback};

/// Sends to one peer over one connection. Cheap to clone; all clones share the connection.
///
/// What is sent before the connection is made waits for it, in order; if it cannot be made,
/// everything that waited fails.
#[derive(Clone)]
pub struct TransportClient {
    connection: Arc<Connection>,
}

/// The last part of a frame: copied into the write queue, or shared with it.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// Appended to the queue's buffer: right for small bodies.
    Copied(&'a [u8]),
    /// Written from where it is: right above some 16 KiB.
    Shared(Bytes),
}

impl Body<'_> {
    /// Bytes of the body.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl TransportClient {
    pub(crate) fn of(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// Asks; the future gives the reply. The request is queued now, not when the future is polled;
    /// dropping the future cancels it.
    ///
    /// # Errors
    ///
    /// The future fails with the reason why there is no reply, at the latest after `timeout`.
    #[must_use = "dropping the future cancels the request"]
    pub fn send_rpc(&self, message: &[u8], timeout: Duration) -> ResponseFuture {
        match self.request(Charge::Free, &[], &Body::Copied(message), Some(timeout)) {
            Ok(future) => future,
            Err(error) => ResponseFuture {
                state: ResponseState::Failed(Some(RequestError::NotSent(error))),
            },
        }
    }

    /// Asks, with a stream behind the request: its length need not be known. The source is read by a task of its own
    /// and as far as the peer reads the stream, so little memory is needed at either end; it is dropped at its
    /// end, when the peer wants no more of it, when the future is dropped or its time is up, and with the connection. If
    /// the source fails, the peer reads its error behind the bytes that came before, and may still answer.
    ///
    /// # Errors
    ///
    /// As for [`send_rpc`](Self::send_rpc), or [`STREAMS_MAX`](crate::STREAMS_MAX) streams to the peer are open already.
    /// A peer that takes no streams answers with a failure
    /// ([`STREAM_REFUSED`](crate::FailureCode::STREAM_REFUSED)).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use aloha_transport::{BodyStream, RpcHandler, RpcResponseCallback, TransportClient, TransportContext};
    /// # use bytes::Bytes;
    /// use tokio::io::AsyncReadExt;
    ///
    /// /// Counts the bytes of a stream.
    /// #[derive(Debug)]
    /// struct Count;
    ///
    /// impl RpcHandler for Count {
    ///     fn receive(&self, _: &TransportClient, _: Bytes, callback: RpcResponseCallback) {
    ///         callback.on_success(b"count what?");
    ///     }
    ///     fn receive_stream(
    ///         &self,
    ///         _: &TransportClient,
    ///         _: Bytes,
    ///         mut stream: BodyStream,
    ///         callback: RpcResponseCallback,
    ///     ) {
    ///         tokio::spawn(async move {
    ///             let mut bytes = Vec::new();
    ///             if stream.read_to_end(&mut bytes).await.is_ok() {
    ///                 callback.on_success(bytes.len().to_string().as_bytes());
    ///             }
    ///         });
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let context = TransportContext::new("count", Count);
    /// # let server = context.create_server("127.0.0.1:0").await?;
    /// # let client = context.create_client_factory().create_client(server.address()).await?;
    /// let source = tokio::io::repeat(7).take(1_000_000);
    /// let counted = client.send_rpc_with_stream(b"count", source, Duration::from_secs(5)).await?;
    /// assert_eq!(counted, "1000000");
    /// # server.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_rpc_with_stream(
        &self,
        message: &[u8],
        source: impl AsyncRead + Send + Unpin + 'static,
        timeout: Duration,
    ) -> ResponseFuture {
        let sent = self
            .connection
            .send_with_stream(message, source, timeout, false);
        self.response(sent)
    }

    /// Asks; the future gives the reply and the stream behind it, which may be longer than any frame.
    /// The time limit is that of the reply, not of the stream.
    ///
    /// # Errors
    ///
    /// As for [`send_rpc`](Self::send_rpc).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request; a stream that has come is stopped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use aloha_transport::{RpcHandler, RpcResponseCallback, TransportClient, TransportContext};
    /// # use bytes::Bytes;
    /// use tokio::io::AsyncReadExt;
    ///
    /// /// Answers with a million sevens.
    /// #[derive(Debug)]
    /// struct Sevens;
    ///
    /// impl RpcHandler for Sevens {
    ///     fn receive(&self, _: &TransportClient, _: Bytes, callback: RpcResponseCallback) {
    ///         callback.on_success_stream(b"sevens", tokio::io::repeat(7).take(1_000_000));
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let context = TransportContext::new("sevens", Sevens);
    /// # let server = context.create_server("127.0.0.1:0").await?;
    /// # let client = context.create_client_factory().create_client(server.address()).await?;
    /// let (reply, mut stream) = client.send_rpc_for_stream(b"please", Duration::from_secs(5)).await?;
    /// let mut bytes = Vec::new();
    /// stream.read_to_end(&mut bytes).await?;
    /// assert_eq!((&reply[..], bytes.len()), (&b"sevens"[..], 1_000_000));
    /// # server.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_rpc_for_stream(&self, message: &[u8], timeout: Duration) -> StreamResponseFuture {
        let sent = self.connection.send_for_stream(message, timeout);
        self.stream_response(sent)
    }

    /// Asks with a stream behind the request, and for one behind the reply, which may come while the first is still
    /// being sent: [`send_rpc_with_stream`](Self::send_rpc_with_stream) and
    /// [`send_rpc_for_stream`](Self::send_rpc_for_stream) in one.
    ///
    /// # Errors
    ///
    /// As for both.
    pub fn send_rpc_with_and_for_stream(
        &self,
        message: &[u8],
        source: impl AsyncRead + Send + Unpin + 'static,
        timeout: Duration,
    ) -> StreamResponseFuture {
        let sent = self
            .connection
            .send_with_stream(message, source, timeout, true);
        self.stream_response(sent)
    }

    fn stream_response(&self, sent: Result<RequestId, SendError>) -> StreamResponseFuture {
        let awaited = sent.as_ref().ok();
        let awaited = awaited.map(|id| (Arc::clone(&self.connection), *id));
        StreamResponseFuture::new(self.response(sent), awaited)
    }

    fn response(&self, sent: Result<RequestId, SendError>) -> ResponseFuture {
        ResponseFuture {
            state: match sent {
                Ok(id) => ResponseState::Sent(Arc::clone(&self.connection), id),
                Err(error) => ResponseState::Failed(Some(RequestError::NotSent(error))),
            },
        }
    }

    /// Sends a message that wants no answer. `Ok` says that it is queued.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the message or the queue is over a limit.
    pub fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.one_way(Charge::Free, &[], &Body::Copied(message))
    }

    /// Queues a message of two parts that wants no answer.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), or no credit is left.
    pub fn one_way(&self, charge: Charge, head: &[u8], body: &Body<'_>) -> Result<(), SendError> {
        self.connection.send_one_way(charge, head, body)
    }

    /// Queues a request of two parts; without a timeout it waits as long as the connection lives.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), no credit is left, or too many requests are unanswered.
    pub fn request(
        &self,
        charge: Charge,
        head: &[u8],
        body: &Body<'_>,
        timeout: Option<Duration>,
    ) -> Result<ResponseFuture, SendError> {
        let id = self.request_id(charge, head, body, timeout)?;
        Ok(ResponseFuture {
            state: ResponseState::Sent(Arc::clone(&self.connection), id),
        })
    }

    /// As [`request`](Self::request), for who keeps the client anyway: the id is for
    /// [`poll_answer`](Self::poll_answer) to wait with, or for [`cancel`](Self::cancel) to give up. One of them must
    /// come to an end, or the slot is lost for as long as the connection lives.
    ///
    /// # Errors
    ///
    /// As for [`request`](Self::request).
    pub fn request_id(
        &self,
        charge: Charge,
        head: &[u8],
        body: &Body<'_>,
        timeout: Option<Duration>,
    ) -> Result<RequestId, SendError> {
        self.connection.send_request(charge, head, body, timeout)
    }

    /// An id under which the peer may answer a call that travels inside a message. The callback gets
    /// the answer, or the reason why none comes, exactly once.
    ///
    /// # Errors
    ///
    /// The connection has ended, or too many requests are unanswered.
    pub fn reserve_id(
        &self,
        callback: impl FnOnce(Result<Reply, RequestError>) + Send + 'static,
    ) -> Result<RequestId, SendError> {
        self.connection.reserve_id(Box::new(callback))
    }

    /// Gives back an id of [`reserve_id`](Self::reserve_id) that was never sent; its callback is dropped.
    pub fn forget_id(&self, id: RequestId) {
        self.connection.forget_id(id);
    }

    /// Tells the peer that nobody waits for the answer to `id` any more.
    pub fn cancel(&self, id: RequestId) {
        self.connection.cancel(id);
    }

    /// Owes the peer an answer to a call whose id came inside a message; `None` when the peer may
    /// not use this id.
    #[must_use]
    pub fn accept_id(&self, id: RequestId) -> Option<PendingRequest> {
        self.connection
            .register_incoming(id)
            .then(|| PendingRequest::new(id))
    }

    /// A request of this connection with its connection, answered also when that is dropped.
    pub fn callback(&self, request: PendingRequest) -> RpcResponseCallback {
        RpcResponseCallback::new(Arc::clone(&self.connection), request.id())
    }

    /// Answers a request of this connection with a reply of two parts.
    pub fn respond(&self, request: PendingRequest, head: &[u8], body: &Body<'_>) {
        self.connection.respond(request.id(), head, body);
    }

    /// Answers a request of this connection with a failure.
    pub fn respond_failure(&self, request: PendingRequest, failure: &Failure) {
        self.connection.respond_failure(request.id(), failure);
    }

    /// Whether the asker of a request of this connection has given up or is gone.
    #[must_use]
    pub fn is_cancelled(&self, request: &PendingRequest) -> bool {
        self.connection.is_cancelled(request.id())
    }

    /// Ready once the asker of a request of this connection has given up or is gone.
    pub fn poll_cancelled(&self, request: &PendingRequest, cx: &Context<'_>) -> Poll<()> {
        self.connection.poll_cancelled(request.id(), cx)
    }

    /// Ready with the answer to `id`, a request of this side that nobody else waits for.
    ///
    /// # Panics
    ///
    /// The answer was taken before.
    pub fn poll_answer(
        &self,
        id: RequestId,
        cx: &Context<'_>,
    ) -> Poll<Result<Reply, RequestError>> {
        self.connection.poll_answer(id, cx)
    }

    /// Gives a request of this side that still waits another time limit, counted from now.
    pub fn set_timeout(&self, id: RequestId, timeout: Duration) {
        self.connection.set_timeout(id, timeout);
    }

    /// Waits for the credit of one message, and takes it: to be used with [`Charge::Reserved`] or given back with
    /// [`release`](Self::release). Cancel safe.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the flow's number is too large.
    pub async fn reserve(&self, flow: u32) -> Result<(), SendError> {
        poll_fn(|cx| self.connection.poll_reserve(flow, cx)).await
    }

    /// Gives reserved credit back unused.
    pub fn release(&self, flow: u32) {
        self.connection.release(flow);
    }

    /// Tells the peer that a receiver takes more.
    pub fn grant(&self, flow: u32, messages: u32, bytes: u32) {
        self.connection.grant(flow, messages, bytes);
    }

    /// What this connection has carried, and what it owes.
    #[must_use]
    pub fn statistics(&self) -> ConnectionStatistics {
        self.connection.statistics()
    }

    /// Whether anything is under way in either direction: requests without an answer, streams, unwritten bytes.
    #[must_use]
    pub fn is_outstanding(&self) -> bool {
        self.connection.is_outstanding()
    }

    /// Waits until at least half of the bytes that may wait for the peer are free. Cancel safe.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub async fn room(&self) -> Result<(), SendError> {
        poll_fn(|cx| self.connection.poll_room(cx)).await
    }

    /// What the layer on top keeps about this connection, made when it is first asked for. It must
    /// not hold a client of the same connection, or neither is ever freed.
    ///
    /// # Panics
    ///
    /// It was made with another type.
    pub fn attachment<A: Send + Sync + 'static>(&self, make: impl FnOnce() -> A) -> Arc<A> {
        let attached = self
            .connection
            .attachment()
            .get_or_init(|| Arc::new(make()));
        Arc::clone(attached)
            .downcast()
            .expect("one layer uses one type")
    }

    /// Ends the connection because the peer broke the rules of the layer on top.
    pub fn abort(&self, reason: impl Into<String>) {
        self.connection.close(CloseReason::Protocol(reason.into()));
    }

    /// Takes nothing new, writes what is queued, answers what the peer asked, then closes; no longer than
    /// [`TransportConfig::flush_timeout`](crate::TransportConfig::flush_timeout). What was asked here fails at once.
    pub fn close(&self) {
        self.connection.close_gracefully();
    }

    /// Waits for the handshake.
    ///
    /// # Errors
    ///
    /// The connection was not made.
    pub async fn connected(&self) -> Result<(), CloseReason> {
        poll_fn(|cx| self.connection.poll_connected(cx)).await
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> CloseReason {
        poll_fn(|cx| self.connection.poll_closed(cx)).await
    }

    /// Whether messages are still taken.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.connection.is_active()
    }

    /// Whether the connection is over. One that takes no messages any more may still bring some until then.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// The peer's address, as it was called or as it called.
    #[must_use]
    pub fn peer(&self) -> &Arc<str> {
        self.connection.peer()
    }

    /// Whether this side made the connection.
    #[must_use]
    pub fn is_outbound(&self) -> bool {
        self.connection.is_outbound()
    }

    /// What the peer said of itself, while the connection is open.
    #[must_use]
    pub fn hello(&self) -> Option<Arc<Hello>> {
        self.connection.hello()
    }

    /// Whether both are the same connection.
    #[must_use]
    pub fn same_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }
}

impl fmt::Debug for TransportClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportClient")
            .field("peer", self.peer())
            .finish_non_exhaustive()
    }
}

/// The reply to come. Dropped before it came, it cancels the request at the peer.
#[must_use = "dropping the future cancels the request"]
pub struct ResponseFuture {
    state: ResponseState,
}

enum ResponseState {
    Sent(Arc<Connection>, RequestId),
    Failed(Option<RequestError>),
    Done,
}

impl ResponseFuture {
    /// Gives the reply another time limit, counted from now.
    pub fn set_timeout(&mut self, timeout: Duration) {
        if let ResponseState::Sent(connection, id) = &self.state {
            connection.set_timeout(*id, timeout);
        }
    }

    /// The request's id on its connection, while the reply is awaited.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        match &self.state {
            ResponseState::Sent(_, id) => Some(*id),
            ResponseState::Failed(_) | ResponseState::Done => None,
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Bytes, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.state {
            ResponseState::Sent(connection, id) => {
                std::task::ready!(connection.poll_answer(*id, cx))
            }
            ResponseState::Failed(error) => {
                Err(error.take().expect("a future is not polled after its end"))
            }
            ResponseState::Done => unreachable!("a future is not polled after its end"),
        };
        self.state = ResponseState::Done;
        Poll::Ready(answer.map(Bytes::from))
    }
}

impl Drop for ResponseFuture {
    fn drop(&mut self) {
        if let ResponseState::Sent(connection, id) = &self.state {
            connection.cancel(*id);
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
