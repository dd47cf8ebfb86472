//! The shell around [`MasterCore`](super::MasterCore): messages and the timer in, effects out. All state has one writer,
//! this endpoint.
//!
//! ```text
//!             elected                 the store is read
//!   STANDBY ----------> taking over --------------------> LEADING
//!      ^                     |                               |
//!      '---------------------'-------------------------------'
//!              cannot take over, or leads no more
//! ```
//!
//! While it takes over, what it is asked waits in its inbox; a standby says at once that it is one.

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{
    EndpointContext, EndpointError, RpcAddress, RpcCallContext, RpcEndpoint, RpcEndpointRef,
};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, error, info, warn};

use super::leader::{Deposed, Leader, Store};
use super::leader_news::LeaderNews;
use super::own_message::OwnMessage;
use super::{Event, MasterSettings};
use crate::clock::{self, Alarm};
use crate::election::{ElectionError, Leadership, MasterAddress, Standing};
use crate::listeners::EventBus;
use crate::messages::{LeaderAnswer, LocalOnly, MasterMessage, RegisterAnswer};
use crate::persistence::{self, Change, PersistenceEngine, PersistenceError};
use crate::recovery_mode::RecoveryMode;

/// How long a master that stops waits for its store.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before it stands for election again after it could not take over; it doubles up to the longest.
const CAMPAIGN_PAUSE: Duration = Duration::from_secs(1);
const CAMPAIGN_PAUSE_MAX: Duration = Duration::from_secs(30);

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

    /// Stands for election. Where nobody else does, it is over before the first message comes.
    async fn campaign(&mut self, ctx: &EndpointContext<MasterMessage>) {
        let election = Arc::clone(&self.recovery_mode.election);
        let candidate = self.address(ctx);
        let mut campaign = Box::pin(async move { election.campaign(&candidate).await });
        let elected = tokio::select! {
            biased;
            elected = &mut campaign => elected,
            () = std::future::ready(()) => {
                let me = ctx.self_ref().clone();
                ctx.spawn(async move {
                    let elected = campaign.await;
                    post(&me, OwnMessage::Elected(elected)).await;
                });
                return;
            }
        };
        self.on_elected(elected, ctx).await;
    }

    async fn on_elected(
        &mut self,
        elected: Result<Leadership, ElectionError>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let leadership = match elected {
            Ok(leadership) => leadership,
            Err(error) => return self.campaign_later(error.to_string(), ctx),
        };
        match self.take_over(leadership, ctx).await {
            Ok(leader) => {
                self.campaign_pause = CAMPAIGN_PAUSE;
                let epoch = leader.core().epoch();
                info!(epoch, "leads");
                self.leader = Some(Box::new(leader));
                self.role.send_replace(MasterRole::Leading { epoch });
                self.set_alarm();
            }
            Err(
                error @ (PersistenceError::Damaged { .. }
                | PersistenceError::Unreadable { .. }
                | PersistenceError::InUse { .. }),
            ) => {
                error!(%error, "cannot lead");
                let reason = error.to_string();
                self.role.send_replace(MasterRole::Failed { reason });
            }
            Err(error) => self.campaign_later(error.to_string(), ctx),
        }
    }

    /// Begins an epoch, and reads what earlier ones stored.
    async fn take_over(
        &mut self,
        leadership: Leadership,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<Leader, PersistenceError> {
        // As without a store: whichever mode comes after which, a later master has a higher epoch.
        let wall = clock::now(&**ctx.env().runtime()).unix_millis();
        let at_least = leadership.epoch.max(wall).max(self.settings.epoch);
        let store = match self.recovery_mode.persistence.clone() {
            None => {
                self.settings.epoch = at_least;
                None
            }
            Some(engine) => {
                self.settings.epoch = engine.begin_epoch(at_least).await?;
                let stored = read(&*engine, self.settings.epoch).await?;
                Some(Store {
                    engine,
                    stored,
                    slow_after: self.slow_after,
                })
            }
        };
        let settings = MasterSettings {
            durable: store.is_some(),
            ..self.settings.clone()
        };
        // A later leadership of this process has a higher one even if the clock stands still.
        self.settings.epoch += 1;
        Ok(Leader::new(
            settings,
            leadership,
            store,
            self.events.clone(),
            ctx,
        ))
    }

    /// Ceases to lead at once: nothing that was held back is done. What it was asked fails where it waits.
    fn step_down(&mut self, Deposed(reason): Deposed, ctx: &EndpointContext<MasterMessage>) {
        warn!(reason, "leads no more");
        self.leader = None;
        self.campaign_later(reason, ctx);
    }

    fn campaign_later(&mut self, reason: String, ctx: &EndpointContext<MasterMessage>) {
        let pause = self.campaign_pause;
        warn!(
            reason,
            ?pause,
            "does not lead, and stands for election again"
        );
        self.campaign_pause = (pause * 2).min(CAMPAIGN_PAUSE_MAX);
        let reason = Some(reason);
        self.role.send_replace(MasterRole::Standby { reason });
        ctx.send_after(pause, MasterMessage::Own(LocalOnly(OwnMessage::Campaign)));
    }

    // ---- messages ------------------------------------------------------------------------------

    async fn on_own(&mut self, message: OwnMessage, ctx: &EndpointContext<MasterMessage>) {
        match message {
            OwnMessage::Tick => {
                if let Some(leader) = &mut self.leader {
                    leader.tell(Event::Tick, ctx);
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
            OwnMessage::Elected(elected) => self.on_elected(elected, ctx).await,
            OwnMessage::Campaign => self.campaign(ctx).await,
        }
    }

    fn set_alarm(&self) {
        if let (Some(alarm), Some(leader)) = (&self.alarm, &self.leader) {
            alarm.set(leader.core().next_deadline());
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
        self.campaign(ctx).await;
        Ok(())
    }

    async fn receive(
        &mut self,
        message: MasterMessage,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<(), EndpointError> {
        if let Some(Err(deposed)) = self.leader.as_mut().map(|leader| leader.look_around(ctx)) {
            self.step_down(deposed, ctx);
        }
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

/// Reads what was stored. What is damaged is told and set aside, so that it is told once.
async fn read(
    engine: &dyn PersistenceEngine,
    epoch: u64,
) -> Result<super::Stored, PersistenceError> {
    let records = engine.read_all().await?;
    let count = records.len();
    let decoded = persistence::decode("the master's store", records)?;
    let mut changes: Vec<Change> = Vec::new();
    for damaged in &decoded.damaged {
        let key = &damaged.record.key;
        let reason = &damaged.reason;
        error!(key, reason, "a stored record is damaged, set aside");
        changes.extend(persistence::set_aside(epoch, &damaged.record));
    }
    for batch in changes.chunks(100) {
        engine.write(epoch, batch.to_vec()).await?;
    }
    info!(
        records = count,
        damaged = decoded.damaged.len(),
        "read what was stored"
    );
    Ok(decoded.stored)
}
