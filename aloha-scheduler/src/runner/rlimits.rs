//! Resource limits that hold from a program's first instruction on.
//!
//! Limits are set by the process they are for, after it was forked and before it executes its program. Doing that in a
//! hook of the fork is `unsafe`; so this executable is put in between:
//!
//! ```text
//!   runner ── fork, exec ──► /proc/self/exe exec-limited LIMITS PROGRAM ARGS... ── setrlimit, exec ──► PROGRAM ARGS...
//! ```

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::ProcessLimits;

/// The hidden subcommand behind which [`exec_stage`] stands.
pub(super) const EXEC_STAGE: &str = "exec-limited";

/// What shells exit with where a program cannot be executed, and where there is none.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Where programs are where nobody says, as the C library has it.
const PATH_OTHERWISE: &str = "/bin:/usr/bin";

/// Has a command start under limits; where there are none, it is as it was.
///
/// Its program, arguments, working directory and changes of single variables are carried over. What cannot be read
/// back (standard streams, process group, a cleared environment) is to be set on the result.
///
/// # Errors
///
/// The program is not there or not executable; after this, that would only be an exit code.
pub(crate) fn wrap(command: Command, limits: &ProcessLimits) -> io::Result<Command> {
    if *limits == ProcessLimits::default() {
        return Ok(command);
    }
    check_program(&command)?;
    let text = serde_json::to_string(limits)?;
    let mut wrapped = Command::new("/proc/self/exe");
    wrapped
        .arg(EXEC_STAGE)
        .arg(text)
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    Ok(wrapped)
}

/// Sets limits on this process and executes a program in its place: what a limited command comes to. The
/// arguments are those behind [`EXEC_STAGE`].
///
/// Returns only where that fails, with a line on standard error: 127 where there is no such program, else 126.
pub(super) fn exec_stage(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (code, text) = match limit_and_exec(arguments.into_iter()) {
        Refused::Limits(text) => (NOT_EXECUTABLE, text),
        Refused::Program(program, error) => {
            let code = match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            };
            (code, format!("cannot execute {program:?}: {error}"))
        }
    };
    // Nobody else could be told.
    let _ = writeln!(io::stderr(), "aloha: {text}");
    code.into()
}

enum Refused {
    Limits(String),
    Program(OsString, io::Error),
}

fn limit_and_exec(mut arguments: impl Iterator<Item = OsString>) -> Refused {
    let limits = arguments.next().unwrap_or_default();
    let limits = match serde_json::from_slice(limits.as_encoded_bytes()) {
        Ok(limits) => limits,
        Err(error) => return Refused::Limits(format!("{limits:?} are no limits: {error}")),
    };
    if let Err(text) = set(&limits) {
        return Refused::Limits(text);
    }
    let Some(program) = arguments.next() else {
        return Refused::Limits(format!("{EXEC_STAGE} needs a program to execute"));
    };
    let error = Command::new(&program).args(arguments).exec();
    Refused::Program(program, error)
}

/// Sets each limit that there is, soft and hard.
fn set(limits: &ProcessLimits) -> Result<(), String> {
    for (resource, name, value) in resources(limits) {
        let Some(value) = value else {
            continue;
        };
        let limit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        setrlimit(resource, limit).map_err(|error| {
            let hard = getrlimit(resource).maximum;
            match (error, hard) {
                (Errno::PERM, Some(hard)) if hard < value => format!(
                    "cannot limit {name} to {value}: the worker itself may have {hard} at the most; ask for less, or \
                     raise the worker's hard limit"
                ),
                (error, _) => format!("cannot limit {name} to {value}: {error}"),
            }
        })?;
    }
    Ok(())
}

fn resources(limits: &ProcessLimits) -> [(Resource, &'static str, Option<u64>); 6] {
    let ProcessLimits {
        open_files,
        processes,
        address_space_bytes,
        file_bytes,
        core_bytes,
        cpu_seconds,
    } = *limits;
    [
        (Resource::Nofile, "open files", open_files),
        (Resource::Nproc, "processes", processes),
        (Resource::As, "bytes of address space", address_space_bytes),
        (Resource::Fsize, "bytes of a file", file_bytes),
        (Resource::Core, "bytes of a core dump", core_bytes),
        (Resource::Cpu, "seconds of processor time", cpu_seconds),
    ]
}

/// Looks for the program of a command as `execvp` will.
fn check_program(command: &Command) -> io::Result<()> {
    let program = Path::new(command.get_program());
    let directory = command.get_current_dir().unwrap_or(Path::new("."));
    if program.as_os_str().is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return check_file(&directory.join(program));
    }
    let changed = command.get_envs().find(|(name, _)| *name == "PATH");
    let path = match changed {
        Some((_, path)) => path.map(OsStr::to_owned),
        None => env::var_os("PATH"),
    };
    let path = path.unwrap_or_else(|| PATH_OTHERWISE.into());
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for place in env::split_paths(&path) {
        match check_file(&directory.join(place).join(program)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = error,
            Err(_) => {}
        }
    }
    Err(refused)
}

/// Whether a file is one that can be executed.
fn check_file(path: &Path) -> io::Result<()> {
    if path.metadata()?.is_dir() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(access(path, Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FILES: ProcessLimits = ProcessLimits {
        open_files: Some(64),
        processes: None,
        address_space_bytes: None,
        file_bytes: None,
        core_bytes: None,
        cpu_seconds: None,
    };

    /// A directory with a program and a file that is none.
    fn programs() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, mode) in [("runs", 0o755), ("rests", 0o644)] {
            let path = directory.path().join(name);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(directory.path().join("directory")).unwrap();
        directory
    }

    #[test]
    fn a_command_without_limits_is_as_it_was() {
        let command = wrap(Command::new("nonexistent"), &ProcessLimits::default()).unwrap();
        assert_eq!(command.get_program(), "nonexistent");
    }

    #[test]
    fn a_command_with_limits_passes_through_this_executable_with_all_it_has() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "x y"])
            .current_dir("/")
            .env("A", "1")
            .env_remove("B");
        let wrapped = wrap(command, &FILES).unwrap();
        assert_eq!(wrapped.get_program(), "/proc/self/exe");
        let arguments: Vec<_> = wrapped.get_args().collect();
        let limits = arguments[1].to_str().unwrap();
        assert_eq!(
            serde_json::from_str::<ProcessLimits>(limits).unwrap(),
            FILES
        );
        assert_eq!([arguments[0], arguments[2]], [EXEC_STAGE, "sh"]);
        assert_eq!(arguments[3..], ["-c", "x y"]);
        assert_eq!(wrapped.get_current_dir(), Some(Path::new("/")));
        let variables: Vec<_> = wrapped.get_envs().collect();
        let one = Some(OsStr::new("1"));
        assert_eq!(variables, [("A".as_ref(), one), ("B".as_ref(), None)]);
    }

    #[test]
    fn a_program_is_looked_for_where_it_will_be_executed() {
        let directory = programs();
        let at = directory.path();
        let kind = |program: &str, path: Option<&str>| {
            let mut command = Command::new(program);
            command.current_dir(at);
            match path {
                Some(path) => command.env("PATH", path),
                None => command.env_remove("PATH"),
            };
            wrap(command, &FILES)
                .map(drop)
                .map_err(|error| error.kind())
        };
        let here = at.to_str().unwrap();
        let (missing, denied) = (io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied);
        assert_eq!(kind("./runs", None), Ok(()));
        assert_eq!(kind(&format!("{here}/runs"), None), Ok(()));
        assert_eq!(kind("runs", Some(here)), Ok(()));
        assert_eq!(kind("runs", Some(&format!("/nonexistent:{here}"))), Ok(()));
        assert_eq!(kind("runs", Some("")), Ok(()));
        assert_eq!(kind("sh", None), Ok(()));
        assert_eq!(kind("runs", None), Err(missing));
        assert_eq!(kind("sh", Some(here)), Err(missing));
        assert_eq!(kind("./nothing", Some(here)), Err(missing));
        assert_eq!(kind("", Some(here)), Err(missing));
        assert_eq!(
            kind("rests", Some(&format!("{here}:/nonexistent"))),
            Err(denied)
        );
        assert_eq!(kind("./rests", None), Err(denied));
        assert_eq!(kind("./directory", None), Err(denied));
    }
}
