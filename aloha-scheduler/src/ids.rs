//! The names of applications and workers, minted here and nowhere else.
//!
//! An id becomes a directory name on a worker, so text that comes from outside is refused unless it is harmless there.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest id that is accepted, in bytes.
const LENGTH_MAX: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Nothing was given.
    #[error("an id is empty")]
    Empty,
    /// The text is longer than any id.
    #[error("an id has {length} bytes, more than {LENGTH_MAX}")]
    TooLong {
        /// The length found, in bytes.
        length: usize,
    },
    /// The text starts with a dot, as `..` does.
    #[error("an id starts with a dot")]
    LeadingDot,
    /// The text holds something besides `A-Z a-z 0-9 . _ -`.
    #[error("an id contains {found:?}")]
    Forbidden {
        /// The first character refused.
        found: char,
    },
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > LENGTH_MAX {
        return Err(IdError::TooLong { length: text.len() });
    }
    if text.starts_with('.') {
        return Err(IdError::LeadingDot);
    }
    match text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        Some(found) => Err(IdError::Forbidden { found }),
        None => Ok(()),
    }
}

macro_rules! id {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text).map(|()| Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

id! {
    /// The id of an application, such as `app-20190311221731-0000`.
    ///
    /// Cheap to clone. Text from outside is parsed, and anything that could leave a directory is refused:
    ///
    /// ```
    /// use aloha_scheduler::AppId;
    ///
    /// assert!("app-20190311221731-0000".parse::<AppId>().is_ok());
    /// assert!("../etc".parse::<AppId>().is_err());
    /// ```
    AppId
}

id! {
    /// The id of a worker, such as `worker-20190311221731-10.0.0.7-40123`.
    WorkerId
}

impl AppId {
    /// Mints the id of the application submitted at `wall` as number `number` of its master.
    pub fn mint(wall: SystemTime, number: u64) -> Self {
        Self(format!("app-{}-{number:04}", timestamp(wall)).into())
    }

    /// Reads an id as users give it: `driver-…`, which Spark's clients are told, is the same application as `app-…`.
    ///
    /// # Errors
    ///
    /// The text is no id.
    ///
    /// ```
    /// use aloha_scheduler::AppId;
    ///
    /// let app = AppId::of_user("driver-20190311221731-0000").expect("an id");
    /// assert_eq!(app.as_str(), "app-20190311221731-0000");
    /// ```
    pub fn of_user(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix("driver-") {
            Some(rest) => format!("app-{rest}").parse(),
            None => text.parse(),
        }
    }

    /// The number it was minted with, if it looks like that. One that no master comes to is none.
    pub(crate) fn number(&self) -> Option<u64> {
        let number = self.0.rsplit_once('-')?.1.parse().ok();
        number.filter(|number| *number < 1 << 48)
    }
}

impl WorkerId {
    /// Mints the id of a worker that starts at `wall` and is reached at `host` and `port`.
    ///
    /// Whatever a directory name could not hold (the colons of IPv6) becomes `_`, and a very long host is cut.
    pub fn mint(wall: SystemTime, host: &str, port: u16) -> Self {
        let harmless = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
                c
            } else {
                '_'
            }
        };
        let host: String = host.chars().map(harmless).take(90).collect();
        Self(format!("worker-{}-{host}-{port}", timestamp(wall)).into())
    }
}

/// `YYYYMMDDhhmmss` in UTC.
fn timestamp(wall: SystemTime) -> String {
    let seconds = wall
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

/// The Gregorian date so many days after 1970-01-01.
///
/// Years are counted from March, so that the leap day is a year's last; 400 of them repeat exactly.
pub(crate) fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn ids_carry_the_utc_time_and_the_number() {
        assert_eq!(
            AppId::mint(at(1_552_342_651), 0).as_str(),
            "app-20190311221731-0000"
        );
        assert_eq!(
            AppId::mint(at(1_552_342_651), 12_345).as_str(),
            "app-20190311221731-12345"
        );
        let worker = WorkerId::mint(at(1_552_342_651), "10.0.0.7", 40123);
        assert_eq!(worker.as_str(), "worker-20190311221731-10.0.0.7-40123");
    }

    #[test]
    fn dates_are_right_around_leap_days_and_the_ends_of_years() {
        let dates = [
            (0, "19700101000000"),
            (951_782_400, "20000229000000"),
            (951_868_800, "20000301000000"),
            (1_709_164_800, "20240229000000"),
            (1_735_689_599, "20241231235959"),
            (4_107_542_400, "21000301000000"),
        ];
        for (seconds, expected) in dates {
            assert_eq!(timestamp(at(seconds)), expected);
        }
    }

    #[test]
    fn a_minted_id_is_one_that_parses() {
        for host in ["h", "::1", "a/b", "..", &"x".repeat(500), ""] {
            let id = WorkerId::mint(at(0), host, u16::MAX);
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
        }
    }

    #[test]
    fn text_that_could_leave_a_directory_is_refused() {
        let parse = |text: &str| text.parse::<AppId>().unwrap_err();
        assert_eq!(parse(""), IdError::Empty);
        assert_eq!(parse(".."), IdError::LeadingDot);
        assert_eq!(parse("a/b"), IdError::Forbidden { found: '/' });
        assert_eq!(parse("a\\b"), IdError::Forbidden { found: '\\' });
        assert_eq!(parse("a\0b"), IdError::Forbidden { found: '\0' });
        assert_eq!(parse("é"), IdError::Forbidden { found: 'é' });
        assert_eq!(parse(&"x".repeat(129)), IdError::TooLong { length: 129 });
        assert!("x".repeat(128).parse::<AppId>().is_ok());
    }

    #[test]
    fn an_id_is_a_plain_string_on_the_wire_and_is_checked_on_arrival() {
        let id: AppId = "app-1".parse().unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), r#""app-1""#);
        assert_eq!(serde_json::from_str::<AppId>(r#""app-1""#).unwrap(), id);
        assert!(serde_json::from_str::<AppId>(r#""../x""#).is_err());
    }
}
