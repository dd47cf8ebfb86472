//! The REST server over real connections, with a fake master behind it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_scheduler::master::WorkerStatus;
use aloha_scheduler::rest::{
    GatewayError, LogPiece, LogSource, RestGuard, RestLimits, RestServer, SubmissionGateway,
};
use aloha_scheduler::{
    AppDescription, AppId, AppPhase, AppStatus, AppsPage, AppsQuery, ClusterStatus, ForgetAnswer,
    KillAnswer, LogNews, LogRequest, Placement, SubmitAnswer,
};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A master that knows one application.
#[derive(Debug, Default)]
struct Fake {
    submitted: Mutex<Vec<AppDescription>>,
    failure: Option<GatewayError>,
    news: Mutex<Option<mpsc::Receiver<Option<LogNews>>>>,
}

impl Fake {
    fn submitted(&self) -> Vec<AppDescription> {
        self.submitted.lock().expect("not poisoned").clone()
    }

    fn check(&self) -> Result<(), GatewayError> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl SubmissionGateway for Fake {
    async fn submit(
        &self,
        submission: AppDescription,
        _: Option<&str>,
    ) -> Result<SubmitAnswer, GatewayError> {
        self.check()?;
        self.submitted
            .lock()
            .expect("not poisoned")
            .push(submission);
        Ok(SubmitAnswer::Accepted { app: app_1() })
    }

    async fn kill(&self, app: AppId) -> Result<KillAnswer, GatewayError> {
        self.check()?;
        let success = app == app_1();
        let message = if success {
            "killing app-1".into()
        } else {
            format!("application {app} is unknown")
        };
        Ok(KillAnswer { success, message })
    }

    async fn kill_all(&self) -> Result<u64, GatewayError> {
        self.check().map(|()| 1)
    }

    async fn forget(&self, _: AppId) -> Result<ForgetAnswer, GatewayError> {
        self.check().map(|()| ForgetAnswer::NoSuchApp)
    }

    async fn clear(&self) -> Result<u64, GatewayError> {
        self.check().map(|()| 0)
    }

    async fn status(&self, app: AppId) -> Result<Option<AppStatus>, GatewayError> {
        self.check()?;
        Ok((app == app_1()).then(running))
    }

    async fn wait(&self, app: &AppId, _: Duration) -> Result<Option<AppStatus>, GatewayError> {
        self.status(app.clone()).await
    }

    async fn apps(&self, _: AppsQuery) -> Result<AppsPage, GatewayError> {
        self.check()?;
        Ok(AppsPage {
            apps: vec![running()],
            next: None,
        })
    }

    async fn workers(&self) -> Result<Vec<WorkerStatus>, GatewayError> {
        self.check().map(|()| Vec::new())
    }

    async fn cluster(&self) -> Result<ClusterStatus, GatewayError> {
        self.check().map(|()| ClusterStatus::default())
    }

    async fn ready(&self) -> Result<(), GatewayError> {
        self.check()
    }

    async fn read_log(&self, id: &AppId, request: LogRequest) -> Result<LogPiece, GatewayError> {
        self.check()?;
        match id.as_str() {
            "app-1" => Ok(LogPiece {
                bytes: format!("{:?} {:?}", request.stream, request.attempt).into_bytes(),
                offset: request.offset + 1,
                next_offset: request.offset + 2,
            }),
            _ => Err(GatewayError::NotFound {
                reason: format!("there is no application {id}"),
            }),
        }
    }

    async fn follow_log(
        &self,
        id: &AppId,
        request: LogRequest,
    ) -> Result<(u64, Box<dyn LogSource>), GatewayError> {
        self.read_log(id, request).await?;
        let news = self.news.lock().expect("not poisoned").take();
        let source = Told(news.expect("followed once"));
        Ok((request.offset, Box::new(source)))
    }
}

fn app_1() -> AppId {
    "app-1".parse().expect("an id")
}

fn running() -> AppStatus {
    AppStatus {
        id: app_1(),
        name: "test".into(),
        entry_point: "SimpleProcess".into(),
        cores: 1,
        memory_mib: 256,
        supervise: false,
        phase: AppPhase::Running,
        exit_code: None,
        attempt: 1,
        worker: Some(Placement {
            worker: "worker-1".parse().expect("an id"),
            address: "127.0.0.1:7078".into(),
        }),
        waiting_for: None,
        message: None,
        submitted_at: Some(1_552_342_651_000),
        started_at: None,
        ended_at: None,
        priority: 0,
        not_before: None,
        history: Vec::new(),
    }
}

/// Output that the test writes; a source without a writer is broken.
struct Told(mpsc::Receiver<Option<LogNews>>);

#[async_trait]
impl LogSource for Told {
    async fn next(&mut self) -> Result<Option<LogNews>, GatewayError> {
        let told = self.0.recv().await;
        told.ok_or_else(|| GatewayError::NotReady {
            reason: "the master is gone".into(),
        })
    }
}

struct Server {
    address: String,
    fake: Arc<Fake>,
    client: reqwest::Client,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(failure: Option<GatewayError>) -> Self {
        let fake = Arc::new(Fake {
            failure,
            ..Fake::default()
        });
        let guard = RestGuard::new("127.0.0.1", &[], None, false).expect("loopback");
        let limits = RestLimits {
            body_bytes_max: 2048,
            body_timeout: Duration::from_millis(200),
            ..RestLimits::default()
        };
        let server = RestServer::new(fake.clone(), guard, limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let stop = CancellationToken::new();
        let ended = tokio::spawn(server.serve(listener, stop.clone()));
        Self {
            address,
            fake,
            client: reqwest::Client::new(),
            stop,
            ended,
        }
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = self.client.post(format!("http://{}{path}", self.address));
        answer(request.body(body)).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(format!("http://{}{path}", self.address))).await
    }

    /// Asks for output; the other end of what is followed.
    async fn follow(&self) -> (mpsc::Sender<Option<LogNews>>, reqwest::Response) {
        let (writer, news) = mpsc::channel(1);
        *self.fake.news.lock().expect("not poisoned") = Some(news);
        let path = "/v1/applications/app-1/logs?follow=true&offset=7";
        let url = format!("http://{}{path}", self.address);
        let response = self.client.get(url).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-aloha-offset"], "7");
        (writer, response)
    }

    async fn create(&self, body: &str) -> (u16, Value) {
        self.post("/v1/submissions/create", body.to_owned()).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().expect("text");
    assert_eq!(kind, "application/json");
    (status, response.json().await.expect("JSON"))
}

#[track_caller]
fn assert_error((status, body): (u16, Value), expected: u16) {
    assert_eq!(status, expected, "{body}");
    assert_eq!(body["action"], "ErrorResponse");
    assert!(
        body["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    assert!(body.get("success").is_none());
    let newest = (expected == 468).then_some("v1");
    assert_eq!(
        body.get("highestProtocolVersion").and_then(Value::as_str),
        newest
    );
}

#[tokio::test]
async fn what_can_be_got_can_be_asked_for_its_head() {
    let server = Server::start(None).await;
    for (method, path, status, allowed) in [
        ("HEAD", "readyz", 200, None),
        ("HEAD", "status/app-1", 200, None),
        ("HEAD", "create", 405, Some("POST")),
        ("PUT", "readyz", 405, Some("GET, HEAD")),
    ] {
        let method = method.parse().expect("a method");
        let url = format!("http://{}/v1/submissions/{path}", server.address);
        let answer = server.client.request(method, url).send().await;
        let answer = answer.expect("an answer");
        let allow = answer.headers().get("allow").map(|allow| allow.to_str());
        let allow = allow.transpose().expect("text");
        assert_eq!(
            (answer.status().as_u16(), allow),
            (status, allowed),
            "{path}"
        );
    }
}

const CREATE: &str = r#"{"action":"CreateSubmissionRequest","name":"test","entryPoint":"me.jrwang.app.SimpleProcess",
    "libs":[],"args":"echo hi","cores":1,"memory":256,"colour":"red"}"#;

#[tokio::test]
async fn create_status_and_kill_answer_as_spark_does() {
    let server = Server::start(None).await;
    let created = json!({"action": "CreateSubmissionResponse", "message": "application submitted as app-1",
        "serverSparkVersion": "4.0.0", "submissionId": "app-1", "success": true, "unknownFields": ["colour"]});
    assert_eq!(server.create(CREATE).await, (200, created));
    let submitted = server.fake.submitted();
    assert_eq!(submitted.len(), 1);
    assert_eq!(submitted[0].args, ["echo hi"]);

    let status = json!({"action": "SubmissionStatusResponse", "attempt": 1, "driverState": "RUNNING", "priority": 0,
        "serverSparkVersion": "4.0.0", "submissionId": "app-1", "submittedAt": 1_552_342_651_000_u64, "success": true,
        "workerHostPort": "127.0.0.1:7078", "workerId": "worker-1"});
    assert_eq!(
        server.get("/v1/submissions/status/app-1/extra").await,
        (200, status)
    );

    let killed = json!({"action": "KillSubmissionResponse", "message": "killing app-1",
        "serverSparkVersion": "4.0.0",
        "submissionId": "app-1", "success": true});
    assert_eq!(
        server.post("/v1/submissions/kill/app-1", "").await,
        (200, killed)
    );
}

#[tokio::test]
async fn an_unknown_id_is_processed_without_success() {
    let server = Server::start(None).await;
    let killed = server.post("/v1/submissions/kill/app-9", "").await;
    let status = server.get("/v1/submissions/status/app-9").await;
    for (code, body) in [killed, status] {
        assert_eq!(code, 200);
        assert_eq!(
            (&body["success"], &body["submissionId"]),
            (&json!(false), &json!("app-9"))
        );
    }
}

#[tokio::test]
async fn bad_requests_are_errors_in_json() {
    let server = Server::start(None).await;
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/submissions",
        "/v1/submissions/",
        "/v1/submissions/bad",
    ] {
        assert_error(server.get(path).await, 400);
        assert_error(server.post(path, "").await, 400);
    }
    for path in ["/bad-version", "/bad-version/submissions/create", "/v2"] {
        assert_error(server.get(path).await, 468);
    }
    for path in ["/v1/submissions/kill", "/v1/submissions/kill/"] {
        assert_error(server.post(path, "").await, 400);
    }
    for path in ["/v1/submissions/status", "/v1/submissions/status/"] {
        assert_error(server.get(path).await, 400);
    }
    for body in [
        "",
        "{",
        "hello",
        "\"hello\"",
        "{\"action\":\"Other\"}",
        "{\"a\":1}",
    ] {
        assert_error(server.create(body).await, 400);
    }
    assert_error(server.get("/v1/submissions/create").await, 405);
    assert_error(server.get("/v1/submissions/kill/app-1").await, 405);
    assert_error(server.post("/v1/submissions/status/app-1", "").await, 405);
    assert_error(server.create(&" ".repeat(3000)).await, 413);
    assert_eq!(server.fake.submitted(), []);
}

#[tokio::test]
async fn a_foreign_page_or_host_is_refused() {
    let server = Server::start(None).await;
    let url = format!("http://{}/v1/submissions/create", server.address);
    for (name, value) in [("origin", "http://evil.example"), ("host", "evil.example")] {
        let request = server.client.post(&url).header(name, value).body(CREATE);
        assert_error(answer(request).await, 403);
    }
    assert_eq!(server.fake.submitted(), []);
}

#[tokio::test]
async fn what_the_master_cannot_do_has_its_own_status() {
    let reason = || "Master is not ready.".to_owned();
    let cases = [
        (GatewayError::NotReady { reason: reason() }, 503),
        (GatewayError::Failed { reason: reason() }, 500),
    ];
    for (failure, status) in cases {
        let server = Server::start(Some(failure)).await;
        assert_error(server.create(CREATE).await, status);
        assert_error(server.post("/v1/submissions/kill/app-1", "").await, status);
        assert_error(server.get("/v1/submissions/status/app-1").await, status);
        let ready = server.get("/v1/submissions/readyz").await;
        assert_eq!(ready.1["message"], "Master is not ready.");
        assert_error(ready, status);
    }
    let server = Server::start(None).await;
    let ready = json!({"action": "ReadyzResponse", "message": "", "serverSparkVersion": "4.0.0", "success": true});
    assert_eq!(server.get("/v1/submissions/readyz").await, (200, ready));
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let server = Server::start(None).await;
    let mut socket = TcpStream::connect(&server.address)
        .await
        .expect("connected");
    let head =
        "POST /v1/submissions/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket
        .read_to_string(&mut answer)
        .await
        .expect("answered and closed");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_the_port() {
    let server = Server::start(None).await;
    server.get("/v1/submissions/readyz").await;
    server.stop.cancel();
    server.ended.await.expect("no panic");
    assert!(TcpStream::connect(&server.address).await.is_err());
}

#[tokio::test]
async fn a_piece_of_output_says_where_it_begins_and_where_the_next_does() {
    let server = Server::start(None).await;
    let path = "/v1/applications/app-1/logs?stream=stderr&offset=5&attempt=2";
    let url = format!("http://{}{path}", server.address);
    let response = server.client.get(url).send().await.expect("an answer");
    let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(response.status(), 200);
    assert_eq!(header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(
        (header("x-aloha-offset"), header("x-aloha-next-offset")),
        ("6".into(), "7".into())
    );
    assert_eq!(response.text().await.expect("text"), "Stderr Some(2)");

    let status = async |server: &Server, method: reqwest::Method, path: &str| {
        let url = format!("http://{}/v1/applications/{path}", server.address);
        let response = server.client.request(method, url).send().await;
        let response = response.expect("an answer");
        let kind = response.headers()["content-type"].to_str().expect("text");
        assert_eq!(kind, "application/problem+json");
        response.status().as_u16()
    };
    let get = reqwest::Method::GET;
    for (method, path, expected) in [
        (&get, "app-2/logs?follow=true", 404),
        (&get, "app-2/logs", 404),
        (&get, "app-1/logs?offset=x", 400),
        (&reqwest::Method::POST, "app-1/logs", 405),
    ] {
        let status = status(&server, method.clone(), path).await;
        assert_eq!(status, expected, "{method} {path}");
    }
    let reason = "Master is not ready.".to_owned();
    let server = Server::start(Some(GatewayError::NotReady { reason })).await;
    assert_eq!(status(&server, get, "app-1/logs").await, 503);
}

#[tokio::test]
async fn followed_output_comes_as_it_is_told_and_ends_with_it() {
    let server = Server::start(None).await;
    let (writer, mut response) = server.follow().await;
    // As much as a connection takes at once, and more.
    let large = vec![b'x'; 300_000];
    for (news, expected) in [
        (LogNews::Piece(b"one".to_vec()), &b"one"[..]),
        (LogNews::Attempt(2), b"\n[aloha: attempt 2 begins]\n"),
        (LogNews::Piece(large.clone()), &large),
        (LogNews::Piece(b"\n".to_vec()), b"\n"),
        (
            LogNews::Missed(9),
            b"[aloha: 9 bytes were removed before they could be read]\n",
        ),
    ] {
        writer.send(Some(news)).await.expect("it is followed");
        let mut body = Vec::new();
        while body.len() < expected.len() {
            let chunk = response.chunk().await.expect("connected");
            body.extend(chunk.expect("not the end"));
        }
        assert_eq!(body, expected);
    }
    writer.send(None).await.expect("it is followed");
    assert_eq!(response.chunk().await.expect("a proper end"), None);
}

#[tokio::test]
async fn followed_output_that_breaks_off_does_not_look_complete() {
    let server = Server::start(None).await;
    let (writer, mut response) = server.follow().await;
    drop(writer);
    response.chunk().await.expect_err("no proper end");
}

#[tokio::test]
async fn a_follower_that_goes_away_leaves_nothing_behind() {
    let server = Server::start(None).await;
    let (writer, mut response) = server.follow().await;
    let news = Some(LogNews::Piece(b"one".to_vec()));
    writer.send(news).await.expect("it is followed");
    response.chunk().await.expect("connected");
    drop(response);
    // The source is dropped although there is nothing to write.
    writer.closed().await;
}
