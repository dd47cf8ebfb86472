//! What a person sees while a command waits.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aloha_scheduler::{AppPhase, AppStatus};
use indicatif::{ProgressBar, ProgressStyle};

/// How often it moves.
const TICK: Duration = Duration::from_millis(200);

/// The line that is shown, for whoever writes another.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes something to stderr, beside the line that may be shown there.
pub(crate) fn beside(write: impl FnOnce()) {
    let bar = shown().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A line on stderr that says how an application is, if somebody looks at it. Dropped, it is wiped out.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// A line, where stderr is a terminal.
    pub(crate) fn new(json: bool) -> Self {
        if json || !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
        bar.set_style(style.expect("a valid template"));
        bar.set_message("asking the master");
        bar.enable_steady_tick(TICK);
        *shown() = Some(bar.clone());
        Self(Some(bar))
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    /// Shows a text.
    pub(crate) fn say(&self, text: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(text.to_owned());
        }
    }

    pub(crate) fn show(&self, status: &AppStatus) {
        if let Some(bar) = &self.0 {
            bar.set_message(describe(status));
        }
    }

    /// Wipes the line out, before others are written.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
            *shown() = None;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// How an application is, in a line.
fn describe(status: &AppStatus) -> String {
    let mut line = format!("{} {}", status.id, status.phase);
    if status.attempt > 1 {
        line += &format!(" (attempt {})", status.attempt);
    }
    match (&status.waiting_for, &status.worker, status.phase) {
        (Some(reason), ..) => line += &format!(": {reason}"),
        (None, Some(on), AppPhase::Launching | AppPhase::Running | AppPhase::Unknown) => {
            line += &format!(" on {}", on.worker);
        }
        _ => {}
    }
    line
}
