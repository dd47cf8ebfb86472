//! Corners in which something went wrong once: each name says what holds now.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "short tests of a review"
)]

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use aloha_transport::testing::MemoryNetwork;
use aloha_transport::{
    Listener, Network, RequestId, RpcHandler, RpcResponseCallback, Stream, TransportClient,
    TransportContext,
};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

#[derive(Debug)]
struct Echo;

impl RpcHandler for Echo {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        callback.on_success(&message);
    }
}

struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

/// Each poll leaves one more waker: a loop with `select!` around `closed()` grows for as long as nothing is written.
#[tokio::test]
async fn waiting_for_the_end_again_and_again_takes_no_memory() {
    let context = TransportContext::new("test", Echo).network(Arc::new(MemoryNetwork::default()));
    let server = context.create_server("server:0").await.unwrap();
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await.unwrap();
    let counted = Arc::new(Counted);
    let waker = Waker::from(Arc::clone(&counted));
    for _ in 0..1_000 {
        let closed = pin!(client.closed());
        assert!(closed.poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let kept = Arc::strong_count(&counted);
    assert!(kept < 10, "{kept} wakers are kept for one task");
}

/// A call that is registered behind the end of its connection is never cancelled.
#[tokio::test]
async fn a_connection_that_is_closed_takes_no_calls() {
    let context = TransportContext::new("test", Echo).network(Arc::new(MemoryNetwork::default()));
    let server = context.create_server("server:0").await.unwrap();
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await.unwrap();
    client.abort("on purpose");
    let call = client.accept_id(RequestId::from_bits(5));
    assert!(
        call.is_none_or(|call| client.callback(call).is_cancelled()),
        "it waits for an answer to a connection that is closed"
    );
}

/// A network whose listener can be held up between a connection and its return.
#[derive(Debug)]
struct HeldUp {
    called: mpsc::UnboundedSender<Stream>,
    calls: Mutex<Option<mpsc::UnboundedReceiver<Stream>>>,
    accepting: std::sync::mpsc::Sender<()>,
    go: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

struct Held(
    mpsc::UnboundedReceiver<Stream>,
    std::sync::mpsc::Sender<()>,
    Mutex<std::sync::mpsc::Receiver<()>>,
);

#[async_trait]
impl Network for HeldUp {
    async fn connect(&self, _: &str) -> io::Result<Stream> {
        let (here, there) = tokio::io::duplex(1 << 16);
        let stream = |end| {
            let (reader, writer) = tokio::io::split(end);
            Stream {
                reader: Box::new(reader),
                writer: Box::new(writer),
                peer_address: "other:1".to_owned(),
            }
        };
        self.called.send(stream(there)).unwrap();
        Ok(stream(here))
    }
    async fn bind(&self, _: &str) -> io::Result<Box<dyn Listener>> {
        let calls = self.calls.lock().unwrap().take().unwrap();
        let go = self.go.lock().unwrap().take().unwrap();
        Ok(Box::new(Held(
            calls,
            self.accepting.clone(),
            Mutex::new(go),
        )))
    }
}

#[async_trait]
impl Listener for Held {
    fn local_address(&self) -> io::Result<String> {
        Ok("server:1".to_owned())
    }
    async fn accept(&mut self) -> io::Result<Stream> {
        let stream = self.0.recv().await.unwrap();
        // A thread that loses the processor here is enough.
        self.1.send(()).unwrap();
        let _ = self.2.lock().unwrap().recv();
        Ok(stream)
    }
}

/// A connection that is accepted while `stop` lists those that are open is served for ever, and `wait_closed` waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_accepted_during_the_stop_does_not_hang_it() {
    let (called, calls) = mpsc::unbounded_channel();
    let (accepting, is_accepting) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel();
    let network: Arc<dyn Network> = Arc::new(HeldUp {
        called,
        calls: Mutex::new(Some(calls)),
        accepting,
        go: Mutex::new(Some(goes)),
    });
    let context = TransportContext::new("server", Echo).network(Arc::clone(&network));
    let server = context.create_server("server:1").await.unwrap();
    let caller = TransportContext::new("caller", Echo).network(network);
    let factory = caller.create_client_factory();
    let client = factory.client("server:1").unwrap();
    tokio::task::spawn_blocking(move || is_accepting.recv().unwrap())
        .await
        .unwrap();
    server.stop().await;
    go.send(()).unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(10), context.wait_closed()).await;
    assert!(
        closed.is_ok(),
        "the server has stopped, and serves on: {}",
        client.is_active()
    );
}
