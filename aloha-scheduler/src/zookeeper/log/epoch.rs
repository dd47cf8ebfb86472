//! Epochs: raised by compare-and-set, and named in each write by the version of their node.

use serde::{Deserialize, Serialize};
use zookeeper_client::Error;

use super::Log;
use crate::persistence::PersistenceError;
use crate::zookeeper::latch::Claim;
use crate::zookeeper::line;
use crate::zookeeper::trouble::Trouble;

/// How often somebody else may be faster.
const ATTEMPTS_MAX: u32 = 20;

/// An epoch that may write for as long as its node has this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) epoch: u64,
    pub(super) version: i32,
}

/// The data of the node.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Begun {
    epoch: u64,
    /// Who began it: so that one whose answer was lost knows its own.
    by: String,
}

/// None has begun.
pub(super) const NONE: Begun = Begun {
    epoch: 0,
    by: String::new(),
};

impl Begun {
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a number and a text are JSON")
    }
}

impl Log {
    pub(super) async fn begin_epoch(&self, at_least: u64) -> Result<Fence, PersistenceError> {
        let link = self.session.link().await;
        let link = link.map_err(|trouble| self.trouble(&trouble))?;
        let by = line::prefix(link.client.session_id().0);
        let path = self.epoch_path();
        let mut may_be_ours = false;
        for _ in 0..ATTEMPTS_MAX {
            self.sync().await?;
            let (newest, version) = self.newest_epoch().await?;
            if may_be_ours && newest.by == by {
                let epoch = newest.epoch;
                return Ok(Fence { epoch, version });
            }
            let epoch = at_least.max(newest.epoch + 1);
            let by = by.clone();
            let begun = Begun { epoch, by }.encode();
            let latch = match self.own.get() {
                Claim::None => None,
                Claim::Node(node) => Some(node),
                // Whoever leads by now must not be deposed by one who does not.
                Claim::Over => return Err(self.leads_no_more()),
            };
            let done = self.multi(|writer| {
                if let Some(latch) = &latch {
                    writer.add_check_version(latch, -1)?;
                }
                writer.add_set_data(&path, &begun, Some(version))
            });
            match done.await? {
                Ok(()) => {
                    let version = version.wrapping_add(1);
                    return Ok(Fence { epoch, version });
                }
                Err((_, Error::BadVersion)) => may_be_ours = true,
                Err((0, Error::NoNode)) if latch.is_some() => {
                    return Err(self.leads_no_more());
                }
                Err((_, error)) => return Err(self.trouble(&Trouble::Refused(error))),
            }
        }
        Err(self.unavailable("other masters begin one epoch after the other".to_owned()))
    }

    fn leads_no_more(&self) -> PersistenceError {
        let reason = "this master leads no more, its node of the election is gone";
        self.unavailable(reason.to_owned())
    }

    /// With the version of its node.
    async fn newest_epoch(&self) -> Result<(Begun, i32), PersistenceError> {
        let path = self.epoch_path();
        let path = &path;
        let found = self
            .session
            .run(|client| async move { client.get_data(path).await });
        let (data, stat) = found.await.map_err(|trouble| self.trouble(&trouble))?;
        let begun = serde_json::from_slice(&data).map_err(|_| PersistenceError::Damaged {
            store: self.name.clone(),
            reason: "its newest epoch is no number".to_owned(),
        });
        Ok((begun?, stat.version))
    }

    /// The fence of an epoch that was begun elsewhere.
    pub(super) async fn fence(&self, epoch: u64) -> Result<Fence, PersistenceError> {
        self.ensure().await?;
        self.sync().await?;
        let (newest, version) = self.newest_epoch().await?;
        if newest.epoch > epoch {
            let (ours, newest) = (epoch, newest.epoch);
            return Err(PersistenceError::Fenced { ours, newest });
        }
        Ok(Fence { epoch, version })
    }
}
