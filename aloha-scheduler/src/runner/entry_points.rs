use std::sync::Arc;

use aloha_rpc::RpcEnv;

use super::HostedApplication;
use crate::app::AppDescription;
use crate::application::{Application, Process, ProcessApplication, SimpleProcess, SparkSubmit};

/// The entry points that need no executable of the user's.
const BUILT_IN: [&str; 4] = [
    "SimpleProcess",
    "me.jrwang.app.SimpleProcess",
    "Process",
    "SparkSubmit",
];

/// Why a description names no application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryPointError {
    /// It is not built in, and no executable is there that may know it.
    #[error(
        "unknown entry point {entry_point:?}, known are: {}; a type of your own needs the path of its executable in libs (--lib)",
        BUILT_IN.join(", ")
    )]
    Unknown {
        /// What was asked for.
        entry_point: String,
    },
}

/// The application that a description names: a built-in one, or else one of the user's in the executable among its libs,
/// which reaches this process through `env`.
///
/// # Errors
///
/// The entry point is not built in, and there are no libs.
pub fn application(
    description: &AppDescription,
    env: &RpcEnv,
) -> Result<Arc<dyn Application>, EntryPointError> {
    match description.entry_point.as_str() {
        "SimpleProcess" | "me.jrwang.app.SimpleProcess" => {
            Ok(Arc::new(ProcessApplication::new(SimpleProcess)))
        }
        "Process" => Ok(Arc::new(ProcessApplication::new(Process))),
        "SparkSubmit" => Ok(Arc::new(ProcessApplication::new(SparkSubmit))),
        unknown if description.libs.is_empty() => Err(EntryPointError::Unknown {
            entry_point: unknown.to_owned(),
        }),
        _ => Ok(Arc::new(HostedApplication::new(env.clone()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn built_in_ones_need_no_libs_and_others_do() {
        let env = RpcEnv::client("runner").await.unwrap();
        let mut description = AppDescription::default();
        for entry_point in BUILT_IN {
            description.entry_point = entry_point.to_owned();
            assert!(application(&description, &env).is_ok(), "{entry_point}");
        }
        description.entry_point = "com.example.Greeter".to_owned();
        let Err(error) = application(&description, &env) else {
            panic!("it cannot be known");
        };
        assert_eq!(
            error.to_string(),
            "unknown entry point \"com.example.Greeter\", known are: SimpleProcess, me.jrwang.app.SimpleProcess, Process, \
             SparkSubmit; a type of your own needs the path of its executable in libs (--lib)"
        );
        description.libs.push("/bin/greeter".to_owned());
        assert!(application(&description, &env).is_ok());
        env.shutdown().await;
    }
}
