use std::time::{Duration, Instant, SystemTime};

/// The time as a core sees it, read once by the shell for each event.
///
/// Deadlines are told by `instant`, which never jumps; `wall` only names moments for people and mints ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic time: decides what is due.
    pub instant: Instant,
    /// The time on the wall: decides nothing.
    pub wall: SystemTime,
}

impl Now {
    /// The wall time in milliseconds since 1970, 0 for a clock set before that.
    pub fn unix_millis(&self) -> u64 {
        let since = self
            .wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
