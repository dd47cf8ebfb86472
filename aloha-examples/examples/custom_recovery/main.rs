//! A master whose state and election are a user's own: a file for each record, and a lock.
//!
//! ```text
//! cargo run -p aloha-examples --example custom_recovery -- DIRECTORY
//! ```
//!
//! Each run leads once the one before has ended, says what it found, and submits one more application.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod files;
mod lock_file;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use aloha_rpc::RpcEnv;
use aloha_scheduler::config::Config;
use aloha_scheduler::{AppDescription, Master, RecoveryMode, RecoveryModes};
use files::Files;
use lock_file::LockFile;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args()
        .nth(1)
        .ok_or("usage: custom_recovery DIRECTORY")?;
    // As somebody would have it in a properties file.
    let config = Config::builder()
        .overrides([
            "aloha.deploy.recoveryMode=CUSTOM",
            "aloha.deploy.recoveryMode.factory=files",
            &format!("aloha.deploy.recoveryDirectory={directory}"),
        ])
        .load()?;
    let modes = RecoveryModes::new().with("files", |settings| {
        let store = Files::open(&settings.directory)?;
        let path: PathBuf = settings.directory.join("leader.lock");
        Ok(RecoveryMode {
            persistence: Some(Arc::new(store)),
            election: Arc::new(LockFile { path }),
        })
    });

    let env = RpcEnv::builder("master")
        .bind("127.0.0.1:0")
        .start()
        .await?;
    let master = Master::builder(&env)
        .recovery_mode(modes.build(&config.master().recovery)?)
        .start()?;
    for app in master.client().apps().await? {
        println!("found {} {}", app.id, app.phase);
    }
    let description = AppDescription {
        name: "greeting".to_owned(),
        entry_point: "SimpleProcess".to_owned(),
        args: vec!["echo Aloha".to_owned()],
        cores: 1,
        memory_mib: 64,
        ..AppDescription::default()
    };
    let app = master.client().submit(description).await?.accepted()?;
    println!("submitted {app}");
    env.shutdown().await;
    Ok(())
}
