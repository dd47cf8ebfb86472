use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use aloha_rpc::{Runtime as _, TokioRuntime};

use super::*;
use crate::log_files::rolled_name;
use crate::worker::app_directory::set_aside;

fn work() -> tempfile::TempDir {
    let work = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(work.path().join("app-1/attempt-1")).expect("created");
    fs::write(work.path().join("app-1/stdout"), "hello world").expect("written");
    fs::write(work.path().join("app-1/attempt-1/stdout"), "before").expect("written");
    work
}

fn read(work: &tempfile::TempDir, offset: u64, bytes_max: usize) -> LogChunk {
    let stream = LogStream::Stdout;
    read_log(work.path(), "app-1", None, stream, offset, bytes_max).expect("readable")
}

fn chunk(bytes: &str, next_offset: u64) -> LogChunk {
    LogChunk {
        bytes: bytes.into(),
        next_offset,
        is_complete: false,
        length: 11,
    }
}

#[test]
fn output_is_read_in_pieces_up_to_its_end() {
    let work = work();
    assert_eq!(read(&work, 0, 5), chunk("hello", 5));
    assert_eq!(read(&work, 5, 100), chunk(" world", 11));
    assert_eq!(read(&work, 11, 100), chunk("", 11));
    assert_eq!(read(&work, 0, 0), chunk("", 0));
    // The file shrank: the reader is led back to its end.
    assert_eq!(read(&work, 99, usize::MAX), chunk("", 11));
}

#[test]
fn an_earlier_attempt_is_read_from_its_own_directory() {
    let work = work();
    let earlier = read_log(work.path(), "app-1", Some(1), LogStream::Stdout, 0, 100);
    let earlier = earlier.expect("readable");
    assert_eq!(
        (&*earlier.bytes, earlier.is_complete),
        (&b"before"[..], true)
    );
    let second = || read_log(work.path(), "app-1", Some(2), LogStream::Stdout, 0, 100);
    assert!(matches!(second(), Err(LogError::NotFound { .. })));
    // Unless it is the one that runs, or ran last.
    let record = work.path().join("app-1/.aloha/launch.json");
    fs::create_dir(record.parent().expect("it has one")).expect("created");
    fs::write(&record, r#"{"spec":{"attempt":2}}"#).expect("written");
    assert_eq!(second().expect("readable").bytes, b"hello world");
    fs::write(&record, r#"{"spec":{"attempt":3}}"#).expect("written");
    assert!(matches!(second(), Err(LogError::NotFound { .. })));
}

#[test]
fn rolled_files_are_read_as_one_by_their_offsets() {
    let work = work();
    let rolled = |start| {
        work.path()
            .join("app-1")
            .join(rolled_name(LogStream::Stdout, start))
    };
    // 0 to 100 was removed, as was 104 to 106.
    fs::write(rolled(100), "abcd").expect("written");
    fs::write(rolled(106), "gh").expect("written");
    let chunk = |bytes: &str, next_offset| LogChunk {
        bytes: bytes.into(),
        next_offset,
        is_complete: false,
        length: 119,
    };
    assert_eq!(read(&work, 0, 3), chunk("abc", 103));
    assert_eq!(read(&work, 103, 100), chunk("d", 104));
    assert_eq!(read(&work, 104, 100), chunk("gh", 108));
    assert_eq!(read(&work, 105, 1), chunk("g", 107));
    assert_eq!(read(&work, 107, 100), chunk("h", 108));
    assert_eq!(read(&work, 108, 5), chunk("hello", 113));
    assert_eq!(read(&work, 113, 100), chunk(" world", 119));
    assert_eq!(read(&work, 119, 100), chunk("", 119));
    assert_eq!(read(&work, 500, 100), chunk("", 119));
    // Between two files nobody is led back, for the output may go on behind the last.
    fs::remove_file(work.path().join("app-1/stdout")).expect("removed");
    let chunk = |bytes: &str, next_offset| LogChunk {
        bytes: bytes.into(),
        next_offset,
        is_complete: false,
        length: 108,
    };
    assert_eq!(read(&work, 106, 100), chunk("gh", 108));
    assert_eq!(read(&work, 119, 100), chunk("", 119));
}

/// What a reader with `patience` is answered, and after how long.
async fn answered(
    work: &tempfile::TempDir,
    request: LogRequest,
    patience: Duration,
) -> (LogAnswer, Duration) {
    let app = "app-1".parse().expect("an id");
    let runtime = TokioRuntime::current();
    let began = runtime.now();
    let answer = answer_log(work.path().to_owned(), app, request, patience).await;
    (answer, runtime.now() - began)
}

fn piece(bytes: &str, next_offset: u64) -> LogAnswer {
    LogAnswer::Chunk {
        bytes: bytes.into(),
        next_offset,
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_news_until_its_patience_is_over() {
    let work = work();
    let at = |offset| LogRequest {
        offset,
        ..LogRequest::new(LogStream::Stdout)
    };
    let patience = Duration::from_secs(5);
    let soon = LOOK_INTERVAL * 2;
    let (answer, after) = answered(&work, at(11), patience).await;
    assert_eq!(answer, piece("", 11));
    assert!((patience..patience + soon).contains(&after), "{after:?}");
    let (answer, after) = answered(&work, at(11), Duration::from_secs(3600)).await;
    assert_eq!(answer, piece("", 11));
    assert!(after < PATIENCE_MAX + soon, "{after:?}");
    // At once: what is there, where the end is, what is over, and what is not there.
    let earlier = LogRequest {
        attempt: Some(1),
        ..at(6)
    };
    for (request, expected) in [
        (at(6), piece("world", 11)),
        (at(99), piece("", 11)),
        (earlier, piece("", 6)),
    ] {
        let (answer, after) = answered(&work, request, patience).await;
        assert_eq!((answer, after < soon), (expected, true));
    }
    fs::remove_file(work.path().join("app-1/stdout")).expect("removed");
    let (answer, after) = answered(&work, at(0), patience).await;
    assert!(matches!(answer, LogAnswer::Unavailable { .. }) && after < soon);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_gets_what_is_written_meanwhile() {
    let work = work();
    let request = LogRequest {
        offset: 11,
        ..LogRequest::new(LogStream::Stdout)
    };
    let path = work.path().join("app-1/stdout");
    let writer = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        // As output is written: at no time is there less of it than before.
        let mut file = fs::OpenOptions::new().append(true).open(path);
        let file = file.as_mut().expect("it is there");
        file.write_all(b"!").expect("written");
    };
    let patience = Duration::from_secs(20);
    let ((answer, after), ()) = tokio::join!(answered(&work, request, patience), writer);
    assert_eq!(answer, piece("!", 12));
    assert!(
        after < Duration::from_secs(2) + LOOK_INTERVAL * 2,
        "{after:?}"
    );
}

#[test]
fn a_link_in_place_of_a_rolled_file_is_refused() {
    let work = work();
    let rolled = rolled_name(LogStream::Stdout, 0);
    symlink("/etc/passwd", work.path().join("app-1").join(rolled)).expect("linked");
    let refused = read_log(work.path(), "app-1", None, LogStream::Stdout, 0, 100);
    assert!(
        matches!(refused, Err(LogError::NoPlainFile { .. })),
        "{refused:?}"
    );
}

#[test]
fn nothing_outside_the_directory_of_the_application_can_be_read() {
    let work = work();
    let read = |app_id: &str, stream| read_log(work.path(), app_id, None, stream, 0, 100);
    for id in [
        "..",
        ".",
        "",
        "../app-1",
        "app-1/attempt-1",
        "/etc",
        "app-2",
    ] {
        let refused = read(id, LogStream::Stdout);
        assert!(matches!(refused, Err(LogError::NotFound { .. })), "{id}");
    }
    symlink("/etc/passwd", work.path().join("app-1/stderr")).expect("linked");
    let refused = read("app-1", LogStream::Stderr);
    assert!(matches!(refused, Err(LogError::NoPlainFile { .. })));
    symlink("app-1", work.path().join("app-3")).expect("linked");
    let refused = read("app-3", LogStream::Stdout);
    assert!(
        matches!(refused, Err(LogError::NoPlainFile { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_pipe_or_a_directory_in_place_of_the_file_is_refused_without_waiting() {
    let work = work();
    let directory = work.path().join("app-1");
    let path = directory.join("stdout");
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("created");
    let read = || read_log(work.path(), "app-1", None, LogStream::Stdout, 0, 100);
    assert!(matches!(read(), Err(LogError::NoPlainFile { .. })));
    fs::remove_dir(&path).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo runs").success());
    assert!(matches!(read(), Err(LogError::NoPlainFile { .. })));
}

#[test]
fn a_reader_gets_no_wrong_byte_while_an_attempt_is_set_aside() {
    for _ in 0..200 {
        let work = work();
        let app = work.path().join("app-2");
        let record = app.join(".aloha/launch.json");
        fs::create_dir_all(app.join(".aloha")).expect("created");
        fs::write(&record, r#"{"spec":{"attempt":1}}"#).expect("written");
        for (start, bytes) in [(0, "abc"), (3, "def"), (6, "ghi")] {
            let name = rolled_name(LogStream::Stdout, start);
            fs::write(app.join(name), bytes).expect("written");
        }
        fs::write(app.join("stdout"), "jkl").expect("written");
        let done = std::sync::atomic::AtomicBool::new(false);
        let is_done = || done.load(std::sync::atomic::Ordering::Acquire);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let whole = b"abcdefghijkl";
                while !is_done() {
                    for offset in 0..=12 {
                        let stream = LogStream::Stdout;
                        let chunk = read_log(work.path(), "app-2", Some(1), stream, offset, 100);
                        // Moved under the reader all the time, it may give up.
                        let Ok(chunk) = chunk else { continue };
                        let begins = chunk.next_offset - chunk.bytes.len() as u64;
                        assert_eq!(begins, offset);
                        let at = usize::try_from(begins).expect("small");
                        assert_eq!(chunk.bytes, whole[at..at + chunk.bytes.len()]);
                    }
                }
            });
            set_aside(&app, 1).expect("moved");
            fs::write(app.join("stdout"), "the second").expect("written");
            fs::write(&record, r#"{"spec":{"attempt":2}}"#).expect("written");
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let read = |attempt| read_log(work.path(), "app-2", attempt, LogStream::Stdout, 0, 100);
        assert_eq!(read(Some(1)).expect("readable").length, 12);
        assert_eq!(read(Some(2)).expect("readable").bytes, b"the second");
        assert_eq!(read(None).expect("readable").bytes, b"the second");
    }
}
