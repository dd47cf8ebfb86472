//! Three masters that share a store, of which the test says which leads.

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::testing::{SimConditions, Simulation};
use aloha_rpc::{RpcAddress, RpcEnv};
use aloha_scheduler::election::Standing;
use aloha_scheduler::persistence::MemoryEngine;
use aloha_scheduler::{AppId, ClientError, Master, MasterClient, MasterHandle, RecoveryMode};
use tokio::sync::watch;

use crate::decided::{Decided, Known};

/// One of three masters that share a store.
pub(crate) struct Candidate {
    pub(crate) env: RpcEnv,
    pub(crate) master: MasterHandle,
    election: Arc<Decided>,
}

impl Candidate {
    /// Makes it lead, for as long as the guard is there.
    pub(crate) async fn elect(&self) -> watch::Sender<Standing> {
        self.election.elect(&self.master).await
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
            let election = Decided::new(&known);
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

    /// A client that has not looked for a master yet.
    pub(crate) fn unconnected(&self) -> MasterClient {
        let masters = self.masters.each_ref().map(Candidate::address);
        MasterClient::unconnected(&self.client, &masters)
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
