//! The reply to come.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use aloha_transport::{Failure, ResponseFuture};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::call_context::RpcCallContext;
use crate::config::RpcConfig;
use crate::env::EnvInner;
use crate::envelope::Envelope;
use crate::error::AskError;
use crate::link::Link;
use crate::scope::{self, Decoding, Origin};
use crate::target::Target;

/// The reply to an [`ask`](crate::RpcEndpointRef::ask), whose message was queued already. Dropping it
/// cancels the ask, which its handler [can see](RpcCallContext::is_cancelled); a message that still waits in another
/// environment is skipped.
#[must_use = "dropping an ask cancels it"]
pub struct Ask<R> {
    state: State<R>,
    env: Arc<EnvInner>,
    endpoint: Target,
}

enum State<R> {
    Local {
        reply: oneshot::Receiver<Result<R, Failure>>,
        deadline: Option<Deadline>,
    },
    Remote {
        reply: ResponseFuture,
        link: Arc<Link>,
    },
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
        limit: Option<(Instant, Duration)>,
        env: Arc<EnvInner>,
        endpoint: Target,
    ) -> Self {
        let deadline = limit.map(|(at, timeout)| Deadline {
            at,
            timeout,
            slot: None,
        });
        Self {
            state: State::Local { reply, deadline },
            env,
            endpoint,
        }
    }

    pub(crate) fn remote(
        reply: ResponseFuture,
        link: Arc<Link>,
        env: Arc<EnvInner>,
        endpoint: Target,
    ) -> Self {
        Self {
            state: State::Remote { reply, link },
            env,
            endpoint,
        }
    }

    pub(crate) fn failed(error: AskError, env: Arc<EnvInner>, endpoint: Target) -> Self {
        Self {
            state: State::Failed(error),
            env,
            endpoint,
        }
    }

    /// With another time limit, counted from now. The call is cancelled when it passes; the receiver was told of the
    /// limit that the ask was made with ([`ask_for`](crate::RpcEndpointRef::ask_for)).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limit(timeout);
        self
    }

    /// Waits no longer than the asker of `call` does; what [`timeout`](Self::timeout) says holds here too.
    pub fn within<T>(mut self, call: &RpcCallContext<T>) -> Self {
        let now = self.env.runtime.now();
        if let Some(left) = call.time_left(now) {
            self.limit(left);
        }
        self
    }

    fn limit(&mut self, limit: Duration) {
        match &mut self.state {
            State::Local { deadline, .. } => {
                if let Some(slot) = deadline.take().and_then(|deadline| deadline.slot) {
                    self.env.deadlines.release(slot);
                }
                let at = self.env.runtime.now().checked_add(limit);
                *deadline = at.map(|at| Deadline {
                    at,
                    timeout: limit,
                    slot: None,
                });
            }
            State::Remote { reply, .. } => reply.set_timeout(limit),
            State::Failed(_) | State::Done => {}
        }
    }

    fn release(&mut self) {
        if let State::Local {
            deadline: Some(Deadline {
                slot: Some(slot), ..
            }),
            ..
        } = &self.state
        {
            self.env.deadlines.release(*slot);
        }
        self.state = State::Done;
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
        let this = &mut *self;
        let result = match &mut this.state {
            State::Local { reply, deadline } => match Pin::new(reply).poll(cx) {
                Poll::Ready(Ok(Ok(value))) => Ok(value),
                Poll::Ready(Ok(Err(failure))) => Err(AskError::from_failure(
                    this.endpoint.uri(&this.env),
                    failure,
                )),
                Poll::Ready(Err(_)) => Err(AskError::Dropped {
                    endpoint: this.endpoint.uri(&this.env),
                }),
                Poll::Pending => {
                    let Some(deadline) = deadline else {
                        return Poll::Pending;
                    };
                    let timeout = deadline.timeout;
                    let expired = this.env.deadlines.poll(&mut deadline.slot, deadline.at, cx);
                    // Looked at behind the insertion: either this or the shutdown sees the other.
                    if expired.is_pending() && !this.env.is_stopped() {
                        return Poll::Pending;
                    }
                    let endpoint = this.endpoint.uri(&this.env);
                    let key = RpcConfig::ASK_TIMEOUT_KEY;
                    Err(if this.env.is_stopped() {
                        AskError::EnvironmentStopped { endpoint }
                    } else {
                        AskError::TimedOut {
                            endpoint,
                            timeout,
                            key,
                        }
                    })
                }
            },
            State::Remote { reply, link } => match std::task::ready!(Pin::new(reply).poll(cx)) {
                Ok(body) => {
                    decode_reply(body, &this.env, link).map_err(|text| AskError::BadReply {
                        endpoint: this.endpoint.uri(&this.env),
                        text,
                    })
                }
                Err(error) => Err(AskError::from_request(this.endpoint.uri(&this.env), error)),
            },
            State::Failed(error) => Err(error.clone()),
            State::Done => unreachable!("a future is not polled after its end"),
        };
        this.release();
        Poll::Ready(result)
    }
}

impl<R> Unpin for Ask<R> {}

impl<R> Drop for Ask<R> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<R> fmt::Debug for Ask<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("endpoint", &self.endpoint.uri(&self.env))
            .finish_non_exhaustive()
    }
}

/// The value in a reply's bytes.
pub(crate) fn decode_reply<R: DeserializeOwned>(
    body: Bytes,
    env: &Arc<EnvInner>,
    link: &Arc<Link>,
) -> Result<R, String> {
    let mut rest = &body[..];
    let envelope = Envelope::decode(&mut rest).map_err(|error| error.to_string())?;
    if !envelope.calls.is_empty() {
        return Err("a reply cannot carry a call context".to_owned());
    }
    let codec = env.config.codec;
    let (env, link) = (Arc::clone(env), Arc::clone(link));
    let decoding = Decoding {
        env,
        origin: Origin::Link(link),
        request: None,
        calls: Vec::new(),
        deadline: None,
        trace: None,
    };
    let (decoded, _) = scope::decoding(decoding, || codec.decode(rest));
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
