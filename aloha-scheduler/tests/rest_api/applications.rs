//! One application: shown, ended, forgotten; and how errors look.

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Alone, application, send};

#[tokio::test]
async fn an_application_is_submitted_shown_ended_and_forgotten() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    let mut submission = application("test");
    submission["colour"] = json!("red");
    submission["priority"] = json!(-2);
    let created = api.post("/v1/applications", &submission).await;
    let id = created.id();
    let path = format!("/v1/applications/{id}");
    assert_eq!(created.header("location"), path);
    assert_eq!(created.body, json!({"id": id, "unknownFields": ["colour"]}));

    let shown = api.get(&path).await;
    assert_eq!(
        (shown.status, shown.header("content-type")),
        (200, "application/json")
    );
    let submitted_at = &shown.body["submittedAt"];
    let expected = json!({"cores": 1, "ended": false, "entryPoint": "SimpleProcess", "id": id, "memory": 16,
        "name": "test", "priority": -2, "state": "SUBMITTED", "submittedAt": submitted_at, "supervise": false,
        "waitingFor": "no worker is registered", "history": [{"at": submitted_at, "state": "SUBMITTED"}]});
    assert_eq!(shown.body, expected);
    assert!(
        submitted_at
            .as_u64()
            .is_some_and(|at| at > 1_700_000_000_000)
    );

    let live = api.delete(&path).await;
    let detail = format!(
        "{id} is SUBMITTED, and only what has ended is forgotten; end it by POST {path}/kill"
    );
    assert_eq!(live.problem(409), detail);

    let killed = api.post(&format!("{path}/kill"), &Value::Null).await;
    let message = format!("{id} was killed before it ran");
    assert_eq!(
        (killed.status, killed.body),
        (202, json!({"id": id, "message": message}))
    );
    let again = api.post(&format!("{path}/kill"), &Value::Null).await;
    assert_eq!(
        again.problem(409),
        format!("{id} has already ended: KILLED")
    );
    let shown = api.get(&path).await.body;
    assert_eq!(
        (&shown["state"], &shown["ended"]),
        (&json!("KILLED"), &json!(true))
    );
    assert_eq!(shown["history"].as_array().map(Vec::len), Some(2));

    let forgotten = api.delete(&path).await;
    assert_eq!((forgotten.status, forgotten.body), (204, Value::Null));
    let unknown = format!("there is no application {id}");
    assert_eq!(api.get(&path).await.problem(404), unknown);
    assert_eq!(api.delete(&path).await.problem(404), unknown);
    assert_eq!(
        api.post(&format!("{path}/kill"), &Value::Null)
            .await
            .problem(404),
        unknown
    );
    assert_eq!(api.get(&format!("{path}/logs")).await.problem(404), unknown);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_submission_that_cannot_work_says_where_and_leaves_nothing() {
    let cluster = Alone::start().await;
    let mut contradiction = application("test");
    contradiction["supervise"] = json!(true);
    contradiction["restart"] = json!("never");
    let mut nothing_to_run = application("test");
    nothing_to_run["entryPoint"] = json!(" ");
    for (submission, detail) in [
        (json!([]), "the body is a list, expected an object"),
        (
            nothing_to_run,
            "the field entryPoint must have 1 to 1024 characters, none of them a control character",
        ),
        (
            contradiction,
            "it is supervised, but restart says never; leave one of them out",
        ),
    ] {
        let refused = cluster.api.post("/v1/applications", &submission).await;
        assert_eq!(refused.problem(400), detail);
    }
    let large = application(&"x".repeat(2 << 20));
    let refused = cluster.api.post("/v1/applications", &large).await;
    assert!(
        refused
            .problem(413)
            .contains("aloha.master.rest.bodyBytesMax")
    );
    let listed = cluster.api.get("/v1/applications").await.body;
    assert_eq!(listed, json!({"applications": []}));
    cluster.shutdown().await;
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    for path in [
        "/v1/applications/",
        "/v1/applications/app-1/nothing",
        "/v1/applications/app-1/logs/more",
        "/v1/workers/w/x",
        "/v1/cluster/x",
        "/v1/openapi.json/x",
    ] {
        let detail = format!("there is nothing at {path}, see /v1/openapi.json for what there is");
        assert_eq!(api.get(path).await.problem(404), detail);
    }
    // What is no id names nothing.
    for path in ["app-9", "..%2fetc", "%ff", "a%00b", "%20", "/logs"] {
        let answer = api.get(&format!("/v1/applications/{path}")).await;
        assert!(answer.problem(404).starts_with("there is no application "));
    }
    api.get("/v1/workers/worker-1").await.problem(404);
    for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example")] {
        let request = api.request(Method::GET, "/v1/cluster");
        send(request.header(name, value)).await.problem(403);
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn other_methods_are_told_which_there_are() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    for (path, allowed) in [
        ("/v1/applications", "GET,HEAD,POST"),
        ("/v1/applications/app-1", "GET,HEAD,DELETE"),
        ("/v1/applications/app-1/kill", "POST"),
        ("/v1/applications/app-1/wait", "GET,HEAD"),
        ("/v1/applications/app-1/logs", "GET,HEAD"),
        ("/v1/workers", "GET,HEAD"),
        ("/v1/workers/w", "GET,HEAD"),
        ("/v1/cluster", "GET,HEAD"),
        ("/v1/openapi.json", "GET,HEAD"),
    ] {
        let refused = send(api.request(Method::PATCH, path)).await;
        refused.problem(405);
        assert_eq!(refused.header("allow"), allowed, "{path}");
        let options = send(api.request(Method::OPTIONS, path)).await;
        assert_eq!(
            (options.status, options.header("allow")),
            (204, allowed),
            "{path}"
        );
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    let id = api.submit(&application("test")).await;
    for path in [
        "/v1/applications".to_owned(),
        format!("/v1/applications/{id}"),
        format!("/v1/applications/{id}/logs"),
        "/v1/openapi.json".to_owned(),
    ] {
        let get = send(api.request(Method::GET, &path).header("accept", "*/*"));
        let head = send(api.request(Method::HEAD, &path)).await;
        assert_eq!((head.status, &head.body), (200, &Value::Null), "{path}");
        assert_eq!(
            head.header("content-length"),
            get.await.header("content-length")
        );
    }
    let missing = send(api.request(Method::HEAD, "/v1/workers/w")).await;
    assert_eq!((missing.status, missing.body), (404, Value::Null));
    cluster.shutdown().await;
}

#[tokio::test]
async fn where_nothing_can_be_asked_for_a_query_is_ignored() {
    let cluster = Alone::start().await;
    let id = cluster.api.submit(&application("test")).await;
    for path in [
        format!("/v1/applications/{id}"),
        "/v1/workers".into(),
        "/v1/cluster".into(),
    ] {
        let answer = cluster.api.get(&format!("{path}?_=1")).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_application_goes_by_the_id_of_sparks_clients_too() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    let id = api.submit(&application("spark")).await;
    let path = format!("/v1/applications/{}", id.replace("app-", "driver-"));
    let shown = api.get(&path).await;
    assert_eq!((shown.status, &shown.body["id"]), (200, &json!(id)));
    let waited = api.get(&format!("{path}/wait?timeout=0")).await;
    assert_eq!((waited.status, &waited.body["id"]), (200, &json!(id)));
    let killed = api.post(&format!("{path}/kill"), &Value::Null).await;
    assert_eq!((killed.status, &killed.body["id"]), (202, &json!(id)));
    assert_eq!(api.delete(&path).await.status, 204);
    cluster.shutdown().await;
}
