//! The shell around [`WorkerCore`]: messages, the timer and the launcher's news in, effects out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aloha_rpc::{
    AskError, EndpointContext, EndpointError, RpcAddress, RpcCallContext, RpcEndpoint,
    RpcEndpointRef, RpcEnv, SetupError,
};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::absence::{Absence, No, warn_of};
use super::adoption::adopt_all;
use super::logs::answer_log;
use super::{
    Backoff, Effect, Event, ExitReason, LaunchSpec, Launcher, RegistrationAnswer, RunningApp,
    Signal, WorkerCore, WorkerRegistration, WorkerSettings,
};
use crate::app::AppDescription;
use crate::attempt::{AttemptReport, Outcome};
use crate::causes::with_causes;
use crate::clock::{self, Alarm};
use crate::constraint::Attributes;
use crate::ids::{AppId, WorkerId};
use crate::master::STANDBY;
use crate::messages::{
    LocalOnly, LogAnswer, LogRequest, MASTER, MasterMessage, RegisterAnswer, WORKER, WorkerMessage,
};
use crate::resources::Resources;
use crate::runner::CgroupSupport;

/// The worker's endpoint.
#[derive(Debug)]
pub struct Worker {
    core: WorkerCore,
    settings: WorkerSettings,
    work_directory: PathBuf,
    launcher: Arc<dyn Launcher>,
    apps: BTreeMap<Key, App>,
    /// The masters found so far.
    masters: BTreeMap<String, RpcEndpointRef<MasterMessage>>,
    absence: Absence,
    alarm: Option<Alarm>,
    exit: watch::Sender<Option<ExitReason>>,
}

type Key = (AppId, u32);

/// An attempt between its launch and its end.
#[derive(Debug)]
enum App {
    Starting { signal: Option<Signal> },
    Running(Arc<dyn RunningApp>),
}

/// What the worker's own tasks tell it.
#[derive(Debug)]
pub enum OwnEvent {
    /// For the core as it is.
    Core(Event),
    /// A master was found, or not.
    MasterAnswered {
        /// Which.
        master: String,
        /// How to reach it.
        found: Option<RpcEndpointRef<MasterMessage>>,
        /// What it said.
        answer: RegistrationAnswer,
        /// Why it said nothing, if so.
        silence: Option<String>,
        /// When it was asked.
        sent: Instant,
    },
    /// The launcher has started an attempt.
    Started {
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
        /// What runs.
        running: Arc<dyn RunningApp>,
    },
}

/// A worker that runs in an environment of this process.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    worker: RpcEndpointRef<WorkerMessage>,
    exit: watch::Receiver<Option<ExitReason>>,
}

impl WorkerHandle {
    /// Asks the worker to stop: with its applications, or leaving them. Asked again, it stops at once.
    pub fn stop(&self, stop_apps: bool) {
        // One that has stopped already needs no asking.
        drop(
            self.worker
                .send(own(OwnEvent::Core(Event::StopRequested { stop_apps }))),
        );
    }

    /// Waits until the worker has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the reason is kept.
    pub async fn ended(&mut self) -> ExitReason {
        match self.exit.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().expect("waited for"),
            Err(_) => ExitReason::Stopped,
        }
    }
}

fn own(event: OwnEvent) -> WorkerMessage {
    WorkerMessage::Own(LocalOnly(event))
}

impl Worker {
    /// The usual settings of a worker in `env` that offers `offers` and looks for these masters (`host:port`).
    ///
    /// # Panics
    ///
    /// The environment does not listen: a master could not reach the worker.
    #[must_use]
    pub fn default_settings(
        env: &RpcEnv,
        offers: Resources,
        masters: Vec<String>,
    ) -> WorkerSettings {
        let address = env.address().expect("a worker's environment listens");
        let now = clock::now(&**env.runtime());
        WorkerSettings {
            id: WorkerId::mint(now.wall, address.host(), address.port()),
            host: address.host().to_owned(),
            port: address.port(),
            offers,
            enforces: CgroupSupport::none("the worker starts applications without limits"),
            attributes: Attributes::new(),
            masters,
            backoff: Backoff {
                answer_within: Duration::from_secs(10),
                pause_min: Duration::from_secs(1),
                pause_max: Duration::from_secs(60),
                jitter_seed: env.runtime().random_u64(),
            },
            kill_grace: Duration::from_secs(10),
            retained_apps: 1000,
            cut_off_timeout: None,
        }
    }

    /// Sets a worker up in `env`, under the name [`WORKER`]. Each application gets a directory of its own in
    /// `work_directory`.
    ///
    /// # Errors
    ///
    /// The environment has a worker already, or is shut down.
    pub fn start(
        env: &RpcEnv,
        settings: WorkerSettings,
        work_directory: PathBuf,
        launcher: Arc<dyn Launcher>,
    ) -> Result<WorkerHandle, SetupError> {
        let (exit, exited) = watch::channel(None);
        let worker = Self {
            core: WorkerCore::new(settings.clone()),
            settings,
            work_directory,
            launcher,
            apps: BTreeMap::new(),
            masters: BTreeMap::new(),
            absence: Absence::default(),
            alarm: None,
            exit,
        };
        Ok(WorkerHandle {
            worker: env.setup_endpoint(WORKER, worker)?,
            exit: exited,
        })
    }

    /// Tells the core what happened, and does what it says.
    fn tell(&mut self, event: Event, ctx: &EndpointContext<WorkerMessage>) {
        for effect in self.core.handle(event, clock::now(&**ctx.env().runtime())) {
            match effect {
                Effect::Register {
                    master,
                    registration,
                    sent,
                } => self.register(master, registration, sent, ctx),
                Effect::SendHeartbeat { master, sent } => self.send_heartbeat(master, sent, ctx),
                Effect::Report { master, report } => self.report(master, report, ctx),
                Effect::Leave { master } => {
                    let id = self.settings.id.clone();
                    self.send(&master, MasterMessage::WorkerLeaving { id });
                }
                Effect::StartApp {
                    app,
                    attempt,
                    description,
                    alone_max,
                } => self.start_app((app, attempt), description, alone_max, ctx),
                Effect::SignalApp {
                    app,
                    attempt,
                    signal,
                } => self.signal_app(&(app, attempt), signal, ctx),
                Effect::Settle { app, attempt } => self.settle(app, attempt, ctx),
                Effect::Exit(reason) => {
                    info!(?reason, "worker ends");
                    self.exit.send_replace(Some(reason));
                    ctx.stop();
                }
            }
        }
        if let Some(alarm) = &self.alarm {
            alarm.set(self.core.next_deadline());
        }
    }

    fn register(
        &self,
        master: String,
        registration: WorkerRegistration,
        sent: Instant,
        ctx: &EndpointContext<WorkerMessage>,
    ) {
        let (env, me) = (ctx.env().clone(), ctx.self_ref().clone());
        let patience = self.settings.backoff.answer_within;
        debug!(master, "registering");
        ctx.env().runtime().spawn(Box::pin(async move {
            let asked =
                tokio::time::timeout(patience, ask_to_register(&env, &me, &master, registration))
                    .await;
            let (found, answer, silence) = match asked {
                Ok(Ok((found, answer))) => (Some(found), answer, None),
                Ok(Err(reason)) => {
                    info!(master, %reason, "master not reached");
                    (None, RegistrationAnswer::Unreachable, Some(reason))
                }
                Err(_) => {
                    let reason = format!("no answer within {patience:?}");
                    (None, RegistrationAnswer::Unreachable, Some(reason))
                }
            };
            drop(me.send(own(OwnEvent::MasterAnswered {
                master,
                found,
                answer,
                silence,
                sent,
            })));
        }));
    }

    fn note_absence(
        &mut self,
        master: &str,
        answer: &RegistrationAnswer,
        silence: Option<String>,
        ctx: &EndpointContext<WorkerMessage>,
    ) {
        if self.core.registration().master().is_some() {
            // An answer that comes late.
            return self.absence.end();
        }
        let no = match answer {
            RegistrationAnswer::Registered { .. } => return self.absence.end(),
            RegistrationAnswer::Refused { .. } => return,
            RegistrationAnswer::Standby => No::Standby,
            RegistrationAnswer::Unreachable => No::Unreachable {
                reason: silence.unwrap_or_default(),
            },
        };
        let now = clock::now(&**ctx.env().runtime()).instant;
        if let Some(answers) = self.absence.note(master, no, now) {
            let (found, list) = (self.masters.clone(), self.settings.masters.clone());
            ctx.spawn(warn_of(answers, found, list));
        }
    }

    fn send_heartbeat(&self, master: String, sent: Instant, ctx: &EndpointContext<WorkerMessage>) {
        let Some(found) = self.masters.get(&master) else {
            return;
        };
        let (id, worker, me) = (
            self.settings.id.clone(),
            ctx.self_ref().clone(),
            ctx.self_ref().clone(),
        );
        let seen = found.ask(|call| MasterMessage::Heartbeat { id, worker, call });
        ctx.env().runtime().spawn(Box::pin(async move {
            let event = match seen.await {
                Ok(()) => Event::HeartbeatAcknowledged { master, sent },
                Err(error) if is_standby(&error) => Event::MasterSteppedDown { master },
                // A master that is gone or does not count on us says so in other ways.
                Err(_) => return,
            };
            drop(me.send(own(OwnEvent::Core(event))));
        }));
    }

    fn send(&self, master: &str, message: MasterMessage) {
        let Some(found) = self.masters.get(master) else {
            return;
        };
        if let Err(error) = found.send(message) {
            warn!(master, %error, "cannot tell the master");
        }
    }

    fn report(&self, master: String, report: AttemptReport, ctx: &EndpointContext<WorkerMessage>) {
        let Some(found) = self.masters.get(&master) else {
            return;
        };
        let ended = match &report {
            AttemptReport::Started { .. } => None,
            AttemptReport::Ended { app, attempt, .. } => Some((app.clone(), *attempt)),
        };
        let id = self.settings.id.clone();
        // Queued now, so that reports arrive in order.
        let ask = found.ask(|call| MasterMessage::Report { id, report, call });
        let me = ctx.self_ref().clone();
        ctx.env().runtime().spawn(Box::pin(async move {
            let event = match (ask.await, ended) {
                (Ok(()), Some((app, attempt))) => Event::ReportAcknowledged { app, attempt },
                (Ok(()), None) => return,
                // It is reported again once a master has taken us again.
                (Err(error), _) if is_standby(&error) => Event::MasterSteppedDown { master },
                (Err(error), _) => {
                    info!(master, %error, "report unanswered");
                    Event::MasterDisconnected { master }
                }
            };
            drop(me.send(own(OwnEvent::Core(event))));
        }));
    }

    fn start_app(
        &mut self,
        (app, attempt): Key,
        what: Arc<AppDescription>,
        alone_max: Option<Duration>,
        ctx: &EndpointContext<WorkerMessage>,
    ) {
        let spec = LaunchSpec {
            app_id: app.to_string(),
            attempt,
            description: what,
            work_directory: self.work_directory.clone(),
            master: self.masters_url(),
            worker_id: self.settings.id.to_string(),
            alone_max,
        };
        self.apps
            .insert((app.clone(), attempt), App::Starting { signal: None });
        let (launcher, me) = (Arc::clone(&self.launcher), ctx.self_ref().clone());
        ctx.env().runtime().spawn(Box::pin(async move {
            let outcome = match launcher.start(spec).await {
                Ok(running) => {
                    let running: Arc<dyn RunningApp> = running.into();
                    let started = OwnEvent::Started {
                        app: app.clone(),
                        attempt,
                        running: Arc::clone(&running),
                    };
                    drop(me.send(own(started)));
                    running.wait().await
                }
                Err(error) => Outcome::CouldNotStart(with_causes(&error)),
            };
            drop(me.send(own(OwnEvent::Core(Event::AppExited {
                app,
                attempt,
                outcome,
            }))));
        }));
    }

    /// Notes that a master knows, unless another attempt has the directory by now.
    fn settle(&self, app: AppId, attempt: u32, ctx: &EndpointContext<WorkerMessage>) {
        let launcher = Arc::clone(&self.launcher);
        let directory = self.work_directory.join(app.as_str());
        ctx.env().runtime().spawn(Box::pin(async move {
            if let Err(error) = launcher.settle(&directory, attempt).await {
                // It is reported once more by the next worker, which does no harm.
                warn!(%app, attempt, %error, "cannot note that the master knows of an end");
            }
        }));
    }

    /// Takes over what an earlier worker left in the directory.
    async fn adopt(&mut self, ctx: &EndpointContext<WorkerMessage>) {
        let found = adopt_all(
            &self.launcher,
            &self.work_directory,
            self.settings.id.as_str(),
        );
        for (found, running) in found.await {
            info!(app = %found.app, attempt = found.attempt, state = ?found.state, "found");
            if let Some(running) = running {
                let key = (found.app.clone(), found.attempt);
                self.apps.insert(key, App::Running(Arc::clone(&running)));
                let (me, app, attempt) = (ctx.self_ref().clone(), found.app.clone(), found.attempt);
                ctx.env().runtime().spawn(Box::pin(async move {
                    let outcome = running.wait().await;
                    drop(me.send(own(OwnEvent::Core(Event::AppExited {
                        app,
                        attempt,
                        outcome,
                    }))));
                }));
            }
            self.tell(Event::AppFound(found), ctx);
        }
    }

    fn masters_url(&self) -> String {
        format!("aloha://{}", self.settings.masters.join(","))
    }

    fn signal_app(&mut self, key: &Key, signal: Signal, ctx: &EndpointContext<WorkerMessage>) {
        match self.apps.get_mut(key) {
            Some(App::Starting { signal: pending }) => *pending = Some(signal),
            Some(App::Running(running)) => spawn_signal(Arc::clone(running), signal, ctx),
            None => debug!(app = %key.0, "nothing to signal"),
        }
    }

    fn on_own(&mut self, event: OwnEvent, ctx: &EndpointContext<WorkerMessage>) {
        match event {
            OwnEvent::Core(event) => {
                if let Event::AppExited {
                    app,
                    attempt,
                    outcome,
                } = &event
                {
                    info!(%app, attempt, %outcome, "application ended");
                    self.apps.remove(&(app.clone(), *attempt));
                }
                self.tell(event, ctx);
            }
            OwnEvent::MasterAnswered {
                master,
                found,
                answer,
                silence,
                sent,
            } => {
                if let Some(found) = found {
                    self.masters.insert(master.clone(), found);
                    let core = &self.core;
                    self.masters.retain(|master, _| core.knows(master));
                }
                self.note_absence(&master, &answer, silence, ctx);
                let event = Event::RegistrationAnswered {
                    master,
                    answer,
                    sent,
                };
                self.tell(event, ctx);
            }
            OwnEvent::Started {
                app,
                attempt,
                running,
            } => {
                let before = self
                    .apps
                    .insert((app.clone(), attempt), App::Running(Arc::clone(&running)));
                if let Some(App::Starting {
                    signal: Some(signal),
                }) = before
                {
                    spawn_signal(running, signal, ctx);
                }
                self.tell(Event::AppStarted { app, attempt }, ctx);
            }
        }
    }

    fn on_read_log(
        &self,
        app: AppId,
        request: LogRequest,
        call: RpcCallContext<LogAnswer>,
        ctx: &EndpointContext<WorkerMessage>,
    ) {
        // The answer has a way to go, too.
        let now = clock::now(&**ctx.env().runtime()).instant;
        let left = call.time_left(now.into()).unwrap_or(Duration::MAX);
        let patience = request.patience().min(left / 2);
        let answer = answer_log(self.work_directory.clone(), app, request, patience);
        ctx.env().runtime().spawn(Box::pin(async move {
            let answer = tokio::select! {
                biased;
                () = call.cancelled() => return,
                answer = answer => answer,
            };
            call.reply(answer);
        }));
    }
}

impl RpcEndpoint for Worker {
    type Message = WorkerMessage;

    async fn on_start(
        &mut self,
        ctx: &EndpointContext<WorkerMessage>,
    ) -> Result<(), EndpointError> {
        let me = ctx.self_ref().clone();
        self.alarm = Some(Alarm::new(&**ctx.env().runtime(), move || {
            // A worker that has stopped needs no time.
            drop(me.send(own(OwnEvent::Core(Event::Tick))));
        }));
        self.adopt(ctx).await;
        self.tell(Event::Started, ctx);
        Ok(())
    }

    async fn receive(
        &mut self,
        message: WorkerMessage,
        ctx: &EndpointContext<WorkerMessage>,
    ) -> Result<(), EndpointError> {
        match message {
            WorkerMessage::Command { master, command } => {
                self.tell(Event::Commanded { master, command }, ctx);
            }
            WorkerMessage::ReadLog { app, request, call } => {
                self.on_read_log(app, request, call, ctx)
            }
            WorkerMessage::Own(LocalOnly(event)) => self.on_own(event, ctx),
        }
        Ok(())
    }

    async fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        ctx: &EndpointContext<WorkerMessage>,
    ) -> Result<(), EndpointError> {
        // One may be known by several addresses.
        let masters = self.masters.iter();
        let masters = masters.filter(|(_, found)| found.address().as_ref() == Some(remote));
        let masters: Vec<_> = masters.map(|(master, _)| master.clone()).collect();
        for master in masters {
            warn!(%remote, master, "connection to the master ended");
            self.tell(Event::MasterDisconnected { master }, ctx);
        }
        Ok(())
    }
}

/// Whether who was asked answers that it does not lead.
fn is_standby(error: &AskError) -> bool {
    matches!(error, AskError::Failed { kind, .. } if kind == STANDBY)
}

async fn ask_to_register(
    env: &RpcEnv,
    me: &RpcEndpointRef<WorkerMessage>,
    master: &str,
    registration: WorkerRegistration,
) -> Result<(RpcEndpointRef<MasterMessage>, RegistrationAnswer), String> {
    let address: RpcAddress = master
        .parse()
        .map_err(|error: aloha_rpc::AddressError| error.to_string())?;
    let found = env
        .retrieve_endpoint_ref(&address, MASTER)
        .await
        .map_err(|error| error.to_string())?;
    let question = |call| MasterMessage::RegisterWorker {
        registration,
        worker: me.clone(),
        call,
    };
    let answer = match found
        .ask(question)
        .await
        .map_err(|error| error.to_string())?
    {
        RegisterAnswer::Registered {
            epoch,
            heartbeat_millis,
        } => RegistrationAnswer::Registered {
            epoch,
            heartbeat_interval: Duration::from_millis(heartbeat_millis),
        },
        RegisterAnswer::Standby => RegistrationAnswer::Standby,
        RegisterAnswer::Refused { reason } => RegistrationAnswer::Refused { reason },
    };
    Ok((found, answer))
}

fn spawn_signal(
    running: Arc<dyn RunningApp>,
    signal: Signal,
    ctx: &EndpointContext<WorkerMessage>,
) {
    ctx.env().runtime().spawn(Box::pin(async move {
        if let Err(error) = running.signal(signal).await {
            warn!(
                app = running.app_id(),
                error = with_causes(&error),
                "cannot signal"
            );
        }
    }));
}
