//! The right to answer one ask.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use aloha_transport::{Failure, FailureCode, Reply, RequestError, RequestId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::address::RpcAddress;
use crate::ask::decode_reply;
use crate::env::EnvInner;
use crate::envelope::REPLY_ENVELOPE;
use crate::error::{EndpointError, code};
use crate::link::{Link, body_of};
use crate::remote_call::RemoteCall;
use crate::scope::{self, Arrived, Encoding, Transfer};
use crate::trace::TraceContext;

/// The right to answer one ask, once, with a `T`.
///
/// A variant of a message enum that expects an answer carries one. It may be answered at once, kept and answered
/// later from another task, or put into another message, to an endpoint of this or any other
/// environment: the answer finds the asker. Dropped unanswered, the asker gets
/// [`AskError::Dropped`](crate::AskError::Dropped) at once, or
/// [`AskError::Panicked`](crate::AskError::Panicked) when a panic dropped it.
///
/// It is serialised only as part of a message between environments; anywhere else that is an error.
pub struct RpcCallContext<T> {
    state: Mutex<State<T>>,
    deadline: Option<Instant>,
    trace: Option<Box<TraceContext>>,
}

enum State<T> {
    /// Handed out by a remote ask, to be put into its message.
    Asking(u64),
    Held(Responder<T>),
    /// Written into a message; whether it has left with it is not known here.
    Shared(Shared<T>),
    Spent,
}

enum Responder<T> {
    Local {
        reply: oneshot::Sender<Result<T, Failure>>,
        /// Those who wait for the asker to give up.
        waiting: Option<Arc<WakeAll>>,
    },
    Remote(RemoteCall),
}

/// One waker for several who wait.
#[derive(Default)]
struct WakeAll(Mutex<Vec<Waker>>);

impl WakeAll {
    fn add(&self, waker: &Waker) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Wake for WakeAll {
    fn wake(self: Arc<Self>) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = std::mem::take(&mut *wakers);
        drop(wakers);
        woken.into_iter().for_each(Waker::wake);
    }
}

type Shared<T> = Arc<Mutex<Option<Responder<T>>>>;

impl<T> RpcCallContext<T> {
    pub(crate) fn asking(
        token: u64,
        deadline: Option<Instant>,
        trace: Option<Box<TraceContext>>,
    ) -> Self {
        Self {
            state: Mutex::new(State::Asking(token)),
            deadline,
            trace,
        }
    }

    pub(crate) fn local(
        reply: oneshot::Sender<Result<T, Failure>>,
        deadline: Option<Instant>,
        trace: Option<Box<TraceContext>>,
    ) -> Self {
        Self {
            state: Mutex::new(State::Held(Responder::Local {
                reply,
                waiting: None,
            })),
            deadline,
            trace,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&mut self) -> Option<Responder<T>> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(state, State::Spent) {
            State::Held(responder) => Some(responder),
            State::Shared(shared) => lock_shared(&shared).take(),
            State::Asking(_) | State::Spent => None,
        }
    }

    /// Answers with a failure of your own: its kind and text reach the asker.
    pub fn send_failure(mut self, error: impl Into<EndpointError>) {
        if let Some(responder) = self.take() {
            responder.fail(error.into().into_failure());
        }
    }

    /// Whether nobody waits for the answer any more: the asker gave up, its time is over, or it is gone.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match &*self.lock() {
            State::Held(responder) => responder.is_cancelled(),
            State::Asking(_) | State::Shared(_) | State::Spent => false,
        }
    }

    /// Waits until nobody waits for the answer any more. Cancel safe.
    pub async fn cancelled(&self) {
        poll_fn(|cx| match &mut *self.lock() {
            State::Held(responder) => responder.poll_cancelled(cx),
            State::Asking(_) | State::Shared(_) | State::Spent => Poll::Pending,
        })
        .await;
    }

    /// The environment that asked: the address it listens on, or that of its connection when it does
    /// not listen. None for an ask from this environment.
    #[must_use]
    pub fn sender_address(&self) -> Option<RpcAddress> {
        match &*self.lock() {
            State::Held(Responder::Remote(call)) => crate::remote::address_of(&call.link().client),
            State::Held(Responder::Local { .. })
            | State::Asking(_)
            | State::Shared(_)
            | State::Spent => None,
        }
    }

    /// What is left of the asker's time; none when it waits without a limit.
    #[must_use]
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(now))
    }

    /// The trace that the asker belongs to.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace.as_deref().copied()
    }
}

impl<T: Serialize> RpcCallContext<T> {
    /// Answers. Nothing is said to an asker that no longer waits.
    pub fn reply(mut self, value: T) {
        if let Some(responder) = self.take() {
            responder.reply(value);
        }
    }
}

impl<T> Responder<T> {
    fn fail(self, failure: Failure) {
        match self {
            // An error says that the asker has gone.
            Self::Local { reply, .. } => drop(reply.send(Err(failure))),
            Self::Remote(call) => call.fail(&failure),
        }
    }

    fn is_cancelled(&self) -> bool {
        match self {
            Self::Local { reply, .. } => reply.is_closed(),
            Self::Remote(call) => call.is_cancelled(),
        }
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Local { reply, waiting } => {
                let all = waiting.get_or_insert_default();
                all.add(cx.waker());
                let waker = Waker::from(Arc::clone(all));
                reply.poll_closed(&mut Context::from_waker(&waker))
            }
            Self::Remote(call) => call.poll_cancelled(cx),
        }
    }
}

impl<T: Serialize> Responder<T> {
    fn reply(self, value: T) {
        match self {
            // An error gives the value back: the asker has gone.
            Self::Local { reply, .. } => drop(reply.send(Ok(value))),
            Self::Remote(call) => reply_remotely(call, &value),
        }
    }
}

fn reply_remotely<T: Serialize>(call: RemoteCall, value: &T) {
    let codec = call.link().codec;
    let mut body = scope::take_scratch();
    let encoding = Encoding::reply(Arc::clone(call.link()));
    let (encoded, _) = scope::encoding(encoding, || codec.encode(value, &mut body));
    match encoded {
        Ok(()) => call.reply(&[REPLY_ENVELOPE], &body_of(&mut body)),
        Err(error) => {
            let text = format!("cannot encode the reply: {error}");
            call.fail(&Failure::new(code::REPLY_UNENCODABLE, text));
        }
    }
    scope::keep_scratch(body);
}

impl<T> Drop for RpcCallContext<T> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A shared one says nothing: it has left with its message, or goes when the last holder does.
        let State::Held(responder) = std::mem::replace(state, State::Spent) else {
            return;
        };
        let failure = if std::thread::panicking() {
            Failure::new(FailureCode::PANICKED, "the endpoint panicked")
        } else if let Some(why) = crate::mail::discarding() {
            why.failure()
        } else {
            Failure::new(
                FailureCode::DROPPED,
                "the call was dropped without an answer",
            )
        };
        match responder {
            Responder::Local { reply, .. } => drop(reply.send(Err(failure))),
            Responder::Remote(call) => {
                if let Some(call) = scope::take_back(call) {
                    call.fail(&failure);
                }
            }
        }
    }
}

impl<T> fmt::Debug for RpcCallContext<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.lock() {
            State::Asking(_) => "asking",
            State::Held(Responder::Local { .. }) => "local",
            State::Held(Responder::Remote(_)) => "remote",
            State::Shared(_) => "passed on",
            State::Spent => "answered",
        };
        write!(f, "RpcCallContext({state})")
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Serialize for RpcCallContext<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = self.lock();
        let place = match &*state {
            State::Asking(token) => scope::claim(*token),
            State::Spent => Err("a call context that was answered"),
            State::Held(_) => {
                let State::Held(responder) = std::mem::replace(&mut *state, State::Spent) else {
                    unreachable!("matched above")
                };
                let shared = Arc::new(Mutex::new(Some(responder)));
                *state = State::Shared(Arc::clone(&shared));
                scope::pass_on(Box::new(shared), self.deadline)
            }
            State::Shared(shared) => scope::pass_on(Box::new(Arc::clone(shared)), self.deadline),
        };
        drop(state);
        serializer.serialize_u32(place.map_err(serde::ser::Error::custom)?)
    }
}

impl<'de, T: Serialize + DeserializeOwned + Send + 'static> Deserialize<'de> for RpcCallContext<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let place = u32::deserialize(deserializer)?;
        let Arrived {
            call,
            deadline,
            trace,
        } = scope::arrive(place).map_err(serde::de::Error::custom)?;
        Ok(Self {
            state: Mutex::new(State::Held(Responder::Remote(call))),
            deadline,
            trace: trace.map(Box::new),
        })
    }
}

fn lock_shared<T>(shared: &Shared<T>) -> MutexGuard<'_, Option<Responder<T>>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Transfer for Shared<T> {
    /// From now on this environment is a relay: a small task waits for the answer, or for the asker to give up.
    fn commit(self: Box<Self>, env: &Arc<EnvInner>, link: &Arc<Link>) -> Result<RequestId, String> {
        let Some(responder) = lock_shared(&self).take() else {
            return Err("a call context was put into a message twice".to_owned());
        };
        let (answered, answer) = oneshot::channel();
        let id = link
            .client
            .reserve_id(move |answer| drop(answered.send(answer)))
            .map_err(|error| error.to_string())?;
        let link = Arc::clone(link);
        env.spawn(async move { relay(responder, answer, id, link).await });
        Ok(id)
    }
}

async fn relay<T: Serialize + DeserializeOwned>(
    mut responder: Responder<T>,
    answer: oneshot::Receiver<Result<Reply, RequestError>>,
    id: RequestId,
    link: Arc<Link>,
) {
    tokio::select! {
        biased;
        answer = answer => match answer {
            Ok(Ok(body)) => match decode_reply(&body, link) {
                Ok(value) => responder.reply(value),
                Err(text) => responder.fail(Failure::new(code::RELAY_LOST, text)),
            },
            Ok(Err(RequestError::Failed(failure))) => responder.fail(failure),
            Ok(Err(error)) => responder.fail(Failure::new(code::RELAY_LOST, error.to_string())),
            // The message was never sent.
            Err(_) => responder.fail(Failure::new(code::RELAY_LOST, "the call could not be passed on")),
        },
        () = poll_fn(|cx| responder.poll_cancelled(cx)) => {
            link.client.cancel(id);
            responder.fail(Failure::new(FailureCode::CANCELLED, "cancelled by the asker"));
        }
    }
}
