//! The REST server's questions, put to a master.

use async_trait::async_trait;

use super::gateway::{GatewayError, KillAnswer, SubmissionGateway, SubmissionStatus, SubmitAnswer};
use crate::app::{AppDescription, AppStatus};
use crate::client::{ClientError, MasterClient};
use crate::ids::AppId;
use crate::messages;

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
}

impl From<AppStatus> for SubmissionStatus {
    fn from(status: AppStatus) -> Self {
        let (worker_id, worker_host_port) = status
            .worker
            .map(|placed| (placed.worker.to_string(), placed.address))
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
