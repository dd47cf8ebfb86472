//! One simulated connection: two queues of segments, each with the moment at which it arrives.
//!
//! Pure: the time, the links and the list of whom to wake come from outside.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::sim_links::{Fate, Links, Pair};

/// The largest segment.
const SEGMENT_BYTES_MAX: usize = 16 << 10;
/// Bytes that one direction holds, under way or unread, before its writer waits.
pub(super) const WINDOW_BYTES: usize = 256 << 10;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Caller,
    Acceptor,
}

/// How a read or a write went.
#[derive(Debug)]
pub(super) enum Attempt<T> {
    Done(io::Result<T>),
    /// Worth another try at that time, or when woken.
    At(Instant),
    /// Worth another try when woken.
    Later,
}

#[derive(Debug)]
pub(super) struct SimConnection {
    pair: Pair,
    /// Broken, not closed: what had not arrived is gone.
    broken: bool,
    from_caller: Direction,
    from_acceptor: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    segments: VecDeque<Segment>,
    /// Of all segments.
    bytes: usize,
    /// When the last segment arrives that is under way; none overtakes it.
    last_due: Option<Instant>,
    /// The writer has said that nothing follows.
    ended: bool,
    /// The sign that the reader is gone, on its way to the writer.
    refusal: Option<Due>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Segment {
    due: Due,
    /// Empty: the end.
    bytes: Bytes,
}

/// When something arrives.
#[derive(Debug, Clone, Copy)]
enum Due {
    At(Instant),
    /// Not while the hosts are parted.
    Held,
}

impl Due {
    fn has_come(self, now: Instant) -> bool {
        matches!(self, Self::At(due) if due <= now)
    }
}

impl SimConnection {
    pub(super) fn new(pair: Pair) -> Self {
        Self {
            pair,
            broken: false,
            from_caller: Direction::default(),
            from_acceptor: Direction::default(),
        }
    }

    pub(super) fn pair(&self) -> &Pair {
        &self.pair
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    fn written_by(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Caller => &mut self.from_caller,
            Side::Acceptor => &mut self.from_acceptor,
        }
    }

    fn read_by(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Caller => &mut self.from_acceptor,
            Side::Acceptor => &mut self.from_caller,
        }
    }

    fn directions(&mut self) -> [&mut Direction; 2] {
        [&mut self.from_caller, &mut self.from_acceptor]
    }

    /// Reads what has arrived; nothing, once the end has.
    pub(super) fn read(
        &mut self,
        side: Side,
        buffer: &mut ReadBuf<'_>,
        now: Instant,
        reader: &Waker,
        woken: &mut Vec<Waker>,
    ) -> Attempt<()> {
        let broken = self.broken;
        let direction = self.read_by(side);
        match direction.segments.front().map(|head| head.due) {
            Some(due) if due.has_come(now) => {
                direction.take(buffer, now);
                woken.extend(direction.writer.take());
                Attempt::Done(Ok(()))
            }
            _ if broken => Attempt::Done(Err(io::ErrorKind::ConnectionReset.into())),
            head => {
                direction.reader = Some(reader.clone());
                match head {
                    Some(Due::At(due)) => Attempt::At(due),
                    Some(Due::Held) | None => Attempt::Later,
                }
            }
        }
    }

    /// Sends one segment with as many of the bytes as it and the window hold.
    pub(super) fn write(
        &mut self,
        side: Side,
        bytes: &[u8],
        links: &mut Links,
        now: Instant,
        writer: &Waker,
        woken: &mut Vec<Waker>,
    ) -> Attempt<usize> {
        if self.broken {
            return Attempt::Done(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let direction = self.written_by(side);
        if direction.ended || direction.refusal.is_some_and(|due| due.has_come(now)) {
            return Attempt::Done(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Attempt::Done(Ok(0));
        }
        let sent = bytes
            .len()
            .min(SEGMENT_BYTES_MAX)
            .min(WINDOW_BYTES - direction.bytes);
        if sent == 0 {
            direction.writer = Some(writer.clone());
            return match direction.refusal {
                Some(Due::At(due)) => Attempt::At(due),
                Some(Due::Held) | None => Attempt::Later,
            };
        }
        self.send(
            side,
            Bytes::copy_from_slice(&bytes[..sent]),
            links,
            now,
            woken,
        );
        Attempt::Done(if self.broken {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(sent)
        })
    }

    /// Nothing more is written by this side: the other reads the end after what is under way.
    pub(super) fn finish(
        &mut self,
        side: Side,
        links: &mut Links,
        now: Instant,
        woken: &mut Vec<Waker>,
    ) {
        let direction = self.written_by(side);
        if !std::mem::replace(&mut direction.ended, true) && !self.broken {
            self.send(side, Bytes::new(), links, now, woken);
        }
    }

    /// This side reads no more: the other is told when it writes, once the sign has crossed.
    pub(super) fn refuse(
        &mut self,
        side: Side,
        links: &mut Links,
        now: Instant,
        woken: &mut Vec<Waker>,
    ) {
        if self.broken {
            return;
        }
        let due = links.signal(&self.pair, now).map_or(Due::Held, Due::At);
        let direction = self.read_by(side);
        direction.refusal = Some(due);
        woken.extend(direction.writer.take());
    }

    fn send(
        &mut self,
        side: Side,
        bytes: Bytes,
        links: &mut Links,
        now: Instant,
        woken: &mut Vec<Waker>,
    ) {
        let fate = links.send(&self.pair, now);
        let direction = self.written_by(side);
        let due = match fate {
            Fate::Arrives(at) => Due::At(in_order(&mut direction.last_due, at)),
            Fate::Held => Due::Held,
            Fate::Breaks => return self.break_off(now, woken),
        };
        direction.bytes += bytes.len();
        direction.segments.push_back(Segment { due, bytes });
        if direction.segments.len() == 1 {
            woken.extend(direction.reader.take());
        }
    }

    /// Both ends read what has arrived by now, then a reset.
    pub(super) fn break_off(&mut self, now: Instant, woken: &mut Vec<Waker>) {
        self.broken = true;
        for direction in self.directions() {
            direction
                .segments
                .retain(|segment| segment.due.has_come(now));
            woken.extend(direction.reader.take());
            woken.extend(direction.writer.take());
        }
    }

    /// The hosts are parted: what is under way stays so until they are healed.
    pub(super) fn hold(&mut self, now: Instant) {
        for direction in self.directions() {
            direction.last_due = None;
            let segments = direction
                .segments
                .iter_mut()
                .map(|segment| &mut segment.due);
            for due in segments.chain(&mut direction.refusal) {
                if !due.has_come(now) {
                    *due = Due::Held;
                }
            }
        }
    }

    /// The hosts are healed: what was held is sent anew.
    pub(super) fn release(&mut self, links: &mut Links, now: Instant, woken: &mut Vec<Waker>) {
        let pair = self.pair.clone();
        for direction in self.directions() {
            for segment in &mut direction.segments {
                if let Due::Held = segment.due
                    && let Some(at) = links.signal(&pair, now)
                {
                    segment.due = Due::At(in_order(&mut direction.last_due, at));
                }
            }
            if let Some(refusal @ Due::Held) = &mut direction.refusal {
                *refusal = links.signal(&pair, now).map_or(Due::Held, Due::At);
            }
            woken.extend(direction.reader.take());
            woken.extend(direction.writer.take());
        }
    }
}

impl Direction {
    fn take(&mut self, buffer: &mut ReadBuf<'_>, now: Instant) {
        while let Some(head) = self.segments.front_mut() {
            let taken = head.bytes.len().min(buffer.remaining());
            // The end stays, to be read again.
            if taken == 0 || !head.due.has_come(now) {
                return;
            }
            buffer.put_slice(&head.bytes.split_to(taken));
            self.bytes -= taken;
            if head.bytes.is_empty() {
                self.segments.pop_front();
            }
        }
    }
}

/// When a segment arrives that would be there at `at`, but overtakes none.
fn in_order(last_due: &mut Option<Instant>, at: Instant) -> Instant {
    let at = last_due.map_or(at, |last| at.max(last));
    *last_due = Some(at);
    at
}
