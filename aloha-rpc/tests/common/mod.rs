//! Two environments to test between: one and the same, joined in memory, or over TCP.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::testing::MemoryNetwork;
use aloha_rpc::{Codec, RpcConfig, RpcEndpoint, RpcEndpointRef, RpcEnv, RpcEnvBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How caller and server are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    Local,
    Memory,
    Tcp,
}

/// A caller and a server.
pub struct Pair {
    pub server: RpcEnv,
    pub caller: RpcEnv,
    pub join: Join,
    network: Arc<MemoryNetwork>,
    codec: Codec,
}

pub fn config(codec: Codec) -> RpcConfig {
    let mut config = RpcConfig {
        codec,
        ..RpcConfig::default()
    };
    config.ask_timeout = Duration::from_secs(20);
    config.transport.frame_bytes_max = 2 << 20;
    config
}

fn builder(join: Join, codec: Codec, network: &Arc<MemoryNetwork>, name: &str) -> RpcEnvBuilder {
    let builder = RpcEnv::builder(name).config(config(codec));
    match join {
        Join::Memory => builder.network(Arc::clone(network) as _),
        Join::Local | Join::Tcp => builder,
    }
}

impl Pair {
    pub async fn new(join: Join, codec: Codec) -> Self {
        Self::with(join, codec, |builder| builder).await
    }

    /// Both of a kind of their own.
    pub async fn with_both(join: Join, kind: impl Fn(RpcEnvBuilder) -> RpcEnvBuilder) -> Self {
        Self::of(join, Codec::Bincode, &kind, &kind).await
    }

    /// With a server of its own kind.
    pub async fn with(
        join: Join,
        codec: Codec,
        server: impl FnOnce(RpcEnvBuilder) -> RpcEnvBuilder,
    ) -> Self {
        Self::of(join, codec, server, |builder| builder).await
    }

    async fn of(
        join: Join,
        codec: Codec,
        server: impl FnOnce(RpcEnvBuilder) -> RpcEnvBuilder,
        caller: impl FnOnce(RpcEnvBuilder) -> RpcEnvBuilder,
    ) -> Self {
        let network = Arc::new(MemoryNetwork::default());
        let listening = server(builder(join, codec, &network, "server").bind("127.0.0.1:0"));
        let server = listening.start().await.expect("a free port");
        let caller = if join == Join::Local {
            server.clone()
        } else {
            let calling = caller(builder(join, codec, &network, "caller"));
            calling.start().await.expect("a client needs no port")
        };
        Self {
            server,
            caller,
            join,
            network,
            codec,
        }
    }

    /// Another environment that can reach both; the same again where all is local.
    pub async fn third(&self, listens: bool) -> RpcEnv {
        if self.join == Join::Local {
            return self.server.clone();
        }
        let mut builder = builder(self.join, self.codec, &self.network, "third");
        if listens {
            builder = builder.bind("127.0.0.1:0");
        }
        builder.start().await.expect("a free port")
    }

    /// Whether both are one environment.
    pub fn is_local(&self) -> bool {
        self.join == Join::Local
    }

    /// Looks up an endpoint of the server from the caller.
    pub async fn look_up<M: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        name: &str,
    ) -> RpcEndpointRef<M> {
        let address = self.server.address().expect("it listens");
        let found = self.caller.retrieve_endpoint_ref(address, name).await;
        found.expect("it is set up")
    }

    /// Sets an endpoint up at the server and looks it up from the caller.
    pub async fn set_up<E: RpcEndpoint>(
        &self,
        name: &str,
        endpoint: E,
    ) -> RpcEndpointRef<E::Message> {
        self.server
            .setup_endpoint(name, endpoint)
            .expect("a new name");
        self.look_up(name).await
    }

    /// Waits until the server has dealt with every watch and link asked for so far: they and look-ups go to one endpoint.
    pub async fn watched(&self, name: &str) {
        let address = self.server.address().expect("it listens");
        let answer = self
            .caller
            .retrieve_endpoint_ref::<AnyMessage>(address, name);
        assert!(answer.await.is_err(), "it answered, with a refusal");
    }

    pub async fn shutdown(self) {
        self.caller.shutdown().await;
        self.server.shutdown().await;
    }
}

/// A type that no endpoint speaks.
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct AnyMessage;

/// Looks again and again until something holds.
pub async fn until(mut holds: impl FnMut() -> bool) {
    let patience = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), patience)
        .await
        .expect("it comes to hold within 20 s");
}

/// Runs a test in every join and codec.
#[macro_export]
macro_rules! everywhere {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {$(
        mod $name {
            use aloha_rpc::Codec;
            use $crate::common::{Join, Pair};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_one_environment() {
                super::$name(Pair::new(Join::Local, Codec::Bincode).await).await;
            }

            #[tokio::test(flavor = "current_thread")]
            async fn in_memory_by_bincode() {
                super::$name(Pair::new(Join::Memory, Codec::Bincode).await).await;
            }

            #[tokio::test(flavor = "current_thread")]
            async fn in_memory_by_postcard() {
                super::$name(Pair::new(Join::Memory, Codec::Postcard).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tcp_by_bincode() {
                super::$name(Pair::new(Join::Tcp, Codec::Bincode).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tcp_by_postcard() {
                super::$name(Pair::new(Join::Tcp, Codec::Postcard).await).await;
            }
        }
    )*};
}
