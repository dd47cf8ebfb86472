//! What becomes of applications: launched, killed, ended, and found where an earlier worker left them.

use super::*;

#[test]
fn a_command_of_an_older_epoch_is_refused() {
    let mut t = Harness::running();
    t.launch(6, "app-1", 1);
    t.kill(6, "app-0", 1);
    t.command(WorkerCommand::Reregister { epoch: 6 });
    t.expect([]);
}

#[test]
fn a_command_of_a_newer_epoch_ends_the_rule_of_the_older() {
    let mut t = Harness::registered();
    t.launch(8, "app-0", 1);
    t.launch(7, "app-1", 1);
    t.expect([start("app-0", 1)]);
}

#[test]
fn a_second_launch_of_an_attempt_never_starts_it_again() {
    let mut t = Harness::running();
    t.launch(7, "app-0", 1);
    t.expect([]);
    t.exited("app-0", 1, Outcome::Exited(0));
    t.expect([report(M1, ended("app-0", 1, Outcome::Exited(0)))]);
    t.launch(7, "app-0", 1);
    t.acknowledge("app-0", 1);
    t.expect([settle("app-0", 1)]);
    // A master that still wants it has not understood, and is told.
    t.launch(7, "app-0", 1);
    let reason = "it, or a later attempt, was here before".to_owned();
    t.expect([report(M1, ended("app-0", 1, Outcome::Lost(reason)))]);
}

#[test]
fn a_launch_that_does_not_fit_is_reported_and_starts_nothing() {
    let mut t = Harness::running();
    t.launch(7, "app-1", 1);
    t.launch(7, "app-2", 1);
    let reason = "needs 2 cores and 512 MiB; the worker has 0 cores and 0 MiB left".to_owned();
    t.expect([
        start("app-1", 1),
        report(M1, ended("app-2", 1, Outcome::Declined(reason))),
    ]);
    assert_eq!(t.worker.used(), OFFERS);
}

#[test]
fn room_is_given_back_once_however_often_an_end_is_told() {
    let mut t = Harness::running();
    assert_eq!(t.worker.used(), NEEDS);
    t.exited("app-0", 1, Outcome::Exited(0));
    t.exited("app-0", 1, Outcome::Exited(0));
    t.expect([report(M1, ended("app-0", 1, Outcome::Exited(0)))]);
    assert_eq!(t.worker.used(), Resources::default());
}

#[test]
fn a_kill_asks_first_and_insists_after_the_grace() {
    let mut t = Harness::running();
    t.kill(7, "app-0", 1);
    t.kill(7, "app-0", 1);
    t.expect([signal("app-0", 1, Signal::Stop(ShutdownReason::Killed))]);
    t.advance(GRACE - Duration::from_millis(1));
    t.expect([]);
    t.advance(Duration::from_millis(1));
    t.expect([signal("app-0", 1, Signal::Kill(ShutdownReason::Killed))]);
    t.exited("app-0", 1, Outcome::Signaled(9));
    t.expect([report(M1, ended("app-0", 1, Outcome::Killed))]);
}

#[test]
fn a_killed_application_that_exits_by_itself_was_killed() {
    let mut t = Harness::running();
    t.kill(7, "app-0", 1);
    t.exited("app-0", 1, Outcome::Exited(0));
    t.expect([
        signal("app-0", 1, Signal::Stop(ShutdownReason::Killed)),
        report(M1, ended("app-0", 1, Outcome::Killed)),
    ]);
    t.advance(GRACE);
    t.expect([]);
}

#[test]
fn a_kill_of_what_is_not_here_is_answered_and_stops_a_launch_that_is_late() {
    let mut t = Harness::registered();
    t.kill(7, "app-0", 1);
    t.expect([report(
        M1,
        ended(
            "app-0",
            1,
            Outcome::Lost("the worker does not hold it".into()),
        ),
    )]);
    t.launch(7, "app-0", 1);
    t.expect([]);
}

#[test]
fn a_later_attempt_waits_until_the_earlier_is_gone() {
    let mut t = Harness::running();
    t.launch(7, "app-0", 2);
    t.expect([signal("app-0", 1, Signal::Stop(ShutdownReason::Killed))]);
    t.exited("app-0", 1, Outcome::Signaled(15));
    t.expect([
        report(M1, ended("app-0", 1, Outcome::Killed)),
        start("app-0", 2),
    ]);
}

#[test]
fn an_attempt_that_waits_for_an_earlier_one_is_killed_at_once() {
    let mut t = Harness::running();
    t.launch(7, "app-0", 2);
    t.kill(7, "app-0", 2);
    t.expect([
        signal("app-0", 1, Signal::Stop(ShutdownReason::Killed)),
        report(M1, ended("app-0", 2, Outcome::Killed)),
    ]);
    t.exited("app-0", 1, Outcome::Exited(0));
    t.expect([report(M1, ended("app-0", 1, Outcome::Killed))]);
}

#[test]
fn applications_run_on_without_a_master_and_are_named_to_the_next() {
    let mut t = Harness::running();
    t.lose_master();
    t.expect([register(M1, vec![held("app-0", 1, AttemptState::Running)])]);
    t.answer_no(M1);
    t.expect([register(M2, vec![held("app-0", 1, AttemptState::Running)])]);
    t.answer(M2, 8);
    t.expect([]);
}

#[test]
fn what_started_or_ended_without_a_master_is_told_to_the_next() {
    let mut t = Harness::running();
    t.launch(7, "app-1", 1);
    t.lose_master();
    let attempts = vec![
        held("app-0", 1, AttemptState::Running),
        held("app-1", 1, AttemptState::Starting),
    ];
    t.expect([start("app-1", 1), register(M1, attempts)]);
    t.exited("app-0", 1, Outcome::Exited(0));
    t.tell(Event::AppStarted {
        app: app("app-1"),
        attempt: 1,
    });
    t.expect([]);
    t.answer(M1, 8);
    t.expect([
        report(M1, started("app-1", 1)),
        report(M1, ended("app-0", 1, Outcome::Exited(0))),
    ]);
}

#[test]
fn an_end_is_reported_again_until_it_is_acknowledged() {
    let mut t = Harness::running();
    t.exited("app-0", 1, Outcome::Exited(0));
    let told = report(M1, ended("app-0", 1, Outcome::Exited(0)));
    t.expect([told.clone()]);
    t.lose_master();
    t.expect([register(M1, vec![held("app-0", 1, AttemptState::Ended)])]);
    t.answer(M1, 8);
    t.expect([told.clone()]);
    t.advance(INTERVAL);
    t.expect([heartbeat(), told]);
    t.acknowledge("app-0", 1);
    t.expect([settle("app-0", 1)]);
    t.advance(INTERVAL);
    t.expect([heartbeat()]);
    t.lose_master();
    t.expect([register(M1, vec![])]);
}

#[test]
fn what_an_earlier_worker_left_running_is_held_and_what_ended_meanwhile_is_reported() {
    let mut t = Harness::new();
    t.tell(found("app-0", 1, FoundState::Running));
    t.tell(found("app-1", 2, FoundState::Ended(Outcome::Exited(3))));
    t.tell(found("app-2", 1, FoundState::Settled));
    assert_eq!(t.worker.used(), NEEDS);
    t.tell(Event::Started);
    let over = HeldAttempt {
        occupies: Resources::default(),
        ..held("app-1", 2, AttemptState::Ended)
    };
    let running = held("app-0", 1, AttemptState::Running);
    t.expect([register(M1, vec![running, over])]);
    t.answer(M1, 7);
    t.expect([report(M1, ended("app-1", 2, Outcome::Exited(3)))]);
    t.acknowledge("app-1", 2);
    t.expect([settle("app-1", 2)]);
    // Launches that are late start none of them again.
    t.launch(7, "app-0", 1);
    t.expect([]);
    for (id, attempt) in [("app-1", 2), ("app-2", 1)] {
        t.launch(7, id, attempt);
        let reason = "it, or a later attempt, was here before".to_owned();
        t.expect([report(M1, ended(id, attempt, Outcome::Lost(reason)))]);
    }
    t.exited("app-0", 1, Outcome::Exited(0));
    t.expect([report(M1, ended("app-0", 1, Outcome::Exited(0)))]);
}

#[test]
fn more_than_is_offered_may_be_found_and_then_nothing_is_free() {
    let mut t = Harness::new();
    for id in ["app-0", "app-1", "app-2"] {
        t.tell(found(id, 1, FoundState::Running));
    }
    t.tell(Event::Started);
    t.answer(M1, 7);
    t.unclaimed.clear();
    t.launch(7, "app-3", 1);
    let reason = "needs 2 cores and 512 MiB; the worker has 0 cores and 0 MiB left";
    t.expect([report(
        M1,
        ended("app-3", 1, Outcome::Declined(reason.into())),
    )]);
}

#[test]
fn the_grace_is_that_of_the_description() {
    let mut t = Harness::new();
    let mut patient = (*description()).clone();
    patient.stop.grace_millis = Some(60_000);
    t.tell(Event::AppFound(FoundApp {
        app: app("app-0"),
        attempt: 1,
        description: Arc::new(patient),
        state: FoundState::Running,
    }));
    t.tell(Event::Started);
    t.answer(M1, 7);
    t.unclaimed.clear();
    t.kill(7, "app-0", 1);
    t.expect([signal("app-0", 1, Signal::Stop(ShutdownReason::Killed))]);
    t.now.instant += 59 * SECOND;
    t.tell(Event::Tick);
    t.expect([heartbeat()]);
    t.now.instant += SECOND;
    t.tell(Event::Tick);
    t.expect([signal("app-0", 1, Signal::Kill(ShutdownReason::Killed))]);
}
