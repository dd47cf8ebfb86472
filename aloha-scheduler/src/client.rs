//! Asks a master, from this process or another.

use std::time::Duration;

use aloha_rpc::{AskError, LookupError, RpcAddress, RpcEndpointRef, RpcEnv};

use crate::app::{AppDescription, AppStatus};
use crate::ids::AppId;
use crate::log_follower::LogFollower;
use crate::master::WorkerStatus;
use crate::messages::{KillAnswer, LogAnswer, LogRequest, MASTER, MasterMessage, SubmitAnswer};

/// How long one question about the end of an application stays open before it is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of a master. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MasterClient {
    master: RpcEndpointRef<MasterMessage>,
}

/// Why a master could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// None of the masters was found.
    #[error("no master answers: {}", tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NoMaster {
        /// What came of each.
        tried: Vec<LookupError>,
    },
    /// It did not answer.
    #[error("no answer from the master: {0}")]
    Unanswered(#[from] AskError),
}

impl MasterClient {
    pub(crate) fn new(master: RpcEndpointRef<MasterMessage>) -> Self {
        Self { master }
    }

    /// A client of the first of these masters that is there.
    ///
    /// # Errors
    ///
    /// None is.
    pub async fn connect(env: &RpcEnv, masters: &[RpcAddress]) -> Result<Self, ClientError> {
        let mut tried = Vec::new();
        for address in masters {
            match env.retrieve_endpoint_ref(address, MASTER).await {
                Ok(master) => return Ok(Self { master }),
                Err(error) => tried.push(error),
            }
        }
        Err(ClientError::NoMaster { tried })
    }

    /// Submits an application.
    ///
    /// # Errors
    ///
    /// The master did not answer; it may have taken the application.
    pub async fn submit(&self, description: AppDescription) -> Result<SubmitAnswer, ClientError> {
        Ok(self
            .master
            .ask(|call| MasterMessage::Submit { description, call })
            .await?)
    }

    /// Ends an application, or keeps it from starting.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn kill(&self, app: AppId) -> Result<KillAnswer, ClientError> {
        Ok(self
            .master
            .ask(|call| MasterMessage::Kill { app, call })
            .await?)
    }

    /// How an application is; none if there is no such one.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn status(&self, app: AppId) -> Result<Option<AppStatus>, ClientError> {
        Ok(self
            .master
            .ask(|call| MasterMessage::Status { app, call })
            .await?)
    }

    /// Waits until an application has ended; none if there is no such one. Cancel safe.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn wait(&self, app: &AppId) -> Result<Option<AppStatus>, ClientError> {
        loop {
            let status = self.wait_for(app, PATIENCE).await?;
            if status.as_ref().is_none_or(|status| status.phase.is_final()) {
                return Ok(status);
            }
        }
    }

    /// Waits until an application has ended, but no longer than `patience`; then gives how it is.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn wait_for(
        &self,
        app: &AppId,
        patience: Duration,
    ) -> Result<Option<AppStatus>, ClientError> {
        let patience_millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let question = |call| MasterMessage::Wait {
            app: app.clone(),
            patience_millis,
            call,
        };
        Ok(self.master.ask(question).await?)
    }

    /// All applications that the master remembers, in the order of submission.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn apps(&self) -> Result<Vec<AppStatus>, ClientError> {
        Ok(self.master.ask(|call| MasterMessage::Apps { call }).await?)
    }

    /// All workers that the master remembers.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn workers(&self) -> Result<Vec<WorkerStatus>, ClientError> {
        Ok(self
            .master
            .ask(|call| MasterMessage::Workers { call })
            .await?)
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
        Ok(self.master.ask(question).await?)
    }

    /// Follows an application's output until it has ended.
    #[must_use]
    pub fn follow_log(&self, app: &AppId, request: LogRequest) -> LogFollower {
        LogFollower::new(self.clone(), app.clone(), request)
    }
}
