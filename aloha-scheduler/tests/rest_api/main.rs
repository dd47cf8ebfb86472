//! Aloha's own REST API, over real connections to real masters.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/decided.rs"]
mod decided;

mod api;
mod applications;
mod document;
mod idempotency;
mod lists;
mod standby;
mod waiting;
