//! The cleaning of the work directory: what ended applications left there goes after some time, or when it is too much.
//!
//! ```text
//!   look: name, state, size ─► plan (pure) ─► each: still settled? ─► renamed to .removed-NAME ─► deleted
//! ```
//!
//! Renamed first, a directory is either whole under its name or gone from there. What a cleaning that was interrupted
//! left half deleted is finished by the next.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aloha_rpc::Runtime;
use tracing::{info, warn};

use crate::blocking::blocking;
use crate::runner::{Records, Trace};

/// What a directory is renamed to before it is deleted begins with this.
const REMOVED: &str = ".removed-";

/// What keeps the directory of an application, or lets it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryState {
    /// Its application runs, or is about to.
    InUse,
    /// Its application has ended, and no master has acknowledged that yet.
    Unreported,
    /// Its application has ended, and a master knows.
    Settled {
        /// Since when nothing happened to it.
        at: SystemTime,
    },
    /// It is not the directory of an application: never touched.
    Foreign,
}

/// When the work directory is cleaned, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupSettings {
    /// Time from one cleaning to the next.
    pub interval: Duration,
    /// How long the directory of an ended application is kept.
    pub app_data_ttl: Duration,
    /// What the directories of ended applications may hold together, in bytes.
    pub bytes_max: u64,
}

/// Cleans a work directory now, and again after each interval, for as long as it is polled.
///
/// # Cancel safety
///
/// Dropped, it finishes a cleaning under way in the background.
pub async fn clean_regularly(
    runtime: Arc<dyn Runtime>,
    work_directory: PathBuf,
    settings: CleanupSettings,
) {
    clean_by(runtime, work_directory, settings, look).await;
}

/// How a directory stands, and what keeps it so for as long as it is held: nothing is launched there meanwhile.
type Seen = (DirectoryState, Option<File>);

/// Looks at the records of a directory, with their lock.
fn look(directory: &Path) -> Seen {
    let seen = || -> io::Result<Seen> {
        let records = Records::of(directory);
        if records.launch()?.is_none() {
            return Ok((DirectoryState::Foreign, None));
        }
        let Some(lock) = records.lock()? else {
            return Ok((DirectoryState::InUse, None));
        };
        let state = match records.trace()? {
            Trace::Nothing => DirectoryState::Foreign,
            // What never began has nothing to report.
            Trace::NeverBegan(_) | Trace::Ended { reported: true, .. } => DirectoryState::Settled {
                at: records.last_change()?,
            },
            Trace::CutShort(..) | Trace::Ended { .. } => DirectoryState::Unreported,
        };
        Ok((state, Some(lock)))
    };
    seen().unwrap_or_else(|error| {
        warn!(path = %directory.display(), %error, "cannot tell what a directory is, leaving it alone");
        (DirectoryState::Foreign, None)
    })
}

async fn clean_by(
    runtime: Arc<dyn Runtime>,
    work_directory: PathBuf,
    settings: CleanupSettings,
    look: impl Fn(&Path) -> Seen + Send + Sync + 'static,
) {
    let look = Arc::new(look);
    loop {
        let (now, work_directory, look) =
            (runtime.wall(), work_directory.clone(), Arc::clone(&look));
        blocking(move || {
            if let Err(error) = clean(&work_directory, &settings, now, &*look) {
                warn!(path = %work_directory.display(), %error, "cannot clean the work directory");
            }
        })
        .await;
        tokio::time::sleep(settings.interval).await;
    }
}

/// The directory of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AppDirectory {
    name: OsString,
    state: DirectoryState,
    /// What it takes on the disk; only looked at where it could be removed.
    bytes: u64,
}

/// Says which directories are to be removed, the oldest first: those that are too old, and then as many as it takes for
/// the rest not to be too large.
fn plan(
    directories: Vec<AppDirectory>,
    settings: &CleanupSettings,
    now: SystemTime,
) -> Vec<AppDirectory> {
    let settled = |directory: AppDirectory| match directory.state {
        DirectoryState::Settled { at } => Some((at, directory)),
        DirectoryState::InUse | DirectoryState::Unreported | DirectoryState::Foreign => None,
    };
    let mut settled: Vec<_> = directories.into_iter().filter_map(settled).collect();
    settled.sort_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
    // A clock that was set back makes nothing old.
    let is_old = |at: &SystemTime| {
        now.duration_since(*at)
            .is_ok_and(|age| age >= settings.app_data_ttl)
    };
    let mut kept: u64 = settled
        .iter()
        .filter(|(at, _)| !is_old(at))
        .map(|(_, directory)| directory.bytes)
        .sum();
    let goes = |(at, directory): &(SystemTime, AppDirectory)| {
        if is_old(at) {
            return true;
        }
        let too_much = kept > settings.bytes_max;
        if too_much {
            kept -= directory.bytes;
        }
        too_much
    };
    let removed: Vec<_> = settled.into_iter().take_while(goes).collect();
    removed
        .into_iter()
        .map(|(_, directory)| directory)
        .collect()
}

/// Cleans once. What cannot be removed is logged, and tried again by the next cleaning.
fn clean(
    work_directory: &Path,
    settings: &CleanupSettings,
    now: SystemTime,
    look: &dyn Fn(&Path) -> Seen,
) -> io::Result<()> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(work_directory)? {
        let entry = entry?;
        // A link to a directory is none.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(REMOVED.as_bytes()) {
            delete(&entry.path());
        } else if !name.as_encoded_bytes().starts_with(b".") {
            let (state, _) = look(&entry.path());
            let bytes = match state {
                DirectoryState::Settled { .. } => disk_use(&entry.path()),
                _ => 0,
            };
            directories.push(AppDirectory { name, state, bytes });
        }
    }
    for AppDirectory { name, bytes, .. } in plan(directories, settings, now) {
        let path = work_directory.join(&name);
        let (state, held) = look(&path);
        if !matches!(state, DirectoryState::Settled { .. }) {
            continue;
        }
        let mut removed = OsString::from(REMOVED);
        removed.push(&name);
        let removed = work_directory.join(removed);
        match fs::rename(&path, &removed) {
            Ok(()) if delete(&removed) => {
                info!(path = %path.display(), bytes, "removed what an ended application left");
            }
            Ok(()) => {}
            Err(error) => warn!(path = %path.display(), %error, "cannot remove a directory"),
        }
        drop(held);
    }
    Ok(())
}

/// Deletes a directory with what is in it; links are deleted, not followed.
fn delete(path: &Path) -> bool {
    let deleted = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        deleted => deleted,
    };
    if let Err(error) = &deleted {
        warn!(path = %path.display(), %error, "cannot delete a directory");
    }
    deleted.is_ok()
}

/// Lets its owner delete what is in a directory: some tools take all rights from the directories they make.
fn open_up(directory: &Path) {
    let mut ahead = vec![directory.to_owned()];
    while let Some(directory) = ahead.pop() {
        // Where this fails, deleting does, and says so.
        let _ = fs::set_permissions(&directory, Permissions::from_mode(0o700));
        let entries = fs::read_dir(&directory).into_iter().flatten();
        for entry in entries.map_while(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                ahead.push(entry.path());
            }
        }
    }
}

/// What a directory takes on the disk, as far as that can be seen; links are not followed.
fn disk_use(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut unseen = vec![directory.to_owned()];
    while let Some(directory) = unseen.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.map_while(Result::ok) {
            // Of the entry itself, also if it is a link.
            let Ok(data) = entry.metadata() else { continue };
            bytes += data.blocks() * 512;
            if data.is_dir() {
                unseen.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use aloha_rpc::TokioRuntime;

    use super::*;
    use crate::worker::app_directory::tests::names;

    const SETTINGS: CleanupSettings = CleanupSettings {
        interval: Duration::from_secs(1800),
        app_data_ttl: Duration::from_secs(1000),
        bytes_max: 100,
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn settled(seconds: u64) -> DirectoryState {
        DirectoryState::Settled { at: at(seconds) }
    }

    fn planned<const N: usize>(
        directories: [(&str, DirectoryState, u64); N],
        now: u64,
    ) -> Vec<String> {
        let directories = directories.map(|(name, state, bytes)| AppDirectory {
            name: name.into(),
            state,
            bytes,
        });
        let plan = plan(directories.into(), &SETTINGS, at(now));
        let names = plan.into_iter().map(|directory| directory.name);
        names
            .map(|name| name.into_string().expect("UTF-8"))
            .collect()
    }

    #[test]
    fn what_is_too_old_goes_and_what_is_not_settled_never() {
        let directories = [
            ("young", settled(9001), 1),
            ("old", settled(9000), 1),
            ("older", settled(10), 1),
            ("future", settled(99_999), 1),
            ("running", DirectoryState::InUse, 1_000_000),
            ("unreported", DirectoryState::Unreported, 1_000_000),
            ("foreign", DirectoryState::Foreign, 1_000_000),
        ];
        assert_eq!(planned(directories, 10_000), ["older", "old"]);
    }

    #[test]
    fn the_oldest_go_until_the_rest_is_not_too_large() {
        let directories = [
            ("d", settled(9900), 50),
            ("b", settled(9700), 30),
            ("c", settled(9800), 50),
            ("a", settled(9600), 1),
            ("ancient", settled(0), 1000),
        ];
        assert_eq!(planned(directories, 10_000), ["ancient", "a", "b"]);
        let directories = [("x", settled(9700), 60), ("y", settled(9800), 40)];
        assert_eq!(planned(directories, 10_000), <[&str; 0]>::default());
        let directories = [("x", settled(9700), 1), ("y", settled(9800), 101)];
        assert_eq!(planned(directories, 10_000), ["x", "y"]);
    }

    #[test]
    fn nothing_outside_is_touched_and_one_that_stays_stops_no_other() {
        let outside = tempfile::tempdir().expect("a directory");
        fs::create_dir(outside.path().join("kept")).expect("created");
        fs::write(outside.path().join("kept/file"), "x").expect("written");
        let work = tempfile::tempdir().expect("a directory");
        for directory in [
            "app-1",
            "app-2/deep",
            "app-3",
            ".removed-app-0/rest",
            ".git",
        ] {
            fs::create_dir_all(work.path().join(directory)).expect("created");
        }
        symlink(outside.path(), work.path().join("app-2/deep/link")).expect("linked");
        symlink(outside.path(), work.path().join("app-4")).expect("linked");
        symlink(outside.path(), work.path().join(".removed-app-5")).expect("linked");
        fs::write(work.path().join(".lock"), "").expect("written");
        // A file in the way: app-1 cannot be renamed.
        fs::write(work.path().join(".removed-app-1"), "").expect("written");

        let state = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
            Some("app-3") => DirectoryState::InUse,
            Some("app-1" | "app-2") => settled(0),
            other => panic!("asked about {other:?}"),
        };
        clean(work.path(), &SETTINGS, at(10_000), &|path: &Path| {
            (state(path), None)
        })
        .expect("cleaned");
        assert_eq!(
            names(work.path()),
            [
                ".git",
                ".lock",
                ".removed-app-1",
                ".removed-app-5",
                "app-1",
                "app-3",
                "app-4"
            ]
        );
        assert_eq!(names(&outside.path().join("kept")), ["file"]);
    }

    #[test]
    fn directories_without_rights_are_removed_as_well() {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

        // Root would have all rights. They are those of this test's thread alone.
        let mut rights = capabilities(None).expect("its own");
        rights.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, rights).expect("fewer");
        let work = tempfile::tempdir().expect("a directory");
        let deep = work.path().join("app-1/module/cache");
        fs::create_dir_all(&deep).expect("created");
        fs::write(deep.join("file"), "x").expect("written");
        for (directory, mode) in [(deep.as_path(), 0o555), (deep.parent().expect("one"), 0)] {
            fs::set_permissions(directory, Permissions::from_mode(mode)).expect("its own");
        }
        clean(work.path(), &SETTINGS, at(10_000), &|_: &Path| {
            (settled(0), None)
        })
        .expect("cleaned");
        assert_eq!(names(work.path()), <[&str; 0]>::default());
    }

    #[test]
    fn a_directory_that_is_in_use_again_is_not_removed() {
        let work = tempfile::tempdir().expect("a directory");
        fs::create_dir(work.path().join("app-1")).expect("created");
        let asked = AtomicBool::new(false);
        let state = |_: &Path| match asked.swap(true, Ordering::Relaxed) {
            false => settled(0),
            true => DirectoryState::InUse,
        };
        clean(work.path(), &SETTINGS, at(10_000), &|path: &Path| {
            (state(path), None)
        })
        .expect("cleaned");
        assert_eq!(names(work.path()), ["app-1"]);
    }

    #[test]
    fn the_size_of_a_directory_is_what_it_takes_without_what_links_lead_to() {
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("large"), vec![1; 1 << 20]).expect("written");
        let work = tempfile::tempdir().expect("a directory");
        fs::create_dir(work.path().join("deep")).expect("created");
        fs::write(work.path().join("deep/file"), vec![1; 100_000]).expect("written");
        symlink(outside.path(), work.path().join("link")).expect("linked");
        let bytes = disk_use(work.path());
        assert!((100_000..1 << 20).contains(&bytes), "{bytes}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_work_directory_is_cleaned_at_once_and_after_each_interval() {
        let work = tempfile::tempdir().expect("a directory");
        for directory in ["app-1", "app-2"] {
            fs::create_dir(work.path().join(directory)).expect("created");
        }
        let ended = Arc::new(AtomicBool::new(false));
        let second = Arc::clone(&ended);
        let state = move |path: &Path| match path.ends_with("app-1") {
            true => settled(0),
            false if second.load(Ordering::Acquire) => settled(0),
            false => DirectoryState::InUse,
        };
        let runtime = Arc::new(TokioRuntime::current());
        let path = work.path().to_owned();
        let cleaning = tokio::spawn(clean_by(runtime, path, SETTINGS, move |path: &Path| {
            (state(path), None)
        }));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(names(work.path()), ["app-2"]);
        ended.store(true, Ordering::Release);
        tokio::time::sleep(SETTINGS.interval - Duration::from_secs(2)).await;
        assert_eq!(names(work.path()), ["app-2"]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(names(work.path()), <[&str; 0]>::default());
        cleaning.abort();
    }
}
