//! The REST server's questions, put to a master.

use std::time::Duration;

use aloha_rpc::AskError;
use async_trait::async_trait;

use super::gateway::{GatewayError, LogPiece, LogSource, SubmissionGateway};
use crate::app::{AppDescription, AppStatus};
use crate::app_query::{AppsPage, AppsQuery};
use crate::client::{ClientError, MasterClient};
use crate::cluster_status::ClusterStatus;
use crate::drain::{DrainAnswer, DrainRequest};
use crate::ids::AppId;
use crate::log_follower::{FollowError, LogFollower, LogNews};
use crate::master::{STANDBY, WorkerStatus};
use crate::messages::{
    ForgetAnswer, KillAnswer, LeaderAnswer, LogAnswer, LogRequest, SubmitAnswer,
};

#[async_trait]
impl SubmissionGateway for MasterClient {
    async fn submit(
        &self,
        description: AppDescription,
        key: Option<&str>,
    ) -> Result<SubmitAnswer, GatewayError> {
        let answer = match key {
            Some(key) => self.submit_once(description, key).await,
            None => Self::submit(self, description).await,
        };
        answered(self, answer).await
    }

    async fn kill(&self, app: AppId) -> Result<KillAnswer, GatewayError> {
        answered(self, Self::kill(self, app).await).await
    }

    async fn kill_all(&self) -> Result<u64, GatewayError> {
        answered(self, Self::kill_all(self).await).await
    }

    async fn forget(&self, app: AppId) -> Result<ForgetAnswer, GatewayError> {
        answered(self, Self::forget(self, app).await).await
    }

    async fn clear(&self) -> Result<u64, GatewayError> {
        answered(self, Self::clear(self).await).await
    }

    async fn status(&self, app: AppId) -> Result<Option<AppStatus>, GatewayError> {
        answered(self, Self::status(self, app).await).await
    }

    async fn wait(
        &self,
        app: &AppId,
        patience: Duration,
    ) -> Result<Option<AppStatus>, GatewayError> {
        answered(self, self.wait_for(app, patience).await).await
    }

    async fn apps(&self, query: AppsQuery) -> Result<AppsPage, GatewayError> {
        answered(self, self.apps_page(query).await).await
    }

    async fn workers(&self) -> Result<Vec<WorkerStatus>, GatewayError> {
        answered(self, Self::workers(self).await).await
    }

    async fn drain(
        &self,
        worker: &str,
        request: DrainRequest,
    ) -> Result<DrainAnswer, GatewayError> {
        answered(self, Self::drain(self, worker, request).await).await
    }

    async fn cluster(&self) -> Result<ClusterStatus, GatewayError> {
        answered(self, Self::cluster(self).await).await
    }

    async fn ready(&self) -> Result<(), GatewayError> {
        let cluster = SubmissionGateway::cluster(self).await?;
        match cluster.store_trouble {
            None => Ok(()),
            Some(reason) => Err(GatewayError::NotReady { reason }),
        }
    }

    async fn read_log(&self, app: &AppId, request: LogRequest) -> Result<LogPiece, GatewayError> {
        let app = find(self, app, request.attempt).await?;
        piece(self, &app, request).await
    }

    async fn follow_log(
        &self,
        app: &AppId,
        request: LogRequest,
    ) -> Result<(u64, Box<dyn LogSource>), GatewayError> {
        let app = find(self, app, request.attempt).await?;
        // An empty piece: it says where the output begins, and that there is any.
        let begin = LogRequest {
            bytes_max: 0,
            ..request
        };
        let offset = piece(self, &app, begin).await?.offset;
        let request = LogRequest { offset, ..request };
        Ok((offset, Box::new(self.follow_log(&app.id, request))))
    }
}

/// An answer, or why there is none: of a master of this process that leads no more, with the one that does. It must not
/// be asked what a submission without a key became, for it may have been taken.
async fn answered<T>(
    master: &MasterClient,
    answer: Result<T, ClientError>,
) -> Result<T, GatewayError> {
    let error = match answer {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    if let ClientError::Unanswered { reason, .. } = &error
        && master.is_direct()
    {
        let is_standby = matches!(reason, AskError::Failed { kind, .. } if kind == STANDBY);
        match master.leader().await {
            Ok(LeaderAnswer {
                leader: leader @ Some(_),
                epoch: 0,
            }) => return Err(GatewayError::Standby { leader }),
            Ok(LeaderAnswer { leader: None, .. }) if is_standby => {
                return Err(GatewayError::Standby { leader: None });
            }
            Ok(_) | Err(_) => {}
        }
    }
    Err(error.into())
}

async fn find(
    master: &MasterClient,
    id: &AppId,
    attempt: Option<u32>,
) -> Result<AppStatus, GatewayError> {
    let status = SubmissionGateway::status(master, id.clone()).await?;
    let not_found = |reason| GatewayError::NotFound { reason };
    let status = status.ok_or_else(|| not_found(format!("there is no application {id}")))?;
    match attempt {
        Some(attempt) if attempt > status.attempt => Err(not_found(format!(
            "there is no attempt {attempt} of {id}, the latest is {}",
            status.attempt
        ))),
        _ => Ok(status),
    }
}

async fn piece(
    master: &MasterClient,
    app: &AppStatus,
    request: LogRequest,
) -> Result<LogPiece, GatewayError> {
    let answer = MasterClient::read_log(master, &app.id, request).await;
    let answer = answered(master, answer).await?;
    match answer {
        LogAnswer::Chunk { bytes, next_offset } => Ok(LogPiece {
            offset: next_offset.saturating_sub(bytes.len() as u64),
            bytes,
            next_offset,
        }),
        // Its worker has not begun with it.
        LogAnswer::Unavailable { .. } if !app.phase.is_final() && app.started_at.is_none() => {
            Ok(LogPiece {
                bytes: Vec::new(),
                offset: request.offset,
                next_offset: request.offset,
            })
        }
        LogAnswer::Unavailable { reason } => Err(GatewayError::NotFound { reason }),
    }
}

#[async_trait]
impl LogSource for LogFollower {
    async fn next(&mut self) -> Result<Option<LogNews>, GatewayError> {
        match Self::next(self).await {
            Ok(news) => Ok(news),
            Err(FollowError::Client(error)) => Err(error.into()),
            Err(error) => Err(GatewayError::NotFound {
                reason: error.to_string(),
            }),
        }
    }
}

impl From<ClientError> for GatewayError {
    fn from(error: ClientError) -> Self {
        let reason = error.to_string();
        match error {
            // "Try again" would be wrong: it may have been done.
            ClientError::OutcomeUnknown { .. } => Self::Failed { reason },
            _ => Self::NotReady { reason },
        }
    }
}
