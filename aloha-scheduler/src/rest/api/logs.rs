//! The output of applications over HTTP: a piece of it, or all there will be.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::ReaderStream;

use super::parameters::{Parameters, wrong};
use super::path_id::PathId;
use super::problem::ApiError;
use crate::ids::AppId;
use crate::log_follower::LogNews;
use crate::messages::LogRequest;
use crate::rest::Server;
use crate::rest::error::RestError;
use crate::rest::gateway::{GatewayError, LogPiece, LogSource};
use crate::worker::LogStream;

/// Where a body begins in the output.
const OFFSET: HeaderName = HeaderName::from_static("x-aloha-offset");
/// Where the next piece begins.
const NEXT_OFFSET: HeaderName = HeaderName::from_static("x-aloha-next-offset");
/// The largest offset: what every reader of JSON knows as a whole number.
const OFFSET_MAX: u64 = (1 << 53) - 1;
/// What is handed to the connection at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Read or follow an application's output.
///
/// The output is as the application wrote it. Followed, it comes as it is written, until the application has ended;
/// what else happens, such as another attempt, stands between as a line in brackets. Unknown parameters are refused.
#[utoipa::path(
    get,
    path = "/v1/applications/{id}/logs",
    operation_id = "readLogs",
    tag = "applications",
    params(
        ("id" = String, Path, description = "The application's id."),
        ("stream" = Option<String>, Query, pattern = "^std(out|err)$",
            description = "Which of its outputs. `stdout` where absent."),
        ("offset" = Option<u64>, Query, minimum = 0, maximum = 9007199254740991_i64,
            description = "From which byte on. From the first where absent."),
        ("attempt" = Option<u32>, Query, minimum = 1, maximum = 4294967295_u32,
            description = "Of which attempt. Of the latest where absent."),
        ("follow" = Option<bool>, Query,
            description = "Whether to go on as it is written. If not, up to 256 KiB come at once."),
    ),
    responses(
        (status = 200, description = "The output.", body = String, content_type = "text/plain",
            headers(
                ("x-aloha-offset" = u64, description = "Where the body begins in the output."),
                ("x-aloha-next-offset" = Option<u64>, description = "Where the next piece begins; absent if followed."),
            )),
        (status = 400, description = "A parameter is unknown, repeated or wrong."),
        (status = 404, description = "There is no such application, attempt or output."),
    )
)]
pub(super) async fn logs(
    State(server): State<Server>,
    PathId(app): PathId<AppId>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let LogQuery { request, follow } = query(&uri)?;
    if !follow {
        let LogPiece {
            bytes,
            offset,
            next_offset,
        } = server.gateway.read_log(&app, request).await?;
        let mut response = respond(offset, Body::from(bytes));
        let next_offset = HeaderValue::from(next_offset);
        response.headers_mut().insert(NEXT_OFFSET, next_offset);
        return Ok(response);
    }
    let (offset, source) = server.gateway.follow_log(&app, request).await?;
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

fn query(uri: &Uri) -> Result<LogQuery, RestError> {
    let parameters = Parameters::read(uri, &["stream", "offset", "attempt", "follow"])?;
    let stream = match parameters.one("stream")? {
        None | Some("stdout") => LogStream::Stdout,
        Some("stderr") => LogStream::Stderr,
        Some(other) => return Err(wrong("stream", other, "stdout or stderr")),
    };
    let follow = parameters.parsed("follow", "true or false")?;
    let request = LogRequest {
        offset: parameters.number("offset", 0..=OFFSET_MAX)?.unwrap_or(0),
        attempt: parameters.number("attempt", 1..=u32::MAX)?,
        ..LogRequest::new(stream)
    };
    let follow = follow.unwrap_or(false);
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
        let query = query(&uri.parse().expect("a path"));
        query.map_err(|error| error.to_string())
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
                offset: OFFSET_MAX,
                ..LogRequest::new(LogStream::Stderr)
            },
            follow: true,
        };
        let query = format!("?stream=stderr&offset={OFFSET_MAX}&attempt=2&follow=true");
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
                r#"the parameter offset is "-1", expected a whole number from 0 to 9007199254740991"#,
            ),
            (
                "?offset=",
                r#"the parameter offset is "", expected a whole number from 0 to 9007199254740991"#,
            ),
            (
                "?attempt=0",
                r#"the parameter attempt is "0", expected a whole number from 1 to 4294967295"#,
            ),
            (
                "?follow=yes",
                r#"the parameter follow is "yes", expected true or false"#,
            ),
            (
                "?limit=1",
                r#"unknown parameter "limit", expected any of stream, offset, attempt, follow"#,
            ),
        ] {
            assert_eq!(asked(query), Err(message.to_owned()));
        }
    }
}
