//! The command that submits.

use aloha_scheduler::{ProcessLimits, StopPolicy, StopSignal};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::{ClientArgs, memory_mib};
use crate::policy::PolicyArgs;

/// Submit an application: a command, or a type of one's own; print its id.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  aloha submit -- sleep 60
  aloha submit --name etl --cores 2 --memory 4G --supervise -- ./etl.sh --day today
  aloha submit --restart on-failure --restart-max 5 --max-run-time 2h --priority 10 -- ./etl.sh
  aloha submit --constraint zone=a --constraint '!spot' --tag database -- ./import.sh
  aloha submit --env TZ=UTC --limit open-files=4096 --stop-signal INT --stop-timeout 60 -- ./serve
  aloha submit --wait --follow --shell 'for i in 1 2 3; do echo $i; sleep 1; done'
  aloha submit --entry-point com.example.Greeter --lib target/release/greeter -- WALL-E")]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// What people call the application [default: the first word of the command, or the type of one's own]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Process executes the command directly, SimpleProcess gives it to bash; a type of one's own needs a --lib
    #[arg(long, default_value = "Process")]
    pub(crate) entry_point: String,
    /// What the application needs, there on every worker: the first executable has the type of one's own. May be
    /// repeated; a relative path is taken from here, a URL (file://) as it is
    #[arg(long = "lib", value_name = "PATH", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) libs: Vec<String>,
    /// Cores it needs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) cores: u32,
    /// Memory it needs: 4G, 512M, or a number of MiB
    #[arg(long = "memory", value_name = "MEMORY", default_value = "512", value_parser = memory_mib)]
    pub(crate) memory_mib: u64,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Sets a variable of its environment; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) environment: Vec<(String, String)>,
    /// Signal by which it is asked to end: TERM, INT, QUIT, HUP, USR1 or USR2
    #[arg(long, value_name = "SIGNAL", default_value = "TERM")]
    pub(crate) stop_signal: StopSignal,
    /// How long it then may go on before it is killed [default: aloha.worker.killGrace of its worker]
    #[arg(long, value_name = "SECONDS", value_parser = grace_millis)]
    pub(crate) stop_timeout: Option<u64>,
    /// Limits each of its processes; may be repeated: open-files, processes, address-space-bytes, file-bytes,
    /// core-bytes (sizes: 4G, 512M, or bytes), cpu-seconds
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = limit)]
    pub(crate) limits: Vec<(String, String)>,
    /// Wait for its end, and exit with its exit code
    #[arg(long)]
    pub(crate) wait: bool,
    /// Print its output while it runs, each of its two outputs to ours
    #[arg(long)]
    pub(crate) follow: bool,
    /// Names this submission: repeated under the same key, it is still one application. 1 to 128 visible ASCII characters
    /// [default: a random one, so that aloha itself may repeat it]
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// A line for bash; short for --entry-point SimpleProcess -- LINE
    #[arg(long, value_name = "LINE", conflicts_with_all = ["entry_point", "command"])]
    pub(crate) shell: Option<String>,
    /// The command and its arguments; for a type of one's own its arguments, if it takes any
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, with a name that is not empty".to_owned()),
    }
}

fn grace_millis(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().and_then(StopPolicy::grace_of_seconds);
    seconds.ok_or_else(|| "expected a number of seconds from 0 to 86400".to_owned())
}

/// A limit that can be set, by its name.
fn limit(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected NAME=VALUE, as open-files=1024")?;
    let set = ProcessLimits::default().set(name, value);
    set.map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value.to_owned()))
}
