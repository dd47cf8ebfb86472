//! The output of applications over HTTP: a piece of it, or all there will be.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Query;
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::ReaderStream;

use crate::ids::AppId;
use crate::log_follower::LogNews;
use crate::messages::LogRequest;
use crate::rest::error::RestError;
use crate::rest::gateway::{GatewayError, LogPiece, LogSource, SubmissionGateway};
use crate::worker::LogStream;

/// Where a body begins in the output.
const OFFSET: HeaderName = HeaderName::from_static("x-aloha-offset");
/// Where the next piece begins.
const NEXT_OFFSET: HeaderName = HeaderName::from_static("x-aloha-next-offset");
/// What is handed to the connection at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Answers with the output that the query asks for.
pub(super) async fn answer(
    gateway: &dyn SubmissionGateway,
    app: &AppId,
    uri: &Uri,
) -> Result<Response, RestError> {
    let LogQuery { request, follow } = query(uri).map_err(RestError::Malformed)?;
    if !follow {
        let LogPiece {
            bytes,
            offset,
            next_offset,
        } = gateway.read_log(app, request).await?;
        let mut response = respond(offset, Body::from(bytes));
        let next_offset = HeaderValue::from(next_offset);
        response.headers_mut().insert(NEXT_OFFSET, next_offset);
        return Ok(response);
    }
    let (offset, source) = gateway.follow_log(app, request).await?;
    let stream = ReaderStream::with_capacity(Following::new(source), CHUNK_BYTES);
    Ok(respond(offset, Body::from_stream(stream)))
}

fn respond(offset: u64, body: Body) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ),
        // Whatever an application writes, no browser shall take it for a page.
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (OFFSET, HeaderValue::from(offset)),
    ];
    (headers, body).into_response()
}

#[derive(Debug, PartialEq, Eq)]
struct LogQuery {
    request: LogRequest,
    follow: bool,
}

/// Reads the query; the error says which parameter is wrong, and how.
fn query(uri: &Uri) -> Result<LogQuery, String> {
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| format!("the query cannot be read: {}", error.body_text()))?;
    let mut request = LogRequest::new(LogStream::Stdout);
    let mut follow = false;
    for (name, value) in parameters {
        let wrong = |expected| format!("the parameter {name} is {value:?}, expected {expected}");
        match name.as_str() {
            "stream" => {
                request.stream = match value.as_str() {
                    "stdout" => LogStream::Stdout,
                    "stderr" => LogStream::Stderr,
                    _ => return Err(wrong("stdout or stderr")),
                }
            }
            "offset" => {
                let offset = value.parse();
                request.offset = offset.map_err(|_| wrong("a number of bytes"))?;
            }
            "attempt" => {
                let attempt = value.parse().ok().filter(|attempt| *attempt > 0);
                let attempt: u32 = attempt.ok_or_else(|| wrong("a whole number from 1 on"))?;
                request.attempt = Some(attempt);
            }
            "follow" => follow = value.parse().map_err(|_| wrong("true or false"))?,
            _ => {
                return Err(format!(
                    "unknown parameter {name:?}, expected stream, offset, attempt or follow"
                ));
            }
        }
    }
    Ok(LogQuery { request, follow })
}

/// Output that is followed for as long as the connection asks for more: no task, and no queue.
struct Following {
    next: Next,
    /// Not handed on yet.
    text: io::Cursor<Vec<u8>>,
    at_line_start: bool,
    ended: bool,
}

/// The question for the next news.
struct Next(Pin<Box<dyn Future<Output = Told> + Send>>);

/// What a source said, and the source.
struct Told {
    source: Box<dyn LogSource>,
    news: Result<Option<LogNews>, GatewayError>,
}

impl Next {
    fn of(mut source: Box<dyn LogSource>) -> Self {
        Self(Box::pin(async move {
            let news = source.next().await;
            Told { source, news }
        }))
    }
}

impl Following {
    fn new(source: Box<dyn LogSource>) -> Self {
        Self {
            next: Next::of(source),
            text: io::Cursor::default(),
            at_line_start: true,
            ended: false,
        }
    }

    fn take(&mut self, news: LogNews) {
        let text = match news {
            LogNews::Piece(bytes) => bytes,
            // There is no other place for it.
            other => {
                let line_end = if self.at_line_start { "" } else { "\n" };
                format!("{line_end}[aloha: {other}]\n").into_bytes()
            }
        };
        if let Some(last) = text.last() {
            self.at_line_start = *last == b'\n';
        }
        self.text = io::Cursor::new(text);
    }
}

impl AsyncRead for Following {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            ready!(Pin::new(&mut self.text).poll_read(cx, buf))?;
            if buf.filled().len() > before || self.ended {
                return Poll::Ready(Ok(()));
            }
            let Told { source, news } = ready!(self.next.0.as_mut().poll(cx));
            // The future that has ended must not be asked again.
            self.next = Next::of(source);
            match news.map_err(io::Error::other)? {
                Some(news) => self.take(news),
                None => self.ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<LogQuery, String> {
        let uri = format!("/v1/applications/app-1/logs{text}");
        query(&uri.parse().expect("a path"))
    }

    #[test]
    fn a_query_without_parameters_is_for_the_beginning_of_standard_output() {
        let expected = LogQuery {
            request: LogRequest::new(LogStream::Stdout),
            follow: false,
        };
        assert_eq!(asked(""), Ok(expected));
        let expected = LogQuery {
            request: LogRequest {
                attempt: Some(2),
                offset: u64::MAX,
                ..LogRequest::new(LogStream::Stderr)
            },
            follow: true,
        };
        let query = format!("?stream=stderr&offset={}&attempt=2&follow=true", u64::MAX);
        assert_eq!(asked(&query), Ok(expected));
    }

    #[test]
    fn each_bad_parameter_is_named_with_what_it_should_be() {
        for (query, message) in [
            (
                "?stream=out",
                r#"the parameter stream is "out", expected stdout or stderr"#,
            ),
            (
                "?offset=-1",
                r#"the parameter offset is "-1", expected a number of bytes"#,
            ),
            (
                "?offset=",
                r#"the parameter offset is "", expected a number of bytes"#,
            ),
            (
                "?attempt=0",
                r#"the parameter attempt is "0", expected a whole number from 1 on"#,
            ),
            (
                "?follow=yes",
                r#"the parameter follow is "yes", expected true or false"#,
            ),
            (
                "?limit=1",
                r#"unknown parameter "limit", expected stream, offset, attempt or follow"#,
            ),
        ] {
            assert_eq!(asked(query), Err(message.to_owned()));
        }
    }
}
