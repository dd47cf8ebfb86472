//! The store and the election of the example `custom_recovery`: both keep the contract, and a master comes back.

#[path = "../examples/custom_recovery/files.rs"]
mod files;
#[path = "../examples/custom_recovery/lock_file.rs"]
mod lock_file;

use std::path::Path;
use std::process::Command;

use aloha_scheduler::{election, persistence};
use files::Files;
use lock_file::LockFile;

#[tokio::test]
async fn the_store_keeps_the_contract() {
    let home = tempfile::tempdir().expect("a directory");
    persistence::contract::check(async || Files::open(home.path()).expect("it can be written"))
        .await;
}

#[tokio::test]
async fn the_election_keeps_the_contract() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("leader.lock");
    election::contract::check(async || LockFile { path: path.clone() }).await;
}

#[tokio::test]
async fn a_batch_whose_journal_was_written_is_applied_by_whoever_comes_next() {
    use aloha_scheduler::persistence::PersistenceEngine as _;

    let home = tempfile::tempdir().expect("a directory");
    let store = Files::open(home.path()).expect("it can be written");
    let epoch = store.begin_epoch(0).await.expect("it can be written");
    assert_eq!(epoch, 1);
    drop(store);
    let journal = r#"{"app/app-1":[1,2,3],"app/app-2":null}"#;
    std::fs::write(home.path().join("journal"), journal).expect("written");
    let store = Files::open(home.path()).expect("it can be written");
    let records = store.read_all().await.expect("it can be read");
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&*records[0].key, &*records[0].value),
        ("app/app-1", &[1, 2, 3][..])
    );
    assert!(!home.path().join("journal").exists());
}

fn run(directory: &Path) -> Vec<String> {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.ancestors().nth(2).expect("target/<profile>/deps");
    let example = target.join("examples/custom_recovery");
    let output = Command::new(example)
        .arg(directory)
        .output()
        .expect("it is built");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    assert!(output.status.success(), "{}", text(output.stderr));
    text(output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn what_one_run_submits_the_next_one_finds() {
    let home = tempfile::tempdir().expect("a directory");
    let mut submitted = Vec::new();
    for _ in 0..3 {
        let mut lines = run(home.path());
        let last = lines.pop().expect("it submits one");
        let found: Vec<_> = submitted
            .iter()
            .map(|id| format!("found {id} SUBMITTED"))
            .collect();
        assert_eq!(lines, found);
        submitted.push(last.strip_prefix("submitted ").expect("its id").to_owned());
    }
}
