//! A place for one message, waited for before there is a message.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::ask::Ask;
use crate::call_context::RpcCallContext;
use crate::endpoint_ref::{RpcEndpointRef, TypedTarget};
use crate::env::EnvInner;
use crate::error::SendError;
use crate::inbox::{Inbox, Refused};
use crate::mail::{LocalMail, Sent};
use crate::target::{Posting, Reserved};

/// A place for one message, from [`RpcEndpointRef::reserve`]. Dropped unused, it is free again.
#[must_use = "a permit that is dropped frees its place"]
pub struct Permit<'a, M> {
    to: &'a RpcEndpointRef<M>,
    place: Place<M>,
}

/// What a permit holds.
pub(crate) enum Place<M> {
    Local(LocalPlace<M>),
    Remote(Option<Reserved>),
    None,
}

/// A place in an inbox. Dropped unfilled, also by a panic of what makes the message, it is free again.
pub(crate) struct LocalPlace<M> {
    inbox: Arc<Inbox<M>>,
    filled: bool,
}

impl<M> LocalPlace<M> {
    pub(crate) fn fill(mut self, mail: LocalMail<M>, env: &EnvInner) -> Result<(), (Refused, M)> {
        let posted = self.inbox.post_reserved(mail, env.observed_now());
        self.filled = true;
        env.bury_displaced(self.inbox.name(), posted?);
        Ok(())
    }
}

impl<M> Drop for LocalPlace<M> {
    fn drop(&mut self) {
        if !self.filled {
            self.inbox.release();
        }
    }
}

impl<M> Place<M> {
    pub(crate) fn reserved(&self) -> Option<&Reserved> {
        match self {
            Self::Remote(reserved) => reserved.as_ref(),
            Self::Local(_) | Self::None => None,
        }
    }

    /// The message has gone: remote credit is not given back.
    pub(crate) fn spend(self) {
        if let Self::Remote(Some(reserved)) = self {
            reserved.spend();
        }
    }
}

impl<'a, M> Permit<'a, M> {
    pub(crate) fn local(to: &'a RpcEndpointRef<M>) -> Self {
        let inbox = to.inbox().expect("the endpoint is local");
        Self {
            to,
            place: Place::Local(LocalPlace {
                inbox: Arc::clone(inbox),
                filled: false,
            }),
        }
    }

    pub(crate) fn remote(to: &'a RpcEndpointRef<M>, reserved: Option<Reserved>) -> Self {
        Self {
            to,
            place: Place::Remote(reserved),
        }
    }
}

impl<M: Serialize + Send + 'static> Permit<'_, M> {
    /// Sends the message that the place was for.
    ///
    /// # Errors
    ///
    /// The endpoint has stopped meanwhile, or the connection does not take the message: it is lost, too large, or others
    /// who held permits too have used up the credit with messages far larger than usual.
    pub fn send(self, message: M) -> Result<(), SendError> {
        self.post(Sent::OneWay, message).map_err(|(error, _)| error)
    }

    /// Passes a message on, as [`RpcEndpointRef::forward`].
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub fn forward(self, message: M) -> Result<(), SendError> {
        self.post(Sent::Asked, message).map_err(|(error, _)| error)
    }

    /// Asks, as [`RpcEndpointRef::ask`].
    pub fn ask<R>(mut self, message: impl FnOnce(RpcCallContext<R>) -> M) -> Ask<R> {
        let place = std::mem::replace(&mut self.place, Place::None);
        let timeout = self.to.env().config.ask_timeout;
        self.to.ask_with(place, timeout, message)
    }

    /// Gives the message back if it was not taken.
    pub(crate) fn post(mut self, sent: Sent, message: M) -> Result<(), (SendError, M)> {
        let env = self.to.env();
        let trace = env.outgoing_trace();
        match std::mem::replace(&mut self.place, Place::None) {
            Place::Local(place) => {
                let posted = place.fill(LocalMail::new(sent, message, trace), env);
                posted.map_err(|(refused, message)| (self.to.refused(refused), message))
            }
            Place::Remote(reserved) => {
                let TypedTarget::Remote(remote) = self.to.target() else {
                    unreachable!("a reference does not move");
                };
                let posting = Posting {
                    asked: sent == Sent::Asked,
                    trace: trace.as_deref().copied(),
                    reserved: reserved.as_ref(),
                    ..Posting::default()
                };
                if let Err(error) = self.to.post_remotely(remote, &message, &posting) {
                    return Err((error, message));
                }
                if let Some(reserved) = reserved {
                    reserved.spend();
                }
                Ok(())
            }
            Place::None => unreachable!("a permit is used by value"),
        }
    }
}

impl<M> fmt::Debug for Permit<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("to", self.to).finish()
    }
}
