//! Where a master keeps what it must not forget.
//!
//! A [`PersistenceEngine`] stores small records by key and knows nothing of what they mean. What stands in them, how
//! they are checked and what becomes of a damaged one is the same for every engine.
//!
//! - **Order.** A batch is durable as a whole, or not at all, before [`write`](PersistenceEngine::write) returns. There
//!   is one writer, and one batch at a time; a batch has a thousand changes or a mebibyte of them, a single record may
//!   be larger.
//! - **Epochs.** Every leadership begins with [`begin_epoch`](PersistenceEngine::begin_epoch), which returns a number
//!   higher than any before it. From then on a write of an older one is refused: a master that was deposed and does not
//!   know it yet changes nothing.
//!
//! - **Following.** Where several masters share a store, those that do not lead read along
//!   ([`follow`](PersistenceEngine::follow)), so that the next one knows what is stored before it leads.
//!
//! [`FileEngine`] keeps them in a file, [`MemoryEngine`] for as long as this process lives.

#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod directory_lock;
mod file;
mod memory;
mod record;
mod salvage;

use std::fmt;

use async_trait::async_trait;

pub use self::file::FileEngine;
pub use self::memory::MemoryEngine;
pub(crate) use self::record::{
    DESCRIPTION_BYTES_MAX, DamagedRecord, Named, Readable, Unread, app_of, change_of, digest_of,
    named, newer, read, set_aside,
};

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Names it. Between 1 and 200 bytes of `A-Z a-z 0-9 . _ - /`.
    pub key: String,
    /// What was put there, byte by byte. At most a mebibyte or two.
    pub value: Vec<u8>,
}

/// One change of what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This record replaces what was stored under its key.
    Put(StoredRecord),
    /// Nothing is stored under this key any more. It need not have been.
    Delete {
        /// The key.
        key: String,
    },
}

/// Why nothing was stored or read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PersistenceError {
    /// A newer leadership has begun: this master leads no more.
    #[error("a newer leadership, epoch {newest}, has taken the store over from epoch {ours}")]
    Fenced {
        /// The epoch that tried to write.
        ours: u64,
        /// The newest that has begun.
        newest: u64,
    },
    /// Another master uses the store.
    #[error(
        "{store} is in use by another master; stop that one, or give this one a store of its own"
    )]
    InUse {
        /// Which store.
        store: String,
    },
    /// It cannot be done now, but perhaps later: the disk is full, the server away.
    #[error("{store}: {reason}")]
    Unavailable {
        /// Which store.
        store: String,
        /// What came of it.
        reason: String,
    },
    /// It is whole, and cannot be read all the same.
    #[error("{store}: {reason}")]
    Unreadable {
        /// Which store.
        store: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The store as a whole, not one record of it, cannot be read.
    #[error("{store} is damaged: {reason}; restore it from a copy, or move it away to begin anew")]
    Damaged {
        /// Which store.
        store: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A store of records.
///
/// All implementations pass the same suite, `persistence::contract` (feature `testing`).
#[async_trait]
pub trait PersistenceEngine: fmt::Debug + Send + Sync + 'static {
    /// Begins a leadership: returns an epoch that is at least `at_least` and 1, and higher than all that began here
    /// before, and refuses writes of those from now on.
    ///
    /// # Errors
    ///
    /// The store is in use, away or damaged.
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError>;

    /// Everything that is stored, in any order.
    ///
    /// # Errors
    ///
    /// The store is away or damaged. A record that is damaged is no error: it is returned as it is.
    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError>;

    /// Applies these changes in order, all or none, and returns once they are durable.
    ///
    /// Where the outcome is not known, as after a connection was lost, the engine finds out before it returns. The caller
    /// may repeat a batch that failed, also with more changes behind it. A caller that goes away while it waits leaves
    /// the batch written or not, never in part.
    ///
    /// # Errors
    ///
    /// [`Fenced`](PersistenceError::Fenced) if a newer epoch has begun, and otherwise whatever went wrong.
    async fn write(&self, epoch: u64, changes: Vec<Change>) -> Result<(), PersistenceError>;

    /// Begins to read along with the master that leads; `None` where only one master at a time has the store.
    ///
    /// # Errors
    ///
    /// The store is away or damaged.
    async fn follow(&self) -> Result<Option<Box<dyn StoreFollower>>, PersistenceError> {
        Ok(None)
    }
}

/// Reads along with whoever writes to a store, every change once and in order. The first changes make what was stored
/// when it began out of nothing.
///
/// After an error it is of no more use: it may have missed something, and another one begins anew.
#[async_trait]
pub trait StoreFollower: fmt::Debug + Send + 'static {
    /// Waits until something has changed. Cancel safe: what a dropped call would have returned comes with the next.
    ///
    /// # Errors
    ///
    /// The store is away or damaged, or more has changed than it kept for those who are slow.
    async fn next(&mut self) -> Result<Vec<Change>, PersistenceError>;

    /// What has changed until now, in one piece: all that was durable when this was called, without waiting for more.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    async fn catch_up(&mut self) -> Result<Vec<Change>, PersistenceError>;
}
