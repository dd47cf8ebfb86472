//! The masters of a cluster, of which one leads: remembers which, and asks again where that is safe.
//!
//! ```text
//!                 remembered?  no     .---- search: all at once, each until it leads ----.
//!   question ---------------------->  |  standby, unreachable, silent: a pause, again    |
//!      ^         yes |                '--------------------------------------------------'
//!      |             v                                     | the first that leads
//!      |            ask <----------------------------------'
//!      |             | no answer for a while: another leads by now?
//!      '-------------'
//!        not taken, or safe to repeat
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aloha_rpc::{AskError, RpcAddress, RpcCallContext, RpcEndpointRef, RpcEnv};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{ClientError, TriedMaster};
use super::repeat::{Next, Repeat};
use super::search::Search;
use crate::jitter;
use crate::messages::MasterMessage;

/// No master is remembered.
const NONE: usize = usize::MAX;
/// How long a question may go unanswered before the client looks whether another leads by now; it doubles up to the
/// longest.
const LOOK_AROUND_AFTER: Duration = Duration::from_secs(2);
const LOOK_AROUND_AFTER_MAX: Duration = Duration::from_secs(20);
/// The pause before the same is asked once more; it doubles up to the longest.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A patience without end, which the clock can still count to.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The masters of a cluster.
#[derive(Debug)]
pub(super) struct Masters {
    env: RpcEnv,
    search: Search,
    /// The place of the one that led last.
    leader: AtomicUsize,
    /// Whether one ever led. Before that, a cluster that is not there is not waited for.
    has_led: AtomicBool,
    /// One search at a time: who needs the leader meanwhile waits for what it finds. And when the last one ended.
    searching: Mutex<Option<Instant>>,
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
            leader: AtomicUsize::new(NONE),
            has_led: AtomicBool::new(false),
            searching: Mutex::new(None),
        }
    }

    /// What came of each when it was last looked at.
    pub(super) fn tried(&self) -> Vec<TriedMaster> {
        self.search.tried()
    }

    /// Waits until a master leads.
    pub(super) async fn find(&self, patience: Duration) -> Result<(), ClientError> {
        match timeout(patience, self.leader()).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err(ClientError::NoMaster {
                tried: self.tried(),
            }),
        }
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
        let now = self.env.runtime().now();
        let give_up_at = now.checked_add(patience).unwrap_or(now + FOR_EVER);
        let mut pause = PAUSE;
        let mut last = None;
        // Whether a master may have taken it.
        let mut in_doubt = false;
        loop {
            let found = timeout_at(give_up_at, self.leader()).await;
            let (place, master) = match (found, last.take()) {
                (Ok(Some(found)), _) => found,
                // What came of the question says more than that nobody is there now.
                (Ok(None) | Err(_), Some(error)) => return Err(Failed::with(error, in_doubt)),
                (Ok(None) | Err(_), None) => return Err(Failed::NoMaster),
            };
            let asked = super::put(&master, open_for, &question);
            let error = match self.accompany(asked, place, repeat).await {
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
                Next::Elsewhere => self.forget(place, &error),
                Next::GiveUp => return Err(Failed::with(error, in_doubt)),
                Next::Unknown => {
                    self.forget(place, &error);
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

    /// The master that leads: the one remembered, else the first that is found to. `None` where no cluster is there.
    /// Cancel safe.
    async fn leader(&self) -> Option<(usize, RpcEndpointRef<MasterMessage>)> {
        loop {
            if let Some(found) = self.remembered() {
                return Some(found);
            }
            let mut searched = self.searching.lock().await;
            if self.remembered().is_none() {
                let has_led = self.has_led.load(Ordering::Relaxed);
                let found = self.search.run(has_led).await?;
                *searched = Some(self.env.runtime().now());
                self.remember(found);
            }
        }
    }

    fn remembered(&self) -> Option<(usize, RpcEndpointRef<MasterMessage>)> {
        let place = self.leader.load(Ordering::Acquire);
        let master = self.search.master(place)?;
        Some((place, master.clone()))
    }

    fn remember(&self, place: usize) {
        self.has_led.store(true, Ordering::Relaxed);
        self.leader.store(place, Ordering::Release);
    }

    /// That master leads no more, or cannot be asked. Another that was found since is kept.
    fn forget(&self, place: usize, why: &AskError) {
        self.search.note(place, why.clone().into());
        // Whoever comes second finds it done.
        let _ = self
            .leader
            .compare_exchange(place, NONE, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Waits for an answer, and looks from time to time whether another master leads by now: one that is cut off says
    /// nothing for a long time.
    async fn accompany<R>(
        &self,
        asked: impl Future<Output = Result<R, AskError>>,
        place: usize,
        repeat: Repeat,
    ) -> Result<R, Ended> {
        if repeat == Repeat::Unsafe || self.search.count() < 2 {
            return asked.await.map_err(Ended::Failed);
        }
        let mut asked = pin!(asked);
        let mut patience = LOOK_AROUND_AFTER;
        loop {
            let found = tokio::select! {
                biased;
                answer = &mut asked => return answer.map_err(Ended::Failed),
                found = self.look_around(place, patience) => found,
            };
            if let Some(found) = found.filter(|found| *found != place) {
                self.remember(found);
                return Err(Ended::Moved);
            }
            patience = (patience * 2).min(LOOK_AROUND_AFTER_MAX);
        }
    }

    /// After a while, which master leads; none where somebody else has just seen that this one still does.
    async fn look_around(&self, place: usize, after: Duration) -> Option<usize> {
        sleep(after).await;
        let mut searched = self.searching.lock().await;
        let known = self.leader.load(Ordering::Acquire);
        if known != place && known != NONE {
            return Some(known);
        }
        let now = self.env.runtime().now();
        if searched.is_some_and(|at| now.saturating_duration_since(at) < LOOK_AROUND_AFTER) {
            return None;
        }
        let found = self.search.run(true).await;
        *searched = Some(self.env.runtime().now());
        found
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
