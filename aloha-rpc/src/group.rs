//! Several endpoints behind one name.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::ask::Ask;
use crate::call_context::RpcCallContext;
use crate::context::EndpointContext;
use crate::dead_letter::DeadLetterReason;
use crate::endpoint::RpcEndpoint;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::RpcEnv;
use crate::error::{EndpointError, SendError, SetupError};
use crate::mail::{Discard, Sent, discard};
use crate::permit::Permit;
use crate::supervision::Directive;

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
    list: Mutex<Vec<Member<M>>>,
    changed: Notify,
}

struct Member<M> {
    endpoint: RpcEndpointRef<M>,
    /// Ends the watch of it.
    _watch: DropGuard,
}

impl<M> Members<M> {
    fn lock(&self) -> MutexGuard<'_, Vec<Member<M>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoints(&self) -> Vec<RpcEndpointRef<M>> {
        let members = self.lock();
        members
            .iter()
            .map(|member| member.endpoint.clone())
            .collect()
    }

    fn leave(&self, member: &RpcEndpointRef<M>) {
        let left: Vec<_> = self
            .lock()
            .extract_if(.., |known| known.endpoint == *member)
            .collect();
        drop(left);
        self.changed.notify_waiters();
    }
}

impl<M: Serialize + DeserializeOwned + Send + 'static> Group<M> {
    pub(crate) fn set_up(env: &RpcEnv, name: &str) -> Result<Self, SetupError> {
        let members = Arc::new(Members {
            list: Mutex::new(Vec::new()),
            changed: Notify::new(),
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
        let ended = CancellationToken::new();
        let mut members = self.members.lock();
        if members.iter().any(|known| known.endpoint == *member) {
            return;
        }
        members.push(Member {
            endpoint: member.clone(),
            _watch: ended.clone().drop_guard(),
        });
        drop(members);
        self.members.changed.notify_waiters();
        let env = self.router.env();
        let watch = RpcEnv::of(Arc::clone(env)).watch(member);
        let (members, member) = (Arc::downgrade(&self.members), member.clone());
        let stopped = Arc::clone(env);
        env.spawn(async move {
            let watched = async {
                let terminated = ended.run_until_cancelled(watch).await;
                if let (Some(terminated), Some(members)) = (terminated, members.upgrade()) {
                    debug!(member = terminated.endpoint, reason = %terminated.reason, "a member of a group has gone");
                    members.leave(&member);
                }
            };
            stopped.until_stopped(watched).await;
        });
    }

    /// Removes a member.
    pub fn leave(&self, member: &RpcEndpointRef<M>) {
        self.members.leave(member);
    }

    /// The members of this moment, in the order they joined.
    #[must_use]
    pub fn members(&self) -> Vec<RpcEndpointRef<M>> {
        self.members.endpoints()
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
            .field("members", &self.members.endpoints())
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
        let mut members = self.members.endpoints();
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
            let changed = Arc::clone(&self.members);
            let changed = changed.changed.notified();
            let members = self.turn();
            if members.is_empty() {
                let name = ctx.inbox().name();
                let env = ctx.env().inner();
                env.dead_letter(name, DeadLetterReason::NotTaken, 1);
                discard(message, Discard::NotTaken);
                let text = format!("group {name} has no members");
                return Err(EndpointError::new(EndpointError::NO_MEMBERS, text));
            }
            let place = tokio::select! {
                biased;
                place = first_place(&members) => place,
                () = changed => continue,
                () = ctx.env().inner().until_stopped(std::future::pending()) => {
                    discard(message, Discard::NotTaken);
                    let name = ctx.inbox().name();
                    ctx.env().inner().dead_letter(name, DeadLetterReason::NotTaken, 1);
                    return Ok(());
                }
            };
            match place {
                Ok(permit) => {
                    return permit.post(sent, message).map_err(|(error, message)| {
                        discard(message, Discard::RelayLost);
                        let name = ctx.inbox().name();
                        let env = ctx.env().inner();
                        env.dead_letter(name, DeadLetterReason::NotTaken, 1);
                        error.into()
                    });
                }
                Err((member, error)) => {
                    debug!(member = %member.uri(), %error, "a member of a group takes no messages");
                    self.members.leave(member);
                }
            }
        }
    }
}

/// The first place that any of the members has; the earlier in the list come first. Or the first that takes none
/// any more.
async fn first_place<M: Send + 'static>(
    members: &[RpcEndpointRef<M>],
) -> Result<Permit<'_, M>, (&RpcEndpointRef<M>, SendError)> {
    let mut reserving: Vec<_> = members
        .iter()
        .map(|member| (member, Box::pin(member.reserve())))
        .collect();
    poll_fn(|cx| {
        for (member, reserving) in &mut reserving {
            if let Poll::Ready(place) = reserving.as_mut().poll(cx) {
                return Poll::Ready(place.map_err(|error| (*member, error)));
            }
        }
        Poll::Pending
    })
    .await
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

    /// Nothing that others do ends it, also not the end of who linked itself to it.
    async fn on_error(&mut self, error: EndpointError, ctx: &EndpointContext<M>) -> Directive {
        debug!(group = ctx.self_ref().name(), %error, "a message went nowhere");
        Directive::Resume
    }
}
