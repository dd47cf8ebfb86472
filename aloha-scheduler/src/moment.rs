//! Moments as people read them.

use std::fmt;

use crate::ids::civil;

/// A moment in milliseconds since 1970. It prints as `2019-03-11 22:17:31.042 UTC`.
///
/// # Examples
///
/// ```
/// use aloha_scheduler::Moment;
///
/// assert_eq!(Moment(1_552_342_651_042).to_string(), "2019-03-11 22:17:31.042 UTC");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1000, self.0 % 1000);
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03} UTC"
        )
    }
}
