//! A worker that is cut off from every master, and what it does then with what may be started elsewhere.

use super::*;

/// What the master says with `INTERVAL`, and what the worker takes it for before.
const TIMEOUT: Duration = Duration::from_secs(60);
const CUT_OFF: &str = "stopped: cut off from every master";

fn supervised() -> Arc<AppDescription> {
    Arc::new(AppDescription {
        supervise: true,
        ..(*description()).clone()
    })
}

/// One that was taken at the beginning, and runs `app-0` supervised and `app-1` not.
fn running() -> Harness {
    let mut t = Harness::stopping_when_cut_off(Some(TIMEOUT));
    t.tell(Event::Started);
    t.answer(M1, 7);
    launch_supervised(&mut t, "app-0");
    t.launch(7, "app-1", 1);
    for id in ["app-0", "app-1"] {
        t.tell(Event::AppStarted {
            app: app(id),
            attempt: 1,
        });
    }
    t.unclaimed.clear();
    t
}

fn launch_supervised(t: &mut Harness, id: &str) {
    t.command(WorkerCommand::LaunchApp {
        epoch: 7,
        app: app(id),
        attempt: 1,
        description: supervised(),
    });
}

fn acknowledge(t: &mut Harness, sent: Duration) {
    t.tell(Event::HeartbeatAcknowledged {
        master: M1.into(),
        sent: *START + sent,
    });
}

/// Lets time go by in small steps, as the shell's timer does, without a word from any master.
fn silence(t: &mut Harness, until: Duration) {
    while t.now.instant < *START + until {
        t.advance(SECOND);
    }
    let signal = |effect: &Effect| matches!(effect, Effect::SignalApp { .. });
    t.unclaimed.retain(signal);
}

fn stop() -> Effect {
    signal("app-0", 1, Signal::Stop(ShutdownReason::CutOff))
}

#[test]
fn after_half_of_the_timeout_supervised_applications_are_asked_to_end_and_others_run_on() {
    let mut t = running();
    silence(&mut t, TIMEOUT / 2 - SECOND);
    t.expect([]);
    t.advance(SECOND);
    t.unclaimed.retain(|effect| *effect != heartbeat());
    t.expect([stop()]);
    t.exited("app-0", 1, Outcome::Exited(0));
    let lost = ended("app-0", 1, Outcome::Lost(CUT_OFF.into()));
    t.expect([report(M1, lost)]);
    silence(&mut t, 10 * TIMEOUT);
    t.expect([]);
    assert_eq!(t.worker.used(), NEEDS);
}

#[test]
fn what_does_not_end_is_killed_at_three_quarters_however_long_its_grace() {
    for grace_millis in [None, Some(86_400_000)] {
        let mut t = Harness::stopping_when_cut_off(Some(TIMEOUT));
        t.tell(Event::Started);
        t.answer(M1, 7);
        let mut patient = (*supervised()).clone();
        patient.stop.grace_millis = grace_millis;
        t.command(WorkerCommand::LaunchApp {
            epoch: 7,
            app: app("app-0"),
            attempt: 1,
            description: Arc::new(patient),
        });
        silence(&mut t, TIMEOUT / 2);
        t.expect([stop()]);
        let kill_at = TIMEOUT / 2 + GRACE.min(TIMEOUT / 4);
        let kill_at = if grace_millis.is_some() {
            TIMEOUT / 4 * 3
        } else {
            kill_at
        };
        silence(&mut t, kill_at - SECOND);
        t.expect([]);
        silence(&mut t, kill_at);
        t.expect([signal("app-0", 1, Signal::Kill(ShutdownReason::CutOff))]);
    }
}

#[test]
fn an_acknowledgement_counts_from_when_the_heartbeat_was_sent() {
    let mut t = running();
    silence(&mut t, 29 * SECOND);
    // Sent at 15 s, heard late: the master may have heard it then and nothing since.
    acknowledge(&mut t, INTERVAL);
    silence(&mut t, INTERVAL + TIMEOUT / 2 - SECOND);
    t.expect([]);
    // One that was sent before says nothing new.
    acknowledge(&mut t, SECOND);
    silence(&mut t, INTERVAL + TIMEOUT / 2);
    t.expect([stop()]);
}

#[test]
fn while_it_is_acknowledged_nothing_is_stopped() {
    let mut t = running();
    for beat in 1..100 {
        silence(&mut t, beat * INTERVAL);
        acknowledge(&mut t, beat * INTERVAL);
    }
    t.expect([]);
}

#[test]
fn another_masters_word_is_none() {
    let mut t = running();
    silence(&mut t, 20 * SECOND);
    t.tell(Event::HeartbeatAcknowledged {
        master: M2.into(),
        sent: *START + INTERVAL,
    });
    silence(&mut t, TIMEOUT / 2);
    t.expect([stop()]);
}

#[test]
fn a_registration_in_time_is_as_good_as_a_heartbeat() {
    let mut t = running();
    silence(&mut t, 20 * SECOND);
    t.lose_master();
    t.answer_no(M1);
    t.answer(M2, 8);
    t.unclaimed.clear();
    silence(&mut t, 20 * SECOND + TIMEOUT / 2 - SECOND);
    t.expect([]);
    silence(&mut t, 20 * SECOND + TIMEOUT / 2);
    t.expect([stop()]);
}

#[test]
fn a_master_of_an_older_epoch_does_not_keep_them_running() {
    let mut t = running();
    silence(&mut t, 20 * SECOND);
    t.lose_master();
    t.answer(M1, 6);
    t.unclaimed.clear();
    silence(&mut t, TIMEOUT / 2);
    t.expect([stop()]);
}

#[test]
fn the_timeout_is_that_of_the_master_once_it_said_so() {
    let mut t = Harness::stopping_when_cut_off(Some(TIMEOUT));
    t.tell(Event::Started);
    let answer = RegistrationAnswer::Registered {
        epoch: 7,
        heartbeat_interval: SECOND,
    };
    t.tell(answered(M1, answer, *START));
    launch_supervised(&mut t, "app-0");
    let launched = Effect::StartApp {
        app: app("app-0"),
        attempt: 1,
        description: supervised(),
        // So long its runner waits for a worker that is gone, and then for its end.
        alone_max: Some(SECOND),
    };
    t.expect([register(M1, vec![]), launched]);
    t.advance(2 * SECOND);
    t.expect([stop(), heartbeat()]);
}

#[test]
fn a_launch_that_comes_while_it_is_cut_off_must_be_said_again() {
    let mut t = running();
    silence(&mut t, TIMEOUT / 2);
    t.exited("app-0", 1, Outcome::Exited(0));
    t.exited("app-1", 1, Outcome::Exited(0));
    t.unclaimed.clear();
    launch_supervised(&mut t, "app-2");
    t.expect([]);
    t.launch(7, "app-3", 1);
    t.expect([start("app-3", 1)]);
    // It may have been under way for as long as the worker was cut off.
    acknowledge(&mut t, TIMEOUT / 2);
    t.expect([]);
    launch_supervised(&mut t, "app-2");
    let launched = Effect::StartApp {
        app: app("app-2"),
        attempt: 1,
        description: supervised(),
        alone_max: Some(TIMEOUT / 4),
    };
    t.expect([launched]);
}

#[test]
fn a_worker_that_stood_still_launches_nothing_before_it_knows_the_time() {
    let mut t = running();
    t.now.instant += TIMEOUT;
    launch_supervised(&mut t, "app-2");
    t.expect([]);
}

#[test]
fn a_launch_that_is_no_longer_wanted_when_a_master_is_back_starts_nothing() {
    let mut t = running();
    silence(&mut t, TIMEOUT / 2);
    t.exited("app-0", 1, Outcome::Exited(0));
    t.unclaimed.clear();
    launch_supervised(&mut t, "app-2");
    t.kill(7, "app-2", 1);
    let lost = Outcome::Lost("the worker does not hold it".into());
    t.expect([report(M1, ended("app-2", 1, lost))]);
    acknowledge(&mut t, TIMEOUT / 2);
    launch_supervised(&mut t, "app-2");
    t.expect([]);
}

#[test]
fn a_kill_by_request_is_told_as_one_also_while_it_is_cut_off() {
    let mut t = running();
    silence(&mut t, TIMEOUT / 2);
    t.kill(7, "app-0", 1);
    t.exited("app-0", 1, Outcome::Signaled(15));
    t.expect([
        stop(),
        signal("app-0", 1, Signal::Stop(ShutdownReason::Killed)),
        report(M1, ended("app-0", 1, Outcome::Killed)),
    ]);
}

#[test]
fn what_an_earlier_worker_left_is_given_an_eighth_to_find_a_master() {
    let mut t = Harness::stopping_when_cut_off(Some(TIMEOUT));
    t.tell(Event::AppFound(FoundApp {
        app: app("app-0"),
        attempt: 1,
        description: supervised(),
        state: FoundState::Running,
    }));
    t.tell(Event::Started);
    silence(&mut t, Duration::from_secs(7));
    t.expect([]);
    silence(&mut t, Duration::from_secs(8));
    t.expect([stop()]);
    silence(&mut t, TIMEOUT / 4);
    t.expect([signal("app-0", 1, Signal::Kill(ShutdownReason::CutOff))]);
}

#[test]
fn a_worker_whose_time_runs_looks_for_a_master_more_often() {
    let mut t = Harness::stopping_when_cut_off(Some(4 * SECOND));
    t.tell(Event::Started);
    for round in 0..20 {
        t.answer_no(M1);
        t.answer_no(M2);
        let pause = t.worker.next_deadline().expect("a pause") - t.now.instant;
        assert!(pause <= SECOND / 2, "paused for {pause:?} in round {round}");
        t.advance(pause);
        t.unclaimed.clear();
    }
}

#[test]
fn by_default_everything_runs_on() {
    let mut t = Harness::registered();
    launch_supervised(&mut t, "app-0");
    t.unclaimed.clear();
    silence(&mut t, 10 * TIMEOUT);
    t.expect([]);
}

#[test]
fn a_registration_that_is_answered_late_counts_from_when_it_was_sent() {
    let mut t = Harness::stopping_when_cut_off(Some(TIMEOUT));
    t.tell(Event::Started);
    t.now.instant += 5 * SECOND;
    let answer = RegistrationAnswer::Registered {
        epoch: 7,
        heartbeat_interval: INTERVAL,
    };
    t.tell(answered(M1, answer, *START));
    launch_supervised(&mut t, "app-0");
    silence(&mut t, TIMEOUT / 2 - SECOND);
    t.expect([]);
    silence(&mut t, TIMEOUT / 2);
    t.expect([stop()]);
}

#[test]
fn an_acknowledgement_that_was_overtaken_takes_no_time_away() {
    let mut t = running();
    silence(&mut t, 20 * SECOND);
    acknowledge(&mut t, 20 * SECOND);
    acknowledge(&mut t, 10 * SECOND);
    silence(&mut t, 20 * SECOND + TIMEOUT / 2 - SECOND);
    t.expect([]);
    silence(&mut t, 20 * SECOND + TIMEOUT / 2);
    t.expect([stop()]);
}
