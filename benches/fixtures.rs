//! What the benches share: the message, the endpoint, and how figures are gathered.

use std::time::Duration;

use aloha_rpc::{EndpointContext, EndpointError, RpcCallContext, RpcConfig, RpcEndpoint};
use serde::{Deserialize, Serialize};

/// A message with a text of 32 bytes, allocated for each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Load {
    /// Counted.
    Note(String),
    /// Answered with the same text.
    Echo(String, RpcCallContext<String>),
    /// Answered with the number of notes.
    Count(RpcCallContext<u64>),
}

/// Counts notes and echoes texts.
#[derive(Debug, Default)]
pub struct Counter(u64);

impl RpcEndpoint for Counter {
    type Message = Load;

    async fn receive(
        &mut self,
        message: Load,
        _: &EndpointContext<Load>,
    ) -> Result<(), EndpointError> {
        match message {
            Load::Note(text) => self.0 += u64::from(text.len() == 32),
            Load::Echo(text, call) => call.reply(text),
            Load::Count(call) => call.reply(self.0),
        }
        Ok(())
    }
}

/// A new text of 32 bytes.
#[must_use]
pub fn text() -> String {
    "x".repeat(32)
}

/// The usual limits, but room for a whole workload: the benches measure speed, not refusals.
#[must_use]
pub fn config() -> RpcConfig {
    let mut config = RpcConfig {
        inbox_messages_max: 2_000_000,
        ..RpcConfig::default()
    };
    config.transport.outbound_bytes_max = 1 << 30;
    config
}

/// How a workload's rounds went, in operations a second.
#[derive(Debug, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds a round.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn add(&mut self, operations: u64, took: Duration) {
        self.0.push(operations as f64 / took.as_secs_f64());
    }

    /// Median, minimum and maximum in thousands a second.
    #[must_use]
    pub fn summary(&self) -> [f64; 3] {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN) / 1e3;
        [
            at(sorted.len() / 2),
            at(0),
            at(sorted.len().saturating_sub(1)),
        ]
    }
}
