use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::client::{Client, Session, Unanswered};
use super::messages::{Answer, CoordinatorMessage, Seats};
use crate::election::{ElectionError, LeaderElectionAgent, Leadership, MasterAddress, Standing};

/// How long one question about the seats stays open.
const PATIENCE: Duration = Duration::from_secs(5);

/// An election in which the one that has stood longest leads. See [`CoordinatedMaster`](super::CoordinatedMaster).
#[derive(Debug)]
pub struct CoordinatedElection {
    client: Arc<Client>,
}

/// A place among those who stand. Dropped, it is left.
#[derive(Debug)]
struct Place {
    client: Arc<Client>,
    session: Session,
    token: u64,
}

impl CoordinatedElection {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// Waits until this seat is the first.
    async fn wait_for_turn(&self, session: &Session, seat: u64) -> Result<(), ElectionError> {
        let mut known = 0;
        loop {
            let id = session.id;
            let ask = self
                .client
                .ask(PATIENCE + self.client.timeout() / 3, |call| {
                    CoordinatorMessage::Seats {
                        session: id,
                        known,
                        patience_millis: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
                        call,
                    }
                });
            let lost = session.standing.wait_for(|it| *it == Standing::Lost);
            let answer = tokio::select! {
                biased;
                _ = lost => return Err(over()),
                answer = ask => answer,
            };
            match answer {
                Ok(Answer::Done(Seats { version, first })) => {
                    known = version;
                    if first.is_some_and(|(first, _)| first == seat) {
                        return Ok(());
                    }
                }
                Ok(_) => return Err(over()),
                Err(Unanswered(_)) => tokio::time::sleep(Duration::from_millis(250)).await,
            }
        }
    }
}

#[async_trait]
impl LeaderElectionAgent for CoordinatedElection {
    async fn campaign(&self, candidate: &MasterAddress) -> Result<Leadership, ElectionError> {
        let session = self.client.session().await;
        let place = Place {
            client: Arc::clone(&self.client),
            session: session.clone(),
            token: self.client.runtime().random_u64(),
        };
        let (id, token) = (session.id, place.token);
        let stand = |call| CoordinatorMessage::Stand {
            session: id,
            token,
            candidate: candidate.clone(),
            call,
        };
        let Answer::Done(seat) = self.client.insist(&session, stand).await else {
            return Err(over());
        };
        self.wait_for_turn(&session, seat).await?;
        let (sender, standing) = watch::channel(session.standing.get());
        let runtime = Arc::clone(self.client.runtime());
        runtime.spawn(Box::pin(place.hold(sender)));
        Ok(Leadership {
            epoch: seat,
            standing,
        })
    }

    fn leader(&self) -> watch::Receiver<Option<MasterAddress>> {
        self.client.leader()
    }
}

impl Place {
    /// Tells how the leadership stands, for as long as somebody wants to know.
    async fn hold(self, leadership: watch::Sender<Standing>) {
        let session = &self.session.standing;
        loop {
            let before = *leadership.borrow();
            tokio::select! {
                biased;
                () = leadership.closed() => return,
                standing = session.wait_for(|it| *it != before) => {
                    leadership.send_replace(standing);
                }
            }
            if *leadership.borrow() == Standing::Lost {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (client, session, token) = (Arc::clone(&self.client), self.session.clone(), self.token);
        let id = session.id;
        let runtime = Arc::clone(client.runtime());
        runtime.spawn(Box::pin(async move {
            let leave = |call| CoordinatorMessage::Leave {
                session: id,
                token,
                call,
            };
            drop(client.insist(&session, leave).await);
        }));
    }
}

fn over() -> ElectionError {
    ElectionError {
        reason: "the session with the coordinator is over".to_owned(),
    }
}
