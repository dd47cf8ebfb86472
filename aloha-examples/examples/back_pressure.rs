//! Every queue has a bound, and who sends too fast is refused, waits, or displaces the oldest, as you like.
//!
//! The press takes its time for each page. `send` never waits and says when there is no room; `reserve` waits for room;
//! on the screen, where the latest counts, the oldest line makes room. Over the wire a sender has credit: a megabyte to
//! begin with, then what the inbox may hold.
//!
//! `cargo run -p aloha-examples --example back_pressure` prints
//!
//! ```text
//! the press took 4 pages, then: the inbox of aloha://press@127.0.0.1:40000 is full: it takes 4 messages, ...
//! 50 more pages with reserve: at most 4 waited
//! the screen shows 98 to 100; 97 lines are dead letters: newer messages took its place
//! over the wire the press took 128 pages, then: aloha://press@127.0.0.1:40000 takes no more messages for now; ...
//! 50 more pages with reserve: at most 2 waited
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Duration;

use aloha_rpc::{
    EndpointContext, EndpointError, Overflow, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
    SendError,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Print {
    Page(Vec<u8>),
    Line(u32),
    Lines(RpcCallContext<Vec<u32>>),
}

#[derive(Default)]
struct Printer {
    lines: Vec<u32>,
}

impl RpcEndpoint for Printer {
    type Message = Print;

    async fn receive(
        &mut self,
        message: Print,
        _: &EndpointContext<Print>,
    ) -> Result<(), EndpointError> {
        match message {
            Print::Page(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            Print::Line(line) => self.lines.push(line),
            Print::Lines(call) => call.reply(self.lines.clone()),
        }
        Ok(())
    }
}

const PAGE_BYTES: usize = 8 << 10;

/// Sends pages until one is refused; says how many were taken, and why no more.
fn fill(press: &RpcEndpointRef<Print>) -> (usize, SendError) {
    let refused = (0..).find_map(|taken| {
        let refused = press.send(Print::Page(vec![0; PAGE_BYTES])).err()?;
        Some((taken, refused))
    });
    refused.expect("no queue is without a bound")
}

/// Sends pages, each when there is room; says how many waited at most.
async fn send_patiently(
    press: &RpcEndpointRef<Print>,
    pages: usize,
    at: &RpcEnv,
) -> Result<usize, SendError> {
    let mut most = 0;
    for _ in 0..pages {
        let place = press.reserve().await?;
        place.send(Print::Page(vec![0; PAGE_BYTES]))?;
        let snapshot = at.snapshot();
        let press = snapshot
            .endpoints
            .iter()
            .find(|known| &*known.name == "press");
        most = most.max(press.map_or(0, |press| press.waiting));
    }
    Ok(most)
}

// One thread: nothing is handled while this function does not wait, so that the numbers are the same each time.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = RpcEnv::builder("server")
        .bind("127.0.0.1:0")
        .start()
        .await?;
    let press = server
        .endpoint("press")
        .messages_max(4)
        .bytes_max(4 * PAGE_BYTES);
    let press = press.setup(Printer::default())?;
    let (taken, refused) = fill(&press);
    assert!(refused.is_overload(), "room will come");
    println!("the press took {taken} pages, then: {refused}");
    let most = send_patiently(&press, 50, &server).await?;
    println!("50 more pages with reserve: at most {most} waited");

    let screen = server.endpoint("screen").messages_max(4);
    let screen = screen
        .overflow(Overflow::DropOldest)
        .setup(Printer::default())?;
    let mut letters = server.observe_dead_letters();
    for line in 1..=100 {
        screen.send(Print::Line(line))?;
    }
    let letter = letters.next().await.expect("lines were displaced");
    // The question takes a place as well.
    let lines = screen.ask(Print::Lines).await?;
    println!(
        "the screen shows {} to {}; {} lines are dead letters: {}",
        lines.first().expect("the latest stay"),
        lines.last().expect("the latest stay"),
        server.dead_letters(),
        letter.reason
    );

    let client = RpcEnv::client("client").await?;
    let address = server.address().expect("it listens");
    let press: RpcEndpointRef<Print> = client.retrieve_endpoint_ref(address, "press").await?;
    let (taken, refused) = fill(&press);
    println!("over the wire the press took {taken} pages, then: {refused}");
    // The first waits until the credit of the beginning is used up.
    send_patiently(&press, 1, &server).await?;
    let most = send_patiently(&press, 50, &server).await?;
    println!("50 more pages with reserve: at most {most} waited");

    client.shutdown().await;
    server.shutdown().await;
    Ok(())
}
