//! Applications that are a task or a thread of the process that hosts them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::panics::text_of;
use super::{Application, ApplicationContext, ApplicationError, ExitState, ShutdownReason};

/// An [`Application`] that is an async function: it gets its context, and a flag that is raised when it is to end.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use aloha_scheduler::application::{ExitState, TaskApplication};
///
/// let heartbeat = TaskApplication::new(|context, stop| async move {
///     loop {
///         tokio::select! {
///             reason = stop.raised() => {
///                 println!("{} ends: {reason}", context.app_id());
///                 return Ok(ExitState::SUCCESS);
///             }
///             () = tokio::time::sleep(Duration::from_secs(1)) => println!("still here"),
///         }
///     }
/// });
/// # drop(heartbeat);
/// ```
pub struct TaskApplication<F> {
    run: F,
    stop: StopFlag,
}

impl<F, T> TaskApplication<F>
where
    F: Fn(ApplicationContext, StopFlag) -> T + Send + Sync + 'static,
    T: Future<Output = Result<ExitState, ApplicationError>> + Send + 'static,
{
    /// Runs the future that `run` gives, as a task of its own. A panic of it is an error of the application.
    pub fn new(run: F) -> Self {
        let stop = StopFlag::default();
        Self { run, stop }
    }
}

#[async_trait]
impl<F, T> Application for TaskApplication<F>
where
    F: Fn(ApplicationContext, StopFlag) -> T + Send + Sync + 'static,
    T: Future<Output = Result<ExitState, ApplicationError>> + Send + 'static,
{
    async fn start(&self, context: &ApplicationContext) -> Result<ExitState, ApplicationError> {
        let future = (self.run)(context.clone(), self.stop.clone());
        match tokio::spawn(future).await {
            Ok(ended) => ended,
            Err(error) => Err(match error.try_into_panic() {
                Ok(panic) => panicked(&text_of(&*panic)),
                Err(error) => error.into(),
            }),
        }
    }

    async fn shutdown(&self, _: &ApplicationContext, reason: &ShutdownReason) {
        self.stop.raise(reason.clone());
    }
}

impl<F> fmt::Debug for TaskApplication<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskApplication")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// An [`Application`] that is a function on a thread of its own, where it may block: it gets its context, and a flag that
/// is raised when it is to end. The tokio runtime of its host is current there, for what is async after all.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use aloha_scheduler::application::{ExitState, ThreadApplication};
///
/// let heartbeat = ThreadApplication::new(|context, stop| {
///     // Waits a second, unless it is to end before that.
///     while stop.wait_timeout(Duration::from_secs(1)).is_none() {
///         println!("{} is still here", context.app_id());
///     }
///     Ok(ExitState::SUCCESS)
/// });
/// # drop(heartbeat);
/// ```
pub struct ThreadApplication<F> {
    run: Arc<F>,
    stop: StopFlag,
}

impl<F> ThreadApplication<F>
where
    F: Fn(&ApplicationContext, &StopFlag) -> Result<ExitState, ApplicationError>
        + Send
        + Sync
        + 'static,
{
    /// Runs `run` on a thread of its own. A panic of it is an error of the application.
    pub fn new(run: F) -> Self {
        let (run, stop) = (Arc::new(run), StopFlag::default());
        Self { run, stop }
    }
}

#[async_trait]
impl<F> Application for ThreadApplication<F>
where
    F: Fn(&ApplicationContext, &StopFlag) -> Result<ExitState, ApplicationError>
        + Send
        + Sync
        + 'static,
{
    async fn start(&self, context: &ApplicationContext) -> Result<ExitState, ApplicationError> {
        let (ended, end) = oneshot::channel();
        let (run, stop, context) = (Arc::clone(&self.run), self.stop.clone(), context.clone());
        let runtime = Handle::current();
        let thread = std::thread::Builder::new().name(context.app_id().to_owned());
        thread.spawn(move || {
            let _entered = runtime.enter();
            let result = catch_unwind(AssertUnwindSafe(|| run(&context, &stop)));
            // Nobody waits for it only where the host is being torn down.
            let _ = ended.send(result.unwrap_or_else(|panic| Err(panicked(&text_of(&*panic)))));
        })?;
        end.await.expect("the thread sends before it ends")
    }

    async fn shutdown(&self, _: &ApplicationContext, reason: &ShutdownReason) {
        self.stop.raise(reason.clone());
    }
}

impl<F> fmt::Debug for ThreadApplication<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadApplication")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

fn panicked(text: &str) -> ApplicationError {
    ApplicationError::new(format!("the application panicked: {text}"))
}

/// Says that an application is to end, and why. All clones are one flag, and it stays raised.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    reason: Mutex<Option<ShutdownReason>>,
    /// Wakes threads.
    raised: Condvar,
    /// Wakes tasks.
    changes: watch::Sender<()>,
}

impl StopFlag {
    /// Raises it; a second reason changes nothing.
    pub fn raise(&self, reason: ShutdownReason) {
        self.lock().get_or_insert(reason);
        self.0.raised.notify_all();
        self.0.changes.send_replace(());
    }

    /// Whether the application is to end.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.lock().is_some()
    }

    /// Why the application is to end, if it is.
    #[must_use]
    pub fn reason(&self) -> Option<ShutdownReason> {
        self.lock().clone()
    }

    /// Waits until it is raised. Cancel safe.
    pub async fn raised(&self) -> ShutdownReason {
        let mut changes = self.0.changes.subscribe();
        loop {
            if let Some(reason) = self.reason() {
                return reason;
            }
            let changed = changes.changed().await;
            changed.expect("the sender lives as long as this flag");
        }
    }

    /// Blocks this thread until it is raised; for threads, not for tasks.
    pub fn wait(&self) -> ShutdownReason {
        let mut reason = self.lock();
        loop {
            if let Some(reason) = &*reason {
                return reason.clone();
            }
            let woken = self.0.raised.wait(reason);
            reason = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`wait`](Self::wait), but no longer than `limit`: then nothing.
    pub fn wait_timeout(&self, limit: Duration) -> Option<ShutdownReason> {
        let condition = |reason: &mut Option<_>| reason.is_none();
        let woken = self
            .0
            .raised
            .wait_timeout_while(self.lock(), limit, condition);
        let (reason, _) = woken.unwrap_or_else(PoisonError::into_inner);
        reason.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ShutdownReason>> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::children::Children;

    fn context() -> ApplicationContext {
        let directory = std::env::temp_dir();
        ApplicationContext::of_test(
            crate::AppDescription::default(),
            directory,
            Arc::new(Children::inheriting()),
        )
    }

    /// Starts it, asks it to end, and gives what `start` says.
    async fn stopped(application: impl Application) -> String {
        let context = context();
        let asked = async {
            application
                .shutdown(&context, &ShutdownReason::WorkerLost)
                .await;
        };
        let (ended, ()) = tokio::join!(application.start(&context), asked);
        match ended {
            Ok(state) => format!("{state:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn a_task_hears_why_it_is_to_end() {
        let application = TaskApplication::new(|_, stop| async move {
            let reason = stop.raised().await;
            assert!(stop.is_raised() && stop.reason() == Some(reason.clone()));
            Err(ApplicationError::new(reason.to_string()))
        });
        assert_eq!(stopped(application).await, "its worker did not come back");
    }

    #[tokio::test]
    async fn a_thread_that_waits_is_woken() {
        let application = ThreadApplication::new(|_, stop| {
            assert_eq!(stop.wait(), ShutdownReason::WorkerLost);
            // It stays raised.
            let again = stop.wait_timeout(Duration::MAX);
            Ok(ExitState::Code(i32::from(
                again == Some(ShutdownReason::WorkerLost),
            )))
        });
        assert_eq!(stopped(application).await, "Code(1)");
    }

    #[tokio::test]
    async fn a_thread_may_start_a_process() {
        let application = ThreadApplication::new(|context, _| {
            let program = std::process::Command::new("true");
            let process = Handle::current().block_on(context.spawn(program))?;
            Ok(Handle::current().block_on(process.wait()))
        });
        assert_eq!(stopped(application).await, "Code(0)");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_application() {
        let expected = "the application panicked: boom 7";
        let task = TaskApplication::new(|_, _| async { panic!("boom {}", 7) });
        assert_eq!(stopped(task).await, expected);
        let thread = ThreadApplication::new(|_, _| panic!("boom {}", 7));
        assert_eq!(stopped(thread).await, expected);
    }

    #[test]
    fn a_flag_that_is_not_raised_gives_nothing_and_the_first_reason_stays() {
        let stop = StopFlag::default();
        assert_eq!(stop.wait_timeout(Duration::ZERO), None);
        stop.raise(ShutdownReason::Killed);
        stop.clone().raise(ShutdownReason::WorkerStops);
        assert_eq!(stop.reason(), Some(ShutdownReason::Killed));
    }
}
