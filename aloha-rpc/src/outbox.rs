//! One peer's mail: the connection to an address, made when it is first needed and again after it broke.
//!
//! Messages queue in the connection's own write queue while it is being made, so order holds; if it cannot be
//! made, all that waited fails as one, and the next message tries anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aloha_transport::ConnectError;

use crate::address::RpcAddress;
use crate::env::EnvInner;
use crate::link::Link;

pub(crate) struct Outbox {
    address: RpcAddress,
    state: Mutex<State>,
    /// How many connections were made, or tried.
    links: AtomicU64,
}

enum State {
    Idle,
    /// Connecting or connected: the link knows.
    Linked(Arc<Link>),
}

impl Outbox {
    pub(crate) fn new(address: RpcAddress) -> Self {
        Self {
            address,
            state: Mutex::new(State::Idle),
            links: AtomicU64::new(0),
        }
    }

    pub(crate) fn address(&self) -> &RpcAddress {
        &self.address
    }

    /// How many connections were made, or tried, before the one in use.
    pub(crate) fn reconnects(&self) -> u64 {
        self.links.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// The link in use. `broken` is the one that was found closed, if one was.
    pub(crate) fn link(
        &self,
        env: &EnvInner,
        broken: Option<&Arc<Link>>,
    ) -> Result<Arc<Link>, ConnectError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Linked(link) if broken.is_none_or(|broken| broken.id() != link.id()) => {
                Ok(Arc::clone(link))
            }
            State::Idle | State::Linked(_) => {
                let link = Link::new(
                    env.this(),
                    env.config.codec,
                    env.factory.client(&self.address.to_string())?,
                );
                self.links.fetch_add(1, Ordering::Relaxed);
                *state = State::Linked(Arc::clone(&link));
                Ok(link)
            }
        }
    }
}
