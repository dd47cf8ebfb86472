//! Several masters, each with a REST server: a standby sends clients to the one that leads.

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::RpcEnv;
use aloha_scheduler::election::Standing;
use aloha_scheduler::persistence::MemoryEngine;
use aloha_scheduler::rest::{RestGuard, RestLimits, RestLoad, RestServer};
use aloha_scheduler::{Master, MasterHandle, RecoveryMode};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, application, send};
use crate::common::now;
use crate::decided::{Decided, Known};

struct Candidate {
    api: Api,
    env: RpcEnv,
    master: MasterHandle,
    election: Arc<Decided>,
    load: RestLoad,
    stop: CancellationToken,
}

impl Candidate {
    /// A master whose REST server is known to the others, or not.
    async fn start(store: &MemoryEngine, known: &Known, is_announced: bool) -> Self {
        let env = RpcEnv::builder("master").bind("127.0.0.1:0");
        let env = env.start().await.expect("a free port");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let election = Decided::new(known);
        let mode = RecoveryMode {
            persistence: Some(Arc::new(store.clone())),
            election: Arc::clone(&election) as _,
        };
        let builder = Master::builder(&env).recovery_mode(mode);
        let master = builder.rest_url(is_announced.then(|| url.clone())).start();
        let master = master.expect("the first there");
        let guard = RestGuard::new("127.0.0.1", &[], None, false).expect("loopback");
        let client = Arc::new(master.client().clone());
        let server = RestServer::new(client, guard, RestLimits::default());
        let load = server.load();
        let stop = CancellationToken::new();
        tokio::spawn(server.serve(listener, stop.clone()));
        Self {
            api: Api::at(&url),
            env,
            master,
            election,
            load,
            stop,
        }
    }

    async fn elect(&self) -> watch::Sender<Standing> {
        self.election.elect(&self.master).await
    }

    fn rpc(&self) -> String {
        self.env.address().expect("it listens").to_string()
    }

    async fn shutdown(self) {
        self.stop.cancel();
        self.env.shutdown().await;
    }
}

async fn two(are_announced: bool) -> [Candidate; 2] {
    let (store, known) = (MemoryEngine::new(), Known::default());
    [
        Candidate::start(&store, &known, are_announced).await,
        Candidate::start(&store, &known, are_announced).await,
    ]
}

fn create() -> Value {
    json!({"action": "CreateSubmissionRequest", "name": "n", "entryPoint": "SimpleProcess", "libs": [],
           "args": "true", "cores": 1, "memory": 1})
}

/// Every request that only a leader answers.
fn requests() -> Vec<(Method, &'static str, Value)> {
    vec![
        (
            Method::GET,
            "/v1/applications?name=a%2Fb&limit=7",
            Value::Null,
        ),
        (Method::HEAD, "/v1/applications", Value::Null),
        (Method::POST, "/v1/applications", application("a")),
        (Method::GET, "/v1/applications/app-1", Value::Null),
        (Method::DELETE, "/v1/applications/app-1", Value::Null),
        (Method::POST, "/v1/applications/app-1/kill", Value::Null),
        (
            Method::GET,
            "/v1/applications/app-1/wait?timeout=60",
            Value::Null,
        ),
        (Method::GET, "/v1/applications/app-1/logs", Value::Null),
        (
            Method::GET,
            "/v1/applications/app-1/logs?follow=true",
            Value::Null,
        ),
        (Method::GET, "/v1/workers", Value::Null),
        (Method::GET, "/v1/workers/worker-1", Value::Null),
        (Method::GET, "/v1/workers/worker-1/drain", Value::Null),
        (Method::POST, "/v1/workers/worker-1/drain", json!({})),
        (Method::DELETE, "/v1/workers/worker-1/drain", Value::Null),
        (Method::GET, "/v1/cluster", Value::Null),
        (Method::POST, "/v1/submissions/create", create()),
        (Method::POST, "/v1/submissions/kill/app-1", Value::Null),
        (Method::POST, "/v1/submissions/killall", Value::Null),
        (Method::POST, "/v1/submissions/clear", Value::Null),
        (Method::GET, "/v1/submissions/status/driver-1", Value::Null),
    ]
}

#[tokio::test]
async fn a_standby_sends_every_request_to_the_same_path_at_the_leader() {
    let [leader, standby] = two(true).await;
    let _leads = leader.elect().await;
    let api = standby.api.staying();
    for (method, path, body) in requests() {
        let answer = send(api.request(method.clone(), path).json(&body)).await;
        assert_eq!(answer.status, 307, "{method} {path}: {answer:?}");
        let expected = format!("{}{path}", leader.api.url());
        assert_eq!(answer.header("location"), expected);
        if method == Method::HEAD {
            continue;
        }
        if path.starts_with("/v1/submissions") {
            assert_eq!(answer.body["action"], "ErrorResponse");
            let message = answer.body["message"].as_str().expect("a text");
            assert!(message.contains(&leader.rpc()), "{message}");
        } else {
            let detail = answer.problem(307);
            assert_eq!(
                detail,
                format!("this master is a standby; {} leads", leader.rpc())
            );
            assert_eq!(answer.body["leader"], leader.rpc());
        }
    }
    // What it is told is wrong before it is asked who leads.
    let wrong = api.get("/v1/applications?limit=x").await;
    wrong.problem(400);
    leader.shutdown().await;
    standby.shutdown().await;
}

#[tokio::test]
async fn a_client_that_follows_gets_its_answer_from_the_leader() {
    let [leader, standby] = two(true).await;
    let _leads = leader.elect().await;
    let id = standby.api.submit(&application("followed")).await;
    let shown = standby.api.get(&format!("/v1/applications/{id}")).await;
    assert_eq!(
        (shown.status, &shown.body["name"]),
        (200, &json!("followed"))
    );
    let created = standby.api.post("/v1/submissions/create", &create()).await;
    assert_eq!(created.body["success"], true, "{created:?}");
    let apps = leader.master.client().apps().await.expect("it leads");
    assert_eq!(apps.len(), 2);
    leader.shutdown().await;
    standby.shutdown().await;
}

#[tokio::test]
async fn where_the_leaders_server_is_not_known_its_rpc_address_is_told() {
    let [leader, standby] = two(false).await;
    for leads in [false, true] {
        let _leads = match leads {
            true => Some(leader.elect().await),
            false => None,
        };
        for (method, path, body) in requests() {
            let answer = send(standby.api.request(method.clone(), path).json(&body)).await;
            assert_eq!(answer.status, 503, "{method} {path}: {answer:?}");
            assert_eq!(answer.header("retry-after"), "1");
            assert!(!answer.headers.contains_key("location"));
            let text = answer.body.to_string();
            assert!(
                method == Method::HEAD || text.contains(&leader.rpc()) == leads,
                "{text}"
            );
        }
    }
    leader.shutdown().await;
    standby.shutdown().await;
}

#[tokio::test]
async fn what_concerns_the_master_itself_is_answered_by_it() {
    let [leader, standby] = two(true).await;
    let _leads = leader.elect().await;
    let api = standby.api.staying();
    let ready = api.get("/v1/submissions/readyz").await;
    assert_eq!(
        (ready.status, &ready.body["message"]),
        (503, &json!("Master is not ready."))
    );
    assert_eq!(leader.api.get("/v1/submissions/readyz").await.status, 200);
    assert_eq!(api.get("/v1/openapi.json").await.status, 200);
    api.get("/v1/applications/a/b/c").await.problem(404);
    leader.shutdown().await;
    standby.shutdown().await;
}

#[tokio::test]
async fn a_request_for_another_host_is_refused_and_sent_nowhere() {
    let [leader, standby] = two(true).await;
    let _leads = leader.elect().await;
    let request = standby.api.request(Method::GET, "/v1/cluster");
    let answer = send(request.header("host", "evil.example")).await;
    answer.problem(403);
    assert!(!answer.headers.contains_key("location"));
    leader.shutdown().await;
    standby.shutdown().await;
}

#[tokio::test]
async fn a_wait_at_a_leader_that_is_deposed_ends_at_once_and_goes_on_at_the_next() {
    let [first, second] = two(true).await;
    let led = first.elect().await;
    let id = first.api.submit(&application("waited for")).await;
    let api = first.api.staying();
    let path = format!("/v1/applications/{id}/wait?timeout=60");
    let waiting = {
        let (api, path) = (api.clone(), path.clone());
        tokio::spawn(async move { (api.get(&path).await, now()) })
    };
    while first.load.long_requests() < 1 {
        tokio::task::yield_now().await;
    }
    let deposed = now();
    led.send_replace(Standing::Lost);
    let (answer, ended) = waiting.await.expect("no panic");
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), "1");
    let taken = ended.saturating_duration_since(deposed);
    assert!(taken < Duration::from_secs(2), "{taken:?}");

    let _leads = second.elect().await;
    let again = api.get(&path).await;
    assert_eq!(
        again.header("location"),
        format!("{}{path}", second.api.url())
    );
    second.api.end(&id).await;
    let followed = first.api.get(&path).await;
    assert_eq!(
        (followed.status, &followed.body["state"]),
        (200, &json!("KILLED"))
    );
    first.shutdown().await;
    second.shutdown().await;
}
