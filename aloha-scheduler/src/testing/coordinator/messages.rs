use aloha_rpc::RpcCallContext;
use serde::{Deserialize, Serialize};

use crate::election::MasterAddress;
use crate::messages::LocalOnly;
use crate::persistence::{Change, StoredRecord};

/// The name of the coordinator's endpoint.
pub(super) const COORDINATOR: &str = "Coordinator";

/// What a coordinator is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum CoordinatorMessage {
    Open {
        timeout_millis: u64,
        call: RpcCallContext<u64>,
    },
    Ping {
        session: u64,
        call: RpcCallContext<Answer<()>>,
    },
    Close {
        session: u64,
        call: RpcCallContext<()>,
    },
    /// Takes a seat; the same token again is the same seat.
    Stand {
        session: u64,
        token: u64,
        candidate: MasterAddress,
        call: RpcCallContext<Answer<u64>>,
    },
    Leave {
        session: u64,
        token: u64,
        call: RpcCallContext<Answer<()>>,
    },
    /// Answered once the seats are of another version than the one known.
    Seats {
        session: u64,
        known: u64,
        patience_millis: u64,
        call: RpcCallContext<Answer<Seats>>,
    },
    /// Raises the epoch; the same token again is the same epoch, unless it was raised since.
    BeginEpoch {
        session: u64,
        token: u64,
        at_least: u64,
        call: RpcCallContext<Answer<u64>>,
    },
    /// Numbers rise within an epoch: one that was taken is not taken again.
    Append {
        session: u64,
        epoch: u64,
        number: u64,
        changes: Vec<WireChange>,
        call: RpcCallContext<Answer<()>>,
    },
    Read {
        session: u64,
        call: RpcCallContext<Answer<News>>,
    },
    /// Answered once there is something behind this position; without patience at once, with all there is.
    Follow {
        session: u64,
        after: u64,
        patience_millis: u64,
        call: RpcCallContext<Answer<News>>,
    },
    Own(LocalOnly<Tick>),
}

/// Time passes.
#[derive(Debug)]
pub(super) struct Tick;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer<T> {
    Done(T),
    /// There is no such session, or no more.
    Expired,
    Fenced {
        newest: u64,
    },
    Unavailable {
        reason: String,
    },
}

/// Who stands, as far as that matters: the one that leads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seats {
    pub(super) version: u64,
    pub(super) first: Option<(u64, MasterAddress)>,
}

/// Changes up to a position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct News {
    pub(super) position: u64,
    pub(super) changes: Vec<WireChange>,
}

/// A [`Change`] on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WireChange {
    Put(String, #[serde(with = "serde_bytes")] Vec<u8>),
    Delete(String),
}

impl From<Change> for WireChange {
    fn from(change: Change) -> Self {
        match change {
            Change::Put(StoredRecord { key, value }) => Self::Put(key, value),
            Change::Delete { key } => Self::Delete(key),
        }
    }
}

impl From<WireChange> for Change {
    fn from(change: WireChange) -> Self {
        match change {
            WireChange::Put(key, value) => Self::Put(StoredRecord { key, value }),
            WireChange::Delete(key) => Self::Delete { key },
        }
    }
}
