//! The REST server, and the bounds of what its clients may cost.
//!
//! ```text
//!   listener ─► room? ─► connection ─► request ─► place? ─► router
//!                 │                                 └─ none: 503
//!                 └─ none: close the connection that waits for its client the longest, else 503
//! ```
//!
//! Connections have no timers: all of them are looked at with each pulse.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::request::Parts;
use hyper::server::conn::http1;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::accepting::Accepting;
use super::body::{BodyReader, WholeBody};
use super::budget::{Budget, Share};
use super::error::RestError;
use super::gateway::SubmissionGateway;
use super::guard::RestGuard;
use super::limits::RestLimits;
use super::places::{Places, RETRY_AFTER_MILLIS};
use super::routes;
use super::watch::{Phase, Pulse, Watch};
use super::watched::{SLICE_BYTES, WatchedBody};

/// How long requests under way may take once the server is asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection must have waited for its client before it may be closed in favour of another.
const EVICTION_AGE: Duration = Duration::from_secs(1);
/// Connections beyond the limit that may be open while others leave.
const LEAVING_MAX: usize = 256;
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
    /// A server that puts to `gateway` what `guard` lets pass, within these limits.
    pub fn new(gateway: Arc<dyn SubmissionGateway>, guard: RestGuard, limits: RestLimits) -> Self {
        let router = routes(gateway, guard.wants_token(), limits);
        let shared = Arc::new(Shared::new(Some(guard), limits));
        Self { router, shared }
    }

    /// A server of other routes, which nobody guards, within these limits.
    pub fn of_routes(router: Router, limits: RestLimits) -> Self {
        let shared = Arc::new(Shared::new(None, limits));
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
        let accepting = Accepting::new(router, Arc::clone(&shared));
        let mut tasks = accepting.run(listener, &stop).await;
        shared.stop();
        let drained = async { while tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(DRAIN_TIMEOUT, drained).await);
    }
}

/// What the loop and all connections know of each other.
#[derive(Debug)]
pub(super) struct Shared {
    guard: Option<RestGuard>,
    limits: RestLimits,
    http: http1::Builder,
    places: Places,
    bodies: BodyReader,
    answers: Budget,
    pulse: Arc<Pulse>,
    pulse_interval: Duration,
    connections: Mutex<HashMap<u64, Arc<Watch>>>,
    is_stopping: AtomicBool,
    stopping: CancellationToken,
}

impl Shared {
    fn new(guard: Option<RestGuard>, limits: RestLimits) -> Self {
        let mut http = http1::Builder::new();
        // The pulses do this, and cost nothing for each request.
        http.header_read_timeout(None);
        http.max_header_size(limits.header_bytes_max);
        http.max_buf_size(limits.header_bytes_max.max(SLICE_BYTES));
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
            guard,
            limits,
            http,
            places: Places::new(&limits),
            bodies: BodyReader::new(limits),
            answers: Budget::new(limits.answers_bytes_max),
            pulse: Arc::default(),
            pulse_interval: (shortest / 8)
                .clamp(Duration::from_millis(5), Duration::from_millis(500)),
            connections: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            stopping: CancellationToken::new(),
        }
    }

    /// Whether a request is heard: asked before anything of its body is read.
    pub(super) fn check(&self, head: &Parts) -> Result<(), RestError> {
        let guard = self.guard.as_ref();
        guard.map_or(Ok(()), |guard| {
            guard.check(head.version, &head.uri, &head.headers)
        })
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    pub(super) fn pulse_interval(&self) -> Duration {
        self.pulse_interval
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

    /// The share of a large answer in what all of them may hold; where that is too much, the one that is taken the slowest
    /// makes room for those to come.
    pub(super) fn share_of(&self, answer: &Body) -> Result<Option<Share>, RestError> {
        let bytes = answer.size_hint().exact();
        let bytes = bytes.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if bytes <= SLICE_BYTES {
            return Ok(None);
        }
        let mut share = self.answers.share();
        if share.grow(bytes) {
            return Ok(Some(share));
        }
        self.evict(&self.connections(), |phase| phase == Phase::Busy);
        Err(RestError::Busy {
            reason: format!(
                "answers that wait to be read hold {} bytes already (aloha.master.rest.answersBytesMax), try again",
                self.limits.answers_bytes_max
            ),
            retry_after_millis: RETRY_AFTER_MILLIS,
        })
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
    pub(super) fn is_past(&self, since: u64, limit: Duration) -> bool {
        let pulses = limit.as_nanos().div_ceil(self.pulse_interval.as_nanos());
        // What happened after a pulse bears its number too.
        u128::from(self.pulse.now().saturating_sub(since)) > pulses
    }

    /// The connections that are open, by the order in which they came.
    pub(super) fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Watch>>> {
        // Nobody panics while holding it.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a pulse, and wakes whoever took too long.
    pub(super) fn beat(&self) {
        self.pulse.beat();
        for watch in self.connections().values() {
            if self.is_overdue(watch) {
                watch.wake();
            }
        }
    }

    /// Whether one more fits in, or some connection makes room for it: those that wait for their client the longest do.
    pub(super) fn has_room(&self) -> bool {
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
    pub(super) fn evict(
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
