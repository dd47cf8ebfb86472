//! Frames that wait to be written: one buffer, swapped out whole by the writer.

use std::io::{self, IoSlice};

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::client::Body;
use crate::frame::LENGTH_BYTES;
use crate::message::{self, RequestId};

/// A spare buffer above this size is given back to the allocator.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Whole frames, in order. Shared bodies are cut in at their offset and never copied.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    bytes: Vec<u8>,
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    one_way: u64,
}

impl WriteQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// How many of the frames want no answer, so that nobody would hear of their loss.
    pub(crate) fn one_way(&self) -> u64 {
        self.one_way
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends one frame: type, id where there is one, then `head` and `body`.
    pub(crate) fn push(&mut self, kind: u8, id: Option<RequestId>, head: &[u8], body: &Body<'_>) {
        let length = frame_length(id, head, body);
        let length =
            u32::try_from(length).expect("checked against the frame limit, which is a u32");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.push(kind);
        self.one_way += u64::from(kind == message::ONE_WAY);
        if let Some(id) = id {
            self.bytes.extend_from_slice(&id.to_bits().to_le_bytes());
        }
        self.bytes.extend_from_slice(head);
        match body {
            Body::Copied(bytes) => self.bytes.extend_from_slice(bytes),
            Body::Shared(bytes) => {
                self.shared_bytes += bytes.len();
                self.shared.push((self.bytes.len(), bytes.clone()));
            }
        }
    }

    /// Appends the frames of another queue.
    pub(crate) fn append(&mut self, other: Self) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        let shared = other.shared.into_iter();
        self.shared
            .extend(shared.map(|(at, body)| (before + at, body)));
        self.shared_bytes += other.shared_bytes;
        self.one_way += other.one_way;
    }

    /// The last part of a frame that wants no answer is among the frames.
    pub(crate) fn add_one_way(&mut self) {
        self.one_way += 1;
    }

    /// Makes room for the next frames.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.shared.clear();
        self.shared_bytes = 0;
        self.one_way = 0;
    }

    pub(crate) async fn write_to(
        &self,
        writer: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> io::Result<()> {
        if self.shared.is_empty() {
            writer.write_all(&self.bytes).await?;
        } else {
            self.write_vectored(writer).await?;
        }
        writer.flush().await
    }

    async fn write_vectored(&self, writer: &mut (dyn AsyncWrite + Send + Unpin)) -> io::Result<()> {
        let mut slices = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut from = 0;
        for (at, body) in &self.shared {
            slices.push(IoSlice::new(&self.bytes[from..*at]));
            slices.push(IoSlice::new(body));
            from = *at;
        }
        slices.push(IoSlice::new(&self.bytes[from..]));
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = writer.write_vectored(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }
}

/// Bytes of a frame after its length field.
pub(crate) fn frame_length(id: Option<RequestId>, head: &[u8], body: &Body<'_>) -> usize {
    1 + id.map_or(0, |_| size_of::<u32>()) + head.len() + body.len()
}

/// Bytes of a frame on the wire.
pub(crate) fn wire_length(id: Option<RequestId>, head: &[u8], body: &Body<'_>) -> usize {
    LENGTH_BYTES + frame_length(id, head, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn shared_and_copied_bodies_keep_their_order() {
        let mut queue = WriteQueue::default();
        queue.push(2, None, b"ab", &Body::Copied(b"c"));
        queue.push(2, None, b"d", &Body::Shared(Bytes::from_static(b"efg")));
        queue.push(2, None, b"", &Body::Shared(Bytes::new()));
        queue.push(1, Some(RequestId::from_bits(7)), b"", &Body::Copied(b"h"));
        let mut written = Vec::new();
        queue.write_to(&mut written).await.unwrap();
        let expected = [
            &[4, 0, 0, 0, 2][..],
            b"abc",
            &[5, 0, 0, 0, 2],
            b"defg",
            &[1, 0, 0, 0, 2],
            &[6, 0, 0, 0, 1, 7, 0, 0, 0],
            b"h",
        ]
        .concat();
        assert_eq!(written, expected);
        assert_eq!(queue.len(), expected.len());
    }
}
