//! Those who listen to what happens in a cluster.
//!
//! The master publishes each [`AlohaEvent`] on its [`EventBus`] once what it tells is stored. Every listener has a
//! thread and a bounded queue of its own: it hears one event after another, in order, and one that is slow, blocks or
//! panics holds up neither the master nor the others. What finds its queue full is dropped for it, and counted.
//!
//! ```text
//!                        .--> queue --> thread: listener "log"
//!   Master --> EventBus -+--> queue --> thread: listener "command" --> a process for each event
//!                        '--> queue --> thread: a listener of one's own
//! ```
//!
//! [`Listeners`] says who listens: those that `aloha.extraListeners` names, and those added in code.

mod bus;
mod command;
mod error;
mod lane;
mod log;
mod registry;
#[cfg(test)]
mod tests;

pub use bus::EventBus;
pub use error::ListenerError;
pub use lane::ListenerStatistics;
pub use registry::{ListenerSettings, Listeners};

use crate::app::{AppPhase, AppStatus};
use crate::events::AlohaEvent;
use crate::ids::AppId;

/// Somebody who listens to what happens in a cluster. Each callback has a default, which does nothing.
///
/// The callbacks are called one at a time, in the order of the events, from a thread of the listener's own: they may
/// block. A panic in one is logged and counted, and the next event is delivered all the same. At its end the listener
/// is dropped on that thread.
///
/// # Examples
///
/// ```
/// use aloha_scheduler::AppPhase;
/// use aloha_scheduler::AppStatus;
/// use aloha_scheduler::listeners::{AlohaEventListener, ListenerSettings, Listeners};
///
/// struct Failures(u64);
///
/// impl AlohaEventListener for Failures {
///     fn on_app_state_changed(&mut self, _from: Option<AppPhase>, status: &AppStatus) {
///         if status.phase == AppPhase::Failed {
///             self.0 += 1;
///         }
///     }
/// }
///
/// let bus = Listeners::new().add("failures", Failures(0)).start(&ListenerSettings::default())?;
/// assert_eq!(bus.statistics()[0].name, "failures");
/// # Ok::<(), aloha_scheduler::listeners::ListenerError>(())
/// ```
pub trait AlohaEventListener: Send {
    /// An application went from one state to another: to `status.phase`, from `None` when it was just submitted.
    fn on_app_state_changed(&mut self, from: Option<AppPhase>, status: &AppStatus) {
        let _ = (from, status);
    }

    /// An application is to run again, under the same id, after this attempt came to nothing.
    fn on_app_relaunched(&mut self, id: &AppId, attempt: u32, reason: &str) {
        let _ = (id, attempt, reason);
    }

    /// Anything else, such as a worker that came or went. Later versions may add events.
    fn on_other_event(&mut self, event: &AlohaEvent) {
        let _ = event;
    }

    /// Every event. The default hands it on to one of the other three; who wants the event whole implements this one.
    fn on_event(&mut self, event: &AlohaEvent) {
        match event {
            AlohaEvent::AppStateChanged { from, status, .. } => {
                self.on_app_state_changed(*from, status)
            }
            AlohaEvent::AppRelaunched {
                id,
                attempt,
                reason,
            } => self.on_app_relaunched(id, *attempt, reason),
            AlohaEvent::WorkerStateChanged { .. } | AlohaEvent::WorkerDrainChanged { .. } => {
                self.on_other_event(event);
            }
        }
    }
}
