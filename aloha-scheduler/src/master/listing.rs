//! Lists of applications, in pages: all of them may be more than one message holds.

use super::core::MasterCore;
use crate::messages::AppsPage;

/// The longest page. A status is a few hundred bytes, so that one stays far below `aloha.rpc.message.maxSize`.
pub(super) const PAGE_MAX: usize = 1_000;

impl MasterCore {
    /// Up to 1,000 listed applications in the order of submission: those that were submitted after the one of this
    /// number, from the first for `None`.
    ///
    /// Listed page by page, an application that is there all the while is there once, however others come and go.
    pub fn apps_page(&self, after: Option<u64>) -> AppsPage {
        let is_after = |number: u64| after.is_none_or(|after| number > after);
        let mut page: Vec<_> = self
            .apps
            .iter()
            .filter(|app| is_after(app.number))
            .collect();
        let more = page.len() > PAGE_MAX;
        if more {
            page.select_nth_unstable_by_key(PAGE_MAX - 1, |app| app.number);
            page.truncate(PAGE_MAX);
        }
        page.sort_unstable_by_key(|app| app.number);
        AppsPage {
            next: page.last().filter(|_| more).map(|app| app.number),
            apps: page.into_iter().map(|app| self.status_of(app)).collect(),
        }
    }
}
