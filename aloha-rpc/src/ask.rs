//! The reply to come.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use aloha_transport::Failure;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::call_context::RpcCallContext;
use crate::config::RpcConfig;
use crate::env::EnvInner;
use crate::envelope::Envelope;
use crate::error::AskError;
use crate::link::Link;
use crate::scope::{self, Decoding};
use crate::target::Transmitted;

/// The reply to an [`ask`](crate::RpcEndpointRef::ask), whose message was queued already. Dropping it
/// cancels the ask, which its handler [can see](RpcCallContext::is_cancelled); a message that still waits in another
/// environment is skipped.
#[must_use = "dropping an ask cancels it"]
pub struct Ask<R> {
    state: State<R>,
}

enum State<R> {
    Local {
        reply: oneshot::Receiver<Result<R, Failure>>,
        deadline: Option<Deadline>,
        env: Arc<EnvInner>,
        endpoint: Arc<str>,
    },
    Remote(Transmitted),
    Failed(AskError),
    Done,
}

struct Deadline {
    at: Instant,
    timeout: Duration,
    slot: Option<usize>,
}

impl<R> Ask<R> {
    pub(crate) fn local(
        reply: oneshot::Receiver<Result<R, Failure>>,
        (at, timeout): (Instant, Duration),
        env: Arc<EnvInner>,
        endpoint: Arc<str>,
    ) -> Self {
        let slot = None;
        let deadline = Some(Deadline { at, timeout, slot });
        Self {
            state: State::Local {
                reply,
                deadline,
                env,
                endpoint,
            },
        }
    }

    pub(crate) fn remote(transmitted: Transmitted) -> Self {
        let state = State::Remote(transmitted);
        Self { state }
    }

    pub(crate) fn failed(error: AskError) -> Self {
        let state = State::Failed(error);
        Self { state }
    }

    /// With another time limit, counted from now. The call is cancelled when it passes; the receiver was told of the
    /// limit that the ask was made with ([`ask_for`](crate::RpcEndpointRef::ask_for)).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limit(timeout);
        self
    }

    /// Waits no longer than the asker of `call` does; what [`timeout`](Self::timeout) says holds here too.
    pub fn within<T>(mut self, call: &RpcCallContext<T>) -> Self {
        let env = match &self.state {
            State::Local { env, .. } => Some(Arc::clone(env)),
            State::Remote(sent) => sent.link.env(),
            State::Failed(_) | State::Done => None,
        };
        if let Some(left) = env.and_then(|env| call.time_left(env.runtime.now())) {
            self.limit(left);
        }
        self
    }

    fn limit(&mut self, limit: Duration) {
        match &mut self.state {
            State::Local { deadline, env, .. } => {
                if let Some(slot) = deadline.take().and_then(|deadline| deadline.slot) {
                    env.deadlines.release(slot);
                }
                let at = env.runtime.now().checked_add(limit);
                *deadline = at.map(|at| Deadline {
                    at,
                    timeout: limit,
                    slot: None,
                });
            }
            State::Remote(Transmitted {
                link,
                request: Some(id),
                ..
            }) => link.client.set_timeout(*id, limit),
            State::Remote(_) | State::Failed(_) | State::Done => {}
        }
    }

    /// Gives up what is waited for.
    fn release(&mut self) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Local {
                deadline:
                    Some(Deadline {
                        slot: Some(slot), ..
                    }),
                env,
                ..
            } => env.deadlines.release(slot),
            State::Remote(Transmitted {
                link,
                request: Some(id),
                ..
            }) => link.client.cancel(id),
            State::Local { .. } | State::Remote(_) | State::Failed(_) | State::Done => {}
        }
    }
}

impl<R: DeserializeOwned> Ask<R> {
    /// Waits on this thread, which must not be one that runs async code.
    ///
    /// # Errors
    ///
    /// As the future.
    pub fn wait(self) -> Result<R, AskError> {
        block_on(self)
    }
}

impl<R: DeserializeOwned> Future for Ask<R> {
    type Output = Result<R, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.state {
            State::Local {
                reply,
                deadline,
                env,
                endpoint,
            } => {
                let uri = || env.uri_of(endpoint);
                match Pin::new(reply).poll(cx) {
                    Poll::Ready(Ok(Ok(value))) => Ok(value),
                    Poll::Ready(Ok(Err(failure))) => Err(AskError::from_failure(uri(), failure)),
                    Poll::Ready(Err(_)) => Err(AskError::Dropped { endpoint: uri() }),
                    Poll::Pending => std::task::ready!(poll_end(deadline, env, uri, cx)),
                }
            }
            State::Remote(Transmitted {
                link,
                number,
                request,
            }) => {
                let id = request.expect("taken with the answer alone");
                let answer = std::task::ready!(link.client.poll_answer(id, cx));
                *request = None;
                match answer {
                    Ok(body) => decode_reply(&body, Arc::clone(link)).map_err(|text| {
                        let endpoint = link.uri(*number);
                        AskError::BadReply { endpoint, text }
                    }),
                    Err(error) => Err(AskError::from_request(link.uri(*number), error)),
                }
            }
            State::Failed(error) => Err(error.clone()),
            State::Done => unreachable!("a future is not polled after its end"),
        };
        self.release();
        Poll::Ready(result)
    }
}

/// Ready once nobody waits for a local reply any more.
fn poll_end<R>(
    deadline: &mut Option<Deadline>,
    env: &EnvInner,
    uri: impl Fn() -> String,
    cx: &Context<'_>,
) -> Poll<Result<R, AskError>> {
    let Some(deadline) = deadline else {
        return Poll::Pending;
    };
    let timeout = deadline.timeout;
    let expired = env.deadlines.poll(&mut deadline.slot, deadline.at, cx);
    // Looked at behind the insertion: either this or the shutdown sees the other.
    if expired.is_pending() && !env.is_stopped() {
        return Poll::Pending;
    }
    let endpoint = uri();
    let key = RpcConfig::ASK_TIMEOUT_KEY;
    Poll::Ready(Err(if env.is_stopped() {
        AskError::EnvironmentStopped { endpoint }
    } else {
        AskError::TimedOut {
            endpoint,
            timeout,
            key,
        }
    }))
}

impl<R> Unpin for Ask<R> {}

impl<R> Drop for Ask<R> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<R> fmt::Debug for Ask<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = match &self.state {
            State::Local { env, endpoint, .. } => env.uri_of(endpoint),
            State::Remote(sent) => sent.link.uri(sent.number),
            State::Failed(error) => error.to_string(),
            State::Done => String::new(),
        };
        f.debug_struct("Ask")
            .field("endpoint", &endpoint)
            .finish_non_exhaustive()
    }
}

/// The value in a reply's bytes.
pub(crate) fn decode_reply<R: DeserializeOwned>(body: &[u8], link: Arc<Link>) -> Result<R, String> {
    let mut rest = body;
    let envelope = Envelope::decode(&mut rest).map_err(|error| error.to_string())?;
    if !envelope.calls.is_empty() {
        return Err("a reply cannot carry a call context".to_owned());
    }
    let codec = link.codec;
    let (decoded, _) = scope::decoding(Decoding::reply(link), || codec.decode(rest));
    decoded.map_err(|error| format!("cannot decode it: {error}"))
}

/// Runs a future that needs no runtime of its own to its end on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
