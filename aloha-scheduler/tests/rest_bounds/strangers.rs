//! What is no HTTP, or only nearly.

use aloha_rpc::RpcEnv;
use aloha_scheduler::rest::RestLimits;
use tokio::io::AsyncWriteExt as _;

use crate::routes::routes;
use crate::server::{Server, until, with_master};

#[tokio::test]
async fn what_is_no_http_is_refused_or_closed_and_harms_nobody() {
    let (_env, server) = with_master(RestLimits::default()).await;
    let head = "POST /v1/submissions/create HTTP/1.1\r\nHost: localhost\r\n";
    let smuggled = "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let bad: [(&str, String); 14] = [
        (
            "two lengths",
            format!("{head}Content-Length: 3\r\nContent-Length: 4\r\n\r\n{{}}  {smuggled}"),
        ),
        (
            "a list of lengths",
            format!("{head}Content-Length: 3, 4\r\n\r\n{{}}  {smuggled}"),
        ),
        (
            "a signed length",
            format!("{head}Content-Length: +3\r\n\r\n{{}} {smuggled}"),
        ),
        (
            "a length beyond all",
            format!("{head}Content-Length: 99999999999999999999999\r\n\r\n"),
        ),
        (
            "an unknown coding",
            format!("{head}Transfer-Encoding: cow\r\n\r\n{smuggled}"),
        ),
        (
            "chunked not last",
            format!("{head}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "chunked in HTTP/1.0",
            format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a chunk beyond all",
            format!("{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx"),
        ),
        (
            "a chunk without a length",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a blank in a name",
            format!("{head}Content-Length : 3\r\n\r\n{{}} {smuggled}"),
        ),
        (
            "a folded line",
            format!("{head}X: y\r\n Content-Length: 3\r\n\r\n{{}} {smuggled}"),
        ),
        (
            "a bare CR",
            format!("{head}X: y\rContent-Length: 3\r\n\r\n{smuggled}"),
        ),
        ("a NUL", format!("{head}X: \0\r\n\r\n{smuggled}")),
        (
            "another version",
            "GET / HTTP/3.7\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
    ];
    for (name, request) in bad {
        let mut client = server.connect().await;
        client.send(&request).await;
        drop(client.0.shutdown().await);
        let text = client.rest().await;
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 400 "),
            "{name}: {text}"
        );
        // Whatever came after it was not taken for a request.
        assert!(text.matches("HTTP/1.1").count() <= 1, "{name}: {text}");
    }
    // This is chunked, says the standard, and the last of its connection, lest others see it otherwise.
    let both =
        format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}");
    let mut client = server.connect().await;
    client.send(&both).await;
    let text = client.rest().await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");

    // Of others there is one kind for each first byte, and what comes of it is the same each time.
    let mut seed = 7_u64;
    for first in 0..=u8::MAX {
        let mut bytes = vec![first];
        for _ in 0..64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(&seed.to_be_bytes()[..2]);
        }
        let mut client = server.connect().await;
        drop(client.0.write_all(&bytes).await);
        drop(client.0.shutdown().await);
        let text = client.rest().await;
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 400 "),
            "{first}: {text}"
        );
    }
    until(|| server.load.connections() == 0).await;
    assert_eq!(server.ask(smuggled).await.status, 200);
}

#[tokio::test]
async fn who_speaks_another_protocol_is_told_so() {
    let server = Server::start(routes().0, RestLimits::default()).await;
    let hello = "ALOH\x12\0\0\x01\0\x01\0\x01\0\0\x10\0\0\x10\0\0\0\0\0\0";
    let answer = server.ask(hello).await;
    assert_eq!(answer.status, 400);
    answer.assert_error("RPC has a port of its own");
    let answer = server.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(answer.status, 505);
    answer.assert_error("HTTP/1.1");
    // Whoever begins with TLS understands nothing but its end.
    let mut tls = server.connect().await;
    tls.0
        .write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")
        .await
        .expect("sent");
    let text = tls.rest().await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    drop(tls);
    server.assert_is_well().await;

    // An RPC client says which of the two ports it was given.
    let client = RpcEnv::client("client").await.expect("started");
    let address = server.address.parse().expect("an address");
    let refused = aloha_scheduler::MasterClient::connect(&client, &[address]).await;
    let refused = aloha_scheduler::with_causes(&refused.expect_err("no master"));
    assert!(refused.contains("it speaks HTTP"), "{refused}");
    client.shutdown().await;
}
