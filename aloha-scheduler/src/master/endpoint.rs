//! The shell around [`MasterCore`](super::MasterCore): messages and the timer in, effects out. All state has one writer,
//! this endpoint.
//!
//! ```text
//!             elected                 what is stored is known
//!   STANDBY ----------> becoming heir ------------------------> LEADING
//!      ^                     |                                     |
//!      '---------------------'-------------------------------------'
//!                cannot take over, or leads no more
//! ```
//!
//! A standby says at once that it is one, and so does an heir whose election took its time. One that is elected before
//! its first message comes, as a master that is alone, lets what it is asked wait in its inbox.

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{
    EndpointContext, EndpointError, RpcAddress, RpcCallContext, RpcEndpoint, RpcEndpointRef,
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, error, info, warn};

use super::MasterSettings;
use super::leader::{Deposed, Leader, Store};
use super::leader_news::LeaderNews;
use super::own_message::OwnMessage;
use super::standby::{Claimant, Follower, Heir, NoHeir, SaidOfStore};
use crate::clock::Alarm;
use crate::election::{LeaderElectionAgent, MasterAddress, Standing};
use crate::listeners::EventBus;
use crate::messages::{LeaderAnswer, LocalOnly, MasterMessage, RegisterAnswer};
use crate::persistence::PersistenceError;
use crate::recovery_mode::RecoveryMode;

/// How long a master that stops waits for its store.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before it stands for election again after it could not take over; it doubles up to the longest.
const CAMPAIGN_PAUSE: Duration = Duration::from_secs(1);
const CAMPAIGN_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest where there was no election: the cluster has no leader as long as those who could lead pause.
const ELECTION_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a master that hands over waits for its successor.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a master leads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MasterRole {
    /// It does not, and answers so.
    Standby {
        /// Why not, where it could have.
        reason: Option<String>,
    },
    /// It does.
    Leading {
        /// The epoch of its leadership.
        epoch: u64,
    },
    /// It never will: its store cannot be read.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

impl Default for MasterRole {
    fn default() -> Self {
        Self::Standby { reason: None }
    }
}

/// The kind of the failure with which a standby answers clients.
pub const STANDBY: &str = "standby";

/// The master's endpoint.
#[derive(Debug)]
pub struct Master {
    settings: MasterSettings,
    recovery_mode: RecoveryMode,
    events: EventBus,
    slow_after: Duration,
    rest_url: Option<String>,
    role: watch::Sender<MasterRole>,
    leader: Option<Box<Leader>>,
    alarm: Option<Alarm>,
    /// From its start on.
    news: Option<LeaderNews>,
    campaign_pause: Duration,
    said_of_store: Arc<SaidOfStore>,
    /// Dropped, it no longer stands for election.
    campaign: Option<DropGuard>,
    /// Whether it never leads again.
    has_handed_over: bool,
}

impl Master {
    pub(super) fn new(
        settings: MasterSettings,
        recovery_mode: RecoveryMode,
        events: EventBus,
        slow_after: Duration,
        rest_url: Option<String>,
        role: watch::Sender<MasterRole>,
    ) -> Self {
        Self {
            settings,
            recovery_mode,
            events,
            slow_after,
            rest_url,
            role,
            leader: None,
            alarm: None,
            news: None,
            campaign_pause: CAMPAIGN_PAUSE,
            said_of_store: Arc::default(),
            campaign: None,
            has_handed_over: false,
        }
    }

    /// How others reach it.
    fn address(&self, ctx: &EndpointContext<MasterMessage>) -> MasterAddress {
        let rpc = ctx.env().address().map(ToString::to_string);
        MasterAddress {
            rpc: rpc.unwrap_or_default(),
            rest: self.rest_url.clone(),
        }
    }

    // ---- coming to lead, and ceasing to --------------------------------------------------------

    /// Stands for election, and follows the store meanwhile. At its start a master that is alone leads before the first
    /// message comes; later nobody is kept waiting.
    async fn campaign(&mut self, is_start: bool, ctx: &EndpointContext<MasterMessage>) {
        if self.has_handed_over {
            return;
        }
        let election = Arc::clone(&self.recovery_mode.election);
        let candidate = self.address(ctx);
        let mut campaign = Box::pin(async move { election.campaign(&candidate).await });
        let mut claimant = Claimant {
            runtime: Arc::clone(ctx.env().runtime()),
            engine: self.recovery_mode.persistence.clone(),
            settings: MasterSettings {
                durable: self.recovery_mode.persistence.is_some(),
                ..self.settings.clone()
            },
            follower: None,
        };
        let elected = tokio::select! {
            biased;
            elected = &mut campaign => Some(elected),
            () = std::future::ready(()) => None,
        };
        let elected = match elected {
            Some(Ok(leadership)) if is_start => {
                let heir = claimant.inherit(leadership).await;
                return self.on_elected(heir, ctx);
            }
            Some(Err(error)) if is_start => return self.on_elected(Err(error.into()), ctx),
            elected => elected,
        };
        if let (None, Some(engine)) = (&elected, &claimant.engine) {
            let (engine, settings) = (Arc::clone(engine), claimant.settings.clone());
            let said = &self.said_of_store;
            claimant.follower = Some(Follower::start(&claimant.runtime, engine, settings, said));
        }
        let (me, end) = (ctx.self_ref().clone(), CancellationToken::new());
        self.campaign = Some(end.clone().drop_guard());
        let (observed, own) = (Arc::clone(&self.recovery_mode.election), self.address(ctx));
        ctx.spawn(async move {
            let heir = async {
                let leadership = match elected {
                    Some(elected) => elected?,
                    None => campaign.await?,
                };
                claimant.inherit(leadership).await
            };
            let stands_by = async {
                if wait_for_other_leader(&*observed, &own).await {
                    post(&me, OwnMessage::StandsBy).await;
                }
                std::future::pending().await
            };
            let heir = async {
                tokio::select! {
                    biased;
                    heir = heir => heir,
                    never = stands_by => never,
                }
            };
            if let Some(heir) = end.run_until_cancelled(heir).await {
                post(&me, OwnMessage::Elected(heir)).await;
            }
        });
    }

    /// Nothing keeps it from standing for election any more.
    fn stand_by(&self) {
        if self.campaign.is_some() {
            self.role.send_if_modified(|role| {
                let is_kept = matches!(role, MasterRole::Standby { reason: Some(_) });
                if is_kept {
                    *role = MasterRole::Standby { reason: None };
                }
                is_kept
            });
        }
    }

    fn on_elected(&mut self, heir: Result<Heir, NoHeir>, ctx: &EndpointContext<MasterMessage>) {
        if self.has_handed_over {
            return; // dropped, the leadership is given up
        }
        self.campaign = None;
        match heir {
            Ok(heir) => self.lead(heir, ctx),
            Err(NoHeir::Store(
                error @ (PersistenceError::Damaged { .. }
                | PersistenceError::Unreadable { .. }
                | PersistenceError::InUse { .. }),
            )) => {
                error!(%error, "cannot lead");
                let reason = error.to_string();
                self.role.send_replace(MasterRole::Failed { reason });
            }
            Err(error) => {
                if matches!(error, NoHeir::Election(_) | NoHeir::Lost) {
                    self.campaign_pause = self.campaign_pause.min(ELECTION_PAUSE_MAX);
                }
                self.campaign_later(error.to_string(), ctx);
            }
        }
    }

    fn lead(&mut self, heir: Heir, ctx: &EndpointContext<MasterMessage>) {
        let epoch = heir.epoch;
        self.settings.epoch = epoch;
        let persistence = self.recovery_mode.persistence.clone();
        let slow_after = self.slow_after;
        let store = persistence.map(|engine| Store { engine, slow_after });
        let settings = MasterSettings {
            durable: store.is_some(),
            ..self.settings.clone()
        };
        // A later leadership of this process has a higher one even if the clock stands still.
        self.settings.epoch += 1;
        let mut leader = Leader::new(settings, heir, store, self.events.clone(), ctx);
        if let Err(deposed) = leader.look_around(ctx) {
            return self.step_down(deposed, ctx);
        }
        self.campaign_pause = CAMPAIGN_PAUSE;
        info!(epoch, "leads");
        self.leader = Some(Box::new(leader));
        self.role.send_replace(MasterRole::Leading { epoch });
        self.set_alarm();
    }

    /// Ceases to lead at once: nothing that was held back is done. What it was asked fails where it waits.
    fn step_down(&mut self, Deposed(reason): Deposed, ctx: &EndpointContext<MasterMessage>) {
        warn!(reason, "leads no more");
        self.leader = None;
        self.campaign_later(reason, ctx);
    }

    /// Leads no more, and never again: stores what is to be stored, answers what rests on that, and gives the leadership
    /// up. Says when that is done and somebody else leads, if anybody is there to.
    fn hand_over(&mut self, done: oneshot::Sender<()>, ctx: &EndpointContext<MasterMessage>) {
        self.has_handed_over = true;
        self.campaign = None;
        let reason = Some("it is about to stop".to_owned());
        self.role.send_replace(MasterRole::Standby { reason });
        let election = Arc::clone(&self.recovery_mode.election);
        let Some(mut leader) = self.leader.take() else {
            ctx.env().runtime().spawn(Box::pin(async move {
                // Its place in the line would be in the way of whoever starts in its stead.
                drop(tokio::time::timeout(SUCCESSOR_TIMEOUT, election.withdrawn()).await);
                drop(done);
            }));
            return;
        };
        info!("hands over");
        let me = self.address(ctx);
        ctx.env().runtime().spawn(Box::pin(async move {
            let settled = tokio::time::timeout(SETTLE_TIMEOUT, leader.settle()).await;
            if settled.is_err() {
                warn!("hands over before all was stored");
            }
            drop(leader);
            let succeeded = async {
                election.withdrawn().await;
                wait_for_other_leader(&*election, &me).await;
            };
            // There may be none.
            drop(tokio::time::timeout(SUCCESSOR_TIMEOUT, succeeded).await);
            drop(done);
        }));
    }

    fn campaign_later(&mut self, reason: String, ctx: &EndpointContext<MasterMessage>) {
        if self.has_handed_over {
            return;
        }
        let pause = self.campaign_pause;
        let role = MasterRole::Standby {
            reason: Some(reason.clone()),
        };
        if *self.role.borrow() == role {
            debug!(reason, ?pause, "stands for election again");
        } else {
            warn!(
                reason,
                ?pause,
                "does not lead, and stands for election again"
            );
        }
        self.campaign_pause = (pause * 2).min(CAMPAIGN_PAUSE_MAX);
        self.role.send_if_modified(|said| {
            let changes = *said != role;
            *said = role;
            changes
        });
        ctx.send_after(pause, MasterMessage::Own(LocalOnly(OwnMessage::Campaign)));
    }

    // ---- messages ------------------------------------------------------------------------------

    async fn on_own(&mut self, message: OwnMessage, ctx: &EndpointContext<MasterMessage>) {
        match message {
            OwnMessage::Tick => {
                if let Some(leader) = &mut self.leader {
                    leader.on_tick(ctx);
                }
            }
            // Looked at with each message.
            OwnMessage::StandingChanged => {}
            OwnMessage::StoreProgressed => {
                let progressed = self
                    .leader
                    .as_mut()
                    .map(|leader| leader.on_store_progress(ctx));
                if let Some(Err(deposed)) = progressed {
                    self.step_down(deposed, ctx);
                }
            }
            OwnMessage::Elected(heir) => self.on_elected(heir, ctx),
            OwnMessage::Campaign => self.campaign(false, ctx).await,
            OwnMessage::StandsBy => self.stand_by(),
            OwnMessage::HandOver(done) => self.hand_over(done, ctx),
        }
    }

    /// Before anything is done as a leader.
    fn look_around(&mut self, ctx: &EndpointContext<MasterMessage>) {
        if let Some(Err(deposed)) = self.leader.as_mut().map(|leader| leader.look_around(ctx)) {
            self.step_down(deposed, ctx);
        }
    }

    fn set_alarm(&self) {
        if let (Some(alarm), Some(leader)) = (&self.alarm, &self.leader) {
            alarm.set(leader.next_deadline());
        }
    }

    fn standby(&self) -> EndpointError {
        let text = match &*self.role.borrow() {
            MasterRole::Standby { reason: None } | MasterRole::Leading { .. } => {
                "this master is a standby: ask the one that leads".to_owned()
            }
            MasterRole::Standby {
                reason: Some(reason),
            }
            | MasterRole::Failed { reason } => format!("this master does not lead: {reason}"),
        };
        EndpointError::new(STANDBY, text)
    }

    /// Answers what only a leader can.
    fn turn_away(&self, message: MasterMessage) {
        fn fail<T>(master: &Master, call: RpcCallContext<T>) {
            call.send_failure(master.standby());
        }
        match message {
            MasterMessage::RegisterWorker { call, .. } => call.reply(RegisterAnswer::Standby),
            MasterMessage::Heartbeat { call, .. } | MasterMessage::Report { call, .. } => {
                fail(self, call);
            }
            MasterMessage::Submit { call, .. } => fail(self, call),
            MasterMessage::Kill { call, .. } => fail(self, call),
            MasterMessage::Status { call, .. } | MasterMessage::Wait { call, .. } => {
                fail(self, call);
            }
            MasterMessage::Apps { call, .. } => fail(self, call),
            MasterMessage::Workers { call } => fail(self, call),
            MasterMessage::Cluster { call } => fail(self, call),
            MasterMessage::KillAll { call } | MasterMessage::Clear { call } => fail(self, call),
            MasterMessage::Forget { call, .. } => fail(self, call),
            MasterMessage::Drain { call, .. } => fail(self, call),
            MasterMessage::ReadLog { call, .. } => fail(self, call),
            MasterMessage::WorkerLeaving { id } => debug!(worker = %id, "a standby heard it leave"),
            MasterMessage::Own(_) | MasterMessage::AwaitLeader { .. } => {
                unreachable!("handled before")
            }
        }
    }

    fn tell_who_leads(
        &self,
        besides: Option<String>,
        patience_millis: u64,
        call: RpcCallContext<LeaderAnswer>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let news = self.news.as_ref().expect("there from the start on");
        news.tell(besides, Duration::from_millis(patience_millis), call, ctx);
    }
}

impl RpcEndpoint for Master {
    type Message = MasterMessage;

    async fn on_start(
        &mut self,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<(), EndpointError> {
        let me = ctx.self_ref().clone();
        self.alarm = Some(Alarm::new(&**ctx.env().runtime(), move || {
            // A master that is stopped needs no time.
            drop(me.send(MasterMessage::Own(LocalOnly(OwnMessage::Tick))));
        }));
        self.news = Some(LeaderNews::new(
            self.address(ctx),
            self.role.subscribe(),
            self.recovery_mode.election.leader(),
        ));
        self.campaign(true, ctx).await;
        Ok(())
    }

    async fn receive(
        &mut self,
        message: MasterMessage,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<(), EndpointError> {
        self.look_around(ctx);
        match (message, &mut self.leader) {
            (MasterMessage::Own(LocalOnly(message)), _) => self.on_own(message, ctx).await,
            (
                MasterMessage::AwaitLeader {
                    besides,
                    patience_millis,
                    call,
                },
                _,
            ) => self.tell_who_leads(besides, patience_millis, call, ctx),
            (message, Some(leader)) => leader.on_message(message, ctx),
            (message, None) => self.turn_away(message),
        }
        self.set_alarm();
        Ok(())
    }

    async fn on_stop(&mut self) -> Result<(), EndpointError> {
        if let Some(leader) = &mut self.leader
            && tokio::time::timeout(SETTLE_TIMEOUT, leader.settle())
                .await
                .is_err()
        {
            warn!("stopped before all was stored");
        }
        Ok(())
    }

    async fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<(), EndpointError> {
        self.look_around(ctx);
        if let Some(leader) = &mut self.leader {
            leader.on_disconnected(remote, ctx);
        }
        self.set_alarm();
        Ok(())
    }
}

async fn post(me: &RpcEndpointRef<MasterMessage>, message: OwnMessage) {
    if let Ok(permit) = me.reserve().await {
        // A master that is stopped wants nothing.
        drop(permit.send(MasterMessage::Own(LocalOnly(message))));
    }
}

/// Has the master look at its leadership whenever that may stand otherwise, for as long as the guard is there.
pub(super) fn watch_standing(
    mut standing: watch::Receiver<Standing>,
    ctx: &EndpointContext<MasterMessage>,
) -> DropGuard {
    let (me, end) = (ctx.self_ref().clone(), CancellationToken::new());
    let watching = end.clone();
    ctx.spawn(async move {
        let watch = async {
            while standing.changed().await.is_ok() {
                post(&me, OwnMessage::StandingChanged).await;
            }
            post(&me, OwnMessage::StandingChanged).await;
        };
        // A leadership is given up when nobody looks at it any more.
        watching.run_until_cancelled(watch).await;
    });
    end.drop_guard()
}

/// Waits until somebody else leads; false, and at once, where the election does not say who leads.
async fn wait_for_other_leader(election: &dyn LeaderElectionAgent, own: &MasterAddress) -> bool {
    let mut leader = election.leader();
    let is_other = |it: &Option<MasterAddress>| it.as_ref().is_some_and(|it| it.rpc != own.rpc);
    leader.wait_for(is_other).await.is_ok()
}
