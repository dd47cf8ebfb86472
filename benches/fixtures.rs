//! What the benches share with the contestants of other libraries: the workloads, and how a process takes part.
//!
//! It knows nothing of Aloha, so that the peers need not build it.

mod contest;
mod shapes;
mod workload;

pub use contest::{Entry, Figures, Job, Kind, Lobby, Start, resident_bytes, take_part};
pub use shapes::{
    Handle, PRODUCERS, RING, drive, idle_memory, median, perform, runtime, start_and_stop, text,
};
pub use workload::{Goal, Unit, Workload};
