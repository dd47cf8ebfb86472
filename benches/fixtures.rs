//! What the benches share: the message, the endpoint, and how figures are gathered.

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{
    EndpointContext, EndpointError, RpcCallContext, RpcConfig, RpcEndpoint, RpcEndpointRef,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};

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

/// Does nothing but start and end, and can tell of both.
#[derive(Debug)]
pub struct Idle {
    started: Option<Arc<Semaphore>>,
    /// Closed when the last endpoint has ended.
    _alive: Option<mpsc::Sender<()>>,
}

impl Idle {
    /// Adds a permit when it starts.
    #[must_use]
    pub fn telling_start(started: Arc<Semaphore>) -> Self {
        Self {
            started: Some(started),
            _alive: None,
        }
    }

    /// Keeps a sender until it has ended.
    #[must_use]
    pub fn telling_end(alive: mpsc::Sender<()>) -> Self {
        Self {
            started: None,
            _alive: Some(alive),
        }
    }
}

impl RpcEndpoint for Idle {
    type Message = Load;

    async fn on_start(&mut self, _: &EndpointContext<Load>) -> Result<(), EndpointError> {
        if let Some(started) = &self.started {
            started.add_permits(1);
        }
        Ok(())
    }
}

/// What goes round a [`Node`]'s ring.
#[derive(Debug, Serialize, Deserialize)]
pub enum Token {
    /// Who comes next.
    Next(RpcEndpointRef<Self>),
    /// The token, how often it is still to be passed on, and a text of 32 bytes.
    Pass(u64, String),
}

/// A place in a ring: passes the token on, each time with a new text.
#[derive(Debug)]
pub struct Node {
    next: Option<RpcEndpointRef<Token>>,
    home: Arc<Notify>,
}

impl Node {
    /// Notifies `home` when the token is not to be passed on any more.
    #[must_use]
    pub fn new(home: Arc<Notify>) -> Self {
        Self { next: None, home }
    }
}

impl RpcEndpoint for Node {
    type Message = Token;

    async fn receive(
        &mut self,
        message: Token,
        _: &EndpointContext<Token>,
    ) -> Result<(), EndpointError> {
        match message {
            Token::Next(next) => self.next = Some(next),
            Token::Pass(0, _) => self.home.notify_one(),
            Token::Pass(left, _) => {
                let next = self.next.as_ref().expect("the ring is closed first");
                next.send(Token::Pass(left - 1, text())).expect("room");
            }
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
        inbox_bytes_max: 1 << 30,
        ..RpcConfig::default()
    };
    config.transport.outbound_bytes_max = 1 << 30;
    config
}

/// Thousands of operations a second.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn rate(operations: u64, took: Duration) -> f64 {
    operations as f64 / took.as_secs_f64() / 1e3
}

/// The figures of a workload's rounds.
#[derive(Debug, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds a round.
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Median, minimum and maximum.
    #[must_use]
    pub fn summary(&self) -> [f64; 3] {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        [
            at(sorted.len() / 2),
            at(0),
            at(sorted.len().saturating_sub(1)),
        ]
    }
}
