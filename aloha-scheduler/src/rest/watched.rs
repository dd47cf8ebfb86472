//! What passes through a connection, seen by its [`Watch`]: the bytes, the body of a request, the answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::Share;
use super::places::Place;
use super::watch::{Phase, Watch};

/// What a connection begins with that does not speak HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stranger {
    /// It speaks Aloha's RPC.
    Rpc,
    /// It speaks HTTP/2 without having asked.
    Http2,
}

impl Stranger {
    fn of(beginning: &[u8]) -> Option<Self> {
        if beginning.starts_with(b"ALOH") {
            Some(Self::Rpc)
        } else if beginning.starts_with(b"PRI * HTTP/2.0\r\n") {
            Some(Self::Http2)
        } else {
            None
        }
    }
}

/// The two directions of a connection.
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    stream: S,
    watch: Arc<Watch>,
    has_begun: bool,
    stranger: Option<Stranger>,
}

impl<S> WatchedStream<S> {
    pub(super) fn new(stream: S, watch: Arc<Watch>) -> Self {
        Self {
            stream,
            watch,
            has_begun: false,
            stranger: None,
        }
    }

    /// The stream, and who was at the other end where it was a stranger.
    pub(super) fn into_parts(self) -> (S, Option<Stranger>) {
        (self.stream, self.stranger)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let received = &buf.filled()[before..];
        if received.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.watch.advance(Phase::Idle, Phase::Head);
        if !self.has_begun {
            self.has_begun = true;
            self.stranger = Stranger::of(received);
            if self.stranger.is_some() {
                buf.set_filled(before);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch.on_write(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch.on_write(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Asked when there is nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.watch.advance(Phase::Answered, Phase::Idle);
        Poll::Ready(Ok(()))
    }

    /// Left to whoever parts with the client, who may have a last word.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The body of a request, while it arrives.
#[derive(Debug)]
pub(super) struct WatchedBody {
    body: Incoming,
    watch: Arc<Watch>,
}

impl WatchedBody {
    pub(super) fn new(body: Incoming, watch: Arc<Watch>) -> Self {
        Self { body, watch }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending() {
            self.watch.advance(Phase::Busy, Phase::Body);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.watch.advance(Phase::Body, Phase::Busy);
    }
}

/// Most of an answer that is handed to the connection at once; the rest waits here, where it counts.
pub(super) const SLICE_BYTES: usize = 64 << 10;

/// An answer, until the last of it is handed to the connection.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    /// What is left of a large piece.
    rest: Bytes,
    watch: Arc<Watch>,
    kept: Kept,
}

/// What an answer keeps while it is there.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Where it waits for news.
    place: Option<Place>,
    /// Where it is large.
    _share: Option<Share>,
}

impl Kept {
    pub(super) fn new(place: Option<Place>, share: Option<Share>) -> Self {
        Self {
            place,
            _share: share,
        }
    }
}

impl Answer {
    pub(super) fn new(body: Body, watch: Arc<Watch>, kept: Kept) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            watch,
            kept,
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => self.rest = piece,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let slice = self.rest.len().min(SLICE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(slice)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    /// Asked before the first piece.
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.kept.place.is_some() {
            self.watch.set_long(false);
        }
        self.watch.enter(Phase::Answered);
    }
}
