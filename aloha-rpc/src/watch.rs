//! Death watch: hearing of the end of an endpoint, here or elsewhere.
//!
//! Of a local endpoint its inbox tells. For a remote one, the watch is an ask without a time limit to the verifier of its
//! environment, which answers when the endpoint ends; so its end, the loss of the connection and the end of the interest
//! all go the way that asks go. A link is the same, with both ends watching: at the far end, the cancelled ask is the
//! death of the near one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::ask::Ask;
use crate::endpoint_ref::RpcEndpointRef;
use crate::error::{AskError, EndpointError};
use crate::inbox::Inbox;
use crate::mail::Control;
use crate::mailbox::Mailbox;
use crate::supervision::{Terminated, Termination};
use crate::verifier::Verify;

/// The end of an endpoint to come, from [`RpcEnv::watch`](crate::RpcEnv::watch). Dropping it ends the watch.
#[must_use = "dropping it ends the watch"]
pub struct Watch {
    endpoint: String,
    ending: Ending,
}

enum Ending {
    Local(oneshot::Receiver<Termination>),
    Remote(Ask<Termination>),
}

impl Watch {
    pub(crate) fn of<M: Serialize + DeserializeOwned + Send + 'static>(
        endpoint: &RpcEndpointRef<M>,
    ) -> Self {
        let uri = endpoint.uri();
        let ending = match endpoint.inbox() {
            Some(inbox) => Ending::Local(inbox.watch()),
            None => {
                let name = endpoint.name().to_owned();
                let verifier = endpoint.verifier().expect("it is remote");
                Ending::Remote(verifier.ask_for(FOR_EVER, |call| Verify::Watch { name, call }))
            }
        };
        Self {
            endpoint: uri,
            ending,
        }
    }
}

/// Beyond any clock: no limit.
const FOR_EVER: Duration = Duration::MAX;

impl Future for Watch {
    type Output = Terminated;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Terminated> {
        let reason = match &mut self.ending {
            Ending::Local(ended) => {
                let ended = std::task::ready!(Pin::new(ended).poll(cx));
                // An inbox that is gone without a word belonged to a runtime that is gone.
                ended.unwrap_or(Termination::Stopped)
            }
            Ending::Remote(ask) => {
                std::task::ready!(Pin::new(ask).poll(cx)).unwrap_or_else(|error| lost(&error))
            }
        };
        Poll::Ready(Terminated {
            endpoint: self.endpoint.clone(),
            reason,
        })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

fn lost(error: &AskError) -> Termination {
    Termination::Disconnected {
        reason: error.to_string(),
    }
}

/// Ends both with whichever ends first.
pub(crate) fn link_endpoints<M, O>(
    this: &RpcEndpointRef<M>,
    inbox: &Arc<Inbox<M>>,
    other: &RpcEndpointRef<O>,
) where
    M: Send + 'static,
    O: Serialize + DeserializeOwned + Send + 'static,
{
    let (this_uri, other_uri) = (this.uri(), other.uri());
    let mailbox: Arc<dyn Mailbox> = Arc::clone(inbox) as _;
    let this_ended = inbox.watch();
    if let Some(other_inbox) = other.inbox() {
        let other_mailbox: Arc<dyn Mailbox> = Arc::clone(other_inbox) as _;
        let other_ended = other_inbox.watch();
        this.env().spawn(async move {
            tokio::select! {
                biased;
                ended = this_ended => end_linked(&*other_mailbox, this_uri, ended.unwrap_or(Termination::Stopped)),
                ended = other_ended => end_linked(&*mailbox, other_uri, ended.unwrap_or(Termination::Stopped)),
            }
        });
        return;
    }
    let (name, from) = (other.name().to_owned(), this_uri);
    let verifier = other.verifier().expect("it is remote");
    let link = verifier.ask_for(FOR_EVER, |call| Verify::Link { name, from, call });
    this.env().spawn(async move {
        tokio::select! {
            biased;
            // Drops the ask, which the other side sees as the end.
            _ = this_ended => {}
            ended = link => end_linked(&*mailbox, other_uri, ended.unwrap_or_else(|error| lost(&error))),
        }
    });
}

/// Tells an endpoint that the one it is linked to has ended.
pub(crate) fn end_linked(mailbox: &dyn Mailbox, endpoint: String, reason: Termination) {
    let ended = Terminated { endpoint, reason };
    mailbox.control(Control::Failed(EndpointError::new(
        EndpointError::LINKED,
        ended.to_string(),
    )));
}
