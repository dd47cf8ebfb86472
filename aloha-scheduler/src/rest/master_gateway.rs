//! The REST server's questions, put to a master.

use async_trait::async_trait;

use super::gateway::{
    GatewayError, KillAnswer, LogPiece, LogSource, SubmissionGateway, SubmissionStatus,
    SubmitAnswer,
};
use crate::app::{AppDescription, AppStatus};
use crate::client::{ClientError, MasterClient};
use crate::ids::AppId;
use crate::log_follower::{FollowError, LogFollower, LogNews};
use crate::messages::{self, LogRequest};

#[async_trait]
impl SubmissionGateway for MasterClient {
    async fn submit(&self, description: AppDescription) -> Result<SubmitAnswer, GatewayError> {
        Ok(match Self::submit(self, description).await? {
            messages::SubmitAnswer::Accepted { app } => {
                let message = format!("application submitted as {app}");
                SubmitAnswer::Accepted {
                    id: app.to_string(),
                    message,
                }
            }
            messages::SubmitAnswer::Refused { reason } => SubmitAnswer::Refused { message: reason },
        })
    }

    async fn kill(&self, id: &str) -> Result<KillAnswer, GatewayError> {
        let Ok(app) = id.parse::<AppId>() else {
            return Ok(KillAnswer::Refused {
                message: format!("there is no application {id}"),
            });
        };
        let messages::KillAnswer { success, message } = Self::kill(self, app).await?;
        Ok(if success {
            KillAnswer::Accepted { message }
        } else {
            KillAnswer::Refused { message }
        })
    }

    async fn status(&self, id: &str) -> Result<Option<SubmissionStatus>, GatewayError> {
        let Ok(app) = id.parse::<AppId>() else {
            return Ok(None);
        };
        Ok(Self::status(self, app).await?.map(SubmissionStatus::from))
    }

    async fn ready(&self) -> Result<(), GatewayError> {
        self.workers().await?;
        Ok(())
    }

    async fn read_log(&self, id: &str, request: LogRequest) -> Result<LogPiece, GatewayError> {
        let app = find(self, id, request.attempt).await?;
        piece(self, &app, request).await
    }

    async fn follow_log(
        &self,
        id: &str,
        request: LogRequest,
    ) -> Result<(u64, Box<dyn LogSource>), GatewayError> {
        let app = find(self, id, request.attempt).await?;
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

async fn find(
    master: &MasterClient,
    id: &str,
    attempt: Option<u32>,
) -> Result<AppStatus, GatewayError> {
    let status = match id.parse::<AppId>() {
        Ok(app) => MasterClient::status(master, app).await?,
        Err(_) => None,
    };
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
    let answer = MasterClient::read_log(master, &app.id, request).await?;
    match answer {
        messages::LogAnswer::Chunk { bytes, next_offset } => Ok(LogPiece {
            offset: next_offset.saturating_sub(bytes.len() as u64),
            bytes,
            next_offset,
        }),
        // Its worker has not begun with it.
        messages::LogAnswer::Unavailable { .. }
            if !app.phase.is_final() && app.started_at.is_none() =>
        {
            Ok(LogPiece {
                bytes: Vec::new(),
                offset: request.offset,
                next_offset: request.offset,
            })
        }
        messages::LogAnswer::Unavailable { reason } => Err(GatewayError::NotFound { reason }),
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

impl From<AppStatus> for SubmissionStatus {
    fn from(status: AppStatus) -> Self {
        let (worker_id, worker_host_port) = status
            .worker
            .map(|placed| (placed.worker.to_string(), placed.address.to_string()))
            .unzip();
        Self {
            state: status.phase.to_string(),
            message: status.message,
            worker_id,
            worker_host_port,
            exit_code: status.exit_code,
            attempt: Some(status.attempt).filter(|attempt| *attempt > 0),
            waiting_for: status.waiting_for,
            submitted_at: status.submitted_at,
            started_at: status.started_at,
            finished_at: status.ended_at,
            priority: Some(status.priority),
            not_before: status.not_before,
            history: status.history,
        }
    }
}

impl From<ClientError> for GatewayError {
    fn from(error: ClientError) -> Self {
        Self::NotReady {
            reason: error.to_string(),
        }
    }
}
