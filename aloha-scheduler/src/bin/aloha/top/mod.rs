//! `aloha top`: the cluster, its applications and workers, as they change.
//!
//! ```text
//!   keys, size ----.                                  .----> Model ----> draw ----> terminal
//!                  |----> on_key, on_news -----------'|
//!   watch ---------'        what is to be done        '----> kill, look at one application
//!   (asks the master, and again if it is lost)
//! ```

mod draw;
mod keys;
mod model;
mod screen;
mod snapshot;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use serde_json::json;

use self::snapshot::Snapshot;
use crate::args::TopArgs;
use crate::cluster::Masters;
use crate::connection::ask;
use crate::output::{print, print_json};
use crate::table::terminal_width;
use crate::{Failure, apps, cluster, workers};

/// Shows the cluster until a key ends it; where nobody looks, once.
pub(crate) fn run(args: &TopArgs) -> Result<u8, Failure> {
    let once = args.once || args.client.json || !io::stdout().is_terminal();
    let once = once || !io::stdin().is_terminal();
    ask(&args.client, async |master, env| {
        if once {
            let snapshot = Snapshot::take(&master).await?;
            let masters = Masters::of(&master).await;
            print_once(
                Snapshot {
                    masters,
                    ..snapshot
                },
                args.client.json,
            );
            return Ok(0);
        }
        let interval = Duration::from_secs(args.interval.into());
        screen::show(&master, env, interval).await
    })
}

fn print_once(snapshot: Snapshot, json: bool) {
    if json {
        print_json(&json!({
            "cluster": snapshot.cluster,
            "masters": snapshot.masters,
            "applications": snapshot.apps,
            "workers": snapshot.workers,
        }));
        return;
    }
    let width = terminal_width();
    print(cluster::describe(&snapshot.cluster));
    snapshot.masters.describe().iter().for_each(print);
    let left_out = left_out(&snapshot);
    print(format_args!("\n{}", apps::table(snapshot.apps, width)));
    if let Some(text) = left_out {
        print(text);
    }
    print(format_args!(
        "\n{}",
        workers::table(snapshot.workers, width)
    ));
}

/// That there are more applications than are shown, if there are.
fn left_out(snapshot: &Snapshot) -> Option<String> {
    let all: u64 = snapshot.cluster.apps.values().sum();
    let left_out = all.saturating_sub(snapshot.apps.len() as u64);
    (left_out > 0).then(|| format!("and {left_out} more, which `aloha apps` lists"))
}

#[cfg(test)]
mod tests {
    use aloha_scheduler::AppPhase;

    use super::*;

    #[test]
    fn applications_that_are_not_shown_are_counted() {
        let mut snapshot = Snapshot::default();
        assert_eq!(left_out(&snapshot), None);
        snapshot.cluster.apps.insert(AppPhase::Submitted, 501);
        let expected = "and 501 more, which `aloha apps` lists";
        assert_eq!(left_out(&snapshot).as_deref(), Some(expected));
    }
}
