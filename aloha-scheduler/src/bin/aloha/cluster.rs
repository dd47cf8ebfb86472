//! `aloha cluster`.

use std::collections::BTreeMap;
use std::fmt::Display;

use aloha_scheduler::{ClusterStatus, Moment};

use crate::Failure;
use crate::args::ClusterArgs;
use crate::connection::ask;
use crate::output::{print, print_json};

/// Prints the cluster in numbers.
pub(crate) fn run(args: &ClusterArgs) -> Result<u8, Failure> {
    ask(&args.client, async |master, _| {
        let cluster = master.cluster().await?;
        if args.client.json {
            print_json(&cluster);
        } else {
            print(describe(&cluster));
        }
        Ok(0)
    })
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
}
