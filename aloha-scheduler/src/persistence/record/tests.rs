use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::app::{AppDescription, AppPhase, AppState, Ending, Placement, Transition};
use crate::master::Stored;
use crate::resources::Resources;

/// Everything that was stored.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decoded {
    stored: Stored,
    damaged: Vec<DamagedRecord>,
}

/// Reads what was stored, record by record.
///
/// # Errors
///
/// A newer version wrote some of it: what it means is not known, and must not be set aside.
fn decode(store: &str, records: Vec<StoredRecord>) -> Result<Decoded, PersistenceError> {
    let mut decoded = Decoded::default();
    let stored = &mut decoded.stored;
    for record in records {
        match read(&record) {
            Ok(Readable::App(app)) => stored.apps.push(app),
            Ok(Readable::Worker(worker)) => stored.workers.push(worker),
            Ok(Readable::Key(key)) => stored.keys.push(key),
            Ok(Readable::NextNumber(number)) => stored.next_number = number,
            Ok(Readable::SetAside(app)) => stored.set_aside.extend(app),
            Err(Unread::Newer(version)) => return Err(newer(store, &record.key, version)),
            Err(Unread::Damaged(reason)) => {
                stored.set_aside.extend(app_of(&record.key));
                decoded.damaged.push(DamagedRecord { record, reason });
            }
        }
    }
    Ok(decoded)
}

/// An application of which every field has something to say.
fn app() -> AppRecord {
    let description = AppDescription {
        name: "sums".into(),
        entry_point: "SimpleProcess".into(),
        args: vec!["echo \"é\" $((1+1))".into()],
        cores: 2,
        memory_mib: 256,
        supervise: true,
        environment: BTreeMap::from([("A".into(), "1".into())]),
        ..AppDescription::default()
    };
    AppRecord {
        id: "app-20190311221731-0007".parse().unwrap(),
        number: 7,
        key: None,
        description: Arc::new(description),
        state: AppState::Ended {
            how: Ending::Failed(3),
            on: Some(Placement {
                worker: "worker-1".parse().unwrap(),
                address: "h:1".into(),
            }),
            since: Some(1_552_342_652_000),
            at: 1_552_342_653_000,
            message: Some("ended".into()),
        },
        attempt: 2,
        kill_requested: false,
        submitted_at: 1_552_342_651_000,
        restarts_in_a_row: 1,
        overran: false,
        evicted: false,
        history: vec![Transition {
            at: 1_552_342_653_000,
            to: AppPhase::Failed,
            attempt: 2,
            reason: Some("ended".into()),
        }],
    }
}

fn worker() -> WorkerRecord {
    WorkerRecord {
        id: "worker-1".parse().unwrap(),
        host: "h".into(),
        port: 1,
        offers: Resources {
            cores: 8,
            memory_mib: 4096,
        },
        enforces: Default::default(),
        attributes: BTreeMap::from([("zone".into(), "a".into())]),
        drain: None,
    }
}

fn stored(record: &Record) -> StoredRecord {
    match change_of(record) {
        Change::Put(stored) => stored,
        Change::Delete { key } => panic!("{key} is deleted"),
    }
}

fn decoded(records: Vec<StoredRecord>) -> Decoded {
    decode("the store", records).unwrap()
}

/// Version 1 as it was first written. That it is read is a promise: what cannot be read any more needs a version of its
/// own. Fields may be added, with defaults.
const GOLDEN_WORKER: &str = include_str!("golden/worker.json");
const GOLDEN_APP: &str = include_str!("golden/app.json");
const GOLDEN_NUMBER: &str = r#"{"kind":"next-number","version":1,"crc32":"3e1f1a3e","body":4711}"#;

#[test]
fn a_record_is_laid_out_as_ever_and_what_is_written_is_read() {
    let number = stored(&Record::NextNumber(4711));
    assert_eq!(String::from_utf8(number.value).unwrap(), GOLDEN_NUMBER);
    let read = decoded(vec![
        stored(&Record::App(app().into())),
        stored(&Record::Worker(worker())),
    ]);
    assert_eq!(read.damaged, []);
    assert_eq!(
        (read.stored.apps, read.stored.workers),
        (vec![app()], vec![worker()])
    );
}

#[test]
fn what_is_as_by_default_is_not_written_and_is_read_all_the_same() {
    let plain = AppRecord {
        description: Arc::new(AppDescription {
            name: "n".into(),
            entry_point: "Process".into(),
            cores: 1,
            ..AppDescription::default()
        }),
        state: AppState::Submitted,
        attempt: 0,
        restarts_in_a_row: 0,
        history: Vec::new(),
        ..app()
    };
    let record = stored(&Record::App(plain.clone().into()));
    let expected = concat!(
        r#"{"kind":"app","version":1,"crc32":"0089f057","body":{"id":"app-20190311221731-0007","number":7,"#,
        r#""description":{"name":"n","entry_point":"Process","cores":1,"memory_mib":0},"#,
        r#""state":"Submitted","submitted_at":1552342651000}}"#
    );
    assert_eq!(String::from_utf8(record.value.clone()).unwrap(), expected);
    assert_eq!(decoded(vec![record]).stored.apps, [plain]);
}

#[test]
fn an_idempotency_key_is_stored_with_its_application_and_then_by_itself() {
    let keyed = AppRecord {
        key: Some("a/b c".into()),
        ..app()
    };
    let record = stored(&Record::App(keyed.clone().into()));
    assert_eq!(decoded(vec![record]).stored.apps, [keyed]);
    let key = KeyRecord {
        key: "a/b \u{e4}".into(),
        app: app().id,
        digest: digest_of(&app().description),
        until: 1_552_342_653_000,
    };
    let record = stored(&Record::Key(key.clone()));
    assert_eq!(record.key, "key/app-20190311221731-0007");
    assert_eq!(
        String::from_utf8(record.value.clone()).unwrap(),
        concat!(
            r#"{"kind":"key","version":1,"crc32":"daec7150","body":{"key":"a/b ä","#,
            r#""app":"app-20190311221731-0007","digest":188601487,"until":1552342653000}}"#
        )
    );
    assert_eq!(decoded(vec![record]).stored.keys, [key]);
    let forgotten = Record::KeyForgotten(app().id);
    let key = "key/app-20190311221731-0007".to_owned();
    assert_eq!(change_of(&forgotten), Change::Delete { key });
}

#[test]
fn records_of_version_1_are_read() {
    let record = |key: &str, value: &str| StoredRecord {
        key: key.into(),
        value: value.trim_end().into(),
    };
    let read = decoded(vec![
        record("app/app-20190311221731-0007", GOLDEN_APP),
        record("worker/worker-1", GOLDEN_WORKER),
        record("meta/next-number", GOLDEN_NUMBER),
    ]);
    let expected = Stored {
        apps: vec![app()],
        workers: vec![worker()],
        next_number: 4711,
        ..Stored::default()
    };
    assert_eq!((read.stored, read.damaged), (expected, Vec::new()));
}

#[test]
fn what_is_forgotten_is_deleted() {
    let delete = |key: &str| Change::Delete { key: key.into() };
    let forgotten = Record::AppForgotten("app-1".parse().unwrap());
    assert_eq!(change_of(&forgotten), delete("app/app-1"));
    let forgotten = Record::WorkerForgotten("worker-1".parse().unwrap());
    assert_eq!(change_of(&forgotten), delete("worker/worker-1"));
}

#[test]
fn any_single_bit_that_falls_over_is_noticed_and_costs_no_other_record() {
    let (good, other) = (
        stored(&Record::App(app().into())),
        stored(&Record::Worker(worker())),
    );
    for at in 0..good.value.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad.value[at] ^= 1 << bit;
            let read = decoded(vec![bad.clone(), other.clone()]);
            let damaged: Vec<_> = read.damaged.iter().map(|damaged| &damaged.record).collect();
            assert_eq!(damaged, [&bad], "bit {bit} of byte {at}");
            assert_eq!(read.stored.apps, []);
            assert_eq!(read.stored.workers, [worker()]);
            assert!(read.stored.set_aside.contains(&app().id));
        }
    }
}

#[test]
fn a_record_that_is_cut_off_anywhere_is_damaged() {
    let good = stored(&Record::App(app().into()));
    for length in 0..good.value.len() {
        let mut torn = good.clone();
        torn.value.truncate(length);
        let read = decoded(vec![torn]);
        assert_eq!(
            (read.stored.apps, read.damaged.len()),
            (Vec::new(), 1),
            "{length}"
        );
    }
}

#[test]
fn a_record_under_the_key_of_another_is_damaged() {
    let mut wrong = stored(&Record::App(app().into()));
    wrong.key = "app/app-2".into();
    let mut foreign = stored(&Record::NextNumber(1));
    foreign.key = "meta/other".into();
    let stranger = StoredRecord {
        key: "what/ever".into(),
        value: b"{}".to_vec(),
    };
    let read = decoded(vec![wrong, foreign, stranger]);
    assert_eq!(read.damaged.len(), 3);
    let aside = Vec::from_iter(read.stored.set_aside);
    assert_eq!(aside, ["app-2".parse().unwrap()]);
}

#[test]
fn what_is_set_aside_is_kept_byte_by_byte_and_its_application_is_remembered() {
    let bad = StoredRecord {
        key: "app/app-1".into(),
        value: vec![0xff, 0],
    };
    let [put, delete] = set_aside(7, &bad);
    let Change::Put(aside) = put else {
        panic!("{put:?}")
    };
    assert_eq!(
        (&*aside.key, &aside.value),
        ("set-aside/7/app/app-1", &bad.value)
    );
    assert_eq!(delete, Change::Delete { key: bad.key });
    let read = decoded(vec![aside]);
    assert_eq!(read.damaged, []);
    assert_eq!(
        Vec::from_iter(read.stored.set_aside),
        ["app-1".parse().unwrap()]
    );
}

#[test]
fn what_a_newer_version_wrote_is_refused_whole_and_says_what_to_do() {
    let crc32 = checksum("app/app-1", Kind::App, 2, "{}");
    let value = format!(r#"{{"kind":"app","version":2,"crc32":"{crc32}","body":{{}}}}"#);
    let newer = StoredRecord {
        key: "app/app-1".into(),
        value: value.into_bytes(),
    };
    let error = decode("the store", vec![newer]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store: app/app-1 was written by a newer version of Aloha (records of version 2, this one reads 1); \
         start that version again"
    );
}
