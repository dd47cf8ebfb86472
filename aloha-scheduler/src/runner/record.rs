//! What a runner and its workers leave on disk for one another: the files in `.aloha` in the directory of an application.
//!
//! ```text
//!   lock          held by the runner as its standard input; a worker takes it first and hands it on
//!   launch.json   what is to run: written by the worker before it starts the runner
//!   run.json      which process the runner is: written by it before it starts the application
//!   exit.json     room for how it ended, then how: written by the runner before it says so
//!   reported-N    that a master knows how attempt N ended: made by the worker
//!   runner.sock   where the runner listens
//!   runner.log    what the runner has to say
//! ```
//!
//! **The lock is the truth about what runs**, not a pid: the kernel lets it go with the last process that has it, and a
//! worker that is killed between taking it and starting the runner has passed it on or dropped it. Who gets the lock may
//! believe the files: with `exit.json` filled in it is over; without `run.json` it never began; with a `run.json` alone
//! the runner was killed, or the machine was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::settings::RunnerSettings;
use crate::attempt::Outcome;
use crate::procfs;
use crate::worker::LaunchSpec;

/// The version of the records this code writes.
const VERSION: u32 = 1;
/// The size of the record of an end, blanks included: one block, written in place.
const EXIT_BYTES: usize = 4096;
/// The longest reason that is kept, in bytes; JSON may make six of each.
const REASON_BYTES_MAX: usize = 512;

/// The files of one application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Records {
    directory: PathBuf,
}

/// What is to run, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    version: u32,
    pub(crate) spec: LaunchSpec,
    pub(crate) settings: RunnerSettings,
}

impl Launch {
    pub(crate) fn new(spec: LaunchSpec, settings: RunnerSettings) -> Self {
        let version = VERSION;
        Self {
            version,
            spec,
            settings,
        }
    }
}

/// Which process a runner is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Run {
    version: u32,
    /// Its pid, which is also the id of its session.
    pub(crate) pid: i32,
    /// With the pid, this names a process for as long as the machine runs.
    pub(crate) start_ticks: u64,
    /// This run of the machine.
    pub(crate) boot_id: String,
    /// The cgroups of the application, recorded before they are made: some may not be there.
    #[serde(default)]
    pub(crate) cgroups: Vec<PathBuf>,
}

impl Run {
    /// Describes this process.
    pub(crate) fn of_this_process(cgroups: Vec<PathBuf>) -> io::Result<Self> {
        let me = rustix::process::getpid();
        let stat = procfs::stat(me).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            version: VERSION,
            pid: me.as_raw_pid(),
            start_ticks: stat.start_ticks,
            boot_id: procfs::boot_id()?,
            cgroups,
        })
    }

    /// Whether the machine has not been restarted since.
    pub(crate) fn is_of_this_boot(&self) -> io::Result<bool> {
        Ok(procfs::boot_id()? == self.boot_id)
    }
}

/// Room for how an attempt ended, and then how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Exit {
    version: u32,
    outcome: Option<Outcome>,
}

/// What the files say once their lock is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Nothing was ever launched here.
    Nothing,
    /// Something was to be launched, and never began.
    NeverBegan(Box<Launch>),
    /// Its runner was killed, or the machine was restarted.
    CutShort(Box<Launch>, Run),
    /// It has ended.
    Ended {
        launch: Box<Launch>,
        outcome: Outcome,
        /// Whether a master knows.
        reported: bool,
    },
}

impl Records {
    /// The records in the directory of an application, which need not be there yet.
    pub(crate) fn of(app_directory: &Path) -> Self {
        let directory = app_directory.join(".aloha");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the runner says what it has to say.
    pub(crate) fn log(&self) -> io::Result<File> {
        let path = self.path("runner.log");
        options().append(true).create(true).open(path)
    }

    /// Makes the directory of the records, which only its owner can enter.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode_private()
            .create(&self.directory)?;
        // A link would lead out of the work directory.
        match fs::symlink_metadata(&self.directory)?.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Takes the lock; `None` if somebody has it. The directory of the records must be there.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let path = self.path("lock");
        loop {
            let mut options = options();
            let file = options.write(true).create(true).truncate(false);
            let file = file.open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // Whoever cleaned up meanwhile may have moved the file away: then the lock is nobody's.
            let (ours, there) = (file.metadata()?, fs::symlink_metadata(&path));
            match there {
                Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                    return Ok(Some(file));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                Err(error) => return Err(error),
            }
        }
    }

    /// What is to run here, if anything was ever launched. A copy of another application's directory is none.
    pub(crate) fn launch(&self) -> io::Result<Option<Launch>> {
        let launch: Option<Launch> = self.read("launch.json")?;
        match launch {
            Some(launch) if launch.version != VERSION => Err(unknown_version(launch.version)),
            launch => Ok(launch.filter(|launch| self.is_of(&launch.spec.app_id))),
        }
    }

    /// Whether these are the records of this application, by the name of its directory.
    fn is_of(&self, app_id: &str) -> bool {
        let app_directory = self.directory.parent().and_then(Path::file_name);
        app_directory.is_some_and(|name| name == app_id)
    }

    /// Which process runs it, once it says so.
    pub(crate) fn run(&self) -> io::Result<Option<Run>> {
        match self.read::<Run>("run.json")? {
            Some(run) if run.version != VERSION => Err(unknown_version(run.version)),
            // The application can write here too: 1 and below would mean everybody's processes.
            Some(run) if run.pid <= 1 => Err(invalid(format!("pid {}", run.pid))),
            run => Ok(run),
        }
    }

    /// What the files say, for who holds the lock.
    pub(crate) fn trace(&self) -> io::Result<Trace> {
        let Some(launch) = self.launch()?.map(Box::new) else {
            return Ok(Trace::Nothing);
        };
        if let Some(outcome) = self.outcome()? {
            let reported = self.reported(launch.spec.attempt).try_exists()?;
            return Ok(Trace::Ended {
                launch,
                outcome,
                reported,
            });
        }
        Ok(match self.run()? {
            None => Trace::NeverBegan(launch),
            Some(run) => Trace::CutShort(launch, run),
        })
    }

    /// How the attempt ended, if it has.
    pub(crate) fn outcome(&self) -> io::Result<Option<Outcome>> {
        match self.read::<Exit>("exit.json")? {
            None => Ok(None),
            Some(exit) if exit.version != VERSION => Err(unknown_version(exit.version)),
            Some(exit) => Ok(exit.outcome),
        }
    }

    /// Makes room for a new attempt: what was recorded of the one before is gone, and this is to run next.
    pub(crate) fn renew(&self, launch: &Launch) -> io::Result<()> {
        // In this order: at no time does an old record speak of the new attempt.
        for name in ["run.json", "launch.json", "exit.json", "runner.sock"] {
            remove(&self.path(name))?;
        }
        self.write("launch.json", &serde_json::to_vec(launch)?)
    }

    /// Says which process runs it.
    pub(crate) fn write_run(&self, run: &Run) -> io::Result<()> {
        self.write("run.json", &serde_json::to_vec(run)?)
    }

    /// Takes the room that the record of the end will need, so that a full disk cannot lose it.
    pub(crate) fn reserve_exit(&self) -> io::Result<ExitFile> {
        let path = self.path("exit.json");
        remove(&path)?;
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let records = self.clone();
        let reserved = ExitFile { file, records };
        reserved.fill(None)?;
        Ok(reserved)
    }

    /// Records an end where no runner did.
    pub(crate) fn conclude(&self, outcome: &Outcome) -> io::Result<()> {
        self.reserve_exit()?.write(outcome)
    }

    /// Notes that a master knows how this attempt ended. A later one may be launched at the same time: it has another
    /// note. An empty file, for that is possible on a full disk as well.
    pub(crate) fn set_reported(&self, attempt: u32) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.reported(attempt))?;
        Ok(())
    }

    fn reported(&self, attempt: u32) -> PathBuf {
        self.path(&format!("reported-{attempt}"))
    }

    /// When these records were changed last: where a master knows of the end, since then.
    pub(crate) fn last_change(&self) -> io::Result<SystemTime> {
        fs::metadata(&self.directory)?.modified()
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let mut text = Vec::new();
        match options().read(true).open(self.path(name)) {
            Ok(file) => file.take(16 << 20).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Replaces a record as one. It is not synced: after a loss of power nothing of what it says is true.
    fn write(&self, name: &str, text: &[u8]) -> io::Result<()> {
        let (path, unfinished) = (self.path(name), self.path(&format!("{name}.new")));
        remove(&unfinished)?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(text)?;
        fs::rename(&unfinished, &path)
    }
}

/// The room for the record of an end.
#[derive(Debug)]
pub(crate) struct ExitFile {
    file: File,
    records: Records,
}

impl ExitFile {
    /// Records how it ended, and waits until that is on disk.
    pub(crate) fn write(&self, outcome: &Outcome) -> io::Result<()> {
        self.fill(Some(shortened(outcome.clone())))?;
        self.file.sync_data()?;
        if self.file.metadata()?.nlink() == 0 {
            // The application has removed it, and maybe what it lay in.
            self.records.create()?;
            return self.records.conclude(outcome);
        }
        Ok(())
    }

    fn fill(&self, outcome: Option<Outcome>) -> io::Result<()> {
        let version = VERSION;
        let mut text = serde_json::to_vec(&Exit { version, outcome })?;
        text.resize(text.len().max(EXIT_BYTES - 1), b' ');
        text.push(b'\n');
        self.file.write_all_at(&text, 0)
    }
}

/// The outcome with a reason that fits.
fn shortened(mut outcome: Outcome) -> Outcome {
    let (Outcome::CouldNotStart(reason) | Outcome::Lost(reason) | Outcome::Declined(reason)) =
        &mut outcome
    else {
        return outcome;
    };
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    outcome
}

/// What a file is opened with that the application can replace: by a link, which could lead anywhere, or by a pipe, which
/// would be waited for.
fn options() -> OpenOptions {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unknown_version(version: u32) -> io::Error {
    invalid(format!("version {version}, this aloha knows {VERSION}"))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Makes directories that only their owner can enter.
trait ModePrivate {
    fn mode_private(&mut self) -> &mut Self;
}

impl ModePrivate for fs::DirBuilder {
    fn mode_private(&mut self) -> &mut Self {
        use std::os::unix::fs::DirBuilderExt as _;
        self.mode(0o700)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn launch(app_id: &str, attempt: u32) -> Launch {
        let spec = LaunchSpec {
            app_id: app_id.to_owned(),
            attempt,
            description: Arc::default(),
            work_directory: "/work".into(),
            master: "aloha://127.0.0.1:7077".to_owned(),
            worker_id: "worker-1".to_owned(),
            alone_max: None,
        };
        Launch::new(spec, RunnerSettings::default())
    }

    #[test]
    fn a_late_note_of_one_attempt_says_nothing_of_the_next() {
        let work = tempfile::tempdir().expect("a directory");
        let records = Records::of(&work.path().join("app-1"));
        records.create().expect("created");
        let is_reported = || match records.trace().expect("readable") {
            Trace::Ended { reported, .. } => reported,
            other => panic!("not ended: {other:?}"),
        };
        for attempt in [1, 2] {
            records.renew(&launch("app-1", attempt)).expect("written");
            // Whoever notes this saw attempt 1 here a moment ago.
            records.set_reported(1).expect("noted");
            records.conclude(&Outcome::Exited(4)).expect("recorded");
            assert_eq!(is_reported(), attempt == 1);
        }
        records.set_reported(2).expect("noted");
        assert!(is_reported());
    }

    #[test]
    fn the_records_in_a_copy_of_a_directory_are_not_believed() {
        let work = tempfile::tempdir().expect("a directory");
        let copy = Records::of(&work.path().join("app-1.bak"));
        copy.create().expect("created");
        copy.renew(&launch("app-1", 1)).expect("written");
        assert_eq!(copy.launch().expect("readable"), None);
        copy.conclude(&Outcome::Exited(4)).expect("recorded");
        assert_eq!(copy.trace().expect("readable"), Trace::Nothing);
    }

    #[test]
    fn links_and_pipes_in_the_place_of_records_hold_nobody_up() {
        for name in ["lock", "launch.json"] {
            for is_link in [false, true] {
                let work = tempfile::tempdir().expect("a directory");
                let records = Records::of(&work.path().join("app-1"));
                records.create().expect("created");
                records.renew(&launch("app-1", 1)).expect("written");
                let path = records.path(name);
                remove(&path).expect("removed");
                if is_link {
                    std::os::unix::fs::symlink(work.path().join("file"), &path).expect("linked");
                } else {
                    let made = std::process::Command::new("mkfifo").arg(&path).status();
                    assert!(made.expect("mkfifo runs").success());
                }
                let (looked, seen) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    let locked = records.lock();
                    looked.send(locked.and_then(|_| records.trace())).ok();
                });
                let seen = seen.recv_timeout(std::time::Duration::from_secs(10));
                seen.expect("an answer").expect_err("refused");
            }
        }
    }
}
