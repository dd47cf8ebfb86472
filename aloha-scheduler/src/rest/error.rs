//! Errors of the REST server and their HTTP status.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::VERSION;
use super::api::{self, ApiError};
use super::gateway::GatewayError;
use super::places::RETRY_AFTER_MILLIS;
use super::standby::LeaderSite;
use super::submissions::Reply;
use crate::election::MasterAddress;
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
    #[error("the headers did not arrive within {timeout:?} (aloha.master.rest.headerTimeout)")]
    SlowHead { timeout: Duration },
    #[error("this port speaks HTTP/1.1")]
    Http2,
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
    /// Nothing was done; it may be worth to try again.
    #[error("{reason}")]
    Busy {
        reason: String,
        retry_after_millis: u64,
    },
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

impl RestError {
    /// Others need what a request holds that does not come to its end.
    pub(super) fn evicted() -> Self {
        Self::Busy {
            reason: "this request came too slowly, and others need its place \
                     (aloha.master.rest.connectionsMax, aloha.master.rest.bodiesBytesMax); try again"
                .into(),
            retry_after_millis: RETRY_AFTER_MILLIS,
        }
    }

    /// The server ends, and with it what would come later.
    pub(super) fn stopping() -> Self {
        Self::Busy {
            reason: "this master stops; another may answer".into(),
            retry_after_millis: RETRY_AFTER_MILLIS,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            // Spark's own, from the range that HTTP leaves free.
            Self::UnknownVersion(_) => StatusCode::from_u16(468).expect("within 100 to 999"),
            Self::WrongMethod { .. } | Self::NoSuchMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } | Self::SlowHead { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Http2 => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Gateway(GatewayError::NotFound { .. }) => StatusCode::NOT_FOUND,
            Self::Conflict(_) | Self::KeyReused(_) => StatusCode::CONFLICT,
            Self::Busy { .. } | Self::Gateway(GatewayError::NotReady { .. }) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Gateway(GatewayError::Standby { .. }) => match self.leader_site() {
                Some(_) => StatusCode::TEMPORARY_REDIRECT,
                None => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Gateway(GatewayError::Failed { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The master that leads, where this one does not.
    pub(super) fn leader(&self) -> Option<&MasterAddress> {
        match self {
            Self::Gateway(GatewayError::Standby { leader }) => leader.as_ref(),
            _ => None,
        }
    }

    /// Where the client goes with the same request.
    pub(super) fn leader_site(&self) -> Option<LeaderSite> {
        self.leader().and_then(LeaderSite::of)
    }

    /// The header that HTTP wants with this status.
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::WrongMethod { expected } => {
                let allowed = match *expected {
                    Method::GET => "GET, HEAD",
                    _ => expected.as_str(),
                };
                let value = HeaderValue::from_str(allowed);
                Some((header::ALLOW, value.expect("methods are tokens")))
            }
            Self::Busy {
                retry_after_millis, ..
            } => Some(retry_header(*retry_after_millis)),
            Self::Gateway(GatewayError::NotReady { .. }) => Some(retry_header(RETRY_AFTER_MILLIS)),
            Self::Gateway(GatewayError::Standby { .. }) if self.leader_site().is_none() => {
                Some(retry_header(RETRY_AFTER_MILLIS))
            }
            Self::Unauthorized => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            _ => None,
        }
    }

    /// The whole answer, for a connection that ends with it: in the form of our own resources, or of Spark's protocol.
    pub(super) fn to_bytes(&self, is_own: bool) -> Vec<u8> {
        let (kind, body) = match is_own {
            true => (api::PROBLEM_JSON, api::problem_json(self)),
            false => (
                "application/json",
                Reply::error(self.to_string(), None).to_json(),
            ),
        };
        let mut text = format!(
            "HTTP/1.1 {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n",
            self.status(),
            body.len()
        );
        if let Some((name, value)) = self.header() {
            let value = value.to_str().unwrap_or_default();
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        [text.into_bytes(), body].concat()
    }
}

/// In seconds, rounded up: earlier would be in vain.
fn retry_header(after_millis: u64) -> (HeaderName, HeaderValue) {
    let seconds = after_millis.div_ceil(1_000).max(1);
    (header::RETRY_AFTER, HeaderValue::from(seconds))
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
        if let Some(site) = self.leader_site() {
            response.extensions_mut().insert(site);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_after(error: RestError) -> (u16, Option<u64>) {
        let response = error.into_response();
        let header = response.headers().get(header::RETRY_AFTER);
        let seconds = header.map(|value| value.to_str().expect("text").parse().expect("a number"));
        (response.status().as_u16(), seconds)
    }

    #[test]
    fn who_shall_try_again_is_told_when_and_never_too_early() {
        let busy = |retry_after_millis| RestError::Busy {
            reason: "the store is slow".into(),
            retry_after_millis,
        };
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_500, 60)] {
            assert_eq!(retry_after(busy(millis)), (503, Some(seconds)), "{millis}");
        }
        let reason = || "it does not lead".to_owned();
        let standby = GatewayError::NotReady { reason: reason() };
        assert_eq!(retry_after(standby.into()), (503, Some(1)));
        let failed = GatewayError::Failed { reason: reason() };
        assert_eq!(retry_after(failed.into()), (500, None));
    }

    #[test]
    fn a_last_answer_is_whole_and_the_same_as_others() {
        let error = RestError::evicted();
        let text = String::from_utf8(error.to_bytes(false)).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert_eq!(
            head,
            format!(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\nconnection: close\r\nretry-after: 1",
                body.len()
            )
        );
        let expected = Reply::error(error.to_string(), None).to_json();
        assert_eq!(body.as_bytes(), expected);
    }
}
