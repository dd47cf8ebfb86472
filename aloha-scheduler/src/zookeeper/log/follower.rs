//! The reading end of the log.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::ledger::Ledger;
use super::segment::Assembler;
use super::{Ends, Log};
use crate::persistence::{Change, PersistenceError, StoreFollower};
use crate::zookeeper::session::{Link, lost};
use crate::zookeeper::trouble::Trouble;

/// How often the log may be compacted away before a first reading of it.
const ATTEMPTS_MAX: u32 = 10;

/// Reads the log, and goes on as it grows.
pub(super) struct Follower {
    log: Arc<Log>,
    cursor: Option<Cursor>,
    /// Ends when the log is compacted, or the session is lost.
    compacted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Read, and not handed out yet.
    ready: Vec<Change>,
    ledger: Arc<Mutex<Option<Ledger>>>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = self.cursor.as_ref().map(|cursor| cursor.next);
        f.debug_struct("Follower")
            .field("next", &next)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Cursor {
    /// The number of the segment that is read next.
    next: u64,
    assembler: Assembler,
}

impl Follower {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self {
            log,
            cursor: None,
            compacted: None,
            ready: Vec::new(),
            ledger: Arc::default(),
        }
    }

    /// Reads everything there is.
    async fn begin(&mut self) -> Result<(), PersistenceError> {
        self.log.ensure().await?;
        for _ in 0..ATTEMPTS_MAX {
            self.log.sync().await?;
            let ends = self.log.ends().await?;
            self.ready.clear();
            self.cursor = None;
            *self.ledger() = Some(Ledger::new(ends.oldest));
            let mut cursor = Cursor {
                next: ends.oldest,
                assembler: Assembler::default(),
            };
            if self.read_on(&mut cursor, ends).await? {
                self.cursor = Some(cursor);
                self.log.share(&self.ledger);
                return Ok(());
            }
        }
        Err(self
            .log
            .unavailable("it is compacted faster than it can be read".to_owned()))
    }

    /// Reads up to this end; gives false where a segment is gone.
    async fn read_on(&mut self, cursor: &mut Cursor, ends: Ends) -> Result<bool, PersistenceError> {
        while cursor.next < ends.next {
            let segments = self.log.read(cursor.next..ends.next).await?;
            if segments.is_empty() {
                return Ok(false);
            }
            self.apply(cursor, &segments)?;
        }
        if let Some(ledger) = &mut *self.ledger() {
            // Beyond what is finished nothing is known yet.
            ledger.trim(ends.oldest.min(ledger.next()));
        }
        Ok(true)
    }

    fn apply(&mut self, cursor: &mut Cursor, segments: &[Vec<u8>]) -> Result<(), PersistenceError> {
        for segment in segments {
            let number = cursor.next;
            let runs = cursor.assembler.take(number, segment);
            for run in runs.map_err(|bad| self.log.bad_segment(number, &bad))? {
                // A writer may have taken it.
                if let Some(ledger) = &mut *self.ledger() {
                    ledger.append(&run);
                }
                self.ready.extend(run.changes);
            }
            cursor.next += 1;
        }
        Ok(())
    }

    /// Reads what is there, from where it was left.
    async fn go_on(&mut self, ends: Ends) -> Result<(), PersistenceError> {
        // A future that is dropped in here leaves no cursor, unless it is as far as what is ready.
        while let Some(mut cursor) = self.cursor.take() {
            if ends.oldest > cursor.next {
                break;
            }
            if cursor.next >= ends.next {
                self.cursor = Some(cursor);
                return Ok(());
            }
            let numbers = cursor.next..ends.next;
            self.cursor = Some(cursor);
            let segments = self.log.read(numbers).await?;
            if segments.is_empty() {
                break;
            }
            cursor = self.cursor.take().expect("just put back");
            let applied = self.apply(&mut cursor, &segments);
            self.cursor = Some(cursor);
            applied?;
        }
        self.cursor = None;
        Err(self
            .log
            .unavailable("what was to be read next has been compacted".to_owned()))
    }

    /// Waits until there is something new, or the log was compacted; then reads on.
    async fn wait(&mut self, next: u64) -> Result<(), PersistenceError> {
        let link = self.log.session.link().await;
        let link = link.map_err(|trouble| self.log.trouble(&trouble))?;
        let ends = match self.seen(&link, next).await {
            Ok(Some(ends)) => ends,
            Ok(None) => self.log.ends().await?,
            // The next session sees it.
            Err(Trouble::Away(_)) => {
                self.compacted = None;
                return Ok(());
            }
            Err(refused) => return Err(self.log.trouble(&refused)),
        };
        self.go_on(ends).await
    }

    /// Waits until this segment is there, or the log was compacted. Says how far the log goes where it had to ask.
    async fn seen(&mut self, link: &Link, next: u64) -> Result<Option<Ends>, Trouble> {
        let Some(compacted) = &mut self.compacted else {
            let path = self.log.path();
            let (data, stat, watcher) = link.on(|| link.client.get_and_watch_data(&path)).await?;
            self.compacted = Some(Box::pin(async move {
                let _event = watcher.changed().await;
            }));
            // What cannot be read is found again, and reported, by who asks for the ends.
            return Ok(self.log.ends_of(&data, stat.num_children).ok());
        };
        let path = self.log.segment(next);
        let (stat, watcher) = link.on(|| link.client.check_and_watch_stat(&path)).await?;
        if stat.is_none() {
            tokio::select! {
                biased;
                _event = watcher.changed() => {}
                () = compacted => self.compacted = None,
                () = link.lost() => return Err(lost()),
            }
        }
        Ok(None)
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Option<Ledger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StoreFollower for Follower {
    async fn next(&mut self) -> Result<Vec<Change>, PersistenceError> {
        if self.cursor.is_none() {
            self.begin().await?;
            // Also where nothing is stored: who follows knows so.
            return Ok(std::mem::take(&mut self.ready));
        }
        while self.ready.is_empty() {
            let next = self.cursor.as_ref().map_or(0, |cursor| cursor.next);
            self.wait(next).await?;
        }
        Ok(std::mem::take(&mut self.ready))
    }

    async fn catch_up(&mut self) -> Result<Vec<Change>, PersistenceError> {
        if self.cursor.is_none() {
            self.begin().await?;
        } else {
            self.log.sync().await?;
            let ends = self.log.ends().await?;
            self.go_on(ends).await?;
        }
        Ok(std::mem::take(&mut self.ready))
    }
}
