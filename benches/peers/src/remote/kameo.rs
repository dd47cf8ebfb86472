//! kameo's remote actors, over libp2p and TCP, which encrypts. One-way messages are acknowledged, for the others have no
//! order, and are lost when more than so many are under way.

use std::sync::Arc;
use std::time::Duration;

use aloha_benches::{Entry, Figures, Handle, Job, Lobby, drive, perform, runtime};
use futures::StreamExt as _;
use kameo::actor::{RemoteActorRef, Spawn};
use kameo::message::{Context, Message};
use kameo::{Actor, RemoteActor, remote, remote_message};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{asks, tells};

pub(crate) const ENTRIES: [Entry; 6] = {
    let [r2, r2p, r3, r4, r5] = asks("kameo remote", ask, serve);
    let r1 = tells("kameo remote", ask, serve);
    [
        r1.fewer(20),
        r2.fewer(5),
        r2p.fewer(5),
        r3.fewer(10),
        r4.fewer(20),
        r5.fewer(5),
    ]
};

const NAME: &str = "counter";
/// How many one-way messages may be under way.
const UNDER_WAY: u32 = 64;

#[derive(Actor, RemoteActor)]
struct Counter(u64);

#[derive(Serialize, Deserialize)]
struct Note(String);

#[derive(Serialize, Deserialize)]
struct Echo(String);

#[derive(Serialize, Deserialize)]
struct Count;

#[remote_message]
impl Message<Note> for Counter {
    type Reply = ();

    async fn handle(&mut self, Note(text): Note, _: &mut Context<Self, ()>) {
        self.0 += u64::from(text.len() == 32);
    }
}

#[remote_message]
impl Message<Echo> for Counter {
    type Reply = String;

    async fn handle(&mut self, Echo(text): Echo, _: &mut Context<Self, String>) -> String {
        text
    }
}

#[remote_message]
impl Message<Count> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: Count, _: &mut Context<Self, u64>) -> u64 {
        self.0
    }
}

#[derive(Clone)]
struct Far {
    counter: RemoteActorRef<Counter>,
    under_way: Arc<Semaphore>,
}

impl Handle for Far {
    async fn tell(&mut self, text: String) {
        let place = Arc::clone(&self.under_way).acquire_owned().await;
        let counter = self.counter.clone();
        tokio::spawn(async move {
            let note = Note(text);
            counter.tell(&note).send_ack().await.expect("it lives");
            drop(place);
        });
    }

    async fn ask(&mut self, text: String) -> String {
        self.counter.ask(&Echo(text)).send().await.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        let all = self.under_way.acquire_many(UNDER_WAY).await;
        drop(all.expect("open"));
        self.counter.ask(&Count).send().await.expect("a reply")
    }
}

/// What `remote::bootstrap` makes, without the search for peers, and with room for what is asked at once.
fn swarm() -> Swarm<remote::Behaviour> {
    let config = remote::messaging::Config::default()
        .with_max_concurrent_streams(10_000)
        .with_request_size_maximum(16 << 20)
        .with_response_size_maximum(16 << 20);
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, || {
            let mut streams = yamux::Config::default();
            streams.set_max_num_streams(10_000);
            streams
        })
        .expect("TCP")
        .with_behaviour(|key| remote::Behaviour::new(key.public().to_peer_id(), config))
        .expect("a behaviour")
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    swarm.behaviour().init_global();
    swarm
}

fn ask(job: Job) -> Figures {
    drive(&runtime(), async move {
        let mut swarm = swarm();
        let (peer, address) = job.address().split_once(' ').expect("both");
        let peer: PeerId = peer.parse().expect("a name");
        let address: Multiaddr = address.parse().expect("an address");
        swarm.add_peer_address(peer, address.clone());
        let server = DialOpts::peer_id(peer).addresses(vec![address]).build();
        swarm.dial(server).expect("the server listens");
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        let counter = loop {
            if let Ok(Some(counter)) = RemoteActorRef::lookup(NAME).await {
                break counter;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let under_way = Arc::new(Semaphore::new(UNDER_WAY as usize));
        perform(&job, Far { counter, under_way }).await
    })
}

fn serve(lobby: Lobby) {
    let runtime = runtime();
    let address = drive(&runtime, async {
        let mut swarm = swarm();
        let everywhere: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().expect("an address");
        swarm.listen_on(everywhere).expect("a free port");
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break format!("{} {address}", swarm.local_peer_id());
            }
        };
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        let counter = Counter::spawn_with_mailbox(Counter(0), kameo::mailbox::unbounded());
        counter.register(NAME).await.expect("a new name");
        address
    });
    lobby.open(&address);
}
