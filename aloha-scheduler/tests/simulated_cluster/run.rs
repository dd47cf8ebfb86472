//! One run: the cluster starts, things go wrong while clients are busy, all is healed, and it must come to rest.

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::panic;
use std::sync::Once;
use std::time::Duration;

use aloha_rpc::testing::{SimConditions, Simulation};
use aloha_scheduler::master::WorkerState;
use aloha_scheduler::persistence::Change;
use aloha_scheduler::testing::{Batch, Checker, SimCluster, StoreTrouble};
use aloha_scheduler::{AppStatus, DrainRequest, MasterClient};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clients::{Notes, busy_client};
use crate::plan::{Dice, Fault, Plan, Who};

const CLIENTS: u64 = 3;
/// How long a cluster may take to come to rest once all is healed: the longest application twice, and then some.
const REST_WITHIN: Duration = Duration::from_secs(600);
/// How long what a plan waits for may take: a launch, and the next leader.
const LAUNCH_WITHIN: Duration = Duration::from_secs(10);
const LED_WITHIN: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(100);
/// More tasks than this in a process that rests are a leak: what it is made of, and a few for each connection.
const TASKS_MAX: usize = 400;

/// What came of a run.
pub(crate) struct Seen {
    pub(crate) wrong: Vec<String>,
    pub(crate) history: u64,
    pub(crate) runs: usize,
    pub(crate) epochs: usize,
    pub(crate) accepted: usize,
    pub(crate) unknown: usize,
}

pub(crate) fn run(seed: u64, is_told: bool) -> Seen {
    run_with(seed, is_told, |_| {})
}

/// As [`run`], of a cluster that has a defect.
pub(crate) fn run_with(seed: u64, is_told: bool, spoil: impl FnOnce(&SimCluster)) -> Seen {
    let plan = Plan::new(seed);
    if is_told {
        println!("{plan}");
    }
    Simulation::run(seed, async |sim| play(&sim, plan, is_told, spoil).await)
}

async fn play(
    sim: &Simulation,
    plan: Plan,
    is_told: bool,
    spoil: impl FnOnce(&SimCluster),
) -> Seen {
    let mut cluster = SimCluster::start(sim, plan.settings.clone()).await;
    let watcher = cluster.client("watcher").await;
    let notes = Notes::default();
    spoil(&cluster);
    let mut busy = JoinSet::new();
    for number in 0..CLIENTS {
        let name = format!("c{number}");
        let client = cluster.client(&name).await;
        let dice = Dice::new(sim.seed() ^ ((number + 1) << 32));
        let (disk, notes) = (cluster.disk().clone(), notes.clone());
        busy.spawn(busy_client(client, name, dice, disk, notes));
    }
    let (start, panics) = (sim.runtime().now(), panics());
    for (at, fault) in &plan.faults {
        tokio::time::sleep_until(start + *at).await;
        if is_told {
            println!("{at:?} {fault:?}, leading: {:?}", cluster.leaders());
        }
        inflict(&mut cluster, fault, &watcher).await;
    }
    heal(&mut cluster).await;
    let mut wrong = Vec::new();
    match tokio::time::timeout(REST_WITHIN, rest(&mut cluster, &watcher, &mut busy)).await {
        Ok(statuses) => {
            let promises = notes.promises();
            wrong.extend(Checker::new(&cluster).check(&promises, &statuses));
            for (host, tasks) in cluster.tasks() {
                if tasks > TASKS_MAX {
                    wrong.push(format!("{host} has {tasks} tasks"));
                }
            }
        }
        Err(_) => wrong.push(unrest(&cluster, &watcher, &busy).await),
    }
    if self::panics() > panics {
        wrong.push("a task panicked".to_owned());
    }
    let promises = notes.promises();
    let is_accepted =
        |promise: &&_| matches!(promise, aloha_scheduler::testing::Promise::Accepted { .. });
    let history = history(&cluster, start, is_told);
    Seen {
        wrong,
        history,
        runs: cluster.ledger().runs().len(),
        epochs: cluster.disk().epochs().len(),
        accepted: promises.iter().filter(is_accepted).count(),
        unknown: notes.unknown(),
    }
}

/// How many panics there were on this thread, also of tasks that nobody waits for.
fn panics() -> usize {
    thread_local! {
        static PANICS: Cell<usize> = const { Cell::new(0) };
    }
    static COUNTED: Once = Once::new();
    COUNTED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    PANICS.get()
}

/// All that was stored and all that ran, as a number; printed where somebody looks.
fn history(cluster: &SimCluster, start: Instant, is_told: bool) -> u64 {
    let since = |at: Instant| at.saturating_duration_since(start);
    let mut history = DefaultHasher::new();
    let mut add = |line: String| {
        if is_told {
            println!("{line}");
        }
        line.hash(&mut history);
    };
    for batch in cluster.disk().batches() {
        let keys = batch.changes.iter().map(|change| match change {
            Change::Put(record) => String::from_utf8_lossy(&record.value).into_owned(),
            Change::Delete { key } => format!("without {key}"),
        });
        let keys: Vec<_> = keys.collect();
        add(format!(
            "{:?} epoch {} stores {keys:?}",
            since(batch.at),
            batch.epoch
        ));
    }
    for run in cluster.ledger().runs() {
        let ended = run.ended.map(|(at, how)| (since(at), how));
        add(format!(
            "{:?} attempt {} of {} begins on {}, ends {ended:?}",
            since(run.began),
            run.attempt,
            run.app,
            run.host
        ));
    }
    history.finish()
}

async fn inflict(cluster: &mut SimCluster, fault: &Fault, watcher: &MasterClient) {
    let network = cluster.simulation().network().clone();
    let name = |cluster: &SimCluster, who: &Who| match who {
        Who::Host(host) => host.clone(),
        Who::Leader => cluster.leaders().pop().unwrap_or_else(|| "m0".to_owned()),
    };
    match fault {
        Fault::Partition(one, other) => network.partition(one, other),
        Fault::Heal(one, other) => network.heal(one, other),
        Fault::Isolate(host) => network.isolate(host),
        Fault::Return(host) => network.rejoin(host),
        Fault::Split(who, workers) => {
            let mut side = next_launch(cluster).await;
            side.extend_from_slice(workers);
            side.push(name(cluster, who));
            for other in cluster.hosts().iter().filter(|it| !side.contains(it)) {
                side.iter().for_each(|one| network.partition(one, other));
            }
        }
        Fault::Rejoin => network.heal_all(),
        Fault::Cut(one, other) => network.cut(one, other),
        Fault::Conditions(conditions) => network.set_conditions(conditions.clone()),
        Fault::Pause(who) => cluster.pause(&name(cluster, who)),
        Fault::Resume => {
            for host in cluster.down() {
                cluster.resume(&host);
            }
        }
        Fault::Crash(who) => {
            let host = name(cluster, who);
            cluster.crash(&host);
        }
        Fault::CrashMachine(host) => cluster.crash_machine(host),
        Fault::Restart => {
            for host in cluster.down() {
                cluster.restart(&host).await;
            }
        }
        Fault::HandOver(who) => {
            let host = name(cluster, who);
            cluster.hand_over(&host);
        }
        Fault::Drain(worker, request) => {
            let (client, request) = (watcher.clone(), *request);
            let worker = cluster.worker_address(worker);
            // Whether anybody hears it is another matter.
            tokio::spawn(async move { drop(client.drain(&worker, request).await) });
        }
        Fault::Strand(workers) => strand(cluster, workers).await,
        Fault::News(delay) => cluster.disk().delay_news(*delay),
        Fault::Clock(host, millis) => cluster.set_clock(host, *millis),
        Fault::Store(trouble) => cluster.disk().set_trouble(*trouble),
    }
}

/// Parts workers from their leader while a launch is on its way there, and has another lead; lets that one reach them only
/// after it gave them up, and then what they were told before.
async fn strand(cluster: &mut SimCluster, workers: &[String]) {
    let network = cluster.simulation().network().clone();
    let masters = 0..cluster.settings().masters;
    let masters: Vec<_> = masters.map(|number| format!("m{number}")).collect();
    let mut side = next_launch(cluster).await;
    side.extend_from_slice(workers);
    let Some(leader) = cluster.leaders().pop() else {
        return;
    };
    for worker in &side {
        masters
            .iter()
            .for_each(|master| network.partition(worker, master));
    }
    tokio::time::sleep(MOMENT).await;
    let epochs = cluster.disk().epochs().len();
    cluster.hand_over(&leader);
    let led = async {
        while cluster.disk().epochs().len() == epochs {
            tokio::time::sleep(MOMENT).await;
        }
    };
    // If nobody does, then nobody does.
    drop(tokio::time::timeout(LED_WITHIN, led).await);
    tokio::time::sleep(cluster.settings().worker_timeout + MOMENT).await;
    for worker in &side {
        let others = masters.iter().filter(|master| **master != leader);
        others.for_each(|master| network.heal(worker, master));
    }
    tokio::time::sleep(MOMENT * 4).await;
    side.iter().for_each(|worker| network.heal(worker, &leader));
}

/// Where something is launched next that may be started elsewhere; nowhere, if that takes too long. It is stored, and
/// most likely still on its way.
async fn next_launch(cluster: &SimCluster) -> Vec<String> {
    let mut seen = cluster.disk().count();
    let launched = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let batches = cluster.disk().batches_from(seen);
            seen += batches.len();
            let hosts: Vec<_> = batches.iter().flat_map(Batch::movable_launches).collect();
            if !hosts.is_empty() {
                return hosts;
            }
        }
    };
    let launched = tokio::time::timeout(LAUNCH_WITHIN, launched).await;
    launched.unwrap_or_default()
}

async fn heal(cluster: &mut SimCluster) {
    let network = cluster.simulation().network().clone();
    network.heal_all();
    network.set_conditions(SimConditions::default());
    cluster.disk().set_trouble(StoreTrouble::None);
    for host in cluster.down() {
        cluster.resume(&host);
        cluster.restart(&host).await;
    }
}

/// Waits until nothing happens any more: no client waits, one master leads, all workers are there, all applications ended.
async fn rest(
    cluster: &mut SimCluster,
    watcher: &MasterClient,
    busy: &mut JoinSet<()>,
) -> Vec<AppStatus> {
    while let Some(done) = busy.join_next().await {
        done.expect("a client does not panic");
    }
    loop {
        let workers = watcher.workers().await.unwrap_or_default();
        for it in workers.iter().filter(|it| it.state == WorkerState::Leaving) {
            let worker = it.id.as_str();
            drop(watcher.drain(worker, DrainRequest::Cancel).await);
        }
        // One that has left, for it was drained.
        for host in cluster.down() {
            cluster.restart(&host).await;
        }
        let alive = workers.iter().filter(|it| it.state == WorkerState::Alive);
        let all_alive = alive.count() == cluster.settings().workers;
        let apps = watcher.apps().await.unwrap_or_default();
        let all_ended = apps.iter().all(|app| app.phase.is_final());
        let is_still = cluster
            .ledger()
            .runs()
            .iter()
            .all(|run| run.ended.is_some());
        if all_alive && all_ended && is_still && cluster.leaders().len() == 1 {
            return apps;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What has not come to rest.
async fn unrest(cluster: &SimCluster, watcher: &MasterClient, busy: &JoinSet<()>) -> String {
    let seen = async {
        let workers = watcher.workers().await.unwrap_or_default();
        let apps = watcher.apps().await.unwrap_or_default();
        (workers, apps)
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    let (workers, apps) = seen.unwrap_or_default();
    let away = workers.iter().filter(|it| it.state != WorkerState::Alive);
    let away: Vec<_> = away.map(|it| (it.id.to_string(), it.state)).collect();
    let open = apps.iter().filter(|app| !app.phase.is_final());
    let open: Vec<_> = open
        .map(|app| (app.name.clone(), app.phase, app.waiting_for.clone()))
        .collect();
    let runs = cluster.ledger().runs();
    let running: Vec<_> = runs.iter().filter(|run| run.ended.is_none()).collect();
    format!(
        "no rest: leading {:?}, {} workers known, away {away:?}, {} clients busy, open {open:?}, running {running:?}",
        cluster.leaders(),
        workers.len(),
        busy.len(),
    )
}
