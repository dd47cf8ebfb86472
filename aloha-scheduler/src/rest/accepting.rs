//! The accept loop of the REST server.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::connection;
use super::server::Shared;
use super::watch::Watch;

/// How long no connection is accepted once the system has refused one, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that are told at once that there is no room for them; more are closed without a word.
const REFUSALS_MAX: usize = 256;
/// How often the same trouble is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A connection on the list of all, until dropped.
struct Listed {
    id: u64,
    watch: Arc<Watch>,
    shared: Arc<Shared>,
}

impl Listed {
    fn new(id: u64, shared: Arc<Shared>) -> Self {
        let watch = Arc::new(Watch::new(Arc::clone(shared.pulse())));
        shared.connections().insert(id, Arc::clone(&watch));
        Self { id, watch, shared }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.connections().remove(&self.id);
    }
}

/// The accept loop, which counts the pulses too.
pub(super) struct Accepting {
    router: TowerToHyperService<Router>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    next_id: u64,
    refusals: Arc<Semaphore>,
    crowd_log: Seldom,
    accept_log: Seldom,
}

impl Accepting {
    pub(super) fn new(router: Router, shared: Arc<Shared>) -> Self {
        Self {
            router: TowerToHyperService::new(router),
            shared,
            tasks: JoinSet::new(),
            next_id: 0,
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            crowd_log: Seldom::default(),
            accept_log: Seldom::default(),
        }
    }

    /// Accepts connections until it is stopped; gives those that are left.
    pub(super) async fn run(
        mut self,
        listener: TcpListener,
        stop: &CancellationToken,
    ) -> JoinSet<()> {
        let mut pulses = interval(self.shared.pulse_interval());
        // Pulses may be further apart than they should, never closer: nobody gets less time than is due.
        pulses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = pin!(tokio::time::sleep(Duration::ZERO));
        let mut is_paused = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.tasks,
                _ = pulses.tick(), if !self.tasks.is_empty() => self.shared.beat(),
                Some(ended) = self.tasks.join_next() => if let Err(error) = ended {
                    error!(%error, "a connection to REST broke off");
                },
                () = &mut pause, if is_paused => is_paused = false,
                accepted = listener.accept(), if !is_paused => match accepted {
                    Ok((stream, _)) => self.take_in(stream),
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(error) => {
                        self.on_refused_by_system(&error);
                        pause.set(tokio::time::sleep(ACCEPT_PAUSE));
                        is_paused = true;
                    }
                },
            }
        }
    }

    fn take_in(&mut self, stream: TcpStream) {
        if !self.shared.has_room() {
            self.turn_away(stream);
            return;
        }
        set_up(&stream, self.shared.limits().write_timeout);
        let listed = Listed::new(self.next_id, Arc::clone(&self.shared));
        self.next_id += 1;
        let router = self.router.clone();
        self.tasks.spawn(async move {
            connection::serve(stream, &listed.watch, &router, &listed.shared).await;
        });
    }

    fn turn_away(&mut self, stream: TcpStream) {
        if let Some(times) = self.crowd_log.times(&self.shared) {
            let connections_max = self.shared.limits().connections_max;
            warn!(connections_max, times, "REST turned connections away");
        }
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else {
            return;
        };
        let last = self.shared.crowded().to_bytes(false);
        self.tasks.spawn(async move {
            connection::part(stream, Some(last)).await;
            drop(permit);
        });
    }

    /// The system is short of something. Nothing is gained by asking again at once, but by closing what is not used.
    fn on_refused_by_system(&mut self, error: &io::Error) {
        if let Some(times) = self.accept_log.times(&self.shared) {
            warn!(%error, times, "REST cannot accept connections");
        }
        let shared = &self.shared;
        shared.evict(&shared.connections(), |_| true);
    }
}

/// Whether only the connection is lost that was to be accepted.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Has answers sent at once, and a client noticed that is gone without a word while its answer waits for news: silence
/// as long as the longest that is allowed, and then as much again in which it does not say that it is there.
fn set_up(stream: &TcpStream, silence_max: Duration) {
    const PROBES: u32 = 4;
    // The system takes whole seconds, up to nine hours.
    let silence_max = silence_max.clamp(Duration::from_secs(4), Duration::from_secs(3600));
    // All of this fails where the connection is gone already, which it says itself.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, silence_max);
    let _ = sockopt::set_tcp_keepintvl(stream, silence_max / PROBES);
    let _ = sockopt::set_tcp_keepcnt(stream, PROBES);
}

/// Trouble that comes often and is logged seldom.
#[derive(Debug, Default)]
struct Seldom {
    logged_at: Option<u64>,
    times: u64,
}

impl Seldom {
    /// Counts it; how often it came since it was logged last, if it is to be logged now.
    fn times(&mut self, shared: &Shared) -> Option<u64> {
        self.times += 1;
        if self
            .logged_at
            .is_some_and(|at| !shared.is_past(at, LOG_INTERVAL))
        {
            return None;
        }
        self.logged_at = Some(shared.pulse().now());
        Some(std::mem::take(&mut self.times))
    }
}
