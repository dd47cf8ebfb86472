//! `aloha completion`.

use std::io::{self, Write as _};

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionArgs};

/// Prints the script by which a shell completes commands and flags.
pub(crate) fn run(args: &CompletionArgs) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "aloha", &mut script);
    // That nobody reads it is no failure.
    let _ = io::stdout().lock().write_all(&script);
    0
}
