//! A session with the coordinator: opened, kept alive, and opened anew when it is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aloha_rpc::{AskError, RpcAddress, RpcCallContext, RpcEndpointRef, RpcEnv, Runtime};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::messages::{Answer, COORDINATOR, CoordinatorMessage, Seats};
use crate::election::{MasterAddress, Standing};
use crate::testing::SessionEnd;
use crate::testing::board::Board;

/// Before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(250);
/// How long who leads is asked at once.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// A session as it stands.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) standing: Arc<Board<Standing>>,
}

/// A master's way to the coordinator. Dropped, it closes its session.
#[derive(Debug)]
pub(super) struct Client {
    way: Arc<Way>,
    session: Arc<Board<Option<Session>>>,
    leader: Arc<Leader>,
    _tasks: DropGuard,
}

#[derive(Debug)]
struct Way {
    env: RpcEnv,
    coordinator: RpcAddress,
    timeout: Duration,
    end: SessionEnd,
}

/// There is no answer, and may be none.
#[derive(Debug)]
pub(super) struct Unanswered(pub(super) String);

impl Client {
    pub(super) fn start(
        env: &RpcEnv,
        coordinator: &RpcAddress,
        timeout: Duration,
        end: SessionEnd,
    ) -> Self {
        let way = Arc::new(Way {
            env: env.clone(),
            coordinator: coordinator.clone(),
            timeout,
            end,
        });
        let session = Arc::new(Board::default());
        let leader = Arc::new(Leader::default());
        let end = CancellationToken::new();
        let runtime = env.runtime();
        runtime.spawn(Box::pin(
            Arc::clone(&way).keep_sessions(Arc::clone(&session), end.clone()),
        ));
        let watching = Arc::clone(&way).watch_leader(Arc::clone(&session), Arc::clone(&leader));
        let watching = end.clone().run_until_cancelled_owned(watching);
        runtime.spawn(Box::pin(async move { watching.await.unwrap_or(()) }));
        Self {
            way,
            session,
            leader,
            _tasks: end.drop_guard(),
        }
    }

    pub(super) fn runtime(&self) -> &Arc<dyn Runtime> {
        self.way.env.runtime()
    }

    pub(super) fn timeout(&self) -> Duration {
        self.way.timeout
    }

    pub(super) fn leader(&self) -> watch::Receiver<Option<MasterAddress>> {
        self.leader.subscribe()
    }

    /// Waits for a session that is not known to be over.
    pub(super) async fn session(&self) -> Session {
        let session = self.session.wait_for(Option::is_some).await;
        session.expect("waited for")
    }

    /// Asks once.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        patience: Duration,
        question: impl FnOnce(RpcCallContext<T>) -> CoordinatorMessage,
    ) -> Result<T, Unanswered> {
        self.way.ask(patience, question).await
    }

    /// Asks, and after a lost connection again, until there is an answer or the session is over.
    pub(super) async fn insist<T: DeserializeOwned>(
        &self,
        session: &Session,
        question: impl Fn(RpcCallContext<Answer<T>>) -> CoordinatorMessage,
    ) -> Answer<T> {
        let over = session.standing.wait_for(|it| *it == Standing::Lost);
        let answered = async {
            loop {
                match self.way.ask(self.way.patience(), &question).await {
                    Ok(answer) => return answer,
                    Err(Unanswered(_)) => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        tokio::select! {
            biased;
            _ = over => Answer::Expired,
            answer = answered => answer,
        }
    }
}

impl Way {
    /// How long an answer may take before the connection is taken to be lost.
    fn patience(&self) -> Duration {
        self.timeout / 3
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        patience: Duration,
        question: impl FnOnce(RpcCallContext<T>) -> CoordinatorMessage,
    ) -> Result<T, Unanswered> {
        let asked = async {
            let found: RpcEndpointRef<CoordinatorMessage> = self
                .env
                .retrieve_endpoint_ref(&self.coordinator, COORDINATOR)
                .await
                .map_err(|error| Unanswered(error.to_string()))?;
            let answer = found.ask_for(patience, question).await;
            answer.map_err(|error: AskError| Unanswered(error.to_string()))
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Unanswered(format!("no answer within {patience:?}"))),
        }
    }

    async fn keep_sessions(
        self: Arc<Self>,
        sessions: Arc<Board<Option<Session>>>,
        end: CancellationToken,
    ) {
        let keeping = async {
            loop {
                self.keep_one(&sessions).await;
                sessions.set(None);
            }
        };
        tokio::select! {
            biased;
            () = end.cancelled() => {}
            () = keeping => {}
        }
        if let Some(Session { id, standing }) = sessions.get() {
            let session = id;
            standing.set(Standing::Lost);
            sessions.set(None);
            let close = |call| CoordinatorMessage::Close { session, call };
            // Where it does not get there, its time runs out.
            drop(self.ask::<()>(self.patience(), close).await);
        }
    }

    /// Opens a session, and keeps it until it is over.
    async fn keep_one(&self, sessions: &Board<Option<Session>>) {
        let timeout_millis = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let mut acknowledged = self.now();
        let open = |call| CoordinatorMessage::Open {
            timeout_millis,
            call,
        };
        let Ok(session) = self.ask(self.patience(), open).await else {
            return tokio::time::sleep(PAUSE).await;
        };
        let standing = Arc::new(Board::new(Standing::Held));
        sessions.set(Some(Session {
            id: session,
            standing: Arc::clone(&standing),
        }));
        let mut pause = self.timeout / 3;
        loop {
            let over_at = acknowledged + self.timeout;
            let next = self.now() + pause;
            let is_kept = self.end == SessionEnd::Told && over_at <= self.now();
            tokio::time::sleep_until(if is_kept { next } else { over_at.min(next) }).await;
            let sent = self.now();
            let left = over_at.saturating_duration_since(sent);
            let mut patience = self.patience();
            match self.end {
                SessionEnd::Noted if left.is_zero() => break,
                SessionEnd::Noted => patience = patience.min(left),
                SessionEnd::Told if left.is_zero() => standing.set(Standing::Suspended),
                SessionEnd::Told => {}
            }
            let ping = |call| CoordinatorMessage::Ping { session, call };
            match self.ask(patience, ping).await {
                Ok(Answer::Done(())) => {
                    acknowledged = sent;
                    pause = self.timeout / 3;
                    standing.set(Standing::Held);
                }
                Ok(_) => break,
                Err(Unanswered(_)) => {
                    pause = PAUSE;
                    standing.set(Standing::Suspended);
                }
            }
        }
        standing.set(Standing::Lost);
    }

    async fn watch_leader(
        self: Arc<Self>,
        sessions: Arc<Board<Option<Session>>>,
        leader: Arc<Leader>,
    ) {
        let mut known = 0;
        loop {
            let session = sessions.wait_for(Option::is_some).await;
            let session = session.expect("waited for").id;
            let patience_millis = u64::try_from(LEADER_PATIENCE.as_millis()).unwrap_or(u64::MAX);
            let ask = |call| CoordinatorMessage::Seats {
                session,
                known,
                patience_millis,
                call,
            };
            match self.ask(LEADER_PATIENCE + self.patience(), ask).await {
                Ok(Answer::Done(Seats { version, first })) => {
                    known = version;
                    leader.tell(first.map(|(_, candidate)| candidate));
                }
                Ok(_) | Err(Unanswered(_)) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn now(&self) -> Instant {
        self.env.runtime().now()
    }
}

/// Who leads, for each who wants to know apart, so that they hear of it in the order in which they asked.
#[derive(Debug, Default)]
struct Leader {
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    leader: Option<MasterAddress>,
    by: Vec<watch::Sender<Option<MasterAddress>>>,
}

impl Leader {
    fn subscribe(&self) -> watch::Receiver<Option<MasterAddress>> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, receiver) = watch::channel(heard.leader.clone());
        heard.by.push(sender);
        receiver
    }

    fn tell(&self, leader: Option<MasterAddress>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.by.retain(|by| !by.is_closed());
        if heard.leader != leader {
            for by in &heard.by {
                by.send_replace(leader.clone());
            }
            heard.leader = leader;
        }
    }
}
