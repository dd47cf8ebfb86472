//! Masters that hold elections among themselves over one store, and workers whose applications run until they are asked
//! to end: on a simulated network, under a clock that jumps.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_rpc::testing::Simulation;
use aloha_rpc::{RpcAddress, RpcEnv};
use aloha_scheduler::election::{
    ElectionError, LeaderElectionAgent, Leadership, MasterAddress, Standing,
};
use aloha_scheduler::master::WorkerState;
use aloha_scheduler::persistence::MemoryEngine;
use aloha_scheduler::worker::{
    AdoptError, Adopted, LaunchError, LaunchSpec, Launcher, RunningApp, Signal, SignalError,
};
use aloha_scheduler::{
    AppDescription, AppId, AppPhase, AppStatus, ClientError, Master, MasterClient, MasterHandle,
    MasterRole, Outcome, RecoveryMode, Resources, Worker, WorkerHandle,
};
use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use crate::paused::{self, now};

/// Who leads of those who take part: first come, first served.
#[derive(Debug, Clone)]
pub(crate) struct Ballot {
    seat: Arc<Semaphore>,
    leader: Arc<watch::Sender<Option<MasterAddress>>>,
    standing: Arc<Mutex<Option<watch::Sender<Standing>>>>,
    is_away: Arc<watch::Sender<bool>>,
}

impl Ballot {
    fn new() -> Self {
        Self {
            seat: Arc::new(Semaphore::new(1)),
            leader: Arc::new(watch::Sender::new(None)),
            standing: Arc::default(),
            is_away: Arc::default(),
        }
    }

    /// Tells the leader how it stands.
    pub(crate) fn tell(&self, standing: Standing) {
        let sender = self.standing.lock().expect("not poisoned");
        let sender = sender.as_ref().expect("somebody leads");
        sender.send_replace(standing);
    }

    /// Whether no election can be held, as where its servers are away.
    pub(crate) fn away(&self, is_away: bool) {
        self.is_away.send_replace(is_away);
    }

    /// Has the next one lead, and the one that does know nothing of it.
    pub(crate) fn forget_leader(&self) {
        let sender = self.standing.lock().expect("not poisoned").take();
        // It holds its leadership for ever.
        std::mem::forget(sender);
        self.seat.add_permits(1);
    }
}

#[async_trait]
impl LeaderElectionAgent for Ballot {
    async fn campaign(&self, candidate: &MasterAddress) -> Result<Leadership, ElectionError> {
        let mut away = self.is_away.subscribe();
        let seat = tokio::select! {
            biased;
            _ = away.wait_for(|is_away| *is_away) => {
                let reason = "nobody holds one".to_owned();
                return Err(ElectionError { reason });
            }
            seat = self.seat.acquire() => seat.expect("it is never closed"),
        };
        seat.forget();
        let (sender, standing) = watch::channel(Standing::Held);
        *self.standing.lock().expect("not poisoned") = Some(sender.clone());
        self.leader.send_replace(Some(candidate.clone()));
        let this = self.clone();
        tokio::spawn(async move {
            // Until it is given up.
            sender.closed().await;
            this.leader.send_replace(None);
            this.seat.add_permits(1);
        });
        Ok(Leadership { epoch: 0, standing })
    }

    fn leader(&self) -> watch::Receiver<Option<MasterAddress>> {
        self.leader.subscribe()
    }
}

/// One of the masters.
pub(crate) struct Candidate {
    pub(crate) env: RpcEnv,
    pub(crate) master: MasterHandle,
}

impl Candidate {
    pub(crate) fn address(&self) -> RpcAddress {
        self.env.address().expect("it listens").clone()
    }

    /// Waits until it leads; gives its epoch.
    pub(crate) async fn leads(&self) -> u64 {
        let mut role = self.master.role();
        let leads = role.wait_for(|role| matches!(role, MasterRole::Leading { .. }));
        match *leads.await.expect("it lives") {
            MasterRole::Leading { epoch } => epoch,
            _ => unreachable!("waited for"),
        }
    }

    /// Waits until it does not lead.
    pub(crate) async fn stands_by(&self) {
        let mut role = self.master.role();
        let stands_by = role.wait_for(|role| matches!(role, MasterRole::Standby { .. }));
        stands_by.await.expect("it lives");
    }

    /// Asked beside the network.
    pub(crate) fn client(&self) -> &MasterClient {
        self.master.client()
    }

    pub(crate) async fn status(&self, app: &AppId) -> AppStatus {
        let status = self.client().status(app.clone()).await.expect("it leads");
        status.expect("it is known")
    }

    pub(crate) async fn apps(&self) -> Vec<AppId> {
        let apps = self.client().apps().await.expect("it leads");
        apps.into_iter().map(|app| app.id).collect()
    }

    /// Waits until so many workers are there.
    pub(crate) async fn has_workers(&self, count: usize) {
        until(async || {
            let workers = self.client().workers().await.expect("it leads");
            let alive = workers.iter().filter(|it| it.state == WorkerState::Alive);
            alive.count() == count
        })
        .await;
    }

    pub(crate) async fn reaches(&self, app: &AppId, phase: AppPhase) {
        until(async || self.status(app).await.phase == phase).await;
    }
}

/// Lets the simulated time pass until this holds.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let begun = now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(300), "it never comes");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) struct Ground {
    pub(crate) sim: Simulation,
    pub(crate) ballot: Ballot,
    pub(crate) store: MemoryEngine,
    pub(crate) masters: Vec<Candidate>,
    client: RpcEnv,
}

impl Ground {
    async fn new(sim: &Simulation) -> Self {
        let mut ground = Self {
            sim: sim.clone(),
            ballot: Ballot::new(),
            store: MemoryEngine::new(),
            masters: Vec::new(),
            client: sim.client("client").await,
        };
        for host in ["m0", "m1", "m2"] {
            let candidate = ground.candidate(host).await;
            ground.masters.push(candidate);
        }
        ground.masters[0].leads().await;
        ground
    }

    async fn candidate(&self, host: &str) -> Candidate {
        let mode = RecoveryMode {
            persistence: Some(Arc::new(self.store.clone())),
            election: Arc::new(self.ballot.clone()),
        };
        let env = self.sim.env(host).await;
        let master = Master::builder(&env).recovery_mode(mode).start();
        let master = master.expect("the first there");
        Candidate { env, master }
    }

    /// A worker of four cores that is told of the first master alone.
    pub(crate) async fn worker(&self, host: &str) -> (WorkerHandle, Arc<Endless>) {
        let env = self.sim.env(host).await;
        let offers = Resources {
            cores: 4,
            memory_mib: 4096,
        };
        let masters = vec![self.masters[0].address().to_string()];
        let settings = Worker::default_settings(&env, offers, masters);
        let launcher = Arc::new(Endless::default());
        // Nothing is ever written or found there.
        let directory = std::env::temp_dir().join("aloha-takeover-nothing-is-here");
        let started = Worker::start(&env, settings, directory, Arc::clone(&launcher) as _);
        (started.expect("the first there"), launcher)
    }

    pub(crate) async fn connect(&self) -> Result<MasterClient, ClientError> {
        let masters: Vec<_> = self.masters.iter().map(Candidate::address).collect();
        MasterClient::connect(&self.client, &masters).await
    }
}

pub(crate) fn run(program: impl AsyncFnOnce(Ground)) {
    Simulation::run(7, async |sim| program(Ground::new(&sim).await).await);
}

/// Starts applications that run until they are asked to end, or [ended](Self::end).
#[derive(Debug, Default)]
pub(crate) struct Endless {
    apps: Mutex<Vec<Arc<Run>>>,
}

#[derive(Debug)]
struct Run {
    app: String,
    attempt: u32,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Endless {
    /// Every attempt that was ever started.
    pub(crate) fn started(&self) -> Vec<(String, u32)> {
        let apps = self.apps.lock().expect("not poisoned");
        let key = |run: &Arc<Run>| (run.app.clone(), run.attempt);
        apps.iter().map(key).collect()
    }

    /// Ends an application.
    pub(crate) fn end(&self, app: &AppId, outcome: Outcome) {
        let apps = self.apps.lock().expect("not poisoned");
        let run = apps.iter().rev().find(|run| run.app == app.as_str());
        run.expect("it was started")
            .outcome
            .send_replace(Some(outcome));
    }
}

#[async_trait]
impl Launcher for Endless {
    async fn start(&self, spec: LaunchSpec) -> Result<Box<dyn RunningApp>, LaunchError> {
        let run = Arc::new(Run {
            app: spec.app_id,
            attempt: spec.attempt,
            outcome: watch::Sender::new(None),
        });
        self.apps
            .lock()
            .expect("not poisoned")
            .push(Arc::clone(&run));
        Ok(Box::new(Handle(run)))
    }

    async fn adopt(&self, _: &Path, _: &str) -> Result<Adopted, AdoptError> {
        Ok(Adopted::Nothing)
    }

    async fn end_strays(
        &self,
        _: &Path,
        _: &str,
        _: &BTreeSet<(String, u32)>,
    ) -> io::Result<Vec<(String, u32)>> {
        Ok(Vec::new())
    }

    async fn settle(&self, _: &Path, _: u32) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Handle(Arc<Run>);

#[async_trait]
impl RunningApp for Handle {
    fn app_id(&self) -> &str {
        &self.0.app
    }

    fn attempt(&self) -> u32 {
        self.0.attempt
    }

    async fn signal(&self, _: Signal) -> Result<(), SignalError> {
        self.0.outcome.send_replace(Some(Outcome::Signaled(15)));
        Ok(())
    }

    async fn wait(&self) -> Outcome {
        let mut outcome = self.0.outcome.subscribe();
        let ended = outcome.wait_for(Option::is_some).await;
        ended
            .expect("its sender is here")
            .clone()
            .expect("waited for")
    }
}

/// One of so many cores that is started elsewhere where its worker is lost.
pub(crate) fn description(name: &str, cores: u32) -> AppDescription {
    AppDescription {
        cores,
        supervise: true,
        ..paused::description(name)
    }
}
