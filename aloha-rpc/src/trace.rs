//! Which trace a message belongs to: ids that cross the wire, and the span a handler runs in.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use aloha_transport::Runtime;

thread_local! {
    static CURRENT: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

/// Who sent a message, for tracing: the ids of [W3C trace context](https://www.w3.org/TR/trace-context/).
///
/// With [`RpcConfig::trace`](crate::RpcConfig::trace), every message carries one: that of the handler that sent it, with
/// a span of its own, or a new trace. The receiving handler runs in a `tracing` span named `rpc` with the fields
/// `endpoint` and `trace`, and what it sends belongs to the same trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace.
    pub trace_id: [u8; 16],
    /// The span that sent the message.
    pub span_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

impl TraceContext {
    /// The trace of the handler, or of the [`scope`](Self::scope), that runs on this thread now.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// Runs a future as part of this trace: what it sends carries it on.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        InTrace {
            trace: self,
            future: Box::pin(future),
        }
    }

    /// A new trace, sampled.
    pub(crate) fn root(runtime: &dyn Runtime) -> Self {
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&runtime.random_u64().to_be_bytes());
        trace_id[8..].copy_from_slice(&runtime.random_u64().to_be_bytes());
        Self {
            trace_id,
            span_id: runtime.random_u64().to_be_bytes(),
            flags: 1,
        }
    }

    /// What a message sent now carries.
    pub(crate) fn outgoing(runtime: &dyn Runtime) -> Self {
        match Self::current() {
            Some(current) => Self {
                span_id: runtime.random_u64().to_be_bytes(),
                ..current
            },
            None => Self::root(runtime),
        }
    }
}

/// The header `traceparent`: `00-<trace id>-<span id>-<flags>`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        for byte in self.trace_id {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("-")?;
        for byte in self.span_id {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "-{:02x}", self.flags)
    }
}

struct InTrace<F> {
    trace: TraceContext,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for InTrace<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        struct Reset(Option<TraceContext>);
        impl Drop for Reset {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _reset = Reset(CURRENT.replace(Some(self.trace)));
        self.future.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: TraceContext = TraceContext {
        trace_id: [0xab; 16],
        span_id: [0x01; 8],
        flags: 1,
    };

    #[test]
    fn it_reads_as_a_traceparent() {
        assert_eq!(
            TRACE.to_string(),
            "00-abababababababababababababababab-0101010101010101-01"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_scope_holds_for_its_future_alone() {
        assert_eq!(TraceContext::current(), None);
        let inside = TRACE.scope(async {
            tokio::task::yield_now().await;
            TraceContext::current()
        });
        assert_eq!(inside.await, Some(TRACE));
        assert_eq!(TraceContext::current(), None);
    }
}
