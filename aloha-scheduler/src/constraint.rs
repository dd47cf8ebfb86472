//! What an application wants of a worker besides room.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What a worker says of itself, such as `zone=a` or `gpu` (whose value is empty).
pub type Attributes = BTreeMap<String, String>;

/// Reads what a worker says of itself: words such as `zone=a` or `gpu`. `None` if one of them is none, or names what
/// another names as well.
pub(crate) fn attributes<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<Attributes> {
    let mut attributes = Attributes::new();
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let good = is_name(name) && is_value(value);
        if !good
            || attributes
                .insert(name.to_owned(), value.to_owned())
                .is_some()
        {
            return None;
        }
    }
    Some(attributes)
}

/// Attributes as they are written.
pub(crate) fn shown(attributes: &Attributes) -> Vec<String> {
    let text = |(name, value): (&String, &String)| match value.as_str() {
        "" => name.clone(),
        value => format!("{name}={value}"),
    };
    attributes.iter().map(text).collect()
}

/// One condition that a worker's attributes must meet.
///
/// Written `zone=a`, `zone!=a`, `gpu` (it has the attribute) or `!gpu` (it has not).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Constraint {
    /// The attribute has this value.
    Is(String, String),
    /// The attribute has another value, or is not there.
    IsNot(String, String),
    /// The attribute is there, whatever its value.
    Has(String),
    /// The attribute is not there.
    HasNot(String),
}

/// A text that is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no constraint, expected such as zone=a, zone!=a, gpu or !gpu")]
pub struct BadConstraint {
    /// The text.
    pub found: String,
}

impl Constraint {
    /// Whether a worker with these attributes meets it.
    pub fn is_met_by(&self, attributes: &Attributes) -> bool {
        match self {
            Self::Is(name, value) => attributes.get(name) == Some(value),
            Self::IsNot(name, value) => attributes.get(name) != Some(value),
            Self::Has(name) => attributes.contains_key(name),
            Self::HasNot(name) => !attributes.contains_key(name),
        }
    }
}

/// What can name an attribute or a tag, for messages.
pub(crate) const NAME_EXPECTED: &str = "1 to 64 characters of A-Z a-z 0-9 . _ -";

/// Whether a text can name an attribute or a tag: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

fn is_value(text: &str) -> bool {
    text.chars().count() <= 256 && !text.chars().any(|c| c.is_control() || c == ',')
}

impl FromStr for Constraint {
    type Err = BadConstraint;

    fn from_str(text: &str) -> Result<Self, BadConstraint> {
        let parsed = if let Some((name, value)) = text.split_once('=') {
            match name.strip_suffix('!') {
                Some(name) => Self::IsNot(name.to_owned(), value.to_owned()),
                None => Self::Is(name.to_owned(), value.to_owned()),
            }
        } else if let Some(name) = text.strip_prefix('!') {
            Self::HasNot(name.to_owned())
        } else {
            Self::Has(text.to_owned())
        };
        let good = match &parsed {
            Self::Is(name, value) | Self::IsNot(name, value) => is_name(name) && is_value(value),
            Self::Has(name) | Self::HasNot(name) => is_name(name),
        };
        good.then_some(parsed).ok_or_else(|| BadConstraint {
            found: text.to_owned(),
        })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(name, value) => write!(f, "{name}={value}"),
            Self::IsNot(name, value) => write!(f, "{name}!={value}"),
            Self::Has(name) => write!(f, "{name}"),
            Self::HasNot(name) => write!(f, "!{name}"),
        }
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_names_with_or_without_a_value_and_none_twice() {
        let expected: Attributes =
            [("zone".into(), "a=b".into()), ("gpu".into(), String::new())].into();
        assert_eq!(attributes(["zone=a=b", "gpu"]), Some(expected));
        for words in [["zone=a", "zone=b"], ["gpu", "a b"], ["!gpu", "a"]] {
            assert_eq!(attributes(words), None, "{words:?}");
        }
    }

    #[test]
    fn a_constraint_reads_as_it_is_written_and_says_what_it_means() {
        let worker: Attributes =
            [("zone".into(), "a".into()), ("gpu".into(), String::new())].into();
        let cases = [
            ("zone=a", true),
            ("zone=b", false),
            ("zone!=b", true),
            ("zone!=a", false),
            ("rack!=1", true),
            ("zone=a!=b", false),
            ("gpu", true),
            ("!gpu", false),
            ("!ssd", true),
            ("ssd", false),
        ];
        for (text, met) in cases {
            let constraint: Constraint = text.parse().unwrap();
            assert_eq!(constraint.to_string(), text);
            assert_eq!(constraint.is_met_by(&worker), met, "{text}");
        }
        for text in ["", "=a", "!", "a b", "a=\n", "!=x", "zone=a,b"] {
            assert!(text.parse::<Constraint>().is_err(), "{text}");
        }
    }
}
