//! Clients that submit, kill and wait while things go wrong, and note what they were told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_scheduler::testing::{Disk, Promise, SimApp};
use aloha_scheduler::{AppId, ClientError, MasterClient, SubmitAnswer};
use tokio::task::JoinHandle;

use crate::plan::Dice;

/// How many applications each client submits.
const APPS: u64 = 10;
/// How long what a client is told after a failure may still be nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// What clients were told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    promises: Arc<Mutex<Vec<Promise>>>,
    unknown: Arc<Mutex<Vec<String>>>,
}

impl Notes {
    fn promise(&self, promise: Promise) {
        self.promises.lock().expect("no panic").push(promise);
    }

    pub(crate) fn promises(&self) -> Vec<Promise> {
        self.promises.lock().expect("no panic").clone()
    }

    pub(crate) fn unknown(&self) -> usize {
        self.unknown.lock().expect("no panic").len()
    }
}

/// Submits, one after the other, until all are acknowledged, refused, or of unknown outcome; waits for the end of each.
pub(crate) async fn busy_client(
    client: MasterClient,
    name: String,
    mut dice: Dice,
    disk: Disk,
    notes: Notes,
) {
    let mut waits: Vec<JoinHandle<()>> = Vec::new();
    for number in 0..APPS {
        tokio::time::sleep(dice.millis(0, 10_000)).await;
        let name = format!("{name}-{number}");
        let Some(app) = submit(&client, &name, &mut dice, &disk, &notes).await else {
            continue;
        };
        let (client, notes, disk) = (client.clone(), notes.clone(), disk.clone());
        let kill_after = (dice.below(5) == 0).then(|| dice.millis(0, 20_000));
        waits.push(tokio::spawn(async move {
            if let Some(after) = kill_after {
                tokio::time::sleep(after).await;
                kill(&client, &app, &disk, &notes).await;
            }
            while client.wait(&app).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }));
    }
    for wait in waits {
        wait.await.expect("no panic");
    }
}

/// The application, if it was accepted.
async fn submit(
    client: &MasterClient,
    name: &str,
    dice: &mut Dice,
    disk: &Disk,
    notes: &Notes,
) -> Option<AppId> {
    let supervise = dice.below(2) == 0;
    let app = SimApp {
        work: match dice.below(4) {
            0 => dice.millis(100, 2_000),
            1 => dice.millis(2_000, 20_000),
            _ => dice.millis(20_000, 50_000),
        },
        // A supervised one that fails is run again for ever.
        exit_code: i32::from(!supervise && dice.below(3) == 0) * 3,
        stops_within: (dice.below(4) > 0).then(|| dice.millis(0, 3_000)),
    };
    let mut description = app.description(name);
    description.supervise = supervise;
    let key = (dice.below(2) == 0).then(|| format!("key-{name}"));
    loop {
        let answer = match &key {
            Some(key) => client.submit_once(description.clone(), key).await,
            None => client.submit(description.clone()).await,
        };
        match answer {
            Ok(SubmitAnswer::Accepted { app }) => {
                notes.promise(Promise::Accepted {
                    app: app.clone(),
                    name: name.to_owned(),
                    batches: disk.count(),
                });
                return Some(app);
            }
            // Nothing was taken: some try again, some leave it at that.
            Ok(SubmitAnswer::Busy { .. }) if key.is_none() && dice.below(2) == 0 => {
                notes.promise(Promise::Refused {
                    name: name.to_owned(),
                });
                return None;
            }
            Ok(SubmitAnswer::Busy { .. }) => {}
            Ok(answer) => panic!("{name}: {answer:?}"),
            Err(ClientError::NoMaster { .. }) => {}
            Err(_) if key.is_some() => {}
            Err(_) => {
                notes
                    .unknown
                    .lock()
                    .expect("no panic")
                    .push(name.to_owned());
                return None;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn kill(client: &MasterClient, app: &AppId, disk: &Disk, notes: &Notes) {
    notes.promise(Promise::KillAsked { app: app.clone() });
    loop {
        match client.kill(app.clone()).await {
            Ok(answer) => {
                // With a store in trouble a kill is done all the same, and the answer says what it is worth.
                if answer.success && !answer.message.contains("is not stored") {
                    notes.promise(Promise::Killed {
                        app: app.clone(),
                        batches: disk.count(),
                    });
                }
                return;
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
