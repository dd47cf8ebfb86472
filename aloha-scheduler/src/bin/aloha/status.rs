//! `aloha status`.

use std::time::Duration;

use aloha_scheduler::{AppStatus, Moment, Transition};
use comfy_table::{Table, presets};

use crate::Failure;
use crate::args::StatusArgs;
use crate::connection::{ask, parse_all, unknown};
use crate::output::{print, print_json};
use crate::table::one_line;

/// Prints what is known of applications.
pub(crate) fn run(args: &StatusArgs) -> Result<u8, Failure> {
    let apps = parse_all(&args.ids)?;
    ask(&args.client, async |master, _| {
        let mut found = Vec::new();
        for app in &apps {
            let status = master.status(app.clone()).await?;
            found.push(status.ok_or_else(|| unknown(app))?);
        }
        match found.as_slice() {
            [one] if args.client.json => print_json(one),
            all if args.client.json => print_json(&all),
            all => {
                let texts: Vec<_> = all.iter().map(describe).collect();
                print(texts.join("\n\n"));
            }
        }
        Ok(0)
    })
}

pub(crate) fn describe(status: &AppStatus) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut row = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            table.add_row([key.to_owned(), one_line(value)]);
        }
    };
    row("id", Some(status.id.to_string()));
    row("name", Some(status.name.clone()));
    row("state", Some(status.phase.to_string()));
    row("waiting for", status.waiting_for.clone());
    let not_before = status.not_before.map(Moment);
    row(
        "runs again",
        not_before.map(|at| format!("at {at} or later")),
    );
    row("message", status.message.clone());
    row("exit code", status.exit_code.map(|code| code.to_string()));
    row(
        "attempt",
        Some(status.attempt)
            .filter(|attempt| *attempt > 0)
            .map(|attempt| attempt.to_string()),
    );
    row(
        "worker",
        status
            .worker
            .as_ref()
            .map(|placed| format!("{} at {}", placed.worker, placed.address)),
    );
    let ran = status.started_at.zip(status.ended_at);
    let ran = ran.and_then(|(started, ended)| ended.checked_sub(started));
    row(
        "ran for",
        ran.map(|millis| format!("{:?}", Duration::from_millis(millis))),
    );
    row("entry point", Some(status.entry_point.clone()));
    row("cores", Some(status.cores.to_string()));
    row("memory", Some(format!("{} MiB", status.memory_mib)));
    row("supervised", status.supervise.then(|| "yes".to_owned()));
    row("priority", Some(status.priority.to_string()));
    let history: Vec<_> = status.history.iter().map(past).collect();
    if !history.is_empty() {
        table.add_row(["history".to_owned(), history.join("\n")]);
    }
    table.trim_fmt()
}

/// A change of state in a line.
pub(crate) fn past(change: &Transition) -> String {
    let mut line = format!("{}  {}", Moment(change.at), change.to);
    if change.attempt > 0 {
        line += &format!(" (attempt {})", change.attempt);
    }
    if let Some(reason) = &change.reason {
        line += &format!(": {reason}");
    }
    one_line(line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_text_of_a_user_breaks_a_line_or_commands_the_terminal() {
        let bad = "a\u{1b}[2J\nb";
        let status: AppStatus = serde_json::from_value(json!({
            "id": "app-1", "name": "etl", "entry_point": bad, "cores": 1, "memory_mib": 512, "supervise": false,
            "phase": "ERROR", "exit_code": null, "attempt": 1, "worker": null, "waiting_for": bad, "message": bad,
            "submitted_at": 0, "started_at": null, "ended_at": null, "priority": 0, "not_before": null,
            "history": [{"at": 0, "to": "ERROR", "attempt": 1, "reason": bad}],
        }))
        .expect("a status");
        let text = describe(&status);
        assert_eq!(text.matches("a [2J b").count(), 4, "{text:?}");
        let failure = Failure::new(bad);
        assert_eq!(failure.text, "aloha: a [2J b");
    }

    #[test]
    fn a_status_says_why_it_waits_when_it_runs_again_and_what_was() {
        let status: AppStatus = serde_json::from_value(json!({
            "id": "app-1", "name": "etl", "entry_point": "Process", "cores": 1, "memory_mib": 512, "supervise": true,
            "phase": "RELAUNCHING", "exit_code": null, "attempt": 1, "worker": null,
            "waiting_for": "needs 8 cores; the largest free worker has 4", "message": "exited with code 3",
            "submitted_at": 0, "started_at": null, "ended_at": null, "priority": -2, "not_before": 1_552_342_651_000u64,
            "history": [
                {"at": 1_552_342_650_000u64, "to": "SUBMITTED", "attempt": 0, "reason": null},
                {"at": 1_552_342_650_500u64, "to": "RELAUNCHING", "attempt": 1, "reason": "exited with code 3"},
            ],
        }))
        .expect("a status");
        let text = describe(&status);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for expected in [
            "waiting for needs 8 cores; the largest free worker has 4",
            "runs again at 2019-03-11 22:17:31.000 UTC or later",
            "priority -2",
            "history 2019-03-11 22:17:30.000 UTC SUBMITTED",
            "2019-03-11 22:17:30.500 UTC RELAUNCHING (attempt 1): exited with code 3",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{text}");
        }
    }
}
