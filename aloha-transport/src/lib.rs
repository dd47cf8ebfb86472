//! A framed TCP transport: bytes in, bytes out, requests matched to their replies.
//!
//! One connection carries requests in both directions. Callers append whole frames to its one write queue; a
//! writer task swaps the queue for an empty one and writes it at once. A reader task cuts every whole frame
//! out of each read, completes all replies among them under one lock, and hands the rest to the
//! [`RequestHandler`] of the connection.
//!
//! ```text
//!   TransportClientFactory ──address──► TransportClient ─┐ frames   ┌─ RequestHandler ◄── RpcHandler
//!                                                        ▼          ▲
//!   caller ──► write queue ──swap──► writer ═══ TCP ═══ reader ─────┤
//!                                                                   ▼
//!   ResponseFuture ◄──────────────────────────── TransportResponseHandler
//! ```
//!
//! **One answer for every request.** Each request id that was sent is answered by exactly one
//! response or failure frame, also when the asker gave up or the handler dropped the request, and it is used
//! again only after that answer; if the connection ends first, the asker is told so.
//!
//! **A life that is looked after.** A peer that vanished or stands still is found by ping, and all that waits for it
//! fails with the reason. A close is agreed on: both ends say goodbye behind what they had queued, answers still go,
//! and the connection that takes its place overtakes nothing.
//!
//! **Large messages hold nobody up.** Above 256 KiB they leave in parts, between which everything passes that is
//! not of the same [flow](Charge). What is longer than a frame, or of unknown length, follows a request or a reply as a
//! [stream](BodyStream), in bounded memory at either end.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use aloha_transport::{RpcHandler, RpcResponseCallback, TransportClient, TransportContext};
//! use bytes::Bytes;
//!
//! /// Answers each request with its own bytes.
//! #[derive(Debug)]
//! struct Echo;
//!
//! impl RpcHandler for Echo {
//!     fn receive(&self, _client: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
//!         callback.on_success(&message);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let context = TransportContext::new("echo", Echo);
//! let server = context.create_server("127.0.0.1:0").await?;
//! let client = context.create_client_factory().create_client(server.address()).await?;
//! let reply = client.send_rpc(b"hello", Duration::from_secs(5)).await?;
//! assert_eq!(reply, "hello");
//! # server.stop().await;
//! # Ok(())
//! # }
//! ```

mod back_off;
mod body_stream;
mod client;
mod client_factory;
mod config;
mod connecting;
mod connection;
mod context;
mod credit;
mod error;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod handshakes;
mod incoming;
mod keeper;
mod message;
mod rare;
mod reply;
mod request_handler;
mod response_handler;
mod runtime;
mod server;
mod stream;
mod streams;
#[cfg(feature = "testing")]
pub mod testing;
mod transfer;
#[cfg_attr(not(unix), path = "no_unix.rs")]
mod unix;
mod write_queue;

pub use body_stream::{BodyStream, StreamResponseFuture};
pub use client::{Body, ResponseFuture, TransportClient};
pub use client_factory::TransportClientFactory;
pub use config::TransportConfig;
pub use connection::ConnectionStatistics;
pub use context::TransportContext;
pub use credit::{Charge, FLOWS_MAX, INITIAL_CREDIT_BYTES, INITIAL_CREDIT_MESSAGES};
pub use error::{
    BindError, CloseReason, ConfigError, ConnectError, Failure, FailureCode, LimitOf, RequestError,
    SendError,
};
pub use frame::{FrameError, LENGTH_BYTES, cut_frame, whole_frame};
pub use handshake::{
    HANDSHAKE_BYTES_MAX, HandshakeError, Hello, PROTOCOL_VERSION, Refusal, RefusalCode,
};
pub use message::{Message, MessageError, RequestId};
pub use reply::Reply;
pub use request_handler::{
    Incoming, PendingRequest, RequestHandler, RpcHandler, RpcResponseCallback,
};
pub use runtime::{Runtime, TokioRuntime};
pub use server::TransportServer;
pub use stream::{Listener, Network, Stream, Tcp};
pub use streams::STREAMS_MAX;
