//! The server, in this process and over real sockets.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::RpcEnv;
use aloha_scheduler::Master;
use aloha_scheduler::rest::{RestGuard, RestLimits, RestLoad, RestServer};
use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, Client, quick};

/// Far above what anything here takes: a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lets a test fail that waits in vain.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it happens soon")
}

pub(crate) async fn until(is_so: impl Fn() -> bool) {
    soon(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) load: RestLoad,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router, limits: RestLimits) -> Self {
        Self::serve(RestServer::of_routes(router, limits)).await
    }

    pub(crate) async fn serve(server: RestServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let (load, stop) = (server.load(), CancellationToken::new());
        let ended = tokio::spawn(server.serve(listener, stop.clone()));
        Self {
            address,
            load,
            stop,
            ended,
        }
    }

    pub(crate) async fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        Client(stream)
    }

    /// A request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    /// The answer to a request that is turned away at first for want of what this key bounds. Others are served meanwhile
    /// if they need none of it.
    pub(crate) async fn ask_until_served(&self, request: &str, key: &str) -> Answer {
        soon(async {
            self.ask(request).await.assert_busy(key);
            loop {
                assert_eq!(self.ask(&quick()).await.status, 200);
                let answer = self.ask(request).await;
                if answer.status == 200 {
                    return answer;
                }
                answer.assert_busy(key);
            }
        })
        .await
    }

    /// All is as it was: nobody is connected, nothing under way, and a new client is served.
    pub(crate) async fn assert_is_well(&self) {
        until(|| self.load.connections() == 0).await;
        assert_eq!((self.load.requests(), self.load.long_requests()), (0, 0));
        assert_eq!(self.ask(&quick()).await.status, 200);
        until(|| self.load.connections() == 0).await;
    }
}

/// The server with a real master behind it.
pub(crate) async fn with_master(limits: RestLimits) -> (RpcEnv, Server) {
    let env = RpcEnv::builder("master").bind("127.0.0.1:0").start().await;
    let env = env.expect("started");
    let master = Master::start(&env, Master::default_settings(&env)).expect("started");
    let guard = RestGuard::new("127.0.0.1", &[], None, false).expect("loopback");
    let server = RestServer::new(Arc::new(master.client().clone()), guard, limits);
    let server = Server::serve(server).await;
    (env, server)
}

/// Timeouts of which each is told from the others, and a test is over soon.
pub(crate) fn limits() -> RestLimits {
    RestLimits {
        header_timeout: Duration::from_millis(400),
        idle_timeout: Duration::from_millis(200),
        write_timeout: Duration::from_millis(200),
        ..RestLimits::default()
    }
}
