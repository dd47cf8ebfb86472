//! What one read brings at once, and what becomes of it when the connection ends in the middle.

use std::io;

use aloha_transport::{
    BodyStream, RpcHandler, RpcResponseCallback, TransportClient, TransportContext,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Magic, length, kind; versions 1 to 1, codec 0; 1 MiB frames, 4096 requests, no authentication; name `c`, no address.
const HELLO: [u8; 25] = [
    b'A', b'L', b'O', b'H', 19, 0, 0, 1, 0, 1, 0, 0, 0, 0, 16, 0, 0, 16, 0, 0, 0, 1, b'c', 0, 0,
];

enum Came {
    Request(Bytes, RpcResponseCallback),
    OneWay(Bytes),
    Stream(Bytes, BodyStream, RpcResponseCallback),
}

/// Hands all on; gives the connection up when it hears `!`.
#[derive(Debug)]
struct Tell(mpsc::Sender<Came>);

impl Tell {
    fn tell(&self, came: Came) {
        drop(self.0.try_send(came));
    }
}

impl RpcHandler for Tell {
    fn receive(&self, client: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        if message == "!" {
            client.abort("enough");
        }
        self.tell(Came::Request(message, callback));
    }

    fn receive_stream(
        &self,
        _: &TransportClient,
        message: Bytes,
        stream: BodyStream,
        callback: RpcResponseCallback,
    ) {
        self.tell(Came::Stream(message, stream, callback));
    }

    fn receive_one_way(&self, _: &TransportClient, message: Bytes) {
        self.tell(Came::OneWay(message));
    }
}

/// What a server makes of bytes that come at once.
async fn at_once(bytes: &[u8]) -> mpsc::Receiver<Came> {
    let (tell, came) = mpsc::channel(16);
    let context = TransportContext::new("s", Tell(tell));
    let server = context.create_server("127.0.0.1:0").await;
    let server = server.expect("a free port");
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("it listens");
    let hello = [&HELLO, bytes].concat();
    stream.write_all(&hello).await.expect("open");
    let mut rest = Vec::new();
    stream.shutdown().await.expect("open");
    drop(stream.read_to_end(&mut rest).await);
    came
}

#[tokio::test]
async fn what_comes_behind_the_end_of_a_connection_is_not_waited_for() {
    let bytes: &[&[u8]] = &[
        &[6, 0, 0, 0, 1, 0, 0, 0, 0, b'!'],
        // A frame in a part is handed on by itself: a request, and one with a stream.
        &[15, 0, 0, 0, 10, 1, 0, 0, 0, 6, 0, 0, 0, 1, 1, 0, 0, 0, b'x'],
        &[
            19, 0, 0, 0, 10, 1, 0, 0, 0, 10, 0, 0, 0, 13, 2, 0, 0, 0, 0, 0, 0, 0, b'y',
        ],
    ];
    let mut came = at_once(&bytes.concat()).await;
    while let Some(came) = came.recv().await {
        match came {
            Came::Request(_, callback) => callback.cancelled().await,
            Came::Stream(_, mut stream, callback) => {
                callback.cancelled().await;
                let read = stream.read_u8().await;
                let error = read.expect_err("the connection is gone");
                assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
            }
            Came::OneWay(message) => panic!("{message:?} was not sent"),
        }
    }
}

#[tokio::test]
async fn requests_with_streams_come_in_their_order_with_other_messages() {
    let bytes: &[&[u8]] = &[
        &[2, 0, 0, 0, 2, b'1'],
        &[10, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 0, b'2'],
        &[2, 0, 0, 0, 2, b'3'],
        &[6, 0, 0, 0, 1, 1, 0, 0, 0, b'4'],
        &[10, 0, 0, 0, 13, 2, 0, 0, 0, 1, 0, 0, 0, b'5'],
    ];
    let mut came = at_once(&bytes.concat()).await;
    let mut order = Vec::new();
    while let Some(came) = came.recv().await {
        let (Came::Request(message, _) | Came::OneWay(message) | Came::Stream(message, ..)) = came;
        order.extend_from_slice(&message);
    }
    assert_eq!(order, b"12345");
}
