//! A crowd of clients that want nothing, and one that does.

use std::time::Duration;

use aloha_scheduler::rest::RestLimits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::create;
use crate::common::now;
use crate::server::{Server, until, with_master};

fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the hard limit is allowed");
}

/// How long requests of a client take that connects for each of them, median and 99th of a hundred.
async fn latencies(server: &Server, mut between: impl AsyncFnMut(usize)) -> (Duration, Duration) {
    const REQUESTS: usize = 1000;
    let ready =
        "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut took = Vec::with_capacity(REQUESTS);
    for number in 0..REQUESTS {
        between(number).await;
        let begun = now();
        assert_eq!(server.ask(ready).await.status, 200);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    (took[REQUESTS / 2], took[REQUESTS * 99 / 100])
}

#[expect(clippy::print_stdout, reason = "the figures are for who asks for them")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_and_a_thousand_slow_clients_do_not_delay_others() {
    const EACH: usize = 1000;
    raise_file_limit();
    let (_env, server) = with_master(RestLimits::default()).await;
    let alone = latencies(&server, async |_| {}).await;
    let mut idle = Vec::new();
    let mut slow = Vec::new();
    let head = "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\nX: ";
    let body = create(1000, "{");
    for number in 0..EACH {
        let mut client = server.connect().await;
        // Half of them were served before.
        if number % 2 == 0 {
            client
                .send("GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            assert_eq!(client.answer().await.status, 200);
        }
        idle.push(client);
        let mut client = server.connect().await;
        client
            .send(if number % 2 == 0 { head } else { &body })
            .await;
        slow.push(client);
    }
    until(|| server.load.connections() == 2 * EACH).await;
    // Between two requests, ten of the slow ones send another byte.
    let beside = latencies(&server, async |number| {
        for place in 0..10 {
            slow[(10 * number + place) % EACH].send("x").await;
        }
    })
    .await;
    println!(
        "p50, p99 of a new connection and its request: alone {alone:?}, beside 2,000 others {beside:?}"
    );
    until(|| server.load.connections() == 2 * EACH).await;
    assert_eq!(server.load.requests(), 0, "they are not there yet");
    assert!(beside.0 < Duration::from_millis(20), "p50 {:?}", beside.0);
    assert!(beside.1 < Duration::from_millis(200), "p99 {:?}", beside.1);
    drop((idle, slow));
    until(|| server.load.connections() == 0).await;
    until(|| server.load.requests() == 0).await;
}
