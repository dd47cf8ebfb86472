//! Why a configuration was refused.

use std::io;
use std::path::PathBuf;

use super::Origin;

/// Why a configuration was refused. Every message names the key, the place and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A properties file could not be read.
    #[error("cannot read the properties file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A line of a properties file is none.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An override without the shape `key=value`.
    #[error("-D {text}: expected key=value")]
    MalformedOverride {
        /// What was given.
        text: String,
    },
    /// A key that Aloha does not know.
    #[error("{origin}: unknown key {key}{}", did_you_mean(*nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// The known key that was perhaps meant.
        nearest: Option<&'static str>,
    },
    /// A key that is documented, but has no function in this version.
    #[error("{origin}: {key} is known to Aloha but not supported by this version")]
    KeyNotSupported {
        /// The key.
        key: &'static str,
        /// Where it stands.
        origin: Origin,
    },
    /// A value that is documented, but has no function in this version.
    #[error("{origin}: {key}={value} is not supported by this version yet, only {accepted}")]
    ValueNotSupported {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// Where it stands.
        origin: Origin,
        /// What works.
        accepted: String,
    },
    /// A value of the wrong kind or out of range.
    #[error("{origin}: {key}={value}: expected {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// Where it stands.
        origin: Origin,
        /// What is allowed.
        expected: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!(", did you mean {key}?"))
}
