//! A listener of one's own inside a program's own cluster: it prints a line of JSON for each application that ends.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::process::ExitCode;
use std::sync::Arc;

use aloha_rpc::RpcEnv;
use aloha_scheduler::listeners::{AlohaEventListener, ListenerSettings, Listeners};
use aloha_scheduler::runner::{self, RunnerSettings};
use aloha_scheduler::worker::RunnerLauncher;
use aloha_scheduler::{
    AppDescription, AppPhase, AppStatus, Master, Resources, SubmitAnswer, Worker,
};
use serde::Serialize;

/// What is told of an end.
#[derive(Serialize)]
struct End<'a> {
    name: &'a str,
    state: AppPhase,
    exit_code: Option<i32>,
    attempts: u32,
}

/// Called from a thread of its own, one event after another: it may take its time, and keeps what it likes.
struct Ends {
    seen: u32,
}

impl AlohaEventListener for Ends {
    fn on_app_state_changed(&mut self, _from: Option<AppPhase>, status: &AppStatus) {
        if !status.phase.is_final() {
            return;
        }
        self.seen += 1;
        let end = End {
            name: &status.name,
            state: status.phase,
            exit_code: status.exit_code,
            attempts: status.attempt,
        };
        let json = serde_json::to_string(&end).expect("texts and numbers are always JSON");
        println!("{}: {json}", self.seen);
    }
}

fn main() -> ExitCode {
    // The worker executes this program again, once for each application.
    if let Some(code) = runner::run_if_asked(std::env::args_os()) {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<(), Box<dyn std::error::Error>> {
    // Or `.with("ends", || Ends { seen: 0 })`: it then listens where `aloha.extraListeners` names it.
    let listeners = Listeners::new().add("ends", Ends { seen: 0 });
    let events = listeners.start(&ListenerSettings::default())?;

    let master_env = RpcEnv::builder("master")
        .bind("127.0.0.1:0")
        .start()
        .await?;
    let settings = Master::default_settings(&master_env);
    let master = Master::builder(&master_env)
        .settings(settings)
        .events(events)
        .start()?;

    let worker_env = RpcEnv::builder("worker")
        .bind("127.0.0.1:0")
        .start()
        .await?;
    let offers = Resources {
        cores: 2,
        memory_mib: 1024,
    };
    let masters = vec![master_env.address().expect("it listens").to_string()];
    let settings = Worker::default_settings(&worker_env, offers, masters);
    let work_directory =
        std::env::temp_dir().join(format!("aloha-listener-{}", std::process::id()));
    let launcher = Arc::new(RunnerLauncher::new(RunnerSettings::default()).await?);
    let mut worker = Worker::start(&worker_env, settings, work_directory.clone(), launcher)?;

    for (name, script) in [("good", "true"), ("bad", "exit 3")] {
        let description = AppDescription {
            name: name.to_owned(),
            entry_point: "SimpleProcess".to_owned(),
            args: vec![script.to_owned()],
            cores: 1,
            memory_mib: 128,
            ..AppDescription::default()
        };
        let SubmitAnswer::Accepted { app } = master.client().submit(description).await? else {
            return Err("it was refused".into());
        };
        master.client().wait(&app).await?;
    }
    // Until the listener is done with all that happened.
    master.event_bus().drained().await;
    for listener in master.event_bus().statistics() {
        println!("{} heard all: {}", listener.name, listener.dropped == 0);
    }

    worker.stop(true);
    worker.ended().await;
    worker_env.shutdown().await;
    master_env.shutdown().await;
    std::fs::remove_dir_all(work_directory)?;
    Ok(())
}
