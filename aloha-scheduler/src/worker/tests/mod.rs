//! The rules of the worker, each with its sentence.

mod called;
mod cut_off;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::app::AppDescription;
use crate::application::ShutdownReason;
use crate::attempt::{AttemptReport, AttemptState, HeldAttempt, Outcome};
use crate::constraint::Attributes;
use crate::ids::AppId;
use crate::master::WorkerCommand;
use crate::now::Now;
use crate::resources::Resources;
use crate::runner::CgroupSupport;

const M1: &str = "m1:7077";
const M2: &str = "m2:7077";
const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(10);
const OFFERS: Resources = Resources {
    cores: 4,
    memory_mib: 1024,
};
const NEEDS: Resources = Resources {
    cores: 2,
    memory_mib: 512,
};

/// When every test begins.
#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do, and there is no other way to have one"
)]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A worker, a hand-turned clock, and the effects no assertion has claimed yet.
struct Harness {
    worker: WorkerCore,
    now: Now,
    unclaimed: Vec<Effect>,
}

impl Harness {
    fn new() -> Self {
        Self::stopping_when_cut_off(None)
    }

    fn stopping_when_cut_off(cut_off_timeout: Option<Duration>) -> Self {
        let settings = WorkerSettings {
            id: "w1".parse().unwrap(),
            host: "h".into(),
            port: 1,
            offers: OFFERS,
            enforces: CgroupSupport::none("no kernel"),
            attributes: Attributes::new(),
            masters: vec![M1.into(), M2.into()],
            backoff: Backoff {
                answer_within: SECOND,
                pause_min: SECOND,
                pause_max: 60 * SECOND,
                jitter_seed: 1,
            },
            kill_grace: GRACE,
            retained_apps: 3,
            cut_off_timeout,
        };
        let now = Now {
            instant: *START,
            wall: SystemTime::UNIX_EPOCH,
        };
        Self {
            worker: WorkerCore::new(settings),
            now,
            unclaimed: Vec::new(),
        }
    }

    /// One that `M1` has taken, under epoch 7.
    fn registered() -> Self {
        let mut t = Self::new();
        t.tell(Event::Started);
        t.answer(M1, 7);
        t.expect([register(M1, vec![])]);
        t
    }

    /// One that runs attempt 1 of `app-0`.
    fn running() -> Self {
        let mut t = Self::registered();
        t.launch(7, "app-0", 1);
        t.tell(Event::AppStarted {
            app: app("app-0"),
            attempt: 1,
        });
        t.expect([start("app-0", 1), report(M1, started("app-0", 1))]);
        t
    }

    fn tell(&mut self, event: Event) {
        let effects = self.worker.handle(event, self.now);
        self.unclaimed.extend(effects.into_iter().map(plain));
        self.worker.check_invariants();
    }

    fn advance(&mut self, by: Duration) {
        self.now.instant += by;
        self.tell(Event::Tick);
    }

    /// Turns the clock to the next deadline.
    #[track_caller]
    fn advance_to_deadline(&mut self) -> Duration {
        let by = self.worker.next_deadline().expect("there is a deadline") - self.now.instant;
        self.advance(by);
        by
    }

    #[track_caller]
    fn expect<const N: usize>(&mut self, effects: [Effect; N]) {
        assert_eq!(std::mem::take(&mut self.unclaimed), effects);
    }

    fn answer(&mut self, master: &str, epoch: u64) {
        let answer = RegistrationAnswer::Registered {
            epoch,
            heartbeat_interval: INTERVAL,
        };
        let sent = self.now.instant;
        self.tell(answered(master, answer, sent));
    }

    fn answer_no(&mut self, master: &str) {
        let sent = self.now.instant;
        self.tell(answered(master, RegistrationAnswer::Standby, sent));
    }

    fn command(&mut self, command: WorkerCommand) {
        self.tell(Event::Commanded {
            master: M1.into(),
            command,
        });
    }

    fn launch(&mut self, epoch: u64, id: &str, attempt: u32) {
        self.command(WorkerCommand::LaunchApp {
            epoch,
            app: app(id),
            attempt,
            description: description(),
        });
    }

    fn kill(&mut self, epoch: u64, id: &str, attempt: u32) {
        self.command(WorkerCommand::KillApp {
            epoch,
            app: app(id),
            attempt,
        });
    }

    fn exited(&mut self, id: &str, attempt: u32, outcome: Outcome) {
        self.tell(Event::AppExited {
            app: app(id),
            attempt,
            outcome,
        });
    }

    fn acknowledge(&mut self, id: &str, attempt: u32) {
        self.tell(Event::ReportAcknowledged {
            app: app(id),
            attempt,
        });
    }

    fn lose_master(&mut self) {
        self.tell(Event::MasterDisconnected { master: M1.into() });
    }

    fn stop(&mut self, stop_apps: bool) {
        self.tell(Event::StopRequested { stop_apps });
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.unclaimed, [], "effects that no assertion claimed");
        }
    }
}

fn app(id: &str) -> AppId {
    id.parse().unwrap()
}

fn description() -> Arc<AppDescription> {
    let (cores, memory_mib) = (NEEDS.cores, NEEDS.memory_mib);
    Arc::new(AppDescription {
        cores,
        memory_mib,
        ..AppDescription::default()
    })
}

fn settle(id: &str, attempt: u32) -> Effect {
    Effect::Settle {
        app: app(id),
        attempt,
    }
}

fn register(master: &str, attempts: Vec<HeldAttempt>) -> Effect {
    let registration = WorkerRegistration {
        id: "w1".parse().unwrap(),
        host: "h".into(),
        port: 1,
        offers: OFFERS,
        attempts,
        enforces: CgroupSupport::none("no kernel"),
        attributes: Attributes::new(),
        epoch: 0,
    };
    Effect::Register {
        master: master.into(),
        registration,
        sent: *START,
    }
}

fn answered(master: &str, answer: RegistrationAnswer, sent: Instant) -> Event {
    Event::RegistrationAnswered {
        master: master.into(),
        answer,
        sent,
    }
}

/// An effect without what only an adopting master looks at, and as if it were from the beginning.
fn plain(mut effect: Effect) -> Effect {
    match &mut effect {
        Effect::Register {
            registration, sent, ..
        } => {
            *sent = *START;
            registration.epoch = 0;
            for held in &mut registration.attempts {
                (held.epoch, held.description) = (0, None);
            }
        }
        Effect::SendHeartbeat { sent, .. } => *sent = *START,
        _ => {}
    }
    effect
}

fn held(id: &str, attempt: u32, state: AttemptState) -> HeldAttempt {
    let occupies = if state == AttemptState::Ended {
        Resources::default()
    } else {
        NEEDS
    };
    HeldAttempt {
        app: app(id),
        attempt,
        occupies,
        state,
        epoch: 0,
        description: None,
    }
}

fn start(id: &str, attempt: u32) -> Effect {
    Effect::StartApp {
        app: app(id),
        attempt,
        description: description(),
        alone_max: None,
    }
}

fn signal(id: &str, attempt: u32, signal: Signal) -> Effect {
    Effect::SignalApp {
        app: app(id),
        attempt,
        signal,
    }
}

fn started(id: &str, attempt: u32) -> AttemptReport {
    AttemptReport::Started {
        app: app(id),
        attempt,
    }
}

fn ended(id: &str, attempt: u32, outcome: Outcome) -> AttemptReport {
    AttemptReport::Ended {
        app: app(id),
        attempt,
        outcome,
    }
}

fn report(master: &str, report: AttemptReport) -> Effect {
    Effect::Report {
        master: master.into(),
        report,
    }
}

fn heartbeat() -> Effect {
    Effect::SendHeartbeat {
        master: M1.into(),
        sent: *START,
    }
}

fn leave() -> Effect {
    Effect::Leave { master: M1.into() }
}

#[test]
fn masters_are_asked_in_turn_and_then_after_a_pause_again() {
    let mut t = Harness::new();
    assert_eq!(t.worker.next_deadline(), None);
    t.tell(Event::Started);
    t.expect([register(M1, vec![])]);
    t.answer_no(M1);
    t.expect([register(M2, vec![])]);
    t.answer_no(M2);
    t.expect([]);
    let pause = t.advance_to_deadline();
    assert!(
        SECOND / 2 <= pause && pause <= SECOND,
        "paused for {pause:?}"
    );
    t.expect([register(M1, vec![])]);
}

#[test]
fn a_master_that_does_not_answer_is_passed_over() {
    let mut t = Harness::new();
    t.tell(Event::Started);
    t.advance(SECOND - Duration::from_millis(1));
    t.expect([register(M1, vec![])]);
    t.advance(Duration::from_millis(1));
    t.expect([register(M2, vec![])]);
    // What the first says too late is no answer of the second.
    t.answer_no(M1);
    t.expect([]);
}

#[test]
fn the_search_never_ends_and_its_pauses_stay_bounded() {
    let mut t = Harness::new();
    t.tell(Event::Started);
    for _ in 0..1000 {
        assert!(t.advance_to_deadline() <= 60 * SECOND);
    }
    assert!(matches!(
        t.worker.registration(),
        Registration::Searching { .. }
    ));
    t.unclaimed.clear();
}

#[test]
fn a_registered_worker_sends_heartbeats_at_the_interval_it_was_given() {
    let mut t = Harness::registered();
    for _ in 0..3 {
        assert_eq!(t.advance_to_deadline(), INTERVAL);
        t.expect([heartbeat()]);
    }
}

#[test]
fn registering_again_does_not_multiply_heartbeats() {
    let mut t = Harness::registered();
    for _ in 0..5 {
        t.command(WorkerCommand::Reregister { epoch: 7 });
        t.answer(M1, 7);
        t.expect([register(M1, vec![])]);
    }
    t.advance(INTERVAL);
    t.expect([heartbeat()]);
    assert_eq!(t.worker.next_deadline(), Some(t.now.instant + INTERVAL));
}

#[test]
fn being_told_twice_to_register_asks_once() {
    let mut t = Harness::registered();
    t.command(WorkerCommand::Reregister { epoch: 7 });
    t.command(WorkerCommand::Reregister { epoch: 7 });
    t.expect([register(M1, vec![])]);
}

#[test]
fn a_master_with_an_older_epoch_is_not_accepted() {
    let mut t = Harness::registered();
    t.lose_master();
    t.answer(M1, 6);
    t.expect([register(M1, vec![]), register(M2, vec![])]);
    t.answer(M2, 8);
    assert_eq!(t.worker.registration().master(), Some(M2));
}

#[test]
fn a_newer_leader_takes_over_and_an_older_one_does_not() {
    let mut t = Harness::registered();
    t.answer(M2, 7);
    assert_eq!(t.worker.registration().master(), Some(M1));
    t.answer(M2, 8);
    assert_eq!(t.worker.registration().master(), Some(M2));
    t.lose_master();
    assert_eq!(t.worker.registration().master(), Some(M2));
}

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

fn found(id: &str, attempt: u32, state: FoundState) -> Event {
    Event::AppFound(FoundApp {
        app: app(id),
        attempt,
        description: description(),
        state,
    })
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

fn event() -> impl Strategy<Value = Event> {
    let id = || (0u8..5).prop_map(|n| app(&format!("app-{n}")));
    let (attempt, epoch) = (1u32..4, 5u64..9);
    let sent = || (0u64..1000).prop_map(|seconds| *START + Duration::from_secs(seconds));
    let master = || prop_oneof![Just(M1.to_owned()), Just(M2.to_owned())];
    let launch = (epoch.clone(), id(), attempt.clone(), 1u32..4, any::<bool>()).prop_map(
        |(epoch, app, attempt, cores, supervise)| {
            let description = Arc::new(AppDescription {
                cores,
                supervise,
                memory_mib: 100,
                ..AppDescription::default()
            });
            WorkerCommand::LaunchApp {
                epoch,
                app,
                attempt,
                description,
            }
        },
    );
    let kill = (epoch.clone(), id(), attempt.clone()).prop_map(|(epoch, app, attempt)| {
        WorkerCommand::KillApp {
            epoch,
            app,
            attempt,
        }
    });
    let again = epoch
        .clone()
        .prop_map(|epoch| WorkerCommand::Reregister { epoch });
    let leave = epoch
        .clone()
        .prop_map(|epoch| WorkerCommand::Leave { epoch });
    let command = prop_oneof![6 => launch, 4 => kill, 2 => again, 1 => leave];
    let outcome = prop_oneof![Just(Outcome::Exited(0)), Just(Outcome::Signaled(9))];
    let answer = prop_oneof![
        3 => epoch.prop_map(|epoch| RegistrationAnswer::Registered { epoch, heartbeat_interval: INTERVAL }),
        1 => Just(RegistrationAnswer::Standby),
        1 => Just(RegistrationAnswer::Unreachable),
    ];
    prop_oneof![
        1 => Just(Event::Started),
        3 => (master(), answer, sent()).prop_map(|(master, answer, sent)| answered(&master, answer, sent)),
        2 => (master(), sent()).prop_map(|(master, sent)| Event::HeartbeatAcknowledged { master, sent }),
        1 => master().prop_map(|master| Event::MasterDisconnected { master }),
        8 => (master(), command).prop_map(|(master, command)| Event::Commanded { master, command }),
        3 => (id(), attempt.clone()).prop_map(|(app, attempt)| Event::AppStarted { app, attempt }),
        5 => (id(), attempt.clone(), outcome).prop_map(|(app, attempt, outcome)| {
            Event::AppExited { app, attempt, outcome }
        }),
        3 => (id(), attempt).prop_map(|(app, attempt)| Event::ReportAcknowledged { app, attempt }),
        4 => Just(Event::Tick),
        1 => Just(Event::StopRequested { stop_apps: true }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// `check_invariants` holds after every event (no more is used than there is, one attempt of an application at a
    /// time); what is reported ended once was started or refused, and nothing follows the exit.
    #[test]
    fn whatever_happens_the_tables_agree_and_every_attempt_is_accounted_for(
        left in prop::collection::btree_map(0u8..5, (1u32..4, 0u8..3), 0..4),
        events in prop::collection::vec((event(), 0u64..20), 0..150),
        cut_off in any::<bool>(),
    ) {
        let mut t = Harness::stopping_when_cut_off(cut_off.then_some(60 * SECOND));
        let mut running = BTreeSet::new();
        for (n, (attempt, state)) in left {
            let id = format!("app-{n}");
            let state = match state {
                0 => {
                    running.insert((app(&id), attempt));
                    FoundState::Running
                }
                1 => FoundState::Ended(Outcome::Exited(0)),
                _ => FoundState::Settled,
            };
            t.tell(found(&id, attempt, state));
        }
        let mut exited = false;
        for (event, seconds) in events {
            t.now.instant += Duration::from_secs(seconds);
            let ticked = event == Event::Tick;
            if let Event::AppExited { app, attempt, .. } = &event {
                running.remove(&(app.clone(), *attempt));
            }
            let effects = t.worker.handle(event, t.now);
            t.worker.check_invariants();
            prop_assert!(!exited || effects.is_empty(), "{:?} after the exit", effects);
            for effect in effects {
                match effect {
                    Effect::StartApp { app, attempt, .. } => {
                        let other = running.iter().any(|(running, _): &(AppId, u32)| *running == app);
                        prop_assert!(!other, "two attempts of {} run", app);
                        running.insert((app, attempt));
                    }
                    Effect::Report { report: AttemptReport::Ended { app, attempt, .. }, .. } => {
                        prop_assert!(!running.contains(&(app, attempt)), "reported ended while it runs");
                    }
                    Effect::SignalApp { app, attempt, .. } => {
                        prop_assert!(running.contains(&(app, attempt)), "signalled what does not run");
                    }
                    Effect::Exit(_) => exited = true,
                    Effect::Register { .. }
                    | Effect::SendHeartbeat { .. }
                    | Effect::Report { .. }
                    | Effect::Settle { .. }
                    | Effect::Leave { .. } => {}
                }
            }
            let due = t.worker.next_deadline().is_some_and(|deadline| deadline <= t.now.instant);
            prop_assert!(!(ticked && due), "a tick left a deadline that is due");
        }
    }
}
