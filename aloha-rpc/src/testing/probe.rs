//! An endpoint that gives its messages to a test.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::context::EndpointContext;
use crate::endpoint::RpcEndpoint;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::RpcEnv;
use crate::error::EndpointError;

/// How long a probe waits for a message before it fails the test.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many messages a probe keeps for the test.
const KEPT_MAX: usize = 1024;

/// An endpoint that gives its messages to a test, which answers the calls in them or drops them.
#[derive(Debug)]
pub struct Probe<M> {
    endpoint_ref: RpcEndpointRef<M>,
    messages: mpsc::Receiver<M>,
}

impl<M: Serialize + DeserializeOwned + Send + 'static> Probe<M> {
    /// Sets a probe up under a name.
    ///
    /// # Panics
    ///
    /// The name is taken or is none, or the environment is shut down.
    #[must_use]
    pub fn set_up(env: &RpcEnv, name: &str) -> Self {
        let (kept, messages) = mpsc::channel(KEPT_MAX);
        match env.setup_endpoint(name, Keeper { kept }) {
            Ok(endpoint_ref) => Self {
                endpoint_ref,
                messages,
            },
            Err(error) => panic!("cannot set up a probe: {error}"),
        }
    }

    /// The reference to hand out.
    #[must_use]
    pub fn endpoint_ref(&self) -> &RpcEndpointRef<M> {
        &self.endpoint_ref
    }

    /// The next message, sent or asked. Cancel safe.
    ///
    /// # Panics
    ///
    /// None came within a minute.
    pub async fn next(&mut self) -> M {
        match self.next_within(PATIENCE).await {
            Some(message) => message,
            None => panic!(
                "no message for {} within {PATIENCE:?}",
                self.endpoint_ref.uri()
            ),
        }
    }

    /// The next message, if one comes in time. Cancel safe.
    pub async fn next_within(&mut self, limit: Duration) -> Option<M> {
        tokio::time::timeout(limit, self.messages.recv())
            .await
            .ok()
            .flatten()
    }

    /// Waits that no message comes.
    ///
    /// # Panics
    ///
    /// One came.
    pub async fn expect_none(&mut self, limit: Duration) {
        let message = self.next_within(limit).await;
        assert!(
            message.is_none(),
            "an unexpected message for {}",
            self.endpoint_ref.uri()
        );
    }
}

struct Keeper<M> {
    kept: mpsc::Sender<M>,
}

impl<M: Serialize + DeserializeOwned + Send + 'static> RpcEndpoint for Keeper<M> {
    type Message = M;

    async fn receive(&mut self, message: M, ctx: &EndpointContext<M>) -> Result<(), EndpointError> {
        if self.kept.send(message).await.is_err() {
            // The probe is dropped.
            ctx.stop();
        }
        Ok(())
    }
}
