//! What is shown, and how that follows from what is heard and typed. No terminal, no network.

use std::cmp::Reverse;

use aloha_scheduler::master::WorkerStatus;
use aloha_scheduler::{AppId, AppPhase, AppStatus};

use super::snapshot::{Detail, Snapshot};

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// What was last heard of the cluster.
    pub(super) snapshot: Option<Snapshot>,
    /// The time of that, in milliseconds since 1970.
    pub(super) now: u64,
    /// Why nothing newer is heard.
    pub(super) trouble: Option<String>,
    pub(super) page: Page,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: Filter,
    /// Where the cursor is in the list that is shown.
    pub(super) selected: usize,
    pub(super) overlay: Overlay,
    /// What came of the last order.
    pub(super) message: Option<String>,
    /// Which lines of the details are passed over.
    pub(super) scroll: u16,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Page {
    #[default]
    Apps,
    Workers,
}

/// What lies over the list.
#[derive(Debug, Default)]
pub(super) enum Overlay {
    #[default]
    None,
    Help,
    /// Whether to kill this one.
    Kill(AppId),
    /// One application, once it was looked at.
    Detail(AppId, Option<Box<Detail>>),
}

/// By what the applications are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Those that run first, then those that wait.
    #[default]
    State,
    Id,
    Name,
    Cores,
    Memory,
    Attempt,
    Elapsed,
}

impl Sort {
    const ALL: [Self; 7] = [
        Self::State,
        Self::Id,
        Self::Name,
        Self::Cores,
        Self::Memory,
        Self::Attempt,
        Self::Elapsed,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Id => "id",
            Self::Name => "name",
            Self::Cores => "cores",
            Self::Memory => "memory",
            Self::Attempt => "attempt",
            Self::Elapsed => "elapsed",
        }
    }

    pub(super) fn next(self) -> Self {
        next_of(&Self::ALL, self)
    }
}

/// Which applications are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Filter {
    #[default]
    All,
    Placed,
    Waiting,
    Ended,
}

impl Filter {
    const ALL: [Self; 4] = [Self::All, Self::Placed, Self::Waiting, Self::Ended];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Placed => "running",
            Self::Waiting => "waiting",
            Self::Ended => "ended",
        }
    }

    pub(super) fn next(self) -> Self {
        next_of(&Self::ALL, self)
    }

    fn takes(self, phase: AppPhase) -> bool {
        match self {
            Self::All => true,
            Self::Placed => phase.is_placed(),
            Self::Waiting => !phase.is_placed() && !phase.is_final(),
            Self::Ended => phase.is_final(),
        }
    }
}

fn next_of<T: Copy + PartialEq>(all: &[T], current: T) -> T {
    let place = all.iter().position(|one| *one == current).unwrap_or(0);
    all[(place + 1) % all.len()]
}

/// What is heard.
#[derive(Debug)]
pub(super) enum News {
    /// The cluster, at this time.
    Snapshot(Box<Snapshot>, u64),
    /// One application.
    Detail(AppId, Option<Box<Detail>>),
    /// The master cannot be asked.
    Trouble(String),
    /// What came of an order.
    Message(String),
}

impl Model {
    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Snapshot(snapshot, now) => {
                // The cursor stays on what it is on, wherever that goes.
                let before = self.selected_app().map(|app| app.id.clone());
                self.snapshot = Some(*snapshot);
                self.now = now;
                self.trouble = None;
                if let Some(id) = before
                    && let Some(place) = self.apps().iter().position(|app| app.id == id)
                {
                    self.selected = place;
                }
                self.clamp();
            }
            News::Detail(id, detail) => match (&mut self.overlay, detail) {
                (Overlay::Detail(shown, into), Some(detail)) if *shown == id => {
                    *into = Some(detail);
                }
                (Overlay::Detail(shown, _), None) if *shown == id => {
                    self.overlay = Overlay::None;
                    self.message = Some(format!("{id} is forgotten"));
                }
                _ => {}
            },
            News::Trouble(reason) => self.trouble = Some(reason),
            News::Message(text) => self.message = Some(text),
        }
    }

    /// The application that is looked at.
    pub(super) fn looked_at(&self) -> Option<&AppId> {
        match &self.overlay {
            Overlay::Detail(id, _) => Some(id),
            Overlay::None | Overlay::Help | Overlay::Kill(_) => None,
        }
    }

    /// The applications that are shown, in order.
    pub(super) fn apps(&self) -> Vec<&AppStatus> {
        let Some(snapshot) = &self.snapshot else {
            return Vec::new();
        };
        let apps = snapshot.apps.iter();
        let mut apps: Vec<_> = apps.filter(|app| self.filter.takes(app.phase)).collect();
        match self.sort {
            Sort::State => apps.sort_by(|one, two| place(one).cmp(&place(two))),
            Sort::Id => apps.sort_by(|one, two| one.id.cmp(&two.id)),
            Sort::Name => apps.sort_by(|one, two| one.name.cmp(&two.name)),
            Sort::Cores => apps.sort_by_key(|app| Reverse(app.cores)),
            Sort::Memory => apps.sort_by_key(|app| Reverse(app.memory_mib)),
            Sort::Attempt => apps.sort_by_key(|app| Reverse(app.attempt)),
            Sort::Elapsed => apps.sort_by_key(|app| Reverse(self.elapsed_millis(app))),
        }
        if self.is_reversed {
            apps.reverse();
        }
        apps
    }

    pub(super) fn workers(&self) -> &[WorkerStatus] {
        match &self.snapshot {
            Some(snapshot) => &snapshot.workers,
            None => &[],
        }
    }

    pub(super) fn selected_app(&self) -> Option<&AppStatus> {
        match self.page {
            Page::Apps => self.apps().get(self.selected).copied(),
            Page::Workers => None,
        }
    }

    /// How many lines the list has.
    pub(super) fn count(&self) -> usize {
        match self.page {
            Page::Apps => self.apps().len(),
            Page::Workers => self.workers().len(),
        }
    }

    pub(super) fn clamp(&mut self) {
        self.selected = self.selected.min(self.count().saturating_sub(1));
    }

    /// How long the latest attempt runs or ran; how long it waits where there was none.
    pub(super) fn elapsed_millis(&self, app: &AppStatus) -> u64 {
        let end = app.ended_at.unwrap_or(self.now);
        let begin = app.started_at.or(app.submitted_at).unwrap_or(end);
        end.saturating_sub(begin)
    }
}

/// Where it stands by its state; what waits stands as in the master's queue.
fn place(app: &AppStatus) -> impl Ord {
    let waits = !app.phase.is_placed() && !app.phase.is_final();
    let in_queue = waits.then_some((Reverse(app.priority), app.submitted_at, &app.id));
    (rank(app.phase), in_queue)
}

/// Those that run first, then those that wait.
fn rank(phase: AppPhase) -> u8 {
    match phase {
        AppPhase::Running => 0,
        AppPhase::Launching => 1,
        AppPhase::Unknown => 2,
        AppPhase::Submitted | AppPhase::Relaunching => 3,
        AppPhase::Finished | AppPhase::Failed | AppPhase::Killed | AppPhase::Error => 4,
    }
}
