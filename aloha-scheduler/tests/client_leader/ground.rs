//! Three masters that share a store, of which the test says which leads.

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::testing::{SimConditions, Simulation};
use aloha_rpc::{RpcAddress, RpcEnv};
use aloha_scheduler::election::{
    ElectionError, LeaderElectionAgent, Leadership, MasterAddress, Standing,
};
use aloha_scheduler::persistence::MemoryEngine;
use aloha_scheduler::{
    AppDescription, AppId, ClientError, Master, MasterClient, MasterHandle, MasterRole,
    RecoveryMode, SubmitAnswer,
};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

/// Who leads, as all elections know.
type Known = Arc<watch::Sender<Option<MasterAddress>>>;

/// An election that the test decides.
#[derive(Debug)]
struct Decided {
    winner: watch::Sender<Option<watch::Receiver<Standing>>>,
    known: Known,
}

#[async_trait]
impl LeaderElectionAgent for Decided {
    async fn campaign(&self, candidate: &MasterAddress) -> Result<Leadership, ElectionError> {
        let mut winner = self.winner.subscribe();
        let seen = winner.wait_for(Option::is_some).await;
        seen.expect("its sender is here");
        let standing = self.winner.send_replace(None).expect("just seen");
        self.known.send_replace(Some(candidate.clone()));
        Ok(Leadership { epoch: 0, standing })
    }

    fn leader(&self) -> watch::Receiver<Option<MasterAddress>> {
        self.known.subscribe()
    }
}

/// One of three masters that share a store.
pub(crate) struct Candidate {
    pub(crate) env: RpcEnv,
    pub(crate) master: MasterHandle,
    election: Arc<Decided>,
}

impl Candidate {
    /// Makes it lead, for as long as the guard is there.
    pub(crate) async fn elect(&self) -> watch::Sender<Standing> {
        let (standing, seen) = watch::channel(Standing::Held);
        self.election.winner.send_replace(Some(seen));
        let mut role = self.master.role();
        let leads = role.wait_for(|role| matches!(role, MasterRole::Leading { .. }));
        leads.await.expect("it lives");
        standing
    }

    pub(crate) fn address(&self) -> RpcAddress {
        self.env.address().expect("it listens").clone()
    }

    /// What it has, asked beside the network.
    pub(crate) async fn apps(&self) -> Vec<AppId> {
        let apps = self.master.client().apps().await.expect("it leads");
        apps.into_iter().map(|app| app.id).collect()
    }
}

pub(crate) struct Ground {
    pub(crate) sim: Simulation,
    /// Who leads, as the elections say.
    pub(crate) known: Known,
    pub(crate) masters: [Candidate; 3],
    pub(crate) client: RpcEnv,
}

impl Ground {
    pub(crate) async fn new(sim: &Simulation) -> Self {
        let store = MemoryEngine::new();
        let known = Known::default();
        let candidate = async |host: &str| {
            let election = Arc::new(Decided {
                winner: watch::Sender::default(),
                known: Arc::clone(&known),
            });
            let mode = RecoveryMode {
                persistence: Some(Arc::new(store.clone())),
                election: Arc::clone(&election) as _,
            };
            let env = sim.env(host).await;
            let master = Master::builder(&env).recovery_mode(mode).start();
            Candidate {
                env,
                master: master.expect("the first there"),
                election,
            }
        };
        Self {
            masters: [
                candidate("m0").await,
                candidate("m1").await,
                candidate("m2").await,
            ],
            client: sim.client("client").await,
            sim: sim.clone(),
            known,
        }
    }

    pub(crate) async fn connect(&self) -> Result<MasterClient, ClientError> {
        MasterClient::connect(
            &self.client,
            &self.masters.each_ref().map(Candidate::address),
        )
        .await
    }

    /// A client that was told of one master alone.
    pub(crate) async fn connect_to(&self, place: usize) -> Result<MasterClient, ClientError> {
        MasterClient::connect(&self.client, &[self.masters[place].address()]).await
    }

    /// Everything takes this long on its way.
    pub(crate) fn slow_down(&self, way: Duration) {
        self.sim.network().set_conditions(SimConditions {
            delay: way..=way,
            ..SimConditions::default()
        });
    }
}

pub(crate) fn run(program: impl AsyncFnOnce(Ground)) {
    Simulation::run(7, async |sim| program(Ground::new(&sim).await).await);
}

pub(crate) fn description(name: &str) -> AppDescription {
    AppDescription {
        name: name.to_owned(),
        entry_point: "Process".to_owned(),
        args: vec!["true".to_owned()],
        cores: 1,
        memory_mib: 1,
        ..AppDescription::default()
    }
}

pub(crate) fn accepted(answer: Result<SubmitAnswer, ClientError>) -> AppId {
    match answer {
        Ok(SubmitAnswer::Accepted { app }) => app,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the clock of the simulation")]
    Instant::now()
}
