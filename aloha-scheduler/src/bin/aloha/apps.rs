//! `aloha apps`.

use aloha_scheduler::{AppStatus, AppsQuery, MasterClient};

use crate::Failure;
use crate::args::AppsArgs;
use crate::connection::ask;
use crate::output::{print, print_json};
use crate::table::{Column, lay_out, terminal_width};

const COLUMNS: [Column; 8] = [
    Column::fixed("ID"),
    Column::text("NAME", 1),
    Column::fixed("STATE"),
    Column::optional("CORES", 5),
    Column::optional("MIB", 6),
    Column::optional("ATTEMPT", 4),
    Column::optional("WORKER", 3),
    Column::text("MESSAGE", 2),
];

/// Lists the applications.
pub(crate) fn run(args: &AppsArgs) -> Result<u8, Failure> {
    let (sort, descending) = args.sort;
    let query = AppsQuery {
        states: args.states.iter().copied().collect(),
        name: args.name.clone(),
        tag: args.tag.clone(),
        worker: args.worker.clone(),
        sort,
        descending,
        ..AppsQuery::default()
    };
    ask(&args.client, async |master, _| {
        let apps = list(&master, query, args.limit).await?;
        if args.client.json {
            print_json(&apps);
        } else {
            print(table(apps, terminal_width()));
        }
        Ok(0)
    })
}

/// Lays a list out.
pub(crate) fn table(apps: Vec<AppStatus>, width: Option<u16>) -> String {
    lay_out(COLUMNS, apps.into_iter().map(row), width)
}

/// Asks for page after page.
async fn list(
    master: &MasterClient,
    mut query: AppsQuery,
    limit: Option<usize>,
) -> Result<Vec<AppStatus>, Failure> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut apps = Vec::new();
    while apps.len() < limit {
        let missing = limit - apps.len();
        query.limit = u32::try_from(missing).ok();
        let page = master.apps_page(query.clone()).await?;
        apps.extend(page.apps.into_iter().take(missing));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    Ok(apps)
}

fn row(app: AppStatus) -> [String; 8] {
    [
        app.id.to_string(),
        app.name,
        app.phase.to_string(),
        app.cores.to_string(),
        app.memory_mib.to_string(),
        app.attempt.to_string(),
        app.worker
            .map_or_else(String::new, |worker| worker.address.to_string()),
        app.waiting_for.or(app.message).unwrap_or_default(),
    ]
}
