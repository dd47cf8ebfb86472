//! One peer's mail: the connections to an address, each made when it is first needed and again after it broke. There is
//! one unless the configuration says more; all that is for one endpoint takes the same one.
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
    slots: Box<[Mutex<State>]>,
    /// How many connections were made, or tried, in the place of broken ones.
    reconnects: AtomicU64,
}

enum State {
    Idle,
    /// Connecting or connected: the link knows.
    Linked(Arc<Link>),
}

impl Outbox {
    /// With room for so many connections, at least one.
    pub(crate) fn new(address: RpcAddress, connections: usize) -> Self {
        let slots = (0..connections.max(1)).map(|_| Mutex::new(State::Idle));
        Self {
            address,
            slots: slots.collect(),
            reconnects: AtomicU64::new(0),
        }
    }

    pub(crate) fn address(&self) -> &RpcAddress {
        &self.address
    }

    /// How many connections were made, or tried, before those in use.
    pub(crate) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// The link in use for the endpoint of that name. `broken` is the one that was found closed, if one was.
    pub(crate) fn link(
        &self,
        env: &EnvInner,
        name: &str,
        broken: Option<&Arc<Link>>,
    ) -> Result<Arc<Link>, ConnectError> {
        let slot = match self.slots.len() {
            1 => 0,
            count => slot_of(name, count),
        };
        let state = self.slots[slot].lock();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Linked(link) if broken.is_none_or(|broken| broken.id() != link.id()) => {
                Ok(Arc::clone(link))
            }
            State::Idle | State::Linked(_) => {
                let link = Link::new(
                    env.this(),
                    env.config.codec,
                    env.factory.client_at(&self.address.to_string(), slot)?,
                );
                if let State::Linked(_) = &*state {
                    self.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                *state = State::Linked(Arc::clone(&link));
                Ok(link)
            }
        }
    }
}

/// The slot of a name, the same in every run: FNV-1a.
fn slot_of(name: &str, count: usize) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(hash % count as u64).expect("below a usize")
}
