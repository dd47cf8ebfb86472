//! The command line: every subcommand with its flags.

use std::fmt;
use std::path::PathBuf;

use aloha_scheduler::config::{ByteUnit, parse_bytes};
use aloha_scheduler::{ProcessLimits, StopPolicy, StopSignal};
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::master_urls::MasterUrls;
use crate::policy::PolicyArgs;

/// Where clients look for the master if nobody says.
const DEFAULT_MASTER: &str = "aloha://127.0.0.1:7077";

/// Runs long-living applications on a cluster of machines.
#[derive(Debug, Parser)]
#[command(name = "aloha", version, max_term_width = 100)]
#[command(after_help = "Start with `aloha local`, and try the curl line it prints.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Master(MasterArgs),
    Worker(WorkerArgs),
    Local(LocalArgs),
    Submit(SubmitArgs),
    Status(StatusArgs),
    Wait(WaitArgs),
    Kill(KillArgs),
    Logs(LogsArgs),
    Apps(AppsArgs),
    Workers(WorkersArgs),
    Daemon(DaemonArgs),
    Config(ShowConfigArgs),
}

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

/// Submit an application: a command, or a type of one's own; print its id.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  aloha submit -- sleep 60
  aloha submit --name etl --cores 2 --memory 4G --supervise -- ./etl.sh --day today
  aloha submit --restart on-failure --restart-max 5 --max-run-time 2h --priority 10 -- ./etl.sh
  aloha submit --constraint zone=a --constraint '!spot' --tag database -- ./import.sh
  aloha submit --env TZ=UTC --limit open-files=4096 --stop-signal INT --stop-timeout 60 -- ./serve
  aloha submit --wait --follow --entry-point SimpleProcess -- 'for i in 1 2 3; do echo $i; sleep 1; done'
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
    /// Print its output while it runs
    #[arg(long)]
    pub(crate) follow: bool,
    /// The command and its arguments; for a type of one's own its arguments, if it takes any
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// Print what is known of an application.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  aloha status --json app-20190311221731-0000")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The application
    pub(crate) id: String,
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

/// End an application.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  aloha kill app-20190311221731-0000")]
pub(crate) struct KillArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The application
    pub(crate) id: String,
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
#[command(after_help = "Example:
  aloha apps --master aloha://10.0.0.1:7077,10.0.0.3:7077")]
pub(crate) struct AppsArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// List the workers: what of theirs is in use, which limits they enforce, and why not.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  aloha workers --json")]
pub(crate) struct WorkersArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Run a master or a worker in the background.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:
  aloha daemon start master -h 10.0.0.1
  aloha daemon start worker -c 4 aloha://10.0.0.1:7077
  aloha daemon status worker
  aloha daemon stop worker

A worker that is stopped leaves its applications running for the next one in its directory, unless it was started
with --stop-applications.
ALOHA_PID_DIR and ALOHA_LOG_DIR name the directories of its pid and log files; one daemon of each role has
room in a directory."
)]
pub(crate) struct DaemonArgs {
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

/// What every client command takes.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// All masters; the leader is found [default: $ALOHA_MASTER, else aloha://127.0.0.1:7077]
    #[arg(long, value_name = "aloha://HOST:PORT[,HOST:PORT]...")]
    master: Option<MasterUrls>,
    /// Print JSON
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

fn memory_mib(text: &str) -> Result<u64, String> {
    parse_bytes(text, ByteUnit::Mebibytes)
        .map(|bytes| bytes >> 20)
        .filter(|mib| *mib > 0)
        .ok_or_else(|| "expected at least 1 MiB, as 4G, 512M, or a number of MiB".to_owned())
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Command {
        let words = std::iter::once("aloha").chain(line.split_whitespace());
        Cli::try_parse_from(words).expect(line).command
    }

    fn refused(line: &str) -> ErrorKind {
        let words = std::iter::once("aloha").chain(line.split_whitespace());
        Cli::try_parse_from(words).expect_err(line).kind()
    }

    #[test]
    fn the_definition_is_consistent_and_every_command_has_examples() {
        let command = Cli::command();
        command.clone().debug_assert();
        for subcommand in command.get_subcommands() {
            let help = subcommand.get_after_help().map(ToString::to_string);
            assert!(
                help.is_some_and(|help| help.contains("  aloha ")),
                "{}",
                subcommand.get_name()
            );
            assert!(
                subcommand.get_about().is_some(),
                "{}",
                subcommand.get_name()
            );
        }
    }

    #[test]
    fn dash_h_is_the_host_and_help_is_long() {
        let Command::Master(args) = parse("master -h 10.0.0.1 -p 7078 --rest-port 0 -D a=b -D c=d")
        else {
            panic!("a master");
        };
        assert_eq!(
            (args.host.as_deref(), args.port, args.rest_port),
            (Some("10.0.0.1"), Some(7078), Some(0))
        );
        assert_eq!(args.config.overrides, ["a=b", "c=d"]);
        for line in [
            "master --help",
            "worker --help",
            "local --help",
            "daemon --help",
            "submit -h",
            "--help",
        ] {
            assert_eq!(refused(line), ErrorKind::DisplayHelp, "{line}");
        }
    }

    #[test]
    fn a_worker_takes_several_masters_and_sizes_with_units() {
        let Command::Worker(args) = parse("worker -c 2 -m 4G -d /w aloha://h1:7077,[::1]:7078")
        else {
            panic!("a worker");
        };
        assert_eq!((args.cores, args.memory_mib), (Some(2), Some(4096)));
        assert_eq!(args.masters.host_ports(), ["h1:7077", "[::1]:7078"]);
        assert_eq!(args.masters.to_string(), "aloha://h1:7077,[::1]:7078");
        for (text, mib) in [
            ("512M", Some(512)),
            ("300", Some(300)),
            ("2g", Some(2048)),
            ("1K", None),
            ("x", None),
        ] {
            assert_eq!(memory_mib(text).ok(), mib, "{text}");
        }
    }

    #[test]
    fn a_worker_needs_the_url_of_a_master() {
        assert_eq!(refused("worker h1:7077"), ErrorKind::ValueValidation);
        assert_eq!(refused("worker"), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn the_command_to_submit_stands_behind_two_dashes() {
        let Command::Submit(args) = parse("submit --supervise --lib a --lib b -- ls -l --name x")
        else {
            panic!("a submission");
        };
        assert_eq!(args.command, ["ls", "-l", "--name", "x"]);
        assert_eq!((args.cores, args.memory_mib), (1, 512));
        assert_eq!(args.libs, ["a", "b"]);
        assert_eq!((args.entry_point.as_str(), args.name), ("Process", None));
        assert_eq!(refused("submit ls"), ErrorKind::UnknownArgument);
        assert_eq!(
            refused("submit --cores 0 -- ls"),
            ErrorKind::ValueValidation
        );
    }

    #[test]
    fn how_a_submission_ends_and_what_it_may_have_is_given_by_flags() {
        let line = "submit --env A=1 --env B=x=y --stop-signal sigint --stop-timeout 1.5 --limit open-files=64 -- ls";
        let Command::Submit(args) = parse(line) else {
            panic!("a submission");
        };
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(args.environment, [text("A", "1"), text("B", "x=y")]);
        assert_eq!(args.limits, [text("open-files", "64")]);
        assert_eq!(
            (args.stop_signal, args.stop_timeout),
            (StopSignal::Int, Some(1500))
        );
        let Command::Submit(args) = parse("submit -- ls") else {
            panic!("a submission");
        };
        assert_eq!(
            (args.stop_signal, args.stop_timeout),
            (StopSignal::Term, None)
        );
        for (flags, expected) in [
            ("--env A", "expected NAME=VALUE"),
            ("--env =1", "expected NAME=VALUE"),
            (
                "--stop-signal KILL",
                "expected one of TERM, INT, QUIT, HUP, USR1, USR2",
            ),
            ("--stop-timeout -1", "unexpected argument"),
            (
                "--stop-timeout 1d",
                "expected a number of seconds from 0 to 86400",
            ),
            ("--limit files=1", "expected one of openFiles, processes,"),
            (
                "--limit open-files=1",
                "expected a whole number from 8 to 1073741824",
            ),
            ("--limit openFiles", "expected NAME=VALUE"),
        ] {
            let words = format!("aloha submit {flags} -- ls");
            let error = Cli::try_parse_from(words.split(' ')).expect_err(flags);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn the_master_comes_from_the_flag_else_the_environment_else_this_machine() {
        let masters = |line: &str, variable: Option<&str>| {
            let Command::Apps(args) = parse(line) else {
                panic!("apps")
            };
            let variable = variable.map(str::to_owned);
            let lookup = |name: &str| variable.clone().filter(|_| name == "ALOHA_MASTER");
            args.client
                .masters(lookup)
                .map(|masters| masters.to_string())
        };
        let flag = "apps --master aloha://a:1";
        assert_eq!(
            masters(flag, Some("aloha://b:2")).as_deref(),
            Ok("aloha://a:1")
        );
        assert_eq!(
            masters("apps", Some("aloha://b:2")).as_deref(),
            Ok("aloha://b:2")
        );
        assert_eq!(
            masters("apps", Some("")).as_deref(),
            Ok("aloha://127.0.0.1:7077")
        );
        assert!(masters("apps", Some("b")).is_err_and(|error| error.starts_with("ALOHA_MASTER: ")));
    }

    #[test]
    fn a_daemon_takes_the_arguments_of_its_role_as_they_are() {
        let Command::Daemon(args) = parse("daemon start master -h 127.0.0.1 -p 0 --rest-port 0")
        else {
            panic!("a daemon");
        };
        assert_eq!(
            (args.action, args.role),
            (DaemonAction::Start, Role::Master)
        );
        assert_eq!(
            args.args,
            ["-h", "127.0.0.1", "-p", "0", "--rest-port", "0"]
        );
        assert_eq!(refused("daemon start boss"), ErrorKind::InvalidValue);
    }
}
