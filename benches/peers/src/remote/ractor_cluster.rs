//! ractor_cluster, without encryption: the counter is found by its group.

use std::net::TcpListener;
use std::time::Duration;

use aloha_benches::{Entry, Figures, Handle, Job, Lobby, drive, perform, runtime};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call, pg};
use ractor_cluster::{NodeServer, NodeServerMessage, RactorClusterMessage, client_connect};

use crate::{asks, tells};

pub(crate) const ENTRIES: [Entry; 6] = {
    let [r2, r2p, r3, r4, r5] = asks("ractor_cluster", ask, serve);
    let r1 = tells("ractor_cluster", ask, serve);
    [r1.fewer(2), r2, r2p, r3.fewer(2), r4.fewer(2), r5]
};

const GROUP: &str = "counter";

#[derive(RactorClusterMessage)]
enum Load {
    Note(String),
    #[rpc]
    Echo(String, RpcReplyPort<String>),
    #[rpc]
    Count(RpcReplyPort<u64>),
}

struct Counter;

impl Actor for Counter {
    type Msg = Load;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Load>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Load>,
        load: Load,
        count: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match load {
            Load::Note(text) => *count += u64::from(text.len() == 32),
            Load::Echo(text, reply) => reply.send(text)?,
            Load::Count(reply) => reply.send(*count)?,
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Far(ActorRef<Load>);

impl Handle for Far {
    async fn tell(&mut self, text: String) {
        self.0.cast(Load::Note(text)).expect("it lives");
    }

    async fn ask(&mut self, text: String) -> String {
        call!(self.0, Load::Echo, text).expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        call!(self.0, Load::Count).expect("a reply")
    }
}

async fn node(name: &str, port: u16) -> ActorRef<NodeServerMessage> {
    let (cookie, host) = ("bench".to_owned(), "localhost".to_owned());
    let node = NodeServer::new(port, cookie, name.to_owned(), host, None, None)
        .with_listen_addr([127, 0, 0, 1].into());
    let (node, _) = Actor::spawn(None, node, ()).await.expect("a free port");
    node
}

/// The system's choice: a node does not say which one it got.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it listens").port()
}

fn ask(job: Job) -> Figures {
    drive(&runtime(), async move {
        let node = node("client", free_port()).await;
        client_connect(&node, job.address())
            .await
            .expect("the server listens");
        let counter = loop {
            if let [counter] = &pg::get_members(&GROUP.to_owned())[..] {
                break ActorRef::from(counter.clone());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        perform(&job, Far(counter)).await
    })
}

fn serve(lobby: Lobby) {
    let runtime = runtime();
    let port = free_port();
    let node = drive(&runtime, async move {
        let node = node("server", port).await;
        let (counter, _) = Actor::spawn(None, Counter, ()).await.expect("it starts");
        pg::join(GROUP.to_owned(), vec![counter.get_cell()]);
        node
    });
    lobby.open(&format!("127.0.0.1:{port}"));
    drop(node);
}
