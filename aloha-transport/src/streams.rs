//! The streams of one connection: bytes of unknown length that follow a request or a reply. Pure.
//!
//! ```text
//!   source ──pump──► pending ──writer──► ═══ Data ═══ ──reader──► arrived ──► BodyStream
//!                       ▲                                                        │
//!                       └───────────────────── Credit ◄──────────────────────────┘
//! ```
//!
//! Whoever sends a stream gives it its number. It is opened by the request or reply in front of it, and closed by one
//! `End`, which the sender owes also after a `Stop`. The sender says nothing of it before the receiver has: credit when
//! it is first read, or a stop when it is dropped; so nothing of a stream overtakes its opening, and a source is
//! not touched before somebody wants it. What is under way and unread is within the credit, at either end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use crate::client::Body;
use crate::error::CloseReason;
use crate::message::{RequestId, STREAM_DATA, STREAM_END, truncated};
use crate::rare::Empty;
use crate::write_queue::WriteQueue;

/// How many bytes of a stream may be under way or unread.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// How many bytes of a stream go in one frame, at most.
pub(crate) const STREAM_DATA_BYTES_MAX: usize = 64 << 10;
/// How many streams one connection carries at once, in each direction.
pub const STREAMS_MAX: u32 = 64;
/// The longest text of an error, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// What a peer may not do with streams.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("stream {0}, which is not open")]
    Unknown(u32),
    #[error("stream {0} is opened while it is open")]
    InUse(u32),
    #[error("more than {STREAMS_MAX} streams at once")]
    TooMany,
    #[error("stream {stream} brings {brings} bytes, its credit is {credit}")]
    NoCredit {
        stream: u32,
        brings: usize,
        credit: u64,
    },
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    outgoing: BTreeMap<u32, Outgoing>,
    /// Numbers from this one on were never given out.
    next: u32,
    /// Those with something to write, in turn.
    ready: VecDeque<u32>,
    incoming: BTreeMap<u32, Incoming>,
    /// Incoming streams whose end has not come.
    arriving: u32,
    /// Requests whose askers want a stream with the reply, while there is none.
    wanted: BTreeSet<RequestId>,
    /// The streams that came with replies and are not yet fetched.
    answers: BTreeMap<RequestId, u32>,
}

#[derive(Debug, Default)]
struct Outgoing {
    /// The request in front of it; none if it is a reply.
    request: Option<RequestId>,
    /// The receiver has said something of it, so its opening has arrived.
    acknowledged: bool,
    credit: u64,
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    /// Once set, nothing more is taken from the source.
    end: Option<Result<(), String>>,
    pump: Option<Waker>,
    is_ready: bool,
}

#[derive(Debug, Default)]
struct Incoming {
    arrived: BytesMut,
    credit: u64,
    was_read: bool,
    /// Its reader is gone: what still comes is thrown away.
    stopped: bool,
    end: Option<End>,
    reader: Option<Waker>,
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum End {
    Whole,
    /// At its source.
    Failed(String),
    /// With the connection.
    Lost(CloseReason),
}

impl Empty for Streams {
    const EMPTY: &'static Self = &Self {
        outgoing: BTreeMap::new(),
        next: 0,
        ready: VecDeque::new(),
        incoming: BTreeMap::new(),
        arriving: 0,
        wanted: BTreeSet::new(),
        answers: BTreeMap::new(),
    };
}

impl Streams {
    /// Whether no stream is open in either direction.
    pub(crate) fn is_empty(&self) -> bool {
        self.outgoing.is_empty() && self.arriving == 0
    }

    /// How many streams are open in both directions.
    pub(crate) fn open(&self) -> u32 {
        u32::try_from(self.outgoing.len()).expect("a few") + self.arriving
    }

    /// Bytes that were taken from sources and wait to be written.
    pub(crate) fn pending_bytes(&self) -> usize {
        let pending = self.outgoing.values().map(|stream| stream.pending_bytes);
        pending.sum()
    }

    // ---- outgoing ------------------------------------------------------------------------------

    /// Whether this side has [`STREAMS_MAX`] streams open.
    pub(crate) fn is_full(&self) -> bool {
        self.outgoing.len() >= STREAMS_MAX as usize
    }

    /// A number for a stream of this side; none when it [is full](Self::is_full).
    pub(crate) fn begin(&mut self, request: Option<RequestId>) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let stream = Outgoing {
            request,
            ..Outgoing::default()
        };
        self.outgoing.insert(number, stream);
        Some(number)
    }

    /// How much may be taken from the source now; none once nothing more is wanted of it.
    pub(crate) fn poll_room(&mut self, number: u32, cx: &Context<'_>) -> Poll<Option<usize>> {
        let Some(stream) = self.outgoing.get_mut(&number) else {
            return Poll::Ready(None);
        };
        if stream.end.is_some() {
            return Poll::Ready(None);
        }
        let credit = usize::try_from(stream.credit).unwrap_or(usize::MAX);
        let window = STREAM_WINDOW_BYTES as usize;
        let room = window.saturating_sub(stream.pending_bytes).min(credit);
        if room > 0 {
            return Poll::Ready(Some(room.min(STREAM_DATA_BYTES_MAX)));
        }
        stream.pump = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready once nothing more is wanted of the source.
    pub(crate) fn poll_unwanted(&mut self, number: u32, cx: &Context<'_>) -> Poll<()> {
        match self.outgoing.get_mut(&number) {
            Some(stream) if stream.end.is_none() => {
                stream.pump = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(()),
        }
    }

    /// Queues what came from the source.
    pub(crate) fn push(&mut self, number: u32, bytes: Bytes) {
        let Some(stream) = self.outgoing.get_mut(&number) else {
            return;
        };
        if stream.end.is_none() {
            stream.credit = stream.credit.saturating_sub(bytes.len() as u64);
            stream.pending_bytes += bytes.len();
            stream.pending.push_back(bytes);
            self.ready(number);
        }
    }

    /// The source has ended, or is given up. A second end changes nothing.
    pub(crate) fn finish(&mut self, number: u32, end: Result<(), String>) -> Option<Waker> {
        let stream = self.outgoing.get_mut(&number)?;
        stream.end.get_or_insert(end);
        let pump = stream.pump.take();
        if stream.acknowledged {
            self.ready(number);
        }
        pump
    }

    /// Ends the stream behind a request whose asker has given up.
    pub(crate) fn give_up(&mut self, request: RequestId) -> Option<Waker> {
        let mut streams = self.outgoing.iter();
        let (number, _) = streams.find(|(_, stream)| stream.request == Some(request))?;
        self.finish(*number, Err("the asker has given up".to_owned()))
    }

    /// A request was answered: the stream behind it may go on, and its id means another request from now on.
    pub(crate) fn on_answered(&mut self, request: RequestId) {
        for stream in self.outgoing.values_mut() {
            stream.request = stream.request.filter(|known| *known != request);
        }
    }

    fn ready(&mut self, number: u32) {
        if let Some(stream) = self.outgoing.get_mut(&number)
            && !stream.is_ready
        {
            stream.is_ready = true;
            self.ready.push_back(number);
        }
    }

    /// The receiver lets more come. A stream that has ended is ignored.
    pub(crate) fn grant(&mut self, number: u32, bytes: u32) -> Result<Option<Waker>, StreamError> {
        let Some(stream) = self.outgoing.get_mut(&number) else {
            return self.was_open(number).map(|()| None);
        };
        stream.acknowledged = true;
        stream.credit = stream.credit.saturating_add(u64::from(bytes));
        let pump = stream.pump.take();
        if stream.end.is_some() {
            self.ready(number);
        }
        Ok(pump)
    }

    /// The receiver wants nothing more.
    pub(crate) fn stop(&mut self, number: u32) -> Result<Option<Waker>, StreamError> {
        let Some(stream) = self.outgoing.get_mut(&number) else {
            return self.was_open(number).map(|()| None);
        };
        stream.acknowledged = true;
        stream.pending.clear();
        stream.pending_bytes = 0;
        Ok(self.finish(number, Err("nobody reads it".to_owned())))
    }

    fn was_open(&self, number: u32) -> Result<(), StreamError> {
        if number < self.next {
            Ok(())
        } else {
            Err(StreamError::Unknown(number))
        }
    }

    /// Whether the writer may take something.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Appends data and ends, of each stream in turn, until they are `budget` bytes or more. Gives whom to wake.
    pub(crate) fn take(&mut self, batch: &mut WriteQueue, budget: usize) -> Vec<Waker> {
        let mut pumps = Vec::new();
        let enough = batch.len() + budget;
        while batch.len() < enough
            && let Some(number) = self.ready.pop_front()
        {
            let stream = self.outgoing.get_mut(&number);
            let stream = stream.expect("a stream goes when nothing of it is left");
            stream.is_ready = false;
            if let Some(bytes) = stream.pending.pop_front() {
                stream.pending_bytes -= bytes.len();
                pumps.extend(stream.pump.take());
                let fields = number.to_le_bytes();
                batch.push(STREAM_DATA, None, &fields, &Body::Shared(bytes));
                if !stream.pending.is_empty() || stream.end.is_some() {
                    self.ready(number);
                }
            } else if let Some(end) = stream.end.take() {
                let mut fields = number.to_le_bytes().to_vec();
                fields.push(u8::from(end.is_err()));
                let text = end.err().unwrap_or_default();
                let text = truncated(&text, TEXT_BYTES_MAX).as_bytes();
                batch.push(STREAM_END, None, &fields, &Body::Copied(text));
                self.outgoing.remove(&number);
            }
        }
        pumps
    }

    // ---- incoming ------------------------------------------------------------------------------

    /// A request or a reply with a stream has come.
    pub(crate) fn opened(&mut self, number: u32) -> Result<(), StreamError> {
        if self.incoming.contains_key(&number) {
            return Err(StreamError::InUse(number));
        }
        if self.arriving >= STREAMS_MAX {
            return Err(StreamError::TooMany);
        }
        self.incoming.insert(number, Incoming::default());
        self.arriving += 1;
        Ok(())
    }

    fn arriving(&mut self, number: u32) -> Result<&mut Incoming, StreamError> {
        let stream = self.incoming.get_mut(&number);
        stream
            .filter(|stream| stream.end.is_none())
            .ok_or(StreamError::Unknown(number))
    }

    pub(crate) fn on_data(
        &mut self,
        number: u32,
        bytes: &[u8],
    ) -> Result<Option<Waker>, StreamError> {
        let stream = self.arriving(number)?;
        let Some(credit) = stream.credit.checked_sub(bytes.len() as u64) else {
            return Err(StreamError::NoCredit {
                stream: number,
                brings: bytes.len(),
                credit: stream.credit,
            });
        };
        stream.credit = credit;
        if stream.stopped || bytes.is_empty() {
            return Ok(None);
        }
        // Copied: a slice would keep the whole buffer that it was read into.
        stream.arrived.extend_from_slice(bytes);
        Ok(stream.reader.take())
    }

    pub(crate) fn on_end(
        &mut self,
        number: u32,
        failure: Option<String>,
    ) -> Result<Option<Waker>, StreamError> {
        let stream = self.arriving(number)?;
        stream.end = Some(failure.map_or(End::Whole, End::Failed));
        let (reader, stopped) = (stream.reader.take(), stream.stopped);
        if stopped {
            self.incoming.remove(&number);
        }
        self.arriving -= 1;
        Ok(reader)
    }

    /// Exchanges what has come for `read`, which is empty; false at the end. The first time there is credit to send.
    pub(crate) fn poll_read(
        &mut self,
        number: u32,
        read: &mut BytesMut,
        cx: &Context<'_>,
    ) -> (Poll<io::Result<bool>>, Option<u32>) {
        let stream = self.incoming.get_mut(&number);
        let stream = stream.expect("a stream is there for as long as its reader");
        if !stream.arrived.is_empty() {
            std::mem::swap(&mut stream.arrived, read);
            return (Poll::Ready(Ok(true)), None);
        }
        let end = match &stream.end {
            None => {
                stream.reader = Some(cx.waker().clone());
                let first = !std::mem::replace(&mut stream.was_read, true);
                let grant = first.then_some(STREAM_WINDOW_BYTES);
                stream.credit += u64::from(grant.unwrap_or(0));
                return (Poll::Pending, grant);
            }
            Some(End::Whole) => Ok(false),
            Some(End::Failed(text)) => Err(io::Error::other(text.clone())),
            Some(End::Lost(reason)) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                reason.clone(),
            )),
        };
        (Poll::Ready(end), None)
    }

    /// The reader has read so many bytes. Whether to tell the sender.
    #[must_use]
    pub(crate) fn on_read(&mut self, number: u32, bytes: u32) -> bool {
        let Ok(stream) = self.arriving(number) else {
            return false;
        };
        stream.credit += u64::from(bytes);
        true
    }

    /// The reader is gone. Whether to tell the sender.
    #[must_use]
    pub(crate) fn on_reader_gone(&mut self, number: u32) -> bool {
        if let Ok(stream) = self.arriving(number) {
            stream.stopped = true;
            stream.arrived = BytesMut::new();
            stream.reader = None;
            return true;
        }
        self.incoming.remove(&number);
        false
    }

    // ---- replies -------------------------------------------------------------------------------

    /// The asker of this request wants a stream with the reply.
    pub(crate) fn want(&mut self, request: RequestId) {
        self.wanted.insert(request);
    }

    /// A reply with a stream has come; false when its asker does not want one.
    #[must_use]
    pub(crate) fn answer(&mut self, request: RequestId, number: u32) -> bool {
        let wanted = self.wanted.remove(&request);
        if wanted {
            self.answers.insert(request, number);
        }
        wanted
    }

    /// The asker has its answer, or is gone: gives the stream that came.
    pub(crate) fn fetch(&mut self, request: RequestId) -> Option<u32> {
        self.wanted.remove(&request);
        self.answers.remove(&request)
    }

    /// The connection has ended.
    pub(crate) fn close(&mut self, reason: &CloseReason) -> Vec<Waker> {
        let outgoing = std::mem::take(&mut self.outgoing).into_values();
        let mut wakers: Vec<Waker> = outgoing.filter_map(|stream| stream.pump).collect();
        self.ready.clear();
        self.arriving = 0;
        self.incoming.retain(|_, stream| !stream.stopped);
        for stream in self.incoming.values_mut() {
            stream.end.get_or_insert_with(|| End::Lost(reason.clone()));
            wakers.extend(stream.reader.take());
        }
        wakers
    }

    /// What holds after each frame of a peer, while nothing is read but the first time.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn check(&self) {
        let arriving = self.incoming.values().filter(|stream| stream.end.is_none());
        assert_eq!(arriving.count(), self.arriving as usize);
        assert!(self.arriving <= STREAMS_MAX);
        for stream in self.incoming.values() {
            let held = stream.arrived.len() as u64;
            assert!(held + stream.credit <= u64::from(STREAM_WINDOW_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// What the writer takes, as it stands on the wire.
    async fn written(streams: &mut Streams) -> Vec<u8> {
        let mut batch = WriteQueue::default();
        streams.take(&mut batch, usize::MAX / 2);
        let mut wire = Vec::new();
        batch.write_to(&mut wire).await.unwrap();
        wire
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_of_a_stream_leaves_before_its_receiver_has_said_something_of_it() {
        let mut streams = Streams::default();
        let number = streams.begin(Some(RequestId::from_bits(5))).unwrap();
        assert!(streams.poll_room(number, &cx()).is_pending());
        assert!(streams.give_up(RequestId::from_bits(5)).is_some());
        assert_eq!(written(&mut streams).await, []);
        streams.grant(number, 1).unwrap();
        let end = written(&mut streams).await;
        assert_eq!(end[..10], [28, 0, 0, 0, 16, 0, 0, 0, 0, 1]);
        assert!(streams.is_empty());
    }

    #[test]
    fn a_generous_receiver_does_not_make_the_sender_hold_more_than_a_window() {
        let mut streams = Streams::default();
        let number = streams.begin(None).unwrap();
        streams.grant(number, u32::MAX).unwrap();
        while let Poll::Ready(Some(room)) = streams.poll_room(number, &cx()) {
            streams.push(number, Bytes::from(vec![0; room]));
        }
        assert_eq!(streams.pending_bytes(), STREAM_WINDOW_BYTES as usize);
        let woken = streams.take(&mut WriteQueue::default(), 1);
        assert_eq!(woken.len(), 1, "the pump goes on");
    }

    #[test]
    fn an_answered_request_has_no_say_about_the_stream_behind_it() {
        let mut streams = Streams::default();
        let id = RequestId::from_bits(5);
        let number = streams.begin(Some(id)).unwrap();
        streams.on_answered(id);
        assert!(streams.give_up(id).is_none(), "another request by that id");
        assert!(streams.poll_unwanted(number, &cx()).is_pending());
    }
}
