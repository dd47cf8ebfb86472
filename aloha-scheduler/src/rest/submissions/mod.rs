//! The protocol of Spark's submission server, and what becomes of every path that nobody else answers.
//!
//! It is spoken in two dialects. A create request has the original's form or Spark's, and an application is asked for as
//! `app-…` or, with Spark's words in the answer, as `driver-…`.

mod create;
mod driver_id;
mod layout;
mod openapi;
mod policy;
mod reply;
mod spark;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

pub(super) use self::create::{CORES_MAX, CreateRequest, MEMORY_MIB_MAX, application};
use self::driver_id::app_of;
pub(super) use self::openapi::describe;
pub(super) use self::reply::Reply;
use super::api;
use super::error::RestError;
use super::gateway::GatewayError;
use super::idempotency::idempotency_key;
use super::{Server, VERSION};
use crate::app::AppStatus;
use crate::messages::KillAnswer;

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route<'a> {
    Create,
    Kill(&'a str),
    Status(&'a str),
    KillAll,
    Clear,
    Ready,
}

impl Route<'_> {
    fn method(self) -> Method {
        match self {
            Self::Create | Self::Kill(_) | Self::KillAll | Self::Clear => Method::POST,
            Self::Status(_) | Self::Ready => Method::GET,
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
    if segments.next() != Some("submissions") {
        let text = format!(
            "unknown path {path}, expected one below /{VERSION}/submissions, or one of those that \
             /{VERSION}/openapi.json describes"
        );
        return Err(RestError::Malformed(text));
    }
    let action = segments.next().unwrap_or_default();
    let id = segments.next().unwrap_or_default();
    match (action, id) {
        ("create", _) => Ok(Route::Create),
        ("killall", _) => Ok(Route::KillAll),
        ("clear", _) => Ok(Route::Clear),
        ("readyz", _) => Ok(Route::Ready),
        ("kill" | "status", "") => Err(RestError::Malformed(format!(
            "the submission id is missing in {path}"
        ))),
        ("kill", id) => Ok(Route::Kill(id)),
        ("status", id) => Ok(Route::Status(id)),
        _ => Err(RestError::Malformed(format!(
            "unknown path {path}, expected create, kill, killall, status, clear or readyz below /{VERSION}/submissions"
        ))),
    }
}

/// Answers by the rules of Spark's server.
pub(super) async fn handle(State(server): State<Server>, request: Request) -> Response {
    if api::is_own(request.uri().path()) {
        return api::nothing_there(request.uri());
    }
    match answer(&server, request).await {
        Ok(reply) => reply.into_response(StatusCode::OK),
        Err(error) => error.into_response(),
    }
}

async fn answer(server: &Server, request: Request) -> Result<Reply, RestError> {
    let path = request.uri().path().to_owned();
    let route = route(&path)?;
    let expected = route.method();
    // As everywhere in HTTP, who may GET may also ask for nothing but the head.
    let method = match request.method() {
        &Method::HEAD => &Method::GET,
        method => method,
    };
    if *method != expected {
        return Err(RestError::WrongMethod { expected });
    }
    match route {
        Route::Create => create(server, request).await,
        Route::Kill(id) => Ok(Reply::killed(id, kill(server, id).await?)),
        Route::Status(id) => Ok(Reply::status(id, status(server, id).await?)),
        Route::KillAll => Ok(Reply::killed_all(server.gateway.kill_all().await?)),
        Route::Clear => Ok(Reply::cleared(server.gateway.clear().await?)),
        Route::Ready => match server.gateway.ready().await {
            // Why not is in the log; probes know Spark's words.
            Err(GatewayError::NotReady { .. } | GatewayError::Standby { .. }) => {
                Err(RestError::Gateway(GatewayError::NotReady {
                    reason: "Master is not ready.".to_owned(),
                }))
            }
            ready => Ok(ready.map(|()| Reply::ready())?),
        },
    }
}

async fn create(server: &Server, request: Request) -> Result<Reply, RestError> {
    let key = idempotency_key(request.headers())?;
    let body = server.body(request).await?;
    let CreateRequest {
        dialect,
        submission,
        unknown_fields,
    } = create::create_request(&body).map_err(RestError::Malformed)?;
    let answer = server.submit(submission, key.as_deref()).await?;
    Ok(Reply::created(dialect, answer, unknown_fields))
}

async fn kill(server: &Server, id: &str) -> Result<KillAnswer, RestError> {
    match app_of(id) {
        Some(app) => Ok(server.gateway.kill(app).await?),
        None => Ok(KillAnswer {
            success: false,
            message: format!("there is no application {id}"),
        }),
    }
}

async fn status(server: &Server, id: &str) -> Result<Option<AppStatus>, RestError> {
    match app_of(id) {
        Some(app) => Ok(server.gateway.status(app).await?),
        None => Ok(None),
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
            route("/v1/submissions/killall/x"),
            Ok(Route::KillAll)
        ));
        assert!(matches!(route("/v1/submissions/clear/"), Ok(Route::Clear)));
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
