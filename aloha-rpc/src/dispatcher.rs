//! Endpoint name → inbox. The map is wrapped so that no guard of it escapes.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::mail::Control;
use crate::mailbox::Mailbox;
use crate::schema::Schema;

/// An endpoint that is set up: its inbox, and what its messages look like.
#[derive(Clone)]
pub(crate) struct Registered {
    pub(crate) mailbox: Arc<dyn Mailbox>,
    /// Asked for at look-ups alone, so it is made anew each time.
    pub(crate) schema: fn() -> Schema,
}

/// The order of a walk over all endpoints must be the same in every run; names come from this program alone.
type FixedHasher = BuildHasherDefault<DefaultHasher>;

#[derive(Default)]
pub(crate) struct Dispatcher {
    endpoints: DashMap<Arc<str>, Registered, FixedHasher>,
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

    pub(crate) fn all(&self) -> Vec<Arc<dyn Mailbox>> {
        self.endpoints
            .iter()
            .map(|entry| Arc::clone(&entry.mailbox))
            .collect()
    }

    pub(crate) fn broadcast(&self, event: impl Fn() -> Control) {
        self.all()
            .iter()
            .for_each(|mailbox| mailbox.control(event()));
    }

    pub(crate) fn abandon_all(&self) {
        self.all().iter().for_each(|mailbox| mailbox.abandon());
    }

    pub(crate) fn stop_all(&self) {
        self.all().iter().for_each(|mailbox| mailbox.stop());
    }
}
