//! The command `aloha`: masters, workers, and everything a user asks of them.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage; `wait` and `submit --wait` exit with the application's own.
#![allow(clippy::print_stderr, reason = "a command talks to whoever typed it")]

mod announce;
mod apps;
mod args;
mod cluster;
mod completion;
mod config;
mod connection;
mod daemon;
mod descriptors;
mod drain;
mod kill;
mod logs;
mod machine;
mod master_urls;
mod output;
mod policy;
mod progress;
mod reach;
mod serve;
mod status;
mod submit;
mod table;
mod top;
mod wait;
mod work_directory;
mod workers;

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use aloha_scheduler::config::ConfigError;
use aloha_scheduler::with_causes;
use clap::Parser as _;

use args::{Cli, Command};
use output::{all_written, print};

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Workers execute this program again, once for each application.
    if let Some(code) = aloha_scheduler::runner::run_if_asked(std::env::args_os()) {
        return code;
    }
    let json = wants_json(std::env::args_os());
    let failure = match Cli::try_parse() {
        Ok(cli) => match dispatch(cli) {
            Ok(code) => return code.into(),
            Err(failure) => failure,
        },
        // What was asked for, such as help, comes here too.
        Err(error) if !json || !error.use_stderr() => error.exit(),
        Err(error) => Failure::usage(error.to_string().trim_end()),
    };
    if json {
        let text = failure.text.as_str();
        let text = ["aloha: ", "error: "]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .unwrap_or(text);
        eprintln!("{}", serde_json::json!({ "error": text }));
    } else {
        eprintln!("{}", failure.text);
    }
    failure.code.into()
}

/// Whether errors are to be JSON too, also those of a command line that cannot be understood.
fn wants_json(words: impl Iterator<Item = impl AsRef<OsStr>>) -> bool {
    let mut words = words.take_while(|word| word.as_ref() != "--");
    words.any(|word| word.as_ref() == "--json")
}

/// Runs a subcommand and gives the exit code.
fn dispatch(cli: Cli) -> Result<u8, Failure> {
    match cli.command {
        Command::Config(args) => config::run(&args).and_then(|()| all_written()).map(|()| 0),
        Command::Completion(args) => completion::run(&args),
        Command::Daemon(args) => daemon::run(&args, dispatch),
        Command::Master(args) => serve::master(&args),
        Command::Worker(args) => serve::worker(&args),
        Command::Local(args) => serve::local(&args),
        Command::Submit(args) => submit::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Wait(args) => wait::run(&args),
        Command::Kill(args) => kill::kill(&args),
        Command::Forget(args) => kill::forget(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Apps(args) => apps::run(&args),
        Command::Workers(args) => workers::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Top(args) => top::run(&args),
    }
}

/// The environment of this process; everything below gets it passed in.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A runtime for one command.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.map_err(|error| Failure::new(format_args!("cannot start: {error}")))
}

/// Logs go to stderr; `RUST_LOG` says which, `info` and above by default. What ZooKeeper's client has to say of each
/// attempt is left out then: how a session stands is said without it.
fn log_to_stderr() {
    let builder = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into());
    let filter = match environment("RUST_LOG") {
        Some(_) => builder.from_env_lossy(),
        None => builder.parse_lossy("info,zookeeper_client=error"),
    };
    let ansi = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(ansi)
        .init();
}

/// Why a command ends without success: one line that says what and what to do.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// Refused or failed.
    fn new(text: impl std::fmt::Display) -> Self {
        Self {
            code: FAILED,
            text: format!("aloha: {}", table::one_line(text.to_string())),
        }
    }

    /// Typed wrongly; clap's own text has everything.
    fn usage(text: &str) -> Self {
        Self {
            code: USAGE,
            text: text.to_owned(),
        }
    }

    /// A file or directory that could not be used.
    fn at(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{what} {}: {error}", path.display()))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(with_causes(&error))
    }
}
