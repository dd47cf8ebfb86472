use crate::election::{ElectionError, Leadership};

/// What a master tells itself.
#[derive(Debug)]
pub enum OwnMessage {
    /// The time of its core's next deadline has come.
    Tick,
    /// The store is further than it was, or in trouble.
    StoreProgressed,
    /// The campaign for the leadership is over.
    Elected(Result<Leadership, ElectionError>),
    /// A leadership may stand otherwise than before.
    StandingChanged,
    /// It is time to stand for election again.
    Campaign,
}
