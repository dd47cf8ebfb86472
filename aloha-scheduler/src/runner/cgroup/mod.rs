//! Control groups: how the kernel limits, tracks and ends everything that belongs to an application.
//!
//! ```text
//!   /proc/self/{mountinfo,cgroup} ──► Hierarchy (one for each mounted one, with the group of this process)
//!                                        │ Plan: which of them limits memory, shares processors, tracks processes
//!                     ┌──────────────────┴──────────────────┐
//!              CgroupSupport                            AppCgroup
//!     what a worker can promise, in words       the groups of one attempt, below our own
//! ```
//!
//! Groups are made below the group that this process is in, so that whatever limits us limits our applications too.
//! With v2 that group cannot both hold processes and give out controllers: a worker that is alone in it moves itself to
//! a group beside its applications (`aloha-supervisor`); where others share it, memory and processors are not limited.

mod group;
mod hierarchy;
mod listed;
mod plan;
mod support;
#[cfg(test)]
mod tests;

pub(crate) use group::{AppCgroup, PlannedCgroup};
pub use support::{CgroupSupport, CgroupVersion, Enforced};
