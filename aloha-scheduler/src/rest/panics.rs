//! What becomes of a request whose handling panics: it is answered, and its connection serves the next.

use std::future::{Future as _, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::error;

use crate::application::panics::text_of;

/// Answers 500 with nothing in it where a handler panics, as Spark's server does.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut handled = pin!(next.run(request));
    poll_fn(|cx| {
        // After a panic nothing of it is used again.
        let polled = catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| {
            error!(
                path,
                panic = text_of(&*panic),
                "a request made its handler panic"
            );
            Poll::Ready(StatusCode::INTERNAL_SERVER_ERROR.into_response())
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::http::Uri;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_is_an_empty_500() {
        let router = Router::new()
            .fallback(async |uri: Uri| {
                assert_eq!(uri.path(), "/good", "on purpose");
                "fine"
            })
            .layer(axum::middleware::from_fn(answer));
        let service = TowerToHyperService::new(router);
        for (path, status, expected) in [("/bad", 500, ""), ("/good", 200, "fine")] {
            let request = Request::get(path).body(Body::empty()).expect("a request");
            let answered = service.call(request).await.expect("always an answer");
            assert_eq!(answered.status(), status);
            let body = to_bytes(answered.into_body(), 100).await.expect("a body");
            assert_eq!(body, expected);
        }
    }
}
