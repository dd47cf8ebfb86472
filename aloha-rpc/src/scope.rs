//! Where capabilities find their connection: a scope around one encode or decode on this thread.
//!
//! A call context inside a message is written as a place in the envelope's list of calls. While a
//! scope is open nothing takes effect: calls met during an encode are only noted, and those met
//! during a decode go back to the scope when the half-made message is dropped. The owner of the scope
//! then commits or fails all of them, so that each call is answered once.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use aloha_transport::{Failure, FailureCode, PendingRequest, RequestId, Runtime};
use scoped_tls::scoped_thread_local;
use tokio::time::Instant;

use crate::env::EnvInner;
use crate::envelope::CALLS_MAX;
use crate::flow::InboundFlow;
use crate::link::Link;
use crate::remote_call::RemoteCall;
use crate::remote_lane::Extras;
use crate::trace::TraceContext;

// A scope lives on the stack of whoever opened it; its thread knows where.
scoped_thread_local!(static SCOPE: RefCell<Scope>);

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A scratch buffer above this size is not kept.
const SCRATCH_BYTES_MAX: usize = 256 << 10;

enum Scope {
    Encoding(Encoding),
    Decoding(Decoding),
}

/// A call that was written into a message, and takes the way of the message once that is queued.
pub(crate) trait Transfer {
    /// Reserves an id on the message's connection, to which the answer will come.
    fn commit(self: Box<Self>, env: &Arc<EnvInner>, link: &Arc<Link>) -> Result<RequestId, String>;
}

/// One message being encoded. Small, for it is moved in and out of its thread's place.
pub(crate) struct Encoding {
    pub(crate) link: Arc<Link>,
    /// The context that `ask` handed out, if this is an ask.
    token: Option<u64>,
    claimed: bool,
    /// Whether it may carry calls.
    carries_calls: bool,
    passed_on: Option<Box<PassedOn>>,
}

/// The calls met so far.
struct PassedOn {
    transfers: Vec<Box<dyn Transfer>>,
    /// Until when they are waited for: the latest of them; none where one has no limit.
    deadline: Option<Instant>,
}

impl Encoding {
    /// A message that is sent, or asked under a token.
    pub(crate) fn message(link: Arc<Link>, token: Option<u64>) -> Self {
        Self {
            link,
            token,
            claimed: false,
            carries_calls: true,
            passed_on: None,
        }
    }

    /// A reply. It carries no calls: if its asker has gone, nobody would be there to answer them.
    pub(crate) fn reply(link: Arc<Link>) -> Self {
        Self {
            link,
            token: None,
            claimed: false,
            carries_calls: false,
            passed_on: None,
        }
    }

    /// How long the calls inside are still waited for, if all have a limit.
    pub(crate) fn time_left(&self, runtime: &dyn Runtime) -> Option<Duration> {
        let deadline = self.passed_on.as_ref()?.deadline?;
        Some(deadline.saturating_duration_since(runtime.now()))
    }

    /// Whether the message carries the context that `ask` handed out, once.
    pub(crate) fn claimed(&self) -> bool {
        self.claimed
    }

    /// The place of a call that is passed on.
    fn pass_on(
        &mut self,
        transfer: Box<dyn Transfer>,
        deadline: Option<Instant>,
    ) -> Result<u32, &'static str> {
        if !self.carries_calls {
            return Err("a reply cannot carry a call context");
        }
        let passed_on = self.passed_on.get_or_insert_with(|| {
            Box::new(PassedOn {
                transfers: Vec::new(),
                deadline,
            })
        });
        if passed_on.transfers.len() == CALLS_MAX {
            return Err("too many call contexts in one message");
        }
        passed_on.transfers.push(transfer);
        passed_on.deadline = match (passed_on.deadline, deadline) {
            (Some(one), Some(two)) => Some(one.max(two)),
            _ => None,
        };
        Ok(u32::try_from(passed_on.transfers.len()).expect("limited far below"))
    }

    /// Makes the calls inside the message the connection's. On failure the ids are given back.
    pub(crate) fn commit(&mut self, env: &Arc<EnvInner>) -> Result<Vec<RequestId>, String> {
        let mut ids = Vec::new();
        let Some(passed_on) = self.passed_on.take() else {
            return Ok(ids);
        };
        for transfer in passed_on.transfers {
            match transfer.commit(env, &self.link) {
                Ok(id) => ids.push(id),
                Err(reason) => {
                    ids.iter().for_each(|id| self.link.client.forget_id(*id));
                    return Err(reason);
                }
            }
        }
        Ok(ids)
    }
}

/// One message being decoded, with the answers it owes. Small, for it is moved in and out of its thread's place.
pub(crate) struct Decoding {
    pub(crate) origin: Origin,
    /// The request itself.
    pub(crate) request: Option<PendingRequest>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) extras: Option<Box<Extras>>,
}

/// Where a message came from.
pub(crate) enum Origin {
    Flow(Arc<InboundFlow>),
    Link(Arc<Link>),
}

impl Origin {
    fn link(&self) -> &Arc<Link> {
        match self {
            Self::Flow(flow) => &flow.link,
            Self::Link(link) => link,
        }
    }

    fn into_flow(self) -> Option<Arc<InboundFlow>> {
        match self {
            Self::Flow(flow) => Some(flow),
            Self::Link(_) => None,
        }
    }
}

impl Decoding {
    /// A reply from the other end of a connection.
    pub(crate) fn reply(link: Arc<Link>) -> Self {
        Self {
            origin: Origin::Link(link),
            request: None,
            deadline: None,
            extras: None,
        }
    }

    /// Answers every call that the message did not take. Gives the flow back, if it came by one.
    pub(crate) fn fail(self, failure: &Failure) -> Option<Arc<InboundFlow>> {
        if let Some(request) = self.request {
            self.origin.link().client.respond_failure(request, failure);
        }
        let calls = self.extras.map(|extras| extras.calls);
        for call in calls.into_iter().flatten().flatten() {
            call.fail(failure);
        }
        self.origin.into_flow()
    }

    /// Answers what a message that decoded well left behind. Gives the flow back, if it came by one.
    pub(crate) fn settle(self) -> Option<Arc<InboundFlow>> {
        let calls = self.extras.as_ref().map(|extras| &extras.calls);
        if self.request.is_some() || calls.into_iter().flatten().any(Option::is_some) {
            return self.fail(&Failure::new(
                FailureCode::DROPPED,
                "the decoded message does not hold the call",
            ));
        }
        self.origin.into_flow()
    }

    fn calls(&mut self) -> &mut Vec<Option<RemoteCall>> {
        &mut self.extras.get_or_insert_default().calls
    }
}

/// Runs `encode` with a scope around it.
#[inline]
pub(crate) fn encoding<R>(encoding: Encoding, encode: impl FnOnce() -> R) -> (R, Encoding) {
    let scope = RefCell::new(Scope::Encoding(encoding));
    let result = SCOPE.set(&scope, encode);
    let Scope::Encoding(encoding) = scope.into_inner() else {
        unreachable!("nobody changes what it is")
    };
    (result, encoding)
}

/// Runs `decode` with a scope around it.
#[inline]
pub(crate) fn decoding<R>(decoding: Decoding, decode: impl FnOnce() -> R) -> (R, Decoding) {
    let scope = RefCell::new(Scope::Decoding(decoding));
    let result = SCOPE.set(&scope, decode);
    let Scope::Decoding(decoding) = scope.into_inner() else {
        unreachable!("nobody changes what it is")
    };
    (result, decoding)
}

/// Does something with the innermost scope of this thread.
fn with_scope<R>(
    act: impl FnOnce(&mut Scope) -> Result<R, &'static str>,
) -> Result<R, &'static str> {
    if !SCOPE.is_set() {
        return Err(OUTSIDE);
    }
    SCOPE.with(|scope| act(&mut scope.borrow_mut()))
}

/// The place of the context that `ask` handed out as `token`.
pub(crate) fn claim(token: u64) -> Result<u32, &'static str> {
    with_scope(|scope| match scope {
        Scope::Encoding(encoding) if encoding.token == Some(token) && !encoding.claimed => {
            encoding.claimed = true;
            Ok(0)
        }
        Scope::Encoding(_) => Err("a call context belongs into the message of its own ask, once"),
        Scope::Decoding(_) => Err(OUTSIDE),
    })
}

/// The place of a call that is passed on.
pub(crate) fn pass_on(
    transfer: Box<dyn Transfer>,
    deadline: Option<Instant>,
) -> Result<u32, &'static str> {
    with_scope(|scope| match scope {
        Scope::Encoding(encoding) => encoding.pass_on(transfer, deadline),
        Scope::Decoding(_) => Err(OUTSIDE),
    })
}

/// What a context needs to answer the call at a place.
pub(crate) struct Arrived {
    pub(crate) call: RemoteCall,
    pub(crate) deadline: Option<Instant>,
    pub(crate) trace: Option<TraceContext>,
}

/// The call at a place of the message being decoded; each can be had once.
pub(crate) fn arrive(place: u32) -> Result<Arrived, &'static str> {
    with_scope(|scope| match scope {
        Scope::Decoding(decoding) => {
            let call = match place.checked_sub(1) {
                None => decoding
                    .request
                    .take()
                    .map(|request| RemoteCall::new(Arc::clone(decoding.origin.link()), request)),
                Some(index) => {
                    let call = decoding.calls().get_mut(index as usize);
                    call.and_then(Option::take)
                }
            };
            Ok(Arrived {
                call: call.ok_or("a call context that the envelope does not list")?,
                deadline: decoding.deadline,
                trace: decoding.extras.as_ref().and_then(|extras| extras.trace),
            })
        }
        Scope::Encoding(_) => Err(OUTSIDE),
    })
}

/// Takes a call back that is dropped while its message is being decoded; gives it back if there is no such message.
pub(crate) fn take_back(call: RemoteCall) -> Option<RemoteCall> {
    if !SCOPE.is_set() {
        return Some(call);
    }
    SCOPE.with(|scope| match scope.try_borrow_mut().as_deref_mut() {
        Ok(Scope::Decoding(decoding)) => {
            decoding.calls().push(Some(call));
            None
        }
        _ => Some(call),
    })
}

/// The environment and connection of the message being decoded.
pub(crate) fn sender() -> Result<(Arc<EnvInner>, Arc<Link>), &'static str> {
    with_scope(|scope| match scope {
        Scope::Decoding(decoding) => {
            let link = decoding.origin.link();
            let env = link.env().ok_or("the environment is gone")?;
            Ok((env, Arc::clone(link)))
        }
        Scope::Encoding(_) => Err(OUTSIDE),
    })
}

/// The environment and connection of the message being encoded.
pub(crate) fn receiver() -> Result<(Arc<EnvInner>, Arc<Link>), &'static str> {
    with_scope(|scope| match scope {
        Scope::Encoding(encoding) => {
            let env = encoding.link.env().ok_or("the environment is gone")?;
            Ok((env, Arc::clone(&encoding.link)))
        }
        Scope::Decoding(_) => Err(OUTSIDE),
    })
}

const OUTSIDE: &str = "a call context or endpoint reference can be encoded and decoded only inside a message between environments";

/// A buffer of this thread, empty. User code may run while it is out.
pub(crate) fn take_scratch() -> Vec<u8> {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    scratch
}

/// Gives the buffer back.
pub(crate) fn keep_scratch(scratch: Vec<u8>) {
    if scratch.capacity() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(scratch);
    }
}
