//! Endpoint name → inbox. The map is wrapped so that no guard of it escapes.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::inbox::{ConnectionEvent, Mailbox};

/// An endpoint that is set up: its inbox, and what its messages look like.
#[derive(Clone)]
pub(crate) struct Registered {
    pub(crate) mailbox: Arc<dyn Mailbox>,
    pub(crate) schema: Arc<str>,
}

#[derive(Default)]
pub(crate) struct Dispatcher {
    endpoints: DashMap<Arc<str>, Registered>,
}

impl Dispatcher {
    /// False when the name is taken.
    #[must_use]
    pub(crate) fn register(&self, name: Arc<str>, endpoint: Registered) -> bool {
        match self.endpoints.entry(name) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(endpoint);
                true
            }
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Registered> {
        self.endpoints.get(name).map(|found| found.clone())
    }

    pub(crate) fn unregister(&self, name: &str) {
        self.endpoints.remove(name);
    }

    fn all(&self) -> Vec<Arc<dyn Mailbox>> {
        self.endpoints
            .iter()
            .map(|entry| Arc::clone(&entry.mailbox))
            .collect()
    }

    pub(crate) fn broadcast(&self, event: &ConnectionEvent) {
        self.all()
            .iter()
            .for_each(|mailbox| mailbox.notify(event.clone()));
    }

    pub(crate) fn stop_all(&self) {
        self.all().iter().for_each(|mailbox| mailbox.stop());
    }
}
