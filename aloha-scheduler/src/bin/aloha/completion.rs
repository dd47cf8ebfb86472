//! `aloha completion`.

use clap::CommandFactory as _;

use crate::Failure;
use crate::args::{Cli, CompletionArgs};
use crate::output::{all_written, print};

/// Prints the script by which a shell completes commands and flags.
pub(crate) fn run(args: &CompletionArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "aloha", &mut script);
    print(String::from_utf8_lossy(&script).trim_end());
    all_written()?;
    Ok(0)
}
