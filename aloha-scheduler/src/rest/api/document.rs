//! The OpenAPI document: made of the routes themselves, and of what holds for all of them.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

use super::is_own;
use super::problem::{PROBLEM_JSON, Problem};
use crate::rest::{Server, submissions};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Aloha",
        description = "Submits, watches and ends applications of a cluster. Times are in milliseconds since 1970.",
    ),
    components(schemas(Problem)),
    tags(
        (name = "applications", description = "What runs, ran or will run."),
        (name = "cluster", description = "Where it runs."),
        (name = "submissions", description = "The protocol of Spark's submission server."),
        (name = "document", description = "This document."),
    ),
)]
struct Outline;

/// The document, as far as no route is concerned.
pub(super) fn outline() -> OpenApi {
    Outline::openapi()
}

/// Show this document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "getDocument",
    tag = "document",
    responses((status = 200, description = "The OpenAPI document of this server.", body = Object))
)]
pub(super) async fn show(State(server): State<Server>) -> impl IntoResponse {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, server.document)
}

/// Adds what holds for every operation, and writes it down.
pub(super) fn finish(openapi: OpenApi, wants_token: bool) -> Bytes {
    let mut document = serde_json::to_value(openapi).expect("a document is JSON");
    if wants_token {
        document["security"] = json!([{"bearer": []}]);
        document["components"]["securitySchemes"] = json!({
            "bearer": {"type": "http", "scheme": "bearer", "description": "The token of the master."},
        });
    }
    let mut paths = take(&mut document["paths"]);
    let mut schemas = take(&mut document["components"]["schemas"]);
    schemas.values_mut().for_each(forbid_null);
    submissions::describe(&mut paths, &mut schemas);
    for (path, item) in &mut paths {
        let error = match is_own(path) {
            true => (PROBLEM_JSON, "Problem"),
            false => ("application/json", "ErrorResponse"),
        };
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            complete(operation, error, wants_token);
        }
    }
    document["paths"] = paths.into();
    document["components"]["schemas"] = schemas.into();
    serde_json::to_vec(&document)
        .expect("a document is JSON")
        .into()
}

fn take(object: &mut Value) -> Map<String, Value> {
    match object.take() {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// What is absent in an answer is left out, and never null.
fn forbid_null(schema: &mut Value) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return;
    };
    for property in properties.values_mut() {
        let kind = property.get_mut("type");
        if let Some(kind) = kind
            && let Some([known, Value::String(null)]) = kind.as_array().map(Vec::as_slice)
            && null == "null"
        {
            *kind = known.clone();
        }
    }
}

/// What every master answers for itself, whether it leads or not.
const OF_EACH_MASTER: [&str; 2] = ["getDocument", "getReadiness"];

/// Adds the errors that any operation may end with, and what an error looks like.
fn complete(operation: &mut Value, (media_type, schema): (&str, &str), wants_token: bool) {
    let mut common = vec![
        (
            "403",
            "The request comes from a page of another server, or is meant for another one.",
        ),
        ("500", "The master failed."),
        ("503", "The master cannot answer now; nothing was done."),
    ];
    if !OF_EACH_MASTER
        .iter()
        .any(|id| operation["operationId"] == *id)
    {
        common.push((
            "307",
            "Another master leads: the same request belongs there. A client that follows sends no token along of itself.",
        ));
    }
    if wants_token && operation.get("security").is_none() {
        common.push(("401", "The token is missing or wrong."));
    }
    if operation.get("requestBody").is_some() {
        common.push(("408", "The body did not arrive in time."));
        common.push(("413", "The body is too large."));
    }
    let responses = operation["responses"].as_object_mut();
    let responses = responses.expect("an operation has responses");
    for (status, description) in common {
        let response = json!({"description": description});
        responses.entry(status).or_insert(response);
    }
    for (status, response) in responses {
        if status.as_str() < "300" {
            continue;
        }
        let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
        response["content"] = json!({media_type: {"schema": schema}});
        let (name, header) = match status.as_str() {
            "307" => (
                "Location",
                json!({
                    "description": "The same path and query at the master that leads.",
                    "schema": {"type": "string", "format": "uri"},
                }),
            ),
            "401" => ("WWW-Authenticate", json!({"schema": {"const": "Bearer"}})),
            "503" => (
                "Retry-After",
                json!({
                    "description": "When to try again, in seconds.",
                    "schema": {"type": "integer", "minimum": 0},
                }),
            ),
            _ => continue,
        };
        response["headers"] = json!({name: header});
    }
}
