//! Which waiting application is launched where.

use tracing::info;

use super::core::MasterCore;
use super::placement::Assignment;
use crate::app::AppState;

impl MasterCore {
    /// Places what can be placed, once per event.
    pub(super) fn place(&mut self) {
        loop {
            let (queue, limits) = self.apps.waiting();
            let Some(assignment) = self.placer.next(queue, limits, &mut self.workers) else {
                return;
            };
            self.launch(assignment);
        }
    }

    fn launch(&mut self, Assignment { app, worker, needs }: Assignment) {
        let app = self.apps.at(app).id.clone();
        let on = self.workers.at(worker).placement().clone();
        let worker = on.worker.clone();
        let attempt = self
            .apps
            .begin_attempt(&app)
            .expect("the queue names only apps in the table");
        self.workers.occupy(&worker, (app.clone(), attempt), needs);
        info!(%app, attempt, %worker, "app placed");
        self.change(&app, AppState::Launching { on });
        self.send_launch(&worker, &app);
    }
}
