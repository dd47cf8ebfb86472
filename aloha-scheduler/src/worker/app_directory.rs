//! The directory of one application: its name, and the output of earlier attempts in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Whether an id names a file in its directory and nothing else.
pub(super) fn is_component(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 255
        && id != "."
        && id != ".."
        && !id.contains(['/', '\\'])
        && !id.contains(char::is_control)
}

/// The directory in which the output of an earlier attempt lies.
pub(super) fn attempt_directory(attempt: u32) -> String {
    format!("attempt-{attempt}")
}

/// Makes the directory, which only its owner can enter: output may hold secrets.
pub(super) fn create(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Moves the output of an earlier attempt out of the way.
pub(super) fn set_aside(directory: &Path, attempt: u32) -> io::Result<()> {
    let aside = directory.join(attempt_directory(attempt));
    for name in ["stdout", "stderr"] {
        let from = directory.join(name);
        if fs::symlink_metadata(&from).is_ok() {
            create(&aside)?;
            fs::rename(from, aside.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_component_of_a_path() {
        for good in ["app-20190311221731-0000", "a b", "..."] {
            assert!(is_component(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/a", "../a", "a\0b", "a\nb"] {
            assert!(!is_component(bad), "{bad}");
        }
    }
}
