//! What happens to the peer's requests, and the callback that answers each exactly once.

use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncRead;
use tracing::error;

use crate::body_stream::BodyStream;
use crate::client::{Body, TransportClient};
use crate::connection::Connection;
use crate::error::{CloseReason, Failure, FailureCode};
use crate::message::RequestId;

/// Handles the requests of every connection of a context.
///
/// The methods run on the connection's reader: what takes time belongs on a task of its own, which
/// may keep the callback. A panic is the end of its request alone.
pub trait RpcHandler: fmt::Debug + Send + Sync + 'static {
    /// A request arrived. A callback that is dropped answers with a failure.
    fn receive(&self, client: &TransportClient, message: Bytes, callback: RpcResponseCallback);

    /// A request arrived, and a stream follows it. By default it is refused with [`FailureCode::STREAM_REFUSED`]. The
    /// stream is to be read on a task, which may answer before its end.
    fn receive_stream(
        &self,
        client: &TransportClient,
        message: Bytes,
        stream: BodyStream,
        callback: RpcResponseCallback,
    ) {
        let _ = (client, message, stream);
        refuse_stream(callback);
    }

    /// A message arrived that wants no answer.
    fn receive_one_way(&self, client: &TransportClient, message: Bytes) {
        let _ = (client, message);
    }

    /// A connection is open, in either direction.
    fn connected(&self, client: &TransportClient) {
        let _ = client;
    }

    /// A connection has ended.
    fn disconnected(&self, client: &TransportClient, reason: &CloseReason) {
        let _ = (client, reason);
    }
}

/// A request that came and is owed an answer: given by [`TransportClient::respond`] and
/// [`TransportClient::respond_failure`], or by the callback that [`TransportClient::callback`] makes of it.
///
/// It knows nothing of its connection, so that it costs nothing to keep; dropped, it answers nothing, and its asker waits
/// for as long as the connection lives.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a request that is dropped is never answered"]
pub struct PendingRequest(RequestId);

impl PendingRequest {
    pub(crate) fn new(id: RequestId) -> Self {
        Self(id)
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.0
    }
}

/// A message of the peer: where its bytes are in what the connection read, and the request, if it is one.
#[derive(Debug)]
pub struct Incoming {
    /// The place of the message.
    pub body: Range<usize>,
    /// What is to be answered; none if the message wants no answer.
    pub request: Option<PendingRequest>,
}

/// Handles the requests of one connection: the batched form of [`RpcHandler`], with state of its own.
pub trait RequestHandler: Send {
    /// Messages came, in this order; their bytes are parts of `bytes`. A request that is left in `messages` is answered
    /// with [`FailureCode::DROPPED`].
    fn on_messages(&mut self, bytes: &Bytes, messages: &mut Vec<Incoming>);
    /// A request arrived, and a stream follows it. By default it is refused with [`FailureCode::STREAM_REFUSED`].
    fn on_stream_request(
        &mut self,
        message: Bytes,
        stream: BodyStream,
        callback: RpcResponseCallback,
    ) {
        let _ = (message, stream);
        refuse_stream(callback);
    }

    /// The connection has ended; nothing follows.
    fn on_disconnected(&mut self, reason: &CloseReason) {
        let _ = reason;
    }
}

fn refuse_stream(callback: RpcResponseCallback) {
    let text = "requests with streams are not taken here";
    callback.on_failure(&Failure::new(FailureCode::STREAM_REFUSED, text));
}

/// An [`RpcHandler`] seen from one connection.
pub(crate) struct PerConnection {
    pub(crate) handler: Arc<dyn RpcHandler>,
    pub(crate) client: TransportClient,
}

impl PerConnection {
    /// A panic of the handler ends its request, and not the reader.
    fn guarded(&self, act: impl FnOnce(&dyn RpcHandler, &TransportClient)) {
        let acted = AssertUnwindSafe(|| act(&*self.handler, &self.client));
        if catch_unwind(acted).is_err() {
            error!(peer = %self.client.peer(), "the handler panicked");
        }
    }
}

impl RequestHandler for PerConnection {
    fn on_messages(&mut self, bytes: &Bytes, messages: &mut Vec<Incoming>) {
        for Incoming { body, request } in messages.drain(..) {
            let message = bytes.slice(body);
            let callback = request.map(|request| self.client.callback(request));
            self.guarded(|handler, client| match callback {
                Some(callback) => handler.receive(client, message, callback),
                None => handler.receive_one_way(client, message),
            });
        }
    }

    fn on_stream_request(
        &mut self,
        message: Bytes,
        stream: BodyStream,
        callback: RpcResponseCallback,
    ) {
        self.guarded(|handler, client| handler.receive_stream(client, message, stream, callback));
    }

    fn on_disconnected(&mut self, reason: &CloseReason) {
        self.guarded(|handler, client| handler.disconnected(client, reason));
    }
}

/// Answers one request, once. Dropped unanswered, it answers with [`FailureCode::DROPPED`], or
/// [`FailureCode::PANICKED`] while its thread unwinds.
pub struct RpcResponseCallback {
    connection: Option<Arc<Connection>>,
    id: RequestId,
}

impl RpcResponseCallback {
    pub(crate) fn new(connection: Arc<Connection>, id: RequestId) -> Self {
        Self {
            connection: Some(connection),
            id,
        }
    }

    /// Answers with a reply. A reply over the asker's frame limit becomes a failure that says so.
    pub fn on_success(self, reply: &[u8]) {
        self.on_success_parts(&[], &Body::Copied(reply));
    }

    /// Answers with a reply of two parts, of which the second need not be copied.
    pub fn on_success_parts(mut self, head: &[u8], body: &Body<'_>) {
        if let Some(connection) = self.connection.take() {
            connection.respond(self.id, head, body);
        }
    }

    /// Answers with a reply and a stream behind it. The source is read as far as the asker reads the stream, by a task
    /// of its own, and dropped at its end or when nobody wants more of it. An asker that did not ask
    /// [for a stream](TransportClient::send_rpc_for_stream) gets the reply alone.
    ///
    /// A reply over a limit, and a stream beyond the [`STREAMS_MAX`](crate::STREAMS_MAX) of a connection, become a
    /// failure that says so.
    pub fn on_success_stream(
        mut self,
        reply: &[u8],
        source: impl AsyncRead + Send + Unpin + 'static,
    ) {
        if let Some(connection) = self.connection.take() {
            connection.respond_with_stream(self.id, reply, source);
        }
    }

    /// Answers with a failure.
    pub fn on_failure(mut self, failure: &Failure) {
        if let Some(connection) = self.connection.take() {
            connection.respond_failure(self.id, failure);
        }
    }

    /// Whether the asker has given up or is gone. An answer then reaches nobody.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.connection
            .as_ref()
            .is_none_or(|connection| connection.is_cancelled(self.id))
    }

    /// Waits until the asker has given up or is gone. Cancel safe.
    pub async fn cancelled(&self) {
        poll_fn(|cx| self.poll_cancelled(cx)).await;
    }

    /// Ready once the asker has given up or is gone.
    pub fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<()> {
        self.connection
            .as_ref()
            .map_or(Poll::Ready(()), |connection| {
                connection.poll_cancelled(self.id, cx)
            })
    }

    /// The connection the request came on.
    ///
    /// # Panics
    ///
    /// Never: a callback that can be called has a connection.
    #[must_use]
    pub fn client(&self) -> TransportClient {
        TransportClient::of(Arc::clone(
            self.connection.as_ref().expect("taken only by value"),
        ))
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }
}

impl Drop for RpcResponseCallback {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        connection.respond_failure(self.id, &dropped());
    }
}

/// Why a request that nobody answered is not answered.
pub(crate) fn dropped() -> Failure {
    if std::thread::panicking() {
        Failure::new(FailureCode::PANICKED, "the handler panicked")
    } else {
        Failure::new(
            FailureCode::DROPPED,
            "the request was dropped without an answer",
        )
    }
}

impl fmt::Debug for RpcResponseCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcResponseCallback")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
