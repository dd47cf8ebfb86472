//! What clients see of applications and workers.

use super::apps::AppRecord;
use super::core::MasterCore;
use super::workers::{WorkerState, WorkerStatus};
use crate::app::{AppState, AppStatus, Ending};
use crate::cluster_status::ClusterStatus;
use crate::ids::AppId;
use crate::now::Now;

impl MasterCore {
    /// One application as it stands now.
    pub fn status(&self, id: &AppId) -> Option<AppStatus> {
        self.apps.get(id).map(|app| AppStatus {
            history: app.history.clone(),
            ..self.status_of(app)
        })
    }

    /// Every listed application, in the order of submission.
    pub fn apps(&self) -> Vec<AppStatus> {
        let apps = self.apps.with_numbers(..);
        apps.map(|app| self.status_of(app)).collect()
    }

    /// Every listed worker, by id.
    pub fn workers(&self, now: Now) -> Vec<WorkerStatus> {
        self.workers.statuses(now.instant)
    }

    /// The cluster in numbers, but for what only the shell knows.
    pub(super) fn cluster(&self) -> ClusterStatus {
        let mut status = ClusterStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.epoch(),
            is_recovering: self.is_recovering(),
            apps: self.apps.phases(),
            ..ClusterStatus::default()
        };
        for (_, worker) in self.workers.iter() {
            *status.workers.entry(worker.state).or_default() += 1;
            if worker.state == WorkerState::Alive {
                let (offers, used) = (worker.record.offers, worker.used());
                status.cores += u64::from(offers.cores);
                status.cores_used += u64::from(used.cores);
                status.memory_mib += offers.memory_mib;
                status.memory_mib_used += used.memory_mib;
            }
        }
        status
    }

    /// What a client sees of an application, but for its history.
    pub(super) fn status_of(&self, app: &AppRecord) -> AppStatus {
        let description = &*app.description;
        let (mut exit_code, mut message, mut waiting_for, mut ended_at) = (None, None, None, None);
        match &app.state {
            AppState::Submitted => waiting_for = self.why_waiting(app),
            AppState::Relaunching { reason, .. } => {
                waiting_for = self.why_waiting(app);
                message = Some(reason.clone());
            }
            AppState::Launching { .. } | AppState::Running { .. } => {}
            AppState::Unknown { on, .. } => {
                message = Some(format!("{} is disconnected", on.worker))
            }
            AppState::Ended {
                how,
                at,
                message: said,
                ..
            } => {
                exit_code = match how {
                    Ending::Finished => Some(0),
                    Ending::Failed(code) => Some(*code),
                    Ending::Killed | Ending::Error => None,
                };
                message.clone_from(said);
                ended_at = Some(*at);
            }
        }
        AppStatus {
            id: app.id.clone(),
            name: description.name.clone(),
            entry_point: description.entry_point.clone(),
            cores: description.cores,
            memory_mib: description.memory_mib,
            supervise: description.supervise,
            phase: app.phase(),
            exit_code,
            attempt: app.attempt,
            worker: app.state.placement().cloned(),
            waiting_for,
            message,
            submitted_at: Some(app.submitted_at),
            started_at: app.state.since(),
            ended_at,
            priority: description.priority,
            not_before: match app.state {
                AppState::Relaunching { not_before, .. } => not_before,
                _ => None,
            },
            history: Vec::new(),
        }
    }
}
