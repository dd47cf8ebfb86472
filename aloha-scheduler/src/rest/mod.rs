//! The REST server: the protocol of Spark's submission server, over HTTP.
//!
//! ```text
//!   request ─► guard (Host, Origin, token) ─► route ─► protocol (validation) ─► SubmissionGateway
//!      ▲                                                                              │
//!      └────────────────────── JSON, also for every error ◄───────────────────────────┘
//! ```
//!
//! Beside it, the output of applications is read and followed, which is no JSON.
//!
//! The master stands behind [`SubmissionGateway`], so that nothing here knows of RPC or of the master's state.

mod body;
mod connection;
mod error;
mod gateway;
mod guard;
mod limits;
mod logs;
mod master_gateway;
mod places;
mod policy;
mod protocol;
mod reply;
mod server;
mod watch;
mod watched;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use error::RestError;
pub use gateway::{
    GatewayError, KillAnswer, LogPiece, LogSource, SubmissionGateway, SubmissionStatus,
    SubmitAnswer,
};
pub use guard::{ExposureError, RestGuard, RestToken, TokenError};
pub use limits::RestLimits;
use protocol::{CreateRequest, VERSION};
use reply::Reply;
pub use server::{RestLoad, RestServer};

/// Everything a handler needs.
#[derive(Debug, Clone)]
struct Server {
    gateway: Arc<dyn SubmissionGateway>,
}

/// Makes the routes of the REST server.
pub fn rest_router(
    gateway: Arc<dyn SubmissionGateway>,
    guard: RestGuard,
    limits: RestLimits,
) -> Router {
    Router::new()
        .fallback(handle)
        .layer(DefaultBodyLimit::max(limits.body_bytes_max))
        .layer(axum::middleware::from_fn_with_state(
            Arc::new(guard),
            guard::check,
        ))
        .with_state(Server { gateway })
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route<'a> {
    Create,
    Kill(&'a str),
    Status(&'a str),
    Ready,
    Logs(&'a str),
}

impl Route<'_> {
    fn method(self) -> Method {
        match self {
            Self::Create | Self::Kill(_) => Method::POST,
            Self::Status(_) | Self::Ready | Self::Logs(_) => Method::GET,
        }
    }
}

/// Reads a path. What follows the segments that are needed is ignored, as Spark does.
fn route(path: &str) -> Result<Route<'_>, RestError> {
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
    match segments.next().unwrap_or_default() {
        "" => return Err(RestError::Malformed("the path names no version".into())),
        version if version != VERSION => {
            return Err(RestError::UnknownVersion(version.to_owned()));
        }
        _ => {}
    }
    match segments.next() {
        Some("submissions") => {}
        Some("applications") => return route_of_application(path, segments),
        _ => {
            let text = format!(
                "unknown path {path}, expected /{VERSION}/submissions/… or /{VERSION}/applications/…"
            );
            return Err(RestError::Malformed(text));
        }
    }
    let action = segments.next().unwrap_or_default();
    let id = segments.next().unwrap_or_default();
    match (action, id) {
        ("create", _) => Ok(Route::Create),
        ("readyz", _) => Ok(Route::Ready),
        ("kill" | "status", "") => Err(RestError::Malformed(format!(
            "the submission id is missing in {path}"
        ))),
        ("kill", id) => Ok(Route::Kill(id)),
        ("status", id) => Ok(Route::Status(id)),
        _ => Err(RestError::Malformed(format!(
            "unknown path {path}, expected create, kill, status or readyz below /{VERSION}/submissions"
        ))),
    }
}

/// Reads what follows `applications`.
fn route_of_application<'a>(
    path: &str,
    mut segments: impl Iterator<Item = &'a str>,
) -> Result<Route<'a>, RestError> {
    match (segments.next().unwrap_or_default(), segments.next()) {
        (id, Some("logs")) if !id.is_empty() => Ok(Route::Logs(id)),
        _ => Err(RestError::Malformed(format!(
            "unknown path {path}, expected /{VERSION}/applications/ID/logs"
        ))),
    }
}

async fn handle(State(server): State<Server>, request: Request) -> Response {
    match server.answer(request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

impl Server {
    async fn answer(&self, request: Request) -> Result<Response, RestError> {
        let path = request.uri().path().to_owned();
        let route = route(&path)?;
        let expected = route.method();
        if request.method() != expected {
            return Err(RestError::WrongMethod { expected });
        }
        let reply = match route {
            Route::Create => {
                // It is here as a whole already.
                let body = Bytes::from_request(request, &()).await;
                let body = body.map_err(|error| RestError::Malformed(error.body_text()))?;
                let CreateRequest {
                    submission,
                    unknown_fields,
                } = protocol::create_request(&body).map_err(RestError::Malformed)?;
                let answer = self.gateway.submit(submission).await?;
                Reply::created(answer, unknown_fields)
            }
            Route::Kill(id) => Reply::killed(id, self.gateway.kill(id).await?),
            Route::Status(id) => Reply::status(id, self.gateway.status(id).await?),
            Route::Ready => {
                self.gateway.ready().await?;
                Reply::ready()
            }
            Route::Logs(id) => return logs::answer(&*self.gateway, id, request.uri()).await,
        };
        Ok(reply.into_response(StatusCode::OK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_segments_are_ignored_and_the_first_is_the_id() {
        assert!(matches!(route("/v1/submissions/create"), Ok(Route::Create)));
        assert!(matches!(
            route("/v1/submissions/create/x/y"),
            Ok(Route::Create)
        ));
        assert!(matches!(
            route("/v1/submissions/kill/a/b/"),
            Ok(Route::Kill("a"))
        ));
        assert!(matches!(
            route("/v1/submissions/status/a"),
            Ok(Route::Status("a"))
        ));
        assert!(matches!(route("/v1/submissions/readyz"), Ok(Route::Ready)));
        assert!(matches!(
            route("/v1/applications/a/logs/"),
            Ok(Route::Logs("a"))
        ));
    }

    #[test]
    fn an_unknown_version_is_told_apart_from_an_unknown_path() {
        for path in [
            "/",
            "",
            "//",
            "/v1",
            "/v1/",
            "/v1/submissions",
            "/v1/submissions/",
            "/v1/submissions/bad",
            "/v1/submissions/kill",
            "/v1/submissions/kill/",
            "/v1/submissions/status//x",
            "/v1/apps",
            "/v1/applications",
            "/v1/applications//logs",
            "/v1/applications/a",
            "/v1/applications/a/log",
        ] {
            assert!(
                matches!(route(path), Err(RestError::Malformed(_))),
                "{path}"
            );
        }
        for path in ["/bad-version", "/v2/submissions/create", "/V1"] {
            assert!(
                matches!(route(path), Err(RestError::UnknownVersion(_))),
                "{path}"
            );
        }
    }
}
