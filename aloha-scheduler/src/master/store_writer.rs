//! Takes records to the store, many at a time, while the endpoint goes on.
//!
//! ```text
//!   endpoint             writer                        store
//!      | push 1, 2          |                            |
//!      |------------------->| batch 1, 2                 |
//!      | push 3, 4, 5       |--------------------------->|
//!      |------------------->|                            |
//!      |    stored up to 2  |<---------------------------|
//!      |<-------------------| batch 3, 4, 5              |
//!      |                    |--------------------------->|
//! ```
//!
//! What gathers while a batch is written is the next one: the slower the store, the larger the batches. After a failure
//! only the latest record of each key is kept, and all of them are written before anything counts as stored again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aloha_rpc::{RpcEndpointRef, Runtime};
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use super::effect::Record;
use super::own_message::OwnMessage;
use crate::messages::{LocalOnly, MasterMessage};
use crate::persistence::{Change, PersistenceEngine, PersistenceError, change_of};

/// How much goes into one batch: what other stores than a file take at once.
const BATCH_RECORDS_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How many turns others have before a batch is written, for who was just answered to join it: some hundred microseconds.
const LINGER_TURNS: u32 = 128;
/// The pause before a failed batch is tried again; it doubles up to the longest.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How far the store is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Records up to this one are durable. The first is 1.
    pub(super) stored: u64,
    /// What keeps the next from being so.
    pub(super) trouble: Option<Trouble>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The store fails; it is tried again.
    Failing(String),
    /// A newer leadership has taken the store over.
    Fenced(String),
}

/// The endpoint's end. Dropped, it ends the writer, with what is not written yet.
#[derive(Debug)]
pub(super) struct StoreWriter {
    queue: Arc<Queue>,
    progress: watch::Receiver<Progress>,
    /// The number of the record pushed last.
    pushed: u64,
}

#[derive(Debug, Default)]
struct Queue {
    gathered: Mutex<Gathered>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Gathered {
    records: VecDeque<Record>,
    is_closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoreWriter {
    /// Begins to write for the leadership of this epoch. `master` is told of progress.
    pub(super) fn start(
        runtime: &dyn Runtime,
        engine: Arc<dyn PersistenceEngine>,
        epoch: u64,
        master: RpcEndpointRef<MasterMessage>,
    ) -> Self {
        let queue = Arc::new(Queue::default());
        let (progress, seen) = watch::channel(Progress::default());
        let writer = Writer {
            queue: Arc::clone(&queue),
            engine,
            epoch,
            master,
            progress,
            encoded: VecDeque::new(),
            taken: 0,
            healed_after: 0,
            last_batch: 0,
        };
        runtime.spawn(Box::pin(writer.run()));
        Self {
            queue,
            progress: seen,
            pushed: 0,
        }
    }

    /// Has these records stored, in order; gives the number of the last one ever pushed.
    pub(super) fn push(&mut self, records: impl IntoIterator<Item = Record>) -> u64 {
        let mut gathered = self.queue.lock();
        let before = gathered.records.len();
        gathered.records.extend(records);
        let added = gathered.records.len() - before;
        drop(gathered);
        if added > 0 {
            self.pushed += added as u64;
            self.queue.wake.notify_one();
        }
        self.pushed
    }

    /// Whether there is news in [`progress`](Self::progress).
    pub(super) fn has_progressed(&self) -> bool {
        self.progress.has_changed().unwrap_or(false)
    }

    pub(super) fn progress(&mut self) -> Progress {
        self.progress.borrow_and_update().clone()
    }

    /// Waits until all that was pushed is stored; gives false when that does not come to pass.
    pub(super) async fn settled(&mut self) -> bool {
        let pushed = self.pushed;
        let settled = |progress: &Progress| progress.stored >= pushed || progress.trouble.is_some();
        let settled = self.progress.wait_for(settled).await;
        settled.is_ok_and(|progress| progress.trouble.is_none())
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.wake.notify_one();
    }
}

/// The store's end.
#[derive(Debug)]
struct Writer {
    queue: Arc<Queue>,
    engine: Arc<dyn PersistenceEngine>,
    epoch: u64,
    master: RpcEndpointRef<MasterMessage>,
    progress: watch::Sender<Progress>,
    /// Taken from the queue and not stored yet, with the number of each.
    encoded: VecDeque<(u64, Change)>,
    /// The number of the record taken last.
    taken: u64,
    /// Until this one is stored, none counts as stored: a later record may have taken the place of an earlier one.
    healed_after: u64,
    /// How many records the last batch had.
    last_batch: usize,
}

impl Writer {
    async fn run(mut self) {
        let mut pause = RETRY_PAUSE;
        while self.gather().await {
            self.linger().await;
            let (last, batch) = self.next_batch();
            self.last_batch = batch.len();
            match self.engine.write(self.epoch, batch).await {
                Ok(()) => {
                    pause = RETRY_PAUSE;
                    self.written(last);
                }
                Err(PersistenceError::Fenced { ours, newest }) => {
                    let fenced = PersistenceError::Fenced { ours, newest };
                    error!(%fenced, "this master leads no more");
                    self.report(|progress| {
                        progress.trouble = Some(Trouble::Fenced(fenced.to_string()));
                    });
                    self.tell().await;
                    return;
                }
                Err(error) => {
                    warn!(%error, pending = self.encoded.len(), "cannot store, will try again");
                    self.keep_the_latest();
                    self.report(|progress| {
                        progress.trouble = Some(Trouble::Failing(error.to_string()));
                    });
                    self.tell().await;
                    tokio::time::sleep(pause).await;
                    // What was refused meanwhile is not stored in one batch and withdrawn in another, before which this
                    // master may end.
                    self.keep_the_latest();
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                    continue;
                }
            }
            self.tell().await;
        }
    }

    /// Waits until there is something to write; gives false when there will be no more.
    async fn gather(&mut self) -> bool {
        loop {
            {
                let mut gathered = self.queue.lock();
                if gathered.is_closed {
                    return false;
                }
                let room = BATCH_RECORDS_MAX.saturating_sub(self.encoded.len());
                let taken = gathered.records.len().min(room);
                let records: Vec<_> = gathered.records.drain(..taken).collect();
                drop(gathered);
                self.encode(records);
            }
            if !self.encoded.is_empty() {
                return true;
            }
            self.queue.wake.notified().await;
        }
    }

    /// Lets those whom the last batch answered come again, for a moment at the most: a commit costs the same for all
    /// together. Otherwise two halves of them would wait for each other's commits. Who is alone is not held up.
    async fn linger(&mut self) {
        if self.last_batch < 2 {
            return;
        }
        let together = (self.encoded.len() + self.last_batch).min(BATCH_RECORDS_MAX);
        for _ in 0..LINGER_TURNS {
            if self.encoded.len() >= together {
                return;
            }
            tokio::task::yield_now().await;
            let room = BATCH_RECORDS_MAX.saturating_sub(self.encoded.len());
            let mut gathered = self.queue.lock();
            let taken = gathered.records.len().min(room);
            let records = gathered.records.drain(..taken).collect();
            drop(gathered);
            self.encode(records);
        }
    }

    fn encode(&mut self, records: Vec<Record>) {
        for record in records {
            self.taken += 1;
            let change = change_of(&record);
            self.encoded.push_back((self.taken, change));
        }
    }

    /// The first of what is to be stored, and the number of the last among it. It stays in place until it is stored.
    fn next_batch(&self) -> (u64, Vec<Change>) {
        let (mut last, mut bytes, mut batch) = (0, 0, Vec::new());
        for (number, change) in self.encoded.iter().take(BATCH_RECORDS_MAX) {
            bytes += size(change);
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            last = *number;
            batch.push(change.clone());
        }
        (last, batch)
    }

    fn written(&mut self, last: u64) {
        let is_stored = |(number, _): &(u64, Change)| *number <= last;
        while self.encoded.front().is_some_and(is_stored) {
            self.encoded.pop_front();
        }
        let is_healed = last >= self.healed_after;
        self.report(|progress| {
            if progress.trouble.take().is_some() {
                info!("the store works again");
            }
            if is_healed {
                progress.stored = last;
            }
        });
    }

    /// Keeps of each key what it is to be in the end.
    fn keep_the_latest(&mut self) {
        let records: Vec<_> = self.queue.lock().records.drain(..).collect();
        self.encode(records);
        let mut seen = HashSet::new();
        let mut latest = VecDeque::new();
        while let Some((number, change)) = self.encoded.pop_back() {
            if seen.insert(key(&change).to_owned()) {
                latest.push_front((number, change));
            }
        }
        self.encoded = latest;
        self.healed_after = self.taken;
    }

    fn report(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    /// Wakes the master. One that is stopping looks itself.
    async fn tell(&self) {
        if let Ok(permit) = self.master.reserve().await {
            drop(permit.send(MasterMessage::Own(LocalOnly(OwnMessage::StoreProgressed))));
        }
    }
}

fn key(change: &Change) -> &str {
    match change {
        Change::Put(record) => &record.key,
        Change::Delete { key } => key,
    }
}

fn size(change: &Change) -> usize {
    match change {
        Change::Put(record) => record.key.len() + record.value.len(),
        Change::Delete { key } => key.len(),
    }
}
