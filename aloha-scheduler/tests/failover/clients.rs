//! Clients that submit whatever happens, and what they were told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aloha_rpc::RpcAddress;
use aloha_scheduler::{AppDescription, AppId, MasterClient};
use tokio::task::{JoinHandle, JoinSet};

use crate::cluster::{Cluster, connect};
use crate::common::moments::Moments;

const CLIENTS: u64 = 4;
/// How long a client waits for the end of an application before it does something else.
const WAIT: Duration = Duration::from_secs(5);

/// A submission that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) app: AppId,
    /// What its runs write beside their id, so that one submission that became two applications is seen.
    pub(crate) token: String,
    pub(crate) is_supervised: bool,
    /// Whether somebody asked to end it.
    pub(crate) is_killed: bool,
}

/// What clients were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// Submissions without a key and without an answer: they may run, but not twice.
    pub(crate) unanswered: u32,
}

/// Clients at work.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU32>,
    running: Vec<JoinHandle<Told>>,
}

impl Clients {
    pub(crate) fn start(cluster: &Cluster, seed: u64, journal: &Path) -> Self {
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let running = (0..CLIENTS).map(|place| {
            let client = Submitter {
                name: format!("{seed}-{place}"),
                moments: Moments(seed.wrapping_mul(1000).wrapping_add(place)),
                journal: journal.to_owned(),
                masters: cluster.addresses(),
                stop: Arc::clone(&stop),
                count: Arc::clone(&count),
                told: Told::default(),
                beside: JoinSet::new(),
            };
            cluster.runtime.spawn(client.run())
        });
        Self {
            running: running.collect(),
            stop,
            count,
        }
    }

    /// How many submissions were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Has them stop, and gathers what they know.
    pub(crate) fn stop(self, cluster: &Cluster) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for client in self.running {
            let told = cluster.runtime.block_on(client).expect("it does not panic");
            all.acknowledged.extend(told.acknowledged);
            all.unanswered += told.unanswered;
        }
        all
    }
}

/// An application that notes its beginning and its end.
pub(crate) fn description(
    journal: &Path,
    token: &str,
    millis: u64,
    is_supervised: bool,
) -> AppDescription {
    let (journal, seconds) = (
        journal.display(),
        Duration::from_millis(millis).as_secs_f64(),
    );
    // The second attempt of a supervised one ends well.
    let end = if is_supervised {
        "[ $ALOHA_ATTEMPT -ge 2 ]"
    } else {
        "true"
    };
    let script = format!(
        "note() {{ echo $1 {token} $ALOHA_APP_ID $ALOHA_ATTEMPT $$ $EPOCHREALTIME >> {journal}; }}; \
         note start; sleep {seconds}; note end; {end}"
    );
    AppDescription {
        name: token.to_owned(),
        entry_point: "SimpleProcess".into(),
        args: vec![script],
        cores: 1,
        memory_mib: 16,
        supervise: is_supervised,
        ..AppDescription::default()
    }
}

struct Submitter {
    name: String,
    moments: Moments,
    journal: PathBuf,
    masters: Vec<RpcAddress>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU32>,
    told: Told,
    /// What goes on while it submits more.
    beside: JoinSet<()>,
}

impl Submitter {
    async fn run(mut self) -> Told {
        let mut number = 0;
        while !self.is_over() {
            let Ok(client) = connect(self.masters.clone()).await else {
                continue; // nobody leads for a moment
            };
            // As one that comes anew, now and then.
            for _ in 0..20 {
                if self.is_over() {
                    break;
                }
                number += 1;
                self.submit(&client, number).await;
                let pause = Duration::from_millis(200 + self.moments.below(400));
                tokio::time::sleep(pause).await;
            }
        }
        while self.beside.join_next().await.is_some() {}
        self.told
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn submit(&mut self, client: &MasterClient, number: u64) {
        let token = format!("{}-{number}", self.name);
        let millis = match self.moments.below(10) {
            0..7 => 10 + self.moments.below(490),
            _ => 1000 + self.moments.below(2000),
        };
        let is_supervised = self.moments.below(8) == 0;
        let has_key = self.moments.below(4) > 0;
        let description = description(&self.journal, &token, millis, is_supervised);
        let app = loop {
            let answer = match has_key {
                true => client.submit_once(description.clone(), &token).await,
                false => client.submit(description.clone()).await,
            };
            match answer.map(aloha_scheduler::SubmitAnswer::accepted) {
                Ok(Ok(app)) => break app,
                // What has a key is asked until there is an answer.
                _ if has_key => {}
                _ => {
                    self.told.unanswered += 1;
                    return;
                }
            }
        };
        self.count.fetch_add(1, Ordering::Relaxed);
        let is_killed = self.moments.below(12) == 0;
        self.told.acknowledged.push(Acknowledged {
            app: app.clone(),
            token,
            is_supervised,
            is_killed,
        });
        if is_killed {
            let pause = Duration::from_millis(self.moments.below(1000));
            let client = client.clone();
            self.beside.spawn(async move {
                tokio::time::sleep(pause).await;
                // Without an answer it may run to its end.
                let _ = client.kill(app).await;
            });
        } else if self.moments.below(6) == 0 {
            let client = client.clone();
            self.beside.spawn(async move {
                // It may take longer than anybody waits.
                let _ = tokio::time::timeout(WAIT, client.wait(&app)).await;
            });
        }
    }
}
