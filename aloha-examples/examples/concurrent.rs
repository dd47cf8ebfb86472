//! One message at a time, four at once, and a thread of its own for what blocks.
//!
//! `cargo run -p aloha-examples --example concurrent` prints, the times more or less,
//!
//! ```text
//! 8 pages one at a time: at most 1 under way, 412 ms
//! 8 pages four at once: at most 4 under way, 104 ms
//! meanwhile the others answer: page 9
//! the sum was made on thread "ledger"
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aloha_rpc::{
    AskError, ConcurrentEndpoint, EndpointContext, EndpointError, RpcCallContext, RpcEndpoint,
    RpcEndpointRef, RpcEnv,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Fetch {
    Page(u32, RpcCallContext<String>),
    MostUnderWay(RpcCallContext<u32>),
}

/// Waits for something else most of its time. State that handlers share is behind atomics or locks.
#[derive(Default)]
struct Fetcher {
    under_way: AtomicU32,
    most: AtomicU32,
}

impl Fetcher {
    async fn answer(&self, message: Fetch) {
        match message {
            Fetch::Page(page, call) => {
                let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
                self.most.fetch_max(under_way, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.under_way.fetch_sub(1, Ordering::Relaxed);
                call.reply(format!("page {page}"));
            }
            Fetch::MostUnderWay(call) => call.reply(self.most.load(Ordering::Relaxed)),
        }
    }
}

impl ConcurrentEndpoint for Fetcher {
    type Message = Fetch;

    async fn receive(
        &self,
        message: Fetch,
        _: &EndpointContext<Fetch>,
    ) -> Result<(), EndpointError> {
        self.answer(message).await;
        Ok(())
    }
}

/// Set up as this, it handles one message at a time.
impl RpcEndpoint for Fetcher {
    type Message = Fetch;

    async fn receive(
        &mut self,
        message: Fetch,
        _: &EndpointContext<Fetch>,
    ) -> Result<(), EndpointError> {
        self.answer(message).await;
        Ok(())
    }
}

/// Its handler blocks its thread, which is nobody else's.
struct Ledger;

#[derive(Debug, Serialize, Deserialize)]
enum ToLedger {
    Sum(RpcCallContext<Option<String>>),
}

impl RpcEndpoint for Ledger {
    type Message = ToLedger;

    async fn receive(
        &mut self,
        ToLedger::Sum(call): ToLedger,
        _: &EndpointContext<ToLedger>,
    ) -> Result<(), EndpointError> {
        std::thread::sleep(Duration::from_millis(200));
        call.reply(std::thread::current().name().map(str::to_owned));
        Ok(())
    }
}

async fn fetch_eight(
    how: &str,
    fetcher: &RpcEndpointRef<Fetch>,
    env: &RpcEnv,
) -> Result<(), AskError> {
    let began = env.runtime().now();
    let asks: Vec<_> = (1..=8)
        .map(|page| fetcher.ask(|call| Fetch::Page(page, call)))
        .collect();
    for ask in asks {
        ask.await?;
    }
    let took = env.runtime().now() - began;
    let most = fetcher.ask(Fetch::MostUnderWay).await?;
    println!(
        "8 pages {how}: at most {most} under way, {} ms",
        took.as_millis()
    );
    Ok(())
}

// One thread for all but the ledger.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env = RpcEnv::client("library").await?;
    let one_by_one = env.setup_endpoint("one-by-one", Fetcher::default())?;
    fetch_eight("one at a time", &one_by_one, &env).await?;
    let at_once = env
        .endpoint("at-once")
        .setup_concurrent(4, Fetcher::default())?;
    fetch_eight("four at once", &at_once, &env).await?;

    let ledger = env.endpoint("ledger").own_thread().setup(Ledger)?;
    let sum = ledger.ask(ToLedger::Sum);
    let page = at_once.ask(|call| Fetch::Page(9, call)).await?;
    println!("meanwhile the others answer: {page}");
    println!(
        "the sum was made on thread {:?}",
        sum.await?.unwrap_or_default()
    );

    env.shutdown().await;
    Ok(())
}
