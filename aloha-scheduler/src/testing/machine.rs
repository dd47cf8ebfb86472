//! A machine of a simulation, on which a worker starts applications: they outlive the worker, and die with the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aloha_rpc::Runtime;
use async_trait::async_trait;
use tokio::sync::watch;

use super::app::SimApp;
use super::board::Board;
use super::coordinator::Disk;
use super::ledger::{Ledger, Run};
use crate::attempt::Outcome;
use crate::worker::{
    AdoptError, Adopted, LaunchError, LaunchSpec, Launcher, RunningApp, Signal, SignalError,
};

/// How long a runner waits for a worker where nobody says otherwise, before it asks its application to end.
const ALONE_MAX: Duration = Duration::from_secs(600);
/// Between a launch and the process.
const START_MILLIS_MAX: u64 = 200;

/// A machine. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: String,
    runtime: Arc<dyn Runtime>,
    ledger: Ledger,
    disk: Disk,
    /// What was launched last of each application, as its runner wrote it down.
    records: Mutex<BTreeMap<String, Record>>,
    /// Whether a worker is there, for the runners.
    has_worker: Board<bool>,
    /// How often the machine has died.
    deaths: Board<u64>,
}

#[derive(Debug, Clone)]
struct Record {
    spec: LaunchSpec,
    is_reported: bool,
    attempt: Attempt,
}

/// An attempt under its runner.
#[derive(Debug, Clone)]
struct Attempt {
    app_id: String,
    attempt: u32,
    asked: Arc<watch::Sender<Asked>>,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// What was asked of an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    #[default]
    Nothing,
    Stop,
    Kill,
}

impl Machine {
    /// A machine on which nothing runs. `disk` is what the masters store, for the ledger.
    #[must_use]
    pub fn new(host: &str, runtime: Arc<dyn Runtime>, ledger: &Ledger, disk: &Disk) -> Self {
        Self {
            inner: Arc::new(Inner {
                host: host.to_owned(),
                runtime,
                ledger: ledger.clone(),
                disk: disk.clone(),
                records: Mutex::default(),
                has_worker: Board::new(false),
                deaths: Board::new(0),
            }),
        }
    }

    /// Says whether a worker is there. Where none is, runners wait for one, and in the end for nobody.
    pub fn set_worker(&self, is_there: bool) {
        self.inner.has_worker.set(is_there);
    }

    /// Whether a worker is there.
    #[must_use]
    pub fn has_worker(&self) -> bool {
        self.inner.has_worker.get()
    }

    /// Ends all that runs there at once. A later worker finds that it was lost.
    pub fn die(&self) {
        self.inner.deaths.modify(|deaths| *deaths += 1);
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        let records = self.inner.records.lock();
        records.unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self, spec: &LaunchSpec) -> Result<Attempt, LaunchError> {
        let app_id = spec.app_id.clone();
        let mut records = self.records();
        if let Some(before) = records.get(&app_id) {
            if before.spec.attempt >= spec.attempt {
                return Err(LaunchError::StaleAttempt {
                    app_id,
                    attempt: spec.attempt,
                    seen: before.spec.attempt,
                });
            }
            if before.attempt.outcome.borrow().is_none() {
                return Err(LaunchError::StillRunning { app_id });
            }
        }
        let (ended, outcome) = watch::channel(None);
        let attempt = Attempt {
            app_id: app_id.clone(),
            attempt: spec.attempt,
            asked: Arc::default(),
            outcome,
        };
        let record = Record {
            spec: spec.clone(),
            is_reported: false,
            attempt: attempt.clone(),
        };
        records.insert(app_id, record);
        drop(records);
        let launch = self.inner.ledger.launch();
        let runner = self
            .clone()
            .run(launch, spec.clone(), attempt.clone(), ended);
        self.inner.runtime.spawn(Box::pin(runner));
        Ok(attempt)
    }

    /// What a runner does.
    async fn run(
        self,
        launch: u64,
        spec: LaunchSpec,
        attempt: Attempt,
        ended: watch::Sender<Option<Outcome>>,
    ) {
        let inner = &self.inner;
        let alive = inner.deaths.get();
        let dies = || inner.deaths.wait_for(move |deaths| *deaths != alive);
        let start = Duration::from_millis(inner.runtime.random_u64() % START_MILLIS_MAX);
        let asked = attempt.asked.subscribe();
        let mut asked_early = asked.clone();
        let outcome = tokio::select! {
            biased;
            _ = dies() => lost("its machine died"),
            () = asked_to(&mut asked_early, Asked::Stop) => Outcome::Killed,
            () = tokio::time::sleep(start) => {
                let app = SimApp::of(&spec.description);
                let place = inner.ledger.begin(Run {
                    app: spec.app_id.parse().expect("minted by a master"),
                    name: spec.description.name.clone(),
                    attempt: spec.attempt,
                    is_supervised: spec.description.supervise,
                    host: inner.host.clone(),
                    launch,
                    began: inner.runtime.now(),
                    batches: inner.disk.count(),
                    ended: None,
                });
                let alone_max = spec.alone_max.unwrap_or(ALONE_MAX);
                let outcome = tokio::select! {
                    biased;
                    _ = dies() => lost("its machine died"),
                    outcome = live(app, asked, alone_max, self.alone(alone_max)) => outcome,
                };
                let now = inner.runtime.now();
                inner.ledger.end(place, now, outcome.clone());
                outcome
            }
        };
        ended.send_replace(Some(outcome));
    }

    /// Waits until no worker was there for so long.
    async fn alone(&self, max: Duration) {
        let has_worker = &self.inner.has_worker;
        loop {
            has_worker.wait_for(|is_there| !is_there).await;
            let back = has_worker.wait_for(|is_there| *is_there);
            if tokio::time::timeout(max, back).await.is_err() {
                return;
            }
        }
    }
}

fn lost(reason: &str) -> Outcome {
    Outcome::Lost(reason.to_owned())
}

/// The life of a process, whose runner asks it to end once it was `alone`, and insists after as long again.
async fn live(
    app: SimApp,
    asked: watch::Receiver<Asked>,
    alone_max: Duration,
    alone: impl Future<Output = ()>,
) -> Outcome {
    let work = tokio::time::sleep(app.work);
    tokio::pin!(work, alone);
    let (mut stopped, mut killed) = (asked.clone(), asked);
    let is_alone = tokio::select! {
        biased;
        () = &mut work => return Outcome::Exited(app.exit_code),
        () = asked_to(&mut stopped, Asked::Stop) => false,
        () = &mut alone => true,
    };
    let insist = async {
        if is_alone {
            return tokio::time::sleep(alone_max).await;
        }
        asked_to(&mut killed, Asked::Kill).await;
    };
    let signal = tokio::select! {
        biased;
        () = &mut work => return Outcome::Exited(app.exit_code),
        () = insist => 9,
        () = tokio::time::sleep(app.stops_within.unwrap_or(Duration::MAX)) => 15,
    };
    if is_alone {
        return lost("its worker was gone for too long");
    }
    Outcome::Signaled(signal)
}

/// Waits until so much or more was asked; the sender lives as long as the attempt.
async fn asked_to(asked: &mut watch::Receiver<Asked>, what: Asked) {
    drop(asked.wait_for(|it| *it >= what).await);
}

#[async_trait]
impl Launcher for Machine {
    async fn start(&self, spec: LaunchSpec) -> Result<Box<dyn RunningApp>, LaunchError> {
        let attempt = self.launch(&spec)?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(Box::new(attempt))
    }

    async fn left_behind(&self, work_directory: &Path) -> io::Result<Vec<PathBuf>> {
        let records = self.records();
        Ok(records.keys().map(|app| work_directory.join(app)).collect())
    }

    async fn adopt(&self, app_directory: &Path, _: &str) -> Result<Adopted, AdoptError> {
        let name = app_directory.file_name().and_then(|name| name.to_str());
        let Some(record) = name.and_then(|name| self.records().get(name).cloned()) else {
            return Ok(Adopted::Nothing);
        };
        let spec = record.spec;
        let outcome = record.attempt.outcome.borrow().clone();
        Ok(match outcome {
            None => Adopted::Running {
                spec,
                app: Box::new(record.attempt),
            },
            Some(outcome) => Adopted::Ended {
                spec,
                outcome,
                reported: record.is_reported,
            },
        })
    }

    async fn end_strays(
        &self,
        _: &Path,
        _: &str,
        _: &BTreeSet<(String, u32)>,
    ) -> io::Result<Vec<(String, u32)>> {
        Ok(Vec::new())
    }

    async fn settle(&self, app_directory: &Path, attempt: u32) -> io::Result<()> {
        let name = app_directory.file_name().and_then(|name| name.to_str());
        let mut records = self.records();
        let record = name.and_then(|name| records.get_mut(name));
        if let Some(record) = record.filter(|record| record.spec.attempt == attempt) {
            record.is_reported = true;
        }
        Ok(())
    }
}

#[async_trait]
impl RunningApp for Attempt {
    fn app_id(&self) -> &str {
        &self.app_id
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }

    async fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        let asked = match signal {
            Signal::Stop(_) => Asked::Stop,
            Signal::Kill(_) => Asked::Kill,
        };
        self.asked
            .send_modify(|before| *before = asked.max(*before));
        Ok(())
    }

    async fn wait(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("waited for"),
            Err(_) => lost("its runner is gone"),
        }
    }
}
