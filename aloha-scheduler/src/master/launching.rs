//! Which waiting application is launched where, and why the others wait.

use tracing::info;

use super::core::MasterCore;
use super::placement::{Assignment, Round};
use crate::app::{AppState, Placement};
use crate::resources::Resources;

impl MasterCore {
    /// Places what can be placed, once per event.
    pub(super) fn place(&mut self) {
        let scope = std::mem::take(&mut self.scope);
        let mut round = Round::new(&scope, self.apps.waiting(), self.workers.free());
        while let Some(assignment) = round.next(self.apps.waiting(), self.workers.free()) {
            self.launch(assignment);
        }
    }

    fn launch(&mut self, Assignment { app, worker, needs }: Assignment) {
        let on = self.workers.get(&worker).map(|w| Placement {
            worker: worker.clone(),
            address: w.record.address(),
        });
        let on = on.expect("the index names only workers in the table");
        let attempt = self
            .apps
            .begin_attempt(&app)
            .expect("the queue names only apps in the table");
        self.workers.occupy(&worker, (app.clone(), attempt), needs);
        info!(%app, attempt, %worker, "app placed");
        self.change(&app, AppState::Launching { on });
        self.send_launch(&worker, &app);
    }

    /// What is missing for an application with these needs to be placed; `None` if nothing is.
    pub(super) fn why_waiting(&self, needs: Resources) -> Option<String> {
        let Some(largest) = self.workers.offered().largest() else {
            return Some(format!("needs {needs}; no worker is registered"));
        };
        let short = |which: &str, has: Resources| {
            let Resources { cores, memory_mib } = needs;
            if cores > has.cores {
                let plural = if cores == 1 { "" } else { "s" };
                format!(
                    "needs {cores} core{plural}; the largest {which} has {}",
                    has.cores
                )
            } else if memory_mib > has.memory_mib {
                format!(
                    "needs {memory_mib} MiB; the largest {which} has {} MiB",
                    has.memory_mib
                )
            } else {
                format!("needs {needs}; no {which} has both")
            }
        };
        if self.workers.offered().roomiest(needs).is_none() {
            return Some(short("worker", largest));
        }
        let free = self.workers.free();
        free.roomiest(needs)
            .is_none()
            .then(|| short("free worker", free.largest().unwrap_or_default()))
    }
}
