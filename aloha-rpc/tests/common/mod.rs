//! Two environments to test between: one and the same, joined in memory, or over TCP.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::testing::MemoryNetwork;
use aloha_rpc::{Codec, RpcConfig, RpcEndpoint, RpcEndpointRef, RpcEnv};

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
}

pub fn config(codec: Codec) -> RpcConfig {
    let mut config = RpcConfig {
        codec,
        ..RpcConfig::default()
    };
    config.ask_timeout = Duration::from_secs(20);
    config
}

impl Pair {
    pub async fn new(join: Join, codec: Codec) -> Self {
        let network = Arc::new(MemoryNetwork::default());
        let start = async |name: &str, bind: bool| {
            let mut builder = RpcEnv::builder(name).config(config(codec));
            if join == Join::Memory {
                builder = builder.network(Arc::clone(&network) as _);
            }
            if bind {
                builder = builder.bind("127.0.0.1:0");
            }
            builder.start().await.expect("a free port")
        };
        let server = start("server", true).await;
        let caller = if join == Join::Local {
            server.clone()
        } else {
            start("caller", false).await
        };
        Self { server, caller }
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
        let address = self.server.address().expect("it listens");
        self.caller
            .retrieve_endpoint_ref(address, name)
            .await
            .expect("just set up")
    }

    pub async fn shutdown(self) {
        self.caller.shutdown().await;
        self.server.shutdown().await;
    }
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

            #[tokio::test]
            async fn in_memory() {
                super::$name(Pair::new(Join::Memory, Codec::Postcard).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tcp() {
                super::$name(Pair::new(Join::Tcp, Codec::Bincode).await).await;
            }
        }
    )*};
}
