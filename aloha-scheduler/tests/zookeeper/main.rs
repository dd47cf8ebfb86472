//! Recovery mode ZOOKEEPER against real servers.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod cut;
mod election;
mod ground;
mod store;
