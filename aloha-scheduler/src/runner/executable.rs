//! Finding the executable of a user's own type among the libs of its description.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// No executable among the libs; names each and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no executable in libs: {}; give the absolute path that it has on every worker",
    list(entries)
)]
pub struct ExecutableError {
    /// The entries, and why each is none.
    pub entries: Vec<(String, String)>,
}

fn list(entries: &[(String, String)]) -> String {
    let each = entries
        .iter()
        .map(|(entry, why)| format!("{entry:?} {why}"));
    each.collect::<Vec<_>>().join(", ")
}

/// The first entry that is an executable file of this machine.
pub(super) fn find_executable(libs: &[String]) -> Result<PathBuf, ExecutableError> {
    let mut entries = Vec::new();
    for entry in libs {
        match path_of(entry).and_then(|path| check(&path).map(|()| path)) {
            Ok(path) => return Ok(path),
            Err(why) => entries.push((entry.clone(), why)),
        }
    }
    Err(ExecutableError { entries })
}

/// The path that an entry means. A relative one would mean another file in each directory, so it means none.
fn path_of(entry: &str) -> Result<PathBuf, String> {
    if entry.starts_with('/') {
        return Ok(entry.into());
    }
    let Some((scheme, rest)) = entry.split_once("://") else {
        return Err("is no absolute path".to_owned());
    };
    if scheme != "file" {
        return Err(format!("cannot be fetched: {scheme} is not supported"));
    }
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err("names a file of another machine".to_owned());
    }
    decode(path).ok_or_else(|| "is no URL: a % stands before two hexadecimal digits".to_owned())
}

/// Replaces `%20` and its like.
fn decode(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let [high, low] = [digits[0], digits[1]].map(|digit| char::from(digit).to_digit(16));
        bytes.push(u8::try_from(high? * 16 + low?).ok()?);
        rest = behind;
    }
    Some(String::from_utf8(bytes).ok()?.into())
}

fn check(path: &Path) -> Result<(), String> {
    match path.metadata() {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(found) if !found.is_file() => Err("is no file".to_owned()),
        Ok(_) => access(path, Access::EXEC_OK).map_err(|_| "is not executable".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(libs: &[&str]) -> Result<String, Vec<String>> {
        let libs: Vec<String> = libs.iter().map(ToString::to_string).collect();
        let found = find_executable(&libs).map(|path| path.display().to_string());
        found.map_err(|error| error.entries.into_iter().map(|(_, why)| why).collect())
    }

    #[test]
    fn the_first_executable_file_is_taken() {
        let plain = tempfile::NamedTempFile::new().unwrap();
        let plain = plain.path().to_str().unwrap();
        for libs in [
            &["/bin/sh", "/bin/bash"][..],
            &[plain, "/", "file:///bin/sh"],
            &["file://localhost/bin/%73h"],
        ] {
            assert_eq!(found(libs), Ok("/bin/sh".to_owned()));
        }
    }

    #[test]
    fn each_entry_is_told_why_it_is_none() {
        let plain = tempfile::NamedTempFile::new().unwrap();
        let libs = [
            "bin/sh",
            "/no/such/file",
            "/proc",
            plain.path().to_str().unwrap(),
            "https://example.com/app",
            "file://other/bin/sh",
            "file:///%4",
        ];
        let expected = [
            "is no absolute path",
            "cannot be read: No such file or directory (os error 2)",
            "is no file",
            "is not executable",
            "cannot be fetched: https is not supported",
            "names a file of another machine",
            "is no URL: a % stands before two hexadecimal digits",
        ];
        assert_eq!(found(&libs), Err(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn the_error_says_what_to_do() {
        let error = find_executable(&["app".to_owned(), "/".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"no executable in libs: "app" is no absolute path, "/" is no file; give the absolute path that it has on every worker"#
        );
    }
}
