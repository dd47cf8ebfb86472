//! The defects D1 to D16 of the Scala original and what was observed when it ran (O1 to O6): a scenario for each that
//! the master's mind decides.
//!
//! | | where it is shown that ours has it not |
//! |---|---|
//! | D1 to D7, D13, D16 | here |
//! | D8 heartbeats multiply | `worker/tests`: `registering_again_does_not_multiply_heartbeats` |
//! | D9 a torn file stops recovery | `persistence/record/tests.rs`: `a_record_that_is_cut_off_anywhere_is_damaged`; `tests/store.rs`: `a_damaged_record_is_set_aside_once_and_the_others_come_back_in_order`; and here |
//! | D10 a panic wedges an inbox | `aloha-rpc`, `tests/lifecycle.rs`: `a_hundred_panics_are_told_and_the_environment_serves` |
//! | D11 whatever arrives is decoded | `tests/bad_input.rs`: `strangers_on_the_rpc_port_are_refused_with_a_log_line_and_cost_no_memory` |
//! | D12 nothing is cleaned | `tests/cleaning.rs` |
//! | D14 a lost leadership ends the process | `tests/store.rs`: `a_standby_says_so_and_leads_when_it_is_elected_and_stands_back_when_it_is_not` |
//! | D15 a large application starves | `reservation.rs`: `d15_a_large_application_does_not_starve_behind_small_ones` |
//! | O1 a killed master leaves a torn state | `tests/master_crash.rs`: `what_a_killed_master_had_acknowledged_runs_exactly_once_and_in_order` |
//! | O2 to O4 | here |
//! | O5 a submission costs work for all others | here, and by time in `benches/master` |
//! | O6 nonsense is accepted over REST | `tests/bad_input.rs`: `malformed_submissions_are_refused_with_the_name_of_the_fault`; what a master without a store forgot, here and `tests/cluster.rs`: `a_master_without_a_store_that_is_killed_and_started_again_ends_nothing` |
//!
//! Of Spark's own suites, what applies to a master of applications:
//!
//! | suite and case | here |
//! |---|---|
//! | MasterSuite 10 (SPARK-45174), 11 (SPARK-46800) | `queue.rs` |
//! | MasterSuite 12 (SPARK-13604) | `membership.rs`: `attempts_that_the_master_never_heard_of_are_killed` |
//! | MasterSuite 14 (SPARK-27510) | `spark_27510_…` |
//! | MasterSuite 15 (SPARK-19900) | `spark_19900_…` |
//! | SPARK-23191 | `d4_…` |
//! | RecoverySuite 2 (SPARK-46664), 3, 9, 10 (SPARK-46346) | `d13_…`, `recovery.rs` |
//! | RecoverySuite 1, 4 to 8, PersistenceEngineSuite | the contract of `persistence`, `tests/store.rs` |
//! | DriverRunnerTest 1 to 9 | `restarts.rs`, `restart.rs` |
//! | WorkerSuite 1 to 4 | `worker/tests`, `tests/cleaning.rs` |

use std::collections::BTreeSet;

use super::*;
use crate::app::AppPhase;
use crate::restart::RestartPolicy;

#[test]
fn d1_a_relaunched_application_is_still_known_by_its_id() {
    let (mut t, app) = Harness::with_one_running(true);
    t.advance(TIMEOUT);
    t.register("w2", 4, 1024);
    t.started("w2", &app, 2);
    assert_eq!(t.status(&app).phase, AppPhase::Running);
    assert_eq!(t.used("w2").cores, 2);
    t.ended("w2", &app, 2, Outcome::Exited(0));
    assert_eq!(t.status(&app).phase, AppPhase::Finished);
    assert_eq!(t.used("w2"), Resources::default());
    t.ignore();
}

#[test]
fn d2_a_lost_worker_loses_each_of_its_applications() {
    let mut t = Harness::new();
    t.register("w1", 100, 1024);
    let apps: Vec<_> = (0..100).map(|n| t.submit(1, 1, n % 2 == 0)).collect();
    t.advance(TIMEOUT);
    t.ignore();
    for (n, app) in apps.iter().enumerate() {
        let expected = [AppPhase::Relaunching, AppPhase::Error][n % 2];
        assert_eq!(t.status(app).phase, expected);
    }
    assert_eq!(t.worker("w1").apps, []);
}

#[test]
fn d3_a_connection_that_ends_starts_nothing_elsewhere_and_ends_nothing() {
    let (mut t, supervised) = Harness::with_one_running(true);
    let other = t.submit(2, 512, false);
    t.started("w1", &other, 1);
    t.register("w2", 4, 1024);
    t.disconnect("w1");
    t.ignore();
    t.advance(TIMEOUT / 4);
    t.heartbeat("w2");
    t.expect([]);
    let both = [&supervised, &other].map(|app| held(app, 1, AttemptState::Running));
    t.register_with("w1", 4, 1024, both.into());
    t.ignore();
    for app in [&supervised, &other] {
        let status = t.status(app);
        assert_eq!((status.phase, status.attempt), (AppPhase::Running, 1));
    }
    assert_eq!(t.worker("w2").apps, []);
}

#[test]
fn d4_a_worker_that_is_known_already_may_register_in_any_state() {
    let (mut t, app) = Harness::with_one_running(true);
    let running = || vec![held(&app, 1, AttemptState::Running)];
    t.register_with("w1", 4, 1024, running());
    t.expect(["reply: epoch 7, every 15s"]);
    t.disconnect("w1");
    t.register_with("w1", 4, 1024, running());
    t.tell(Event::WorkerLeaving { worker: id("w1") });
    t.register_with("w1", 4, 1024, running());
    assert_eq!(t.worker("w1").state, WorkerState::Alive);
    assert_eq!(t.status(&app).phase, AppPhase::Running);
    t.advance(TIMEOUT);
    assert_eq!(t.worker("w1").state, WorkerState::Dead);
    t.register_with("w1", 4, 1024, running());
    assert_eq!(t.worker("w1").state, WorkerState::Alive);
    t.ignore();
}

/// The master ends after each number of the effects of a placement: whatever was done of them, the application runs
/// once.
#[test]
fn d5_a_crash_around_a_launch_neither_forgets_nor_doubles_it() {
    for done in 0.. {
        let mut t = Harness::durable();
        let app = t.submit(2, 512, false);
        t.ignore();
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
            epoch: 0,
        };
        let event = Event::WorkerRegistered {
            registration,
            reply: ReplyTo(0),
        };
        let effects = t.master.handle(event, t.now);
        let is_launch =
            |effect: &Effect| matches!(effect, Effect::Send(_, WorkerCommand::LaunchApp { .. }));
        assert!(effects.iter().any(is_launch), "{effects:?}");
        t.claim(&effects[..done]);
        let launched = effects[..done].iter().any(is_launch);
        t.restart();
        let holds = launched.then(|| held(&app, 1, AttemptState::Running));
        t.register_with("w1", 4, 1024, holds.into_iter().collect());
        let status = t.status(&app);
        let expected = if launched {
            AppPhase::Running
        } else {
            AppPhase::Launching
        };
        assert_eq!(
            (status.phase, status.attempt),
            (expected, 1),
            "{done} effects"
        );
        assert_eq!(t.used("w1").cores, 2);
        t.ignore();
        if done == effects.len() {
            break;
        }
    }
}

#[test]
fn d6_an_end_while_there_was_no_master_is_what_counts() {
    for (outcome, phase) in [
        (Outcome::Exited(0), AppPhase::Finished),
        (Outcome::Exited(3), AppPhase::Failed),
    ] {
        let mut t = Harness::durable();
        t.register("w1", 4, 1024);
        let app = t.submit(2, 512, false);
        t.started("w1", &app, 1);
        t.restart();
        t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Ended)]);
        assert_eq!(t.status(&app).phase, AppPhase::Unknown);
        t.ended("w1", &app, 1, outcome);
        t.ignore();
        assert_eq!(t.status(&app).phase, phase);
        assert_eq!(t.used("w1"), Resources::default());
    }
}

#[test]
fn d7_a_supervised_application_runs_again_after_a_failure() {
    let (mut t, app) = Harness::with_one_running(true);
    t.ended("w1", &app, 1, Outcome::Exited(1));
    assert_eq!(t.status(&app).phase, AppPhase::Relaunching);
    t.advance(Duration::from_secs(1));
    t.ignore();
    let status = t.status(&app);
    assert_eq!((status.phase, status.attempt), (AppPhase::Launching, 2));
}

#[test]
fn d9_what_is_damaged_holds_up_nothing_else() {
    let mut t = Harness::durable();
    t.register("w1", 1, 1);
    let apps = [(); 4].map(|()| t.submit(1, 1, false));
    // Of what is stored, the worker and one application cannot be read.
    let mut stored = t.store.read();
    stored.workers.clear();
    stored.apps.retain(|app| app.id != apps[1]);
    stored.set_aside.insert(apps[1].clone());
    t.restart_from(stored);
    t.register_with("w1", 1, 1, vec![held(&apps[0], 1, AttemptState::Ended)]);
    t.ended("w1", &apps[0], 1, Outcome::Exited(0));
    t.ignore();
    assert_eq!(t.status(&apps[0]).phase, AppPhase::Finished);
    assert_eq!(t.status(&apps[2]).phase, AppPhase::Launching);
    assert_eq!(t.status(&apps[3]).phase, AppPhase::Submitted);
}

#[test]
fn d13_recovery_ends_with_the_last_worker_and_at_once_without_any() {
    let mut t = Harness::durable();
    t.submit(9, 1, false);
    t.restart();
    assert!(!t.master.is_recovering());
    t.register("w1", 4, 1024);
    t.register("w2", 4, 1024);
    t.restart();
    assert!(t.master.is_recovering());
    t.register("w1", 4, 1024);
    assert_eq!(t.worker("w1").state, WorkerState::Alive);
    assert!(t.master.is_recovering());
    t.register("w2", 4, 1024);
    assert!(!t.master.is_recovering());
    t.ignore();
}

#[test]
fn d16_everything_is_answered_while_workers_are_awaited() {
    let mut t = Harness::durable();
    t.register("w1", 4, 1024);
    let app = t.submit(2, 512, false);
    t.started("w1", &app, 1);
    let waiting = t.submit(4, 1, false);
    t.restart();
    t.ignore();
    assert!(t.master.is_recovering());
    assert_eq!(t.status(&app).phase, AppPhase::Unknown);
    t.kill(&app);
    t.kill(&waiting);
    t.submit(1, 1, false);
    t.expect([
        "store app 0: UNKNOWN #1 on w1, to be killed",
        "reply: yes: app 0 will be killed as soon as w1 is back",
        "store app 1: KILLED #0",
        "publish app 1: SUBMITTED -> KILLED",
        "reply: yes: app 1 was killed before it ran",
        "store next number 2000",
        "store app 1000: SUBMITTED #0",
        "publish app 1000: SUBMITTED",
        "reply: submitted app 1000",
    ]);
}

#[test]
fn o2_what_waits_still_waits_after_a_restart_supervised_or_not() {
    let mut t = Harness::durable();
    let apps = [false, true].map(|supervise| t.submit(2, 512, supervise));
    t.restart();
    t.ignore();
    for app in &apps {
        assert_eq!(t.status(app).phase, AppPhase::Submitted);
    }
    t.register("w1", 4, 1024);
    t.ignore();
    for app in &apps {
        assert_eq!(t.status(app).phase, AppPhase::Launching);
    }
}

#[test]
fn o3_an_application_that_was_relaunched_can_be_killed() {
    let (mut t, app) = Harness::with_one_running(true);
    t.advance(TIMEOUT);
    t.register("w2", 4, 1024);
    t.started("w2", &app, 2);
    t.ignore();
    t.kill(&app);
    t.expect([
        "store app 0: RUNNING #2 on w2, to be killed",
        "tell w2: kill app 0 #2",
        "reply: yes: app 0 is being killed on w2",
    ]);
    t.ended("w2", &app, 2, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Killed);
}

#[test]
fn o4_a_queue_keeps_its_order_over_restarts() {
    let mut t = Harness::durable();
    let submitted: Vec<_> = (0..200).map(|_| t.submit(1, 1, false)).collect();
    t.restart();
    t.now.wall -= Duration::from_secs(86_400);
    t.restart();
    t.register("w1", 1, 1);
    t.ignore();
    let mut ran = Vec::new();
    while let Some(app) = t.worker("w1").apps.pop() {
        t.ended("w1", &app, 1, Outcome::Exited(0));
        t.ignore();
        ran.push(app);
    }
    assert_eq!(ran, submitted);
}

#[test]
fn o5_a_submission_is_one_record_and_one_answer_however_many_wait() {
    let mut t = Harness::new();
    t.register("w1", 1, 1);
    for _ in 0..1000 {
        t.submit(2, 1, false);
    }
    t.ignore();
    t.submit(2, 1, false);
    assert_eq!(t.unclaimed.len(), 3, "{:?}", t.unclaimed);
    t.ignore();
}

#[test]
fn o6_a_master_without_a_store_that_is_restarted_ends_nothing() {
    let description = AppDescription {
        supervise: true,
        ..description()
    };
    let earlier = HeldAttempt {
        epoch: EPOCH - 1,
        description: Some(description.into()),
        ..held(
            &"app-x-0".parse().expect("a good id"),
            1,
            AttemptState::Running,
        )
    };
    let mut t = Harness::new();
    t.register_with("w1", 4, 1024, vec![earlier.clone()]);
    assert!(
        !t.unclaimed.iter().any(|line| line.contains("kill")),
        "{:?}",
        t.unclaimed
    );
    t.ignore();
    assert_eq!(t.status(&earlier.app).phase, AppPhase::Running);
}

/// The whole of it: lost, relaunched, back, and exactly one left.
#[test]
fn spark_19900_a_worker_that_is_back_late_gives_up_its_copy_and_the_books_are_empty() {
    let (mut t, app) = Harness::with_one_running(true);
    t.disconnect("w1");
    t.advance(TIMEOUT);
    t.register("w2", 4, 1024);
    t.started("w2", &app, 2);
    t.ignore();
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: DEAD -> ALIVE",
        "reply: epoch 7, every 15s",
        "tell w1: kill app 0 #1",
    ]);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.expect(["reply: noted"]);
    assert_eq!(
        (t.worker("w1").apps, t.used("w1")),
        (vec![], Resources::default())
    );
    assert_eq!(t.worker("w2").apps, std::slice::from_ref(&app));
    let status = t.status(&app);
    assert_eq!((status.phase, status.attempt), (AppPhase::Running, 2));
    assert_eq!(t.master.apps().len(), 1);
}

#[test]
fn spark_27510_an_application_that_always_fails_is_given_up() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let app = t.submit_as(AppDescription {
        supervise: true,
        restart: RestartPolicy {
            in_a_row_max: Some(10),
            ..RestartPolicy::default()
        },
        ..description()
    });
    let mut attempts = BTreeSet::new();
    while !t.status(&app).phase.is_final() {
        let attempt = t.status(&app).attempt;
        assert!(attempts.insert(attempt), "attempt {attempt} came twice");
        t.started("w1", &app, attempt);
        t.ended("w1", &app, attempt, Outcome::Exited(1));
        for _ in 0..4 {
            t.heartbeat("w1");
            t.advance(TIMEOUT / 4);
        }
    }
    t.ignore();
    let status = t.status(&app);
    assert_eq!((status.phase, status.attempt), (AppPhase::Failed, 11));
    let message = "exited with code 1; not restarted again after 10 restarts in a row";
    assert_eq!(status.message.as_deref(), Some(message));
}
