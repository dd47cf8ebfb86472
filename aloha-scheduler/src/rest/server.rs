//! The accept loop of the REST server, and the bounds of what its clients may cost.
//!
//! ```text
//!   listener ─► room? ─► connection ─► request ─► place? ─► router
//!                 │                                 └─ none: 503
//!                 └─ none: close the connection that waits for its client the longest, else 503
//! ```
//!
//! One loop accepts, and at each pulse looks at all connections; they have no timers of their own.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::body::{BodyReader, WholeBody};
use super::connection;
use super::error::RestError;
use super::limits::RestLimits;
use super::places::{Places, RETRY_AFTER_MILLIS};
use super::watch::{Phase, Pulse, Watch};
use super::watched::WatchedBody;

/// How long requests under way may take once the server is asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long no connection is accepted once the system has refused one, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection must have waited for its client before it may be closed in favour of another.
const EVICTION_AGE: Duration = Duration::from_secs(1);
/// Connections that are told at once that there is no room for them; more are closed without a word.
const REFUSALS_MAX: usize = 256;
/// Connections beyond the limit that may be open while others leave.
const LEAVING_MAX: usize = 256;
/// How often the same trouble is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of a connection that are held between socket and router, in each direction.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Most headers that are parsed without a further allocation.
const HEADERS_ON_STACK: usize = 100;

/// Serves a router to clients that may be many, slow or malicious.
#[derive(Debug)]
pub struct RestServer {
    router: Router,
    shared: Arc<Shared>,
}

/// What a server is busy with right now.
#[derive(Debug, Clone)]
pub struct RestLoad(Arc<Shared>);

impl RestLoad {
    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.0.connections().len()
    }

    /// Requests that are worked on.
    pub fn requests(&self) -> usize {
        self.0.places.short_taken()
    }

    /// Requests that wait for news.
    pub fn long_requests(&self) -> usize {
        self.0.places.long_taken()
    }
}

impl RestServer {
    /// A server that keeps within these limits.
    pub fn new(router: Router, limits: RestLimits) -> Self {
        let shared = Arc::new(Shared::new(limits));
        Self { router, shared }
    }

    /// What it is busy with, also while it serves.
    pub fn load(&self) -> RestLoad {
        RestLoad(Arc::clone(&self.shared))
    }

    /// Serves until `stop` is cancelled. Then idle connections close, followed output breaks off, and requests under way
    /// may end, for a few seconds at most. Dropped, it ends all of them at once.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let Self { router, shared } = self;
        let router = TowerToHyperService::new(router);
        let mut accepting = Accepting {
            router,
            shared: Arc::clone(&shared),
            tasks: JoinSet::new(),
            next_id: 0,
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            crowd_log: Seldom::default(),
            accept_log: Seldom::default(),
        };
        accepting.run(listener, &stop).await;
        shared.stop();
        let mut tasks = accepting.tasks;
        let drained = async { while tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(DRAIN_TIMEOUT, drained).await);
    }
}

/// What the loop and all connections know of each other.
#[derive(Debug)]
pub(super) struct Shared {
    limits: RestLimits,
    http: http1::Builder,
    places: Places,
    bodies: BodyReader,
    pulse: Arc<Pulse>,
    pulse_interval: Duration,
    connections: Mutex<HashMap<u64, Arc<Watch>>>,
    is_stopping: AtomicBool,
    stopping: CancellationToken,
}

impl Shared {
    fn new(limits: RestLimits) -> Self {
        let mut http = http1::Builder::new();
        // The pulses do this, and cost nothing for each request.
        http.header_read_timeout(None);
        http.max_header_size(limits.header_bytes_max);
        http.max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES_MAX));
        if limits.headers_max != HEADERS_ON_STACK {
            http.max_headers(limits.headers_max);
        }
        let shortest = [
            limits.header_timeout,
            limits.idle_timeout,
            limits.write_timeout,
        ];
        let shortest = shortest.into_iter().min().unwrap_or_default();
        Self {
            limits,
            http,
            places: Places::new(&limits),
            bodies: BodyReader::new(limits),
            pulse: Arc::default(),
            pulse_interval: (shortest / 8)
                .clamp(Duration::from_millis(5), Duration::from_millis(500)),
            connections: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            stopping: CancellationToken::new(),
        }
    }

    pub(super) fn limits(&self) -> &RestLimits {
        &self.limits
    }

    pub(super) fn http(&self) -> &http1::Builder {
        &self.http
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// Reads a body; where all of them hold too much, the slowest makes room for those to come.
    pub(super) async fn read_body(&self, body: WatchedBody) -> Result<WholeBody, RestError> {
        let read = self.bodies.read(body).await;
        if matches!(read, Err(RestError::Busy { .. })) {
            self.evict(&self.connections(), |phase| phase == Phase::Body);
        }
        read
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    pub(super) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// What a client is told that is one too many.
    pub(super) fn crowded(&self) -> RestError {
        RestError::Busy {
            reason: format!(
                "{} connections are open already (aloha.master.rest.connectionsMax), try again",
                self.limits.connections_max
            ),
            retry_after_millis: RETRY_AFTER_MILLIS,
        }
    }

    /// Whether a connection has taken longer for something than it may.
    pub(super) fn is_overdue(&self, watch: &Watch) -> bool {
        let (phase, since) = watch.state();
        let limit = match phase {
            Phase::Idle => Some(self.limits.idle_timeout),
            Phase::Head => Some(self.limits.header_timeout),
            // Whoever reads a body has a timeout of its own, and an answer for it.
            Phase::Busy | Phase::Body | Phase::Answered | Phase::Closing => None,
        };
        limit.is_some_and(|limit| self.is_past(since, limit))
            || watch
                .stalled_since()
                .is_some_and(|since| self.is_past(since, self.limits.write_timeout))
    }

    /// Whether so much time has passed since a pulse, and not a moment less.
    fn is_past(&self, since: u64, limit: Duration) -> bool {
        let pulses = limit.as_nanos().div_ceil(self.pulse_interval.as_nanos());
        // What happened after a pulse bears its number too.
        u128::from(self.pulse.now().saturating_sub(since)) > pulses
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Watch>>> {
        // Nobody panics while holding it.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a pulse, and wakes whoever took too long.
    fn beat(&self) {
        self.pulse.beat();
        for watch in self.connections().values() {
            if self.is_overdue(watch) {
                watch.wake();
            }
        }
    }

    /// Whether one more fits in, or some connection makes room for it: those that wait for their client the longest do.
    fn has_room(&self) -> bool {
        let connections = self.connections();
        let connections_max = self.limits.connections_max;
        if connections.len() < connections_max {
            return true;
        }
        // Those that are told why they leave take a moment.
        if connections.len() >= connections_max + LEAVING_MAX {
            return false;
        }
        let staying = connections.values().filter(|watch| !watch.is_leaving());
        staying.count() < connections_max || self.evict(&connections, |_| true)
    }

    /// Closes the connections of some phases that wait for their client the longest: one in a hundred, so that a crowd is
    /// not looked through for each of its members. Says whether there are any.
    fn evict(
        &self,
        connections: &HashMap<u64, Arc<Watch>>,
        is_meant: impl Fn(Phase) -> bool,
    ) -> bool {
        let mut waiting: Vec<_> = connections
            .iter()
            .filter(|(_, watch)| is_meant(watch.phase()) && !watch.is_leaving())
            .filter_map(|(id, watch)| Some((watch.waits_since()?, id, watch)))
            .filter(|(since, ..)| self.is_past(*since, EVICTION_AGE))
            .collect();
        waiting.sort_unstable_by_key(|(since, id, _)| (*since, *id));
        let few = (waiting.len() / 100).max(1);
        for (_, _, watch) in waiting.iter().take(few) {
            watch.evict();
        }
        !waiting.is_empty()
    }

    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.stopping.cancel();
        for watch in self.connections().values() {
            watch.wake();
        }
    }
}

/// A connection on the list of all, until dropped.
struct Listed {
    id: u64,
    watch: Arc<Watch>,
    shared: Arc<Shared>,
}

impl Listed {
    fn new(id: u64, shared: Arc<Shared>) -> Self {
        let watch = Arc::new(Watch::new(Arc::clone(&shared.pulse)));
        shared.connections().insert(id, Arc::clone(&watch));
        Self { id, watch, shared }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.connections().remove(&self.id);
    }
}

/// The accept loop.
struct Accepting {
    router: TowerToHyperService<Router>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    next_id: u64,
    refusals: Arc<Semaphore>,
    crowd_log: Seldom,
    accept_log: Seldom,
}

impl Accepting {
    async fn run(&mut self, listener: TcpListener, stop: &CancellationToken) {
        let mut pulses = interval(self.shared.pulse_interval);
        // Pulses may be further apart than they should, never closer: nobody gets less time than is due.
        pulses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = pin!(tokio::time::sleep(Duration::ZERO));
        let mut is_paused = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
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
        set_up(&stream, self.shared.limits.write_timeout);
        let listed = Listed::new(self.next_id, Arc::clone(&self.shared));
        self.next_id += 1;
        let router = self.router.clone();
        self.tasks.spawn(async move {
            connection::serve(stream, &listed.watch, &router, &listed.shared).await;
        });
    }

    fn turn_away(&mut self, stream: TcpStream) {
        if let Some(times) = self.crowd_log.times(&self.shared) {
            let connections_max = self.shared.limits.connections_max;
            warn!(connections_max, times, "REST turned connections away");
        }
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else {
            return;
        };
        let last = self.shared.crowded();
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
        self.logged_at = Some(shared.pulse.now());
        Some(std::mem::take(&mut self.times))
    }
}
