//! The commands that ask a master.

use aloha_scheduler::config::{TimeUnit, parse_duration};
use aloha_scheduler::{AppPhase, AppsSort, WorkerId};
use clap::{ArgGroup, Args};

use crate::master_urls::MasterUrls;

/// Where clients look for the master if nobody says.
const DEFAULT_MASTER: &str = "aloha://127.0.0.1:7077";

/// Print what is known of applications.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  aloha status app-20190311221731-0000
  aloha status --json app-20190311221731-0000 app-20190311221731-0001")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The applications
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// Wait for the end of an application, and exit with its exit code.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  aloha wait app-20190311221731-0000 && echo done")]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The application
    pub(crate) id: String,
}

/// End applications.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  aloha kill app-20190311221731-0000 app-20190311221731-0001
  aloha kill --all")]
pub(crate) struct KillArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Every application that has not ended
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    /// The applications
    #[arg(required_unless_present = "all", value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// Forget applications that have ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  aloha forget app-20190311221731-0000
  aloha forget --all")]
pub(crate) struct ForgetArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Every application that has ended
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    /// The applications
    #[arg(required_unless_present = "all", value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// Print the output of an application.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  aloha logs app-20190311221731-0000
  aloha logs -f --stderr app-20190311221731-0000
  aloha logs --attempt 1 app-20190311221731-0000")]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Go on until the application ends, also over relaunches
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print its standard error instead of its standard output
    #[arg(long)]
    pub(crate) stderr: bool,
    /// Print what this attempt wrote, counted from 1 [default: the latest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// The application
    pub(crate) id: String,
}

/// List the applications.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  aloha apps --state RUNNING,SUBMITTED
  aloha apps --name etl --tag nightly --sort -started --limit 20
  aloha apps --master aloha://10.0.0.1:7077,10.0.0.3:7077 --json")]
pub(crate) struct AppsArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Only those in these states, such as RUNNING; separated by commas, or repeated
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = phase)]
    pub(crate) states: Vec<AppPhase>,
    /// Only those whose name has this in it
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only those with this tag
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Only those that are on this worker, or ended there
    #[arg(long, value_name = "WORKER_ID")]
    pub(crate) worker: Option<WorkerId>,
    /// By what they are ordered: submitted, name, priority, started or ended; with a - before it, the last first
    #[arg(long, value_name = "ORDER", default_value = "submitted", value_parser = sort, allow_hyphen_values = true)]
    pub(crate) sort: (AppsSort, bool),
    /// How many at the most
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

/// List the workers: what of theirs is in use, which limits they enforce, and why not.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  aloha workers --json")]
pub(crate) struct WorkersArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Have a worker take nothing new, its applications end or move elsewhere, and then leave.
#[derive(Debug, Args)]
#[command(
    after_help = "Applications that are ever restarted (--supervise, --restart) are stopped there and started on another
worker; others run to their end. Ctrl-C ends the waiting, not the drain.

Examples:
  aloha drain worker-20190311221731-127.0.0.1-40000
  aloha drain --timeout 10min 10.0.0.2:40000
  aloha drain --wait --no-wait 10.0.0.2:40000
  aloha drain --cancel 10.0.0.2:40000"
)]
#[command(group = ArgGroup::new("instead").args(["cancel", "status"]))]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Move applications that may be started elsewhere at once; so it does where nothing is said
    #[arg(long = "move", conflicts_with_all = ["wait", "instead"])]
    pub(crate) moves: bool,
    /// Let them run to their end too
    #[arg(long, conflicts_with = "instead")]
    pub(crate) wait: bool,
    /// End what is left after this time, such as 90s, 10min or 2h, or move it where that may be [default: never]
    #[arg(long, value_name = "TIME", value_parser = drain_timeout, conflicts_with = "instead")]
    pub(crate) timeout: Option<u64>,
    /// Do not wait until the worker has left
    #[arg(long, alias = "detach")]
    pub(crate) no_wait: bool,
    /// Take it back: the worker takes applications again; what was moved stays where it is
    #[arg(long)]
    pub(crate) cancel: bool,
    /// Say how far it is
    #[arg(long)]
    pub(crate) status: bool,
    /// The worker: its id, or where it is reached
    #[arg(value_name = "WORKER")]
    pub(crate) worker: String,
}

/// Print the cluster in numbers: who leads, what is in use, what runs.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  aloha cluster --json")]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Show the cluster, its applications and workers, as they change.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys: q quit, tab applications or workers, up and down select, enter details, s sort, r reverse,
f filter by state, k kill, ? help.

Examples:
  aloha top
  aloha top --interval 5
  aloha top --once --json"
)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) interval: u32,
    /// Print one snapshot and end, as where stdout is no terminal
    #[arg(long)]
    pub(crate) once: bool,
}

/// What every client command takes.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// All masters; the leader is found [default: $ALOHA_MASTER, else aloha://127.0.0.1:7077]
    #[arg(long, value_name = "aloha://HOST:PORT[,HOST:PORT]...")]
    master: Option<MasterUrls>,
    /// Print JSON, also of errors
    #[arg(long)]
    pub(crate) json: bool,
}

impl ClientArgs {
    /// The masters to try: of the flag, else of the environment, else the one of this machine.
    pub(crate) fn masters(
        &self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<MasterUrls, String> {
        if let Some(masters) = &self.master {
            return Ok(masters.clone());
        }
        let variable = lookup("ALOHA_MASTER").filter(|value| !value.is_empty());
        match variable {
            Some(text) => text
                .parse()
                .map_err(|error| format!("ALOHA_MASTER: {error}")),
            None => DEFAULT_MASTER.parse(),
        }
    }
}

fn phase(text: &str) -> Result<AppPhase, String> {
    let upper = text.to_uppercase();
    let found = AppPhase::ALL
        .into_iter()
        .find(|phase| phase.to_string() == upper);
    let names = || AppPhase::ALL.map(|phase| phase.to_string()).join(", ");
    found.ok_or_else(|| format!("expected one of {}", names()))
}

fn drain_timeout(text: &str) -> Result<u64, String> {
    let time = parse_duration(text, TimeUnit::Seconds);
    time.and_then(|time| u64::try_from(time.as_millis()).ok())
        .ok_or_else(|| "expected a time, such as 0, 90s, 10min or 2h".to_owned())
}

fn sort(text: &str) -> Result<(AppsSort, bool), String> {
    let names = || AppsSort::ALL.map(AppsSort::name).join(", ");
    AppsSort::parse(text)
        .ok_or_else(|| format!("expected one of {}, or one of them after a -", names()))
}
