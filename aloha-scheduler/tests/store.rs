//! A master between its clients and a store that is slow, fails, is taken over: in one process, under paused time.

#[path = "common/decided.rs"]
mod decided;
#[path = "common/paused.rs"]
mod paused;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aloha_rpc::{EndpointContext, EndpointError, RpcEndpoint, RpcEndpointRef, RpcEnv};
use aloha_scheduler::election::{LeaderElectionAgent, MasterAddress, SoleMaster, Standing};
use aloha_scheduler::master::WorkerCommand;
use aloha_scheduler::persistence::{
    Change, MemoryEngine, PersistenceEngine, PersistenceError, StoredRecord,
};
use aloha_scheduler::rest::{GatewayError, SubmissionGateway as _};
use aloha_scheduler::runner::CgroupSupport;
use aloha_scheduler::worker::WorkerRegistration;
use aloha_scheduler::{
    AppDescription, AppId, AppPhase, ClientError, MASTER, Master, MasterClient, MasterHandle,
    MasterMessage, MasterRole, RecoveryMode, RegisterAnswer, Resources, SubmitAnswer,
    WorkerMessage,
};
use async_trait::async_trait;
use decided::{Decided, Known};
use paused::accepted;
use tokio::sync::{mpsc, watch};

/// How a store does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Hangs,
    Fails,
}

/// A store that does as it is told.
#[derive(Debug, Clone)]
struct Moody {
    store: MemoryEngine,
    mood: watch::Sender<Mood>,
    /// How many changes each batch had.
    batches: Arc<Mutex<Vec<usize>>>,
    /// What was ever put there.
    put: Arc<Mutex<BTreeSet<String>>>,
}

impl Moody {
    fn new() -> Self {
        Self {
            store: MemoryEngine::new(),
            mood: watch::Sender::new(Mood::Well),
            batches: Arc::default(),
            put: Arc::default(),
        }
    }

    fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    fn batches(&self) -> Vec<usize> {
        let batches = self.batches.lock();
        batches.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn keys(&self) -> BTreeSet<String> {
        let records = self.store.read_all().await.expect("in memory");
        records.into_iter().map(|record| record.key).collect()
    }
}

#[async_trait]
impl PersistenceEngine for Moody {
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError> {
        self.store.begin_epoch(at_least).await
    }

    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError> {
        self.store.read_all().await
    }

    async fn write(&self, epoch: u64, changes: Vec<Change>) -> Result<(), PersistenceError> {
        let mut mood = self.mood.subscribe();
        let mood = *mood
            .wait_for(|mood| *mood != Mood::Hangs)
            .await
            .expect("its sender is here");
        if mood == Mood::Fails {
            return Err(PersistenceError::Unavailable {
                store: "moody".to_owned(),
                reason: "No space left on device".to_owned(),
            });
        }
        let count = changes.len();
        let puts = changes.iter().filter_map(|change| match change {
            Change::Put(record) => Some(record.key.clone()),
            Change::Delete { .. } => None,
        });
        let put = self.put.lock();
        put.unwrap_or_else(PoisonError::into_inner).extend(puts);
        self.store.write(epoch, changes).await?;
        let batches = self.batches.lock();
        batches.unwrap_or_else(PoisonError::into_inner).push(count);
        Ok(())
    }
}

/// A worker that notes what it is told.
struct Notes(mpsc::Sender<WorkerCommand>);

impl RpcEndpoint for Notes {
    type Message = WorkerMessage;

    async fn receive(
        &mut self,
        message: WorkerMessage,
        _: &EndpointContext<WorkerMessage>,
    ) -> Result<(), EndpointError> {
        if let WorkerMessage::Command { command, .. } = message {
            self.0.send(command).await.expect("the test listens");
        }
        Ok(())
    }
}

/// A master and what it stands on.
struct Ground {
    env: RpcEnv,
    master: MasterHandle,
}

impl Ground {
    async fn new(mode: RecoveryMode) -> Self {
        let env = RpcEnv::client("store-test").await.expect("started");
        let master = Master::builder(&env).recovery_mode(mode).start();
        let master = master.expect("there is none yet");
        Self { env, master }
    }

    async fn on(engine: &Moody) -> Self {
        Self::new(RecoveryMode::stored_in(engine.clone())).await
    }

    fn client(&self) -> &MasterClient {
        self.master.client()
    }

    /// Submits in a task of its own; gives the answer when there is one.
    fn submit(&self, name: &str) -> tokio::task::JoinHandle<Result<SubmitAnswer, ClientError>> {
        let (client, description) = (self.client().clone(), description(name));
        tokio::spawn(async move { client.submit(description).await })
    }

    async fn accepted(&self, name: &str) -> AppId {
        accepted(self.submit(name).await.expect("no panic"))
    }

    async fn refusal(&self, name: &str) -> String {
        match self
            .submit(name)
            .await
            .expect("no panic")
            .expect("an answer")
        {
            SubmitAnswer::Busy { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    /// Registers a worker of one core, and gives what it is told.
    async fn worker(&self) -> mpsc::Receiver<WorkerCommand> {
        let (notes, told) = mpsc::channel(100);
        let worker = self.env.setup_endpoint("worker", Notes(notes));
        let answer = self.register(worker.expect("there is none yet")).await;
        assert!(
            matches!(answer, RegisterAnswer::Registered { .. }),
            "{answer:?}"
        );
        told
    }

    async fn register(&self, worker: RpcEndpointRef<WorkerMessage>) -> RegisterAnswer {
        let registration = WorkerRegistration {
            id: "worker-1".parse().expect("an id"),
            host: "here".to_owned(),
            port: 1,
            offers: Resources {
                cores: 1,
                memory_mib: 1024,
            },
            attempts: Vec::new(),
            enforces: CgroupSupport::default(),
            attributes: Default::default(),
            epoch: 0,
        };
        let master: RpcEndpointRef<MasterMessage> =
            self.env.endpoint_ref(MASTER).expect("it is there");
        let answer = master.ask(|call| MasterMessage::RegisterWorker {
            registration,
            worker,
            call,
        });
        answer.await.expect("an answer")
    }

    async fn until(&self, wanted: impl FnMut(&MasterRole) -> bool) {
        let mut role = self.master.role();
        role.wait_for(wanted).await.expect("the master is there");
    }

    async fn phase(&self, app: &AppId) -> AppPhase {
        let status = self.client().status(app.clone()).await.expect("an answer");
        status.expect("it is known").phase
    }

    async fn stop(self) {
        self.env.shutdown().await;
    }
}

fn description(name: &str) -> AppDescription {
    AppDescription {
        name: name.to_owned(),
        entry_point: "SimpleProcess".to_owned(),
        args: vec!["true".to_owned()],
        cores: 1,
        memory_mib: 64,
        ..AppDescription::default()
    }
}

#[tokio::test(start_paused = true)]
async fn d5_nothing_is_acknowledged_or_launched_before_it_is_stored_and_what_gathers_is_one_batch()
{
    let store = Moody::new();
    let ground = Ground::on(&store).await;
    let mut told = ground.worker().await;
    ground.accepted("first").await;
    assert!(matches!(
        told.recv().await,
        Some(WorkerCommand::LaunchApp { .. })
    ));

    store.set(Mood::Hangs);
    let before = store.batches().len();
    let waiting: Vec<_> = (0..100).map(|n| ground.submit(&format!("{n}"))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(waiting.iter().all(|answer| !answer.is_finished()));
    assert_eq!(told.try_recv().ok(), None);

    store.set(Mood::Well);
    for answer in waiting {
        let answer = answer.await.expect("no panic").expect("an answer");
        assert!(
            matches!(answer, SubmitAnswer::Accepted { .. }),
            "{answer:?}"
        );
    }
    let batches = store.batches().split_off(before);
    assert_eq!(batches.iter().sum::<usize>(), 100, "{batches:?}");
    // The first was on its way alone; all others gathered meanwhile.
    assert!(batches.len() <= 2, "{batches:?}");
    ground.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_master_that_is_stopped_stores_and_answers_what_it_took_on() {
    let store = Moody::new();
    let ground = Ground::on(&store).await;
    ground.accepted("first").await;
    store.set(Mood::Hangs);
    let last = ground.submit("last");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (env, mood) = (ground.env.clone(), store.clone());
    let stopping = tokio::spawn(async move { env.shutdown().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    mood.set(Mood::Well);
    stopping.await.expect("no panic");
    let answer = last.await.expect("no panic").expect("an answer");
    let SubmitAnswer::Accepted { app } = answer else {
        panic!("{answer:?}")
    };
    assert!(store.keys().await.contains(&format!("app/{app}")));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_is_refused_and_a_store_that_heals_heals_the_master() {
    let store = Moody::new();
    let ground = Ground::on(&store).await;
    let mut told = ground.worker().await;
    let running = ground.accepted("running").await;
    let waiting = ground.accepted("waiting").await;
    assert!(matches!(
        told.recv().await,
        Some(WorkerCommand::LaunchApp { .. })
    ));

    store.set(Mood::Fails);
    let expected = "the master cannot store submissions: moody: No space left on device";
    // The first is taken on, and withdrawn; from then on they are refused at once.
    assert_eq!(ground.refusal("new").await, expected);
    assert_eq!(ground.refusal("another").await, expected);

    // What runs can be killed, and what is known be asked for.
    let killed = ground
        .client()
        .kill(running.clone())
        .await
        .expect("an answer");
    assert!(
        killed.success && killed.message.contains("not stored"),
        "{killed:?}"
    );
    match told.recv().await {
        Some(WorkerCommand::KillApp { app, .. }) => assert_eq!(app, running),
        other => panic!("{other:?}"),
    }
    assert_eq!(ground.phase(&waiting).await, AppPhase::Submitted);
    let apps = ground.client().apps().await.expect("an answer");
    assert_eq!(apps.len(), 2, "nobody finds what was refused");

    store.set(Mood::Well);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let later = ground.accepted("later").await;
    let apps = [running, waiting, later].map(|app| format!("app/{app}"));
    let mut expected = BTreeSet::from(apps);
    expected.extend(["meta/next-number".to_owned(), "worker/worker-1".to_owned()]);
    assert_eq!(store.keys().await, expected);
    ground.stop().await;
}

/// A master that ends between two batches must not leave behind what it has refused.
#[tokio::test(start_paused = true)]
async fn what_was_refused_is_not_stored_even_for_a_moment() {
    // More than one batch has.
    const SUBMISSIONS: usize = 1500;
    let store = Moody::new();
    let ground = Ground::on(&store).await;
    store.set(Mood::Hangs);
    let submissions: Vec<_> = (0..SUBMISSIONS).map(|_| ground.submit("refused")).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.set(Mood::Fails);
    for submission in submissions {
        let answer = submission.await.expect("no panic").expect("an answer");
        assert!(matches!(answer, SubmitAnswer::Busy { .. }), "{answer:?}");
    }
    store.set(Mood::Well);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let accepted = ground.accepted("accepted").await;
    let put = store
        .put
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let apps: Vec<_> = put.iter().filter(|key| key.starts_with("app/")).collect();
    assert_eq!(apps, [&format!("app/{accepted}")]);
    ground.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_refuses_what_is_new_and_acknowledges_what_it_stores_after_all() {
    let store = Moody::new();
    let ground = Ground::on(&store).await;
    store.set(Mood::Hangs);
    let early = ground.submit("early");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let also_early = ground.submit("also early");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        ground.refusal("late").await,
        "the master's disk is slow: what came before has waited 6.0 s to be stored; try again later"
    );
    store.set(Mood::Well);
    for answer in [early, also_early] {
        let answer = answer.await.expect("no panic").expect("an answer");
        assert!(
            matches!(answer, SubmitAnswer::Accepted { .. }),
            "{answer:?}"
        );
    }
    ground.accepted("later").await;
    ground.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_wait_for_a_store_is_bounded_in_bytes() {
    let store = Moody::new();
    let ground = Ground::on(&store).await;
    store.set(Mood::Hangs);
    let name = "large";
    let large = || AppDescription {
        args: vec!["x".repeat(1_000_000)],
        ..description(name)
    };
    let mut waiting = Vec::new();
    let refusal = loop {
        let (client, description) = (ground.client().clone(), large());
        let mut answer = tokio::spawn(async move { client.submit(description).await });
        tokio::select! {
            biased;
            answer = &mut answer => break answer,
            () = tokio::time::sleep(Duration::from_millis(1)) => waiting.push(answer),
        }
    };
    let refusal = refusal.expect("no panic").expect("an answer");
    let expected = "the master's disk is behind: 67 submissions with 67001206 bytes wait to be stored; try again later";
    let reason = expected.to_owned();
    let retry_after_millis = 1_000;
    let busy = SubmitAnswer::Busy {
        reason,
        retry_after_millis,
    };
    assert_eq!(refusal, busy);
    let huge = AppDescription {
        args: vec!["x".repeat(2 << 20)],
        ..description(name)
    };
    let refusal = ground.client().submit(huge).await.expect("an answer");
    assert!(
        matches!(&refusal, SubmitAnswer::Refused { reason } if reason.contains("at most 1048576")),
        "{refusal:?}"
    );
    store.set(Mood::Well);
    for answer in waiting {
        let answer = answer.await.expect("no panic").expect("an answer");
        assert!(
            matches!(answer, SubmitAnswer::Accepted { .. }),
            "{answer:?}"
        );
    }
    ground.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_master_whose_store_another_took_over_acknowledges_nothing_more() {
    let store = Moody::new();
    let ground = Ground::on(&store).await;
    ground.accepted("ours").await;
    let theirs = store
        .store
        .begin_epoch(u64::MAX / 2)
        .await
        .expect("in memory");
    let answer = ground.submit("late").await.expect("no panic");
    assert!(answer.is_err(), "{answer:?}");
    ground
        .until(|role| matches!(role, MasterRole::Standby { .. }))
        .await;
    let error = ground.client().apps().await.expect_err("it does not lead");
    assert!(
        error.to_string().contains(&format!("epoch {theirs}")),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn d14_a_standby_leads_when_it_is_elected_and_stands_back_when_it_is_not() {
    let (store, election) = (Moody::new(), Decided::new(&Known::default()));
    let mode = RecoveryMode {
        persistence: Some(Arc::new(store.clone())),
        election: Arc::clone(&election) as _,
    };
    let ground = Ground::new(mode).await;
    let (notes, _told) = mpsc::channel(100);
    let worker = ground.env.setup_endpoint("worker", Notes(notes));
    let answer = ground.register(worker.expect("there is none yet")).await;
    assert!(matches!(answer, RegisterAnswer::Standby), "{answer:?}");
    let error = ground
        .submit("early")
        .await
        .expect("no panic")
        .expect_err("a standby");
    assert!(
        error.to_string().contains("this master is a standby"),
        "{error}"
    );

    let standing = election.elect(&ground.master).await;
    let app = ground.accepted("led").await;

    standing.send_replace(Standing::Suspended);
    assert!(
        ground
            .refusal("suspended")
            .await
            .contains("not sure that it still leads")
    );
    let doubt = "this master is not sure that it still leads";
    let cluster = ground.client().cluster().await.expect("an answer");
    assert_eq!(cluster.store_trouble.as_deref(), Some(doubt));
    let not_ready = Err(GatewayError::NotReady {
        reason: doubt.to_owned(),
    });
    assert_eq!(ground.client().ready().await, not_ready);
    let (client, id) = (ground.client().clone(), app.clone());
    let kill = tokio::spawn(async move { client.kill(id).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!kill.is_finished(), "nothing is promised meanwhile");
    standing.send_replace(Standing::Held);
    assert_eq!(ground.client().ready().await, Ok(()));
    assert!(kill.await.expect("no panic").expect("an answer").success);

    standing.send_replace(Standing::Lost);
    ground
        .until(|role| matches!(role, MasterRole::Standby { .. }))
        .await;
    let error = ground.client().apps().await.expect_err("a standby");
    assert!(error.to_string().contains("does not lead"), "{error}");

    let _again = election.elect(&ground.master).await;
    assert_eq!(ground.phase(&app).await, AppPhase::Killed);
    ground.stop().await;
}

#[tokio::test(start_paused = true)]
async fn d9_a_torn_record_is_set_aside_once_and_the_others_come_back_in_order() {
    let store = Moody::new();
    let ground = Ground::on(&store).await;
    let mut apps = Vec::new();
    for n in 0..5 {
        apps.push(ground.accepted(&n.to_string()).await);
    }
    ground.stop().await;
    let torn = StoredRecord {
        key: format!("app/{}", apps[2]),
        value: b"{\"kind\":\"app\",\"ver".to_vec(),
    };
    let epoch = store.store.begin_epoch(0).await.expect("in memory");
    let tear = store.store.write(epoch, vec![Change::Put(torn.clone())]);
    tear.await.expect("in memory");

    let ground = Ground::on(&store).await;
    let back: Vec<_> = ground.client().apps().await.expect("an answer");
    let back: Vec<_> = back.into_iter().map(|status| status.id).collect();
    let lost = apps.remove(2);
    assert_eq!(back, apps);
    let new = ground.accepted("new").await;
    assert!(apps.iter().all(|app| *app != new) && new != lost);
    ground.stop().await;
    let records = store.store.read_all().await.expect("in memory");
    let aside: Vec<_> = records
        .iter()
        .filter(|record| record.key.starts_with("set-aside/"))
        .collect();
    assert_eq!(aside.len(), 1, "{records:?}");
    assert!(aside[0].key.ends_with(&torn.key) && aside[0].value == torn.value);
    assert!(!records.iter().any(|record| record.key == torn.key));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_only_a_newer_version_reads_keeps_the_master_from_leading() {
    let store = Moody::new();
    // The checksum is that of this key and version.
    let value = br#"{"kind":"next-number","version":9,"crc32":"CRC","body":1}"#;
    let value = String::from_utf8_lossy(value).replace("CRC", NEWER_CHECKSUM);
    let newer = StoredRecord {
        key: "meta/next-number".to_owned(),
        value: value.into_bytes(),
    };
    let epoch = store.begin_epoch(0).await.expect("in memory");
    store
        .write(epoch, vec![Change::Put(newer)])
        .await
        .expect("in memory");
    let ground = Ground::on(&store).await;
    ground
        .until(|role| matches!(role, MasterRole::Failed { .. }))
        .await;
    let error = ground.client().apps().await.expect_err("it does not lead");
    assert!(
        error.to_string().contains("newer version of Aloha"),
        "{error}"
    );
    assert_eq!(
        store.keys().await,
        BTreeSet::from(["meta/next-number".to_owned()])
    );
}

/// Of `meta/next-number`, `next-number`, `9` and `1`, with a line feed behind each but the last.
const NEWER_CHECKSUM: &str = "94fac650";

#[tokio::test]
async fn the_only_master_leads_at_once() {
    let leadership = SoleMaster::default()
        .campaign(&MasterAddress::default())
        .await
        .expect("alone");
    assert_eq!(leadership.epoch, 0);
}
