//! The command `aloha`: masters, workers, and everything a user asks of them.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage; `wait` and `submit --wait` exit with the application's own.
#![allow(clippy::print_stderr, reason = "a command talks to whoever typed it")]

#[allow(
    dead_code,
    reason = "the subcommands that read the other fields follow"
)]
mod args;
#[allow(dead_code, reason = "the subcommands that are configured follow")]
mod config;
mod daemon;
#[allow(dead_code, reason = "the subcommands that connect follow")]
mod master_urls;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use aloha_scheduler::config::ConfigError;
use clap::Parser as _;

use args::{Cli, Command};

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
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
        Command::Master(_)
        | Command::Worker(_)
        | Command::Local(_)
        | Command::Submit(_)
        | Command::Status(_)
        | Command::Wait(_)
        | Command::Kill(_)
        | Command::Logs(_)
        | Command::Apps(_)
        | Command::Workers(_) => Err(Failure::new("this version cannot do that yet")),
    }
}

/// The environment of this process; everything below gets it passed in.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
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
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            write!(text, ": {cause}").expect("a String takes everything");
            source = cause.source();
        }
        Self::new(text)
    }
}
