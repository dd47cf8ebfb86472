//! A master that may lead: looked at again and again, and listened to while it is a standby.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aloha_rpc::{AskError, RpcAddress, RpcEndpointRef, RpcEnv};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::error::MasterOutcome;
use super::masters::{PAUSE, PAUSE_MAX};
use crate::jitter;
use crate::messages::{LeaderAnswer, MASTER, MasterMessage};

/// How long a master may take to say whether it leads. Nobody waits for one that is cut off: all are looked at at once.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a standby is asked to wait for news of who leads, before it is asked again.
const NEWS_PATIENCE: Duration = Duration::from_secs(30);

/// The highest epoch that any of them was found to lead in: one with a lower one has not noticed yet.
pub(super) type NewestEpoch = Arc<AtomicU64>;

/// A master that may lead.
#[derive(Debug)]
pub(super) struct Candidate {
    env: RpcEnv,
    address: RpcAddress,
    /// Once a master was found there.
    endpoint: OnceLock<RpcEndpointRef<MasterMessage>>,
    seen: Mutex<Seen>,
    newest: NewestEpoch,
    /// Somebody said that it leads.
    named: Notify,
}

#[derive(Debug)]
struct Seen {
    outcome: MasterOutcome,
    /// What it calls itself, once it led: it may be reached by another address.
    name: Option<String>,
}

/// What comes of looking at one.
#[derive(Debug)]
pub(super) enum News {
    /// Whether it leads. If so, it is not looked at any more.
    Looked(Arc<Candidate>, bool),
    /// This is the one that leads, as it heard.
    Named(String),
}

impl Candidate {
    pub(super) fn new(env: &RpcEnv, address: RpcAddress, newest: &NewestEpoch) -> Arc<Self> {
        Arc::new(Self {
            env: env.clone(),
            address,
            endpoint: OnceLock::new(),
            seen: Mutex::new(Seen {
                outcome: MasterOutcome::Unheard,
                name: None,
            }),
            newest: Arc::clone(newest),
            named: Notify::new(),
        })
    }

    pub(super) fn address(&self) -> &RpcAddress {
        &self.address
    }

    /// The master, if one was found there.
    pub(super) fn endpoint(&self) -> Option<&RpcEndpointRef<MasterMessage>> {
        self.endpoint.get()
    }

    /// What it calls itself, as far as that is known.
    pub(super) fn name(&self) -> String {
        let name = self.seen().name.clone();
        name.unwrap_or_else(|| self.address.to_string())
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.seen().name.as_deref() == Some(name) || self.address.to_string() == name
    }

    pub(super) fn outcome(&self) -> MasterOutcome {
        self.seen().outcome.clone()
    }

    pub(super) fn note(&self, outcome: MasterOutcome) {
        self.seen().outcome = outcome;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it looked at without a pause.
    pub(super) fn was_named(&self) {
        self.named.notify_waiters();
    }

    /// Tells after each look whether it leads, until it does. As a standby it is asked for news of who leads `besides`
    /// that one, and what it says is told too.
    pub(super) async fn look_until_it_leads(
        self: Arc<Self>,
        besides: Option<String>,
        heard: mpsc::Sender<News>,
    ) {
        let mut pause = PAUSE;
        // Whether it was looked at because it said that it leads.
        let mut came_to_lead = false;
        loop {
            let outcome = self.look().await;
            let leads = matches!(outcome, MasterOutcome::Leads);
            let stands_by = matches!(outcome, MasterOutcome::Standby { .. });
            self.note(outcome);
            let news = News::Looked(Arc::clone(&self), leads);
            if heard.send(news).await.is_err() || leads {
                return;
            }
            let before = came_to_lead;
            came_to_lead = stands_by && self.listen(besides.as_ref(), &heard).await;
            if came_to_lead && !before {
                pause = PAUSE;
                continue;
            }
            tokio::select! {
                biased;
                () = self.named.notified() => {}
                () = self.pause(pause) => pause = (pause * 2).min(PAUSE_MAX),
            }
        }
    }

    /// Looks at it once, and notes what comes of that.
    pub(super) async fn look_once(&self) {
        let outcome = self.look().await;
        self.note(outcome);
    }

    /// Pauses for half of it or more: clients that lost the same leader shall not come together.
    async fn pause(&self, nominal: Duration) {
        let seed = self.env.runtime().random_u64();
        sleep(jitter::shorten(nominal, 0.5, seed)).await;
    }

    /// Asks it what only a leader answers.
    async fn look(&self) -> MasterOutcome {
        let endpoint = match self.endpoint.get() {
            Some(endpoint) => endpoint,
            None => match self.env.retrieve_endpoint_ref(&self.address, MASTER).await {
                Ok(endpoint) => self.endpoint.get_or_init(|| endpoint),
                Err(error) => return error.into(),
            },
        };
        let question = |call| MasterMessage::Cluster { call };
        let cluster = match endpoint.ask_for(LOOK_TIMEOUT, question).await {
            Ok(cluster) => cluster,
            Err(error) => return error.into(),
        };
        self.seen().name = Some(cluster.master).filter(|name| address_of(name).is_some());
        let before = self.newest.fetch_max(cluster.epoch, Ordering::Relaxed);
        if cluster.epoch < before {
            return MasterOutcome::Outdated { epoch: before };
        }
        MasterOutcome::Leads
    }

    /// Hears from a standby who leads, until that is the standby itself; says whether it is. False too where it does
    /// not know the question, being of an earlier version, or is gone.
    async fn listen(&self, besides: Option<&String>, heard: &mpsc::Sender<News>) -> bool {
        let Some(endpoint) = self.endpoint.get() else {
            return false;
        };
        let mut pause = PAUSE;
        let mut known = besides.cloned();
        loop {
            let question = |call| MasterMessage::AwaitLeader {
                besides: known.clone(),
                patience_millis: u64::try_from(NEWS_PATIENCE.as_millis()).expect("half a minute"),
                call,
            };
            let answer = endpoint.ask_for(NEWS_PATIENCE + LOOK_TIMEOUT, question);
            match answer.await {
                Ok(LeaderAnswer { epoch: 1.., .. }) => return true,
                Ok(LeaderAnswer {
                    leader: Some(leader),
                    ..
                }) => {
                    pause = PAUSE;
                    known = Some(leader.rpc.clone());
                    if heard.send(News::Named(leader.rpc)).await.is_err() {
                        return false;
                    }
                }
                Ok(LeaderAnswer { leader: None, .. }) => {
                    // A master that has no room for more who wait says so at once.
                    self.pause(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    known = besides.cloned();
                }
                Err(AskError::Undecodable { .. }) => return false,
                Err(error) => {
                    self.note(error.into());
                    return false;
                }
            }
        }
    }
}

/// The address that a master calls itself by, if others can reach it there: one that listens everywhere may not say where
/// that is.
pub(super) fn address_of(name: &str) -> Option<RpcAddress> {
    let address: RpcAddress = name.parse().ok()?;
    let host = address.host().trim_matches(['[', ']']);
    let is_nowhere = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    (!is_nowhere).then_some(address)
}
