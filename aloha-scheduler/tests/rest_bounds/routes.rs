//! Routes that take long, answer much, or wait for the test.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::io::ReaderStream;

/// More than the buffers of a connection hold.
pub(crate) const PAGE_BYTES: usize = 16 << 20;

/// What the routes of the test share with it.
#[derive(Clone)]
struct Routes {
    /// A request to `/held` is answered once it gets a permit.
    gate: Arc<Semaphore>,
    /// Told when an answer to `/large` is over.
    large_ended: mpsc::Sender<()>,
    /// The other ends of what is followed.
    followers: mpsc::Sender<tokio::io::DuplexStream>,
}

pub(crate) fn routes() -> (Router, Held) {
    let (large_ended, has_ended) = mpsc::channel(16);
    let (followers, followed) = mpsc::channel(16);
    let routes = Routes {
        gate: Arc::new(Semaphore::new(0)),
        large_ended,
        followers,
    };
    let held = Held {
        gate: Arc::clone(&routes.gate),
        large_ended: has_ended,
        followed,
    };
    let router = Router::new()
        .route("/quick", get(async || "quick"))
        .route("/read", post(async |body: Bytes| body.len().to_string()))
        .route("/held", get(hold).post(hold))
        .route("/held/wait", get(hold).post(hold))
        .route("/page", get(page))
        .route("/page/wait", get(page))
        .route("/large", get(large))
        .route("/output", get(output))
        .with_state(routes);
    (router, held)
}

pub(crate) struct Held {
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) large_ended: mpsc::Receiver<()>,
    pub(crate) followed: mpsc::Receiver<tokio::io::DuplexStream>,
}

async fn page() -> Vec<u8> {
    vec![b'x'; PAGE_BYTES]
}

async fn hold(State(routes): State<Routes>) -> &'static str {
    let permit = routes.gate.acquire().await.expect("never closed");
    permit.forget();
    "held"
}

/// An answer that no socket takes at once; it says when it is over.
async fn large(State(routes): State<Routes>) -> Response {
    struct Ending(mpsc::Sender<()>);
    impl Drop for Ending {
        fn drop(&mut self) {
            self.0.try_send(()).expect("the test has room");
        }
    }
    let ending = Ending(routes.large_ended);
    let (mut writer, reader) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let _ending = ending;
        while writer.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
    });
    Response::new(Body::from_stream(ReaderStream::new(reader)))
}

/// An answer of what the test writes.
async fn output(State(routes): State<Routes>) -> Response {
    let (writer, reader) = tokio::io::duplex(64 << 10);
    routes.followers.send(writer).await.expect("the test runs");
    Response::new(Body::from_stream(ReaderStream::new(reader)))
}
