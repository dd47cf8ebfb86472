//! The command `aloha`: masters, workers, and everything a user asks of them.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage; `wait` and `submit --wait` exit with the application's own.
#![allow(clippy::print_stderr, reason = "a command talks to whoever typed it")]

mod args;
mod client;
mod config;
mod daemon;
mod descriptors;
mod machine;
mod master_urls;
mod policy;
mod serve;
mod work_directory;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use aloha_scheduler::config::ConfigError;
use aloha_scheduler::with_causes;
use clap::Parser as _;

use args::{Cli, Command};

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Workers execute this program again, once for each application.
    if let Some(code) = aloha_scheduler::runner::run_if_asked(std::env::args_os()) {
        return code;
    }
    match dispatch(Cli::parse()) {
        Ok(code) => code.into(),
        Err(failure) => {
            eprintln!("{}", failure.text);
            failure.code.into()
        }
    }
}

/// Runs a subcommand and gives the exit code.
fn dispatch(cli: Cli) -> Result<u8, Failure> {
    match cli.command {
        Command::Config(args) => config::run(&args).map(|()| 0),
        Command::Daemon(args) => daemon::run(&args, dispatch),
        Command::Master(args) => serve::master(&args),
        Command::Worker(args) => serve::worker(&args),
        Command::Local(args) => serve::local(&args),
        Command::Submit(args) => client::submit(&args),
        Command::Status(args) => client::status(&args),
        Command::Wait(args) => client::wait(&args),
        Command::Kill(args) => client::kill(&args),
        Command::Logs(args) => client::logs(&args),
        Command::Apps(args) => client::apps(&args),
        Command::Workers(args) => client::workers(&args),
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

/// Logs go to stderr; `RUST_LOG` says which, `info` and above by default.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env_lossy();
    let ansi = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(ansi)
        .init();
}

/// Writes a line to stdout. That nobody reads it any more, as in `aloha config | head`, is no failure.
fn print(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
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
            text: format!("aloha: {text}"),
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
