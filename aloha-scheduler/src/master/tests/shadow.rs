//! A shadow that followed a store knows what a master knows that reads it once.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::random::{Step, event, step};
use super::*;
use crate::app::{AppState, Ending, Placement};
use crate::persistence::{self, Change, StoredRecord};

/// One change of what is stored, made of small numbers that are likely to meet.
#[derive(Debug, Clone)]
enum Write {
    App {
        app: u8,
        number: u64,
        key: Option<u8>,
        state: u8,
        kill: bool,
        cores: u32,
        at: u64,
    },
    Worker(u8),
    Key {
        app: u8,
        key: u8,
        until: u64,
    },
    NextNumber(u64),
    /// Puts what cannot be read in the place of an application.
    Damage(u8),
    /// A damaged application was set aside by an earlier master.
    Aside(u8),
    ForgetApp(u8),
    ForgetWorker(u8),
    ForgetKey(u8),
    ForgetAside(u8),
}

fn write() -> impl Strategy<Value = Write> {
    let (app, key) = (0u8..6, 0u8..3);
    let record = (
        app.clone(),
        0u64..6,
        prop::option::of(key.clone()),
        0u8..8,
        prop::bool::weighted(0.2),
        1u32..4,
        0u64..4,
    );
    let record = record.prop_map(|(app, number, key, state, kill, cores, at)| Write::App {
        app,
        number,
        key,
        state,
        kill,
        cores,
        at,
    });
    prop_oneof![
        6 => record,
        1 => (0u8..3).prop_map(Write::Worker),
        2 => (app.clone(), key, 0u64..4).prop_map(|(app, key, until)| Write::Key { app, key, until }),
        1 => (0u64..2000).prop_map(Write::NextNumber),
        1 => app.clone().prop_map(Write::Damage),
        1 => app.clone().prop_map(Write::Aside),
        2 => app.clone().prop_map(Write::ForgetApp),
        1 => (0u8..3).prop_map(Write::ForgetWorker),
        1 => app.clone().prop_map(Write::ForgetKey),
        1 => app.prop_map(Write::ForgetAside),
    ]
}

fn app_id(n: u8) -> AppId {
    format!("app-20190311221600-{n:04}")
        .parse()
        .expect("a good id")
}

fn key_text(n: u8) -> String {
    format!("key-{n}")
}

fn millis(now: Now, at: u64) -> u64 {
    now.unix_millis() - 2_000 + 1_000 * at
}

fn changes_of(write: Write, now: Now) -> Vec<Change> {
    let aside = |app: u8| format!("set-aside/3/app/{}", app_id(app));
    let change = match write {
        Write::App {
            app,
            number,
            key,
            state,
            kill,
            cores,
            at,
        } => {
            let on = Placement {
                worker: id(["w0", "w1", "w2"][usize::from(app % 3)]),
                address: "h:1".into(),
            };
            let at = millis(now, at);
            let state = match state {
                0 | 1 => AppState::Submitted,
                2 => AppState::Relaunching {
                    reason: "r".into(),
                    not_before: None,
                },
                3 => AppState::Relaunching {
                    reason: "r".into(),
                    not_before: Some(at),
                },
                4 => AppState::Launching { on },
                5 => AppState::Running { on, since: at },
                6 => AppState::Unknown {
                    on,
                    since: Some(at),
                },
                _ => AppState::Ended {
                    how: Ending::Finished,
                    on: None,
                    since: None,
                    at,
                    message: None,
                },
            };
            let record = AppRecord {
                id: app_id(app),
                number,
                key: key.map(|key| key_text(key).into()),
                description: AppDescription {
                    cores,
                    tags: if cores == 1 {
                        Default::default()
                    } else {
                        ["tagged".to_owned()].into()
                    },
                    ..description()
                }
                .into(),
                state,
                attempt: 1,
                kill_requested: kill,
                submitted_at: now.unix_millis() - 60_000 + at % 7,
                restarts_in_a_row: 0,
                overran: false,
                evicted: false,
                history: Vec::new(),
            };
            persistence::change_of(&Record::App(record.into()))
        }
        Write::Worker(worker) => {
            let record = worker_record(&format!("w{worker}"));
            persistence::change_of(&Record::Worker(record))
        }
        Write::Key { app, key, until } => {
            let record = KeyRecord {
                key: key_text(key).into(),
                app: app_id(app),
                digest: 0,
                until: millis(now, until),
            };
            persistence::change_of(&Record::Key(record))
        }
        Write::NextNumber(number) => persistence::change_of(&Record::NextNumber(number)),
        Write::Damage(app) => Change::Put(StoredRecord {
            key: format!("app/{}", app_id(app)),
            value: b"{".to_vec(),
        }),
        Write::Aside(app) => Change::Put(StoredRecord {
            key: aside(app),
            value: b"{".to_vec(),
        }),
        Write::ForgetApp(app) => persistence::change_of(&Record::AppForgotten(app_id(app))),
        Write::ForgetWorker(worker) => {
            persistence::change_of(&Record::WorkerForgotten(id(&format!("w{worker}"))))
        }
        Write::ForgetKey(app) => persistence::change_of(&Record::KeyForgotten(app_id(app))),
        Write::ForgetAside(app) => Change::Delete { key: aside(app) },
    };
    vec![change]
}

/// What a master that took over does, at once and then.
fn life_of(shadow: Shadow, epoch: u64, mut now: Now) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut core, effects) = shadow.take_over(epoch, now);
    core.check_invariants();
    lines.extend(effects.iter().map(|effect| format!("{effect:?}")));
    // What is done at once may be done in any order.
    lines.sort();
    lines.push(format!(
        "{:?} {:?} {:?} {:?}",
        core.set_aside,
        core.taken_on,
        core.workers(now),
        core.next_deadline().map(|at| at - now.instant),
    ));
    lines.extend(core.apps().iter().map(|app| format!("{app:?}")));
    let mut tell = |core: &mut MasterCore, event, now| {
        let effects = core.handle(event, now);
        core.check_invariants();
        lines.extend(effects.iter().map(|effect| format!("{effect:?}")));
        lines.push(format!(
            "{:?}",
            core.next_deadline().map(|at| at - now.instant)
        ));
    };
    for key in 0..3 {
        let event = Event::Submitted {
            description: description().into(),
            key: Some(key_text(key)),
            reply: ReplyTo(u64::from(key)),
        };
        tell(&mut core, event, now);
    }
    now.instant += Duration::from_secs(3);
    now.wall += Duration::from_secs(3);
    tell(&mut core, Event::Tick, now);
    for worker in ["w1", "w9", "w0"] {
        let registration = WorkerRegistration {
            id: id(worker),
            host: "h".into(),
            port: 1,
            offers: Resources {
                cores: 4,
                memory_mib: 4096,
            },
            attempts: vec![held(&app_id(1), 1, AttemptState::Running)],
            enforces: CgroupSupport::default(),
            attributes: Attributes::new(),
            epoch: 0,
        };
        let reply = ReplyTo(9);
        let event = Event::WorkerRegistered {
            registration,
            reply,
        };
        tell(&mut core, event, now);
    }
    tell(&mut core, Event::ClearRequested { reply: ReplyTo(10) }, now);
    now.instant += 2 * TIMEOUT;
    tell(&mut core, Event::Tick, now);
    lines
}

fn limited() -> MasterSettings {
    MasterSettings {
        durable: true,
        retained_apps: 2,
        tag_limits: BTreeMap::from([("tagged".to_owned(), 1)]),
        keys_max: 2,
        ..settings()
    }
}

/// The same records, told once each, in the order of this seed.
fn told_once(stored: &BTreeMap<String, Change>, seed: u64, now: Now) -> Shadow {
    let mut changes: Vec<_> = stored.values().cloned().collect();
    let mut rng = model::Rng(seed);
    for last in (1..changes.len()).rev() {
        let other = rng.below(last as u64 + 1);
        changes.swap(last, usize::try_from(other).expect("small"));
    }
    let mut shadow = Shadow::new(limited(), now);
    shadow.apply(changes);
    shadow
}

fn key_of(change: &Change) -> String {
    match change {
        Change::Put(record) => record.key.clone(),
        Change::Delete { key } => key.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever was written, and in whatever order: duplicate numbers and keys, damaged records, and those set aside.
    #[test]
    fn what_becomes_of_a_shadow_follows_from_what_is_stored_in_the_end(
        writes in prop::collection::vec(write(), 0..60),
        seed in any::<u64>(),
        pieces in 1usize..20,
    ) {
        let now = Harness::new().now;
        let changes: Vec<_> = writes.into_iter().flat_map(|write| changes_of(write, now)).collect();
        let mut stored = BTreeMap::new();
        let mut followed = Shadow::new(limited(), now);
        for piece in changes.chunks(pieces) {
            followed.apply(piece.to_vec());
        }
        for change in changes {
            match &change {
                Change::Put(_) => stored.insert(key_of(&change), change),
                Change::Delete { key } => stored.remove(key),
            };
        }
        let read = told_once(&stored, seed, now);
        prop_assert_eq!(life_of(followed, EPOCH, now), life_of(read, EPOCH, now));
    }

    /// What a master stores as it lives is enough: who followed it goes on as who reads its store.
    #[test]
    fn whoever_followed_a_master_goes_on_as_one_that_reads_its_store(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut t = Harness::with(|settings| *settings = limited());
        let mut shadow = Shadow::new(limited(), t.now);
        for (token, step) in (1..).zip(steps) {
            if let Step::Advance(seconds) = &step {
                t.now.instant += Duration::from_secs(*seconds);
                t.now.wall += Duration::from_secs(*seconds);
            }
            let Some(event) = event(&t, step, token) else { continue };
            for effect in t.master.handle(event, t.now) {
                if let Effect::Persist(record) = effect {
                    t.store.put(record.clone());
                    shadow.note(record);
                }
            }
        }
        let read = Shadow::of(limited(), t.store.read(), t.now);
        prop_assert_eq!(life_of(shadow, EPOCH + 1, t.now), life_of(read, EPOCH + 1, t.now));
    }
}

#[test]
fn a_shadow_does_not_remember_what_came_and_went() {
    let now = Harness::new().now;
    let mut shadow = Shadow::new(limited(), now);
    for n in 0..1_000u64 {
        let write = |key| Write::App {
            app: 1,
            number: n,
            key: Some(key),
            state: 0,
            kill: false,
            cores: 1,
            at: 0,
        };
        shadow.apply(changes_of(write(1), now));
        shadow.apply(changes_of(write(2), now));
        shadow.apply(changes_of(Write::ForgetApp(1), now));
    }
    assert_eq!(shadow.counts(), (0, 0));
    assert!(shadow.unsettled.is_empty() && shadow.crowded.is_empty());
    let (core, _) = shadow.take_over(EPOCH, now);
    core.check_invariants();
}

#[test]
fn what_a_newer_version_wrote_keeps_a_standby_from_leading_until_it_is_gone() {
    let now = Harness::new().now;
    let mut shadow = Shadow::new(limited(), now);
    let Change::Put(mut record) = changes_of(Write::NextNumber(7), now).remove(0) else {
        panic!("a number is put");
    };
    let key = record.key.clone();
    // The checksum of version 2, so that it is not taken for damage.
    let mut crc32 = crc32fast::Hasher::new();
    crc32.update(format!("{key}\nnext-number\n2\n7").as_bytes());
    let crc32 = crc32.finalize();
    record.value =
        format!(r#"{{"kind":"next-number","version":2,"crc32":"{crc32:08x}","body":7}}"#).into();
    shadow.apply(vec![Change::Put(record)]);
    let error = shadow.check().expect_err("it is newer").to_string();
    assert!(error.contains("newer version of Aloha"), "{error}");
    shadow.apply(changes_of(Write::NextNumber(8), now));
    shadow.check().expect("it is gone");
}
