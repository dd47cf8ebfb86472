//! Whom a reference means when that is not an endpoint of its own environment, and the way there.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use aloha_transport::{CloseReason, ConnectError, RequestId};
use serde::Serialize;

use crate::address::{EndpointAddress, RpcAddress};
use crate::env::EnvInner;
use crate::envelope::Envelope;
use crate::error::{AskError, SendError};
use crate::link::{Link, Outgoing, Verb};
use crate::outbox::Outbox;
use crate::scope::{self, Encoding};
use crate::trace::TraceContext;

/// An endpoint of another environment.
pub(crate) struct RemoteTarget {
    pub(crate) name: Arc<str>,
    pub(crate) route: Route,
    /// The way that was taken last.
    known: ArcSwapOption<Known>,
}

/// A connection, and its number for the name.
struct Known {
    link: Arc<Link>,
    number: u32,
}

pub(crate) enum Route {
    /// An environment that listens.
    Address(Arc<Outbox>),
    /// Whoever is at the other end of a connection.
    Peer(Arc<Link>),
}

/// Credit of one message, taken beforehand. Dropped unspent, it is given back.
pub(crate) struct Reserved {
    link: Arc<Link>,
    number: u32,
    spent: bool,
}

/// A message that was queued.
pub(crate) struct Transmitted {
    pub(crate) link: Arc<Link>,
    /// Of its receiver.
    pub(crate) number: u32,
    /// What it is to be answered under, if it was asked.
    pub(crate) request: Option<RequestId>,
}

/// How a message goes out.
#[derive(Default)]
pub(crate) struct Posting<'a> {
    /// `ask` or `forward`, not `send`.
    pub(crate) asked: bool,
    /// The context that `ask` handed out, and how long it waits.
    pub(crate) ask: Option<(u64, Option<std::time::Duration>)>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) reserved: Option<&'a Reserved>,
}

impl RemoteTarget {
    pub(crate) fn new(name: Arc<str>, route: Route) -> Arc<Self> {
        Arc::new(Self {
            name,
            route,
            known: ArcSwapOption::empty(),
        })
    }

    /// Another endpoint of the same environment.
    pub(crate) fn beside(&self, name: &str) -> Arc<Self> {
        let route = match &self.route {
            Route::Address(outbox) => Route::Address(Arc::clone(outbox)),
            Route::Peer(link) => Route::Peer(Arc::clone(link)),
        };
        Self::new(name.into(), route)
    }

    pub(crate) fn address(&self) -> Option<RpcAddress> {
        match &self.route {
            Route::Address(outbox) => Some(outbox.address().clone()),
            Route::Peer(link) => crate::remote::address_of(&link.client),
        }
    }

    pub(crate) fn uri(&self) -> String {
        EndpointAddress {
            address: self.address(),
            name: Arc::clone(&self.name),
        }
        .to_string()
    }

    fn link(&self, env: &EnvInner, broken: Option<&Arc<Link>>) -> Result<Arc<Link>, ConnectError> {
        match &self.route {
            Route::Address(outbox) => outbox.link(env, &self.name, broken),
            Route::Peer(link) => Ok(Arc::clone(link)),
        }
    }

    fn not_sent(&self, reason: aloha_transport::SendError) -> SendError {
        SendError::of_transport(self.uri(), reason)
    }

    /// The link in use, or a new one when that is found broken.
    fn working_link(&self, env: &EnvInner) -> Result<Arc<Link>, SendError> {
        let link = self
            .link(env, None)
            .map_err(|error| self.not_sent(closed(error)))?;
        if link.client.is_active() {
            return Ok(link);
        }
        self.link(env, Some(&link))
            .map_err(|error| self.not_sent(closed(error)))
    }

    /// The link in use and its number for the name, if it has one. Mostly the way that was taken last, which takes no lock.
    fn way(&self, env: &EnvInner) -> Result<(Arc<Link>, Option<u32>), SendError> {
        if let Some(known) = &*self.known.load()
            && known.link.client.is_active()
        {
            return Ok((Arc::clone(&known.link), Some(known.number)));
        }
        Ok((self.working_link(env)?, None))
    }

    fn learn(&self, link: &Arc<Link>, number: u32) {
        let link = Arc::clone(link);
        self.known.store(Some(Arc::new(Known { link, number })));
    }

    /// Waits for credit at the receiver and room on the way. What is `None` needs none: the receiver was never
    /// addressed on this connection, or the next message makes a new one.
    pub(crate) async fn reserve(&self, env: &EnvInner) -> Result<Option<Reserved>, SendError> {
        let (link, number) = self.way(env)?;
        let number = number.or_else(|| link.number_of(&self.name));
        let reserved = match number {
            None => link.client.room().await.map(|()| None),
            Some(number) => match link.client.reserve(number).await {
                Ok(()) => {
                    let reserved = Reserved {
                        link,
                        number,
                        spent: false,
                    };
                    let room = reserved.link.client.room().await;
                    room.map(|()| Some(reserved))
                }
                Err(error) => Err(error),
            },
        };
        match reserved {
            Ok(reserved) => Ok(reserved),
            Err(aloha_transport::SendError::Closed { .. })
                if matches!(self.route, Route::Address(_)) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.not_sent(error)),
        }
    }

    /// Encodes a message and queues it.
    pub(crate) fn transmit<M: Serialize>(
        &self,
        env: &Arc<EnvInner>,
        message: &M,
        posting: &Posting<'_>,
    ) -> Result<Transmitted, AskError> {
        if env.is_stopped() {
            return Err(SendError::EnvironmentStopped {
                endpoint: self.uri(),
            }
            .into());
        }
        let (link, mut number) = self.way(env)?;
        let codec = link.codec;
        let unencodable = |reason| SendError::Unencodable {
            endpoint: self.uri(),
            reason,
        };
        let mut body = scope::take_scratch();
        let token = posting.ask.map(|(token, _)| token);
        let encoding = Encoding::message(link, token);
        let (encoded, mut encoding) =
            scope::encoding(encoding, || codec.encode(message, &mut body));
        encoded.map_err(|error| unencodable(error.to_string()))?;
        if token.is_some() && !encoding.claimed() {
            return Err(AskError::ContextMissing {
                endpoint: self.uri(),
            });
        }
        let time_left = match posting.ask {
            Some((_, limit)) => limit,
            None => encoding.time_left(env.runtime.as_ref()),
        };
        let calls = encoding.commit(env).map_err(unencodable)?;
        let link = encoding.link;
        let envelope = Envelope {
            asked: posting.asked,
            time_left,
            trace: posting.trace,
            calls: calls.clone(),
            ..Envelope::default()
        };
        let verb = match posting.ask {
            Some((_, limit)) => Verb::Request(limit),
            None => Verb::OneWay,
        };
        let was_known = number.is_some();
        let queued = link.post(
            Outgoing {
                verb,
                name: &self.name,
                reserved: posting
                    .reserved
                    .is_some_and(|reserved| reserved.link.id() == link.id()),
            },
            &mut number,
            envelope,
            &mut body,
        );
        scope::keep_scratch(body);
        match queued {
            Ok(request) => {
                let number = number.unwrap_or_default();
                if !was_known {
                    self.learn(&link, number);
                }
                Ok(Transmitted {
                    link,
                    number,
                    request,
                })
            }
            Err(error) => {
                // The askers of the calls inside learn that their way ended here.
                calls.iter().for_each(|id| link.client.forget_id(*id));
                Err(self.not_sent(error).into())
            }
        }
    }
}

impl Reserved {
    /// The message that used the credit has gone.
    pub(crate) fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.spent {
            self.link.client.release(self.number);
        }
    }
}

fn closed(error: ConnectError) -> aloha_transport::SendError {
    let peer = match &error {
        ConnectError::Closed { address } => Arc::clone(address),
        other => other.to_string().into(),
    };
    aloha_transport::SendError::Closed {
        peer,
        reason: CloseReason::NotConnected(error),
    }
}
