//! A store that does not answer keeps nobody from leading for ever.

use std::sync::Arc;

use aloha_rpc::TokioRuntime;
use async_trait::async_trait;
use tokio::sync::watch;

use super::*;
use crate::election::{Leadership, Standing};
use crate::master::standby::{Claimant, Follower, NoHeir};
use crate::persistence::{
    self, Change, MemoryEngine, PersistenceEngine, PersistenceError, StoreFollower, StoredRecord,
};

/// A store, of which some part never answers.
#[derive(Debug)]
struct Stuck {
    store: MemoryEngine,
    at_epochs: bool,
}

#[async_trait]
impl PersistenceEngine for Stuck {
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError> {
        if self.at_epochs {
            std::future::pending().await
        }
        self.store.begin_epoch(at_least).await
    }

    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError> {
        self.store.read_all().await
    }

    async fn write(&self, epoch: u64, changes: Vec<Change>) -> Result<(), PersistenceError> {
        self.store.write(epoch, changes).await
    }

    async fn follow(&self) -> Result<Option<Box<dyn StoreFollower>>, PersistenceError> {
        Ok(Some(Box::new(StuckFollower)))
    }
}

#[derive(Debug)]
struct StuckFollower;

#[async_trait]
impl StoreFollower for StuckFollower {
    async fn next(&mut self) -> Result<Vec<Change>, PersistenceError> {
        std::future::pending().await
    }

    async fn catch_up(&mut self) -> Result<Vec<Change>, PersistenceError> {
        std::future::pending().await
    }
}

/// Somebody who is elected where this store is, with a follower, and what became of it.
async fn inherit(at_epochs: bool) -> Result<usize, NoHeir> {
    let store = MemoryEngine::new();
    let first = store.begin_epoch(1).await.expect("it begins");
    let worker = persistence::change_of(&Record::Worker(worker_record("w0")));
    store.write(first, vec![worker]).await.expect("written");
    let runtime: Arc<dyn aloha_rpc::Runtime> = Arc::new(TokioRuntime::current());
    let engine: Arc<dyn PersistenceEngine> = Arc::new(Stuck { store, at_epochs });
    let follower = Follower::start(&runtime, Arc::clone(&engine), settings(), &Arc::default());
    let claimant = Claimant {
        runtime,
        engine: Some(engine),
        settings: settings(),
        follower: Some(follower),
    };
    let (_held, standing) = watch::channel(Standing::Held);
    let leadership = Leadership { epoch: 0, standing };
    let inherited = tokio::time::timeout(Duration::from_secs(60), claimant.inherit(leadership));
    let heir = inherited.await.expect("nobody waits that long")?;
    Ok(heir.shadow.expect("something is stored").counts().1)
}

#[tokio::test(start_paused = true)]
async fn who_cannot_begin_its_epoch_gives_the_leadership_up() {
    let inherited = inherit(true).await;
    assert!(matches!(inherited, Err(NoHeir::Stuck)), "{inherited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_followed_to_its_end_is_read_anew() {
    assert_eq!(inherit(false).await.expect("it leads"), 1);
}
