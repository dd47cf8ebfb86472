//! References travel inside messages: to whoever shall call back, and further.
//!
//! Ann's environment does not listen. The registry, to which she handed her reference, reaches her over the
//! connection that she made. Bob finds her there; for him the registry's environment relays.
//!
//! `cargo run -p aloha-examples --example refs_in_messages` prints
//!
//! ```text
//! ann listens at None
//! ann is told: welcome, ann
//! ann is told: bob was here
//! ann answers bob: hello, bob
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::collections::BTreeMap;

use aloha_rpc::{
    EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum ToPerson {
    Tell(String),
    Greet(String, RpcCallContext<String>),
}

#[derive(Debug, Serialize, Deserialize)]
enum ToRegistry {
    Register(String, RpcEndpointRef<ToPerson>),
    Find(String, RpcCallContext<Option<RpcEndpointRef<ToPerson>>>),
}

struct Person;

impl RpcEndpoint for Person {
    type Message = ToPerson;

    async fn receive(
        &mut self,
        message: ToPerson,
        ctx: &EndpointContext<ToPerson>,
    ) -> Result<(), EndpointError> {
        match message {
            ToPerson::Tell(text) => println!("{} is told: {text}", ctx.self_ref().name()),
            ToPerson::Greet(name, call) => call.reply(format!("hello, {name}")),
        }
        Ok(())
    }
}

#[derive(Default)]
struct Registry {
    known: BTreeMap<String, RpcEndpointRef<ToPerson>>,
}

impl RpcEndpoint for Registry {
    type Message = ToRegistry;

    async fn receive(
        &mut self,
        message: ToRegistry,
        _: &EndpointContext<ToRegistry>,
    ) -> Result<(), EndpointError> {
        match message {
            ToRegistry::Register(name, person) => {
                person.send(ToPerson::Tell(format!("welcome, {name}")))?;
                self.known.insert(name, person);
            }
            ToRegistry::Find(name, call) => call.reply(self.known.get(&name).cloned()),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = RpcEnv::builder("server")
        .bind("127.0.0.1:0")
        .start()
        .await?;
    server.setup_endpoint("registry", Registry::default())?;
    let address = server.address().expect("it listens");

    let anns = RpcEnv::client("ann").await?;
    let ann = anns.setup_endpoint("ann", Person)?;
    println!("ann listens at {:?}", ann.address());
    let registry = anns.retrieve_endpoint_ref(address, "registry").await?;
    registry.send(ToRegistry::Register("ann".into(), ann))?;
    // Answered behind the registration, which came by the same way.
    registry
        .ask(|call| ToRegistry::Find("ann".into(), call))
        .await?;

    let bobs = RpcEnv::client("bob").await?;
    let registry: RpcEndpointRef<ToRegistry> =
        bobs.retrieve_endpoint_ref(address, "registry").await?;
    let found = registry.ask(|call| ToRegistry::Find("ann".into(), call));
    let ann = found.await?.expect("she is registered");
    ann.send(ToPerson::Tell("bob was here".into()))?;
    let answer = ann.ask(|call| ToPerson::Greet("bob".into(), call)).await?;
    println!("ann answers bob: {answer}");

    for env in [bobs, anns, server] {
        env.shutdown().await;
    }
    Ok(())
}
