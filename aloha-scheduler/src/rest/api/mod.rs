//! Aloha's own resources: what Spark's protocol has no word for.
//!
//! Each handler carries its part of the OpenAPI document, and is routed and described by the same line: there is no
//! list to keep. Every error is a problem (RFC 9457).

mod applications;
mod cluster;
mod document;
mod drain;
mod logs;
mod new_application;
mod parameters;
mod path_id;
mod problem;
mod resources;

use axum::Router;
use axum::body::Bytes;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::new_application::{REQUIRED, example, properties};
pub(super) use self::problem::{ApiError, PROBLEM_JSON, nothing_there, problem_json};
use super::Server;

/// The routes of the resources, and the document that describes them.
pub(super) fn routes(wants_token: bool) -> (Router<Server>, Bytes) {
    let (router, openapi) = OpenApiRouter::with_openapi(document::outline())
        .routes(routes!(applications::list, applications::submit))
        .routes(routes!(applications::show, applications::forget))
        .routes(routes!(applications::kill))
        .routes(routes!(applications::wait))
        .routes(routes!(logs::logs))
        .routes(routes!(cluster::workers))
        .routes(routes!(cluster::worker))
        .routes(routes!(drain::begin, drain::show, drain::cancel))
        .routes(routes!(cluster::cluster))
        .routes(routes!(document::show))
        .split_for_parts();
    let router = router.method_not_allowed_fallback(problem::other_method);
    (router, document::finish(openapi, wants_token))
}

/// Whether a path is one of these resources, or below one.
pub(super) fn is_own(path: &str) -> bool {
    let resource = path.strip_prefix("/v1/").unwrap_or_default();
    let (resource, _) = resource.split_once('/').unwrap_or((resource, ""));
    matches!(
        resource,
        "applications" | "workers" | "cluster" | "openapi.json"
    )
}
