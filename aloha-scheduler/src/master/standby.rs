//! What a master that does not lead keeps ready, and what lies between its election and its leading.
//!
//! ```text
//!   other master      store           task of the standby        endpoint
//!        | write        |                     |                      |
//!        |------------->| changes             |                      |
//!        |              |-------------------->| Shadow::apply        |  answers STANDBY
//!        x              |                     |                      |
//!                       |     begin_epoch     |                      |
//!                       |<--------------------| elected              |
//!                       |  what else changed  |                      |
//!                       |-------------------->| heir                 |
//!                       |                     |--------------------->| Shadow::take_over
//! ```
//!
//! From the new epoch on the store refuses what earlier leaders write, so that what has changed until then is all there
//! ever will be of theirs. All of it happens in tasks: the endpoint answers meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aloha_rpc::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tracing::{debug, error, info, warn};

use super::MasterSettings;
use super::shadow::Shadow;
use crate::clock;
use crate::election::{ElectionError, Leadership, Standing};
use crate::persistence::{Change, PersistenceEngine, PersistenceError};

/// How many changes are taken in at a time, before others have their turn.
const PIECE: usize = 256;
/// The pause before a store is followed anew; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long an heir waits for its epoch, and for what followed the store. A store that answers neither must not keep who
/// is elected, and with it the cluster, waiting for ever.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many changes are stored at a time to set damaged records aside.
const SET_ASIDE_AT_ONCE: usize = 100;

/// Follows a store in a task of its own, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    wanted: mpsc::Sender<oneshot::Sender<Shadow>>,
}

impl Follower {
    pub(super) fn start(
        runtime: &Arc<dyn Runtime>,
        engine: Arc<dyn PersistenceEngine>,
        settings: MasterSettings,
        said: &Arc<SaidOfStore>,
    ) -> Self {
        let (wanted, asked) = mpsc::channel(1);
        let following = Following {
            runtime: Arc::clone(runtime),
            engine,
            settings,
            said: Arc::clone(said),
            asked,
        };
        runtime.spawn(Box::pin(following.run()));
        Self { wanted }
    }

    /// What is stored by now, if it could be followed until now.
    async fn caught_up(self) -> Option<Shadow> {
        let (answer, shadow) = oneshot::channel();
        self.wanted.send(answer).await.ok()?;
        shadow.await.ok()
    }
}

/// What the log said of a store that cannot be followed, by whichever follower: it is said once until it can, or until
/// it is something else.
#[derive(Debug, Default)]
pub(super) struct SaidOfStore(Mutex<Option<String>>);

impl SaidOfStore {
    fn is_new(&self, trouble: &str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = said.as_deref() != Some(trouble);
        *said = Some(trouble.to_owned());
        is_new
    }

    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

struct Following {
    runtime: Arc<dyn Runtime>,
    engine: Arc<dyn PersistenceEngine>,
    settings: MasterSettings,
    said: Arc<SaidOfStore>,
    /// Asked once, and never again after all askers are gone.
    asked: mpsc::Receiver<oneshot::Sender<Shadow>>,
}

impl Following {
    async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let mut has_begun = false;
            match self.follow(&mut has_begun).await {
                Ok(()) => return,
                Err(error) if self.said.is_new(&error.to_string()) => {
                    warn!(%error, "cannot follow the store, will begin anew");
                }
                Err(error) => debug!(%error, "still cannot follow the store"),
            }
            pause = if has_begun {
                PAUSE
            } else {
                (pause * 2).min(PAUSE_MAX)
            };
            tokio::select! {
                biased;
                // Whoever wants the shadow now reads the store by itself.
                _ = self.asked.recv() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Follows until somebody wants to know what came of it, or nobody ever will.
    async fn follow(&mut self, has_begun: &mut bool) -> Result<(), PersistenceError> {
        let follower = tokio::select! {
            biased;
            _ = self.asked.recv() => return Ok(()),
            follower = self.engine.follow() => follower?,
        };
        let Some(mut follower) = follower else {
            debug!("this store cannot be followed: it is read when this master leads");
            self.asked.recv().await;
            return Ok(());
        };
        let now = clock::now(&*self.runtime);
        let mut shadow = Shadow::new(self.settings.clone(), now);
        loop {
            tokio::select! {
                biased;
                wanted = self.asked.recv() => {
                    let Some(wanted) = wanted else { return Ok(()) };
                    match follower.catch_up().await {
                        Ok(changes) => {
                            take_in(&mut shadow, changes).await;
                            drop(wanted.send(shadow));
                        }
                        Err(error) => warn!(%error, "cannot catch up with the store"),
                    }
                    return Ok(());
                }
                changes = follower.next() => {
                    take_in(&mut shadow, changes?).await;
                    if !*has_begun {
                        *has_begun = true;
                        self.said.forget();
                        let (apps, workers) = shadow.counts();
                        info!(apps, workers, "follows the store");
                    }
                }
            }
        }
    }
}

/// Notes changes, with turns for others between.
async fn take_in(shadow: &mut Shadow, changes: Vec<Change>) {
    let mut changes = changes.into_iter();
    loop {
        let piece: Vec<_> = changes.by_ref().take(PIECE).collect();
        if piece.is_empty() {
            return;
        }
        shadow.apply(piece);
        yield_now().await;
    }
}

/// Who was elected, and has all that it takes to lead.
#[derive(Debug)]
pub struct Heir {
    pub(super) leadership: Leadership,
    /// The epoch that it has begun.
    pub(super) epoch: u64,
    /// Before it began: nobody else led since, as far as is known then.
    pub(super) since: Instant,
    /// What was stored before it; `None` where nothing ever is.
    pub(super) shadow: Option<Box<Shadow>>,
}

/// Why somebody who was elected does not lead.
#[derive(Debug, thiserror::Error)]
pub enum NoHeir {
    /// There was no election.
    #[error(transparent)]
    Election(#[from] ElectionError),
    /// It was over before it began.
    #[error("the leadership was lost before it began")]
    Lost,
    /// The store did not begin the epoch.
    #[error("the store did not answer for {} seconds", PATIENCE.as_secs())]
    Stuck,
    /// What is stored cannot be had.
    #[error(transparent)]
    Store(#[from] PersistenceError),
}

/// What it takes to become an heir.
#[derive(Debug)]
pub(super) struct Claimant {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) engine: Option<Arc<dyn PersistenceEngine>>,
    pub(super) settings: MasterSettings,
    pub(super) follower: Option<Follower>,
}

impl Claimant {
    /// Begins an epoch under a leadership that was won, and finds out what earlier ones stored.
    pub(super) async fn inherit(self, mut leadership: Leadership) -> Result<Heir, NoHeir> {
        // To begin an epoch deposes whoever leads: that must be ours to do.
        let standing = leadership
            .standing
            .wait_for(|it| *it != Standing::Suspended);
        match standing.await.map(|standing| *standing) {
            Ok(Standing::Held) => {}
            Ok(Standing::Suspended | Standing::Lost) | Err(_) => return Err(NoHeir::Lost),
        }
        // As without a store: whichever mode comes after which, a later master has a higher one.
        let now = clock::now(&*self.runtime);
        let (wall, since) = (now.unix_millis(), now.instant);
        let at_least = leadership.epoch.max(wall).max(self.settings.epoch);
        let Some(engine) = &self.engine else {
            return Ok(Heir {
                leadership,
                epoch: at_least,
                since,
                shadow: None,
            });
        };
        let epoch = tokio::time::timeout(PATIENCE, engine.begin_epoch(at_least)).await;
        let epoch = epoch.map_err(|_| NoHeir::Stuck)??;
        debug!(epoch, "began its epoch");
        let followed = match self.follower {
            Some(follower) => {
                let followed = tokio::time::timeout(PATIENCE, follower.caught_up()).await;
                followed.unwrap_or_else(|_| {
                    warn!("what followed the store does not catch up with it: it is read anew");
                    None
                })
            }
            None => None,
        };
        let mut shadow = match followed {
            Some(shadow) => {
                debug!("caught up with the store");
                shadow
            }
            None => {
                debug!("reads the store anew");
                let now = clock::now(&*self.runtime);
                let mut shadow = Shadow::new(self.settings, now);
                let records = engine.read_all().await?;
                take_in(&mut shadow, records.into_iter().map(Change::Put).collect()).await;
                shadow
            }
        };
        shadow.check()?;
        set_aside(&**engine, epoch, &mut shadow).await?;
        Ok(Heir {
            leadership,
            epoch,
            since,
            shadow: Some(Box::new(shadow)),
        })
    }
}

/// Sets aside what is damaged, so that it is told once.
async fn set_aside(
    engine: &dyn PersistenceEngine,
    epoch: u64,
    shadow: &mut Shadow,
) -> Result<(), PersistenceError> {
    let mut changes = Vec::new();
    for (damaged, set_aside) in shadow.damages(epoch) {
        let (key, reason) = (&damaged.record.key, &damaged.reason);
        error!(key, reason, "a stored record is damaged, set aside");
        changes.extend(set_aside);
    }
    let (apps, workers) = shadow.counts();
    let damaged = changes.len() / 2;
    info!(apps, workers, damaged, "read what was stored");
    for batch in changes.chunks(SET_ASIDE_AT_ONCE) {
        engine.write(epoch, batch.to_vec()).await?;
        shadow.apply(batch.to_vec());
    }
    Ok(())
}
