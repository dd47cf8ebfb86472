//! The bytes on the wire, written out: what another implementation, or another version, has to send and expect.

use std::time::Duration;

use aloha_transport::{
    BodyStream, Failure, FailureCode, RequestError, RpcHandler, RpcResponseCallback,
    TransportClient, TransportContext,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Echoes, with what a stream brings; fails with the text of a request that starts with `!`; keeps one that starts with
/// `?` until cancelled; answers one that starts with `=` with a stream.
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
            Some(b'=') => {
                let rest = std::io::Cursor::new(message.slice(1..));
                callback.on_success_stream(b"s", rest);
            }
            _ => callback.on_success(&message),
        }
    }

    fn receive_stream(
        &self,
        _: &TransportClient,
        message: Bytes,
        mut stream: BodyStream,
        callback: RpcResponseCallback,
    ) {
        tokio::spawn(async move {
            if message.first() == Some(&b'?') {
                return callback.cancelled().await;
            }
            let mut bytes = message.to_vec();
            if let Err(error) = stream.read_to_end(&mut bytes).await {
                bytes.extend_from_slice(error.to_string().as_bytes());
            }
            callback.on_success(&bytes);
        });
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
    // Begin and More: length, types 10 and 11, transfer, length of the frame, its bytes; here around another frame.
    stream
        .write_all(&[
            11, 0, 0, 0, 10, 9, 0, 0, 0, 5, 0, 0, 0, 2, b'l', // a frame of five bytes begins
            3, 0, 0, 0, 2, b'h', b'i', // a whole one
            8, 0, 0, 0, 11, 9, 0, 0, 0, b'o', b'n', b'g',
        ])
        .await
        .expect("open");
    assert_eq!(one_way.recv().await.expect("it came"), "hi");
    assert_eq!(one_way.recv().await.expect("it came"), "long");
    // PartCredit: length, type 12, bytes.
    stream
        .write_all(&[5, 0, 0, 0, 12, 0, 0, 1, 0])
        .await
        .expect("open");
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
async fn a_server_understands_and_sends_these_bytes_of_streams() {
    let (server, mut stream, _one_way) = joined().await;
    // StreamRequest: length, type 13, id, stream, body.
    stream
        .write_all(&[11, 0, 0, 0, 13, 5, 0, 0, 0, 9, 0, 0, 0, b'h', b'i'])
        .await
        .expect("open");
    // StreamCredit: length, type 17, stream, bytes: 256 KiB once it is read.
    expect(&mut stream, &[9, 0, 0, 0, 17, 9, 0, 0, 0, 0, 0, 4, 0]).await;
    // StreamData: length, type 15, stream, bytes. StreamEnd: length, type 16, stream, 0 for whole.
    stream
        .write_all(&[
            7, 0, 0, 0, 15, 9, 0, 0, 0, b'a', b'b', //
            6, 0, 0, 0, 15, 9, 0, 0, 0, b'c', //
            6, 0, 0, 0, 16, 9, 0, 0, 0, 0,
        ])
        .await
        .expect("open");
    expect(
        &mut stream,
        &[10, 0, 0, 0, 3, 5, 0, 0, 0, b'h', b'i', b'a', b'b', b'c'],
    )
    .await;
    // StreamEnd: 1 for failed, and a text. It needs no credit, and may come before it.
    stream
        .write_all(&[
            9, 0, 0, 0, 13, 6, 0, 0, 0, 9, 0, 0, 0, //
            8, 0, 0, 0, 16, 9, 0, 0, 0, 1, b'n', b'o',
        ])
        .await
        .expect("open");
    expect(&mut stream, &[7, 0, 0, 0, 3, 6, 0, 0, 0, b'n', b'o']).await;
    // StreamResponse: length, type 14, id, stream, body. Nothing of the stream comes without credit.
    stream
        .write_all(&[8, 0, 0, 0, 1, 7, 0, 0, 0, b'=', b'a', b'b'])
        .await
        .expect("open");
    expect(
        &mut stream,
        &[10, 0, 0, 0, 14, 7, 0, 0, 0, 0, 0, 0, 0, b's'],
    )
    .await;
    for byte in [b'a', b'b'] {
        stream
            .write_all(&[9, 0, 0, 0, 17, 0, 0, 0, 0, 1, 0, 0, 0])
            .await
            .expect("open");
        expect(&mut stream, &[6, 0, 0, 0, 15, 0, 0, 0, 0, byte]).await;
    }
    stream
        .write_all(&[9, 0, 0, 0, 17, 0, 0, 0, 0, 1, 0, 0, 0])
        .await
        .expect("open");
    expect(&mut stream, &[6, 0, 0, 0, 16, 0, 0, 0, 0, 0]).await;
    // StreamStop: length, type 18, stream. The end comes all the same; what is said of the stream then is too late.
    stream
        .write_all(&[6, 0, 0, 0, 1, 7, 0, 0, 0, b'='])
        .await
        .expect("open");
    expect(
        &mut stream,
        &[10, 0, 0, 0, 14, 7, 0, 0, 0, 1, 0, 0, 0, b's'],
    )
    .await;
    stream
        .write_all(&[5, 0, 0, 0, 18, 1, 0, 0, 0])
        .await
        .expect("open");
    let end = [&[21, 0, 0, 0, 16, 1, 0, 0, 0, 1][..], b"nobody reads it"].concat();
    expect(&mut stream, &end).await;
    stream
        .write_all(&[5, 0, 0, 0, 18, 1, 0, 0, 0])
        .await
        .expect("open");
    let stopping = tokio::spawn(server.stop());
    expect(&mut stream, &[1, 0, 0, 0, 9]).await;
    stream.write_all(&[1, 0, 0, 0, 9]).await.expect("open");
    assert_eq!(stream.read(&mut [0; 1]).await.expect("a clean end"), 0);
    drop(stream);
    stopping.await.expect("no panic");
}

#[tokio::test]
async fn what_breaks_the_rules_of_streams_ends_the_connection() {
    let open = |id: u8, stream: u8| [10, 0, 0, 0, 13, id, 0, 0, 0, stream, 0, 0, 0, b'?'];
    let end = [6, 0, 0, 0, 16, 1, 0, 0, 0, 0];
    let data = [6, 0, 0, 0, 15, 1, 0, 0, 0, b'x'];
    let many: Vec<u8> = (0..65).flat_map(|number| open(number, number)).collect();
    let broken: [&[u8]; 8] = [
        &data,                                     // data of a stream that was never opened
        &end,                                      // its end
        &[9, 0, 0, 0, 17, 1, 0, 0, 0, 1, 0, 0, 0], // credit for it
        &[5, 0, 0, 0, 18, 1, 0, 0, 0],             // a stop of it
        &[&open(1, 1)[..], &data].concat(), // more than its credit, which is none before it is read
        &[&open(1, 1)[..], &end, &end].concat(), // a second end
        &[open(1, 1), open(2, 1)].concat(), // a number in use
        &many,                              // one too many
    ];
    each_ends_the_connection(&broken).await;
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
    // A body above 256 KiB leaves in parts of 256 KiB after their length: Begin, More.
    let mut body = vec![b'x'; 300_000];
    body[299_999] = b'y';
    client.send(&body).expect("room");
    let (total, first, rest) = (
        300_001_u32,
        (256 << 10) - 9,
        300_000 + 1 - ((256 << 10) - 9),
    );
    let mut begin = vec![0, 0, 4, 0, 10, 0, 0, 0, 0];
    begin.extend_from_slice(&total.to_le_bytes());
    begin.push(2);
    begin.extend_from_slice(&body[..first - 1]);
    expect(&mut stream, &begin).await;
    let mut more = u32::try_from(5 + rest)
        .expect("small")
        .to_le_bytes()
        .to_vec();
    more.extend_from_slice(&[11, 0, 0, 0, 0]);
    more.extend_from_slice(&body[first - 1..]);
    expect(&mut stream, &more).await;
}

async fn each_ends_the_connection(broken: &[&[u8]]) {
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
async fn what_breaks_the_protocol_ends_the_connection() {
    let nine: Vec<u8> = (0..9)
        .flat_map(|transfer| [10, 0, 0, 0, 10, transfer, 0, 0, 0, 5, 0, 0, 0, b'x'])
        .collect();
    let broken: [&[u8]; 12] = [
        &nine,                                                // a ninth frame in parts
        &[nine[..14].to_vec(), nine[..14].to_vec()].concat(), // a transfer that is under way
        &[6, 0, 0, 0, 11, 7, 0, 0, 0, b'x'],                  // a part of none
        &[11, 0, 0, 0, 10, 1, 0, 0, 0, 1, 0, 0, 0, 2, b'x'],  // more than was announced
        &[10, 0, 0, 0, 10, 1, 0, 0, 0, 1, 0, 0, 0, 10],       // parts in parts
        &[9, 0, 0, 0, 10, 1, 0, 0, 0, 1, 0, 0, 1],            // a frame over the limit in parts
        &[0, 0, 0, 0],                                        // an empty frame
        &[0xff, 0xff, 0xff, 0xff, 2],                         // four gibibytes
        &[1, 0, 0, 0, 99],                                    // an unknown type
        &[3, 0, 0, 0, 1, 0, 0],                               // a request without a whole id
        &[5, 0, 0, 0, 1, 0, 0, 1, 0],                         // a slot over the limit
        &[
            6, 0, 0, 0, 1, 0, 0, 0, 0, b'?', 6, 0, 0, 0, 1, 0, 0, 0, 0, b'?',
        ], // an id in use
    ];
    each_ends_the_connection(&broken).await;
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
