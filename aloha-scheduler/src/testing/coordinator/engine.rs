use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::client::{Client, Unanswered};
use super::messages::{Answer, CoordinatorMessage, News};
use crate::persistence::{
    Change, PersistenceEngine, PersistenceError, StoreFollower, StoredRecord,
};

/// How long one question for news stays open.
const PATIENCE: Duration = Duration::from_secs(5);

/// A store that several masters share. See [`CoordinatedMaster`](super::CoordinatedMaster).
#[derive(Debug)]
pub struct CoordinatedStore {
    client: Arc<Client>,
    /// The number of the last batch. An epoch has one client, so these are told apart by that.
    last_number: Mutex<u64>,
}

impl CoordinatedStore {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            last_number: Mutex::new(0),
        }
    }

    fn next_number(&self) -> u64 {
        let mut last = self
            .last_number
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        *last
    }

    async fn session(&self) -> Result<super::client::Session, PersistenceError> {
        let patience = self.client.timeout();
        let session = tokio::time::timeout(patience, self.client.session()).await;
        session.map_err(|_| unavailable(format!("no session within {patience:?}")))
    }
}

#[async_trait]
impl PersistenceEngine for CoordinatedStore {
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError> {
        // Of one session alone: who won under another has lost meanwhile.
        let session = self.session().await?;
        let token = self.client.runtime().random_u64();
        let begin = |call| CoordinatorMessage::BeginEpoch {
            session: session.id,
            token,
            at_least,
            call,
        };
        done(self.client.insist(&session, begin).await, at_least)
    }

    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError> {
        let session = self.session().await?;
        let read = |call| CoordinatorMessage::Read {
            session: session.id,
            call,
        };
        let news: News = done(self.client.insist(&session, read).await, 0)?;
        let records = news.changes.into_iter().map(Change::from);
        let record = |change| match change {
            Change::Put(record) => Some(record),
            Change::Delete { .. } => None,
        };
        Ok(records.filter_map(record).collect())
    }

    async fn write(&self, epoch: u64, changes: Vec<Change>) -> Result<(), PersistenceError> {
        let number = self.next_number();
        let changes: Vec<_> = changes.into_iter().map(Into::into).collect();
        loop {
            let session = self.client.session().await;
            let append = |call| CoordinatorMessage::Append {
                session: session.id,
                epoch,
                number,
                changes: changes.clone(),
                call,
            };
            match self.client.insist(&session, append).await {
                // Whether it was stored is asked under the next session.
                Answer::Expired => {}
                answer => return done(answer, epoch),
            }
        }
    }

    async fn follow(&self) -> Result<Option<Box<dyn StoreFollower>>, PersistenceError> {
        Ok(Some(Box::new(CoordinatedFollower {
            client: Arc::clone(&self.client),
            position: None,
        })))
    }
}

#[derive(Debug)]
struct CoordinatedFollower {
    client: Arc<Client>,
    /// Up to where it has seen all.
    position: Option<u64>,
}

impl CoordinatedFollower {
    async fn ask(&mut self, patience: Duration) -> Result<Vec<Change>, PersistenceError> {
        let limit = self.client.timeout();
        let session = tokio::time::timeout(limit, self.client.session()).await;
        let session = session
            .map_err(|_| unavailable("no session".to_owned()))?
            .id;
        let after = self.position;
        let patience_millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let question = |call| match after {
            None => CoordinatorMessage::Read { session, call },
            Some(after) => CoordinatorMessage::Follow {
                session,
                after,
                patience_millis,
                call,
            },
        };
        let asked = self
            .client
            .ask(patience + self.client.timeout() / 3, question);
        let answer = asked.await.map_err(|Unanswered(why)| unavailable(why))?;
        let news: News = done(answer, 0)?;
        self.position = Some(news.position);
        Ok(news.changes.into_iter().map(Change::from).collect())
    }
}

#[async_trait]
impl StoreFollower for CoordinatedFollower {
    async fn next(&mut self) -> Result<Vec<Change>, PersistenceError> {
        loop {
            let changes = self.ask(PATIENCE).await?;
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    async fn catch_up(&mut self) -> Result<Vec<Change>, PersistenceError> {
        self.ask(Duration::ZERO).await
    }
}

fn done<T>(answer: Answer<T>, epoch: u64) -> Result<T, PersistenceError> {
    match answer {
        Answer::Done(value) => Ok(value),
        Answer::Fenced { newest } => Err(PersistenceError::Fenced {
            ours: epoch,
            newest,
        }),
        Answer::Expired => Err(unavailable("the session is over".to_owned())),
        Answer::Unavailable { reason } => Err(unavailable(reason)),
    }
}

fn unavailable(reason: String) -> PersistenceError {
    PersistenceError::Unavailable {
        store: "the coordinator's store".to_owned(),
        reason,
    }
}
