//! Every limit and timeout of an environment, named, with its default.

use std::time::Duration;

use aloha_transport::TransportConfig;

use crate::codec::Codec;

/// The limits and timeouts of an [`RpcEnv`](crate::RpcEnv).
#[derive(Debug, Clone)]
pub struct RpcConfig {
    /// How long an ask waits for its reply unless it says otherwise. Default 60 s.
    pub ask_timeout: Duration,
    /// How long the look-up of an endpoint may take. Default 10 s.
    pub lookup_timeout: Duration,
    /// How many local, and how many remote messages may wait for one endpoint. Default 65,536 each.
    pub inbox_messages_max: usize,
    /// How many bytes of local, and how many of remote messages may wait for one endpoint. Default 64 MiB each. A local
    /// message counts the size of its type unless [`EndpointBuilder::weight`](crate::EndpointBuilder::weight) says
    /// otherwise.
    pub inbox_bytes_max: usize,
    /// Whether messages carry a trace and handlers run in a span: see [`TraceContext`](crate::TraceContext). Default no.
    pub trace: bool,
    /// How messages are encoded. Default [`Codec::Bincode`].
    pub codec: Codec,
    /// The limits of connections.
    pub transport: TransportConfig,
}

impl RpcConfig {
    /// What a time-out of an ask is called in configuration files.
    pub const ASK_TIMEOUT_KEY: &'static str = "aloha.rpc.askTimeout";
    /// What a time-out of a look-up is called in configuration files.
    pub const LOOKUP_TIMEOUT_KEY: &'static str = "aloha.rpc.lookupTimeout";
    /// What the limit of an inbox is called in configuration files.
    pub const INBOX_MESSAGES_MAX_KEY: &'static str = "aloha.rpc.inbox.messagesMax";
    /// What the other limit of an inbox is called in configuration files.
    pub const INBOX_BYTES_MAX_KEY: &'static str = "aloha.rpc.inbox.bytesMax";
    /// What the limit of a message that leaves its environment is called in configuration files.
    pub const MESSAGE_BYTES_MAX_KEY: &'static str = "aloha.rpc.message.maxSize";
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            ask_timeout: Duration::from_secs(60),
            lookup_timeout: Duration::from_secs(10),
            inbox_messages_max: 65_536,
            inbox_bytes_max: 64 << 20,
            trace: false,
            codec: Codec::default(),
            transport: TransportConfig::default(),
        }
    }
}
