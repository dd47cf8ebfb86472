//! The commands that serve, and what configures them.

use std::fmt;
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::memory_mib;
use crate::master_urls::MasterUrls;

/// Run a master, and the REST server beside it.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:
  aloha master
  aloha master -h 10.0.0.1 -p 7077 -D aloha.master.rest.token.file=/etc/aloha/token"
)]
pub(crate) struct MasterArgs {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(short = 'h', long)]
    pub(crate) host: Option<String>,
    /// RPC port, 0 for any free one [default: 7077]
    #[arg(short, long)]
    pub(crate) port: Option<u16>,
    /// REST port, 0 for any free one [default: 6066]
    #[arg(long)]
    pub(crate) rest_port: Option<u16>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) help: HelpArgs,
}

/// Run a worker, which runs applications for a master.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:
  aloha worker aloha://127.0.0.1:7077
  aloha worker -h 10.0.0.2 -c 8 -m 16G -d /var/lib/aloha aloha://10.0.0.1:7077,10.0.0.3:7077"
)]
pub(crate) struct WorkerArgs {
    /// Address to listen on, by which the master reaches the worker [default: 127.0.0.1]
    #[arg(short = 'h', long)]
    pub(crate) host: Option<String>,
    /// RPC port, 0 for any free one [default: 0]
    #[arg(short, long)]
    pub(crate) port: Option<u16>,
    /// Cores to offer [default: all of the machine]
    #[arg(short, long)]
    pub(crate) cores: Option<u32>,
    /// Memory to offer: 4G, 512M, or a number of MiB [default: all of the machine but 1 GiB]
    #[arg(short, long = "memory", value_name = "MEMORY", value_parser = memory_mib)]
    pub(crate) memory_mib: Option<u64>,
    /// Directory in which each application gets its own
    #[arg(short = 'd', long)]
    pub(crate) work_dir: Option<PathBuf>,
    /// When asked to stop, end the applications first; else they run on for the next worker in this directory
    #[arg(long)]
    pub(crate) stop_applications: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// All masters; the worker finds the leader
    #[arg(value_name = "aloha://HOST:PORT[,HOST:PORT]...")]
    pub(crate) masters: MasterUrls,
    #[command(flatten)]
    pub(crate) help: HelpArgs,
}

/// Run a master, workers and the REST server in one process, to try things out.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:
  aloha local
  aloha local --workers 3 -c 2 -m 1G -p 0 --rest-port 0"
)]
pub(crate) struct LocalArgs {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(short = 'h', long)]
    pub(crate) host: Option<String>,
    /// Number of workers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) workers: u32,
    /// Cores each worker offers [default: all of the machine]
    #[arg(short, long)]
    pub(crate) cores: Option<u32>,
    /// Memory each worker offers: 4G, 512M, or a number of MiB [default: all of the machine but 1 GiB]
    #[arg(short, long = "memory", value_name = "MEMORY", value_parser = memory_mib)]
    pub(crate) memory_mib: Option<u64>,
    /// RPC port of the master, 0 for any free one [default: 7077]
    #[arg(short, long)]
    pub(crate) port: Option<u16>,
    /// REST port, 0 for any free one [default: 6066]
    #[arg(long)]
    pub(crate) rest_port: Option<u16>,
    /// Directory in which each application gets its own
    #[arg(short = 'd', long)]
    pub(crate) work_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) help: HelpArgs,
}

/// Run a master or a worker in the background.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:
  aloha daemon start master -h 10.0.0.1
  aloha daemon start worker -c 4 aloha://10.0.0.1:7077
  aloha daemon --json status worker
  aloha daemon stop worker

A worker that is stopped leaves its applications running for the next one in its directory, unless it was started
with --stop-applications.
ALOHA_PID_DIR and ALOHA_LOG_DIR name the directories of its pid and log files; one daemon of each role has
room in a directory."
)]
pub(crate) struct DaemonArgs {
    /// Print JSON; stands before the action
    #[arg(long)]
    pub(crate) json: bool,
    /// What to do
    pub(crate) action: DaemonAction,
    /// With which daemon
    pub(crate) role: Role,
    /// For `start`: the arguments of `aloha master` or `aloha worker`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
    #[command(flatten)]
    pub(crate) help: HelpArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DaemonAction {
    /// Start it, and wait until it is ready
    Start,
    /// End it, and wait until it has ended
    Stop,
    /// Say whether it runs: exit code 0 if so, 1 if not
    Status,
    /// What `start` executes in the background
    #[value(hide = true)]
    Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Master,
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::Worker => "worker",
        })
    }
}

/// Print every configuration key: its value, where that came from, its default and its meaning.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  aloha config
  aloha config --properties-file conf/aloha-default.conf --json")]
pub(crate) struct ShowConfigArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the documentation of all keys as a Markdown table
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
}

/// Where settings come from.
#[derive(Debug, Default, Args)]
pub(crate) struct ConfigArgs {
    /// File of settings [default: $ALOHA_CONF_DIR/aloha-default.conf, else $ALOHA_HOME/conf/aloha-default.conf]
    #[arg(long, value_name = "FILE")]
    pub(crate) properties_file: Option<PathBuf>,
    /// Sets one key; may be repeated
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

/// `--help` where `-h` is the host.
#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}
