use std::sync::Arc;

use super::*;
use crate::app::AppPhase;

/// An attempt that a master before us launched.
fn earlier(app: &AppId, attempt: u32) -> HeldAttempt {
    HeldAttempt {
        epoch: EPOCH - 1,
        description: Some(Arc::new(AppDescription {
            supervise: true,
            ..description()
        })),
        ..held(app, attempt, AttemptState::Running)
    }
}

fn app() -> AppId {
    "app-20190311221600-0041".parse().expect("a good id")
}

#[test]
fn a_master_without_a_store_takes_on_what_a_worker_holds() {
    let mut t = Harness::new();
    t.register_with("w1", 4, 1024, vec![earlier(&app(), 3)]);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: ALIVE",
        "reply: epoch 7, every 15s",
        "publish app 41: SUBMITTED",
        "store app 41: LAUNCHING #3 on w1",
        "publish app 41: SUBMITTED -> LAUNCHING",
        "store app 41: RUNNING #3 on w1",
        "publish app 41: LAUNCHING -> RUNNING",
    ]);
    assert_eq!(t.used("w1").cores, 2);
    // Its number is not given again, and it is ours in every way.
    let next = t.submit(1, 1, false);
    assert!(next.as_str().ends_with("-0042"), "{next}");
    t.kill(&app());
    t.ended("w1", &app(), 3, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&app()).phase, AppPhase::Killed);
}

#[test]
fn of_several_attempts_of_an_application_the_highest_is_taken_on_and_the_others_are_stopped() {
    let mut t = Harness::new();
    t.register_with("w1", 4, 1024, vec![earlier(&app(), 1)]);
    t.ignore();
    t.register_with("w2", 4, 1024, vec![earlier(&app(), 2)]);
    t.expect([
        "store w2: 4 cores and 1024 MiB",
        "publish w2: ALIVE",
        "reply: epoch 7, every 15s",
        "store app 41: RELAUNCHING #1",
        "publish app 41: RUNNING -> RELAUNCHING",
        "tell w1: kill app 41 #1",
        "store app 41: LAUNCHING #2 on w2",
        "publish app 41: RELAUNCHING -> LAUNCHING",
        "store app 41: RUNNING #2 on w2",
        "publish app 41: LAUNCHING -> RUNNING",
    ]);
    t.register_with("w3", 4, 1024, vec![earlier(&app(), 1)]);
    t.ended("w1", &app(), 1, Outcome::Killed);
    t.expect([
        "store w3: 4 cores and 1024 MiB",
        "publish w3: ALIVE",
        "reply: epoch 7, every 15s",
        "tell w3: kill app 41 #1",
        "reply: noted",
    ]);
    let status = t.status(&app());
    assert_eq!((status.phase, status.attempt), (AppPhase::Running, 2));
}

#[test]
fn what_we_launched_and_forgot_is_stopped() {
    let mut t = Harness::new();
    let ours = HeldAttempt {
        epoch: EPOCH,
        ..earlier(&app(), 1)
    };
    t.register_with("w1", 4, 1024, vec![ours]);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: ALIVE",
        "reply: epoch 7, every 15s",
        "tell w1: kill app 41 #1",
    ]);
}

#[test]
fn a_master_with_a_store_has_what_it_does_not_know_stopped() {
    let mut t = Harness::durable();
    t.register_with("w1", 4, 1024, vec![earlier(&app(), 1)]);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: ALIVE",
        "reply: epoch 7, every 15s",
        "tell w1: kill app 41 #1",
    ]);
}

fn registration(epoch: u64) -> Event {
    let registration = WorkerRegistration {
        id: id("w1"),
        host: "w1".into(),
        port: 1,
        offers: Resources {
            cores: 4,
            memory_mib: 1024,
        },
        attempts: Vec::new(),
        enforces: CgroupSupport::default(),
        attributes: Attributes::new(),
        epoch,
    };
    Event::WorkerRegistered {
        registration,
        reply: ReplyTo(1),
    }
}

#[test]
fn a_worker_that_has_seen_a_later_epoch_is_not_locked_out() {
    let mut t = Harness::new();
    let effects = t.master.handle(registration(99), t.now);
    let welcome = Reply::Registered {
        epoch: 100,
        heartbeat_interval: TIMEOUT / 4,
    };
    let welcome = Effect::Reply(ReplyTo(1), welcome);
    assert!(effects.contains(&welcome), "{effects:?}");
    // It has now seen ours, which is no reason for another.
    drop(t.master.handle(registration(100), t.now));
    assert_eq!(t.master.epoch(), 100);
}

#[test]
fn the_epoch_of_a_master_with_a_store_is_what_the_store_says() {
    let mut t = Harness::durable();
    drop(t.master.handle(registration(99), t.now));
    assert_eq!(t.master.epoch(), EPOCH);
}

/// A master with a store, in which the record of the application is damaged.
fn with_damaged() -> Harness {
    let mut t = Harness::durable();
    t.restart_from(Stored {
        set_aside: [app()].into(),
        next_number: 100,
        ..Stored::default()
    });
    t
}

#[test]
fn an_application_whose_record_is_damaged_is_taken_on_from_the_worker_that_runs_it() {
    let mut t = with_damaged();
    t.register_with("w1", 4, 1024, vec![earlier(&app(), 3)]);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: ALIVE",
        "reply: epoch 7, every 15s",
        "publish app 41: SUBMITTED",
        "store app 41: LAUNCHING #3 on w1",
        "publish app 41: SUBMITTED -> LAUNCHING",
        "store app 41: RUNNING #3 on w1",
        "publish app 41: LAUNCHING -> RUNNING",
    ]);
    assert_eq!(t.used("w1").cores, 2);
    t.kill(&app());
    t.expect([
        "store app 41: RUNNING #3 on w1, to be killed",
        "tell w1: kill app 41 #3",
        "reply: yes: app 41 is being killed on w1",
    ]);
    t.ended("w1", &app(), 3, Outcome::Killed);
    t.expect([
        "store app 41: KILLED #3 on w1",
        "publish app 41: RUNNING -> KILLED",
        "reply: noted",
    ]);
}

#[test]
fn of_several_attempts_of_a_damaged_one_the_highest_is_taken_on_over_a_restart_too() {
    let mut t = with_damaged();
    t.register_with("w1", 4, 1024, vec![earlier(&app(), 2)]);
    t.register_with("w2", 4, 1024, vec![earlier(&app(), 1)]);
    assert!(t.unclaimed.contains(&"tell w2: kill app 41 #1".to_owned()));
    // The damaged record is still set aside, and there is a good one of the same id again.
    let stored = Stored {
        set_aside: [app()].into(),
        ..t.store.read()
    };
    t.restart_from(stored);
    t.register_with("w1", 4, 1024, vec![earlier(&app(), 2)]);
    t.ignore();
    let status = t.status(&app());
    assert_eq!((status.phase, status.attempt), (AppPhase::Running, 2));
    t.register_with("w3", 4, 1024, vec![earlier(&app(), 3)]);
    assert!(t.unclaimed.contains(&"tell w1: kill app 41 #2".to_owned()));
    t.ignore();
    let status = t.status(&app());
    assert_eq!((status.phase, status.attempt), (AppPhase::Running, 3));
}

#[test]
fn one_that_a_damaged_record_is_of_and_that_ended_is_not_taken_on() {
    let mut t = with_damaged();
    let ended = held(&app(), 1, AttemptState::Ended);
    t.register_with("w1", 4, 1024, vec![ended]);
    t.ended("w1", &app(), 1, Outcome::Exited(0));
    t.ignore();
    assert!(t.master.status(&app()).is_none());
}

#[test]
fn an_attempt_that_is_taken_on_in_the_place_of_one_that_ran_too_long_may_run_for_as_long() {
    let limited = |attempt| HeldAttempt {
        description: Some(Arc::new(AppDescription {
            run_millis_max: Some(30_000),
            ..description()
        })),
        ..earlier(&app(), attempt)
    };
    let mut t = Harness::new();
    t.register_with("w1", 4, 1024, vec![limited(1)]);
    t.heartbeat("w1");
    t.advance(TIMEOUT / 2 - Duration::from_secs(1));
    t.heartbeat("w1");
    t.advance(Duration::from_secs(1));
    assert!(t.unclaimed.contains(&"tell w1: kill app 41 #1".to_owned()));
    t.ignore();
    t.register_with("w2", 4, 1024, vec![limited(2)]);
    assert!(!t.unclaimed.contains(&"tell w2: kill app 41 #2".to_owned()));
    t.ignore();
}
