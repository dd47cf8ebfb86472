//! What became of the submissions, by what the applications wrote and what the cluster says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use aloha_scheduler::{AppPhase, AppStatus, MasterClient};

use crate::clients::{Acknowledged, Told};
use crate::cluster::Cluster;

/// How long the last may take after all is healed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is said of an application that was killed while its master was.
const NOT_STORED: &str = "stopped for a reason that was not stored";

/// One attempt, as it wrote itself.
#[derive(Debug, Clone)]
struct Run {
    app: String,
    /// Seconds since 1970.
    start: f64,
    end: Option<f64>,
}

/// What is printed, and what must not be.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    acknowledged: usize,
    unanswered: u32,
    once: usize,
    killed: usize,
    /// With its history.
    twice: Vec<String>,
    /// Likewise.
    lost: Vec<String>,
}

impl Verdict {
    /// Asserts that nothing ran twice and nothing is lost.
    #[track_caller]
    pub(crate) fn assert_good(&self) {
        assert!(
            self.twice.is_empty(),
            "run twice:\n{}",
            self.twice.join("\n\n")
        );
        assert!(self.lost.is_empty(), "lost:\n{}", self.lost.join("\n\n"));
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} run once, {} run twice, {} lost ({} of them killed by a client, {} more without an answer)",
            self.acknowledged,
            self.once,
            self.twice.len(),
            self.lost.len(),
            self.killed,
            self.unanswered
        )
    }
}

/// Waits until all is over, and judges.
pub(crate) fn judge(cluster: &Cluster, told: &Told, journal: &Path) -> Verdict {
    let client = cluster.client();
    let statuses = cluster.runtime.block_on(wait_for_all(&client, told));
    let runs = read(journal);
    let mut verdict = Verdict {
        acknowledged: told.acknowledged.len(),
        unanswered: told.unanswered,
        killed: told.acknowledged.iter().filter(|app| app.is_killed).count(),
        ..Verdict::default()
    };
    let none = Vec::new();
    for app in &told.acknowledged {
        let status = statuses.get(app.app.as_str());
        let runs = runs.get(&app.token).unwrap_or(&none);
        if let Some(why) = lost(app, status, runs) {
            verdict
                .lost
                .push(history(cluster, &why, app, status, journal));
        } else if runs.iter().any(|run| run.end.is_some()) {
            verdict.once += 1;
        }
    }
    let supervised: BTreeSet<_> = told
        .acknowledged
        .iter()
        .filter(|app| app.is_supervised)
        .map(|app| app.token.as_str())
        .collect();
    for (token, runs) in &runs {
        // One without an answer may be supervised too: its second run comes after the first.
        let may_repeat = supervised.contains(token.as_str()) || !is_known(told, token);
        if let Some(why) = twice(runs, may_repeat) {
            let lines = lines_of(cluster, &runs[0].app);
            let journal = journal_of(journal, token);
            verdict
                .twice
                .push(format!("{token} {why}\n{journal}\n{lines}"));
        }
    }
    verdict
}

fn is_known(told: &Told, token: &str) -> bool {
    told.acknowledged.iter().any(|app| app.token == token)
}

async fn wait_for_all(client: &MasterClient, told: &Told) -> BTreeMap<String, AppStatus> {
    let all = async {
        for app in &told.acknowledged {
            // Nobody leads for a moment: what is last known of it is asked below.
            while client.wait(&app.app).await.is_err() {}
        }
        loop {
            let Ok(apps) = client.apps().await else {
                continue;
            };
            if apps.iter().all(|app| app.phase.is_final()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // Else those that never end are among the lost.
    let _ = tokio::time::timeout(PATIENCE, all).await;
    let mut statuses = BTreeMap::new();
    for app in &told.acknowledged {
        let status = client.status(app.app.clone()).await;
        if let Some(status) = status.expect("a master leads") {
            statuses.insert(app.app.to_string(), status);
        }
    }
    statuses
}

/// Why this one counts as lost, if it does.
fn lost(app: &Acknowledged, status: Option<&AppStatus>, runs: &[Run]) -> Option<String> {
    let Some(status) = status else {
        return Some("is unknown".into());
    };
    let has_ended = runs.iter().any(|run| run.end.is_some());
    match status.phase {
        AppPhase::Killed if app.is_killed => None,
        // A kill goes out before it is stored: the next master knows that somebody wanted it, but not who.
        AppPhase::Error if app.is_killed && status.message.as_deref() == Some(NOT_STORED) => None,
        AppPhase::Finished if has_ended => None,
        // It ended by itself before the kill came, and is not started again.
        AppPhase::Failed if app.is_killed && app.is_supervised && has_ended => None,
        phase => Some(format!(
            "is {phase:?}, {}",
            match has_ended {
                true => "ran to its end",
                false => "never ran to its end",
            }
        )),
    }
}

/// Why these runs of one submission are too many, if they are.
fn twice(runs: &[Run], may_repeat: bool) -> Option<&'static str> {
    let apps: BTreeSet<_> = runs.iter().map(|run| &run.app).collect();
    if apps.len() > 1 {
        return Some("became two applications");
    }
    if runs.len() > 1 && !may_repeat {
        return Some("was started twice");
    }
    let mut by_start = runs.to_vec();
    by_start.sort_by(|a, b| a.start.total_cmp(&b.start));
    let overlap = by_start
        .windows(2)
        .any(|pair| pair[0].end.is_none_or(|end| end > pair[1].start));
    overlap.then_some("had two attempts alive at once")
}

/// The runs of each submission, by its token.
fn read(journal: &Path) -> BTreeMap<String, Vec<Run>> {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let mut ends = BTreeMap::new();
    let mut starts = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, token, app, attempt, pid, time] = words[..] else {
            panic!("no such line is written: {line}");
        };
        let time: f64 = time.replace(',', ".").parse().expect("seconds");
        let key = (app.to_owned(), attempt.to_owned(), pid.to_owned());
        match what {
            "start" => starts.push((token.to_owned(), key, time)),
            _ => drop(ends.insert(key, time)),
        }
    }
    let mut runs: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for (token, key, start) in starts {
        let end = ends.get(&key).copied();
        let (app, ..) = key;
        runs.entry(token).or_default().push(Run { app, start, end });
    }
    runs
}

fn journal_of(journal: &Path, token: &str) -> String {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let word = format!(" {token} ");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(&word)).collect();
    lines.join("\n")
}

fn lines_of(cluster: &Cluster, app: &str) -> String {
    cluster.lines_with(app).join("\n")
}

fn history(
    cluster: &Cluster,
    why: &str,
    app: &Acknowledged,
    status: Option<&AppStatus>,
    journal: &Path,
) -> String {
    format!(
        "{} {why}: {app:?}\n{status:#?}\n{}\n{}",
        app.app,
        journal_of(journal, &app.token),
        lines_of(cluster, app.app.as_str())
    )
}
