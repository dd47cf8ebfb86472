//! Who of several masters leads.

#[cfg(any(test, feature = "testing"))]
pub mod contract;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How a master is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterAddress {
    /// Its RPC address, `host:port`.
    pub rpc: String,
    /// Its REST server, `http://host:port`, if it has one.
    pub rest: Option<String>,
}

/// How a leadership stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is ours.
    #[default]
    Held,
    /// It may be ours no more: acknowledge nothing, launch nothing, until this changes.
    Suspended,
    /// It is over, for good.
    Lost,
}

/// A leadership that was won. Dropped, it is given up.
#[derive(Debug)]
pub struct Leadership {
    /// Its epoch where the election gives one, higher than that of every leadership before; 0 where only the store
    /// counts them.
    pub epoch: u64,
    /// How it stands. A sender that is gone is a leadership lost.
    pub standing: watch::Receiver<Standing>,
}

/// Why no election could be held.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot take part in the election of a leader: {reason}")]
pub struct ElectionError {
    /// What is wrong.
    pub reason: String,
}

/// Takes part in the election of the leading master.
///
/// All implementations pass the same suite, `election::contract` (feature `testing`).
#[async_trait]
pub trait LeaderElectionAgent: fmt::Debug + Send + Sync + 'static {
    /// Waits until this master leads; it may take for ever. Others are told that it is reached at `candidate`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it no longer stands for election.
    ///
    /// # Errors
    ///
    /// The election could not be held. It may be tried again.
    async fn campaign(&self, candidate: &MasterAddress) -> Result<Leadership, ElectionError>;

    /// Who leads, as far as the election knows: a master that wins this instant may be told of a moment later, and one
    /// that died until its leadership runs out. `None` for nobody, and where the election does not say.
    fn leader(&self) -> watch::Receiver<Option<MasterAddress>> {
        watch::channel(None).1
    }

    /// Waits until nothing is left, for others, of the candidacies and leaderships that were dropped here: a process that
    /// ends before may stay in their way for a while. It may take for ever where the election is out of reach.
    async fn withdrawn(&self) {}
}

/// The election of a master that is alone: it leads at once, for as long as it lives.
#[derive(Debug, Default)]
pub struct SoleMaster {
    standing: watch::Sender<Standing>,
}

#[async_trait]
impl LeaderElectionAgent for SoleMaster {
    async fn campaign(&self, _: &MasterAddress) -> Result<Leadership, ElectionError> {
        Ok(Leadership {
            epoch: 0,
            standing: self.standing.subscribe(),
        })
    }
}
