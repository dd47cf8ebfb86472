//! Lists of applications, in pages: all of them may be more than one message holds.

use std::ops::Bound;

use super::apps::AppRecord;
use super::core::MasterCore;
use crate::app_query::{AppsCursor, AppsPage, AppsQuery, AppsSort, PAGE_MAX, SortKey};

impl AppsQuery {
    fn matches(&self, app: &AppRecord) -> bool {
        let description = &app.description;
        (self.states.is_empty() || self.states.contains(&app.phase()))
            && self
                .name
                .as_ref()
                .is_none_or(|part| description.name.contains(part))
            && self
                .tag
                .as_ref()
                .is_none_or(|tag| description.tags.contains(tag))
            && self
                .worker
                .as_ref()
                .is_none_or(|worker| app.state.placement().is_some_and(|on| on.worker == *worker))
    }

    fn count_max(&self) -> usize {
        let limit = self.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        usize::try_from(limit).expect("a thousand fit")
    }
}

impl MasterCore {
    /// A page of the listed applications.
    ///
    /// In the order of submission it costs as much as the applications that are looked at; in any other as much as all
    /// of them. Listed page by page, an application that is there all the while is there once, however others come and
    /// go; but see [`AppsCursor`].
    pub fn apps_page(&self, query: &AppsQuery) -> AppsPage {
        let count = query.count_max();
        let mut apps = match query.sort {
            AppsSort::Submitted => self.by_number(query, count + 1),
            sort => self.by_key(query, sort, count + 1),
        };
        let more = apps.len() > count;
        apps.truncate(count);
        AppsPage {
            next: apps.last().filter(|_| more).map(|app| AppsCursor {
                key: query.sort.key(app).into_owned(),
                number: app.number,
            }),
            apps: apps.into_iter().map(|app| self.status_of(app)).collect(),
        }
    }

    fn by_number(&self, query: &AppsQuery, count: usize) -> Vec<&AppRecord> {
        let after = query.after.as_ref().map(|after| after.number);
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        let matching = |app: &&AppRecord| query.matches(app);
        if query.descending {
            let apps = self.apps.with_numbers((Bound::Unbounded, bound));
            apps.rev().filter(matching).take(count).collect()
        } else {
            let apps = self.apps.with_numbers((bound, Bound::Unbounded));
            apps.filter(matching).take(count).collect()
        }
    }

    fn by_key(&self, query: &AppsQuery, sort: AppsSort, count: usize) -> Vec<&AppRecord> {
        fn place(sort: AppsSort, app: &AppRecord) -> (SortKey<'_>, u64) {
            (sort.key(app), app.number)
        }
        let order = |a: &(SortKey<'_>, u64), b: &(SortKey<'_>, u64)| {
            let order = a.cmp(b);
            if query.descending {
                order.reverse()
            } else {
                order
            }
        };
        let after = query.after.clone().map(|after| (after.key, after.number));
        let is_after = |app: &&AppRecord| {
            after
                .as_ref()
                .is_none_or(|after| order(after, &place(sort, app)).is_lt())
        };
        let apps = self.apps.iter().filter(|app| query.matches(app));
        let mut apps: Vec<_> = apps.filter(is_after).collect();
        if apps.len() > count {
            apps.select_nth_unstable_by(count - 1, |a, b| order(&place(sort, a), &place(sort, b)));
            apps.truncate(count);
        }
        apps.sort_unstable_by(|a, b| order(&place(sort, a), &place(sort, b)));
        apps
    }
}
