//! The command line: every subcommand with its flags.

mod client;
mod serve;
mod submit;

use aloha_scheduler::config::{ByteUnit, parse_bytes};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use self::client::{
    AppsArgs, ClientArgs, ClusterArgs, DrainArgs, ForgetArgs, KillArgs, LogsArgs, StatusArgs,
    TopArgs, WaitArgs, WorkersArgs,
};
pub(crate) use self::serve::{
    ConfigArgs, DaemonAction, DaemonArgs, LocalArgs, MasterArgs, Role, ShowConfigArgs, WorkerArgs,
};
pub(crate) use self::submit::SubmitArgs;

/// Runs long-living applications on a cluster of machines.
#[derive(Debug, Parser)]
#[command(name = "aloha", version, max_term_width = 100)]
#[command(after_help = "Start with `aloha local`, and try the curl line it prints.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

// Words that other tools have for the same are understood too, and not shown.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Master(MasterArgs),
    Worker(WorkerArgs),
    Local(LocalArgs),
    #[command(alias = "run")]
    Submit(Box<SubmitArgs>),
    #[command(aliases = ["show", "describe"])]
    Status(StatusArgs),
    Wait(WaitArgs),
    #[command(aliases = ["stop", "cancel"])]
    Kill(KillArgs),
    #[command(aliases = ["rm", "remove", "clear"])]
    Forget(ForgetArgs),
    #[command(alias = "log")]
    Logs(LogsArgs),
    #[command(aliases = ["list", "ls", "ps"])]
    Apps(AppsArgs),
    #[command(alias = "nodes")]
    Workers(WorkersArgs),
    Drain(DrainArgs),
    #[command(alias = "info")]
    Cluster(ClusterArgs),
    Top(TopArgs),
    Daemon(DaemonArgs),
    Config(ShowConfigArgs),
    Completion(CompletionArgs),
}

/// Print a script by which a shell completes the commands and flags of aloha.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  aloha completion bash > ~/.local/share/bash-completion/completions/aloha
  aloha completion zsh > ~/.zfunc/_aloha
  aloha completion fish > ~/.config/fish/completions/aloha.fish")]
pub(crate) struct CompletionArgs {
    /// Which shell
    pub(crate) shell: Shell,
}

fn memory_mib(text: &str) -> Result<u64, String> {
    parse_bytes(text, ByteUnit::Mebibytes)
        .map(|bytes| bytes >> 20)
        .filter(|mib| *mib > 0)
        .ok_or_else(|| "expected at least 1 MiB, as 4G, 512M, or a number of MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use aloha_scheduler::{AppPhase, AppsSort, StopSignal};
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

    #[test]
    fn a_list_is_filtered_and_ordered_by_flags() {
        let line = "apps --state running,Submitted --state FAILED --name etl --tag db --sort -started --limit 5";
        let Command::Apps(args) = parse(line) else {
            panic!("apps");
        };
        use AppPhase::{Failed, Running, Submitted};
        assert_eq!(args.states, [Running, Submitted, Failed]);
        assert_eq!(
            (args.sort, args.limit),
            ((AppsSort::Started, true), Some(5))
        );
        assert_eq!(
            (args.name.as_deref(), args.tag.as_deref()),
            (Some("etl"), Some("db"))
        );
        assert_eq!(refused("apps --state DEAD"), ErrorKind::ValueValidation);
        assert_eq!(refused("apps --sort size"), ErrorKind::ValueValidation);
    }

    #[test]
    fn a_drain_is_asked_for_taken_back_or_looked_at() {
        let Command::Drain(args) = parse("drain --wait --timeout 10min h:7078") else {
            panic!("a drain");
        };
        assert_eq!((args.wait, args.timeout), (true, Some(600_000)));
        assert_eq!(args.worker, "h:7078");
        for line in [
            "drain --status w",
            "drain --cancel --json w",
            "drain --move --no-wait w",
        ] {
            parse(line);
        }
        for line in [
            "drain --move --wait w",
            "drain --cancel --status w",
            "drain --cancel --timeout 1s w",
        ] {
            assert_eq!(refused(line), ErrorKind::ArgumentConflict, "{line}");
        }
        assert_eq!(refused("drain"), ErrorKind::MissingRequiredArgument);
        assert_eq!(
            refused("drain --timeout soon w"),
            ErrorKind::ValueValidation
        );
    }

    #[test]
    fn what_ends_everything_takes_no_ids_and_what_ends_one_needs_some() {
        for command in ["kill", "forget"] {
            assert_eq!(refused(command), ErrorKind::MissingRequiredArgument);
            assert_eq!(
                refused(&format!("{command} --all app-1")),
                ErrorKind::ArgumentConflict
            );
        }
        let Command::Kill(args) = parse("kill app-1 app-2") else {
            panic!("kill");
        };
        assert_eq!(args.ids, ["app-1", "app-2"]);
    }

    #[test]
    fn words_of_other_tools_are_understood() {
        assert!(matches!(parse("list"), Command::Apps(_)));
        assert!(matches!(parse("ps"), Command::Apps(_)));
        assert!(matches!(parse("cancel app-1"), Command::Kill(_)));
        let error = Cli::try_parse_from(["aloha", "aps"]).expect_err("no such command");
        assert!(error.to_string().contains("'apps'"), "{error}");
    }
}
