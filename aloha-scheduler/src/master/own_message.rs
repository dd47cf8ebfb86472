use tokio::sync::oneshot;

use super::standby::{Heir, NoHeir};

/// What a master tells itself.
#[derive(Debug)]
pub enum OwnMessage {
    /// The time of its next deadline has come.
    Tick,
    /// The store is further than it was, or in trouble.
    StoreProgressed,
    /// It was elected and knows what is stored, or not.
    Elected(Result<Heir, NoHeir>),
    /// A leadership may stand otherwise than before.
    StandingChanged,
    /// It is time to stand for election again.
    Campaign,
    /// While it stands for election it sees who leads: what kept it from that before is over.
    StandsBy,
    /// It is to lead no more, and to say when that is done.
    HandOver(oneshot::Sender<()>),
}
