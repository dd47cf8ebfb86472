//! The bytes of a reply: small ones by value, large ones shared with what the connection read.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// Replies up to this size are kept in the request's own slot: no allocation, and no count of references that the
/// reader and the askers would pass to and fro between their cores.
const INLINE_BYTES_MAX: usize = 62;

/// The bytes of a reply.
#[derive(Clone)]
pub struct Reply(Kept);

#[derive(Clone)]
enum Kept {
    Inline(u8, [u8; INLINE_BYTES_MAX]),
    Shared(Bytes),
}

impl Reply {
    /// Whether so few bytes are kept by value.
    pub(crate) fn fits(length: usize) -> bool {
        length <= INLINE_BYTES_MAX
    }

    /// A small reply; none if it does not [fit](Self::fits).
    pub(crate) fn inline(bytes: &[u8]) -> Option<Self> {
        let mut kept = [0; INLINE_BYTES_MAX];
        kept.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(Kept::Inline(u8::try_from(bytes.len()).ok()?, kept)))
    }
}

impl Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Kept::Shared(bytes) => bytes,
        }
    }
}

impl From<Bytes> for Reply {
    fn from(bytes: Bytes) -> Self {
        Self(Kept::Shared(bytes))
    }
}

impl From<Reply> for Bytes {
    fn from(reply: Reply) -> Self {
        match reply.0 {
            Kept::Inline(..) => Self::copy_from_slice(&reply),
            Kept::Shared(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_any_size_keeps_its_bytes() {
        for length in [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1] {
            let bytes = vec![7; length];
            let inline = Reply::inline(&bytes);
            assert_eq!(inline.is_some(), Reply::fits(length));
            let reply = inline.unwrap_or_else(|| Bytes::copy_from_slice(&bytes).into());
            assert_eq!(*reply, bytes[..]);
            assert_eq!(Bytes::from(reply), bytes);
        }
    }
}
