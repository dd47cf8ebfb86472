//! How a worker ends.

use super::*;

#[test]
fn a_worker_that_stops_leaves_asks_its_applications_to_end_and_waits_for_the_acknowledgement() {
    let mut t = Harness::running();
    t.stop(true);
    t.expect([
        leave(),
        signal("app-0", 1, Signal::Stop(ShutdownReason::WorkerStops)),
    ]);
    t.exited("app-0", 1, Outcome::Exited(0));
    t.expect([report(
        M1,
        ended("app-0", 1, Outcome::Lost("stopped with its worker".into())),
    )]);
    t.acknowledge("app-0", 1);
    t.expect([settle("app-0", 1), Effect::Exit(ExitReason::Stopped)]);
    assert_eq!(t.worker.next_deadline(), None);
}

#[test]
fn a_kill_during_the_stop_is_still_a_kill() {
    let mut t = Harness::running();
    t.stop(true);
    t.kill(7, "app-0", 1);
    t.exited("app-0", 1, Outcome::Exited(0));
    t.expect([
        leave(),
        signal("app-0", 1, Signal::Stop(ShutdownReason::WorkerStops)),
        signal("app-0", 1, Signal::Stop(ShutdownReason::Killed)),
        report(M1, ended("app-0", 1, Outcome::Killed)),
    ]);
}

#[test]
fn a_stopping_worker_declines_launches() {
    let mut t = Harness::running();
    t.stop(true);
    t.launch(7, "app-1", 1);
    let declined = Outcome::Declined("the worker is stopping".into());
    t.expect([
        leave(),
        signal("app-0", 1, Signal::Stop(ShutdownReason::WorkerStops)),
        report(M1, ended("app-1", 1, declined)),
    ]);
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut t = Harness::running();
    t.stop(true);
    t.advance(GRACE);
    t.expect([
        leave(),
        signal("app-0", 1, Signal::Stop(ShutdownReason::WorkerStops)),
        signal("app-0", 1, Signal::Kill(ShutdownReason::WorkerStops)),
    ]);
    t.advance(GRACE);
    t.expect([heartbeat(), Effect::Exit(ExitReason::GaveUpWaiting)]);
}

#[test]
fn a_second_request_stops_at_once() {
    let mut t = Harness::running();
    t.stop(true);
    t.stop(true);
    t.expect([
        leave(),
        signal("app-0", 1, Signal::Stop(ShutdownReason::WorkerStops)),
        Effect::Exit(ExitReason::GaveUpWaiting),
    ]);
    t.launch(7, "app-1", 1);
    t.expect([]);
}

#[test]
fn applications_may_be_left_to_a_successor() {
    let mut t = Harness::running();
    t.stop(false);
    t.expect([Effect::Exit(ExitReason::Stopped)]);
}

#[test]
fn a_worker_that_is_told_to_leave_says_so_and_ends() {
    let mut t = Harness::registered();
    t.command(WorkerCommand::Leave { epoch: 7 });
    t.expect([leave(), Effect::Exit(ExitReason::Drained)]);
}

#[test]
fn one_that_holds_something_all_the_same_stays_and_so_does_one_told_by_an_older_epoch() {
    let mut t = Harness::running();
    t.command(WorkerCommand::Leave { epoch: 7 });
    t.expect([]);
    let mut t = Harness::registered();
    t.command(WorkerCommand::Leave { epoch: 6 });
    t.expect([]);
}

#[test]
fn an_idle_worker_says_goodbye_and_stops_at_once() {
    let mut t = Harness::registered();
    t.stop(false);
    t.expect([leave(), Effect::Exit(ExitReason::Stopped)]);
}

#[test]
fn a_worker_that_is_refused_ends_its_applications_and_itself() {
    let mut t = Harness::running();
    t.lose_master();
    let answer = RegistrationAnswer::Refused {
        reason: "no".into(),
    };
    t.tell(answered(M1, answer, *START));
    t.expect([
        register(M1, vec![held("app-0", 1, AttemptState::Running)]),
        signal("app-0", 1, Signal::Stop(ShutdownReason::WorkerStops)),
    ]);
    assert_eq!(
        t.worker.registration(),
        &Registration::GaveUp {
            reason: "no".into()
        }
    );
    t.exited("app-0", 1, Outcome::Signaled(15));
    t.expect([Effect::Exit(ExitReason::Refused("no".into()))]);
}
