use std::io;
use std::path::PathBuf;

/// Why the listeners could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerError {
    /// A name that stands for none.
    #[error("aloha.extraListeners names {name:?}, which is no listener; there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those there are, separated by commas.
        known: String,
    },
    /// Two of the same name.
    #[error("there are two listeners {name:?}; leave one of them out")]
    Twice {
        /// The name.
        name: String,
    },
    /// A name that would garble a log.
    #[error("{name:?} cannot name a listener; use 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    BadName {
        /// The name.
        name: String,
    },
    /// The listener `command` has nothing to run.
    #[error(
        "aloha.extraListeners names command, which needs the path of an executable in aloha.listeners.command"
    )]
    NoCommand,
    /// What the listener `command` is to run cannot be executed.
    #[error("aloha.listeners.command is {}, which is no executable file", program.display())]
    NotExecutable {
        /// The path.
        program: PathBuf,
    },
    /// There is no thread for it.
    #[error("cannot start a thread for the listener {name}")]
    Thread {
        /// Which listener.
        name: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}
