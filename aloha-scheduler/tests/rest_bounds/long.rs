//! Requests that wait for news, those that only look like it, and those whose clients do not wait.

use aloha_scheduler::rest::RestLimits;

use tokio::net::TcpStream;

use crate::client::{kept, quick};
use crate::routes::{PAGE_BYTES, routes};
use crate::server::{Server, soon, until};

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn who_waits_for_news_holds_no_body_meanwhile() {
    let limits = RestLimits {
        bodies_bytes_max: 1000,
        ..RestLimits::default()
    };
    let (router, held) = routes();
    let server = Server::start(router, limits).await;
    let mut poll = server.connect().await;
    let with_body = post("/held/wait", &"x".repeat(900)).replace("POST", "GET");
    poll.send(&with_body).await;
    until(|| server.load.long_requests() == 1).await;
    let mut client = server.connect().await;
    client.send(&post("/read", &"x".repeat(600))).await;
    assert_eq!(client.answer().await.body, "600");
    held.gate.add_permits(1);
    assert_eq!(poll.answer().await.body, "held");
    drop((poll, client));
    server.assert_is_well().await;
}

/// A stop breaks off what waits for news, and a request that changes something must not be told that nothing was done.
#[tokio::test]
async fn a_request_that_changes_something_never_waits_for_news() {
    let (router, held) = routes();
    let server = Server::start(router, RestLimits::default()).await;
    let mut clients = Vec::new();
    for path in ["/held/wait", "/held?follow=true", "/held?%66=1"] {
        let mut client = server.connect().await;
        client.send(&post(path, "")).await;
        clients.push(client);
    }
    until(|| server.load.requests() + server.load.long_requests() == 3).await;
    assert_eq!(server.load.requests(), 3);
    server.stop.cancel();
    held.gate.add_permits(3);
    for mut client in clients {
        assert_eq!(client.answer().await.body, "held");
    }
    soon(server.ended).await.expect("no panic");
}

#[tokio::test]
async fn after_a_wait_whose_answer_was_too_large_the_connection_is_as_before() {
    let limits = RestLimits {
        answers_bytes_max: 1,
        ..RestLimits::default()
    };
    let (router, held) = routes();
    let server = Server::start(router, limits).await;
    let mut client = server.connect().await;
    client.send(&kept("/page/wait")).await;
    client.answer().await.assert_busy("answersBytesMax");
    client.send(&kept("/held")).await;
    until(|| server.load.requests() == 1).await;
    server.stop.cancel();
    // Nobody listens any more, so the stop has been said to all.
    soon(async {
        while TcpStream::connect(&server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    held.gate.add_permits(1);
    assert_eq!(client.answer().await.body, "held");
    soon(server.ended).await.expect("no panic");
}

#[tokio::test]
async fn however_many_wait_for_news_there_are_connections_for_others() {
    let limits = RestLimits {
        connections_max: 4,
        ..RestLimits::default()
    };
    let (router, held) = routes();
    let server = Server::start(router, limits).await;
    let mut polls = Vec::new();
    for _ in 0..2 {
        let mut poll = server.connect().await;
        poll.send(&kept("/held/wait")).await;
        polls.push(poll);
    }
    until(|| server.load.long_requests() == 2).await;
    let mut third = server.connect().await;
    third.send(&kept("/held/wait")).await;
    third.answer().await.assert_busy("half of connectionsMax");
    assert_eq!(server.ask(&quick()).await.status, 200);
    held.gate.add_permits(2);
    for mut poll in polls {
        assert_eq!(poll.answer().await.body, "held");
    }
    drop(third);
    server.assert_is_well().await;
}

#[tokio::test]
async fn who_leaves_at_any_moment_leaves_nothing_behind() {
    let limits = RestLimits {
        bodies_bytes_max: 40,
        answers_bytes_max: PAGE_BYTES,
        ..RestLimits::default()
    };
    let (router, _held) = routes();
    let server = Server::start(router, limits).await;
    let chunk = "x".repeat(20);
    let requests = [
        kept("/quick"),
        kept("/held"),
        kept("/held/wait"),
        kept("/page"),
        post("/read", &chunk),
        post("/held", &chunk),
        format!(
            "POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{chunk}\r\n0\r\n\r\n"
        ),
    ];
    for request in &requests {
        for end in 0..=request.len() {
            let mut client = server.connect().await;
            client.send(&request[..end]).await;
        }
    }
    until(|| server.load.connections() == 0).await;
    assert_eq!(
        (server.load.requests(), server.load.long_requests()),
        (0, 0)
    );
    // All there was to be had can be had.
    let mut client = server.connect().await;
    client.send(&post("/read", &"x".repeat(40))).await;
    assert_eq!(client.answer().await.body, "40");
    client.send(&kept("/page")).await;
    assert_eq!(client.answer().await.body.len(), PAGE_BYTES);
    drop(client);
    server.assert_is_well().await;
}
