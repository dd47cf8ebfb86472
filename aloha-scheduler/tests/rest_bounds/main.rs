//! What many, slow and malicious clients can do to the REST server: nothing that others notice.
//!
//! The bounds belong to the server, whatever it serves: a few routes of the test's own stand behind most of them.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod crowd;
mod files;
mod long;
mod requests;
mod routes;
mod server;
mod strangers;
