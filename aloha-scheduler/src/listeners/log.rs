use tracing::info;

use super::AlohaEventListener;
use crate::app::{AppPhase, AppStatus};
use crate::events::AlohaEvent;
use crate::ids::AppId;

/// The listener `log`: a line of the log for each event.
#[derive(Debug)]
pub(super) struct LogListener;

impl AlohaEventListener for LogListener {
    fn on_app_state_changed(&mut self, _: Option<AppPhase>, status: &AppStatus) {
        let message = status.message.as_deref();
        info!(app = %status.id, state = %status.phase, attempt = status.attempt, message, "application");
    }

    fn on_app_relaunched(&mut self, id: &AppId, attempt: u32, reason: &str) {
        info!(app = %id, attempt, reason, "application to be relaunched");
    }

    fn on_other_event(&mut self, event: &AlohaEvent) {
        match event {
            AlohaEvent::WorkerStateChanged { id, to, reason, .. } => {
                info!(worker = %id, state = %to, reason, "worker");
            }
            other => info!(event = ?other, "event"),
        }
    }
}
