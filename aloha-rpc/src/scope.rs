//! Where capabilities find their connection: a scope around one encode or decode on this thread.
//!
//! A call context inside a message is written as a place in the envelope's list of calls. While a
//! scope is open nothing takes effect: calls met during an encode are only noted, and those met
//! during a decode go back to the scope when the half-made message is dropped. The owner of the scope
//! then commits or fails all of them, so that each call is answered once.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use aloha_transport::{Failure, FailureCode, RequestId, RpcResponseCallback, Runtime};
use tokio::time::Instant;

use crate::env::EnvInner;
use crate::envelope::CALLS_MAX;
use crate::flow::InboundFlow;
use crate::link::Link;
use crate::trace::TraceContext;

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::None) };
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A scratch buffer above this size is not kept.
const SCRATCH_BYTES_MAX: usize = 256 << 10;

enum Scope {
    None,
    Encoding(Encoding),
    Decoding(Box<Decoding>),
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

/// One message being decoded, with the answers it owes.
pub(crate) struct Decoding {
    pub(crate) env: Arc<EnvInner>,
    pub(crate) origin: Origin,
    /// The request itself.
    pub(crate) request: Option<RpcResponseCallback>,
    /// The calls of its envelope.
    pub(crate) calls: Vec<Option<RpcResponseCallback>>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) trace: Option<Box<TraceContext>>,
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
}

impl Decoding {
    /// Answers every call that the message did not take.
    pub(crate) fn fail(self, failure: &Failure) {
        for call in self
            .request
            .into_iter()
            .chain(self.calls.into_iter().flatten())
        {
            call.on_failure(failure);
        }
    }

    /// Answers what a message that decoded well left behind.
    pub(crate) fn settle(self) {
        if self.request.is_some() || self.calls.iter().any(Option::is_some) {
            self.fail(&Failure::new(
                FailureCode::DROPPED,
                "the decoded message does not hold the call",
            ));
        }
    }
}

/// Runs `encode` with a scope around it.
pub(crate) fn encoding<R>(encoding: Encoding, encode: impl FnOnce() -> R) -> (R, Encoding) {
    let (result, scope) = within(Scope::Encoding(encoding), encode);
    let Scope::Encoding(encoding) = scope else {
        unreachable!("scopes nest")
    };
    (result, encoding)
}

/// Runs `decode` with a scope around it.
pub(crate) fn decoding<R>(decoding: Decoding, decode: impl FnOnce() -> R) -> (R, Decoding) {
    let (result, scope) = within(Scope::Decoding(Box::new(decoding)), decode);
    let Scope::Decoding(decoding) = scope else {
        unreachable!("scopes nest")
    };
    (result, *decoding)
}

fn within<R>(scope: Scope, run: impl FnOnce() -> R) -> (R, Scope) {
    /// Puts the outer scope back, also when `run` panics; the calls of the inner one then say so.
    struct Restore(Scope);
    impl Drop for Restore {
        fn drop(&mut self) {
            drop(SCOPE.replace(std::mem::replace(&mut self.0, Scope::None)));
        }
    }
    let restore = Restore(SCOPE.replace(scope));
    let result = run();
    let scope = SCOPE.replace(Scope::None);
    drop(restore);
    (result, scope)
}

/// The place of the context that `ask` handed out as `token`.
pub(crate) fn claim(token: u64) -> Result<u32, &'static str> {
    SCOPE.with_borrow_mut(|scope| match scope {
        Scope::Encoding(encoding) if encoding.token == Some(token) && !encoding.claimed => {
            encoding.claimed = true;
            Ok(0)
        }
        Scope::Encoding(_) => Err("a call context belongs into the message of its own ask, once"),
        Scope::None | Scope::Decoding(_) => Err(OUTSIDE),
    })
}

/// The place of a call that is passed on.
pub(crate) fn pass_on(
    transfer: Box<dyn Transfer>,
    deadline: Option<Instant>,
) -> Result<u32, &'static str> {
    SCOPE.with_borrow_mut(|scope| match scope {
        Scope::Encoding(encoding) => encoding.pass_on(transfer, deadline),
        Scope::None | Scope::Decoding(_) => Err(OUTSIDE),
    })
}

/// What a context needs to answer the call at a place.
pub(crate) struct Arrived {
    pub(crate) call: RpcResponseCallback,
    pub(crate) env: Arc<EnvInner>,
    pub(crate) link: Arc<Link>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) trace: Option<Box<TraceContext>>,
}

/// The call at a place of the message being decoded; each can be had once.
pub(crate) fn arrive(place: u32) -> Result<Arrived, &'static str> {
    SCOPE.with_borrow_mut(|scope| match scope {
        Scope::Decoding(decoding) => {
            let slot = match place.checked_sub(1) {
                None => Some(&mut decoding.request),
                Some(index) => decoding.calls.get_mut(index as usize),
            };
            let call = slot
                .and_then(Option::take)
                .ok_or("a call context that the envelope does not list")?;
            let (deadline, trace) = (decoding.deadline, decoding.trace.clone());
            Ok(Arrived {
                call,
                env: Arc::clone(&decoding.env),
                link: Arc::clone(decoding.origin.link()),
                deadline,
                trace,
            })
        }
        Scope::None | Scope::Encoding(_) => Err(OUTSIDE),
    })
}

/// Takes a call back that is dropped while its message is being decoded; gives it back if there is no such message.
pub(crate) fn take_back(call: RpcResponseCallback) -> Option<RpcResponseCallback> {
    SCOPE.with(|scope| match scope.try_borrow_mut().as_deref_mut() {
        Ok(Scope::Decoding(decoding)) => {
            decoding.calls.push(Some(call));
            None
        }
        _ => Some(call),
    })
}

/// The environment and connection of the message being decoded.
pub(crate) fn sender() -> Result<(Arc<EnvInner>, Arc<Link>), &'static str> {
    SCOPE.with_borrow(|scope| match scope {
        Scope::Decoding(decoding) => Ok((
            Arc::clone(&decoding.env),
            Arc::clone(decoding.origin.link()),
        )),
        Scope::None | Scope::Encoding(_) => Err(OUTSIDE),
    })
}

/// The environment and connection of the message being encoded.
pub(crate) fn receiver() -> Result<(Arc<EnvInner>, Arc<Link>), &'static str> {
    SCOPE.with_borrow(|scope| match scope {
        Scope::Encoding(encoding) => {
            let env = encoding.link.env().ok_or("the environment is gone")?;
            Ok((env, Arc::clone(&encoding.link)))
        }
        Scope::None | Scope::Decoding(_) => Err(OUTSIDE),
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
