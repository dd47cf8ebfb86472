//! The protocol, with masters that have no worker.

use std::sync::Arc;

use aloha_rpc::RpcEnv;
use aloha_scheduler::rest::{RestGuard, RestLimits, RestServer};
use aloha_scheduler::{Master, RecoveryMode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::decided::{Decided, Known};
use crate::{Rest, assert_driver_id, request};

#[track_caller]
fn assert_error((code, body): &(u16, Value), expected: u16) {
    assert_eq!(*code, expected, "{body}");
    assert_eq!(body["action"], "ErrorResponse");
    let message = body["message"].as_str().expect("a text");
    assert!(!message.is_empty());
    assert_eq!(body.get("success"), None);
}

#[tokio::test]
async fn create_kill_and_status_answer_with_sparks_fields() {
    let rest = Rest::of_master();
    let (code, mut created) = rest.create(&request()).await;
    let id = created["submissionId"].as_str().expect("an id").to_owned();
    assert_driver_id(&id);
    let message = format!("Driver successfully submitted as {id}");
    let expected = json!({"action": "CreateSubmissionResponse", "message": message, "submissionId": id, "success": true});
    assert_eq!((code, created.take()), (200, expected));

    let (code, status) = rest.get(&format!("/v1/submissions/status/{id}")).await;
    assert_eq!(code, 200);
    for (field, expected) in [
        ("action", json!("SubmissionStatusResponse")),
        ("driverState", json!("SUBMITTED")),
        ("submissionId", json!(id)),
        ("success", json!(true)),
    ] {
        assert_eq!(status[field], expected, "{status}");
    }
    let app = id.replace("driver-", "app-");
    assert_eq!(rest.state(&app).await, "SUBMITTED");

    let killed = rest.post(&format!("/v1/submissions/kill/{id}"), "").await;
    let message = killed.1["message"].clone();
    assert!(
        message.as_str().is_some_and(|text| text.contains(&id)),
        "{message}"
    );
    let expected = json!({"action": "KillSubmissionResponse", "message": message, "submissionId": id, "success": true});
    assert_eq!(killed, (200, expected));
    assert_eq!(rest.state(&id).await, "KILLED");
    let (_, again) = rest.post(&format!("/v1/submissions/kill/{id}"), "").await;
    assert_eq!(
        (&again["success"], &again["submissionId"]),
        (&json!(false), &json!(id))
    );
}

#[tokio::test]
async fn an_unknown_id_is_processed_without_success() {
    let rest = Rest::of_master();
    for id in [
        "does-not-exist",
        "driver-20190311221731-0000",
        "app-20190311221731-0000",
        "driver-..",
    ] {
        let killed = rest.post(&format!("/v1/submissions/kill/{id}"), "").await;
        let status = rest.get(&format!("/v1/submissions/status/{id}")).await;
        for ((code, body), action) in [
            (killed, "KillSubmissionResponse"),
            (status, "SubmissionStatusResponse"),
        ] {
            assert_eq!(code, 200);
            assert!(
                body["message"]
                    .as_str()
                    .is_some_and(|text| text.contains(id)),
                "{body}"
            );
            let expected = json!({"action": action, "message": body["message"], "submissionId": id, "success": false});
            assert_eq!(body, expected);
        }
    }
}

#[tokio::test]
async fn killall_ends_and_clear_forgets() {
    let rest = Rest::of_master();
    let (first, second) = (rest.submit(&request()).await, rest.submit(&request()).await);
    rest.post(&format!("/v1/submissions/kill/{first}"), "")
        .await;

    let (code, cleared) = rest.post("/v1/submissions/clear", "").await;
    assert_eq!((code, &cleared["action"]), (200, &json!("ClearResponse")));
    assert_eq!(cleared["success"], true);
    let (_, status) = rest.get(&format!("/v1/submissions/status/{first}")).await;
    assert_eq!(status["success"], false);
    assert_eq!(rest.state(&second).await, "SUBMITTED");

    let (code, killed) = rest.post("/v1/submissions/killall", "").await;
    assert_eq!(
        (code, &killed["action"]),
        (200, &json!("KillAllSubmissionResponse"))
    );
    assert_eq!(killed["success"], true);
    assert_eq!(rest.state(&second).await, "KILLED");
}

#[tokio::test]
async fn what_follows_the_id_is_ignored() {
    let rest = Rest::of_master();
    for path in [
        "/v1/submissions/create",
        "/v1/submissions/create/",
        "/v1/submissions/create/x/y",
    ] {
        let (code, created) = rest.post(path, request().to_string()).await;
        assert_eq!((code, &created["success"]), (200, &json!(true)), "{path}");
    }
    for (path, id) in [
        ("anything", "anything"),
        ("any/thing", "any"),
        ("any/", "any"),
    ] {
        let (code, killed) = rest.post(&format!("/v1/submissions/kill/{path}"), "").await;
        assert_eq!((code, &killed["submissionId"]), (200, &json!(id)));
        let (code, status) = rest.get(&format!("/v1/submissions/status/{path}")).await;
        assert_eq!((code, &status["submissionId"]), (200, &json!(id)));
    }
    for path in ["clear/x", "killall/x/"] {
        let (code, done) = rest.post(&format!("/v1/submissions/{path}"), "").await;
        assert_eq!((code, &done["success"]), (200, &json!(true)), "{path}");
    }
    let (code, ready) = rest.get("/v1/submissions/readyz/x").await;
    assert_eq!((code, &ready["success"]), (200, &json!(true)));
}

#[tokio::test]
async fn bad_bodies_are_refused_by_name() {
    let rest = Rest::of_master();
    let good = request().to_string();
    let truncated = &good[good.len() / 2..];
    let fraction = good.replace("action", "fraction");
    for (body, named) in [
        ("", "JSON"),
        (&*fraction, "action"),
        (truncated, "JSON"),
        ("\"hello, world\"", "a text"),
        ("[]", "a list"),
        (
            r#"{"action":"KillSubmissionRequest"}"#,
            "KillSubmissionRequest",
        ),
    ] {
        let refused = rest.post("/v1/submissions/create", body.to_owned()).await;
        assert_error(&refused, 400);
        let message = refused.1["message"].as_str().expect("a text");
        assert!(message.contains(named), "{message}");
    }
    for field in [
        "appResource",
        "clientSparkVersion",
        "mainClass",
        "sparkProperties",
    ] {
        let mut request = request();
        request[field] = Value::Null;
        let refused = rest.create(&request).await;
        assert_error(&refused, 400);
        assert_eq!(
            refused.1["message"],
            format!("the field {field} is missing")
        );
    }
    for (key, value) in [
        ("spark.driver.cores", "one hundred feet"),
        ("spark.driver.supervise", "nope, never"),
        ("spark.cores.max", "two men"),
        ("spark.driver.memory", "much"),
        ("spark.executor.memory", "more"),
    ] {
        let mut request = request();
        request["sparkProperties"][key] = json!(value);
        let refused = rest.create(&request).await;
        assert_error(&refused, 400);
        let message = refused.1["message"].as_str().expect("a text");
        assert!(message.contains(key), "{message}");
    }
    for path in ["kill", "kill/"] {
        assert_error(
            &rest.post(&format!("/v1/submissions/{path}"), "").await,
            400,
        );
    }
    for path in ["status", "status/"] {
        assert_error(&rest.get(&format!("/v1/submissions/{path}")).await, 400);
    }
}

#[tokio::test]
async fn only_an_unknown_version_is_told_the_highest() {
    let rest = Rest::of_master();
    for path in [
        "",
        "/",
        "/v1",
        "/v1/",
        "/v1/submissions",
        "/v1/submissions/",
        "/v1/submissions/bad",
    ] {
        for refused in [rest.get(path).await, rest.post(path, "").await] {
            assert_error(&refused, 400);
            assert_eq!(refused.1.get("highestProtocolVersion"), None, "{path}");
        }
    }
    for path in ["/bad-version", "/v2/submissions/create"] {
        for refused in [rest.get(path).await, rest.post(path, "").await] {
            assert_error(&refused, 468);
            assert_eq!(refused.1["highestProtocolVersion"], "v1", "{path}");
        }
    }
}

#[tokio::test]
async fn unknown_fields_are_named_and_absent_where_there_are_none() {
    let rest = Rest::of_master();
    let (_, created) = rest.create(&request()).await;
    assert_eq!(created.get("unknownFields"), None);
    let mut more = request();
    more["tomato"] = json!("not-a-fruit");
    more["potato"] = json!("not-po-tah-to");
    let (code, created) = rest.create(&more).await;
    assert_eq!((code, &created["success"]), (200, &json!(true)));
    assert_eq!(created["unknownFields"], json!(["potato", "tomato"]));
}

#[tokio::test]
async fn answers_are_laid_out_as_sparks_are() {
    let rest = Rest::of_master();
    let id = rest.submit(&request()).await;
    let path = format!("/v1/submissions/kill/{id}");
    let (_, text) = rest.text(rest.client.post(rest.url(&path))).await;
    let body: Value = serde_json::from_str(&text).expect("JSON");
    let message = body["message"].as_str().expect("a text");
    let expected = format!(
        "{{\n  \"action\" : \"KillSubmissionResponse\",\n  \"message\" : \"{message}\",\n  \"serverSparkVersion\" : \"4.0.0\",\n  \
         \"submissionId\" : \"{id}\",\n  \"success\" : true\n}}"
    );
    assert_eq!(text, expected);
    // What Airflow does with the answer of curl.
    let path = format!("/v1/submissions/status/{id}");
    let (_, text) = rest.text(rest.client.get(rest.url(&path))).await;
    let line = text.lines().find(|line| line.contains("driverState"));
    let state = line
        .and_then(|line| line.split(" : ").nth(1))
        .expect("a state");
    assert_eq!(state.replace([',', '"'], "").trim(), "KILLED");
}

#[tokio::test]
async fn a_master_that_leads_is_ready() {
    let rest = Rest::of_master();
    let ready = json!({"action": "ReadyzResponse", "message": "", "success": true});
    assert_eq!(rest.get("/v1/submissions/readyz").await, (200, ready));
}

#[tokio::test]
async fn a_standby_is_not_ready_and_sends_clients_to_the_next_master() {
    let env = RpcEnv::client("standby").await.expect("started");
    let mode = RecoveryMode {
        persistence: None,
        election: Decided::new(&Known::default()),
    };
    let master = Master::builder(&env).recovery_mode(mode).start();
    let client = master.expect("there is none yet").client().clone();
    let guard = RestGuard::new("127.0.0.1", &[], None, false).expect("loopback");
    let limits = RestLimits {
        body_bytes_max: 4096,
        ..RestLimits::default()
    };
    let server = RestServer::new(Arc::new(client), guard, limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let served = tokio::spawn(server.serve(listener, CancellationToken::new()));

    let standby = Rest::at(url);
    let expected = json!({"action": "ErrorResponse", "message": "Master is not ready."});
    let not_ready = standby.get("/v1/submissions/readyz").await;
    assert_eq!(not_ready, (503, expected));
    assert_error(&standby.create(&request()).await, 503);
    for path in ["killall", "clear", "kill/driver-1"] {
        let refused = standby.post(&format!("/v1/submissions/{path}"), "").await;
        assert_error(&refused, 503);
    }
    assert_error(&standby.get("/v1/submissions/status/driver-1").await, 503);
    served.abort();
    env.shutdown().await;
}
