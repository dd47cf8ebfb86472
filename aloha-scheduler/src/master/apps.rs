use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::queue::{GroupSlot, Queue, Shape, Ticket};
use super::table::{Slot, Table};
use super::tag_limits::{Applying, TagLimits};
use crate::app::{AppDescription, AppPhase, AppState, Transition};
use crate::ids::AppId;

/// What is stored of an application, which is all a master knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// Its id.
    pub id: AppId,
    /// Its place in the queue, which it keeps when it runs again: smaller numbers came first.
    pub number: u64,
    /// What was submitted.
    pub description: Arc<AppDescription>,
    /// The idempotency key under which it was submitted, if there was one.
    #[serde(default)]
    pub key: Option<Arc<str>>,
    /// Where it stands.
    pub state: AppState,
    /// The latest attempt, 0 before the first. It only rises, over failovers too.
    #[serde(default)]
    pub attempt: u32,
    /// Whether somebody asked for it to be killed; it is then never relaunched.
    #[serde(default)]
    pub kill_requested: bool,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_at: u64,
    /// How many restarts there were in a row, without a long run between.
    #[serde(default)]
    pub restarts_in_a_row: u32,
    /// Whether the latest attempt is being ended for it ran longer than it may.
    #[serde(default)]
    pub overran: bool,
    /// Whether the latest attempt is being ended for its worker is drained.
    #[serde(default)]
    pub evicted: bool,
    /// Its last changes of state, the oldest first.
    #[serde(default)]
    pub history: Vec<Transition>,
}

/// How many changes of state are kept of an application.
const HISTORY_MAX: usize = 16;

impl AppRecord {
    /// Whether its current attempt is to be ended by its worker.
    pub(crate) fn is_to_end(&self) -> bool {
        self.kill_requested || self.overran || self.evicted
    }

    /// Notes the state it is in now, and forgets the oldest change beyond the limit.
    pub(crate) fn note(&mut self, at: u64, reason: Option<String>) {
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        let (to, attempt) = (self.phase(), self.attempt);
        self.history.push(Transition {
            at,
            to,
            attempt,
            reason,
        });
    }

    /// The plain form of its state.
    pub fn phase(&self) -> AppPhase {
        self.state.phase()
    }
}

/// Where an application lies in the table.
pub(crate) type AppSlot = Slot<App>;

/// An application in the table.
#[derive(Debug)]
pub(crate) struct App {
    /// Shared with effects that are still to be carried out; changed, it is first copied if there are such.
    record: Arc<AppRecord>,
    place: Place,
}

/// Where an application is besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Nowhere,
    /// In this group of the queue.
    Queue(GroupSlot),
    /// Among those that have ended, as the one of this number.
    Ended(u64),
}

/// The applications, and in step with them who waits, how many of a tag are placed, and who ended in which order.
#[derive(Debug)]
pub(crate) struct Apps {
    apps: Table<AppId, App>,
    by_number: BTreeMap<u64, AppSlot>,
    /// How many there are in each phase.
    phases: BTreeMap<AppPhase, u64>,
    queue: Queue,
    limits: TagLimits,
    /// Numbered in the order in which they ended.
    ended: BTreeMap<u64, AppSlot>,
}

/// Whether it is in the queue. One that pauses before it runs again is not.
fn waits(state: &AppState) -> bool {
    matches!(
        state,
        AppState::Submitted
            | AppState::Relaunching {
                not_before: None,
                ..
            }
    )
}

fn ticket(record: &AppRecord, app: AppSlot) -> Ticket {
    Ticket {
        priority: Reverse(record.description.priority),
        number: record.number,
        app,
    }
}

impl Apps {
    /// An empty table, with at most so many placed of the tags that `limits` names.
    pub(crate) fn new(limits: TagLimits) -> Self {
        Self {
            apps: Table::default(),
            by_number: BTreeMap::new(),
            phases: BTreeMap::new(),
            queue: Queue::default(),
            limits,
            ended: BTreeMap::new(),
        }
    }

    pub(crate) fn get(&self, id: &AppId) -> Option<&AppRecord> {
        self.apps.get(id).map(|app| &*app.record)
    }

    /// What is to be stored of an application.
    pub(crate) fn record(&self, id: &AppId) -> Option<Arc<AppRecord>> {
        self.apps.get(id).map(|app| Arc::clone(&app.record))
    }

    pub(crate) fn at(&self, slot: AppSlot) -> &AppRecord {
        &self.apps[slot].record
    }

    /// The place of an application in the queue, whether it waits now or not.
    pub(crate) fn ticket(&self, id: &AppId) -> Option<Ticket> {
        let slot = self.apps.slot(id)?;
        Some(ticket(self.at(slot), slot))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.apps.len()
    }

    /// Every application, in an order that means nothing.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &AppRecord> {
        self.apps.iter().map(|(_, app)| &*app.record)
    }

    /// Those with these numbers, in the order of submission.
    pub(crate) fn with_numbers(
        &self,
        numbers: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = &AppRecord> {
        self.by_number
            .range(numbers)
            .map(|(_, slot)| self.at(*slot))
    }

    /// The one that has this number.
    pub(crate) fn numbered(&self, number: u64) -> Option<&AppRecord> {
        self.by_number.get(&number).map(|slot| self.at(*slot))
    }

    /// How many there are in each phase in which there are any.
    pub(crate) fn phases(&self) -> BTreeMap<AppPhase, u64> {
        let some = self.phases.iter().filter(|(_, count)| **count > 0);
        some.map(|(phase, count)| (*phase, *count)).collect()
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What placement works on.
    pub(crate) fn waiting(&mut self) -> (&mut Queue, &TagLimits) {
        (&mut self.queue, &self.limits)
    }

    pub(crate) fn limits(&self) -> &TagLimits {
        &self.limits
    }

    /// Puts in an application that is new here, and so is its number. Those that have ended come in the order in which they did.
    pub(crate) fn insert(&mut self, app: AppRecord) {
        let (id, number) = (app.id.clone(), app.number);
        let (phase, waits) = (app.phase(), waits(&app.state));
        let slot = self.apps.insert(
            id,
            App {
                record: Arc::new(app),
                place: Place::Nowhere,
            },
        );
        self.by_number.insert(number, slot);
        *self.phases.entry(phase).or_default() += 1;
        if waits {
            self.enqueue(slot);
        } else if phase.is_placed() {
            self.count(slot);
        } else if phase.is_final() {
            self.list_ended(slot);
        }
    }

    /// Moves an application on, if its state allows it, and returns where it was.
    pub(crate) fn change(
        &mut self,
        id: &AppId,
        next: AppState,
        at: u64,
        reason: Option<String>,
    ) -> Option<AppPhase> {
        let slot = self.apps.slot(id)?;
        let app = &mut self.apps[slot];
        let (from, to) = (app.record.phase(), next.phase());
        if !from.may_become(to) {
            return None;
        }
        let reason = reason.or_else(|| next.reason());
        let (waited, waits) = (waits(&app.record.state), waits(&next));
        let record = Arc::make_mut(&mut app.record);
        record.state = next;
        record.note(at, reason);
        self.discount_phase(from);
        *self.phases.entry(to).or_default() += 1;
        match (waited, waits) {
            (false, true) => self.enqueue(slot),
            (true, false) => self.dequeue(slot),
            (true, true) | (false, false) => {}
        }
        match (from.is_placed(), to.is_placed()) {
            (false, true) => self.count(slot),
            (true, false) => self.discount(slot),
            (true, true) | (false, false) => {}
        }
        if to.is_final() {
            self.list_ended(slot);
        }
        Some(from)
    }

    /// Counts a new attempt, and returns its number.
    pub(crate) fn begin_attempt(&mut self, id: &AppId) -> Option<u32> {
        let mut attempt = None;
        self.update(id, |app| {
            app.attempt = app.attempt.saturating_add(1);
            app.overran = false;
            app.evicted = false;
            attempt = Some(app.attempt);
        });
        attempt
    }

    /// Changes what no other table rests on.
    pub(crate) fn update(&mut self, id: &AppId, change: impl FnOnce(&mut AppRecord)) {
        if let Some(slot) = self.apps.slot(id) {
            change(Arc::make_mut(&mut self.apps[slot].record));
        }
    }

    /// Puts an application in the queue whose pause is over.
    pub(crate) fn end_pause(&mut self, id: &AppId) {
        let Some(slot) = self.apps.slot(id) else {
            return;
        };
        let record = Arc::make_mut(&mut self.apps[slot].record);
        if let AppState::Relaunching { not_before, .. } = &mut record.state
            && not_before.take().is_some()
        {
            self.enqueue(slot);
        }
    }

    /// Forgets an application, whatever became of it.
    pub(crate) fn remove(&mut self, id: &AppId) -> Option<Arc<AppRecord>> {
        let slot = self.apps.slot(id)?;
        let phase = self.at(slot).phase();
        if waits(&self.at(slot).state) {
            self.dequeue(slot);
        } else if phase.is_placed() {
            self.discount(slot);
        } else if let Place::Ended(place) = self.apps[slot].place {
            self.ended.remove(&place);
        }
        self.take(id)
    }

    /// Forgets the one that ended first if more than so many have ended.
    pub(crate) fn forget_beyond(&mut self, retained: usize) -> Option<Arc<AppRecord>> {
        if self.ended.len() <= retained {
            return None;
        }
        let (_, slot) = self.ended.pop_first()?;
        let id = self.at(slot).id.clone();
        self.take(&id)
    }

    /// Puts those that have ended in the order in which they did, by what is stored of that.
    pub(crate) fn order_ended(&mut self) {
        let ended_at = |slot: &AppSlot| match self.at(*slot) {
            AppRecord {
                state: AppState::Ended { at, .. },
                number,
                ..
            } => (*at, *number),
            AppRecord { number, .. } => (0, *number),
        };
        let mut ended: Vec<_> = self
            .ended
            .values()
            .map(|slot| (ended_at(slot), *slot))
            .collect();
        if ended.is_sorted() {
            return;
        }
        ended.sort_unstable();
        self.ended.clear();
        for (_, slot) in ended {
            self.list_ended(slot);
        }
    }

    fn list_ended(&mut self, slot: AppSlot) {
        let last = self.ended.last_key_value();
        let place = last.map_or(0, |(place, _)| place + 1);
        self.ended.insert(place, slot);
        self.apps[slot].place = Place::Ended(place);
    }

    /// Takes out one that no other table has.
    fn take(&mut self, id: &AppId) -> Option<Arc<AppRecord>> {
        let app = self.apps.remove(id)?;
        self.by_number.remove(&app.record.number);
        self.discount_phase(app.record.phase());
        Some(app.record)
    }

    fn discount_phase(&mut self, phase: AppPhase) {
        if let Some(count) = self.phases.get_mut(&phase) {
            *count -= 1;
        }
    }

    fn enqueue(&mut self, slot: AppSlot) {
        let app = &mut self.apps[slot];
        let description = &app.record.description;
        let shape = Shape {
            needs: description.needs(),
            constraints: description.constraints.clone(),
            limits: self.limits.applying_to(&description.tags),
        };
        app.place = Place::Queue(self.queue.insert(shape, ticket(&app.record, slot)));
    }

    fn dequeue(&mut self, slot: AppSlot) {
        let app = &mut self.apps[slot];
        if let Place::Queue(group) = std::mem::replace(&mut app.place, Place::Nowhere) {
            self.queue.remove(group, ticket(&app.record, slot));
        }
    }

    fn count(&mut self, slot: AppSlot) {
        let tags = &self.apps[slot].record.description.tags;
        let applying = self.limits.applying_to(tags);
        self.limits.count(&applying);
    }

    fn discount(&mut self, slot: AppSlot) {
        let tags = &self.apps[slot].record.description.tags;
        let applying = self.limits.applying_to(tags);
        let opened = self.limits.discount(&applying);
        if opened != Applying::default() {
            self.queue.opened(&opened);
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_invariants(&self) {
        self.queue.check_invariants();
        let groups = self.queue.groups();
        let queued: std::collections::BTreeSet<_> = groups
            .flat_map(|(slot, group)| {
                group
                    .waiting()
                    .map(move |ticket| (*ticket, Place::Queue(slot)))
            })
            .collect();
        let waiting = self.apps.iter().filter(|(_, app)| waits(&app.record.state));
        let waiting = waiting.map(|(slot, app)| (ticket(&app.record, slot), app.place));
        assert_eq!(queued, waiting.collect(), "the queue is out of step");
        let mut counted = vec![0; self.limits.placed().len()];
        for app in self.iter().filter(|app| app.phase().is_placed()) {
            for place in self.limits.applying_to(&app.description.tags).places() {
                counted[*place] += 1;
            }
        }
        assert_eq!(self.limits.placed(), counted, "a tag is miscounted");
        assert_eq!(
            self.by_number.len(),
            self.iter().count(),
            "a number is lost"
        );
        let numbered = |(number, slot): (&u64, &AppSlot)| self.at(*slot).number == *number;
        assert!(self.by_number.iter().all(numbered), "a number is another's");
        let mut phases = BTreeMap::new();
        for app in self.iter() {
            *phases.entry(app.phase()).or_default() += 1;
        }
        assert_eq!(self.phases(), phases, "a phase is miscounted");
        let ended = self.apps.iter().filter_map(|(slot, app)| match app.place {
            Place::Ended(place) => Some((place, slot)),
            Place::Nowhere | Place::Queue(_) => None,
        });
        assert_eq!(self.ended, ended.collect(), "who has ended is out of step");
        let is_listed = |app: &App| matches!(app.place, Place::Ended(_));
        let mut apps = self.apps.iter();
        assert!(apps.all(|(_, app)| app.record.phase().is_final() == is_listed(app)));
    }
}
