//! Connections that are silent, slow, too many, or there when the server stops.

use aloha_scheduler::rest::RestLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::{Client, kept, quick};
use crate::common::now;
use crate::routes::routes;
use crate::server::{Server, limits, soon, until};

#[tokio::test]
async fn a_head_that_is_too_large_too_long_or_too_slow_is_refused() {
    let limits = RestLimits {
        header_bytes_max: 2000,
        ..limits()
    };
    let server = Server::start(routes().0, limits).await;
    let with = |headers: &str| format!("GET /quick HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let large = with(&format!("X: {}\r\n", "x".repeat(2000)));
    assert_eq!(server.ask(&large).await.status, 431);
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(2000));
    assert_eq!(server.ask(&long_line).await.status, 431);
    let never_ending = format!("GET /quick HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    assert_eq!(server.ask(&never_ending).await.status, 431);
    assert_eq!(server.ask(&with(&"X: y\r\n".repeat(99))).await.status, 200);
    assert_eq!(server.ask(&with(&"X: y\r\n".repeat(100))).await.status, 431);

    server.assert_is_well().await;

    let server = Server::start(routes().0, self::limits()).await;
    let mut silent = server.connect().await;
    silent.send("GET /quick HTTP/1.1\r\nHost: x\r\n").await;
    let answer = silent.answer().await;
    assert_eq!(answer.status, 408);
    answer.assert_error("headerTimeout");
    assert_eq!(answer.header("connection"), Some("close"));
    silent.assert_closed_silently().await;
    // A byte every now and then does not help: it is the head that must come in time.
    let mut slow = server.connect().await;
    slow.send("GET /quick HTTP/1.1\r\nHost: x\r\nX: ").await;
    let mut beginning = [0; 12];
    while slow.0.try_read(&mut beginning).is_err() {
        slow.send("x").await;
        assert_eq!(server.ask(&quick()).await.status, 200);
    }
    assert_eq!(&beginning, b"HTTP/1.1 408");
    drop((silent, slow));
    server.assert_is_well().await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_before_its_first_and_after_its_last() {
    let server = Server::start(routes().0, limits()).await;
    let mut fresh = server.connect().await;
    let mut used = server.connect().await;
    for _ in 0..2 {
        used.send(&kept("/quick")).await;
        assert_eq!(used.answer().await.body, "quick");
    }
    fresh.assert_closed_silently().await;
    used.assert_closed_silently().await;
    server.assert_is_well().await;
}

#[tokio::test]
async fn a_request_that_takes_long_is_answered_on_a_connection_that_nobody_closes() {
    let (router, held) = routes();
    let server = Server::start(router, limits()).await;
    let mut client = server.connect().await;
    client.send(&kept("/held")).await;
    until(|| server.load.requests() == 1).await;
    // Longer than anything else may take.
    let mut clock = server.connect().await;
    clock.send("G").await;
    assert_eq!(clock.answer().await.status, 408);
    held.gate.add_permits(1);
    assert_eq!(client.answer().await.body, "held");
    client.assert_closed_silently().await;
    drop((client, clock));
    server.assert_is_well().await;
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_dropped_and_who_waits_for_one_is_not() {
    let (router, mut held) = routes();
    let server = Server::start(router, limits()).await;
    let mut follower = server.connect().await;
    follower.send(&kept("/output?follow=true")).await;
    let mut writer = soon(held.followed.recv()).await.expect("it is followed");
    assert_eq!(server.load.long_requests(), 1);

    let mut unread = server.connect().await;
    unread.send(&kept("/large")).await;
    soon(held.large_ended.recv()).await.expect("it is dropped");
    until(|| server.load.connections() == 1).await;
    // What is on its way arrives, and then the end that is none.
    let mut received = Vec::new();
    let cut = soon(unread.0.read_to_end(&mut received)).await;
    assert!(cut.is_err() || !received.ends_with(b"0\r\n\r\n"));

    let mut clock = server.connect().await;
    clock.send("G").await;
    assert_eq!(clock.answer().await.status, 408);
    drop(clock);
    let written = writer.write_all(b"news").await;
    written.expect("it is followed");
    drop(writer);
    let text = follower.rest_of_answer().await;
    assert!(text.ends_with("\r\n\r\n4\r\nnews\r\n0\r\n\r\n"), "{text}");
    drop(follower);
    server.assert_is_well().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_but_goes_on_gets_its_answer() {
    const BYTES: usize = 4 << 20;
    let (router, mut held) = routes();
    let server = Server::start(router, limits()).await;
    // A window so small that the answer waits for every read.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let address = server.address.parse().expect("an address");
    let mut reader = Client(socket.connect(address).await.expect("connected"));
    reader.send(&kept("/large")).await;
    let mut read = 0;
    let mut piece = vec![0; 64 << 10];
    let begun = now();
    while read < BYTES || begun.elapsed() < 3 * limits().write_timeout {
        let count = soon(reader.0.read(&mut piece)).await.expect("connected");
        assert!(count > 0, "closed after {read} bytes");
        read += count;
    }
    assert!(held.large_ended.try_recv().is_err());
    drop(reader);
    soon(held.large_ended.recv()).await.expect("it is dropped");
    server.assert_is_well().await;
}

#[tokio::test]
async fn one_more_connection_closes_the_one_that_waits_for_its_client_the_longest() {
    let limits = RestLimits {
        connections_max: 4,
        ..RestLimits::default()
    };
    let (router, held) = routes();
    let server = Server::start(router, limits).await;
    let mut busy = server.connect().await;
    busy.send(&kept("/held")).await;
    until(|| server.load.requests() == 1).await;
    let mut oldest = server.connect().await;
    until(|| server.load.connections() == 2).await;
    let mut head = server.connect().await;
    head.send("GET /").await;
    let mut body = server.connect().await;
    body.send("POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1")
        .await;
    until(|| server.load.connections() == 4).await;
    // They have waited for less than a second: nobody is closed for others that come all at once.
    soon(async {
        server.ask(&quick()).await.assert_busy("connectionsMax");
        loop {
            let answer = server.ask(&quick()).await;
            if answer.status == 200 {
                break;
            }
            answer.assert_busy("connectionsMax");
        }
    })
    .await;
    oldest.assert_closed_silently().await;
    // The others that wait go next, and are told why, for they had begun to ask.
    let mut guests = Vec::new();
    while guests.len() < 3 {
        let mut guest = server.connect().await;
        guest.send(&kept("/quick")).await;
        let answer = guest.answer().await;
        if answer.status == 200 {
            guests.push(guest);
        } else {
            // They may have begun to wait at a later pulse.
            answer.assert_busy("connectionsMax");
        }
    }
    head.answer().await.assert_busy("connectionsMax");
    body.answer().await.assert_busy("connectionsMax");
    held.gate.add_permits(1);
    assert_eq!(busy.answer().await.body, "held");
    drop((busy, head, body, oldest, guests));
    server.assert_is_well().await;
}

#[tokio::test]
async fn where_all_connections_are_busy_one_more_is_told_to_come_again() {
    let limits = RestLimits {
        connections_max: 2,
        ..RestLimits::default()
    };
    let (router, held) = routes();
    let server = Server::start(router, limits).await;
    let mut busy = [server.connect().await, server.connect().await];
    for client in &mut busy {
        client.send(&kept("/held")).await;
    }
    until(|| server.load.requests() == 2).await;
    for _ in 0..3 {
        let mut one_more = server.connect().await;
        // It is told before it has asked.
        let answer = one_more.answer().await;
        answer.assert_busy("connectionsMax");
        assert_eq!(answer.header("connection"), Some("close"));
        one_more.assert_closed_silently().await;
    }
    held.gate.add_permits(2);
    for client in &mut busy {
        assert_eq!(client.answer().await.body, "held");
    }
    drop(busy);
    server.assert_is_well().await;
}

#[tokio::test]
async fn a_stop_closes_who_waits_for_news_and_lets_others_end() {
    let (router, mut held) = routes();
    let server = Server::start(router, RestLimits::default()).await;
    let mut idle = server.connect().await;
    let mut head = server.connect().await;
    head.send("GET /").await;
    let mut busy = server.connect().await;
    busy.send(&kept("/held")).await;
    let mut poll = server.connect().await;
    poll.send(&kept("/held/wait")).await;
    let mut follower = server.connect().await;
    follower.send(&kept("/output?follow=true")).await;
    let _writer = soon(held.followed.recv()).await.expect("it is followed");
    until(|| (server.load.requests(), server.load.long_requests()) == (1, 2)).await;
    server.stop.cancel();
    poll.answer().await.assert_busy("stops");
    idle.assert_closed_silently().await;
    head.assert_closed_silently().await;
    assert!(!follower.rest().await.ends_with("0\r\n\r\n"));
    assert!(TcpStream::connect(&server.address).await.is_err());
    held.gate.add_permits(1);
    let answer = busy.answer().await;
    assert_eq!(answer.body, "held");
    assert_eq!(answer.header("connection"), Some("close"));
    soon(server.ended).await.expect("no panic");
    assert_eq!(server.load.connections(), 0);
}

/// What of a client is left that vanished: the system asks it in time, for nobody else has anything to say.
#[tokio::test]
async fn the_system_looks_after_clients_that_wait_for_news() {
    let (router, mut held) = routes();
    let server = Server::start(router, RestLimits::default()).await;
    let mut follower = server.connect().await;
    follower.send(&kept("/output?follow=true")).await;
    let _writer = soon(held.followed.recv()).await.expect("it is followed");
    let port = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let ours = port(follower.0.peer_addr().expect("connected"));
    let theirs = port(follower.0.local_addr().expect("connected"));
    // The head of the answer must be there, or another timer runs.
    let table = || std::fs::read_to_string("/proc/net/tcp").expect("a system with /proc");
    let probes = |table: &str| {
        table.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let is_it = words.len() > 5 && words[1].ends_with(&ours) && words[2].ends_with(&theirs);
            is_it && words[5].starts_with("02:")
        })
    };
    until(|| probes(&table())).await;
}
