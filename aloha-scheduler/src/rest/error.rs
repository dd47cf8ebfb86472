//! Errors of the REST server and their HTTP status.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::VERSION;
use super::api::{self, ApiError};
use super::gateway::GatewayError;
use super::submissions::Reply;
use crate::ids::AppId;
use crate::messages::key_reused;

/// Why a request was not processed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestError {
    #[error("{0}")]
    Malformed(String),
    #[error("unknown protocol version {0:?}, this server speaks {VERSION}")]
    UnknownVersion(String),
    #[error("this path wants {expected}")]
    WrongMethod { expected: Method },
    #[error("the body is larger than {bytes_max} bytes (aloha.master.rest.bodyBytesMax)")]
    TooLarge { bytes_max: usize },
    #[error("the body did not arrive within {timeout:?} (aloha.master.rest.bodyTimeout)")]
    TooSlow { timeout: Duration },
    #[error("a bearer token is required, and this request has none or a wrong one")]
    Unauthorized,
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    NoSuchMethod(String),
    #[error("{}", key_reused(.0))]
    KeyReused(AppId),
    #[error("{reason}")]
    Busy {
        reason: String,
        retry_after_millis: u64,
    },
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

impl RestError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            // Spark's own, from the range that HTTP leaves free.
            Self::UnknownVersion(_) => StatusCode::from_u16(468).expect("within 100 to 999"),
            Self::WrongMethod { .. } | Self::NoSuchMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Gateway(GatewayError::NotFound { .. }) => StatusCode::NOT_FOUND,
            Self::Conflict(_) | Self::KeyReused(_) => StatusCode::CONFLICT,
            Self::Busy { .. } | Self::Gateway(GatewayError::NotReady { .. }) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Gateway(GatewayError::Failed { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The header that HTTP wants with this status.
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::WrongMethod { expected } => {
                let value = HeaderValue::from_str(expected.as_str());
                Some((header::ALLOW, value.expect("a method is a token")))
            }
            Self::Busy {
                retry_after_millis, ..
            } => {
                let seconds = retry_after_millis.div_ceil(1_000);
                Some((header::RETRY_AFTER, HeaderValue::from(seconds)))
            }
            Self::Unauthorized => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            _ => None,
        }
    }
}

impl RestError {
    /// The answer in the form that the path's protocol has for it.
    pub(super) fn response_for(self, uri: &Uri) -> Response {
        match api::is_own(uri.path()) {
            true => ApiError::from(self).into_response(),
            false => self.into_response(),
        }
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let newest = matches!(self, Self::UnknownVersion(_)).then_some(VERSION);
        let mut response = Reply::error(self.to_string(), newest).into_response(self.status());
        response.headers_mut().extend(self.header());
        response
    }
}
