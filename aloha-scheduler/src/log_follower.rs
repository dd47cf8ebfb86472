//! Following the output of an application while it is written.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use aloha_rpc::AskError;

use crate::app::{AppPhase, AppStatus};
use crate::client::{ClientError, MasterClient};
use crate::ids::AppId;
use crate::master::WorkerState;
use crate::messages::{LogAnswer, LogRequest};

/// How long a worker may wait for news before it says that there are none. Then the follower looks whether the attempt
/// is still the one to follow.
const NEWS_PATIENCE: Duration = Duration::from_secs(2);
/// How often a follower looks whether an application that waits for a worker has got one.
const START_INTERVAL: Duration = Duration::from_millis(200);
/// The pause before a worker that did not answer is asked again.
const WORKER_PAUSE: Duration = Duration::from_secs(1);
/// How many questions in a row a worker may leave without an answer that the master does not miss.
const UNANSWERED_MAX: u32 = 30;

/// Reads the output of an application until it has ended and nothing is left to read.
///
/// ```text
///             runs                        is over                 all is read
///   Waiting ------> Reading(attempt) ------------> Draining(attempt) ------> ended
///      ^                                              |
///      '------------ it runs again -------------------'
/// ```
///
/// Dropped, it leaves nothing behind: the questions that are open are withdrawn.
pub struct LogFollower {
    master: MasterClient,
    app: AppId,
    request: LogRequest,
    /// The attempt that is or was read, 0 before the first.
    attempt: u32,
    state: State,
    /// The question for the end of the application, kept open while output is read.
    end: Option<End>,
    /// Read, but to be told after what was missed before it.
    piece: Vec<u8>,
    /// Whether the last question for output had no answer.
    has_failed: bool,
    /// How many questions the worker left without an answer, since the last that had one or it was missed.
    unanswered: u32,
}

/// The wait for the end of an application.
struct End(Pin<Box<dyn Future<Output = Result<(), FollowError>> + Send>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Reading,
    Draining,
    Ended,
}

/// What a follower tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogNews {
    /// The application runs again; what follows is the output of this attempt.
    Attempt(u32),
    /// So many bytes were removed before they could be read.
    Missed(u64),
    /// The end of an attempt's output cannot be read any more.
    Lost {
        /// Which attempt.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// The output goes on.
    Piece(Vec<u8>),
}

impl fmt::Display for LogNews {
    /// What happened, for a person; a piece by its size alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attempt(attempt) => write!(f, "attempt {attempt} begins"),
            Self::Missed(bytes) => {
                write!(f, "{bytes} bytes were removed before they could be read")
            }
            Self::Lost { attempt, reason } => write!(
                f,
                "the rest of what attempt {attempt} wrote cannot be read: {reason}"
            ),
            Self::Piece(bytes) => write!(f, "{} bytes of output", bytes.len()),
        }
    }
}

/// Why output cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The master remembers no such application.
    #[error("there is no application {0}")]
    NoSuchApp(AppId),
    /// There is no such output.
    #[error("{0}")]
    Unavailable(String),
    /// Nobody answered.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl fmt::Debug for LogFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFollower")
            .field("app", &self.app)
            .field("request", &self.request)
            .field("attempt", &self.attempt)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl LogFollower {
    /// Follows what `request` asks for, from its offset on. With an attempt, it ends with that; without one, it begins
    /// with the latest and goes on with those after it.
    pub fn new(master: MasterClient, app: AppId, request: LogRequest) -> Self {
        Self {
            master,
            app,
            request,
            attempt: 0,
            state: State::Waiting,
            end: None,
            piece: Vec::new(),
            has_failed: false,
            unanswered: 0,
        }
    }

    /// The next news; none once all is told.
    ///
    /// # Errors
    ///
    /// There is no such output, or nobody answers. Asked again, it tries again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost or told twice.
    pub async fn next(&mut self) -> Result<Option<LogNews>, FollowError> {
        loop {
            if !self.piece.is_empty() {
                return Ok(Some(LogNews::Piece(std::mem::take(&mut self.piece))));
            }
            let news = match self.state {
                State::Waiting => self.wait().await?,
                State::Reading => self.read().await?,
                State::Draining => self.drain().await?,
                State::Ended => return Ok(None),
            };
            if news.is_some() {
                return Ok(news);
            }
        }
    }

    /// Waits for the attempt to be followed.
    async fn wait(&mut self) -> Result<Option<LogNews>, FollowError> {
        let mut status = self.status(Duration::ZERO).await?;
        loop {
            let wanted = self.request.attempt.unwrap_or(status.attempt);
            if wanted > self.attempt && has_begun(&status, wanted) {
                let again = self.attempt > 0;
                if again {
                    self.request.offset = 0;
                }
                self.attempt = wanted;
                self.state = match is_over(&status, wanted) {
                    true => State::Draining,
                    false => State::Reading,
                };
                return Ok(again.then_some(LogNews::Attempt(wanted)));
            }
            if status.phase.is_final() {
                self.state = State::Ended;
                return Ok(None);
            }
            status = self.status(START_INTERVAL).await?;
        }
    }

    /// Waits for more output, or the end of the attempt.
    async fn read(&mut self) -> Result<Option<LogNews>, FollowError> {
        if self.end.is_none() {
            let (master, app) = (self.master.clone(), self.app.clone());
            self.end = Some(End(Box::pin(async move {
                match master.wait(&app).await? {
                    Some(_) => Ok(()),
                    None => Err(FollowError::NoSuchApp(app)),
                }
            })));
        }
        let request = self.request_of(self.attempt, NEWS_PATIENCE);
        let End(end) = self.end.as_mut().expect("set above");
        let answer = tokio::select! {
            biased;
            answer = self.master.read_log(&self.app, request) => answer,
            ended = end => {
                self.end = None;
                if ended.is_ok() {
                    self.state = State::Draining;
                }
                return ended.map(|()| None);
            }
        };
        let failure = match answer.map(|answer| self.take(answer)) {
            Ok(Ok(Some(news))) => {
                self.has_answered();
                return Ok(Some(news));
            }
            Ok(Ok(None)) => None,
            Ok(Err(reason)) => Some(FollowError::Unavailable(reason)),
            Err(error) => Some(error.into()),
        };
        // A worker that went away takes the master a moment to notice.
        let patience = match &failure {
            None => Duration::ZERO,
            Some(failure) if is_of_the_worker(failure) => WORKER_PAUSE,
            Some(_) => START_INTERVAL,
        };
        let status = self.status(patience).await?;
        if is_over(&status, self.attempt) {
            self.state = State::Draining;
            return Ok(None);
        }
        // The application may run on meanwhile, and its worker come back; or it has come back since the question.
        match failure {
            None => self.has_answered(),
            Some(failure) if is_of_the_worker(&failure) => {
                return self.bear_with_the_worker(failure, &status).await;
            }
            Some(failure) => {
                let had_failed = std::mem::replace(&mut self.has_failed, true);
                if had_failed && status.phase != AppPhase::Unknown {
                    return Err(failure);
                }
            }
        }
        Ok(None)
    }

    /// Reads what is left of an attempt that is over.
    async fn drain(&mut self) -> Result<Option<LogNews>, FollowError> {
        let mut status = self.status(Duration::ZERO).await?;
        // The master asks the worker that has the application, so there must be one.
        while status.worker.is_none() && !status.phase.is_final() {
            status = self.status(START_INTERVAL).await?;
        }
        let request = self.request_of(self.attempt, Duration::ZERO);
        let answer = match self.master.read_log(&self.app, request).await {
            Ok(answer) => answer,
            Err(error) => {
                let failure = error.into();
                if !is_of_the_worker(&failure) {
                    return Err(failure);
                }
                tokio::time::sleep(WORKER_PAUSE).await;
                return self.bear_with_the_worker(failure, &status).await;
            }
        };
        let news = match self.take(answer) {
            Ok(Some(news)) => {
                self.has_answered();
                return Ok(Some(news));
            }
            Ok(None) => None,
            // It may run elsewhere by now.
            Err(reason) if status.attempt > self.attempt => Some(LogNews::Lost {
                attempt: self.attempt,
                reason,
            }),
            Err(reason) => return self.come_back(reason).await,
        };
        let is_last = status.phase.is_final() && status.attempt <= self.attempt;
        self.state = match is_last || self.request.attempt.is_some() {
            true => State::Ended,
            false => State::Waiting,
        };
        Ok(news)
    }

    /// Whether the worker may still come back to a master that has just taken over; else there is no such output.
    async fn come_back(&mut self, reason: String) -> Result<Option<LogNews>, FollowError> {
        let had_failed = std::mem::replace(&mut self.has_failed, true);
        if had_failed && !self.master.cluster().await?.is_recovering {
            return Err(FollowError::Unavailable(reason));
        }
        tokio::time::sleep(START_INTERVAL).await;
        Ok(None)
    }

    /// A worker that is away is waited for until it comes back, or the master gives it up; one that is there may fail
    /// a few times.
    async fn bear_with_the_worker(
        &mut self,
        failure: FollowError,
        status: &AppStatus,
    ) -> Result<Option<LogNews>, FollowError> {
        if self.is_away(status).await? {
            self.unanswered = 0;
            return Ok(None);
        }
        self.unanswered += 1;
        if self.unanswered > UNANSWERED_MAX {
            return Err(failure);
        }
        Ok(None)
    }

    /// Whether the master misses the worker that has the output.
    async fn is_away(&mut self, status: &AppStatus) -> Result<bool, FollowError> {
        if !status.phase.is_final() {
            return Ok(status.phase == AppPhase::Unknown);
        }
        // Its phase does not say so any more.
        let workers = self.master.workers().await?;
        Ok(workers.iter().any(|worker| {
            worker.state == WorkerState::Disconnected
                && status
                    .worker
                    .as_ref()
                    .is_some_and(|on| on.worker == worker.id)
        }))
    }

    fn has_answered(&mut self) {
        self.has_failed = false;
        self.unanswered = 0;
    }

    fn request_of(&self, attempt: u32, patience: Duration) -> LogRequest {
        LogRequest {
            attempt: Some(attempt),
            ..self.request.with_patience(patience)
        }
    }

    /// Takes a piece; `None` if there is nothing new.
    fn take(&mut self, answer: LogAnswer) -> Result<Option<LogNews>, String> {
        match answer {
            LogAnswer::Chunk { bytes, next_offset } => {
                let begins = next_offset.saturating_sub(bytes.len() as u64);
                let missed = begins.saturating_sub(self.request.offset);
                self.request.offset = next_offset;
                Ok(if missed > 0 {
                    self.piece = bytes;
                    Some(LogNews::Missed(missed))
                } else if bytes.is_empty() {
                    None
                } else {
                    Some(LogNews::Piece(bytes))
                })
            }
            LogAnswer::Unavailable { reason } => Err(reason),
        }
    }

    async fn status(&mut self, patience: Duration) -> Result<AppStatus, FollowError> {
        let status = self.master.wait_for(&self.app, patience).await?;
        status.ok_or_else(|| FollowError::NoSuchApp(self.app.clone()))
    }
}

/// Whether the master passed the question on, and no answer came from there.
fn is_of_the_worker(failure: &FollowError) -> bool {
    let FollowError::Client(ClientError::Unanswered { reason, .. }) = failure else {
        return false;
    };
    matches!(
        reason,
        AskError::RelayLost { .. }
            | AskError::TimedOut { .. }
            | AskError::EndpointNotFound { .. }
            | AskError::EndpointStopped { .. }
            | AskError::Dropped { .. }
            | AskError::Cancelled { .. }
    )
}

/// Whether an attempt runs, or did.
fn has_begun(status: &AppStatus, attempt: u32) -> bool {
    attempt > 0 && (status.attempt > attempt || status.started_at.is_some())
}

/// Whether an attempt has ended.
fn is_over(status: &AppStatus, attempt: u32) -> bool {
    status.attempt > attempt || status.phase.is_final() || status.phase == AppPhase::Relaunching
}
