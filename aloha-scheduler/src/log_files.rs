//! The files in which the output of one attempt lies, as the runner names them and the worker finds them.
//!
//! ```text
//!   stdout.00000000000000000000    stdout.00000000000016777216    stdout
//!   '- rolled: written no more, named by the offset they start -' '- current: starts where the last rolled one ends
//! ```
//!
//! Offsets count the bytes of the whole output, also those in files that were removed since. The last rolled file is
//! never removed, so that the start of the current one is always known.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::Dir;

use crate::worker::LogStream;

/// As many as the largest offset has.
const DIGITS: usize = 20;
/// No file starts behind this, so that its end is an offset too.
const START_MAX: u64 = u64::MAX / 2;

/// The name of the file that starts at this offset, once it is rolled.
pub(crate) fn rolled_name(stream: LogStream, start: u64) -> String {
    format!("{}.{start:0DIGITS$}", stream.name())
}

/// Where the rolled file with this name starts; none if it is no rolled file of this output.
pub(crate) fn rolled_start(stream: LogStream, name: &[u8]) -> Option<u64> {
    let digits = name
        .strip_prefix(stream.name().as_bytes())?
        .strip_prefix(b".")?;
    if digits.len() != DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let start = std::str::from_utf8(digits).ok()?.parse().ok();
    start.filter(|start| *start <= START_MAX)
}

/// Where the rolled files in a directory start, in rising order.
pub(crate) fn rolled_starts(directory: impl AsFd, stream: LogStream) -> io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    for entry in Dir::read_from(directory)? {
        starts.extend(rolled_start(stream, entry?.file_name().to_bytes()));
    }
    starts.sort_unstable();
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rolled_file_is_named_by_its_offset_and_nothing_else_is_taken_for_one() {
        let stream = LogStream::Stdout;
        for start in [0, 1, 16 << 20, START_MAX] {
            let name = rolled_name(stream, start);
            assert_eq!(rolled_start(stream, name.as_bytes()), Some(start), "{name}");
            assert_eq!(rolled_start(LogStream::Stderr, name.as_bytes()), None);
        }
        assert_eq!(rolled_name(stream, 7), "stdout.00000000000000000007");
        for name in [
            "stdout",
            "stdout.",
            "stdout.7",
            "stdout.0000000000000000000x",
            "stdout.000000000000000000007",
            "stdout.+0000000000000000007",
            "stdout.09223372036854775808",
            "stdout.18446744073709551615",
            "stdout.99999999999999999999",
        ] {
            assert_eq!(rolled_start(stream, name.as_bytes()), None, "{name}");
        }
    }
}
