//! tarpc, over TCP with bincode. It has no one-way messages.

use aloha_benches::{Entry, Figures, Handle, Job, Lobby, drive, perform, runtime};
use futures::StreamExt as _;
use tarpc::server::{self, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{client, context, serde_transport};
use tokio::net::{TcpListener, TcpStream};

use crate::asks;

pub(crate) const ENTRIES: [Entry; 5] = asks("tarpc", ask, serve);

#[tarpc::service]
trait Echo {
    async fn echo(text: String) -> String;
}

#[derive(Clone)]
struct Echoing;

impl Echo for Echoing {
    async fn echo(self, _: context::Context, text: String) -> String {
        text
    }
}

#[derive(Clone)]
struct Far(EchoClient);

impl Handle for Far {
    async fn tell(&mut self, _: String) {
        unreachable!("there are no one-way messages");
    }

    async fn ask(&mut self, text: String) -> String {
        let echo = self.0.echo(context::current(), text).await;
        echo.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        unreachable!("there are no one-way messages");
    }
}

fn framed(socket: TcpStream) -> tarpc::tokio_util::codec::Framed<TcpStream, LengthDelimitedCodec> {
    socket.set_nodelay(true).expect("an open socket");
    LengthDelimitedCodec::builder().new_framed(socket)
}

fn ask(job: Job) -> Figures {
    drive(&runtime(), async move {
        let socket = TcpStream::connect(job.address()).await;
        let socket = socket.expect("the server listens");
        // "Too low value may decrease throughput."
        let mut config = client::Config::default();
        config.pending_request_buffer = 1000;
        let transport = serde_transport::new(framed(socket), Bincode::default());
        perform(&job, Far(EchoClient::new(config, transport).spawn())).await
    })
}

fn serve(lobby: Lobby) {
    let runtime = runtime();
    let listener = drive(&runtime, async {
        TcpListener::bind("127.0.0.1:0").await.expect("a free port")
    });
    let address = listener.local_addr().expect("it listens");
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let config = server::Config {
                pending_response_buffer: 1000,
            };
            let transport = serde_transport::new(framed(socket), Bincode::default());
            let requests = config.channel(transport).execute(Echoing.serve());
            // As its examples have it.
            tokio::spawn(requests.for_each(|request| async {
                tokio::spawn(request);
            }));
        }
    });
    lobby.open(&address.to_string());
}
