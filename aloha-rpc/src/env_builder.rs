//! How an environment is to be.

use std::fmt;
use std::sync::Arc;

use aloha_transport::{Network, Runtime};

use crate::config::RpcConfig;
use crate::env::RpcEnv;
use crate::error::StartError;
use crate::metrics::Metrics;

/// How an environment is to be.
#[must_use = "an environment starts with `start`"]
pub struct RpcEnvBuilder {
    pub(crate) name: String,
    pub(crate) config: RpcConfig,
    pub(crate) bind: Option<String>,
    pub(crate) advertised_host: Option<String>,
    pub(crate) network: Option<Arc<dyn Network>>,
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
    pub(crate) metrics: Option<Arc<dyn Metrics>>,
    pub(crate) port_retries: u16,
}

impl RpcEnvBuilder {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            config: RpcConfig::default(),
            bind: None,
            advertised_host: None,
            network: None,
            runtime: None,
            metrics: None,
            port_retries: 0,
        }
    }

    /// Listens on `address` (`host:port`, where port 0 picks a free one; or `unix:/path`). Without it the environment is
    /// a client: it calls others, and is answered over its own connections.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        self.bind = Some(address.into());
        self
    }

    /// Tells peers to call another host than the one it listens on.
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertised_host = Some(host.into());
        self
    }

    /// With other limits and time-outs.
    pub fn config(mut self, config: RpcConfig) -> Self {
        self.config = config;
        self
    }

    /// Over another network than TCP.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = Some(network);
        self
    }

    /// With time, randomness and tasks from elsewhere than the current tokio runtime.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// With somebody who hears of what happens. Only then is the time of messages measured.
    pub fn metrics(mut self, metrics: impl Metrics) -> Self {
        self.metrics = Some(Arc::new(metrics));
        self
    }

    /// Tries so many further ports, one after the other, where the one to [`bind`](Self::bind) is in use. Default none.
    pub fn port_retries(mut self, retries: u16) -> Self {
        self.port_retries = retries;
        self
    }

    /// Starts the environment on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    ///
    /// # Panics
    ///
    /// Called outside a tokio runtime.
    pub async fn start(self) -> Result<RpcEnv, StartError> {
        RpcEnv::start(self).await
    }
}

impl fmt::Debug for RpcEnvBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcEnvBuilder")
            .field("name", &self.name)
            .field("bind", &self.bind)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
