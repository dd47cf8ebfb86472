use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::placement::Waiting;
use crate::app::{AppDescription, AppPhase, AppState, Transition};
use crate::ids::AppId;
use crate::resources::Resources;

/// What is stored of an application, which is all a master knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// Its id.
    pub id: AppId,
    /// Its place in the queue, which it keeps when it runs again: smaller numbers came first.
    pub number: u64,
    /// What was submitted.
    pub description: Arc<AppDescription>,
    /// Where it stands.
    pub state: AppState,
    /// The latest attempt, 0 before the first. It only rises, over failovers too.
    pub attempt: u32,
    /// Whether somebody asked for it to be killed; it is then never relaunched.
    pub kill_requested: bool,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_at: u64,
    /// How many restarts there were in a row, without a long run between.
    #[serde(default)]
    pub restarts_in_a_row: u32,
    /// Whether the latest attempt is being ended for it ran longer than it may.
    #[serde(default)]
    pub overran: bool,
    /// Its last changes of state, the oldest first.
    #[serde(default)]
    pub history: Vec<Transition>,
}

/// How many changes of state are kept of an application.
const HISTORY_MAX: usize = 16;

impl AppRecord {
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

/// The applications, and in step with them who waits and who ended in which order.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    apps: BTreeMap<AppId, AppRecord>,
    waiting: Waiting,
    ended: VecDeque<AppId>,
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

impl Apps {
    pub(crate) fn get(&self, id: &AppId) -> Option<&AppRecord> {
        self.apps.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &AppRecord> {
        self.apps.values()
    }

    pub(crate) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Puts in an application that is new here. Those that have ended come in the order in which they did.
    pub(crate) fn insert(&mut self, app: AppRecord) {
        debug_assert!(!self.apps.contains_key(&app.id));
        if waits(&app.state) {
            self.waiting
                .insert(app.description.needs(), app.number, app.id.clone());
        } else if app.phase().is_final() {
            self.ended.push_back(app.id.clone());
        }
        self.apps.insert(app.id.clone(), app);
    }

    /// Moves an application on, if its state allows it, and returns where it was.
    pub(crate) fn change(
        &mut self,
        id: &AppId,
        next: AppState,
        at: u64,
        reason: Option<String>,
    ) -> Option<AppPhase> {
        let app = self.apps.get_mut(id)?;
        let (from, to) = (app.phase(), next.phase());
        if !from.may_become(to) {
            return None;
        }
        let reason = reason.or_else(|| next.reason());
        let (waited, waits) = (waits(&app.state), waits(&next));
        app.state = next;
        app.note(at, reason);
        match (waited, waits) {
            (false, true) => self
                .waiting
                .insert(app.description.needs(), app.number, id.clone()),
            (true, false) => self.waiting.remove(app.description.needs(), app.number),
            (true, true) | (false, false) => {}
        }
        if to.is_final() {
            self.ended.push_back(id.clone());
        }
        Some(from)
    }

    /// Counts a new attempt, and returns its number.
    pub(crate) fn begin_attempt(&mut self, id: &AppId) -> Option<u32> {
        let app = self.apps.get_mut(id)?;
        app.attempt = app.attempt.saturating_add(1);
        app.overran = false;
        Some(app.attempt)
    }

    /// Changes what no other table rests on.
    pub(crate) fn update(&mut self, id: &AppId, change: impl FnOnce(&mut AppRecord)) {
        if let Some(app) = self.apps.get_mut(id) {
            change(app);
        }
    }

    /// Puts an application in the queue whose pause is over, and returns what it needs.
    pub(crate) fn end_pause(&mut self, id: &AppId) -> Option<Resources> {
        let app = self.apps.get_mut(id)?;
        let AppState::Relaunching { not_before, .. } = &mut app.state else {
            return None;
        };
        not_before.take()?;
        let needs = app.description.needs();
        self.waiting.insert(needs, app.number, id.clone());
        Some(needs)
    }

    /// Forgets an application, whatever became of it.
    pub(crate) fn remove(&mut self, id: &AppId) {
        let Some(app) = self.apps.remove(id) else {
            return;
        };
        if waits(&app.state) {
            self.waiting.remove(app.description.needs(), app.number);
        }
        if app.phase().is_final() {
            self.ended.retain(|ended| ended != id);
        }
    }

    /// Forgets the one that ended first if more than so many have ended.
    pub(crate) fn forget_beyond(&mut self, retained: usize) -> Option<AppId> {
        if self.ended.len() <= retained {
            return None;
        }
        let id = self.ended.pop_front()?;
        self.apps.remove(&id);
        Some(id)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_invariants(&self) {
        let mut waiting: Vec<_> = self
            .waiting
            .iter()
            .map(|(needs, number, id)| (id, needs, number))
            .collect();
        waiting.sort_unstable();
        let expected: Vec<_> = self
            .iter()
            .filter(|app| waits(&app.state))
            .map(|app| (&app.id, app.description.needs(), app.number))
            .collect();
        assert_eq!(waiting, expected, "the queue is out of step");
        let ended: std::collections::BTreeSet<_> = self.ended.iter().collect();
        assert_eq!(ended.len(), self.ended.len(), "an application ended twice");
        assert!(
            self.iter()
                .all(|app| app.phase().is_final() == ended.contains(&app.id))
        );
        assert!(ended.iter().all(|id| self.apps.contains_key(*id)));
    }
}
