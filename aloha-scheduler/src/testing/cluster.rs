//! A whole cluster of a simulation.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::testing::{SimProcess, Simulation};
use aloha_rpc::{RpcAddress, RpcConfig, RpcEnv, Runtime};

use super::coordinator::{CoordinatedMaster, Disk, SessionEnd, start_coordinator};
use super::ledger::Ledger;
use super::machine::Machine;
use crate::client::MasterClient;
use crate::ids::WorkerId;
use crate::master::{Master, MasterHandle, MasterRole};
use crate::resources::Resources;
use crate::worker::{Worker, WorkerHandle};

const PORT: u16 = 7077;
const COORDINATOR: &str = "coordinator";

/// How a [`SimCluster`] is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimClusterSettings {
    /// How many masters there are: `m0`, `m1`, …
    pub masters: usize,
    /// How many workers: `w0`, `w1`, …
    pub workers: usize,
    /// The cores of each worker.
    pub cores: u32,
    /// How long the coordinator hears nothing of a master before its session is over.
    pub session_timeout: Duration,
    /// How a master learns that its session is over.
    pub session_end: SessionEnd,
    /// How long a master hears nothing of a worker before it is dead.
    pub worker_timeout: Duration,
    /// Whether workers end supervised applications in time where no master answers.
    pub stop_when_cut_off: bool,
}

impl Default for SimClusterSettings {
    fn default() -> Self {
        Self {
            masters: 3,
            workers: 20,
            cores: 2,
            session_timeout: Duration::from_secs(6),
            session_end: SessionEnd::Noted,
            worker_timeout: Duration::from_secs(20),
            stop_when_cut_off: false,
        }
    }
}

/// A cluster on a simulated network: masters whose election and store a coordinator keeps, workers whose applications take
/// simulated time, each on a host of its own. Hosts and processes can be made to fail, one by one.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use aloha_rpc::testing::Simulation;
/// use aloha_scheduler::AppPhase;
/// use aloha_scheduler::testing::{SimApp, SimCluster, SimClusterSettings};
///
/// Simulation::run(7, async |sim| {
///     let mut cluster = SimCluster::start(&sim, SimClusterSettings::default()).await;
///     let client = cluster.client("me").await;
///     let app = SimApp::working_for(Duration::from_secs(60)).description("etl");
///     let app = client.submit_once(app, "etl-1").await.unwrap().accepted().unwrap();
///     let leader = cluster.leaders().pop().expect("who took it leads");
///     cluster.crash(&leader);
///     let status = client.wait(&app).await.unwrap().expect("the next leader knows it");
///     assert_eq!((status.phase, status.attempt), (AppPhase::Finished, 1));
///     assert_eq!(cluster.ledger().runs().len(), 1);
/// });
/// ```
pub struct SimCluster {
    sim: Simulation,
    settings: SimClusterSettings,
    disk: Disk,
    ledger: Ledger,
    nodes: Vec<Node>,
    clients: Vec<Process>,
}

/// A host with what runs there.
struct Node {
    host: String,
    kind: Kind,
    wall_offset_millis: i64,
    process: Option<Process>,
    /// Whether it has handed over, and is about to end.
    is_leaving: bool,
}

enum Kind {
    Coordinator,
    Master(Option<MasterHandle>),
    Worker { machine: Machine, id: WorkerId },
}

impl Node {
    /// Whether its process is there, and will do nothing more.
    fn has_left(&self) -> bool {
        let has_ended = match &self.kind {
            Kind::Worker { machine, .. } => !machine.has_worker(),
            Kind::Master(_) => self.is_leaving,
            Kind::Coordinator => false,
        };
        has_ended && self.process.is_some()
    }
}

/// A process, with its environment.
struct Process {
    process: SimProcess,
    /// Its life is that of the process.
    env: RpcEnv,
}

impl SimCluster {
    /// Starts it, and waits until a master leads and has all workers.
    pub async fn start(sim: &Simulation, settings: SimClusterSettings) -> Self {
        let mut cluster = Self {
            sim: sim.clone(),
            disk: Disk::new(),
            ledger: Ledger::default(),
            nodes: Vec::new(),
            clients: Vec::new(),
            settings: settings.clone(),
        };
        cluster.add(COORDINATOR.to_owned(), Kind::Coordinator).await;
        for number in 0..settings.masters {
            cluster.add(format!("m{number}"), Kind::Master(None)).await;
        }
        let wall = sim.runtime().wall();
        for number in 0..settings.workers {
            let host = format!("w{number}");
            let machine = Machine::new(&host, sim.runtime(), &cluster.ledger, &cluster.disk);
            let id = WorkerId::mint(wall, &host, PORT);
            cluster.add(host, Kind::Worker { machine, id }).await;
        }
        cluster
    }

    async fn add(&mut self, host: String, kind: Kind) {
        self.nodes.push(Node {
            host: host.clone(),
            kind,
            wall_offset_millis: 0,
            process: None,
            is_leaving: false,
        });
        self.restart(&host).await;
    }

    /// The simulation it is in.
    #[must_use]
    pub fn simulation(&self) -> &Simulation {
        &self.sim
    }

    /// How it was to be.
    #[must_use]
    pub fn settings(&self) -> &SimClusterSettings {
        &self.settings
    }

    /// What its applications did.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What its masters store.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// All hosts but those of clients: the coordinator, the masters, the workers.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.host.clone()).collect()
    }

    /// The hosts of masters that take themselves to lead, whether they do or not.
    #[must_use]
    pub fn leaders(&self) -> Vec<String> {
        let leads = |node: &&Node| match &node.kind {
            Kind::Master(Some(master)) => {
                let role = master.role();
                node.process.is_some() && matches!(*role.borrow(), MasterRole::Leading { .. })
            }
            Kind::Master(None) | Kind::Coordinator | Kind::Worker { .. } => false,
        };
        let leaders = self.nodes.iter().filter(leads);
        leaders.map(|node| node.host.clone()).collect()
    }

    /// Where a worker is reached.
    #[must_use]
    pub fn worker_address(&self, host: &str) -> String {
        format!("{host}:{PORT}")
    }

    /// The hosts whose process does not run: it crashed, is paused, or has only to be restarted, for it has handed over or
    /// was drained.
    #[must_use]
    pub fn down(&self) -> Vec<String> {
        let is_down = |node: &&Node| match &node.process {
            Some(process) => process.process.is_paused() || node.has_left(),
            None => true,
        };
        let down = self.nodes.iter().filter(is_down);
        down.map(|node| node.host.clone()).collect()
    }

    /// How many tasks there are in the process of each host.
    #[must_use]
    pub fn tasks(&self) -> Vec<(String, usize)> {
        let tasks = |node: &Node| Some((node.host.clone(), node.process.as_ref()?.process.tasks()));
        self.nodes.iter().filter_map(tasks).collect()
    }

    /// A client on a host of its own, once a master leads. It looks for one for as long as there is none.
    pub async fn client(&mut self, host: &str) -> MasterClient {
        let process = self.sim.process();
        let builder = self.sim.builder(host).runtime(Arc::new(process.clone()));
        let env = builder.start().await.expect("a client needs no port");
        let masters: Vec<RpcAddress> = self
            .masters()
            .iter()
            .map(|it| it.parse().expect("host:port"))
            .collect();
        let client = loop {
            match MasterClient::connect(&env, &masters).await {
                Ok(client) => break client,
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        };
        self.clients.push(Process { process, env });
        client
    }

    // ---- what can happen to it -----------------------------------------------------------------

    /// Stops a process where it stands, as SIGSTOP does. Nothing happens to one that is not there.
    pub fn pause(&self, host: &str) {
        if let Some(process) = &self.node(host).process {
            process.process.pause();
        }
    }

    /// Has a process that was paused go on.
    pub fn resume(&self, host: &str) {
        if let Some(process) = &self.node(host).process {
            process.process.resume();
        }
    }

    /// Ends a process at once, as SIGKILL does. The applications of a worker run on.
    pub fn crash(&mut self, host: &str) {
        let network = self.sim.network().clone();
        let node = self.node_mut(host);
        node.is_leaving = false;
        let Some(Process { process, env }) = node.process.take() else {
            return;
        };
        network.crash(host);
        process.end();
        drop(env);
        match &mut node.kind {
            Kind::Master(master) => *master = None,
            Kind::Worker { machine, .. } => machine.set_worker(false),
            Kind::Coordinator => {}
        }
    }

    /// Ends a process at once, and with it all that runs on its host.
    pub fn crash_machine(&mut self, host: &str) {
        self.crash(host);
        if let Kind::Worker { machine, .. } = &self.node(host).kind {
            machine.die();
        }
    }

    /// Has a master hand over, as SIGTERM does. What is left of its process ends when it is restarted.
    pub fn hand_over(&mut self, host: &str) {
        let node = self.node_mut(host);
        let (Some(Process { process, .. }), Kind::Master(Some(master))) =
            (&node.process, &node.kind)
        else {
            return;
        };
        node.is_leaving = true;
        let master = master.clone();
        process.spawn(Box::pin(async move { master.hand_over().await }));
    }

    /// Starts the process of a host where it does not run. What it has on its disk it has still.
    ///
    /// # Panics
    ///
    /// There is no such host.
    pub async fn restart(&mut self, host: &str) {
        if self.node(host).has_left() {
            self.crash(host);
        }
        if self.node(host).process.is_some() {
            return;
        }
        let process = self.sim.process();
        process.set_wall_offset(self.node(host).wall_offset_millis);
        let builder = self.sim.builder(host).runtime(Arc::new(process.clone()));
        let builder = builder.config(RpcConfig::default());
        let env = builder.bind(format!("{host}:{PORT}")).start().await;
        let env = env.expect("nobody else listens on its host");
        let (settings, disk, masters) = (self.settings.clone(), self.disk.clone(), self.masters());
        let node = self.node_mut(host);
        match &mut node.kind {
            Kind::Coordinator => start_coordinator(&env, &disk),
            Kind::Master(master) => *master = Some(start_master(&env, &settings)),
            Kind::Worker { machine, id } => {
                let worker = start_worker(&env, &settings, machine, id.clone(), masters);
                process.spawn(Box::pin(note_end(worker, machine.clone())));
            }
        }
        node.process = Some(Process { process, env });
    }

    /// Sets the wall clock of a host so many milliseconds before (negative) or behind the others'.
    pub fn set_clock(&mut self, host: &str, millis: i64) {
        let node = self.node_mut(host);
        node.wall_offset_millis = millis;
        if let Some(process) = &node.process {
            process.process.set_wall_offset(millis);
        }
    }

    fn masters(&self) -> Vec<String> {
        let masters = 0..self.settings.masters;
        masters.map(|number| format!("m{number}:{PORT}")).collect()
    }

    fn node(&self, host: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.host == host);
        found.expect("a host of the cluster")
    }

    fn node_mut(&mut self, host: &str) -> &mut Node {
        let found = self.nodes.iter_mut().find(|node| node.host == host);
        found.expect("a host of the cluster")
    }
}

impl fmt::Debug for SimCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimCluster")
            .field("seed", &self.sim.seed())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn start_master(env: &RpcEnv, settings: &SimClusterSettings) -> MasterHandle {
    let coordinator = RpcAddress::new(COORDINATOR, PORT);
    let SimClusterSettings {
        session_timeout,
        session_end,
        ..
    } = settings;
    let coordinated = CoordinatedMaster::join(env, &coordinator, *session_timeout, *session_end);
    let mut master = Master::default_settings(env);
    master.worker_timeout = settings.worker_timeout;
    let builder = Master::builder(env).settings(master);
    let started = builder.recovery_mode(coordinated.recovery_mode()).start();
    started.expect("the first of its environment")
}

fn start_worker(
    env: &RpcEnv,
    settings: &SimClusterSettings,
    machine: &Machine,
    id: WorkerId,
    masters: Vec<String>,
) -> WorkerHandle {
    let offers = Resources {
        cores: settings.cores,
        memory_mib: 1024 * u64::from(settings.cores),
    };
    let mut worker = Worker::default_settings(env, offers, masters);
    worker.id = id;
    worker.cut_off_timeout = settings
        .stop_when_cut_off
        .then_some(settings.worker_timeout);
    machine.set_worker(true);
    let launcher = Arc::new(machine.clone());
    let started = Worker::start(env, worker, PathBuf::from("work"), launcher);
    started.expect("the first of its environment")
}

async fn note_end(mut worker: WorkerHandle, machine: Machine) {
    worker.ended().await;
    machine.set_worker(false);
}
