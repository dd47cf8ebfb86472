//! tonic, with a service written by hand, so that no compiler of protocols is needed. One-way messages are a stream.

use std::convert::Infallible;
use std::future::{Ready, ready};

use aloha_benches::{Entry, Figures, Handle, Job, Lobby, Workload, drive, perform, runtime, text};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http, tokio_stream};
use tonic::server::{ClientStreamingService, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::{asks, tells};

pub(crate) const ENTRIES: [Entry; 6] = {
    let [r2, r2p, r3, r4, r5] = asks("tonic", ask, serve);
    let r1 = tells("tonic", tell, serve);
    [r1, r2, r2p, r3.fewer(4), r4.fewer(5), r5]
};

/// Room for the large echoes, eight of which are under way.
const WINDOW: u32 = 16 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Count {
    #[prost(uint64, tag = "1")]
    count: u64,
}

#[derive(Clone)]
struct Echoing;

impl NamedService for Echoing {
    const NAME: &'static str = "bench.Echo";
}

impl UnaryService<Text> for Echoing {
    type Response = Text;
    type Future = Ready<Result<Response<Text>, Status>>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl ClientStreamingService<Text> for Echoing {
    type Response = Count;
    type Future = BoxFuture<Response<Count>, Status>;

    fn call(&mut self, request: Request<Streaming<Text>>) -> Self::Future {
        Box::pin(async move {
            let (mut notes, mut count) = (request.into_inner(), 0);
            while let Some(note) = notes.message().await? {
                count += u64::from(note.text.len() == 32);
            }
            Ok(Response::new(Count { count }))
        })
    }
}

impl Service<http::Request<Body>> for Echoing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let response = match request.uri().path() {
                "/bench.Echo/Notes" => {
                    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Count, Text>::default());
                    grpc.client_streaming(Echoing, request).await
                }
                _ => {
                    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
                    grpc.unary(Echoing, request).await
                }
            };
            Ok(response)
        })
    }
}

#[derive(Clone)]
struct Far(Grpc<Channel>);

impl Handle for Far {
    async fn tell(&mut self, _: String) {
        unreachable!("they are a stream");
    }

    async fn ask(&mut self, text: String) -> String {
        self.0.ready().await.expect("the server lives");
        let path = PathAndQuery::from_static("/bench.Echo/Echo");
        let codec = ProstCodec::<Text, Text>::default();
        let echo = self.0.unary(Request::new(Text { text }), path, codec).await;
        echo.expect("a reply").into_inner().text
    }

    async fn count(&mut self) -> u64 {
        unreachable!("a stream says so at its end");
    }
}

async fn connect(job: &Job) -> Far {
    let endpoint = Endpoint::from_shared(format!("http://{}", job.address()));
    let endpoint = endpoint
        .expect("an address")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    Far(Grpc::new(
        endpoint.connect().await.expect("the server listens"),
    ))
}

fn ask(job: Job) -> Figures {
    drive(&runtime(), async move {
        let far = connect(&job).await;
        perform(&job, far).await
    })
}

/// The stream makes its messages when they are to be written: a channel between would only take time.
fn tell(job: Job) -> Figures {
    assert_eq!(job.workload, Workload::R1);
    drive(&runtime(), async move {
        let Far(mut grpc) = connect(&job).await;
        // So that the connection is there.
        let warm = Far(grpc.clone()).ask(text()).await;
        assert_eq!(warm.len(), 32);
        let start = job.start();
        let notes = tokio_stream::iter((0..job.operations).map(|_| Text { text: text() }));
        let path = PathAndQuery::from_static("/bench.Echo/Notes");
        let codec = ProstCodec::<Text, Count>::default();
        grpc.ready().await.expect("the server lives");
        let count = grpc.client_streaming(Request::new(notes), path, codec);
        let count = count.await.expect("a reply").into_inner().count;
        let figures = job.stop(&start, job.operations);
        assert_eq!(count, job.operations);
        figures
    })
}

fn serve(lobby: Lobby) {
    let runtime = runtime();
    let listener = drive(&runtime, async {
        TcpListener::bind("127.0.0.1:0").await.expect("a free port")
    });
    let address = listener.local_addr().expect("it listens");
    runtime.spawn(async move {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .add_service(Echoing)
            .serve_with_incoming(incoming)
            .await
            .expect("it listens");
    });
    lobby.open(&address.to_string());
}
