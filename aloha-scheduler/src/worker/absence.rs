//! Says that no master takes this worker once that has lasted, with what each of them answered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aloha_rpc::RpcEndpointRef;
use tracing::warn;

use crate::messages::{LeaderAnswer, MasterMessage};

/// How long no master takes us before that is said, and how long until it is said again.
const SAY_AFTER: Duration = Duration::from_secs(10);
const REPEAT_AFTER: Duration = Duration::from_secs(600);
/// How long a standby may take to say who leads.
const PATIENCE: Duration = Duration::from_secs(2);

/// A time in which no master takes us, if it is one.
#[derive(Debug, Default)]
pub(super) struct Absence {
    since: Option<Instant>,
    said_at: Option<Instant>,
    answers: BTreeMap<String, No>,
}

/// How a master did not take us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum No {
    Standby,
    /// It was not reached, or said nothing.
    Unreachable {
        reason: String,
    },
}

impl Absence {
    /// Notes that a master did not take us. Gives what each said last, where that is to be told by now.
    pub(super) fn note(
        &mut self,
        master: &str,
        no: No,
        now: Instant,
    ) -> Option<BTreeMap<String, No>> {
        self.answers.insert(master.to_owned(), no);
        let since = *self.since.get_or_insert(now);
        let is_due = match self.said_at {
            None => now.saturating_duration_since(since) >= SAY_AFTER,
            Some(said_at) => now.saturating_duration_since(said_at) >= REPEAT_AFTER,
        };
        is_due.then(|| {
            self.said_at = Some(now);
            self.answers.clone()
        })
    }

    /// A master took us.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

/// Warns of what the masters answered. The standbys are asked who leads.
pub(super) async fn warn_of(
    answers: BTreeMap<String, No>,
    found: BTreeMap<String, RpcEndpointRef<MasterMessage>>,
    list: Vec<String>,
) {
    let mut said = Vec::new();
    for (master, no) in answers {
        let leader = match (&no, found.get(&master)) {
            (No::Standby, Some(standby)) => who_leads(standby).await,
            (No::Standby | No::Unreachable { .. }, _) => None,
        };
        said.push(describe(&master, &no, leader.as_deref(), &list));
    }
    warn!("no master takes this worker: {}", said.join("; "));
}

/// Who leads, as a standby knows; one of an earlier version cannot say.
async fn who_leads(standby: &RpcEndpointRef<MasterMessage>) -> Option<String> {
    let question = |call| MasterMessage::AwaitLeader {
        besides: None,
        patience_millis: 0,
        call,
    };
    let answer: LeaderAnswer = standby.ask_for(PATIENCE, question).await.ok()?;
    Some(answer.leader?.rpc)
}

fn describe(master: &str, no: &No, leader: Option<&str>, list: &[String]) -> String {
    match (no, leader) {
        (No::Unreachable { reason }, _) => format!("{master} is not reached ({reason})"),
        (No::Standby, None) => format!("{master} is a standby and knows of no leader"),
        (No::Standby, Some(leader)) if list.iter().any(|known| known == leader) => {
            format!("{master} is a standby ({leader} leads)")
        }
        (No::Standby, Some(leader)) => format!(
            "{master} is a standby ({leader} leads, which is not in this worker's list of masters)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_it_has_lasted_then_rarely_and_anew_after_a_master_took_us() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut absence = Absence::default();
        let note = |absence: &mut Absence, seconds| {
            absence
                .note("m1:7077", No::Standby, at(seconds))
                .map(|said| said.len())
        };
        let said = [5, 14, 15, 16, 614, 615].map(|seconds| note(&mut absence, seconds));
        assert_eq!(said, [None, None, Some(1), None, None, Some(1)]);
        absence.end();
        let said = [700, 709, 710].map(|seconds| note(&mut absence, seconds));
        assert_eq!(said, [None, None, Some(1)]);
    }

    #[test]
    fn what_each_master_said_last_is_told() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let gone = No::Unreachable {
            reason: "refused".to_owned(),
        };
        let mut absence = Absence::default();
        absence.note("m1:7077", gone.clone(), now);
        absence.note("m2:7077", gone.clone(), now);
        let said = absence.note("m1:7077", No::Standby, now + SAY_AFTER);
        let expected = [("m1:7077", No::Standby), ("m2:7077", gone)];
        let expected = expected.map(|(master, no)| (master.to_owned(), no));
        assert_eq!(said, Some(expected.into()));
    }

    #[test]
    fn a_leader_that_is_missing_in_the_list_is_named() {
        let list = ["m1:7077", "m2:7077"].map(str::to_owned);
        let standby = |leader| describe("m1:7077", &No::Standby, leader, &list);
        assert_eq!(
            standby(Some("m3:7077")),
            "m1:7077 is a standby (m3:7077 leads, which is not in this worker's list of masters)"
        );
        assert_eq!(
            standby(Some("m2:7077")),
            "m1:7077 is a standby (m2:7077 leads)"
        );
        assert_eq!(standby(None), "m1:7077 is a standby and knows of no leader");
        let gone = No::Unreachable {
            reason: "refused".to_owned(),
        };
        assert_eq!(
            describe("m2:7077", &gone, None, &list),
            "m2:7077 is not reached (refused)"
        );
    }
}
