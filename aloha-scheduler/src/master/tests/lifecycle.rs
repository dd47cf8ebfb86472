use super::*;
use crate::app::{AppPhase, Placement, Transition};

#[test]
fn an_application_is_stored_before_it_is_acknowledged_and_again_before_it_is_launched() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    t.ignore();
    let app = t.submit(2, 512, false);
    t.expect([
        "store app 0: SUBMITTED #0",
        "publish app 0: SUBMITTED",
        "reply: submitted app 0",
        "store app 0: LAUNCHING #1 on w1",
        "publish app 0: SUBMITTED -> LAUNCHING",
        "tell w1: launch app 0 #1",
    ]);
    assert_eq!(app.as_str(), "app-20190311221731-0000");
}

#[test]
fn a_client_sees_where_and_when_it_ran_and_how_it_ended() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let app = t.submit(2, 512, false);
    t.advance(Duration::from_secs(1));
    t.started("w1", &app, 1);
    t.advance(Duration::from_secs(2));
    t.ended("w1", &app, 1, Outcome::Exited(3));
    t.ignore();
    let submitted_at = 1_552_342_651_000;
    let status = AppStatus {
        id: app.clone(),
        name: "a".into(),
        entry_point: "Process".into(),
        cores: 2,
        memory_mib: 512,
        supervise: false,
        phase: AppPhase::Failed,
        exit_code: Some(3),
        attempt: 1,
        worker: Some(Placement {
            worker: id("w1"),
            address: "w1:1".into(),
        }),
        waiting_for: None,
        message: None,
        submitted_at: Some(submitted_at),
        started_at: Some(submitted_at + 1000),
        ended_at: Some(submitted_at + 3000),
        priority: 0,
        not_before: None,
        history: [
            (0, AppPhase::Submitted, 0, None),
            (0, AppPhase::Launching, 1, Some("on w1")),
            (1000, AppPhase::Running, 1, None),
            (3000, AppPhase::Failed, 1, Some("exited with code 3")),
        ]
        .map(|(after, to, attempt, reason)| Transition {
            at: submitted_at + after,
            to,
            attempt,
            reason: reason.map(str::to_owned),
        })
        .into(),
    };
    assert_eq!(t.status(&app), status);
    assert_eq!(t.used("w1"), Resources::default());
}

#[test]
fn the_last_transitions_are_kept_with_their_reasons() {
    let (mut t, app) = Harness::with_one_running(true);
    for attempt in 1..20 {
        t.heartbeat("w1");
        t.advance(Duration::from_secs(2));
        t.ended(
            "w1",
            &app,
            attempt,
            Outcome::Lost(format!("loss {attempt}")),
        );
        t.started("w1", &app, attempt + 1);
    }
    t.kill(&app);
    t.ended("w1", &app, 20, Outcome::Killed);
    t.ignore();
    let history = t.status(&app).history;
    assert_eq!(history.len(), 16);
    let last: Vec<_> = history[12..]
        .iter()
        .map(|past| (past.to, past.attempt, past.reason.as_deref()))
        .collect();
    let expected = [
        (AppPhase::Relaunching, 19, Some("loss 19")),
        (AppPhase::Launching, 20, Some("on w1")),
        (AppPhase::Running, 20, None),
        (AppPhase::Killed, 20, Some("killed by request")),
    ];
    assert_eq!(last, expected);
    assert_eq!(t.master.apps()[0].history, []);
}

#[test]
fn a_reason_from_outside_is_kept_in_part() {
    let (mut t, app) = Harness::with_one_running(false);
    t.ended("w1", &app, 1, Outcome::Lost("é".repeat(100_000)));
    t.ignore();
    let message = t.status(&app).message.expect("it says why");
    assert_eq!(message.chars().count(), 513);
    assert!(message.ends_with('…'));
}

#[test]
fn every_outcome_has_its_state() {
    let cases = [
        (Outcome::Exited(0), AppPhase::Finished, Some(0), None),
        (Outcome::Exited(2), AppPhase::Failed, Some(2), None),
        (
            Outcome::Signaled(9),
            AppPhase::Failed,
            Some(137),
            Some("ended by signal 9"),
        ),
        (
            Outcome::Signaled(i32::MAX),
            AppPhase::Failed,
            Some(i32::MAX),
            Some("ended by signal 2147483647"),
        ),
        (Outcome::Killed, AppPhase::Killed, None, None),
        (
            Outcome::CouldNotStart("no bash".into()),
            AppPhase::Error,
            None,
            Some("no bash"),
        ),
        (
            Outcome::Lost("gone".into()),
            AppPhase::Error,
            None,
            Some("gone"),
        ),
    ];
    for (outcome, phase, exit_code, message) in cases {
        let (mut t, app) = Harness::with_one_running(false);
        t.ended("w1", &app, 1, outcome);
        t.ignore();
        let status = t.status(&app);
        assert_eq!(
            (status.phase, status.exit_code, status.message.as_deref()),
            (phase, exit_code, message)
        );
    }
}

#[test]
fn an_end_is_stored_before_the_worker_may_forget_it() {
    let (mut t, app) = Harness::with_one_running(false);
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.expect([
        "store app 0: FINISHED #1 on w1",
        "publish app 0: RUNNING -> FINISHED",
        "reply: noted",
    ]);
}

#[test]
fn a_declined_launch_puts_the_application_back_in_the_queue() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let app = t.submit(2, 512, false);
    t.tell(Event::WorkerLeaving { worker: id("w1") });
    t.ignore();
    t.ended("w1", &app, 1, Outcome::Declined("stopping".into()));
    t.expect([
        "store app 0: SUBMITTED #1",
        "publish app 0: LAUNCHING -> SUBMITTED",
        "reply: noted",
        "unstore w1",
        "publish w1: LEAVING -> DEAD",
    ]);
    t.register("w2", 4, 1024);
    t.ignore();
    assert_eq!(t.status(&app).attempt, 2);
}

#[test]
fn a_repeated_report_is_acknowledged_and_changes_nothing() {
    let (mut t, app) = Harness::with_one_running(false);
    t.started("w1", &app, 1);
    t.expect(["reply: noted"]);
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.ignore();
    t.ended("w1", &app, 1, Outcome::Exited(1));
    t.expect(["reply: noted"]);
    assert_eq!(t.status(&app).phase, AppPhase::Finished);
}

#[test]
fn a_report_of_an_earlier_attempt_changes_nothing() {
    let (mut t, app) = Harness::with_one_running(true);
    t.advance(Duration::from_secs(2));
    t.ended("w1", &app, 1, Outcome::Lost("stopped".into()));
    t.ignore();
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.expect(["reply: noted"]);
    let status = t.status(&app);
    assert_eq!((status.phase, status.attempt), (AppPhase::Launching, 2));
    assert_eq!(
        t.used("w1"),
        Resources {
            cores: 2,
            memory_mib: 512
        }
    );
}

#[test]
fn an_attempt_that_starts_too_late_is_killed() {
    let (mut t, app) = Harness::with_one_running(false);
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.ignore();
    t.started("w1", &app, 1);
    t.expect(["tell w1: kill app 0 #1", "reply: noted"]);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.expect(["reply: noted"]);
    assert_eq!(t.used("w1"), Resources::default());
}

#[test]
fn a_report_about_an_unknown_application_is_acknowledged() {
    let (mut t, _) = Harness::with_one_running(false);
    t.ended("w1", &"app-x".parse().unwrap(), 1, Outcome::Exited(0));
    t.expect(["reply: noted"]);
}

#[test]
fn a_worker_cannot_report_about_the_application_of_another() {
    let (mut t, app) = Harness::with_one_running(false);
    t.register("w2", 1, 1);
    t.ignore();
    t.ended("w2", &app, 1, Outcome::Exited(0));
    t.expect([&format!(
        "reply: refused: attempt 1 of {app} belongs to worker w1"
    )]);
    t.started("w2", &app, 1);
    t.expect([&format!(
        "reply: refused: attempt 1 of {app} belongs to worker w1"
    )]);
    t.ended("w1", &app, 9, Outcome::Exited(0));
    t.expect([&format!(
        "reply: refused: attempt 9 of {app} was never launched"
    )]);
    assert_eq!(t.status(&app).phase, AppPhase::Running);
}

#[test]
fn a_waiting_application_is_killed_at_once() {
    let mut t = Harness::new();
    let app = t.submit(1, 1, false);
    t.ignore();
    t.kill(&app);
    t.expect([
        "store app 0: KILLED #0",
        "publish app 0: SUBMITTED -> KILLED",
        "reply: yes: app 0 was killed before it ran",
    ]);
    t.register("w1", 4, 1024);
    t.expect([
        "store w1: 4 cores and 1024 MiB",
        "publish w1: ALIVE",
        "reply: epoch 7, every 15s",
    ]);
}

#[test]
fn a_running_application_is_killed_when_its_worker_says_so() {
    let (mut t, app) = Harness::with_one_running(true);
    t.kill(&app);
    t.expect([
        "store app 0: RUNNING #1 on w1, to be killed",
        "tell w1: kill app 0 #1",
        "reply: yes: app 0 is being killed on w1",
    ]);
    t.ended("w1", &app, 1, Outcome::Killed);
    t.expect([
        "store app 0: KILLED #1 on w1",
        "publish app 0: RUNNING -> KILLED",
        "reply: noted",
    ]);
    assert_eq!(t.used("w1"), Resources::default());
}

#[test]
fn a_kill_is_not_forgotten_while_the_worker_is_away() {
    let (mut t, app) = Harness::with_one_running(true);
    t.disconnect("w1");
    t.ignore();
    t.kill(&app);
    t.expect([
        "store app 0: UNKNOWN #1 on w1, to be killed",
        "reply: yes: app 0 will be killed as soon as w1 is back",
    ]);
    t.register_with("w1", 4, 1024, vec![held(&app, 1, AttemptState::Running)]);
    t.expect([
        "publish w1: DISCONNECTED -> ALIVE",
        "reply: epoch 7, every 15s",
        "store app 0: RUNNING #1 on w1, to be killed",
        "publish app 0: UNKNOWN -> RUNNING",
        "tell w1: kill app 0 #1",
    ]);
}

#[test]
fn an_application_that_is_to_be_killed_is_not_relaunched() {
    let (mut t, app) = Harness::with_one_running(true);
    t.kill(&app);
    t.advance(TIMEOUT / 2);
    t.ignore();
    t.advance(TIMEOUT / 2);
    t.expect([
        "unstore w1",
        "publish w1: DISCONNECTED -> DEAD",
        "store app 0: KILLED #1 on w1",
        "publish app 0: UNKNOWN -> KILLED",
    ]);
    assert_eq!(t.status(&app).message.as_deref(), Some("worker w1 lost"));
}

#[test]
fn what_has_ended_or_never_was_cannot_be_killed() {
    let (mut t, app) = Harness::with_one_running(false);
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.ignore();
    t.kill(&app);
    t.expect(["reply: no: app 0 has already ended: FINISHED"]);
    t.kill(&"app-x".parse().unwrap());
    t.expect(["reply: no: there is no application app-x"]);
}

#[test]
fn a_wait_is_answered_at_the_end_of_the_application() {
    let (mut t, app) = Harness::with_one_running(false);
    let deadline = t.now.instant + TIMEOUT / 2;
    t.tell(Event::WaitRequested {
        app: app.clone(),
        reply: ReplyTo(1),
        deadline,
    });
    t.tell(Event::WaitRequested {
        app: app.clone(),
        reply: ReplyTo(2),
        deadline,
    });
    t.tell(Event::WaitAbandoned { reply: ReplyTo(2) });
    t.expect([]);
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.expect([
        "store app 0: FINISHED #1 on w1",
        "publish app 0: RUNNING -> FINISHED",
        "reply 1: app 0 is FINISHED",
        "reply: noted",
    ]);
    t.tell(Event::WaitRequested {
        app,
        reply: ReplyTo(3),
        deadline,
    });
    t.expect(["reply 3: app 0 is FINISHED"]);
}

#[test]
fn a_wait_is_answered_at_its_deadline_with_how_things_stand() {
    let (mut t, app) = Harness::with_one_running(false);
    let deadline = t.now.instant + TIMEOUT / 4;
    t.tell(Event::WaitRequested {
        app,
        reply: ReplyTo(1),
        deadline,
    });
    assert_eq!(t.master.next_deadline(), Some(deadline));
    t.advance(TIMEOUT / 4);
    t.expect(["reply 1: app 0 is RUNNING"]);
    t.tell(Event::WaitRequested {
        app: "app-x".parse().unwrap(),
        reply: ReplyTo(2),
        deadline,
    });
    t.expect(["reply 2: no app-x"]);
}

#[test]
fn the_applications_that_ended_first_are_forgotten_beyond_the_limit() {
    let mut t = Harness::retaining(1);
    let first = t.submit(1, 1, false);
    let second = t.submit(1, 1, false);
    t.kill(&second);
    t.ignore();
    t.kill(&first);
    t.expect([
        "store app 0: KILLED #0",
        "publish app 0: SUBMITTED -> KILLED",
        "unstore app 1",
        "reply: yes: app 0 was killed before it ran",
    ]);
    assert_eq!(t.master.status(&second), None);
    assert_eq!(t.master.apps().len(), 1);
}

#[test]
fn a_description_that_cannot_work_is_refused_and_takes_no_number() {
    let mut t = Harness::new();
    t.tell(Event::Submitted {
        key: None,
        description: AppDescription::default().into(),
        reply: ReplyTo(0),
    });
    t.expect(["reply: no: name is empty"]);
    let app = t.submit(1, 1, false);
    assert!(app.as_str().ends_with("-0000"));
    t.ignore();
}

#[test]
fn an_end_is_told_when_it_is_stored_and_anything_else_at_once() {
    let (mut t, app) = Harness::with_one_running(false);
    let status = |t: &Harness| Effect::Reply(ReplyTo(1), Reply::Status(Box::new(t.status(&app))));
    assert!(status(&t).goes_ahead());
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.ignore();
    assert!(!status(&t).goes_ahead());
}

#[test]
fn a_submission_that_was_refused_leaves_nothing_behind() {
    let mut t = Harness::with(|settings| settings.tag_limits = [("*".to_owned(), 1)].into());
    t.register("w1", 4, 1024);
    let refused = t.submit(4, 1, false);
    let next = t.submit(4, 1, false);
    t.ignore();
    t.tell(Event::SubmissionWithdrawn {
        app: refused.clone(),
    });
    t.expect([
        "unstore app 0",
        "store app 1: LAUNCHING #1 on w1",
        "publish app 1: SUBMITTED -> LAUNCHING",
        "tell w1: launch app 1 #1",
    ]);
    assert_eq!(t.worker("w1").apps, [next]);
    assert!(t.master.status(&refused).is_none());
}
