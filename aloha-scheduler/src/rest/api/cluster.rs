//! Workers, and the cluster as a whole.

use axum::Json;
use axum::extract::State;

use super::path_id::{PathId, no_such};
use super::problem::ApiError;
use super::resources::{Cluster, Worker, WorkerList};
use crate::ids::WorkerId;
use crate::rest::Server;

/// List workers.
#[utoipa::path(
    get,
    path = "/v1/workers",
    operation_id = "listWorkers",
    tag = "cluster",
    responses((status = 200, description = "The workers.", body = WorkerList))
)]
pub(super) async fn workers(State(server): State<Server>) -> Result<Json<WorkerList>, ApiError> {
    let workers = server.gateway.workers().await?;
    let workers = workers.into_iter().map(Worker::from).collect();
    Ok(Json(WorkerList { workers }))
}

/// Show a worker.
#[utoipa::path(
    get,
    path = "/v1/workers/{id}",
    operation_id = "getWorker",
    tag = "cluster",
    params(("id" = String, Path, description = "The worker's id.")),
    responses(
        (status = 200, description = "The worker.", body = Worker),
        (status = 404, description = "There is no such worker."),
    )
)]
pub(super) async fn worker(
    State(server): State<Server>,
    PathId(id): PathId<WorkerId>,
) -> Result<Json<Worker>, ApiError> {
    let workers = server.gateway.workers().await?;
    let found = workers.into_iter().find(|worker| worker.id == id);
    let found = found.ok_or_else(|| no_such::<WorkerId>(id.as_str()))?;
    Ok(Json(found.into()))
}

/// Show the cluster as a whole.
#[utoipa::path(
    get,
    path = "/v1/cluster",
    operation_id = "getCluster",
    tag = "cluster",
    responses((status = 200, description = "The cluster, as its leader sees it.", body = Cluster))
)]
pub(super) async fn cluster(State(server): State<Server>) -> Result<Json<Cluster>, ApiError> {
    Ok(Json(server.gateway.cluster().await?.into()))
}
