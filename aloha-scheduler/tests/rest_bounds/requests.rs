//! Requests, bodies and answers: too many, too large, too slow.

use std::time::Duration;

use aloha_scheduler::rest::RestLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{create, kept, quick};
use crate::routes::{PAGE_BYTES, routes};
use crate::server::{Server, soon, until, with_master};

#[tokio::test]
async fn requests_beyond_their_number_are_told_to_come_again() {
    let limits = RestLimits {
        requests_max: 2,
        long_requests_max: 3,
        ..RestLimits::default()
    };
    let (router, held) = routes();
    let server = Server::start(router, limits).await;
    let mut waiting = Vec::new();
    for path in ["/held", "/held", "/held/wait", "/held/wait", "/held/wait"] {
        let mut client = server.connect().await;
        client.send(&kept(path)).await;
        waiting.push(client);
    }
    until(|| (server.load.requests(), server.load.long_requests()) == (2, 3)).await;
    let mut client = server.connect().await;
    for (path, key) in [
        ("/quick", "rest.requestsMax"),
        ("/quick?follow=true", "rest.longRequestsMax"),
        ("/quick", "rest.requestsMax"),
    ] {
        // The connection stays: the client need not connect to try again.
        client.send(&kept(path)).await;
        client.answer().await.assert_busy(key);
    }
    held.gate.add_permits(5);
    for mut client in waiting {
        assert_eq!(client.answer().await.body, "held");
    }
    client.send(&kept("/quick")).await;
    assert_eq!(client.answer().await.body, "quick");
    drop(client);
    server.assert_is_well().await;
}

#[tokio::test]
async fn bodies_that_are_not_there_yet_cost_nobody_a_place() {
    let limits = RestLimits {
        requests_max: 1,
        bodies_bytes_max: 1024,
        ..RestLimits::default()
    };
    let server = Server::start(routes().0, limits).await;
    let post = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 600\r\n\r\n";
    let mut slow = Vec::new();
    for n in 0..5 {
        let mut client = server.connect().await;
        let path = if n == 0 { "/v1/workers" } else { "/read" };
        let post = post.replace("/read", path);
        client.send(&format!("{post}{}", "x".repeat(180))).await;
        slow.push(client);
    }
    until(|| server.load.connections() == 5).await;
    assert_eq!(server.ask(&quick()).await.status, 200);
    // They hold so much together that no other fits in, until the slowest makes room.
    let whole = format!("{post}{}", "x".repeat(600));
    let answer = server.ask_until_served(&whole, "bodiesBytesMax").await;
    assert_eq!(answer.body, "600");
    // In the form of what it asked for.
    let answer = slow[0].answer().await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert!(answer.body.contains("bodiesBytesMax"), "{answer:?}");
    drop(slow);
    server.assert_is_well().await;
}

#[tokio::test]
async fn who_sends_a_body_that_nobody_wants_can_do_so_and_read_why() {
    let server = Server::start(routes().0, RestLimits::default()).await;
    // More than the buffers of both ends hold: the server takes it, or the client fails before it has read anything.
    let length = 16 << 20;
    let head = format!("POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let mut client = server.connect().await;
    client.send(&head).await;
    let body = vec![b'x'; length];
    let sent = soon(client.0.write_all(&body)).await;
    sent.expect("it can be sent");
    let answer = client.answer().await;
    assert_eq!(answer.status, 413);
    answer.assert_error("bodyBytesMax");
    drop(client);
    server.assert_is_well().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_or_too_slow_or_one_too_many_is_refused() {
    let limits = RestLimits {
        body_bytes_max: 2000,
        bodies_bytes_max: 3000,
        body_timeout: Duration::from_millis(300),
        ..RestLimits::default()
    };
    let (_env, server) = with_master(limits).await;
    // It is refused before it is sent.
    let answer = server.ask(&create(2001, "")).await;
    assert_eq!(answer.status, 413);
    answer.assert_error("bodyBytesMax");
    let own = create(2001, "").replace("/v1/submissions/create", "/v1/applications");
    let answer = server.ask(&own).await;
    let kind = answer.header("content-type");
    assert_eq!(
        (answer.status, kind),
        (413, Some("application/problem+json"))
    );
    let chunk = format!("{:x}\r\n{}\r\n", 1500, "x".repeat(1500));
    let chunked = "POST /v1/submissions/create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = server.ask(&format!("{chunked}{chunk}{chunk}")).await;
    assert_eq!(answer.status, 413);
    let huge = format!("{chunked}ffffffffffffffff\r\n{}", "x".repeat(4000));
    assert_eq!(server.ask(&huge).await.status, 413);
    let mut slow = server.connect().await;
    slow.send(&create(2000, &"x".repeat(1600))).await;
    let mut second = server.connect().await;
    second.send(&create(2000, &"x".repeat(1600))).await;
    let answers = [slow.answer().await, second.answer().await];
    let mut statuses = answers.each_ref().map(|answer| answer.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [408, 503], "{answers:?}");
    for answer in answers {
        match answer.status {
            408 => answer.assert_error("bodyTimeout"),
            _ => answer.assert_busy("bodiesBytesMax"),
        }
    }
    drop((slow, second));
    until(|| server.load.connections() == 0).await;
    let ready = "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(server.ask(ready).await.status, 200);
}

#[tokio::test]
async fn large_answers_that_nobody_takes_leave_room_for_others() {
    let limits = RestLimits {
        answers_bytes_max: PAGE_BYTES + PAGE_BYTES / 2,
        ..RestLimits::default()
    };
    let server = Server::start(routes().0, limits).await;
    let mut lazy = server.connect().await;
    lazy.send(&kept("/page")).await;
    let mut beginning = [0; 12];
    let read = soon(lazy.0.read_exact(&mut beginning)).await;
    read.expect("an answer");
    assert_eq!(&beginning, b"HTTP/1.1 200");
    // There is no room for a second one, until the first has taken nothing of its own for a second.
    let page = kept("/page");
    let answer = server.ask_until_served(&page, "answersBytesMax").await;
    assert_eq!(answer.body.len(), PAGE_BYTES);
    let mut rest = Vec::new();
    // It is cut off: what it has got is not all.
    let end = soon(lazy.0.read_to_end(&mut rest)).await;
    assert!(end.is_err() || rest.len() < PAGE_BYTES, "{}", rest.len());
    drop(lazy);
    server.assert_is_well().await;
}

#[tokio::test]
async fn the_body_of_a_stranger_is_not_waited_for() {
    let limits = RestLimits {
        body_timeout: Duration::from_secs(3600),
        ..RestLimits::default()
    };
    let (_env, server) = with_master(limits).await;
    let mut stranger = server.connect().await;
    let head = "POST /v1/submissions/create HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000\r\n\r\n";
    stranger.send(head).await;
    assert_eq!(stranger.answer().await.status, 403);
    drop(stranger);
    until(|| server.load.connections() == 0).await;
}
