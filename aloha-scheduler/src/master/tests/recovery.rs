use std::collections::BTreeSet;

use super::*;
use crate::app::{AppPhase, AppState, Placement};

/// What is stored of an application of 2 cores and 512 MiB.
fn record(number: u64, state: AppState, attempt: u32) -> AppRecord {
    AppRecord {
        id: format!("app-20190311221600-{number:04}")
            .parse()
            .expect("a good id"),
        number,
        key: None,
        description: description().into(),
        state,
        attempt,
        kill_requested: false,
        submitted_at: 1_552_342_000_000,
        restarts_in_a_row: 0,
        overran: false,
        evicted: false,
        history: Vec::new(),
    }
}

fn on(worker: &str) -> Placement {
    Placement {
        worker: id(worker),
        address: format!("{worker}:1").into(),
    }
}

fn recovered(apps: Vec<AppRecord>) -> Harness {
    let mut t = Harness::durable();
    t.restart_from(Stored {
        apps,
        next_number: 1000,
        ..Stored::default()
    });
    t.master.check_invariants();
    t
}

#[test]
fn everything_comes_back_and_what_runs_goes_on() {
    let mut t = Harness::durable();
    t.register("w1", 4, 1024);
    let running = t.submit(2, 512, false);
    let ended = t.submit(1, 1, false);
    let waiting = t.submit(4, 1, false);
    t.started("w1", &running, 1);
    t.ended("w1", &ended, 1, Outcome::Exited(0));
    let before: Vec<_> = [&ended, &waiting].map(|app| t.status(app)).into();
    t.ignore();

    t.restart();
    t.expect([
        "publish w1: DISCONNECTED",
        "publish app 0: RUNNING -> UNKNOWN",
    ]);
    assert!(t.master.is_recovering());
    assert_eq!(t.status(&ended), before[0]);
    assert_eq!(t.status(&waiting).phase, AppPhase::Submitted);
    assert_eq!(t.worker("w1").state, WorkerState::Disconnected);
    assert_eq!(t.used("w1").cores, 2);

    t.register_with(
        "w1",
        4,
        1024,
        vec![held(&running, 1, AttemptState::Running)],
    );
    t.expect([
        "publish w1: DISCONNECTED -> ALIVE",
        "reply: epoch 7, every 15s",
        "store app 0: RUNNING #1 on w1",
        "publish app 0: UNKNOWN -> RUNNING",
    ]);
    assert!(!t.master.is_recovering());
    assert_eq!(t.used("w1").cores, 2);
    t.ended("w1", &running, 1, Outcome::Exited(0));
    t.expect([
        "store app 0: FINISHED #1 on w1",
        "publish app 0: RUNNING -> FINISHED",
        "reply: noted",
        "store app 2: LAUNCHING #1 on w1",
        "publish app 2: SUBMITTED -> LAUNCHING",
        "tell w1: launch app 2 #1",
    ]);
}

#[test]
fn a_recovered_master_serves_at_once_with_workers_that_are_new_or_come_back() {
    let mut t = recovered(vec![
        record(1, AppState::Submitted, 0),
        record(
            2,
            AppState::Running {
                on: on("w1"),
                since: 0,
            },
            1,
        ),
    ]);
    t.ignore();
    t.register("w9", 2, 512);
    t.expect([
        "store w9: 2 cores and 512 MiB",
        "publish w9: ALIVE",
        "reply: epoch 7, every 15s",
        "store app 1: LAUNCHING #1 on w9",
        "publish app 1: SUBMITTED -> LAUNCHING",
        "tell w9: launch app 1 #1",
    ]);
    assert!(t.master.is_recovering());
}

#[test]
fn a_worker_that_does_not_come_back_has_a_full_timeout_and_is_then_dead() {
    let running = AppState::Running {
        on: on("w1"),
        since: 0,
    };
    let mut t = recovered(vec![record(1, running, 1)]);
    t.ignore();
    t.advance(TIMEOUT - Duration::from_millis(1));
    t.expect([]);
    t.advance(Duration::from_millis(1));
    t.expect([
        "unstore w1",
        "publish w1: DISCONNECTED -> DEAD",
        "store app 1: ERROR #1 on w1",
        "publish app 1: UNKNOWN -> ERROR",
    ]);
    assert!(!t.master.is_recovering());
}

#[test]
fn an_application_whose_worker_is_not_stored_waits_for_that_worker() {
    let mut lost = record(1, AppState::Launching { on: on("w1") }, 2);
    lost.id = "app-x".parse().expect("a good id");
    let mut t = recovered(vec![lost]);
    t.ignore();
    let status = t.worker("w1");
    assert_eq!(
        (status.state, status.host.as_str(), status.port),
        (WorkerState::Disconnected, "w1", 1)
    );
    t.register("w1", 4, 1024);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: DISCONNECTED -> ALIVE",
        "reply: epoch 7, every 15s",
        "store app-x: LAUNCHING #2 on w1",
        "publish app-x: UNKNOWN -> LAUNCHING",
        "tell w1: launch app-x #2",
    ]);
}

#[test]
fn the_queue_keeps_its_order_and_clashing_numbers_are_parted() {
    let mut apps: Vec<_> = [5, 3, 4].map(|n| record(n, AppState::Submitted, 0)).into();
    for app in &mut apps {
        app.number = if app.number == 5 { 4 } else { app.number };
    }
    let mut t = recovered(apps);
    t.expect(["store app 5: SUBMITTED #0"]);
    t.register("w1", 2, 512);
    t.ignore();
    for expected in [3, 4, 5] {
        let app = t.worker("w1").apps.pop().expect("one is placed");
        assert_eq!(app.number(), Some(expected));
        t.ended("w1", &app, 1, Outcome::Exited(0));
    }
    t.ignore();
}

#[test]
fn numbers_go_on_above_all_that_may_have_been_given_though_the_clock_stepped_back() {
    let mut t = Harness::durable();
    let mut ids: BTreeSet<AppId> = (0..3).map(|_| t.submit(1, 1, false)).collect();
    for _ in 0..3 {
        t.now.wall -= Duration::from_secs(7200);
        t.restart();
        for _ in 0..3 {
            assert!(ids.insert(t.submit(1, 1, false)), "an id was given twice");
        }
    }
    t.ignore();
    // The reservation is lost with its record, and what was given last is forgotten or damaged.
    let set_aside: AppId = "app-20190311221600-7000".parse().expect("a good id");
    t.restart_from(Stored {
        next_number: 0,
        set_aside: BTreeSet::from([set_aside]),
        ..t.store.read()
    });
    let id = t.submit(1, 1, false);
    assert_eq!(id.number(), Some(8001));
    t.ignore();
}

#[test]
fn what_is_damaged_is_set_aside_and_what_workers_cannot_describe_of_it_is_left_alone() {
    let damaged: AppId = "app-20190311221600-0007".parse().expect("a good id");
    let mut t = Harness::durable();
    t.restart_from(Stored {
        set_aside: BTreeSet::from([damaged.clone()]),
        ..Stored::default()
    });
    t.register_with(
        "w1",
        4,
        1024,
        vec![held(&damaged, 1, AttemptState::Running)],
    );
    t.started("w1", &damaged, 1);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: ALIVE",
        "reply: epoch 7, every 15s",
        "reply: noted",
    ]);
    assert_eq!(t.used("w1").cores, 2);
    t.ended("w1", &damaged, 1, Outcome::Exited(0));
    t.expect(["reply: noted"]);
    assert_eq!(t.used("w1").cores, 0);
    t.kill(&damaged);
    t.expect(["reply: no: the record of app 7 is damaged and was set aside; see the master's log"]);
}

#[test]
fn with_nobody_to_wait_for_recovery_is_over_at_once() {
    let mut t = recovered(vec![record(1, AppState::Submitted, 0)]);
    assert!(!t.master.is_recovering());
    t.expect([]);
}

#[test]
fn ended_applications_come_back_up_to_the_limit_and_the_oldest_go_first() {
    let mut t = Harness::with(|settings| {
        settings.durable = true;
        settings.retained_apps = 2;
    });
    let ended = |number, at| {
        let state = AppState::Ended {
            how: crate::app::Ending::Finished,
            on: None,
            since: None,
            at,
            message: None,
        };
        record(number, state, 1)
    };
    t.restart_from(Stored {
        apps: vec![ended(1, 30), ended(2, 10), ended(3, 20), ended(4, 40)],
        next_number: 1000,
        ..Stored::default()
    });
    t.expect(["unstore app 2", "unstore app 3"]);
    let app = t.submit(1, 1, false);
    t.kill(&app);
    t.ignore();
    let left: Vec<_> = t.master.apps().iter().map(|app| app.id.number()).collect();
    assert_eq!(left, [Some(4), Some(1000)]);
}

#[test]
fn a_clock_that_stepped_makes_no_pause_longer_than_it_was_meant_to_be() {
    let mut t = Harness::durable();
    let now = t.now.unix_millis();
    let pausing = |number, not_before| {
        let reason = "exited with code 3".to_owned();
        let state = AppState::Relaunching {
            reason,
            not_before: Some(not_before),
        };
        AppRecord {
            restarts_in_a_row: 3,
            ..record(number, state, 3)
        }
    };
    t.restart_from(Stored {
        apps: vec![
            pausing(1, now + 86_400_000),
            pausing(2, now + 2_000),
            pausing(3, 5),
        ],
        next_number: 1000,
        ..Stored::default()
    });
    t.register("w1", 6, 9999);
    t.advance(Duration::ZERO);
    let placed =
        |t: &Harness| -> Vec<_> { t.worker("w1").apps.iter().map(AppId::number).collect() };
    assert_eq!(placed(&t), [Some(3)]);
    t.advance(Duration::from_secs(2));
    assert_eq!(placed(&t), [Some(2), Some(3)]);
    t.advance(Duration::from_millis(1_999));
    assert_eq!(placed(&t).len(), 2);
    t.advance(Duration::from_millis(1));
    assert_eq!(placed(&t), [Some(1), Some(2), Some(3)]);
    t.ignore();
}

#[test]
fn what_ran_while_there_was_no_master_counts_and_a_start_in_the_future_is_one_just_now() {
    for (since, left) in [(-15, 5), (3600, 20), (-99, 0)] {
        let mut t = Harness::durable();
        let now = i64::try_from(t.now.unix_millis()).expect("it fits");
        let since = u64::try_from(now + since * 1000).expect("it fits");
        let running = AppState::Running {
            on: on("w1"),
            since,
        };
        let mut app = record(1, running, 1);
        app.description = AppDescription {
            run_millis_max: Some(20_000),
            ..description()
        }
        .into();
        let id = app.id.clone();
        t.restart_from(Stored {
            apps: vec![app],
            next_number: 1000,
            ..Stored::default()
        });
        t.register_with("w1", 4, 1024, vec![held(&id, 1, AttemptState::Running)]);
        t.ignore();
        if left > 0 {
            t.advance(Duration::from_secs(left) - Duration::from_millis(1));
            t.expect([]);
        }
        t.advance(Duration::from_millis(1));
        t.expect(["store app 1: RUNNING #1 on w1", "tell w1: kill app 1 #1"]);
    }
}

#[test]
fn what_contradicts_itself_is_survived() {
    let killed_and_waiting = AppRecord {
        kill_requested: true,
        ..record(1, AppState::Submitted, 0)
    };
    let placed_without_attempt = record(
        2,
        AppState::Running {
            on: on("w1"),
            since: u64::MAX,
        },
        0,
    );
    let strange_address = Placement {
        worker: id("w2"),
        address: "nonsense".into(),
    };
    let strange = record(
        3,
        AppState::Unknown {
            on: strange_address,
            since: None,
        },
        u32::MAX,
    );
    let twice = record(4, AppState::Submitted, 0);
    let apps = vec![
        killed_and_waiting,
        placed_without_attempt,
        strange,
        twice.clone(),
        twice,
    ];
    let mut t = recovered(apps);
    t.expect([
        "publish w1: DISCONNECTED",
        "publish w2: DISCONNECTED",
        "store app 1: KILLED #0",
        "publish app 1: SUBMITTED -> KILLED",
        "publish app 2: RUNNING -> UNKNOWN",
    ]);
    for worker in ["w1", "w2"] {
        t.register(worker, 2, 512);
    }
    t.advance(TIMEOUT * 2);
    t.ignore();
    assert_eq!(t.master.apps().len(), 4);
}

#[test]
fn a_kill_that_was_promised_is_carried_out_by_the_next_master() {
    let mut t = Harness::durable();
    t.register("w1", 4, 1024);
    let app = t.submit(2, 512, true);
    t.started("w1", &app, 1);
    t.kill(&app);
    t.restart();
    t.ignore();
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.expect([
        "publish w1: DISCONNECTED -> ALIVE",
        "reply: epoch 7, every 15s",
        "store app 0: RUNNING #1 on w1, to be killed",
        "publish app 0: UNKNOWN -> RUNNING",
        "tell w1: kill app 0 #1",
    ]);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Killed);
}

#[test]
fn what_a_worker_was_told_to_end_before_its_reason_was_stored_is_lost_and_not_killed() {
    let running = AppState::Running {
        on: on("w1"),
        since: 0,
    };
    let mut app = record(1, running, 1);
    app.description = AppDescription {
        supervise: true,
        ..description()
    }
    .into();
    let id = app.id.clone();
    let mut t = recovered(vec![app]);
    t.register_with("w1", 4, 1024, vec![held(&id, 1, AttemptState::Running)]);
    t.ended("w1", &id, 1, Outcome::Killed);
    t.ignore();
    let status = t.status(&id);
    assert_eq!((status.phase, status.attempt), (AppPhase::Launching, 2));
}

#[test]
fn an_attempt_that_was_ended_before_its_launch_was_stored_is_not_launched_under_its_number() {
    let mut t = recovered(vec![record(1, AppState::Submitted, 0)]);
    let id = t.master.apps().pop().expect("it is there").id;
    t.register_with("w1", 4, 1024, vec![held(&id, 1, AttemptState::Ended)]);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: ALIVE",
        "reply: epoch 7, every 15s",
        "store app 1: SUBMITTED #1",
        "store app 1: LAUNCHING #2 on w1",
        "publish app 1: SUBMITTED -> LAUNCHING",
        "tell w1: launch app 1 #2",
    ]);
}
