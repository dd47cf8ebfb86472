use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The word that stands for all applications together where a tag is expected.
pub(crate) const ALL_TAGS: &str = "*";

/// How many applications of a tag may be placed at once, and how many are.
#[derive(Debug, Default)]
pub(crate) struct TagLimits {
    /// By tag.
    limits: Vec<TagLimit>,
}

#[derive(Debug)]
pub(crate) struct TagLimit {
    tag: String,
    most: u32,
    placed: u32,
}

impl TagLimit {
    fn is_reached(&self) -> bool {
        self.placed >= self.most
    }

    /// How many more may be placed.
    fn left(&self) -> u32 {
        self.most.saturating_sub(self.placed)
    }
}

/// In words, such as `tag etl: 4 of 4 run`.
impl fmt::Display for TagLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, most, placed } = self;
        match tag.as_str() {
            ALL_TAGS => write!(f, "all applications: {placed} of {most} run"),
            tag => write!(f, "tag {tag}: {placed} of {most} run"),
        }
    }
}

/// Which of the limits apply to an application, by their places.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Applying(Box<[usize]>);

impl Applying {
    pub(crate) fn shares_any_with(&self, other: &Self) -> bool {
        self.0.iter().any(|place| other.0.contains(place))
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn places(&self) -> &[usize] {
        &self.0
    }
}

impl TagLimits {
    pub(crate) fn new(limits: &BTreeMap<String, u32>) -> Self {
        let limits = limits.iter().map(|(tag, most)| TagLimit {
            tag: tag.clone(),
            most: *most,
            placed: 0,
        });
        Self {
            limits: limits.collect(),
        }
    }

    /// Which of the limits apply to an application with these tags.
    pub(crate) fn applying_to(&self, tags: &BTreeSet<String>) -> Applying {
        let applies = |limit: &TagLimit| limit.tag == ALL_TAGS || tags.contains(&limit.tag);
        let places = self.limits.iter().enumerate();
        let places = places.filter_map(|(place, limit)| applies(limit).then_some(place));
        Applying(places.collect())
    }

    /// Counts one that was placed.
    pub(crate) fn count(&mut self, applying: &Applying) {
        for place in &applying.0 {
            self.limits[*place].placed += 1;
        }
    }

    /// Counts one less, and returns the limits that keep others back no more, or only the last that they allow.
    pub(crate) fn discount(&mut self, applying: &Applying) -> Applying {
        let opened = applying.0.iter().copied().filter(|place| {
            let limit = &mut self.limits[*place];
            let before = limit.left();
            limit.placed -= 1;
            before <= 1 && limit.left() > before
        });
        Applying(opened.collect())
    }

    /// A limit that keeps others back, if one of these does.
    pub(crate) fn reached(&self, applying: &Applying) -> Option<&TagLimit> {
        let limits = applying.0.iter().map(|place| &self.limits[*place]);
        limits.into_iter().find(|limit| limit.is_reached())
    }

    /// A limit that allows but one more, if it is among these and among `kept`.
    pub(crate) fn last_of(&self, applying: &Applying, kept: &Applying) -> Option<&TagLimit> {
        let both = applying.0.iter().filter(|place| kept.0.contains(place));
        let mut limits = both.map(|place| &self.limits[*place]);
        limits.find(|limit| limit.left() == 1)
    }

    /// How many are counted, limit by limit.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn placed(&self) -> Vec<u32> {
        self.limits.iter().map(|limit| limit.placed).collect()
    }
}
