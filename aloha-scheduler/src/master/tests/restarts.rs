use super::*;
use crate::app::AppPhase;
use crate::restart::{RestartCondition, RestartPolicy};

/// A worker `w1`, and an application that runs on it.
fn with_one(change: impl FnOnce(&mut AppDescription)) -> (Harness, AppId) {
    let mut description = description();
    change(&mut description);
    let mut t = Harness::durable();
    t.register("w1", 4, 1024);
    let app = t.submit_as(description);
    t.started("w1", &app, 1);
    t.ignore();
    (t, app)
}

impl Harness {
    /// Lets time pass with a worker that is heard from.
    fn pass(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(TIMEOUT / 4);
            self.heartbeat("w1");
            self.advance(step);
            left -= step;
        }
    }

    /// The current attempt ends like this; how long it is until the next is launched, in milliseconds.
    fn pause_after(&mut self, app: &AppId, outcome: Outcome) -> u64 {
        let attempt = self.status(app).attempt;
        self.ended("w1", app, attempt, outcome);
        let not_before = self.status(app).not_before.expect("it pauses");
        let pause = not_before - self.now.unix_millis();
        let moment = Duration::from_millis(1);
        self.pass(Duration::from_millis(pause) - moment);
        assert_eq!(self.status(app).phase, AppPhase::Relaunching);
        self.pass(moment * 2);
        let status = self.status(app);
        assert_eq!(
            (status.phase, status.attempt),
            (AppPhase::Launching, attempt + 1)
        );
        self.started("w1", app, attempt + 1);
        self.ignore();
        pause
    }
}

#[track_caller]
fn assert_near(pauses: &[u64], nominal: &[u64]) {
    assert_eq!(pauses.len(), nominal.len());
    for (pause, nominal) in pauses.iter().zip(nominal) {
        assert!(
            (nominal * 750..=nominal * 1000).contains(pause),
            "{pauses:?}"
        );
    }
}

#[test]
fn a_supervised_application_that_fails_runs_again_after_pauses_that_double() {
    let (mut t, app) = with_one(|d| d.supervise = true);
    let pauses = [1, 2, 3].map(|code| t.pause_after(&app, Outcome::Exited(code)));
    assert_near(&pauses, &[1, 2, 4]);
    t.ended("w1", &app, 4, Outcome::Exited(0));
    t.ignore();
    let status = t.status(&app);
    assert_eq!((status.phase, status.attempt), (AppPhase::Finished, 4));
    assert_eq!(t.used("w1"), Resources::default());
}

#[test]
fn the_pause_begins_anew_after_a_long_run() {
    let (mut t, app) = with_one(|d| d.supervise = true);
    let mut pauses = Vec::new();
    for ran_for in [0, 0, 10, 0] {
        t.pass(Duration::from_secs(ran_for));
        pauses.push(t.pause_after(&app, Outcome::Signaled(11)));
    }
    assert_near(&pauses, &[1, 2, 1, 2]);
}

#[test]
fn a_restart_is_stored_and_told_with_its_reason() {
    let (mut t, app) = with_one(|d| d.supervise = true);
    t.ended("w1", &app, 1, Outcome::Exited(3));
    let reason = t.status(&app).message.expect("it says why");
    assert!(
        reason.starts_with("exited with code 3; restart 1 in a row, after "),
        "{reason}"
    );
    t.expect([
        "store app 0: RELAUNCHING #1",
        "publish app 0: RUNNING -> RELAUNCHING",
        &format!("publish app 0: lost #1: {reason}"),
        "reply: noted",
    ]);
    let last = t.status(&app).history.pop().expect("it is kept");
    assert_eq!(
        (last.to, last.reason),
        (AppPhase::Relaunching, Some(reason))
    );
}

#[test]
fn without_supervision_a_failure_is_the_end() {
    for outcome in [Outcome::Exited(1), Outcome::Signaled(9)] {
        let (mut t, app) = with_one(|_| {});
        t.ended("w1", &app, 1, outcome);
        t.ignore();
        assert_eq!(t.status(&app).phase, AppPhase::Failed);
    }
}

#[test]
fn what_cannot_start_is_an_error_however_it_is_supervised() {
    let (mut t, app) = with_one(|d| d.restart.condition = Some(RestartCondition::Always));
    t.ended("w1", &app, 1, Outcome::CouldNotStart("no bash".into()));
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Error);
}

#[test]
fn one_that_always_restarts_does_so_after_success_too_until_it_is_killed() {
    let (mut t, app) = with_one(|d| d.restart.condition = Some(RestartCondition::Always));
    let pauses = [0, 1].map(|code| t.pause_after(&app, Outcome::Exited(code)));
    assert_near(&pauses, &[1, 2]);
    t.kill(&app);
    t.ended("w1", &app, 3, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Killed);
}

#[test]
fn one_that_is_killed_while_it_pauses_never_runs_again() {
    let (mut t, app) = with_one(|d| d.supervise = true);
    t.ended("w1", &app, 1, Outcome::Exited(3));
    t.ignore();
    t.kill(&app);
    t.expect([
        "store app 0: KILLED #1",
        "publish app 0: RELAUNCHING -> KILLED",
        "reply: yes: app 0 was killed before it ran",
    ]);
    t.pass(TIMEOUT);
    t.expect([]);
}

#[test]
fn one_that_fails_of_itself_while_it_is_to_be_killed_does_not_run_again() {
    let (mut t, app) = with_one(|d| d.supervise = true);
    t.kill(&app);
    t.ended("w1", &app, 1, Outcome::Exited(3));
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Failed);
}

#[test]
fn one_that_runs_longer_than_it_may_is_ended_and_has_failed() {
    let (mut t, app) = with_one(|d| d.run_millis_max = Some(20_000));
    t.pass(Duration::from_millis(19_999));
    t.expect([]);
    t.pass(Duration::from_millis(1));
    t.expect(["store app 0: RUNNING #1 on w1", "tell w1: kill app 0 #1"]);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.ignore();
    let status = t.status(&app);
    assert_eq!(
        (status.phase, status.exit_code),
        (AppPhase::Failed, Some(137))
    );
    assert_eq!(status.message.as_deref(), Some("ran longer than 20s"));
}

#[test]
fn one_that_runs_too_long_where_nobody_reaches_it_is_ended_when_its_worker_is_back() {
    let (mut t, app) = with_one(|d| {
        d.run_millis_max = Some(20_000);
        d.supervise = true;
    });
    t.disconnect("w1");
    t.advance(Duration::from_secs(20));
    t.ignore();
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.expect([
        "publish w1: DISCONNECTED -> ALIVE",
        "reply: epoch 7, every 15s",
        "store app 0: RUNNING #1 on w1",
        "publish app 0: UNKNOWN -> RUNNING",
        "tell w1: kill app 0 #1",
    ]);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Relaunching);
    // The next attempt has its own time.
    t.pass(Duration::from_secs(1));
    t.started("w1", &app, 2);
    t.ignore();
    t.pass(Duration::from_secs(19));
    t.expect([]);
}

#[test]
fn the_loss_of_an_attempt_costs_no_pause_and_counts_for_nothing() {
    let (mut t, app) = with_one(|d| {
        d.supervise = true;
        d.restart = RestartPolicy {
            in_a_row_max: Some(1),
            ..RestartPolicy::default()
        };
    });
    t.pause_after(&app, Outcome::Exited(1));
    for attempt in 2..5 {
        t.pass(Duration::from_secs(2));
        t.ended(
            "w1",
            &app,
            attempt,
            Outcome::Lost("its runner is gone".into()),
        );
        let status = t.status(&app);
        assert_eq!(
            (status.phase, status.attempt),
            (AppPhase::Launching, attempt + 1)
        );
        t.started("w1", &app, attempt + 1);
    }
    // The one restart in a row that it may have was used up by the failure, and by no loss.
    t.ended("w1", &app, 5, Outcome::Exited(1));
    t.ignore();
    let status = t.status(&app);
    assert_eq!(status.phase, AppPhase::Failed);
    let message = "exited with code 1; not restarted again after 1 restart in a row";
    assert_eq!(status.message.as_deref(), Some(message));
}

#[test]
fn one_that_was_declined_by_a_worker_that_takes_others_is_not_offered_again_at_once() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let app = t.submit(2, 512, false);
    t.ignore();
    t.ended("w1", &app, 1, Outcome::Declined("no room".into()));
    t.expect([
        "store app 0: RELAUNCHING #1",
        "publish app 0: LAUNCHING -> RELAUNCHING",
        "reply: noted",
    ]);
    t.advance(Duration::from_secs(1));
    t.expect([
        "store app 0: LAUNCHING #2 on w1",
        "publish app 0: RELAUNCHING -> LAUNCHING",
        "tell w1: launch app 0 #2",
    ]);
}

#[test]
fn one_that_is_lost_as_soon_as_it_is_launched_is_not_launched_again_at_once() {
    let (mut t, app) = with_one(|d| d.supervise = true);
    for attempt in 1..4 {
        assert_eq!(t.status(&app).attempt, attempt);
        t.ended(
            "w1",
            &app,
            attempt,
            Outcome::Lost("its runner is gone".into()),
        );
        assert_eq!(t.status(&app).phase, AppPhase::Relaunching);
        t.heartbeat("w1");
        t.advance(Duration::from_secs(1));
        t.started("w1", &app, attempt + 1);
    }
    t.ignore();
    assert_eq!(t.status(&app).phase, AppPhase::Running);
}
