//! The REST server: the protocol of Spark's submission server, and Aloha's own resources beside it.
//!
//! ```text
//!   request ─► guard (Host, Origin, token) ─► submissions (Spark's protocol) ─► SubmissionGateway
//!      ▲                                  └─► api (applications, workers, …) ─────────┤
//!      └──────────────── JSON, also for every error; output as it is ◄────────────────┘
//! ```
//!
//! The master stands behind [`SubmissionGateway`], so that nothing here knows of RPC or of the master's state.

mod api;
mod error;
mod gateway;
mod guard;
mod idempotency;
mod master_gateway;
mod submissions;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use error::RestError;
pub use gateway::{GatewayError, LogPiece, LogSource, SubmissionGateway};
pub use guard::{ExposureError, RestGuard, RestToken, TokenError};

/// The only version of both protocols, as it stands in paths.
const VERSION: &str = "v1";

/// How long requests under way may take once the server is asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a REST server may spend on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestLimits {
    /// Largest body.
    pub body_bytes_max: usize,
    /// How long the body may take to arrive.
    pub body_timeout: Duration,
}

/// Everything a handler needs.
#[derive(Debug, Clone)]
struct Server {
    gateway: Arc<dyn SubmissionGateway>,
    limits: RestLimits,
    /// The OpenAPI document.
    document: Bytes,
}

/// Makes the routes of the REST server.
pub fn rest_router(
    gateway: Arc<dyn SubmissionGateway>,
    guard: RestGuard,
    limits: RestLimits,
) -> Router {
    let (resources, document) = api::routes(guard.wants_token());
    Router::new()
        .merge(resources)
        .fallback(submissions::handle)
        .layer(DefaultBodyLimit::max(limits.body_bytes_max))
        .layer(axum::middleware::from_fn_with_state(
            Arc::new(guard),
            guard::check,
        ))
        .with_state(Server {
            gateway,
            limits,
            document,
        })
}

/// Serves until `stop` is cancelled, then lets requests under way end, for a few seconds at most.
///
/// # Errors
///
/// Only where the listener is unusable; a failing connection concerns nobody else.
pub async fn serve_rest(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(stop.clone().cancelled_owned())
        .into_future();
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        ended = server => ended,
        () = overdue => Ok(()),
    }
}

impl Server {
    /// Reads the body, whatever its content type says.
    async fn body(&self, request: Request) -> Result<Bytes, RestError> {
        let limits = self.limits;
        let body = Bytes::from_request(request, &());
        match tokio::time::timeout(limits.body_timeout, body).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(refused)) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(RestError::TooLarge {
                    bytes_max: limits.body_bytes_max,
                })
            }
            Ok(Err(refused)) => Err(RestError::Malformed(refused.body_text())),
            Err(_) => Err(RestError::TooSlow {
                timeout: limits.body_timeout,
            }),
        }
    }
}
