use std::time::Duration;

use aloha_rpc::{RpcEndpointRef, RpcEnv, SetupError};
use tokio::sync::{broadcast, oneshot, watch};

use super::endpoint::Master;
use super::own_message::OwnMessage;
use super::{MasterRole, MasterSettings};
use crate::client::MasterClient;
use crate::clock;
use crate::election::MasterAddress;
use crate::events::AlohaEvent;
use crate::listeners::EventBus;
use crate::messages::{LocalOnly, MASTER, MasterMessage};
use crate::recovery_mode::RecoveryMode;

/// How long submissions wait for the store before more are refused, where nobody says otherwise.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// Collects what a master is to be, from [`Master::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct MasterBuilder<'a> {
    env: &'a RpcEnv,
    settings: MasterSettings,
    recovery_mode: RecoveryMode,
    events: EventBus,
    slow_after: Duration,
    rest_url: Option<String>,
}

impl<'a> MasterBuilder<'a> {
    pub(super) fn new(env: &'a RpcEnv) -> Self {
        Self {
            env,
            settings: Master::default_settings(env),
            recovery_mode: RecoveryMode::none(),
            events: EventBus::default(),
            slow_after: SLOW_AFTER,
            rest_url: None,
        }
    }

    /// What its core is told. Which epoch it has and whether it is durable follow from the recovery mode.
    pub fn settings(self, settings: MasterSettings) -> Self {
        Self { settings, ..self }
    }

    /// What survives it, and who of several leads; nothing and itself where this is not called.
    pub fn recovery_mode(self, recovery_mode: RecoveryMode) -> Self {
        Self {
            recovery_mode,
            ..self
        }
    }

    /// Whom it tells what happens.
    pub fn events(self, events: EventBus) -> Self {
        Self { events, ..self }
    }

    /// How long submissions may wait for the store before more are refused (`aloha.deploy.slowStoreAfter`).
    pub fn slow_store_after(self, slow_after: Duration) -> Self {
        Self { slow_after, ..self }
    }

    /// Where its REST server is found, `http://host:port`: standbys send their clients there while it leads.
    pub fn rest_url(self, rest_url: Option<String>) -> Self {
        Self { rest_url, ..self }
    }

    /// Sets the master up, under the name [`MASTER`]. It answers once it knows whether it leads.
    ///
    /// # Errors
    ///
    /// The environment has a master already, or is shut down.
    pub fn start(self) -> Result<MasterHandle, SetupError> {
        let (role, seen) = watch::channel(MasterRole::default());
        let events = self.events.clone();
        let leader = self.recovery_mode.election.leader();
        let master = Master::new(
            self.settings,
            self.recovery_mode,
            self.events,
            self.slow_after,
            self.rest_url,
            role,
        );
        let master = self.env.setup_endpoint(MASTER, master)?;
        Ok(MasterHandle {
            client: MasterClient::new(master.clone()),
            master,
            events,
            role: seen,
            leader,
        })
    }
}

/// A master that runs in an environment of this process.
#[derive(Debug, Clone)]
pub struct MasterHandle {
    master: RpcEndpointRef<MasterMessage>,
    client: MasterClient,
    events: EventBus,
    role: watch::Receiver<MasterRole>,
    leader: watch::Receiver<Option<MasterAddress>>,
}

impl MasterHandle {
    /// Asks the master, as clients elsewhere do.
    #[must_use]
    pub fn client(&self) -> &MasterClient {
        &self.client
    }

    /// What happens in the cluster from now on. A listener that falls 1,024 events behind misses some, and is
    /// told how many.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<AlohaEvent> {
        self.events.subscribe()
    }

    /// Where it publishes them: what became of them for each listener, and when all are done.
    #[must_use]
    pub fn event_bus(&self) -> &EventBus {
        &self.events
    }

    /// Whether it leads.
    #[must_use]
    pub fn role(&self) -> watch::Receiver<MasterRole> {
        self.role.clone()
    }

    /// Who leads, as far as the election knows.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<Option<MasterAddress>> {
        self.leader.clone()
    }
}

impl MasterHandle {
    /// Ends the leadership of a master that is about to stop, so that another leads at once, and has it lead no more.
    ///
    /// From now on it answers that it is a standby, and clients go elsewhere. What it took on before is stored and
    /// acknowledged. This returns when another master leads, or a second later, or at once where nobody can tell: then
    /// its environment can be shut down. Of a standby it returns when that is no longer a candidate for others either, or
    /// a second later.
    ///
    /// # Cancel safety
    ///
    /// Once begun it goes on, whether this is waited for or not. Nothing is begun before the first poll.
    pub async fn hand_over(&self) {
        let (done, handed_over) = oneshot::channel();
        let message = MasterMessage::Own(LocalOnly(OwnMessage::HandOver(done)));
        if self.master.send(message).is_ok() {
            // One that is stopped meanwhile leads no more either.
            drop(handed_over.await);
        }
    }
}

impl Master {
    /// The usual settings. Without a store the epoch is the time in milliseconds: a later master has a higher one.
    #[must_use]
    pub fn default_settings(env: &RpcEnv) -> MasterSettings {
        MasterSettings::new(clock::now(&**env.runtime()).unix_millis())
    }

    /// Collects what a master in this environment is to be.
    pub fn builder(env: &RpcEnv) -> MasterBuilder<'_> {
        MasterBuilder::new(env)
    }

    /// Sets a master up in `env`, of which nothing survives, under the name [`MASTER`].
    ///
    /// # Errors
    ///
    /// The environment has a master already, or is shut down.
    pub fn start(env: &RpcEnv, settings: MasterSettings) -> Result<MasterHandle, SetupError> {
        Self::builder(env).settings(settings).start()
    }
}
