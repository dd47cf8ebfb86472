//! The bytes on the wire, written out: what another implementation, or another version, has to send and expect.

use std::time::Duration;

use aloha_transport::{
    Failure, FailureCode, RequestError, RpcHandler, RpcResponseCallback, TransportClient,
    TransportContext,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Echoes; fails with the text of a request that starts with `!`; keeps one that starts with `?` until cancelled.
#[derive(Debug)]
struct Echo(mpsc::UnboundedSender<Bytes>);

impl RpcHandler for Echo {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        match message.first() {
            Some(b'!') => {
                let text = String::from_utf8_lossy(&message[1..]).into_owned();
                callback.on_failure(&Failure {
                    code: FailureCode::APPLICATION,
                    kind: "k".to_owned(),
                    text,
                });
            }
            Some(b'?') => drop(tokio::spawn(async move {
                callback.cancelled().await;
                callback.on_success(b"late");
            })),
            _ => callback.on_success(&message),
        }
    }

    fn receive_one_way(&self, client: &TransportClient, message: Bytes) {
        if message == "more" {
            return client.grant(3, 256, 0x0001_0002);
        }
        self.0.send(message).expect("the test listens");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test sends a handful")]
fn echo() -> (TransportContext, mpsc::UnboundedReceiver<Bytes>) {
    let (seen, one_way) = mpsc::unbounded_channel();
    (TransportContext::new("s", Echo(seen)), one_way)
}

/// Magic, length, kind; versions 1 to 1, codec 0; 1 MiB frames, 4096 requests, no authentication; name `c`, no address.
const HELLO: [u8; 25] = [
    b'A', b'L', b'O', b'H', 19, 0, 0, 1, 0, 1, 0, 0, 0, 0, 16, 0, 0, 16, 0, 0, 0, 1, b'c', 0, 0,
];
/// The same, with the server's limits: 16 MiB, 65,536 requests; its name `s`, and an address of 15 bytes.
const WELCOME_START: [u8; 24] = [
    b'A', b'L', b'O', b'H', 33, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, b's', 15,
];

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    stream
        .read_exact(&mut received)
        .await
        .expect("so many bytes");
    assert_eq!(received, bytes);
}

/// A server, and a connection to it past the handshake.
async fn joined() -> (
    aloha_transport::TransportServer,
    TcpStream,
    mpsc::UnboundedReceiver<Bytes>,
) {
    let (context, one_way) = echo();
    let server = context
        .create_server("127.0.0.1:0")
        .await
        .expect("a free port");
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("it listens");
    stream.write_all(&HELLO).await.expect("open");
    let address = server.address().as_bytes();
    let mut welcome = WELCOME_START.to_vec();
    welcome[4] = u8::try_from(18 + address.len()).expect("short");
    *welcome.last_mut().expect("bytes") = u8::try_from(address.len()).expect("short");
    welcome.extend_from_slice(address);
    expect(&mut stream, &welcome).await;
    (server, stream, one_way)
}

#[tokio::test]
async fn a_server_understands_and_sends_these_bytes() {
    let (server, mut stream, mut one_way) = joined().await;
    // OneWay: length, type 2, body.
    stream
        .write_all(&[3, 0, 0, 0, 2, b'h', b'i'])
        .await
        .expect("open");
    assert_eq!(one_way.recv().await.expect("it came"), "hi");
    // RpcRequest: length, type 1, id, body. RpcResponse: length, type 3, id, body.
    stream
        .write_all(&[7, 0, 0, 0, 1, 5, 0, 0, 0, b'h', b'i'])
        .await
        .expect("open");
    expect(&mut stream, &[7, 0, 0, 0, 3, 5, 0, 0, 0, b'h', b'i']).await;
    // RpcFailure: length, type 4, id, code, length of kind, kind, text.
    stream
        .write_all(&[8, 0, 0, 0, 1, 6, 0, 0, 0, b'!', b'n', b'o'])
        .await
        .expect("open");
    expect(
        &mut stream,
        &[10, 0, 0, 0, 4, 6, 0, 0, 0, 0, 1, b'k', b'n', b'o'],
    )
    .await;
    // Cancel: length, type 5, id. An answer comes all the same.
    stream
        .write_all(&[6, 0, 0, 0, 1, 7, 0, 0, 0, b'?'])
        .await
        .expect("open");
    stream
        .write_all(&[5, 0, 0, 0, 5, 7, 0, 0, 0])
        .await
        .expect("open");
    expect(
        &mut stream,
        &[9, 0, 0, 0, 3, 7, 0, 0, 0, b'l', b'a', b't', b'e'],
    )
    .await;
    // Ping and Pong: length, types 6 and 7, nonce.
    stream
        .write_all(&[9, 0, 0, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8])
        .await
        .expect("open");
    expect(&mut stream, &[9, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    // Credit: length, type 8, flow, messages, bytes.
    stream
        .write_all(&[5, 0, 0, 0, 2, b'm', b'o', b'r', b'e'])
        .await
        .expect("open");
    let credit = [13, 0, 0, 0, 8, 3, 0, 0, 0, 0, 1, 0, 0, 2, 0, 1, 0];
    expect(&mut stream, &credit).await;
    // Credit for a flow that is not there is none of its business.
    stream.write_all(&credit).await.expect("open");
    // Goodbye: length, type 9; said by both ends, each behind what it has to send.
    let stopping = tokio::spawn(server.stop());
    expect(&mut stream, &[1, 0, 0, 0, 9]).await;
    stream
        .write_all(&[3, 0, 0, 0, 2, b'h', b'i', 1, 0, 0, 0, 9])
        .await
        .expect("open");
    assert_eq!(one_way.recv().await.expect("it came"), "hi");
    assert_eq!(stream.read(&mut [0; 1]).await.expect("a clean end"), 0);
    drop(stream);
    stopping.await.expect("no panic");
}

#[tokio::test]
async fn a_client_sends_and_understands_these_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let (context, _one_way) = echo();
    let client = context
        .create_client_factory()
        .client(&address)
        .expect("open");
    // Queued before the connection exists.
    client.send(b"first").expect("room");
    let reply = client.send_rpc(b"ask", Duration::from_secs(60));
    let failing = client.send_rpc(b"ask", Duration::from_secs(60));
    let (mut stream, _) = listener.accept().await.expect("it calls");
    expect(
        &mut stream,
        &[
            b'A', b'L', b'O', b'H', 18, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, b's', 0,
        ],
    )
    .await;
    let mut welcome = HELLO;
    welcome[6] = 1;
    stream.write_all(&welcome).await.expect("open");
    expect(&mut stream, &[6, 0, 0, 0, 2, b'f', b'i', b'r', b's', b't']).await;
    expect(&mut stream, &[8, 0, 0, 0, 1, 0, 0, 0, 0, b'a', b's', b'k']).await;
    expect(&mut stream, &[8, 0, 0, 0, 1, 1, 0, 0, 0, b'a', b's', b'k']).await;
    // The second is answered first.
    stream
        .write_all(&[10, 0, 0, 0, 4, 1, 0, 0, 0, 0, 1, b'k', b'n', b'o'])
        .await
        .expect("open");
    stream
        .write_all(&[7, 0, 0, 0, 3, 0, 0, 0, 0, b'o', b'k'])
        .await
        .expect("open");
    assert_eq!(reply.await.expect("a reply"), "ok");
    let failure = Failure {
        code: FailureCode::APPLICATION,
        kind: "k".to_owned(),
        text: "no".to_owned(),
    };
    assert!(matches!(failing.await, Err(RequestError::Failed(failed)) if failed == failure));
    // Slot 1 was given back last and is used first, with the next generation: 1 + (1 << 22).
    drop(client.send_rpc(b"ask", Duration::from_secs(60)));
    expect(
        &mut stream,
        &[8, 0, 0, 0, 1, 1, 0, 0x40, 0, b'a', b's', b'k'],
    )
    .await;
    expect(&mut stream, &[5, 0, 0, 0, 5, 1, 0, 0x40, 0]).await;
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_connection() {
    let broken: [&[u8]; 6] = [
        &[0, 0, 0, 0],                // an empty frame
        &[0xff, 0xff, 0xff, 0xff, 2], // four gibibytes
        &[1, 0, 0, 0, 99],            // an unknown type
        &[3, 0, 0, 0, 1, 0, 0],       // a request without a whole id
        &[5, 0, 0, 0, 1, 0, 0, 1, 0], // a slot over the limit
        &[
            6, 0, 0, 0, 1, 0, 0, 0, 0, b'?', 6, 0, 0, 0, 1, 0, 0, 0, 0, b'?',
        ], // an id in use
    ];
    for bytes in broken {
        let (_server, mut stream, _one_way) = joined().await;
        stream.write_all(bytes).await.expect("open");
        let mut rest = Vec::new();
        // A reset ends it as well as a close.
        drop(stream.read_to_end(&mut rest).await);
        assert_eq!(rest, [], "{bytes:?}");
    }
}

#[tokio::test]
async fn a_version_or_codec_apart_is_refused_in_words() {
    for (at, value, code, words) in [(7, 2, 2, "protocol versions"), (11, 9, 3, "codec")] {
        let (context, _one_way) = echo();
        let server = context
            .create_server("127.0.0.1:0")
            .await
            .expect("a free port");
        let mut stream = TcpStream::connect(server.address())
            .await
            .expect("it listens");
        let mut hello = HELLO;
        hello[at] = value;
        hello[9] = hello[9].max(hello[7]);
        stream.write_all(&hello).await.expect("open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        assert_eq!(
            (&answer[..4], answer[6], answer[7]),
            (&b"ALOH"[..], 2, code)
        );
        assert!(String::from_utf8_lossy(&answer[8..]).contains(words));
    }
}
