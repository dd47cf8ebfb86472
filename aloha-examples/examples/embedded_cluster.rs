//! A master and a worker inside a program of your own: it submits an application and listens for its end.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::process::ExitCode;
use std::sync::Arc;

use aloha_rpc::RpcEnv;
use aloha_scheduler::runner::{self, RunnerSettings};
use aloha_scheduler::worker::RunnerLauncher;
use aloha_scheduler::{AlohaEvent, AppDescription, Master, Resources, Worker};

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
    let master_env = RpcEnv::builder("master")
        .bind("127.0.0.1:0")
        .start()
        .await?;
    let master = Master::start(&master_env, Master::default_settings(&master_env))?;
    let mut events = master.events();

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
        std::env::temp_dir().join(format!("aloha-embedded-{}", std::process::id()));
    let launcher = Arc::new(RunnerLauncher::new(RunnerSettings::default()).await?);
    let mut worker = Worker::start(&worker_env, settings, work_directory.clone(), launcher)?;

    let description = AppDescription {
        name: "greeting".to_owned(),
        entry_point: "SimpleProcess".to_owned(),
        args: vec!["echo Aloha from $ALOHA_APP_ID".to_owned()],
        cores: 1,
        memory_mib: 128,
        ..AppDescription::default()
    };
    let app = master.client().submit(description).await?.accepted()?;
    println!("submitted {app}");

    loop {
        let AlohaEvent::AppStateChanged { id, to, .. } = events.recv().await? else {
            continue;
        };
        println!("{id} is {to}");
        if to.is_final() {
            break;
        }
    }
    print!(
        "{}",
        std::fs::read_to_string(work_directory.join(app.as_str()).join("stdout"))?
    );

    worker.stop(true);
    worker.ended().await;
    worker_env.shutdown().await;
    master_env.shutdown().await;
    std::fs::remove_dir_all(work_directory)?;
    Ok(())
}
