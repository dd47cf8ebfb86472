//! Which applications a list holds, in which order, and from where on.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::app::{AppPhase, AppState, AppStatus};
use crate::ids::WorkerId;
use crate::master::AppRecord;

/// The longest page. A status is a few hundred bytes, so that one stays far below `aloha.rpc.message.maxSize`.
pub(crate) const PAGE_MAX: u32 = 1_000;

/// Asks for some of the applications that a master remembers, page by page. By default for all of them, in the order
/// of submission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppsQuery {
    /// Those in one of these states; in any where this is empty.
    pub states: BTreeSet<AppPhase>,
    /// Those whose name contains this.
    pub name: Option<String>,
    /// Those with this tag.
    pub tag: Option<String>,
    /// Those that are on this worker, or ended there.
    pub worker: Option<WorkerId>,
    /// By what they are ordered.
    pub sort: AppsSort,
    /// Whether the order is turned round.
    pub descending: bool,
    /// From where on: what the page before said.
    pub after: Option<AppsCursor>,
    /// How many at the most; never more than 1,000.
    pub limit: Option<u32>,
}

/// By what a list of applications is ordered; among equals by the order of submission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppsSort {
    /// When it was submitted.
    #[default]
    Submitted,
    /// Its name, character by character.
    Name,
    /// Its priority.
    Priority,
    /// When its latest attempt began to run; those that never did come first.
    Started,
    /// When it ended; those that did not come first.
    Ended,
}

impl AppsSort {
    /// Every order there is.
    pub const ALL: [Self; 5] = [
        Self::Submitted,
        Self::Name,
        Self::Priority,
        Self::Started,
        Self::Ended,
    ];

    /// Its name in queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Name => "name",
            Self::Priority => "priority",
            Self::Started => "started",
            Self::Ended => "ended",
        }
    }

    /// Reads the name of an order; it is turned round where a `-` stands before it.
    ///
    /// ```
    /// use aloha_scheduler::AppsSort;
    ///
    /// assert_eq!(AppsSort::parse("-started"), Some((AppsSort::Started, true)));
    /// assert_eq!(AppsSort::parse("name"), Some((AppsSort::Name, false)));
    /// assert_eq!(AppsSort::parse("size"), None);
    /// ```
    pub fn parse(text: &str) -> Option<(Self, bool)> {
        let (name, descending) = match text.strip_prefix('-') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let sort = Self::ALL.into_iter().find(|sort| sort.name() == name)?;
        Some((sort, descending))
    }

    /// By what an application stands where it does, besides its number.
    pub(crate) fn key(self, app: &AppRecord) -> SortKey<'_> {
        // Below every moment there is.
        let moment = |at: Option<u64>| {
            SortKey::Number(at.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX)))
        };
        match self {
            Self::Submitted => SortKey::None,
            Self::Name => SortKey::Text(app.description.name.as_str().into()),
            Self::Priority => SortKey::Number(app.description.priority.into()),
            Self::Started => moment(app.state.since()),
            Self::Ended => moment(match app.state {
                AppState::Ended { at, .. } => Some(at),
                _ => None,
            }),
        }
    }
}

/// By what an application stands where it does in a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum SortKey<'a> {
    None,
    Number(i64),
    Text(Cow<'a, str>),
}

impl SortKey<'_> {
    pub(crate) fn into_owned(self) -> SortKey<'static> {
        match self {
            Self::None => SortKey::None,
            Self::Number(number) => SortKey::Number(number),
            Self::Text(text) => SortKey::Text(text.into_owned().into()),
        }
    }
}

/// Where a page ended. As a text it has only characters that any URL may hold.
///
/// An application whose place changes between two pages, as by `ended` when it ends, may be in both of them or in none;
/// in the order of submission, by name and by priority each is in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppsCursor {
    pub(crate) key: SortKey<'static>,
    pub(crate) number: u64,
}

impl AppsCursor {
    /// Whether it came of a list in this order.
    pub fn is_of(&self, sort: AppsSort) -> bool {
        match (sort, &self.key) {
            (AppsSort::Submitted, SortKey::None) | (AppsSort::Name, SortKey::Text(_)) => true,
            (AppsSort::Priority | AppsSort::Started | AppsSort::Ended, SortKey::Number(_)) => true,
            (_, SortKey::None | SortKey::Number(_) | SortKey::Text(_)) => false,
        }
    }
}

impl fmt::Display for AppsCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)?;
        match &self.key {
            SortKey::None => Ok(()),
            SortKey::Number(number) => write!(f, ".{number}"),
            SortKey::Text(text) => {
                f.write_str(".x")?;
                text.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// A text that no page gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the cursor of a page; pass on what the page before gave as `next`, as it is")]
pub struct BadCursor;

impl FromStr for AppsCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (number, key) = match text.split_once('.') {
            None => (text, SortKey::None),
            Some((number, key)) => match key.strip_prefix('x') {
                Some(hex) => (
                    number,
                    SortKey::Text(from_hex(hex).ok_or(BadCursor)?.into()),
                ),
                None => (number, SortKey::Number(key.parse().map_err(|_| BadCursor)?)),
            },
        };
        let number = number.parse().map_err(|_| BadCursor)?;
        let cursor = Self { key, number };
        // One way to write each: `+1` and `01` are no cursors.
        (cursor.to_string() == text)
            .then_some(cursor)
            .ok_or(BadCursor)
    }
}

fn from_hex(text: &str) -> Option<String> {
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

/// A part of the list of applications.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppsPage {
    /// The applications, without their history.
    pub apps: Vec<AppStatus>,
    /// From where on the next page is to be asked for; `None` where there is none.
    pub next: Option<AppsCursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        for key in [
            SortKey::None,
            SortKey::Number(-1),
            SortKey::Number(i64::MAX),
            SortKey::Text("".into()),
            SortKey::Text("a.b \u{e4}\u{1F600}".into()),
        ] {
            let cursor = AppsCursor { key, number: 7 };
            let text = cursor.to_string();
            assert_eq!(text.parse(), Ok(cursor));
            assert!(
                text.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
            );
        }
        for text in [
            "", "x", "1.", "+1", "01", "1.x0", "1.xff", "1.xFF", "1.2.3", "-1", "1.+2",
        ] {
            assert_eq!(text.parse::<AppsCursor>(), Err(BadCursor), "{text}");
        }
    }

    #[test]
    fn a_cursor_knows_its_order() {
        for (text, sorts) in [
            ("1", &[AppsSort::Submitted][..]),
            (
                "1.5",
                &[AppsSort::Priority, AppsSort::Started, AppsSort::Ended],
            ),
            ("1.x61", &[AppsSort::Name]),
        ] {
            let cursor: AppsCursor = text.parse().expect(text);
            for sort in AppsSort::ALL {
                assert_eq!(cursor.is_of(sort), sorts.contains(&sort), "{text} {sort:?}");
            }
        }
    }
}
