//! Masters that do not know the question who leads: of a version before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aloha_rpc::testing::Simulation;
use aloha_rpc::{EndpointContext, EndpointError, RpcCallContext, RpcEndpoint};
use aloha_scheduler::master::STANDBY;
use aloha_scheduler::{ClusterStatus, MASTER, MasterClient};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::sleep;

/// What an older master cannot read.
#[derive(Debug, Serialize)]
struct Unknown;

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("there was no such thing"))
    }
}

/// The questions by their names, of which it knows one.
#[derive(Debug, Serialize, Deserialize)]
enum MasterMessage {
    RegisterWorker(Unknown),
    Heartbeat(Unknown),
    WorkerLeaving(Unknown),
    Report(Unknown),
    Submit(Unknown),
    Kill(Unknown),
    Status(Unknown),
    Wait(Unknown),
    Apps(Unknown),
    Workers(Unknown),
    ReadLog(Unknown),
    Cluster { call: RpcCallContext<ClusterStatus> },
    KillAll(Unknown),
    Forget(Unknown),
    Clear(Unknown),
    Own(Unknown),
}

struct OldMaster {
    leads: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
}

impl RpcEndpoint for OldMaster {
    type Message = MasterMessage;

    async fn receive(
        &mut self,
        message: MasterMessage,
        _: &EndpointContext<MasterMessage>,
    ) -> Result<(), EndpointError> {
        if let MasterMessage::Cluster { call } = message {
            self.looks.fetch_add(1, Ordering::Relaxed);
            match self.leads.load(Ordering::Relaxed) {
                true => call.reply(ClusterStatus {
                    master: "m0:7077".to_owned(),
                    epoch: 1,
                    ..ClusterStatus::default()
                }),
                false => call.send_failure(EndpointError::new(STANDBY, "a standby")),
            }
        }
        Ok(())
    }
}

#[test]
fn a_master_that_does_not_know_the_question_is_looked_at_again_and_again() {
    Simulation::run(7, async |sim| {
        let env = sim.env("m0").await;
        let (leads, looks) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let old = OldMaster {
            leads: Arc::clone(&leads),
            looks: Arc::clone(&looks),
        };
        env.setup_endpoint(MASTER, old).expect("the first there");
        let client = sim.client("client").await;
        let elect = async {
            sleep(Duration::from_secs(10)).await;
            leads.store(true, Ordering::Relaxed);
        };
        let address = env.address().expect("it listens").clone();
        let addresses = [address];
        let (client, ()) = tokio::join!(MasterClient::connect(&client, &addresses), elect);
        let cluster = client.expect("it leads").cluster().await;
        assert_eq!(cluster.expect("an answer").master, "m0:7077");
        let looks = looks.load(Ordering::Relaxed);
        // With pauses of up to one second.
        assert!((10..40).contains(&looks), "{looks} looks");
    });
}
