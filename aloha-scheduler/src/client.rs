//! Asks a master, from this process or another.

use std::time::Duration;

use aloha_rpc::{AskError, LookupError, RpcAddress, RpcEndpointRef, RpcEnv};

use crate::app::{AppDescription, AppStatus};
use crate::app_query::{AppsPage, AppsQuery};
use crate::cluster_status::ClusterStatus;
use crate::ids::AppId;
use crate::log_follower::LogFollower;
use crate::master::WorkerStatus;
use crate::messages::{
    ForgetAnswer, KillAnswer, LogAnswer, LogRequest, MASTER, MasterMessage, SubmitAnswer,
};

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
        self.submit_under(None, description).await
    }

    /// Submits an application under an idempotency key, 1 to 128 visible ASCII characters: submitted again under the
    /// same key, it is still one application.
    ///
    /// # Errors
    ///
    /// The master did not answer; it may have taken the application, and says so when it is submitted again.
    pub async fn submit_once(
        &self,
        description: AppDescription,
        key: &str,
    ) -> Result<SubmitAnswer, ClientError> {
        self.submit_under(Some(key.to_owned()), description).await
    }

    async fn submit_under(
        &self,
        key: Option<String>,
        description: AppDescription,
    ) -> Result<SubmitAnswer, ClientError> {
        let question = |call| MasterMessage::Submit {
            description,
            key,
            call,
        };
        Ok(self.master.ask(question).await?)
    }

    /// Ends every application, or keeps it from starting; tells how many these were.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn kill_all(&self) -> Result<u64, ClientError> {
        Ok(self
            .master
            .ask(|call| MasterMessage::KillAll { call })
            .await?)
    }

    /// Forgets an application that has ended.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn forget(&self, app: AppId) -> Result<ForgetAnswer, ClientError> {
        Ok(self
            .master
            .ask(|call| MasterMessage::Forget { app, call })
            .await?)
    }

    /// Forgets every application that has ended; tells how many these were.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn clear(&self) -> Result<u64, ClientError> {
        Ok(self
            .master
            .ask(|call| MasterMessage::Clear { call })
            .await?)
    }

    /// The cluster in numbers.
    ///
    /// # Errors
    ///
    /// The master did not answer.
    pub async fn cluster(&self) -> Result<ClusterStatus, ClientError> {
        Ok(self
            .master
            .ask(|call| MasterMessage::Cluster { call })
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

    /// All applications that the master remembers, in the order of submission. They are asked for in pages, so they
    /// are not all of one moment.
    ///
    /// # Errors
    ///
    /// The master did not answer.
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
    /// The master did not answer.
    pub async fn apps_page(&self, query: AppsQuery) -> Result<AppsPage, ClientError> {
        Ok(self
            .master
            .ask(|call| MasterMessage::Apps { query, call })
            .await?)
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

#[cfg(test)]
mod tests {
    use aloha_rpc::{RpcConfig, TransportConfig};

    use super::*;
    use crate::master::Master;

    async fn env(name: &str, address: Option<&str>, frame_bytes_max: usize) -> RpcEnv {
        let config = RpcConfig {
            transport: TransportConfig {
                frame_bytes_max,
                ..TransportConfig::default()
            },
            ..RpcConfig::default()
        };
        let builder = RpcEnv::builder(name).config(config);
        let builder = match address {
            Some(address) => builder.bind(address),
            None => builder,
        };
        builder.start().await.unwrap()
    }

    #[tokio::test]
    async fn more_applications_than_a_message_holds_are_listed_in_the_order_of_submission() {
        const COUNT: usize = 2_500;
        let frame_bytes_max = 512 << 10;
        let master_env = env("master", Some("127.0.0.1:0"), frame_bytes_max).await;
        let master = Master::start(&master_env, Master::default_settings(&master_env)).unwrap();
        let mut ids = Vec::new();
        for number in 0..COUNT {
            let description = AppDescription {
                name: format!("{number:0>250}"),
                entry_point: "Process".into(),
                cores: 1,
                ..AppDescription::default()
            };
            let answer = master.client().submit(description).await.unwrap();
            ids.push(answer.accepted().unwrap());
        }
        let client_env = env("client", None, frame_bytes_max).await;
        let address = master_env.address().unwrap().clone();
        let client = MasterClient::connect(&client_env, &[address])
            .await
            .unwrap();
        let apps = client.apps().await.unwrap();
        let bytes: usize = apps.iter().map(|app| app.name.len()).sum();
        assert!(bytes > frame_bytes_max, "one message would do");
        let listed: Vec<_> = apps.into_iter().map(|app| app.id).collect();
        assert_eq!(listed, ids);
        let query = AppsQuery {
            after: Some("1999".parse().unwrap()),
            ..AppsQuery::default()
        };
        let page = client.apps_page(query).await.unwrap();
        assert_eq!((page.apps.len(), page.next), (500, None));
        let status = client.status(ids[0].clone()).await.unwrap().unwrap();
        assert_eq!(status.history.len(), 1, "{status:?}");
        client_env.shutdown().await;
        master_env.shutdown().await;
    }
}
