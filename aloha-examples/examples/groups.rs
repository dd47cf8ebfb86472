//! Several endpoints behind one name, and a topic that goes to all who want it, in two environments.
//!
//! `cargo run -p aloha-examples --example groups` prints, the last two lines in any order,
//!
//! ```text
//! in turn: ["one", "two", "one", "two"]
//! all of them: ["one", "two"]
//! broadcast, refused by 0
//! ticks: [1, 1]
//! one reads: sunny
//! two reads: sunny
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use aloha_rpc::{
    AskError, EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Debug, Serialize, Deserialize)]
enum Work {
    Who(RpcCallContext<String>),
    Tick,
    Ticks(RpcCallContext<u32>),
    News(String),
}

struct Member {
    ticks: u32,
    read: mpsc::Sender<()>,
}

impl RpcEndpoint for Member {
    type Message = Work;

    async fn receive(
        &mut self,
        message: Work,
        ctx: &EndpointContext<Work>,
    ) -> Result<(), EndpointError> {
        let name = ctx.self_ref().name();
        match message {
            Work::Who(call) => call.reply(name.to_owned()),
            Work::Tick => self.ticks += 1,
            Work::Ticks(call) => call.reply(self.ticks),
            Work::News(text) => {
                println!("{name} reads: {text}");
                self.read.send(()).await?;
            }
        }
        Ok(())
    }
}

/// The answers of asks that are under way together.
async fn all<R: serde::de::DeserializeOwned>(
    asks: Vec<aloha_rpc::Ask<R>>,
) -> Result<Vec<R>, AskError> {
    let mut answers = Vec::new();
    for ask in asks {
        answers.push(ask.await?);
    }
    Ok(answers)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = RpcEnv::builder("here").bind("127.0.0.1:0").start().await?;
    let there = RpcEnv::builder("there").bind("127.0.0.1:0").start().await?;
    let (read, mut readers) = mpsc::channel(2);
    let member = || Member {
        ticks: 0,
        read: read.clone(),
    };
    let one = here.setup_endpoint("one", member())?;
    let two = there.setup_endpoint("two", member())?;

    let group = here.setup_group::<Work>("workers")?;
    let address = there.address().expect("it listens");
    let remote_two: RpcEndpointRef<Work> = here.retrieve_endpoint_ref(address, "two").await?;
    group.join(&one);
    group.join(&remote_two);

    // Others know the group by its name, as if it were one endpoint.
    let address = here.address().expect("it listens");
    let workers: RpcEndpointRef<Work> = there.retrieve_endpoint_ref(address, "workers").await?;
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(workers.ask(Work::Who).await?);
    }
    println!("in turn: {names:?}");
    println!("all of them: {:?}", all(group.ask_all(Work::Who)).await?);
    println!(
        "broadcast, refused by {}",
        group.broadcast(|| Work::Tick).len()
    );
    println!("ticks: {:?}", all(group.ask_all(Work::Ticks)).await?);

    // A publication becomes a message of the subscriber's own type.
    let weather = here.setup_topic::<String>("weather")?;
    weather.subscribe_as(&one, Work::News).await?;
    let weather_there = there.retrieve_topic::<String>(address, "weather").await?;
    weather_there.subscribe_as(&two, Work::News).await?;
    weather.publish("sunny".to_owned())?;
    for _ in 0..2 {
        readers.recv().await;
    }

    there.shutdown().await;
    here.shutdown().await;
    Ok(())
}
