//! A front desk passes a call on to a specialist in another environment, and the answer finds the asker.
//!
//! The desk keeps nothing and waits for nothing: the asker's deadline and its cancel go along with the call.
//!
//! `cargo run -p aloha-examples --example forward` prints
//!
//! ```text
//! the desk passes 6 * 7 on
//! the specialist has time left, no more than 5 s: true
//! the answer is 42
//! the asker gives up
//! the specialist stops pondering
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{
    EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Both understand the same questions.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Product(u32, u32, RpcCallContext<u32>),
    Riddle(RpcCallContext<u32>),
}

struct Desk {
    specialist: RpcEndpointRef<Question>,
}

impl RpcEndpoint for Desk {
    type Message = Question;

    async fn receive_and_reply(
        &mut self,
        question: Question,
        _: &EndpointContext<Question>,
    ) -> Result<(), EndpointError> {
        if let Question::Product(one, two, _) = &question {
            println!("the desk passes {one} * {two} on");
        }
        // Were the specialist gone, the asker would get a failure at once.
        Ok(self.specialist.forward(question)?)
    }
}

struct Specialist {
    pondering: Arc<Notify>,
    given_up: Arc<Notify>,
}

impl RpcEndpoint for Specialist {
    type Message = Question;

    async fn receive_and_reply(
        &mut self,
        question: Question,
        ctx: &EndpointContext<Question>,
    ) -> Result<(), EndpointError> {
        match question {
            Question::Product(one, two, call) => {
                let left = call.time_left(ctx.env().runtime().now());
                let in_time = left.is_some_and(|left| left <= Duration::from_secs(5));
                println!("the specialist has time left, no more than 5 s: {in_time}");
                call.reply(one * two);
            }
            Question::Riddle(call) => {
                self.pondering.notify_one();
                let given_up = Arc::clone(&self.given_up);
                ctx.spawn(async move {
                    call.cancelled().await;
                    println!("the specialist stops pondering");
                    given_up.notify_one();
                });
            }
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (pondering, given_up) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let back_office = RpcEnv::builder("back").bind("127.0.0.1:0").start().await?;
    let specialist = Specialist {
        pondering: Arc::clone(&pondering),
        given_up: Arc::clone(&given_up),
    };
    back_office.setup_endpoint("specialist", specialist)?;

    let front_office = RpcEnv::builder("front").bind("127.0.0.1:0").start().await?;
    let address = back_office.address().expect("it listens");
    let specialist = front_office.retrieve_endpoint_ref(address, "specialist");
    let specialist = specialist.await?;
    front_office.setup_endpoint("desk", Desk { specialist })?;

    // The asker knows the desk alone.
    let asker = RpcEnv::client("asker").await?;
    let address = front_office.address().expect("it listens");
    let desk: RpcEndpointRef<Question> = asker.retrieve_endpoint_ref(address, "desk").await?;
    let product = desk.ask_for(Duration::from_secs(5), |call| Question::Product(6, 7, call));
    println!("the answer is {}", product.await?);

    let riddle = desk.ask(Question::Riddle);
    pondering.notified().await;
    println!("the asker gives up");
    drop(riddle);
    given_up.notified().await;

    for env in [asker, front_office, back_office] {
        env.shutdown().await;
    }
    Ok(())
}
