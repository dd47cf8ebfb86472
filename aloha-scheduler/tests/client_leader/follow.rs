//! Output that is followed while another master takes over.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_rpc::{EndpointContext, EndpointError, RpcAddress, RpcEndpoint, RpcEndpointRef, RpcEnv};
use aloha_scheduler::runner::CgroupSupport;
use aloha_scheduler::worker::{LogStream, WorkerRegistration};
use aloha_scheduler::{
    AppDescription, AppId, AttemptReport, AttemptState, HeldAttempt, LogAnswer, LogFollower,
    LogNews, LogRequest, MASTER, MasterMessage, Outcome, RegisterAnswer, Resources, WORKER,
    WorkerId, WorkerMessage,
};
use tokio::time::sleep;

use crate::ground::{Candidate, Ground, run};
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
    async fn start(ground: &Ground) -> Self {
        Self::with(ground, Arc::default()).await
    }

    async fn with(ground: &Ground, text: Arc<Mutex<Vec<u8>>>) -> Self {
        let env = ground.sim.env("w0").await;
        let endpoint = env.setup_endpoint(WORKER, Writer(Arc::clone(&text)));
        let endpoint = endpoint.expect("the first there");
        Self {
            env,
            endpoint,
            text,
        }
    }

    /// The same again, after so long.
    async fn restart(self, ground: &Ground, after: Duration) -> Self {
        self.env.shutdown().await;
        sleep(after).await;
        Self::with(ground, self.text).await
    }

    async fn begin(&self, master: &Candidate, app: &AppId) {
        let app = app.clone();
        self.report(master, AttemptReport::Started { app, attempt: 1 })
            .await;
    }

    async fn end(&self, master: &Candidate, app: &AppId) {
        let ended = AttemptReport::Ended {
            app: app.clone(),
            attempt: 1,
            outcome: Outcome::Exited(0),
        };
        self.report(master, ended).await;
    }

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

async fn rest(mut follower: LogFollower) -> Vec<LogNews> {
    let mut told = Vec::new();
    while let Some(news) = follower.next().await.expect("an answer") {
        told.push(news);
    }
    told
}

#[test]
fn a_followed_output_goes_on_at_the_next_leader() {
    run(async |ground| {
        let worker = Worker::start(&ground).await;
        let [first, second, _] = &ground.masters;
        let led = first.elect().await;
        worker.register(first, Vec::new()).await;
        let client = ground.connect().await.expect("one leads");
        let app = accepted(client.submit(description("a")).await);
        worker.begin(first, &app).await;
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
            worker.end(second, &app).await;
            leads
        };
        let (told, _leads) = tokio::join!(rest(follower), change);
        assert_eq!(told, [LogNews::Piece(b"two\n".to_vec())]);
    });
}

/// A worker of the first master that runs an application, whose output is followed.
async fn followed(ground: &Ground) -> (Worker, AppId, LogFollower) {
    let worker = Worker::start(ground).await;
    let master = &ground.masters[0];
    worker.register(master, Vec::new()).await;
    let client = ground.connect().await.expect("one leads");
    let app = accepted(client.submit(description("a")).await);
    worker.begin(master, &app).await;
    let follower = client.follow_log(&app, LogRequest::new(LogStream::Stdout));
    (worker, app, follower)
}

#[test]
fn a_followed_output_goes_on_once_its_worker_is_back() {
    run(async |ground| {
        let master = &ground.masters[0];
        let _leads = master.elect().await;
        let (worker, app, follower) = followed(&ground).await;
        let change = async {
            sleep(Duration::from_secs(1)).await;
            let worker = worker.restart(&ground, Duration::from_secs(50)).await;
            worker
                .register(master, vec![held(&app, description("a"))])
                .await;
            worker.write("back\n");
            sleep(Duration::from_secs(5)).await;
            worker.end(master, &app).await;
        };
        let (told, ()) = tokio::join!(rest(follower), change);
        assert_eq!(told, [LogNews::Piece(b"back\n".to_vec())]);
    });
}

#[test]
fn the_end_of_a_followed_output_waits_for_a_worker_that_is_away() {
    run(async |ground| {
        let master = &ground.masters[0];
        let _leads = master.elect().await;
        let (worker, app, follower) = followed(&ground).await;
        let change = async {
            sleep(Duration::from_secs(1)).await;
            worker.end(master, &app).await;
            worker.write("last\n");
            let worker = worker.restart(&ground, Duration::from_secs(50)).await;
            worker.register(master, Vec::new()).await;
        };
        let (told, ()) = tokio::join!(rest(follower), change);
        assert_eq!(told, [LogNews::Piece(b"last\n".to_vec())]);
    });
}

#[test]
fn the_end_of_a_followed_output_does_not_wait_for_a_worker_that_the_master_has_given_up() {
    run(async |ground| {
        let master = &ground.masters[0];
        let _leads = master.elect().await;
        let (worker, app, mut follower) = followed(&ground).await;
        let end = async {
            sleep(Duration::from_secs(1)).await;
            worker.end(master, &app).await;
            worker.env.shutdown().await;
        };
        let (told, ()) = tokio::join!(follower.next(), end);
        assert!(told.is_err(), "{told:?}");
    });
}
