//! What values a key takes, how they are read and how they are shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::constraint::is_name;
use crate::constraint::{Attributes, attributes, shown};
use crate::master::ALL_TAGS;

/// The unit of a duration that is written without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeUnit {
    /// A plain number counts seconds.
    Seconds,
    /// A plain number counts milliseconds.
    Milliseconds,
}

/// The unit of a size that is written without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ByteUnit {
    /// A plain number counts bytes.
    Bytes,
    /// A plain number counts MiB.
    Mebibytes,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Kind {
    /// A span of time: `60`, `500ms`, `10s`, `5min`, `1h`.
    Duration {
        /// What a plain number counts.
        unit: TimeUnit,
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// A size: `4G`, `512M`, `64k`; powers of 1024.
    Bytes {
        /// What a plain number counts.
        unit: ByteUnit,
        /// The smallest allowed, in bytes.
        min: u64,
        /// The largest allowed, in bytes.
        max: u64,
    },
    /// A whole number.
    Count {
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// `true` or `false`.
    Bool,
    /// One of a few words, in any case.
    Word {
        /// The words that work.
        accepted: &'static [&'static str],
        /// Words of the contract that have no function in this version yet.
        later: &'static [&'static str],
    },
    /// A host name or an IP address, without a port.
    Host,
    /// A path in the file system.
    Path,
    /// Words separated by commas.
    List,
    /// A name without blanks.
    Name,
    /// What a worker says of itself: `zone=a,gpu`.
    Attributes,
    /// Tags with the number of applications that may run at once, separated by commas: `etl=4,*=100`.
    TagLimits,
}

/// The value of a key, read and within its range.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// Of a [`Kind::Duration`].
    Duration(Duration),
    /// Of a [`Kind::Bytes`], in bytes.
    Bytes(u64),
    /// Of a [`Kind::Count`].
    Count(u64),
    /// Of a [`Kind::Bool`].
    Bool(bool),
    /// Of a [`Kind::Word`], as the registry spells it.
    Word(&'static str),
    /// Of a [`Kind::Host`].
    Text(String),
    /// Of a [`Kind::Path`].
    Path(PathBuf),
    /// Of a [`Kind::List`], without empty words.
    List(Vec<String>),
    /// Of a [`Kind::Attributes`].
    Attributes(Attributes),
    /// Of a [`Kind::TagLimits`].
    TagLimits(BTreeMap<String, u32>),
}

/// Why a text is no value of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Not of the kind, or out of range.
    Wrong,
    /// A word that a later version will know.
    Later,
}

impl Kind {
    /// Reads a value; blanks around it do not count.
    pub(super) fn parse(&self, text: &str) -> Result<Value, Unreadable> {
        let text = text.trim();
        let value = match *self {
            Self::Duration { unit, min, max } => duration(text, unit)
                .filter(|value| (min..=max).contains(value))
                .map(Value::Duration),
            Self::Bytes { unit, min, max } => bytes(text, unit)
                .filter(|value| (min..=max).contains(value))
                .map(Value::Bytes),
            Self::Count { min, max } => whole(text)
                .filter(|value| (min..=max).contains(value))
                .map(Value::Count),
            Self::Bool => match text.to_ascii_lowercase().as_str() {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                _ => None,
            },
            Self::Word { accepted, later } => {
                let same = |word: &&&str| word.eq_ignore_ascii_case(text);
                if later.iter().any(|word| same(&word)) {
                    return Err(Unreadable::Later);
                }
                accepted.iter().find(same).map(|word| Value::Word(word))
            }
            Self::Host => is_host(text).then(|| Value::Text(text.to_owned())),
            Self::Path => {
                (!text.is_empty() && !text.contains('\0')).then(|| Value::Path(PathBuf::from(text)))
            }
            Self::Name => (!text.is_empty() && !text.contains(char::is_whitespace))
                .then(|| Value::Text(text.to_owned())),
            Self::List => Some(Value::List(words(text).map(str::to_owned).collect())),
            Self::Attributes => attributes(words(text)).map(Value::Attributes),
            Self::TagLimits => tag_limits(text).map(Value::TagLimits),
        };
        value.ok_or(Unreadable::Wrong)
    }
}

/// What is allowed, for messages and tables.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Duration { unit, min, max } => {
                let unit = match unit {
                    TimeUnit::Seconds => "seconds",
                    TimeUnit::Milliseconds => "milliseconds",
                };
                let (min, max) = (Value::Duration(min), Value::Duration(max));
                write!(f, "a duration from {min} to {max} (plain number: {unit})")
            }
            Self::Bytes { unit, min, max } => {
                let unit = match unit {
                    ByteUnit::Bytes => "bytes",
                    ByteUnit::Mebibytes => "MiB",
                };
                let (min, max) = (Value::Bytes(min), Value::Bytes(max));
                write!(f, "a size from {min} to {max} (plain number: {unit})")
            }
            Self::Count { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Bool => f.write_str("true or false"),
            Self::Word { accepted, .. } => match accepted {
                [only] => write!(f, "{only}"),
                several => write!(f, "one of {}", several.join(", ")),
            },
            Self::Host => f.write_str("a host name or IP address"),
            Self::Path => f.write_str("a path"),
            Self::List => f.write_str("words separated by commas"),
            Self::Name => f.write_str("a name without blanks"),
            Self::Attributes => f.write_str("such as zone=a,gpu, each name once"),
            Self::TagLimits => f.write_str("tag=limit separated by commas, * for all applications"),
        }
    }
}

/// The value in a form that the same key would read back.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(value) => {
                let micros = value.as_micros();
                if micros.is_multiple_of(1_000_000) {
                    write!(f, "{}s", micros / 1_000_000)
                } else if micros.is_multiple_of(1000) {
                    write!(f, "{}ms", micros / 1000)
                } else {
                    write!(f, "{micros}us")
                }
            }
            Self::Bytes(value) => {
                let scaled = [(40, "T"), (30, "G"), (20, "M"), (10, "K")]
                    .into_iter()
                    .find(|(shift, _)| *value > 0 && value % (1_u64 << shift) == 0);
                match scaled {
                    Some((shift, suffix)) => write!(f, "{}{suffix}", value >> shift),
                    None => write!(f, "{value}B"),
                }
            }
            Self::Count(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Word(value) => f.write_str(value),
            Self::Text(value) => f.write_str(value),
            Self::Path(value) => write!(f, "{}", value.display()),
            Self::List(value) => f.write_str(&value.join(",")),
            Self::Attributes(value) => f.write_str(&shown(value).join(",")),
            Self::TagLimits(value) => {
                let words = value.iter().map(|(tag, most)| format!("{tag}={most}"));
                f.write_str(&words.collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// Reads a size such as `4G`, `512m`, `1024` or `16MiB` into bytes.
///
/// Suffixes are powers of 1024 in any case, with or without a trailing `B` or `iB`; a plain number counts `unit`.
/// Fractions, signs, and sizes beyond `u64` are `None`.
///
/// # Examples
///
/// ```
/// use aloha_scheduler::config::{ByteUnit, parse_bytes};
///
/// assert_eq!(parse_bytes("4G", ByteUnit::Mebibytes), Some(4 << 30));
/// assert_eq!(parse_bytes("256", ByteUnit::Mebibytes), Some(256 << 20));
/// assert_eq!(parse_bytes("256", ByteUnit::Bytes), Some(256));
/// assert_eq!(parse_bytes("-1", ByteUnit::Bytes), None);
/// ```
pub fn parse_bytes(text: &str, unit: ByteUnit) -> Option<u64> {
    bytes(text.trim(), unit)
}

/// Reads a span of time such as `500ms`, `10s`, `5min`, `1h` or `2d`; a plain number counts `unit`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use aloha_scheduler::config::{TimeUnit, parse_duration};
///
/// assert_eq!(parse_duration("500ms", TimeUnit::Seconds), Some(Duration::from_millis(500)));
/// assert_eq!(parse_duration("10", TimeUnit::Seconds), Some(Duration::from_secs(10)));
/// assert_eq!(parse_duration("-1", TimeUnit::Seconds), None);
/// ```
pub fn parse_duration(text: &str, unit: TimeUnit) -> Option<Duration> {
    duration(text.trim(), unit)
}

fn bytes(text: &str, unit: ByteUnit) -> Option<u64> {
    let (number, suffix) = cut_suffix(text)?;
    let shift = match suffix.as_str() {
        "" => match unit {
            ByteUnit::Bytes => 0,
            ByteUnit::Mebibytes => 20,
        },
        "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn duration(text: &str, unit: TimeUnit) -> Option<Duration> {
    let (number, suffix) = cut_suffix(text)?;
    let micros = match suffix.as_str() {
        "" => match unit {
            TimeUnit::Seconds => 1_000_000,
            TimeUnit::Milliseconds => 1000,
        },
        "us" => 1,
        "ms" => 1000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    number.checked_mul(micros).map(Duration::from_micros)
}

/// What stands between commas, but for blanks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn cut_suffix(text: &str) -> Option<(u64, String)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at(digits);
    Some((whole(number)?, suffix.trim().to_ascii_lowercase()))
}

/// Reads `tag=limit,tag=limit`; a tag that is named twice, or that no application could have, is a mistake.
fn tag_limits(text: &str) -> Option<BTreeMap<String, u32>> {
    let mut limits = BTreeMap::new();
    for word in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let (tag, most) = word.split_once('=')?;
        let (tag, most) = (tag.trim(), u32::try_from(whole(most.trim())?).ok()?);
        let is_new = limits.insert(tag.to_owned(), most).is_none();
        if !is_new || !(is_name(tag) || tag == ALL_TAGS) {
            return None;
        }
    }
    Some(limits)
}

/// A whole number without a sign: `u64::from_str` would take `+5`.
fn whole(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn is_host(text: &str) -> bool {
    let address = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if address.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !text.is_empty() && text.len() <= 253 && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_tags_are_read_as_they_are_written() {
        let read = |text| Kind::TagLimits.parse(text).map(|value| value.to_string());
        assert_eq!(read("*=100, etl=4,"), Ok("*=100,etl=4".to_owned()));
        assert_eq!(read(""), Ok(String::new()));
        for text in [
            "etl",
            "etl=",
            "=4",
            "etl=-1",
            "etl=4,etl=5",
            "a b=1",
            "etl=4294967296",
        ] {
            assert_eq!(read(text), Err(Unreadable::Wrong), "{text}");
        }
    }

    #[test]
    fn durations_take_a_unit_or_the_one_of_their_key() {
        let seconds = |text| duration(text, TimeUnit::Seconds);
        assert_eq!(seconds("60"), Some(Duration::from_secs(60)));
        assert_eq!(seconds("50us"), Some(Duration::from_micros(50)));
        assert_eq!(seconds("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(seconds("5 min"), Some(Duration::from_secs(300)));
        assert_eq!(
            duration("60", TimeUnit::Milliseconds),
            Some(Duration::from_millis(60))
        );
        for wrong in [
            "",
            "-1",
            "+1",
            "1.5",
            "s",
            "1w",
            "99999999999999999999",
            "18446744073709551615s",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(bytes("4G", ByteUnit::Mebibytes), Some(4 << 30));
        assert_eq!(bytes("4g", ByteUnit::Bytes), Some(4 << 30));
        assert_eq!(bytes("16MiB", ByteUnit::Bytes), Some(16 << 20));
        assert_eq!(bytes("512", ByteUnit::Mebibytes), Some(512 << 20));
        for wrong in ["", "G", "1.5G", "-4G", "4X", "99999999999999P"] {
            assert_eq!(bytes(wrong, ByteUnit::Bytes), None, "{wrong}");
        }
    }

    #[test]
    fn values_read_back_what_they_show() {
        let kind = Kind::Duration {
            unit: TimeUnit::Seconds,
            min: Duration::ZERO,
            max: Duration::MAX,
        };
        for text in ["60s", "1500ms", "0s"] {
            assert_eq!(kind.parse(text).expect("valid").to_string(), text);
        }
        let kind = Kind::Bytes {
            unit: ByteUnit::Mebibytes,
            min: 0,
            max: u64::MAX,
        };
        for text in ["4G", "1025B", "0B", "1536M"] {
            assert_eq!(kind.parse(text).expect("valid").to_string(), text);
        }
    }

    #[test]
    fn attributes_read_back_what_they_show() {
        let shown = |text| Kind::Attributes.parse(text).map(|value| value.to_string());
        assert_eq!(shown(" zone=a , gpu "), Ok("gpu,zone=a".into()));
        assert_eq!(shown("zone=a,zone=b"), Err(Unreadable::Wrong));
    }

    #[test]
    fn hosts_have_neither_port_nor_path() {
        for good in [
            "localhost",
            "10.0.0.1",
            "::1",
            "[::1]",
            "a-b.example.org",
            "h_1",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "a b", "h:1", "http://h", "h/x", "[h]"] {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
