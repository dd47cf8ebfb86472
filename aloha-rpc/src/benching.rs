//! The small parts that are timed one by one, for `benches/parts.rs` alone.

use std::sync::Arc;
use std::task::Context;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::Codec;
use crate::inbox::{Inbox, Limits, Overflow};
use crate::mail::{Batch, LocalMail, Sent};

/// Appends the bytes of a message.
///
/// # Panics
///
/// If it cannot be encoded.
pub fn encode<T: Serialize>(codec: Codec, message: &T, out: &mut Vec<u8>) {
    codec.encode(message, out).expect("it can be encoded");
}

/// The message that the bytes are.
///
/// # Panics
///
/// If they are none.
#[must_use]
pub fn decode<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> T {
    codec.decode(bytes).expect("it was encoded")
}

/// An endpoint's inbox without its endpoint.
#[expect(missing_debug_implementations, reason = "nobody prints it")]
pub struct Mail<M> {
    inbox: Inbox<M>,
    batch: Batch<M>,
}

impl<M> Mail<M> {
    /// An empty one with room for so many messages.
    #[must_use]
    pub fn new(messages_max: usize) -> Self {
        let limits = Limits {
            messages_max,
            bytes_max: usize::MAX,
            overflow: Overflow::Refuse,
        };
        Self {
            inbox: Inbox::new(Arc::from("parts"), limits, None),
            batch: Batch::default(),
        }
    }

    /// Posts a message.
    ///
    /// # Panics
    ///
    /// If it is full.
    pub fn post(&self, message: M) {
        let mail = LocalMail::new(Sent::OneWay, message, None);
        let displaced = self.inbox.post(mail, None);
        assert!(displaced.is_ok(), "it is full");
    }

    /// Takes what waits, as the endpoint's task does.
    pub fn take(&mut self, context: &Context<'_>, mut each: impl FnMut(M)) {
        if self.inbox.poll_next(&mut self.batch, context).is_pending() {
            return;
        }
        while let Some(mail) = self.batch.local.pop_front() {
            self.inbox.on_local(mail.bytes);
            each(mail.message);
        }
    }
}
