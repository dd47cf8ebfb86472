//! One call of a peer, and the connection it came on.

use std::sync::Arc;
use std::task::{Context, Poll};

use aloha_transport::{Body, Failure, FailureCode, PendingRequest};

use crate::link::Link;

/// A call of a peer, to be answered once. Dropped unanswered, it says so to its asker.
pub(crate) struct RemoteCall {
    link: Arc<Link>,
    request: Option<PendingRequest>,
}

impl RemoteCall {
    pub(crate) fn new(link: Arc<Link>, request: PendingRequest) -> Self {
        let request = Some(request);
        Self { link, request }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn reply(mut self, head: &[u8], body: &Body<'_>) {
        if let Some(request) = self.request.take() {
            self.link.client.respond(request, head, body);
        }
    }

    pub(crate) fn fail(mut self, failure: &Failure) {
        if let Some(request) = self.request.take() {
            self.link.client.respond_failure(request, failure);
        }
    }

    /// Whether its asker has given up or is gone.
    pub(crate) fn is_cancelled(&self) -> bool {
        let request = self.request.as_ref();
        request.is_none_or(|request| self.link.client.is_cancelled(request))
    }

    /// Ready once its asker has given up or is gone.
    pub(crate) fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<()> {
        match &self.request {
            Some(request) => self.link.client.poll_cancelled(request, cx),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for RemoteCall {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.link.client.respond_failure(request, &unanswered());
        }
    }
}

/// Why a call that nobody answered is not answered.
fn unanswered() -> Failure {
    if std::thread::panicking() {
        return Failure::new(FailureCode::PANICKED, "the endpoint panicked");
    }
    let text = "the call was dropped without an answer";
    Failure::new(FailureCode::DROPPED, text)
}
