//! Why an application waits.

use std::collections::BTreeSet;

use super::apps::AppRecord;
use super::capacity::{Capacity, Kind};
use super::core::MasterCore;
use crate::app::AppState;
use crate::constraint::Constraint;
use crate::resources::Resources;

impl MasterCore {
    /// What keeps a waiting application from being placed; `None` if nothing does.
    ///
    /// What nobody but its user or an operator can change comes first.
    pub(super) fn why_waiting(&self, app: &AppRecord) -> Option<String> {
        if let AppState::Relaunching {
            not_before: Some(not_before),
            ..
        } = app.state
        {
            let pause = not_before.saturating_sub(self.now.unix_millis());
            return Some(runs_again_in(pause));
        }
        let (needs, constraints) = (app.description.needs(), &app.description.constraints);
        let kinds = || self.workers.capacity().kinds().map(|(_, kind)| kind);
        if kinds().next().is_none() {
            let listed = self.workers.iter().any(|(_, worker)| !worker.is_dead());
            let why = if listed {
                "every worker is disconnected, leaving or drained"
            } else {
                "no worker is registered"
            };
            return Some(why.to_owned());
        }
        if !kinds().any(|kind| kind.meets(constraints)) {
            return Some(nobody_meets(constraints, self.workers.capacity()));
        }
        let offers = kinds()
            .filter(|kind| kind.meets(constraints))
            .map(|kind| kind.offers);
        if let Some(why) = lacks(needs, constraints, "worker", offers) {
            return Some(why);
        }
        let limits = self.apps.limits();
        let applying = limits.applying_to(&app.description.tags);
        if let Some(limit) = limits.reached(&applying) {
            return Some(limit.to_string());
        }
        let ticket = self.apps.ticket(&app.id)?;
        if let Some(limit) = self.placer.kept_limit(ticket, &applying, limits) {
            return Some(format!("{}; {limit}", self.behind_holder(app)?));
        }
        self.why_no_room(app, needs, constraints)
    }

    /// Why there is no room now on workers that would hold it, were they empty.
    fn why_no_room(
        &self,
        app: &AppRecord,
        needs: Resources,
        constraints: &BTreeSet<Constraint>,
    ) -> Option<String> {
        let capacity = self.workers.capacity();
        let reserved = self.workers.reserved().map(|slot| self.workers.at(slot));
        let reserved = reserved.filter(|worker| {
            let kind = worker.kind().map(|kind| capacity.kind(kind));
            kind.is_some_and(|kind| kind.meets(constraints))
        });
        let reserved = reserved.map(|worker| worker.free());
        let free = capacity
            .kinds()
            .filter(|(_, kind)| kind.meets(constraints))
            .filter_map(|(_, kind)| most_apt(kind, needs))
            .chain(reserved);
        if let Some(why) = lacks(needs, constraints, "free worker", free) {
            return Some(why);
        }
        let fits = reserved.is_some_and(|free| needs.fits_in(&free));
        fits.then(|| self.behind_holder(app))?
    }

    /// For whom something is kept, if not for this one.
    fn behind_holder(&self, app: &AppRecord) -> Option<String> {
        let holder = self.apps.at(self.placer.holder()?.app);
        if holder.id == app.id {
            return None;
        }
        let why = if holder.description.priority > app.description.priority {
            "of higher priority"
        } else {
            "which came first"
        };
        let comma = if why.starts_with("of") { "" } else { "," };
        Some(format!("behind {}{comma} {why}", holder.id))
    }
}

/// Of what is free on workers of a kind, what fits if anything does, and otherwise the most of each.
fn most_apt(kind: &Kind, needs: Resources) -> Option<Resources> {
    use super::resource_index::Preference::Roomiest;

    let fitting = kind.free().best(needs, Roomiest).map(|(free, _)| free);
    fitting.or_else(|| kind.free().largest())
}

fn runs_again_in(millis: u64) -> String {
    let tenths = millis.div_ceil(100);
    format!(
        "runs again in {}.{} s at the earliest",
        tenths / 10,
        tenths % 10
    )
}

/// What the constraints ask that no worker is or has.
fn nobody_meets(constraints: &BTreeSet<Constraint>, capacity: &Capacity) -> String {
    let unmet = |constraint: &&Constraint| {
        !capacity
            .kinds()
            .any(|(_, kind)| constraint.is_met_by(&kind.attributes))
    };
    match constraints.iter().find(unmet) {
        Some(Constraint::IsNot(name, value)) => format!("every worker has {name}={value}"),
        Some(Constraint::HasNot(name)) => format!("every worker has {name}"),
        Some(constraint) => format!("no worker has {constraint}"),
        None => format!("no worker has {}", listed(constraints)),
    }
}

fn listed(constraints: &BTreeSet<Constraint>) -> String {
    let all: Vec<_> = constraints.iter().map(ToString::to_string).collect();
    all.join(" and ")
}

/// What is missing if `needs` fits in none of these rooms.
fn lacks(
    needs: Resources,
    constraints: &BTreeSet<Constraint>,
    which: &str,
    rooms: impl Iterator<Item = Resources>,
) -> Option<String> {
    let mut most = Resources::default();
    for room in rooms {
        if needs.fits_in(&room) {
            return None;
        }
        most.cores = most.cores.max(room.cores);
        most.memory_mib = most.memory_mib.max(room.memory_mib);
    }
    let which = match constraints.is_empty() {
        true => which.to_owned(),
        false => format!("{which} with {}", listed(constraints)),
    };
    let Resources { cores, memory_mib } = needs;
    Some(if cores > most.cores {
        let plural = if cores == 1 { "" } else { "s" };
        format!(
            "needs {cores} core{plural}; the largest {which} has {}",
            most.cores
        )
    } else if memory_mib > most.memory_mib {
        format!(
            "needs {memory_mib} MiB; the largest {which} has {} MiB",
            most.memory_mib
        )
    } else {
        format!("needs {needs}; no {which} has both")
    })
}
