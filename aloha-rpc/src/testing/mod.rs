//! Tools for tests of your own endpoints: a probe that stands in for one, environments joined in memory, and a
//! simulated network on which a run can be had again from its seed.
//!
//! # Examples
//!
//! ```
//! use aloha_rpc::testing::{Probe, Simulation};
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Serialize, Deserialize)] enum Ping { Ping(u32) }
//! # async fn example(sim: &Simulation) {
//! let (server, client) = (sim.env("server").await, sim.client("client").await);
//! let mut probe = Probe::<Ping>::set_up(&server, "pings");
//! let pings: RpcEndpointRef<Ping> =
//!     client.retrieve_endpoint_ref(server.address().unwrap(), "pings").await.unwrap();
//! sim.network().partition("server", "client");
//! pings.send(Ping::Ping(1)).unwrap();
//! probe.expect_none(std::time::Duration::from_secs(30)).await;
//! sim.network().heal("server", "client");
//! assert!(matches!(probe.next().await, Ping::Ping(1)));
//! # }
//! # Simulation::run(7, async |sim| example(&sim).await);
//! ```

mod probe;
mod simulation;

pub use aloha_transport::testing::{
    MemoryNetwork, SimConditions, SimNetwork, SimProcess, SimRuntime,
};
pub use probe::Probe;
pub use simulation::Simulation;
