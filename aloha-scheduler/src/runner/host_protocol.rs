//! What the runner and the executable that hosts a user's own type say to each other.
//!
//! ```text
//!   runner                                        executable of the user
//!     │ spawns it, with ALOHA_RUNNER ────────────────► │ connects
//!     │ ◄──────────────────────────────── Assignment ──│
//!     │ ── what it is ───────────────────────────────► │ runs the type that the entry point names
//!     │ ◄───────────────────────────── AwaitShutdown ──│
//!     │ ── the reason, when there is one ────────────► │ shutdown(reason)
//!     │ ◄─────────────────────────────── ends, or is disconnected: the other ends as well
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aloha_rpc::{RpcAddress, RpcCallContext, RpcEnv};
use serde::{Deserialize, Serialize};

use crate::app::AppDescription;
use crate::application::{ApplicationContext, ProcessHost, ShutdownReason};

/// The endpoint of the runner that an executable talks to.
pub(crate) const HOST: &str = "Host";

/// The variable that holds the address of the runner.
pub(crate) const RUNNER_VARIABLE: &str = "ALOHA_RUNNER";

/// What an executable says to its runner.
///
/// Users' executables are older than the workers they run on, and both ends compare the variants: this enum stays as it
/// is. What grows is [`Assignment`]; what it cannot say needs an endpoint of another name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum HostMessage {
    /// Asks what is to run; answered with an [`Assignment`] as JSON.
    Assignment(RpcCallContext<String>),
    /// Answered when the application is to end, with the reason.
    AwaitShutdown(RpcCallContext<ShutdownReason>),
    /// The executable cannot run what it was given; it ends once this is answered.
    CannotRun {
        /// Why.
        reason: String,
        /// Answered when it is noted.
        call: RpcCallContext<()>,
    },
}

/// What an executable is to run: the context of its application, but for its processes.
///
/// It travels as JSON, for what one end does not know is then skipped. New fields have a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    app_id: String,
    attempt: u32,
    description: Arc<AppDescription>,
    directory: PathBuf,
    master: String,
    worker_id: String,
    #[serde(default)]
    configuration: Arc<BTreeMap<String, String>>,
}

impl Assignment {
    pub(crate) fn of(context: &ApplicationContext) -> Self {
        Self {
            app_id: context.app_id.clone(),
            attempt: context.attempt,
            description: Arc::clone(&context.description),
            directory: context.directory.clone(),
            master: context.master.clone(),
            worker_id: context.worker_id.clone(),
            configuration: Arc::clone(&context.configuration),
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    pub(crate) fn from_json(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Which of the executable's types is to run.
    pub(crate) fn entry_point(&self) -> &str {
        &self.description.entry_point
    }

    /// The whole cores set aside for it.
    pub(crate) fn cores(&self) -> u32 {
        self.description.cores
    }

    pub(crate) fn into_context(self, processes: Arc<dyn ProcessHost>) -> ApplicationContext {
        ApplicationContext {
            app_id: self.app_id,
            attempt: self.attempt,
            description: self.description,
            directory: self.directory,
            master: self.master,
            worker_id: self.worker_id,
            configuration: self.configuration,
            processes,
        }
    }
}

/// Where other processes reach an environment of this one: to them, `/proc/self` is another directory.
pub(crate) fn address_for_others(env: &RpcEnv) -> Option<RpcAddress> {
    let address = env.address()?;
    let below_self = address
        .unix_path()
        .and_then(|path| path.strip_prefix("/proc/self/"));
    let Some(below_self) = below_self else {
        return Some(address.clone());
    };
    RpcAddress::unix(&format!("/proc/{}/{below_self}", std::process::id())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_of_another_version_is_understood() {
        let text = r#"{"app_id": "app-1", "attempt": 2, "directory": "/d", "master": "m", "worker_id": "w", "new": [1],
            "description": {"name": "n", "entry_point": "com.example.Greeter", "libs": ["/l"], "args": ["a"], "cores": 1,
                "memory_mib": 1, "supervise": true, "environment": {"A": "b"}, "newer": {}}}"#;
        let read = Assignment::from_json(text).unwrap();
        assert_eq!(
            (read.entry_point(), read.attempt),
            ("com.example.Greeter", 2)
        );
        assert_eq!(
            Assignment::from_json(&read.to_json().unwrap()).unwrap(),
            read
        );
    }

    #[tokio::test]
    async fn a_socket_below_proc_self_is_named_by_pid() {
        let name = format!("aloha-host-protocol-{}.sock", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join(name);
        let below_self = format!("unix:/proc/self/root{}", socket.display());
        let env = RpcEnv::builder("runner")
            .bind(below_self)
            .start()
            .await
            .unwrap();
        let pid = std::process::id();
        assert_eq!(
            address_for_others(&env).unwrap().to_string(),
            format!("unix:/proc/{pid}/root{}", socket.display())
        );
        let client = RpcEnv::client("client").await.unwrap();
        assert_eq!(address_for_others(&client), None);
        env.shutdown().await;
    }
}
