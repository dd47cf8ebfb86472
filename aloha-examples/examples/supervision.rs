//! A worker that panics is made anew by its factory, what waits for it is kept, and its end is heard of elsewhere.
//!
//! The second panic within a minute is one too many for its policy.
//!
//! `cargo run -p aloha-examples --example supervision` prints, apart from the panics on stderr,
//!
//! ```text
//! worker 1 starts
//! worker 1 has done 1 job
//! worker 2 starts
//! worker 2 has done 2 jobs, which waited meanwhile
//! watched from afar: it failed: this job is poison
//! asked in vain: endpoint aloha://worker@127.0.0.1:40000 is stopped
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Duration;

use aloha_rpc::{
    EndpointContext, EndpointError, RestartPolicy, RpcCallContext, RpcEndpoint, RpcEndpointRef,
    RpcEnv,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Good,
    Poison,
    Report(RpcCallContext<(u32, u32)>),
}

struct Worker {
    number: u32,
    done: u32,
}

impl RpcEndpoint for Worker {
    type Message = Job;

    async fn on_start(&mut self, _: &EndpointContext<Job>) -> Result<(), EndpointError> {
        println!("worker {} starts", self.number);
        Ok(())
    }

    async fn receive(&mut self, job: Job, _: &EndpointContext<Job>) -> Result<(), EndpointError> {
        match job {
            Job::Good => self.done += 1,
            Job::Poison => panic!("this job is poison"),
            Job::Report(call) => call.reply((self.number, self.done)),
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
    let policy = RestartPolicy {
        restarts_max: 1,
        backoff_min: Duration::from_millis(100),
        ..RestartPolicy::default()
    };
    let mut made = 0;
    server.endpoint("worker").setup_with(policy, move || {
        made += 1;
        Worker {
            number: made,
            done: 0,
        }
    })?;

    let client = RpcEnv::client("client").await?;
    let address = server.address().expect("it listens");
    let worker: RpcEndpointRef<Job> = client.retrieve_endpoint_ref(address, "worker").await?;
    let watch = client.watch(&worker);

    worker.send(Job::Good)?;
    let (number, done) = worker.ask(Job::Report).await?;
    println!("worker {number} has done {done} job");

    // The poison is lost, and the count with the worker that kept it; the two jobs behind are not.
    worker.send(Job::Poison)?;
    worker.send(Job::Good)?;
    worker.send(Job::Good)?;
    let (number, done) = worker.ask(Job::Report).await?;
    println!("worker {number} has done {done} jobs, which waited meanwhile");

    worker.send(Job::Poison)?;
    let waits = worker.ask(Job::Report);
    println!("watched from afar: {}", watch.await.reason);
    if let Err(error) = waits.await {
        println!("asked in vain: {error}");
    }

    client.shutdown().await;
    server.shutdown().await;
    Ok(())
}
