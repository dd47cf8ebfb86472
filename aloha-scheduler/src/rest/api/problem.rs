//! The one form of every error of this API: problem details (RFC 9457).

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::error::RestError;
use crate::rest::gateway::GatewayError;

/// The content type of a problem.
pub(in crate::rest) const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not processed (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status says which kind of problem it is.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: &'static str,
    /// What the status means.
    title: &'static str,
    /// The status of the response.
    #[schema(minimum = 307, maximum = 599)]
    status: u16,
    /// What is wrong with this request, and what to do about it.
    detail: String,
    /// The RPC address of the master that leads, where this one does not and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
}

/// An error of this API.
#[derive(Debug)]
pub(in crate::rest) struct ApiError(RestError);

impl<E: Into<RestError>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// An error as the JSON of a problem.
pub(in crate::rest) fn problem_json(error: &RestError) -> Vec<u8> {
    let status = error.status();
    let problem = Problem {
        kind: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        detail: error.to_string(),
        leader: error.leader().map(|leader| leader.rpc.clone()),
    };
    serde_json::to_vec(&problem).expect("texts and numbers are always JSON")
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let (status, body) = (error.status(), problem_json(&error));
        let kind = HeaderValue::from_static(PROBLEM_JSON);
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        response.headers_mut().extend(error.header());
        if let Some(site) = error.leader_site() {
            response.extensions_mut().insert(site);
        }
        response
    }
}

/// The answer where there is nothing.
pub(in crate::rest) fn nothing_there(uri: &Uri) -> Response {
    let reason = format!(
        "there is nothing at {}, see /v1/openapi.json for what there is",
        uri.path()
    );
    ApiError::from(GatewayError::NotFound { reason }).into_response()
}

/// The answer to a method that a path does not have. The router adds which it has.
pub(super) async fn other_method(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    ApiError::from(RestError::NoSuchMethod(format!(
        "{} has no {method}, see the header Allow for what it has",
        uri.path()
    )))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_tried_again_says_when() {
        let busy = RestError::Busy {
            reason: "the disk is slow".into(),
            retry_after_millis: 1_200,
        };
        let response = ApiError::from(busy).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    }
}
