//! Configuration: every key in one table, every value checked before anything starts.
//!
//! ```text
//!  default < properties file < environment variable < -D key=value < a flag of its own
//!     └───────────┴──────────────────┴─────────────────────┴──────────────┘
//!                        ConfigBuilder::load
//!                                 │  each value read by its Kind, its Origin kept
//!                              Config ──► MasterSettings, WorkerSettings, RestSettings, RpcSettings
//! ```
//!
//! Nothing here reads the process's environment: a lookup function is passed in.

mod error;
mod properties;
mod registry;
mod render;
mod settings;
mod sources;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub use error::ConfigError;
pub use registry::{Fallback, KEYS, Key};
pub use render::{ConfigRow, markdown_table};
pub use settings::{Codec, MasterSettings, RestSettings, RpcSettings, WorkerSettings};
pub use sources::ConfigBuilder;
pub use value::{ByteUnit, Kind, TimeUnit, Value, parse_bytes, parse_duration};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody set the key.
    Default,
    /// A line of a properties file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(&'static str),
    /// `-D key=value` on the command line.
    Override,
    /// A flag of its own on the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Override => f.write_str("-D"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// The configuration in force: for every key of [`KEYS`] its value, if any, and where that came from.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use aloha_scheduler::config::{Config, Origin};
///
/// let config = Config::builder()
///     .environment(|name| (name == "ALOHA_MASTER_PORT").then(|| "7000".to_owned()))
///     .overrides(["aloha.worker.timeout=5"])
///     .load()?;
/// assert_eq!(config.master().port, 7000);
/// assert_eq!(config.origin("aloha.master.port"), Some(&Origin::Variable("ALOHA_MASTER_PORT")));
/// assert_eq!(config.master().worker_timeout, Duration::from_secs(5));
///
/// let error = Config::builder().overrides(["aloha.worker.timout=5"]).load().unwrap_err();
/// assert!(error.to_string().contains("did you mean aloha.worker.timeout?"));
/// # Ok::<(), aloha_scheduler::config::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// One for each key of [`KEYS`], in its order.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    value: Option<Value>,
    origin: Origin,
}

impl Config {
    /// Starts to collect a configuration; with nothing collected, it is the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The value of a key; `None` if it has none, or there is no such key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.entries[registry::position(key)?].value.as_ref()
    }

    /// Every key that has a value, with that value as a text the key would read back.
    pub fn in_force(&self) -> BTreeMap<String, String> {
        let entries = KEYS.iter().zip(&self.entries);
        entries
            .filter_map(|(key, entry)| {
                Some((key.name.to_owned(), entry.value.as_ref()?.to_string()))
            })
            .collect()
    }

    /// Where the value of a key came from; `None` if there is no such key.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        Some(&self.entries[registry::position(key)?].origin)
    }
}
