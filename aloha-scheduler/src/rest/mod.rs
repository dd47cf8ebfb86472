//! The REST server: the protocol of Spark's submission server, and Aloha's own resources beside it.
//!
//! ```text
//!   request ─► guard (Host, Origin, token) ─► submissions (Spark's protocol) ─► SubmissionGateway
//!      ▲                                  └─► api (applications, workers, …) ─────────┤
//!      └──────────────── JSON, also for every error; output as it is ◄────────────────┘
//! ```
//!
//! The master stands behind [`SubmissionGateway`], so that nothing here knows of RPC or of the master's state.

mod accepting;
mod api;
mod body;
mod budget;
mod connection;
mod error;
mod gateway;
mod guard;
mod idempotency;
mod limits;
mod master_gateway;
mod panics;
mod places;
mod server;
mod standby;
mod submissions;
mod watch;
mod watched;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request};

use error::RestError;
pub use gateway::{GatewayError, LogPiece, LogSource, SubmissionGateway};
pub use guard::{ExposureError, RestGuard, RestToken, TokenError};
pub use limits::RestLimits;
pub use server::{RestLoad, RestServer};

use crate::app::AppDescription;
use crate::ids::AppId;
use crate::messages::SubmitAnswer;

/// The only version of both protocols, as it stands in paths.
const VERSION: &str = "v1";

/// Everything a handler needs.
#[derive(Debug, Clone)]
struct Server {
    gateway: Arc<dyn SubmissionGateway>,
    /// The OpenAPI document.
    document: Bytes,
}

/// Makes the routes of the REST server, which nobody guards yet.
fn routes(gateway: Arc<dyn SubmissionGateway>, wants_token: bool, limits: RestLimits) -> Router {
    let (resources, document) = api::routes(wants_token);
    Router::new()
        .merge(resources)
        .fallback(submissions::handle)
        .layer(DefaultBodyLimit::max(limits.body_bytes_max))
        .layer(axum::middleware::from_fn(standby::add_location))
        .layer(axum::middleware::from_fn(panics::answer))
        .with_state(Server { gateway, document })
}

impl Server {
    /// The body, whatever its content type says; the server has it as a whole before a request gets here.
    async fn body(&self, request: Request) -> Result<Bytes, RestError> {
        let body = Bytes::from_request(request, &()).await;
        body.map_err(|refused| RestError::Malformed(refused.body_text()))
    }

    /// The application that it is now, or why it never will be one.
    async fn submit(
        &self,
        submission: AppDescription,
        key: Option<&str>,
    ) -> Result<Result<AppId, String>, RestError> {
        match self.gateway.submit(submission, key).await? {
            SubmitAnswer::Accepted { app } => Ok(Ok(app)),
            SubmitAnswer::Refused { reason } => Ok(Err(reason)),
            SubmitAnswer::Busy {
                reason,
                retry_after_millis,
            } => Err(RestError::Busy {
                reason,
                retry_after_millis,
            }),
            SubmitAnswer::KeyReused { app } => Err(RestError::KeyReused(app)),
        }
    }
}
