//! The bytes behind a request or a reply: the end that reads them, and the task that takes them from their source.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::client::ResponseFuture;
use crate::connection::Connection;
use crate::error::RequestError;
use crate::message::RequestId;
use crate::streams::{STREAM_DATA_BYTES_MAX, STREAM_WINDOW_BYTES};

/// A new buffer is taken when less room is left in the last.
const ROOM_MIN: usize = 4 << 10;

/// Bytes of unknown length that follow a request or a reply.
///
/// Nothing is sent before it is first read. From then on at most 256 KiB are under way or unread, so a slow reader
/// holds back its sender, and nobody else on the connection. Dropped before its end, it stops the sender.
///
/// # Errors
///
/// Reading fails, behind the bytes that came before, if the source failed, with its text; and if the connection has
/// ended, with [`io::ErrorKind::ConnectionAborted`]. The end without an error is the end of the source.
pub struct BodyStream {
    /// None for a reply that has no stream.
    from: Option<(Arc<Connection>, u32)>,
    /// Taken from the connection, not yet read.
    taken: BytesMut,
    /// Read, and not yet told to the sender.
    read: u32,
}

impl BodyStream {
    pub(crate) fn new(connection: Arc<Connection>, number: u32) -> Self {
        Self {
            from: Some((connection, number)),
            taken: BytesMut::new(),
            read: 0,
        }
    }

    fn empty() -> Self {
        Self {
            from: None,
            taken: BytesMut::new(),
            read: 0,
        }
    }
}

impl AsyncRead for BodyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { from, taken, read } = &mut *self;
        let Some((connection, number)) = from else {
            return Poll::Ready(Ok(()));
        };
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if taken.is_empty() {
            taken.clear();
            if !ready!(connection.poll_stream(*number, taken, cx))? {
                return Poll::Ready(Ok(()));
            }
        }
        let bytes = taken.len().min(buffer.remaining());
        buffer.put_slice(&taken[..bytes]);
        taken.advance(bytes);
        *read += u32::try_from(bytes).expect("within the window");
        if *read >= STREAM_WINDOW_BYTES / 4 {
            connection.on_stream_read(*number, std::mem::take(read));
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for BodyStream {
    fn drop(&mut self) {
        if let Some((connection, number)) = &self.from {
            connection.on_reader_gone(*number);
        }
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyStream")
            .field("number", &self.from.as_ref().map(|(_, number)| number))
            .finish_non_exhaustive()
    }
}

/// The reply to come, and the stream behind it; the stream of a reply without one is empty. Dropped before it came,
/// it cancels the request at the peer.
#[must_use = "dropping the future cancels the request"]
pub struct StreamResponseFuture {
    reply: ResponseFuture,
    sent: Option<(Arc<Connection>, RequestId)>,
}

impl StreamResponseFuture {
    pub(crate) fn new(reply: ResponseFuture, sent: Option<(Arc<Connection>, RequestId)>) -> Self {
        Self { reply, sent }
    }

    /// The stream that came with the reply.
    fn fetch(&mut self) -> BodyStream {
        let fetched = self.sent.take().and_then(|(connection, id)| {
            let number = connection.fetch_stream(id)?;
            Some(BodyStream::new(connection, number))
        });
        fetched.unwrap_or_else(BodyStream::empty)
    }
}

impl Future for StreamResponseFuture {
    type Output = Result<(Bytes, BodyStream), RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(Pin::new(&mut self.reply).poll(cx));
        // Also where the reply came too late: its stream is stopped.
        let stream = self.fetch();
        Poll::Ready(reply.map(|reply| (reply, stream)))
    }
}

impl Drop for StreamResponseFuture {
    fn drop(&mut self) {
        drop(self.fetch());
    }
}

impl fmt::Debug for StreamResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamResponseFuture")
            .field("reply", &self.reply)
            .finish_non_exhaustive()
    }
}

/// A stream of this side that has not ended. Dropped, by a panic of the source or the end of the runtime, it ends it.
struct Pump {
    connection: Arc<Connection>,
    number: u32,
}

impl Drop for Pump {
    fn drop(&mut self) {
        let text = "the source was dropped before its end";
        let end = Err(text.to_owned());
        self.connection.finish_stream(self.number, end);
    }
}

/// Takes from the source what the receiver lets through, to its end, or until nobody wants more.
pub(crate) async fn pump(
    connection: Arc<Connection>,
    number: u32,
    mut source: impl AsyncRead + Send + Unpin,
) {
    let pump = Pump { connection, number };
    let connection = &pump.connection;
    let mut buffer = BytesMut::new();
    while let Some(room) = poll_fn(|cx| connection.poll_stream_room(number, cx)).await {
        if buffer.capacity() < ROOM_MIN {
            buffer.reserve(STREAM_DATA_BYTES_MAX);
        }
        let room = room.min(buffer.capacity());
        let mut space = (&mut buffer).limit(room);
        let read = tokio::select! {
            biased;
            () = poll_fn(|cx| connection.poll_stream_unwanted(number, cx)) => return,
            read = source.read_buf(&mut space) => read,
        };
        match read {
            Ok(0) => return connection.finish_stream(number, Ok(())),
            Ok(_) => connection.push_stream(number, buffer.split().freeze()),
            Err(error) => return connection.finish_stream(number, Err(error.to_string())),
        }
    }
}
