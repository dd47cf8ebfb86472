//! A worker that is drained.

use super::*;
use crate::app::AppPhase;
use crate::drain::{DrainFate, DrainMode, DrainPhase, DrainRequest, DrainStatus};

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

impl Harness {
    fn drain(&mut self, worker: &str, mode: DrainMode, timeout: Option<Duration>) {
        self.ask_to_drain(worker, DrainRequest::begin(mode, timeout));
    }

    fn cancel_drain(&mut self, worker: &str) {
        self.ask_to_drain(worker, DrainRequest::Cancel);
    }

    fn ask_to_drain(&mut self, worker: &str, request: DrainRequest) {
        self.tell(Event::DrainRequested {
            worker: id(worker),
            request,
            reply: ReplyTo(0),
        });
    }

    fn leave(&mut self, worker: &str) {
        self.tell(Event::WorkerLeaving { worker: id(worker) });
    }

    #[track_caller]
    fn drain_status(&self, worker: &str) -> DrainStatus {
        match self.master.drain_answer(&id(worker)) {
            DrainAnswer::Drain(status) => status,
            DrainAnswer::NoSuchWorker { reason } => panic!("{reason}"),
        }
    }
}

#[test]
fn what_may_be_started_elsewhere_moves_once_it_has_ended_and_then_the_worker_leaves() {
    let (mut t, app) = Harness::with_one_running(true);
    t.register("w2", 4, 1024);
    t.ignore();
    t.drain("w1", DrainMode::Move, None);
    t.expect([
        "store w1: 4 cores and 1024 MiB, drain: move",
        "publish w1: drain DRAINING: move, without a timeout",
        "publish w1: ALIVE -> LEAVING",
        "store app 0: RUNNING #1 on w1, to go",
        "tell w1: kill app 0 #1",
        "reply: drain DRAINING",
    ]);
    let status = t.drain_status("w1");
    assert_eq!(status.left[0].fate, DrainFate::Moving);
    assert_eq!(status.message, "1 application left on w1");
    // Nothing is started elsewhere before it is over here.
    t.advance(Duration::from_secs(5));
    t.ended("w1", &app, 1, Outcome::Killed);
    t.expect([
        "store app 0: RELAUNCHING #1",
        "publish app 0: RUNNING -> RELAUNCHING",
        "publish app 0: lost #1: moved off w1, which is drained",
        "reply: noted",
        "tell w1: leave",
        "publish w1: drain DRAINED: nothing is left",
        "store app 0: LAUNCHING #2 on w2",
        "publish app 0: RELAUNCHING -> LAUNCHING",
        "tell w2: launch app 0 #2",
    ]);
    assert_eq!(t.drain_status("w1").phase, DrainPhase::Drained);
    t.leave("w1");
    t.expect(["unstore w1", "publish w1: LEAVING -> DEAD"]);
    assert_eq!(t.drain_status("w1").phase, DrainPhase::Gone);
    // Started anew, it is as any other.
    t.register("w1", 4, 1024);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: DEAD -> ALIVE",
        "reply: epoch 7, every 15s",
    ]);
}

#[test]
fn what_may_not_runs_to_its_end_and_nothing_new_comes() {
    let (mut t, app) = Harness::with_one_running(false);
    t.drain("w1", DrainMode::Move, None);
    t.ignore();
    assert_eq!(t.drain_status("w1").left[0].fate, DrainFate::RunsOn);
    let next = t.submit(1, 1, false);
    t.ignore();
    let why = t.status(&next).waiting_for;
    assert_eq!(
        why.as_deref(),
        Some("every worker is disconnected, leaving or drained")
    );
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.expect([
        "store app 0: FINISHED #1 on w1",
        "publish app 0: RUNNING -> FINISHED",
        "reply: noted",
        "tell w1: leave",
        "publish w1: drain DRAINED: nothing is left",
    ]);
}

#[test]
fn at_the_timeout_what_is_left_ends_as_where_a_worker_leaves_or_moves_after_all() {
    let (mut t, alone) = Harness::with_one_running(false);
    let supervised = t.submit(2, 512, true);
    t.started("w1", &supervised, 1);
    t.drain("w1", DrainMode::Wait, MINUTE);
    t.ignore();
    assert_eq!(t.drain_status("w1").left.len(), 2);
    for _ in 0..3 {
        t.advance(Duration::from_secs(19));
        t.heartbeat("w1");
    }
    t.expect([]);
    t.advance(Duration::from_secs(3));
    t.expect([
        "store app 0: RUNNING #1 on w1, to go",
        "tell w1: kill app 0 #1",
        "store app 1: RUNNING #1 on w1, to go",
        "tell w1: kill app 1 #1",
    ]);
    t.ended("w1", &alone, 1, Outcome::Killed);
    t.ended("w1", &supervised, 1, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&alone).phase, AppPhase::Error);
    assert_eq!(
        t.status(&alone).message.as_deref(),
        Some("ended, for the drain of w1 took too long")
    );
    assert_eq!(t.status(&supervised).phase, AppPhase::Relaunching);
}

#[test]
fn a_move_counts_for_nothing_against_the_restarts_there_may_be() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let app = t.submit_as(AppDescription {
        supervise: true,
        restart: crate::restart::RestartPolicy {
            in_a_row_max: Some(0),
            ..Default::default()
        },
        ..description()
    });
    t.started("w1", &app, 1);
    t.register("w2", 4, 1024);
    t.drain("w1", DrainMode::Move, None);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.ignore();
    let status = t.status(&app);
    assert_eq!((status.phase, status.attempt), (AppPhase::Launching, 2));
}

#[test]
fn a_drain_survives_a_restart_of_the_master_and_of_the_worker() {
    let mut t = Harness::durable();
    t.register("w1", 4, 1024);
    let app = t.submit(2, 512, true);
    t.started("w1", &app, 1);
    t.drain("w1", DrainMode::Wait, MINUTE);
    t.advance(Duration::from_secs(20));
    t.restart();
    t.ignore();
    let status = t.drain_status("w1");
    assert_eq!(
        (status.phase, status.state, status.mode),
        (
            DrainPhase::Draining,
            WorkerState::Disconnected,
            Some(DrainMode::Wait)
        )
    );
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.expect([
        "publish w1: DISCONNECTED -> LEAVING",
        "reply: epoch 7, every 15s",
        "store app 0: RUNNING #1 on w1",
        "publish app 0: UNKNOWN -> RUNNING",
    ]);
    // Of its timeout the time that passed is gone.
    t.advance(Duration::from_secs(25));
    t.heartbeat("w1");
    t.expect([]);
    t.advance(Duration::from_secs(15));
    t.expect([
        "store app 0: RUNNING #1 on w1, to go",
        "tell w1: kill app 0 #1",
    ]);
    // Nor is it forgotten what an attempt was being ended for.
    t.restart();
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.ignore();
    t.ended("w1", &app, 1, Outcome::Killed);
    t.expect([
        "store app 0: RELAUNCHING #1",
        "publish app 0: RUNNING -> RELAUNCHING",
        "publish app 0: lost #1: moved off w1, which is drained",
        "reply: noted",
        "tell w1: leave",
        "publish w1: drain DRAINED: nothing is left",
    ]);
}

#[test]
fn one_that_is_called_off_takes_applications_again_and_what_goes_still_moves() {
    let (mut t, app) = Harness::with_one_running(true);
    t.drain("w1", DrainMode::Move, MINUTE);
    t.ignore();
    t.cancel_drain("w1");
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: drain NONE: called off",
        "publish w1: LEAVING -> ALIVE",
        "reply: drain NONE",
    ]);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&app).attempt, 2);
    t.cancel_drain("w1");
    t.expect(["reply: drain NONE"]);
}

#[test]
fn one_that_is_away_is_drained_when_it_is_back() {
    let (mut t, app) = Harness::with_one_running(true);
    t.disconnect("w1");
    t.drain("w1", DrainMode::Move, None);
    t.ignore();
    let status = t.drain_status("w1");
    assert!(status.message.starts_with("w1 is disconnected; its drain"));
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.expect([
        "publish w1: DISCONNECTED -> LEAVING",
        "reply: epoch 7, every 15s",
        "store app 0: RUNNING #1 on w1",
        "publish app 0: UNKNOWN -> RUNNING",
        "store app 0: RUNNING #1 on w1, to go",
        "tell w1: kill app 0 #1",
    ]);
}

#[test]
fn one_that_is_lost_is_gone_and_comes_back_as_if_it_were_new() {
    let (mut t, app) = Harness::with_one_running(true);
    t.drain("w1", DrainMode::Wait, MINUTE);
    t.disconnect("w1");
    t.advance(TIMEOUT);
    t.ignore();
    assert_eq!(t.drain_status("w1").phase, DrainPhase::Gone);
    assert_eq!(t.status(&app).phase, AppPhase::Relaunching);
    t.drain("w1", DrainMode::Move, None);
    t.expect(["reply: drain GONE"]);
    t.register("w1", 4, 1024);
    t.ignore();
    assert_eq!(t.worker("w1").state, WorkerState::Alive);
}

#[test]
fn an_idle_one_leaves_at_once_and_one_that_does_not_know_how_stays_leaving() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    t.ignore();
    t.drain("w1", DrainMode::Move, None);
    t.expect([
        "store w1: 4 cores and 1024 MiB, drain: move",
        "publish w1: drain DRAINING: move, without a timeout",
        "publish w1: ALIVE -> LEAVING",
        "tell w1: leave",
        "publish w1: drain DRAINED: nothing is left",
        "reply: drain DRAINED",
    ]);
    for _ in 0..10 {
        t.advance(Duration::from_secs(15));
        t.heartbeat("w1");
    }
    assert_eq!(t.worker("w1").state, WorkerState::Leaving);
    // Stopped by hand, it says so.
    t.leave("w1");
    t.expect(["unstore w1", "publish w1: LEAVING -> DEAD"]);
}

#[test]
fn what_moves_and_finds_no_room_waits_and_the_status_says_why() {
    let (mut t, app) = Harness::with_one_running(true);
    t.register("w2", 1, 1024);
    t.drain("w1", DrainMode::Move, None);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.ignore();
    let status = t.drain_status("w1");
    assert_eq!(status.waiting, std::slice::from_ref(&app));
    assert_eq!(
        status.message,
        format!(
            "nothing is left on w1, which was told to leave; 1 application waits for room elsewhere ({app}: needs 2 cores; \
             the largest worker has 1)"
        )
    );
}

#[test]
fn a_launch_that_a_drained_worker_never_got_is_not_told_again_if_it_may_go_elsewhere() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let app = t.submit(2, 512, true);
    t.drain("w1", DrainMode::Move, None);
    t.disconnect("w1");
    t.ignore();
    t.register("w1", 4, 1024);
    t.expect([
        "publish w1: DISCONNECTED -> LEAVING",
        "reply: epoch 7, every 15s",
        "tell w1: kill app 0 #1",
    ]);
    t.ended(
        "w1",
        &app,
        1,
        Outcome::Lost("the worker does not hold it".into()),
    );
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Relaunching);
}

#[test]
fn one_that_is_killed_on_the_way_is_killed() {
    let (mut t, app) = Harness::with_one_running(true);
    t.drain("w1", DrainMode::Move, None);
    t.kill(&app);
    assert_eq!(t.drain_status("w1").left[0].fate, DrainFate::Ending);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Killed);
}

#[test]
fn a_worker_is_found_by_its_id_or_where_it_is_reached() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    t.ignore();
    assert_eq!(t.master.find_worker("w1"), Ok(id("w1")));
    assert_eq!(t.master.find_worker("w1:1"), Ok(id("w1")));
    assert_eq!(
        t.master.find_worker("w1:2"),
        Err("there is no worker w1:2".to_owned())
    );
}

#[test]
fn a_worker_that_is_stopped_while_it_is_drained_goes_when_nothing_is_left() {
    let (mut t, app) = Harness::with_one_running(false);
    t.drain("w1", DrainMode::Move, None);
    t.leave("w1");
    t.ignore();
    t.ended(
        "w1",
        &app,
        1,
        Outcome::Lost("its worker was stopped".into()),
    );
    t.expect([
        "store app 0: ERROR #1 on w1",
        "publish app 0: RUNNING -> ERROR",
        "reply: noted",
        "unstore w1",
        "publish w1: LEAVING -> DEAD",
    ]);
}
