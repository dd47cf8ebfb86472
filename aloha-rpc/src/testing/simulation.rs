//! A run of environments on a simulated network, under a paused clock, from a seed.

use std::sync::Arc;

use aloha_transport::Runtime;
use aloha_transport::testing::{SimNetwork, SimProcess, SimRuntime};

use crate::config::RpcConfig;
use crate::env::RpcEnv;
use crate::env_builder::RpcEnvBuilder;

/// The port that [`Simulation::env`] listens on.
const PORT: u16 = 7077;

/// Environments on a simulated network. The same seed and the same program give the same run: delays, losses, random
/// numbers and the order of tasks.
///
/// That holds for a program that takes its time from tokio, its randomness from [`Simulation::random_u64`] or
/// [`RpcEnv::runtime`], starts no threads, and walks no map with a random hasher. Waiting costs nothing: the clock jumps
/// to what comes next.
#[derive(Debug, Clone)]
pub struct Simulation {
    seed: u64,
    network: SimNetwork,
    runtime: Arc<SimRuntime>,
}

impl Simulation {
    /// Runs a program to its end on a runtime of its own, whose one thread is the caller's.
    ///
    /// # Panics
    ///
    /// The program does, or this is called on a thread that runs async code.
    pub fn run<R>(seed: u64, program: impl AsyncFnOnce(Self) -> R) -> R {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime with time alone needs nothing of the system");
        runtime.block_on(async {
            let simulation = Self {
                seed,
                network: SimNetwork::new(seed),
                runtime: Arc::new(SimRuntime::new(seed)),
            };
            program(simulation).await
        })
    }

    /// What it was started from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The network: delays, losses, partitions.
    #[must_use]
    pub fn network(&self) -> &SimNetwork {
        &self.network
    }

    /// The next random number.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.runtime.random_u64()
    }

    /// A random number below `end`.
    ///
    /// # Panics
    ///
    /// `end` is 0.
    #[must_use]
    pub fn random_below(&self, end: u64) -> u64 {
        self.random_u64() % end
    }

    /// An environment on a host of that name, not started yet.
    pub fn builder(&self, host: &str) -> RpcEnvBuilder {
        RpcEnv::builder(host)
            .network(self.network.host(host))
            .runtime(Arc::clone(&self.runtime) as _)
    }

    /// A process that can be paused and ended: the [`runtime`](RpcEnvBuilder::runtime) for one environment.
    #[must_use]
    pub fn process(&self) -> SimProcess {
        SimProcess::new(Arc::clone(&self.runtime) as _)
    }

    /// The time and the tasks of nobody in particular.
    #[must_use]
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime) as _
    }

    /// An environment on a host of that name, listening on port 7077.
    ///
    /// # Panics
    ///
    /// Another listens there.
    pub async fn env(&self, host: &str) -> RpcEnv {
        self.env_with(host, RpcConfig::default()).await
    }

    /// As [`env`](Self::env), with other limits.
    ///
    /// # Panics
    ///
    /// Another listens there.
    pub async fn env_with(&self, host: &str, config: RpcConfig) -> RpcEnv {
        let builder = self.builder(host).config(config);
        match builder.bind(format!("{host}:{PORT}")).start().await {
            Ok(env) => env,
            Err(error) => panic!("cannot start an environment on {host}: {error}"),
        }
    }

    /// An environment on a host of that name that does not listen.
    ///
    /// # Panics
    ///
    /// Never: nothing it needs can be taken.
    pub async fn client(&self, host: &str) -> RpcEnv {
        let started = self.builder(host).start().await;
        started.expect("a client needs no port")
    }
}
