//! The writer: swaps the whole write queue for an empty one, adds parts of large frames, and writes it once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::counted::Counted;
use super::{Connection, Phase, keep_waker};
use crate::error::CloseReason;
use crate::write_queue::WriteQueue;

impl Connection {
    pub(super) async fn write_loop(&self, writer: &mut Counted<'_>) -> CloseReason {
        let mut batch = WriteQueue::default();
        loop {
            match self.next_batch(&mut batch).await {
                NextBatch::Write => {}
                // The ends are in boxes, so that nobody has room for them before.
                NextBatch::Finished => {
                    drop(writer.shutdown().await);
                    return Box::pin(self.shut()).await;
                }
                NextBatch::Closed => {
                    // A hint for the peer; one that does not read is not waited for.
                    let hint = tokio::time::timeout(Duration::ZERO, writer.shutdown());
                    drop(Box::pin(hint).await);
                    return CloseReason::Local;
                }
            }
            let written = {
                let mut writing = pin!(batch.write_to(writer));
                poll_fn(|cx| match writing.as_mut().poll(cx) {
                    Poll::Ready(written) => Poll::Ready(Some(written)),
                    Poll::Pending => self.poll_shut_out(cx).map(|()| None),
                })
                .await
            };
            match written {
                Some(Ok(())) => batch.clear(),
                // How much of the batch has left is not known: it counts as lost.
                Some(Err(error)) => {
                    self.on_lost(batch.one_way());
                    return CloseReason::Io(Arc::new(error));
                }
                None => {
                    self.on_lost(batch.one_way());
                    return CloseReason::Local;
                }
            }
        }
    }

    /// Ready once what the writer writes is no use any more.
    fn poll_shut_out(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if let Phase::Closed(_) = state.phase {
            return Poll::Ready(());
        }
        keep_waker(&mut state.writer, cx);
        Poll::Pending
    }

    /// Waits for frames and swaps them into `batch`.
    async fn next_batch(&self, batch: &mut WriteQueue) -> NextBatch {
        let crowded = poll_fn(|cx| {
            let mut state = self.lock();
            state.writing = false;
            match &state.phase {
                Phase::Closed(_) => return Poll::Ready(Err(NextBatch::Closed)),
                Phase::Connecting | Phase::Open(_) => {}
            }
            if state.has_finished() {
                return Poll::Ready(Err(NextBatch::Finished));
            }
            if !state.has_something_to_write() {
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(
                state.responses.in_flight() > 1 || state.incoming.active() > 1
            ))
        })
        .await;
        match crowded {
            Err(end) => return end,
            // The first of many woke us: let the others append too, and write once for all.
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => {}
        }
        let mut state = self.lock();
        std::mem::swap(&mut state.queue, batch);
        state.writing = true;
        state.take_large(batch);
        let watchers = std::mem::take(&mut state.watchers);
        drop(state);
        watchers.into_iter().for_each(Waker::wake);
        NextBatch::Write
    }
}

enum NextBatch {
    Write,
    Finished,
    Closed,
}
