use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::command::CommandListener;
use super::lane::Lane;
use super::log::LogListener;
use super::{AlohaEventListener, EventBus, ListenerError};
use crate::constraint::is_name;

const LOG: &str = "log";
const COMMAND: &str = "command";

/// Which listeners there are to be besides those added in code, and how they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// The names of those that listen (`aloha.extraListeners`).
    pub names: Vec<String>,
    /// Events that may wait for each of them (`aloha.listeners.queueMax`).
    pub queue_max: usize,
    /// What the listener `command` runs for each event (`aloha.listeners.command`).
    pub command: Option<PathBuf>,
    /// How long that may take (`aloha.listeners.command.timeout`).
    pub command_timeout: Duration,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            queue_max: 10_000,
            command: None,
            command_timeout: Duration::from_secs(30),
        }
    }
}

type Factory = Box<dyn FnOnce() -> Box<dyn AlohaEventListener> + Send>;

/// Who listens to what happens in a cluster.
///
/// Two listeners are built in: `log` writes a line of the log for each event, `command` runs a program for each. A
/// program that embeds a master makes further ones known [by name](Self::with), for `aloha.extraListeners`, or
/// [adds](Self::add) them in any case.
#[derive(Default)]
pub struct Listeners {
    known: BTreeMap<String, Factory>,
    added: Vec<(String, Box<dyn AlohaEventListener>)>,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added: Vec<_> = self.added.iter().map(|(name, _)| name).collect();
        f.debug_struct("Listeners")
            .field("known", &self.known.keys().collect::<Vec<_>>())
            .field("added", &added)
            .finish()
    }
}

impl Listeners {
    /// None but those that are built in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a listener known by a name: it is made and listens where `aloha.extraListeners` has that name.
    #[must_use]
    pub fn with<L: AlohaEventListener + 'static>(
        mut self,
        name: impl Into<String>,
        make: impl FnOnce() -> L + Send + 'static,
    ) -> Self {
        self.known
            .insert(name.into(), Box::new(move || Box::new(make())));
        self
    }

    /// Adds a listener, whatever the configuration says.
    #[must_use]
    pub fn add(
        mut self,
        name: impl Into<String>,
        listener: impl AlohaEventListener + 'static,
    ) -> Self {
        self.added.push((name.into(), Box::new(listener)));
        self
    }

    /// Starts them, those added in code first.
    ///
    /// # Errors
    ///
    /// A name that stands for none or for two, a command that cannot be executed, or no thread to be had. Nobody
    /// listens then.
    pub fn start(mut self, settings: &ListenerSettings) -> Result<EventBus, ListenerError> {
        let mut listeners = std::mem::take(&mut self.added);
        for name in &settings.names {
            let listener = self.make(name, settings)?;
            listeners.push((name.clone(), listener));
        }
        for (at, (name, _)) in listeners.iter().enumerate() {
            let name = || name.clone();
            if !is_name(&name()) {
                return Err(ListenerError::BadName { name: name() });
            }
            if listeners[..at].iter().any(|(other, _)| *other == name()) {
                return Err(ListenerError::Twice { name: name() });
            }
        }
        let lanes: Result<Vec<_>, _> = listeners
            .into_iter()
            .map(|(name, listener)| Lane::start(name, settings.queue_max, listener))
            .collect();
        Ok(EventBus::new(lanes?))
    }

    fn make(
        &mut self,
        name: &str,
        settings: &ListenerSettings,
    ) -> Result<Box<dyn AlohaEventListener>, ListenerError> {
        // One of the user's own stands before one that is built in.
        if let Some(make) = self.known.remove(name) {
            return Ok(make());
        }
        match name {
            LOG => Ok(Box::new(LogListener)),
            COMMAND => Ok(Box::new(CommandListener::new(settings)?)),
            _ => {
                let built_in = [COMMAND, LOG].into_iter().map(str::to_owned);
                let known: Vec<_> = self.known.keys().cloned().chain(built_in).collect();
                Err(ListenerError::Unknown {
                    name: name.to_owned(),
                    known: known.join(", "),
                })
            }
        }
    }
}
