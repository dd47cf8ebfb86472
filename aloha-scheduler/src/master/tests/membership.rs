use super::*;
use crate::app::AppPhase;
use crate::runner::{CgroupVersion, Enforced};

#[test]
fn a_worker_is_stored_before_it_is_welcomed_and_learns_the_heartbeat_interval() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: ALIVE",
        "reply: epoch 7, every 15s",
    ]);
    let status = WorkerStatus {
        id: id("w1"),
        host: "w1".into(),
        port: 1,
        state: WorkerState::Alive,
        cores: 4,
        cores_used: 0,
        memory_mib: 1024,
        memory_mib_used: 0,
        apps: vec![],
        heard_millis_ago: 0,
        enforces: CgroupSupport::default(),
        attributes: Attributes::new(),
    };
    assert_eq!(t.master.workers(t.now), [status]);
}

#[test]
fn what_a_worker_enforces_is_stored_and_shown_as_it_last_said() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    t.ignore();
    let enforces = CgroupSupport {
        memory: Enforced::By(CgroupVersion::V2),
        ..CgroupSupport::none("no reason")
    };
    let registration = WorkerRegistration {
        id: id("w1"),
        host: "w1".into(),
        port: 1,
        offers: Resources {
            cores: 4,
            memory_mib: 1024,
        },
        attempts: Vec::new(),
        enforces: enforces.clone(),
        attributes: Attributes::new(),
        epoch: 0,
    };
    t.tell(Event::WorkerRegistered {
        registration,
        reply: ReplyTo(0),
    });
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "reply: epoch 7, every 15s",
    ]);
    assert_eq!(t.worker("w1").enforces, enforces);
}

#[test]
fn a_worker_that_offers_nonsense_is_refused() {
    let mut t = Harness::new();
    t.register("w1", 0, 1024);
    t.expect(["reply: refused: a worker has between 1 and 1000000 cores, not 0"]);
    t.register("w1", u32::MAX, 1024);
    t.expect(["reply: refused: a worker has between 1 and 1000000 cores, not 4294967295"]);
    t.register("w1", 1, u64::MAX);
    t.expect(["reply: refused: a worker has at most 1099511627776 MiB, not 18446744073709551615"]);
    assert_eq!(t.master.workers(t.now), []);
}

#[test]
fn a_known_worker_that_registers_again_is_welcome_and_keeps_its_applications() {
    let (mut t, app) = Harness::with_one_running(false);
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.expect(["reply: epoch 7, every 15s"]);
    assert_eq!(t.status(&app).phase.to_string(), "RUNNING");
    assert_eq!(
        t.used("w1"),
        Resources {
            cores: 2,
            memory_mib: 512
        }
    );
}

#[test]
fn a_heartbeat_of_a_stranger_is_answered_with_a_wish_to_register() {
    let mut t = Harness::new();
    t.heartbeat("w1");
    t.expect(["tell w1: register again"]);
}

#[test]
fn a_silent_worker_is_first_away_and_then_lost_at_its_deadlines_and_not_before() {
    const MOMENT: Duration = Duration::from_millis(1);
    let (mut t, app) = Harness::with_one_running(false);
    assert_eq!(t.master.next_deadline(), Some(t.now.instant + TIMEOUT / 2));
    t.advance(TIMEOUT / 2 - MOMENT);
    t.expect([]);
    t.advance(MOMENT);
    t.expect([
        "publish w1: ALIVE -> DISCONNECTED",
        "publish app 0: RUNNING -> UNKNOWN",
    ]);
    t.advance(TIMEOUT / 2 - MOMENT);
    t.expect([]);
    t.advance(MOMENT);
    t.expect([
        "unstore w1",
        "publish w1: DISCONNECTED -> DEAD",
        "store app 0: ERROR #1 on w1",
        "publish app 0: UNKNOWN -> ERROR",
    ]);
    assert_eq!(t.status(&app).message.as_deref(), Some("worker w1 lost"));
    assert_eq!(t.worker("w1").state, WorkerState::Dead);
    assert_eq!(t.used("w1"), Resources::default());
}

#[test]
fn a_worker_that_is_away_or_dead_is_so_until_it_registers() {
    use WorkerState::{Alive, Dead, Disconnected, Leaving};
    for from in WorkerState::ALL {
        assert!(!from.may_become(from), "{from}");
        assert_eq!(from.may_become(Alive), from != Alive);
    }
    assert!(!Dead.may_become(Disconnected) && !Dead.may_become(Leaving));
    assert!(Disconnected.may_become(Leaving));
    // What it says without having registered is not believed.
    let (mut t, _) = Harness::with_one_running(true);
    t.disconnect("w1");
    t.ignore();
    t.tell(Event::WorkerLeaving { worker: id("w1") });
    t.disconnect("w1");
    t.expect([]);
    assert_eq!(t.worker("w1").state, Disconnected);
}

#[test]
fn heartbeats_keep_a_worker_alive() {
    let (mut t, _) = Harness::with_one_running(false);
    for _ in 0..10 {
        t.advance(TIMEOUT / 4);
        t.heartbeat("w1");
    }
    assert_eq!(t.worker("w1").state, WorkerState::Alive);
}

#[test]
fn a_dead_worker_is_listed_for_a_number_of_timeouts() {
    let mut t = Harness::new();
    t.register("w1", 1, 1);
    t.advance(TIMEOUT);
    t.ignore();
    t.advance(TIMEOUT * 15 - Duration::from_millis(1));
    assert_eq!(t.worker("w1").state, WorkerState::Dead);
    t.advance(Duration::from_millis(1));
    assert_eq!(t.master.workers(t.now), []);
    assert_eq!(t.master.next_deadline(), None);
}

#[test]
fn a_short_disconnection_relaunches_nothing_and_the_application_goes_on() {
    let (mut t, app) = Harness::with_one_running(true);
    t.register("w2", 4, 1024);
    t.ignore();
    let before = t.status(&app);
    t.disconnect("w1");
    t.expect([
        "publish w1: ALIVE -> DISCONNECTED",
        "publish app 0: RUNNING -> UNKNOWN",
    ]);
    assert_eq!(
        t.status(&app).message.as_deref(),
        Some("w1 is disconnected")
    );
    t.advance(TIMEOUT / 4);
    t.heartbeat("w2");
    t.advance(TIMEOUT / 4);
    t.expect([]);
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.expect([
        "publish w1: DISCONNECTED -> ALIVE",
        "reply: epoch 7, every 15s",
        "store app 0: RUNNING #1 on w1",
        "publish app 0: UNKNOWN -> RUNNING",
    ]);
    let mut after = t.status(&app);
    let phases: Vec<_> = after.history.drain(3..).map(|past| past.to).collect();
    assert_eq!(phases, [AppPhase::Unknown, AppPhase::Running]);
    assert_eq!(after, before);
}

#[test]
fn nothing_is_placed_on_a_disconnected_worker() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    t.disconnect("w1");
    t.ignore();
    let app = t.submit(1, 1, false);
    t.expect([
        "store app 0: SUBMITTED #0",
        "publish app 0: SUBMITTED",
        "reply: submitted app 0",
    ]);
    assert_eq!(
        t.status(&app).waiting_for.as_deref(),
        Some("every worker is disconnected, leaving or drained")
    );
    t.heartbeat("w1");
    t.expect(["tell w1: register again"]);
}

#[test]
fn a_disconnected_worker_is_lost_when_it_stays_silent() {
    let (mut t, _) = Harness::with_one_running(false);
    t.disconnect("w1");
    t.ignore();
    t.advance(TIMEOUT);
    t.expect([
        "unstore w1",
        "publish w1: DISCONNECTED -> DEAD",
        "store app 0: ERROR #1 on w1",
        "publish app 0: UNKNOWN -> ERROR",
    ]);
}

#[test]
fn a_supervised_application_of_a_lost_worker_runs_again_elsewhere_and_can_be_watched_and_killed() {
    let (mut t, app) = Harness::with_one_running(true);
    t.advance(TIMEOUT / 2);
    t.register("w2", 4, 1024);
    t.ignore();
    t.advance(TIMEOUT / 4);
    t.heartbeat("w2");
    t.advance(TIMEOUT / 4);
    t.expect([
        "unstore w1",
        "publish w1: DISCONNECTED -> DEAD",
        "store app 0: RELAUNCHING #1",
        "publish app 0: UNKNOWN -> RELAUNCHING",
        "publish app 0: lost #1: worker w1 lost",
        "store app 0: LAUNCHING #2 on w2",
        "publish app 0: RELAUNCHING -> LAUNCHING",
        "tell w2: launch app 0 #2",
    ]);
    t.started("w2", &app, 2);
    t.expect([
        "store app 0: RUNNING #2 on w2",
        "publish app 0: LAUNCHING -> RUNNING",
        "reply: noted",
    ]);
    t.kill(&app);
    t.ended("w2", &app, 2, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&app).phase.to_string(), "KILLED");
    assert_eq!(t.used("w2"), Resources::default());
}

#[test]
fn a_lost_worker_that_comes_back_has_its_copy_killed_and_its_room_stays_taken_until_then() {
    let (mut t, app) = Harness::with_one_running(true);
    t.advance(TIMEOUT);
    t.register("w2", 4, 1024);
    t.ignore();
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: DEAD -> ALIVE",
        "reply: epoch 7, every 15s",
        "tell w1: kill app 0 #1",
    ]);
    assert_eq!(
        t.used("w1"),
        Resources {
            cores: 2,
            memory_mib: 512
        }
    );
    t.ended("w1", &app, 1, Outcome::Killed);
    t.expect(["reply: noted"]);
    assert_eq!(t.used("w1"), Resources::default());
    let status = t.status(&app);
    assert_eq!(
        (status.phase.to_string().as_str(), status.attempt),
        ("LAUNCHING", 2)
    );
}

#[test]
fn attempts_that_the_master_never_heard_of_are_killed() {
    let mut t = Harness::new();
    let stranger: AppId = "app-x".parse().unwrap();
    t.register_with(
        "w1",
        4,
        1024,
        vec![held(&stranger, 3, AttemptState::Running)],
    );
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: ALIVE",
        "reply: epoch 7, every 15s",
        "tell w1: kill app-x #3",
    ]);
    t.submit(4, 1, false);
    t.expect([
        "store app 0: SUBMITTED #0",
        "publish app 0: SUBMITTED",
        "reply: submitted app 0",
    ]);
    t.ended("w1", &stranger, 3, Outcome::Killed);
    t.expect([
        "reply: noted",
        "store app 0: LAUNCHING #1 on w1",
        "publish app 0: SUBMITTED -> LAUNCHING",
        "tell w1: launch app 0 #1",
    ]);
}

#[test]
fn an_unwanted_attempt_that_says_it_started_occupies_no_less_than_it_claimed() {
    let mut t = Harness::new();
    let app = t.submit(1, 1, false);
    t.kill(&app);
    t.register_with("w1", 4, 1024, vec![held(&app, 0, AttemptState::Starting)]);
    t.ignore();
    t.started("w1", &app, 0);
    t.expect(["tell w1: kill app 0 #0", "reply: noted"]);
    assert_eq!(
        t.used("w1"),
        Resources {
            cores: 2,
            memory_mib: 512
        }
    );
}

#[test]
fn an_application_its_worker_does_not_name_is_an_error_once_the_worker_says_that_it_is_over() {
    let (mut t, app) = Harness::with_one_running(false);
    t.register("w1", 4, 1024);
    t.expect(["reply: epoch 7, every 15s", "tell w1: kill app 0 #1"]);
    assert_eq!(t.status(&app).phase, AppPhase::Running);
    t.ended("w1", &app, 1, Outcome::Lost("not held".into()));
    t.expect([
        "store app 0: ERROR #1 on w1",
        "publish app 0: RUNNING -> ERROR",
        "reply: noted",
    ]);
    assert_eq!(t.used("w1"), Resources::default());
}

#[test]
fn an_application_that_a_late_registration_does_not_name_is_not_killed_for_good() {
    let (mut t, app) = Harness::with_one_running(true);
    t.register("w1", 4, 1024);
    t.expect(["reply: epoch 7, every 15s", "tell w1: kill app 0 #1"]);
    // The worker said that before it was launched, and has it after all: nobody asked for its end.
    t.ended("w1", &app, 1, Outcome::Killed);
    let lost = "publish app 0: lost #1: stopped, for w1 did not name it when it registered";
    t.expect([
        "store app 0: RELAUNCHING #1",
        "publish app 0: RUNNING -> RELAUNCHING",
        lost,
        "reply: noted",
        "store app 0: LAUNCHING #2 on w1",
        "publish app 0: RELAUNCHING -> LAUNCHING",
        "tell w1: launch app 0 #2",
    ]);
    // Of the next attempt the master knows no such thing, and a master before it may have been asked.
    t.started("w1", &app, 2);
    t.ended("w1", &app, 2, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Killed);
}

#[test]
fn a_launch_that_never_arrived_is_sent_again() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let app = t.submit(2, 512, false);
    t.disconnect("w1");
    t.ignore();
    t.register("w1", 4, 1024);
    t.expect([
        "publish w1: DISCONNECTED -> ALIVE",
        "reply: epoch 7, every 15s",
        "store app 0: LAUNCHING #1 on w1",
        "publish app 0: UNKNOWN -> LAUNCHING",
        "tell w1: launch app 0 #1",
    ]);
    assert_eq!(t.status(&app).attempt, 1);
}

#[test]
fn an_end_during_the_disconnection_is_what_counts() {
    let (mut t, app) = Harness::with_one_running(true);
    t.disconnect("w1");
    t.ignore();
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Ended)]);
    t.expect([
        "publish w1: DISCONNECTED -> ALIVE",
        "reply: epoch 7, every 15s",
    ]);
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.expect([
        "store app 0: FINISHED #1 on w1",
        "publish app 0: UNKNOWN -> FINISHED",
        "reply: noted",
    ]);
    assert_eq!(t.used("w1"), Resources::default());
}

#[test]
fn a_leaving_worker_gets_nothing_more_and_is_gone_when_its_last_application_is() {
    let (mut t, app) = Harness::with_one_running(false);
    t.tell(Event::WorkerLeaving { worker: id("w1") });
    t.expect(["publish w1: ALIVE -> LEAVING"]);
    assert_eq!(t.worker("w1").state, WorkerState::Leaving);
    t.submit(1, 1, false);
    t.expect([
        "store app 1: SUBMITTED #0",
        "publish app 1: SUBMITTED",
        "reply: submitted app 1",
    ]);
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.expect([
        "store app 0: FINISHED #1 on w1",
        "publish app 0: RUNNING -> FINISHED",
        "reply: noted",
        "unstore w1",
        "publish w1: LEAVING -> DEAD",
    ]);
    assert_eq!(t.worker("w1").state, WorkerState::Dead);
}

/// It ends what it has, which takes a while, and the connection may break meanwhile.
#[test]
fn what_a_leaving_worker_still_has_runs_nowhere_else_before_that_is_dead() {
    let (mut t, app) = Harness::with_one_running(true);
    t.register("w2", 4, 1024);
    t.ignore();
    t.tell(Event::WorkerLeaving { worker: id("w1") });
    t.disconnect("w1");
    t.expect([
        "publish w1: ALIVE -> LEAVING",
        "publish w1: LEAVING -> DISCONNECTED",
        "publish app 0: RUNNING -> UNKNOWN",
    ]);
    t.ended("w1", &app, 1, Outcome::Lost("the worker stopped".into()));
    assert_eq!(
        t.status(&app).worker.expect("it is placed").worker,
        id("w2")
    );
    t.ignore();
}

#[test]
fn what_a_worker_has_not_done_by_its_next_heartbeat_is_said_again() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let app = t.submit(2, 256, false);
    t.ignore();
    t.heartbeat("w1");
    t.expect(["tell w1: launch app 0 #1"]);
    t.started("w1", &app, 1);
    t.ignore();
    t.heartbeat("w1");
    t.expect([]);
    t.kill(&app);
    t.ignore();
    t.heartbeat("w1");
    t.expect(["tell w1: kill app 0 #1"]);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.ignore();
    t.heartbeat("w1");
    t.expect([]);
}
