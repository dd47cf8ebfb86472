//! Workers that are drained.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::parameters::{Parameters, wrong};
use super::path_id::{PathId, no_such};
use super::problem::ApiError;
use crate::drain::{
    DrainAnswer, DrainFate, DrainMode, DrainPhase, DrainRequest, DrainStatus, LeftApp,
};
use crate::ids::WorkerId;
use crate::master::WorkerState;
use crate::rest::Server;
use crate::rest::error::RestError;

/// The longest timeout that makes sense: ten years, in seconds.
const TIMEOUT_MAX: u32 = 10 * 365 * 86_400;

/// How the drain of a worker stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Drain {
    /// Where the worker is reached, `host:port`.
    address: String,
    /// What is left on it.
    left: Vec<Left>,
    /// What a person should know.
    message: String,
    /// What becomes of applications that may be started elsewhere; absent where the worker is not drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    mode: Option<DrainMode>,
    phase: DrainPhase,
    state: WorkerState,
    /// When what is left is ended or moved; absent for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    /// Applications that were moved off it and wait for room elsewhere.
    waiting: Vec<String>,
    /// The worker's id.
    worker_id: String,
}

/// An application that is left on a worker that is drained.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Left {
    /// What becomes of it.
    fate: DrainFate,
    /// The application's id.
    id: String,
}

impl From<DrainStatus> for Drain {
    fn from(status: DrainStatus) -> Self {
        let left = |LeftApp { id, fate }| Left {
            fate,
            id: id.to_string(),
        };
        Self {
            address: status.address,
            left: status.left.into_iter().map(left).collect(),
            message: status.message,
            mode: status.mode,
            phase: status.phase,
            state: status.state,
            until: status.until,
            waiting: status.waiting.iter().map(ToString::to_string).collect(),
            worker_id: status.worker.to_string(),
        }
    }
}

/// Drain a worker.
///
/// It takes nothing new, its applications end or move, and then it leaves. The answer comes at once: ask how it stands.
/// Asked again, it takes the place of what was asked before. Unknown parameters are refused.
#[utoipa::path(
    post,
    path = "/v1/workers/{id}/drain",
    operation_id = "drainWorker",
    tag = "cluster",
    params(
        ("id" = String, Path, description = "The worker's id."),
        ("mode" = Option<DrainMode>, Query,
            description = "`move` has applications that may be started elsewhere moved at once, `wait` lets them run on. \
                `move` where absent. Others run to their end."),
        ("timeout" = Option<u32>, Query, minimum = 0, maximum = 315_360_000,
            description = "After how many seconds what is left is ended or moved. Never where absent."),
    ),
    responses(
        (status = 202, description = "It is being drained, or gone already.", body = Drain),
        (status = 400, description = "A parameter is unknown or wrong."),
        (status = 404, description = "There is no such worker."),
    )
)]
pub(super) async fn begin(
    State(server): State<Server>,
    PathId(id): PathId<WorkerId>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let request = request(&uri)?;
    let drain = put(&server, &id, request).await?;
    Ok((StatusCode::ACCEPTED, drain).into_response())
}

/// Show how the drain of a worker stands.
#[utoipa::path(
    get,
    path = "/v1/workers/{id}/drain",
    operation_id = "getDrain",
    tag = "cluster",
    params(("id" = String, Path, description = "The worker's id.")),
    responses(
        (status = 200, description = "How it stands; `phase` is `NONE` where it is not drained.", body = Drain),
        (status = 404, description = "There is no such worker."),
    )
)]
pub(super) async fn show(
    State(server): State<Server>,
    PathId(id): PathId<WorkerId>,
) -> Result<Json<Drain>, ApiError> {
    put(&server, &id, DrainRequest::Look).await
}

/// Drain a worker no more.
///
/// It takes applications again. What was moved stays where it is.
#[utoipa::path(
    delete,
    path = "/v1/workers/{id}/drain",
    operation_id = "cancelDrain",
    tag = "cluster",
    params(("id" = String, Path, description = "The worker's id.")),
    responses(
        (status = 200, description = "It is not drained, or never was.", body = Drain),
        (status = 404, description = "There is no such worker."),
    )
)]
pub(super) async fn cancel(
    State(server): State<Server>,
    PathId(id): PathId<WorkerId>,
) -> Result<Json<Drain>, ApiError> {
    put(&server, &id, DrainRequest::Cancel).await
}

async fn put(
    server: &Server,
    id: &WorkerId,
    request: DrainRequest,
) -> Result<Json<Drain>, ApiError> {
    match server.gateway.drain(id.as_str(), request).await? {
        DrainAnswer::Drain(status) => Ok(Json(status.into())),
        DrainAnswer::NoSuchWorker { .. } => Err(no_such::<WorkerId>(id.as_str())),
    }
}

fn request(uri: &Uri) -> Result<DrainRequest, RestError> {
    let parameters = Parameters::read(uri, &["mode", "timeout"])?;
    let mode = match parameters.one("mode")? {
        None | Some("move") => DrainMode::Move,
        Some("wait") => DrainMode::Wait,
        Some(other) => return Err(wrong("mode", other, "move or wait")),
    };
    let timeout = parameters.number("timeout", 0..=TIMEOUT_MAX)?;
    Ok(DrainRequest::Begin {
        mode,
        timeout_millis: timeout.map(|seconds| u64::from(seconds) * 1_000),
    })
}
