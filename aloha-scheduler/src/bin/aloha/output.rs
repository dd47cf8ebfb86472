//! What a command says: results to stdout, the rest to stderr.

use std::io::{self, Write as _};
use std::sync::OnceLock;

use serde::Serialize;
use serde_json::json;

use crate::Failure;
use crate::progress;
use crate::table::one_line;

/// Why something could not be written to stdout.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Writes a line to stdout. That nobody reads it any more, as in `aloha config | head`, is no failure; of any other,
/// such as a full disk, [`all_written`] tells.
pub(crate) fn print(line: impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // The first says it all.
        let _ = LOST.set(error);
    }
}

/// Fails where something was to be written that was lost.
pub(crate) fn all_written() -> Result<(), Failure> {
    match LOST.get() {
        None => Ok(()),
        Some(error) => Err(Failure::new(format_args!(
            "cannot write to stdout: {error}"
        ))),
    }
}

/// Writes JSON of several lines to stdout.
pub(crate) fn print_json(value: &impl Serialize) {
    print(serde_json::to_string_pretty(value).expect("these have only texts for keys"));
}

/// Says something beside the output; that nobody reads it is no failure.
pub(crate) fn note(json: bool, text: impl std::fmt::Display) {
    progress::beside(|| {
        let mut err = io::stderr().lock();
        let _ = if json {
            writeln!(err, "{}", json!({ "note": text.to_string() }))
        } else {
            writeln!(err, "aloha: {}", one_line(text.to_string()))
        };
    });
}
