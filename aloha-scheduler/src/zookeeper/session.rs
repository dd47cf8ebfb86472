//! The one session of a master, made anew whenever it is lost.
//!
//! ```text
//!   Connecting ──► Up: Held ◄──► Suspended ──► Lost ──► Connecting …
//! ```
//!
//! Every tenth of the timeout the session asks the leading server for a sign of life (`sync` goes through it, and fails
//! where the session has expired). The moment such a question was sent is one at which the session was alive, so it is
//! lost, whatever the connection says, when the timeout has passed since; and suspended as soon as the connection is
//! gone or half the timeout has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, error, info, warn};
use zookeeper_client::{Client, CreateMode, Error, SessionState};

use super::settings::Checked;
use super::trouble::{Said, Trouble, is_refusal};
use crate::election::Standing;

/// The pause before connecting again; it doubles up to the longest.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a request is sent again after the connection was lost.
const ATTEMPTS_MAX: u32 = 20;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);

/// A handle of the session. Dropped with all its clones, the session is closed, and what is ephemeral goes with it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    links: Links,
    unstarted: Arc<Mutex<Option<Manager>>>,
    _open: Arc<DropGuard>,
}

/// Where the link of the session is seen; it does not keep the session open.
#[derive(Debug, Clone)]
pub(super) struct Links {
    pub(super) settings: Arc<Checked>,
    states: watch::Receiver<State>,
}

#[derive(Debug, Clone)]
enum State {
    /// With how many attempts have failed since the process began, and why the last one did.
    Connecting {
        failures: u64,
        reason: Option<String>,
    },
    Up(Link),
}

/// One session as ZooKeeper knows it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) standing: watch::Receiver<Standing>,
}

impl Link {
    /// Waits until the session is lost.
    pub(super) async fn lost(&self) {
        until_lost(&self.standing).await;
    }

    /// Asks for as long as this session lasts.
    pub(super) async fn on<T, F>(&self, ask: impl Fn() -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        ask_until_lost(&self.standing, ask).await
    }

    fn is_lost(&self) -> bool {
        is_lost(&self.standing)
    }
}

impl Session {
    pub(super) fn new(settings: Checked) -> Self {
        let (states, seen) = watch::channel(State::Connecting {
            failures: 0,
            reason: None,
        });
        let open = CancellationToken::new();
        let settings = Arc::new(settings);
        let manager = Manager {
            settings: Arc::clone(&settings),
            states,
            closed: open.clone(),
        };
        Self {
            links: Links {
                settings,
                states: seen,
            },
            unstarted: Arc::new(Mutex::new(Some(manager))),
            _open: Arc::new(open.drop_guard()),
        }
    }

    pub(super) fn settings(&self) -> &Checked {
        &self.links.settings
    }

    /// Begins to connect, if that was not done before.
    pub(super) fn links(&self) -> &Links {
        let manager = self
            .unstarted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(manager) = manager {
            tokio::spawn(manager.run());
        }
        &self.links
    }

    /// A session that is not lost, as far as is known. An attempt to connect that fails meanwhile is an error.
    pub(super) async fn link(&self) -> Result<Link, Trouble> {
        self.links().link().await
    }

    /// Has this done, again and again where the connection is lost meanwhile.
    pub(super) async fn run<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.links().run(ask).await
    }
}

impl Links {
    /// Whether the last handle of the session is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.states.has_changed().is_err()
    }

    pub(super) async fn link(&self) -> Result<Link, Trouble> {
        let mut states = self.states.clone();
        let mut before = None;
        loop {
            match &*states.borrow_and_update() {
                State::Up(link) if !link.is_lost() => return Ok(link.clone()),
                State::Up(_) => {}
                State::Connecting { failures, reason } => match (before, reason) {
                    (Some(before), Some(reason)) if before < *failures => {
                        return Err(Trouble::Away(reason.clone()));
                    }
                    (None, _) => before = Some(*failures),
                    _ => {}
                },
            }
            let changed = states.changed().await;
            changed.map_err(|_| Trouble::Away("the session was closed".to_owned()))?;
        }
    }

    pub(super) async fn run<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut attempt = 0;
        loop {
            let link = self.link().await?;
            let answer = tokio::select! {
                biased;
                answer = ask(link.client.clone()) => answer,
                () = link.lost() => Err(Error::SessionExpired),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if is_refusal(&error) => return Err(Trouble::Refused(error)),
                Err(error) if attempt == ATTEMPTS_MAX => {
                    return Err(Trouble::Away(format!(
                        "the connection is lost again and again ({error}); requests of up to a mebibyte must be \
                         allowed (jute.maxbuffer)"
                    )));
                }
                Err(_) => attempt += 1,
            }
            tokio::time::sleep(ATTEMPT_PAUSE * attempt).await;
        }
    }
}

/// Whether a session that stands so is over.
pub(super) fn is_lost(standing: &watch::Receiver<Standing>) -> bool {
    *standing.borrow() == Standing::Lost || standing.has_changed().is_err()
}

async fn until_lost(standing: &watch::Receiver<Standing>) {
    let mut standing = standing.clone();
    // A sender that is gone is a session that is.
    let _lost = standing
        .wait_for(|standing| *standing == Standing::Lost)
        .await;
}

async fn ask_until_lost<T, F>(
    standing: &watch::Receiver<Standing>,
    ask: impl Fn() -> F,
) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        let answer = tokio::select! {
            biased;
            // First: a client that is closed answers at once, again and again.
            () = until_lost(standing) => return Err(lost()),
            answer = ask() => answer,
        };
        match answer {
            Ok(answer) => return Ok(answer),
            Err(error) if is_refusal(&error) => return Err(Trouble::Refused(error)),
            Err(error) => {
                debug!(%error, "asks again");
                tokio::time::sleep(ATTEMPT_PAUSE).await;
            }
        }
    }
}

pub(super) fn lost() -> Trouble {
    Trouble::Away("the session was lost".to_owned())
}

#[derive(Debug)]
struct Manager {
    settings: Arc<Checked>,
    states: watch::Sender<State>,
    closed: CancellationToken,
}

impl Manager {
    async fn run(self) {
        let closed = self.closed.clone();
        closed.run_until_cancelled(self.keep_connected()).await;
    }

    async fn keep_connected(&self) {
        let mut failures = 0;
        let mut pause = CONNECT_PAUSE;
        let mut said = Said::default();
        loop {
            let since = now();
            let reason = match self.connect().await {
                Ok(client) => {
                    pause = CONNECT_PAUSE;
                    said = Said::default();
                    self.greet(&client);
                    let (standing, seen) = watch::channel(Standing::Held);
                    self.states.send_replace(State::Up(Link {
                        client: client.clone(),
                        standing: seen,
                    }));
                    let end = Keeper::new(client, since, standing).keep().await;
                    warn!(end, "lost its session of ZooKeeper");
                    None
                }
                Err(trouble) => {
                    failures += 1;
                    let reason = trouble.to_string();
                    match trouble {
                        _ if !said.is_worth_saying(&reason, now()) => {
                            debug!(reason, "has no session of ZooKeeper yet");
                        }
                        Trouble::Away(_) => warn!(reason, failures, "has no session of ZooKeeper"),
                        Trouble::Refused(_) => {
                            error!(reason, failures, "ZooKeeper refuses this master");
                        }
                    }
                    Some(reason)
                }
            };
            let failed = reason.is_some();
            self.states
                .send_replace(State::Connecting { failures, reason });
            if failed {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(CONNECT_PAUSE_MAX);
            }
        }
    }

    /// Says which session there is, and where it is another than was asked for.
    fn greet(&self, client: &Client) {
        let (session, timeout) = (client.session_id(), client.session_timeout());
        let wanted = self.settings.session_timeout;
        if timeout == wanted {
            info!(%session, ?timeout, "has a session of ZooKeeper");
        } else {
            warn!(
                %session, ?timeout, ?wanted,
                "has a session of ZooKeeper, whose servers do not allow aloha.deploy.zookeeper.sessionTimeout: theirs holds"
            );
        }
    }

    async fn connect(&self) -> Result<Client, Trouble> {
        let settings = &*self.settings;
        let mut connector = Client::connector()
            .with_session_timeout(settings.session_timeout)
            .with_fail_eagerly();
        for (scheme, secret) in &settings.auth {
            connector = connector.with_auth(scheme, secret);
        }
        let client = match connector.connect(&settings.servers).await {
            Ok(client) => client,
            Err(Error::AuthFailed) => return Err(Trouble::Refused(Error::AuthFailed)),
            Err(_) => return Err(Trouble::Away(super::diagnosis::of(&settings.servers).await)),
        };
        // A server that has lost the others may go on answering pings.
        let made = tokio::time::timeout(settings.session_timeout, self.make_directory(&client));
        match made.await {
            Ok(made) => made.map(|()| client),
            Err(_) => Err(Trouble::Away(
                "the servers give sessions, but do not carry out a write".to_owned(),
            )),
        }
    }

    async fn make_directory(&self, client: &Client) -> Result<(), Trouble> {
        let latches = super::latches(&self.settings.root);
        let options = CreateMode::Persistent.with_acls(self.settings.acls());
        match client.mkdir(&latches, &options).await {
            Ok(()) => Ok(()),
            // Who may not create what is there already may still use it.
            Err(Error::NoAuth) if matches!(client.check_stat(&latches).await, Ok(Some(_))) => {
                Ok(())
            }
            Err(error) if is_refusal(&error) => Err(Trouble::Refused(error)),
            Err(error) => Err(Trouble::Away(error.to_string())),
        }
    }
}

/// Watches over one session.
struct Keeper {
    client: Client,
    timeout: Duration,
    /// The session was alive then, or later.
    alive: Instant,
    standing: watch::Sender<Standing>,
}

impl Keeper {
    fn new(client: Client, alive: Instant, standing: watch::Sender<Standing>) -> Self {
        Self {
            timeout: client.session_timeout(),
            client,
            alive,
            standing,
        }
    }

    /// Returns why it is lost.
    async fn keep(mut self) -> &'static str {
        let client = self.client.clone();
        let mut states = client.state_watcher();
        let mut state = client.state();
        let mut asked = now();
        let mut question = Some(Box::pin(client.sync("/")));
        let end = loop {
            let now = now();
            match state {
                SessionState::AuthFailed => break "authentication failed",
                SessionState::Expired => break "expired",
                SessionState::Closed => break "closed",
                _ if now >= self.alive + self.timeout => break "no sign of life within its timeout",
                SessionState::SyncConnected if now < self.alive + self.timeout / 2 => {
                    self.stand(Standing::Held);
                }
                _ => self.stand(Standing::Suspended),
            }
            let doubtful = self.alive + self.timeout / 2;
            let mut next = if now < doubtful {
                doubtful
            } else {
                self.alive + self.timeout
            };
            let ask_at = asked + self.timeout / 10;
            if question.is_none() {
                next = next.min(ask_at);
            }
            tokio::select! {
                biased;
                changed = states.changed() => {
                    state = changed;
                    if state == SessionState::SyncConnected {
                        asked = self::now();
                        question = Some(Box::pin(client.sync("/")));
                    }
                }
                answer = async { question.as_mut().expect("there is one").await }, if question.is_some() => {
                    question = None;
                    if answer.is_ok() {
                        self.alive = self.alive.max(asked);
                    }
                }
                () = tokio::time::sleep_until(next) => {
                    if question.is_none() && self::now() >= ask_at {
                        asked = self::now();
                        question = Some(Box::pin(client.sync("/")));
                    }
                }
            }
        };
        self.stand(Standing::Lost);
        end
    }

    fn stand(&self, standing: Standing) {
        self.standing.send_if_modified(|stands| {
            let changes = *stands != standing;
            let session = self.client.session_id();
            match standing {
                Standing::Suspended if changes => {
                    warn!(%session, "the session of ZooKeeper is in doubt");
                }
                Standing::Held if changes => {
                    info!(%session, "the session of ZooKeeper is in doubt no more");
                }
                _ => {}
            }
            *stands = standing;
            changes
        });
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "sessions of real servers have real timeouts"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_lost_is_asked_no_more() {
        let (standing, seen) = watch::channel(Standing::Suspended);
        let asked = ask_until_lost(&seen, async || Err::<(), _>(Error::SessionExpired));
        let end = async {
            tokio::time::sleep(ATTEMPT_PAUSE * 10).await;
            standing.send_replace(Standing::Lost);
        };
        let (answer, ()) =
            tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(asked, end) })
                .await
                .expect("it is not asked for ever");
        assert!(matches!(answer, Err(Trouble::Away(_))), "{answer:?}");
    }
}
