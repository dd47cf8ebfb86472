//! Output that is followed while another master takes over.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_rpc::{EndpointContext, EndpointError, RpcAddress, RpcEndpoint, RpcEndpointRef, RpcEnv};
use aloha_scheduler::runner::CgroupSupport;
use aloha_scheduler::worker::{LogStream, WorkerRegistration};
use aloha_scheduler::{
    AppDescription, AppId, AttemptReport, AttemptState, HeldAttempt, LogAnswer, LogNews,
    LogRequest, MASTER, MasterMessage, Outcome, RegisterAnswer, Resources, WORKER, WorkerId,
    WorkerMessage,
};
use tokio::time::sleep;

use crate::ground::{Candidate, run};
use crate::paused::{accepted, description};

/// A worker that holds one attempt, and has what that wrote.
struct Writer(Arc<Mutex<Vec<u8>>>);

impl RpcEndpoint for Writer {
    type Message = WorkerMessage;

    async fn receive(
        &mut self,
        message: WorkerMessage,
        _: &EndpointContext<WorkerMessage>,
    ) -> Result<(), EndpointError> {
        let WorkerMessage::ReadLog { request, call, .. } = message else {
            return Ok(());
        };
        let text = self.0.lock().expect("not poisoned").clone();
        let offset = usize::try_from(request.offset).expect("small");
        let bytes = text.get(offset..).unwrap_or_default().to_vec();
        let next_offset = text.len() as u64;
        if bytes.is_empty() {
            // As a worker that waits for more.
            sleep(request.patience()).await;
        }
        call.reply(LogAnswer::Chunk { bytes, next_offset });
        Ok(())
    }
}

struct Worker {
    env: RpcEnv,
    endpoint: RpcEndpointRef<WorkerMessage>,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Worker {
    fn write(&self, text: &str) {
        let mut written = self.text.lock().expect("not poisoned");
        written.extend_from_slice(text.as_bytes());
    }

    async fn master(&self, address: &RpcAddress) -> RpcEndpointRef<MasterMessage> {
        let found = self.env.retrieve_endpoint_ref(address, MASTER).await;
        found.expect("it is there")
    }

    async fn register(&self, master: &Candidate, attempts: Vec<HeldAttempt>) {
        let registration = WorkerRegistration {
            id: id(),
            host: "w0".to_owned(),
            port: 7077,
            offers: NEEDS,
            attempts,
            enforces: CgroupSupport::default(),
            attributes: Default::default(),
            epoch: 0,
        };
        let master = self.master(&master.address()).await;
        let answer = master.ask(|call| MasterMessage::RegisterWorker {
            registration,
            worker: self.endpoint.clone(),
            call,
        });
        let answer = answer.await.expect("an answer");
        assert!(
            matches!(answer, RegisterAnswer::Registered { .. }),
            "{answer:?}"
        );
    }

    async fn report(&self, master: &Candidate, report: AttemptReport) {
        let master = self.master(&master.address()).await;
        let id = id();
        let told = master.ask(|call| MasterMessage::Report { id, report, call });
        told.await.expect("an answer");
    }
}

const NEEDS: Resources = Resources {
    cores: 1,
    memory_mib: 1,
};

fn id() -> WorkerId {
    "worker-1".parse().expect("an id")
}

fn held(app: &AppId, description: AppDescription) -> HeldAttempt {
    HeldAttempt {
        app: app.clone(),
        attempt: 1,
        occupies: NEEDS,
        state: AttemptState::Running,
        epoch: 0,
        description: Some(Arc::new(description)),
    }
}

#[test]
fn a_followed_output_goes_on_at_the_next_leader() {
    run(async |ground| {
        let env = ground.sim.env("w0").await;
        let text = Arc::default();
        let endpoint = env.setup_endpoint(WORKER, Writer(Arc::clone(&text)));
        let endpoint = endpoint.expect("the first there");
        let worker = Worker {
            env,
            endpoint,
            text,
        };
        let [first, second, _] = &ground.masters;
        let led = first.elect().await;
        worker.register(first, Vec::new()).await;
        let client = ground.connect().await.expect("one leads");
        let app = accepted(client.submit(description("a")).await);
        let attempt = 1;
        let started = AttemptReport::Started {
            app: app.clone(),
            attempt,
        };
        worker.report(first, started).await;
        worker.write("one\n");

        let mut follower = client.follow_log(&app, LogRequest::new(LogStream::Stdout));
        let news = follower.next().await.expect("an answer");
        assert_eq!(news, Some(LogNews::Piece(b"one\n".to_vec())));

        let change = async {
            sleep(Duration::from_secs(1)).await;
            ground.sim.network().crash("m0");
            drop(led);
            sleep(Duration::from_secs(5)).await;
            let leads = second.elect().await;
            worker
                .register(second, vec![held(&app, description("a"))])
                .await;
            worker.write("two\n");
            sleep(Duration::from_secs(5)).await;
            let ended = AttemptReport::Ended {
                app: app.clone(),
                attempt,
                outcome: Outcome::Exited(0),
            };
            worker.report(second, ended).await;
            leads
        };
        let follow = async {
            let mut told = Vec::new();
            while let Some(news) = follower.next().await.expect("an answer") {
                told.push(news);
            }
            told
        };
        let (told, _leads) = tokio::join!(follow, change);
        assert_eq!(told, [LogNews::Piece(b"two\n".to_vec())]);
    });
}
