//! What happens to the peer's requests, and the callback that answers each exactly once.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::client::{Body, TransportClient};
use crate::connection::Connection;
use crate::error::{CloseReason, Failure, FailureCode};
use crate::message::RequestId;

/// Handles the requests of every connection of a context.
///
/// The methods run on the connection's reader: what takes time belongs on a task of its own, which
/// may keep the callback.
pub trait RpcHandler: fmt::Debug + Send + Sync + 'static {
    /// A request arrived. A callback that is dropped answers with a failure.
    fn receive(&self, client: &TransportClient, message: Bytes, callback: RpcResponseCallback);

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

/// Handles the requests of one connection: the batched form of [`RpcHandler`], with state of its own.
///
/// Between two calls of [`on_read_complete`](Self::on_read_complete) lies everything that one read brought.
pub trait RequestHandler: Send {
    /// A request arrived.
    fn on_request(&mut self, message: Bytes, callback: RpcResponseCallback);

    /// A message arrived that wants no answer.
    fn on_one_way(&mut self, message: Bytes);

    /// Everything that one read brought has been handed over.
    fn on_read_complete(&mut self) {}

    /// The connection has ended; nothing follows.
    fn on_disconnected(&mut self, reason: &CloseReason) {
        let _ = reason;
    }
}

/// An [`RpcHandler`] seen from one connection.
pub(crate) struct PerConnection {
    pub(crate) handler: Arc<dyn RpcHandler>,
    pub(crate) client: TransportClient,
}

impl RequestHandler for PerConnection {
    fn on_request(&mut self, message: Bytes, callback: RpcResponseCallback) {
        self.handler.receive(&self.client, message, callback);
    }

    fn on_one_way(&mut self, message: Bytes) {
        self.handler.receive_one_way(&self.client, message);
    }

    fn on_disconnected(&mut self, reason: &CloseReason) {
        self.handler.disconnected(&self.client, reason);
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
        let failure = if std::thread::panicking() {
            Failure::new(FailureCode::PANICKED, "the handler panicked")
        } else {
            Failure::new(
                FailureCode::DROPPED,
                "the request was dropped without an answer",
            )
        };
        connection.respond_failure(self.id, &failure);
    }
}

impl fmt::Debug for RpcResponseCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcResponseCallback")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
