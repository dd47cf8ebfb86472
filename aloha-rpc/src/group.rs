//! Several endpoints behind one name.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::debug;

use crate::ask::Ask;
use crate::call_context::RpcCallContext;
use crate::context::EndpointContext;
use crate::dead_letter::DeadLetterReason;
use crate::endpoint::RpcEndpoint;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::RpcEnv;
use crate::error::{EndpointError, SendError, SetupError};
use crate::inbox::{Discard, Sent, discard};
use crate::permit::Permit;

/// Several endpoints, here or elsewhere, behind one name; from [`RpcEnv::setup_group`].
///
/// What is sent to the group's [reference](Self::endpoint_ref), which may travel like any other, goes to its members in
/// turn; one that takes nothing now is passed over, and if none does, the group waits for the next. A member that
/// ends or is out of reach leaves; it may join again. Cheap to clone.
pub struct Group<M> {
    router: RpcEndpointRef<M>,
    members: Arc<Members<M>>,
}

struct Members<M> {
    list: Mutex<Vec<RpcEndpointRef<M>>>,
}

impl<M> Members<M> {
    fn lock(&self) -> MutexGuard<'_, Vec<RpcEndpointRef<M>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, member: &RpcEndpointRef<M>) {
        self.lock().retain(|known| known != member);
    }
}

impl<M: Serialize + DeserializeOwned + Send + 'static> Group<M> {
    pub(crate) fn set_up(env: &RpcEnv, name: &str) -> Result<Self, SetupError> {
        let members = Arc::new(Members {
            list: Mutex::new(Vec::new()),
        });
        let router = Router {
            members: Arc::clone(&members),
            next: 0,
        };
        let router = env.setup_endpoint(name, router)?;
        Ok(Self { router, members })
    }

    /// The one reference to all of them.
    #[must_use]
    pub fn endpoint_ref(&self) -> &RpcEndpointRef<M> {
        &self.router
    }

    /// Adds a member, once, until it ends.
    pub fn join(&self, member: &RpcEndpointRef<M>) {
        let mut members = self.members.lock();
        if members.contains(member) {
            return;
        }
        members.push(member.clone());
        drop(members);
        let env = self.router.env();
        let watch = RpcEnv::of(Arc::clone(env)).watch(member);
        let (members, member) = (Arc::downgrade(&self.members), member.clone());
        let stopped = Arc::clone(env);
        env.spawn(async move {
            let ended = async {
                let ended = watch.await;
                if let Some(members) = members.upgrade() {
                    debug!(member = ended.endpoint, reason = %ended.reason, "a member of a group has gone");
                    members.leave(&member);
                }
            };
            stopped.until_stopped(ended).await;
        });
    }

    /// Removes a member.
    pub fn leave(&self, member: &RpcEndpointRef<M>) {
        self.members.leave(member);
    }

    /// The members of this moment, in the order they joined.
    #[must_use]
    pub fn members(&self) -> Vec<RpcEndpointRef<M>> {
        self.members.lock().clone()
    }

    /// Sends each member a message of its own, and gives the members that did not take theirs, with the reason.
    pub fn broadcast(&self, mut message: impl FnMut() -> M) -> Vec<(RpcEndpointRef<M>, SendError)> {
        let members = self.members().into_iter();
        members
            .filter_map(|member| {
                let refused = member.send(message()).err()?;
                Some((member, refused))
            })
            .collect()
    }

    /// Asks each member, with a message of its own; the asks stand in the order of [`members`](Self::members).
    pub fn ask_all<R>(&self, mut message: impl FnMut(RpcCallContext<R>) -> M) -> Vec<Ask<R>> {
        let members = self.members().into_iter();
        members.map(|member| member.ask(&mut message)).collect()
    }
}

impl<M> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self {
            router: self.router.clone(),
            members: Arc::clone(&self.members),
        }
    }
}

impl<M> fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("router", &self.router)
            .field("members", &*self.members.lock())
            .finish()
    }
}

/// The endpoint that has the group's name.
struct Router<M> {
    members: Arc<Members<M>>,
    next: usize,
}

impl<M: Serialize + DeserializeOwned + Send + 'static> Router<M> {
    /// The members, beginning with the one whose turn it is.
    fn turn(&mut self) -> Vec<RpcEndpointRef<M>> {
        let mut members = self.members.lock().clone();
        if !members.is_empty() {
            let first = self.next % members.len();
            members.rotate_left(first);
            self.next = first + 1;
        }
        members
    }

    async fn route(
        &mut self,
        sent: Sent,
        message: M,
        ctx: &EndpointContext<M>,
    ) -> Result<(), EndpointError> {
        loop {
            let members = self.turn();
            let Some(first) = members.first() else {
                let name = ctx.inbox().name();
                let env = ctx.env().inner();
                env.dead_letter(name, DeadLetterReason::NotTaken, 1);
                discard(message, Discard::NotTaken);
                let text = format!("group {name} has no members");
                return Err(EndpointError::new(EndpointError::NO_MEMBERS, text));
            };
            let ready = members.iter().find_map(place_now);
            let permit = match ready {
                Some(permit) => Ok(permit),
                None => first.reserve().await,
            };
            match permit {
                Ok(permit) => {
                    return permit.post(sent, message).map_err(|(error, message)| {
                        discard(message, Discard::RelayLost);
                        error.into()
                    });
                }
                Err(error) => {
                    debug!(member = %first.uri(), %error, "a member of a group takes no messages");
                    self.members.leave(first);
                }
            }
        }
    }
}

/// A place at a member that has one now.
fn place_now<M>(member: &RpcEndpointRef<M>) -> Option<Permit<'_, M>> {
    let reserving = pin!(member.reserve());
    match reserving.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(permit)) => Some(permit),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

impl<M: Serialize + DeserializeOwned + Send + 'static> RpcEndpoint for Router<M> {
    type Message = M;

    async fn receive(&mut self, message: M, ctx: &EndpointContext<M>) -> Result<(), EndpointError> {
        self.route(Sent::OneWay, message, ctx).await
    }

    async fn receive_and_reply(
        &mut self,
        message: M,
        ctx: &EndpointContext<M>,
    ) -> Result<(), EndpointError> {
        self.route(Sent::Asked, message, ctx).await
    }
}
