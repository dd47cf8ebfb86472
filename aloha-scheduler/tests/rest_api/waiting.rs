//! Long polls for the end of an application.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tempfile::tempdir;
use tokio::task::JoinSet;

use crate::api::{Alone, Api, application, script};
use crate::common::{Daemon, Pipe, now};

#[tokio::test]
async fn a_wait_ends_with_the_application_and_tells_its_exit_code() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let api = Api::of(&cluster);
    let pipe = Pipe::new(directory.path(), "pipe");
    let line = format!("read -r code < {}; exit $code", pipe.path());
    let id = api.submit(&script("waits", &line)).await;
    let path = format!("/v1/applications/{id}/wait?timeout=60");
    let waiter = tokio::spawn(async move { api.get(&path).await });
    std::fs::write(&pipe.0, "3\n").expect("it reads");
    let ended = waiter.await.expect("no panic");
    assert_eq!(ended.status, 200);
    let body = &ended.body;
    assert_eq!(
        (&body["ended"], &body["state"], &body["exitCode"]),
        (&json!(true), &json!("FAILED"), &json!(3))
    );
    let last = body["history"].as_array().expect("a list").last();
    assert_eq!(last.expect("a change")["state"], "FAILED");
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figure is for whoever asks for it")]
async fn a_hundred_waiters_hear_of_an_end_within_milliseconds() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    let id = api.submit(&application("waited for")).await;
    let mut waiters = JoinSet::new();
    for _ in 0..100 {
        let (api, path) = (
            api.clone(),
            format!("/v1/applications/{id}/wait?timeout=60"),
        );
        waiters.spawn(async move {
            let answer = api.get(&path).await;
            (answer, now())
        });
    }
    // Others are served all the same.
    while cluster.load.long_requests() < 100 {
        let cluster = api.get("/v1/cluster").await;
        assert_eq!(cluster.body["applications"], json!({"SUBMITTED": 1}));
    }
    assert!(waiters.try_join_next().is_none(), "nothing has ended yet");
    api.end(&id).await;
    let ended_at = now();
    let mut slowest = Duration::ZERO;
    while let Some(waiter) = waiters.join_next().await {
        let (answer, heard_at) = waiter.expect("no panic");
        assert_eq!(
            (answer.status, &answer.body["state"]),
            (200, &json!("KILLED"))
        );
        slowest = slowest.max(heard_at.saturating_duration_since(ended_at));
    }
    println!("the last of 100 waiters heard of the end after {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_wait_whose_time_is_over_tells_how_it_stands() {
    let cluster = Alone::start().await;
    let id = cluster.api.submit(&application("waits")).await;
    for timeout in ["0", "0.05"] {
        let path = format!("/v1/applications/{id}/wait?timeout={timeout}");
        let answer = cluster.api.get(&path).await;
        assert_eq!(answer.status, 200);
        let body = &answer.body;
        assert_eq!(
            (&body["ended"], &body["state"], body.get("exitCode")),
            (&json!(false), &json!("SUBMITTED"), None)
        );
        assert_eq!(body["waitingFor"], "no worker is registered");
    }
    for timeout in ["-1", "60.1", "NaN", "inf", "ten", ""] {
        let path = format!("/v1/applications/{id}/wait?timeout={timeout}");
        let answer = cluster.api.get(&path).await;
        let detail = answer.problem(400);
        assert!(
            detail.ends_with("expected a number of seconds from 0 to 60"),
            "{detail}"
        );
    }
    let unknown = cluster.api.get("/v1/applications/app-1/wait").await;
    assert_eq!(unknown.problem(404), "there is no application app-1");
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_wait_for_what_is_forgotten_meanwhile_ends() {
    let cluster = Alone::start().await;
    let id = cluster.api.submit(&application("goes")).await;
    cluster.api.end(&id).await;
    let path = format!("/v1/applications/{id}");
    assert_eq!(cluster.api.delete(&path).await.status, 204);
    let answer = cluster.api.get(&format!("{path}/wait")).await;
    answer.problem(404);
    cluster.shutdown().await;
}

#[tokio::test]
async fn what_waits_for_news_may_take_longer_than_an_answer() {
    let directory = tempdir().expect("a directory");
    let short = ["-D", "aloha.rpc.askTimeout=1s"];
    let cluster = Daemon::local_with(directory.path(), &short);
    let api = Api::of(&cluster);
    let pipe = Pipe::new(directory.path(), "pipe");
    let line = format!("read -r last < {}; echo $last", pipe.path());
    let id = api.submit(&script("waits", &line)).await;
    let path = format!("/v1/applications/{id}");
    let followed = api.request(Method::GET, &format!("{path}/logs?follow=true"));
    let followed = followed.send().await.expect("an answer");
    let waited = api.get(&format!("{path}/wait?timeout=2.5")).await;
    assert_eq!((waited.status, &waited.body["ended"]), (200, &json!(false)));
    std::fs::write(&pipe.0, "the last\n").expect("it reads");
    let ended = api.get(&format!("{path}/wait")).await;
    assert_eq!((ended.status, &ended.body["ended"]), (200, &json!(true)));
    assert_eq!(followed.text().await.expect("whole"), "the last\n");
}
