//! What a command says: results to stdout, the rest to stderr.

use std::io::{self, Write as _};

use serde::Serialize;
use serde_json::json;

/// Writes a line to stdout. That nobody reads it any more, as in `aloha config | head`, is no failure.
pub(crate) fn print(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes JSON of several lines to stdout.
pub(crate) fn print_json(value: &impl Serialize) {
    print(serde_json::to_string_pretty(value).expect("these have only texts for keys"));
}

/// Says something beside the output; that nobody reads it is no failure.
pub(crate) fn note(json: bool, text: impl std::fmt::Display) {
    let mut err = io::stderr().lock();
    let _ = if json {
        writeln!(err, "{}", json!({ "note": text.to_string() }))
    } else {
        writeln!(err, "aloha: {text}")
    };
}
