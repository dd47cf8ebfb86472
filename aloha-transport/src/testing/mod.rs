//! Networks and time for tests: no sockets, fit for a paused clock.
//!
//! [`MemoryNetwork`] delivers at once and never fails. [`SimNetwork`] delays, holds back and breaks, by a
//! seed; [`SimRuntime`] is the time and the randomness that go with it, and [`SimProcess`] what of them one process has: it
//! can stand still, and end.

mod memory;
mod random;
mod sim_connection;
mod sim_host;
mod sim_links;
mod sim_network;
mod sim_process;
mod sim_runtime;
mod sim_stream;

pub use memory::MemoryNetwork;
pub use sim_links::SimConditions;
pub use sim_network::SimNetwork;
pub use sim_process::SimProcess;
pub use sim_runtime::SimRuntime;

/// The time on tokio's clock, paused or not.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a simulation reads the clock"
)]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
