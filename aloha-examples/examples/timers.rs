//! An endpoint sends messages to itself, later and again and again, and takes that back.
//!
//! Timers end with the endpoint, and with a restart.
//!
//! `cargo run -p aloha-examples --example timers` prints
//!
//! ```text
//! beat 1
//! beat 2
//! beat 3
//! the heart rests
//! its end: it was stopped
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Duration;

use aloha_rpc::{EndpointContext, EndpointError, RpcEndpoint, RpcEnv, TimerKey};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum ToHeart {
    Beat,
    Alarm,
    Stop,
}

#[derive(Default)]
struct Heart {
    beats: u32,
    heartbeat: Option<TimerKey>,
    alarm: Option<TimerKey>,
}

impl RpcEndpoint for Heart {
    type Message = ToHeart;

    async fn on_start(&mut self, ctx: &EndpointContext<ToHeart>) -> Result<(), EndpointError> {
        let period = Duration::from_millis(20);
        self.heartbeat = Some(ctx.send_every(period, || ToHeart::Beat));
        self.alarm = Some(ctx.send_after(Duration::from_secs(60), ToHeart::Alarm));
        Ok(())
    }

    async fn receive(
        &mut self,
        message: ToHeart,
        ctx: &EndpointContext<ToHeart>,
    ) -> Result<(), EndpointError> {
        match message {
            ToHeart::Beat => {
                self.beats += 1;
                println!("beat {}", self.beats);
                // A beat is a sign of life: the alarm is put off.
                if let Some(alarm) = self.alarm.take() {
                    ctx.cancel_timer(alarm);
                }
                if self.beats < 3 {
                    let patience = Duration::from_secs(60);
                    self.alarm = Some(ctx.send_after(patience, ToHeart::Alarm));
                } else if let Some(heartbeat) = self.heartbeat.take() {
                    ctx.cancel_timer(heartbeat);
                    ctx.send_after(Duration::from_millis(100), ToHeart::Stop);
                }
            }
            ToHeart::Alarm => println!("no beat for a minute"),
            ToHeart::Stop => {
                println!("the heart rests");
                ctx.stop();
            }
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env = RpcEnv::client("body").await?;
    let heart = env.setup_endpoint("heart", Heart::default())?;
    println!("its end: {}", env.watch(&heart).await.reason);
    env.shutdown().await;
    Ok(())
}
