//! The same submission sent again under its key is still one application.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::task::JoinSet;

use crate::api::{Alone, Answer, Api, application, durable_master, send};

async fn submit(api: &Api, key: &str, submission: &Value) -> Answer {
    let request = api.request(Method::POST, "/v1/applications");
    send(request.header("idempotency-key", key).json(submission)).await
}

async fn count(api: &Api) -> usize {
    let listed = api.get("/v1/applications?limit=1000").await.body;
    listed["applications"].as_array().expect("a list").len()
}

#[tokio::test]
async fn a_submission_sent_again_has_the_id_it_had() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    let first = submit(api, "k", &application("test")).await.id();
    assert_eq!(submit(api, "k", &application("test")).await.id(), first);
    assert_ne!(submit(api, "l", &application("test")).await.id(), first);
    assert_ne!(api.submit(&application("test")).await, first);
    assert_eq!(count(api).await, 3);
    cluster.shutdown().await;
}

#[tokio::test]
async fn fifty_times_at_once_it_is_one_application() {
    let cluster = Alone::start().await;
    let mut submissions = JoinSet::new();
    for _ in 0..50 {
        let api = cluster.api.clone();
        submissions.spawn(async move { submit(&api, "k", &application("test")).await.id() });
    }
    let ids = submissions.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(count(&cluster.api).await, 1);
    cluster.shutdown().await;
}

#[tokio::test]
async fn another_submission_under_the_same_key_is_refused() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    let id = submit(api, "k", &application("test")).await.id();
    let refused = submit(api, "k", &application("another")).await;
    let detail = format!(
        "the idempotency key is that of {id}, of which something is different; take another key"
    );
    assert_eq!(refused.problem(409), detail);
    assert_eq!(count(api).await, 1);

    // In Spark's protocol it is the same key.
    let mut submission = application("test");
    submission["action"] = json!("CreateSubmissionRequest");
    let create = async |key: &str, submission: &Value| {
        let request = api.request(Method::POST, "/v1/submissions/create");
        send(request.header("idempotency-key", key).json(submission)).await
    };
    assert_eq!(
        create("k", &submission).await.body["submissionId"],
        json!(id)
    );
    submission["name"] = json!("another");
    let refused = create("k", &submission).await;
    assert_eq!(
        (refused.status, &refused.body["message"]),
        (409, &json!(detail))
    );
    let refused = create("a b", &submission).await;
    assert_eq!(
        (refused.status, &refused.body["action"]),
        (400, &json!("ErrorResponse"))
    );
    assert_eq!(count(api).await, 1);
    cluster.shutdown().await;
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    for key in ["", "a b", &"x".repeat(129)] {
        submit(api, key, &application("test")).await.problem(400);
    }
    let twice = api.request(Method::POST, "/v1/applications");
    let twice = twice
        .header("idempotency-key", "a")
        .header("idempotency-key", "a");
    send(twice.json(&application("test"))).await.problem(400);
    assert_eq!(count(api).await, 0);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_key_outlives_the_master_and_its_application() {
    let directory = tempdir().expect("a directory");
    let mut master = durable_master(directory.path());
    let api = Api::of(&master);
    let first = submit(&api, "first", &application("test")).await.id();
    let second = submit(&api, "second", &application("test")).await.id();
    api.end(&second).await;
    let forgotten = api.delete(&format!("/v1/applications/{second}")).await;
    assert_eq!(forgotten.status, 204);
    assert_eq!(
        submit(&api, "second", &application("test")).await.id(),
        second
    );
    master.signal(Signal::KILL);
    master.wait();
    drop(master);

    let master = durable_master(directory.path());
    let api = Api::of(&master);
    assert_eq!(
        submit(&api, "first", &application("test")).await.id(),
        first
    );
    assert_eq!(
        submit(&api, "second", &application("test")).await.id(),
        second
    );
    submit(&api, "second", &application("another"))
        .await
        .problem(409);
    let listed = api.get("/v1/applications").await.body;
    assert_eq!(listed["applications"].as_array().expect("a list").len(), 1);
    assert_eq!(listed["applications"][0]["id"], json!(first));
}
