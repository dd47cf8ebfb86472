//! `aloha cluster`.

use std::collections::BTreeMap;
use std::fmt::Display;

use aloha_scheduler::election::MasterAddress;
use aloha_scheduler::{ClusterStatus, MasterClient, MasterOutcome, Moment, TriedMaster};
use serde::Serialize;

use crate::Failure;
use crate::args::ClusterArgs;
use crate::connection::ask;
use crate::output::{print, print_json};

/// Prints the cluster in numbers.
pub(crate) fn run(args: &ClusterArgs) -> Result<u8, Failure> {
    ask(&args.client, async |master, _| {
        let cluster = master.cluster().await?;
        let masters = Masters::of(&master).await;
        if args.client.json {
            print_json(&Report { cluster, masters });
        } else {
            print(describe(&cluster));
            masters.describe().iter().for_each(print);
        }
        Ok(0)
    })
}

/// A cluster and its masters, as JSON.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    cluster: ClusterStatus,
    #[serde(flatten)]
    masters: Masters,
}

/// The masters of a cluster, as far as they were asked.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Masters {
    /// How the one that leads is reached; null where it cannot say.
    leader: Option<MasterAddress>,
    /// Those that were asked and do not lead, each with what came of it.
    other_masters: BTreeMap<String, String>,
}

impl Masters {
    /// The one that leads, and those that were named.
    pub(crate) async fn of(client: &MasterClient) -> Self {
        // One of an earlier version cannot say.
        let leader = client.leader().await.ok().and_then(|answer| answer.leader);
        Self::new(leader, client.masters().await)
    }

    /// Those that were asked before the one that leads was found.
    pub(crate) fn tried(client: &MasterClient) -> Self {
        Self::new(None, client.tried())
    }

    fn new(leader: Option<MasterAddress>, tried: Vec<TriedMaster>) -> Self {
        let is_other = |one: &TriedMaster| {
            !matches!(one.outcome, MasterOutcome::Leads | MasterOutcome::Unheard)
        };
        let others = tried.into_iter().filter(is_other);
        let others = others.map(|one| (one.address.to_string(), one.outcome.to_string()));
        Self {
            leader,
            other_masters: others.collect(),
        }
    }

    /// The addresses of those that do not lead.
    pub(crate) fn others(&self) -> Vec<&str> {
        self.other_masters.keys().map(String::as_str).collect()
    }

    /// A line for what the numbers of the cluster do not say.
    pub(crate) fn describe(&self) -> Vec<String> {
        let rest = self.leader.as_ref().and_then(|leader| leader.rest.as_ref());
        let rest = rest.map(|url| format!("REST          {url}"));
        let others = self.other_masters.iter();
        let others = others.map(|(address, said)| format!("other master  {address} {said}"));
        rest.into_iter().chain(others).collect()
    }
}

/// A line for each number.
pub(crate) fn describe(cluster: &ClusterStatus) -> String {
    let mut lines = vec![
        format!(
            "master        {} (version {})",
            cluster.master, cluster.version
        ),
        format!(
            "leads since   {} (epoch {})",
            Moment(cluster.leading_since),
            cluster.epoch
        ),
        format!("workers       {}", counts(&cluster.workers)),
        format!(
            "cores         {} of {} in use",
            cluster.cores_used, cluster.cores
        ),
        format!(
            "memory        {} of {} MiB in use",
            cluster.memory_mib_used, cluster.memory_mib
        ),
        format!("applications  {}", counts(&cluster.apps)),
    ];
    if cluster.is_recovering {
        lines.push("recovering    workers known before are still awaited".to_owned());
    }
    if let Some(trouble) = &cluster.store_trouble {
        lines.push(format!("store         {trouble}"));
    }
    lines.join("\n")
}

/// So many of each.
pub(crate) fn counts<T: Display>(counts: &BTreeMap<T, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let each: Vec<_> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    each.join(", ")
}

#[cfg(test)]
mod tests {
    use aloha_scheduler::AppPhase;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_is_told_in_a_few_lines_with_its_troubles() {
        let cluster = ClusterStatus {
            version: "0.1.0".to_owned(),
            master: "h:7077".to_owned(),
            epoch: 3,
            leading_since: 1_552_342_651_042,
            is_recovering: true,
            apps: [(AppPhase::Running, 2), (AppPhase::Finished, 10)].into(),
            cores: 8,
            cores_used: 2,
            memory_mib: 1024,
            memory_mib_used: 256,
            store_trouble: Some("No space left on device".to_owned()),
            ..ClusterStatus::default()
        };
        let expected = "\
master        h:7077 (version 0.1.0)
leads since   2019-03-11 22:17:31.042 UTC (epoch 3)
workers       none
cores         2 of 8 in use
memory        256 of 1024 MiB in use
applications  2 RUNNING, 10 FINISHED
recovering    workers known before are still awaited
store         No space left on device";
        assert_eq!(describe(&cluster), expected);
    }

    #[test]
    fn the_masters_are_told_with_what_each_said() {
        let masters = Masters {
            leader: Some(MasterAddress {
                rpc: "m1:7077".to_owned(),
                rest: Some("http://m1:6066".to_owned()),
            }),
            other_masters: [("m2:7077".to_owned(), "does not lead (it waits)".to_owned())].into(),
        };
        let expected = [
            "REST          http://m1:6066",
            "other master  m2:7077 does not lead (it waits)",
        ];
        assert_eq!(masters.describe(), expected);
        let cluster = ClusterStatus::default();
        let report = serde_json::to_value(Report { cluster, masters }).expect("JSON");
        assert_eq!(
            report["leader"],
            json!({"rpc": "m1:7077", "rest": "http://m1:6066"})
        );
        assert_eq!(
            report["other_masters"]["m2:7077"],
            "does not lead (it waits)"
        );
        assert_eq!(report["epoch"], 0);
    }
}
