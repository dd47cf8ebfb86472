use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::effect::{Effect, Reply, WorkerCommand};
use super::event::ReplyTo;
use crate::events::AlohaEvent;
use crate::ids::AppId;

/// Effects that wait until what they rest on is stored, in their order.
#[derive(Debug, Default)]
pub(super) struct Held {
    effects: VecDeque<HeldEffect>,
}

#[derive(Debug)]
struct HeldEffect {
    /// The number of the last record that was to be stored before.
    rests_on: u64,
    since: Instant,
    effect: Effect,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    pub(super) fn push(&mut self, effect: Effect, rests_on: u64, now: Instant) {
        self.effects.push_back(HeldEffect {
            rests_on,
            since: now,
            effect,
        });
    }

    /// Takes the first one out, if what it rests on is among the records stored.
    pub(super) fn pop(&mut self, stored: u64) -> Option<Effect> {
        self.effects
            .front()
            .filter(|held| held.rests_on <= stored)?;
        self.effects.pop_front().map(|held| held.effect)
    }

    /// Since when the first one waits.
    pub(super) fn since(&self) -> Option<Instant> {
        self.effects.front().map(|held| held.since)
    }

    /// Takes the acceptances of submissions out, and whatever else says that there are such applications. An
    /// acceptance that only repeats an earlier one comes without the application, which may well be stored, and so does
    /// the answer that a key is another submission's: that may be one of those taken out.
    pub(super) fn take_submissions(&mut self) -> Vec<(ReplyTo, Option<AppId>)> {
        let mut taken = Vec::new();
        self.effects.retain(|held| match &held.effect {
            Effect::Reply(to, Reply::Submitted { app, is_new }) => {
                taken.push((*to, is_new.then(|| app.clone())));
                false
            }
            Effect::Reply(to, Reply::KeyReused(_)) => {
                taken.push((*to, None));
                false
            }
            _ => true,
        });
        self.drop_all_of(&taken);
        taken
    }

    /// Drops what says that there are such applications.
    pub(super) fn drop_all_of(&mut self, submissions: &[(ReplyTo, Option<AppId>)]) {
        let apps: BTreeSet<_> = submissions
            .iter()
            .filter_map(|(_, app)| app.as_ref())
            .collect();
        if !apps.is_empty() {
            self.effects
                .retain(|held| app_of(&held.effect).is_none_or(|app| !apps.contains(app)));
        }
    }

    /// Takes the answers to requests for an end out.
    pub(super) fn take_kills(&mut self) -> Vec<Effect> {
        let is_kill =
            |held: &HeldEffect| matches!(held.effect, Effect::Reply(_, Reply::Kill { .. }));
        let all = std::mem::take(&mut self.effects);
        let (kills, others) = all.into_iter().partition::<VecDeque<_>, _>(is_kill);
        self.effects = others;
        kills.into_iter().map(|held| held.effect).collect()
    }

    /// Drops answers that nobody waits for.
    pub(super) fn prune(&mut self, is_waiting: impl Fn(ReplyTo) -> bool) {
        self.effects.retain(|held| match &held.effect {
            Effect::Reply(to, _) => is_waiting(*to),
            _ => true,
        });
    }
}

/// The application that an effect makes known to somebody.
fn app_of(effect: &Effect) -> Option<&AppId> {
    match effect {
        Effect::Reply(_, Reply::Submitted { app, .. })
        | Effect::Send(_, WorkerCommand::LaunchApp { app, .. })
        | Effect::Publish(
            AlohaEvent::AppStateChanged { id: app, .. } | AlohaEvent::AppRelaunched { id: app, .. },
        ) => Some(app),
        Effect::Reply(..) | Effect::Send(..) | Effect::Publish(_) | Effect::Persist(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppId {
        name.parse().unwrap()
    }

    fn submitted(to: u64, name: &str) -> Effect {
        let is_new = true;
        Effect::Reply(
            ReplyTo(to),
            Reply::Submitted {
                app: app(name),
                is_new,
            },
        )
    }

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn held(effects: impl IntoIterator<Item = (u64, Effect)>) -> Held {
        let mut held = Held::default();
        for (rests_on, effect) in effects {
            held.push(effect, rests_on, Instant::now());
        }
        held
    }

    #[test]
    fn nothing_passes_what_still_waits() {
        let mut held = held([(1, submitted(1, "a")), (3, submitted(2, "b"))]);
        assert_eq!(held.pop(0), None);
        assert_eq!(held.pop(2), Some(submitted(1, "a")));
        assert_eq!(held.pop(2), None);
        assert_eq!(held.pop(3), Some(submitted(2, "b")));
        assert!(held.is_empty());
    }

    #[test]
    fn nobody_is_told_that_a_key_is_that_of_a_submission_which_is_withdrawn() {
        let reused = Effect::Reply(ReplyTo(2), Reply::KeyReused(app("new")));
        let mut held = held([(2, submitted(1, "new")), (2, reused)]);
        let taken = held.take_submissions();
        assert_eq!(taken, [(ReplyTo(1), Some(app("new"))), (ReplyTo(2), None)]);
        assert!(held.is_empty());
    }

    #[test]
    fn with_a_submission_goes_all_that_was_to_be_said_of_it_and_nothing_else() {
        let launch = |name: &str| {
            let command = WorkerCommand::LaunchApp {
                epoch: 1,
                app: app(name),
                attempt: 1,
                description: Default::default(),
            };
            Effect::Send("worker".parse().unwrap(), command)
        };
        let acknowledged = Effect::Reply(ReplyTo(9), Reply::Acknowledged);
        let mut held = held([
            (1, launch("old")),
            (2, submitted(1, "new")),
            (3, launch("new")),
            (3, acknowledged.clone()),
        ]);
        assert_eq!(held.take_submissions(), [(ReplyTo(1), Some(app("new")))]);
        assert_eq!(held.pop(3), Some(launch("old")));
        assert_eq!(held.pop(3), Some(acknowledged));
        assert!(held.is_empty());
    }
}
