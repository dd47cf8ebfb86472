//! The rules of the master, each with its sentence. Effects are read as short lines, so that a test shows all of them.

mod adoption;
mod defects;
mod drain;
mod keys;
mod lifecycle;
mod listing;
mod membership;
mod model;
mod placement;
mod queue;
mod random;
mod recovery;
mod reservation;
mod restarts;
mod shadow;
mod standby;
mod store;
mod stored;
mod waiting_for;

use std::time::{Duration, Instant, SystemTime};

use self::store::Store;
use super::*;
use crate::app::{AppDescription, AppStatus};
use crate::attempt::{AttemptState, HeldAttempt, Outcome};
use crate::constraint::Attributes;
use crate::drain::DrainAnswer;
use crate::events::AlohaEvent;
use crate::ids::{AppId, WorkerId};
use crate::now::Now;
use crate::resources::Resources;
use crate::runner::CgroupSupport;
use crate::worker::WorkerRegistration;

const TIMEOUT: Duration = Duration::from_secs(60);
const EPOCH: u64 = 7;

fn settings() -> MasterSettings {
    MasterSettings {
        worker_timeout: TIMEOUT,
        ..MasterSettings::new(EPOCH)
    }
}

/// What is stored of a worker of 4 cores and 4 GiB.
fn worker_record(name: &str) -> WorkerRecord {
    WorkerRecord {
        id: id(name),
        host: "h".into(),
        port: 1,
        offers: Resources {
            cores: 4,
            memory_mib: 4096,
        },
        enforces: CgroupSupport::default(),
        attributes: Attributes::new(),
        drain: None,
    }
}

/// A master, a hand-turned clock, and the effects no assertion has claimed yet.
struct Harness {
    master: MasterCore,
    settings: MasterSettings,
    now: Now,
    store: Store,
    unclaimed: Vec<String>,
}

impl Harness {
    fn new() -> Self {
        Self::retaining(200)
    }

    fn retaining(retained_apps: usize) -> Self {
        Self::with(|settings| settings.retained_apps = retained_apps)
    }

    fn with(change: impl FnOnce(&mut MasterSettings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do, and there is no other way to have one"
        )]
        let instant = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_552_342_651);
        let now = Now { instant, wall };
        Self {
            master: MasterCore::new(settings.clone(), now),
            settings,
            now,
            store: Store::default(),
            unclaimed: Vec::new(),
        }
    }

    fn tell(&mut self, event: Event) {
        let effects = self.master.handle(event, self.now);
        self.claim(&effects);
    }

    fn claim(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Persist(record) = effect {
                self.store.put(record.clone());
            }
        }
        // That a heartbeat is answered has a test of its own.
        let lines = effects
            .iter()
            .map(line)
            .filter(|line| line != "reply: seen");
        self.unclaimed.extend(lines);
        self.master.check_invariants();
    }

    /// A master that stores what it must.
    fn durable() -> Self {
        Self::with(|settings| settings.durable = true)
    }

    /// The master ends, and another goes on from what is stored.
    fn restart(&mut self) {
        self.restart_from(self.store.read());
    }

    fn restart_from(&mut self, stored: Stored) {
        let (master, effects) = MasterCore::recover(self.settings.clone(), stored, self.now);
        self.master = master;
        self.claim(&effects);
    }

    /// Lets time pass. What happens then must have been due by a deadline that was told, and no deadline is left behind.
    fn advance(&mut self, by: Duration) {
        self.now.instant += by;
        self.now.wall += by;
        let deadline = self.master.next_deadline();
        let is_due = deadline.is_some_and(|at| at <= self.now.instant);
        let effects = self.master.handle(Event::Tick, self.now);
        assert!(
            is_due || effects.is_empty(),
            "no deadline told of {effects:?}"
        );
        let next = self.master.next_deadline();
        assert!(
            next.is_none_or(|at| at > self.now.instant),
            "a deadline is never met"
        );
        self.claim(&effects);
    }

    #[track_caller]
    fn expect<const N: usize>(&mut self, lines: [&str; N]) {
        assert_eq!(std::mem::take(&mut self.unclaimed), lines);
    }

    /// For set-up that other tests assert.
    fn ignore(&mut self) {
        self.unclaimed.clear();
    }

    fn register(&mut self, worker: &str, cores: u32, memory_mib: u64) {
        self.register_with(worker, cores, memory_mib, Vec::new());
    }

    fn register_with(
        &mut self,
        worker: &str,
        cores: u32,
        memory_mib: u64,
        attempts: Vec<HeldAttempt>,
    ) {
        let offers = Resources { cores, memory_mib };
        let registration = WorkerRegistration {
            id: id(worker),
            host: worker.to_owned(),
            port: 1,
            offers,
            attempts,
            enforces: CgroupSupport::default(),
            attributes: Attributes::new(),
            epoch: 0,
        };
        self.tell(Event::WorkerRegistered {
            registration,
            reply: ReplyTo(0),
        });
    }

    fn submit(&mut self, cores: u32, memory_mib: u64, supervise: bool) -> AppId {
        self.submit_as(AppDescription {
            cores,
            memory_mib,
            supervise,
            ..description()
        })
    }

    fn submit_under(&mut self, key: &str, description: AppDescription) {
        self.tell(Event::Submitted {
            key: Some(key.to_owned()),
            description: description.into(),
            reply: ReplyTo(1),
        });
    }

    fn submit_as(&mut self, description: AppDescription) -> AppId {
        self.tell(Event::Submitted {
            key: None,
            description: description.into(),
            reply: ReplyTo(0),
        });
        self.master.apps().pop().expect("it was accepted").id
    }

    fn started(&mut self, worker: &str, app: &AppId, attempt: u32) {
        self.tell(Event::AttemptStarted {
            worker: id(worker),
            app: app.clone(),
            attempt,
            reply: ReplyTo(0),
        });
    }

    fn ended(&mut self, worker: &str, app: &AppId, attempt: u32, outcome: Outcome) {
        self.tell(Event::AttemptEnded {
            worker: id(worker),
            app: app.clone(),
            attempt,
            outcome,
            reply: ReplyTo(0),
        });
    }

    fn kill(&mut self, app: &AppId) {
        self.tell(Event::KillRequested {
            app: app.clone(),
            reply: ReplyTo(0),
        });
    }

    fn disconnect(&mut self, worker: &str) {
        self.tell(Event::WorkerDisconnected { worker: id(worker) });
    }

    fn heartbeat(&mut self, worker: &str) {
        self.tell(Event::Heartbeat {
            worker: id(worker),
            reply: ReplyTo(0),
        });
    }

    fn status(&self, app: &AppId) -> AppStatus {
        self.master.status(app).expect("it is listed")
    }

    #[track_caller]
    fn used(&self, worker: &str) -> Resources {
        let status = self.worker(worker);
        Resources {
            cores: status.cores_used,
            memory_mib: status.memory_mib_used,
        }
    }

    #[track_caller]
    fn worker(&self, worker: &str) -> WorkerStatus {
        self.master
            .workers(self.now)
            .into_iter()
            .find(|w| w.id == id(worker))
            .expect("it is listed")
    }

    /// A worker `w1` with 4 cores and 1024 MiB, and an application of 2 cores and 512 MiB that runs on it.
    fn with_one_running(supervise: bool) -> (Self, AppId) {
        let mut t = Self::new();
        t.register("w1", 4, 1024);
        let app = t.submit(2, 512, supervise);
        t.started("w1", &app, 1);
        t.ignore();
        (t, app)
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.unclaimed, [""; 0], "effects that no assertion claimed");
        }
    }
}

/// An application of 2 cores and 512 MiB.
fn description() -> AppDescription {
    AppDescription {
        name: "a".into(),
        entry_point: "Process".into(),
        cores: 2,
        memory_mib: 512,
        ..AppDescription::default()
    }
}

fn id(worker: &str) -> WorkerId {
    worker.parse().expect("a good id")
}

fn held(app: &AppId, attempt: u32, state: AttemptState) -> HeldAttempt {
    let ended = state == AttemptState::Ended;
    let occupies = if ended {
        Resources::default()
    } else {
        Resources {
            cores: 2,
            memory_mib: 512,
        }
    };
    HeldAttempt {
        app: app.clone(),
        attempt,
        occupies,
        state,
        epoch: EPOCH,
        description: None,
    }
}

/// An application by its number alone.
fn short(app: &AppId) -> String {
    let number = app
        .as_str()
        .rsplit('-')
        .next()
        .and_then(|n| n.parse::<u64>().ok());
    number.map_or_else(|| app.to_string(), |number| format!("app {number}"))
}

fn line(effect: &Effect) -> String {
    match effect {
        Effect::Persist(Record::App(app)) => {
            let on = app
                .state
                .placement()
                .map(|on| format!(" on {}", on.worker))
                .unwrap_or_default();
            let evicted = if app.evicted && app.phase().is_placed() {
                ", to go"
            } else {
                ""
            };
            let kill = if app.kill_requested && !app.phase().is_final() {
                ", to be killed"
            } else {
                ""
            };
            format!(
                "store {}: {} #{}{on}{kill}{evicted}",
                short(&app.id),
                app.phase(),
                app.attempt
            )
        }
        Effect::Persist(Record::AppForgotten(app)) => format!("unstore {}", short(app)),
        Effect::Persist(Record::Worker(worker)) => {
            let drain = worker.drain.as_ref();
            let drain = drain.map_or_else(String::new, |drain| format!(", drain: {}", drain.mode));
            format!("store {}: {}{drain}", worker.id, worker.offers)
        }
        Effect::Persist(Record::WorkerForgotten(worker)) => format!("unstore {worker}"),
        Effect::Persist(Record::Key(key)) => {
            format!("store key {} of {}", key.key, short(&key.app))
        }
        Effect::Persist(Record::KeyForgotten(app)) => format!("unstore key of {}", short(app)),
        Effect::Persist(Record::NextNumber(number)) => format!("store next number {number}"),
        Effect::Publish(AlohaEvent::AppStateChanged {
            id,
            from,
            to,
            status,
        }) => {
            assert_eq!((id, to), (&status.id, &status.phase));
            let from = from.map(|from| format!("{from} -> ")).unwrap_or_default();
            format!("publish {}: {from}{to}", short(id))
        }
        Effect::Publish(AlohaEvent::AppRelaunched {
            id,
            attempt,
            reason,
        }) => {
            format!("publish {}: lost #{attempt}: {reason}", short(id))
        }
        Effect::Publish(AlohaEvent::WorkerStateChanged { id, from, to, .. }) => {
            let from = from.map(|from| format!("{from} -> ")).unwrap_or_default();
            format!("publish {id}: {from}{to}")
        }
        Effect::Publish(AlohaEvent::WorkerDrainChanged { id, to, reason }) => {
            format!("publish {id}: drain {to}: {reason}")
        }
        Effect::Send(worker, command) => match command {
            WorkerCommand::LaunchApp {
                epoch: EPOCH,
                app,
                attempt,
                ..
            } => {
                format!("tell {worker}: launch {} #{attempt}", short(app))
            }
            WorkerCommand::KillApp {
                epoch: EPOCH,
                app,
                attempt,
            } => {
                format!("tell {worker}: kill {} #{attempt}", short(app))
            }
            WorkerCommand::Reregister { epoch: EPOCH } => format!("tell {worker}: register again"),
            WorkerCommand::Leave { epoch: EPOCH } => format!("tell {worker}: leave"),
            other => panic!("a command of another epoch: {other:?}"),
        },
        Effect::Reply(ReplyTo(token), reply) => {
            let to = if *token == 0 {
                String::new()
            } else {
                format!(" {token}")
            };
            let text = match reply {
                Reply::Registered {
                    epoch,
                    heartbeat_interval,
                } => format!("epoch {epoch}, every {heartbeat_interval:?}"),
                Reply::Refused { reason } => format!("refused: {reason}"),
                Reply::Submitted { app, is_new } => {
                    let again = if *is_new { "" } else { " before" };
                    format!("submitted {}{again}", short(app))
                }
                Reply::KeyReused(app) => format!("the key of {}", short(app)),
                Reply::KilledAll { count } => format!("killed {count}"),
                Reply::Forget(answer) => format!("{answer:?}"),
                Reply::Drain(DrainAnswer::Drain(status)) => format!("drain {}", status.phase),
                Reply::Drain(DrainAnswer::NoSuchWorker { reason }) => reason.clone(),
                Reply::Cleared { count } => format!("cleared {count}"),
                Reply::SubmissionRefused(error) => format!("no: {error}"),
                Reply::Kill {
                    app,
                    success,
                    message,
                } => {
                    let message = message.replace(app.as_str(), &short(app));
                    format!("{}: {message}", if *success { "yes" } else { "no" })
                }
                Reply::Status(status) => format!("{} is {}", short(&status.id), status.phase),
                Reply::NoSuchApp(app) => format!("no {}", short(app)),
                Reply::HeartbeatNoted => "seen".to_owned(),
                Reply::Acknowledged => "noted".to_owned(),
            };
            format!("reply{to}: {text}")
        }
    }
}
