//! The masters of a cluster, of which one leads: remembers which, and asks again where that is safe.
//!
//! ```text
//!                 remembered?  no     .---- search: all at once, each until it leads ----.
//!   question ---------------------->  |  standby: it says who leads once it hears it     |
//!      ^         yes |                |  unreachable, silent: a pause, again             |
//!      |             v                '--------------------------------------------------'
//!      |            ask <----------------------------------' the first that leads
//!      |             | no answer for a while: a search among the others, for as long as there is none
//!      '-------------'
//!        not taken, or safe to repeat
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aloha_rpc::{AskError, RpcAddress, RpcCallContext, RpcEndpointRef, RpcEnv};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::candidate::Candidate;
use super::error::{ClientError, TriedMaster};
use super::repeat::{Next, Repeat};
use super::search::Search;
use super::waiting::Waiting;
use crate::jitter;
use crate::messages::MasterMessage;

/// How long a question may go unanswered before the client listens at the other masters whether one of them leads; and
/// how much time there is between two times that it begins to.
const LISTEN_AFTER: Duration = Duration::from_secs(1);
/// The pause before the same is asked once more; it doubles up to the longest.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long it looks once more at those that do not lead, before it says what came of each.
const LAST_LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// A patience without end, which the clock can still count to.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The masters of a cluster.
#[derive(Debug)]
pub(super) struct Masters {
    env: RpcEnv,
    search: Search,
    /// The one that led last.
    leader: Mutex<Option<Arc<Candidate>>>,
    /// Whether one ever led. Before that, a cluster that is not there is not waited for.
    has_led: AtomicBool,
    /// One search at a time: who needs the leader meanwhile waits for what it finds.
    searching: AsyncMutex<()>,
    waiting: Waiting,
    /// One listens at the other masters for all that wait for an answer; and when the last one began to.
    listening: AsyncMutex<Option<Instant>>,
}

/// Why an ask ended without an answer.
enum Ended {
    Failed(AskError),
    /// Another leads; the one that was asked has not answered.
    Moved,
}

impl Masters {
    pub(super) fn new(env: &RpcEnv, addresses: &[RpcAddress]) -> Self {
        Self {
            env: env.clone(),
            search: Search::new(env, addresses),
            leader: Mutex::new(None),
            has_led: AtomicBool::new(false),
            searching: AsyncMutex::default(),
            waiting: Waiting::default(),
            listening: AsyncMutex::default(),
        }
    }

    /// What came of each when it was last looked at.
    pub(super) fn tried(&self) -> Vec<TriedMaster> {
        self.search.tried()
    }

    /// What comes of each when it is looked at now, for so long at the most.
    pub(super) async fn look_at_all(&self, patience: Duration) -> Vec<TriedMaster> {
        self.search.look_at_all(patience).await;
        self.tried()
    }

    /// Waits until a master leads.
    pub(super) async fn find(&self, patience: Duration) -> Result<(), ClientError> {
        match self.leader_by(self.end_of(patience)).await {
            Some(_) => Ok(()),
            None => Err(ClientError::NoMaster {
                tried: self.tried(),
            }),
        }
    }

    /// Tells once of each time without a leader that lasts `after` how much longer anybody waits for one, unless that
    /// is less.
    pub(super) async fn tell_of_waits(
        &self,
        after: Duration,
        tell: impl FnMut(Duration),
    ) -> Infallible {
        self.waiting.tell(after, tell).await
    }

    fn end_of(&self, patience: Duration) -> Instant {
        let now = self.env.runtime().now();
        now.checked_add(patience).unwrap_or(now + FOR_EVER)
    }

    /// Puts a question to the master that leads, once or more often.
    ///
    /// Cancel safe: dropped, it withdraws what it asked.
    pub(super) async fn ask<R: DeserializeOwned>(
        &self,
        repeat: Repeat,
        patience: Duration,
        open_for: Duration,
        question: impl Fn(RpcCallContext<R>) -> MasterMessage,
    ) -> Result<R, Failed> {
        let give_up_at = self.end_of(patience);
        let mut pause = PAUSE;
        let mut last = None;
        // Whether a master may have taken it.
        let mut in_doubt = false;
        loop {
            let (leader, master) = match (self.leader_by(give_up_at).await, last.take()) {
                (Some(found), _) => found,
                // What came of the question says more than that nobody is there now.
                (None, Some(error)) if in_doubt => return Err(Failed::Unknown(error)),
                (None, _) => return Err(Failed::NoMaster),
            };
            let asked = super::put(&master, open_for, &question);
            let error = match self.accompany(asked, &leader, repeat).await {
                Ok(answer) => return Ok(answer),
                Err(Ended::Moved) => {
                    in_doubt = true;
                    let endpoint = master.uri();
                    last = Some(AskError::Cancelled { endpoint });
                    continue;
                }
                Err(Ended::Failed(error)) => error,
            };
            in_doubt |= Repeat::Unsafe.after(&error) == Next::Unknown;
            match repeat.after(&error) {
                Next::Later => {}
                Next::Elsewhere => self.forget(&leader, &error),
                Next::GiveUp => return Err(Failed::with(error, in_doubt)),
                Next::Unknown => {
                    self.forget(&leader, &error);
                    return Err(Failed::Unknown(error));
                }
            }
            if timeout_at(give_up_at, self.pause(pause)).await.is_err() {
                return Err(Failed::with(error, in_doubt));
            }
            pause = (pause * 2).min(PAUSE_MAX);
            last = Some(error);
        }
    }

    /// Pauses for half of it or more: callers that were turned away together shall not come back together.
    async fn pause(&self, nominal: Duration) {
        let seed = self.env.runtime().random_u64();
        sleep(jitter::shorten(nominal, 0.5, seed)).await;
    }

    /// The [leader](Self::leader), unless there is none by then. What came of each master is known anew if not.
    async fn leader_by(
        &self,
        give_up_at: Instant,
    ) -> Option<(Arc<Candidate>, RpcEndpointRef<MasterMessage>)> {
        let found = {
            let _waiter = match self.remembered() {
                Some(_) => None,
                None => Some(self.waiting.begin(self.env.runtime().now(), give_up_at)),
            };
            timeout_at(give_up_at, self.leader()).await
        };
        if found.is_err() {
            // A standby was looked at only before it was listened to.
            self.search.look_at_all(LAST_LOOK_PATIENCE).await;
        }
        found.ok().flatten()
    }

    /// The master that leads: the one remembered, else the first that is found to. `None` where no cluster is there.
    /// Cancel safe.
    async fn leader(&self) -> Option<(Arc<Candidate>, RpcEndpointRef<MasterMessage>)> {
        loop {
            if let Some(leader) = self.remembered()
                && let Some(master) = leader.endpoint().cloned()
            {
                return Some((leader, master));
            }
            let _searching = self.searching.lock().await;
            if self.remembered().is_none() {
                let has_led = self.has_led.load(Ordering::Relaxed);
                let found = self.search.run(has_led, None).await?;
                self.remember(found);
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Arc<Candidate>>> {
        // Nobody panics while holding it.
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> Option<Arc<Candidate>> {
        self.last().clone()
    }

    fn remember(&self, leader: Arc<Candidate>) {
        self.has_led.store(true, Ordering::Relaxed);
        *self.last() = Some(leader);
    }

    /// That master leads no more, or cannot be asked. Another that was found since is kept.
    fn forget(&self, leader: &Arc<Candidate>, why: &AskError) {
        leader.note(why.clone().into());
        let mut last = self.last();
        if last.as_ref().is_some_and(|last| Arc::ptr_eq(last, leader)) {
            *last = None;
        }
    }

    /// Waits for an answer; where it is long in coming, hears of another master that leads by now: one that is cut off
    /// says nothing for a long time.
    async fn accompany<R>(
        &self,
        asked: impl Future<Output = Result<R, AskError>>,
        leader: &Arc<Candidate>,
        repeat: Repeat,
    ) -> Result<R, Ended> {
        if repeat == Repeat::Unsafe || self.search.count() < 2 {
            return asked.await.map_err(Ended::Failed);
        }
        let mut asked = pin!(asked);
        tokio::select! {
            biased;
            answer = &mut asked => answer.map_err(Ended::Failed),
            true = self.another_leads(leader) => Err(Ended::Moved),
        }
    }

    /// Waits until another master than this one is known to lead; false where there is none to ask.
    async fn another_leads(&self, leader: &Arc<Candidate>) -> bool {
        sleep(LISTEN_AFTER).await;
        let mut began = self.listening.lock().await;
        if let Some(began) = *began {
            // Who waits for the same has just stopped listening.
            sleep_until(began + LISTEN_AFTER).await;
        }
        if self
            .remembered()
            .is_some_and(|last| !Arc::ptr_eq(&last, leader))
        {
            return true;
        }
        *began = Some(self.env.runtime().now());
        match self.search.run(true, Some(leader)).await {
            Some(found) => {
                leader.note(self.search.outdated());
                self.remember(found);
                true
            }
            None => false,
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    NoMaster,
    /// It was not done.
    Unanswered(AskError),
    /// It may have been done.
    Unknown(AskError),
}

impl Failed {
    fn with(error: AskError, in_doubt: bool) -> Self {
        if in_doubt {
            Self::Unknown(error)
        } else {
            Self::Unanswered(error)
        }
    }

    /// Of a question: whether it was heard does not matter.
    pub(super) fn of_question(self, tried: Vec<TriedMaster>) -> ClientError {
        match self {
            Self::NoMaster => ClientError::NoMaster { tried },
            Self::Unanswered(reason) | Self::Unknown(reason) => {
                ClientError::Unanswered { reason, tried }
            }
        }
    }

    /// Of a submission under this name, and this key if it has one.
    pub(super) fn of_submission(
        self,
        name: &str,
        key: Option<String>,
        tried: Vec<TriedMaster>,
    ) -> ClientError {
        match self {
            Self::NoMaster | Self::Unanswered(_) => self.of_question(tried),
            Self::Unknown(reason) => ClientError::OutcomeUnknown {
                name: name.to_owned(),
                key,
                reason,
                tried,
            },
        }
    }
}
