//! What a coordinator has on its disk. Pure: the time comes from outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::messages::{Answer, News, Seats, WireChange};
use crate::app::AppState;
use crate::election::MasterAddress;
use crate::persistence::{Change, Readable, StoredRecord, read};

/// What a coordinator keeps, also while it is down. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

/// A batch of changes, as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// When.
    pub at: Instant,
    /// By the leadership of this epoch.
    pub epoch: u64,
    /// What.
    pub changes: Vec<Change>,
}

impl Batch {
    /// The hosts on which it launches something that would be started elsewhere if they were lost.
    #[must_use]
    pub fn movable_launches(&self) -> Vec<String> {
        let host = |change: &Change| {
            let Change::Put(record) = change else {
                return None;
            };
            let Ok(Readable::App(app)) = read(record) else {
                return None;
            };
            let AppState::Launching { on } = &app.state else {
                return None;
            };
            let (host, _) = on.address.rsplit_once(':')?;
            let is_movable = app.description.survives_its_worker();
            is_movable.then(|| host.to_owned())
        };
        self.changes.iter().filter_map(host).collect()
    }
}

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreTrouble {
    /// Nothing.
    #[default]
    None,
    /// It refuses batches.
    Refuses,
    /// It stores a batch at once and says so this much later.
    Slow(Duration),
}

impl Disk {
    /// Nothing is stored.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes its batches fail or late from now on.
    pub fn set_trouble(&self, trouble: StoreTrouble) {
        self.with(|state| state.trouble = trouble);
    }

    /// Has those who follow the store hear of a batch so much later than it is stored. Who catches up hears of all.
    pub fn delay_news(&self, by: Duration) {
        self.with(|state| state.news_delay = by);
    }

    /// Every batch that was stored, the oldest first.
    #[must_use]
    pub fn batches(&self) -> Vec<Batch> {
        self.batches_from(0)
    }

    /// How many these are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.with(|state| state.log.len())
    }

    /// Those behind the first so many.
    #[must_use]
    pub fn batches_from(&self, count: usize) -> Vec<Batch> {
        self.with(|state| state.log.get(count..).unwrap_or_default().to_vec())
    }

    /// Every epoch that has begun, and when, the oldest first.
    #[must_use]
    pub fn epochs(&self) -> Vec<(Instant, u64)> {
        self.with(|state| state.epochs.clone())
    }

    /// Has the store take batches of any epoch: a defect, to see that somebody notices.
    pub fn break_the_fence(&self) {
        self.with(|state| state.is_fenceless = true);
    }

    /// Has those who catch up with the store hear nothing more than they have heard: a defect, to see that somebody notices.
    pub fn break_catching_up(&self) {
        self.with(|state| state.is_secretive = true);
    }

    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) trouble: StoreTrouble,
    is_fenceless: bool,
    is_secretive: bool,
    news_delay: Duration,
    epochs: Vec<(Instant, u64)>,
    /// Of whom raised the epoch last.
    epoch_token: u64,
    /// The number of the last batch of this epoch.
    last_number: BTreeMap<u64, u64>,
    log: Vec<Batch>,
    records: BTreeMap<String, Vec<u8>>,
    last_id: u64,
    sessions: BTreeMap<u64, Session>,
    seats: BTreeMap<u64, Seat>,
    seats_version: u64,
}

#[derive(Debug)]
struct Session {
    timeout: Duration,
    heard: Instant,
}

#[derive(Debug)]
struct Seat {
    session: u64,
    token: u64,
    candidate: MasterAddress,
}

impl State {
    /// The coordinator begins: the time of each session begins anew.
    pub(super) fn begin(&mut self, now: Instant) {
        for session in self.sessions.values_mut() {
            session.heard = now;
        }
        // Versions are of one life of the coordinator.
        self.seats_version += 1;
    }

    pub(super) fn open(&mut self, timeout: Duration, now: Instant) -> u64 {
        self.last_id += 1;
        let session = Session {
            timeout,
            heard: now,
        };
        self.sessions.insert(self.last_id, session);
        self.last_id
    }

    /// Notes that a session was heard of; false if there is no such one.
    pub(super) fn hear(&mut self, session: u64, now: Instant) -> bool {
        self.expire(now);
        match self.sessions.get_mut(&session) {
            Some(session) => {
                session.heard = now;
                true
            }
            None => false,
        }
    }

    /// Ends the sessions whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_over = |session: &Session| session.heard + session.timeout <= now;
        let over = self.sessions.iter().filter(|(_, it)| is_over(it));
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        for id in over {
            self.close(id);
        }
    }

    pub(super) fn close(&mut self, session: u64) {
        self.sessions.remove(&session);
        self.vacate(|seat| seat.session == session);
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let ends = self.sessions.values().map(|it| it.heard + it.timeout);
        ends.min()
    }

    pub(super) fn stand(&mut self, session: u64, token: u64, candidate: MasterAddress) -> u64 {
        let is_same = |seat: &&Seat| (seat.session, seat.token) == (session, token);
        if let Some((number, _)) = self.seats.iter().find(|(_, seat)| is_same(seat)) {
            return *number;
        }
        self.last_id += 1;
        let seat = Seat {
            session,
            token,
            candidate,
        };
        self.seats.insert(self.last_id, seat);
        self.seats_version += 1;
        self.last_id
    }

    pub(super) fn leave(&mut self, session: u64, token: u64) {
        self.vacate(|seat| (seat.session, seat.token) == (session, token));
    }

    fn vacate(&mut self, which: impl Fn(&Seat) -> bool) {
        let before = self.seats.len();
        self.seats.retain(|_, seat| !which(seat));
        if self.seats.len() != before {
            self.seats_version += 1;
        }
    }

    pub(super) fn seats(&self) -> Seats {
        let first = self.seats.first_key_value();
        Seats {
            version: self.seats_version,
            first: first.map(|(number, seat)| (*number, seat.candidate.clone())),
        }
    }

    fn epoch(&self) -> u64 {
        self.epochs.last().map_or(0, |(_, epoch)| *epoch)
    }

    pub(super) fn begin_epoch(&mut self, token: u64, at_least: u64, now: Instant) -> u64 {
        if self.epoch_token != token {
            self.epoch_token = token;
            let epoch = at_least.max(self.epoch() + 1);
            self.epochs.push((now, epoch));
        }
        self.epoch()
    }

    pub(super) fn append(
        &mut self,
        epoch: u64,
        number: u64,
        changes: Vec<WireChange>,
        now: Instant,
    ) -> Answer<()> {
        // Who asks again whether it was stored is told so, whatever came since.
        if self
            .last_number
            .get(&epoch)
            .is_some_and(|last| *last >= number)
        {
            return Answer::Done(());
        }
        let newest = self.epoch();
        if epoch < newest && !self.is_fenceless {
            return Answer::Fenced { newest };
        }
        if self.trouble == StoreTrouble::Refuses {
            let reason = "out of space".to_owned();
            return Answer::Unavailable { reason };
        }
        self.last_number.insert(epoch, number);
        let changes: Vec<_> = changes.into_iter().map(Change::from).collect();
        for change in &changes {
            match change {
                Change::Put(StoredRecord { key, value }) => {
                    self.records.insert(key.clone(), value.clone());
                }
                Change::Delete { key } => drop(self.records.remove(key)),
            }
        }
        self.log.push(Batch {
            at: now,
            epoch,
            changes,
        });
        Answer::Done(())
    }

    pub(super) fn position(&self) -> u64 {
        self.log.len() as u64
    }

    pub(super) fn all(&self) -> News {
        let put = |(key, value): (&String, &Vec<u8>)| WireChange::Put(key.clone(), value.clone());
        News {
            position: self.position(),
            changes: self.records.iter().map(put).collect(),
        }
    }

    /// Up to where those who follow have heard by now.
    pub(super) fn heard_of(&self, now: Instant) -> u64 {
        self.log
            .partition_point(|batch| batch.at + self.news_delay <= now) as u64
    }

    /// When those who have heard up to there hear more, if there is more.
    pub(super) fn next_news(&self, position: u64) -> Option<Instant> {
        let next = self.log.get(usize::try_from(position).ok()?)?;
        Some(next.at + self.news_delay)
    }

    /// All that those do not know who have heard up to there.
    pub(super) fn all_news(&self, after: u64) -> News {
        let after = match self.is_secretive {
            false => after,
            true => self.position(),
        };
        self.news_between(after, self.position())
    }

    /// What lies between two positions.
    pub(super) fn news_between(&self, after: u64, until: u64) -> News {
        let place = |position| usize::try_from(position).unwrap_or(usize::MAX);
        let batches = self.log.get(place(after)..place(until));
        let batches = batches.unwrap_or_default().iter();
        let changes = batches.flat_map(|batch| batch.changes.iter().cloned());
        News {
            position: after.max(until),
            changes: changes.map(WireChange::from).collect(),
        }
    }
}
