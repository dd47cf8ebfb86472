//! The rules of the worker, each with its sentence.

mod attempts;
mod called;
mod cut_off;
mod random;
mod registration;
mod stopping;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

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

fn found(id: &str, attempt: u32, state: FoundState) -> Event {
    Event::AppFound(FoundApp {
        app: app(id),
        attempt,
        description: description(),
        state,
    })
}
