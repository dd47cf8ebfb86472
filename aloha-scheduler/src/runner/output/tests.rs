use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::worker::{LogChunk, read_log};

const STREAM: LogStream = LogStream::Stdout;

/// A work directory with that of one application in it.
struct Work(TempDir);

impl Work {
    fn new() -> Self {
        let work = tempfile::tempdir().expect("a directory");
        fs::create_dir(work.path().join("app-1")).expect("created");
        Self(work)
    }

    fn app(&self) -> std::path::PathBuf {
        self.0.path().join("app-1")
    }

    fn files(&self, roll_bytes: u64, total_bytes_max: u64) -> Files {
        Files::create(&self.app(), STREAM, settings(roll_bytes, total_bytes_max)).expect("created")
    }

    fn read(&self, offset: u64) -> LogChunk {
        read_log(self.0.path(), "app-1", None, STREAM, offset, 1 << 16).expect("readable")
    }

    /// Everything from an offset on, and where it really begins.
    fn read_all(&self, offset: u64) -> (u64, Vec<u8>) {
        let mut chunk = self.read(offset);
        let begins = chunk.next_offset - chunk.bytes.len() as u64;
        let mut all = Vec::new();
        while !chunk.bytes.is_empty() {
            all.extend(&chunk.bytes);
            chunk = self.read(chunk.next_offset);
        }
        (begins, all)
    }

    /// Names and sizes of what is there.
    fn listing(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.app()).expect("a directory");
        let mut files: Vec<_> = entries
            .map(|entry| entry.expect("readable"))
            .map(|entry| (entry.file_name(), entry.metadata().expect("there")))
            .map(|(name, data)| (name.into_string().expect("UTF-8"), data.len()))
            .collect();
        files.sort();
        files
    }

    fn bytes_on_disk(&self) -> u64 {
        self.listing().iter().map(|(_, length)| length).sum()
    }
}

fn settings(roll_bytes: u64, total_bytes_max: u64) -> LogSettings {
    LogSettings {
        roll_bytes,
        total_bytes_max,
        roll_interval: Duration::ZERO,
    }
}

/// Output in which each byte follows from its offset.
fn pattern(from: u64, to: u64) -> Vec<u8> {
    (from..to)
        .map(|offset| (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect()
}

fn rolled(start: u64, length: u64) -> (String, u64) {
    (rolled_name(STREAM, start), length)
}

#[test]
fn files_are_rolled_at_their_size_and_the_oldest_are_removed_for_new_ones() {
    let work = Work::new();
    let mut files = work.files(10, 35);
    let current = |length| ("stdout".to_owned(), length);
    files.write(&pattern(0, 10));
    assert_eq!(work.listing(), [current(10)]);
    files.write(&pattern(10, 35));
    assert_eq!(
        work.listing(),
        [current(5), rolled(0, 10), rolled(10, 10), rolled(20, 10)]
    );
    files.write(&pattern(35, 36));
    assert_eq!(work.listing(), [current(6), rolled(10, 10), rolled(20, 10)]);
    assert_eq!(work.read_all(0), (10, pattern(10, 36)));
}

#[test]
fn all_files_of_an_output_never_hold_more_than_their_limit() {
    for (roll_bytes, total_bytes_max) in [(10, 35), (10, 20), (100, 30), (1, 2), (7, 1), (0, 0)] {
        let work = Work::new();
        let mut files = work.files(roll_bytes, total_bytes_max);
        let mut end = 0;
        for size in (1..=40).chain([200, 1, 3]) {
            files.write(&pattern(end, end + size));
            end += size;
            assert!(work.bytes_on_disk() <= total_bytes_max.max(2));
            let (begins, kept) = work.read_all(0);
            assert_eq!(kept, pattern(begins, end));
            assert_eq!(kept.len() as u64, work.bytes_on_disk());
        }
    }
}

#[test]
fn what_has_the_name_of_the_file_is_replaced_and_never_followed() {
    let work = Work::new();
    let victim = work.0.path().join("victim");
    fs::write(&victim, "untouched").expect("written");
    symlink(&victim, work.app().join("stdout")).expect("linked");
    symlink(&victim, work.app().join(rolled_name(STREAM, 7))).expect("linked");
    let mut files = work.files(4, 100);
    // The application may do so at any time.
    fs::remove_file(work.app().join("stdout")).expect("removed");
    symlink(&victim, work.app().join("stdout")).expect("linked");
    files.write(b"abcdefgh");
    assert_eq!(fs::read(&victim).expect("there"), b"untouched");
    let current = work.app().join("stdout");
    let data = fs::symlink_metadata(&current).expect("there");
    assert!(data.is_file());
    assert_eq!(data.permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_cannot_be_written_is_dropped_and_counted_in_the_output() {
    let work = Work::new();
    let mut files = work.files(1 << 20, 1 << 30);
    files.write(b"a line\nhalf");
    let full = File::options().append(true).open("/dev/full");
    let usable = files.current.replace(full.expect("on every Linux"));
    files.write(b"12345");
    files.write(b"67890");
    files.current = usable;
    files.write(b"and on\n");
    let expected = "a line\nhalf\n[aloha: 10 bytes of output were lost here: they could not be written]\nand on\n";
    let (begins, written) = work.read_all(0);
    assert_eq!(
        (begins, String::from_utf8(written).expect("text").as_str()),
        (0, expected)
    );
}

#[tokio::test]
async fn an_output_whose_directory_vanishes_is_still_drained() {
    let work = Work::new();
    let output = RollingOutput::create(&work.app(), STREAM, settings(100, 1000)).expect("created");
    let (mut sender, receiver) = pipe::pipe().expect("a pipe");
    let copying = tokio::spawn(output.copy(receiver));
    fs::remove_dir_all(work.app()).expect("removed");
    // Far more than a pipe holds.
    let written = sender.write_all(&vec![b'x'; 1 << 20]).await;
    written.expect("somebody reads");
    drop(sender);
    copying.await.expect("it ends with the pipe");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_holds_something_is_rolled_when_it_is_old_enough() {
    let work = Work::new();
    let interval = Duration::from_secs(60);
    let output = RollingOutput::create(
        &work.app(),
        STREAM,
        LogSettings {
            roll_interval: interval,
            ..settings(1000, 10_000)
        },
    );
    let (mut sender, receiver) = pipe::pipe().expect("a pipe");
    let copying = tokio::spawn(output.expect("created").copy(receiver));
    // Time passes only while everybody waits.
    tokio::time::sleep(interval * 3).await;
    assert_eq!(work.listing(), [("stdout".into(), 0)]);
    sender.write_all(b"old").await.expect("written");
    tokio::time::sleep(interval - Duration::from_secs(1)).await;
    sender.write_all(b"er").await.expect("written");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(work.listing(), [("stdout".into(), 5)]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(work.listing(), [("stdout".into(), 0), rolled(0, 5)]);
    tokio::time::sleep(interval * 3).await;
    sender.write_all(b"new").await.expect("written");
    tokio::time::sleep(interval / 2).await;
    assert_eq!(work.listing(), [("stdout".into(), 3), rolled(0, 5)]);
    drop(sender);
    copying.await.expect("it ends with the pipe");
}

/// Writes `total` bytes through a pipe while a reader follows; the reader gives the number of bytes it missed.
async fn write_and_follow(settings: LogSettings, total: u64) -> u64 {
    let work = Work::new();
    let output = RollingOutput::create(&work.app(), STREAM, settings).expect("created");
    let (mut sender, receiver) = pipe::pipe().expect("a pipe");
    let copying = tokio::spawn(output.copy(receiver));
    let done = AtomicBool::new(false);
    let missed = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut offset, mut missed) = (0, 0);
            loop {
                let ended = done.load(Ordering::Acquire);
                let chunk = work.read(offset);
                let begins = chunk.next_offset - chunk.bytes.len() as u64;
                assert!(begins >= offset, "led back from {offset} to {begins}");
                assert_eq!(chunk.bytes, pattern(begins, chunk.next_offset));
                if ended && chunk.bytes.is_empty() {
                    assert_eq!(begins, total);
                    return missed;
                }
                missed += begins - offset;
                offset = chunk.next_offset;
            }
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let (mut end, mut size) = (0, 1);
                while end < total {
                    size = size * 7 % 5003;
                    let next = (end + size).min(total);
                    let piece = pattern(end, next);
                    sender.write_all(&piece).await.expect("somebody reads");
                    end = next;
                }
                drop(sender);
                copying.await.expect("it ends with the pipe");
            });
        });
        done.store(true, Ordering::Release);
        reader.join().expect("no wrong byte")
    });
    assert!(work.bytes_on_disk() <= settings.total_bytes_max);
    missed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_gets_every_byte_once_while_files_roll() {
    // Fewer files than are kept at the most.
    assert_eq!(write_and_follow(settings(4096, 1 << 30), 3 << 20).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_gets_no_wrong_byte_while_files_are_removed_under_it() {
    write_and_follow(settings(4096, 8192), 4 << 20).await;
}

#[test]
fn a_reader_who_waits_at_the_end_gets_no_wrong_byte_when_it_rolls_away() {
    let work = Work::new();
    let mut files = work.files(10, 100);
    let seen = AtomicU64::new(0);
    let total = 5_000;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut offset = 0;
            while offset < total {
                let chunk = work.read(offset);
                let begins = chunk.next_offset - chunk.bytes.len() as u64;
                assert_eq!(begins, offset, "{chunk:?}");
                assert_eq!(chunk.bytes, pattern(begins, chunk.next_offset));
                offset = chunk.next_offset;
                seen.store(offset, Ordering::Release);
            }
        });
        for end in (0..total).step_by(10) {
            while seen.load(Ordering::Acquire) < end && !reader.is_finished() {
                std::thread::yield_now();
            }
            files.write(&pattern(end, end + 10));
        }
    });
}
