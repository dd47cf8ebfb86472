//! Recovery mode ZOOKEEPER: several masters, one of which leads, with their state on a ZooKeeper.
//!
//! ```text
//!   <dir>/leader_election/_c_<uuid>-latch-0000000003   ephemeral: a master that would lead, the first in line does
//!   <dir>/store/…                                      what the leader must not forget
//! ```
//!
//! Election and store of one master share a session. While its connection is gone the leadership is suspended; once it
//! has expired, or no sign of life came within its timeout, the leadership is lost, and the master connects and stands
//! for election anew: no process ends for it. A master that does not notice can do no harm: its writes carry the version
//! at which it set the epoch, and ZooKeeper refuses them once a newer one has begun.

mod diagnosis;
mod latch;
mod line;
mod log;
mod session;
mod settings;
mod trouble;

use std::sync::Arc;

use tracing::warn;

pub use self::latch::ZooKeeperElection;
pub use self::log::ZooKeeperStore;
pub use self::settings::ZooKeeperError;

use self::latch::OwnLatch;
use self::session::Session;
use self::settings::Checked;
use crate::recovery_mode::{RecoveryMode, ZooKeeperSettings};

/// A session of a ZooKeeper, for the election and the store of one master.
///
/// It connects when the first of them is used, and is closed when the last of them is dropped. Both want a tokio runtime
/// with time and IO.
#[derive(Debug)]
pub struct ZooKeeper {
    session: Session,
    own: OwnLatch,
    limits: Option<(u64, u64)>,
}

impl ZooKeeper {
    /// Nothing is connected yet. Blocks for as long as reading a small file takes where one with secrets is named.
    ///
    /// # Errors
    ///
    /// The settings make no sense.
    pub fn new(settings: &ZooKeeperSettings) -> Result<Self, ZooKeeperError> {
        let checked = Checked::new(settings)?;
        for caution in &checked.cautions {
            warn!("{caution}");
        }
        Ok(Self {
            session: Session::new(checked),
            own: OwnLatch::default(),
            limits: None,
        })
    }

    /// Has the log compacted beyond so many invalid bytes and so many small segments; for tests, as they are many by
    /// default.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn compacting_beyond(mut self, bytes: u64, segments: u64) -> Self {
        self.limits = Some((bytes, segments));
        self
    }

    /// The election.
    #[must_use]
    pub fn election(&self) -> ZooKeeperElection {
        ZooKeeperElection::new(self.session.clone(), self.own.clone())
    }

    /// The store. An epoch begins only while this session's election, if it won, is still held.
    #[must_use]
    pub fn store(&self) -> ZooKeeperStore {
        ZooKeeperStore::new(self.session.clone(), self.own.clone(), self.limits)
    }

    /// Both.
    #[must_use]
    pub fn recovery_mode(&self) -> RecoveryMode {
        RecoveryMode {
            persistence: Some(Arc::new(self.store())),
            election: Arc::new(self.election()),
        }
    }
}

/// Where the nodes of the candidates are.
fn latches(root: &str) -> String {
    format!("{root}/leader_election")
}
