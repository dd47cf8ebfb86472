//! The master: a queue of applications, the workers, and who runs what.
//!
//! Its mind is [`MasterCore`], which awaits nothing, reads no clock and touches no socket or file. A shell turns
//! messages and timers into events, hands them in with the time, and carries out the effects in the order given.
//!
//! ```text
//!    messages      .------------------- shell -------------------.
//!   ------------>  |  Event, Now                        Effect   |  store, replies,
//!    timers        |      |      .----- core -----.        ^     |  commands, listeners
//!   ------------>  |      '----->|  apps          |        |     | ------------------>
//!                  |             |  workers       |--------'     |
//!                  |   <---------|  waits         |              |
//!                  |    next_    '-- placement ---'              |
//!                  |   deadline     once per event               |
//!                  '---------------------------------------------'
//! ```
//!
//! - **Stored first.** A reply or a command that rests on a change comes after the [`Effect::Persist`] of it.
//! - **Nothing is promised twice.** What a worker has is counted in one place: what it was given, and what it still
//!   holds of attempts that are no longer wanted (strays), until it reports them ended.
//! - **A worker that is away loses nothing** until its timeout: its applications are UNKNOWN, none is started
//!   elsewhere, and when it comes back they go on.
//! - **Attempts are numbered.** A report about any but the current one changes no state.

mod adoption;
mod apps;
mod builder;
mod callers;
mod capacity;
mod claims;
mod core;
mod drain;
mod effect;
mod endpoint;
mod event;
mod held;
mod keys;
mod launching;
mod leader;
mod leader_news;
mod listing;
mod membership;
mod numbers;
mod own_message;
mod placement;
mod queue;
mod recovery;
mod reports;
mod requests;
mod resource_index;
mod restarts;
mod shadow;
mod standby;
mod status;
mod store_writer;
mod table;
mod tag_limits;
#[cfg(test)]
mod tests;
mod timers;
mod waits;
mod why;
mod worker;
mod worker_record;
mod workers;

pub(crate) use self::tag_limits::ALL_TAGS;

pub use self::apps::AppRecord;
pub use self::builder::{MasterBuilder, MasterHandle};
pub use self::core::{MasterCore, MasterSettings};
pub use self::effect::{Effect, Record, Reply, WorkerCommand};
pub use self::endpoint::{Master, MasterRole, STANDBY};
pub use self::event::{Event, ReplyTo};
pub use self::keys::{KeyRecord, SubmissionError};
pub use self::own_message::OwnMessage;
pub use self::recovery::Stored;
pub use self::shadow::Shadow;
pub use self::standby::{Heir, NoHeir};
pub use self::workers::{WorkerRecord, WorkerState, WorkerStatus};
