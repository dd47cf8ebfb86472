//! `aloha workers`.

use std::collections::BTreeSet;

use aloha_scheduler::config::Value;
use aloha_scheduler::master::{WorkerState, WorkerStatus};

use crate::Failure;
use crate::args::WorkersArgs;
use crate::connection::ask;
use crate::output::{print, print_json};
use crate::table::{Column, lay_out, terminal_width};

const COLUMNS: [Column; 8] = [
    // Long: a narrow terminal has it on two lines.
    Column::text("ID", 0),
    Column::optional("ADDRESS", 5),
    Column::fixed("STATE"),
    Column::optional("CORES", 1),
    Column::optional("MIB", 2),
    Column::text("ENFORCES", 6),
    Column::text("ATTRIBUTES", 4),
    Column::optional("APPLICATIONS", 3),
];

/// Lists the workers.
pub(crate) fn run(args: &WorkersArgs) -> Result<u8, Failure> {
    ask(&args.client, async |master, _| {
        let workers = master.workers().await?;
        if args.client.json {
            print_json(&workers);
            return Ok(0);
        }
        let notes = not_enforced(&workers);
        print(table(workers, terminal_width()));
        for note in notes {
            print(note);
        }
        Ok(0)
    })
}

/// Lays a list out.
pub(crate) fn table(workers: Vec<WorkerStatus>, width: Option<u16>) -> String {
    lay_out(COLUMNS, workers.into_iter().map(row), width)
}

fn row(worker: WorkerStatus) -> [String; 8] {
    let WorkerStatus {
        id,
        host,
        port,
        state,
        cores,
        cores_used,
        memory_mib,
        memory_mib_used,
        apps,
        enforces,
        attributes,
        ..
    } = worker;
    [
        id.to_string(),
        format!("{host}:{port}"),
        state.to_string(),
        format!("{cores_used}/{cores}"),
        format!("{memory_mib_used}/{memory_mib}"),
        enforces.summary(),
        Value::Attributes(attributes).to_string(),
        apps.len().to_string(),
    ]
}

/// A line for each reason why some worker does not enforce something.
fn not_enforced(workers: &[WorkerStatus]) -> BTreeSet<String> {
    let there = workers.iter().filter(|w| w.state != WorkerState::Dead);
    there
        .flat_map(|worker| worker.enforces.reasons())
        .map(|(what, reason)| format!("not enforced: {what}: {reason}"))
        .collect()
}
