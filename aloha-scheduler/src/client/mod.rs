//! Asks the master that leads, from this process or another.

mod candidate;
mod error;
mod masters;
mod repeat;
mod search;
#[cfg(test)]
mod tests;
mod waiting;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{Ask, AskError, RpcAddress, RpcCallContext, RpcEndpointRef, RpcEnv};
use serde::de::DeserializeOwned;

pub use self::error::{ClientError, MasterOutcome, TriedMaster};

use self::masters::Masters;
use self::repeat::{Next, Repeat};
use crate::app::{AppDescription, AppStatus};
use crate::app_query::{AppsPage, AppsQuery};
use crate::cluster_status::ClusterStatus;
use crate::drain::{DrainAnswer, DrainRequest};
use crate::ids::AppId;
use crate::log_follower::LogFollower;
use crate::master::WorkerStatus;
use crate::messages::{
    ForgetAnswer, KillAnswer, LeaderAnswer, LogAnswer, LogRequest, MasterMessage, SubmitAnswer,
};

/// How long one question about the end of an application stays open before it is asked again.
const WAIT_AT_ONCE: Duration = Duration::from_secs(30);
/// How long the answer to a question that stays open may take once it is due, however short `aloha.rpc.askTimeout` is:
/// that is for answers that come at once.
const OVERDUE_AFTER: Duration = Duration::from_secs(30);
/// How long it looks at those that do not lead, for whoever wants to know.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
/// How long a client looks for a master that leads, where nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of a cluster. Cheap to clone; clones share what they know.
///
/// One made by [`connect`](Self::connect) remembers which master leads. Where that is gone, silent or a standby by now, it
/// looks at all of them at once until one leads, for as long as its [patience](Self::with_patience) lasts; standbys tell
/// it at once, also of a master that was not in its list. It asks there what may be asked again: questions, kills, and submissions with a key ([`submit_once`](Self::submit_once)). One without
/// a key is repeated only where it is certain that no master took it; else the error is
/// [`ClientError::OutcomeUnknown`].
///
/// The one of a [`MasterHandle`](crate::MasterHandle) asks that master and no other, once.
///
/// # Cancel safety
///
/// A question that is dropped is withdrawn. A submission, a kill or a clean-up that is dropped may have been done.
///
/// # Examples
///
/// ```no_run
/// # use aloha_rpc::RpcEnv;
/// use aloha_scheduler::{AppDescription, MasterClient};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let env = RpcEnv::client("nightly").await?;
/// let masters = ["10.0.0.1:7077".parse()?, "10.0.0.3:7077".parse()?];
/// let client = MasterClient::connect(&env, &masters).await?;
/// let description = AppDescription {
///     name: "etl".to_owned(),
///     entry_point: "SimpleProcess".to_owned(),
///     args: vec!["./etl.sh --day today".to_owned()],
///     cores: 1,
///     memory_mib: 512,
///     ..AppDescription::default()
/// };
/// // However often the answer is lost on the way, this runs once.
/// let app = client.submit_once(description, "etl-2026-11-21").await?.accepted()?;
/// let status = client.wait(&app).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MasterClient {
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// To a master of this process.
    Direct(RpcEndpointRef<MasterMessage>),
    /// To whichever leads.
    Found {
        masters: Arc<Masters>,
        patience: Duration,
    },
}

impl MasterClient {
    pub(crate) fn new(master: RpcEndpointRef<MasterMessage>) -> Self {
        Self {
            way: Way::Direct(master),
        }
    }

    /// A client of the cluster that has these masters, once one of them was found to lead. It waits for masters that do
    /// not lead yet, but not for any to come into being. Cancel safe.
    ///
    /// # Errors
    ///
    /// None is there, or none led in time.
    pub async fn connect(env: &RpcEnv, masters: &[RpcAddress]) -> Result<Self, ClientError> {
        let client = Self::unconnected(env, masters);
        client.reach().await?;
        Ok(client)
    }

    /// As [`connect`](Self::connect), a client that has not looked for a master yet: it does with the first question.
    #[must_use]
    pub fn unconnected(env: &RpcEnv, masters: &[RpcAddress]) -> Self {
        Self {
            way: Way::Found {
                masters: Arc::new(Masters::new(env, masters)),
                patience: PATIENCE,
            },
        }
    }

    /// Waits until a master leads. Cancel safe.
    ///
    /// # Errors
    ///
    /// None is there, or none led in time.
    pub async fn reach(&self) -> Result<(), ClientError> {
        match &self.way {
            Way::Direct(_) => Ok(()),
            Way::Found { masters, patience } => masters.find(*patience).await,
        }
    }

    /// Tells once of each time that a question of this client, or of a clone, has waited `after` for a master that leads
    /// how much longer it may, unless that is less than `after`. It never ends. Cancel safe.
    pub async fn tell_of_waits(
        &self,
        after: Duration,
        tell: impl FnMut(Duration) + Send,
    ) -> Infallible {
        match &self.way {
            Way::Direct(_) => std::future::pending().await,
            Way::Found { masters, .. } => masters.tell_of_waits(after, tell).await,
        }
    }

    /// Whether it asks a master of this process, and no other.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.way, Way::Direct(_))
    }

    /// The same client, which looks so long for a master that leads before it gives up; 30 seconds where this is not
    /// called. How long a master that leads may take to answer is another matter (`aloha.rpc.askTimeout`).
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        if let Way::Found { patience: ours, .. } = &mut self.way {
            *ours = patience;
        }
        self
    }

    /// Submits an application. That the master is busy is an answer: when to try again is up to the caller.
    ///
    /// # Errors
    ///
    /// No master took it; or, with [`ClientError::OutcomeUnknown`], one may have.
    pub async fn submit(&self, description: AppDescription) -> Result<SubmitAnswer, ClientError> {
        self.submit_with(description, None).await
    }

    /// Submits an application under an idempotency key, which is for this submission alone: 1 to 128 visible ASCII
    /// characters. Submitted again under the same key, it is still one application, so this asks until there is an answer.
    ///
    /// # Errors
    ///
    /// No master took it; or, with [`ClientError::OutcomeUnknown`], one may have, and says so when it is submitted again.
    pub async fn submit_once(
        &self,
        description: AppDescription,
        key: &str,
    ) -> Result<SubmitAnswer, ClientError> {
        self.submit_with(description, Some(key)).await
    }

    async fn submit_with(
        &self,
        description: AppDescription,
        key: Option<&str>,
    ) -> Result<SubmitAnswer, ClientError> {
        let key = key.map(str::to_owned);
        let repeat = match key {
            Some(_) => Repeat::Safe,
            None => Repeat::Unsafe,
        };
        let question = |description, key| {
            |call| MasterMessage::Submit {
                description,
                key,
                call,
            }
        };
        match &self.way {
            Way::Direct(master) => {
                let answer = master.ask(question(description, key)).await;
                answer.map_err(|reason| direct(reason, repeat))
            }
            Way::Found { masters, patience } => {
                let question = |call| question(description.clone(), key.clone())(call);
                // In a box, lest the way above carries what it needs.
                let asked = masters.ask(repeat, *patience, Duration::ZERO, question);
                let answer = Box::pin(asked).await;
                answer
                    .map_err(|failed| failed.of_submission(&description.name, key, masters.tried()))
            }
        }
    }

    /// Puts a question, to which every answer is as good as the first.
    async fn ask<R: DeserializeOwned>(
        &self,
        repeat: Repeat,
        question: impl Fn(RpcCallContext<R>) -> MasterMessage,
    ) -> Result<R, ClientError> {
        self.ask_open(repeat, Duration::ZERO, question).await
    }

    /// As [`ask`](Self::ask), a question that may stay open for so long.
    async fn ask_open<R: DeserializeOwned>(
        &self,
        repeat: Repeat,
        open_for: Duration,
        question: impl Fn(RpcCallContext<R>) -> MasterMessage,
    ) -> Result<R, ClientError> {
        match &self.way {
            Way::Direct(master) => {
                let answer = put(master, open_for, question).await;
                answer.map_err(|reason| direct(reason, repeat))
            }
            Way::Found { masters, patience } => {
                let asked = masters.ask(repeat, *patience, open_for, question);
                let answer = Box::pin(asked).await;
                answer.map_err(|failed| failed.of_question(masters.tried()))
            }
        }
    }

    /// Ends an application, or keeps it from starting. One that is ended already is not ended again, so what asking
    /// twice is told may be that it has ended.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn kill(&self, app: AppId) -> Result<KillAnswer, ClientError> {
        let question = |call| MasterMessage::Kill {
            app: app.clone(),
            call,
        };
        self.ask(Repeat::Safe, question).await
    }

    /// Ends every application, or keeps it from starting; tells how many these were. Where an answer was lost and it was
    /// asked again, these are those of the second time.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn kill_all(&self) -> Result<u64, ClientError> {
        self.ask(Repeat::Safe, |call| MasterMessage::KillAll { call })
            .await
    }

    /// Forgets an application that has ended. Where an answer was lost and it was asked again, there may be no such one
    /// any more.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn forget(&self, app: AppId) -> Result<ForgetAnswer, ClientError> {
        let question = |call| MasterMessage::Forget {
            app: app.clone(),
            call,
        };
        self.ask(Repeat::Safe, question).await
    }

    /// Forgets every application that has ended; tells how many these were, as [`kill_all`](Self::kill_all) does.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn clear(&self) -> Result<u64, ClientError> {
        self.ask(Repeat::Safe, |call| MasterMessage::Clear { call })
            .await
    }

    /// How an application is; none if there is no such one.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn status(&self, app: AppId) -> Result<Option<AppStatus>, ClientError> {
        let question = |call| MasterMessage::Status {
            app: app.clone(),
            call,
        };
        self.ask(Repeat::Safe, question).await
    }

    /// Waits until an application has ended, also while another master takes over; none if there is no such one.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn wait(&self, app: &AppId) -> Result<Option<AppStatus>, ClientError> {
        self.wait_for(app, Duration::MAX).await
    }

    /// Waits until an application has ended, but no longer than `patience`; then gives how it is. It may take longer
    /// where another master takes over meanwhile. Cancel safe.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn wait_for(
        &self,
        app: &AppId,
        patience: Duration,
    ) -> Result<Option<AppStatus>, ClientError> {
        let mut left = patience;
        loop {
            // No question is open for longer than an answer may take.
            let at_once = left.min(WAIT_AT_ONCE);
            left -= at_once;
            let question = |call| MasterMessage::Wait {
                app: app.clone(),
                patience_millis: u64::try_from(at_once.as_millis()).unwrap_or(u64::MAX),
                call,
            };
            let asked = self.ask_open(Repeat::Safe, at_once, question);
            let status: Option<AppStatus> = asked.await?;
            let has_ended = status.as_ref().is_none_or(|status| status.phase.is_final());
            if has_ended || left.is_zero() {
                return Ok(status);
            }
        }
    }

    /// All applications that the master remembers, in the order of submission. They are asked for in pages, so they
    /// are not all of one moment.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn apps(&self) -> Result<Vec<AppStatus>, ClientError> {
        let (mut apps, mut query) = (Vec::new(), AppsQuery::default());
        loop {
            let page = self.apps_page(query.clone()).await?;
            apps.extend(page.apps);
            query.after = page.next;
            if query.after.is_none() {
                return Ok(apps);
            }
        }
    }

    /// A page of the applications that the master remembers.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn apps_page(&self, query: AppsQuery) -> Result<AppsPage, ClientError> {
        let question = |call| MasterMessage::Apps {
            query: query.clone(),
            call,
        };
        self.ask(Repeat::Safe, question).await
    }

    /// All workers that the master remembers.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn workers(&self) -> Result<Vec<WorkerStatus>, ClientError> {
        self.ask(Repeat::Safe, |call| MasterMessage::Workers { call })
            .await
    }

    /// Drains a worker, which is named by its id or by where it is reached (`host:port`), or no more; tells how that
    /// stands. A drain that was asked for twice has its timeout counted from the second time.
    ///
    /// # Errors
    ///
    /// No master answered, or one of an earlier version, which cannot do so.
    pub async fn drain(
        &self,
        worker: &str,
        request: DrainRequest,
    ) -> Result<DrainAnswer, ClientError> {
        let question = |call| MasterMessage::Drain {
            worker: worker.to_owned(),
            request,
            call,
        };
        self.ask(Repeat::Safe, question).await
    }

    /// The cluster in numbers.
    ///
    /// # Errors
    ///
    /// No master answered.
    pub async fn cluster(&self) -> Result<ClusterStatus, ClientError> {
        self.ask(Repeat::Safe, |call| MasterMessage::Cluster { call })
            .await
    }

    /// Who leads, and how it is reached. Of one master: as far as that knows, and nobody where it knows of none.
    ///
    /// # Errors
    ///
    /// No master answered, or the one that leads is of a version that cannot.
    pub async fn leader(&self) -> Result<LeaderAnswer, ClientError> {
        self.ask(Repeat::Safe, |call| MasterMessage::AwaitLeader {
            besides: None,
            patience_millis: 0,
            call,
        })
        .await
    }

    /// What came of each master when it was last looked at; nothing where there is only one to ask.
    #[must_use]
    pub fn tried(&self) -> Vec<TriedMaster> {
        match &self.way {
            Way::Direct(_) => Vec::new(),
            Way::Found { masters, .. } => masters.tried(),
        }
    }

    /// Looks at each master once, also at those that do not lead; at one that says nothing for two seconds at the most.
    /// Nothing where there is only one to ask. Cancel safe.
    pub async fn masters(&self) -> Vec<TriedMaster> {
        match &self.way {
            Way::Direct(_) => Vec::new(),
            Way::Found { masters, .. } => masters.look_at_all(LOOK_PATIENCE).await,
        }
    }

    /// A piece of an application's output; empty at the end of what there is, once the patience of the request is over.
    ///
    /// # Errors
    ///
    /// The master or the worker did not answer.
    pub async fn read_log(
        &self,
        app: &AppId,
        request: LogRequest,
    ) -> Result<LogAnswer, ClientError> {
        let question = |call| MasterMessage::ReadLog {
            app: app.clone(),
            request,
            call,
        };
        let open_for = request.patience().min(WAIT_AT_ONCE);
        self.ask_open(Repeat::PassedOn, open_for, question).await
    }

    /// Follows an application's output until it has ended, also while another master takes over.
    #[must_use]
    pub fn follow_log(&self, app: &AppId, request: LogRequest) -> LogFollower {
        LogFollower::new(self.clone(), app.clone(), request)
    }
}

/// Puts a question to a master. Its answer has the usual time, or beyond that for which it may stay open some.
fn put<R>(
    master: &RpcEndpointRef<MasterMessage>,
    open_for: Duration,
    question: impl FnOnce(RpcCallContext<R>) -> MasterMessage,
) -> Ask<R> {
    if open_for.is_zero() {
        return master.ask(question);
    }
    master.ask_for(open_for + OVERDUE_AFTER, question)
}

/// Why the master of this process gave no answer.
fn direct(reason: AskError, repeat: Repeat) -> ClientError {
    let tried = Vec::new();
    match repeat.after(&reason) {
        Next::Unknown => ClientError::OutcomeUnknown {
            name: String::new(),
            key: None,
            reason,
            tried,
        },
        Next::Later | Next::Elsewhere | Next::GiveUp => ClientError::Unanswered { reason, tried },
    }
}
