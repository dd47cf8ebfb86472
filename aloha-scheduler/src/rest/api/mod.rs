//! Aloha's own resources: what Spark's protocol has no word for.

mod logs;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Server;
use super::error::RestError;
use super::gateway::GatewayError;
use crate::ids::AppId;

/// The routes of the resources.
pub(super) fn router() -> Router<Server> {
    Router::new()
        .route("/v1/applications/{id}/logs", get(logs))
        .method_not_allowed_fallback(async || RestError::WrongMethod {
            expected: Method::GET,
        })
}

async fn logs(State(server): State<Server>, Path(id): Path<String>, uri: Uri) -> Response {
    let answer = async {
        let app = parse(&id)?;
        logs::answer(&*server.gateway, &app, &uri).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

fn parse(id: &str) -> Result<AppId, RestError> {
    let parsed = id.parse();
    parsed.map_err(|_| {
        let reason = format!("there is no application {id}");
        GatewayError::NotFound { reason }.into()
    })
}
