//! What of a master survives it, and who of several leads: chosen by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::election::{LeaderElectionAgent, SoleMaster};
use crate::persistence::{FileEngine, PersistenceEngine, PersistenceError};

/// What of a master survives it, and who of several leads.
#[derive(Debug, Clone)]
pub struct RecoveryMode {
    /// Where it keeps what it must not forget; `None` for nowhere.
    pub persistence: Option<Arc<dyn PersistenceEngine>>,
    /// Who of several leads.
    pub election: Arc<dyn LeaderElectionAgent>,
}

impl RecoveryMode {
    /// Nothing survives, and the master is alone.
    #[must_use]
    pub fn none() -> Self {
        Self {
            persistence: None,
            election: Arc::new(SoleMaster::default()),
        }
    }

    /// All survives, in this engine, and the master is alone.
    pub fn stored_in(persistence: impl PersistenceEngine) -> Self {
        Self {
            persistence: Some(Arc::new(persistence)),
            ..Self::none()
        }
    }
}

impl Default for RecoveryMode {
    fn default() -> Self {
        Self::none()
    }
}

/// Which recovery mode is wanted (`aloha.deploy.recoveryMode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecoveryKind {
    /// Nothing survives.
    #[default]
    None,
    /// All survives, in a file of this machine.
    FileSystem,
    /// All survives, and several masters elect one that leads, on a ZooKeeper.
    ZooKeeper,
    /// As somebody's own factory makes it.
    Custom,
}

/// The ZooKeeper of recovery mode ZOOKEEPER, as it is asked for: nothing of it is checked before it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZooKeeperSettings {
    /// The servers, `h1:2181,h2:2181`, with a chroot if there is one (`aloha.deploy.zookeeper.url`).
    pub url: Option<String>,
    /// Where everything is kept, below the chroot (`aloha.deploy.zookeeper.dir`).
    pub dir: String,
    /// Silence after which ZooKeeper gives a master up (`aloha.deploy.zookeeper.sessionTimeout`).
    pub session_timeout: Duration,
    /// Who may do what with what is kept there: `open`, `creator`, `scheme:id:permissions`; open for all where there is
    /// none (`aloha.deploy.zookeeper.acl`).
    pub acl: Vec<String>,
    /// The file that says who a master is, in lines of `scheme:secret` (`aloha.deploy.zookeeper.auth.file`).
    pub auth_file: Option<PathBuf>,
}

impl Default for ZooKeeperSettings {
    fn default() -> Self {
        Self {
            url: None,
            dir: "/aloha".to_owned(),
            session_timeout: Duration::from_secs(10),
            acl: Vec::new(),
            auth_file: None,
        }
    }
}

/// What a recovery mode is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoverySettings {
    /// Which.
    pub kind: RecoveryKind,
    /// The name of the factory of a custom one (`aloha.deploy.recoveryMode.factory`).
    pub factory: Option<String>,
    /// Where files are kept (`aloha.deploy.recoveryDirectory`).
    pub directory: PathBuf,
    /// The ZooKeeper (`aloha.deploy.zookeeper.*`).
    pub zookeeper: ZooKeeperSettings,
}

/// Why there is no such recovery mode.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryModeError {
    /// A custom mode without a factory.
    #[error(
        "aloha.deploy.recoveryMode is CUSTOM, but aloha.deploy.recoveryMode.factory names no factory"
    )]
    NoFactory,
    /// A factory that this program does not have.
    #[error(
        "aloha.deploy.recoveryMode.factory: this program has no factory {name:?}{}; a program of your own can start a \
         master with one (see RecoveryModes and the example custom_recovery)",
        others(known)
    )]
    UnknownFactory {
        /// The name.
        name: String,
        /// The names that it has.
        known: Vec<String>,
    },
    /// The store cannot be used.
    #[error("cannot use the master's store")]
    Store(#[from] PersistenceError),
    /// The ZooKeeper cannot be used as it was asked for.
    #[cfg(feature = "zookeeper")]
    #[error("cannot use ZooKeeper")]
    ZooKeeper(#[from] crate::zookeeper::ZooKeeperError),
    /// This program was built without ZooKeeper.
    #[error(
        "aloha.deploy.recoveryMode is ZOOKEEPER, but this program was built without the cargo feature zookeeper"
    )]
    NoZooKeeper,
    /// Masters that share a ZooKeeper are named, and this one would lead beside them.
    #[error(
        "aloha.deploy.zookeeper.url is {url}, but aloha.deploy.recoveryMode is not ZOOKEEPER: this master would lead \
         beside those that share it; set aloha.deploy.recoveryMode=ZOOKEEPER, or take the url away"
    )]
    BesideZooKeeper {
        /// Which ZooKeeper.
        url: String,
    },
    /// A factory of somebody's own failed.
    #[error("the recovery mode {name:?} cannot be had")]
    Factory {
        /// Its name.
        name: String,
        /// What it says.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn others(known: &[String]) -> String {
    match known {
        [] => String::new(),
        names => format!(", only {}", names.join(", ")),
    }
}

type Factory = dyn Fn(&RecoverySettings) -> Result<RecoveryMode, Box<dyn std::error::Error + Send + Sync>>
    + Send
    + Sync;

/// The recovery modes that a program can be configured to use: NONE, FILESYSTEM and ZOOKEEPER, and its own by name.
///
/// # Examples
///
/// ```
/// use aloha_scheduler::persistence::MemoryEngine;
/// use aloha_scheduler::{RecoveryKind, RecoveryMode, RecoveryModes, RecoverySettings};
///
/// let modes = RecoveryModes::new()
///     .with("my-store", |_settings| Ok(RecoveryMode::stored_in(MemoryEngine::new())));
/// let mut settings = RecoverySettings::default();
/// settings.kind = RecoveryKind::Custom;
/// settings.factory = Some("my-store".to_owned());
/// let mode = modes.build(&settings)?;
/// assert!(mode.persistence.is_some());
/// # Ok::<(), aloha_scheduler::RecoveryModeError>(())
/// ```
#[derive(Default)]
pub struct RecoveryModes {
    factories: BTreeMap<String, Box<Factory>>,
}

impl fmt::Debug for RecoveryModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys()).finish()
    }
}

impl RecoveryModes {
    /// Those that every master has.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one of one's own, for recovery mode CUSTOM with this name as its factory.
    #[must_use]
    pub fn with(
        mut self,
        name: impl Into<String>,
        factory: impl Fn(
            &RecoverySettings,
        ) -> Result<RecoveryMode, Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.factories.insert(name.into(), Box::new(factory));
        self
    }

    /// Makes the one that is wanted. Blocks where it opens files; waits for no server.
    ///
    /// # Errors
    ///
    /// There is no such mode, or its store cannot be used.
    pub fn build(&self, settings: &RecoverySettings) -> Result<RecoveryMode, RecoveryModeError> {
        let is_alone = matches!(settings.kind, RecoveryKind::None | RecoveryKind::FileSystem);
        if let Some(url) = settings.zookeeper.url.clone().filter(|_| is_alone) {
            return Err(RecoveryModeError::BesideZooKeeper { url });
        }
        match settings.kind {
            RecoveryKind::None => Ok(RecoveryMode::none()),
            RecoveryKind::FileSystem => Ok(RecoveryMode::stored_in(FileEngine::open(
                &settings.directory,
            )?)),
            #[cfg(feature = "zookeeper")]
            RecoveryKind::ZooKeeper => {
                Ok(crate::zookeeper::ZooKeeper::new(&settings.zookeeper)?.recovery_mode())
            }
            #[cfg(not(feature = "zookeeper"))]
            RecoveryKind::ZooKeeper => Err(RecoveryModeError::NoZooKeeper),
            RecoveryKind::Custom => {
                let name = settings
                    .factory
                    .as_ref()
                    .ok_or(RecoveryModeError::NoFactory)?;
                let Some(factory) = self.factories.get(name) else {
                    return Err(RecoveryModeError::UnknownFactory {
                        name: name.clone(),
                        known: self.factories.keys().cloned().collect(),
                    });
                };
                factory(settings).map_err(|cause| RecoveryModeError::Factory {
                    name: name.clone(),
                    cause,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(factory: Option<&str>) -> RecoverySettings {
        RecoverySettings {
            kind: RecoveryKind::Custom,
            factory: factory.map(str::to_owned),
            ..RecoverySettings::default()
        }
    }

    #[test]
    fn a_factory_that_is_not_there_is_an_error_that_says_what_to_do() {
        let modes = RecoveryModes::new();
        let error = modes.build(&custom(None)).unwrap_err().to_string();
        assert!(
            error.contains("aloha.deploy.recoveryMode.factory"),
            "{error}"
        );
        let error = modes.build(&custom(Some("x"))).unwrap_err().to_string();
        assert!(error.contains("no factory \"x\";"), "{error}");
        let modes = modes.with("y", |_| Err("no disk".into()));
        let error = modes.build(&custom(Some("x"))).unwrap_err().to_string();
        assert!(error.contains("no factory \"x\", only y;"), "{error}");
        let error = modes.build(&custom(Some("y"))).unwrap_err();
        let error = crate::with_causes(&error);
        assert_eq!(error, "the recovery mode \"y\" cannot be had: no disk");
    }

    #[test]
    fn no_master_leads_beside_those_that_share_the_zookeeper_that_it_names() {
        let mut settings = RecoverySettings::default();
        let modes = RecoveryModes::new();
        modes.build(&settings).expect("a master that is alone");
        settings.zookeeper.url = Some("zk1:2181".to_owned());
        let error = modes.build(&settings).unwrap_err().to_string();
        assert!(error.contains("recoveryMode=ZOOKEEPER"), "{error}");
    }
}
